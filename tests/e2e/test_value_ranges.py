"""A run on pictures that are not 8 bits: one range from check to export, nothing changed outside, sentinels kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.evaluation.arms import made_of
from flawsmith.exports.export import exported
from flawsmith.files import read_json, read_lines
from flawsmith.pipeline import run_all
from flawsmith.preflight.check import check
from flawsmith.reporting.exactness import compare_all
from flawsmith.run.dataset import load_split, open_dataset
from flawsmith.run.folder import Run

SIDE = 96
Finish = Callable[[np.ndarray, int], np.ndarray]


def surface(seed: int) -> np.ndarray:
    """Brightness of a surface, float64 (SIDE,SIDE), about 0.3 to 0.6."""
    grain = np.random.default_rng(seed).normal(0, 1, (SIDE, SIDE))
    return 0.45 + 0.25 * cv2.GaussianBlur(grain, (0, 0), 3) + 0.01 * grain


def twelve_bits(light: np.ndarray, seed: int) -> np.ndarray:
    return np.rint(np.clip(light, 0, 1) * 4095).astype(np.uint16)


def left_aligned(light: np.ndarray, seed: int) -> np.ndarray:
    return (twelve_bits(light, seed) * 16).astype(np.uint16)


def holed(value: float, dtype: type) -> Finish:
    """Return what makes heights of a surface, in which two places were not measured; one lies under the damage."""

    def finish(light: np.ndarray, seed: int) -> np.ndarray:
        made = (1000 * light + 20000).astype(dtype) if dtype == np.uint16 else (light - 0.45).astype(dtype)
        made[10:20, 70:80] = value
        made[46:49, 40:60] = value
        return made

    return finish


KINDS: dict[str, tuple[Finish, float, float, float]] = {
    "12-bits": (twelve_bits, 0, 4095, 0.0),
    "left-aligned": (left_aligned, 0, 65520, 0.0),
    "float-nan": (holed(np.nan, np.float32), -1, 1, np.nan),
    "float-99999": (holed(-99999.0, np.float32), -1, 1, -99999.0),
    "depth-65535": (holed(65535, np.uint16), 19000, 22000, 65535),
}


def make(root: Path, finish: Finish) -> None:
    for number in range(5):
        pixels = finish(surface(number), number)
        images.write(root / f"plate/train/good/{number}{images.lossless_suffix(pixels)}", pixels)
    for number in range(4):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[40:52, 30 + 5 * number : 60] = True
        light = surface(10 + number)
        light[mask] += 0.3 if number % 2 else -0.3
        pixels = finish(light, 10 + number)
        images.write(root / f"plate/test/dent/{number}{images.lossless_suffix(pixels)}", pixels)
        images.write_mask(root / f"plate/ground_truth/dent/{number}_mask.png", mask)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run(tmp_path: Path, kind: str) -> None:
    finish, least, most, sentinel = KINDS[kind]
    make(tmp_path / "data", finish)
    table: dict[str, Any] = {
        "data.root": str(tmp_path / "data"),
        "data.shots": 2,
        "generator.name": "crop_paste",
        "generate.count": 4,
        "measure.enabled": False,
        "prove.enabled": False,
    }
    run = Run.create(tmp_path / "run", load_config(None, table))
    said = check(run.config)
    run_all(run)

    row = read_json(run.path("data.json"))["ranges"]["plate"]
    low, high = row["low"], row["high"]
    assert said.ok and f"plate: {row['rule']}: {low:g}..{high:g} is black..white in all its pictures" in said.notes
    assert bool(sentinel) == any("nothing was measured there" in note for note in said.notes)
    assert least <= low < high <= most

    split = load_split(run)
    normals = {one.id: one for one in split.normals}
    assert compare_all(run, normals).holds
    assert len(run.kept()) >= 3 and run.controls()
    for sample in [*run.kept(), *run.controls()]:
        before, after = images.read(normals[sample.normal].image), images.read(run.path(sample.image))
        mask = images.read_mask(run.path(sample.mask), before.shape)
        changed = images.differs(before, after)
        assert changed.any() or sample in run.controls()
        assert not changed[~mask].any()
        assert low <= after[changed].min(initial=high) and after[changed].max(initial=low) <= high
        assert not (after[changed] % row["step"]).any() or row["step"] == 1
        if sentinel:
            gone = ~np.isfinite(before) if np.isnan(sentinel) else before == sentinel
            assert gone.sum() == 160 and not changed[gone].any()

    # Training, proof, export and report are handed the same range.
    samples, controls = made_of(run, "plate")
    everyone = [*split.shots, *split.normals, *exported(run), *(one.example for one in (*samples, *controls))]
    assert len({one.span for one in everyone}) == 1 and everyone[0].span is not None
    assert (everyone[0].span.low, everyone[0].span.high) == (low, high)
    ways = {line["how"] for line in read_lines(run.path("export/mvtec/provenance.jsonl"))}
    assert ways == {f"{low:g}..{high:g} scaled to 8 bits"}
    white = images.read(run.path("export/mvtec/plate/train/good/000.png"))
    native = images.read(split.normals[0].image)
    measured = images.missing(native, everyone[0].span)
    inside = np.ones_like(native, bool) if measured is None else ~measured
    level = (native[inside].astype(np.float64) - low) / (high - low)
    assert (white[inside] == np.rint(np.clip(level, 0, 1) * 255)).all()


def test_the_range_is_kept_and_makes_a_run_new(tmp_path: Path) -> None:
    """data.json is read, not decided again; a brighter sensor is other data, another 8-bit picture is not."""
    make(tmp_path / "data", twelve_bits)
    run = Run.create(tmp_path / "run", load_config(None, {"data.root": str(tmp_path / "data"), "data.shots": 2}))
    first = open_dataset(run)
    assert first.split.normals[0].span == open_dataset(run).split.normals[0].span
    tree = read_json(run.path("data.json"))
    kept = dict(tree["ranges"]["plate"], high=8000.0)
    from flawsmith.files import write_json

    write_json(run.path("data.json"), tree | {"ranges": {"plate": kept}})
    second = open_dataset(run)
    assert second.split.shots[0].span == replace(first.split.shots[0].span, high=8000.0)  # type: ignore[type-var]
    assert second.hash != first.hash
