"""Write the figures of docs/studio.md and of its Korean page anew from benchmarks/results/studio.json.

`python docs/studio_figures.py`; then stamp the Korean page: `python docs/site/korean.py docs/ko/studio.md`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[1]
PAGE, KOREAN_PAGE = HOME / "docs" / "studio.md", HOME / "docs" / "ko" / "studio.md"
RESULTS = HOME / "benchmarks" / "results" / "studio.json"
BEGIN, END = "<!-- figures: written by docs/studio_figures.py -->\n", "<!-- end of figures -->\n"

ENGLISH = {
    "missing": "Not measured yet: suite `studio.py`.\n",
    "timing": "{clock} s, {processor} s of processor time",
    "table": """\
Medians on a factory surface of {side} px, candidates by `{generator}` in a mask of {mask_pixels} px, on {cores} cores \
with a load of {before} before and {after} after (suite `studio.py`):

| | |
|---|---|
| Paint can be used after | {useful} ms (slowest {slowest}) |
| the first photograph is drawn after | {photograph} ms |
| one candidate | {one} |
| four candidates | {four}; on the page {on_the_page} s |
| {samples} samples scrolled from top to end | longest frame {frame} ms, {cells} cells at most |
| {clients} clients at once, then {requests} requests | the process grows by {by_clients} and {by_requests} MB, \
{refused} are refused, {left} processes are left |
""",
}
KOREAN = {
    "missing": "아직 재지 않았습니다: `studio.py` 스위트.\n",
    "timing": "{clock}초, 프로세서 시간 {processor}초",
    "table": """\
가상 표면 {side}px에서 잰 값의 중앙값입니다. 후보는 {mask_pixels}px 마스크에 `{generator}`로 만들었고, \
코어 {cores}개인 PC의 부하는 재기 전 {before}, 잰 뒤 {after}였습니다(`studio.py` 스위트).

| | |
|---|---|
| 그리기를 쓸 수 있을 때까지 | {useful} ms(가장 느릴 때 {slowest}) |
| 첫 사진이 보일 때까지 | {photograph} ms |
| 후보 하나 | {one} |
| 후보 네 개 | {four}. 화면에서는 {on_the_page}초 |
| 샘플 {samples}개를 맨 위에서 끝까지 스크롤 | 가장 긴 프레임 {frame} ms, 셀은 많아야 {cells}개 |
| 접속 {clients}개를 한꺼번에, 그다음 요청 {requests}건 | 프로세스의 메모리가 {by_clients} MB와 {by_requests} MB 늘고, \
거부 {refused}건, 남은 프로세스 {left}개 |
""",
}


def table(results: Mapping[str, Any], words: Mapping[str, str] = ENGLISH) -> str:
    """Return the table of docs/studio.md for what the suite measured, in the words of one language."""
    paint, made, scroll, asked = (results[name] for name in ("first_paint", "candidates", "scroll", "requests"))
    machine, one, four = results["machine"], made["one"], made["four"]
    figures = {
        "useful": f"{paint['useful']['median']:.0f}",
        "slowest": f"{paint['useful']['most']:.0f}",
        "photograph": f"{paint['photograph']['median']:.0f}",
        "one": words["timing"].format(**_timing(one)),
        "four": words["timing"].format(**_timing(four)),
        "on_the_page": f"{results['on_the_page']['median']:.2f}",
        "samples": f"{scroll['samples']:,}",
        "frame": scroll["longest_frame_milliseconds"],
        "cells": scroll["most_cells"],
        "clients": asked["clients_at_once"],
        "requests": f"{asked['requests']:,}",
        "by_clients": f"{asked['megabytes_grown_by_clients']:.0f}",
        "by_requests": f"{asked['megabytes_grown_by_requests']:.0f}",
        "refused": asked["refused"],
        "left": results["ended"]["left"],
        "side": results["side"],
        "generator": results["generator"],
        "mask_pixels": f"{made['mask_pixels']:,}",
        "cores": machine["processors"],
        "before": f"{machine['load_before']:g}",
        "after": f"{machine['load_after']:g}",
    }
    return words["table"].format(**figures)


def _timing(row: Mapping[str, Any]) -> dict[str, str]:
    return {"clock": f"{row['seconds']['median']:.2f}", "processor": f"{row['processor_seconds']['median']:.2f}"}


def with_figures(text: str, words: Mapping[str, str] = ENGLISH) -> str:
    """Return the page with the table of today's results; with none where nothing is measured yet."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    measured = words["missing"]
    if RESULTS.exists():
        measured = table(json.loads(RESULTS.read_text(encoding="utf-8")), words)
    return f"{before}{BEGIN}\n{measured}\n{END}{after}"


if __name__ == "__main__":
    for page, words in ((PAGE, ENGLISH), (KOREAN_PAGE, KOREAN)):
        page.write_text(with_figures(page.read_text(encoding="utf-8"), words), encoding="utf-8")
