"""What the layouts of labelling tools share: annotation files found below the root, and the photographs they name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flawsmith.config import nfc
from flawsmith.data.annotations.marked import MarkedPicture, read_tree
from flawsmith.data.annotations.parts import Part, marked_pictures
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


def parts(form: str, path: Path, picture: str, marked: MarkedPicture) -> dict[str, Path]:
    """Return the masks of a picture by defect type; a slash in a type's name becomes a hyphen, as in folders."""
    return {nfc(name).replace("/", "-"): Part(path, form, picture, name).path for name in marked.defects}


class Photographs:
    """The pictures below the root by the names that annotation files give them.

    Args:
        tree: The files below the root.
    """

    def __init__(self, tree: Tree) -> None:
        self._by_last: dict[str, list[str]] = defaultdict(list)
        for file in tree.everything():
            if is_picture(file):
                self._by_last[last_part(nfc(file)).casefold()].append(file)

    def named(self, written: str, beside: str) -> list[str]:
        """Return the picture that is meant, or all that may be: those that share most folders with its name.

        Args:
            written: As the annotation file names it, with or without folders.
            beside: Folder of the annotation file; of equally good ones, those below it count.
        """
        wanted = nfc(written.replace("\\", "/")).split("/")
        ways = {file: _shared(nfc(file).split("/"), wanted) for file in self._by_last.get(wanted[-1].casefold(), ())}
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


def gather_listed(
    gathering: Gathering,
    tree: Tree,
    files: Mapping[str, str],
    form: str,
    product: str,
    other_names: Callable[[str], str] = lambda name: name,
) -> None:
    """Take in the pictures of annotation files that list many.

    Args:
        gathering: Gets the pictures, and what is left out.
        tree: The files below the root.
        files: Annotation file -> the split that it stands for.
        form: Its format.
        product: What a product is called where the file does not say it.
        other_names: What a picture may be called beside the name that is written.
    """
    photographs = Photographs(tree)
    lister: dict[str, str] = {}
    lost: list[str] = []
    unclear: list[str] = []
    idle: list[str] = []
    for file, split in files.items():
        gathering.tables.append(file)
        for key, picture in marked_pictures(form, tree.path(file)).items():
            beside = file.rpartition("/")[0]
            known = photographs.named(picture.name, beside) or photographs.named(other_names(picture.name), beside)
            row = f"{file}: {picture.name}"
            if len(known) != 1:
                (unclear if known else lost).append(row)
                continue
            (photograph,) = known
            if (first := lister.setdefault(photograph, file)) != file or photograph in gathering.examples:
                raise DataError(
                    f"{photograph}: is listed twice, in {first} and {file}; name one of the files in data.exclude"
                )
            if not picture.looked_at:
                idle.append(photograph)
                continue
            masks = parts(form, tree.path(file), key, picture)
            gathering.take_marked(photograph, masks, picture.product or product, split)
    gathering.leave_out("no picture has such a name", lost, "error", "correct its file name, or take it out", "row")
    remedy = "write the folders that tell them apart"
    gathering.leave_out("more than one picture has such a name", unclear, "error", remedy, "row")
    unlisted = [file for file in tree.everything() if is_picture(file) and file not in lister and file not in tree.gone]
    remedy = "list them, those without damage too, or name them in data.exclude"
    gathering.leave_out("no annotation file lists them", unlisted, "warning", remedy)
    gathering.leave_out("nobody has annotated them yet", idle, "warning", "annotate them, also where nothing is wrong")


def without_labels(files: Iterable[str], consequence: str) -> list[str]:
    """Return a warning about pictures of which no annotation file tells; [] = there are none."""
    names = list(files)
    count = "1 picture has" if len(names) == 1 else f"{len(names)} pictures have"
    return [f"{first_few(names)}: {count} {consequence}"] if names else []
