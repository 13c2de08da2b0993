"""Who is answered, what can be read, and what an upload may be."""

from __future__ import annotations

import socket
import struct
import zlib
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

import httpx

from flawsmith.data import images
from flawsmith.errors import ConfigError, DataError
from flawsmith.studio.guard import MOST_BYTES
from flawsmith.studio.server import PAGE
from flawsmith.studio.session import Studio
from flawsmith.studio.workspace import Workspace

from .conftest import Client, serving

GOOD = "magnet/train/good/000.png"


def raw(studio: Studio, text: str) -> str:
    with socket.create_connection(("127.0.0.1", studio.port), timeout=10) as connection:
        connection.sendall(text.encode())
        connection.settimeout(10)
        return connection.recv(65536).decode("latin-1")


@pytest.mark.parametrize("place", ["", "api/source", "page/app.js", "nothing"])
@pytest.mark.parametrize("token", ["", "x", "A" * 32])
def test_without_the_token_nothing_is_answered(studio: Studio, place: str, token: str) -> None:
    answer = httpx.get(f"http://127.0.0.1:{studio.port}/{token}/{place}")
    assert answer.status_code == 403 and "token" in answer.json()["error"]
    assert studio.token not in answer.text


def test_the_token_is_long_and_each_studio_has_its_own(studio: Studio, photographs: Path) -> None:
    with Studio(Workspace.open(photographs)) as other:
        assert other.token != studio.token and len(other.token) >= 32
        assert other.socket.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1"])
def test_another_name_for_this_machine_is_refused(studio: Studio, host: str) -> None:
    answer = httpx.get(studio.address, headers={"host": host.format(port=studio.port)})
    assert answer.status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_forged_origin_is_refused(studio: Studio, headers: dict[str, str]) -> None:
    for method in ("GET", "POST"):
        answer = httpx.request(method, f"{studio.address}api/source", headers=headers)
        assert answer.status_code == 403 and "another page" in answer.json()["error"]


def test_what_changes_something_names_its_origin(studio: Studio) -> None:
    answer = httpx.post(f"{studio.address}api/paint", json={})
    assert answer.status_code == 403 and "origin" in answer.json()["error"]


def test_every_answer_forbids_foreign_code(client: Client) -> None:
    for place in ("", "page/app.js", "api/source", "api/nothing"):
        headers = client.get(place).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"


def test_the_page_fetches_nothing_from_elsewhere() -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/", "")
        assert "http://" not in text and "https://" not in text and "//cdn" not in text, path
        for door in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"):
            assert door not in text, f"{path} opens {door} to names and notes"


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "magnet/../../x.png", "..\\..\\x", "\0", "no.png", "a" * 3000]
)
def test_only_the_set_can_be_read(client: Client, name: str) -> None:
    for place in ("api/photograph", "api/photograph/thumb", "api/painted/thumb"):
        answer = client.get(place, name=name)
        assert answer.status_code == 404 and "root:" not in answer.text
    tile = client.get("api/photograph/tile", name=name, level=0, column=0, row=0)
    assert tile.status_code == 404


@pytest.mark.parametrize(
    "name", ["../server.py", "%2e%2e%2fserver.py", "..%5cserver.py", "%2fetc%2fpasswd", "no.js", ""]
)
def test_only_the_page_is_served(studio: Studio, name: str) -> None:
    said = raw(studio, f"GET /{studio.token}/page/{name} HTTP/1.1\r\nHost: 127.0.0.1:{studio.port}\r\n\r\n")
    assert said.startswith("HTTP/1.1 404") and "flawsmith.errors" not in said


@pytest.mark.parametrize("name", ["../x", "1-2", "..%2f..%2fx", "1-0.part"])
def test_only_candidates_are_candidates(client: Client, name: str) -> None:
    for end in ("crop", "near"):
        assert client.http.get(f"api/candidate/{quote(name, safe='%')}/{end}").status_code == 404
    assert client.post(f"api/candidate/{quote(name, safe='%')}/accept").status_code == 404


def test_an_upload_that_is_too_large_is_not_read(studio: Studio) -> None:
    origin = f"Host: 127.0.0.1:{studio.port}\r\nOrigin: http://127.0.0.1:{studio.port}"
    head = f"POST /{studio.token}/api/mask?name={quote(GOOD)} HTTP/1.1\r\n{origin}\r\n"
    assert raw(studio, f"{head}Content-Length: {MOST_BYTES + 1}\r\n\r\n").startswith("HTTP/1.1 413")
    assert raw(studio, f"{head}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n").startswith("HTTP/1.1 411")


def bomb() -> bytes:
    """Return a PNG of a few kilobytes that says it has 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "mask"),
        (b"no picture", "not"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not"),
        (bomb(), "900"),
    ],
)
def test_a_broken_upload_is_refused(client: Client, content: bytes, said: str) -> None:
    answer = client.http.post("api/mask", params={"name": GOOD}, content=content)
    assert answer.status_code == 404 and "the mask" in answer.json()["error"], answer.text
    assert "Traceback" not in answer.text and "/tmp" not in answer.text


def test_a_cut_upload_and_one_of_another_size_are_refused(client: Client, tmp_path: Path) -> None:
    mask = np.zeros((96, 96), bool)
    mask[10:30, 20:50] = True
    images.write_mask(tmp_path / "mask.png", mask)
    whole = (tmp_path / "mask.png").read_bytes()
    answer = client.http.post("api/mask", params={"name": GOOD}, content=whole[: len(whole) // 2])
    assert answer.status_code == 404
    images.write_mask(tmp_path / "small.png", mask[:50])
    answer = client.http.post("api/mask", params={"name": GOOD}, content=(tmp_path / "small.png").read_bytes())
    assert "96 x 50" in answer.json()["error"] and "the same" in answer.json()["error"]
    answer = client.http.post("api/mask", params={"name": GOOD}, content=whole)
    assert answer.json()["mask"] == [value for row in range(10, 30) for value in (row * 96 + 20, 30)]


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"photograph": GOOD},
        {"photograph": GOOD, "mask": "all", "defect": "crack", "generator": "patch_synthesis"},
        {"photograph": GOOD, "mask": [1.5, 2], "defect": "crack", "generator": "patch_synthesis"},
        {"photograph": GOOD, "mask": [1, 2], "defect": "crack", "generator": "patch_synthesis", "seed": -1},
        {"photograph": GOOD, "mask": [1, 2], "defect": "crack", "generator": "patch_synthesis", "out": "/etc"},
    ],
)
def test_a_malformed_request_is_one_sentence(client: Client, body: object) -> None:
    answer = client.post("api/paint", body)
    assert answer.status_code == 400 and answer.json()["error"]


def test_another_host_still_wants_token_and_origin(photographs: Path, tmp_path: Path) -> None:
    with serving(Studio(Workspace.open(photographs, tmp_path), host="0.0.0.0")) as wide:
        assert not wide.local and wide.address.endswith(f":{wide.port}/{wide.token}/")
        here = f"http://127.0.0.1:{wide.port}/"
        assert httpx.get(f"{here}{wide.token}/", headers={"host": "plant-7.example"}).status_code == 200
        assert httpx.get(f"{here}{'A' * 32}/").status_code == 403
        assert httpx.get(f"{here}{wide.token}/", headers={"origin": "http://evil.example"}).status_code == 403


def test_the_studio_says_why_it_cannot_start(photographs: Path, tmp_path: Path, studio: Studio) -> None:
    with pytest.raises(DataError, match="there is nothing"):
        Workspace.open(tmp_path / "absent")
    with pytest.raises(DataError):
        Workspace.open(tmp_path)
    with pytest.raises(DataError, match="only read"):
        Workspace.open(photographs, photographs / "painted")
    with pytest.raises(ConfigError, match="choose another --port"):
        Studio(Workspace.open(photographs), port=studio.port)
