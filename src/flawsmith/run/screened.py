"""What screening decided: its verdicts in words, and rounds.json: what it asks to be made again, what is gone.

A round names how many samples of each defect type to plan behind the others. It holds for one gate: with other
thresholds, filters or features the rounds of the gate before are taken back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from flawsmith.config import Config, affecting, differing
from flawsmith.errors import RunError
from flawsmith.files import read_json, reading, write_json
from flawsmith.run.folder import Run
from flawsmith.run.records import Verdict
from flawsmith.run.review import FILE as REVIEWS

_COMMONEST = 3
Counts = Mapping[tuple[str, str], int]
"""(product, defect type) -> how many samples."""


def read_rounds(run: Run) -> list[Counts]:
    """Return what each round after the first asks for, as far as the configuration allows; [] = none."""
    rows = _read(run)["rounds"][: run.config.screen.rounds] if run.config.screen.enabled else []
    return [{(product, defect): number for product, defect, number in row} for row in rows]


def add_round(run: Run, asked: Counts) -> None:
    """Ask for one more round behind those that the configuration allows."""
    tree, before = _read(run), len(read_rounds(run))
    row = [[product, defect, number] for (product, defect), number in sorted(asked.items())]
    write_json(run.path("rounds.json"), tree | {"rounds": [*tree["rounds"][:before], row], "discarded": []})


def forget_rounds(run: Run) -> None:
    """Take back every round: what is generated is about to be another."""
    run.path("rounds.json").unlink(missing_ok=True)


def read_discarded(run: Run) -> set[int]:
    """Return the indices of samples whose pictures were deleted on purpose."""
    part = run.config.screen
    return set(_read(run)["discarded"]) if part.enabled and not part.keep_rejected else set()


def add_discarded(run: Run, indices: set[int]) -> None:
    """Note that the pictures of samples are deleted on purpose."""
    tree = _read(run)
    gone = sorted({*tree["discarded"], *indices})
    if gone != tree["discarded"]:
        write_json(run.path("rounds.json"), tree | {"discarded": gone})


def forget_discarded(run: Run) -> None:
    """Take back that pictures were deleted on purpose: what is missing is made again."""
    tree = _read(run)
    if tree["discarded"]:
        write_json(run.path("rounds.json"), tree | {"discarded": []})


def _read(run: Run) -> dict[str, Any]:
    """Return the file's tree when it is of today's gate, else an empty one."""
    path, gate = run.path("rounds.json"), affecting(run.config, "screen")
    if path.is_file():
        tree: dict[str, Any] = read_json(path)
        with reading(path):
            tree["rounds"] = [[(str(p), str(d), int(number)) for p, d, number in row] for row in tree["rounds"]]
            tree["discarded"] = [int(index) for index in tree["discarded"]]
        if isinstance(tree.get("gate"), dict) and not differing(tree["gate"], gate, affecting(Config(), "screen")):
            return tree
    return {"gate": gate, "rounds": [], "discarded": []}


def require_kept(run: Run) -> None:
    """Refuse to go on with nothing.

    Raises:
        RunError: no sample stands; says why, with the three commonest reasons.
    """
    if run.samples() and run.kept():
        return
    verdicts = run.verdicts()
    if verdicts and not any(verdict.kept for verdict in verdicts.values()):
        raise RunError(
            f"{run.folder}: the quality gate rejected all {len(verdicts)} samples ({commonest(verdicts.values())}), so "
            "nothing is exported; look at them in report.html, then train for longer or change screen.thresholds"
        )
    raise RunError(f"{run.folder}: no sample stands, {_why_none(run, verdicts)}")


def _why_none(run: Run, verdicts: Mapping[int, Verdict] | None) -> str:
    """Return why no sample stands, where it was not the gate that rejected all."""
    samples = run.samples()
    if any(sample.made for sample in samples):
        if verdicts is not None and not verdicts:
            return f"for scores.jsonl is missing; `flawsmith screen {run.folder}` judges the samples again"
        return f"whoever reviewed the samples rejected all that were left; see {run.path(REVIEWS)}"
    planned = run.planned().total()
    if not samples:
        text = f"none of {planned} planned samples is made yet" if planned else "no sample is planned yet"
        return f"{text}; run `flawsmith generate {run.folder}` first"
    counts = Counter(sample.status for sample in samples)
    reasons = ", ".join(f"{number} {status}" for status, number in counts.most_common())
    return (
        f"none of {planned or len(samples)} samples could be used ({reasons}); train for longer, or lower "
        "generate.min_painted or generate.visible"
    )


def commonest(verdicts: Iterable[Verdict], most: int = _COMMONEST) -> str:
    """Return the commonest reasons of rejected samples with their numbers: "12 because no damage is visible; 3 ..."."""
    counts = Counter(text for one in verdicts for text in {reason.text: None for reason in one.reasons})
    return "; ".join(f"{number} because {text}" for text, number in counts.most_common(most))
