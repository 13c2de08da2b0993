"""What the layouts of labelling tools share: annotation files found below the root, and the photographs they name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flawsmith.config import DataConfig, ExamplePer, nfc
from flawsmith.data.annotations.marked import read_tree
from flawsmith.data.annotations.parts import Part, marked_pictures
from flawsmith.data.layouts.annotated.unlabelled import IF_NORMAL, Unlabelled, sounds_normal
from flawsmith.data.layouts.mask_names import of_a_tool
from flawsmith.data.layouts.reading import Gathering
from flawsmith.data.layouts.tree import Tree, is_picture, last_part
from flawsmith.errors import DataError, first_few

SPLITS = {"train": "train", "training": "train"} | dict.fromkeys(
    ("test", "testing", "val", "valid", "validation"), "test"
)
"""What the name of a folder or file says of a split; what is for validation is not learned from."""


def json_files(tree: Tree, fits: Callable[[Any], bool]) -> list[str]:
    """Return the JSON files below the root whose content is of a format."""
    return [
        file
        for file in sorted(tree.everything())
        if file.lower().endswith(".json") and file not in tree.gone and fits(read_tree(tree.path(file)))
    ]


def split_of(names: Iterable[str]) -> str:
    """Return the split that folders or the words of a file's name say; "" = none."""
    said = {SPLITS[name.casefold()] for name in names if name.casefold() in SPLITS}
    return said.pop() if len(said) == 1 else ""


def parts(form: str, path: Path, picture: str, example_per: ExamplePer) -> list[tuple[str, Path]]:
    """Return the masks of a picture, each with its defect type; a slash in a type's name becomes a hyphen, as in
    folders.

    Args:
        form: Format of the annotation file.
        path: The annotation file.
        picture: Which of its pictures.
        example_per: One mask for each type, or one for each object.
    """
    marked = Part(path, form, picture, "").marked()
    chosen: list[tuple[str, Path]] = []
    for name in marked.defects:
        objects = sum(one.defect == name for one in marked.marked)
        numbers = range(1, objects + 1) if example_per == "object" and objects > 1 else (0,)
        chosen += [(nfc(name).replace("/", "-"), Part(path, form, picture, name, number).path) for number in numbers]
    return chosen


class Photographs:
    """The pictures below the root by the names that annotation files give them.

    Args:
        tree: The files below the root.
        rivals: All names, where some are of photographs and some of masks: a file is then only what a name means that
            agrees with it most, so that masks/7.png is not taken for a photograph 7.png that is lost.
    """

    def __init__(self, tree: Tree, rivals: Iterable[str] = ()) -> None:
        self._by_last: dict[str, list[str]] = defaultdict(list)
        for file in tree.everything():
            if is_picture(file):
                self._by_last[last_part(nfc(file)).casefold()].append(file)
        self._most: dict[str, int] = defaultdict(int)
        for written in rivals:
            for file, shared in self._ways(written).items():
                self._most[file] = max(self._most[file], shared)

    def _ways(self, written: str) -> dict[str, int]:
        """Return the files whose last part agrees with a name, each with how many parts agree."""
        wanted = nfc(written.replace("\\", "/")).split("/")
        files = self._by_last.get(wanted[-1].casefold(), ())
        return {file: _shared(nfc(file).split("/"), wanted) for file in files}

    def named(self, written: str, beside: str) -> list[str]:
        """Return the picture that is meant, or all that may be: those that share most folders with its name.

        Args:
            written: As the annotation file names it, with or without folders.
            beside: Folder of the annotation file; of equally good ones, those below it count.
        """
        ways = {file: shared for file, shared in self._ways(written).items() if shared >= self._most[file]}
        best = [file for file, shared in ways.items() if shared == max(ways.values())]
        near = [file for file in best if not beside or file.startswith(f"{beside}/")]
        return near or best


def _shared(parts: list[str], wanted: list[str]) -> int:
    """Return how many names two paths have in common, counted from their ends."""
    count = 0
    for one, other in zip(reversed(parts), reversed(wanted), strict=False):
        if one.casefold() != other.casefold():
            break
        count += 1
    return count


class Listing:
    """Finds the pictures that annotation files list, and says which cannot be found, are listed twice, or nowhere.

    Args:
        gathering: Gets what is left out.
        tree: The files below the root.
        rivals: As `Photographs` takes them.
    """

    def __init__(self, gathering: Gathering, tree: Tree, rivals: Iterable[str] = ()) -> None:
        self._gathering, self._tree = gathering, tree
        self._photographs = Photographs(tree, rivals)
        self._lister: dict[str, str] = {}
        self._masks: set[str] = set()
        self._lost: dict[str, list[str]] = defaultdict(list)
        self._unclear: dict[str, list[str]] = defaultdict(list)

    def find(self, file: str, written: str, noun: str = "picture", other_name: str = "") -> str:
        """Return the picture that a row means; "" = that cannot be told, which `close` says.

        Args:
            file: The annotation file.
            written: What the row calls the picture.
            noun: "picture", or "mask": several rows may name one.
            other_name: What it may be called besides.

        Raises:
            DataError: a picture is listed twice.
        """
        beside = file.rpartition("/")[0]
        known = self._photographs.named(written, beside) or self._photographs.named(other_name or written, beside)
        if len(known) != 1:
            (self._unclear if known else self._lost)[noun].append(f"{file}: {written}")
            return ""
        (picture,) = known
        if noun == "mask":
            self._masks.add(picture)
            return picture
        listed_before = picture in self._lister
        first = self._lister.setdefault(picture, file)
        if listed_before:
            raise DataError(
                f"{picture}: is listed twice, in {first} and {file}; keep one of the rows, or name one of the files in "
                "data.exclude"
            )
        return picture

    def close(self, unlabelled: Unlabelled) -> None:
        """Say what was not found, and which pictures no file lists; those that are normal parts are taken in."""
        for noun, rows in self._lost.items():
            self._gathering.leave_out(
                f"no {noun} has such a name", rows, "error", "correct its file name, or take it out", "row"
            )
        for noun, rows in self._unclear.items():
            self._gathering.leave_out(
                f"more than one {noun} has such a name", rows, "error", "write the folders that tell them apart", "row"
            )
        known = {*self._lister, *self._masks, *self._tree.gone}
        unlisted = [file for file in self._tree.everything() if is_picture(file) and file not in known]
        unlisted = [file for file in unlisted if not of_a_tool(file)]
        unlisted = unlabelled.take(self._gathering, unlisted, lambda file: split_of(file.split("/")[:-1]))
        remedy = f"{IF_NORMAL}, else label them, or name them in data.exclude"
        self._gathering.leave_out("no annotation file lists them", unlisted, "warning", remedy)


def gather_listed(
    gathering: Gathering,
    tree: Tree,
    files: Mapping[str, str],
    form: str,
    data: DataConfig,
    other_name: Callable[[str], str] = lambda name: name,
    strokes: Mapping[str, Sequence[tuple[str, str]]] | None = None,
) -> None:
    """Take in the pictures of annotation files that list many.

    Args:
        gathering: Gets the pictures, and what is left out.
        tree: The files below the root.
        files: Annotation file -> the split that it stands for.
        form: Its format.
        data: The settings; of them `normal`, `product` and `example_per` count.
        other_name: What a picture may be called beside the name that is written.
        strokes: Task -> (defect type, mask) of each picture of brush strokes, for tasks in which the file marks
            nothing.

    Raises:
        DataError: a picture is listed twice, its brush strokes are of several types, or it is damaged and its folder is
            named in `data.normal`.
    """
    listing, unlabelled = Listing(gathering, tree), Unlabelled(data, tree)
    idle: list[str] = []
    chosen: list[str] = []
    for file, split in files.items():
        gathering.tables.append(file)
        for key, picture in marked_pictures(form, tree.path(file)).items():
            photograph = listing.find(file, picture.name, other_name=other_name(picture.name))
            if not photograph:
                continue
            product = picture.product or data.product or tree.name
            if masks := (strokes or {}).get(picture.task, ()) if not picture.marked else ():
                defects = dict(masks)
                if len(defects) > 1:
                    raise DataError(
                        f"{photograph}: its brush strokes are pictures of {first_few(sorted(defects))}; export as JSON "
                        "with them, so that one type is no background of the other"
                    )
                defect = next(iter(defects)).replace("/", "-")
                unlabelled.require_unmarked(f"{file}, {photograph}", photograph, [defect])
                gathering.take(photograph, [mask for _, mask in masks], product, nfc(defect), split)
                continue
            if not picture.looked_at:
                idle.append(photograph)
                continue
            if not picture.marked and picture.choices and not all(map(sounds_normal, picture.choices)):
                chosen.append(photograph)
                continue
            marked = parts(form, tree.path(file), key, data.example_per)
            unlabelled.require_unmarked(f"{file}, {photograph}", photograph, dict(marked))
            gathering.take_marked(photograph, marked, product, split)
    listing.close(unlabelled)
    gathering.leave_out("nobody has annotated them yet", idle, "warning", "annotate them, also where nothing is wrong")
    gathering.leave_out(
        "a choice says what they show, and nothing is drawn", chosen, "warning", "draw it; a normal part's choice is OK"
    )


def without_labels(files: Iterable[str], consequence: str) -> list[str]:
    """Return a warning about pictures of which no annotation file tells; [] = there are none."""
    names = list(files)
    count = "1 picture has" if len(names) == 1 else f"{len(names)} pictures have"
    return [f"{first_few(names)}: {count} {consequence}"] if names else []
