"""Draw the pictures of docs/architecture.md from the tables that the tests hold the code to: python docs/draw.py

    house.svg   the floors and their rooms, from FLOORS and BELOW in tests/test_floors.py
    path.svg    what each stage reads and writes, from FOLLOWS in run/stage.py and PATH below

`tests/test_floors.py` fails when a picture is not what this script draws.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from textwrap import wrap
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "src")]

WIDTH, LEFT, ROW, GAP = 1080, 120, 96, 14
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #1c2733 }
  .name { font-weight: 600; font-size: 15px }
  .side { font-size: 13px; fill: #5b6b7b }
  .small { font-size: 12px; fill: #44525f }
  .room { fill: #eef3f8; stroke: #9fb3c8 }
  .file { fill: #fdf6e7; stroke: #d9bf82 }
  .floor { fill: none; stroke: #d5dde5 }
  .arrow { fill: none; stroke: #5b7fa6; stroke-width: 1.6; marker-end: url(#tip) }
  #tip path { fill: #5b7fa6 }
  @media (prefers-color-scheme: dark) {
    svg { background: #12181f } text { fill: #e6edf3 } .side, .small { fill: #a9b6c2 }
    .room { fill: #1d2935; stroke: #4a627a } .file { fill: #2b2618; stroke: #8a7440 } .floor { stroke: #2c3844 }
  }
"""
ALONE = {
    "words": "errors, types, config, registry, files",
    "interfaces": "what a plug-in promises: read this first",
    "export": "the stage that calls the exporters",
    "doors": "the command line, Python, the pipeline",
}
"""Rooms that are files and not folders."""
PATH: tuple[tuple[str, str, str], ...] = (
    ("train", "shots and normal parts: views, encoded once; the training loop", "weights/"),
    (
        "generate",
        "plan every sample, paint window by window, paste back exactly, re-fit the mask",
        "plan.jsonl samples/ controls/",
    ),
    ("screen", "every filter scores every sample; what is lacking is planned again", "scores.jsonl gate/ rounds.json"),
    ("measure", "windows round real and made damage, every metric", "metrics.json"),
    ("prove", "detectors with and without the samples; test pictures once, at the end", "proof.json arms/"),
    ("export", "normal parts and samples, whole or not at all", "export/<format>/"),
    ("report", "every sample compared with its photograph; contact sheets", "report.html report.md"),
)
"""Stage, what it does, what it writes."""


def house() -> str:
    """Return the picture of the floors, the doors on top."""
    from test_floors import FLOORS

    rows, y = [], GAP
    for name, rooms in reversed(FLOORS):
        rows.append(f'<rect class="floor" x="{GAP}" y="{y}" width="{WIDTH - 2 * GAP}" height="{ROW}" rx="6"/>')
        rows.append(f'<text class="side" x="{GAP + 12}" y="{y + ROW / 2 + 5}">{escape(name)}</text>')
        wide = (WIDTH - LEFT - GAP - GAP * len(rooms)) / len(rooms)
        for number, room in enumerate(rooms):
            x = LEFT + number * (wide + GAP)
            rows.append(f'<rect class="room" x="{x:.0f}" y="{y + 10}" width="{wide:.0f}" height="{ROW - 20}" rx="6"/>')
            rows.append(f'<text class="name" x="{x + 10:.0f}" y="{y + 31}">{escape(room)}</text>')
            lines = wrap(purpose(room), max(12, int(wide / 7.2)))[:3]
            for line, text in enumerate(lines):
                rows.append(f'<text class="small" x="{x + 10:.0f}" y="{y + 49 + 15 * line}">{escape(text)}</text>')
        y += ROW + GAP
    return _svg("\n".join(rows), y)


def path() -> str:
    """Return the picture of the stages in their order, with what each writes into the run folder."""
    from flawsmith.run.stage import FOLLOWS

    assert [stage for stage, _, _ in PATH] == list(FOLLOWS), "PATH in docs/draw.py lacks a stage"
    first = ("photographs", "scanned, divided, every file hashed; a leak stops here", "data.json")
    rows, y, high, left, middle = [], GAP, 62, 110, 690
    for number, (stage, text, files) in enumerate((first, *PATH)):
        rows.append(f'<rect class="room" x="{left}" y="{y}" width="{middle - 60 - left}" height="{high}" rx="6"/>')
        rows.append(f'<text class="name" x="{left + 14}" y="{y + 25}">{escape(stage)}</text>')
        rows.append(f'<text class="small" x="{left + 14}" y="{y + 45}">{escape(text)}</text>')
        rows.append(
            f'<rect class="file" x="{middle}" y="{y + 8}" width="{WIDTH - middle - GAP}" height="{high - 16}" rx="6"/>'
        )
        rows.append(f'<text x="{middle + 14}" y="{y + high / 2 + 5}">{escape("  ·  ".join(files.split()))}</text>')
        rows.append(f'<path class="arrow" d="M{middle - 60} {y + high / 2} H{middle - 6}"/>')
        if number < len(PATH):
            rows.append(f'<path class="arrow" d="M{left + 60} {y + high} V{y + high + GAP + 2}"/>')
        y += high + GAP + 8
    back = GAP + (high + GAP + 8) * 2 + high / 2
    rows.append(
        f'<path class="arrow" d="M{left} {back + high + GAP + 8} h-22 V{back} h18"/>'
        f'<text class="side" x="{GAP}" y="{back + 36}">again, if</text>'
        f'<text class="side" x="{GAP}" y="{back + 52}">too few</text>'
    )
    return _svg("\n".join(rows), y)


def purpose(room: str) -> str:
    """Return what a room is for: the first sentence of its docstring."""
    if room in ALONE:
        return ALONE[room]
    text = ast.get_docstring(ast.parse((ROOT / "src/flawsmith" / room / "__init__.py").read_text(encoding="utf-8")))
    return (
        (text or "")
        .splitlines()[0]
        .rstrip(".:")
        .removesuffix(", as checks that anyone can run on a class of their own")
    )


def _svg(body: str, height: float) -> str:
    tip = (
        '<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z"/></marker>'
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}">\n'
        f"<style>{STYLE}</style>\n<defs>{tip}</defs>\n{body}\n</svg>\n"
    )


PICTURES = {"house.svg": house, "path.svg": path}

if __name__ == "__main__":
    for file, draw in PICTURES.items():
        (ROOT / "docs" / file).write_text(draw(), encoding="utf-8")
        print(f"docs/{file}")
