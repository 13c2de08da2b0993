"""locks.py and Run.alone: one writer per stage of a run, with real processes; shards work beside one another."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flawsmith as fs
from flawsmith.config import Config, load_config
from flawsmith.errors import Answer, ConfigError, RunError
from flawsmith.files import read_lines, whole_folder
from flawsmith.leftovers import temporary
from flawsmith.locks import BusyError, locked
from flawsmith.run.folder import Run
from flawsmith.run.stage import Inputs, stage

HOLDER = """
import sys
from flawsmith.run.folder import Run
with Run.open(sys.argv[1]).alone(*sys.argv[2:]):
    print("held", flush=True)
    sys.stdin.readline()
"""
INPUTS = Inputs({"seed": 0}, {"seed": 0}, {})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run.create(tmp_path / "run", Config())


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Return what starts another process that holds a stage of a run until it is told to end."""
    holders = []

    def start(run: Run, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLDER, str(run.folder), *words]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        holders.append(holder)
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def enter(run: Run, *words: str) -> None:
    with run.alone(*words):
        pass


def test_a_second_process_is_told_and_other_stages_go_on(run: Run, hold: Any) -> None:
    holder = hold(run, "train")
    words = rf"^{run.folder}: another process is at train of this run; let it end or stop it, then run this again$"
    with pytest.raises(RunError, match=words), stage(run, "train", INPUTS):
        raise AssertionError("two processes are at one stage")
    assert run.record("train") == {}  # nothing was begun
    with stage(run, "report", INPUTS):
        pass
    holder.send_signal(signal.SIGKILL)  # a process that is killed holds nothing any more
    holder.wait()
    enter(run, "train")


def test_shards_share_a_stage_and_nobody_does_the_same_shard_or_all_of_it(run: Run, hold: Any) -> None:
    hold(run, "generate", "0-of-2")
    enter(run, "generate", "1-of-2")
    with pytest.raises(RunError, match="is at generate, shard 0-of-2 of this run"):
        enter(run, "generate", "0-of-2")
    with pytest.raises(RunError, match="is at generate of this run"):
        enter(run, "generate")


def test_all_of_a_stage_keeps_shards_out(run: Run, hold: Any) -> None:
    hold(run, "generate")
    with pytest.raises(RunError, match="is at generate of this run"):
        enter(run, "generate", "1-of-2")


def test_the_manifest_loses_no_stage_when_two_processes_finish(run: Run) -> None:
    """Each reads, changes and writes the same file forty times."""
    code = "import sys; from flawsmith.run.folder import Run; run = Run.open(sys.argv[1])\n"
    code += "for n in range(40): run.finish(f'{sys.argv[2]}{n}', 'stamp', {})"
    both = [subprocess.Popen([sys.executable, "-c", code, str(run.folder), name]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert all(run.stage_hash(f"{name}{number}") for name in "ab" for number in range(40))


def test_the_log_loses_no_line_when_processes_find_a_torn_one(run: Run) -> None:
    """Whoever finds a line that a kill tore cuts it off; others have written by then."""
    code = "import sys; from flawsmith.run.folder import Run; run = Run.open(sys.argv[1])\n"
    code += "print('ready', flush=True); sys.stdin.readline(); run.log(what=sys.argv[2])"
    log, kept = run.path("log.jsonl"), '{"what": "' + "x" * 90 + '"}\n'
    for _ in range(3):
        log.write_text(kept * 100_000 + '{"what": "torn')
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(run.folder), f"writer {number}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(4)
        ]
        for writer in writers:
            assert writer.stdout is not None and writer.stdout.readline() == "ready\n"
        for writer in writers:
            assert writer.stdin is not None
            writer.stdin.write("\n")
            writer.stdin.flush()
        for writer in writers:
            writer.communicate()
            assert writer.returncode == 0
        said = [row["what"] for row in read_lines(log)[100_000:]]
        assert sorted(said) == [f"writer {number}" for number in range(4)]


@pytest.mark.skipif(os.name != "posix", reason="flock is POSIX's")
@pytest.mark.filterwarnings("ignore:flock not supported")  # filelock's own, where it makes a file instead
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
@pytest.mark.parametrize("busy", ["another process is at it", ""])
def test_on_a_drive_without_locks_nothing_is_held(
    number: int, busy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def no(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no)
    with locked(tmp_path / "lock", busy):
        done = True
    assert done


def test_a_lock_is_waited_for_and_needs_no_place_to_write(run: Run, tmp_path: Path, monkeypatch: Any) -> None:
    with locked(tmp_path / "a" / "lock"), locked(tmp_path / "b" / "lock"):
        pass
    (tmp_path / "file").write_text("")
    with locked(tmp_path / "file" / "lock"):  # no folder: nothing is held, and whoever writes will say it
        pass


@pytest.fixture(scope="module")
def finished(factory_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    overrides = {"data.root": str(factory_root), "data.products": ["magnet"], "data.shots": 2, "generate.count": 2}
    overrides |= {"generator.name": "crop_paste", "generate.controls": 0, "screen.enabled": False}
    run = Run.create(tmp_path_factory.mktemp("finished") / "run", load_config(None, overrides))
    fs.train(run)
    fs.generate(run)
    fs.export(run)
    return run.folder


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_two_processes_export_at_once(finished: Path, tmp_path: Path) -> None:
    """Both end well or one says who is at it; the export is whole whichever was first."""
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    shutil.rmtree(folder / "export")
    command = [sys.executable, "-m", "flawsmith", "export", str(folder)]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]
    assert 0 in [process.returncode for process in both]
    for process, text in zip(both, said, strict=True):
        assert process.returncode == 0 or "another process is at export of this run" in text
    assert files_below(folder / "export") == files_below(finished / "export")
    assert Run.open(folder).stage_hash("export")


@pytest.mark.parametrize("damage", ["lost", "lost, and others beside", "cut", "state gone and lost"])
def test_a_half_deleted_export_is_made_again(damage: str, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    run = Run.open(folder)
    picture = next(iter(sorted(folder.glob("export/mvtec/magnet/test/crack/*.png"))))
    before = picture.read_bytes()
    if damage == "cut":
        picture.write_bytes(before[:100])
    else:
        picture.unlink()
    if "others" in damage:
        for number in range(3):
            (folder / "export" / "mvtec" / f"results{number}.txt").write_text("of a tool")
    if "state" in damage:
        shutil.rmtree(folder / "state")
    fs.export(run)
    assert picture.read_bytes() == before and files_below(folder / "export") == files_below(finished / "export")


def test_what_a_tool_wrote_beside_it_stays(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    (folder / "export" / "mvtec" / "results.txt").write_text("of a tool")
    fs.export(Run.open(folder))
    assert (folder / "export" / "mvtec" / "results.txt").is_file()


def test_a_folder_of_a_writer_that_was_killed_goes_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    mine = temporary(tmp_path / "export")
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}.", "-4194304."))
    living = mine.with_name(mine.name.replace(f"-{os.getpid()}.", f"-{os.getppid()}."))
    for part in (dead, living):
        part.mkdir()
        (part / "half").write_text("")
    with whole_folder(tmp_path / "export", "the export") as part:
        (part / "whole").write_text("")
    assert {path.name for path in tmp_path.iterdir()} == {"export", living.name}
    assert files_below(tmp_path / "export") == {"whole"}


def test_a_worker_can_say_that_something_is_locked(tmp_path: Path) -> None:
    """A process pool breaks when an error of its worker cannot be read again."""
    error = BusyError("somebody is at it", tmp_path / "train.lock")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.lock) == (BusyError, str(error), error.lock)
    answered = ConfigError("set this", answers=(Answer("generate.count", 3),))
    assert pickle.loads(pickle.dumps(answered)).answers == answered.answers
