"""label_studio: pictures anywhere below the root, and Label Studio's export as JSON; brush strokes or polygons."""

from __future__ import annotations

import re

from flawsmith.config import DataConfig
from flawsmith.data.annotations.label_studio import is_label_studio
from flawsmith.data.layouts.annotated import gather_listed, json_files
from flawsmith.data.layouts.reading import Gathering, Reading
from flawsmith.data.layouts.tree import Tree, join, last_part
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
    splits = dict.fromkeys(files, "")
    gather_listed(gathering, tree, splits, "label_studio", data.product or tree.name, _as_it_was_called)
    return gathering.reading()


def _as_it_was_called(name: str) -> str:
    """Return the name of a picture before it was uploaded."""
    return join(name.rpartition("/")[0], _UPLOADED.sub("", last_part(name), count=1))
