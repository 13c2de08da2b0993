"""Files of a run that hold JSON of another shape, and plug-ins that raise: one sentence that names which."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from json_trees import GONE, changed, ways

import flawsmith as fs
from flawsmith import registry
from flawsmith.config import load_config
from flawsmith.errors import ConfigError, FlawsmithError, RunError
from flawsmith.files import read_json, reading, write_json
from flawsmith.generators.crop_paste import CropPaste
from flawsmith.nn.weights import save_tensors
from flawsmith.preflight.check import check
from flawsmith.reporting.proof import proof_section
from flawsmith.reporting.screening import screening_section
from flawsmith.reporting.sections import _metrics
from flawsmith.reporting.sweep import read_sweep
from flawsmith.run.dataset import load_split, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.screened import _read
from flawsmith.screening.gate import _VERSION, Gate

SETTINGS = {"data.products": ["magnet"], "data.shots": 2, "generate.count": 1, "generator.name": "crop_paste"}
OTHERS = (5, "text", None, [], {}, [[1]], True, 10**30, GONE)


@pytest.fixture(scope="module")
def finished(factory_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = Run.create(
        tmp_path_factory.mktemp("finished") / "run", load_config(None, {"data.root": str(factory_root), **SETTINGS})
    )
    fs.train(run)
    fs.generate(run)
    run.finish("screen", "stamp", {})
    row = {"name": "000000", "product": "magnet", "defect": "chip", "kept": True}
    run.path("scores.jsonl").write_text(json.dumps(row) + "\n")
    for stage in ("prove", "measure"):
        run.finish(stage, "stamp", {"content": {"samples": run.samples_hash()}})
    picture = {"value": 1.0, "image": "samples/000000.png"}
    ids = {"normal": "magnet/train/good/001.png", "reference": "magnet/train/good/001.png"}
    rows = [{"product": "magnet", "defect": "chip", **ids, "pictures": [picture]}]
    write_json(run.path("sweep.json"), {"hash": run.stage_hash("generate"), "setting": "w", "rows": rows})
    own = {"defects": ["chip"], "file": "000.safetensors", "filters": {}, "limits": {"seam": 0.5}, "notes": ["a"]}
    own["left_out"] = {"seam": {"shots": 5, "least": 0.1, "median": 0.2, "greatest": 0.3}}
    extractor = {"name": "x", "fingerprint": "y"}
    gate = {"version": 2, "extractor": extractor, "visible": 0.1, "settings": {}, "products": {"magnet": own}}
    write_json(run.path("gate", "gate.json"), gate)
    save_tensors(run.path("gate", "000.safetensors"), {"seam/x": torch.zeros(1)})
    figures = {"kid": {"value": 1.0, "low": 0.5, "high": 1.5}}
    defects = {"chip": {"made": 2, "real": 2, "figures": figures}}
    tree = {"window": 64, "real": "shots", "extractor": extractor, "resamples": 10, "products": {"magnet": defects}}
    write_json(run.path("metrics.json"), tree)
    write_json(run.path("proof.json"), {"products": {"magnet": {"rows": []}}})
    write_json(run.path("rounds.json"), {"gate": {}, "rounds": [[["magnet", "chip", 1]]], "discarded": [1]})
    return run.folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    shutil.copytree(finished, tmp_path / "run")
    return Run.open(tmp_path / "run")


READERS: dict[str, Callable[[Run], Any]] = {
    "data.json": lambda run: (load_split(run), run.data_hash()),
    "manifest.json": lambda run: (run.samples_hash(), run.kept(), run.record("train")),
    "state/generate.json": lambda run: run.asked(),
    "rounds.json": _read,
    "sweep.json": lambda run: read_sweep(run, {one.id: one for one in load_split(run).normals}),
    "gate/gate.json": lambda run: (screening_section(run, ()), Gate.load(run.path("gate"))),
    "metrics.json": _metrics,
    "proof.json": lambda run: proof_section(run, load_split(run)),
    "plan.jsonl": lambda run: run.plan(),
    "samples.jsonl": lambda run: run.samples(),
    "scores.jsonl": lambda run: run.kept(),
}


@pytest.mark.parametrize("file", READERS)
def test_no_shape_of_json_is_a_traceback(file: str, run: Run) -> None:
    """A hundred values replaced by others: whatever is refused is so in one sentence that names the file."""
    path = run.path(file)
    lines = path.suffix == ".jsonl"
    tree = json.loads(path.read_text().splitlines()[0]) if lines else read_json(path)
    edits = [(place, value) for place in ways(tree, of_lists=2) for value in OTHERS]
    rng = np.random.default_rng(3)
    chosen = rng.permutation(len(edits))[:100]
    refused = 0
    for place, value in (edits[number] for number in chosen):
        text = json.dumps(changed(tree, place, value))
        path.write_text(f"{text}\n{text}\n" if lines else text)
        try:
            READERS[file](run)
        except RunError as error:
            refused += 1
            assert str(run.path(file).parent) in str(error), (place, value)
            assert "\n" not in str(error)
        except FlawsmithError:
            refused += 1  # a photograph that is not there, an unknown filter: their sentences are tested elsewhere
    assert refused


@pytest.mark.parametrize("value", ["x", 5, [], [{}], {"rules": 3}])
@pytest.mark.parametrize("key", ["shots", "masks", "ranges", "near_duplicates", "duplicates", "hash"])
def test_what_is_remembered_of_photographs(key: str, value: Any, run: Run) -> None:
    """data.json is read again when the photographs are opened: what does not fit is refused, or made anew."""
    write_json(run.path("data.json"), read_json(run.path("data.json")) | {key: value})
    try:
        open_dataset(run)
    except RunError as error:
        assert "data.json: does not hold what flawsmith writes there" in str(error)
        assert str(error).endswith("delete it and run again") and "\n" not in str(error)


def test_the_sentence_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"x: does not hold what flawsmith writes there \('id' is missing\); delete"):
        with reading(tmp_path / "x"):
            {}["id"]
    with pytest.raises(FileNotFoundError), reading(tmp_path / "x"):  # others' errors are not ours to explain
        (tmp_path / "y").read_text()


class Fails(CropPaste):
    def __init__(self, *_: Any, **__: Any) -> None:
        raise OverflowError("wheels are missing\nand more")


NOT_A_CLASS = 5


@pytest.mark.parametrize(
    "target, words",
    [
        (f"{__name__}:Fails", "cannot be made: OverflowError: wheels are missing and more"),
        (f"{__name__}:NOT_A_CLASS", "has no Settings, so it is no generator"),
        ("raises_on_import:X", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("no_python:X", "cannot be loaded: SyntaxError"),
    ],
)
def test_a_plugin_that_raises_is_named(
    target: str, words: str, factory_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raises_on_import.py").write_text("1 / 0")
    (tmp_path / "no_python.py").write_text("def def")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FLAWSMITH_PLUGINS", f"generators.mine={target}")
    config = load_config(None, {"data.root": str(factory_root), **SETTINGS, "generator.name": "mine"})
    with pytest.raises(ConfigError, match=words) as error:
        fs.train(Run.create(tmp_path / "run", config))
    assert f"generator 'mine' ({target})" in str(error.value) and "\n" not in str(error.value)
    if "made" in words or "loaded" in words:
        assert any(words in said for said in check(config).errors)


def test_a_plugins_own_sentence_stays_as_it_is() -> None:
    with pytest.raises(ConfigError, match="^mine$"), registry.making("generators", "crop_paste"):
        raise ConfigError("mine")


@pytest.mark.parametrize(
    "key, value, words",
    [
        ("generate.count", 10**12, "generate.count: 1000000000000 does not fit"),
        ("generate.count", {"crack": 10**12}, "does not fit; it is: Samples per defect type"),
        ("data.root", "photos\0", "data.root: holds the character NUL; leave it out"),
        ("backbone.source", "a\0b", "backbone.source: holds the character NUL"),
    ],
)
def test_settings_that_nothing_can_follow(key: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        load_config(None, {key: value})


def test_a_gate_of_no_product(tmp_path: Path) -> None:
    extractor = {"name": "tiny", "fingerprint": ""}
    tree = {"version": _VERSION, "products": {}, "settings": {}, "extractor": extractor, "visible": 0.1}
    write_json(tmp_path / "gate.json", tree)
    with pytest.raises(RunError, match="no product"):
        Gate.load(tmp_path)
