"""What a run does once: no photograph is looked at twice, and a finished run stays finished when settings are added."""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import create_model

import flawsmith as fs
from flawsmith import files, registry
from flawsmith.config import Affects, Config, Settings, load_config
from flawsmith.data import images, layouts
from flawsmith.data.masks import stored
from flawsmith.nn.features import load_extractor
from flawsmith.pipeline import prove, run_all
from flawsmith.run.folder import Run
from flawsmith.run.stage import FOLLOWS, Inputs
from flawsmith.synthesis.train import generator_inputs

LATER, DEFAULT = "setting_of_a_later_release", 3
SECTIONS = ["", *(name for name, value in Config() if isinstance(value, Settings))]
"""The sections of the configuration; "" = what stands at its top."""
STAGES: dict[str, Callable[[Run], Any]] = {
    "train": fs.train,
    "generate": fs.generate,
    "screen": fs.screen,
    "measure": fs.measure,
    "prove": prove,
    "export": fs.export,
}
"""All but the report, which `run_all` alone may leave as it is."""
EXTRACTOR = lru_cache(maxsize=None)(load_extractor)


def patched(patch: pytest.MonkeyPatch, old: Any, new: Any) -> None:
    """Put another object wherever one stands in a module of ours."""
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "flawsmith"]:
        for name, value in list(vars(module).items()):
            if value is old:
                patch.setattr(module, name, new)


class Counts:
    """How often each file was read in one run."""

    def __init__(self) -> None:
        self.scans = 0
        self.hashed: Counter[Path] = Counter()
        self.decoded: Counter[Path] = Counter()

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        scan, read, digest = layouts.survey, images.read, files._file_digest.__wrapped__
        decode_mask = stored.decode_mask

        def counted_scan(*words: Any, **more: Any) -> Any:
            self.scans += 1
            return scan(*words, **more)

        def counted_read(path: Path) -> Any:
            self.decoded[Path(path)] += 1
            return read(path)

        def counted_mask(path: Path) -> Any:
            self.decoded[Path(path)] += 1
            return decode_mask(path)

        def counted_digest(path: str, *state: int) -> str:
            self.hashed[Path(path)] += 1
            return digest(path, *state)

        patched(patch, scan, counted_scan)
        patched(patch, read, counted_read)
        patched(patch, decode_mask, counted_mask)
        patch.setattr(stored, "_DECODED", stored._Decoded(stored._LIMIT))
        # What earlier tests have read is forgotten: it is a process of its own that is counted.
        patch.setattr(files, "_file_digest", lru_cache(maxsize=None)(counted_digest))


@pytest.fixture(scope="module")
def finished(factory_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Run, Counts]]:
    """A run of every stage, made while its reading was counted. Copy it, do not write it."""
    root = tmp_path_factory.mktemp("photographs")  # no other test has read these
    shutil.copytree(factory_root / "magnet", root / "magnet")
    table: dict[str, Any] = {
        "data.root": str(root),
        "data.shots": 2,
        "generator.name": "crop_paste",
        "generate.count": 3,
        "generate.batch": 2,
        "screen.enabled": True,
        "screen.thresholds": {"seam": "off", "realism.tokens": {"keep": 0.7}},
        "screen.rounds": 1,
        "measure.resamples": 20,
        "prove.against": ["perlin"],
        "prove.curve": [1],
        "prove.seeds": 1,
        "prove.size": 64,
        "prove.resamples": 100,
        "prove.detectors": ["probe"],
        "prove.settings": {"probe": {"steps": 40, "places": 256, "views": 1}, "patchcore": {"memory": 50, "draw": 500}},
    }
    run = Run.create(tmp_path_factory.mktemp("finished") / "run", load_config(None, table))
    counts = Counts()
    with pytest.MonkeyPatch.context() as patch:
        counts.watch(patch)
        run_all(run)
    assert {name for name in FOLLOWS if run.stage_hash(name)} == set(FOLLOWS)
    yield run, counts


# --- work ---------------------------------------------------------------------------------------------------------


def photographs(run: Run) -> list[Path]:
    return sorted(path for path in run.config.data.root.rglob("*.png") if "ground_truth" not in path.parts)


def masks(run: Run) -> list[Path]:
    return sorted(path for path in run.config.data.root.rglob("*.png") if "ground_truth" in path.parts)


def test_the_folder_is_scanned_once(finished: tuple[Run, Counts]) -> None:
    assert finished[1].scans == 1


def test_every_photograph_is_hashed_once(finished: tuple[Run, Counts]) -> None:
    run, counts = finished
    assert {path: counts.hashed[path] for path in (*photographs(run), *masks(run))} == dict.fromkeys(
        (*photographs(run), *masks(run)), 1
    )


def test_every_mask_is_decoded_at_most_once(finished: tuple[Run, Counts]) -> None:
    run, counts = finished
    often = {
        path.relative_to(run.config.data.root).as_posix(): counts.decoded[path]
        for path in masks(run)
        if counts.decoded[path] > 1
    }
    assert often == {}
    assert all(counts.decoded[path] for path in masks(run)), "not decoded at all, or not where it is counted"


# --- settings of a later release ----------------------------------------------------------------------------------


@lru_cache(maxsize=None)
def later(section: type[Settings], *marks: Any) -> type[Settings]:
    """Return a settings class as a later release may have it: with one more setting."""
    annotation: Any = Annotated[(int, *marks)] if marks else int
    return create_model(section.__name__, __base__=section, __doc__=section.__doc__, **{LATER: (annotation, DEFAULT)})  # type: ignore[call-overload,no-any-return]


def config_of_later(patch: pytest.MonkeyPatch, name: str, *marks: Any) -> None:
    """Let a section of the configuration have one more setting."""
    if not name:
        patched(patch, Config, later(Config, *marks))
        return
    section = type(getattr(Config(), name))
    new = later(section, *marks)
    whole = create_model("Config", __base__=Config, __doc__=Config.__doc__, **{name: (new, new())})  # type: ignore[call-overload]
    patched(patch, section, new)
    patched(patch, Config, whole)


def plugins(*families: str) -> list[tuple[str, str]]:
    return [(family, name) for family in families for name in sorted(registry._OURS[family])]


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file of a run, but of the one that says when weights were last read: a copy's are read
    once more."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path != folder / "state" / "weights.json")
    return {path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def copied(run: Run, tmp_path: Path) -> Path:
    """A copy of a finished run, times and all."""
    return Path(shutil.copytree(run.folder, tmp_path / "run"))


def nothing_is_done(folder: Path) -> None:
    before = files_of(folder)
    run_all(Run.open(folder))
    assert files_of(folder) == before


@pytest.mark.parametrize("part", ["provenance.jsonl", "*/train/good/*", "*/ground_truth/*/*"])
def test_an_export_that_lost_a_file_is_made_again(part: str, finished: tuple[Run, Counts], tmp_path: Path) -> None:
    folder = copied(finished[0], tmp_path)
    before = {name: content for name, (_, content) in files_of(folder / "export").items()}
    next((folder / "export/mvtec").glob(part)).unlink()
    fs.export(Run.open(folder))
    after = {name: content for name, (_, content) in files_of(folder / "export").items()}
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in after if name.endswith(".png"))


def test_an_export_with_more_beside_it_stays(finished: tuple[Run, Counts], tmp_path: Path) -> None:
    folder = copied(finished[0], tmp_path)
    (folder / "export/mvtec/results").mkdir()
    (folder / "export/mvtec/results/model.ckpt").write_bytes(b"trained for a week")
    nothing_is_done(folder)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_setting_that_comes_later_undoes_nothing(
    section: str, finished: tuple[Run, Counts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(finished[0], tmp_path)
    config_of_later(monkeypatch, section, *([Affects(*FOLLOWS)] if not section else []))
    opened = Run.open(folder)
    assert getattr(getattr(opened.config, section) if section else opened.config, LATER) == DEFAULT
    nothing_is_done(folder)


def test_settings_of_plugins_that_come_later_undo_nothing(
    finished: tuple[Run, Counts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(finished[0], tmp_path)
    for family, name in plugins("generators", "filters", "detectors", "exports"):
        plugin = registry.get(family, name)
        monkeypatch.setattr(plugin, "Settings", later(plugin.Settings))
    nothing_is_done(folder)


@pytest.fixture(autouse=True)
def one_extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the extractor's weights once for all tests, which takes longer than all else that a finished run does."""
    patched(monkeypatch, load_extractor, EXTRACTOR)


class Begun(Exception):
    """A stage was about to be done again."""


def done_again(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> set[str]:
    """Return the stages that a change of the configuration undoes, each asked by itself of the finished run.

    Args:
        folder: A copy of a finished run.
        monkeypatch: For the time of the test.
        changes: Section -> {key: value}.
    """

    def begin(run: Run, stage: str, stamp: str, inputs: Any) -> None:
        raise Begun(stage)

    tree = files.read_json(folder / "config.json")
    for section, values in changes.items():
        (tree[section] if section else tree).update(values)
    files.write_json(folder / "config.json", tree)
    manifest = (folder / "manifest.json").read_bytes()
    found = set()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "begin", begin)
        for name, do in STAGES.items():
            (folder / "manifest.json").write_bytes(manifest)
            try:
                do(Run.open(folder))
            except Begun as begun:
                assert begun.args == (name,)
                found.add(name)
            except fs.FlawsmithError as error:
                assert name == "generate" and "not trained with this configuration" in str(error)
                found.add(name)
    (folder / "manifest.json").write_bytes(manifest)
    return found


def expected(outputs: tuple[str, ...]) -> set[str]:
    """Return the stages that settings with these outputs undo, when each is asked by itself."""
    own = {"generate" if output == "controls" else output for output in outputs} & set(STAGES)
    return own | ({"generate"} if "train" in own else set())  # the samples depend on the weights


@pytest.mark.parametrize("section", [name for name in SECTIONS if name])
def test_another_value_of_it_undoes_what_its_section_affects(
    section: str, finished: tuple[Run, Counts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config_of_later(monkeypatch, section)
    folder = copied(finished[0], tmp_path)
    affected = type(getattr(Config(), section)).affects
    assert done_again(folder, monkeypatch, **{section: {LATER: 4}}) == expected(affected)


@pytest.mark.parametrize(
    "outputs", [(), ("train",), ("generate",), ("controls",), ("screen", "prove"), ("measure",), ("export",)], ids=str
)
def test_another_value_of_it_undoes_what_it_says_it_affects(
    outputs: tuple[str, ...], finished: tuple[Run, Counts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark of its own stands over its section's; here one in [measure], and one at the top."""
    config_of_later(monkeypatch, "measure", Affects(*outputs))
    folder = copied(finished[0], tmp_path)
    assert done_again(folder, monkeypatch, measure={LATER: 4}) == expected(outputs)


def test_a_stage_takes_back_what_follows_and_no_more(
    finished: tuple[Run, Counts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Done to the end: with another value in [measure], measure.json and the report are new and nothing else is."""
    config_of_later(monkeypatch, "measure")
    folder = copied(finished[0], tmp_path)
    before = files_of(folder)
    tree = files.read_json(folder / "config.json")
    tree["measure"][LATER] = 4
    files.write_json(folder / "config.json", tree)
    run_all(Run.open(folder))
    after = files_of(folder)
    changed = {name.partition("/")[0] for name in after if after[name] != before.get(name)}
    assert changed == {
        "config.json",
        "manifest.json",
        "metrics.json",
        "report.html",
        "report.md",
        "report",
        "log.jsonl",
    }
    assert before.keys() == after.keys()
    stages = [files.read_json(path / "manifest.json")["stages"] for path in (finished[0].folder, folder)]
    assert {name for name in FOLLOWS if stages[0][name] != stages[1][name]} == {"measure", "report"}


@pytest.mark.parametrize(("family", "name"), plugins("filters", "detectors", "exports"))
def test_a_plugins_new_setting_undoes_its_stage(
    family: str, name: str, finished: tuple[Run, Counts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = registry.get(family, name)
    monkeypatch.setattr(plugin, "Settings", later(plugin.Settings))
    section = {"filters": "screen", "detectors": "prove", "exports": "export"}[family]
    folder = copied(finished[0], tmp_path)
    before = getattr(finished[0].config, section).settings
    changed = {"settings": before | {name: before.get(name, {}) | {LATER: 4}}}
    assert done_again(folder, monkeypatch, **{section: changed}) == {section}


@pytest.mark.parametrize("name", sorted(registry._OURS["generators"]))
def test_a_generators_new_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its default it changes no input of any generator, hybrids of it included; at another, those that say so."""
    configs = {one: load_config(None, {"generator.name": one}) for one in registry._OURS["generators"]}

    def inputs(of: dict[str, Config]) -> dict[tuple[str, str], Inputs]:
        return {(one, s): generator_inputs(config, s) for one, config in of.items() for s in ("train", "generate")}

    before = {key: {"inputs": {"settings": dict(one.settings), "content": {}}} for key, one in inputs(configs).items()}
    plugin, settings = registry.get("generators", name), registry.get("generators", name).Settings
    place = f"generator.settings.{LATER}"
    for outputs in ((), ("train",), ("generate",), ("train", "generate")):
        # What says nothing is read by what its settings say, else by training.
        monkeypatch.setattr(plugin, "Settings", later(settings, Affects(*outputs)) if outputs else later(settings))
        assert {key: one.changes(before[key]) for key, one in inputs(configs).items()} == dict.fromkeys(before, [])
        changed = inputs({name: load_config(None, {"generator.name": name, place: 4})})
        found = {stage: one.changes(before[other, stage]) for (other, stage), one in changed.items()}
        assert found == {
            stage: [place] if stage in (outputs or settings.affects or ("train",)) else [] for stage in found
        }
