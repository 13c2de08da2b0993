"""What the page asks when another source is to be opened: the folders below the allowed one, and no others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Query
from pydantic import BaseModel, ConfigDict, Field

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.layouts.tree import natural_key
from flawsmith.errors import Answer, ConfigError, DataError, FlawsmithError, RunError
from flawsmith.paths import confined
from flawsmith.run.manifest import is_run
from flawsmith.studio.commands.forms import value_at
from flawsmith.studio.data_routes import AnswerAsked
from flawsmith.studio.workspace import Workspace

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio

MOST_FOLDERS = 1000
"""That are listed of one folder."""


class FolderAsked(BaseModel):
    """A folder is to be opened."""

    model_config = ConfigDict(extra="forbid", strict=True)

    folder: Annotated[str, Field(max_length=4000)]
    """Path below the allowed one, with `/`; "" = that one itself."""
    answer: AnswerAsked | None = None
    """A setting that would have answered why it was not opened the last time."""


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file."""
    router = APIRouter(prefix="/api")

    @router.get("/folders")
    def folders(below: Annotated[str, Query(max_length=4000)] = "") -> dict[str, Any]:
        """List the folders in a folder."""
        root, folder = _within(studio.root, below)
        return {
            "root": str(root.resolve()),
            "folder": "" if folder == root else folder.relative_to(root).as_posix(),
            "run": is_run(folder),
            "pictures": _pictures(folder),
            "folders": _listed(folder),
        }

    @router.post("/open")
    def open_(asked: Annotated[FolderAsked, Body()]) -> dict[str, Any]:
        """Open a run or a folder of photographs."""
        with studio.commands.held():  # it takes seconds to look a folder over
            studio.open(*_looked_over(studio, asked))
        return {"number": studio.opened}

    return router


def _looked_over(studio: Studio, asked: FolderAsked) -> tuple[Workspace, dict[str, tuple[Answer, dict[str, Any]]]]:
    """Return what is to be opened, and the settings that were answered for that, as `Studio.open` takes both."""
    root, folder = _within(studio.root, asked.folder)
    answered: dict[str, tuple[Answer, dict[str, Any]]] = {}
    if asked.answer is not None:
        answer = Answer(asked.answer.setting, asked.answer.value)
        if answer not in studio.refused:
            raise ConfigError(f"{answer.setting[:80]}: answers nothing that was said of this folder; open it again")
        before = value_at(Config().model_dump(mode="json"), answer.setting)
        answered = {answer.setting: (answer, {answer.setting: before})}
    try:
        workspace = Workspace.open(folder, settings={name: one.value for name, (one, _) in answered.items()})
    except FlawsmithError as error:
        studio.refused = error.answers
        raise
    photographs = workspace.config.data.root
    if not Path(os.path.realpath(photographs)).is_relative_to(os.path.realpath(root)):
        raise DataError(
            f"{folder}: its photographs lie in {photographs}, outside {root}, which alone may be opened here"
        )
    return workspace, answered


def _within(root: Path | None, below: str) -> tuple[Path, Path]:
    """Return the allowed folder, and one below it.

    Raises:
        DataError: no other folder may be opened, it leads out of the allowed one, or there is none.
    """
    if root is None:
        raise DataError("no other folder may be opened here; name one with `flawsmith studio --root FOLDER`")
    try:
        folder = confined(root, below) if below else root
    except RunError as error:
        raise DataError(str(error)) from None
    if not folder.is_dir():
        raise DataError(f"{below[:200]!r}: there is no such folder in {root}")
    return root, folder


def _listed(folder: Path) -> list[dict[str, Any]]:
    """Return the folders in a folder by name, without hidden ones and those that lead elsewhere."""
    try:
        with os.scandir(folder) as entries:
            names = [one.name for one in entries if not one.name.startswith(".") and one.is_dir(follow_symlinks=False)]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror})") from None
    return [{"name": name, "run": is_run(folder / name)} for name in sorted(names, key=natural_key)[:MOST_FOLDERS]]


def _pictures(folder: Path) -> int:
    """Return how many pictures lie in a folder itself."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.name.lower().endswith(images.SUFFIXES) for entry in entries)
    except OSError:
        return 0
