"""pairs: root/<defect type>/**/x.jpg with its mask x.png (or x_mask.png) beside it.

`data.normal` names the folders of normal parts; "." is the root itself, with the pictures that lie in no folder.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

from flawsmith.config import DataConfig, nfc
from flawsmith.data.layouts.ledger import DAMAGE
from flawsmith.data.layouts.mask_names import behind, in_mask_folder, match, names_below, of_a_tool
from flawsmith.data.layouts.reading import Gathering, Reading
from flawsmith.data.layouts.tree import TOP, Tree, below, is_picture, without_suffix
from flawsmith.errors import DataError, first_few

EXPECTED = "pairs expects root/<defect type>/ with masks beside the pictures, and data.normal naming normal parts"
MASKS = "put <name>.png or <name>_mask.png beside each, or name its folder in data.normal"
_OF_A_TOOL = 'set the data.layout that reads it; where it is no label, set data.layout = "pattern"'
_LABELS = "name it like its photograph, as <name>.png or <name>_mask.png"

# Of two files with one stem, the one further left is the photograph, unless the suffixes of normal parts say another:
# nobody stores a label as JPEG by choice.
_PHOTOGRAPH_FIRST = (".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".tif", ".tiff", ".bmp", ".png")

_LOSSY = _PHOTOGRAPH_FIRST[: _PHOTOGRAPH_FIRST.index(".tif")]
_UNSURE = 'call each mask <name>_mask, or set data.layout = "pattern", which says which suffix masks have'


def read_pairs(data: DataConfig, tree: Tree) -> Reading:
    """Read folders of pictures with their masks among them.

    Defect types are the folders' names, in lower case, without the prefix they share: MT_Blowhole -> blowhole.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    for folder in tree.folders[""]:
        pictures = tree.pictures_below(folder)
        if tree.here(pictures):
            folders[nfc(folder)] += pictures
    if TOP in data.normal:
        if not (flat := [file for file in tree.files[""] if is_picture(file)]):
            raise DataError(f'{data.root}: no picture lies in the folder itself, which data.normal = ["."] names')
        folders[TOP] = flat
    if not folders:
        raise DataError(f"{data.root}: no folder of pictures found; {EXPECTED}")
    if not data.normal:
        raise DataError(
            f"data.normal: say which folders of {data.root} hold normal parts: {', '.join(sorted(folders))}"
        )
    tree.require_known("data.normal", data.normal, {*folders, TOP})
    prefix = shared_prefix(folders.keys() - {TOP})
    product = data.product or tree.name
    normals = {nfc(name) for name in data.normal}
    gathering = Gathering(tree, _LABELS)
    usual = _suffixes(pictures for name, pictures in folders.items() if name in normals)
    for name, pictures in folders.items():
        defect = None if name in normals else name[len(prefix) :].lower()
        folder = "" if name == TOP else name
        photographs, masks, unsure = _told_apart(folder, pictures, tree.gone, usual)
        gathering.leave_out("either of two with one name may be the photograph", unsure, "error", _UNSURE)
        matches = match(photographs, [(below(folder, file), file) for file in masks], tree.gone)
        gathering.leave(matches)
        labelled = _labelled(tree, photographs.values()) if name == TOP else []
        gathering.leave_out("a file of their name beside them may be a label", labelled, "error", _OF_A_TOOL)
        for file in (one for one in photographs.values() if one not in labelled):
            gathering.take(file, matches.masks.get(file, ()), product, defect)
    gathering.warnings += _types_within(gathering.examples, normals)
    return gathering.reading()


def _types_within(files: Iterable[str], normals: Collection[str]) -> Iterator[str]:
    """Say where a folder that is called after all defects holds folders that may be the types."""
    inner: dict[str, set[str]] = defaultdict(set)
    for file in files:
        top, *parts = nfc(file).split("/")[:-1] or [TOP]
        if top.casefold() in DAMAGE and top not in normals:
            inner[top].add(parts[0] if parts else "")
    for top, names in sorted(inner.items()):
        if len(names) > 1 and "" not in names:
            shown = first_few(sorted(names))
            yield (
                f"{top}: its folders ({shown}) are read as one defect type; where they are the types, use the layout "
                f'pattern, with image = "{top}/{{defect}}/..."'
            )


def _labelled(tree: Tree, photographs: Iterable[str]) -> list[str]:
    """Return the pictures of the root itself that a labelling tool's file may tell of: one of their name."""
    ends = (".json", ".xml", ".txt")
    labels = {without_suffix(file) for file in tree.here(tree.files[""]) if file.lower().endswith(ends)}
    return [file for file in photographs if without_suffix(file) in labels]


def _suffixes(folders: Iterable[Sequence[str]]) -> frozenset[str]:
    """Return the suffixes of pictures of normal parts, those with a second file of their name beside them left out."""
    suffixes: set[str] = set()
    for pictures in folders:
        stems, whole = Counter(map(without_suffix, pictures)), set(map(nfc, pictures))
        for file in pictures:
            stem = without_suffix(file)
            alone = stems[stem] == 1 and stem not in whole and _base(stem) not in stems
            if alone and not in_mask_folder(nfc(file)):
                suffixes.add(_suffix(file))
    return frozenset(suffixes)


def _suffix(file: str) -> str:
    return os.path.splitext(file)[1].lower()


def _told_apart(
    folder: str, pictures: Sequence[str], gone: frozenset[str], usual: frozenset[str]
) -> tuple[dict[str, str], list[str], list[str]]:
    """Tell photographs, {path below their folder without suffix: id}, from masks among the files of a folder, and from
    files of which that cannot be told.

    Of two files with one name the photograph is the one with a suffix that normal parts have (`usual`).
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for file in pictures:
        groups[without_suffix(file)].append(file)
    bases = {stem: _base(stem) for stem in groups}
    files = set(map(nfc, pictures))
    # An ending makes a mask where it does so for another picture beside it: "bottle_label.jpg" may be a photograph.
    endings = {_ending(stem, base) for stem, base in bases.items() if base and base in groups}
    photographs_apart = any(not in_mask_folder(below(folder, file)) for file in pictures)
    photographs: list[str] = []
    masks: list[str] = []
    unsure: list[str] = []
    for stem, same in groups.items():
        in_folder = photographs_apart and in_mask_folder(below(folder, same[0]))
        if in_folder or stem in files or of_a_tool(stem) or (bases[stem] and _ending(stem, bases[stem]) in endings):
            masks += same
            continue
        ranked = sorted(same, key=lambda file: _PHOTOGRAPH_FIRST.index(_suffix(file)))
        if usual & set(map(_suffix, same)) and len(set(same) - gone) > 1:
            by_suffix = sorted(ranked, key=lambda file: _suffix(file) not in usual)
            if by_suffix[0] != ranked[0] and _suffix(ranked[0]) in _LOSSY:
                unsure += ranked  # a label as JPEG, or a photograph as JPEG among normal parts of another suffix
                continue
            ranked = by_suffix
        here = [file for file in ranked if file not in gone]
        if here and ranked[0] in gone and not here[0].lower().endswith(".png"):
            ranked = here  # a preview was excluded; but the mask of an excluded photograph is no photograph
        photographs.append(ranked[0])
        masks += ranked[1:]
    return names_below(folder, photographs), masks, unsure


def _ending(stem: str, base: str) -> str:
    return stem[len(base) :].rstrip("0123456789").lower()


def _base(stem: str) -> str:
    folder, slash, name = stem.rpartition("/")
    base = behind(name)
    return folder + slash + base if base else ""


def shared_prefix(names: Iterable[str]) -> str:
    """Return what all names begin with, up to a separator; "" when there is but one name or one would vanish."""
    names = list(names)
    prefix = re.sub(r"[^ _.-]*$", "", os.path.commonprefix(names)) if len(names) > 1 else ""
    return "" if prefix in names else prefix
