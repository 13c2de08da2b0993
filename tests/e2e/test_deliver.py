"""flawsmith deliver: what is learned from and what is not, the folder, and that the network says what torch says."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.data.training_set import read_scaled
from flawsmith.errors import ConfigError, DataError, RunError
from flawsmith.evaluation.arms import common_set, training_set
from flawsmith.evaluation.trainings import load_detector
from flawsmith.inspection import deliver as stage
from flawsmith.inspection.deliver import deliver, folders_of
from flawsmith.inspection.model import Model, read_held_out, read_model, write_model
from flawsmith.interfaces import Detector
from flawsmith.nn import features
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.run.dataset import load_split, open_dataset
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train
from flawsmith.testing import tiny_extractor

pytest.importorskip("onnxscript", reason="needs the extra deliver")
pytest.importorskip("onnxruntime", reason="needs the extra deliver")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    """A run with samples and controls, judged by the default, with enough normal parts to set a threshold."""
    root = tmp_path_factory.mktemp("parts")
    factory.write_dataset(root, "magnet", ("crack", "chip"), normals=26, per_defect=4, seed=1, size=64, test_normals=2)
    head = {"steps": 30, "places": 256, "views": 1}
    table: dict[str, Any] = {
        "data.root": str(root),
        "data.shots": 2,
        "generator.name": "crop_paste",
        "generate.count": 8,
        "prove.size": 64,
        "prove.settings": {"memory_probe": {"memory": 60, "draw": 600, "heads": 2, "head": head}},
    }
    made = fs.Run.create(tmp_path_factory.mktemp("run") / "run", load_config(None, table))
    train(made)
    generate(made)
    return made


@pytest.fixture(scope="module")
def trained() -> list[Detector]:
    """The detector that was delivered, as torch has it."""
    return []


@pytest.fixture(scope="module")
def delivered(run: fs.Run, trained: list[Detector]) -> Path:
    """The model, delivered once, for tracing it takes seconds. Read it, do not write it."""
    with pytest.MonkeyPatch.context() as patch:
        whole = stage.network_of
        patch.setattr(stage, "network_of", lambda detector: (trained.append(detector), whole(detector))[1])
        assert deliver(run) == run.path("model")
    return run.path("model")


def test_the_network_says_what_torch_says(run: fs.Run, delivered: Path, trained: list[Detector]) -> None:
    """Extractor, memory, heads and joined score in one network, for one picture as for several; 99.9 % within 1e-4."""
    import onnxruntime

    (detector,) = trained
    assert detector.facts(), "the score of the memory is to be part of the network"
    session = onnxruntime.InferenceSession(delivered / "model.onnx", providers=["CPUExecutionProvider"])
    split = load_split(run)
    pictures = [read_scaled(one, (64, 64)).image for one in (*split.test_defects, *split.test_normals)]
    rows = np.ascontiguousarray(np.stack(pictures).transpose(0, 3, 1, 2))
    answer = detector.predict(torch.from_numpy(rows).float() / 127.5 - 1)
    assert answer.anomaly_map is not None and answer.score is not None and answer.probabilities is not None
    for count in (1, len(rows)):
        anomaly_map, score, probabilities = session.run(None, {"picture": rows[:count]})
        near = np.abs(anomaly_map - answer.anomaly_map.numpy()[:count]) <= 1e-4
        assert anomaly_map.shape == (count, 1, 64, 64) and near.mean() >= 0.999
        assert np.allclose(score, answer.score.numpy()[:count], rtol=1e-4, atol=1e-3)
        assert np.allclose(probabilities, answer.probabilities.numpy()[:count], atol=1e-3)


def test_the_folder_holds_all_that_is_promised(run: fs.Run, delivered: Path) -> None:
    files = {path.name for path in delivered.iterdir()} - {"openvino"}
    names = {"model.onnx", "model.json", "held_out.json", "learned_from.json", "MODEL_CARD.md", "example.py"}
    assert files == names
    model = read_model(delivered)
    assert (model.product, model.defects, model.shape) == ("magnet", ("chip", "crack"), (64, 64))
    assert model.outputs == ("anomaly_map", "score", "probabilities") and model.agreement["pixels_within_1e-4"] >= 0.999
    assert model.span == load_split(run).shots[0].span and model.extractor == "efficientnet-lite0"
    assert "Apache License 2.0" in (delivered / "MODEL_CARD.md").read_text()


def test_several_products_get_a_folder_each() -> None:
    assert folders_of(Path("m"), ["screw"]) == {"screw": Path("m")}
    assert folders_of(Path("m"), ["a/b", "c"]) == {"a/b": Path("m/a-b"), "c": Path("m/c")}
    alike = folders_of(Path("m"), ["a-b", "a/b", "a/b-c", "a-b/c", "c/d"])
    assert len(set(alike.values())) == 5
    assert (alike["a-b"], alike["c/d"]) == (Path("m/a-b"), Path("m/c-d"))
    assert all(place.parent == Path("m") for place in alike.values())


def test_nothing_that_sets_the_threshold_or_tests_is_learned_from(run: fs.Run, delivered: Path) -> None:
    split = load_split(run)
    rows = json.loads((delivered / "learned_from.json").read_text())["pictures"]
    learned = {row["id"] for row in rows}
    kept = [example for example in split.normals if example.id not in learned]
    assert len(kept) == 5 and {shot.id for shot in split.shots} <= learned
    assert not learned & {example.id for example in (*split.test_defects, *split.test_normals)}
    beneath = {one.normal for one in (*run.kept(), *run.controls()) if one.image in learned}
    assert beneath and not beneath & {example.id for example in kept}
    assert all(row["pixels"] for row in rows) and read_model(delivered).learned_from["shot"] == 4
    # The threshold by hand: of 5 scores the greatest, for a rate of 5 % would take 19.
    inspector = fs.Inspector(delivered)
    scores = [inspector.inspect(images.read(example.image)).score for example in kept]
    threshold = read_model(delivered).threshold
    assert threshold is not None and threshold.value == pytest.approx(max(scores), rel=1e-5)
    assert threshold.kept_rate == pytest.approx(1 / 6, abs=1e-6)
    held_out = read_held_out(delivered)
    assert "test pictures" in held_out.source and len(held_out.normals) == 2
    tests: dict[str, list[float]] = {"chip": [], "crack": []}
    for example in split.test_defects:
        tests[str(example.defect)].append(inspector.inspect(images.read(example.image)).score)
    assert held_out.defects == {defect: pytest.approx(scores, rel=1e-5) for defect, scores in tests.items()}


def test_the_same_again_does_nothing_and_keeps_new_thresholds(run: fs.Run, delivered: Path) -> None:
    before = read_model(delivered)
    assert before.threshold is not None
    write_model(delivered, replace(before, threshold=replace(before.threshold, value=7.0)))
    changed = (delivered / "model.onnx").stat().st_mtime_ns
    deliver(run)
    after = read_model(delivered)
    assert (delivered / "model.onnx").stat().st_mtime_ns == changed
    assert after.threshold is not None and after.threshold.value == 7.0
    write_model(delivered, before)


def test_a_delivered_model_sees_a_picture_as_training_did(run: fs.Run, delivered: Path) -> None:
    from flawsmith.data.scaling import as_detectors_see

    shot, model = load_split(run).shots[0], read_model(delivered)
    assert (
        as_detectors_see(images.read(shot.image), model.span, model.shape) == read_scaled(shot, (64, 64)).image
    ).all()


def test_the_products_range_holds_whatever_the_depth_of_its_first_shot(run: fs.Run, tmp_path: Path) -> None:
    """Read by its own values, that one photograph would make the model blind to all others."""
    split = load_split(run)
    deep = tmp_path / "deep.png"
    images.write(deep, images.read(split.shots[0].image).astype(np.uint16) * 16)
    mixed = replace(split, shots=(replace(split.shots[0], image=deep), *split.shots[1:]))
    work = stage._Delivery(run, "magnet", mixed, "probe", tiny_extractor(), 0.05, "")
    assert work._span == split.shots[1].span and work._span.depth == 8


def test_a_failure_leaves_the_old_model(run: fs.Run, delivered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*words: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, "write_network", full)
    before = {path: path.read_bytes() for path in run.path("model").rglob("*") if path.is_file()}
    with pytest.raises(RunError, match="the model cannot be written .No space left.*; nothing was changed there"):
        deliver(run, rate=0.2)
    assert before == {path: path.read_bytes() for path in run.path("model").rglob("*") if path.is_file()}
    assert not [path for path in run.folder.iterdir() if path.name.startswith(".model")]


def test_what_cannot_be_delivered_is_refused(run: fs.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def of(**changes: Any) -> fs.Run:
        return replace(run, config=run.config.model_copy(update={"prove": run.config.prove.model_copy(update=changes)}))

    data = open_dataset(run)
    with pytest.raises(RunError, match="learns from no shots, so there is no detector to deliver"):
        deliver(run, tmp_path / "new", data=replace(data, split=replace(data.split, shots=())))
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(RunError, match="holds something else than a delivered model"):
        deliver(run, tmp_path)
    assert (tmp_path / "holiday.jpg").exists()
    for name in ("classifier", "anomalib"):
        with pytest.raises(ConfigError, match=f"{name} comes first and cannot be delivered"):
            deliver(of(detectors=[name]), tmp_path / "new")
    bare = tiny_extractor()
    bare.graph = lambda: Extractor.graph(bare)  # type: ignore[method-assign]
    monkeypatch.setitem(features.EXTRACTORS, "bare", lambda source, offline: bare)
    other = run.config.features.model_copy(update={"extractor": "bare"})
    with pytest.raises(
        ConfigError, match='a detector that stands on tiny cannot be delivered; use "efficientnet-lite0'
    ):
        deliver(replace(run, config=run.config.model_copy(update={"features": other})), tmp_path / "new")
    with pytest.raises(ConfigError, match="names no detector"):
        deliver(of(detectors=[]), tmp_path / "new")
    with pytest.raises(DataError, match="--rate: a false-alarm rate lies above 0 and below 0.5"):
        deliver(run, tmp_path / "new", rate=0.7)
    with pytest.raises(RunError, match="no samples are made yet"):
        deliver(fs.Run.create(tmp_path / "empty", run.config))
    monkeypatch.setattr("flawsmith.inspection.network._PACKAGES", ("onnx", "no_such_package"))
    with pytest.raises(ConfigError, match=r"deliver needs no_such_package; `pip install 'flawsmith\[deliver\]'"):
        deliver(run, tmp_path / "new")


def test_without_a_proof_the_test_pictures_are_learned_from(run: fs.Run) -> None:
    split = load_split(run)
    everything = stage._with_tests(split)
    assert len(everything.shots) == len(split.shots) + len(split.test_defects)
    assert len(everything.normals) == len(split.normals) + 2 and not everything.test_defects
    assert stage.keeps_tests_out(run)
    unproven = run.config.prove.model_copy(update={"enabled": False})
    assert not stage.keeps_tests_out(replace(run, config=run.config.model_copy(update={"prove": unproven})))


def test_without_tests_the_shots_are_scored_out_of_fold(run: fs.Run) -> None:
    """Each damaged picture by the head of a probe that has not learned from it."""
    head = {"heads": 2, "steps": 20, "places": 256, "width": 16, "views": 1}
    part = run.config.prove.model_copy(update={"enabled": False, "settings": {"probe": head}})
    unproven = replace(run, config=run.config.model_copy(update={"prove": part}))
    split, extractor = load_split(run), tiny_extractor()
    work = stage._Delivery(unproven, "magnet", split, "probe", extractor, 0.05, "")
    common = common_set(work._split, work._away, (64, 64), work._defects, frozenset())
    training = training_set(common, work._arm, work._split)
    detector = load_detector(unproven.config, "probe", work._defects, extractor, "cpu")
    for _ in detector.fit(training, torch.Generator().manual_seed(0)):
        pass
    held_out = work._held_out(None, detector, training)  # type: ignore[arg-type]
    indices, prediction = detector.out_of_fold(training)  # type: ignore[misc]
    assert prediction.score is not None and "has not learned from it" in held_out.source
    damaged: dict[str, list[float]] = {"chip": [], "crack": []}
    for index, score in zip(indices, prediction.score.tolist(), strict=True):
        if (label := training.label(index)) >= 0:
            damaged[training.defects[label]].append(score)
    assert {defect: sorted(scores) for defect, scores in held_out.defects.items()} == {
        defect: sorted(scores) for defect, scores in damaged.items()
    }
    assert [len(scores) for scores in damaged.values()] == [4, 4] and held_out.normals == ()


def test_inspecting_the_test_pictures_agrees_with_what_was_held_out(run: fs.Run, delivered: Path) -> None:
    folder = Path(run.config.data.root) / "magnet" / "test"
    report = fs.inspect(delivered, folder)
    assert report.table.parent == folder.parent / "test-inspection"
    with open(report.table, encoding="utf-8-sig", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    model: Model = read_model(delivered)
    assert model.threshold is not None and len(rows) == 10
    for example in load_split(run).test_defects:
        row = rows[Path(example.id).relative_to("magnet/test").as_posix()]
        called = float(row["score"]) > model.threshold.value
        assert row["verdict"] == ("defect" if called else "ok")
