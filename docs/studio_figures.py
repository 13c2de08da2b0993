"""Write the figures of docs/studio.md anew from benchmarks/results/studio.json: `python docs/studio_figures.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parents[1]
PAGE, RESULTS = HOME / "docs" / "studio.md", HOME / "benchmarks" / "results" / "studio.json"
BEGIN, END = "<!-- figures: written by docs/studio_figures.py -->\n", "<!-- end of figures -->\n"


def table(results: Mapping[str, Any]) -> str:
    """Return the table of docs/studio.md for what the suite measured."""
    paint, made, scroll, asked = (results[name] for name in ("first_paint", "candidates", "scroll", "requests"))
    machine, one, four = results["machine"], made["one"], made["four"]
    rows = [
        ("Paint can be used after", f"{paint['useful']['median']:.0f} ms (slowest {paint['useful']['most']:.0f})"),
        ("the first photograph is drawn after", f"{paint['photograph']['median']:.0f} ms"),
        ("one candidate", _timing(one)),
        ("four candidates", f"{_timing(four)}; on the page {results['on_the_page']['median']:.2f} s"),
        (
            f"{scroll['samples']:,} samples scrolled from top to end",
            f"longest frame {scroll['longest_frame_milliseconds']} ms, {scroll['most_cells']} cells at most",
        ),
        (
            f"{asked['clients_at_once']} clients at once, then {asked['requests']:,} requests",
            f"the process grows by {asked['megabytes_grown_by_clients']:.0f} and "
            f"{asked['megabytes_grown_by_requests']:.0f} MB, {asked['refused']} are refused, "
            f"{results['ended']['left']} processes are left",
        ),
    ]
    head = (
        f"Medians on a factory surface of {results['side']} px, candidates by `{results['generator']}` in a mask of "
        f"{made['mask_pixels']:,} px, on {machine['processors']} cores with a load of {machine['load_before']:g} "
        f"before and {machine['load_after']:g} after (suite `studio.py`):\n\n"
    )
    return head + "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows)


def _timing(row: Mapping[str, Any]) -> str:
    return f"{row['seconds']['median']:.2f} s, {row['processor_seconds']['median']:.2f} s of processor time"


def with_figures(text: str) -> str:
    """Return the page with the table of today's results; with none where nothing is measured yet."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    measured = "Not measured yet: suite `studio.py`.\n"
    if RESULTS.exists():
        measured = table(json.loads(RESULTS.read_text(encoding="utf-8")))
    return f"{before}{BEGIN}\n{measured}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_figures(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
