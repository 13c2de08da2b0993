"""What is in the wheel and the source archive: all that is needed, nothing else, and small enough to pass on.

`make test-release` builds both into dist/ and runs this.
"""

from __future__ import annotations

import hashlib
import re
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

from flawsmith.version import VERSION

ROOT = Path(__file__).parents[2]
WHEEL = ROOT / "dist" / f"flawsmith-{VERSION}-py3-none-any.whl"
ARCHIVE = ROOT / "dist" / f"flawsmith-{VERSION}.tar.gz"
MOST = 70_000_000
"""Bytes of the wheel, weights included."""
pytestmark = [
    pytest.mark.release,
    pytest.mark.skipif(not (WHEEL.is_file() and ARCHIVE.is_file()), reason="nothing is built: make dist"),
]


@pytest.fixture(scope="module")
def wheel() -> zipfile.ZipFile:
    return zipfile.ZipFile(WHEEL)


def test_the_wheel_is_small_enough() -> None:
    assert 30_000_000 < WHEEL.stat().st_size <= MOST


def test_the_wheel_holds_the_package_as_it_is_here_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    source = ROOT / "src" / "flawsmith"
    here = {
        path.relative_to(ROOT / "src").as_posix(): path
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    held = {name for name in wheel.namelist() if not name.startswith(f"flawsmith-{VERSION}.dist-info/")}
    assert held == set(here)
    for name, path in here.items():
        assert hashlib.sha256(wheel.read(name)).digest() == hashlib.sha256(path.read_bytes()).digest(), name
    for needed in ("studio/page/words.json", "studio/page/index.html", "cli/korean.json", "reporting/templates"):
        assert any(name.startswith(f"flawsmith/{needed}") for name in held), needed
    assert sum(name.endswith(".safetensors") for name in held) >= 7


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    folder = f"flawsmith-{VERSION}.dist-info"
    told = HeaderParser().parsestr(wheel.read(f"{folder}/METADATA").decode("utf-8"))
    assert (told["Name"], told["Version"], told["License-Expression"]) == ("flawsmith", VERSION, "Apache-2.0")
    assert told["Requires-Python"] == ">=3.11"
    for name in ("LICENSE", "docs/licences.md"):
        assert wheel.read(f"{folder}/licenses/{name}") == (ROOT / name).read_bytes()
    assert b"flawsmith = flawsmith.cli:main" in wheel.read(f"{folder}/entry_points.txt")
    assert b"torch>=2.6" in wheel.read(f"{folder}/METADATA")


def test_every_weight_that_is_shipped_has_its_licence(wheel: zipfile.ZipFile) -> None:
    folders = {"/".join(name.split("/")[:3]) for name in wheel.namelist() if name.endswith(".safetensors")}
    page = (ROOT / "docs" / "licences.md").read_text("utf-8")
    for folder in folders:
        card = wheel.read(f"{folder}/README.md").decode("utf-8")
        assert re.search(r"^\*\*Licence\*\* Apache-2\.0", card, re.M), f"{folder}/README.md names no licence"
        assert f"`{folder.removeprefix('flawsmith/')}`" in page, f"docs/licences.md does not name {folder}"


def test_nothing_is_shipped_whose_licence_is_not_named(wheel: zipfile.ZipFile) -> None:
    """Fonts, pictures and libraries of others would need one; there are none."""
    sorts = {name.rpartition(".")[2] for name in wheel.namelist() if name.startswith("flawsmith/")}
    assert sorts <= {"py", "json", "md", "safetensors", "js", "css", "html", "svg", "j2", "jinja", "typed", "txt"}


def test_the_archive_builds_and_documents_itself() -> None:
    with tarfile.open(ARCHIVE) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in (
        *("pyproject.toml", "LICENSE", "README.md", "README.ko.md", "CHANGELOG.md", "CITATION.cff", "mkdocs.yml"),
        *("docs/index.md", "docs/ko/get-started.md", "src/flawsmith/version.py", "tests/test_floors.py"),
    ):
        assert needed in names, needed
    assert not [name for name in names if name.startswith(("dist/", ".venv", "runs/", "benchmarks/results", ".git/"))]
