"""reporting/: the numbers are those of the files, the page needs nothing else, lies are found."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt

from flawsmith.config import Config, commented_toml
from flawsmith.data import images, previews
from flawsmith.data.ranges import survey_values
from flawsmith.data.tiling import Window
from flawsmith.errors import RunError
from flawsmith.evaluation import arms
from flawsmith.evaluation.statistics import ALL, MEAN, TASKS
from flawsmith.files import read_json, write_json
from flawsmith.korean import in_korean
from flawsmith.reporting import charts
from flawsmith.reporting import contact_sheets as sheets
from flawsmith.reporting.collect import collect
from flawsmith.reporting.document import Section, plain_name
from flawsmith.reporting.proof import NO_CONTROLS
from flawsmith.reporting.report import is_reported, report
from flawsmith.reporting.sections import document_of, metric_table
from flawsmith.reporting.verdict import NONE, OURS, REAL, cannot_tell, points, verdict_of, verdict_sentence
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.records import PlanLine, Sample, append_records
from flawsmith.types import Example

VOID = {"meta", "img", "br", "link", "input", "hr"}
_OPENING = 6
"""Pictures of the row that opens the report of `make_run`."""


def photograph(seed: int, dtype: type = np.uint8, shape: tuple[int, ...] = (48, 64)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if dtype is np.float32:
        return rng.random(shape, dtype=np.float32) * 7 - 2
    return rng.integers(0, 256 if dtype is np.uint8 else 4096, shape).astype(dtype)


def make_run(
    tmp_path: Path,
    *,
    dtype: type = np.uint8,
    made: int = 5,
    settings: dict[str, Any] | None = None,
    product: str = "screw",
    defect: str = "dent",
    prefix: str = "",
) -> Run:
    """A finished run of two types: `made` dents that are all exact, and one scratch that was given up.

    Args:
        tmp_path: Gets the photographs and the run folder.
        dtype: Of the photographs.
        made: Samples of the first type.
        settings: What differs from the default configuration.
        product: Name of the product.
        defect: Name of the first defect type.
        prefix: What every photograph's id begins with.
    """
    data = tmp_path / "data"
    run = Run.create(tmp_path / "run", Config.model_validate({**(settings or {}), "data": {"root": data}}))
    suffix = ".tif" if dtype is np.float32 else ".png"
    mask = np.zeros((48, 64), bool)
    mask[10:18, 20:32] = True

    def row(name: str, defect: str | None, seed: int) -> dict[str, Any]:
        images.write(data / f"{name}{suffix}", photograph(seed, dtype))
        if defect:
            images.write_mask(data / f"{name}_mask.png", mask)
        masks = [str(data / f"{name}_mask.png")] if defect else []
        return {
            "id": f"{prefix}{name}{suffix}", "image": str(data / f"{name}{suffix}"), "product": product,
            "defect": defect, "masks": masks, "mask_rule": None, "split": "",
        }  # fmt: skip

    groups = {
        "shots": [row("d0", defect, 1), row("d1", defect, 2), row("s0", "scratch", 3)],
        "normals": [row(f"n{number}", None, 10 + number) for number in range(3)],
        "test_defects": [row("d2", defect, 4)],
        "test_normals": [row("n9", None, 19)],
    }
    notes = {"notes": [f"{product}/scratch: its only picture is a shot"], "warnings": ["<b>twins</b> & co"]}
    write_json(run.path("data.json"), {"hash": "0123456789abcdef", **notes, **groups})
    plan, samples = [], []
    for index in range(made + 1):
        given_up = index == made
        one: dict[str, Any] = {
            "index": index, "role": "sample", "generator": "controlnet_inpaint", "product": product,
            "defect": "scratch" if given_up else defect, "seed": index,
            "normal": f"{prefix}n{index % 3}{suffix}", "shot": f"{prefix}d0{suffix}",
        }  # fmt: skip
        plan.append(PlanLine(**one, batch=0, job=product, mask_source="shots"))
        one |= {"attempt": 0, "paint": "residual", "windows": (Window(0, 0, 48),)}
        if given_up:
            samples.append(Sample(**one, status="invisible", painted_share=0.02, area=0))
            continue
        after = images.read(data / f"n{index % 3}{suffix}")
        after[mask] = after.max() - after[mask]
        names = {"image": f"samples/{index:06d}{suffix}", "mask": f"samples/{index:06d}.mask.png"}
        images.write(run.path(names["image"]), after)
        images.write_mask(run.path(names["mask"]), mask)
        samples.append(Sample(**one, **names, status="made", painted_share=0.9, area=int(mask.sum())))
    append_records(run.path("plan.jsonl"), plan)
    append_records(run.path("samples.jsonl"), samples)
    losses = [1 / (1 + step / 10) for step in range(40)]
    write_json(run.path("weights", "screw", "losses.json"), {"steps": 40, "losses": losses})
    run.finish("train", "x", {}, backbone={"name": "builtin", "fingerprint": "feedbeef"})
    run.log(stage="train", seconds=12.5, what="40 steps")
    return run


def prove(run: Run, product: str, defect: str) -> None:
    """Write a small proof of one product and one defect type, as `flawsmith prove` leaves it."""
    figure, better = {"mean": 0.5, "each": [0.5, 0.5]}, {"mean": 0.75, "each": [0.75, 0.75]}
    figures = {
        "localization": {
            name: dict.fromkeys(("ap", "f1_max", "aupro"), figure) | {"auroc": better} for name in (defect, MEAN, ALL)
        },
        "detection": {name: {"auroc": better, "ap": figure} for name in (defect, MEAN, ALL)},
        "classification": {name: {"recall": figure} for name in (defect, MEAN, ALL)},
    }
    interval = {
        "difference": 0.1, "low": 0.05, "high": 0.15, "verdict": "helps", "p_value": 2 / 101, "adjusted_p_value": 0.04,
        "corrected_verdict": "helps",
    }  # fmt: skip
    share = {"mean": 0.25, "low": 0.1, "high": 0.4, "each": [0.2, 0.3]}
    counted = {"threshold": [0.5, 0.6], "false_alarms": share, "misses": {defect: share, ALL: share}}
    point = {
        "false_alarm_rate": 0.05, "kept_rate": 0.125, "rate_range": [0.003, 0.41],
        "calibration_normals": [f"{product}/{n}.png" for n in range(7)],
        "test_normals": 9, "test_defects": {defect: 4, ALL: 4}, "shifted_normals": 9, "shifts": {"darker": "dim"},
        "arms": {REAL: counted | {"shifts": {"as photographed": share, "darker": share}}, OURS: counted},
        "difference": {"false_alarms": interval, "misses": {defect: interval, ALL: interval}},
    }  # fmt: skip
    curve = [
        {"arm": f"ours {times}x", "samples_per_shot": times, "localization": [0.4, 0.5], "detection": [0.6, 0.7]}
        for times in (1, 3, 10)
    ]
    rows = [(arm, task, name) for arm in (OURS, NO_CONTROLS) for task in TASKS for name in (defect, MEAN)]
    one = {
        "shape": [64, 64], "defects": [defect], "test": {"normal": 1, defect: 1},
        "notes": [f"{defect}: only 1 test pictures, so its interval is rough"],
        "arms": {name: {"text": f"and 5 samples of {product}", "figures": figures} for name in (REAL, OURS)},
        "confusion": {OURS: [[1]], REAL: []}, "best_on_test": {REAL: figures},
        "comparisons": [
            {"arm": arm, "against": REAL, "task": task, "defect": name, **interval} for arm, task, name in rows
        ],
        "artefact": {REAL: {key: figure for key in ("louder", "control", "untouched")}},
        "held_out_controls": 2, "curve": curve, "telling": [], "thumbs": {}, "operating_point": point,
        "detector_facts": {REAL: {"Weight of the memory": {"mean": 0.4375, "each": [0.4, 0.475]}}},
    }  # fmt: skip
    tree = {
        "protocol": "clean", "detectors": ["probe"], "reduced": [], "generator": "controlnet_inpaint",
        "extractor": {"name": "efficientnet-lite0", "fingerprint": "feedface"}, "seeds": 2, "resamples": 100,
        "confidence": 0.95, "products": {product: one},
    }  # fmt: skip
    write_json(run.path("proof.json"), tree)
    run.finish("prove", "x", {})


class Page(HTMLParser):
    """Checks that tags close in order; keeps what the page refers to and says."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.references: list[str] = []
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.titles: list[tuple[str, str]] = []
        self.images = 0
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.images += tag == "img"
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in VOID:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        if self.open and re.fullmatch("h[1-4]|summary", self.open[-1]):
            self.titles.append((self.open[-1], data))


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
    assert page.images == _OPENING + 3 + 5 * len(sheets.COLUMNS)
    words = words_of(path)
    assert "5 labelled samples of 1 defect type of screw were generated from 3 real defect photographs" in words
    assert "5 samples were read again" in words
    outside = 5 * (48 * 64 - 8 * 12)
    assert f"0 pixels of {outside:,} outside the masks differ, 0 masks are empty" in words
    assert "1 showed less than 10% of the mask in any of 3 tries" in words
    assert "screw dent 2 1 5 5 0" in words and "scratch 1 0 1 0 1" in words and "all defect types 3 1 6 5 1" in words
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
    sheets_of = [f"report/{number}-screw-{defect}.jpg" for number, defect in (("00", "dent"), ("01", "scratch"))]
    shares_of = [name.replace("report/", "report/painted-").replace(".jpg", ".svg") for name in sheets_of]
    expected = ["report/opening.jpg", *sheets_of, *shares_of, "report/loss-00-screw.svg"]
    assert sorted(names) == sorted(expected) and names[0] == expected[0] and not stale.exists()
    assert {run.path(name) for name in names} == set(run.path("report").iterdir())
    assert "| screw | dent | 2 | 1 | 5 | 5 | 0 |" in text
    picture = images.read(run.path(sheets_of[0]))
    assert picture.dtype == np.uint8 and picture.shape[0] > 6 * 200


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pictures_are_compared_and_shown(tmp_path: Path, dtype: type) -> None:
    run = make_run(tmp_path, dtype=dtype)
    path = report(run)
    assert "0 pixels of" in words_of(path)
    native = photograph(10, dtype)
    name = "a" + images.lossless_suffix(native)
    images.write(tmp_path / name, native)
    seen = previews.shown(native, survey_values([Example("a", tmp_path / name, "nut")]).span)
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
def test_one_wrong_sample_is_named_in_red_and_raised(tmp_path: Path, what: str, said: str) -> None:
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


def test_every_sample_is_read_and_the_first_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path, made=9)
    for index in range(2, 9):
        spoil(run, index, "pixel")
    with pytest.raises(RunError, match="(?s)000002.*000003.*000004.*and 4 more"):
        report(run)
    assert "7 pixels of" in words_of(run.path("report.html"))


def test_a_run_without_samples_still_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path, made=0)
    assert "No sample is generated yet" in words_of(report(run))
    for name in ("plan.jsonl", "samples.jsonl"):
        run.path(name).unlink()
    report(run)
    with pytest.raises(RunError, match="the stage that writes it has not run"):
        report(Run.create(tmp_path / "empty", Config()))


def test_the_page_stays_small(tmp_path: Path) -> None:
    """Noise is the worst case for JPEG; pictures are made coarser, then smaller, until the page fits."""
    noisy = np.random.default_rng(0).integers(0, 256, (320, 320, 3)).astype(np.uint8)
    assert len(previews.jpeg(noisy)) > 60_000
    assert len(previews.jpeg(noisy, 9_000)) <= 9_000


def test_picks_are_spread_and_limited(tmp_path: Path) -> None:
    assert sheets.spread(100, 4) == [12, 37, 62, 87]
    assert sheets.spread(3, 12) == [0, 1, 2] and sheets.spread(0, 5) == []
    run = make_run(tmp_path, made=9, settings={"report": {"per_defect": 2}})
    assert Page(report(run).read_text()).images == _OPENING + 3 + 2 * len(sheets.COLUMNS)


def test_close_ups_of_a_defect_type_share_one_side_and_hold_the_damage() -> None:
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


@pytest.mark.parametrize("name", ["dent", "missing_connector_and_its_cable", "커넥터와 케이블이 함께 빠진 불량 유형"])
def test_a_long_name_beside_an_interval_is_shown_whole(name: str) -> None:
    row = charts.Interval(name, 4.0, 1.0, 7.0, "helps")
    drawing = ElementTree.fromstring(charts.interval_chart([row, row._replace(name="dent")], "gain", unit="points"))
    end = next(float(one.get("x", "")) for one in drawing.iter() if one.text == name)
    wide = sum(11 if "가" <= letter <= "힣" else 6.2 for letter in name)  # px, as letters are in the mean
    assert end >= wide and float(drawing.get("width", "")) - end > 400


def test_a_figure_says_what_its_value_must_be_read_with() -> None:
    figures = {
        "frechet[x]": {"value": 1.5, "low": 1.0, "high": 2.0, "reason": "4 pictures for 384 dimensions"},
        "kid[x]": {"value": None, "reason": "1 real and 4 made pictures; it takes 2 of each"},
        "recall[x]": {"value": 0.5},
    }
    tree = {"products": {"screw": {"dent": {"made": 4, "real": 4, "figures": figures}}}}
    ((_, rough, none, plain),) = metric_table(tree, "screw").rows
    assert (
        rough == "1.5 [1, 2]; 4 pictures for 384 dimensions" and none.startswith("no value: 1 real") and plain == "0.5"
    )
    assert in_korean(rough) == "1.5 [1, 2]; 384차원에 사진 4장"


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first = report(run).read_text()
    lines = run.path("log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["stage"] == "report"
    run.path("log.jsonl").write_text(lines[0] + "\n")
    assert report(run).read_text() == first


def text_of(section: Section) -> Iterator[str]:
    """Return every text of a section, in the order in which it is read."""
    yield section.title
    yield from (section.lead, *section.sentences, *section.notes)
    for table in (table for table in section.tables if table.rows):
        yield from table.heads
        yield from (cell for row in table.rows for cell in row)
    for part in section.subsections:
        yield from text_of(part)


def titles_of(section: Section, level: int = 2) -> Iterator[tuple[str, str]]:
    """Return the headings of a section, in their order, as (tag, title)."""
    yield f"h{level}", section.title
    for part in section.subsections:
        yield from titles_of(part, level + 1)


class MarkdownPage(Page):
    """report.md as a renderer shows it that lets raw HTML through."""

    def __init__(self, run: Run) -> None:
        text = run.path("report.md").read_text(encoding="utf-8")
        super().__init__(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))


HOSTILE = (
    ("나사", "긁힘", "사진 "),
    ("<script>alert(1)</script>", "\"quoted\" & 'single'", "<img src=x onerror=alert(1)>"),
    ("[x](http://example.com)", "](http://example.com/2)", "![x](http://example.com/x.png) "),
    ("~~~", "```", "# "),
    ("a|b", "</style></table><svg onload=alert(1)>", "{{ 7 * 7 }}{% raw %}"),
    ("*loud* **louder**", "__under__ _line_", "~~gone~~ `code` "),
    ("&lt;b&gt; &#42;", "![a][b] &copy;", "***"),
    ("1. x", "2) y", "3. "),
    ("[x]: http://example.com", "\\](http://example.com/3)", "\\<b>"),
)


@pytest.mark.parametrize(("product", "defect", "prefix"), HOSTILE)
def test_names_are_text_and_nothing_else(tmp_path: Path, product: str, defect: str, prefix: str) -> None:
    """Names of folders and files are anyone's: in both reports they neither make a tag, nor a link, nor a fence."""
    run = make_run(tmp_path, product=product, defect=defect, prefix=prefix)
    prove(run, product, defect)
    path = report(run)
    plain_run = make_run(tmp_path / "plain")
    prove(plain_run, "screw", "dent")
    report(plain_run)
    page, usual = (
        Page(path.read_text(encoding="utf-8")),
        Page(plain_run.path("report.html").read_text(encoding="utf-8")),
    )
    assert page.tags == usual.tags and page.attributes == usual.attributes and page.images == usual.images
    assert "script" not in page.tags and not any(name.startswith("on") for name in page.attributes)
    for reference in page.references:
        assert reference.startswith(("data:image/jpeg;base64,", "#"))
    words = " ".join(" ".join(page.words).split())
    marks = MarkdownPage(run)
    usual = MarkdownPage(plain_run)
    assert marks.titles and [tag for tag, _ in marks.titles] == [tag for tag, _ in usual.titles]
    assert marks.tags == usual.tags and marks.images == usual.images
    assert "script" not in marks.tags and "a" not in marks.tags
    assert {Path(reference).parent for reference in marks.references} == {Path("report")}
    said = " ".join(" ".join(marks.words).split())
    for text in (f"{product}: {defect}", f"{product}/scratch: its only", f"{defect}: only 1 test pictures"):
        assert " ".join(text.split()) in words and " ".join(text.split()) in said
    for drawing in run.path("report").glob("*.svg"):
        ElementTree.parse(drawing)


def test_both_reports_hold_the_same_sections(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    prove(run, "screw", "dent")
    document = document_of(collect(run))
    page, marks = Page(report(run).read_text(encoding="utf-8")), MarkdownPage(run)
    titles = [("h1", document.title), *(title for section in document.sections for title in titles_of(section))]
    assert len(titles) > 20 and marks.titles == titles
    # HTML has its own headings within sheets and diagrams, and folds some sections.
    headings = iter(page.titles)
    for tag, title in titles:
        assert any(title == text and heading in (tag, "summary") for heading, text in headings), title
    for words in (" ".join(" ".join(each.words).split()) for each in (page, marks)):
        assert document.summary in words and document.verdict in words and document.footer in words
        for text in (text for section in document.sections for text in text_of(section)):
            assert " ".join(text.split()) in words, text
        assert all(f"{figure.value} {figure.label}" in words for figure in document.figures)
    assert commented_toml(run.config).strip() in "".join(page.words) and "[generator]" in "".join(marks.words)


def test_a_report_opens_with_pictures_then_says_the_verdict_then_shows_tables(tmp_path: Path) -> None:
    run = make_run(tmp_path, made=3)
    assert verdict_of(run) == ""
    report(run)
    assert "verdict proof" not in run.path("report.html").read_text(encoding="utf-8")
    facts = collect(run)
    without_shots = document_of(replace(facts, split=replace(facts.split, shots=()))).proof
    assert without_shots == "The samples are not proven: a proof compares with real defects, and there is none."
    prove(run, "screw", "dent")
    sentence = verdict_of(run)
    assert sentence.count(". ") == 0 and sentence.startswith("Samples of controlnet_inpaint beside the real shots help")
    assert "help on screw (+10.0 [+5.0, +15.0]) in localization (pixel AP" in sentence and "95% intervals" in sentence
    path = report(run)
    for text, picture, table in (
        (path.read_text(encoding="utf-8"), "<img", "<table"),
        (run.path("report.md").read_text(encoding="utf-8"), "![Real shots beside samples]", "| --- |"),
    ):
        places = [text.index(picture), text.index(sentence), text.index("Exact background:"), text.index(table)]
        assert places == sorted(places)
    opening = sheets.opening_sheet(sheets.contact_sheets(run, load_split(run), 12))
    assert opening is not None and [row.caption for row in opening.rows] == ["screw: dent, 64 x 64 px"]
    real, made = opening.rows[0].tiles[:3], opening.rows[0].tiles[3:]
    assert (real[2] == real[2][0, 0]).all() and not (real[1] == real[1][0, 0]).all()  # two shots, and an empty place
    assert len(made) == 3 and not any((tile == tile[0, 0]).all() for tile in made)
    without = sheets.opening_sheet([replace(one, shots=()) for one in sheets.contact_sheets(run, load_split(run), 12)])
    assert without is not None and without.heads == ("sample",) * 3, "no empty boxes where there are no shots"
    assert all((tile == mine).all() for tile, mine in zip(without.rows[0].tiles, made, strict=True))


def test_what_is_not_exact_is_said_before_all_else(tmp_path: Path) -> None:
    run = make_run(tmp_path, made=1)
    spoiled = images.read(run.path("samples/000000.png"))
    spoiled[-1, -1] ^= 1
    images.write(run.path("samples/000000.png"), spoiled)
    with pytest.raises(RunError, match="exact-background check failed"):
        report(run)
    for name, picture in (("report.html", "<img"), ("report.md", "![")):
        text = run.path(name).read_text(encoding="utf-8")
        assert text.index("exact-background check failed") < text.index(picture)


def test_the_verdict_names_each_product_and_takes_the_corrected_verdict(tmp_path: Path) -> None:
    def row(difference: float, verdict: str, corrected: str, task: str = "localization") -> dict[str, Any]:
        ends = {"difference": difference, "low": difference - 0.02, "high": difference + 0.02}
        arms = {"arm": "ours", "against": "real-only", "task": task, "defect": "mean over defect types"}
        return {**ends, **arms, "verdict": verdict, "corrected_verdict": corrected}

    rows = {
        "cap": row(0.05, "helps", "helps"), "nut": row(0.03, "helps", "no effect"),
        "rod": row(-0.05, "harms", "harms"), "tube": row(0.01, "no effect", "no effect"),
    }  # fmt: skip
    proof = {"generator": "crop_paste", "confidence": 0.9}
    proof["products"] = {name: {"comparisons": [one]} for name, one in rows.items()}
    assert verdict_sentence(proof) == (
        "Samples of crop_paste beside the real shots help on cap (+5.0 [+3.0, +7.0]), show no effect on nut (+3.0 "
        "[+1.0, +5.0]), tube (+1.0 [-1.0, +3.0]) and harm on rod (-5.0 [-7.0, -3.0]) in localization (pixel AP in "
        "points of 100, mean over defect types, 90% intervals).\n"
        "After correction that is no effect on nut: the interval lies on one side of zero, but of so many comparisons "
        "some do so by chance."
    )
    assert "보정하면 nut에는 효과 없음입니다" in in_korean(verdict_sentence(proof))
    proof["products"] = {"cap": {"comparisons": [row(0.05, "helps", "helps", "detection")]}}
    assert "in detection (image AUROC" in verdict_sentence(proof)
    assert verdict_sentence(proof | {"products": {"cap": {"comparisons": []}}}) == ""
    # Each row says on which side of zero its interval lies, however small it is.
    assert points({"difference": 0.00012, "low": 3e-05, "high": 0.00038}) == "+0.012 [+0.003, +0.038]"
    assert points({"difference": -0.0012, "low": -0.002, "high": -0.0003}) == "-0.12 [-0.20, -0.03]"
    assert points({"difference": 0.0001, "low": -0.0002, "high": 0.0003}) == "+0.0 [+0.0, +0.0]"


def test_a_detector_that_learned_nothing_proves_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    prove(run, "screw", "dent")
    proof = read_json(run.path("proof.json"))
    one = proof["products"]["screw"]
    assert cannot_tell(proof, "screw") == "", "a proof of an earlier release compares with no such detector"

    def learned(ap: float, auroc: float, none: float, high: float) -> dict[str, Any]:
        values = {REAL: {"ap": {"mean": ap}, "auroc": {"mean": auroc}}, NONE: {"ap": {"mean": none}}}
        arms = {arm: {"figures": {"localization": {MEAN: figures}}} for arm, figures in values.items()}
        row = {"arm": REAL, "against": NONE, "task": "localization", "defect": MEAN, "low": -0.3, "high": high}
        return proof | {"products": {"screw": one | {"arms": arms, "shots_against_none": [row]}}}

    said = "This proof cannot tell: the detector that learned from your shots finds "
    less = f"{said}less than one that knows normal parts alone (0.2 against 23.0 pixel AP); "
    chance = f"{said}no more than by chance (17.7 pixel AUROC, where guessing has 50); "
    longer, other = "train it longer (prove.budget = 1).", "let another detector prove them (prove.detectors), or "
    failed = learned(0.002, 0.177, 0.23, -0.1)
    assert verdict_sentence(failed).startswith(less + other)
    assert verdict_sentence(failed | {"reduced": ["fewer steps"]}) == less + longer
    assert verdict_sentence(learned(0.002, 0.177, 0.23, 0.1) | {"reduced": ["fewer steps"]}) == chance + longer
    assert verdict_sentence(learned(0.2, 0.9, 0.23, 0.1)).startswith("Samples of controlnet_inpaint beside")
    two = failed | {"products": failed["products"] | {"nut": one}, "seeds": 1}
    works, undecided = verdict_sentence(two).split("\n")
    assert " help on nut " in works and "screw" not in works
    assert works.endswith("95% intervals), a first look with 1 seed (a verdict needs 3).")
    assert undecided.startswith("This proof cannot tell of screw: the detector")
    for english in (less + longer, chance + longer, works, undecided):
        assert not re.search("[A-Za-z]{3,} [a-z]{3,}", in_korean(english).replace("pixel AP", "")), in_korean(english)
    one["arms"][NONE] = one["arms"][REAL]
    one["shots_against_none"] = failed["products"]["screw"]["shots_against_none"]
    write_json(run.path("proof.json"), proof)
    report(run)
    text = run.path("report.md").read_text(encoding="utf-8")
    assert text.count(f"{said}less than one") == 2 and "localization: helps (" not in text, (
        "at the top and in the proof"
    )


def test_the_proof_tells_misses_false_alarms_and_corrected_verdicts(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    prove(run, "screw", "dent")
    proof = read_json(run.path("proof.json"))
    rows = proof["products"]["screw"]["comparisons"]
    rows[0]["corrected_verdict"] = "no effect"  # ours, localization of dent
    rows[1]["corrected_verdict"] = "no effect"  # ours, localization, mean over defect types
    write_json(run.path("proof.json"), proof)
    report(run)
    text = run.path("report.md").read_text(encoding="utf-8")
    assert "localization: no effect after correction (+10.0 [+5.0, +15.0]); detection: helps (+10.0" in text
    assert "| dent | helps (no effect after correction): +10.0 [+5.0, +15.0] | helps: +10.0" in text
    assert f"{len(rows)} verdicts say helps or harms; {len(rows) - 2} of them stand" in text
    assert f"with prove.resamples = {len(rows) * 40} more of them may stand" in text
    assert "### At a false-alarm rate of 5%" in text and "raises an alarm in at most 12.5% of cases" in text
    assert "lies between 0.3 and 41.0%" in text
    assert "| Trained on | False alarms, of 9 normal | Missed, of 4 damaged | Missed dent, of 4 |" in text
    assert "| real-only | 25.0 [10.0, 40.0] | 25.0 [10.0, 40.0] | 25.0 [10.0, 40.0] |" in text
    assert "| ours less real-only, points | +10.0 [+5.0, +15.0] |" in text
    assert "| Trained on | As photographed | Darker |" in text and "- Darker: dim" in text
    assert "| Trained on | Weight of the memory |" in text and "| real-only | 0.44 |" in text


def test_the_report_is_korean_where_that_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, settings={"screen": {"enabled": False}})
    prove(run, "screw", "dent")
    pages = {}
    for language in ("en", "ko"):
        monkeypatch.setenv("FLAWSMITH_LANG", language)
        assert not is_reported(run), "what is there is of the other language"
        page = report(run).read_text(encoding="utf-8")
        assert is_reported(run) and f'<html lang="{language}">' in page
        seen = re.sub(r"<style>.*?</style>|src=\"[^\"]*\"", " ", page, flags=re.S)
        pages[language] = [*re.findall(r">([^<>]+)<", seen), *re.findall(r'(?:aria-label|alt)="([^"]*)"', seen)]
        pages[language] += [run.path("report.md").read_text(encoding="utf-8")]
    korean = html.unescape("\n".join(pages["ko"]))
    names = (
        'twins.*|Weight of the memory|its only picture is a shot|`[^`]+`|"[^"]*"|Stable Diffusion'  # or its own texts
    )
    lines = [re.sub(names, "", line) for line in korean.splitlines()]
    left = [line for line in lines if re.search("[A-Za-z]{3,} [a-z]{2,}", line)]
    assert not left, f"English in the Korean report: {left}"
    for text in (
        "효과 검증: 샘플이 도움이 됩니까?",
        "도움됨: +10.0 [+5.0, +15.0]",
        "정확한 배경: 샘플 5개",
        "| 결함 유형 |",
    ):
        assert text in korean, text
    figures = [sorted(re.findall(r"[+-]?\d+\.\d+ \[.*?\]", "\n".join(page))) for page in pages.values()]
    assert figures[0] == figures[1] and len(figures[0]) > 20, "the same numbers in both"
    assert not re.search("[가-힣]", "\n".join(pages["en"]))


def test_names_are_no_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product called as a word of ours keeps its name in Korean."""
    monkeypatch.setenv("FLAWSMITH_LANG", "ko")
    run = make_run(tmp_path, product="photographs", defect="line")
    prove(run, "photographs", "line")
    text = report(run).with_suffix(".md").read_text(encoding="utf-8")
    assert "## photographs: line" in text and "| photographs | line |" in text and "| 비교군 | line |" in text
    assert "| line | 도움됨: +10.0" in text


def test_a_proof_of_an_earlier_release_is_shown_as_it_was(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    prove(run, "screw", "dent")
    proof = read_json(run.path("proof.json"))
    product = proof["products"]["screw"]
    del product["operating_point"], product["detector_facts"]
    for row in product["comparisons"]:
        for name in ("p_value", "adjusted_p_value", "corrected_verdict"):
            del row[name]
    write_json(run.path("proof.json"), proof)
    report(run)
    text = run.path("report.md").read_text(encoding="utf-8")
    assert "localization: helps (+10.0 [+5.0, +15.0])" in text and "| dent | helps: +10.0 [+5.0, +15.0] |" in text
    assert "correction" not in text and "false-alarm" not in text


def test_the_report_needs_no_torch(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from flawsmith import Run, report\n"
        f"print(report(Run.open({str(run.folder)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert run.path("report.html").is_file()


def test_arms_have_the_names_of_the_proof() -> None:
    assert (REAL, OURS, NO_CONTROLS) == (arms.REAL, arms.OURS, arms.NO_CONTROLS)


def test_names_of_its_pictures_fit_any_file_system() -> None:
    assert plain_name("crack: deep/찍힘") == "crack_deep" and plain_name("찍힘") == "x"
    assert len(plain_name("x" * 5000)) == 60
