"""Memory of painting follows the window, not the photograph times the batch; warps of a part are those of the whole."""

from __future__ import annotations

import gc
import json
import tracemalloc
from pathlib import Path

import cv2
import numpy as np
import pytest

from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.data.masks.poses import Pose, apply_pose_image, apply_pose_mask
from flawsmith.data.patches import warping
from flawsmith.data.patches.warping import Source, places, reach_of
from flawsmith.preflight.cost import PIXELS_MEMORY, held
from flawsmith.preflight.rates import _BUILTIN
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train

SIDE = 1024
MOST = 12.0
"""Bytes at once per byte of one photograph, the three that are kept included; whole copies for a batch of 8 take 38."""


def plates(root: Path) -> None:
    """Write two normal photographs of a grey surface, and one with a dark spot."""
    rng = np.random.default_rng(0)
    for number, folder in enumerate(("train/good", "train/good", "test/spot")):
        picture = rng.integers(90, 130, (SIDE, SIDE), np.uint8)
        path = root / "plate" / folder / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if folder == "test/spot":
            mask = np.zeros((SIDE, SIDE), np.uint8)
            cv2.circle(mask, (600, 500), 10, 255, -1)
            picture[mask > 0] //= 3
            path.parent.joinpath("../../ground_truth/spot").mkdir(parents=True)
            cv2.imwrite(str(root / f"plate/ground_truth/spot/{number}_mask.png"), mask)
        cv2.imwrite(str(path), picture)


def test_a_batch_of_eight_takes_no_eight_photographs(tmp_path: Path) -> None:
    plates(tmp_path / "set")
    file = tmp_path / "run.toml"
    file.write_text(
        f'[data]\nroot = "{tmp_path}/set"\nshots = 1\n[generator]\nname = "crop_paste"\n'
        "[generate]\ncount = 8\nbatch = 8\ncontrols = 0\n[screen]\nenabled = false\n[prove]\nenabled = false\n"
    )
    run = Run.create(tmp_path / "run", load_config(file))
    opened = open_dataset(run)
    train(run, opened)
    gc.collect()
    tracemalloc.start()
    generate(run, data=opened)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(run.samples()) == 8
    assert peak < MOST * SIDE * SIDE, f"{peak / SIDE**2:.1f} bytes per pixel"


@pytest.mark.parametrize("channels", [1, 3])
def test_a_part_is_warped_as_it_is_within_the_whole(channels: int) -> None:
    rng = np.random.default_rng(channels)
    for _ in range(20):
        height, width = (int(side) for side in rng.integers(40, 160, 2))
        picture = rng.uniform(-1, 1, (height, width, channels)).astype(np.float32)
        picture = picture[:, :, 0] if channels == 1 else picture
        angle, scale = rng.uniform(-3, 3), rng.uniform(0.5, 1.6)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        # far enough that the picture is mirrored, and mirrored again
        matrix = np.array([[cos, -sin, rng.uniform(-150, 250)], [sin, cos, rng.uniform(-150, 250)]])
        (top, bottom), (left, right) = (np.sort(rng.integers(0, 120, 2)) for _ in range(2))
        spot = slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1)
        whole = cv2.warpAffine(picture, matrix, (121, 121), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
        at = places(matrix, spot)
        reach = reach_of(at, picture.shape)
        source = Source(np.ascontiguousarray(picture[reach]), (reach[0].start, reach[1].start))
        # the same place to a thousandth of a px, whichever steps the installed OpenCV rounds in
        np.testing.assert_allclose(source.at(at, cv2.INTER_CUBIC, cv2.BORDER_REFLECT_101), whole[spot], atol=2e-3)


@pytest.mark.parametrize("border", [cv2.BORDER_REFLECT_101, cv2.BORDER_CONSTANT])
def test_what_is_longer_than_opencv_takes_is_warped_in_pieces(border: int, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = np.random.default_rng(border).uniform(-1, 1, (90, 70, 3)).astype(np.float32)
    at = places(np.array([[0.9, -0.3, -20.0], [0.3, 0.9, 15.0]]), (slice(0, 120), slice(0, 110)))
    whole = Source(picture, (0, 0)).at(at, cv2.INTER_CUBIC, border)
    monkeypatch.setattr(warping, "LONGEST", 60)
    monkeypatch.setattr(warping, "_BLOCK", 32)
    np.testing.assert_allclose(Source(picture, (0, 0)).at(at, cv2.INTER_CUBIC, border), whole, atol=1e-5)


def test_a_streak_runs_through_a_long_line_scan() -> None:
    streak = np.zeros((33_000, 12), bool)
    streak[:, 4:7] = True
    assert np.array_equal(apply_pose_mask(streak, Pose.identity(), streak.shape), streak)
    native = np.where(streak, np.uint8(60), np.uint8(120))
    laid = apply_pose_image(native, images.range_of(native), Pose.identity(), native.shape)
    assert laid.shape == (33_000, 12, 3)


ROWS = json.loads((Path(__file__).parents[2] / "benchmarks/results/picture_memory.json").read_text())["rows"]


def test_the_estimate_of_memory_is_that_of_the_measured_runs() -> None:
    assert ROWS
    for row in ROWS:  # eight normal photographs and three shots; networks train with four windows per step
        pixels, native = row["side"] ** 2, row["photograph_mb"] * 1e6
        rate = _BUILTIN["processor"]
        at_once = max(4, row["batch"])
        network = rate.fixed + at_once * rate.window if row["generator"] == "controlnet_inpaint" else PIXELS_MEMORY
        estimate = network + held(native, pixels, row["damage"][0] * row["damage"][1], row["pictures"]) / 1e9
        assert abs(estimate - row["peak_gb"]) <= 0.25 * row["peak_gb"], row


def test_memory_of_painting_is_bounded_at_any_batch() -> None:
    for row in ROWS:
        if row["generator"] != "controlnet_inpaint":  # of which the network alone takes more
            assert row["peak_gb"] <= 0.5 + 6 * row["photograph_mb"] / 1e3, row
