"""The Paint page in a real browser: mouse, keyboard, both languages, reload, and what must not happen."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

from flawsmith.data import images
from flawsmith.run.painted import painted_pairs
from flawsmith.studio.masks import mask_of
from flawsmith.studio.session import Studio
from flawsmith.studio.workspace import Workspace

from .conftest import HOSTILE, SIZE, serving

pytestmark = pytest.mark.browser
TIMEOUT = 90_000


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as expecting

    return expecting(locator)


def at(page: Any, x: float, y: float) -> tuple[float, float]:
    """Return where on the screen a place of a square picture is, when the whole of it is shown."""
    box = page.locator("canvas").bounding_box()
    scale = min(box["width"], box["height"]) / SIZE * 0.98
    left, top = box["x"] + (box["width"] - SIZE * scale) / 2, box["y"] + (box["height"] - SIZE * scale) / 2
    return left + x * scale, top + y * scale


def drag(page: Any, *places: tuple[float, float], steps: int = 12) -> None:
    page.mouse.move(*at(page, *places[0]))
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*at(page, *place), steps=steps)
    page.mouse.up()


def choose(page: Any, tool: str, size: int = 1) -> None:
    page.get_by_role("button", name=tool, exact=True).click()
    page.get_by_label("Size of brush in px").fill(str(size))


def shown_mask(page: Any) -> np.ndarray:
    """Return the mask that the page keeps for a reload."""
    kept = page.evaluate("JSON.parse(sessionStorage.getItem('flawsmith.drawing'))")
    return mask_of(kept["runs"], (SIZE, SIZE))


def ready(page: Any) -> None:
    expect(page.locator(".status")).to_contain_text("96 × 96")


def make(page: Any) -> None:
    page.get_by_role("button", name="Make 4 candidates").click()
    expect(page.locator("button.candidate")).to_have_count(4, timeout=TIMEOUT)


@pytest.fixture
def page(opened: Any, studio: Studio) -> Any:
    tab = opened(studio, part="paint")
    ready(tab)
    return tab


def test_a_mask_drawn_with_the_mouse_arrives_pixel_for_pixel(page: Any, studio: Studio) -> None:
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    expected = np.zeros((SIZE, SIZE), bool)
    choose(page, "Brush", 5)
    page.mouse.click(*at(page, 20.5, 30.5))
    expected |= np.hypot(columns - 20.5, rows - 30.5) <= 2.5
    choose(page, "Brush", 6)
    page.mouse.click(*at(page, 60.2, 20.1))
    expected |= np.hypot(columns - 60, rows - 20) <= 3
    choose(page, "Line", 1)
    drag(page, (10.5, 60.5), (40.5, 60.5))
    expected[60, 10:41] = True
    choose(page, "Polygon")
    for place in ((50.5, 50.5), (80.5, 50.5), (80.5, 75.5)):
        page.mouse.click(*at(page, *place))
    page.locator("canvas").press("Enter")
    expected |= (columns >= 50.5) & (columns <= 80.5) & (rows >= 50.5) & ((rows - 50.5) * 30 <= (columns - 50.5) * 25)
    choose(page, "Eraser", 3)
    drag(page, (20.5, 30.5), (20.5, 60.5))
    expected &= ~((abs(columns - 20.5) <= 1) & (rows >= 29) & (rows <= 62))
    drawn = shown_mask(page)
    # The polygon's slanted side and its one-pixel outline: at most a pixel beside the ideal line.
    slanted = abs((rows - 50.5) * 30 - (columns - 50.5) * 25) / np.hypot(30, 25) <= 1
    assert (drawn == expected)[~slanted].all(), np.argwhere(drawn != expected)
    expect(page.locator(".status")).to_contain_text(f"mask {drawn.sum()} px")
    page.get_by_label("Defect type").select_option("crack")
    make(page)
    page.get_by_role("button", name="Candidate 2").click()
    before = {pair.name for pair in painted_pairs(studio.workspace.painted)}
    page.get_by_role("button", name="Accept").click()
    expect(page.get_by_text("Saved as")).to_be_visible()
    (pair,) = [one for one in painted_pairs(studio.workspace.painted) if one.name not in before]
    picture = images.read(pair.image)
    saved = images.read_mask(pair.image.with_suffix(".drawn.mask.png"), picture.shape)
    assert (saved == drawn).all()
    photograph, label = images.read(Path(pair.photograph)), images.read_mask(pair.mask, picture.shape)
    assert (label <= drawn).all() and not images.differs(picture, photograph)[~label].any()


def test_steps_are_undone_and_done_again(page: Any) -> None:
    choose(page, "Brush", 3)
    page.mouse.click(*at(page, 20, 20))
    first = shown_mask(page)
    drag(page, (10, 20), (70, 60))
    second = shown_mask(page)
    choose(page, "Eraser", 9)
    drag(page, (10, 60), (70, 20))
    third = shown_mask(page)
    assert first.sum() < second.sum() > third.sum()
    for wanted in (second, first):
        page.keyboard.press("Control+z")
        assert (shown_mask(page) == wanted).all()
    page.keyboard.press("Control+z")
    assert not shown_mask(page).any()
    for wanted in (first, second, third):
        page.keyboard.press("Control+y")
        assert (shown_mask(page) == wanted).all()
    page.get_by_role("button", name="Clear the mask").click()
    assert not shown_mask(page).any()
    page.keyboard.press("Control+z")
    assert (shown_mask(page) == third).all()


def test_all_of_it_goes_from_the_keyboard(page: Any, studio: Studio) -> None:
    count = len(painted_pairs(studio.workspace.painted))
    page.locator("canvas").focus()
    page.keyboard.press("b")
    for _ in range(4):
        page.keyboard.press("]")
    page.keyboard.press("Shift+ArrowLeft")
    for _ in range(8):
        page.keyboard.press("Space")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
    mask = shown_mask(page)
    assert mask.any() and abs(np.argwhere(mask).mean(axis=0) - (48, 46)).max() < 4
    page.keyboard.press("Enter")
    expect(page.locator("button.candidate")).to_have_count(4, timeout=TIMEOUT)
    for key in ("2", "v", "v", "a"):
        page.keyboard.press(key)
    expect(page.get_by_text("Saved as")).to_be_visible()
    assert len(painted_pairs(studio.workspace.painted)) == count + 1
    page.keyboard.press("x")
    expect(page.locator("button.candidate")).to_have_count(0)


def test_a_reload_loses_nothing(page: Any) -> None:
    page.get_by_label("Defect type").select_option("crack")
    choose(page, "Brush", 7)
    drag(page, (20, 20), (70, 30), (40, 70))
    drawn = shown_mask(page)
    page.reload()
    ready(page)
    expect(page.locator(".status")).to_contain_text(f"mask {drawn.sum()} px")
    assert (shown_mask(page) == drawn).all()
    expect(page.get_by_label("Defect type")).to_have_value("crack")


@pytest.mark.parametrize("button", ["From a real defect", "New shape"])
def test_a_proposed_mask_is_taken(page: Any, button: str) -> None:
    page.get_by_role("button", name=button).click()
    expect(page.locator(".note")).to_be_visible(timeout=TIMEOUT)
    expect(page.locator(".note.error")).to_have_count(0)
    assert shown_mask(page).any()


def test_a_sentence_proposes_in_korean_and_nonsense_is_said(page: Any) -> None:
    page.get_by_label("Language").select_option("ko")
    expect(page.get_by_role("button", name="후보 4개 만들기")).to_be_visible()
    assert page.locator("html").get_attribute("lang") == "ko"
    page.locator(".sentence input").fill("오른쪽 아래에 균열")
    page.locator(".sentence button").click()
    expect(page.locator(".note")).to_be_visible(timeout=TIMEOUT)
    ys, xs = np.nonzero(shown_mask(page))
    assert ys.mean() > SIZE / 2 and xs.mean() > SIZE / 2
    page.locator(".sentence input").fill("보라색 코끼리")
    page.locator(".sentence button").click()
    expect(page.locator(".note.error")).to_be_visible(timeout=TIMEOUT)
    page.reload()  # the language is kept
    expect(page.get_by_role("button", name="후보 4개 만들기")).to_be_visible()


def test_a_mask_file_is_taken_and_a_broken_one_is_said(page: Any, tmp_path: Path) -> None:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[12:30, 40:55] = True
    images.write_mask(tmp_path / "mine.png", mask)
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    expect(page.locator(".status")).to_contain_text(f"mask {mask.sum()} px")
    assert (shown_mask(page) == mask).all()
    (tmp_path / "broken.png").write_bytes(b"\x89PNG no")
    page.locator("input[type=file]").set_input_files(tmp_path / "broken.png")
    expect(page.locator(".note.error")).to_contain_text("the mask")
    assert (shown_mask(page) == mask).all()


def test_a_killed_worker_is_said_and_the_next_try_works(page: Any, studio: Studio) -> None:
    drag(page, (20, 20), (70, 60))
    make(page)
    worker = studio.painting.worker
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)  # so that the job is under way for sure
    page.get_by_role("button", name="Make 4 candidates").click()
    expect(page.get_by_role("button", name="Cancel", exact=True)).to_be_visible()
    os.kill(worker, signal.SIGKILL)
    expect(page.locator(".note.error")).to_contain_text("SIGKILL", timeout=TIMEOUT)
    make(page)
    assert studio.painting.worker not in (None, worker)


def test_the_page_answers_while_the_worker_does_not(page: Any, studio: Studio) -> None:
    drag(page, (20, 20), (70, 60))
    make(page)
    worker = studio.painting.worker
    assert worker is not None
    os.kill(worker, signal.SIGSTOP)
    try:
        page.get_by_role("button", name="Make 4 candidates").click()
        before = shown_mask(page).sum()
        drag(page, (20, 70), (70, 80))
        assert shown_mask(page).sum() > before
        page.locator(".photo").nth(1).click()
        expect(page.locator(".status")).to_contain_text("001.png")
        page.locator(".photo").nth(0).click()  # the mask of each photograph is kept
        expect(page.locator(".status")).to_contain_text("000.png")
        assert shown_mask(page).sum() > before
        page.get_by_role("button", name="Cancel", exact=True).click()
        expect(page.get_by_text("Cancelled.")).to_be_visible(timeout=TIMEOUT)
    finally:
        os.kill(worker, signal.SIGCONT)


def test_every_control_has_a_name(page: Any) -> None:
    drag(page, (20, 20), (70, 60))
    make(page)
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, canvas, [role=group], nav')]
        .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.labels?.length || one.type === 'file'))
        .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_16_bits_have_a_window(page: Any) -> None:
    page.get_by_label("Product").select_option("magnet")
    expect(page.locator(".status")).to_contain_text("8 bits")
    expect(page.get_by_label("Black")).to_be_hidden()
    page.get_by_label("Product").select_option("deep")
    expect(page.locator(".status")).to_contain_text("16 bits")
    with page.expect_response(lambda answer: "low=1000" in answer.url and "tile" in answer.url):
        page.get_by_label("Black").fill("1000")
    page.get_by_role("button", name="Fit to this picture").click()
    expect(page.locator(".window output")).not_to_contain_text("1000 –")


@pytest.fixture
def hostile(photographs: Path, tmp_path: Path) -> Iterator[Studio]:
    """A set whose product, type and files are called like HTML that does harm."""
    root = tmp_path / "set"
    product = root / HOSTILE.replace("/", "")
    (product / "ground_truth").mkdir(parents=True)
    for folder in ("train/good", "test/crack", "ground_truth/crack"):
        source = photographs / "magnet" / folder
        target = product / folder.replace("crack", HOSTILE)
        target.mkdir(parents=True)
        for path in source.iterdir():
            (target / path.name).write_bytes(path.read_bytes())
    (product / "train/good/000.png").rename(product / f"train/good/0 {HOSTILE}.png")
    with serving(Studio(Workspace.open(root))) as started:
        yield started


def test_names_are_never_html(opened: Any, hostile: Studio) -> None:
    tab = opened(hostile, part="paint")
    ready(tab)
    expect(tab.locator(".status")).to_contain_text(HOSTILE)
    drag(tab, (20, 20), (70, 60))
    make(tab)
    tab.get_by_role("button", name="Accept").click()
    expect(tab.get_by_text("Saved as")).to_be_visible()
    assert tab.locator("img[onerror], [src=x]").count() == 0  # `opened` fails on any dialog
    (pair,) = painted_pairs(hostile.workspace.painted)
    assert pair.defect == HOSTILE and pair.image.resolve().is_relative_to(hostile.workspace.painted.resolve())


def test_a_picture_of_48_million_pixels(opened: Any, photographs: Path, tmp_path: Path) -> None:
    product = tmp_path / "set" / "magnet"
    for folder in ("test/crack", "ground_truth/crack"):
        (product / folder).mkdir(parents=True)
        for path in (photographs / "magnet" / folder).iterdir():
            (product / folder / path.name).write_bytes(path.read_bytes())
    small = images.read(photographs / "magnet/train/good/000.png")
    images.write(product / "train/good/000.png", np.tile(small, (42, 125, 1))[:4000, :12000])
    with serving(Studio(Workspace.open(tmp_path / "set"))) as started:
        tab = opened(started, part="paint")
        expect(tab.locator(".status")).to_contain_text("12000 × 4000", timeout=TIMEOUT)
        box = tab.locator("canvas").bounding_box()
        tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        for _ in range(12):
            tab.mouse.wheel(0, -300)
        choose(tab, "Brush", 12)
        middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(*middle)
        tab.mouse.down()
        tab.mouse.move(middle[0] + 120, middle[1] + 40, steps=10)
        tab.mouse.up()
        make(tab)
        tab.get_by_role("button", name="Accept").click()
        expect(tab.get_by_text("Saved as")).to_be_visible(timeout=TIMEOUT)
        (pair,) = painted_pairs(started.workspace.painted)
        picture, photograph = images.read(pair.image), images.read(Path(pair.photograph))
        label = images.read_mask(pair.mask, picture.shape)
        assert label.any() and not images.differs(picture, photograph)[~label].any()
