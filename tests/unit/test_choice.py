"""The choice: folds that share no piece, estimates that lean on one another, and decisions that only evidence moves."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flawsmith.choice.candidates import Candidate, Mixture, Way, candidates
from flawsmith.choice.choose import choose
from flawsmith.choice.estimates import Estimate, estimates, overall
from flawsmith.choice.folds import folds_of, pieces
from flawsmith.choice.judge import Judge
from flawsmith.choice.panel import Sitting, extractor_of, judges_of
from flawsmith.choice.records import Figures, Trial
from flawsmith.choice.words import closing_words, text_of
from flawsmith.config import Config, load_config
from flawsmith.data import factory, images
from flawsmith.data.fingerprints import content_hash
from flawsmith.data.split import Split
from flawsmith.errors import ConfigError, DataError
from flawsmith.files import read_json
from flawsmith.run.dataset import divide, open_dataset
from flawsmith.run.folder import Run
from flawsmith.types import Example


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("choice")
    factory.write_dataset(folder, "tile", ("chip", "crack"), normals=12, per_defect=6, seed=3, size=64)
    return folder


@pytest.fixture(scope="module")
def whole(root: Path) -> Split:
    return divide(load_config(None, {"data.root": str(root), "data.shots": 3}))


def ids(*groups: tuple[Example, ...]) -> set[str]:
    return {one.id for group in groups for one in group}


def test_no_photograph_is_on_both_sides_of_a_fold_and_no_test_picture_in_any(whole: Split):
    folds = folds_of(whole, 3)
    assert len(folds) == 3
    for fold in folds:
        learned, asked = (
            ids(fold.split.shots, fold.split.normals),
            ids(fold.split.test_defects, fold.split.test_normals),
        )
        assert not learned & asked
        assert learned | asked == ids(whole.shots, whole.normals)
        assert not (learned | asked) & ids(whole.test_defects, whole.test_normals)
        assert fold.judged == ("chip", "crack")
    assert ids(*(fold.split.test_defects for fold in folds)) == ids(whole.shots)
    assert ids(*(fold.split.test_normals for fold in folds)) == ids(whole.normals)


def test_second_photographs_of_a_piece_share_a_fold(whole: Split, tmp_path: Path):
    first = next(shot for shot in whole.shots if shot.defect == "chip")
    again = tmp_path / "again.png"
    images.write(again, np.clip(images.read(first.image).astype(int) + 2, 0, 255).astype(np.uint8))
    double = replace(first, id="chip/again", image=again)
    split = replace(whole, shots=(*whole.shots, double))
    assert pieces(split)[double.id] == pieces(split)[first.id]
    for fold in folds_of(split, 3):
        assert len(ids(fold.split.shots) & {first.id, double.id}) in (0, 2)


def test_a_photograph_with_two_types_is_in_one_fold(whole: Split):
    chips = [shot for shot in whole.shots if shot.defect == "chip"]
    both = [replace(shot, id=f"{shot.id}#crack", defect="crack") for shot in chips[:2]]
    split = replace(whole, shots=(*whole.shots, *both))
    folds = folds_of(split, 3)
    for fold in folds:
        learned = {shot.image for shot in fold.split.shots}
        assert not learned & {shot.image for shot in fold.split.test_defects}
    assert ids(*(fold.split.test_defects for fold in folds)) == ids(split.shots)


def test_copies_share_a_fold_whatever_they_are_called(whole: Split, tmp_path: Path):
    chip = next(shot for shot in whole.shots if shot.defect == "chip")
    copies = [tmp_path / "chip.png", tmp_path / "normal.png"]
    shutil.copy(chip.image, copies[0])
    shutil.copy(whole.normals[0].image, copies[1])
    filed_twice = replace(chip, id="crack/same", image=copies[0], defect="crack")
    normal_twice = replace(whole.normals[0], id="zz", image=copies[1])
    split = replace(whole, shots=(*whole.shots, filed_twice), normals=(*whole.normals, normal_twice))
    folds = folds_of(split, 3)
    assert len(folds) == 3
    for fold in folds:
        learned, asked = (
            {content_hash(one.image) for one in side}
            for side in (
                (*fold.split.shots, *fold.split.normals),
                (*fold.split.test_defects, *fold.split.test_normals),
            )
        )
        assert not learned & asked
    assert ids(*(fold.split.test_normals for fold in folds)) == ids(split.normals)


def test_a_type_that_no_fold_can_judge_is_chosen_for(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A product's only shot: no fold can be made of it, and its type follows those of the other product."""
    shutil.copytree(root / "tile", tmp_path / "set" / "tile")
    shutil.copytree(root / "tile" / "train", tmp_path / "set" / "bolt" / "train")
    for part in ("test", "ground_truth"):
        file = sorted((root / "tile" / part / "crack").iterdir())[0]
        (tmp_path / "set" / "bolt" / part / "dent").mkdir(parents=True)
        shutil.copy(file, tmp_path / "set" / "bolt" / part / "dent" / file.name)
    config = configured(tmp_path / "set", **{"data.defects": ["chip", "dent"]})
    better = {"localization": {"chip": 0.5}}

    def figures(judge: Judge, way: Way) -> Figures:
        return {"localization": {"chip": 0.1}} if way is None else better

    monkeypatch.setattr(Judge, "figures", figures)
    choice = choose(config, tmp_path / "choice", folds=2, workers=1)
    assert [one.defect for one in choice.defects] == ["chip", "dent"]
    assert choice.config.generate.count == {"chip": 20, "dent": 10}
    assert "its shots show one piece" in choice.defects[1].sentence


@pytest.mark.parametrize("leaving_out_harms", [True, False])
def test_a_type_that_gains_nothing_by_itself_is_asked_again_beside_the_others(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leaving_out_harms: bool
):
    """One detector learns all types: samples of the others take its attention from a type that has none."""

    def figures(judge: Judge, way: Way) -> Figures:
        noise = judge.fold.number / 1000
        chip, crack = (0.5, 0.5) if way is None else (0.6 + noise, 0.5 - noise)
        if isinstance(way, Mixture) and set(way.of) == {"chip"} and leaving_out_harms:
            crack = 0.3 - noise
        return {"localization": {"chip": chip, "crack": crack}}

    monkeypatch.setattr(Judge, "figures", figures)
    config = configured(root, **{"data.shots": 3, "data.defects": ["chip", "crack"]})
    choice = choose(config, tmp_path / "choice", folds=3, workers=1)
    chip, crack = choice.defects
    assert chip.candidate and not chip.beside
    assert choice.every is not None
    text = (tmp_path / "choice" / "choice.md").read_text(encoding="utf-8")
    assert "|  | crack | mean |" in text and "| samples of all types |" in text
    assert set(choice.every.differences["localization"]) == {"crack"}  # chip has its samples in both
    if leaving_out_harms:
        assert crack.candidate and crack.beside
        assert crack.effect is not None and crack.effect.value == pytest.approx(0.2, abs=0.01)
        assert "(beside the samples of the other types +" in crack.sentence
        assert choice.config.generate.count == {"chip": 30, "crack": 30}
    else:
        assert crack.candidate is None and crack.effect is None
        assert choice.config.generate.count == {"chip": 30, "crack": 0}
    monkeypatch.setenv("FLAWSMITH_LANG", "ko")
    assert not re.search("[A-Za-z]{3,} [a-z]{3,}", text_of(choice))


def test_a_type_of_one_piece_is_always_learned_from_and_never_judged(whole: Split):
    lone = next(shot for shot in whole.shots if shot.defect == "chip")
    split = replace(whole, shots=(lone, *(shot for shot in whole.shots if shot.defect == "crack")))
    for fold in folds_of(split, 3):
        assert lone in fold.split.shots
        assert fold.judged == ("crack",)


def test_estimates_are_the_posterior_of_a_normal_model():
    rng = np.random.default_rng(0)
    differences = {name: list(rng.normal(rng.normal(0.1, 0.3), 0.1, 4)) for name in "abcdef"}
    made = estimates(differences)
    means = np.array([np.mean(row) for row in differences.values()])
    noise = np.mean([np.var(row, ddof=1) for row in differences.values()]) / 4
    spread = np.var(means, ddof=1) - noise
    # Independent reference: theta and its flat-prior mean solved together, as one Gaussian.
    count = len(means)
    precision = np.zeros((count + 1, count + 1))
    precision[:count, :count] = np.eye(count) * (1 / noise + 1 / spread)
    precision[:count, count] = precision[count, :count] = -1 / spread
    precision[count, count] = count / spread
    covariance = np.linalg.inv(precision)
    expected = covariance @ np.append(means / noise, 0.0)
    for number, name in enumerate(differences):
        assert made[name].value == pytest.approx(expected[number])
        assert made[name].error == pytest.approx(covariance[number, number] ** 0.5)


def test_types_that_differ_no_more_than_their_noise_share_one_estimate():
    made = estimates({"a": [0.1, 0.3], "b": [0.3, 0.1], "c": [0.2, 0.2]})
    assert {round(one.value, 9) for one in made.values()} == {0.2}


def test_one_fold_tells_no_error_so_nothing_helps():
    made = estimates({"a": [0.4], "b": [0.5]})
    assert not any(one.helps or one.harms for one in made.values())
    assert not overall({"a": [0.4]}).helps
    with pytest.raises(ValueError, match="no differences"):
        estimates({})


def test_what_changes_nothing_helps_nothing():
    assert not estimates({"a": [0.0, 0.0], "b": [0.0, 0.0]})["a"].helps
    assert not Estimate(0.0, 0.0).harms


def test_a_trial_serves_a_type_only_when_its_detection_is_not_harmed():
    better = {"a": [0.2, 0.22, 0.18], "b": [0.2, 0.21, 0.19]}
    assert Trial("x", {"localization": better}).serves("a")
    worse = {"a": [-0.2, -0.21, -0.19], "b": [0.0, 0.0, 0.0]}
    both = Trial("x", {"localization": better, "detection": worse})
    assert not both.serves("a")
    assert both.serves("b")
    assert Trial("x", {"localization": better}).serves("a type that no fold judged")
    assert not Trial("x", {"localization": {"a": [0.3, -0.3], "b": [-0.3, 0.3]}}).serves("a")


def test_the_usual_candidates_need_no_training_and_unknown_ones_are_refused():
    assert [one.name for one in candidates(())] == [
        "patch_synthesis",
        "patch_synthesis, new shapes",
        "crop_paste",
    ]
    assert Candidate("perlin", "shots") in candidates(("perlin",))
    with pytest.raises(ConfigError, match="--also: generator 'perlinn' is unknown"):
        candidates(("perlinn",))


def configured(root: Path, **more: object) -> Config:
    settings = {
        "data.root": str(root),
        "data.shots": 2,
        "data.defects": ["chip"],
        "prove.detectors": ["probe"],
        "prove.size": 64,
    }
    return load_config(None, {**settings, "prove.budget": 0.02, **more})


def test_choosing_writes_what_it_found_and_goes_on_where_it_was_stopped(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = configured(root)  # one type and two shots: every arm is trained twice
    choice = choose(config, tmp_path / "choice", folds=2, workers=1)  # in two: tests/clusters/test_choosing.py
    tree = read_json(tmp_path / "choice" / "choice.json")
    assert set(tree["defects"]) == {"chip"}
    assert set(tree["candidates"]) == {"patch_synthesis", "patch_synthesis, new shapes", "crop_paste"}
    for row in tree["candidates"].values():
        assert {len(values) for values in row["differences"]["localization"].values()} == {2}
    for defect in choice.defects:
        assert defect.sentence in closing_words(tmp_path / "choice", choice)
        assert defect.sentence in (tmp_path / "choice" / "choice.md").read_text(encoding="utf-8")
    answers = sorted((tmp_path / "choice" / "state" / "choice").rglob("answers/*.json"))
    kept = {path: path.stat().st_mtime_ns for path in answers}
    assert choose(config, tmp_path / "choice", folds=2, workers=1).tree() == choice.tree()
    assert {path: path.stat().st_mtime_ns for path in answers} == kept
    answers[0].unlink()
    assert choose(config, tmp_path / "choice", folds=2, workers=1).tree() == choice.tree()
    if (tmp_path / "choice" / "chosen.toml").exists():
        assert load_config(tmp_path / "choice" / "chosen.toml").generate.count == choice.config.generate.count
    monkeypatch.setenv("FLAWSMITH_LANG", "ko")
    korean = text_of(choice)
    assert "실제 샷만 쓸 때와의 차이" in korean
    assert not re.search("[A-Za-z]{3,} [a-z]{3,}", korean)


def test_a_mixture_of_all_that_one_candidate_made_is_not_learned_again(root: Path, tmp_path: Path):
    config = configured(root, **{"data.defects": ["chip", "crack"]})
    run = Run.create(tmp_path / "choice", config)
    sitting = Sitting(run.folder, config, tmp_path / "choice" / "work", 2)
    judge = judges_of(sitting, open_dataset(run), extractor_of(config))[0][0]
    pasted = Candidate("crop_paste", "shots")
    mixture = Mixture({"chip": pasted, "crack": pasted})

    def answered() -> list[str]:
        return [read_json(path)["arm"] for path in sitting.work.rglob("answers/*.json")]

    figures = judge.figures(pasted)
    assert answered() == ["crop_paste"]
    assert judge.figures(mixture) == figures
    assert len(answered()) == 1
    judge.figures(replace(mixture, controls=False))
    judge.figures(replace(mixture, per_shot=3))
    assert len(answered()) == 3


def test_what_cannot_be_judged_is_refused(root: Path, tmp_path: Path):
    with pytest.raises(ConfigError, match="folds: 1 leaves nothing"):
        choose(configured(root), tmp_path / "a", folds=1)
    with pytest.raises(ConfigError, match="workers: -1 is no number of processes"):
        choose(configured(root), tmp_path / "a", workers=-1)
    with pytest.raises(DataError, match="no defect type has shots of two different pieces"):
        choose(configured(root, **{"data.shots": 1}), tmp_path / "b", folds=2)
