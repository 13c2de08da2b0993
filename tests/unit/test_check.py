"""preflight/check.py: what a folder holds is counted, what is wrong with it is listed by name, nothing is raised."""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from flawsmith.config import Config, DataConfig, GeneratorConfig, overridden, validate
from flawsmith.data import fingerprints, images, split
from flawsmith.data.layouts import scan
from flawsmith.errors import DataError
from flawsmith.evaluation.calibration import calibration_count, least_rate, normals_for
from flawsmith.files import read_json
from flawsmith.korean import in_korean
from flawsmith.preflight import cost, pictures, stage_times
from flawsmith.preflight.check import check
from flawsmith.preflight.findings import Findings
from flawsmith.preflight.proof_data import thin_grounds
from flawsmith.run import dataset
from flawsmith.run.dataset import load_split, open_dataset
from flawsmith.run.folder import Run
from flawsmith.synthesis.counts import counts
from flawsmith.types import Example

SIZE = (48, 64)


def photograph(seed: int, shape: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def square(side: int = 12, shape: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[8 : 8 + side, 10 : 10 + side] = True
    return mask


def make(root: Path, *, scratch: int = 6, dent: int = 2, good: int = 6) -> Config:
    """A normal little mvtec set."""
    for index in range(good):
        images.write(root / f"nut/train/good/{index}.png", photograph(index))
    for defect, count, first in (("scratch", scratch, 100), ("dent", dent, 200)):
        for index in range(count):
            images.write(root / f"nut/test/{defect}/{index}.png", photograph(first + index))
            images.write_mask(root / f"nut/ground_truth/{defect}/{index}_mask.png", square())
    return Config(data=DataConfig(root=root, shots=3), generator=GeneratorConfig(name="controlnet_inpaint"))


def rendered(found: Findings) -> str:
    console = Console(width=160, file=io.StringIO())
    found.render(console)
    return console.file.getvalue()


def in_korean_throughout(found: Findings) -> bool:
    """Print what is left of English where something is: three words in a row that are no name of a file or setting."""
    spoken = [*found.errors, *found.warnings, *found.notes, *found.files, *found.estimate, *found.estimate.values()]
    left = [
        korean
        for korean in map(in_korean, spoken)
        if re.search(r"(?<![\w./=\"'])[a-z]+ [a-z]+ [a-z]+(?![\w./])", korean)
    ]
    print("\n".join(left))
    return not left


def test_a_sound_set(tmp_path: Path):
    found = check(make(tmp_path))
    assert in_korean_throughout(found)
    assert found.ok and found.errors == []
    rows = {(row.product, row.defect): row for row in found.defects}
    assert list(rows) == [("nut", ""), ("nut", "dent"), ("nut", "scratch")]
    assert (rows["nut", ""].shots, rows["nut", ""].test) == (5, 1)
    scratch = rows["nut", "scratch"]
    assert (scratch.pictures, scratch.shots, scratch.test, scratch.lacks) == (6, 3, 3, 0)
    assert rows["nut", "dent"].lacks == 4
    assert scratch.share == pytest.approx(144 / 3072) and scratch.thickness == pytest.approx(12, abs=0.5)
    (sizes,) = found.pictures
    assert (sizes.width, sizes.height, sizes.formats) == ((64, 64, 64), (48, 48, 48), {"8-bit grey PNG": 14})
    assert "dent has 2 pictures, scratch 6" in " ".join(found.warnings)
    text = rendered(found)
    assert "ready" in text and "scratch" in text and "4.7 %" in text


def test_it_writes_nothing_and_repeats_itself(tmp_path: Path):
    config = make(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    first, second = check(config), check(config)
    first.estimate.pop("disk"), second.estimate.pop("disk")  # names the free space
    assert first == second
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def _empty_picture(root: Path) -> None:
    (root / "nut/train/good/3.png").write_bytes(b"")


def _cut_pictures(root: Path) -> None:
    for index in (0, 1):
        path = root / f"nut/test/scratch/{index}.png"
        path.write_bytes(path.read_bytes()[:-100])


def _text_as_picture(root: Path) -> None:
    (root / "nut/test/dent/0.png").write_text("no picture")


def _mask_of_other_size(root: Path) -> None:
    images.write_mask(root / "nut/ground_truth/scratch/4_mask.png", square(shape=(64, 64)))


def _mask_on_its_side(root: Path) -> None:
    images.write_mask(root / "nut/ground_truth/scratch/4_mask.png", square(shape=(64, 48)))


def _broken_mask(root: Path) -> None:
    (root / "nut/ground_truth/scratch/4_mask.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def _missing_mask(root: Path) -> None:
    (root / "nut/ground_truth/scratch/4_mask.png").unlink()


def _two_areas_in_one_mask(root: Path) -> None:
    images.write(
        root / "nut/ground_truth/scratch/4_mask.png", np.where(square(6), np.uint8(127), square() * np.uint8(255))
    )


def _full_mask_of_a_shot(root: Path) -> None:
    images.write_mask(root / "nut/ground_truth/scratch/0_mask.png", np.ones(SIZE, bool))


def _empty_mask_of_a_shot(root: Path) -> None:
    images.write_mask(root / "nut/ground_truth/scratch/0_mask.png", np.zeros(SIZE, bool))


def _copy(root: Path) -> None:
    images.write(root / "nut/test/scratch/5.bmp", photograph(100))
    (root / "nut/test/scratch/5.png").unlink()


def _many_copies(root: Path) -> None:
    for name, normal in (("scratch/3", 1), ("scratch/4", 2), ("scratch/5", 4), ("dent/1", 0)):
        images.write(root / f"nut/test/{name}.png", photograph(normal))


def _defect_also_sound(root: Path) -> None:
    images.write(root / "nut/train/good/0.png", photograph(100))


def _no_sound(root: Path) -> None:
    for path in (root / "nut/train/good").iterdir():
        path.unlink()


ERRORS = {
    _empty_picture: "nut/train/good/3.png: 1 picture cannot be used: the file is empty",
    _cut_pictures: "nut/test/scratch/0.png, nut/test/scratch/1.png: 2 pictures cannot be used: the PNG file",
    _text_as_picture: "nut/test/dent/0.png: 1 picture cannot be used: the file does not begin like",
    _mask_of_other_size: "nut/test/scratch/4.png: 1 mask cannot be used: the mask has 64 x 64 pixels, but its",
    _mask_on_its_side: "lies on its side",
    _broken_mask: "nut/test/scratch/4.png: 1 mask cannot be used: the PNG header is cut short",
    _missing_mask: "1 defect has no mask: nut/test/scratch/4.png",
    _empty_mask_of_a_shot: "nut/test/scratch/0.png: 1 shot cannot be learned from: the mask is empty; draw the damage",
    _full_mask_of_a_shot: "nut/test/scratch/0.png: 1 shot cannot be learned from: the mask calls the whole picture",
    _two_areas_in_one_mask: "nut: 1 mask holds several values in one picture (nut/test/scratch/4.png: 127, 255)",
    _copy: "the test picture nut/test/scratch/5.bmp is the same as the shot nut/test/scratch/0.png",
    _many_copies: "the test picture nut/test/dent/1.png is the same as the normal part nut/train/good/0.png",
    _defect_also_sound: "the shot nut/test/scratch/0.png is the same picture as the normal part nut/train/good/0.png",
    _no_sound: "no normal parts found",
}


@pytest.mark.parametrize("damage", ERRORS, ids=lambda damage: damage.__name__)
def test_what_would_stop_a_run_is_an_error(tmp_path: Path, damage):
    config = make(tmp_path)
    damage(tmp_path)
    found = check(config)
    assert not found.ok and any(ERRORS[damage] in error for error in found.errors), found.errors
    assert "not ready" in rendered(found) and in_korean_throughout(found)


def test_all_leaks_are_said_at_once(tmp_path: Path):
    config = make(tmp_path)
    _many_copies(tmp_path)
    images.write(tmp_path / "nut/test/scratch/2.png", photograph(101))
    images.write(tmp_path / "nut/test/scratch/3.png", photograph(100))
    said = [error for error in check(config).errors if "remove one" in error]
    assert len(said) == 5 and "scratch/2.png is the same as the shot nut/test/scratch/1.png" in said[-1]
    with pytest.raises(DataError) as told:
        open_dataset(Run.create(tmp_path / "run", config))
    assert str(told.value).splitlines() == ["5 pictures are in the set twice:", *said]


def test_copies_of_normal_parts_leave_the_test_and_the_run_goes_on(tmp_path: Path, monkeypatch):
    config = make(tmp_path / "data", good=11)
    run = Run.create(tmp_path / "run", config)
    plain = open_dataset(run)
    assert [e.id for e in plain.split.test_normals] == ["nut/train/good/2.png", "nut/train/good/8.png"]
    assert read_json(run.path("data.json"))["duplicates"] == []
    # A copy saved in another format: the one to learn from stays.
    images.write(tmp_path / "data/nut/train/good/8.png", np.repeat(photograph(0)[..., None], 3, axis=2))
    found = check(config)
    note = (
        "1 normal test picture is the same picture as a normal part to learn from, so it is left out: "
        "nut/train/good/8.png"
    )
    assert found.ok and note in found.notes
    assert [(row.shots, row.test) for row in found.defects if not row.defect] == [(9, 1)]
    data = open_dataset(run)
    assert data.split.normals == plain.split.normals and data.hash != plain.hash
    assert [e.id for e in data.split.test_normals] == ["nut/train/good/2.png"] and note in data.split.notes
    tree = read_json(run.path("data.json"))
    assert note in tree["notes"] and [row["id"] for row in tree["duplicates"]] == ["nut/train/good/8.png"]
    assert load_split(run) == data.split
    monkeypatch.setattr(dataset, "duplicates", lambda split: pytest.fail("looked at again"))
    assert open_dataset(run).hash == data.hash and read_json(run.path("data.json")) == tree
    monkeypatch.undo()
    images.write(tmp_path / "data/nut/train/good/8.png", photograph(8))
    assert open_dataset(run).split == plain.split and open_dataset(run).hash == plain.hash


def test_what_is_excluded_is_noted_and_what_fits_nothing_is_an_error(tmp_path: Path):
    config = make(tmp_path / "data")
    _cut_pictures(tmp_path / "data")
    assert not check(config).ok
    broken = ["nut/test/scratch/[01].png", "nut/test/scratch/0.png", "nut/*/scratch/1*.png"]
    wrong = Config(data=config.data.model_copy(update={"exclude": broken}))
    (error,) = check(wrong).errors
    assert error.startswith("data.exclude: 'nut/test/scratch/[01].png' fits no file") and "the nearest is" in error
    with pytest.raises(DataError, match="fits no file"):
        open_dataset(Run.create(tmp_path / "wrong", wrong))
    right = Config(data=config.data.model_copy(update={"exclude": broken[1:]}))
    note = "data.exclude: 3 files are left out"
    assert check(right).ok and note in check(right).notes
    run = Run.create(tmp_path / "run", right)
    assert len(open_dataset(run).split.test_defects) == 3 and note in read_json(run.path("data.json"))["notes"]


def _full_mask(root: Path) -> None:
    images.write_mask(root / "nut/ground_truth/scratch/4_mask.png", np.ones(SIZE, bool))


def _empty_mask_in_test(root: Path) -> None:
    images.write_mask(root / "nut/ground_truth/scratch/4_mask.png", np.zeros(SIZE, bool))


def _hairlines(root: Path) -> None:
    line = np.zeros(SIZE, bool)
    line[20, 2:60] = True
    for index in range(6):
        images.write_mask(root / f"nut/ground_truth/scratch/{index}_mask.png", line)


def _other_sort(root: Path) -> None:
    images.write(root / "nut/train/good/1.png", np.zeros((*SIZE, 3), np.uint8) + photograph(1)[..., None])


def _bright_damage(root: Path) -> None:
    """Heights whose damage lies far above the normal ones."""
    for path in (root / "nut").rglob("*.png"):
        if "ground_truth" not in path.parts:
            pixels = images.read(path).astype(np.float32)
            if "test" in path.parts:
                pixels[8:20, 10:22] = 5000
            images.write(path.with_suffix(".tif"), pixels)
            path.unlink()


WARNINGS = {
    _full_mask: "1 mask deserves a look: the mask calls the whole picture damaged: inverted?",
    _empty_mask_in_test: "1 mask deserves a look: the mask is empty",
    _hairlines: "nut/scratch: 100 % of the damage is thinner than the model can draw",
    _other_sort: "several formats (13 8-bit grey, 1 8-bit RGB)",
    _bright_damage: "nut: most of the damage in 4 of 4 shots (nut/test/dent/0.tif",
}


@pytest.mark.parametrize("damage", WARNINGS, ids=lambda damage: damage.__name__)
def test_what_makes_a_run_worse_is_a_warning(tmp_path: Path, damage):
    config = make(tmp_path)
    damage(tmp_path)
    found = check(config)
    assert found.ok, found.errors
    assert any(WARNINGS[damage] in warning for warning in found.warnings), found.warnings
    assert in_korean_throughout(found)


def _large_masks(root: Path) -> None:
    for path in (root / "nut/ground_truth").rglob("*.png"):
        images.write_mask(path, ~square())


def _too_few_to_test(root: Path) -> None:
    for defect in ("scratch", "dent"):
        for path in sorted((root / "nut/test" / defect).iterdir())[1:]:
            path.unlink()
            (root / f"nut/ground_truth/{defect}/{path.stem}_mask.png").unlink()


@pytest.mark.parametrize(
    ("damage", "sentence", "lines"),
    [
        (lambda root: None, "fills the gap", ['generate.count = "balance"']),
        (_hairlines, "thinner than the model can draw", ['generator.name = "patch_synthesis"']),
        (_full_mask, "1 mask deserves a look", ["data.mask.inverted = false"]),
        (_two_areas_in_one_mask, "several values in one picture", ['data.mask.values = "all"']),
        (_large_masks, "inverted?", ["data.mask.inverted = true", "data.mask.inverted = false"]),
        (_too_few_to_test, "nothing can be proven", ["prove.enabled = false"]),
    ],
)
def test_a_setting_that_answers_a_finding_ends_it(tmp_path: Path, damage, sentence: str, lines: list[str]):
    config = make(tmp_path)
    damage(tmp_path)
    found = check(config)
    (said,) = [one for one in (*found.errors, *found.warnings) if sentence in one]
    assert [str(answer) for answer in found.answers[said]] == lines and lines[0] in said
    for answer in found.answers[said]:
        again = check(overridden(config, {answer.setting: answer.value}))
        assert not [one for one in (*again.errors, *again.warnings) if sentence in one]
    assert found.to_json()["answers"][said][0] == {
        "setting": lines[0].split()[0],
        "value": found.answers[said][0].value,
    }


def test_the_value_range_of_deep_pictures_is_a_note(tmp_path: Path):
    config = make(tmp_path)
    for path in (tmp_path / "nut").rglob("*.png"):
        if "ground_truth" not in path.parts:
            pixels = images.read(path).astype(np.uint16) * 10 + 1000
            pixels[:4, :6] = 65535 if "train" in path.parts else pixels[:4, :6]
            images.write(path, pixels)
    found = check(config)
    assert found.ok, found.errors
    assert not any("bits" in warning for warning in found.warnings)
    text = "\n".join(found.notes)
    assert "nut: range of the measured values: 1000..3550 is black..white in all its pictures" in text
    assert "nut: 65535 means that nothing was measured there (about 120 pixels in 5 of 5 normal pictures" in text


def test_of_very_many_normal_pictures_a_sample_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Headers of all; pixels of defects and of a stated sample; copies by bytes among the rest."""
    config = make(tmp_path, good=20)
    shutil.copy(tmp_path / "nut/train/good/3.png", tmp_path / "nut/test/dent/0.png")
    (tmp_path / "nut/train/good/17.png").write_bytes(b"nothing")  # no header: decoded whatever the sample is
    monkeypatch.setattr(pictures, "DECODED", 5)
    monkeypatch.setattr(split, "NEAR_NORMALS", 5)
    monkeypatch.setattr(fingerprints, "_FINGERPRINTS", {})
    found = check(config)
    assert "5 of 19 normal pictures, evenly spread, and all others were decoded" in "\n".join(found.notes)
    text = "\n".join(found.errors)
    assert "nut/train/good/17.png: 1 picture cannot be used" in text
    assert "nut/test/dent/0.png is the same picture as the normal part nut/train/good/3.png" in text
    looked_at = {Path(name).relative_to(tmp_path) for name, _ in fingerprints._FINGERPRINTS}
    assert len([path for path in looked_at if "train" in path.parts]) <= 10 and len(found.errors) == 2


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"data": {"root": "nowhere"}}, "there is no such folder"),
        ({"data": {"layout": "pears"}}, "'pears' is unknown; did you mean 'pairs'?"),
        ({"generate": {"count": {"dnet": 3}}}, "generate.count: there is no defect type 'dnet'; did you mean 'dent'?"),
        ({"generate": {"paint": {"scrach": "auto"}}}, "generate.paint: there is no defect type 'scrach'"),
        (
            {"generate": {"reference": "neerest"}},
            "generate.reference: 'neerest' is none of shot, nearest, random, dent",
        ),
        (
            {"data": {"defects": ["dent"]}, "measure": {"metrics": ["kidd"]}},
            "measure.metrics: metric 'kidd' is unknown",
        ),
        ({"generator": {"settings": {"shot": 2}}}, "generator.settings: shot: unknown key; did you mean 'shots'"),
        ({"prove": {"settings": {"probe": {"stepz": 3}}}}, "prove.settings.probe: stepz: unknown key"),
        (
            {"prove": {"detectors": ["patchcore"], "settings": {"patchcore": {"depths": [9]}}}},
            "patchcore.depths: efficientnet-lite0 has no",
        ),
        pytest.param(
            {"prove": {"detectors": ["anomalib"]}},
            "the detector anomalib needs its package, which is absent",
            marks=pytest.mark.skipif(find_spec("anomalib") is not None, reason="anomalib is installed"),
        ),
        ({"prove": {"against": ["patch_synthesis"]}}, "is this run's own generator; name another, or [] for none"),
        ({"features": {"extractor": "dinov2"}}, "features.source: dinov2 needs a transformers folder"),
        ({"screen": {"enabled": True, "thresholds": {"seem": "off"}}}, "screen.thresholds: 'seem' is no filter"),
        ({"data": {"product": ".."}}, "'..' cannot name a folder of weights"),
        (
            {"data": {"product": "가" * 100}},
            "가가...: a folder's name has at most 255 bytes, and this 300",
        ),
        (
            {"data": {"pixel_mm": 0.1}, "generate": {"prompt": "a scratch of 3000 mm"}},
            "3000 mm are 30000 px, and the photograph has",
        ),
    ],
)
def test_settings_that_do_not_fit_the_set(tmp_path: Path, settings, sentence):
    make(tmp_path)
    data = settings.get("data", {})
    settings["data"] = {"root": tmp_path / "nut" if "product" in data else tmp_path, **data}
    found = check(validate(Config, settings))
    assert any(sentence in error for error in found.errors), found.errors
    assert in_korean_throughout(found)


@pytest.mark.parametrize(
    ("generator", "against", "compared", "said"),
    [
        ("crop_paste", ["crop_paste"], [], True),
        ("patch_synthesis", ["crop_paste"], ["crop_paste"], False),
        ({"dent": "crop_paste", "scratch": "perlin"}, ["crop_paste"], ["crop_paste"], False),
        ("crop_paste", [], [], False),
        ("crop_paste", ["perlin"], ["perlin"], False),
        ("auto", ["crop_paste"], ["crop_paste"], False),
    ],
)
def test_a_default_never_asks_to_compare_a_generator_with_itself(tmp_path: Path, generator, against, compared, said):
    config = make(tmp_path, dent=6, scratch=6)
    config = overridden(config, {"generator.name": generator, "prove.against": against})
    assert config.rivals == compared
    found = check(config)
    assert found.ok, found.errors
    assert [note for note in found.notes if "compares with the real shots alone: crop_paste" in note] == (
        [config.why_no_rival] if said else []
    )
    assert in_korean_throughout(found)
    trainings = int(re.search(r"\((\d+) trainings", found.estimate["proof"])[1])
    arms = 3 + bool(compared) * 2 + 2 + len(config.prove.curve)  # ours, without controls, mixed with a rival's ...
    assert trainings == config.prove.seeds * arms


def test_a_set_on_which_nothing_can_be_proven_is_not_ready(tmp_path: Path):
    config = make(tmp_path, scratch=1, dent=1)
    (said,) = check(config).errors
    assert "nut: nothing can be proven, as the test set holds 1 normal and 0 damaged pictures" in said
    config = validate(Config, {**config.model_dump(mode="json"), "prove": {"enabled": False}})
    assert check(config).ok


def test_without_a_proof_every_real_defect_is_a_shot(tmp_path: Path):
    """For `check` and for the run alike; three pictures give two shots where one is needed for the test."""
    config = make(tmp_path / "data", scratch=3, dent=5)
    unproven = validate(Config, {**config.model_dump(mode="json"), "prove": {"enabled": False}})
    for asked, shots in ((config, {"dent": 2, "scratch": 2}), (unproven, {"dent": 3, "scratch": 3})):
        assert {row.defect: row.shots for row in check(asked).defects if row.defect} == shots
        divided = open_dataset(Run.create(tmp_path / str(asked.prove.enabled), asked)).split
        assert Counter(example.defect for example in divided.shots) == shots
        assert len(divided.test_defects) == 8 - sum(shots.values())


def test_names_with_brackets_survive_the_console(tmp_path: Path):
    config = make(tmp_path)
    (tmp_path / "nut/test/dent").rename(tmp_path / "nut/test/[dim]dent")
    (tmp_path / "nut/ground_truth/dent").rename(tmp_path / "nut/ground_truth/[dim]dent")
    (tmp_path / "nut/train/good/[bold]x[red].png").write_bytes(b"")
    text = rendered(check(config))
    assert "nut/train/good/[bold]x[red].png: 1 picture" in text and text.count("[dim]dent") >= 2


@pytest.mark.parametrize(("count", "samples"), [(7, 14), ("balance", 4), ({"dent": 3}, 3)])
def test_the_estimate_counts_samples(tmp_path: Path, count, samples):
    config = make(tmp_path)
    found = check(validate(Config, {"data": {"root": tmp_path, "shots": 3}, "generate": {"count": count}}))
    assert found.estimate["samples"].startswith(f"{samples} (")
    assert sum(cost.wanted(config, {("nut", "dent"): 2, ("nut", "scratch"): 6}).values()) == 100


@pytest.mark.parametrize("defects", [0, 4])
def test_a_set_without_shots_has_a_cost_and_says_what_is_left_out(tmp_path: Path, defects: int):
    make(tmp_path, scratch=defects, dent=defects)
    tree = {"data": {"root": tmp_path, "shots": 0}, "generator": {"name": "rendered"}, "generate": {"count": 5}}
    config = validate(Config, tree)
    found = check(config)
    assert found.ok and in_korean_throughout(found)
    asked = counts(config, split.split(scan(config.data), shots=0))
    assert found.estimate["samples"].startswith(f"{sum(asked.values())} (") and len(asked) == 6
    assert found.estimate["proof"] == "left out: no real defect to test on"
    left_out = "no real defect is learned from, so screening and the proof are left out"
    assert [note for note in found.notes if note.startswith(left_out)]
    found = check(validate(Config, {**tree, "prove": {"enabled": False}}))
    assert found.estimate["proof"] == "left out" and not [note for note in found.notes if note.startswith(left_out)]


def test_a_page_that_is_a_folder_is_said(tmp_path: Path):
    """As `--page ""` is, which names the working directory."""
    found = check(make(tmp_path / "data"), page=tmp_path)
    assert f"{tmp_path} is a folder, so no outlines are drawn; name a file with --page" in found.notes


def test_the_columns_are_explained_where_there_are_defects(tmp_path: Path):
    config = make(tmp_path)
    assert "as drawn: the same at the size at which a generator works" in rendered(check(config))
    normal = Findings(tmp_path, "mvtec", [row for row in check(config).defects if not row.defect])
    assert "as drawn: " not in rendered(normal)


@pytest.mark.parametrize(
    ("name", "controls", "said"),
    [
        ("crop_paste", 0.0, "about 60 s (1000 samples; crop_paste works on pixels)"),
        ("perlin", 0.0, "about 5 min (1000 samples; perlin works on pixels)"),
        (
            "patch_synthesis",
            0.5,
            "about 10 min (1000 samples and 500 negative controls; patch_synthesis works on pixels)",
        ),
    ],
)
def test_the_estimate_of_what_works_on_pixels(tmp_path: Path, name: str, controls: float, said: str):
    make(tmp_path)
    tree = {"data": {"root": tmp_path, "shots": 3}, "generator": {"name": name}}
    found = check(validate(Config, {**tree, "generate": {"count": 500, "controls": controls}}))
    assert found.estimate["training"] == "none"
    assert found.estimate["generating"] == said
    assert not any("the run takes" in warning for warning in found.warnings)


@pytest.mark.parametrize(("megapixels", "said"), [(0.01, "about 0 s (4"), (12, "about 15 s (4")])
def test_the_estimate_of_large_photographs_counts_their_bytes(megapixels: float, said: str):
    """Four samples on photographs of 12 MP in colour took 25 s, and 2 s were said."""
    config = Config(generator=GeneratorConfig(name="crop_paste"))
    config = validate(Config, {**config.model_dump(mode="json"), "generate": {"count": 4, "controls": 0}})
    size = megapixels * 3e6
    table, _ = cost.estimate(
        config, {("nut", "dent"): 4}, windows=1, picture_bytes=size, largest=(size, size / 3), damaged=9, photographs=9
    )
    assert table["generating"].startswith(said)


def test_the_estimate_adds_up_and_says_what_else_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """40 samples take seconds beside the trainings of a proof; the last line is all, and more on a busy machine.

    Two trainings at the same time take half as long, and twice the memory.
    """
    make(tmp_path)
    monkeypatch.setattr(cost, "CPUINFO", tmp_path / "none")
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    tree = {
        "data": {"root": tmp_path, "shots": 3},
        "generator": {"name": "patch_synthesis"},
        "generate": {"count": 20},
        "screen": {"enabled": True},
        "prove": {"seeds": 3, "size": 384, "against": ["crop_paste"], "mix": False, "curve": [], "workers": 1},
    }
    config = validate(Config, tree)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.2, 0.0, 0.0))
    found = check(config)
    assert in_korean_throughout(found)
    told = found.estimate
    minutes = stage_times.JUDGE_SECONDS["processor without bfloat16"] / 60
    trainings = int(told["proof"].split("(")[1].split()[0])
    assert told["proof"].startswith(f"about {trainings * minutes:.0f} min")
    assert told["memory of the proof"] == "about 1.3 GB"
    assert told["samples to compare with"].endswith("(of crop_paste)") and told["screening"].startswith("about ")
    total = float(told["in all"].split()[1])
    assert trainings * minutes < total < trainings * minutes + 2 and "what else" not in told["in all"]
    monkeypatch.setattr(os, "getloadavg", lambda: (4.0, 0.0, 0.0))
    found = check(config)
    assert in_korean_throughout(found)
    quiet, slower = found.estimate["in all"].split("; about ")
    assert quiet == told["in all"] and slower.endswith(" min with what else runs here now")
    assert float(slower.split()[0]) == pytest.approx(3 * total, abs=2)
    assert "screening" not in check(validate(Config, {**tree, "screen": {"enabled": False}})).estimate
    findings = check(validate(Config, {**tree, "prove": {**tree["prove"], "workers": 2}}))
    assert in_korean_throughout(findings)
    assert findings.estimate["proof"].startswith(f"about {trainings * minutes / 2:.0f} min")
    assert findings.estimate["memory of the proof"] == "about 2.5 GB, 2 trainings at the same time"


def test_the_estimate_counts_what_the_gate_and_transfers_ask_for(tmp_path: Path):
    make(tmp_path)
    for index in range(4):
        images.write(tmp_path / f"bolt/train/good/{index}.png", photograph(300 + index))
    told = {"data": {"root": tmp_path, "shots": 1}, "generate": {"count": 10}}
    transfer = {"transfer": [{"from": "nut", "defect": "dent"}]}
    gate = {"screen": {"enabled": True, "times": 1.5, "rounds": 2}}
    for extra, samples in (({}, 20), ({"generate": {"count": 10, **transfer}}, 30), (gate, 30)):
        found = check(validate(Config, {**told, **extra}))
        assert found.estimate["samples"].startswith(f"{samples} ("), extra
    assert found.estimate["samples"].endswith("made again in up to 2 rounds")
    once = {"screen": {**gate["screen"], "rounds": 0}}
    assert check(validate(Config, {**told, **once})).estimate["samples"].endswith(" windows each)")
    wrong = {"count": 10, "transfer": [{"from": "nut", "defect": "rust"}]}
    assert any("no shots of 'rust'" in error for error in check(validate(Config, {**told, "generate": wrong})).errors)


@pytest.mark.parametrize(
    ("flags", "machine"),
    [
        ("fpu avx2 amx_tile", "processor"),
        ("fpu avx512_bf16", "processor"),
        ("fpu avx2", cost.PLAIN),
        (None, cost.PLAIN),
    ],
)
def test_the_estimate_knows_processors_without_bfloat16(tmp_path: Path, monkeypatch, flags: str | None, machine: str):
    """One that multiplies bfloat16 in hardware is more than twice as quick."""
    config = make(tmp_path)
    config = config.model_copy(update={"backbone": config.backbone.model_copy(update={"device": "cpu"})})
    monkeypatch.setattr(cost, "CPUINFO", tmp_path / "cpuinfo")
    if flags is not None:
        (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    found = check(config).estimate
    assert f"; two cores of a {machine}" in found["assumes"]
    assert found["training"].startswith("about 10 min" if machine == "processor" else "about 21 min")


def test_a_balanced_set_asks_for_nothing(tmp_path: Path):
    make(tmp_path, scratch=4, dent=4)
    found = check(validate(Config, {"data": {"root": tmp_path, "shots": 2}, "generate": {"count": "balance"}}))
    assert any("asks for no sample at all, as every defect type has as many" in error for error in found.errors)
    transfer = {"count": "balance", "prompt": "a long dint"}
    found = check(validate(Config, {"data": {"root": tmp_path, "shots": 2}, "generate": transfer}))
    assert any("dint" in error for error in found.errors), "what a run refuses at once, `check` says too"


def test_a_plugin_of_others_that_cannot_be_loaded_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Else a run would train for hours and fail at its export."""
    make(tmp_path)
    monkeypatch.setenv("FLAWSMITH_PLUGINS", "exports.csv=json:Nothing,metrics.mine=no_such_module:x")
    told = {"data": {"root": tmp_path}, "export": {"formats": ["csv"]}, "measure": {"metrics": ["kid", "mine"]}}
    errors = check(validate(Config, told)).errors
    assert any("export 'csv' (json:Nothing) cannot be loaded" in error for error in errors), errors
    assert any("metric 'mine' (no_such_module:x) cannot be loaded" in error for error in errors), errors


def test_no_torch_and_no_diffusers():
    code = (
        "import sys, flawsmith.preflight.check; "
        "sys.exit(bool({'torch', 'diffusers', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def without_pictures(*counts: tuple[str, int]) -> tuple[Example, ...]:
    """So many photographs of each defect type, "" = normal parts, that nobody opens."""
    return tuple(
        Example(f"{defect}/{number}.png", Path(f"{defect}/{number}.png"), "nut", defect or None)
        for defect, count in counts
        for number in range(count)
    )


def thin(config: Config, *, normals: int = 95, tests: int = 10, left_out: int = 0) -> list[str]:
    divided = split.Split(
        without_pictures(("dent", 10)), without_pictures(("", normals)), without_pictures(("dent", tests)), ()
    )
    away = {one.id for one in divided.test_defects[:left_out]}
    warnings = thin_grounds(config, divided, away)
    assert all(str(answer) in sentence for sentence, answers in warnings.items() for answer in answers)
    assert all(re.search("[가-힣]", in_korean(sentence)) and "set" not in in_korean(sentence) for sentence in warnings)
    return list(warnings)


@pytest.mark.parametrize(
    ("grounds", "said"),
    [
        ({"tests": 9}, "few test pictures of nut/dent 9: below 10 .* 20 photographs of a type, .* set data.shots = 9$"),
        ({"tests": 12, "left_out": 3}, "few test pictures of nut/dent 9: .* each of another part, would be enough$"),
        ({"tests": 2}, "20 photographs of a type, each of another part, would be enough$"),
        ({"normals": 94}, "5% takes 95 normal .*: nut 94; add some, or set prove.false_alarm_rate = 0.06$"),
        ({"normals": 24}, "fewer: nut 24; below 25 .nut. no threshold is set at all$"),
    ],
)
def test_what_a_proof_would_have_too_little_of(grounds: dict[str, int], said: str):
    (sentence,) = thin(Config(), **grounds)
    assert re.search(said, sentence)


def test_enough_for_a_proof_is_said_to_be_nothing():
    assert thin(Config()) == []
    assert thin(overridden(Config(), {"prove.enabled": False}), tests=1, normals=1) == []
    assert thin(overridden(Config(), {"prove.seeds": 2})) == [
        "prove.seeds = 2 makes the proof a first look; for a verdict set prove.seeds = 3"
    ]
    (low,) = thin(overridden(Config(), {"prove.false_alarm_rate": 0.005}), normals=1000)
    assert low.endswith("set prove.false_alarm_rate = 0.01")
    assert thin(overridden(Config(), {"prove.false_alarm_rate": 0.01}), normals=1000) == []
    for rate in (0.01, 0.03, 0.05, 0.06, 0.1, 0.17, 0.3):
        need = normals_for(rate)
        assert least_rate(calibration_count(need)) <= rate + 1e-9
        assert need == 25 or least_rate(calibration_count(need - 1)) > rate


def test_check_says_what_a_proof_would_have_too_little_of(tmp_path: Path):
    found = check(make(tmp_path))
    assert [sentence for sentence in found.warnings if "nut/dent 1, nut/scratch 3: below 10" in sentence]
    assert [sentence for sentence in found.warnings if "nut 5; below 25" in sentence]
    assert in_korean_throughout(found)
