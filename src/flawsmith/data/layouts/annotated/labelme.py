"""labelme: root/**/x.jpg with labelme's x.json beside it; `data.normal` says which without it are normal parts."""

from __future__ import annotations

from collections import defaultdict

from flawsmith.config import DataConfig, nfc
from flawsmith.data.annotations.labelme import is_labelme
from flawsmith.data.annotations.parts import marked_pictures
from flawsmith.data.layouts.annotated.listed import json_files, parts
from flawsmith.data.layouts.annotated.unlabelled import IF_NORMAL, Unlabelled
from flawsmith.data.layouts.reading import Gathering, Reading
from flawsmith.data.layouts.tree import Tree, is_picture, last_part, without_suffix
from flawsmith.errors import DataError

EXPECTED = "labelme expects labelme's .json beside each picture; one without shapes is a normal part"
MASKS = "draw the damage in labelme"


def read_labelme(data: DataConfig, tree: Tree) -> Reading:
    """Read labelme's files; a picture with several labels is several examples, one for each."""
    gathering = Gathering(tree, MASKS)
    files = {without_suffix(file): file for file in json_files(tree, is_labelme)}
    if not files:
        raise DataError(f"{data.root}: no file of labelme found (.json with shapes); {EXPECTED}")
    unlabelled = Unlabelled(data, tree)
    product = data.product or tree.name
    pictures: dict[str, list[str]] = defaultdict(list)
    for file in tree.everything():
        if is_picture(file):
            pictures[without_suffix(file)].append(file)
    bare: list[str] = []
    for stem, same in pictures.items():
        file = files.pop(stem, "")
        if not file:
            bare += same
            continue
        gathering.tables.append(file)
        marked = marked_pictures("labelme", tree.path(file))[""]
        if len(same) > 1:  # x.jpg and x.png: the file says which
            named = last_part(nfc(marked.name.replace("\\", "/")))
            same = [picture for picture in same if last_part(nfc(picture)) == named] or same
        masks = parts("labelme", tree.path(file), "", data.example_per)
        unlabelled.require_unmarked(file, same[0], dict(masks))
        gathering.take_marked(same[0], masks, product)
    unsaid = unlabelled.take(gathering, bare)
    remedy = f"{IF_NORMAL}, else draw their damage in labelme"
    gathering.leave_out("no .json of labelme lies beside them", unsaid, "error", remedy)
    gathering.leave_out(
        "no picture beside it has its name", files.values(), "error", "put its picture there", "label file"
    )
    return gathering.reading()
