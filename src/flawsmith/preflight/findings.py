"""What `check` found: plain values that can be printed, saved or tested."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flawsmith.errors import Answer, FlawsmithError, first_few

if TYPE_CHECKING:
    from flawsmith.preflight.plan_cost import SetFacts

COLUMNS = (
    "lacks: pictures fewer than the largest type has; damaged: share of the picture; thick px: thickness of the damage "
    "in the photograph; as drawn: the same at the size at which a generator works"
)
"""What the columns of the table of defects say."""


@dataclass(frozen=True, slots=True)
class DefectFacts:
    """One product's defect type, or its normal parts (`defect` = "")."""

    product: str
    defect: str
    pictures: int
    shots: int
    test: int
    lacks: int = 0
    """Pictures that are missing to the product's largest defect type."""
    share: float | None = None
    """Median damaged share of the picture."""
    thickness: float | None = None
    """Median over the pictures of the damage's greatest thickness, in native px."""
    drawn: float | None = None
    """The same in px at the model's working size."""


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """One product's photographs."""

    product: str
    pictures: int
    width: tuple[int, float, int]
    """Least, median, greatest."""
    height: tuple[int, float, int]
    formats: dict[str, int]
    """E.g. {"8-bit grey JPEG": 1344}."""


@dataclass(slots=True)
class Findings:
    """The result of `check`: plain values, so that it can be printed, saved or tested."""

    root: Path
    layout: str
    defects: list[DefectFacts] = field(default_factory=list)
    pictures: list[PictureFacts] = field(default_factory=list)
    parts: dict[str, dict[str, float]] = field(default_factory=dict)
    """Of each product that is a part on a backdrop: the normal photographs that were looked at, and what share of each
    the part covers; 1 where none was found."""
    files: Mapping[str, int] = field(default_factory=dict)
    """What became of every file below the root: use, or the reason why not -> number of files."""
    facts: SetFacts | None = None
    """What other plans for the set are estimated from; None = nothing can be."""
    estimate: dict[str, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    """What would stop a run, or make its numbers worthless."""
    warnings: list[str] = field(default_factory=list)
    """What makes a run worse than it could be."""
    notes: list[str] = field(default_factory=list)
    """Where the split's rule had to bend."""
    answers: dict[str, tuple[Answer, ...]] = field(default_factory=dict)
    """Settings that answer an error or a warning, by its sentence, which names them; one of them is enough."""

    def refuse(self, error: FlawsmithError) -> None:
        """Add what an error says, a sentence per line, unless it is said already."""
        sentences = dict.fromkeys(str(error).splitlines(), error.answers)
        self.add_errors({sentence: answers for sentence, answers in sentences.items() if sentence not in self.errors})

    def add_errors(self, sentences: Mapping[str, tuple[Answer, ...]]) -> None:
        """Add errors, each with the settings that answer it."""
        self.errors += sentences
        self._add_answers(sentences)

    def add_warnings(self, sentences: Mapping[str, tuple[Answer, ...]]) -> None:
        """Add warnings, each with the settings that answer it."""
        self.warnings += sentences
        self._add_answers(sentences)

    def _add_answers(self, sentences: Mapping[str, tuple[Answer, ...]]) -> None:
        self.answers |= {sentence: answers for sentence, answers in sentences.items() if answers}

    def to_json(self) -> dict[str, Any]:
        """Return everything that is said as values that JSON has."""
        tree = asdict(self)
        del tree["facts"]
        return tree | {"root": self.root.as_posix(), "files": dict(self.files), "ok": self.ok}

    @property
    def ok(self) -> bool:
        """True: a run can start."""
        return not self.errors

    def render(self, console: Console, spoken: Callable[[str], str] = str) -> None:
        """Print tables and sentences; `spoken` gives each in the reader's language."""
        console.print(f"{self.root} (layout {self.layout})", markup=False, highlight=False)
        if self.files:
            table = Table(title=spoken("files"), title_justify="left", show_header=False, show_footer=True)
            table.add_column(footer=Text(spoken("all")))
            table.add_column(justify="right", footer=str(sum(self.files.values())))
            for use, number in self.files.items():
                table.add_row(Text(spoken(use)), str(number))
            console.print(table)
        if self.defects:
            console.print(_defect_table(self.defects, spoken))
            if any(one.defect for one in self.defects):
                console.print(spoken(COLUMNS), style="dim", markup=False, highlight=False, soft_wrap=True)
        if self.pictures:
            console.print(_picture_table(self.pictures, spoken))
        if self.estimate:
            table = Table(title=spoken("what a run would cost"), title_justify="left", show_header=False)
            for name, value in self.estimate.items():
                table.add_row(spoken(name), Text(spoken(value)))
            console.print(table)
        for style, word, sentences in (
            ("red", "error", self.errors),
            ("yellow", "warning", self.warnings),
            ("dim", "note", self.notes),
        ):
            for sentence in sentences:
                # File names may hold [brackets], which rich would take for markup.
                line = f"{spoken(word)}: {spoken(sentence)}"
                console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
        if self.ok:
            console.print(spoken("ready: nothing here would stop a run"), style="green")
        else:
            count = "1 error" if len(self.errors) == 1 else f"{len(self.errors)} errors"
            console.print(spoken(f"not ready: {count} to put right first"), style="bold red")


def _defect_table(defects: Sequence[DefectFacts], spoken: Callable[[str], str]) -> Table:
    # No lines between the columns: on 80 characters, as in a log, there is room for words then.
    table = Table(title=spoken("defects"), title_justify="left", box=SIMPLE_HEAD, padding=0)
    for name in ("product", "defect"):
        longest = max(len(getattr(one, name)) for one in defects)
        table.add_column(spoken(name), overflow="fold", min_width=min(max(longest, 8), 16))
    for name in ("pictures", "to learn", "to test", "lacks", "damaged", "thick px", "as drawn"):
        table.add_column(spoken(name), justify="right", no_wrap=" " not in name)
    for one in defects:
        table.add_row(
            Text(one.product),
            Text(one.defect or spoken("(normal)")),
            str(one.pictures),
            str(one.shots),
            str(one.test),
            str(one.lacks) if one.defect else "",
            "" if one.share is None else f"{100 * one.share:.2g} %",
            "" if one.thickness is None else f"{one.thickness:.0f}",
            "" if one.drawn is None else f"{one.drawn:.0f}",
        )
    return table


def _picture_table(pictures: Sequence[PictureFacts], spoken: Callable[[str], str]) -> Table:
    table = Table(title=spoken("photographs"), title_justify="left")
    for name in ("product", "pictures", "width", "height", "formats"):
        table.add_column(spoken(name))
    for one in pictures:
        formats = ", ".join(f"{number} {spoken(name)}" for name, number in one.formats.items())
        table.add_row(Text(one.product), str(one.pictures), _span(one.width), _span(one.height), formats)
    return table


def _span(values: tuple[int, float, int]) -> str:
    least, middle, most = values
    return str(least) if least == most else f"{least} .. {middle:.0f} .. {most}"


def grouped(problems: Iterable[tuple[str, str]], one: str, many: str) -> list[str]:
    """Return one sentence per sort of problem, with the first names and the count, instead of one per file.

    Args:
        problems: (name of the file, what is wrong with it).
        one: What is said of a single file, e.g. "1 picture cannot be used".
        many: The same of several, e.g. "{} pictures cannot be used".
    """
    groups: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name, problem in problems:
        groups["".join(letter for letter in problem if not letter.isdigit())[:40]].append((name, problem))
    sentences = []
    for members in groups.values():
        name, problem = members[0]
        if len(members) == 1:
            sentences.append(f"{name}: {one}: {problem}")
        else:
            names = first_few([name for name, _ in members])
            sentences.append(f"{names}: {many.format(len(members))}: {problem}")
    return sentences
