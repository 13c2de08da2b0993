"""The Review and Data pages: 5,000 samples in a real browser, decisions that are not lost, what `check` found."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="the studio needs fastapi and uvicorn: pip install flawsmith[studio]")
pytest.importorskip("httpx", reason="the studio's tests need httpx")

from flawsmith.config import load_config
from flawsmith.data import images
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.records import MADE, Reason, Sample, Verdict, append_records, write_records
from flawsmith.run.review import FILE
from flawsmith.studio.masks import mask_of, runs_of
from flawsmith.studio.session import Studio
from flawsmith.studio.workspace import Workspace

from .conftest import HOSTILE, SIZE, Client, serving

MANY = 5000
TIMEOUT = 90_000


def suite() -> ModuleType:
    """Return the piece of the benchmarks that scrolls the page."""
    place = Path(__file__).parents[2] / "benchmarks" / "suites" / "scrolling.py"
    spec = importlib.util.spec_from_file_location("scrolling", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def expect(locator: Any) -> Any:
    from playwright.sync_api import expect as expecting

    return expecting(locator)


def write_run(folder: Path, photographs: Path, count: int, **settings: Any) -> Run:
    """Write a screened run of `count` samples, of which every third was rejected; `settings` by section and name."""
    plain = {"data.root": str(photographs), "prove.enabled": False, "export.formats": ["mvtec"]}
    config = load_config(None, plain | {name.replace("_", ".", 1): value for name, value in settings.items()})
    run = Run.create(folder, config)
    normal = next(one for one in open_dataset(run).split.normals if one.product == "magnet")
    photograph, mask = images.read(normal.image), np.zeros((SIZE, SIZE), bool)
    mask[20:40, 30:70] = True
    picture = photograph.copy()
    picture[mask] //= 2
    images.write(run.path("samples/000000.png"), picture)
    images.write_mask(run.path("samples/000000.mask.png"), mask)
    first = Sample(
        index=0,
        role="sample",
        status=MADE,
        generator="perlin",
        product="magnet",
        defect="crack",
        normal=normal.id,
        shot="",
        seed=0,
        attempt=0,
        paint="replace",
        windows=(),
        painted_share=1.0,
        area=int(mask.sum()),
        image="samples/000000.png",
        mask="samples/000000.mask.png",
    )
    samples = [replace(first, index=number, defect="crack" if number % 2 else "chip") for number in range(count)]
    for number in range(1, count):
        files = {name: f"samples/{number:06d}{suffix}" for name, suffix in (("image", ".png"), ("mask", ".mask.png"))}
        for name, file in files.items():
            run.path(file).hardlink_to(run.path(getattr(first, name)))
        samples[number] = replace(samples[number], **files)
    verdicts = []
    for sample in samples:
        score = float(np.sin(sample.index))
        reasons = () if sample.index % 3 else (Reason("seam", f"its border shows {HOSTILE}"),)
        scores = {"seam": score, "realism": None if sample.index == 7 else -score}
        name = f"{sample.index:06d}"
        verdicts.append(Verdict(name, "magnet", sample.defect, not reasons, reasons, scores, {"seam": 0.0}))
    append_records(run.path("samples.jsonl"), samples)
    write_records(run.path("scores.jsonl"), verdicts)
    for stage in ("generate", "screen"):
        run.finish(stage, stage, {"settings": {}, "content": {}})
    return run


@pytest.fixture(scope="module")
def many(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    run = write_run(tmp_path_factory.mktemp("many") / "run", photographs, MANY)
    with serving(Studio(Workspace.open(run.folder))) as started:
        yield started


@pytest.fixture
def few(photographs: Path, tmp_path: Path) -> Iterator[Studio]:
    run = write_run(tmp_path / "run", photographs, 12)
    with serving(Studio(Workspace.open(run.folder))) as started:
        yield started


def lines(studio: Studio) -> list[dict[str, Any]]:
    assert studio.workspace.run is not None
    path = studio.workspace.run.path(FILE)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_decisions_over_http(few: Studio) -> None:
    client = Client(few)
    rows = {row["index"]: row for row in client.get("api/samples").json()["samples"]}
    assert [rows[0]["kept"], rows[1]["kept"]] == [False, True] and HOSTILE in rows[0]["reasons"][0]["text"]
    assert client.post("api/review", {"sample": 1, "word": "reject"}).status_code == 200
    answer = client.post("api/review", {"sample": 0, "word": "keep", "defect": "crack"}).json()
    assert answer["reviews"] == {
        "0": {"word": "keep", "defect": "crack", "mask": ""},
        "1": {"word": "reject", "defect": "", "mask": ""},
    }
    assert client.get("api/reviews", since=answer["version"]).json() == {"version": answer["version"]}
    run = few.workspace.run
    assert run is not None and [one.index for one in run.kept()] == [0, 2, 4, 5, 7, 8, 10, 11]
    assert run.kept()[0].defect == "crack"
    for wrong, status in (
        ({"sample": 99, "word": "keep"}, 404),
        ({"sample": 1, "word": "perhaps"}, 400),
        ({"sample": 1, "word": "keep", "defect": "rust"}, 400),
        ({"sample": "1", "word": "keep"}, 400),
        ({"sample": -1, "word": "keep"}, 400),
    ):
        answer = client.post("api/review", wrong)
        assert answer.status_code == status and answer.json()["error"], wrong
    assert len(lines(few)) == 2
    for query in ({}, {"before": True}, {"whole": True, "outline": False}):
        assert client.get("api/sample/1", **query).content.startswith(b"\xff\xd8")
    assert client.get("api/sample/99").status_code == 404
    shutil.rmtree(run.path("samples"))
    assert client.get("api/sample/1").status_code == 404
    client.http.close()


def test_a_mask_is_redrawn_over_http(few: Studio) -> None:
    client, run = Client(few), few.workspace.run
    assert run is not None
    facts = client.get("api/sample/2/facts").json()
    assert mask_of(facts["mask"], (SIZE, SIZE))[20:40, 30:70].all()
    assert client.get("api/sample/2/tile", level=0, column=0, row=0).content.startswith(b"\x89PNG")
    assert client.post("api/review", {"sample": 2, "word": "keep", "defect": "crack"}).status_code == 200
    mask = np.zeros((SIZE, SIZE), bool)
    mask[25:30, 35:60] = True
    answer = client.post("api/sample/2/mask", {"mask": runs_of(mask)}).json()
    assert answer["reviews"]["2"]["word"] == "keep" and answer["reviews"]["2"]["mask"].startswith("reviewed/000002-")
    stands = next(sample for sample in run.kept() if sample.index == 2)
    assert (images.read_mask(run.path(stands.mask), (SIZE, SIZE)) == mask).all() and stands.defect == "crack"
    picture = images.read(run.path(stands.image))
    assert not images.differs(picture, images.read(few.workspace.example(stands.normal).image))[~mask].any()
    answer = client.post("api/review", {"sample": 2, "word": "reject"}).json()  # another decision keeps the mask
    assert answer["reviews"]["2"]["mask"]
    answer = client.post("api/review", {"sample": 2, "word": "", "mask": "its own"}).json()
    assert "2" not in answer["reviews"]
    for wrong in ([], [0, SIZE * SIZE + 1], [5]):
        assert client.post("api/sample/2/mask", {"mask": wrong}).status_code == 404
    assert client.post("api/sample/99/mask", {"mask": [0, 1]}).status_code == 404
    client.http.close()


def test_a_folder_has_no_review(client: Client) -> None:
    assert client.get("api/samples").status_code == 404


@pytest.mark.browser
def test_5000_samples_scroll(opened: Any, many: Studio) -> None:
    page = opened(many)
    page.get_by_role("tab", name="Review").click()
    expect(page.locator(".bar output")).to_contain_text(f"{MANY} shown")
    figures = suite().scroll(page, 60)
    assert figures["most_cells"] < 120 and figures["longest_frame_milliseconds"] < 1000, figures
    expect(page.locator(".samples .cell").last).to_contain_text(str(MANY - 1))
    page.get_by_label("Sort by").select_option("score seam")
    first = page.locator(".samples .cell .name").first
    lowest = min(range(MANY), key=lambda number: np.sin(number))
    expect(first).to_contain_text(f"{lowest} ·")
    page.get_by_label("Sort by").select_option("score realism")
    page.get_by_label("Largest first").check()
    expect(first).to_contain_text(f"{lowest} ·")
    page.locator(".samples .cell button").first.focus()
    page.keyboard.press("End")
    expect(page.locator(".samples .cell button:focus")).to_contain_text("7 ·")  # without a score: last, either way
    page.get_by_label("Show", exact=True).select_option("fails")
    expect(page.locator(".bar output")).to_contain_text(f"{-(-MANY // 3)} shown")


@pytest.mark.browser
def test_decisions_outlive_a_reload_and_meet_in_two_tabs(opened: Any, few: Studio) -> None:
    one = opened(few)
    two = opened(few, one.context)
    for page in (one, two):
        page.get_by_role("tab", name="Review").click()
        expect(page.locator(".bar output")).to_contain_text("12 shown · 8 of 12 kept")
    one.bring_to_front()
    one.locator(".sample").nth(1).focus()
    one.keyboard.press("x")  # and goes on to the next
    expect(one.locator(".sample").nth(2)).to_be_focused()
    one.keyboard.press("ArrowRight")
    one.keyboard.press("k")
    expect(one.locator(".bar output")).to_contain_text("8 of 12 kept · 2 decided")
    two.bring_to_front()
    expect(two.locator(".bar output")).to_contain_text("2 decided", timeout=20_000)
    two.locator(".sample").nth(4).click()
    dialog = two.locator("dialog.sheet-of")
    expect(dialog).to_contain_text("4 · chip · kept by the screen")
    dialog.get_by_label("Defect type").select_option("crack")
    expect(dialog).to_contain_text("4 · crack · kept by the screen")
    two.keyboard.press("Escape")
    one.reload()
    expect(one.locator(".bar output")).to_contain_text("8 of 12 kept · 3 decided")
    expect(one.locator(".sample").nth(4)).to_contain_text("crack")
    run = few.workspace.run
    assert run is not None and [sample.index for sample in run.kept()] == [2, 3, 4, 5, 7, 8, 10, 11]
    assert [(line["sample"], line["word"]) for line in lines(few)] == [(1, "reject"), (3, "keep"), (4, "")]


@pytest.mark.browser
def test_a_sample_is_judged_large_from_the_keyboard(opened: Any, few: Studio) -> None:
    page = opened(few)
    page.get_by_role("tab", name="Review").click()
    page.locator(".sample").first.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("dialog.sheet-of")
    expect(dialog).to_contain_text("its border shows")
    expect(dialog).to_contain_text(HOSTILE)
    assert page.locator("[onerror]").count() == 0
    for key in ("v", "o", "k", "x", "ArrowLeft", "u"):
        page.keyboard.press(key)
    expect(dialog).to_contain_text("1 · crack · kept by the screen")
    page.keyboard.press("Escape")
    expect(page.locator(".bar output")).to_contain_text("9 of 12 kept · 1 decided")


@pytest.mark.browser
def test_a_mask_is_redrawn_with_the_mouse(opened: Any, few: Studio) -> None:
    page = opened(few)
    page.get_by_role("tab", name="Review").click()
    page.locator(".sample").nth(2).click()
    dialog = page.locator("dialog.sheet-of")
    before = dialog.locator("img").get_attribute("src")
    dialog.get_by_role("button", name="Redraw the mask").click()
    save = dialog.get_by_role("button", name="Save this mask")
    expect(save).to_be_disabled()  # nothing was drawn yet
    dialog.get_by_role("button", name="Eraser").click()
    dialog.get_by_role("button", name="Whole picture").click()
    dialog.get_by_label("Size of brush in px").fill("60")
    box = dialog.locator("canvas").bounding_box()
    scale = min(box["width"], box["height"]) / SIZE * 0.98
    left, top = box["x"] + (box["width"] - SIZE * scale) / 2, box["y"] + (box["height"] - SIZE * scale) / 2
    page.wait_for_timeout(300)
    page.mouse.click(left + 30 * scale, top + 30 * scale)
    expect(save).to_be_enabled()
    save.click()
    expect(dialog.get_by_role("button", name="Its own mask again")).to_be_visible()
    assert dialog.locator("img").get_attribute("src") != before
    run = few.workspace.run
    assert run is not None
    stands = next(sample for sample in run.kept() if sample.index == 2)
    rows, columns = np.mgrid[:SIZE, :SIZE] + 0.5
    expected = np.zeros((SIZE, SIZE), bool)
    expected[20:40, 30:70] = True
    expected &= np.hypot(columns - 30, rows - 30) > 30
    assert (images.read_mask(run.path(stands.mask), (SIZE, SIZE)) == expected).all()
    page.keyboard.press("e")
    page.keyboard.press("Escape")  # gives up the drawing, not the sample
    expect(dialog.get_by_role("button", name="Its own mask again")).to_be_visible()
    dialog.get_by_role("button", name="Its own mask again").click()
    expect(dialog.get_by_role("button", name="Its own mask again")).to_be_hidden()
    assert next(sample for sample in run.kept() if sample.index == 2).image.startswith("samples/")


@pytest.mark.browser
def test_what_check_understood(opened: Any, few: Studio) -> None:
    page = opened(few)
    page.get_by_role("tab", name="Data").click()
    expect(page.locator(".labelled .sample").first).to_contain_text("shot")
    expect(page.locator(".ready")).to_contain_text("eady", timeout=TIMEOUT)
    expect(page.locator(".found")).to_contain_text("What became of every file", timeout=TIMEOUT)
    expect(page.locator(".found td", has_text="magnet").first).to_be_visible()
    page.locator(".bar").get_by_label("Type").locator("visible=true").select_option(label="deep: chip")
    expect(page.locator(".labelled .sample").first).to_contain_text("deep/test/chip")
    page.get_by_label("Language").select_option("ko")
    expect(page.locator(".found")).to_contain_text("모든 파일의 처리 결과")
    assert few.checking.started == 1
