"""run/unchanged.py: what was edited, swapped or moved since is noticed, by every stage that reads it."""

from __future__ import annotations

import os
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

import flawsmith as fs
from flawsmith.config import Config, load_config
from flawsmith.errors import ConfigError, DataError, FlawsmithError, RunError
from flawsmith.files import file_digest, file_state, read_json, read_lines, write_json, write_lines
from flawsmith.inspection.deliver import deliver
from flawsmith.pipeline import prove
from flawsmith.preflight.check import check
from flawsmith.run.dataset import load_split, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.opening import open_run
from flawsmith.run.records import Repair, Sample, Verdict

LATER: dict[str, Callable[[Run], object]] = {
    "screen": fs.screen,
    "measure": fs.measure,
    "prove": prove,
    "export": fs.export,
    "report": fs.report,
    "deliver": deliver,
}
"""The stages that read what `generate` made."""


def settings(root: Path) -> dict[str, object]:
    probe = {"steps": 2, "places": 16, "views": 1, "heads": 2}
    return {
        "data.root": str(root),
        "data.shots": 2,
        "generator.name": "crop_paste",
        "generate.count": 1,
        "generate.controls": 1.0,
        "screen.enabled": False,
        "measure.resamples": 0,
        "prove.seeds": 1,
        "prove.size": 32,
        "prove.against": [],
        "prove.curve": [],
        "prove.detectors": ["probe"],
        "prove.settings": {"probe": probe, "patchcore": {"memory": 16, "draw": 16}},
    }


@pytest.fixture(scope="module")
def finished(factory_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs and a run of crop_paste beside them."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(factory_root / "magnet", home / "photographs" / "magnet")
    run = Run.create(home / "run", load_config(None, settings(home / "photographs")))
    fs.train(run)
    fs.generate(run)
    return home


@pytest.fixture
def home(finished: Path, tmp_path: Path) -> Path:
    """A copy of it, where the run knows its photographs."""
    shutil.copytree(finished, tmp_path / "home")
    open_run(tmp_path / "home" / "run", [f"data.root={tmp_path / 'home' / 'photographs'}"])
    return tmp_path / "home"


def opened(home: Path) -> Run:
    return Run.open(home / "run")


def swap_quietly(path: Path, other: Path) -> None:
    """Put another content of the same size in a file's place, and give it the time that it had, as `cp -p` may."""
    facts, size = path.stat(), path.stat().st_size
    content = other.read_bytes()
    cut = 33  # behind the header stands, in a chunk of its own, what is too little
    spare = size - len(content) - 12
    assert spare >= 0
    filling = spare.to_bytes(4, "big") + b"teXt" + bytes(spare)
    filling += zlib.crc32(filling[4:]).to_bytes(4, "big")
    path.write_bytes(content[:cut] + filling + content[cut:])
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_size == size and path.stat().st_mtime_ns == facts.st_mtime_ns


def edit(path: Path) -> None:
    """Change one pixel in the middle."""
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    picture[tuple(length // 2 for length in picture.shape[:2])] ^= 1
    cv2.imwrite(str(path), picture)


CHANGES: dict[str, Callable[[Path], object]] = {
    "edited": edit,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "emptied": lambda path: os.truncate(path, 0),
}


@pytest.mark.parametrize(("kind", "change"), [*(("picture", change) for change in CHANGES), ("mask", "edited")])
def test_a_made_file_that_was_changed_is_noticed(kind: str, change: str, home: Path) -> None:
    run = opened(home)
    sample = run.samples()[0]
    name = sample.image if kind == "picture" else sample.mask
    CHANGES[change](run.path(name))
    before = {path: path.read_bytes() for path in run.folder.rglob("*.png")}
    stages = {"generate": fs.generate, **LATER}
    if (kind, change) != ("picture", "edited"):
        del stages["report"]  # it draws before it says so, which takes time
    for stage in stages.values():
        with pytest.raises(FlawsmithError) as error:
            stage(run)
        assert name in str(error.value)
    assert {path: path.read_bytes() for path in before} == before, "nothing is deleted or written over"


def test_what_was_changed_is_made_again_once_it_is_deleted(home: Path) -> None:
    run = opened(home)
    before = {path.name: path.read_bytes() for path in run.path("samples").iterdir()}
    lines = run.path("samples.jsonl").read_bytes()
    name = run.samples()[-1].image
    edit(run.path(name))
    with pytest.raises(RunError, match=f"{name} changed .* can be deleted, and `flawsmith generate"):
        fs.export(run)
    run.path(name).unlink()
    fs.generate(run)
    assert {path.name: path.read_bytes() for path in run.path("samples").iterdir()} == before
    assert run.path("samples.jsonl").read_bytes() == lines
    fs.export(run)


def test_a_control_that_was_changed_is_noticed_by_a_proof(home: Path) -> None:
    run = opened(home)
    edit(run.path(run.controls()[0].image))
    with pytest.raises(RunError, match="controls/000000.png changed"):
        prove(run)


def test_a_repaired_label_that_was_changed_is_noticed(home: Path) -> None:
    run = opened(home)
    rows = run.samples()
    run.path("repaired").mkdir()
    verdicts = []
    for row in rows:
        image, mask = (shutil.copy(run.path(name), run.path("repaired")) for name in (row.image, row.mask))
        hashes = file_digest(Path(image)), file_digest(Path(mask))
        names = [f"repaired/{Path(path).name}" for path in (image, mask)]
        repair = Repair(names[0], names[1], row.area, *hashes)
        verdicts.append(Verdict(f"{row.index:06d}", row.product, row.defect, True, repair=repair))
    write_lines(run.path("scores.jsonl"), [verdict.to_json() for verdict in verdicts])
    run.finish("screen", "stamp", {})
    assert run.kept()[0].image_hash == rows[0].image_hash and run.kept()[0].image.startswith("repaired/")
    fs.export(run)
    edit(run.path("repaired", "000000.mask.png"))
    with pytest.raises(RunError, match=r"repaired/000000\.mask\.png changed .*`flawsmith screen"):
        fs.export(run)


def test_lines_of_earlier_releases_say_no_hash_and_are_read(home: Path) -> None:
    run = opened(home)
    path = run.path("samples.jsonl")
    hashed = {"image_hash", "mask_hash"}
    assert all(hashed <= row.keys() for row in read_lines(path))
    write_lines(path, [{key: value for key, value in row.items() if key not in hashed} for row in read_lines(path)])
    fs.export(run)
    assert all(isinstance(row, Sample) and not row.image_hash for row in run.samples())


# --- weights ------------------------------------------------------------------------------------------------------


def weights_of(run: Run) -> Path:
    return run.path("weights", "magnet", "settings.json")


@pytest.mark.parametrize("stage", [fs.train, fs.generate])
def test_weights_that_were_changed_are_noticed(stage: Callable[[Run], object], home: Path) -> None:
    run = opened(home)
    assert run.record("train")["weight_digests"] == {"weights/magnet/settings.json": file_digest(weights_of(run))}
    before, facts = weights_of(run).read_text(), weights_of(run).stat()
    weights_of(run).write_text(before[:-1] + " ")
    os.utime(weights_of(run), ns=(facts.st_atime_ns, facts.st_mtime_ns))  # as large and as old, like after `cp -p`
    run.path(run.samples()[0].image).unlink()
    with pytest.raises(RunError, match=r"weights/magnet/settings\.json changed .*`flawsmith train .*` trains it again"):
        stage(run)
    assert weights_of(run).read_text() != before and not run.path(run.samples()[0].image).exists()
    weights_of(run).unlink()
    fs.train(run)
    fs.generate(run)
    assert weights_of(run).read_text() == before and run.path(run.samples()[0].image).exists()


def test_another_training_writes_over_weights_that_were_changed(home: Path) -> None:
    weights_of(opened(home)).write_text("{}")
    run = Run.create(home / "run", opened(home).config.model_copy(update={"seed": 5}))
    fs.train(run)
    assert weights_of(run).read_text() != "{}" and fs.generate(run)


def test_weights_are_read_again_only_when_their_state_is_another(home: Path) -> None:
    run = opened(home)
    mark = run.path("state", "weights.json")
    fs.generate(run)  # the run was copied, so that times are others
    known = read_json(mark)
    assert known["weights/magnet/settings.json"]["state"] == file_state(weights_of(run))
    known["weights/magnet/settings.json"]["digest"] = "as remembered"
    write_json(mark, known)
    with pytest.raises(RunError, match="settings.json changed"):
        fs.generate(run)
    os.utime(weights_of(run))
    fs.generate(run)


def test_a_run_of_before_says_no_digests_and_goes_on(home: Path) -> None:
    run = opened(home)
    manifest = read_json(run.path("manifest.json"))
    del manifest["stages"]["train"]["weight_digests"]
    write_json(run.path("manifest.json"), manifest)
    weights_of(run).write_text(weights_of(run).read_text() + " ")
    assert fs.generate(run)
    assert "weight_digests" not in run.record("train")


# --- photographs --------------------------------------------------------------------------------------------------


def photographs_of(run: Run) -> dict[str, Path]:
    split = load_split(run)
    return {"normal": split.normals[0].image, "shot": split.shots[0].image, "mask": split.shots[0].masks[0]}


@pytest.mark.parametrize("which", ["normal", "shot", "mask"])
def test_a_photograph_that_was_changed_is_noticed(which: str, home: Path) -> None:
    run = opened(home)
    path = photographs_of(run)[which]
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    picture[:20, :20] = 255 - picture[:20, :20]
    cv2.imwrite(str(path), picture)
    # Those that do not look at the photographs come first: when another stage has looked, data.json has the new ones.
    stages = [LATER["export"], *(LATER[name] for name in LATER if name != "report"), *[fs.report] * (which == "shot")]
    for stage in stages:
        with pytest.raises(RunError, match="changed since|not those that its samples were made from"):
            stage(run)


def test_a_photograph_of_the_same_size_and_time_is_another_one(home: Path) -> None:
    run = opened(home)
    split = load_split(run)
    pictures = sorted((one.image for one in split.normals), key=lambda path: path.stat().st_size)
    before = open_dataset(run)
    swap_quietly(pictures[-1], pictures[0])
    after = open_dataset(run)
    changed = [one.id for one in split.normals if before.hashes[one.id] != after.hashes[one.id]]
    assert changed == [one.id for one in split.normals if one.image == pictures[-1]]


def test_a_test_picture_overwritten_by_a_shot_is_a_leak(home: Path) -> None:
    run = opened(home)
    split = load_split(run)
    shutil.copy2(split.shots[0].image, split.test_defects[0].image)
    with pytest.raises(DataError, match="twice"):
        prove(run)


def test_a_file_that_was_only_touched_changes_nothing(home: Path) -> None:
    run = opened(home)
    for path in photographs_of(run).values():
        os.utime(path)
    fs.export(run)
    fs.report(run)
    before = run.path("manifest.json").read_bytes()
    fs.train(run)
    fs.generate(run)
    assert run.path("manifest.json").read_bytes() == before


# --- moved --------------------------------------------------------------------------------------------------------


def test_a_relative_root_is_known_from_any_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    config = load_config(None, {**settings(Path("photographs")), "prove.enabled": False})
    run = Run.create("relative", config)
    fs.train(run)
    fs.generate(run)
    monkeypatch.chdir(home.parent)
    again = Run.open(home / "relative")
    fs.report(again)
    assert again.config.data.root == home / "photographs"


def test_a_run_that_was_renamed_goes_on(home: Path) -> None:
    before = {path.name: path.read_bytes() for path in (home / "run" / "samples").iterdir()}
    (home / "run").rename(home / "elsewhere")
    run = Run.open(home / "elsewhere")
    (run.path(run.samples()[0].image)).unlink()
    fs.train(run)
    fs.generate(run)
    fs.export(run)
    fs.report(run)
    assert {path.name: path.read_bytes() for path in run.path("samples").iterdir()} == before


def test_a_run_that_is_moved_away_meanwhile_is_not_begun_again(home: Path) -> None:
    run = opened(home)
    (home / "run").rename(home / "elsewhere")
    for stage in (fs.train, fs.generate, *LATER.values()):
        with pytest.raises(RunError, match="was moved or deleted"):
            stage(run)
    assert not (home / "run").exists()


def test_photographs_that_were_moved_are_named_where_they_are(home: Path) -> None:
    (home / "photographs").rename(home / "archive")
    run = opened(home)
    for stage in (fs.export, fs.report):
        with pytest.raises(RunError, match=r"are not there; if they were moved, say where to with --set data\.root="):
            stage(run)
    before = read_json(run.path("manifest.json"))["stages"]
    run = open_run(home / "run", [f"data.root={home / 'archive'}"], verb="report")
    fs.report(run)
    fs.train(run)
    fs.generate(run)
    after = read_json(run.path("manifest.json"))["stages"]
    assert all(after[name] == before[name] for name in ("train", "generate")), "nothing is made again"
    assert all(one.image.is_relative_to(home / "archive") for one in load_split(Run.open(home / "run")).normals)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("data.root=/no/such/folder", "there is no such folder"),
        ("data.layout=visa", "takes data.root alone"),
        ("generate.count=3", "takes data.root alone"),
        ("data.root=3", "root"),
        ("root", "expected key=value"),
    ],
)
def test_other_settings_of_a_run_are_not_changed_by_its_stages(override: str, words: str, home: Path) -> None:
    before = (home / "run" / "config.json").read_bytes()
    with pytest.raises(ConfigError, match=words):
        open_run(home / "run", [override], verb="report")
    assert (home / "run" / "config.json").read_bytes() == before


def test_data_of_an_earlier_release_is_read_as_it_lies(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Releases before named the folder as the configuration did, from the working directory."""
    run = opened(home)
    open_dataset(run)
    rows = read_json(run.path("data.json"))
    del rows["root"]
    for name in ("shots", "normals", "test_defects", "test_normals"):
        for row in rows[name]:
            row["image"] = os.path.relpath(row["image"], home)
            row["masks"] = [os.path.relpath(mask, home) for mask in row["masks"]]
            row["files"] = [state[:2] for state in row["files"]]
    write_json(run.path("data.json"), rows)
    config = read_json(run.path("config.json"))
    config["data"]["root"] = "photographs"
    write_json(run.path("config.json"), config)
    monkeypatch.chdir(home)
    fs.export(Run.open("run"))
    fs.report(Run.open("run"))
    assert Run.create("run", Run.open("run").config).config.data.root == home / "photographs"
    fs.export(Run.open("run"))


def test_an_absolute_root_stays(tmp_path: Path) -> None:
    config = Config().with_absolute_root()
    assert config.data.root == Path.cwd() / "data" and config.with_absolute_root() == config
    assert Run.create(tmp_path / "run", config).config == config


@pytest.mark.parametrize("place", ["run", "magnet/test/crack/run"])
def test_a_run_among_its_photographs_is_no_photograph(place: str, home: Path) -> None:
    root = home / "photographs"
    config = load_config(None, {**settings(root), "prove.enabled": False})
    before = check(config)
    run = Run.create(root / place, config)
    fs.train(run)
    fs.generate(run)
    fs.export(run)
    manifest = run.path("manifest.json").read_bytes()
    fs.train(run)
    fs.generate(run)
    assert run.path("manifest.json").read_bytes() == manifest, "nothing is new to it"
    after = check(config)
    assert (after.errors, after.warnings, after.defects) == (before.errors, before.warnings, before.defects)
    assert any(place in note and "a run of flawsmith" in note for note in after.notes), after.notes
