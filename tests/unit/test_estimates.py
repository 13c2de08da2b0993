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
from flawsmith.preflight.rates import rate_of, spared


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

    def said(memory: str, mib: int) -> list[str]:
        driver.write_text(f"#!/bin/sh\necho {mib}\n")
        asked = config.model_copy(update={"train": config.train.model_copy(update={"memory": memory})})
        found = check(asked)
        return [found.estimate["memory"], *(warning for warning in found.warnings if "the GPU has" in warning)]

    # "auto" takes the preset for 12 GB; 1.87 + 4 x 0.24 GiB, and half of one for CUDA.
    assert said("auto", 12288) == ["about 3.6 GB"]
    assert said("24GB", 6144)[1:] == []
    assert said("24GB", 4096)[1:] == ['training takes about 6 GB and the GPU has 4; set train.memory = "12GB"']
    assert said("8GB", 2048)[1:] == [
        "training takes about 3 GB and the GPU has 2; use a larger one, or another generator"
    ]
    assert said("auto", 81920) == ["about 19.8 GB"]  # batch 16, nothing is spared


def test_presets_are_estimated_as_the_suite_found_them() -> None:
    card = json.loads((Path(__file__).parents[2] / "benchmarks/results/training_memory.json").read_text())["card"]
    for generator, rows in card.items():
        for memory in ("24GB", "12GB", "8GB"):
            gigabytes = (rows[memory]["larger batches"]["gib"] + 0.5) * 2**30 / 1e9
            assert spared(generator, None, memory, 0.0, 512) == pytest.approx(gigabytes, rel=0.01)
        assert spared(generator, None, "auto", 80.0, 512) is None is spared(generator, None, "auto", 0.0, 512)
        for gibibytes, memory in ((24, "24GB"), (15.6, "12GB"), (11.7, "12GB"), (10.7, "8GB"), (7.8, "8GB")):
            asked = spared(generator, None, "auto", gibibytes * 2**30 / 1e9, 512)
            assert asked == spared(generator, None, memory, 0.0, 512)


def test_a_device_that_is_not_there_is_no_readiness(tmp_path: Path):
    config = validate(Config, {"data": {"root": make(tmp_path)}, "backbone": {"device": "cuda:7"}})
    assert any("backbone.device 'cuda:7': no such GPU here" in error for error in check(config).errors)


def test_clip_skip_is_held_against_the_text_encoder(tmp_path: Path):
    place, root = folder(tmp_path / "sd"), make(tmp_path / "set")
    for skipped in (11, 12):
        tree = diffusion(root, place).model_dump() | {"backbone": {"source": str(place), "clip_skip": 11}}
        config = validate(Config, tree)
        if skipped == 12:
            path = place / "text_encoder" / "config.json"
            path.write_text(path.read_text().replace("12", "11"))
        told = [error for error in check(config).errors if "clip_skip" in error]
        assert told == ([] if skipped == 11 else ["backbone.clip_skip: 11: this text encoder has 11 layers; give less"])
