"""The whole path in a real browser: from a folder of photographs that nobody has set up to an exported COCO set."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

from flawsmith.data import factory, images
from flawsmith.data.annotations import run_lengths
from flawsmith.files import read_json
from flawsmith.run.folder import Run
from flawsmith.run.painted import painted_pairs
from flawsmith.studio.session import Studio
from flawsmith.studio.workspace import Workspace

from .conftest import SIZE, serving
from .test_paint_page import choose, drag, expect, ready, shown_mask

pytestmark = pytest.mark.browser
TIMEOUT = 240_000
NAMELESS = """() => [...document.querySelectorAll("button, input, textarea, a, [role=img], summary, [tabindex='0']")]
  .filter((one) => one.offsetParent !== null || one.getClientRects().length)
  .filter((one) => !(one.getAttribute("aria-label") || "").trim() && !one.textContent.trim() && !one.title.trim()
    && ![...(one.labels || [])].some((label) => label.textContent.trim()))
  .map((one) => one.outerHTML.slice(0, 200))"""
"""Controls in sight that say nothing to somebody who cannot see them. A select's options are no name."""
UNNAMED_SELECTS = """() => [...document.querySelectorAll("select")].filter((one) => one.getClientRects().length)
  .filter((one) => !one.getAttribute("aria-label") && !one.labels.length).map((one) => one.outerHTML.slice(0, 200))"""


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Studio]:
    """A studio as `flawsmith studio --root FOLDER` starts it: nothing is open."""
    root = tmp_path / "plant"
    factory.write_dataset(root / "photographs", "magnet", ["crack", "chip"], normals=5, per_defect=6, seed=3, size=SIZE)
    with serving(Studio(Workspace.nothing(root), root=root)) as studio:
        yield studio


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()


def onward(page: Any, sentence: str, name: str) -> None:
    """Follow the button below the sentence that says what comes next."""
    expect(page.locator("#onward p")).to_contain_text(sentence, timeout=TIMEOUT)
    page.locator("#onward").get_by_role("button", name=name).click()
    expect(page.get_by_role("tab", selected=True)).to_have_text(name)


def test_from_a_folder_of_photographs_to_an_exported_set(opened: Any, plant: Studio) -> None:
    page = opened(plant)
    # Nothing is open: a folder is chosen.
    dialog = page.get_by_role("dialog")
    expect(dialog).to_be_visible()
    dialog.get_by_role("button", name="photographs").click()
    expect(dialog.locator(".path")).to_contain_text("/photographs")
    dialog.get_by_role("button", name="Open this folder").click()
    expect(page.locator(".ready")).to_contain_text("Ready", timeout=TIMEOUT)
    # A mask is drawn with the mouse, outlives a reload, and is painted into.
    expect(page.get_by_role("tab", name="Review")).to_be_disabled()  # there is nothing to review yet, and it says so
    assert "first make some" in page.get_by_role("tab", name="Review").get_attribute("title")
    onward(page, "Next: say how many samples to make", "Paint")
    ready(page)
    choose(page, "Brush", 7)
    drag(page, (20.5, 30.5), (50.5, 44.5), (70.5, 40.5))
    drawn = shown_mask(page)
    assert drawn.sum() > 200
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    ready(page)
    assert (shown_mask(page) == drawn).all()
    page.get_by_label("Defect type").locator("visible=true").select_option("crack")
    page.get_by_role("button", name="Make 4 candidates").click()
    expect(page.locator("button.candidate").first).to_be_visible(timeout=TIMEOUT)
    expect(page.locator(".four > *")).to_have_count(4, timeout=TIMEOUT)
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_text("Saved as")).to_be_visible(timeout=TIMEOUT)
    # In Korean: many are made, the process is killed, the page is loaded anew, and it goes on.
    page.get_by_label("Language").select_option("ko")
    onward(page, "직접 채택: 1개", "생성")
    expect(page.locator(".part.generate .cost")).to_contain_text("생성", timeout=TIMEOUT)
    expect(page.locator(".part.generate tbody tr")).to_have_count(2, timeout=TIMEOUT)
    page.get_by_label("개수 정하기").select_option(label="유형마다 따로 지정")
    page.get_by_label("magnet의 crack 샘플 개수").fill("9")
    page.get_by_label("magnet의 chip 샘플 개수").fill("12")
    expect(page.locator(".total")).to_contain_text("만들 개수 21")
    page.get_by_text("추가 설정").click()
    page.get_by_label("batch", exact=True).first.fill("4")
    page.get_by_label("실행 폴더", exact=True).fill("first-run")
    page.get_by_role("button", name="만들기 시작").click()
    expect(page.locator(".state.running")).to_be_visible(timeout=TIMEOUT)
    expect(page.locator(".step", has_text="샘플 생성")).to_contain_text("초당", timeout=TIMEOUT)
    assert plant.commands.last is not None
    os.kill(plant.commands.last.process, signal.SIGKILL)
    expect(page.locator(".state.lost")).to_contain_text("다시 시작하면 이어서 만듭니다", timeout=TIMEOUT)
    page.get_by_role("button", name="이어서 만들기").click()
    expect(page.locator(".state.running")).to_be_visible(timeout=TIMEOUT)
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    expect(page.locator(".state.done")).to_contain_text("끝났습니다", timeout=TIMEOUT)
    run = Run.open(plant.workspace.runs / "first-run")
    assert len([sample for sample in run.samples() if sample.made]) == 21
    assert '<html lang="ko">' in run.path("report.html").read_text("utf-8")  # the command spoke as the page did
    # One of them is rejected.
    onward(page, "샘플 21개를 만들었고", "검토")
    page.locator(".samples .sample").first.focus()
    page.keyboard.press("x")
    expect(page.locator(".sample.decided.fails")).to_have_count(1)
    # And in English they are exported.
    page.get_by_label("언어").select_option("en")
    onward(page, "20 of 21 samples are kept", "Proof")
    onward(page, "export the 20 kept samples", "Export")
    page.get_by_role("checkbox", name="mvtec MVTec AD's folder").uncheck()
    page.get_by_label("coco").check()
    command = page.locator(".part.export .command")
    expect(command).to_contain_text("coco")
    page.get_by_role("button", name="Preview the tree").click()
    expect(page.locator(".part.export .tree").first).to_contain_text("instances_train.json", timeout=TIMEOUT)
    expect(page.locator(".part.export .trees td.number").first).to_be_visible()
    expect(page.locator(".part.export").get_by_text("rejected stay out: 1.")).to_be_visible()
    typed = command.text_content()
    page.locator(".part.export").get_by_role("button", name="Export", exact=True).click()
    expect(page.locator(".part.export .state.done")).to_be_visible(timeout=TIMEOUT)
    expect(page.locator(".part.export").get_by_text("The files lie in")).to_be_visible(timeout=TIMEOUT)
    every_control_has_a_name(page)
    exported(run, drawn, typed)


def every_control_has_a_name(page: Any) -> None:
    for language in ("ko", "en"):
        page.get_by_label("Language" if language == "ko" else "언어").select_option(language)
        for number in range(page.get_by_role("tab").count()):
            page.get_by_role("tab").nth(number).click()
            page.wait_for_timeout(300)
            page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            assert page.evaluate(NAMELESS) == [] and page.evaluate(UNNAMED_SELECTS) == []


def exported(run: Run, drawn: np.ndarray, typed: str) -> None:
    """What was exported is what stands: samples without the rejected one, the painted pair, the normal parts."""
    folder = run.path("export", "coco")
    pictures: dict[str, np.ndarray] = {}
    for side in ("train", "val"):
        tree = read_json(folder / "annotations" / f"instances_{side}.json")
        names = {image["id"]: image["file_name"] for image in tree["images"]}
        assert set(names.values()) == {path.name for path in (folder / "images" / side).iterdir()}
        for annotation in tree["annotations"]:
            counts = annotation["segmentation"]["counts"]
            pictures[f"{side}/{names[annotation['image_id']]}"] = run_lengths.mask_of(
                run_lengths.decompressed(counts), (SIZE, SIZE)
            )
    assert len(pictures) == 20 + 1
    (pair,) = painted_pairs(run.path("painted"))
    label = images.read_mask(pair.mask, (SIZE, SIZE))
    assert (label <= drawn).all() and label.any()
    (mine,) = [name for name, mask in pictures.items() if (mask == label).all()]
    picture = images.read(folder / "images" / mine)
    assert (picture == images.read(pair.image)).all()
    photograph = images.read(Path(pair.photograph))
    assert not images.differs(picture, photograph)[~label].any()
    # The command that the page names does the same.
    before = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    program, *words = shlex.split(typed)
    assert program == "flawsmith"
    subprocess.run([sys.executable, "-m", program, *words], check=True, timeout=240)
    assert {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()} == before
