"""What the page Proof asks: the verdict, its intervals, what was gained and lost; and to begin a proof."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, ConfigDict

from flawsmith.config import Config, overridden
from flawsmith.errors import DataError
from flawsmith.evaluation.statistics import ALL, MEAN, OURS, REAL
from flawsmith.files import read_json, reading
from flawsmith.reporting.verdict import cannot_tell, few_seeds
from flawsmith.run.folder import Run
from flawsmith.studio.commands import costs, forms
from flawsmith.studio.commands.plan_routes import PageLanguage, Values
from flawsmith.studio.commands.process import language_of, said

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio

_REPORT = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox"
"""The report is one file with its styles and pictures inside, and without any script."""


class ProofAsked(BaseModel):
    """A proof is to be begun."""

    model_config = ConfigDict(extra="forbid", strict=True)

    values: Values = {}


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file; without a run there are none."""
    router = APIRouter(prefix="/api")
    if studio.workspace.run is None:
        return router

    @router.get("/proof")
    def proof() -> dict[str, Any]:
        """Say what is proven, and what can be set."""
        run = studio.run
        return {
            **proof_of(run),
            "report": run.path("report.html").is_file(),
            "fields": forms.fields(run.config, forms.PROVE),
            "kept": len(run.kept(partly=True)),
        }

    @router.post("/proof/plan")
    def preview(asked: Annotated[ProofAsked, Body()]) -> dict[str, Any]:
        """Say the command that proves, what it costs and what it leaves out; changes nothing."""
        run = studio.run
        settings = {**_settings(run.config, asked.values), "prove.enabled": True}
        wanted = overridden(run.config, settings)
        cost = costs.cost_of(studio, wanted, costs.PROVING)
        return {"command": said(_words(run, asked.values)), "cost": cost, "note": wanted.why_no_rival}

    @router.post("/prove")
    def prove(asked: Annotated[ProofAsked, Body()], accepted: PageLanguage = "") -> dict[str, Any]:
        """Begin to prove, or go on."""
        run = studio.run
        words = _words(run, asked.values)
        return studio.commands.start("prove", words, run.folder, language_of(accepted)).to_json()

    @router.get("/report")
    def report() -> Response:
        """Return the run's report."""
        path = studio.run.path("report.html")
        if not path.is_file():
            raise DataError("there is no report yet")
        return FileResponse(path, media_type="text/html", headers={"content-security-policy": _REPORT})

    return router


def proof_of(run: Run) -> dict[str, Any]:
    """Return what the page shows of a proof; {"proven": False} = the samples that the run has now are not proven."""
    path = run.path("proof.json")
    if not run.is_current("prove") or not path.is_file():
        return {"proven": False}
    tree = read_json(path)
    with reading(path, "delete it and prove again"):
        return {
            "proven": True,
            "generator": tree["generator"],
            "detectors": list(tree["detectors"]),
            "confidence": tree["confidence"],
            "seeds": tree["seeds"],
            "first_look": few_seeds(tree),
            "notes": [*tree["reduced"], *_notes(tree["products"])],
            "products": [_product(tree, name, product) for name, product in tree["products"].items()],
        }


def _product(proof: Mapping[str, Any], name: str, product: Mapping[str, Any]) -> dict[str, Any]:
    rows = [row for row in product["comparisons"] if (row["arm"], row["against"]) == (OURS, REAL)]
    keys = ("task", "defect", "difference", "low", "high")
    return {
        "name": name,
        "cannot_tell": cannot_tell(proof, name),
        # A proof of an earlier release has no corrected verdicts.
        "rows": [
            {key: row[key] for key in keys}
            | {"mean": row["defect"] == MEAN, "all": row["defect"] == ALL}
            | {"verdict": row.get("corrected_verdict", row["verdict"])}
            for row in rows
        ],
        "telling": [{key: row[key] for key in ("what", "id", "defect", "change")} for row in product["telling"]],
    }


def _notes(products: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the notes of a proof: what holds for every product once, and else with the product's name."""
    shared = set.intersection(*(set(product["notes"]) for product in products.values())) if products else set()
    noted = [(name, note) for name, product in products.items() for note in product["notes"]]
    return list(dict.fromkeys(note if note in shared else f"{name}: {note}" for name, note in noted))


def _words(run: Run, values: Mapping[str, Any]) -> list[str]:
    """Return the command: it keeps what is changed, and writes the report that shows the proof."""
    config: Config = run.config
    settings = _settings(config, values)
    if not config.prove.enabled:
        settings |= {"prove.enabled": True}
    return ["run", str(run.folder), "--until", "prove", *forms.set_words(settings)]


def _settings(config: Config, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was changed on the page as settings."""
    return forms.changed(config, forms.asked(values, forms.fields(config, forms.PROVE)))
