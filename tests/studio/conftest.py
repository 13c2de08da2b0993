"""A studio as its users have one: a set of factory photographs, a server on a port, a worker process, a browser.

Where the extra or Chromium is absent all of it is skipped, with the reason and the count in pytest's summary.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flawsmith.data import factory, images

try:
    import httpx

    from flawsmith.studio.server import serving
    from flawsmith.studio.session import Studio
    from flawsmith.studio.workspace import Workspace
except ModuleNotFoundError:  # each file of tests says so
    pass

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SIZE = 96
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two products: 8 bits in colour, and 16 bits with a camera's 12."""
    root = tmp_path_factory.mktemp("set") / "photographs"
    factory.write_dataset(root, "magnet", ["crack", "chip"], normals=4, per_defect=4, seed=3, size=SIZE)
    for path in (root / "magnet").rglob("*.png"):
        deep = root / "deep" / path.relative_to(root / "magnet")
        pixels = images.read(path)
        if "ground_truth" in path.parts:
            deep.parent.mkdir(parents=True, exist_ok=True)
            deep.write_bytes(path.read_bytes())
        else:
            grey = pixels.mean(axis=2) if pixels.ndim == 3 else pixels
            images.write(deep, np.rint(grey * 4095 / 255).astype(np.uint16))
    return root


class Client:
    """Asks as the page does: under its address, with its origin."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio
        origin = f"http://127.0.0.1:{studio.port}"
        self.http = httpx.Client(base_url=studio.address, headers={"origin": origin}, timeout=60)

    def close(self) -> None:
        self.http.close()

    def get(self, path: str, **query: Any) -> Any:
        return self.http.get(path, params=query)

    def post(self, path: str, body: Any = None, **query: Any) -> Any:
        return self.http.post(path, json=body if body is not None else {}, params=query)

    def finished(self, started: Any) -> dict[str, Any]:
        """Wait for the job of an answer."""
        assert started.status_code == 200, started.text
        return self.until(started.json()["job"], lambda job: job["state"] not in ("waiting", "running"))

    def until(self, number: int, wanted: Any) -> dict[str, Any]:
        for _ in range(6000):
            job = self.get(f"api/job/{number}").json()
            if wanted(job):
                return job
            time.sleep(0.02)
        raise AssertionError(f"job {number} came to no end: {job}")


@pytest.fixture(scope="module")
def studio(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    painted = tmp_path_factory.mktemp("painted")
    with serving(Studio(Workspace.open(photographs, painted))) as started:
        yield started


@pytest.fixture
def client(studio: Studio) -> Iterator[Client]:
    asking = Client(studio)
    yield asking
    asking.http.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser's tests need playwright")
    if CHROMIUM is None:
        pytest.skip("the browser's tests need Chromium: apt install chromium")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def opened(browser: Any) -> Iterator[Any]:
    """Return a function that opens a studio in a tab, on a part if one is named; what the page complains of fails."""
    problems: list[str] = []
    contexts = []

    def open_(studio: Studio, context: Any = None, part: str = "", **options: Any) -> Any:
        if context is None:
            context = browser.new_context(viewport={"width": 1366, "height": 768}, locale="en-GB", **options)
            contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: (problems.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.goto(f"{studio.address}#{part}" if part else studio.address)
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not problems
