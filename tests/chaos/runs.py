"""Runs on factory parts of 64 pixels: their settings, and how one is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from commands import flawsmith

from flawsmith.config import _toml

TABLE: dict[str, Any] = {
    "data.shots": 2,
    "generator.name": "crop_paste",
    "generate.count": 2,
    "generate.batch": 2,
    "screen.enabled": True,
    "screen.filters": ["alignment", "visible", "duplicates", "seam"],
    "measure.resamples": 100,
    "prove.against": [],
    "prove.curve": [],
    "prove.seeds": 1,
    "prove.size": 64,
    "prove.detectors": ["probe"],
    "prove.settings": {"probe": {"steps": 4, "places": 64, "views": 1}},
    "prove.resamples": 100,
    "export.formats": ["mvtec", "coco", "yolo"],
}
"""The settings of a run that goes through every stage in two processor seconds."""


def words_of(table: dict[str, Any]) -> list[str]:
    """Return settings as words of a command line."""
    return [word for key, value in table.items() for word in ("--set", f"{key}={_toml(value)}")]


def made_run(here: Path, table: dict[str, Any]) -> Path:
    """Make a run in a folder; return it."""
    (here / "run.toml").write_text("")
    words = ["run", here / "run.toml", "--out", here / "run", *words_of(table)]
    outcome = flawsmith(here / "log", *words, events=here / "events", below=str(here / "run"))
    assert outcome.code == 0, outcome.text
    return here / "run"
