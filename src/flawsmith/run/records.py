"""The records that travel between stages: what is planned, what was made of it, and what the gate said of that.

    plan.jsonl                      PlanLine, one per sample, written before any is made
    samples.jsonl, controls.jsonl   Sample, one per plan line that was tried
    scores.jsonl                    Verdict, one per sample that the gate judged

Each file holds one JSON object per line. A field that has its default value is not written, so a field that comes later
changes no file of today. Nothing else in the house reads or writes these lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from flawsmith.data.masks.poses import Pose
from flawsmith.data.tiling import Window
from flawsmith.errors import RunError
from flawsmith.files import append_lines, each_line, write_lines
from flawsmith.paths import why_outside

Role = Literal["sample", "control"]
"""A sample has damage. A control (negative control) is a normal part repainted as normal, in a sample's place."""
MADE = "made"
"""Status of what was made; every other status says why it was given up."""


@dataclass(frozen=True, slots=True)
class LaidShot:
    """A shot that lends a further damage to a sample."""

    shot: str
    """Its id."""
    pose: Pose
    """How it is laid on the photograph."""

    def to_json(self) -> dict[str, Any]:
        """Return {"shot": ..., "pose": ...}."""
        return {"shot": self.shot, "pose": self.pose.to_json()}

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> LaidShot:
        """Read what `to_json` returned."""
        return _record(cls, tree, pose=lambda value: Pose.from_json(value))


@dataclass(frozen=True, slots=True)
class PlanLine:
    """One sample or control, decided before anything is made: same line, same bytes."""

    index: int
    """Its number among the lines of its role; names its files."""
    role: Role
    batch: int
    """Lines with the same number are painted together; that is part of a sample's identity, for it decides rounding."""
    job: str
    """The trained model that paints it, a folder below weights/."""
    generator: str
    """The generator that paints it."""
    product: str
    defect: str
    """Its defect type; of a control, that of the sample whose place it takes."""
    seed: int
    normal: str
    """Id of the photograph that is painted on."""
    shot: str
    """Id of the shot that lends its damage, or its statistics; "" = none does."""
    mask_source: Literal["shots", "procedural", "file", "site"]
    """A re-posed shot's mask, a drawn shape, `mask_file`, or a site: where `pose` lays the unit disc on the part."""
    mask_file: str = ""
    """With `mask_source = "file"`: a mask picture of the photograph's size."""
    pose: Pose | None = None
    """How the shot is laid on the photograph."""
    further: tuple[LaidShot, ...] = ()
    """Where a sentence asks for several: what lends the others, of the same defect type."""
    sentence: str = ""
    """What was asked for in words, by the user or by a model that looked at a photograph."""
    outline: bool = False
    """Whether the mask also takes the photograph's outline beside the shot's damage (a broken tip)."""
    appearance: str = ""
    """Words that go before the defect type in prompts, "small faint" say."""
    reference: str = ""
    """Id of the shot whose appearance the damage gets."""
    transferred_from: str = ""
    """The product that the defect type was seen on, when it is another than the one painted on."""
    round: int = 0
    """0 = the first plan, 1 = what the first screening found to be lacking, and so on."""
    control_of: int = -1
    """Index of the sample whose place a control takes."""
    donor: str = ""
    """Id of the photograph whose normal matter a control starts from."""

    @property
    def is_control(self) -> bool:
        """Whether it is a negative control."""
        return self.role == "control"

    def to_json(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        further = [one.to_json() for one in self.further]
        return _plain(self, pose=self.pose.to_json() if self.pose else None, further=further)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> PlanLine:
        """Read what `to_json` returned."""
        return _record(
            cls,
            tree,
            ("job",),
            pose=lambda value: Pose.from_json(value),
            further=lambda value: tuple(LaidShot.from_json(one) for one in value),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """What became of a plan line: a picture with its mask, or why it was given up."""

    index: int
    role: Role
    status: str
    """`made`, or why it was given up: `invisible`, or a generator's own word."""
    generator: str
    product: str
    defect: str
    normal: str
    """Id of the photograph that was painted on."""
    shot: str
    """Id of the shot that lent its damage."""
    seed: int
    attempt: int
    """How many seeds were tried before this one."""
    paint: str
    """`residual`, `replace` or `whole`: how the window came back into the photograph."""
    windows: tuple[Window, ...]
    painted_share: float
    """Share of the asked mask in which the paint shows, 0 to 1."""
    area: int
    """Pixels of the mask; 0 when nothing was made."""
    image: str = ""
    """Path of the picture below the run folder; "" = none was made."""
    mask: str = ""
    """Path of the mask below the run folder, an 8-bit picture of 0 and 255."""
    reference: str = ""
    transferred_from: str = ""
    control_of: int = -1
    donor: str = ""
    """Id of the photograph whose normal matter a control started from; it may be `normal` itself."""
    image_hash: str = ""
    """`files.file_digest` of the picture as it was written; "" = an earlier release did not say."""
    mask_hash: str = ""
    """The same of the mask."""

    @property
    def made(self) -> bool:
        """Whether there is a picture."""
        return self.status == MADE

    def to_json(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return _plain(self, windows=[window.to_json() for window in self.windows])

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Sample:
        """Read what `to_json` returned."""
        windows = {"windows": lambda value: tuple(Window.from_json(one) for one in value)}
        return _record(cls, tree, ("image", "mask"), **windows)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the gate rejected a sample."""

    score: str
    """The score that lies below its threshold."""
    text: str
    """What that means, in words."""


@dataclass(frozen=True, slots=True)
class Repair:
    """A label that was fitted anew to what changed; the sample as it was stays in samples/."""

    image: str
    """Path below the run folder."""
    mask: str
    area: int
    """Pixels of the new mask."""
    image_hash: str = ""
    """As of `Sample`."""
    mask_hash: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the gate said of one picture."""

    name: str
    """Of a run's sample its index in six digits; of anyone's picture its file name without suffix."""
    product: str
    defect: str
    kept: bool
    reasons: tuple[Reason, ...] = ()
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """Every score by name, higher is better; None = the filter cannot tell."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """The least value of each score that was judged."""
    repair: Repair | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return _plain(
            self,
            reasons=[{"score": reason.score, "text": reason.text} for reason in self.reasons],
            scores=dict(self.scores),
            thresholds=dict(self.thresholds),
            repair=_plain(self.repair) if self.repair else None,
        )

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Verdict:
        """Read what `to_json` returned."""
        return _record(
            cls,
            tree,
            reasons=lambda value: tuple(_record(Reason, one) for one in value),
            repair=repair_from,
        )


def repair_from(tree: Any) -> Repair:
    """Make a repair of its JSON values; ValueError: something is missing, unknown, or names a file elsewhere."""
    return _record(Repair, tree, ("image", "mask"))


Line = PlanLine | Sample | Verdict
L = TypeVar("L", PlanLine, Sample, Verdict)
R = TypeVar("R")


def read_records(path: Path, of: type[L]) -> list[L]:
    """Read a file of records; a torn last line (killed while writing) is dropped, [] when there is no file.

    Raises:
        RunError: a line is not JSON, or not such a record; names the line.
    """
    return list(each_record(path, of))


def each_record(path: Path, of: type[L]) -> Iterator[L]:
    """Yield the records of a file as `read_records` returns them, one at a time in memory."""
    for number, tree in enumerate(each_line(path), start=1):
        try:
            record = of.from_json(tree)
        except ValueError as error:
            what = f"line {number} is no {of.__name__} ({error})"
            raise RunError(f"{path}: {what}; delete that line and run again") from None
        yield record


def write_records(path: Path, records: Iterable[Line]) -> None:
    """Write a file of records, whole or not at all."""
    write_lines(path, (record.to_json() for record in records))


def append_records(path: Path, records: Iterable[Line]) -> None:
    """Append records in one write, so that a kill tears at most the last."""
    append_lines(path, [record.to_json() for record in records])


def _plain(record: Any, **converted: Any) -> dict[str, Any]:
    """Return a record's fields as JSON values, without those that have their default."""
    tree = {}
    for one in fields(record):
        value = getattr(record, one.name)
        default = one.default_factory() if one.default_factory is not MISSING else one.default
        if default is MISSING or value != default:
            tree[one.name] = converted.get(one.name, value)
    return tree


def _record(of: type[R], tree: Any, files: tuple[str, ...] = (), /, **converters: Callable[[Any], Any]) -> R:
    """Make a record of JSON values; fields that are not there have their default.

    Args:
        of: The record's class.
        tree: The JSON values.
        files: Fields that name a file below the run folder.
        converters: Field -> what makes its value of JSON values.

    Raises:
        ValueError: a field is missing, unknown, of another type, or names a file elsewhere; names it.
    """
    if not isinstance(tree, Mapping):
        raise ValueError(f"{tree!r} is no object")
    known = _fields(of)  # type: ignore[arg-type]
    if unknown := tree.keys() - known.keys():
        raise ValueError(f"{sorted(unknown)[0]!r} is unknown")
    values = {}
    for name, (wanted, required) in known.items():
        if name in tree:
            value, convert = tree[name], converters.get(name)
            # A set has millions of lines, and most of their values are plain: what their type says takes long to read.
            plain = convert is None and type(value) is wanted
            values[name] = value if plain else _value(name, value, wanted, convert)
            if name in files and (why := why_outside(values[name])):
                raise ValueError(f"{name} is {values[name]!r}, which {why}, and must name a file in the run folder")
        elif required:
            raise ValueError(f"{name} is missing")
    return of(**values)


@cache
def _fields(of: type) -> dict[str, tuple[Any, bool]]:
    """Return (its type, whether a record must have it) of each of a record's fields by name."""
    types = get_type_hints(of)
    missing = (one.default is MISSING and one.default_factory is MISSING for one in fields(of))
    return {one.name: (types[one.name], required) for one, required in zip(fields(of), missing, strict=True)}


def _value(name: str, value: Any, wanted: Any, convert: Callable[[Any], Any] | None) -> Any:
    """Return a field's value, checked and converted."""
    if convert is None and _fits(value, wanted):
        return value
    if convert is not None and (isinstance(value, list) or get_origin(wanted) is not tuple):
        with suppress(KeyError, TypeError, ValueError, AttributeError, IndexError):
            return convert(value)
    raise ValueError(f"{name} is {value!r}")


def _fits(value: Any, wanted: Any) -> bool:
    """Return whether a JSON value is of a field's type."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is Literal:
        return value in inner
    if origin is UnionType:
        return any(_fits(value, one) for one in inner)
    if origin is Mapping:
        return isinstance(value, dict) and all(_fits(item, inner[1]) for item in value.values())
    if wanted is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, wanted) and isinstance(value, bool) == (wanted is bool)
