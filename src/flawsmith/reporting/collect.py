"""What a report says, gathered from the run folder as plain values: `page` and `report` write it down."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from flawsmith.config import Config, affecting
from flawsmith.data.split import Split
from flawsmith.files import read_json, read_lines
from flawsmith.reporting.contact_sheets import Sheet, make_sheets, reject_sheets
from flawsmith.reporting.exactness import Exactness, compare_all
from flawsmith.reporting.gate_rows import read_gate
from flawsmith.reporting.sweep import SweepRow, read_sweep
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run

REJECTS = 6
"""Pairs on a sheet of what was rejected for one reason."""
MOST_ROWS = 240
"""Pairs on all sheets of a report together: more makes a page that no browser opens gladly."""


@dataclass(slots=True)
class DefectFacts:
    """One row of the table of counts."""

    product: str
    defect: str
    shots: int = 0
    test: int = 0
    asked: int = 0
    made: int = 0
    rejected: int = 0
    """Generated pairs that the gate rejected."""
    reasons: Counter[str] = field(default_factory=Counter)
    """Why pairs were given up: status -> how many."""
    made_shares: list[float] = field(default_factory=list)
    """Painted share of the asked mask of each made pair, 0..1."""
    given_up_shares: list[float] = field(default_factory=list)

    @property
    def given_up(self) -> int:
        """Pairs that were tried and not kept."""
        return sum(self.reasons.values())

    @property
    def kept(self) -> int:
        """Pairs that stand."""
        return self.made - self.rejected

    @property
    def open(self) -> int:
        """Pairs that were planned and not tried yet."""
        return max(0, self.asked - self.made - self.given_up)


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a report shows."""

    run: Run
    split: Split
    data: dict[str, Any]
    """data.json."""
    manifest: dict[str, Any]
    defects: list[DefectFacts]
    exact: Exactness
    sheets: list[Sheet]
    gate: dict[str, Any] | None
    """gate.json of a screened run."""
    rejects: list[Sheet]
    """A sheet a reason."""
    sweep: tuple[str, list[SweepRow]]
    """The generator's sweep, and pairs painted at several of its values."""
    losses: dict[str, list[float]]
    """Training loss a step, by job."""
    log: list[dict[str, Any]]

    @property
    def products(self) -> list[str]:
        """The products, in order."""
        return sorted({defect.product for defect in self.defects})

    @property
    def made(self) -> int:
        """Generated pairs of all defect types."""
        return sum(defect.made for defect in self.defects)

    @property
    def kept(self) -> int:
        """Pairs of all defect types that stand."""
        return sum(defect.kept for defect in self.defects)

    @property
    def backbone(self) -> dict[str, Any] | None:
        """Name and fingerprint of the backbone, or None when the generator used none."""
        return (self.manifest.get("stages", {}).get("train") or {}).get("backbone") or None


def gather(run: Run) -> Facts:
    """Read a run folder, compare all pairs with their photographs, and cut the contact sheets.

    Raises:
        RunError: the data were not divided yet, or a file of the run is damaged.
    """
    split = load_split(run)
    defects = _count(run, split)
    rows = min(run.config.report.per_defect, max(1, MOST_ROWS // max(1, len(defects))))
    return Facts(
        run,
        split,
        read_json(run.path("data.json")),
        read_json(run.path("manifest.json")),
        defects,
        compare_all(run, {example.id: example for example in split.normals}),
        make_sheets(run, split, rows),
        read_gate(run),
        reject_sheets(run, split, min(rows, REJECTS)),
        read_sweep(run, {example.id: example for example in (*split.normals, *split.shots)}),
        _losses(run),
        read_lines(run.path("log.jsonl")),
    )


def changed_settings(config: Config) -> list[tuple[str, Any, Any]]:
    """Return (key, value, default) of every setting that is not its default, keys as for `--set`."""
    defaults = affecting(Config())
    return [(key, value, defaults[key]) for key, value in affecting(config).items() if value != defaults[key]]


_REFUSED = {
    "empty": "with no damage drawn at all",
    "overflow": "with damage drawn over too much of the window",
}
"""What a generator's own words for a refusal mean."""


def reasons(defect: DefectFacts, config: Config) -> list[str]:
    """Return why pairs of a defect type were given up or are missing, as phrases with their number."""
    told = []
    for status, number in defect.reasons.most_common():
        if status == "invisible":
            tries = config.generate.attempts
            least = f"{config.generate.min_painted:.0%}"
            told.append(f"{number} showed less than {least} of the mask {_in_tries(tries)}")
        elif status in _REFUSED:
            told.append(f"{number} {_REFUSED[status]} {_in_tries(config.generate.attempts)}")
        else:
            told.append(f"{number} {status}")
    return told + ([f"{defect.open} not made yet"] if defect.open else [])


def number_of(count: int, noun: str) -> str:
    """Return "1 pair", "2 pairs", "1,200 pairs"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def summary(facts: Facts) -> str:
    """Return the report's first paragraph."""
    config = facts.run.config
    shots = len(facts.split.shots)
    learned = number_of(shots, "real defect photograph")
    defects = number_of(sum(1 for defect in facts.defects if defect.kept), "defect type")
    of = f"{defects} of {' and '.join(facts.products)}"
    if len(facts.products) > 3:
        of = f"{defects} on {len(facts.products)} products"
    on = f" on the backbone {facts.backbone['name']}" if facts.backbone else ""
    given_up = sum(defect.given_up for defect in facts.defects)
    text = (
        f"{number_of(facts.kept, 'labelled pair')} of {of} {'was' if facts.kept == 1 else 'were'} made from {learned}"
    )
    text += f" (shots) by {config.generator.name}{on}. Each pair is a photograph of a normal part with painted damage"
    exact = facts.exact.holds and not facts.exact.whole
    text += ", and a mask that marks every changed pixel." if exact else ", and a mask."
    if facts.exact.whole:
        text += f" {number_of(facts.exact.whole, 'pair')}: the window round the damage is synthetic throughout."
    if rejected := sum(defect.rejected for defect in facts.defects):
        text += f" The quality gate rejected {number_of(rejected, 'pair')} more."
    if given_up:
        text += f" {number_of(given_up, 'pair')} {'was' if given_up == 1 else 'were'} given up; the table says why."
    if waiting := sum(defect.open for defect in facts.defects):
        text += f" {number_of(waiting, 'planned pair')} {'is' if waiting == 1 else 'are'} not made yet."
    return text


def verdict(exact: Exactness) -> str:
    """Return what the comparison of the pairs with their photographs found, in one or two sentences."""
    if not exact.pairs:
        return "No pair is made yet, so there is nothing to compare."
    with_shams = f" with {number_of(exact.controls, 'control')}" if exact.controls else ""
    compared = (
        f"{number_of(exact.pairs, 'made picture')} {'was' if exact.pairs == 1 else 'were'} read again"
        f"{with_shams} and compared "
    )
    compared += "with the photograph behind it"
    numbers = f"{number_of(exact.differing, 'pixel')} of {exact.pixels:,} outside the masks differ"
    if exact.whole:
        numbers += f" ({exact.whole:,} with synthetic windows: outside those)"
    numbers += f", {number_of(exact.empty, 'mask')} {'is' if exact.empty == 1 else 'are'} empty"
    if exact.holds:
        return f"Exact background: {compared}; {numbers}."
    return f"The exact-background check failed: {compared}; {numbers}; {number_of(len(exact.wrong), 'pair')} wrong."


def _count(run: Run, split: Split) -> list[DefectFacts]:
    defects: dict[tuple[str, str], DefectFacts] = {}

    def of(product: str, defect: str | None) -> DefectFacts:
        key = (product, defect or "")
        return defects.setdefault(key, DefectFacts(*key))

    for example in split.shots:
        of(example.product, example.defect).shots += 1
    for example in split.test_defects:
        of(example.product, example.defect).test += 1
    for line in run.plan():
        of(line.product, line.defect).asked += 1
    verdicts = run.verdicts() or {}
    for sample in run.samples():
        facts = of(sample.product, sample.defect)
        if sample.made:
            facts.made += 1
            facts.rejected += sample.index in verdicts and not verdicts[sample.index].kept
            facts.made_shares.append(sample.painted_share)
        else:
            facts.reasons[sample.status] += 1
            facts.given_up_shares.append(sample.painted_share)
    return [defects[key] for key in sorted(defects)]


def _losses(run: Run) -> dict[str, list[float]]:
    root = run.path("weights")
    found = {}
    for path in sorted(root.glob("**/losses.json")):
        found[path.parent.relative_to(root).as_posix()] = [float(value) for value in read_json(path)["losses"]]
    return found


def _in_tries(tries: int) -> str:
    return "at the only try" if tries == 1 else f"in any of {tries} tries"
