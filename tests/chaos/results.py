"""What a run made: the files that must be equal, byte for byte, however it came to its end."""

from __future__ import annotations

import re
from pathlib import Path

MADE = ("weights/**/*", "plan.jsonl", "samples*.jsonl", "samples/*", "controls*.jsonl", "controls/*", "gate/**/*",
        "scores.jsonl", "rounds.json", "repaired/*", "metrics.json", "proof.json", "arms/**/*", "export/**/*",
        "report/*", "report.md", "data.json")  # fmt: skip
TIMES = re.compile(rb"### Times.*|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.DOTALL)


def results(run: Path, *names: str | Path) -> dict[str, bytes]:
    """Return the content of all that is made, without times and without the name of the run's folder.

    Args:
        run: The run.
        names: Where it lay before, which its files may say, too.
    """
    paths = {path for pattern in MADE for path in run.glob(pattern) if path.is_file()}
    made = {}
    for path in paths:
        raw = path.read_bytes()
        for name in (run, *names):
            raw = raw.replace(str(name).encode(), b"RUN")
        made[path.relative_to(run).as_posix()] = TIMES.sub(b"", raw)
    return made


def differing(made: dict[str, bytes], wanted: dict[str, bytes]) -> list[str]:
    """Return the files that only one of two runs has, or that differ."""
    return sorted(name for name in made.keys() | wanted.keys() if made.get(name) != wanted.get(name))
