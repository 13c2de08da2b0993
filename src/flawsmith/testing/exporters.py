"""The checks of exporters: `check_exporter(MyExporter)` lets it write small pictures and looks at what it left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from flawsmith.data import images
from flawsmith.errors import DataError
from flawsmith.exports.export import write
from flawsmith.interfaces import Exporter
from flawsmith.testing.settings import settings_hold
from flawsmith.types import Advance, Example

ExporterCheck = Callable[[type[Exporter]], None]
_SHAPE = (24, 32)
_PLAIN = (("screw", ("dent", "scratch", "stain")), ("tile", ("crack", "hole", "chip")))
_ODD = (("육각 나사", ("찍힘", "긁힘 얼룩", "Öl/Fett")), ("Screw", ("Crack", "crack", "good")))
"""As many names, for as many things: Korean, with spaces, equal but for case, and one that a layout may need itself."""


def example_pictures(folder: Path, names: Sequence[tuple[str, Sequence[str]]] = _PLAIN) -> list[Example]:
    """Write small photographs below a folder and return them as an export gets them: normal parts, then defects.

    Args:
        folder: Gets 8-bit PNG files, colour and grey, and masks beside the damaged ones; file names repeat.
        names: (product, its defect types); each product gets two normal parts to learn from and one held out.
    """
    rng = np.random.default_rng(3)
    normals: list[Example] = []
    damaged: list[Example] = []
    for number, (product, defects) in enumerate(names):
        shape = (*_SHAPE, 3) if number % 2 else _SHAPE
        for part, split in enumerate(("train", "train", "test")):
            path = folder / str(number) / split / f"{part:03d}.png"
            images.write(path, rng.integers(60, 200, shape).astype(np.uint8))
            normals.append(Example(path.relative_to(folder).as_posix(), path, product, None, (), split))
        for place, defect in enumerate(defects):
            path = folder / str(number) / str(place) / "000.png"
            mask = np.zeros(_SHAPE, bool)
            mask[4 + place : 12, 6:20] = True
            images.write(path, rng.integers(0, 256, shape).astype(np.uint8))
            images.write_mask(path.with_name("000.mask.png"), mask)
            name = path.relative_to(folder).as_posix()
            below = normals[-3 + place % 2].id
            label = path.with_name("000.mask.png")
            damaged.append(Example(name, path, product, defect, (label,), "test", painted_on=below))
    return normals + damaged


def exporter_settings_round_trip(plugin: type[Exporter]) -> None:
    """Settings have a default and a line of help for every field, are frozen, and survive JSON."""
    settings_hold(plugin.__name__, plugin.Settings)


def an_empty_folder_is_filled(plugin: type[Exporter]) -> None:
    """Something is written, every picture is counted once, and `advance` is called once per example."""
    with _place() as place:
        counts = _write(plugin, place.examples, place.folder, place)
        assert _files(place.folder), "nothing was written"
        total = sum(counts.values())
        assert total == len(place.examples), f"it counts {total} pictures of {len(place.examples)}: {counts}"


def same_examples_same_bytes(plugin: type[Exporter]) -> None:
    """Equal examples, settings and destination write equal files of equal bytes."""
    with _place() as place:
        _write(plugin, place.examples, place.folder, place)
        again = place.root / "again"
        again.mkdir()
        _write(plugin, place.examples, again, place)
        one, other = _files(place.folder), _files(again)
        differ = sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
        assert not differ, f"written twice, these files differ: {', '.join(differ)}"


def sources_stay_as_they_are(plugin: type[Exporter]) -> None:
    """The photographs are only read, and no exported file is a link to one: a tool may write into an export."""
    with _place() as place:
        before = _states(place.sources)
        _write(plugin, place.examples, place.folder, place)
        assert _states(place.sources) == before, "it changed the photographs"
        nodes = {path.stat().st_ino for path in place.sources.rglob("*") if path.is_file()}
        linked = [path.name for path in place.folder.rglob("*") if path.is_symlink() or path.stat().st_ino in nodes]
        assert not linked, f"it links to the photographs: {', '.join(sorted(linked))}"


def nothing_is_written_elsewhere(plugin: type[Exporter]) -> None:
    """Only the given folder changes: not the destination, what lies beside it, or the working directory."""
    with _place() as place:
        before = _states(place.root, but=place.folder)
        _write(plugin, place.examples, place.folder, place)
        after = _states(place.root, but=place.folder)
        new = sorted(name for name in after.keys() | before.keys() if after.get(name) != before.get(name))
        assert not new, f"it wrote outside of its folder: {', '.join(new)}"


def damage_without_a_mask_is_refused(plugin: type[Exporter]) -> None:
    """A damaged example without a mask is a DataError that names the picture."""
    with _place() as place:
        wrong = replace(place.examples[-1], masks=())
        try:
            _write(plugin, [*place.examples[:-1], wrong], place.folder, place)
        except DataError as error:
            assert str(wrong.image) in str(error), f"the sentence does not name {wrong.image.name}: {error}"
        else:
            raise AssertionError("a damaged picture without a mask was exported")


def nothing_to_export_is_refused(plugin: type[Exporter]) -> None:
    """An empty list is a DataError."""
    with _place() as place:
        try:
            _write(plugin, [], place.folder, place)
        except DataError:
            return
        raise AssertionError("an export of no pictures was written")


def odd_names_are_survived(plugin: type[Exporter]) -> None:
    """Names in Korean, with spaces, or equal but for case cost no file: there are as many as with plain names."""
    with _place() as plain, _place(_ODD) as odd:
        counts = [_write(plugin, place.examples, place.folder, place) for place in (plain, odd)]
        assert sum(counts[1].values()) == len(odd.examples), f"it counts {counts[1]} of {len(odd.examples)} pictures"
        one, other = (_files(place.folder) for place in (plain, odd))
        assert len(other) == len(one), f"odd names give {len(other)} files where plain names give {len(one)}"
        folded = {name.casefold() for name in other}
        assert len(folded) == len(other), "names that differ in case alone are one file on some systems"


def a_photograph_with_two_types_is_written(plugin: type[Exporter]) -> None:
    """A real shot that shows two defect types is two examples of one picture; both are counted, and neither is lost."""
    with _place() as place:
        first, second = (replace(one, painted_on="", split="train") for one in place.examples[-2:])
        shots = [first, replace(second, image=first.image)]
        counts = _write(plugin, [*place.examples[:-2], *shots], place.folder, place)
        total, most = sum(counts.values()), len(place.examples)
        assert most - 1 <= total <= most, f"it counts {total} pictures; there are {most - 1}, one of them twice"


def a_crash_leaves_the_old_export(plugin: type[Exporter]) -> None:
    """Stopped in the middle, the export that was there stays as it was; written again, it is wholly the new one."""
    with _place() as place:
        few = [example for example in place.examples if example.product == place.examples[0].product]
        write(plugin(plugin.Settings()), few, place.destination)
        before = _states(place.root, but=place.folder)
        for calls in (1, len(place.examples)):
            try:
                write(_crashing(plugin, calls), place.examples, place.destination)
            except _Crash:
                left = _states(place.root, but=place.folder)
                assert left == before, "after a crash the old export is not what it was"
            else:
                raise AssertionError("it swallows what `advance` raises, so nobody can stop it")
        write(plugin(plugin.Settings()), place.examples, place.destination)
        _write(plugin, place.examples, place.folder, place)
        assert _files(place.destination) == _files(place.folder), "an export in place of an older one is another"


EXPORTER_CHECKS: dict[str, ExporterCheck] = {
    check.__name__: check
    for check in (
        exporter_settings_round_trip,
        an_empty_folder_is_filled,
        same_examples_same_bytes,
        sources_stay_as_they_are,
        nothing_is_written_elsewhere,
        damage_without_a_mask_is_refused,
        nothing_to_export_is_refused,
        odd_names_are_survived,
        a_photograph_with_two_types_is_written,
        a_crash_leaves_the_old_export,
    )
}
"""Every check, by name."""


def check_exporter(plugin: type[Exporter]) -> None:
    """Run every check on an exporter class.

    Raises:
        AssertionError: the first promise that is not kept, as a sentence.
    """
    for check in EXPORTER_CHECKS.values():
        check(plugin)


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder of its own for a check; `folder` is empty and becomes `destination`, which is not there."""

    root: Path
    sources: Path
    folder: Path
    destination: Path
    examples: list[Example]


@contextmanager
def _place(names: Sequence[tuple[str, Sequence[str]]] = _PLAIN) -> Iterator[_Place]:
    with TemporaryDirectory() as name:
        root = Path(name)
        sources, folder, destination, working = (root / part for part in ("sources", "part", "out/export", "working"))
        for path in (sources, folder, destination.parent, working):
            path.mkdir()
        examples = example_pictures(sources, names)
        with chdir(working):  # what is written under a relative path is seen as well
            yield _Place(root, sources, folder, destination, examples)


def _write(plugin: type[Exporter], examples: Sequence[Example], folder: Path, place: _Place) -> dict[str, int]:
    calls = 0

    def advance(count: int = 1, note: str = "") -> None:
        nonlocal calls
        calls += count

    counts = plugin(plugin.Settings()).write(examples, folder, destination=place.destination, advance=advance)
    assert calls == len(examples), f"`advance` counted {calls} of {len(examples)} examples"
    return counts


class _Crash(BaseException):
    """What stops a process in the middle, as Ctrl-C does."""


def _crashing(plugin: type[Exporter], calls: int) -> Exporter:
    """Return an exporter that is stopped at so many calls of `advance`."""

    class Crashing(plugin):  # type: ignore[valid-type,misc]
        def write(
            self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
        ) -> dict[str, int]:
            left = calls

            def crash(count: int = 1, note: str = "") -> None:
                nonlocal left
                left -= count
                if left <= 0:
                    raise _Crash

            counts: dict[str, int] = super().write(examples, folder, destination=destination, advance=crash)
            return counts

    return Crashing(plugin.Settings())


def _files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _states(folder: Path, *, but: Path | None = None) -> dict[str, tuple[int, bytes]]:
    """Return time and content of every file, and every folder, but those below one."""
    paths = [path for path in folder.rglob("*") if but is None or path != but and but not in path.parents]
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes())
        if path.is_file()
        else (0, b"")
        for path in paths
    }
