"""Every number of docs/clusters.md and docs/ray.md follows from a results file.

python tests/clusters/test_costs.py     # writes the tables anew; sentences and the formula are put right by hand
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CLUSTERS, RAY = ROOT / "docs" / "clusters.md", ROOT / "docs" / "ray.md"
PAGE = CLUSTERS.read_text()
PAIRS = 10_000_000
Rows = list[list[str]]


def results(name: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return tree


def table(heading: str, page: str = PAGE) -> Rows:
    """Return the cells of the first table below a heading, without its head."""
    lines = page.splitlines()
    first, last = _place(heading, lines)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[first:last]]


def _place(heading: str, lines: list[str]) -> tuple[int, int]:
    """Return the first line of the rows of the first table below a heading, and the line behind its last."""
    below = next(number for number, line in enumerate(lines) if line.lstrip("#").strip() == heading and line[:1] == "#")
    first = next(number for number in range(below, len(lines)) if lines[number].startswith("|")) + 2
    last = next(number for number in range(first, len(lines) + 1) if not (lines + [""])[number].startswith("|"))
    return first, last


def costs() -> Rows:
    large = results("large")
    megabytes = {(row["pixels"][0], row["colours"]): row["mb_per_pair"] for row in large["pasting"]["rows"]}
    wanted = []
    for row in large["pasting"]["rows"]:
        side, seconds = row["pixels"][0], 1 / row["pairs_per_processor_second"]
        wanted.append(("crop_paste", side, row["colours"], seconds))
    for row in large["patches"]["rows"]:
        if row["pixels"][0] == 256:
            wanted.append(("patch_synthesis", 256, row["colours"], row["patch_synthesis"]["seconds_per_pair"]))
    rows = []
    for name, side, colours, seconds in wanted:
        hours, terabytes = PAIRS * seconds / 3600, PAIRS * megabytes[side, colours] / 1e6
        rows.append([f"`{name}`", f"{side} px, {colours}", f"{seconds:.3f} s", f"{hours:,.0f}", f"{terabytes:.1f} TB"])
    return rows


def rates() -> Rows:
    scale = results("scale")
    wanted = [
        ("plan", "plan", scale["pairs_planned"]),
        ("paint", "paint", scale["pairs_made"]),
        ("start one of many shards", "one_shard_of_1000", scale["pairs_planned"]),
        ("export as `webdataset`", "export_webdataset", scale["export_webdataset"]["count"]),
    ]
    rows = []
    for words, key, count in wanted:
        part = scale[key]
        memory = [point["megabytes"] for point in part["curve"]]
        half = memory[len(memory) // 2 :]
        rate, most, grown = part["per_cpu_second"], part["megabytes_most"], max(half) - half[0]
        rows.append([words, f"{count:,}", f"{rate:,.0f}", f"{most:.0f} MB", f"{grown:.0f} MB"])
    return rows


def test_costs_of_ten_million_pairs() -> None:
    assert table("Ten million pairs") == costs()


def test_rates_of_the_simulation() -> None:
    scale = results("scale")
    assert scale["pairs_planned"] >= 100_000
    assert table("Sets larger than memory") == rates()
    assert f"planned {scale['pairs_planned']:,} pairs" in PAGE
    assert f"{scale['photographs']:,} photographs" in PAGE
    first, *_, last = scale["paint"]["curve"][1:-1]  # the last point is of a process that ends
    grown = (last["megabytes"] - first["megabytes"]) * 1024 / (last["done"] - first["done"])
    assert abs(grown) < 0.05 and "**Flat**: planning, painting" in PAGE
    opened, again = scale["open_photographs"], scale["open_photographs_again"]
    megabytes, seconds, later = opened["megabytes_most"], opened["cpu_seconds"], again["cpu_seconds"]
    assert f"{megabytes:.0f} MB and {seconds:.0f} seconds of processor time, later {later:.0f} (" in PAGE


def cores() -> Rows:
    measured = results("workers")["generators"]
    return [
        [f"`{name}`", str(row["workers"]), f"{row['pairs_per_second']:.3g}", f"{row['cpu_seconds_per_pair']:.3f} s"]
        for name, rows in measured.items()
        for row in rows
    ]


def runs_on_ray() -> Rows:
    measured = results("on_ray")
    rows = []
    for generator, part in (("`crop_paste`", "pasted"), ("`controlnet_inpaint`", "trained")):
        for name, row in measured.get(part, {"runs": {}})["runs"].items():
            stages = [row["stages"].get(stage) for stage in ("start", "train", "generate", "screen", "prove")]
            spent = [f"{stage['cpu_seconds']:.1f}" if stage else "" for stage in stages]
            lost = str(row["lost"]["batches"]) if "lost" in row else ""
            assert row.get("files_differing", 0) == 0
            same = str(row.get("files_compared", ""))
            rows.append([f"{generator}, {name}", same, lost, f"{row['cpu_seconds']:.1f}", *spent])
    return rows


def test_runs_on_ray() -> None:
    page, measured = RAY.read_text(), results("on_ray")
    assert table("Measured", page) == runs_on_ray()
    assert f"Ray takes {measured['start_of_ray']['cpu_seconds']:.1f} seconds of processor time to start" in page
    runs = measured["pasted"]["runs"]
    assert {"one process", "on ray", "on ray, a worker killed", "on ray, a node killed"} <= runs.keys()
    assert all(row["lost"]["batches"] <= 1 for row in runs.values() if "lost" in row)


def test_cores_and_cold_start() -> None:
    workers = results("workers")
    assert table("One machine") == cores()
    most = max(start["seconds"] for start in workers["cold_start"].values())
    assert all(start["loaded"] == [] for start in workers["cold_start"].values())
    assert f"has its first pair after {most:.1f} seconds" in PAGE and most <= 4


def test_the_formula_gives_the_table() -> None:
    """The page's own lines of Python, with the first row's rate."""
    code = re.split(r"```python\n", PAGE)[1].partition("```")[0]
    names: dict[str, Any] = {}
    exec(code, names)
    row = results("large")["pasting"]["rows"][0]
    assert names["pairs"] == PAIRS and abs(names["paint"] - 1 / row["pairs_per_processor_second"]) < 0.001
    scale = results("scale")
    assert abs(names["plan"] - 1 / scale["plan"]["per_cpu_second"]) < 0.0005
    assert abs(names["read"] - 1 / scale["one_shard_of_1000"]["per_cpu_second"]) < 0.00001
    assert names["megabytes"] == row["mb_per_pair"]
    hours = PAIRS * (names["paint"] + names["shards"] * names["read"]) / 3600
    assert abs(names["core_hours"] - hours) / hours < 0.01
    money = hours * names["price_of_a_core_hour"]
    assert names["money"] > money > 0


TABLES = {
    "Ten million pairs": (CLUSTERS, costs),
    "Sets larger than memory": (CLUSTERS, rates),
    "One machine": (CLUSTERS, cores),
    "Measured": (RAY, runs_on_ray),
}
"""Heading -> the page, and what makes the rows of the first table below it."""

if __name__ == "__main__":
    for heading, (page, rows_of) in TABLES.items():
        lines = page.read_text().splitlines()
        first, last = _place(heading, lines)
        lines[first:last] = [f"| {' | '.join(row)} |" for row in rows_of()]
        page.write_text("\n".join(lines) + "\n")
