"""run/stage.py: a stage is done once, again when what it depends on changes, and goes on where it was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flawsmith.config import Config
from flawsmith.files import read_json, read_lines
from flawsmith.run.folder import Run
from flawsmith.run.stage import FOLLOWS, Inputs, Work, is_done, stage, stamp_of

INPUTS = Inputs({"train.steps": 5, "seed": 0}, {"train.steps": 600, "seed": 0}, {"shots": "f00d"})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Config())


@contextmanager
def done(run: Run, name: str, inputs: Inputs = INPUTS, **more: Any) -> Iterator[Work]:
    """A stage that writes its outputs, unless it is done already."""
    with stage(run, name, inputs, **more) as work:
        yield work
        if not work.done:
            for path in more.get("outputs", ()):
                path.write_text(name)
            work.what = f"{name} was done"


def do(run: Run, name: str, inputs: Inputs = INPUTS, **more: Any) -> bool:
    """Do a stage; return whether there was anything to do."""
    with done(run, name, inputs, **more) as work:
        return not work.done


def finish_all(run: Run) -> dict[str, str | None]:
    """Finish every stage, and return their stamps."""
    for name in FOLLOWS:
        assert do(run, name)
    return {name: run.stage_hash(name) for name in FOLLOWS}


def log(run: Run) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key != "at"} for row in read_lines(run.path("log.jsonl"))]


def test_a_stage_is_done_once(run: Run) -> None:
    with done(run, "measure", outputs=[run.path("metrics.json")]) as work:
        assert not work.done and run.stage_hash("measure") is None
        work.facts["pictures"] = 7
    record = run.record("measure")
    assert record["hash"] == run.stage_hash("measure") == stamp_of(run, "measure", INPUTS)
    assert record["pictures"] == 7 and record["finished"]
    assert record["inputs"] == {"settings": dict(INPUTS.settings), "content": dict(INPUTS.content)}
    assert [row["stage"] for row in log(run)] == ["measure"] and log(run)[0]["what"] == "measure was done"
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()}
    for _ in range(2):
        assert not do(run, "measure", outputs=[run.path("metrics.json")])
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", FOLLOWS)
@pytest.mark.parametrize("what", ["setting", "content", "output", "itself"])
def test_a_change_does_it_again_and_takes_back_what_follows(name: str, what: str, run: Run, tmp_path: Path) -> None:
    stamps = finish_all(run)
    output = run.path("output")
    output.write_text("there")
    inputs = INPUTS
    if what == "setting":
        inputs = replace(INPUTS, settings={**INPUTS.settings, "seed": 1})
    elif what == "content":
        inputs = replace(INPUTS, content={"shots": "beef"})
    elif what == "output":
        output.unlink()
    run.path("log.jsonl").unlink()
    with done(run, name, inputs, outputs=[output], there=lambda: what != "itself") as work:
        assert not work.done
        # What follows is taken back before anything changes, so a kill in here leaves nothing that is out of date.
        finished = {other for other in FOLLOWS if run.stage_hash(other)}
        assert finished == set(FOLLOWS) - {name, *FOLLOWS[name]}
    assert run.stage_hash(name) == work.stamp
    assert (work.stamp == stamps[name]) == (what in ("output", "itself")), "other inputs have another stamp"
    assert all(run.stage_hash(other) == stamps[other] for other in finished)
    reasons = {"setting": "seed changed", "content": "shots changed", "output": "output missing"}
    told = [row for row in log(run) if row["what"].startswith("to be done again")]
    if what in reasons:
        assert told == [{"stage": ", ".join([name, *FOLLOWS[name]]), "what": f"to be done again: {reasons[what]}"}]
    elif FOLLOWS[name]:
        assert told == [{"stage": ", ".join(FOLLOWS[name]), "what": f"to be done again: {name} is done again"}]
    else:
        assert told == []
    assert log(run)[-1]["stage"] == name and log(run)[-1]["what"] == f"{name} was done"


def test_what_follows_are_stages_and_a_run_ends_with_its_report() -> None:
    assert {other for followers in FOLLOWS.values() for other in followers} <= set(FOLLOWS)
    order = list(FOLLOWS)
    for name, followers in FOLLOWS.items():
        assert name not in followers and all(order.index(name) < order.index(other) for other in followers)
        for other in followers:
            assert set(FOLLOWS[other]) <= set(followers), "what follows from what follows, follows"


def test_all_that_changed_is_named(run: Run) -> None:
    do(run, "train")
    other = Inputs({"train.steps": 6, "seed": 1}, INPUTS.defaults, {"shots": "beef", "normals": "cafe"})
    assert other.changes(run.record("train")) == ["train.steps", "seed", "shots", "normals"]
    do(run, "train", other)
    assert {"stage": "train", "what": "to be done again: train.steps, seed, shots, normals changed"} in log(run)


def test_a_later_setting_counts_when_it_is_not_its_default(run: Run) -> None:
    do(run, "train")
    stamp = run.stage_hash("train")

    def later(value: int) -> Inputs:
        return Inputs({**INPUTS.settings, "new": value}, {**INPUTS.defaults, "new": 3}, INPUTS.content)

    assert not do(run, "train", later(3)) and run.stage_hash("train") == stamp == stamp_of(run, "train", later(3))
    assert "new" not in run.record("train")["inputs"]["settings"]
    assert do(run, "train", later(4)) and run.stage_hash("train") != stamp
    assert do(run, "train", later(3)), "now it is written down, and changed"
    # One that is gone counts for nothing: it cannot be told what would come of it.
    assert not do(run, "train", INPUTS)


def test_content_that_is_new_counts(run: Run) -> None:
    do(run, "train")
    more = replace(INPUTS, content={**INPUTS.content, "starts_from": {"a.safetensors": "1"}})
    assert more.changes(run.record("train")) == ["starts_from"] and do(run, "train", more)


@pytest.mark.parametrize("way", ["raises", "unfinished", "interrupted"])
def test_what_is_not_finished_goes_on_with_its_stamp(way: str, run: Run) -> None:
    stamps = finish_all(run)
    changed = replace(INPUTS, settings={**INPUTS.settings, "seed": 1})
    error = {"raises": RuntimeError, "interrupted": KeyboardInterrupt}.get(way)
    if error:
        with pytest.raises(error), stage(run, "generate", changed) as work:
            begun = work.stamp
            work.facts["samples"] = 3
            raise error
    else:
        with stage(run, "generate", changed) as work:
            begun = work.stamp
            work.finished = False
    assert run.stage_hash("generate") is None and not is_done(run, "generate", changed)
    assert run.record("generate") == {
        "hash": begun,
        "inputs": {"settings": dict(changed.settings), "content": dict(changed.content)},
    }
    for other in FOLLOWS["generate"]:
        assert run.record(other) == {}
    assert begun != stamps["generate"] and run.stage_hash("train") == stamps["train"]
    with stage(run, "generate", changed) as again:
        assert not again.done and again.stamp == begun == stamp_of(run, "generate", changed)
    assert run.stage_hash("generate") == begun and is_done(run, "generate", changed)
    # "done again" is said once, of what was finished: not of the stage that only goes on.
    assert len([row for row in log(run) if row["what"].startswith("to be done again")]) == 1


def test_a_stage_that_goes_on_with_a_later_release_keeps_its_stamp(run: Run) -> None:
    """Between a kill and the next start a release may add a setting: the samples made so far stay what they are."""
    with stage(run, "generate", INPUTS) as work:
        work.finished = False
    later = Inputs({**INPUTS.settings, "new": 3}, {**INPUTS.defaults, "new": 3}, INPUTS.content)
    assert stamp_of(run, "generate", later) == work.stamp
    assert stamp_of(run, "generate", replace(later, settings={**later.settings, "new": 4})) != work.stamp


KILLED = """
import os, signal, sys
from flawsmith.run.folder import Run
from flawsmith.run.stage import Inputs, stage
run = Run.open(sys.argv[1])
with stage(run, "screen", Inputs({"seed": 1}, {"seed": 0}, {})) as work:
    run.path("half").write_text(work.stamp)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_stage_is_not_finished_and_keeps_its_stamp(run: Run) -> None:
    stamps = finish_all(run)
    ended = subprocess.run([sys.executable, "-c", KILLED, str(run.folder)], env=dict(os.environ), timeout=60)
    assert ended.returncode == -signal.SIGKILL
    again = Run.open(run.folder)
    begun = run.path("half").read_text()
    assert again.stage_hash("screen") is None and again.record("screen")["hash"] == begun
    assert {name for name in FOLLOWS if again.stage_hash(name)} == {"train", "generate"}
    assert again.stage_hash("generate") == stamps["generate"]
    with stage(again, "screen", Inputs({"seed": 1}, {"seed": 0}, {})) as work:
        assert not work.done and work.stamp == begun
    assert again.stage_hash("screen") == begun


def test_the_configurations_inputs_are_the_settings_that_affect_a_stage() -> None:
    config = Config.model_validate({"seed": 3, "train": {"steps": 7, "save_every": 1}, "generate": {"count": 2}})
    train = Inputs.of(config, "train", shots="f00d")
    assert train.settings["train.steps"] == 7 and train.settings["seed"] == 3 and train.content == {"shots": "f00d"}
    assert train.defaults["train.steps"] == 600 and train.settings.keys() == train.defaults.keys()
    assert not {"train.save_every", "generate.count", "backbone.device"} & train.settings.keys()
    assert Inputs.of(config, "generate").settings["generate.count"] == 2
    assert "generate.controls" in Inputs.of(config, "controls").settings
    assert "generate.controls" not in Inputs.of(config, "generate").settings


def test_inputs_survive_the_manifest(run: Run) -> None:
    """What is compared is what JSON gives back: paths, tuples and tables of every section alike."""
    inputs = Inputs.of(Config.model_validate({"generate": {"count": {"crack": 2}}}), "generate", real=["a", "b"])
    do(run, "generate", inputs)
    assert inputs.changes(read_json(run.path("manifest.json"))["stages"]["generate"]) == []
    for output in (*FOLLOWS, "controls", "data"):
        inputs = Inputs.of(Config(), output)
        run.begin("train", "x", {"settings": dict(inputs.settings), "content": {}})
        assert inputs.changes(run.record("train")) == []
