"""Names that nobody thought of, in every place that has one: files, folders, labels, settings, the command line."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import Canary, Outcome, flawsmith
from damage import HOSTILE_TEXT
from results import results
from runs import TABLE, words_of
from tally import TALLY, often

TAGS = (b"<script>alert(1)</script>", b"<img src=x onerror=alert(1)>")
NAMES: tuple[bytes, ...] = (
    b"a b", b" lead", b"trail ", b"new\nline", b"tab\tbed", b"cr\rlf", b"..dots", b"dots..", b".hidden", b"-rf",
    b"--help", b"~", b"*", b"?", b"[a-b]", b"a#coco#1#b", b"100%", b"%s%n%x", b"{{7*7}}", b"{0}", b"$(touch x)",
    b"`x`", b"a;b&c|d", b"a'b", b'a"b', b"a\\b", b"C:", b"con", b"NUL", b"good", b"test", b"_mask", b"x.png",
    b"x.mask", b"\xff\xfe", b"kratz\xe4r", b"\xed\xa0\x80", "찍힘".encode(), "e\u0301".encode(),
    "\u202egnp".encode(), "\u200b".encode(), "💥".encode(), "\ufeffbom".encode(), b"\x01\x1b[31m", b"|a|b|",
    b"[bold]x[/bold]", b"*a*_b_", b"#h", b"x" * 240, "\u1e9e".encode() * 80, b"<img src=x onerror=alert(1)>",
    b"<b>&amp;",
)  # fmt: skip
"""Names of files and folders as the system stores them: any bytes but / and NUL, up to 255."""
QUICK: dict[str, Any] = {
    "screen.enabled": False, "measure.enabled": False, "prove.enabled": False,
    "export.formats": ["mvtec", "coco", "yolo", "labelme", "label_studio", "visa", "webdataset"],
}  # fmt: skip


def some(cases: list[Any], short: int, full: int) -> list[Any]:
    """Return so many of all cases, the same each time."""
    return random.Random(3).sample(cases, often(short, full))


def do(home: Path, *words: str | Path, root: Path | str, **table: Any) -> Outcome:
    """Do a command that takes a configuration."""
    settings = {"data.root": str(root), **TABLE, **QUICK, **table}
    (home / "run.toml").write_text("")
    return flawsmith(home / "log", words[0], home / "run.toml", *words[1:], *words_of(settings))


def require_plain(outcome: Outcome, run: Path) -> None:
    """A sentence or a result; and nothing of a name is markup in the report or a command to the terminal."""
    assert outcome.wrong() == ""
    assert "\x1b[31m" not in outcome.text
    outcome.text.encode("utf-8")
    for report in run.glob("report.*"):
        assert not any(tag in report.read_bytes() for tag in TAGS)


def spoiled(photographs: Path, sort: str, name: bytes) -> None:
    """Give a product, a defect type, a shot with its mask, or a normal part another name."""
    top = os.fsencode(photographs)
    ways = {
        "product": [(b"magnet", name)],
        "defect": [(b"magnet/test/crack", b"magnet/test/" + name),
                   (b"magnet/ground_truth/crack", b"magnet/ground_truth/" + name)],
        "shot": [(b"magnet/test/crack/000.png", b"magnet/test/crack/" + name + b".png"),
                 (b"magnet/ground_truth/crack/000_mask.png", b"magnet/ground_truth/crack/" + name + b"_mask.png")],
        "normal": [(b"magnet/train/good/000.png", b"magnet/train/good/" + name + b".png")],
    }  # fmt: skip
    for old, new in ways[sort]:
        os.rename(os.path.join(top, old), os.path.join(top, new))


SORTS = ("product", "defect", "shot", "normal")
CASES = [(sort, name) for sort in SORTS for name in NAMES]


@pytest.mark.parametrize("sort, name", some(CASES, 6, 80))
def test_a_name_in_the_set(sort: str, name: bytes, home: Path, parts: Path) -> None:
    shutil.copytree(parts, home / "photographs")
    try:
        spoiled(home / "photographs", sort, name)
    except OSError as error:
        pytest.skip(f"this file system takes no such name: {error.strerror}")
    canary = Canary(home, allowed=("run", "log", "run.toml", "run-check.html"))
    words = ["check"], ["run", "--out", home / "run"]
    for one in words:
        outcome = do(home, *one, root=home / "photographs")
        TALLY.tried(f"a name of a {sort}", refused=outcome.code != 0)
        require_plain(outcome, home / "run")
    assert canary.touched() == []


LABELS = [(form, name) for form in ("coco", "labelme", "label_studio") for name in HOSTILE_TEXT]


def annotated(folder: Path, form: str, name: str) -> None:
    """Write an annotation file in which a defect type has a name."""
    square = [[8, 8], [20, 8], [20, 20], [8, 20]]
    flat = [number for corner in square for number in corner]
    pictures = sorted(path.name for path in folder.glob("*.png"))
    marked = pictures[: len(pictures) // 2]
    size = {"height": 64, "width": 64}
    if form == "coco":
        tree: Any = {
            "images": [{"id": n, "file_name": one, **size} for n, one in enumerate(pictures)],
            "categories": [{"id": 1, "name": name}],
            "annotations": [
                {"id": n, "image_id": n, "category_id": 1, "segmentation": [flat]} for n in range(len(marked))
            ],
        }
        (folder / "coco.json").write_text(json.dumps(tree))
    elif form == "labelme":
        for number, picture in enumerate(pictures):
            shapes = [{"label": name, "points": square, "shape_type": "polygon"}] if number < len(marked) else []
            tree = {"shapes": shapes, "imagePath": picture, "imageHeight": 64, "imageWidth": 64}
            (folder / picture).with_suffix(".json").write_text(json.dumps(tree))
    else:
        value = {"points": [[12.5, 12.5], [31, 12.5], [31, 31], [12.5, 31]], "polygonlabels": [name]}
        result = {"type": "polygonlabels", "value": value, "original_height": 64, "original_width": 64}
        tasks = [
            {"data": {"image": f"/data/{one}"}, "annotations": [{"result": [result] if one in marked else []}]}
            for one in pictures
        ]
        (folder / "export.json").write_text(json.dumps(tasks))


@pytest.mark.parametrize("form, name", some(LABELS, 5, 45), ids=ascii)
def test_a_label_of_a_tool(form: str, name: str, home: Path, parts: Path) -> None:
    (home / "photographs").mkdir()
    shots, normals = (sorted((parts / "magnet" / side).rglob("*.png")) for side in ("test", "train"))
    for number, path in enumerate([*shots[:4], *normals]):
        shutil.copy(path, home / "photographs" / f"{number}.png")
    annotated(home / "photographs", form, name)
    canary = Canary(home, allowed=("run", "log", "run.toml", "run-check.html"))
    for words in (["check"], ["run", "--out", home / "run"]):
        outcome = do(home, *words, root=home / "photographs", **{"data.layout": form, "data.shots": 1})
        TALLY.tried(f"a label in a file of {form}", refused=outcome.code != 0)
        require_plain(outcome, home / "run")
    assert canary.touched() == []


KEYS = ("data.root", "data.layout", "data.products", "data.defects", "data.exclude", "data.product", "generator.name",
        "backbone.source", "features.source", "features.extractor", "screen.filters", "prove.detectors",
        "prove.against", "export.formats", "generate.prompt", "generate.masks", "export.settings", "prove.settings",
        "data.patterns", "data.mask.values", "screen.thresholds", "generate.count")  # fmt: skip
SETTINGS = [(key, name) for key in KEYS for name in HOSTILE_TEXT]


@pytest.mark.parametrize("key, name", some(SETTINGS, 6, 120), ids=ascii)
def test_a_value_of_a_setting(key: str, name: str, home: Path, parts: Path) -> None:
    """In the file, where any text may stand."""
    canary = Canary(home, allowed=("run", "log", "run.toml", "run-check.html"))
    settings = {"data.root": str(parts), **TABLE, **QUICK}
    section, _, last = key.rpartition(".")
    (home / "run.toml").write_bytes(f"[{section}]\n{last} = {json.dumps(name)}\n".encode("utf-8", "surrogatepass"))
    words = words_of({other: value for other, value in settings.items() if other != key})
    outcome = flawsmith(home / "log", "check", home / "run.toml", *words)
    TALLY.tried("a value of a setting", refused=outcome.code != 0)
    require_plain(outcome, home / "run")
    assert canary.touched() == []


WORDS = tuple(name for name in HOSTILE_TEXT if "\0" not in name and name != "\ud800")
COMMANDS = (
    ["run", "NAME", "--out", "run"], ["run", "run.toml", "--out", "NAME"],
    ["run", "run.toml", "--out", "run", "--set", "NAME"], ["check", "NAME"], ["train", "NAME"],
    ["generate", "run", "--shard", "NAME"], ["screen", "NAME"], ["screen", "run", "--replay", "NAME"],
    ["screen", "NAME", "--replay", "run"], ["screen", "canary", "--replay", "run", "--layout", "NAME"],
    ["measure", "NAME"], ["prove", "NAME"], ["export", "NAME"],
    ["export", "run", "--set", "export.formats=NAME"], ["report", "NAME"],
    ["paint", "run", "--photograph", "NAME", "--mask", "NAME", "--defect", "crack", "--out", "x.png"],
    ["paint", "run", "--photograph", "canary/x.png", "--mask", "m.png", "--defect", "NAME", "--out", "NAME"],
    ["new", "--generator", "NAME"], ["backbone", "out", "--from", "NAME"], ["backbone", "out", "--set", "NAME"],
    ["inspect", "NAME", "canary"], ["calibrate", "NAME", "canary"], ["deliver", "NAME"], ["choose", "NAME"],
    ["NAME"],
)  # fmt: skip
LINES = [[word.replace("NAME", name) for word in words] for words in COMMANDS for name in WORDS]


@pytest.mark.parametrize("words", some(LINES, 10, 180), ids=ascii)
def test_a_word_of_the_command_line(words: list[str], home: Path, run: Path) -> None:
    """From a folder that holds a run and nothing else; a name may be made there, but nothing above it."""
    folder = home / "inner" / "folder"
    folder.mkdir(parents=True)
    run.rename(folder / "run")
    (folder / "run.toml").write_text("")
    (folder / "canary").mkdir()
    (folder / "canary" / "x.png").write_bytes(b"no picture")
    before = results(folder / "run")
    canary = Canary(folder / "canary")
    outcome = flawsmith(home / "log", *words, folder=folder)
    TALLY.tried("a word of the command line", refused=outcome.code != 0)
    require_plain(outcome, folder / "run")
    assert canary.touched() == []
    after = results(folder / "run")
    assert [name for name in before if not name.startswith("report") and before[name] != after.get(name)] == []
