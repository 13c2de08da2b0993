"""What the page asks about the set: what `flawsmith check` finds; and to write the setting that answers a finding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from flawsmith.config import overridden
from flawsmith.errors import Answer, ConfigError
from flawsmith.run.folder import Run
from flawsmith.studio.commands.forms import value_at
from flawsmith.studio.workspace import Workspace

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio

Setting = Annotated[str, Field(max_length=200)]


class AnswerAsked(BaseModel):
    """A setting is to be written, as a finding of the last check names it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    setting: Setting
    value: str | int | float | bool | Annotated[list[str], Field(max_length=1000)]


class UndoAsked(BaseModel):
    """A setting is to be what it was before."""

    model_config = ConfigDict(extra="forbid", strict=True)

    setting: Setting


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file."""
    router = APIRouter(prefix="/api")

    @router.post("/check")
    def check(again: bool = False) -> dict[str, Any]:
        """Begin to look the set over, unless that is done or under way."""
        with studio.accepting:
            known = studio.checked
            if known is None or again or known.state not in ("waiting", "running", "done"):
                known = studio.checked = studio.checking.ask("check")
        return known.to_json()

    @router.get("/answers")
    def answers() -> dict[str, Any]:
        """Say which settings were written from here, and where they stand."""
        run = studio.workspace.run
        return {
            "written": [
                {"setting": name, "value": answer.value, "line": str(answer)}
                for name, (answer, _) in studio.answered.items()
            ],
            "place": str(run.path("config.json")) if run else "",
        }

    @router.post("/answer")
    def answer(asked: Annotated[AnswerAsked, Body()]) -> dict[str, Any]:
        """Write a setting that answers a finding of the last check."""
        with studio.accepting:
            offers = studio.checked.sofar.get("answers", {}) if studio.checked else {}
            wanted = Answer(asked.setting, asked.value)
            if wanted not in [Answer(**one) for offered in offers.values() for one in offered]:
                raise ConfigError(f"{asked.setting[:80]}: answers nothing that the last check found; check again")
            settings: dict[str, Any] = {wanted.setting: wanted.value}
            if wanted.setting == "generator.name":  # what the one before was told, this one would not know
                settings["generator.settings"] = {}
            tree = studio.workspace.config.model_dump(mode="json")
            before = {name: value_at(tree, name) for name in settings}
            _, first = studio.answered.get(wanted.setting, (wanted, before))
            _write(studio, settings, studio.answered | {wanted.setting: (wanted, first)})
        return answers()

    @router.post("/answer/undo")
    def undo(asked: Annotated[UndoAsked, Body()]) -> dict[str, Any]:
        """Give a setting that was written from here back the value that it had."""
        with studio.accepting:
            if asked.setting not in studio.answered:
                raise ConfigError(f"{asked.setting[:80]}: was not written from here, so there is nothing to undo")
            left = dict(studio.answered)
            _, before = left.pop(asked.setting)
            _write(studio, before, left)
        return answers()

    return router


def _write(studio: Studio, settings: Mapping[str, Any], answered: Mapping[str, tuple[Answer, dict[str, Any]]]) -> None:
    """Write settings into the run's configuration, or into what a run of these photographs will begin with.

    Raises:
        ConfigError: a value does not fit, or a run would get other photographs.
        FlawsmithError: a command is running.
    """
    workspace = studio.workspace
    with studio.commands.held():
        if workspace.run:
            if of_data := [name for name in settings if name.startswith("data.")]:
                raise ConfigError(f"{of_data[0]}: a run keeps its photographs and how they are read; make another run")
            run = Run.open(workspace.run.folder)
            Run.create(run.folder, overridden(run.config, settings))
            opened = Workspace.open(workspace.source, settings=workspace.settings)
        else:
            opened = Workspace.open(workspace.source, workspace.painted, {**workspace.settings, **settings})
        studio.open(opened, answered)
