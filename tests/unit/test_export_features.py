"""The export `features`: what stands in the table, against embeddings that are computed here by hand."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from test_export_formats import HEIGHT, WIDTH, examples_of, export, odd_masks

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.errors import ConfigError
from flawsmith.exports.export import export as export_run
from flawsmith.exports.export import load_exporter
from flawsmith.nn.features import load_extractor
from flawsmith.run.folder import Run
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train


def embedded(picture: np.ndarray, side: int) -> np.ndarray:
    """Embed a grey or RGB picture of 8 bits: float32 (D,)."""
    grey = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    model = grey.astype(np.float32) / 127.5 - 1
    shrinks = min(model.shape[:2]) > side
    small = cv2.resize(model, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return load_extractor("efficientnet-lite0").vector(torch.from_numpy(small.transpose(2, 0, 1))[None])[0].numpy()


def test_a_row_says_what_a_picture_is_and_holds_its_embeddings(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 100:130] = True
    examples = examples_of(tmp_path, {"dent": mask, "찍힘": odd_masks()["pixel"]})
    rng = np.random.default_rng(0)
    for one in examples:
        images.write(one.image, rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8))
    shot = replace(examples[1], id="shot.png", image=tmp_path / "shot.png", painted_on="", split="train")
    images.write(shot.image, rng.integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8))
    with np.load(export("features", [*examples, shot], tmp_path / "out") / "features.npz") as table:
        rows = {name: table[name] for name in table.files}
    assert rows["defect"].tolist() == ["", "dent", "찍힘", "dent"] and set(rows["product"]) == {"screw"}
    assert rows["origin"].tolist() == ["real", "made", "made", "real"]
    assert rows["source"].tolist() == ["normal.png", "dent.png", "찍힘.png", "shot.png"]
    assert rows["photograph"].tolist() == ["normal.png"] * 3 + ["shot.png"] and set(rows["side"]) == {"train"}
    assert len(set(rows["name"])) == 4 and str(rows["extractor"]) == "efficientnet-lite0" and len(str(rows["weights"]))
    for level, there in (("whole", [1, 1, 1, 1]), ("window", [0, 1, 1, 1]), ("beneath", [0, 1, 1, 0])):
        assert rows[level].dtype == np.float32 and rows[level].shape[0] == 4
        assert np.isfinite(rows[level]).all(axis=1).tolist() == np.array(there, bool).tolist()
    pictures = [images.read(one.image) for one in (*examples, shot)]
    for number, picture in enumerate(pictures):
        assert np.allclose(rows["whole"][number], embedded(picture, 224), atol=1e-5)
    # The box is 30 x 20 px, so the square has the least side of 64; the picture has but 40 rows of it.
    squares = [images.read(one.image)[:, 83:147] for one in (examples[0], examples[1])]
    assert mask[:, 83:147].sum() == mask.sum()
    for level, square in zip(("beneath", "window"), squares, strict=True):
        small = cv2.resize(square, (128, 128), interpolation=cv2.INTER_LINEAR)
        assert np.corrcoef(rows[level][1], embedded(small, 224))[0, 1] > 0.99


def test_a_pair_of_windows_differs_where_the_sample_does_alone(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, {"dent": odd_masks()["hole"], "same": odd_masks()["parts"]})
    images.write(examples[2].image, images.read(examples[0].image))
    with np.load(export("features", examples, tmp_path / "out") / "features.npz") as table:
        assert np.array_equal(table["window"][2], table["beneath"][2])
        assert not np.allclose(table["window"][1], table["beneath"][1])


def test_the_page_says_how_a_new_photograph_gets_its_vector(tmp_path: Path) -> None:
    examples = examples_of(tmp_path, {"dent": odd_masks()["hole"]})
    page = (Path(__file__).parents[2] / "docs" / "pyod.md").read_text(encoding="utf-8")
    names = {"path": examples[1].image}
    exec(page.partition("```python")[2].partition("```")[0], names)
    with np.load(export("features", examples, tmp_path / "out") / "features.npz") as table:
        assert np.array_equal(table["whole"][1], names["vector"])


def test_parquet_without_its_package_is_said() -> None:
    config = Config.model_validate(
        {"export": {"formats": ["features"], "settings": {"features": {"table": "parquet"}}}}
    )
    if find_spec("pyarrow") is None:
        with pytest.raises(ConfigError, match="needs the package pyarrow, which is not installed; run `pip install"):
            load_exporter(config, "features")
    wrong = Config.model_validate({"export": {"settings": {"features": {"table": "csv"}}}})
    with pytest.raises(ConfigError, match="export.settings.features: table: should be 'npz' or 'parquet', not 'csv'"):
        load_exporter(wrong, "features")


def test_a_run_exports_features_by_its_own_extractor_once(tmp_path: Path, factory_root: Path) -> None:
    settings = {
        "data": {"root": factory_root, "products": ["screw"], "shots": 2},
        "generator": {"name": "crop_paste"},
        "generate": {"count": 2, "controls": 0},
        "prove": {"enabled": False},
        "export": {"formats": ["features"], "real": "shots"},
    }
    run = Run.create(tmp_path / "run", Config.model_validate(settings))
    train(run)
    generate(run)
    export_run(run)
    file = run.path("export", "features", "features.npz")
    with np.load(file) as table:
        assert sorted(table["origin"][table["defect"] == "bend"]) == ["made", "made", "real", "real"]
    before = file.stat().st_mtime_ns
    export_run(run)
    assert file.stat().st_mtime_ns == before
    record = run.record("export")["inputs"]["content"]
    assert record.keys() == {"data", "samples", "examples", "features"}
