"""label_studio: pictures anywhere below the root, and Label Studio's export as JSON; brush strokes or polygons.

Label Studio's other export of brush strokes, as PNG (`task-3-annotation-5-by-1-tag-scratch-0.png`), names the task and
not the photograph; the JSON says which that is.
"""

from __future__ import annotations

import re
from collections import defaultdict

from flawsmith.config import DataConfig, nfc
from flawsmith.data.annotations.label_studio import is_label_studio
from flawsmith.data.annotations.parts import marked_pictures
from flawsmith.data.layouts.annotated.listed import gather_listed, json_files
from flawsmith.data.layouts.mask_names import task_and_tag
from flawsmith.data.layouts.reading import Gathering, Reading
from flawsmith.data.layouts.tree import Tree, is_picture, join, last_part
from flawsmith.errors import DataError

EXPECTED = "label_studio expects pictures, and an export as JSON; tasks in which nothing is marked are normal parts"
MASKS = "mark the damage in Label Studio"
_UPLOADED = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of an uploaded picture."""


def read_label_studio(data: DataConfig, tree: Tree) -> Reading:
    """Read exports of Label Studio; a picture with several defect types is several examples, one for each."""
    gathering = Gathering(tree, MASKS)
    files = json_files(tree, is_label_studio)
    if not files:
        raise DataError(f"{data.root}: no export of Label Studio found (JSON, not JSON-MIN); {EXPECTED}")
    strokes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for file in tree.everything():
        if is_picture(file) and file not in tree.gone and (named := task_and_tag(nfc(file))):
            strokes[named[0]].append((named[1], file))
    numbers = [one.task for file in files for one in marked_pictures("label_studio", tree.path(file)).values()]
    # Mostly the JSON holds the strokes too: then it is read, and their pictures are only accounted for.
    gathering.tables += [file for task in set(numbers) for _, file in strokes.get(task, ())]
    lost = [file for task, masks in strokes.items() if task not in numbers for _, file in masks]
    gathering.leave_out("no task of the JSON export has such a number", lost, "error", "export both again", "mask")
    splits = dict.fromkeys(files, "")
    gather_listed(gathering, tree, splits, "label_studio", data, _as_it_was_called, strokes)
    return gathering.reading()


def _as_it_was_called(name: str) -> str:
    """Return the name of a picture before it was uploaded."""
    return join(name.rpartition("/")[0], _UPLOADED.sub("", last_part(name), count=1))
