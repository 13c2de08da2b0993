"""What scripts write into docs/ is what the code and the results say today: pictures, and the tables of methods."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def script(name: str) -> ModuleType:
    """Return a script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look it up there
    spec.loader.exec_module(module)
    return module


draw, figures, tables = script("draw"), script("generator_figures"), script("write_tables")
studio_figures = script("studio_figures")


@pytest.mark.parametrize("file", sorted(draw.PICTURES))
def test_the_pictures_are_of_today(file: str) -> None:
    picture = (DOCS / file).read_text(encoding="utf-8")
    assert picture == draw.PICTURES[file](), f"docs/{file} is out of date; run `python docs/draw.py`"


def test_every_room_says_what_it_is_for() -> None:
    from test_floors import FLOORS

    for _, rooms in FLOORS:
        for room in rooms:
            assert 10 < len(draw.purpose(room)) < 90, f"{room}: its first docstring line is what the picture shows"


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_the_tables_of_methods_are_of_today(page: Path) -> None:
    message = f"{page} is out of date; run `python docs/write_tables.py`"
    assert page.read_text(encoding="utf-8") == tables.with_tables(page), message


def test_the_korean_tables_have_the_english_figures_and_no_english_words() -> None:
    english = tables.tables()
    korean = tables.in_korean(english)
    for one, other in zip(english.split("\n\n"), korean.split("\n\n"), strict=True):
        rows = zip(one.split("\n"), other.split("\n"), strict=True) if one.startswith("|") else [(one, other)]
        for row, said in rows:
            assert sorted(re.findall(r"[-+]?\d[\d.]*\d|\d", row)) == sorted(re.findall(r"[-+]?\d[\d.]*\d|\d", said))
            assert row.count("|") == said.count("|")
    for row in korean.split("\n"):
        if row.startswith("|"):
            words = set(re.findall("[A-Za-z]{3,}", re.sub(r"`[^`]*`|\w+\.json", "", row)))
            assert words <= {"AUROC", "DRAEM"}, row
    with pytest.raises(SystemExit, match="PHRASES lacks the Korean of 'many new words'"):
        tables.in_korean("| many new words | 3 |")


def test_the_figures_of_the_studio_are_of_today() -> None:
    page = studio_figures.PAGE.read_text(encoding="utf-8")
    assert page == studio_figures.with_figures(page), (
        "docs/studio.md is out of date; run `python docs/studio_figures.py`"
    )


def test_every_generator_has_a_row_and_every_dash_a_reason() -> None:
    from flawsmith import registry

    needs, worth = list(tables.needs())[2:], list(tables.worth())[2:]
    known = sorted(name for name in registry.entries("generators") if registry.is_ours("generators", name))
    for rows in (needs, worth):
        assert sorted(row.split("`")[1] for row in rows) == known
    for row in needs:
        for cell in row.strip("| ").split("|"):
            assert "–" not in cell or re.search("– [a-z]", cell), row
    for row in worth:
        assert "–" not in row or re.search("– [a-z]", row), row


def test_a_figure_of_the_tables_is_that_of_its_result() -> None:
    """One cell by hand: the difference of crop_paste to the shots alone on the tiles, and its interval."""
    tree = figures.result("proof.json")["magnetic-tile"]["proof"]["products"]["magnetic-tile"]
    (row,) = [
        row
        for row in tree["comparisons"]
        if (row["arm"], row["against"], row["task"], row["defect"])
        == ("crop_paste", "real-only", "localization", "mean over defect types")
    ]
    value = tree["arms"]["crop_paste"]["figures"]["localization"]["mean over defect types"]["ap"]["mean"]
    cell = f"{100 * value:.1f} ({100 * row['difference']:+.1f} [{100 * row['low']:+.1f}, {100 * row['high']:+.1f}])"
    (line,) = [line for line in tables.worth() if line.startswith("| `crop_paste`")]
    assert cell in line and figures.judged("proof.json", "no such run", "ours") is None


def test_a_missing_result_is_a_dash_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    results_are(monkeypatch, {})
    rows = {row.split("`")[1]: row for row in list(tables.worth())[2:]}
    assert "– its proof is not there yet" in rows["controlnet_inpaint"]
    assert "– zero_shots.json is not there yet" in rows["rendered"] and not list(tables.few_shots())
    assert all("– not measured" in row for row in list(tables.needs())[2:])


def results_are(monkeypatch: pytest.MonkeyPatch, results: dict[str, Any]) -> None:
    for module in (figures, tables):
        monkeypatch.setattr(module, "result", lambda file: results.get(file, {}))


def test_generators_without_shots_are_compared_with_what_they_were_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def arm(pixels: float) -> dict[str, Any]:
        return {"localization": {"mean over defect types": {"mean": pixels}}}

    def row(arm: str, against: str, difference: float) -> dict[str, Any]:
        told = {"task": "localization", "defect": "mean over defect types", "verdict": "helps"}
        return {"arm": arm, "against": against, "difference": difference, "low": 0.01, "high": 0.2, **told}

    arms = {"normal parts": 0.2, "rendered": 0.25, "1 shot": 0.3, "1 shot + rendered": 0.37}
    arms |= {"10 shots": 0.4, "10 shots + rendered": 0.49}
    pairs = (("rendered", "normal parts", 0.05), ("1 shot + rendered", "1 shot", 0.07))
    entry = {
        "arms": {name: arm(pixels) for name, pixels in arms.items()},
        "comparisons": [row(*pair) for pair in (*pairs, ("10 shots + rendered", "10 shots", 0.09))],
        "samples": {"rendered": 300},
        "seconds_per_sample": {"rendered": 0.061},
        "test_pictures": 105,
        "seeds": 2,
        "budget": 0.3,
    }
    results_are(monkeypatch, {"zero_shots.json": {"screw": entry}})
    (line,) = [line for line in tables.worth() if line.startswith("| `rendered`")]
    assert "memory_probe at 0.3 of its training" in line and "300 samples, 105 test pictures, 2 seeds" in line
    assert "| – not run | – not run | 49.0 (+9.0 [+1.0, +20.0]): helps* | – not run |" in line
    few = list(tables.few_shots())[2:]
    assert [line.split(" | ")[1] for line in few] == ["0", "1"]
    assert "25.0 (+5.0 " in few[0] and "37.0 (+7.0 " in few[1]
    assert figures.seconds_of("rendered") == "0.06 (b)"
