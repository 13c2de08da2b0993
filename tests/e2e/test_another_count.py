"""Another number of samples: what the plans have in common stays, and the run is that of one begun with the number."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

import flawsmith as fs
from flawsmith.config import load_config

PIXELS = {"generator.name": "crop_paste", "data.products": ["magnet"], "generate.workers": 1}
NETWORK = {"train.steps": 1, "train.views": 1, "generate.steps": 1, "generate.attempts": 1, "data.products": ["screw"]}


def made(folder: Path, settings: dict[str, Any]) -> fs.Run:
    run = fs.Run.create(folder, load_config(None, settings))
    fs.train(run)
    assert fs.generate(run)
    return run


def results(run: fs.Run) -> dict[str, bytes]:
    names = ("plan.jsonl", "samples.jsonl", "controls.jsonl", "samples/*", "controls/*")
    return {path.relative_to(run.folder).as_posix(): path.read_bytes() for n in names for path in run.folder.glob(n)}


def written(run: fs.Run) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in run.path("samples").glob("*") if "mask" not in path.name}


@pytest.mark.parametrize(
    ("settings", "first", "then", "stay"),
    [
        # A batch, here of three, is made as a whole.
        (PIXELS, 2, 3, {0, 1, 2}),
        (PIXELS, 3, 2, {0, 1, 2, 3}),
        # The second type takes turns with the first for as long as both have samples left.
        (PIXELS, {"chip": 2, "crack": 1}, {"chip": 2, "crack": 3}, {0, 1, 2}),
        (PIXELS, 1, {"chip": 0, "crack": 2}, set()),
        # A model for each type: the seeds of the second follow from how many samples the first has.
        (PIXELS | {"train.scope": "defect"}, {"chip": 3, "crack": 1}, {"chip": 4, "crack": 1}, {0, 1, 2}),
        # What a network paints follows from all of its batch, so one that is cut is another.
        (NETWORK | {"generate.controls": 0}, 4, 5, {0, 1, 2}),
    ],
)
def test_what_is_common_stays_and_the_bytes_are_those_of_a_run_begun_so(
    settings: dict[str, Any],
    first: Any,
    then: Any,
    stay: set[int],
    small_config: dict[str, Any],
    tmp_path: Path,
) -> None:
    settings = small_config | settings
    run = made(tmp_path / "run", settings | {"generate.count": first})
    stray = run.path("samples/000099.png")  # of a kill between a picture and its line
    shutil.copy(run.path("samples/000000.png"), stray)
    before = written(run)
    again = made(run.folder, settings | {"generate.count": then})
    after = written(again)
    assert {int(name[:6]) for name, when in after.items() if before.get(name) == when} == stay
    assert results(again) == results(made(tmp_path / "begun", settings | {"generate.count": then}))


def test_with_another_setting_beside_it_all_are_made_anew(small_config: dict[str, Any], tmp_path: Path) -> None:
    settings = small_config | PIXELS
    before = written(made(tmp_path / "run", settings | {"generate.count": 1}))
    after = written(made(tmp_path / "run", settings | {"generate.count": 2, "generate.feather": 2.0}))
    assert all(after[name] != when for name, when in before.items())


def test_a_kill_while_samples_are_taken_away_changes_nothing(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flawsmith.synthesis.batches import planned

    settings = small_config | PIXELS
    run = made(tmp_path / "run", settings | {"generate.count": 3})
    with monkeypatch.context() as patched:
        patched.setattr(planned, "forget_rounds", lambda run: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            made(run.folder, settings | {"generate.count": 1})
    again = made(run.folder, settings | {"generate.count": 2})
    assert results(again) == results(made(tmp_path / "begun", settings | {"generate.count": 2}))
