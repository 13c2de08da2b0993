"""Names that come from a file, confined to the folder that they belong to.

A record of a run, a gate or a choice names files below its own folder. Whatever is read from, written to or deleted in
that folder by such a name goes through `confined`, so an edited record reaches nothing outside.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from flawsmith.errors import RunError

_DRIVE = re.compile(r"[A-Za-z]:" if os.name == "nt" else r"[A-Za-z]:(?:[\\/]|$)")


def why_outside(name: str) -> str:
    """Return why a name from a record may lead out of the record's folder, as the end of a sentence; "" = it stays.

    >>> why_outside("samples/000001.png"), why_outside("../a.png"), why_outside("/etc/passwd")
    ('', 'leads upwards', 'is no relative path')
    """
    if "\0" in name:
        return "holds the character NUL"
    if name.startswith(("/", "\\")) or _DRIVE.match(name):
        return "is no relative path"
    if ".." in re.split(r"[\\/]", name):
        return "leads upwards"
    return ""


def confined(folder: Path, *names: str) -> Path:
    """Return a path below a folder; each name may be several folders deep.

    Raises:
        RunError: a name is absolute, has a drive letter, `..` or NUL in it, or leads out of the folder through a link.
    """
    for name in names:
        if why := why_outside(name):
            raise RunError(f"{folder}: {name!r} {why}, but must name something in this folder; undo what was edited")
    path = folder.joinpath(*names)
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise RunError(f"{path}: leads out of {folder} through a link; put the files there in place of the link")
    return path


def lies_below(path: Path, root: Path) -> bool:
    """Return whether a path begins with a folder's and nothing after that leads upwards; links are not followed."""
    return path.is_relative_to(root) and not why_outside(path.relative_to(root).as_posix())
