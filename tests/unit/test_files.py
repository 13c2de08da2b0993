"""files.py: whole or not at all; JSON lines that survive a kill; sentences instead of tracebacks."""

from __future__ import annotations

import builtins
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flawsmith import files, leftovers
from flawsmith.errors import RunError
from flawsmith.files import (
    append_lines,
    digest,
    file_digest,
    mend_lines,
    read_json,
    read_lines,
    whole_folder,
    write_bytes,
    write_json,
    write_pieces,
)
from flawsmith.leftovers import remove_leftovers, set_aside, temporary


class Full:
    """A file on a disk that is full after `room` bytes."""

    def __init__(self, file: Any, room: int, number: int) -> None:
        self.file, self.room, self.number = file, room, number

    def write(self, content: bytes) -> int:
        self.file.write(content[: self.room])
        raise OSError(self.number, os.strerror(self.number))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch):
    def fail(number: int, room: int = 5) -> None:
        def opened(path: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            file = builtins.open(path, mode, *args, **kwargs)
            return Full(file, room, number) if mode in ("wb", "ab") else file

        monkeypatch.setattr(files, "open", opened, raising=False)

    return fail


# ---- whole files --------------------------------------------------------------------------------


def test_a_file_is_written_with_its_folders(tmp_path: Path):
    path = tmp_path / "a" / "b" / "x.bin"
    write_bytes(path, b"\x00one")
    write_bytes(path, b"two")
    assert path.read_bytes() == b"two" and [p.name for p in path.parent.iterdir()] == ["x.bin"]


@pytest.mark.parametrize(
    "number, wanted",
    [
        (errno.ENOSPC, "the disk is full; free some space and run the same command again, nothing is lost"),
        (errno.EIO, "cannot be written"),
        (errno.EROFS, "this place may not be written; choose another with --out"),
    ],
)
def test_a_failed_write_leaves_what_was_there(tmp_path: Path, failing, number: int, wanted: str):
    path = tmp_path / "x.json"
    write_json(path, {"old": True})
    failing(number)
    with pytest.raises(RunError) as told:
        write_json(path, {"new": list(range(100))})
    assert str(told.value).startswith(f"{path}: {wanted}") and "\n" not in str(told.value)
    assert read_json(path) == {"old": True} and [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_failed_first_write_leaves_nothing(tmp_path: Path, failing):
    failing(errno.ENOSPC)
    with pytest.raises(RunError, match="disk is full"):
        write_bytes(tmp_path / "x", b"0123456789")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def no(*_: Any) -> None:
        raise OSError(errno.EACCES, "no")

    monkeypatch.setattr(files.os, "replace", no)
    with pytest.raises(RunError, match="may not be written; choose another with --out"):
        write_bytes(tmp_path / "x", b"0123456789")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_is_needed(tmp_path: Path):
    (tmp_path / "x").write_text("mine")
    with pytest.raises(RunError, match="a file stands where a folder is needed"):
        write_bytes(tmp_path / "x" / "y", b"1")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="folder"):
        write_bytes(tmp_path / "folder", b"1")
    assert (tmp_path / "x").read_text() == "mine" and sorted(p.name for p in tmp_path.iterdir()) == ["folder", "x"]


def test_killed_while_writing_the_old_file_stands(tmp_path: Path):
    code = (
        "import os, sys, signal; from pathlib import Path; from flawsmith import files\n"
        "files.os.fsync = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_bytes(Path(sys.argv[1]), b'new' * 1000)"
    )
    path = tmp_path / "x"
    path.write_bytes(b"old")
    ended = subprocess.run([sys.executable, "-c", code, str(path)])
    assert ended.returncode == -9 and path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_sweep_takes_only_what_dead_writers_of_this_machine_left(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    host = leftovers._HOST
    keep = [
        f".a.{host}-{os.getpid()}.part",
        ".b.another.host-3.part",
        "c.part",
        ".d.part",
        ".e.another-host-4194304.part",
    ]
    for name in keep:
        (tmp_path / "deep" / name).write_text("x")
    (tmp_path / "deep" / f".f.json.{host}-4194304.part").write_text("x")  # above the kernel's largest pid
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in (tmp_path / "deep").iterdir()) == sorted(keep)


def test_what_a_process_of_another_container_writes_stays(tmp_path: Path):
    """Two containers with the machine's name do not see each other's processes."""
    apart = ["unshare", "--pid", "--fork", "--mount-proc"]
    if not shutil.which("unshare") or subprocess.run([*apart, "true"], capture_output=True).returncode:
        pytest.skip("no processes can be kept apart here")
    sweep = "import sys; from pathlib import Path; from flawsmith.leftovers import remove_leftovers\n"
    sweep += "remove_leftovers(Path(sys.argv[1]))"

    def pieces() -> Iterator[bytes]:
        yield b"first, "
        subprocess.run([*apart, sys.executable, "-c", sweep, str(tmp_path)], check=True)
        yield b"second"

    write_pieces(tmp_path / "x", pieces())
    assert (tmp_path / "x").read_bytes() == b"first, second"


LONG = "가" * 80 + ".json"
"""A name that every system takes, with little room for anything more."""


def test_a_long_name_is_written_and_its_leftovers_go(tmp_path: Path):
    path = tmp_path / LONG
    write_json(path, {})
    assert [p.name for p in tmp_path.iterdir()] == [LONG]
    part = temporary(path)
    dead = part.with_name(part.name.replace(f"-{os.getpid()}.", "-4194304."))
    dead.write_text("x")
    part.write_text("x")
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([path, part])
    part.unlink()
    path.unlink()
    dead.mkdir()
    with whole_folder(path, "the export") as empty:
        (empty / "new").write_text("")
    with whole_folder(path, "the export") as empty:
        (empty / "newer").write_text("")
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == [LONG, f"{LONG}/newer"]


@pytest.mark.parametrize("name", ["coco", LONG])
def test_an_old_folder_goes_where_a_new_one_took_its_place(tmp_path: Path, name: str):
    """Killed between the last renaming and the removal of what stood there before."""
    code = "import os, shutil, sys; from pathlib import Path; from flawsmith.files import whole_folder\n"
    code += "with whole_folder(Path(sys.argv[1]), 'the export') as part:\n"
    code += "    (part / 'new').write_text('')\n"
    code += "    shutil.rmtree = lambda *_, **__: os._exit(9)\n"
    (tmp_path / name).mkdir()
    (tmp_path / name / "old").write_text("")
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / name)]).returncode == 9
    old = set_aside(tmp_path / name)
    assert (old / "old").is_file() and (tmp_path / name / "new").is_file()
    if name == "coco":
        assert old.name == ".coco.old.part"
    alone = tmp_path / ".yolo.old.part"  # nothing took its place: it is all there is
    alone.mkdir()
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, alone.name])


# ---- JSON ---------------------------------------------------------------------------------------


def test_json_is_one_value_a_line_and_readable(tmp_path: Path):
    write_json(tmp_path / "x", {"b": 1, "a": ["ä", None, 0.1]})
    text = (tmp_path / "x").read_text(encoding="utf-8")
    assert text == '{\n "b": 1,\n "a": [\n  "ä",\n  null,\n  0.1\n ]\n}\n'
    assert read_json(tmp_path / "x") == {"b": 1, "a": ["ä", None, 0.1]}


@pytest.mark.parametrize("content", [b'{"a": ', b"", b"\xff\xfe"])
def test_json_that_is_broken(tmp_path: Path, content: bytes):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RunError, match=r"x\.json: not valid JSON"):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize("content", ["[]", "3", '"x"', "null"])
def test_json_that_is_no_object(tmp_path: Path, content: str):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(RunError, match=r"x\.json: not a JSON object, as it should be; delete it and run again"):
        read_json(tmp_path / "x.json")


def test_json_that_is_not_there(tmp_path: Path):
    with pytest.raises(RunError, match=r"gone\.json: no such file; the stage that writes it has not run"):
        read_json(tmp_path / "gone.json")


# ---- JSON lines ---------------------------------------------------------------------------------


def test_lines_are_appended(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    assert read_lines(path) == []
    append_lines(path, [{"i": 0}, {"i": 1, "w": "größe\nzwei"}])
    append_lines(path, [])
    append_lines(path, iter([{"i": 2}]))
    assert read_lines(path) == [{"i": 0}, {"i": 1, "w": "größe\nzwei"}, {"i": 2}]
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("keep", range(1, 25))
def test_a_line_torn_anywhere_is_dropped_and_the_next_append_is_whole(tmp_path: Path, keep: int):
    path = tmp_path / "x.jsonl"
    append_lines(path, [{"i": 0}])
    whole = path.read_bytes()
    torn = (json.dumps({"i": 1, "w": "größe"}, ensure_ascii=False) + "\n").encode()
    assert keep < len(torn)
    path.write_bytes(whole + torn[:keep])
    rows = read_lines(path)
    assert rows == [{"i": 0}, {"i": 1, "w": "größe"}][: 1 + (keep == len(torn) - 1)]
    append_lines(path, [{"i": 2}])
    assert read_lines(path) == [*rows, {"i": 2}], "what was read before is there still"


def test_a_broken_line_before_the_last_is_an_error(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    path.write_text('{"i": 0}\n{"i": 1\n{"i": 2}\n')
    with pytest.raises(RunError, match=r"x\.jsonl: line 2 is not valid JSON; delete that line and run again"):
        read_lines(path)
    path.write_text('{"i": 0}\n{"i": \n')
    with pytest.raises(RunError, match="line 2"):
        read_lines(path)


def test_empty_lines_are_nothing(tmp_path: Path):
    (tmp_path / "x").write_text('\n{"i": 0}\n\n  \n')
    assert read_lines(tmp_path / "x") == [{"i": 0}]


@pytest.mark.parametrize(
    "content, wanted",
    [
        (b"", b""),
        (b'{"i": 0}\n', b'{"i": 0}\n'),
        (b'{"i": 0}\n{"i"', b'{"i": 0}\n'),
        (b'{"i"', b""),
        (b'{"i": 0}\n{"i": 1}', b'{"i": 0}\n{"i": 1}\n'),
    ],
)
def test_mend_cuts_the_torn_line_off(tmp_path: Path, content: bytes, wanted: bytes):
    path = tmp_path / "x.jsonl"
    path.write_bytes(content)
    mend_lines(path)
    assert path.read_bytes() == wanted


def test_mend_leaves_whole_files_untouched_and_missing_ones_missing(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    append_lines(path, [{"i": 0}])
    before = path.stat()
    mend_lines(path)
    after = path.stat()
    assert (before.st_mtime_ns, before.st_ino) == (after.st_mtime_ns, after.st_ino)
    mend_lines(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def test_a_full_disk_while_appending_loses_no_line(tmp_path: Path, failing, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.jsonl"
    append_lines(path, [{"i": 0}])
    failing(errno.ENOSPC, room=4)
    with pytest.raises(RunError, match="the disk is full"):
        append_lines(path, [{"i": 1}])
    assert read_lines(path) == [{"i": 0}]
    monkeypatch.undo()
    append_lines(path, [{"i": 1}])
    assert read_lines(path) == [{"i": 0}, {"i": 1}]


def test_appending_where_no_folder_is(tmp_path: Path):
    with pytest.raises(RunError, match="cannot be written"):
        append_lines(tmp_path / "gone" / "x", [{"i": 0}])


# ---- digest -------------------------------------------------------------------------------------


def test_the_digest_is_written_out_once():
    assert digest({"b": 1, "a": [1.5, None, "ä"]}, "x") == "667780e177e5ee2e"


def test_the_digest_names_values_not_their_order(tmp_path: Path):
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])
    assert digest("a", "b") != digest("ab") != digest("a", "b", "")
    assert digest(1) != digest("1") and digest(None) != digest("")
    assert len(digest()) == 16 and set(digest()) <= set("0123456789abcdef")


def test_the_digest_of_a_file_is_its_contents(tmp_path: Path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"same")
    b.write_bytes(b"same")
    assert file_digest(a) == file_digest(b) == hashlib.sha256(b"same").hexdigest()[:16]
    b.write_bytes(b"other")
    assert file_digest(a) != file_digest(b) == hashlib.sha256(b"other").hexdigest()[:16]
    assert file_digest(tmp_path / "gone") == "absent"


def test_a_file_is_read_once_while_its_size_and_time_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, opened = tmp_path / "a", []
    path.write_bytes(b"first")
    monkeypatch.setattr(files, "open", lambda *words: opened.append(words[0]) or open(*words), raising=False)
    first = file_digest(path)
    assert file_digest(path) == first and opened == [str(path)]
    path.write_bytes(b"a longer second")
    assert file_digest(path) != first and opened == [str(path)] * 2
