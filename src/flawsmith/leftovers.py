"""Names under which files are written before they take their place, and what becomes of them when a writer is killed.

A name says who writes: the machine, on Linux also the container, and the process.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

_OLD = "old"
_LONGEST = 255
"""Bytes that file systems take for a name."""


def temporary(path: Path) -> Path:
    """Return the name beside a file under which this process writes it; `remove_leftovers` knows it by that."""
    # One name per process: two shards, maybe on two machines, may write the same file at the same time.
    return _beside(path, f"{_HERE}-{os.getpid()}")


def set_aside(folder: Path) -> Path:
    """Return the name beside a folder that it has for the moment in which a new one takes its place."""
    return _beside(folder, _OLD)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files and folders below a folder whose writers were killed; those of other machines stay."""
    waiting = [os.fspath(folder)]
    while waiting:
        # One entry at a time: a run may hold millions of pictures.
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith(".") and entry.name.endswith(".part"):
                    _remove_if_left(Path(entry.path))
                elif entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)


def remove_leftovers_of(path: Path) -> None:
    """Delete what killed writers of one file or folder left beside it."""
    for stem in (path.name, _short(path.name)):
        for part in path.parent.glob(f".{glob.escape(stem)}.*.part"):
            _remove_if_left(part)


def _remove_if_left(part: Path) -> None:
    """Delete a temporary file or folder whose writer is gone, or an old folder whose place is taken."""
    named = _PART.search(part.name)
    if named:
        left = named["host"] in (_HERE, _HOST) and not _lives(int(named["pid"]))
    else:
        left = part.name.endswith(f".{_OLD}.part") and any(set_aside(one) == part for one in _neighbours(part))
    if not left:
        return
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    elif named:
        with contextlib.suppress(OSError):
            part.unlink()


def _neighbours(part: Path) -> Iterator[Path]:
    return (one for one in part.parent.iterdir() if not one.name.endswith(".part"))


def _beside(path: Path, ending: str) -> Path:
    name = f".{path.name}.{ending}.part"
    if len(os.fsencode(name)) > _LONGEST:
        name = f".{_short(path.name)}.{ending}.part"
    return path.with_name(name)


def _short(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _here(host: str) -> str:
    """Return what tells this machine, and the container in it, from others that write to the same folder."""
    try:  # containers may share the machine's name, but a process has another number in each
        return f"{host}-{os.stat('/proc/self/ns/pid').st_ino:x}"
    except OSError:
        return host


_HOST = re.sub(r"[^A-Za-z0-9_-]+", "_", socket.gethostname()) or "here"
"""Releases before 0.3 named parts by it alone."""
_HERE = _here(_HOST)
_PART = re.compile(r"\.(?P<host>[A-Za-z0-9_-]+)-(?P<pid>\d+)\.part$")


def _lives(pid: int) -> bool:
    if os.name != "posix":
        return True  # there os.kill is no question
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
