"""run/records.py: what is written is read back alike, and what is no record is named by file, line and field."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flawsmith.data.masks.bend import Bend
from flawsmith.data.masks.poses import Pose
from flawsmith.data.tiling import Window
from flawsmith.errors import RunError
from flawsmith.paths import why_outside
from flawsmith.run.records import (
    MADE,
    LaidShot,
    PlanLine,
    Reason,
    Repair,
    Sample,
    Verdict,
    append_records,
    read_records,
    write_records,
)

R = TypeVar("R", PlanLine, Sample, Verdict)

PLAN = PlanLine(
    index=3,
    role="sample",
    batch=1,
    job="screw",
    generator="perlin",
    product="screw",
    defect="dent",
    seed=77,
    normal="screw/train/good/000.png",
    shot="screw/test/dent/001.png",
    mask_source="shots",
)
SAMPLE = Sample(
    index=3,
    role="sample",
    status=MADE,
    generator="perlin",
    product="screw",
    defect="dent",
    normal="screw/train/good/000.png",
    shot="screw/test/dent/001.png",
    seed=77,
    attempt=0,
    paint="residual",
    windows=(Window(-3, 5, 64),),
    painted_share=0.5,
    area=120,
)
VERDICT = Verdict("000003", "screw", "dent", True)
LEAST = {
    PlanLine: PLAN,
    Sample: SAMPLE,
    Verdict: VERDICT,
}
"""The record of each file with nothing but what it must have."""

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8)
FILES = NAMES.filter(lambda name: not why_outside(name))
"""Below a run folder."""
COUNTS = st.integers(0, 2**31 - 1)
SHARES = st.floats(0, 1)
NUMBERS = st.floats(-1e6, 1e6)
BENDS = st.builds(
    Bend, SHARES, COUNTS, NUMBERS, st.tuples(*(st.integers(0, 99) for _ in range(4))), on_part=st.booleans()
)
POSES = st.builds(
    lambda a, b, c, d, x, y, bend: replace(Pose.of(np.array([[a, b, x], [c, d, y]])), bend=bend),
    *(st.floats(-9, 9) for _ in range(6)),
    st.none() | BENDS,
)
WINDOWS = st.builds(Window, st.integers(-99, 999), st.integers(-99, 999), st.integers(1, 999))
PLANS = st.builds(
    PlanLine,
    index=COUNTS,
    role=st.sampled_from(["sample", "control"]),
    mask_source=st.sampled_from(["shots", "procedural", "file"]),
    pose=st.none() | POSES,
    **dict.fromkeys(("batch", "seed", "round"), COUNTS),
    job=FILES,
    **dict.fromkeys(("generator", "product", "defect", "normal", "shot", "mask_file", "appearance"), NAMES),
    **dict.fromkeys(("reference", "transferred_from", "donor", "sentence"), NAMES),
    further=st.lists(st.builds(LaidShot, NAMES, POSES), max_size=2).map(tuple),
    outline=st.booleans(),
    control_of=st.integers(-1, 99),
)
SAMPLES = st.builds(
    Sample,
    role=st.sampled_from(["sample", "control"]),
    windows=st.lists(WINDOWS, max_size=3).map(tuple),
    painted_share=SHARES,
    **dict.fromkeys(("index", "seed", "attempt", "area"), COUNTS),
    **dict.fromkeys(("status", "generator", "product", "defect", "normal", "shot", "paint"), NAMES),
    **dict.fromkeys(("reference", "transferred_from", "image_hash", "mask_hash"), NAMES),
    **dict.fromkeys(("image", "mask"), FILES),
    control_of=st.integers(-1, 99),
)
VERDICTS = st.builds(
    Verdict,
    name=NAMES,
    product=NAMES,
    defect=NAMES,
    kept=st.booleans(),
    reasons=st.lists(st.builds(Reason, NAMES, NAMES), max_size=2).map(tuple),
    scores=st.dictionaries(NAMES, st.none() | NUMBERS, max_size=3),
    thresholds=st.dictionaries(NAMES, NUMBERS, max_size=3),
    repair=st.none() | st.builds(Repair, FILES, FILES, COUNTS),
)


def comes_back(record: R, folder: Path) -> None:
    """Written to a file and read again it is equal, in value and in type."""
    path = folder / "rows.jsonl"
    write_records(path, [record, record])
    again = read_records(path, type(record))
    assert again == [record, record]
    for field in fields(record):
        assert type(getattr(again[0], field.name)) is type(getattr(record, field.name)), field.name


@given(record=PLANS | SAMPLES | VERDICTS)
@settings(max_examples=120, deadline=None)
def test_every_record_comes_back(record: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    comes_back(record, tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("least", LEAST.values(), ids=lambda record: type(record).__name__)
def test_defaults_are_not_written(least: Any, tmp_path: Path) -> None:
    """A field that comes later changes no file of today; and what has no default is always there."""
    text = {field.name for field in fields(least) if field.name in least.to_json()}
    required = {f.name for f in fields(least) if f.default is f.default_factory}  # both are MISSING
    assert text == required and required < {field.name for field in fields(least)}
    comes_back(least, tmp_path)


def test_what_differs_from_its_default_is_written() -> None:
    tree = replace(PLAN, round=1, outline=True, pose=Pose.identity()).to_json()
    assert (tree["round"], tree["outline"], tree["pose"]["matrix"]) == (1, True, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert replace(SAMPLE, transferred_from="tile", control_of=0).to_json()["control_of"] == 0
    tree = replace(VERDICT, kept=False, reasons=(Reason("seam", "its border shows"),)).to_json()
    assert tree["reasons"] == [{"score": "seam", "text": "its border shows"}] and tree["kept"] is False
    assert replace(VERDICT, repair=Repair("a.png", "a.mask.png", 3)).to_json()["repair"] == {
        "image": "a.png", "mask": "a.mask.png", "area": 3
    }  # fmt: skip


def test_roles_and_what_is_made() -> None:
    assert not PLAN.is_control and replace(PLAN, role="control").is_control
    assert SAMPLE.made and not replace(SAMPLE, status="invisible").made


WRONG: list[tuple[Any, dict[str, Any], str]] = [
    *((least, {"colour": "red"}, "'colour' is unknown") for least in LEAST.values()),
    (PLAN, {"twin": 3}, "'twin' is unknown"),
    (PLAN, {"index": "3"}, "index is '3'"),
    (PLAN, {"index": True}, "index is True"),
    (PLAN, {"index": 1.5}, "index is 1.5"),
    (PLAN, {"role": "sham"}, "role is 'sham'"),
    (PLAN, {"mask_source": "drawn"}, "mask_source is 'drawn'"),
    (PLAN, {"outline": 1}, "outline is 1"),
    (PLAN, {"product": None}, "product is None"),
    (PLAN, {"pose": {"matrix": [[1, 0], [0, 1]]}}, "pose is {'matrix': [[1, 0], [0, 1]]}"),
    (PLAN, {"pose": {"flip": False}}, "pose is {'flip': False}"),
    (PLAN, {"pose": 3}, "pose is 3"),
    (SAMPLE, {"windows": [[0, 0]]}, "windows is [[0, 0]]"),
    (SAMPLE, {"windows": {}}, "windows is {}"),
    (SAMPLE, {"windows": None}, "windows is None"),
    (SAMPLE, {"painted_share": "0.5"}, "painted_share is '0.5'"),
    (SAMPLE, {"painted_share": True}, "painted_share is True"),
    (SAMPLE, {"image": None}, "image is None"),
    (VERDICT, {"kept": 1}, "kept is 1"),
    (VERDICT, {"scores": [0.5]}, "scores is [0.5]"),
    (VERDICT, {"scores": {"seam": "low"}}, "scores is {'seam': 'low'}"),
    (VERDICT, {"thresholds": {"seam": None}}, "thresholds is {'seam': None}"),
    (VERDICT, {"reasons": [{"score": "seam"}]}, "reasons is [{'score': 'seam'}]"),
    (VERDICT, {"reasons": [{"score": "seam", "said": "x"}]}, "reasons is [{'score': 'seam', 'said': 'x'}]"),
    (VERDICT, {"reasons": "seam"}, "reasons is 'seam'"),
    (VERDICT, {"repair": {"image": "a"}}, "repair is {'image': 'a'}"),
]


def refusal(path: Path, record: type, tree: Any) -> str:
    """Return the sentence with which the second line of a file is refused."""
    path.write_text(json.dumps(LEAST[record].to_json()) + "\n" + json.dumps(tree) + "\n")
    with pytest.raises(RunError) as caught:
        read_records(path, record)  # type: ignore[type-var]
    return str(caught.value)


@pytest.mark.parametrize(("least", "change", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_field_is_named(least: Any, change: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    sentence = refusal(path, type(least), least.to_json() | change)
    name = type(least).__name__
    assert sentence == f"{path}: line 2 is no {name} ({said}); delete that line and run again"


@pytest.mark.parametrize("record", LEAST)
def test_a_missing_field_is_named(record: type, tmp_path: Path) -> None:
    for field in LEAST[record].to_json():
        tree = {name: value for name, value in LEAST[record].to_json().items() if name != field}
        assert f"line 2 is no {record.__name__} ({field} is missing)" in refusal(tmp_path / "rows.jsonl", record, tree)


@pytest.mark.parametrize("record", LEAST)
@pytest.mark.parametrize("tree", [3, "x", None, [1], []])
def test_a_line_that_is_no_object(record: type, tree: Any, tmp_path: Path) -> None:
    sentence = refusal(tmp_path / "rows.jsonl", record, tree)
    assert sentence.count("\n") == 0 and f"line 2 is no {record.__name__} ({tree!r} is no object)" in sentence


@pytest.mark.parametrize("least", LEAST.values(), ids=lambda record: type(record).__name__)
def test_a_torn_last_line_is_dropped(least: Any, tmp_path: Path) -> None:
    """Cut at any byte of its last line, a file holds its first record; what is appended then stands on its own line."""
    path, record = tmp_path / "rows.jsonl", type(least)
    first = json.dumps(least.to_json()).encode() + b"\n"
    last = json.dumps({**least.to_json(), "defect": "찍힘"}, ensure_ascii=False).encode()
    for length in range(len(last)):
        path.write_bytes(first + last[:length])
        assert read_records(path, record) == [least]
    append_records(path, [least])
    assert read_records(path, record) == [least, least] and path.read_bytes() == first + first
    path.write_bytes(first + last)  # whole but for its end: it counts
    assert read_records(path, record) == [least, replace(least, defect="찍힘")]


def test_no_file_holds_no_records(tmp_path: Path) -> None:
    for record in LEAST:
        assert read_records(tmp_path / "gone.jsonl", record) == []  # type: ignore[type-var]
