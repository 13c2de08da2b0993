"""What is done to files: hypothesis strategies of edits, on the bytes of any file and on the values of JSON."""

from __future__ import annotations

import copy
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st
from json_trees import GONE, changed, ways

HOSTILE_TEXT = (
    "", " ", ".", "..", "../victim.txt", "../../canary/victim.txt", "/etc/passwd", "C:\\x.png", "..\\x", "a\0b", "a\nb",
    "\r\n", "<script>alert(1)</script>", "\"'`$(touch x)`", "{{ 7 * 7 }}", "%s%n", "x" * 300, "x" * 5000, "\u202egnp.x",
    "\ud800", "\ufeff", "e\u0301", "찍힘", "💥", "con", "-rf", "~", "a/b", "a#coco#1#b", "NaN", "[bold]", "|a|b|",
)  # fmt: skip
"""Names that were never thought of: outside, NUL, line ends, markup, too long, right to left, half a character."""
HOSTILE_VALUES = (
    None, True, False, 0, -1, 1, 5, 2**31, 2**63, 10**30, 10**400, -0.5, 1e308, float("nan"), float("inf"), [], {},
    [[]], [None], {"": 0}, [1, "a"], {"a": {"a": {}}}, [0] * 1000,
)  # fmt: skip

EXTREME = (b"\0", b"\xff", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0" * 8)
"""Bytes that headers take for numbers at the end of their range."""
Edit = Callable[[bytes], bytes]


def values() -> st.SearchStrategy[Any]:
    """Return values that a JSON file may hold in the place of another."""
    return st.one_of(st.sampled_from(HOSTILE_TEXT), st.sampled_from(HOSTILE_VALUES), st.integers(), st.text(max_size=8))


@st.composite
def edits_of_bytes(draw: st.DrawFn) -> Edit:
    """Draw what is done to a file's bytes: bits turned, bytes put in, cut, doubled, written over."""
    sort = draw(st.sampled_from(["turn", "write", "cut", "insert", "double", "number", "end"]))
    place = draw(st.floats(0, 1))
    length = draw(st.integers(1, 64))
    content = draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(EXTREME)))

    def edit(raw: bytes) -> bytes:
        at = int(place * len(raw))
        if sort == "turn" and raw:
            at = min(at, len(raw) - 1)
            return raw[:at] + bytes([raw[at] ^ (1 << length % 8)]) + raw[at + 1 :]
        if sort == "write":
            return raw[:at] + content + raw[at + len(content) :]
        if sort == "number":  # at a whole address, where headers have their numbers
            return raw[: at // 4 * 4] + content + raw[at // 4 * 4 + len(content) :]
        if sort == "cut":
            return raw[:at] + raw[at + length :]
        if sort == "insert":
            return raw[:at] + content + raw[at:]
        if sort == "double":
            return raw[:at] + raw[at : at + length] * 2 + raw[at + length :]
        return raw[:at]

    return edit


@st.composite
def edits_of_json(draw: st.DrawFn) -> Edit:
    """Draw what is done to the values of a JSON file, or to one line of JSON lines; it stays JSON."""
    place = draw(st.integers(0, 10**6))
    line = draw(st.integers(0, 10**6))
    value = draw(st.one_of(values(), st.just(GONE)))
    sort = draw(st.sampled_from(["value", "value", "value", "key", "lines"]))

    def edit(raw: bytes) -> bytes:
        rows = raw.split(b"\n")
        try:
            tree = json.loads(raw)
            number = -1
        except ValueError:
            full = [n for n, row in enumerate(rows) if row.strip()]
            number = full[line % len(full)] if full else -1
            tree = json.loads(rows[number]) if full else {}
        if sort == "lines" and number >= 0:
            return b"\n".join([*rows[:number], rows[line % len(rows)], *rows[number:]])
        edited = with_key(tree, place, value) if sort == "key" else with_value(tree, place, value)
        text = json.dumps(edited, ensure_ascii=True).encode()
        return text if number < 0 else b"\n".join([*rows[:number], text, *rows[number + 1 :]])

    return edit


def with_value(tree: Any, number: int, value: Any) -> Any:
    """Return a tree with another value in the n-th of its places; GONE takes it out."""
    every_way = list(ways(tree))
    return changed(tree, every_way[number % len(every_way)], value)


def with_key(tree: Any, number: int, key: Any) -> Any:
    """Return a tree in which one of its tables has another key for its first value."""
    tree = copy.deepcopy(tree)
    tables = [table for table in _tables(tree) if table]
    if tables:
        table = tables[number % len(tables)]
        table[str(key)[:5000]] = table.pop(next(iter(table)))
    return tree


def _tables(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
    for inner in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        yield from _tables(inner)


def with_checksums(raw: bytes) -> bytes:
    """Return a PNG whose parts have right checksums again, so that decoders get to what was edited."""
    mended, at = raw[:8], 8
    while at + 12 <= len(raw):
        end = min(at + 12 + int.from_bytes(raw[at : at + 4], "big"), len(raw))
        body = raw[at + 4 : end - 4]
        mended += raw[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at = end
    return mended
