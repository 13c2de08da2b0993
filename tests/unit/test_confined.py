"""paths.py and Run.path: an edited record reaches nothing outside its run, and only the run's own files are deleted."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.errors import FlawsmithError, RunError
from flawsmith.files import read_json, read_lines, write_json, write_lines
from flawsmith.paths import confined, lies_below
from flawsmith.reporting.sweep import read_sweep
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.screening.gate import Gate
from flawsmith.screening.rounds import discard

OUTSIDE = ["../x.png", "a/../../x.png", "/etc/passwd", "C:\\x.png", "c:/x", "..\\x", "\\\\host\\x", "a\0b", ".."]


@pytest.fixture(scope="module")
def finished(factory_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of crop_paste with its samples and controls."""
    overrides = {"data.root": str(factory_root), "data.products": ["magnet"], "data.shots": 2, "generate.count": 2}
    overrides |= {"generator.name": "crop_paste", "prove.enabled": False}
    run = Run.create(tmp_path_factory.mktemp("finished") / "run", load_config(None, overrides))
    fs.train(run)
    fs.generate(run)
    return run.folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    """A copy beside a tree that nothing may touch."""
    shutil.copytree(finished, tmp_path / "home" / "run")
    canary = tmp_path / "home" / "canary"
    shutil.copytree(finished / "samples", canary)
    (canary.parent / "victim.txt").write_text("alive")
    return Run.open(tmp_path / "home" / "run")


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def edit_line(run: Run, file: str, **changes: Any) -> None:
    rows = read_lines(run.path(file))
    write_lines(run.path(file), [*rows[:-1], rows[-1] | changes])


def edit(run: Run, file: str, change: Callable[[dict[str, Any]], Any]) -> None:
    content = read_json(run.path(file))
    change(content)
    write_json(run.path(file), content)


def screened(run: Run, **verdict: Any) -> None:
    rows = [{"name": f"{row['index']:06d}", "product": "magnet", "defect": row["defect"], "kept": True} for row in
            read_lines(run.path("samples.jsonl"))]  # fmt: skip
    write_lines(run.path("scores.jsonl"), [*rows[:-1], rows[-1] | verdict])
    run.finish("screen", "stamp", {})


def with_sweep(run: Run) -> None:
    pictures = [{"value": 1.0, "image": "../canary/000000.png"}]
    ids = {"normal": "magnet/train/good/001.png", "reference": "magnet/train/good/001.png"}
    row = {"product": "magnet", "defect": "crack", **ids, "pictures": pictures}
    write_json(run.path("sweep.json"), {"hash": run.stage_hash("generate"), "setting": "w", "rows": [row]})


def with_gate(run: Run) -> None:
    own = {
        "defects": [],
        "file": "../../canary/x.safetensors",
        "filters": {},
        "limits": {},
        "notes": [],
        "left_out": {},
    }
    write_json(run.path("gate", "gate.json"), {"version": 2, "products": {"magnet": own}})


def linked(run: Run, name: str) -> None:
    path = run.path(name)
    shutil.rmtree(path, ignore_errors=True)
    path.symlink_to(path.parent.parent / "canary")


def generate(run: Run) -> None:
    if not (run.folder / "samples").is_symlink():
        (run.folder / "samples" / "000000.png").unlink()  # else nothing is to do
    fs.generate(run)


VICTIM = "../victim.txt"
REPAIRED = {"image": "../canary/000000.png", "mask": "../canary/000000.mask.png", "area": 3}
EDITS: dict[str, tuple[Callable[[Run], Any], Callable[[Run], Any], str]] = {
    "a row beyond the plan": (lambda run: edit_line(run, "samples.jsonl", image=VICTIM, index=9), generate, "line 4"),
    "its mask": (lambda run: edit_line(run, "samples.jsonl", mask=VICTIM, index=9), generate, "leads upwards"),
    "a row of the plan": (lambda run: edit_line(run, "samples.jsonl", image=VICTIM), fs.export, "leads upwards"),
    "a control": (lambda run: edit_line(run, "controls.jsonl", image="/etc/passwd"), generate, "is no relative path"),
    "a job": (lambda run: edit_line(run, "plan.jsonl", job="../../canary"), generate, "leads upwards"),
    "another job": (lambda run: edit_line(run, "plan.jsonl", job="tile"), generate, "of this run"),
    "a photograph": (lambda run: edit_line(run, "plan.jsonl", normal="../x.png"), generate, "of this run"),
    "a shot": (lambda run: edit_line(run, "plan.jsonl", shot="x.png"), generate, "of this run"),
    "weights": (
        lambda run: edit(run, "manifest.json", lambda all: all["stages"]["train"].update(weights=[VICTIM])),
        generate,
        "leads upwards",
    ),
    "a repaired label": (lambda run: screened(run, repair=REPAIRED), fs.export, "scores.jsonl: line 4"),
    "a verdict's name": (lambda run: screened(run, name=VICTIM), fs.export, "is not the number of a sample"),
    "data.json": (
        lambda run: edit(run, "data.json", lambda all: all["normals"][0].update(image="/etc/passwd")),
        fs.export,
        "does not lie below data.root",
    ),
    "a sweep": (with_sweep, lambda run: read_sweep(run, {one.id: one for one in load_split(run).normals}), "upwards"),
    "a gate": (with_gate, lambda run: Gate.load(run.path("gate")), "leads upwards"),
    "samples are a link": (lambda run: linked(run, "samples"), generate, "leads out of"),
    "controls are a link": (lambda run: linked(run, "controls"), generate, "leads out of"),
    "weights are a link": (lambda run: linked(run, "weights"), generate, "leads out of"),
    "the export is a link": (lambda run: linked(run, "export"), fs.export, "leads out of"),
}  # fmt: skip


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_record_reaches_nothing_outside(what: str, run: Run) -> None:
    spoil, stage, words = EDITS[what]
    spoil(run)
    before = tree(run.folder.parent / "canary")
    with pytest.raises(FlawsmithError) as error:
        stage(run)
    assert words in str(error.value) and "\n" not in str(error.value) and str(run.folder) in str(error.value)
    assert tree(run.folder.parent / "canary") == before and (run.folder.parent / "victim.txt").read_text() == "alive"


def test_an_edited_row_deletes_no_file_of_the_run(run: Run) -> None:
    edit_line(run, "samples.jsonl", image="config.json", index=9)
    generate(run)
    assert run.path("config.json").is_file() and len(run.samples()) == 4
    assert not run.path("samples", "000009.png").exists()


def test_what_the_run_did_not_write_stays_when_samples_are_made_anew(run: Run) -> None:
    run.path("samples", "notes.txt").write_text("mine")
    shutil.copy(run.path("samples.jsonl"), run.path("samples_mine.jsonl"))
    before = run.path("samples", "000000.png").read_bytes()
    again = Run.create(run.folder, load_config(None, {**_flat(run), "seed": 7}))
    fs.train(again)
    fs.generate(again)
    assert again.path("samples", "000000.png").read_bytes() != before
    assert run.path("samples", "notes.txt").read_text() == "mine" and run.path("samples_mine.jsonl").is_file()


def _flat(run: Run) -> dict[str, Any]:
    part = run.config
    return {
        "data.root": str(part.data.root), "data.products": part.data.products, "data.shots": 2,
        "generate.count": 2, "generator.name": "crop_paste", "prove.enabled": False,
    }  # fmt: skip


def test_discarding_deletes_pictures_under_the_runs_own_names(run: Run) -> None:
    config = run.config.model_copy(update={"screen": run.config.screen.model_copy(update={"keep_rejected": False})})
    run = Run(run.folder, config)
    screened(run, kept=False)
    edit_line(run, "samples.jsonl", image="plan.jsonl", mask="data.json")
    discard(run)
    assert run.path("plan.jsonl").is_file() and run.path("data.json").is_file()
    assert not run.path("samples", "000003.png").exists() and run.path("samples", "000002.png").is_file()


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_outside_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="must name something in this folder"):
        confined(tmp_path, "a", name)
    assert not lies_below(Path("photos") / name, Path("photos")) or "\\" in name or ":" in name


def test_names_that_stay_inside(tmp_path: Path) -> None:
    for name in ("a/b.png", "..a", "a..b/c", "crack: deep", "찍힘", "a b", ""):
        assert confined(tmp_path, name) == tmp_path / name
    (tmp_path / "inner").mkdir()
    (tmp_path / "link").symlink_to("inner")
    assert confined(tmp_path, "link", "x").name == "x"  # a link that stays inside is fine
    (tmp_path / "turns").symlink_to("turns")
    confined(tmp_path, "turns")
    (tmp_path / "run").symlink_to("inner")
    assert confined(tmp_path / "run", "x") == tmp_path / "run" / "x"  # the folder itself may be a link
