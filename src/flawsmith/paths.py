"""Names that come from a file, confined to the folder that they belong to; and files that are files.

A record of a run, a gate or a choice names files below its own folder. Whatever is read from, written to or deleted in
that folder by such a name goes through `confined`, so an edited record reaches nothing outside. `open_file` opens what
anyone names: reading a pipe would wait for ever, and a device has no end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from flawsmith.errors import ConfigError, RunError

_DRIVE = re.compile(r"[A-Za-z]:" if os.name == "nt" else r"[A-Za-z]:(?:[\\/]|$)")

_SPECIAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class NoFileError(OSError):
    """What stands there is no file with a content of its own; `strerror` says what it is."""


def looked_in(path: Path) -> str:
    """Return where a name that is not there was looked for, for a sentence; "" where the name says so itself."""
    return "" if path.is_absolute() else f" (looked in {Path.cwd()})"


def is_hidden(path: Path, folder: Path) -> bool:
    """Return whether a path, or a folder between it and `folder`, is one that systems hide: ".x", macOS's "._x.png"."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def open_file(path: Path | str) -> BinaryIO:
    """Open a file to read its bytes, at once or not at all.

    Raises:
        NoFileError: it is a pipe, a socket, a device or a file of the system below /proc or /sys, be it through a link.
        OSError: as `open`.
    """
    _require_file(path, os.stat(path))
    # Another process may put a pipe there between the two: to open it must not wait either.
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    try:
        _require_ordinary(path, os.fstat(file.fileno()))
    except OSError:
        file.close()
        raise
    return file


def require_files(place: Path | str) -> None:
    """Refuse weights of which something is no file, before a library opens them: it would wait for ever.

    Args:
        place: A file, or a folder that is looked through; what is not there is for whoever opens it to say.

    Raises:
        ConfigError: names what is no file.
    """
    inside = (os.path.join(folder, name) for folder, _, names in os.walk(place) for name in names)
    for path in inside if os.path.isdir(place) else (place,):
        with contextlib.suppress(OSError):  # whoever opens it will say so
            try:
                _require_file(path, os.stat(path))
            except NoFileError as error:
                raise ConfigError(f"{path}: {error.strerror}; put the file itself there") from None


def _require_file(path: Path | str, facts: os.stat_result) -> None:
    system = os.path.realpath(path).startswith(("/proc/", "/sys/"))  # a look at each folder on the way: once is enough
    _require_ordinary(path, facts, "a file of the system" if system else "")


def _require_ordinary(path: Path | str, facts: os.stat_result, special: str = "") -> None:
    if stat.S_ISDIR(facts.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if special := special or _SPECIAL.get(stat.S_IFMT(facts.st_mode), ""):
        raise NoFileError(errno.EINVAL, f"it is {special}, not a file with a content of its own", str(path))


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
