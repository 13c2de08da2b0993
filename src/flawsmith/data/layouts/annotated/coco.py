"""coco: pictures anywhere below the root, and annotation files (.json) that list them; masks or polygons."""

from __future__ import annotations

import re

from flawsmith.config import DataConfig
from flawsmith.data.annotations.coco import is_coco
from flawsmith.data.layouts.annotated.listed import gather_listed, json_files, split_of
from flawsmith.data.layouts.reading import Gathering, Reading
from flawsmith.data.layouts.tree import Tree
from flawsmith.errors import DataError

EXPECTED = "coco expects pictures, and a .json file that lists them; those without an annotation are normal parts"
MASKS = "give each an annotation with an outline"


def read_coco(data: DataConfig, tree: Tree) -> Reading:
    """Read COCO's annotation files; a picture with several defect types is several examples, one for each.

    The split is what the file's name or its folder says (instances_train.json, valid/_annotations.coco.json).
    """
    gathering = Gathering(tree, MASKS)
    files = json_files(tree, is_coco)
    if not files:
        raise DataError(f"{data.root}: no annotation file of COCO found (with images and annotations); {EXPECTED}")
    splits = {file: split_of(re.split(r"[/_.\- ]", file)) for file in files}
    gather_listed(gathering, tree, splits, "coco", data)
    return gathering.reading()
