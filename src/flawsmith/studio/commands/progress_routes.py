"""How far the work is, from photographs to an export: on which part the page opens, and what it names as next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import APIRouter

from flawsmith.evaluation.statistics import TASKS
from flawsmith.run.folder import Run
from flawsmith.studio.commands.export_routes import written_trees
from flawsmith.studio.commands.proof_routes import proof_of

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio

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
            "made": 0,
            "complete": False,
            "stands": 0,
            "provable": bool(workspace.split.shots and workspace.split.test_defects),
            "verdict": "",
            "exported": False,
        }
        if workspace.run is None:
            return known
        run = studio.run
        return known | {
            "made": sum(sample.made for sample in run.samples()),
            "complete": bool(run.stage_hash("generate")),
            "stands": len(run.kept(partly=True)),
            "verdict": verdict_of(run),
            "exported": bool(written_trees(run)),
        }

    return router


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
    if run.stage_hash("prove") and run.path("proof.json").is_file():
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
