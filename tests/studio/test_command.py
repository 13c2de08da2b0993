"""`flawsmith studio` as a process: it starts, answers, and leaves nothing behind, however it is ended."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
httpx = pytest.importorskip("httpx", reason="the studio's tests need httpx")

from flawsmith.config import parse_overrides  # noqa: E402
from flawsmith.studio.workspace import Workspace  # noqa: E402


def lives(process: int) -> bool:
    """Whether a process is at work; one that has ended and that nobody asked about does not count."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children(process: int) -> list[int]:
    processes = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it ended just now
            continue
        if parent == process:
            processes.append(int(status.parent.name))
    return processes


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"])
def test_nothing_is_left_behind(photographs: Path, tmp_path: Path, name: str) -> None:
    command = [sys.executable, "-m", "flawsmith", "studio", str(photographs), "--no-browser"]
    command += ["--out", str(tmp_path / "work" / "painted")]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True)
    try:
        assert run.stdout is not None
        line = run.stdout.readline()
        printed = re.fullmatch(r"studio: open (http://127\.0\.0\.1:\d+/\S+/) \(Ctrl-C ends it\)\n", line)
        assert printed, line
        for _ in range(200):
            try:
                assert httpx.get(printed[1]).status_code == 200
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        origin = {"origin": printed[1].rpartition("/")[0].rsplit("/", 1)[0]}
        begun = httpx.post(f"{printed[1]}api/generate", json={"count": 200}, headers=origin, timeout=60)
        assert begun.status_code == 200 and begun.json()["state"] == "running", begun.text
        for _ in range(200):  # one that paints, and the command
            workers = children(run.pid)
            if len(workers) >= 2:
                break
            time.sleep(0.05)
        assert len(workers) >= 2
        run.send_signal(getattr(signal, name))
        said, _ = run.communicate(timeout=60)
        if name == "SIGKILL":
            assert run.returncode == -signal.SIGKILL
        else:
            assert (said, run.returncode) == ("studio: ended\n", 0)
            assert not list(tmp_path.glob("flawsmith-studio-*"))
    finally:
        run.kill()
        run.communicate()
    for _ in range(600):
        if not any(map(lives, workers)):
            break
        time.sleep(0.1)
    assert not [worker for worker in workers if lives(worker)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["absent"], "there is nothing; name a run folder"),
        (["{set}", "--out", "{set}/x"], "which are only read"),
        (["{set}", "--host", "203.0.113.1"], "choose another --port or --host"),
        (["{set}", "--set", "data.layout=pair"], "did you mean 'pairs'"),
    ],
)
def test_wrong_input_is_one_sentence(photographs: Path, words: list[str], said: str) -> None:
    named = [word.format(set=photographs) for word in words]
    command = [sys.executable, "-m", "flawsmith", "studio", *named, "--no-browser"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


def test_a_folder_that_leaves_a_question_is_opened_with_the_command_that_is_named(
    photographs: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "my parts"
    folder.mkdir()
    for path in (photographs / "magnet" / "train" / "good").iterdir():
        shutil.copy(path, folder)
    command = [sys.executable, "-m", "flawsmith", "studio", str(folder), "--no-browser"]
    environment = {**os.environ, "FLAWSMITH_LANG": "ko"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    question, named = done.stderr.splitlines()
    assert done.returncode == 2 and '정상품이면 이렇게 설정하세요: data.normal = ["."]' in question
    words = shlex.split(named.removeprefix("  이렇게 여세요: "))
    assert words[:4] == ["flawsmith", "studio", str(folder), "--set"]
    opened = Workspace.open(folder, settings=parse_overrides(words[4:]))
    assert len(opened.normals) + len(opened.split.test_normals) == len(list(folder.iterdir()))
