"""What the page Export asks: formats and what each can be told, a preview of the tree, and to begin an export."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from flawsmith import registry
from flawsmith.config import overridden
from flawsmith.errors import ConfigError, RunError
from flawsmith.exports.export import content_now
from flawsmith.files import read_json
from flawsmith.run.folder import Run
from flawsmith.studio.commands import forms
from flawsmith.studio.commands.plan_routes import PageLanguage, Values
from flawsmith.studio.commands.process import language_of, said
from flawsmith.studio.commands.trees import tree_of

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio


class ExportAsked(BaseModel):
    """Formats are to be written, or looked at."""

    model_config = ConfigDict(extra="forbid", strict=True)

    formats: Annotated[list[str], Field(max_length=50)]
    values: Values = {}


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file; without a run there are none."""
    router = APIRouter(prefix="/api")
    if studio.workspace.run is None:
        return router

    @router.get("/export")
    def export() -> dict[str, Any]:
        """Say which formats there are, what each can be told, and what is written already."""
        run = studio.run
        written = written_trees(run)
        return {
            "folder": str(run.path("export")),
            "state": state_of(run),
            "formats": [
                {
                    "name": name,
                    "summary": entry.summary,
                    "chosen": name in run.config.export.formats,
                    "fields": forms.format_fields(run.config, name),
                    "written": written.get(name),
                }
                for name, entry in sorted(registry.entries("exports").items())
            ],
            "fields": forms.fields(run.config, forms.EXPORT),
        }

    @router.post("/export/plan")
    def preview(asked: Annotated[ExportAsked, Body()]) -> dict[str, Any]:
        """Say the command that exports; changes nothing."""
        return {"command": said(_words(studio.run, asked))}

    @router.post("/export/tree")
    def tree_(asked: Annotated[ExportAsked, Body()]) -> dict[str, Any]:
        """Begin to write the first pictures of each sort, to show the tree."""
        settings = _settings(studio.run, asked)
        return studio.checking.ask("export_tree", settings=settings).to_json()

    @router.post("/export")
    def write(asked: Annotated[ExportAsked, Body()], accepted: PageLanguage = "") -> dict[str, Any]:
        """Begin to export."""
        run = studio.run
        if not asked.formats:
            raise ConfigError("export.formats: none is chosen; choose at least one")
        return studio.commands.start("export", _words(run, asked), run.folder, language_of(accepted)).to_json()

    return router


def written_trees(run: Run) -> dict[str, Any]:
    """Return the tree of each format that is exported, as the samples are now; {} = nothing is."""
    if state_of(run) != "written":
        return {}
    return {str(name): tree_of(files) for name, files in read_json(run.path("state", "export.json")).items()}


def state_of(run: Run) -> Literal["never", "changed", "written"]:
    """Return whether an export is there, and whether it holds the samples as they are now and were judged, and what
    was painted by hand."""
    if not run.path("state", "export.json").is_file():
        return "never"
    content = (run.record("export").get("inputs") or {}).get("content") or {}
    if not run.is_current("export"):
        return "changed"
    try:
        return "written" if content.get("examples") == content_now(run) else "changed"
    except RunError:  # an export would be refused
        return "changed"


def _settings(run: Run, asked: ExportAsked) -> dict[str, Any]:
    known = registry.entries("exports")
    if unknown := [name for name in asked.formats if name not in known]:
        raise ConfigError(f"export.formats: {unknown[0][:80]!r} is unknown; known: {', '.join(sorted(known))}")
    offered = forms.fields(run.config, forms.EXPORT)
    for name in known:
        offered += forms.format_fields(run.config, name)
    formats = {"export.formats": list(asked.formats)}
    own = forms.changed(run.config, forms.asked(asked.values, offered))
    overridden(run.config, formats | own)  # says at once what cannot be
    return formats | own  # the formats always: whoever copies the command sees what it writes


def _words(run: Run, asked: ExportAsked) -> list[str]:
    return ["export", str(run.folder), *forms.set_words(_settings(run, asked))]
