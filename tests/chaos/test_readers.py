"""Fuzzed files of every sort that is read: what is returned, or one sentence that names the file, in little time.

The corpus (make_corpus.py) is our own. Unlike commands, readers are called in this process: thousands of times.
"""

from __future__ import annotations

import json
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import HOSTILE_TEXT, Edit, edits_of_bytes, edits_of_json, values, with_checksums
from hypothesis import given, settings
from hypothesis import strategies as st
from tally import TALLY, often

from flawsmith.config import Config, load_config, overridden
from flawsmith.config.settings import sections
from flawsmith.data import images
from flawsmith.data.annotations.parts import READERS, Part, marked_pictures
from flawsmith.data.masks.stored import decode_mask
from flawsmith.errors import FlawsmithError
from flawsmith.files import append_lines, read_json, read_lines
from flawsmith.nn.weights import load_tensors
from flawsmith.run.records import PlanLine, Sample, Verdict, read_records

CORPUS = Path(__file__).with_name("corpus")
PICTURES = sorted(path.name for path in CORPUS.iterdir() if path.suffix in images.SUFFIXES)
ANNOTATIONS = {"coco": "coco.json", "labelme": "labelme.json", "label_studio": "label_studio.json", "yolo": "yolo.txt"}
SECONDS = 20.0
"""Within which a file of a few hundred bytes is read or refused, also on a busy machine."""
EDITS = st.lists(edits_of_bytes(), min_size=1, max_size=3)
JSON_EDITS = st.one_of(st.lists(edits_of_json(), min_size=1, max_size=2), edits_of_bytes().map(lambda edit: [edit]))


@contextmanager
def in_time() -> Iterator[None]:
    def late(*_: Any) -> None:
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def read(what: str, path: Path, reader: Callable[[Path], Any]) -> Any:
    """Return what a reader makes of a file, None when it refuses it in one sentence that names it."""
    try:
        with in_time(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = reader(path)
    except FlawsmithError as error:
        TALLY.tried(what, refused=True)
        assert path.name in str(error) and "\n" not in str(error), str(error)
        str(error).encode("utf-8", "surrogatepass")
        return None
    TALLY.tried(what)
    return made


def edited(source: str, edits: list[Edit], folder: Path) -> Path:
    raw = (CORPUS / source).read_bytes()
    for edit in edits:
        try:
            raw = edit(raw)
        except ValueError:  # after an edit of its bytes it is no JSON any more
            break
    path = folder / source
    path.write_bytes(raw)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


@pytest.mark.parametrize("name", PICTURES)
def test_the_corpus_is_read(name: str) -> None:
    assert images.read(CORPUS / name).shape[:2] in ((12, 12), (16, 16))
    assert decode_mask(CORPUS / name).values.indices().size


@pytest.mark.parametrize("form", ANNOTATIONS)
def test_annotations_of_the_corpus_are_read(form: str) -> None:
    pictures = READERS[form](CORPUS / ANNOTATIONS[form])
    marked = [one for picture in pictures.values() for one in picture.marked]
    assert len(marked) >= 2 and all(one.draw((12, 12)).any() for one in marked)


@settings(max_examples=often(150, 4000))
@given(name=st.sampled_from(PICTURES), edits=EDITS, mended=st.booleans())
def test_pictures(name: str, edits: list[Edit], mended: bool, folder: Path) -> None:
    path = edited(name, edits, folder)
    if mended and path.suffix == ".png":
        path.write_bytes(with_checksums(path.read_bytes()))
    header = read("a fuzzed header", path, images.describe)
    pixels = read("a fuzzed picture", path, images.read)
    if pixels is not None:
        assert header is not None and header.shape == pixels.shape[:2]
        assert pixels.dtype in (np.uint8, np.uint16, np.float32)
    mask = read("a fuzzed mask", path, decode_mask)
    assert mask is None or mask.values.indices().max() < len(mask.values.levels)


def drawn(form: str, path: Path) -> list[np.ndarray]:
    """Read an annotation file and draw all that is in it, as a run does for its masks."""
    made = []
    for key, picture in marked_pictures(form, path).items():
        for defect in picture.defects:
            part = Part(path, form, key, defect)
            made += part.drawn(CORPUS / "grey.png", picture.size if picture.size == (12, 12) else (12, 12))
    return made


@settings(max_examples=often(100, 3000))
@given(form=st.sampled_from(sorted(ANNOTATIONS)), edits=JSON_EDITS)
def test_annotations(form: str, edits: list[Edit], folder: Path) -> None:
    if form == "yolo":
        edits = [edit for edit in edits if edit.__qualname__.startswith("edits_of_bytes")]
    path = edited(ANNOTATIONS[form], edits, folder)
    made = read(f"a fuzzed file of {form}", path, lambda file: drawn(form, file))
    assert made is None or all(mask.shape == (12, 12) and mask.dtype == np.bool_ for mask in made)


@settings(max_examples=often(60, 2000))
@given(name=st.sampled_from(["all.toml", "tables.toml"]), edits=EDITS)
def test_toml(name: str, edits: list[Edit], folder: Path) -> None:
    path = edited(name, edits, folder)
    try:
        with in_time(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = load_config(path)
    except FlawsmithError as error:
        TALLY.tried("a fuzzed TOML file", refused=True)
        assert str(error).strip()
    else:
        TALLY.tried("a fuzzed TOML file")
        assert overridden(made, {}) == made


FIELDS = sorted({f"{name}.{key}" for name, section in sections(Config()) for key in type(section).model_fields})
TREES = st.recursive(
    values(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(HOSTILE_TEXT), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=often(60, 2000))
@given(key=st.one_of(st.sampled_from(FIELDS), st.sampled_from(HOSTILE_TEXT)), value=TREES)
def test_values_of_settings(key: str, value: Any) -> None:
    """Every setting with every sort of value: what is taken can be written as JSON and read again."""
    try:
        with in_time(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = load_config(None, {key: value})
    except FlawsmithError as error:
        TALLY.tried("a value of a setting, in Python", refused=True)
        assert str(error).strip()
    else:
        TALLY.tried("a value of a setting, in Python")
        tree = json.loads(json.dumps(made.model_dump(mode="json"), allow_nan=False))
        assert overridden(made, {}).model_dump(mode="json") == tree


@settings(max_examples=often(60, 2000))
@given(edits=JSON_EDITS, row=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2))
def test_json_lines(edits: list[Edit], row: dict[str, str], folder: Path) -> None:
    """Whatever is read before lines are appended is read after it, too, and the new line behind it."""
    path = edited("rows.jsonl", edits, folder)
    before = read("fuzzed JSON lines", path, read_lines)
    read("fuzzed JSON", path, read_json)
    for record in (PlanLine, Sample, Verdict):
        read("fuzzed records", path, lambda file: read_records(file, record))  # noqa: B023
    if before is None:
        return
    try:
        row = {key.encode("utf-8", "replace").decode(): value for key, value in row.items()}
        append_lines(path, [row])
    except UnicodeEncodeError:
        return  # half a character
    assert repr(read_lines(path)) == repr([*before, row])  # NaN is unequal to itself


@settings(max_examples=often(40, 1000))
@given(edits=EDITS)
def test_weights(edits: list[Edit], folder: Path) -> None:
    path = edited("weights.safetensors", edits, folder)
    made = read("fuzzed weights", path, load_tensors)
    assert made is None or all(tensor.numel() <= 6 for tensor in made[0].values())
