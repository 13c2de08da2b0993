"""The only place that writes files: whole or not at all, and JSON lines that survive a kill.

Everything is written under a temporary name beside its place and renamed; a full disk or a forbidden folder becomes one
clear sentence, and nothing half-written stays.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from flawsmith.errors import RunError
from flawsmith.leftovers import remove_leftovers_of, set_aside, temporary
from flawsmith.paths import open_file


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file so that it is there whole or not at all; see `write_pieces`."""
    write_pieces(path, [content])


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file, piece after piece, so that it is there whole or not at all.

    Raises:
        RunError: the disk is full or the folder cannot be written; nothing half-written stays.
    """
    part = temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise RunError(_why(path, error)) from None
    except BaseException:  # whatever makes the pieces failed, or was stopped
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    write_bytes(path, text.encode("utf-8"))


@contextlib.contextmanager
def whole_folder(folder: Path, what: str) -> Iterator[Path]:
    """Give an empty folder that takes the place of `folder` when the block ends; after an error nothing has changed.

    Args:
        folder: What stands there is replaced.
        what: What is written, for an error: "the export".

    Raises:
        RunError: the place cannot be written.
    """
    part, old = temporary(folder), set_aside(folder)
    try:
        _put_back(old, folder)  # a kill came between the two renames below
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)
        remove_leftovers_of(folder)
        part.mkdir(parents=True)
        yield part
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise RunError(f"{folder}: {what} cannot be written ({error.strerror}); nothing was changed there") from None
    finally:
        _put_back(old, folder)
        shutil.rmtree(part, ignore_errors=True)


def _put_back(old: Path, folder: Path) -> None:
    """Give an old folder its name again where no new one took it."""
    if old.exists() and not folder.exists():
        old.rename(folder)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically, keys as given, one value per line so that two runs can be compared with `diff`."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        RunError: the file is missing, not JSON, or holds something else than an object.
    """
    try:
        tree = json.loads(_content(path).decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"{path}: no such file; the stage that writes it has not run") from None
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: not valid JSON ({error}); delete it and run again") from None
    if not isinstance(tree, dict):
        raise RunError(f"{path}: not a JSON object, as it should be; delete it and run again")
    return tree


def _content(path: Path) -> bytes:
    """Return the bytes of a run's file.

    Raises:
        RunError: it cannot be read, or is no file.
    """
    try:
        with open_file(path) as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> RunError:
    return RunError(f"{path}: cannot be read ({error.strerror}); delete it and run again")


@contextlib.contextmanager
def reading(path: Path, remedy: str = "delete it and run again") -> Iterator[None]:
    """Turn what is stumbled over while the content of a JSON file is read into one sentence: it is of another shape.

    Args:
        path: The file. Only what reads its content belongs into the block.
        remedy: What would be right.

    Raises:
        RunError: a list stands where a table is expected, a number where text is, or a key is missing.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else (str(error).splitlines() or [""])[0]
        raise RunError(f"{path}: does not hold what flawsmith writes there ({what[:120]}); {remedy}") from None


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines atomically, in place of what is there; one at a time is held in memory."""
    write_pieces(path, (_json_line(row).encode("utf-8") for row in rows))


def append_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append JSON lines in one write, so that a kill tears at most the last; a torn one that stands there goes.

    Where several processes append to one file, each holds a lock meanwhile.
    """
    text = "".join(map(_json_line, rows))
    mend_lines(path)
    try:
        with open(path, "ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise RunError(_why(path, error)) from None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a torn last line (killed while writing) is dropped, a broken one before it is an error."""
    return list(each_line(path))


def each_line(path: Path) -> Iterator[dict[str, Any]]:
    """Yield JSON lines as `read_lines` returns them, one at a time in memory."""
    if not path.exists():
        return
    try:
        file = open_file(path)
    except OSError as error:
        raise _unreadable(path, error) from None
    with file:
        for number in itertools.count(1):
            try:
                line = file.readline()
            except OSError as error:
                raise _unreadable(path, error) from None
            if not line:
                return
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                if line.endswith(b"\n"):
                    raise RunError(f"{path}: line {number} is not valid JSON; delete that line and run again") from None
                return
            yield row


def _json_line(row: Mapping[str, Any]) -> str:
    return json.dumps(dict(row), ensure_ascii=False) + "\n"


def mend_lines(path: Path) -> None:
    """Cut a torn last line off the file itself (or end a whole one), so that the next append starts on a fresh line."""
    if not path.exists():
        return
    with open_file(path) as file:
        file.seek(0, os.SEEK_END)
        if not file.tell():
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
    raw = path.read_bytes()
    last = raw.rfind(b"\n") + 1
    try:
        json.loads(raw[last:])  # whole but for its end: `read_lines` has shown it, so it may not vanish
        write_bytes(path, raw + b"\n")
    except ValueError:
        write_bytes(path, raw[:last])


PART = "#"
"""What stands before each name of a part, as in `labels.json#coco#7#scratch`; see `data.annotations.parts`."""
_PART_OF = re.compile(
    r"(?P<file>.+\.(?:json|txt|[a-z]+(?=#lookout#)))#[a-z_]+#[^#/]*#[^#/]*(?:#[1-9]\d*)?", re.IGNORECASE | re.DOTALL
)


def whole_file(path: Path) -> Path:
    """Return the file of which a path names a part; another path is returned as it is."""
    fit = _PART_OF.fullmatch(path.name)
    return path.with_name(fit["file"]) if fit else path


def file_state(path: Path) -> list[int]:
    """Return size and times of a file, by which it is known to be unchanged; [] = there is none behind the name.

    The last is when the system noted a change (of the content, the name or the rights): a copy may take over the other
    time from its source, but not this one.
    """
    try:
        return _state(whole_file(path).stat())
    except OSError:
        return []


def _state(facts: os.stat_result) -> list[int]:
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def file_digest(path: Path) -> str:
    """Return a 16-digit hash of a file's bytes, "absent" when there is none; read once while its state stays."""
    path = whole_file(path)
    try:
        facts = path.stat()
    except OSError:
        return "absent"
    if not stat.S_ISREG(facts.st_mode):
        return "absent"
    return _file_digest(os.fspath(path), *_state(facts))


@lru_cache(maxsize=1 << 17)  # 60 MB at most; where people decided on more, each decision reads all again
def _file_digest(path: str, *state: int) -> str:
    hasher = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            hasher.update(chunk)
    return hasher.hexdigest()[:16]


def digest(*parts: Any) -> str:
    """Return a 16-digit hash of JSON-able values."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(json.dumps(part, sort_keys=True, default=str).encode())
        hasher.update(b"\0")
    return hasher.hexdigest()[:16]


def _why(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return f"{path}: the disk is full; free some space and run the same command again, nothing is lost"
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{path}: this place may not be written; choose another with --out"
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{path}: a file stands where a folder is needed; choose another --out"
    return f"{path}: cannot be written ({error.strerror})"
