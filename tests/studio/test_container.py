"""Dockerfile and compose file: every path, port and command in them exists, and the studio in it demands its token.

No container is built here: the files are read, and the command that the container would run is run.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
httpx = pytest.importorskip("httpx", reason="the studio's tests need httpx")
yaml = pytest.importorskip("yaml", reason="PyYAML is one of flawsmith's own requirements")

ROOT = Path(__file__).parents[2]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, lines that go on joined."""
    text = (ROOT / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    words = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    assert all(name.isupper() for name, _, _ in words)
    return [(name, rest.strip()) for name, _, rest in words]


def only(name: str) -> str:
    (argument,) = [rest for instruction, rest in instructions() if instruction == name]
    return argument


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    tree = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))
    assert list(tree) == ["services"] and list(tree["services"]) == ["studio"]
    return dict(tree["services"]["studio"])


def command() -> list[str]:
    """Return what the container runs, as words."""
    return [*json.loads(only("ENTRYPOINT")), *json.loads(only("CMD"))]


def options() -> dict[str, Any]:
    """Return the command's options, read as the command line reads them."""
    import typer

    from flawsmith.cli import app

    program, verb, *words = command()
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["scripts"]
    assert program in scripts
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    return dict(verbs[verb].make_context(verb, words, resilient_parsing=False).params)


def test_what_is_copied_is_there_and_sent() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line]
    assert rules[0] == "*"
    sent = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]}
    assert copied == sent
    for source in copied:
        assert (ROOT / source).exists(), source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert {project["readme"], *project["license-files"]} <= copied


def test_what_is_installed_exists() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pip = next(shlex.split(rest) for name, rest in instructions() if name == "RUN" and "pip install" in rest)
    assert (ROOT / pip[pip.index("-c") + 1]).is_file()
    (extra,) = re.findall(r"^\.\[(\w+)\]$", pip[-1])
    assert extra in project["optional-dependencies"]
    base = re.fullmatch(r"python:(\d+)\.(\d+)-slim", only("FROM"))
    least = re.fullmatch(r">=(\d+)\.(\d+)", project["requires-python"])
    assert base and least and tuple(map(int, base.groups())) >= tuple(map(int, least.groups()))


def test_the_command_is_one_and_fits_ports_and_folders(service: dict[str, Any]) -> None:
    asked = options()
    assert asked["host"] == "0.0.0.0" and asked["browser"] is False and asked["source"] is None
    assert str(asked["port"]) == only("EXPOSE")
    (published,) = service["ports"]
    host, outside, inside = published.split(":")
    assert (host, outside, inside) == ("127.0.0.1", only("EXPOSE"), only("EXPOSE"))
    (volume,) = service["volumes"]
    assert volume.rpartition(":")[2] == str(asked["root"])
    assert [rest for name, rest in instructions() if name == "WORKDIR"][-1] == str(asked["root"])
    assert re.match(r"\$\{FLAWSMITH_FOLDER:\?[^}]+\}:", volume)  # without it compose says what is missing


def test_nobody_is_root_and_nothing_but_the_folder_is_written(service: dict[str, Any]) -> None:
    users = [rest for name, rest in instructions() if name == "USER"]
    assert users and users[-1] not in ("root", "0")
    assert service["read_only"] is True and service["tmpfs"] == ["/tmp"] and service["cap_drop"] == ["ALL"]
    assert (ROOT / service["build"] / "Dockerfile").is_file()


def test_the_containers_studio_demands_its_token(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    asked = options()
    words = [{str(asked["root"]): str(tmp_path), str(asked["port"]): str(port)}.get(word, word) for word in command()]
    assert words[0] == "flawsmith" and str(port) in words and str(tmp_path) in words
    run = subprocess.Popen(
        [sys.executable, "-m", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        assert run.stdout is not None
        lines = [run.stdout.readline() for _ in range(2)]
        named = re.fullmatch(rf"studio: open http://\S+:{port}/(\S+)/ \(Ctrl-C ends it\)\n", lines[0])
        here = re.fullmatch(rf"studio: on this machine http://127\.0\.0\.1:{port}/(\S+)/\n", lines[1])
        assert named and here and named[1] == here[1] and len(named[1]) >= 32, lines
        place = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                refused = [httpx.get(f"{place}/{token}/api/source") for token in ("", "x", "A" * 32)]
                break
            except httpx.ConnectError:
                time.sleep(0.05)
        assert [answer.status_code for answer in refused] == [403, 403, 403]
        source = httpx.get(f"{place}/{named[1]}/api/source").json()
        assert source["folders"] and not source["opened"]
    finally:
        run.send_signal(signal.SIGTERM)
        _, said = run.communicate(timeout=60)
    assert "not encrypted" in said and run.returncode == 0
