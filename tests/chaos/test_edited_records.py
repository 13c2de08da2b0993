"""Edited files of a run: whatever a line says, a stage goes on or says in one sentence what is wrong, and where."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from commands import Canary, flawsmith
from damage import Edit, edits_of_bytes, edits_of_json
from hypothesis import given, settings
from hypothesis import strategies as st
from tally import TALLY, often

STAGES = ("report", "export", "measure", "screen", "generate", "train", "prove", "run")


def records(run: Path) -> list[Path]:
    """Return the files of a run that hold JSON or JSON lines and that flawsmith reads again."""
    return sorted(
        path
        for path in run.rglob("*")
        if path.suffix in (".json", ".jsonl") and "export" not in path.relative_to(run).parts
    )


@pytest.fixture(scope="module")
def names(finished: Path) -> list[str]:
    names = [path.relative_to(finished).as_posix() for path in records(finished)]
    assert {"config.json", "manifest.json", "data.json", "plan.jsonl", "samples.jsonl", "scores.jsonl"} <= set(names)
    assert {"gate/gate.json", "metrics.json", "proof.json", "controls.jsonl", "log.jsonl"} <= set(names)
    return names


@settings(max_examples=often(25, 200))
@given(
    which=st.integers(0, 10**6),
    edit=st.one_of(edits_of_json(), edits_of_json(), edits_of_bytes()),
    stage=st.sampled_from(STAGES),
)
def test_an_edited_record(
    which: int, edit: Edit, stage: str, names: list[str], finished: Path, parts: Path, home_of_module: Path
) -> None:
    home = home_of_module
    shutil.rmtree(home / "run", ignore_errors=True)
    shutil.copytree(finished, home / "run")
    path = home / "run" / names[which % len(names)]
    path.write_bytes(edit(path.read_bytes()))
    canary = Canary(home, allowed=("run", "log", "run.toml"))
    photographs = Canary(parts)
    words = [stage, home / "run"]
    if stage == "run":  # with its own configuration, as after a kill
        (home / "run.toml").write_text("")
        words = ["run", home / "run.toml", "--out", home / "run", *_settings(finished)]
    outcome = flawsmith(home / "log", *words)
    TALLY.tried("an edited record of a run", refused=outcome.code == 2)
    assert outcome.wrong() == "", path.relative_to(home)
    assert canary.touched() == [] and photographs.touched() == []


def _settings(finished: Path) -> list[str]:
    import json

    from runs import TABLE, words_of

    root = json.loads((finished / "config.json").read_text())["data"]["root"]
    return words_of({"data.root": root, **TABLE})


@pytest.fixture(scope="module")
def home_of_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `home`, for hypothesis, which takes one for all examples."""
    home = tmp_path_factory.mktemp("edited") / "home"
    (home / "canary").mkdir(parents=True)
    (home / "canary" / "victim.txt").write_text("alive")
    (home / "victim.txt").write_text("alive")
    os.symlink(home / "victim.txt", home / "link")
    return home
