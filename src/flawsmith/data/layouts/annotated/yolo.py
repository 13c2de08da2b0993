"""yolo: root/images/**/x.jpg with root/labels/**/x.txt (polygons), and data.yaml with the names of the classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import yaml

from flawsmith.config import DataConfig
from flawsmith.data.annotations.marked import text_of
from flawsmith.data.annotations.yolo import holds_lines
from flawsmith.data.layouts.annotated.listed import parts, split_of, without_labels
from flawsmith.data.layouts.annotated.unlabelled import Unlabelled
from flawsmith.data.layouts.reading import Gathering, Reading
from flawsmith.data.layouts.tree import Tree, is_picture, last_part, without_suffix
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
    pictures = [one for one in tree.everything() if is_picture(one)]
    label_of = _labels_of(pictures, labels)
    product = data.product or tree.name
    bare: list[str] = []
    for picture in pictures:
        label = label_of.get(picture, "")
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
    unread = [one for one in labels.values() if one not in {*label_of.values(), *tree.gone}]
    lost = [one for one in unread if "labels" in one.casefold().split("/")[:-1]]
    gathering.leave_out("no picture in images/ has its name", lost, "error", "put its picture there", "text file")
    # Elsewhere a text may be a note; one that is called like a picture and holds a polygon is its label.
    stems = {last_part(without_suffix(picture)).casefold() for picture in pictures}
    namesakes = [one for one in unread if one not in lost and last_part(without_suffix(one)).casefold() in stems]
    namesakes = [one for one in namesakes if holds_lines(tree.path(one))]
    remedy = "put it into the folder labels/ beside images/, or name it in data.exclude"
    gathering.leave_out("it holds labels that no picture reads", namesakes, "error", remedy, "text file")
    gathering.warnings += without_labels(bare, _NORMAL)
    return gathering.reading()


def _labels_of(pictures: Iterable[str], labels: Mapping[str, str]) -> dict[str, str]:
    """Return {picture: its text file}, which a picture of the very same name gets first.

    Args:
        pictures: Ids.
        labels: Path without suffix -> id of each text file.
    """
    free = dict(labels)
    label_of = {picture: free.pop(name) for picture in pictures if (name := _label_of(without_suffix(picture))) in free}
    folded: dict[str, list[str]] = defaultdict(list)
    for name, file in free.items():
        folded[name.casefold()].append(file)
    for picture in pictures:
        files = folded.get(_label_of(without_suffix(picture)).casefold(), [])
        if picture not in label_of and len(files) == 1:
            label_of[picture] = files.pop()
    return label_of


def _label_of(stem: str) -> str:
    """Return where the text file of a picture lies, without its suffix: the last folder `images` becomes `labels`."""
    folders = stem.split("/")
    for number in reversed(range(len(folders) - 1)):
        if folders[number].casefold() == "images":
            return "/".join([*folders[:number], "labels", *folders[number + 1 :]])
    return stem


def _classes(data: DataConfig, tree: Tree) -> tuple[str, dict[str, str]]:
    """Return the file that names the classes, and {number: defect type}."""
    files = [one for one in tree.files[""] if one.lower().endswith((".yaml", ".yml")) and one not in tree.gone]
    for file in files:
        path = tree.path(file)
        try:
            names = yaml.safe_load(text_of(path))["names"]
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: is no YAML in UTF-8 ({' '.join(str(error).split())[:120]})") from None
        except (KeyError, TypeError):
            continue
        if not isinstance(names, Mapping | list | None):
            raise DataError(f"{path}: its names are no list of the classes; write names: [scratch, dent]")
        numbered = names.items() if isinstance(names, Mapping) else enumerate(names or ())
        types = {str(number): str(name).replace("/", "-") for number, name in numbered}
        if len(set(types.values())) < len(types):
            raise DataError(f"{path}: two classes have one name; give each its own")
        return file, types
    raise DataError(f"{data.root}: no data.yaml with the names of the classes found; {EXPECTED}")
