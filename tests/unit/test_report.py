"""reporting/: the numbers are those of the files, the page needs nothing else, lies are found."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.tiling import Window
from flawsmith.errors import RunError
from flawsmith.files import write_json
from flawsmith.reporting import charts
from flawsmith.reporting import contact_sheets as sheets
from flawsmith.reporting.report import report
from flawsmith.run.folder import Run
from flawsmith.run.records import PlanLine, Sample, append_records

VOID = {"meta", "img", "br", "link", "input", "hr"}


def photograph(seed: int, dtype: type = np.uint8, shape: tuple[int, ...] = (48, 64)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype is np.float32:
        return rng.random(shape, dtype=np.float32) * 7 - 2
    return rng.integers(0, 256 if dtype is np.uint8 else 4096, shape).astype(dtype)


def make_run(tmp_path: Path, *, dtype: type = np.uint8, made: int = 5, settings: dict[str, Any] | None = None) -> Run:
    """A finished run of two types: `made` dents of which every pair is exact, and one scratch that was given up."""
    data = tmp_path / "data"
    run = Run.create(tmp_path / "run", Config.model_validate(settings or {}))
    suffix = ".tif" if dtype is np.float32 else ".png"
    mask = np.zeros((48, 64), bool)
    mask[10:18, 20:32] = True

    def row(name: str, defect: str | None, seed: int) -> dict[str, Any]:
        images.write(data / f"{name}{suffix}", photograph(seed, dtype))
        if defect:
            images.write_mask(data / f"{name}_mask.png", mask)
        label = str(data / f"{name}_mask.png") if defect else None
        return {
            "id": f"{name}{suffix}", "image": str(data / f"{name}{suffix}"), "product": "screw", "defect": defect,
            "mask": label, "split": "",
        }  # fmt: skip

    groups = {
        "shots": [row("d0", "dent", 1), row("d1", "dent", 2), row("s0", "scratch", 3)],
        "normals": [row(f"n{number}", None, 10 + number) for number in range(3)],
        "test_defects": [row("d2", "dent", 4)],
        "test_normals": [row("n9", None, 19)],
    }
    notes = {"notes": ["screw/scratch: its only picture is a shot"], "warnings": ["<b>twins</b> & co"]}
    write_json(run.path("data.json"), {"hash": "0123456789abcdef", **notes, **groups})
    plan: list[PlanLine] = []
    samples: list[Sample] = []
    for index in range(made + 1):
        given_up = index == made
        line = PlanLine(
            index=index,
            role="sample",
            batch=index,
            job="screw",
            generator="perlin",
            product="screw",
            defect="scratch" if given_up else "dent",
            seed=index,
            normal=f"n{index % 3}{suffix}",
            shot=f"d0{suffix}",
            mask_source="shots",
        )
        plan.append(line)
        sample = Sample(
            index=index,
            role="sample",
            status="invisible" if given_up else "made",
            generator="perlin",
            product="screw",
            defect=line.defect,
            normal=line.normal,
            shot=line.shot,
            seed=index,
            attempt=0,
            paint="residual",
            windows=(Window(0, 0, 48),),
            painted_share=0.02 if given_up else 0.9,
            area=0 if given_up else int(mask.sum()),
        )
        if given_up:
            samples.append(sample)
            continue
        after = images.read(data / f"n{index % 3}{suffix}")
        after[mask] = after.max() - after[mask]
        names = {"image": f"samples/{index:06d}{suffix}", "mask": f"samples/{index:06d}.mask.png"}
        images.write(run.path(names["image"]), after)
        images.write_mask(run.path(names["mask"]), mask)
        samples.append(replace(sample, **names))
    append_records(run.path("plan.jsonl"), plan)
    append_records(run.path("samples.jsonl"), samples)
    losses = [1 / (1 + step / 10) for step in range(40)]
    write_json(run.path("weights", "screw", "losses.json"), {"steps": 40, "losses": losses})
    run.finish("train", "x", {}, backbone={"name": "builtin", "fingerprint": "feedbeef"})
    run.log(stage="train", seconds=12.5, what="40 steps")
    return run


class Page(HTMLParser):
    """Checks that tags close in order; keeps what the page refers to and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.images = 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.images += tag == "img"
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)


def words_of(path: Path) -> str:
    return " ".join(" ".join(Page(path.read_text(encoding="utf-8")).words).split())


def test_the_page_stands_alone_and_counts_right(tmp_path: Path) -> None:
    path = report(make_run(tmp_path))
    assert path == tmp_path / "run" / "report.html"
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    for reference in page.references:
        assert reference.startswith(("data:image/jpeg;base64,", "#"))
    for one in re.findall(r"https?://[^\s\"'<]+", text):
        assert one == "http://www.w3.org/2000/svg"
    assert "<script" not in text and "@import" not in text and "url(" not in text
    assert page.images == 3 + 5 * len(sheets.COLUMNS)
    words = words_of(path)
    assert "5 labelled pairs of 1 defect type of screw were made from 3 real defect photographs" in words
    assert "5 made pictures were read again" in words
    outside = 5 * (48 * 64 - 8 * 12)
    assert f"0 pixels of {outside:,} outside the masks differ, 0 masks are empty" in words
    assert "1 showed less than 10% of the mask in any of 3 tries" in words
    assert "dent 2 1 5 5 0" in words and "scratch 1 0 1 0 1" in words and "all 3 1 6 5 1" in words
    for said in ("feedbeef", "0123456789abcdef", "its only picture is a shot", "12.5 s", "numpy", "screw, 40 steps"):
        assert said in words
    assert "<b>twins</b> & co" in words  # escaped, so it is text and not a tag


def test_the_markdown_has_its_pictures_beside_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    stale = run.path("report", "old.jpg")
    stale.parent.mkdir()
    stale.write_bytes(b"x")
    report(run)
    text = run.path("report.md").read_text(encoding="utf-8")
    names = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert len(names) == 3 and not stale.exists()
    assert {run.path(name) for name in names} == set(run.path("report").iterdir())
    assert "| screw | dent | 2 | 1 | 5 | 5 | 0 |" in text
    picture = images.read(run.path(names[0]))
    assert picture.dtype == np.uint8 and picture.shape[0] > 6 * 200


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pictures_are_compared_and_shown(tmp_path: Path, dtype: type) -> None:
    run = make_run(tmp_path, dtype=dtype)
    path = report(run)
    assert "0 pixels of" in words_of(path)
    native = photograph(10, dtype)
    seen = sheets.shown(native, sheets.tone_of(native))
    assert seen.dtype == np.uint8 and seen.min() == 0 and seen.max() == 255


def spoil(run: Run, index: int, what: str) -> None:
    picture, mask = run.path(f"samples/{index:06d}.png"), run.path(f"samples/{index:06d}.mask.png")
    if what == "pixel":
        pixels = images.read(picture)
        pixels[47, 63] ^= 1
        images.write(picture, pixels)
    elif what == "mask":
        images.write_mask(mask, np.zeros((48, 64), bool))
    elif what == "size":
        images.write(picture, images.read(picture)[:-1])
    elif what == "depth":
        images.write(picture, images.read(picture).astype(np.uint16))
    elif what == "gone":
        picture.unlink()
    elif what == "cut":
        picture.write_bytes(picture.read_bytes()[:90])


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("pixel", "samples/000003.png: 1 pixels outside the mask differ from n0.png"),
        ("mask", "samples/000003.png: "),
        ("size", "samples/000003"),
        ("depth", "uint16, its photograph (48, 64) uint8"),
        ("gone", "there is no such file"),
        ("cut", "samples/000003.png"),
    ],
)
def test_one_wrong_pair_is_named_in_red_and_raised(tmp_path: Path, what: str, said: str) -> None:
    run = make_run(tmp_path)
    spoil(run, 3, what)
    with pytest.raises(RunError, match="exact-background check failed") as caught:
        report(run)
    assert said in str(caught.value)
    text = run.path("report.html").read_text(encoding="utf-8")
    assert 'class="verdict bad"' in text and 'class="verdict good"' not in text
    assert said in words_of(run.path("report.html"))
    assert said in run.path("report.md").read_text(encoding="utf-8")
    if what == "mask":
        assert "96 pixels of" in words_of(run.path("report.html")) and "1 mask is empty" in words_of(
            run.path("report.html")
        )


def test_every_pair_is_read_and_the_first_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, made=9)
    for index in range(2, 9):
        spoil(run, index, "pixel")
    with pytest.raises(RunError, match="(?s)000002.*000003.*000004.*and 4 more"):
        report(run)
    assert "7 pixels of" in words_of(run.path("report.html"))


def test_a_run_without_pairs_still_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, made=0)
    assert "No pair is made yet" in words_of(report(run))
    for name in ("plan.jsonl", "samples.jsonl"):
        run.path(name).unlink()
    report(run)
    with pytest.raises(RunError, match="the stage that writes it has not run"):
        report(Run.create(tmp_path / "empty", Config()))


def test_the_page_stays_small(tmp_path: Path) -> None:
    """Noise is the worst case for JPEG; pictures are made coarser, then smaller, until the page fits."""
    noisy = np.random.default_rng(0).integers(0, 256, (320, 320, 3)).astype(np.uint8)
    assert len(sheets.jpeg(noisy)) > 60_000
    assert len(sheets.jpeg(noisy, 9_000)) <= 9_000


def test_picks_are_spread_and_limited(tmp_path: Path) -> None:
    assert sheets.spread(100, 4) == [12, 37, 62, 87]
    assert sheets.spread(3, 12) == [0, 1, 2] and sheets.spread(0, 5) == []
    run = make_run(tmp_path, made=9, settings={"report": {"per_defect": 2}})
    assert Page(report(run).read_text()).images == 3 + 2 * len(sheets.COLUMNS)


def test_close_ups_of_a_kind_share_one_side_and_hold_the_damage() -> None:
    masks = []
    for top, left, tall, wide in ((0, 0, 10, 30), (180, 270, 20, 30), (60, 100, 5, 5)):
        mask = np.zeros((200, 300), bool)
        mask[top : top + tall, left : left + wide] = True
        masks.append(mask)
    side = sheets.closeup_side(masks)
    assert side == 64
    for mask in masks:
        top, left = sheets._corner(mask, side)
        assert 0 <= top <= 200 - side and 0 <= left <= 300 - side
        assert mask[top : top + side, left : left + side].sum() == mask.sum()
    assert sheets.closeup_side([np.ones((2000, 2000), bool)]) == sheets.TILE


def test_the_curve_keeps_its_shape_and_bears_bad_numbers() -> None:
    losses = [1.0] * 2000 + [float("nan"), float("inf")] + [50.0] + [0.5] * 2000
    drawing = charts.loss_curve(losses, 'a "job" <1>')
    ElementTree.fromstring(drawing)
    assert "2 steps not finite" in drawing and "nan" not in drawing and len(drawing) < 60_000
    assert "too few steps" in charts.loss_curve([1.0], "x")
    ElementTree.fromstring(charts.loss_curve([0.0, 0.0, 0.0], "flat"))
    ElementTree.fromstring(charts.share_histogram([0.0, 1.0, 0.55], [], 0.1))
    ElementTree.fromstring(charts.share_histogram([], [], 0.1))


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first = report(run).read_text()
    lines = run.path("log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["stage"] == "report"
    run.path("log.jsonl").write_text(lines[0] + "\n")
    assert report(run).read_text() == first
