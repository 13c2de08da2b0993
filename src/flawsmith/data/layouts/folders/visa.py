"""visa: root/<product>/Data/{Images/Normal, Images/Anomaly, Masks/Anomaly}, image_anno.csv for the defect types."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from flawsmith.config import DataConfig, nfc
from flawsmith.data.layouts.mask_names import match, names_below
from flawsmith.data.layouts.reading import Gathering, Reading, Severity
from flawsmith.data.layouts.tree import Tree, below, join, last_part, without_suffix
from flawsmith.errors import DataError, first_few
from flawsmith.paths import open_file

EXPECTED = "visa expects root/<product>/Data/Images/Normal, Data/Images/Anomaly and Data/Masks/Anomaly"
MASKS = "draw Data/Masks/Anomaly/<name>.png for each, or move it away"
_NO_PICTURE = "correct the paths in its column image, or take the rows out"
_LABELS = "give each the name of its photograph, as Data/Masks/Anomaly/<name>.png"


def read_visa(data: DataConfig, tree: Tree) -> Reading:
    """Read VisA's layout; defect types come from image_anno.csv ("anomaly" without it).

    Where the table lists several defect types for a picture, the first counts. Its paths may be written in another way
    (backslashes, other folders before the product's, another suffix) as long as one picture alone can be meant.
    """
    if data.normal:
        raise DataError(
            f"data.normal: {', '.join(data.normal)} is not read in the layout visa, whose normal parts are those in "
            "Data/Images/Normal; leave it out"
        )
    if tree.is_folder("Data/Images"):
        homes, top = [""], data.root.resolve().parent
    else:
        homes, top = [folder for folder in tree.folders[""] if tree.is_folder(join(folder, "Data/Images"))], data.root
    if not homes:
        raise DataError(f"{data.root}: no product folder with Data/Images found; {EXPECTED}")
    gathering = Gathering(tree, _LABELS)
    division = _rows(top / "split_csv" / "1cls.csv", ("image", "split"))
    gathering.tables += ["split_csv/1cls.csv"] if top == data.root else []
    for home in homes:
        product, written = home or data.product or tree.name, home or tree.name
        normal = {below(home, file): file for file in tree.pictures_below(join(home, "Data/Images/Normal"))}
        damaged = {below(home, file): file for file in tree.pictures_below(join(home, "Data/Images/Anomaly"))}
        pictures = _Pictures(written, [*normal, *damaged])
        table = join(home, "image_anno.csv")
        gathering.tables.append(table)
        types: dict[str, str] = {}
        lost: dict[Severity, list[str]] = {"error": [], "warning": []}
        annotations = _rows(data.root / table, ("image", "label"))
        for row in annotations:
            image, written_type = row["image"] or "", row["label"] or ""
            named = pictures.named(image, own_table=True)
            types |= dict.fromkeys(named, written_type)
            if not named:
                lost["warning" if written_type.strip().lower() == "normal" else "error"].append(f"{table}: {image}")
        for severity, rows in lost.items():
            gathering.leave_out("no picture has such a name", rows, severity, _NO_PICTURE, "row")
        splits = {
            name: row["split"] or "" for row in division for name in pictures.named(row["image"] or "", own_table=False)
        }
        if annotations:
            bare = tree.here(file for name, file in damaged.items() if not types.get(name))
            gathering.warnings += [_unlisted(bare)] if bare else []
        masks: dict[str, tuple[str, ...]] = {}
        for side, group in (("Normal", normal), ("Anomaly", damaged)):
            folder = join(home, "Data/Masks", side)
            photographs = names_below(join(home, "Data/Images", side), group.values())
            labels = [(below(folder, file), file) for file in tree.pictures_below(folder)]
            matches = match(photographs, labels, tree.gone)
            masks |= matches.masks
            gathering.leave(matches)
        for name, file in {**normal, **damaged}.items():
            defect = types.get(name, "").split(",")[0].strip().replace("/", "-") or "anomaly"
            gathering.take(
                file, masks.get(file, ()), product, defect if name in damaged else None, splits.get(name, "")
            )
    return gathering.reading()


def _unlisted(files: Sequence[str]) -> str:
    shown = first_few(files)
    count = "1 defect is" if len(files) == 1 else f"{len(files)} defects are"
    return f"{shown}: {count} not in image_anno.csv, so the type is 'anomaly'; add a row for each, with its defect type"


class _Pictures:
    """One product's pictures by the names that tables give them.

    Args:
        product: As the tables write it.
        pictures: Path of each below the product's folder.
    """

    def __init__(self, product: str, pictures: Iterable[str]) -> None:
        self._product = nfc(product)
        self._exact: dict[str, list[str]] = {}
        self._by_stem: dict[str, list[str]] = {}
        for picture in pictures:
            self._exact.setdefault(nfc(f"{product}/{picture}"), []).append(picture)
            self._by_stem.setdefault(_stem(picture), []).append(picture)

    def named(self, written: str, *, own_table: bool) -> list[str]:
        """Return the picture that a row means; [] = it means none of this product's, or more than one.

        Args:
            written: The row's path.
            own_table: The table is this product's, so that the folder before Data/ says nothing new.
        """
        name = nfc(written.strip().replace("\\", "/").removeprefix("./"))
        if name in self._exact:
            return self._exact[name]
        if not own_table and self._product not in name.split("/")[:-1]:
            return []
        like = self._by_stem.get(_stem(name), [])
        return like if len(like) == 1 else []


def _stem(name: str) -> str:
    """Return `anomaly/000` for any way to write Data/Images/Anomaly/000.JPG."""
    folder, _, file = without_suffix(name).casefold().rpartition("/")
    return f"{last_part(folder)}/{file}"


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str | None]]:
    """Return the rows of a table that has these columns; [] = there is no such file."""
    if not path.is_file():
        return []
    try:
        with io.TextIOWrapper(open_file(path), encoding="utf-8-sig", newline="") as stream:
            # Some tables begin with an empty line.
            reader = csv.DictReader(line for line in stream if line.strip())
            rows: list[dict[str, str | None]] = list(reader)
            named = [*(reader.fieldnames or ())]
    except UnicodeDecodeError:
        raise DataError(f"{path}: cannot be read as a table, as it is not in UTF-8; save it as CSV in UTF-8") from None
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}); copy it again from its source") from None
    for column in columns:
        if rows and column not in named:
            raise DataError(f"{path}: there is no column {column!r}; it has {', '.join(named)}")
    return rows
