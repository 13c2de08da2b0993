"""The proof, end to end, and with generators, labels and leaks whose verdict is known beforehand."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import false_discovery_control

import flawsmith as fs
from flawsmith import registry
from flawsmith.config import ProveConfig, load_config, validate
from flawsmith.data import factory, images
from flawsmith.data.split import Split
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import ConfigError, DataError, RunError
from flawsmith.evaluation.arms import MADE_ONLY, OURS, REAL, Arm, common_set, held_out, made_of, training_set
from flawsmith.evaluation.evaluator import Evaluator
from flawsmith.evaluation.statistics import ALL, MEAN, NONE, Outcome
from flawsmith.files import read_lines
from flawsmith.interfaces import Detector
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks import training_state
from flawsmith.pipeline import prove
from flawsmith.reporting.explanations import explanation_section
from flawsmith.reporting.report import report
from flawsmith.run.dataset import load_split
from flawsmith.run.records import write_records
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train

HERE = Path(__file__).parent
DEFECTS = ("chip", "crack")
SHUFFLES = 4
HEAD = {"steps": 40, "places": 768, "views": 2}
MEMORY = {"memory": 200, "draw": 2000}
UNET = {"width": 2, "epochs": 3, "samples_per_epoch": 4}
SETTINGS = {"probe": HEAD, "patchcore": MEMORY, "memory_probe": {"heads": 2, "head": HEAD, **MEMORY}}
JUDGES = ("probe", "memory_probe", "patchcore")
"""The detectors that a proof stands on: what is planted must come out the same with each."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    factory.write_dataset(root, "magnet", ("crack", "chip"), normals=10, per_defect=9, seed=1, size=96, test_normals=8)
    return root


def made_run(folder: Path, parts: Path, **changes: Any) -> fs.Run:
    """A run with its samples made, ready to be proven."""
    table: dict[str, Any] = {
        "data.root": str(parts),
        "data.shots": 3,
        "generator.name": "crop_paste",
        "generate.count": 6,
        "measure.enabled": False,
        "prove.against": [],
        "prove.curve": [],
        "prove.seeds": 2,
        "prove.size": 96,
        "prove.detectors": ["probe"],
        "prove.settings": SETTINGS,
        "prove.resamples": 200,
    }
    run = fs.Run.create(folder, load_config(None, table | {key.replace("__", "."): v for key, v in changes.items()}))
    train(run)
    generate(run)
    return run


@pytest.fixture(scope="module")
def made(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    """A run of `made_run` without changes. Copy it to write it."""
    return made_run(tmp_path_factory.mktemp("made") / "run", parts)


def copied(run: fs.Run, folder: Path, **prove: Any) -> fs.Run:
    """Return a copy of a run in another folder, with changes of [prove]."""
    shutil.copytree(run.folder, folder)
    table = run.config.model_dump(mode="json")
    table["prove"] |= prove
    return fs.Run.create(folder, load_config(None, table))


@pytest.fixture(scope="module")
def features() -> FeatureCache:
    """The features of photographs, read once for all that ask here."""
    return FeatureCache(load_extractor("efficientnet-lite0"))


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> fs.Run:
    """A proof with just enough normal parts to set thresholds."""
    root = tmp_path_factory.mktemp("more")
    factory.write_dataset(root, "magnet", ("crack", "chip"), normals=25, per_defect=9, seed=1, size=96, test_normals=8)
    told: dict[str, Any] = {"prove__against": ["perlin"], "prove__curve": [1], "prove__detectors": ["memory_probe"]}
    run = made_run(tmp_path_factory.mktemp("proven") / "run", root, **told)
    prove(run)
    return run


def tree_of(run: fs.Run) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(run.path("proof.json").read_text())
    return tree


def verdicts(run: fs.Run, against: str = REAL) -> dict[tuple[str, str], dict[str, Any]]:
    rows = tree_of(run)["products"]["magnet"]["comparisons"]
    return {(row["task"], row["defect"]): row for row in rows if (row["arm"], row["against"]) == (OURS, against)}


def test_every_defect_type_gets_a_verdict_in_every_task(proven: fs.Run):
    rows = verdicts(proven)
    assert set(rows) == {
        (task, defect) for task in ("localization", "detection", "classification") for defect in (*DEFECTS, MEAN, ALL)
    }
    for row in rows.values():
        assert row["verdict"] in ("helps", "no effect", "harms")
        assert row["low"] <= row["difference"] + 0.05 and row["difference"] - 0.05 <= row["high"]
    own = tree_of(proven)["products"]["magnet"]
    names = [REAL, "perlin", OURS, "ours, no controls", MADE_ONLY, "ours + perlin", "ours 1x", NONE]
    assert list(own["arms"]) == names
    assert own["test"] == {"normal": 8, "chip": 6, "crack": 6} and own["shots"] == {"chip": 3, "crack": 3}
    assert own["arms"]["none"]["figures"]["localization"][MEAN]["ap"]["mean"] > 0.1
    assert own["arms"][OURS]["controls"] > 0 == own["arms"]["ours, no controls"]["controls"]
    assert [row["arm"] for row in own["curve"]] == [REAL, "ours 1x", OURS]


def test_misses_and_false_alarms_are_told_at_the_users_rate(proven: fs.Run):
    own = tree_of(proven)["products"]["magnet"]
    point = own["operating_point"]
    assert list(point["arms"]) == list(own["arms"])
    calibration = set(point["calibration_normals"])
    assert len(calibration) == 5 and calibration <= {example.id for example in load_split(proven).normals}
    # What is painted on a calibration normal, or takes matter from one, is learned from by no arm.
    held = {control.normal for control in held_out(made_of(proven, "magnet")[1], load_split(proven).normals)}
    away = calibration | held
    assert held < calibration and len(held) == own["held_out_controls"] == 2
    left = [row.defect for row in proven.samples() if row.normal not in away]
    assert own["arms"][OURS]["samples"] == dict(Counter(left)) and len(left) < len(proven.samples())
    controls = [row for row in proven.controls() if not away & {row.normal, row.donor}]
    assert own["arms"][OURS]["controls"] == len(controls) and all(row.donor for row in proven.controls())
    for name, arm in point["arms"].items():
        assert len(arm["threshold"]) == 2 and set(arm["misses"]) == {*DEFECTS, ALL}
        assert ("shifts" in arm) == (name in (REAL, "perlin", OURS, "none"))
        for share in (arm["false_alarms"], *arm["misses"].values(), *arm.get("shifts", {}).values()):
            assert 0 <= share["low"] <= share["mean"] <= share["high"] <= 1
            assert share["mean"] == pytest.approx(np.mean(share["each"]), abs=1e-5)
        # All eight normal test pictures are shown shifted too, so that both ways count the same.
        assert arm.get("shifts", {}).get("as photographed", arm["false_alarms"]) == arm["false_alarms"]
    folder = proven.path("state", "prove", own["thumbs"][OURS]).parent
    outcome = Outcome.load(folder / "magnet-ours-1.npz")
    assert outcome.calibration is not None and outcome.score is not None and outcome.shifted is not None
    # Five normals allow no rate below one in six, so the threshold is the greatest of their scores.
    assert point["arms"][OURS]["threshold"][1] == pytest.approx(outcome.calibration.max(), abs=1e-6)
    assert point["arms"][OURS]["false_alarms"]["each"][1] == (outcome.score[-8:] > outcome.calibration.max()).mean()
    assert any("5% cannot be kept with 5 calibration normals, which allow 16.7%" in note for note in own["notes"])
    assert len(outcome.shifted) == 5 and not (outcome.shifted == outcome.score[-8:]).all(axis=1).any()


def test_detectors_say_how_they_weigh_the_memory(proven: fs.Run):
    facts = tree_of(proven)["products"]["magnet"]["detector_facts"]
    assert set(facts) == set(tree_of(proven)["products"]["magnet"]["arms"]) - {NONE}
    weights = {arm: row["Weight of the memory in the image score"]["each"] for arm, row in facts.items()}
    assert all(len(each) == 2 and 0 < min(each) and max(each) < 1 for each in weights.values())
    made = sum(tree_of(proven)["products"]["magnet"]["arms"][MADE_ONLY]["samples"].values())
    assert weights[MADE_ONLY] == pytest.approx([1 - 0.5 * made / (made + 15)] * 2)  # no shot tells how well either does


def test_another_rate_trains_nothing_again(proven: fs.Run, tmp_path: Path):
    run = copied(proven, tmp_path / "run", false_alarm_rate=0.34, resamples=300)
    prove(run)
    assert [row["what"] for row in read_lines(run.path("log.jsonl")) if row["stage"] == "prove"][-1] == "0 trainings"
    before, after = (tree_of(one)["products"]["magnet"]["operating_point"]["arms"][OURS] for one in (proven, run))
    assert before["misses"][ALL]["mean"] >= after["misses"][ALL]["mean"] and after["threshold"] < before["threshold"]


def test_verdicts_are_corrected_over_the_whole_proof(proven: fs.Run):
    rows = tree_of(proven)["products"]["magnet"]["comparisons"]
    adjusted = false_discovery_control([row["p_value"] for row in rows])
    assert [row["adjusted_p_value"] for row in rows] == pytest.approx(list(adjusted), abs=1e-5)
    for row in rows:
        stands = row["adjusted_p_value"] <= 0.05
        assert row["corrected_verdict"] == (row["verdict"] if stands else "no effect")
        assert 2 / 201 - 1e-6 <= row["p_value"] <= 1


def test_made_only_learns_what_ours_does_but_for_the_shots(proven: fs.Run):
    own = tree_of(proven)["products"]["magnet"]
    ours, made_only = own["arms"][OURS], own["arms"][MADE_ONLY]
    assert {key: made_only[key] for key in ("samples", "controls")} == {k: ours[k] for k in ("samples", "controls")}
    assert "no shots" in made_only["text"] and not [note for note in own["notes"] if MADE_ONLY in note]
    compared = {row["task"] for row in own["comparisons"] if (row["arm"], row["against"]) == (MADE_ONLY, REAL)}
    assert compared == {"localization", "detection", "classification"}
    split, samples = load_split(proven), made_of(proven, "magnet")[0]
    common = common_set(split, [], (96, 96), DEFECTS, frozenset())
    sets = [training_set(common, Arm("", "", tuple(samples), shots=shots), split) for shots in (True, False)]
    assert [len(one.damaged(None, "real")) for one in sets] == [6, 0]
    assert [len(one.damaged(None, "made")) for one in sets] == [len(samples)] * 2


def test_made_only_says_of_which_defect_type_it_learned_nothing(
    parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("FLAWSMITH_PLUGINS", "generators.chips=planted:ChipsAlone")
    run = made_run(
        tmp_path / "run", parts, generator__name="chips", generate__attempts=1, prove__seeds=1, prove__size=64
    )
    prove(run)
    own = tree_of(run)["products"]["magnet"]
    assert "made-only: no sample shows crack, so this arm has never seen such damage" in own["notes"]
    recall = own["arms"][MADE_ONLY]["figures"]["classification"]
    assert recall["crack"]["recall"]["mean"] == 0 < recall["chip"]["recall"]["mean"]


def test_the_arms_differ_in_the_paint_alone(proven: fs.Run):
    ours, other = proven.plan(), fs.Run.open(proven.path("arms", "perlin")).plan()
    for key in ("index", "normal", "defect", "seed", "pose"):
        assert [getattr(line, key) for line in ours] == [getattr(line, key) for line in other]


def test_the_report_tells_the_verdict(proven: fs.Run):
    report(proven)
    page, text = proven.path("report.html").read_text(), proven.path("report.md").read_text()
    for content in (page, text):
        assert "do the samples help?" in content and "ours against real-only" in content
        assert "artefact score" in content.lower() and "efficientnet-lite0" in content
        assert "At a false-alarm rate of 5%" in content and "False alarms when photographs change" in content
        assert "What the detector looked at" in content
        assert "the correction of Benjamini and Hochberg" in content and "ours less real-only, points" in content
    assert f"{100 * verdicts(proven)['localization', MEAN]['difference']:+.1f} [" in text


def test_the_report_shows_what_the_detector_looked_at(proven: fs.Run):
    own, split = tree_of(proven)["products"]["magnet"], load_split(proven)
    told = own["explanations"]
    assert (
        told["detector"] == "memory_probe"
        and told["seed"] == 1
        and told["maps"].endswith("magnet-ours-1.explained.png")
    )
    assert {defect: tests for defect, (_, tests) in told["found"].items()} == {"chip": 6, "crack": 6}
    assert 2 <= len(told["faults"]) <= 4 and "image" not in told["faults"][0]
    learned = {example.id for example in split.normals} - set(own["operating_point"]["calibration_normals"])
    for fault in told["faults"]:
        assert fault["id"] in {example.id for example in split.test_defects} and len(fault["normals"]) == 3
        assert {one["id"] for one in fault["normals"]} <= learned
        assert fault["shot"]["id"] in {example.id for example in split.shots}
    section = explanation_section(proven, own, 0, split)
    assert section is not None and len(section.sheets[0].heads) == 7
    assert all(len(row.tiles) == 7 for row in section.sheets[0].rows)
    # Without state/, which may be deleted, the maps are gone; a proof of an earlier release says nothing at all.
    gone = own | {"explanations": told | {"maps": "gone.png"}}
    section = explanation_section(proven, gone, 0, split)
    assert section is not None and "anomaly map" not in section.sheets[0].heads
    assert explanation_section(proven, {k: v for k, v in own.items() if k != "explanations"}, 0, split) is None
    assert explanation_section(proven, own, 0, replace(split, shots=())) is None  # the photographs are gone


def test_a_proof_is_not_done_twice_and_goes_on_where_it_was_killed(proven: fs.Run):
    path = proven.path("proof.json")
    before, changed = path.read_bytes(), path.stat().st_mtime_ns
    prove(proven)
    assert path.stat().st_mtime_ns == changed
    # As if killed in the middle: some arms are on disk, the proof is not.
    kept = sorted(proven.path("state", "prove").rglob("*.npz"))
    assert len(kept) == 16
    for gone in kept[::5]:
        gone.unlink()
    path.unlink()
    proven.forget("prove")
    prove(proven)
    assert path.read_bytes() == before


def test_a_generator_that_paints_nothing_has_no_effect(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without controls both arms learn from the same pictures, so that every difference is exactly nothing."""
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("FLAWSMITH_PLUGINS", "generators.blank=planted:Blank")
    changes = {"generate__attempts": 1, "generate__controls": 0.0, "prove__seeds": 1, "prove__size": 64}
    run = made_run(tmp_path / "run", parts, generator__name="blank", **changes)
    assert run.samples() and not [row for row in run.samples() if row.made]
    for detector in JUDGES:
        judged = run.config.prove.model_copy(update={"detectors": [detector]})
        run = fs.Run.create(run.folder, run.config.model_copy(update={"prove": judged}))
        prove(run)
        assert tree_of(run)["detectors"] == [detector]
        assert {(row["verdict"], row["difference"]) for row in verdicts(run).values()} == {("no effect", 0.0)}
        assert MADE_ONLY not in tree_of(run)["products"]["magnet"]["arms"]  # it would be `none`


def test_a_generator_that_copies_test_pictures_is_refused(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("FLAWSMITH_PLUGINS", "generators.copier=planted:Copier")
    monkeypatch.setenv("COPIED", str(parts / "magnet" / "test"))
    run = made_run(tmp_path / "run", parts, generator__name="copier", windows__context=8.0, generate__controls=0.0)
    assert [row for row in run.samples() if row.made]
    with pytest.raises(DataError, match="is a picture of the test set, so no detector may learn from it"):
        prove(run)
    assert not run.path("proof.json").exists()


def test_oblong_photographs_are_proven_at_their_own_shape(parts: Path, tmp_path: Path):
    """Each photograph has another normal one at its right side, so that it is twice as wide as high."""
    root = tmp_path / "oblong"
    beside = images.read(parts / "magnet/test/good/000.png")
    for path in parts.rglob("*.png"):
        right = np.zeros((96, 96), np.uint8) if "ground_truth" in path.parts else beside
        images.write(root / path.relative_to(parts), np.hstack([images.read(path), right]))
    run = made_run(tmp_path / "run", root, prove__seeds=1, prove__against=ProveConfig().against)
    prove(run)
    product = tree_of(run)["products"]["magnet"]
    assert run.config.why_no_rival in product["notes"] and "crop_paste" not in product["arms"]  # as by default
    assert product["shape"] == [64, 128] and not [note for note in product["notes"] if "stretches" in note]
    assert product["arms"][OURS]["figures"]["detection"][MEAN]["auroc"]["mean"] > 0.5
    report(run)
    assert "64 x 128 pixels" in run.path("report.md").read_text()
    shown = [image for image in run.path("report").glob("proof-*gained*") if image.suffix != ".svg"]
    assert shown


def test_photographs_of_any_shape_are_proven_in_tiles(parts: Path, tmp_path: Path):
    """Every third photograph lies, every third stands, and every third is smaller than a tile."""
    root = tmp_path / "mixed"
    normal = images.read(parts / "magnet/test/good/000.png")
    for path in parts.rglob("*.png"):
        if (number := int(path.stem[:3])) < 6:
            picture = images.read(path)
            beside = np.zeros_like(picture) if "ground_truth" in path.parts else normal
            mixed = [np.hstack([picture, beside]), np.vstack([picture, beside]), picture][number % 3]
            images.write(root / path.relative_to(parts), mixed)
    run = made_run(tmp_path / "run", root, prove__seeds=1, prove__size=0, prove__tile=128)
    prove(run)
    product = tree_of(run)["products"]["magnet"]
    assert product["shape"] == [128, 128] and product["tiles"] == {
        "side": 128,
        "scale": 1.0,
        "per_normal": (1 << 27) // (128 * 128 * 6),
        "per_picture": 1.67,
    }
    assert not [note for note in product["notes"] if "stretches" in note]
    figures = product["arms"][OURS]["figures"]
    assert figures["detection"][MEAN]["auroc"]["mean"] > 0.5 and product["artefact"][OURS]["louder"]["mean"] >= 0
    report(run)
    said = "photographs at their own resolution in overlapping tiles of 128 x 128 pixels (1.7 per test picture)"
    assert said in run.path("report.md").read_text()
    assert [image for image in run.path("report").glob("proof-*gained*") if image.suffix != ".svg"]


def test_noise_does_not_help(parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(HERE))
    monkeypatch.setenv("FLAWSMITH_PLUGINS", "generators.noise=planted:Noise")
    run = made_run(tmp_path / "run", parts, generator__name="noise", generate__count=12, generate__controls=0.0)
    prove(run)
    assert len([row for row in run.samples() if row.made]) == 24
    assert {row["verdict"] for (_, defect), row in verdicts(run).items() if defect == MEAN} <= {"no effect", "harms"}


def test_a_leaked_test_picture_stops_the_proof(made: fs.Run, tmp_path: Path):
    run = copied(made, tmp_path / "run")
    test = load_split(run).test_defects[0]
    leaked = next(row for row in run.samples() if row.made)
    shutil.copy(test.image, run.path(leaked.image))
    with pytest.raises(RunError, match="changed or went away"):
        prove(run)
    # Also where nothing is known of how it was made.
    write_records(run.path("samples.jsonl"), [replace(one, image_hash="") for one in run.samples()])
    with pytest.raises(DataError, match="is a picture of the test set, so no detector may learn from it"):
        prove(run)
    assert not run.path("proof.json").exists()


def trained(name: str, training: TrainingSet, extractor: Any, seed: int) -> Detector:
    """Return one of the detectors after a short training, but long enough for its right labels to be learned."""
    plugin: type[Detector] = registry.get("detectors", name)
    head = {"steps": 100, "places": 512, "views": 2}
    settings = {"probe": head, "memory_probe": MEMORY | {"heads": 2, "head": head}, "patchcore": MEMORY}[name]
    detector = plugin(validate(plugin.Settings, settings), DEFECTS, extractor=extractor)
    for _ in detector.fit(training, torch.Generator().manual_seed(seed)):
        pass
    return detector


@pytest.mark.parametrize("name", JUDGES)
def test_shuffled_labels_teach_nothing(made: fs.Run, features: FeatureCache, name: str):
    """All labels are dealt anew, those of the test pictures too, so that pictures say nothing: mean image AUROC is .5.

    Shuffled training labels alone would leave a memory of normal parts most of the normal parts.
    """
    split = load_split(made)

    def area(split: Split, seed: int) -> float:
        evaluator = Evaluator(split, DEFECTS, (96, 96), drop_near_duplicates=False)
        common = common_set(split, [], (96, 96), DEFECTS, evaluator.forbidden)
        detector = trained(name, training_set(common, Arm(REAL, ""), split), features, seed)
        return evaluator.evaluate(detector, {"detection"}).figures["detection"][ALL]["auroc"]

    def dealt(seed: int) -> Split:
        groups = ("shots", "normals", "test_defects", "test_normals")
        labelled = [example for group in groups for example in getattr(split, group)]
        order = iter(np.random.default_rng(seed).permutation(len(labelled)))
        return replace(
            split,
            **{
                group: [
                    replace(labelled[next(order)], defect=example.defect, masks=example.masks)
                    for example in getattr(split, group)
                ]
                for group in groups
            },
        )

    areas = [area(dealt(seed), seed) for seed in range(SHUFFLES)]
    damaged, normal = len(split.test_defects), len(split.test_normals)
    deviation = ((damaged + normal + 1) / (12 * damaged * normal * SHUFFLES)) ** 0.5  # of the mean: Mann and Whitney
    assert abs(np.mean(areas) - 0.5) < 2.6 * deviation
    assert area(split, 0) > 0.5 + 2.6 * deviation


@pytest.fixture(scope="module")
def in_the_field(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[fs.Run, fs.Run]:
    """A proof by the field's protocol, and the same run before it was proven."""
    told = {"prove__detectors": ["unet"], "prove__settings": {"unet": UNET, "patchcore": MEMORY}, "prove__seeds": 1}
    run = made_run(tmp_path_factory.mktemp("field") / "run", parts, prove__protocol="field", prove__size=32, **told)
    unproven = fs.Run.open(shutil.copytree(run.folder, run.folder.with_name("unproven")))
    prove(run)
    return run, unproven


def test_the_field_protocol_shows_best_on_test_beside_last(in_the_field: tuple[fs.Run, fs.Run]):
    run, _ = in_the_field
    own = tree_of(run)["products"]["magnet"]
    for name in (REAL, OURS):
        best = own["best_on_test"][name]["localization"][ALL]["ap"]["mean"]
        assert best >= own["arms"][name]["figures"]["localization"][ALL]["ap"]["mean"]
    assert any("believe the last epoch" in note for note in own["notes"])
    report(run)
    assert run.path("report.md").read_text("utf-8").count("This is a first look with 1 seed (a verdict needs 3).") == 1
    report(run)
    assert "chosen by the test set" in run.path("report.md").read_text()


def test_a_killed_field_proof_goes_on_inside_a_training(
    in_the_field: tuple[fs.Run, fs.Run], monkeypatch: pytest.MonkeyPatch
):
    run, killed = in_the_field
    monkeypatch.setattr(training_state, "SECONDS", 0.0)
    evaluate, asked = Evaluator.evaluate, []

    def stopped(self: Evaluator, detector: Detector, tasks: Any) -> Outcome:
        asked.append(detector)
        if len(asked) == 6:  # the first training asks after each of three epochs, and at its end; this is the second
            raise KeyboardInterrupt
        return evaluate(self, detector, tasks)

    monkeypatch.setattr(Evaluator, "evaluate", stopped)
    with pytest.raises(KeyboardInterrupt):
        prove(killed)
    left = sorted(path.name for path in killed.path("state", "prove").rglob("*.unet.*"))
    assert [name.partition(".unet")[2] for name in left] == [".tested.npz", ".training"]
    prove(killed)
    # The second training asks after its two last epochs, and at its end.
    assert len([one for one in asked[6:] if one is asked[6]]) == 3
    assert tree_of(killed)["products"] == tree_of(run)["products"]
    assert not list(killed.path("state", "prove").rglob("*.unet.*"))


def test_the_suite_of_mvtec_reads_such_proofs(in_the_field: tuple[fs.Run, fs.Run], tmp_path: Path):
    spec = importlib.util.spec_from_file_location("mvtec_suite", HERE.parents[1] / "benchmarks/suites/mvtec.py")
    assert spec is not None and spec.loader is not None
    suite = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(suite)
    run, _ = in_the_field
    own, told = tree_of(run)["products"]["magnet"], suite.summary(run)
    row = told["arms"]["crop_paste"]  # what is `ours` there is called by its generator
    assert row["last"]["pixel AP"] == round(own["arms"][OURS]["figures"]["localization"][ALL]["ap"]["mean"], 5)
    assert row["best on test"]["PRO"] == round(own["best_on_test"][OURS]["localization"][ALL]["aupro"]["mean"], 5)
    text = suite.tables({"magnet": told})
    assert f"| mean of 1 | {100 * told['arms'][REAL]['last']['image AUROC']:.1f} |" in text
    assert "3 epochs, not 200" in text and "| accuracy |" not in text


def test_wrong_input_is_said_before_anything_is_trained(made: fs.Run, tmp_path: Path):
    run = copied(made, tmp_path / "run")

    def tried(**changes: Any) -> fs.Run:
        table = run.config.model_dump(mode="json")
        table["prove"] |= changes
        return fs.Run.create(run.folder, fs.load_config(None, table))

    for changes, said in (
        ({"detectors": ["prob"]}, "prove.detectors: detector 'prob' is unknown; did you mean"),
        ({"against": ["perlin", "crop_paste"]}, "prove.against: 'crop_paste' is this run's own generator"),
        ({"against": ["crop_past"]}, "prove.against: generator 'crop_past' is unknown"),
        ({"size": 8}, "prove.size: should be 0, or 32 pixels or more, not 8"),
        ({"settings": {"probe": {"stepps": 3}}}, "prove.settings.probe: stepps: unknown key"),
    ):
        with pytest.raises(ConfigError, match=said):
            prove(tried(**changes))
    empty = fs.Run.create(tmp_path / "other", run.config)
    with pytest.raises(RunError, match="no samples are made yet"):
        prove(empty)
