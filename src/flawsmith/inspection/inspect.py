"""Inspect a folder of photographs with a delivered model: a table of verdicts, and overlays of where. Needs no torch.

inspection.csv   path, score, threshold, verdict (ok, defect, unreadable), type, type_score, problem
overlays/        the photographs that were called defective (or all), with the anomaly map in colour
"""

from __future__ import annotations

import csv
import io
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.layouts import natural_key
from flawsmith.data.previews import fit, shown
from flawsmith.data.scaling import scaled
from flawsmith.errors import ConfigError, DataError
from flawsmith.files import write_bytes
from flawsmith.inspection.inspector import Inspection, Inspector, Runtime
from flawsmith.inspection.model import Model
from flawsmith.paths import is_hidden
from flawsmith.run.progress import progress

Overlays = Literal["defects", "all", "none"]
TABLE, OVERLAYS = "inspection.csv", "overlays"
_ENDING = "-inspection"
"""Of the folder that is written beside what was inspected."""
_COLUMNS = ("path", "score", "threshold", "verdict", "type", "type_score", "problem")
_LARGEST = 1024
"""Longer side of an overlay, px, at most."""
_LOUDEST = 0.995
"""Share of its pixels that the overlay of a defective picture may leave without colour, at most."""
_STRENGTH = 0.6
"""How opaque the colours of an overlay are, at most."""
_AHEAD = 2
"""So many pictures per worker are read before their turn to be written."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class InspectedFolder:
    """What became of a folder."""

    table: Path
    """inspection.csv."""
    pictures: int
    verdicts: dict[str, int]
    """Pictures by verdict: `ok`, `defect`, `unreadable`; "" = the model has no threshold."""
    defects: dict[str, int]
    """Pictures that were called defective, by their likeliest type."""
    problems: tuple[str, ...]
    """A sentence per picture that could not be read."""
    other_depth: int
    """Pictures of another bit depth than the model learned from."""
    seconds: float

    def sentence(self) -> str:
        """Return what to tell the user, in a few sentences."""
        called = [f"{self.verdicts.get('defect', 0)} called defective"]
        if types := [f"{count} {name}" for name, count in self.defects.items() if name]:  # "" = the model tells none
            called[0] += f" ({', '.join(types)})"
        called += [f"{self.verdicts.get('ok', 0)} ok"]
        if "" in self.verdicts:
            called = ["no verdict, for the model has no threshold; `flawsmith calibrate` sets one"]
        if unreadable := self.verdicts.get("unreadable", 0):
            called += [f"{unreadable} unreadable"]
        rate = self.pictures / max(self.seconds, 1e-6)
        pictures = "1 picture" if self.pictures == 1 else f"{self.pictures} pictures"
        text = f"{pictures} inspected ({rate:.1f}/s): {', '.join(called)}; {self.table}"
        if self.other_depth:
            text += (
                f"\n{self.other_depth} of them of another bit depth than those that the model learned from: "
                "such scores mean little"
            )
        return text


@dataclass(frozen=True, slots=True)
class _Row:
    path: Path
    inspection: Inspection | None
    """None = unreadable."""
    problem: str = ""
    other_depth: bool = False

    @property
    def verdict(self) -> str:
        return "unreadable" if self.inspection is None else self.inspection.verdict


def inspect(
    model: str | Path | Inspector,
    folder: str | Path,
    out: str | Path | None = None,
    *,
    overlays: Overlays = "defects",
    runtime: Runtime = "onnxruntime",
    workers: int = 0,
) -> InspectedFolder:
    """Inspect every picture below a folder, or one picture.

    Args:
        model: What `flawsmith deliver` wrote.
        folder: Pictures of any format and depth that flawsmith reads, sub-folders included.
        out: Where the table and the overlays go; None = `NAME-inspection` beside the folder. Files of those names that
            are there are replaced.
        overlays: Of which pictures one is written.
        runtime: What computes.
        workers: Pictures that are looked at at once; 0 = one per processor.

    Raises:
        DataError: there is no model or no picture. A picture that cannot be read stops nothing: it gets its row.
        ConfigError: a setting or a package is wrong.
    """
    if overlays not in ("defects", "all", "none"):
        raise ConfigError(f"--overlays: {overlays!r} is unknown; known: defects, all, none")
    inspector = model if isinstance(model, Inspector) else Inspector(model, runtime)
    folder = Path(folder)
    if out is None:
        here = folder.resolve()
        out = here.parent / f"{here.name if here.is_dir() else here.stem}{_ENDING}"
    out = Path(out)
    paths = pictures_below(folder)
    root = folder if folder.is_dir() else folder.parent
    for stale in (out / OVERLAYS).rglob("*.png"):  # of an earlier inspection: they would say what this one does not
        stale.unlink()
    names, begun = _overlay_names(paths, root), time.monotonic()

    def look(path: Path) -> _Row:
        try:
            picture = images.read(path)
            inspection = inspector.inspect(picture)
        except DataError as error:
            return _Row(path, None, " ".join(str(error).split()))
        if overlays == "all" or overlays == "defects" and inspection.verdict == "defect":
            images.write(out / OVERLAYS / names[path], overlay(picture, inspection, inspector.model))
        return _Row(path, inspection, other_depth=inspector.other_depth(picture))

    rows = []
    with progress("inspect", len(paths), "pictures") as advance:
        for row in in_order(look, paths, workers or os.cpu_count() or 1):
            rows.append(row)
            advance(1, row.problem and "unreadable pictures")
    write_bytes(out / TABLE, _table(rows, root).encode("utf-8-sig"))  # without the mark Excel garbles all but ASCII
    flagged = [row.inspection for row in rows if row.inspection is not None and row.verdict == "defect"]
    return InspectedFolder(
        out / TABLE,
        len(rows),
        dict(Counter(row.verdict for row in rows)),
        dict(sorted(Counter(one.defect for one in flagged).items())),
        tuple(row.problem for row in rows if row.problem),
        sum(row.other_depth for row in rows),
        time.monotonic() - begun,
    )


def pictures_below(folder: Path) -> list[Path]:
    """Return the pictures below a folder in natural order, or the one picture that is named.

    Args:
        folder: Hidden files and folders are left out, and so are the overlays of inspections.

    Raises:
        DataError: there are none.
    """
    if folder.exists() and not folder.is_dir():
        return [folder]
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder; check the path and its case")
    paths = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in images.SUFFIXES
        and not path.is_dir()
        and not is_hidden(path, folder)
        and not _is_overlay(path, folder)
    ]
    if not paths:
        raise DataError(f"{folder}: holds no picture; formats that are read: {', '.join(images.SUFFIXES)}")
    return sorted(paths, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def _is_overlay(path: Path, folder: Path) -> bool:
    """Return whether a picture below a folder is an overlay that an inspection wrote, also one that was stopped."""
    above = [folder / one for one in path.relative_to(folder).parents]
    return any(
        one.name == OVERLAYS and (one.parent.name.endswith(_ENDING) or (one.parent / TABLE).is_file()) for one in above
    )


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Do the work of many items at once and yield the results in the items' order, holding few of them."""
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(workers)
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > _AHEAD * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def overlay(picture: np.ndarray, inspection: Inspection, model: Model) -> np.ndarray:
    """Return a picture with its anomaly map in colour: uint8 (H,W,3) RGB, its longer side 1024 px at most.

    Colour begins where the map is louder than it is in all but one in a thousand pixels of normal parts, and is fullest
    at the map's greatest value. Where a picture is called defective and its map is nowhere that loud, the loudest
    pixels are shown all the same.
    """
    base = shown(picture, model.span)
    if max(base.shape[:2]) > _LARGEST:
        base = fit(base, _LARGEST)
    anomaly_map = scaled(inspection.anomaly_map, base.shape[:2])
    least = model.threshold.anomaly_map if model.threshold is not None else float(np.median(anomaly_map))
    top = float(anomaly_map.max())
    if inspection.verdict == "defect":
        least = min(least, float(np.quantile(anomaly_map, _LOUDEST)), top - 1e-6)
    level = np.clip((anomaly_map - least) / max(top - least, 1e-9), 0, 1)
    colours = cv2.applyColorMap(np.rint(128 + 127 * level).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
    share = (_STRENGTH * np.sqrt(level))[..., None]
    return np.asarray(np.rint(base * (1 - share) + colours * share), np.uint8)


def _overlay_names(paths: Iterable[Path], root: Path) -> dict[Path, Path]:
    """Return under which name below overlays/ each picture's overlay is written; no two share one."""
    relative = {path: path.relative_to(root) for path in paths}
    short = {path: str(name.with_suffix(".png")) for path, name in relative.items()}
    full = {path: f"{name}.png" for path, name in relative.items()}
    count = Counter(name.lower() for one in relative for name in {short[one], full[one]})
    return {path: Path(short[path] if count[short[path].lower()] == 1 else full[path]) for path in relative}


def _table(rows: Iterable[_Row], root: Path) -> str:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(_COLUMNS)
    for row in rows:
        # A name that is no UTF-8, out of an old archive, would lose the whole table.
        cells: list[object] = [os.fsencode(row.path.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")]
        if (one := row.inspection) is None:
            cells += ["", "", row.verdict, "", "", row.problem]
        else:
            defective = row.verdict != "ok"
            cells += [f"{one.score:.6g}", "" if one.threshold is None else f"{one.threshold:.6g}", row.verdict]
            cells += [one.defect if defective else ""]
            cells += [f"{one.probability:.4f}" if defective and one.probability is not None else ""]
            cells += ["another bit depth than the model learned from" if row.other_depth else ""]
        table.writerow(cells)
    return text.getvalue()
