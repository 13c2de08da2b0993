"""Folder layouts -> list[Example]: what lies where, without opening a single picture.

    mvtec     root/<product>/{train/good, test/good, test/<defect type>, ground_truth/<defect type>/NNN_mask.png}
    visa      root/<product>/Data/{Images/Normal, Images/Anomaly, Masks/Anomaly}, image_anno.csv for the defect types
    pairs     root/<defect type>/**/x.jpg with its mask x.png (or x_mask.png) beside it; `data.normal` names the normal
    folders pattern   the user's own templates, `data.patterns`

A layout is one function in `LAYOUTS`. Ids are posix paths below the root, in natural order (2 before 10), so the same
folder gives the same list on every machine.
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from flawsmith.config import DataConfig, nfc
from flawsmith.data.patterns import (
    excluded,
    exclusions,
    folders_in,
    matches,
    pictures_below,
    pictures_in,
    same_named,
)
from flawsmith.errors import ConfigError, DataError, nearest
from flawsmith.types import Example

MASK_ENDINGS = ("_mask", "_label", "_gt")
"""What may follow a photograph's stem in the name of its mask (mvtec: only `_mask`); case does not matter."""

# Of two files with one stem, the one further left is the photograph: nobody stores a label as JPEG by choice.
_PHOTOGRAPH_FIRST = (".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".png")


def scan(data: DataConfig) -> list[Example]:
    """Return every photograph with its product, defect type and mask, in natural order of the ids.

    Raises:
        DataError: the root is missing or of another layout, nothing normal or nothing damaged was found, a named
            folder, defect type or product does not exist, or a defect has no mask. Holds all that `gaps` finds.
        ConfigError: an unknown layout or a template that cannot work.
    """
    examples = find(data)
    if wrong := gaps(examples, data):
        raise DataError("\n".join(wrong))
    return examples


def find(data: DataConfig) -> list[Example]:
    """Return what `scan` does, but let gaps pass: a defect without a mask has `mask = None`. For `flawsmith check`."""
    if data.layout not in LAYOUTS:
        raise ConfigError(f"data.layout: {data.layout!r} is unknown{nearest(data.layout, LAYOUTS)}")
    root = data.root
    if not root.exists():
        raise DataError(f"{root}: there is no such folder (looked in {Path.cwd()}); set data.root to your photographs")
    if not root.is_dir():
        raise DataError(f"{root}: data.root is a file; it must be the folder of photographs")
    exclusions(data)
    examples = [
        replace(example, product=nfc(example.product), defect=None if example.defect is None else nfc(example.defect))
        for example in LAYOUTS[data.layout](data, root)
    ]
    examples.sort(key=lambda example: natural_key(example.id))
    products, defects = {nfc(name) for name in data.products}, {nfc(name) for name in data.defects}
    for name, wanted, known in (
        ("data.products", products, {example.product for example in examples}),
        ("data.defects", defects, {example.defect for example in examples if example.defect is not None}),
    ):
        for word in sorted(wanted):
            if known and word not in known:
                raise DataError(f"{name}: {root} holds no {word!r}{nearest(word, known)}")
    return [
        example
        for example in examples
        if (not products or example.product in products)
        and (not defects or example.defect is None or example.defect in defects)
    ]


def gaps(examples: list[Example], data: DataConfig) -> list[str]:
    """Return what a set lacks before anything can be learned from it, as sentences; [] = nothing."""
    if not examples:
        return [f"{data.root}: no pictures found in the layout {data.layout!r}; {_EXPECTED[data.layout]}"]
    wrong = []
    normal = {example.product for example in examples if example.defect is None}
    damaged = {example.product for example in examples if example.defect is not None}
    if not normal:
        wrong.append(f"{data.root}: no normal parts found; {_EXPECTED[data.layout]}")
    elif not damaged:
        wrong.append(f"{data.root}: no defects found; {_EXPECTED[data.layout]}")
    elif lone := sorted(damaged - normal):
        wrong.append(f"{data.root}: no normal parts of {', '.join(map(repr, lone))}; add some, or set data.products")
    if bare := [example.id for example in examples if example.defect is not None and not example.masks]:
        shown = ", ".join(bare[:3]) + (", ..." if len(bare) > 3 else "")
        one = "1 defect has" if len(bare) == 1 else f"{len(bare)} defects have"
        wrong.append(f"{data.root}: {one} no mask: {shown}; {_MASKS[data.layout]}")
    return wrong


def natural_key(text: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that counts: `2.png` before `10.png`.

    >>> sorted(["a10", "a2", "a02", "b", "a"], key=natural_key)
    ['a', 'a02', 'a2', 'a10', 'b']
    """
    parts = [part for part in re.split(r"(\d+)", nfc(text)) if part]
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts], text


def _mvtec(data: DataConfig, root: Path) -> list[Example]:
    if any((root / name).is_dir() for name in ("train", "test")):
        products = [(data.product or _own_name(root), root)]
    else:
        products = [
            (item.name, item) for item in folders_in(root) if (item / "train").is_dir() or (item / "test").is_dir()
        ]
    if not products:
        raise DataError(f"{root}: no product folder with train/ and test/ found; {_EXPECTED['mvtec']}")
    normals = {nfc(name) for name in data.normal or ["good"]}
    names: set[str] = set()
    examples = []
    for product, home in products:
        for split in ("train", "test"):
            for folder in folders_in(home / split):
                name = nfc(folder.name)
                names.add(name)
                normal = name in normals
                if split == "train" and not normal:
                    continue  # MVTec's train/ holds normal parts only, and masks exist for test/ only
                labels = [] if normal else same_named(home / "ground_truth", folder.name)
                masks = _masks_by_stem(pictures_in(data, *labels), ("_mask",))
                for image in pictures_in(data, folder):
                    label = () if normal else masks.get(nfc(image.stem), ())
                    defect = None if normal else name
                    examples.append(Example(_id(image, root), image, product, defect, label, split))
    _require_known("data.normal", data.normal, names, root)
    return examples


def _visa(data: DataConfig, root: Path) -> list[Example]:
    """Read VisA's layout; defect types come from image_anno.csv ("anomaly" without it).

    Where the table lists several defect types for a picture, the first counts.
    """
    if (root / "Data" / "Images").is_dir():
        products, top = [(data.product or _own_name(root), root)], root.resolve().parent
    else:
        products, top = [(item.name, item) for item in folders_in(root) if (item / "Data" / "Images").is_dir()], root
    if not products:
        raise DataError(f"{root}: no product folder with Data/Images found; {_EXPECTED['visa']}")
    own_names = {home: home.name if home != root else _own_name(root) for _, home in products}  # as the tables say
    table = _table(top / "split_csv" / "1cls.csv", ("image", "split"))
    splits = {nfc(row["image"] or ""): row["split"] for row in table}
    examples = []
    for product, home in products:
        labels = {nfc(row["image"] or ""): row["label"] for row in _table(home / "image_anno.csv", ("image", "label"))}
        masks = _masks_by_stem(pictures_in(data, home / "Data" / "Masks" / "Anomaly"), ())
        for folder, normal in (("Normal", True), ("Anomaly", False)):
            for image in pictures_in(data, home / "Data" / "Images" / folder):
                listed = nfc(f"{own_names[home]}/{image.relative_to(home).as_posix()}")
                defect = labels.get(listed, "").split(",")[0].strip().replace("/", "-") or "anomaly"
                split = splits.get(listed, "")
                label = () if normal else masks.get(nfc(image.stem), ())
                examples.append(Example(_id(image, root), image, product, None if normal else defect, label, split))
    return examples


def _pairs(data: DataConfig, root: Path) -> list[Example]:
    """Defect types are the folders' names, in lower case, without the prefix they share: MT_Blowhole -> blowhole."""
    folders: dict[str, list[Path]] = defaultdict(list)
    for folder in folders_in(root):
        pictures = pictures_below(folder)
        if any(not excluded(data, path) for path in pictures):
            folders[nfc(folder.name)] += pictures
    if not folders:
        raise DataError(f"{root}: no folder of pictures found; {_EXPECTED['pairs']}")
    if not data.normal:
        raise DataError(f"data.normal: say which folders of {root} hold normal parts: {', '.join(sorted(folders))}")
    _require_known("data.normal", data.normal, folders, root)
    prefix = _shared_prefix(folders)
    product = data.product or _own_name(root)
    examples = []
    normals = {nfc(name) for name in data.normal}
    for name, pictures in folders.items():
        defect = None if name in normals else name[len(prefix) :].lower()
        for photograph, mask in _photographs(data, pictures):
            label = (mask,) if defect and mask else ()
            examples.append(Example(_id(photograph, root), photograph, product, defect, label))
    return examples


def _pattern(data: DataConfig, root: Path) -> list[Example]:
    if not data.patterns:
        raise ConfigError(
            'data.patterns: the layout "pattern" needs at least one, e.g. {image = "{defect}/{stem}.png"}'
        )
    files = {_id(path, root): path for path in pictures_below(root)}
    out = {name for name, path in files.items() if excluded(data, path)}
    normals = {nfc(name) for name in data.normal}
    examples: dict[str, Example] = {}
    defects: set[str] = set()
    for index, pattern in enumerate(data.patterns):
        where = f"data.patterns[{index}]"
        pictures, masks = matches(where, pattern, files, out)
        if not pictures:
            known = files.keys() - out
            shown = f"e.g. {min(known)}" if known else "there is none"
            raise DataError(
                f"{where}.image: {pattern.image!r} fits none of the {len(known)} pictures below {root}; {shown}"
            )
        for path_id, fields in pictures.items():
            defect = fields.get("defect", nfc(pattern.defect))
            defects.add(defect)
            normal = pattern.normal or defect in normals
            if not normal and not defect:
                raise ConfigError(
                    f"{where}: say what is damaged: a {{defect}} in the template, defect = ..., or normal = true"
                )
            product = fields.get("product") or pattern.product or data.product or _own_name(root)
            split = fields.get("split", "")
            example = Example(
                path_id,
                files[path_id],
                product,
                None if normal else defect,
                () if normal or path_id not in masks else (files[masks[path_id]],),
                split if split in ("train", "test") else "",
            )
            examples.setdefault(path_id, example)  # the first template that fits a picture has it
    _require_known("data.normal", data.normal, defects - {""}, root)
    return list(examples.values())


LAYOUTS: dict[str, Callable[[DataConfig, Path], list[Example]]] = {
    "mvtec": _mvtec,
    "visa": _visa,
    "pairs": _pairs,
    "pattern": _pattern,
}
"""Name in the configuration -> the function that reads such a folder."""

_EXPECTED = {
    "mvtec": "mvtec expects root/<product>/train/good, test/<defect type> and ground_truth/<defect type>",
    "visa": "visa expects root/<product>/Data/Images/Normal, Data/Images/Anomaly and Data/Masks/Anomaly",
    "pairs": "pairs expects root/<defect type>/ with masks beside the pictures, and data.normal naming normal parts",
    "pattern": "check data.patterns, and mark normal parts by normal = true or data.normal",
}
_MASKS = {
    "mvtec": "draw ground_truth/<defect type>/<name>_mask.png for each, or move it away",
    "visa": "draw Data/Masks/Anomaly/<name>.png for each, or move it away",
    "pairs": "put <name>.png or <name>_mask.png beside each, or name its folder in data.normal",
    "pattern": "check the `mask` template, or draw them",
}


def _photographs(data: DataConfig, pictures: Iterable[Path]) -> Iterable[tuple[Path, Path | None]]:
    """Tell photographs from masks among the files of a folder, by their stems; what is excluded is left out."""
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in pictures:
        groups[nfc(path.with_suffix("").as_posix())].append(path)
    endings = {key: ending for key in groups for ending in MASK_ENDINGS if key.lower().endswith(ending)}
    for key, files in groups.items():
        if key in endings and key[: -len(endings[key])] in groups:
            continue
        first, *rest = sorted(files, key=lambda path: _PHOTOGRAPH_FIRST.index(path.suffix.lower()))
        ranked = [path for path in (first, *rest) if not excluded(data, path)]
        if not ranked or ranked[0] != first and ranked[0].suffix.lower() == ".png":
            continue  # the mask of a photograph that is excluded is no photograph
        beside = [groups[name][0] for name, ending in endings.items() if name[: -len(ending)] == key]
        masks = [path for path in beside if not excluded(data, path)] + ranked[1:]
        if len(masks) > 1:
            names = ", ".join(path.name for path in [ranked[0], *masks])
            raise DataError(f"{ranked[0].parent}: cannot tell photograph and mask among {names}; keep one of each")
        yield ranked[0], masks[0] if masks else None


def _masks_by_stem(files: Iterable[Path], endings: tuple[str, ...]) -> dict[str, tuple[Path, ...]]:
    """Map the photograph's stem to its masks; an exact name wins over one with an ending, .png over the rest."""
    masks: dict[str, tuple[Path, ...]] = {}
    files = sorted(files, key=lambda path: path.suffix.lower() != ".png")
    for ending in ("", *endings):
        for path in files:
            if path.stem.lower().endswith(ending):
                masks.setdefault(nfc(path.stem[: len(path.stem) - len(ending)]), (path,))
    return masks


def _shared_prefix(names: Iterable[str]) -> str:
    """Return what all names begin with, up to a separator; "" when there is but one name or one would vanish."""
    names = list(names)
    prefix = re.sub(r"[^ _.-]*$", "", os.path.commonprefix(names)) if len(names) > 1 else ""
    return "" if prefix in names else prefix


def _require_known(where: str, names: Iterable[str], known: Iterable[str], root: Path) -> None:
    for name in map(nfc, names):
        if name not in known:
            raise DataError(f"{where}: {root} holds no {name!r}{nearest(name, known)}")


def _table(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}); copy it again from its source") from None
    for column in columns:
        if rows and rows[0].get(column) is None:
            raise DataError(f"{path}: there is no column {column!r}; it has {', '.join(map(str, rows[0]))}")
    return rows


def _own_name(root: Path) -> str:
    return root.resolve().name or "part"


def _id(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
