"""Everything that a report shows, read from the run folder once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flawsmith.config import Config, affecting
from flawsmith.data.split import Split
from flawsmith.files import read_json, reading
from flawsmith.reporting.contact_sheets import ContactSheet, contact_sheets, reject_sheets
from flawsmith.reporting.exactness import Exactness, compare_all
from flawsmith.reporting.sweep import Sweep, read_sweep
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.records import Sample
from flawsmith.run.review import reviews

REJECTS = 6
"""Samples on a sheet of what was rejected for one reason."""
MOST_ROWS = 240
"""Samples on all sheets of a report together: a page with more pictures is slow in every browser."""


@dataclass(frozen=True, slots=True)
class DefectCounts:
    """What became of one product's samples of one defect type."""

    product: str
    defect: str
    shots: int
    test: int
    planned: int
    kept: int
    """Samples that stand, of the type that people say they are."""
    rejected: int
    """Generated samples that the gate rejected, and nobody took back."""
    turned_down: int
    """Generated samples that people rejected."""
    generated_shares: tuple[float, ...]
    """Painted share of the asked mask, 0 to 1, per generated sample."""
    given_up_shares: tuple[float, ...]
    """The same per sample that was given up."""
    given_up_because: Mapping[str, int]
    """Status of samples that were given up -> how many, the commonest first."""

    @property
    def generated(self) -> int:
        """Samples that have a picture."""
        return len(self.generated_shares)

    @property
    def given_up(self) -> int:
        """Samples that were tried and not generated."""
        return len(self.given_up_shares)

    @property
    def open(self) -> int:
        """Samples that were planned and not tried yet."""
        return max(0, self.planned - self.generated - self.given_up)


class BackboneFacts(NamedTuple):
    """The backbone that the generator was trained on."""

    name: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a report shows."""

    run: Run
    split: Split
    backbone: BackboneFacts | None
    """None = the generator uses none, or is not trained yet."""
    defects: tuple[DefectCounts, ...]
    exact: Exactness
    sheets: tuple[ContactSheet, ...]
    """One per product and defect type."""
    screened: bool
    """Whether the gate judged the samples that the run has now."""
    rejects: tuple[ContactSheet, ...]
    """One per product and reason."""
    sweep: Sweep | None
    losses: dict[str, list[float]]
    """Trained model, a folder below weights/ -> loss per training step."""

    @property
    def products(self) -> list[str]:
        """The products, in order."""
        return sorted({defect.product for defect in self.defects})

    def total(self, name: str) -> int:
        """Return the sum of a number of `DefectCounts` over all defect types."""
        return sum(getattr(defect, name) for defect in self.defects)


def collect(run: Run) -> Facts:
    """Read a run folder, compare all samples with their photographs, and cut the contact sheets.

    Raises:
        RunError: the photographs were not divided yet, or a file of the run is damaged.
    """
    split = load_split(run)
    defects = _count(run, split)
    rows = min(run.config.report.per_defect, max(1, MOST_ROWS // max(1, len(defects))))
    backbone = run.record("train").get("backbone")
    return Facts(
        run,
        split,
        BackboneFacts(str(backbone["name"]), str(backbone["fingerprint"])) if backbone else None,
        defects,
        compare_all(run, {example.id: example for example in split.normals}),
        contact_sheets(run, split, rows),
        run.verdicts() is not None,
        reject_sheets(run, split, min(rows, REJECTS)),
        read_sweep(run, {example.id: example for example in (*split.normals, *split.shots)}),
        _losses(run),
    )


def changed_settings(config: Config) -> list[tuple[str, Any, Any]]:
    """Return (key, value, default) of every setting that is not its default, keys as for `--set`."""
    defaults = affecting(Config())
    return [(key, value, defaults[key]) for key, value in affecting(config).items() if value != defaults[key]]


def _count(run: Run, split: Split) -> tuple[DefectCounts, ...]:
    shots = Counter((shot.product, shot.defect or "") for shot in split.shots)
    test = Counter((example.product, example.defect or "") for example in split.test_defects)
    planned = run.planned()
    samples: dict[tuple[str, str], list[Sample]] = {}
    everyone = run.samples()
    for sample in everyone:
        samples.setdefault((sample.product, sample.defect), []).append(sample)
    stand = {sample.index: sample for sample in run.kept(partly=True)}
    kept = Counter((sample.product, sample.defect) for sample in stand.values())
    verdicts, decided = run.verdicts() or {}, reviews(run.folder, [one for one in everyone if one.made])
    by_people = {index for index, review in decided.items() if review.word == "reject"}
    by_gate = {index for index, one in verdicts.items() if not one.kept and index not in stand} - by_people
    counts = []
    for key in sorted({*shots, *test, *planned, *samples}):
        generated = [sample for sample in samples.get(key, ()) if sample.made]
        given_up = [sample for sample in samples.get(key, ()) if not sample.made]
        counts.append(
            DefectCounts(
                *key,
                shots[key],
                test[key],
                planned[key],
                kept[key],
                sum(sample.index in by_gate for sample in generated),
                sum(sample.index in by_people for sample in generated),
                tuple(sample.painted_share for sample in generated),
                tuple(sample.painted_share for sample in given_up),
                dict(Counter(sample.status for sample in given_up).most_common()),
            )
        )
    return tuple(counts)


def _losses(run: Run) -> dict[str, list[float]]:
    root = run.path("weights")
    losses = {}
    for path in sorted(root.glob("**/losses.json")):
        tree = read_json(path)
        with reading(path, "delete it"):
            losses[path.parent.relative_to(root).as_posix()] = [float(value) for value in tree["losses"]]
    return losses
