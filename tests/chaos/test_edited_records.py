"""Edited files of a run: whatever a line says, a stage goes on or says in one sentence what is wrong, and where."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from commands import Canary, flawsmith
from damage import Edit, edits_of_bytes, edits_of_json
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import TABLE, words_of
from tally import TALLY, often

BINARY = (".png", ".npz", ".safetensors")
UNDONE = ("screen", "measure", "prove", "export")
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
    try_edited(home_of_module, finished, parts, names[which % len(names)], edit, stage)


def try_edited(home: Path, finished: Path, parts: Path, name: str, edit: Edit, stage: str) -> None:
    """Edit a file of a copy of the finished run, and do a stage."""
    shutil.rmtree(home / "run", ignore_errors=True)
    shutil.copytree(finished, home / "run")
    path = home / "run" / name
    path.write_bytes(edit(path.read_bytes()))
    if path.suffix in BINARY and stage in UNDONE:
        forget(home / "run", stage)
    canary = Canary(home, allowed=("run", "log", "run.toml"))
    photographs = Canary(parts)
    words = [stage, home / "run"]
    if stage == "run":  # with its own configuration, as after a kill
        (home / "run.toml").write_text("")
        words = ["run", home / "run.toml", "--out", home / "run", *_settings(finished)]
    outcome = flawsmith(home / "log", *words)
    TALLY.tried(f"an edited {path.suffix} of a run", refused=outcome.code == 2)
    assert outcome.wrong() == "", path.relative_to(home)
    assert canary.touched() == [] and photographs.touched() == []


def forget(run: Path, first: str) -> None:
    """Let stages be done again, with what they and others remember still there."""
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["stages"] = {name: record for name, record in manifest["stages"].items() if name != first}
    (run / "manifest.json").write_text(json.dumps(manifest))


def _settings(finished: Path) -> list[str]:
    root = json.loads((finished / "config.json").read_text())["data"]["root"]
    return words_of({"data.root": root, **TABLE})


@settings(max_examples=often(8, 80))
@given(
    suffix=st.sampled_from(BINARY), which=st.integers(0, 10**6), edit=edits_of_bytes(), stage=st.sampled_from(STAGES)
)
def test_a_damaged_file(
    suffix: str, which: int, edit: Edit, stage: str, finished: Path, parts: Path, home_of_module: Path
) -> None:
    """Pictures, features, tensors and outcomes that are remembered: whatever is no text."""
    names = sorted(path.relative_to(finished) for path in finished.rglob(f"*{suffix}"))
    try_edited(home_of_module, finished, parts, str(names[which % len(names)]), edit, stage)


@pytest.fixture(scope="module")
def home_of_module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `home`, for hypothesis, which takes one for all examples."""
    home = tmp_path_factory.mktemp("edited") / "home"
    (home / "canary").mkdir(parents=True)
    (home / "canary" / "victim.txt").write_text("alive")
    (home / "victim.txt").write_text("alive")
    os.symlink(home / "victim.txt", home / "link")
    return home
