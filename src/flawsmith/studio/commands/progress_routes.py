"""How far the work is, from photographs to an export: on which part the page opens, and what it names as next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter

from flawsmith.evaluation.statistics import TASKS
from flawsmith.run.folder import Run
from flawsmith.studio.commands.export_routes import written_trees
from flawsmith.studio.commands.proof_routes import proof_of

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio

Missing = Literal["samples", "controls", "screening", "proof", ""]

_PARTS = {"generate": "generate", "prove": "proof", "export": "export"}
"""What a command is for -> the part of the page that shows it."""


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file."""
    router = APIRouter(prefix="/api")

    @router.get("/progress")
    def progress() -> dict[str, Any]:
        """Say what is done of each step; the page makes a sentence of it."""
        workspace, checked = studio.workspace, studio.checked
        known: dict[str, Any] = {
            "first": first_part(studio),
            "ready": checked.sofar.get("ok") if checked and checked.state == "done" else None,
            "paintable": bool(workspace.defects),
            "painted": sum(1 for _ in workspace.painted.rglob("*.json")) if workspace.opened else 0,
            "planned": 0,
            "made": 0,
            "controls": 0,
            "screened": 0,
            "complete": False,
            "usable": False,
            "missing": "",
            "stands": 0,
            "provable": bool(workspace.split.shots and workspace.split.test_defects),
            "verdict": "",
            "exported": False,
        }
        if workspace.run is None:
            return known
        run, samples, verdicts = studio.run, studio.run.samples(), studio.run.verdicts()
        running, made, planned = studio.commands.running, sum(one.made for one in samples), run.planned().total()
        screening = running.done_of("screen") if running else 0
        screens = run.config.screen.enabled and bool(workspace.split.shots)
        return known | {
            "planned": planned,
            "made": made,
            "controls": sum(one.made for one in run.controls()),
            "screened": screening if verdicts is None else len(verdicts),
            "complete": bool(run.stage_hash("generate")),
            "usable": bool(made) and (verdicts is not None or not run.config.screen.enabled),
            "missing": missing(run, len(samples) < max(planned, 1), screens=screens, provable=known["provable"]),
            "stands": len(run.kept(partly=True)),
            "verdict": verdict_of(run),
            "exported": bool(written_trees(run)),
        }

    return router


def missing(run: Run, samples: bool, *, screens: bool, provable: bool) -> Missing:
    """Return the first thing that a run still lacks; "" = nothing.

    Args:
        run: The run.
        samples: Whether planned samples are neither made nor given up.
        screens: Whether it is to be screened, and can be.
        provable: Whether there are real defects to prove with.
    """
    if samples:
        return "samples"
    if not run.stage_hash("generate"):
        return "controls"
    if screens and run.verdicts() is None:
        return "screening"
    return "proof" if provable and not proof_of(run)["proven"] else ""


def first_part(studio: Studio) -> str:
    """Return the part that the page opens on: where a command is at work, or else where the next step is.

    Photographs, and a run in which nothing is made yet: Data. Samples that are partly made: Generate. Made: Review.
    Proven: Proof.
    """
    if running := studio.commands.running:
        return _PARTS[running.purpose]
    if studio.workspace.run is None:
        return "data"
    run = studio.run
    if run.is_current("prove") and run.path("proof.json").is_file():
        return "proof"
    if run.stage_hash("generate"):
        return "review"
    return "generate" if any(sample.made for sample in run.samples()) else "data"


def verdict_of(run: Run) -> str:
    """Return what the proof says of all products: "helps", "harms", "mixed", "no effect" or "cannot tell"; "" = it is
    not proven."""
    proof = proof_of(run)
    if not proof["proven"]:
        return ""
    verdicts = set()
    for product in proof["products"]:
        means = {row["task"]: row["verdict"] for row in product["rows"] if row["mean"]}
        if means and not product["cannot_tell"]:
            verdicts.add(next(means[task] for task in TASKS if task in means))  # of the first task that was asked
    if {"helps", "harms"} <= verdicts:
        return "mixed"
    return next((verdict for verdict in ("harms", "helps", "no effect") if verdict in verdicts), "cannot tell")
