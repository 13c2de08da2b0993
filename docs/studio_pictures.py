"""Take the pictures of docs/studio.md anew, from factory parts: `python docs/studio_pictures.py [--keep FOLDER]`.

Goes through the studio in Chromium as its user does: data, a painted mask, a plan, review, a small proof, an export.
Needs the extras `studio` and `browser` and Chromium, as `make test-studio` does, and about ten minutes of two cores.
With `--keep` photographs, run and pictures stay in that folder, and docs/ is left as it is; `--language ko` shows the
page in Korean.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from flawsmith.data import factory
from flawsmith.studio.server import serving
from flawsmith.studio.session import Studio
from flawsmith.studio.workspace import Workspace

DOCS = Path(__file__).resolve().parent
SIDE, PATIENCE = 512, 600_000
LINE = {"magnet": ("chip", "crack", "pores"), "screw": ("chip", "contamination", "rust")}
SETTINGS = {"data.shots": 6, "screen.enabled": True, "screen.rounds": 0, "generate.batch": 8, "measure.enabled": False}
PROOF = {"detectors": '["probe"]', "against": "[]", "curve": "[]", "seeds": "2", "size": "192", "budget": "0.3"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Visit:
    """A way through the page that leaves a picture of each part."""

    def __init__(self, page: Page, out: Path) -> None:
        self.page, self.out = page, out

    def take(self, part: str) -> None:
        """Take a picture: of parts that show photographs as JPEG."""
        self.page.mouse.move(2, 60)
        self.page.wait_for_timeout(800)
        name = f"studio-{part}" + (".jpg" if part in ("data", "paint", "review") else ".png")
        quality: dict[str, Any] = {"type": "jpeg", "quality": 82} if name.endswith(".jpg") else {}
        self.page.screenshot(path=self.out / name, **quality)

    def until(self, true: str) -> None:
        """Wait until an expression is true on the page, whose rules let no script but its own wait for that."""
        ends = time.monotonic() + PATIENCE / 1000
        while not self.page.evaluate(true):
            if time.monotonic() > ends:
                raise SystemExit(f"studio_pictures.py: the page did not come to this: {true}")
            time.sleep(0.1)

    def open(self, part: str) -> None:
        """Show a part."""
        self.page.locator(f"#tab-{part}").click()

    def data(self) -> None:
        """What was understood, of one type."""
        self.page.locator(".ready.good").wait_for(timeout=PATIENCE)
        self.page.locator(".part.data .bar select").select_option("screw\nrust")
        self.take("data")

    def paint(self) -> None:
        """A mask of rust that a proposal drew, seen from near, with four candidates of which one is accepted."""
        page = self.page
        self.open("paint")
        page.locator("[data-label='paint.product']").select_option("screw")
        page.locator(".photos button").nth(2).click()
        page.get_by_text(f"{SIDE} × {SIDE}").wait_for(timeout=PATIENCE)
        page.locator("[data-label='paint.defect']").select_option("rust")
        for _ in range(12):  # until a proposal is neither a speck nor half the part
            page.locator("[data-say='paint.fromShot']").click()
            self.until("!document.querySelector('.panel').hasAttribute('aria-busy')")
            runs = json.loads(page.evaluate("sessionStorage.getItem('flawsmith.drawing')"))["runs"]
            if 1500 < sum(runs[1::2]) < 4500:
                break
        page.locator("[data-say='paint.paint']").click()
        page.locator("button.candidate").nth(3).wait_for(timeout=PATIENCE)
        page.locator("button.candidate").nth(1).click()
        page.locator("[data-say='paint.accept']").click()
        page.locator(".kept img").first.wait_for(timeout=PATIENCE)
        page.wait_for_timeout(6500)  # until the note has gone
        self.take("paint")

    def generate(self) -> None:
        """A plan with a number for each type, half made."""
        page = self.page
        self.open("generate")
        page.locator(".part.generate .cost dl").wait_for(timeout=PATIENCE)
        page.locator(".part.generate .bar select").first.select_option("each")
        for defect in sorted({defect for types in LINE.values() for defect in types}):
            page.locator(f".part.generate input[data-defect={defect}]").first.fill("16" if defect == "chip" else "10")
        page.wait_for_timeout(600)
        page.locator(".part.generate button.main").click()
        page.locator(".step").nth(1).wait_for(timeout=PATIENCE)
        self.until(
            "[...document.querySelectorAll('.part.generate tbody td:last-child')]"
            ".reduce((sum, cell) => sum + Number(cell.textContent), 0) >= 24"
        )
        self.take("generate")
        page.locator(".part.generate .state.done").wait_for(timeout=PATIENCE)

    def review(self) -> None:
        """Samples by a score of the gate, two of them decided."""
        page = self.page
        self.open("review")
        page.locator(".part.review .bar select").nth(2).select_option("score realism.tokens")
        for place, key in ((9, "x"), (12, "k")):
            page.locator(".samples .sample").nth(place).focus()
            page.keyboard.press(key)
        page.locator(".sample.decided").nth(1).wait_for(timeout=PATIENCE)
        page.evaluate("document.activeElement.blur(); document.querySelector('.samples').scrollTop = 0")
        page.wait_for_timeout(6500)
        self.take("review")

    def proof(self) -> None:
        """A small proof."""
        page = self.page
        self.open("proof")
        page.locator(".part.proof summary").last.click()
        for name, value in PROOF.items():
            page.locator(f"#setting-prove-{name}").fill(value)
        page.locator("#setting-prove-mix").uncheck()
        page.locator(".part.proof summary").last.click()
        page.wait_for_timeout(600)
        page.locator(".part.proof button.main").click()
        page.locator(".part.proof .state.done").wait_for(timeout=PATIENCE)
        page.locator(".proven .lead").first.wait_for(timeout=PATIENCE)
        self.take("proof")

    def export(self) -> None:
        """Two formats, and the tree of one."""
        page = self.page
        self.open("export")
        page.locator(".format input[type=checkbox]").first.check()
        page.locator(".format details summary").first.click()
        page.locator("[data-say='export.preview']").click()
        page.locator(".trees details").first.wait_for(timeout=PATIENCE)
        self.take("export")


def visit(work: Path, out: Path, language: str) -> None:
    """Write photographs into a folder and go through the studio with them."""
    os.chdir(work)
    for surface, types in LINE.items():
        factory.write_dataset(Path("line-3"), surface, types, normals=20, per_defect=10, seed=7, size=SIDE)
    studio = Studio(Workspace.open(Path("line-3"), Path("line-3-painted"), SETTINGS))
    with serving(studio), sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        locale = {"ko": "ko-KR"}.get(language, "en-GB")
        page = browser.new_context(
            viewport={"width": 1366, "height": 768}, locale=locale, color_scheme="light"
        ).new_page()
        page.goto(f"{studio.address}#data")
        page.wait_for_selector("html[data-ready=yes]")
        way = Visit(page, out)
        for part in (way.data, way.paint, way.generate, way.review, way.proof, way.export):
            part()
        browser.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--language", choices=("en", "ko"), default="en")
    asked = parser.parse_args()
    if asked.keep:
        asked.keep.mkdir(parents=True, exist_ok=True)
        visit(asked.keep.resolve(), asked.keep.resolve(), asked.language)
    else:
        with tempfile.TemporaryDirectory() as folder:
            visit(Path(folder), DOCS, asked.language)
