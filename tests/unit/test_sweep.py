"""synthesis/sweep.py: one setting at several values, of photographs of every depth, and the report shows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.files import read_json
from flawsmith.generators.crop_paste import CropPaste
from flawsmith.reporting.sweep import read_sweep
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run


class Swept(CropPaste):
    """Crops whose feather is shown at two values."""

    sweep = ("feather", (0.0, 6.5))


@pytest.mark.parametrize("dtype, suffix", [("uint8", ".png"), ("uint16", ".png"), ("float32", ".tif")])
def test_photographs_of_every_depth_are_swept_and_shown(
    dtype: str, suffix: str, factory_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLAWSMITH_PLUGINS", f"generators.swept={__name__}:Swept")
    for path in (factory_root / "magnet").rglob("*.png"):
        pixels, target = images.read(path), tmp_path / "data" / path.relative_to(factory_root)
        if "ground_truth" not in path.parts:
            deep = pixels.astype(dtype) * (257 if dtype == "uint16" else 1)
            pixels = deep / np.float32(255) if dtype == "float32" else deep
            target = target.with_suffix(suffix)
        images.write(target, pixels)
    overrides = {"data.root": str(tmp_path / "data"), "data.shots": 2, "generator.name": "swept", "generate.count": 1}
    overrides |= {"generator.settings": {"blend": "feather"}}
    run = Run.create(tmp_path / "run", load_config(None, overrides | {"generate.controls": 0, "screen.enabled": False}))
    fs.train(run)
    fs.generate(run)
    rows = read_json(run.path("sweep.json"))["rows"]
    assert [row["defect"] for row in rows] == ["chip", "crack"]
    for row in rows:
        pictures = [images.read(run.path(one["image"])) for one in row["pictures"]]
        assert [one["image"][-4:] for one in row["pictures"]] == [suffix, suffix] and len(pictures) == 2
        assert all(picture.dtype == dtype for picture in pictures) and not np.array_equal(*pictures)
    split = load_split(run)
    shown = read_sweep(run, {one.id: one for one in (*split.normals, *split.shots)})
    assert shown is not None and [row.defect for row in shown.rows] == ["chip", "crack"]
    assert all(row.heads[1:3] == ("feather = 0", "feather = 6.5") and len(row.tiles) == 4 for row in shown.rows)
