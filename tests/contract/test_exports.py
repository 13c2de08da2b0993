"""Every registered exporter keeps every promise of the contract: no skip list."""

from __future__ import annotations

import os
import shutil
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from flawsmith import config, registry
from flawsmith.errors import DataError
from flawsmith.files import write_json
from flawsmith.interfaces import Exporter
from flawsmith.testing import EXPORTER_CHECKS, check_exporter, example_pictures
from flawsmith.types import Advance, Example

EXPORTERS = sorted(registry.entries("exports"))


@pytest.mark.parametrize("check", EXPORTER_CHECKS)
@pytest.mark.parametrize("name", EXPORTERS)
def test_contract(name: str, check: str) -> None:
    EXPORTER_CHECKS[check](registry.get("exports", name))


@pytest.mark.parametrize("name", EXPORTERS)
def test_an_exporter_is_a_file_of_its_name(name: str) -> None:
    assert registry.get("exports", name).__module__ == f"flawsmith.exports.{name}"


class _Copies(Exporter):
    """Copies by number and a list of what they are; the simplest that keeps every promise."""

    class Settings(config.Settings):
        """None."""

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        if not examples:
            raise DataError("nothing to export")
        rows = []
        for number, example in enumerate(examples):
            if example.defect is not None and not example.masks:
                raise DataError(f"{example.image}: has no mask")
            rows.append([example.product, example.defect])
            self.put(example, folder / self.name(number, example))
            advance()
        write_json(folder / "rows.json", rows)
        return dict(Counter(example.split for example in examples))

    def name(self, number: int, example: Example) -> str:
        return f"{number:03d}.png"

    def put(self, example: Example, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(example.image, path)


class _Undescribed(_Copies):
    class Settings(config.Settings):
        """One."""

        bits: int = 8


class _Empty(_Copies):
    """Counts and writes nothing."""

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        for _ in examples:
            advance()
        return {"train": len(examples)}


class _Miscounting(_Copies):
    def write(self, examples: Sequence[Example], folder: Path, **more: object) -> dict[str, int]:
        return {name: 2 * count for name, count in super().write(examples, folder, **more).items()}  # type: ignore[arg-type]


class _Silent(_Copies):
    """Never says how far it is."""

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        return super().write(examples, folder, destination=destination, advance=lambda count=1, note="": None)


class _Random(_Copies):
    def put(self, example: Example, path: Path) -> None:
        super().put(example, path)
        path.with_suffix(".txt").write_text(uuid.uuid4().hex)


class _Hasty(_Copies):
    """Writes where the export will lie."""

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        counts = super().write(examples, folder, destination=destination, advance=advance)
        (destination.parent / "index.txt").write_text(destination.name)
        return counts


class _Adrift(_Copies):
    """Writes into whatever directory it is started in."""

    def put(self, example: Example, path: Path) -> None:
        super().put(example, path)
        Path("last.txt").write_text(example.id)


class _Scribbling(_Copies):
    """Writes a note beside each photograph."""

    def put(self, example: Example, path: Path) -> None:
        super().put(example, path)
        example.image.with_suffix(".exported").write_text("")


class _Linking(_Copies):
    def put(self, example: Example, path: Path) -> None:
        os.link(example.image, path)


class _Pointing(_Copies):
    def put(self, example: Example, path: Path) -> None:
        path.symlink_to(example.image)


class _Unlabelled(_Copies):
    """Takes damage without a mask."""

    def write(self, examples: Sequence[Example], folder: Path, **more: object) -> dict[str, int]:
        return super().write([Example(e.id, e.image, e.product, None, (), e.split) for e in examples], folder, **more)  # type: ignore[arg-type]


class _Nameless(_Copies):
    """Refuses, and does not say what."""

    def write(self, examples: Sequence[Example], folder: Path, **more: object) -> dict[str, int]:
        if any(example.defect and not example.masks for example in examples):
            raise DataError("a mask is missing")
        return super().write(examples, folder, **more)  # type: ignore[arg-type]


class _Obliging(_Copies):
    """Writes an export of nothing."""

    def write(self, examples: Sequence[Example], folder: Path, **more: object) -> dict[str, int]:
        return super().write(examples, folder, **more) if examples else {}  # type: ignore[arg-type]


class _Folding(_Copies):
    """Puts a defect type's pictures in a folder of its name in small letters."""

    def name(self, number: int, example: Example) -> str:
        place = f"{example.product} {example.defect} {example.split}".lower().replace("/", "_")
        return f"{place}/{example.image.name}"


class _Verbatim(_Copies):
    """Names a file after its defect type, whatever that holds."""

    def name(self, number: int, example: Example) -> str:
        return f"{example.image.parts[-3]}-{(example.defect or '').replace('/', '_')}-{example.image.name}"


class _Once(_Copies):
    """Takes a photograph's first defect type for all of them."""

    def write(self, examples: Sequence[Example], folder: Path, **more: object) -> dict[str, int]:
        first = {example.image: example for example in reversed(examples)}
        return super().write(list(first.values())[::-1], folder, **more)  # type: ignore[arg-type]


class _Deaf(_Copies):
    """Goes on when it is stopped."""

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        def quiet(count: int = 1, note: str = "") -> None:
            with suppress(BaseException):
                advance(count, note)

        return super().write(examples, folder, destination=destination, advance=quiet)


class _Adding(_Copies):
    """Takes over what an older export holds."""

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        if destination.is_dir():
            shutil.copytree(destination, folder / "old")
        return super().write(examples, folder, destination=destination, advance=advance)


class _Clearing(_Copies):
    """Makes room for itself before it is done."""

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        shutil.rmtree(destination, ignore_errors=True)
        return super().write(examples, folder, destination=destination, advance=advance)


def test_the_checks_can_pass() -> None:
    check_exporter(_Copies)


FAULTS: list[tuple[type[Exporter], str, str]] = [
    (_Undescribed, "exporter_settings_round_trip", "no line of help"),
    (_Empty, "an_empty_folder_is_filled", "nothing was written"),
    (_Miscounting, "an_empty_folder_is_filled", "it counts 24 pictures of 12"),
    (_Silent, "an_empty_folder_is_filled", "`advance` counted 0 of 12 examples"),
    (_Random, "same_examples_same_bytes", "these files differ: 000.txt"),
    (_Scribbling, "sources_stay_as_they_are", "it changed the photographs"),
    (_Linking, "sources_stay_as_they_are", "it links to the photographs: 000.png"),
    (_Pointing, "sources_stay_as_they_are", "it links to the photographs: 000.png"),
    (_Hasty, "nothing_is_written_elsewhere", "outside of its folder: out/index.txt"),
    (_Adrift, "nothing_is_written_elsewhere", "outside of its folder: working/last.txt"),
    (_Unlabelled, "damage_without_a_mask_is_refused", "without a mask was exported"),
    (_Nameless, "damage_without_a_mask_is_refused", "does not name 000.png"),
    (_Obliging, "nothing_to_export_is_refused", "an export of no pictures was written"),
    (_Folding, "odd_names_are_survived", "odd names give"),
    (_Verbatim, "odd_names_are_survived", "differ in case alone"),
    (_Once, "a_photograph_with_two_types_is_written", "`advance` counted 11 of 12 examples"),
    (_Deaf, "a_crash_leaves_the_old_export", "it swallows what `advance` raises"),
    (_Adding, "a_crash_leaves_the_old_export", "in place of an older one is another"),
    (_Clearing, "a_crash_leaves_the_old_export", "the old export is not what it was"),
]


@pytest.mark.parametrize(("faulty", "check", "said"), FAULTS)
def test_the_checks_can_fail(faulty: type[Exporter], check: str, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        EXPORTER_CHECKS[check](faulty)


def test_every_check_has_a_fault() -> None:
    assert {check for _, check, _ in FAULTS} == set(EXPORTER_CHECKS)


def test_example_pictures_are_what_an_export_gets(tmp_path: Path) -> None:
    examples = example_pictures(tmp_path)
    assert len(examples) == 12 and len({example.id for example in examples}) == 12
    assert Counter(example.split for example in examples) == {"train": 4, "test": 8}
    for example in examples:
        assert example.image.is_file() and (example.defect is None) == (not example.masks)
        assert all(path.is_file() for path in example.masks)
