"""yolo: root/images/**/x.jpg with root/labels/**/x.txt (polygons), and data.yaml with the names of the classes."""

from __future__ import annotations

from collections.abc import Mapping

import yaml

from flawsmith.config import DataConfig
from flawsmith.data.layouts.annotated.listed import parts, split_of, without_labels
from flawsmith.data.layouts.annotated.unlabelled import Unlabelled
from flawsmith.data.layouts.reading import Gathering, Reading
from flawsmith.data.layouts.tree import Tree, is_picture, without_suffix
from flawsmith.errors import DataError

EXPECTED = "yolo expects images/ and labels/ with equal names, and data.yaml; a picture without lines is a normal part"
MASKS = "give each a line with a polygon"
_NORMAL = "no text file, and count as normal parts, as they do for Ultralytics"


def read_yolo(data: DataConfig, tree: Tree) -> Reading:
    """Read YOLO's polygons; a picture with several classes is several examples, one for each defect type."""
    gathering = Gathering(tree, MASKS)
    file, names = _classes(data, tree)
    gathering.tables.append(file)
    unlabelled = Unlabelled(data, tree)
    labels = {without_suffix(one): one for one in tree.everything() if one.lower().endswith(".txt")}
    product = data.product or tree.name
    bare: list[str] = []
    for picture in tree.everything():
        if not is_picture(picture):
            continue
        label = labels.pop(_label_of(without_suffix(picture)), "")
        if picture in tree.gone:
            gathering.of_the_absent.update([label] if label else [])
            continue
        split = split_of(picture.split("/")[:-1])
        if not label or label in tree.gone:
            bare += [] if unlabelled.is_normal(picture) else [picture]
            gathering.take_marked(picture, [], product, split)
            continue
        gathering.tables.append(label)
        numbered = parts("yolo", tree.path(label), "", data.example_per)
        if unknown := sorted(dict(numbered).keys() - names.keys()):
            raise DataError(f"{label}: holds class {unknown[0]}, of which {file} names none; it names {len(names)}")
        unlabelled.require_unmarked(label, picture, [names[number] for number, _ in numbered])
        gathering.take_marked(picture, [(names[number], path) for number, path in numbered], product, split)
    lost = [label for stem, label in labels.items() if "labels" in stem.split("/")[:-1] and label not in tree.gone]
    gathering.leave_out("no picture in images/ has its name", lost, "error", "put its picture there", "text file")
    gathering.warnings += without_labels(bare, _NORMAL)
    return gathering.reading()


def _label_of(stem: str) -> str:
    """Return where the text file of a picture lies, without its suffix: the last folder `images` becomes `labels`."""
    before, folder, behind = f"/{stem}".rpartition("/images/")
    return f"{before}/labels/{behind}"[1:] if folder else stem


def _classes(data: DataConfig, tree: Tree) -> tuple[str, dict[str, str]]:
    """Return the file that names the classes, and {number: defect type}."""
    files = [one for one in tree.files[""] if one.lower().endswith((".yaml", ".yml")) and one not in tree.gone]
    for file in files:
        path = tree.path(file)
        try:
            names = yaml.safe_load(path.read_text(encoding="utf-8-sig"))["names"]
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: is no YAML in UTF-8 ({' '.join(str(error).split())[:120]})") from None
        except (KeyError, TypeError):
            continue
        numbered = names.items() if isinstance(names, Mapping) else enumerate(names or ())
        types = {str(number): str(name).replace("/", "-") for number, name in numbered}
        if len(set(types.values())) < len(types):
            raise DataError(f"{path}: two classes have one name; give each its own")
        return file, types
    raise DataError(f"{data.root}: no data.yaml with the names of the classes found; {EXPECTED}")
