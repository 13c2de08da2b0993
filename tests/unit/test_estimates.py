"""preflight/rates.py and cost.py: what a run costs follows from the backbone that is named, and from measured rates."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_look_over import folder, write_weights

from flawsmith.config import Config, validate
from flawsmith.data import images
from flawsmith.preflight.backbone import look_over
from flawsmith.preflight.check import check
from flawsmith.preflight.rates import rate_of


def make(root: Path) -> Path:
    """Write a set of one product: three normal parts and two dents."""
    rng = np.random.default_rng(0)
    for name in ("train/good/0", "train/good/1", "train/good/2", "test/dent/0", "test/dent/1"):
        images.write(root / f"nut/{name}.png", rng.integers(0, 256, (48, 64), dtype=np.uint8))
    mask = np.zeros((48, 64), bool)
    mask[8:20, 10:22] = True
    for number in range(2):
        images.write_mask(root / f"nut/ground_truth/dent/{number}_mask.png", mask)
    return root


def diffusion(root: Path, place: Path, batch: int = 16) -> Config:
    tree = {"data": {"root": root, "shots": 3}, "generator": {"name": "cross_modal"}, "train": {"batch": batch}}
    return validate(Config, tree | {"backbone": {"source": str(place), "device": "cpu"}})


def test_the_estimate_is_the_backbones_own(tmp_path: Path):
    """Time by parameters and pixels: twice the side costs four times, twice the parameters twice."""
    place = folder(tmp_path / "sd")
    make(tmp_path / "set")
    config = diffusion(tmp_path / "set", place)
    write_weights(place / "unet" / "diffusion_pytorch_model.safetensors", 10_000_000)
    found = check(config)
    assert not found.errors and "Stable Diffusion 2, inpainting (9 channels), 768 px, 10 M" in found.estimate["assumes"]
    assert found.estimate["assumes"].startswith("768 px windows")
    facts = look_over(str(place), offline=True)
    assert facts is not None
    for unet, generator in ((10e6, "hybrid"), (900e6, "controlnet_inpaint"), (900e6, "another")):
        one, wide, deep = (
            rate_of(generator, replace(facts, parameters={"unet": int(unet * more)}), "GPU", size)
            for more, size in ((1, 512), (1, 1024), (2, 512))
        )
        assert wide.train == pytest.approx(4 * one.train) and deep.draw == pytest.approx(2 * one.draw)
        assert wide.fixed == one.fixed and wide.window == pytest.approx(4 * one.window)
    measured = json.loads((Path(__file__).parents[2] / "benchmarks/results/memory.json").read_text())["generators"]
    sd15 = replace(facts, parameters={"unet": 859_500_000})
    for generator, figures in measured.items():
        rate = rate_of(generator, sd15, "GPU", 512)
        for batch in (1, 4, 16):
            gigabytes = figures["train"][f"batch {batch}"]["reserved_gib"] * 2**30 / 1e9
            assert rate.fixed + batch * rate.window == pytest.approx(gigabytes, rel=0.15), (generator, batch)
        assert rate.train == pytest.approx(10 * figures["train"]["batch 16"]["seconds_per_step"] / 16, rel=0.01)


def test_a_card_that_is_too_small_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    driver = tmp_path / "bin" / "nvidia-smi"
    driver.parent.mkdir()
    driver.write_text("#!/bin/sh\necho 12288\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{driver.parent}:/usr/bin:/bin")
    make(tmp_path / "set")
    place = folder(tmp_path / "sd")
    for path in place.glob("*/*.safetensors"):
        path.unlink()  # as .bin, whose size alone counts
        stem = "diffusion_pytorch_model" if path.parent.name in ("unet", "vae") else "pytorch_model"
        with (path.parent / f"{stem}.bin").open("wb") as file:
            file.truncate(859_500_000 * 4)
    config = validate(Config, diffusion(tmp_path / "set", place).model_dump() | {"backbone": {"source": str(place)}})
    config = config.model_copy(update={"windows": config.windows.model_copy(update={"size": 512})})
    said = [warning for warning in check(config).warnings if "the GPU has" in warning]
    assert said == ["training takes about 20 GB and the GPU has 13; set train.batch = 9"]


def test_a_device_that_is_not_there_is_no_readiness(tmp_path: Path):
    config = validate(Config, {"data": {"root": make(tmp_path)}, "backbone": {"device": "cuda:7"}})
    assert any("backbone.device 'cuda:7': no such GPU here" in error for error in check(config).errors)
