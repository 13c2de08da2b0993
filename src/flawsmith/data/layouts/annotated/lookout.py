"""lookout: pictures and masks anywhere below the root, and manifests of AWS (.manifest, .jsonl) that name both.

An address such as s3://bucket/line1/x.png means the file whose path ends most like it: line1/x.png, or x.png.
"""

from __future__ import annotations

import re

from flawsmith.config import DataConfig
from flawsmith.data.annotations.lookout import Line, is_manifest, lines_of
from flawsmith.data.annotations.parts import COLOURS
from flawsmith.data.layouts.annotated.listed import Listing, parts, split_of
from flawsmith.data.layouts.annotated.unlabelled import Unlabelled
from flawsmith.data.layouts.reading import Gathering, Reading
from flawsmith.data.layouts.tree import Tree
from flawsmith.errors import DataError

EXPECTED = "lookout expects pictures, masks, and a .manifest of Lookout for Vision or Ground Truth that names them"
MASKS = "give each line an anomaly-mask-ref with its internal-color-map"


def read_lookout(data: DataConfig, tree: Tree) -> Reading:
    """Read AWS manifests; a picture with several defect types is several examples, one for each.

    The split is what the manifest's name or its folder says (train.manifest, test/output.manifest).
    """
    gathering = Gathering(tree, MASKS)
    files = [
        file
        for file in sorted(tree.everything())
        if file.lower().endswith((".manifest", ".jsonl")) and file not in tree.gone and is_manifest(tree.path(file))
    ]
    if not files:
        raise DataError(f"{data.root}: no manifest of AWS found (JSON lines with source-ref); {EXPECTED}")
    manifests = {file: lines_of(tree.path(file)) for file in files}
    addresses = [address for lines in manifests.values() for one in lines for address in (one.picture, one.mask)]
    listing, unlabelled = Listing(gathering, tree, map(_path, filter(None, addresses))), Unlabelled(data, tree)
    blank: list[str] = []
    maskless: list[str] = []
    idle: list[str] = []
    product = data.product or tree.name
    for file, lines in manifests.items():
        gathering.tables.append(file)
        split = split_of(re.split(r"[/_.\- ]", file))
        for line in lines:
            photograph = listing.find(file, _path(line.picture))
            mask = listing.find(file, _path(line.mask), "mask") if line.mask else ""
            if not photograph or (line.mask and not mask):
                continue
            if photograph in tree.gone:
                gathering.of_the_absent.update({mask} - {""})
                continue
            if mask in tree.gone:
                maskless.append(photograph)
                continue
            marked = parts(COLOURS, tree.path(mask), line.colours, data.example_per) if mask else []
            unlabelled.require_unmarked(line.where, photograph, dict(marked))
            if marked and line.damaged == "":
                raise DataError(f"{line.where} says that {photograph} is normal, and its mask marks {marked[0][0]}")
            if marked:
                gathering.take_marked(photograph, marked, product, split)
            elif line.damaged and mask:
                blank.append(photograph)
            elif line.damaged is None and not mask:
                idle.append(photograph)
            else:
                gathering.take(photograph, [mask] if mask else [], product, _defect(line), split)
    gathering.leave_out(
        "they are labelled as anomalies, and their masks mark nothing", blank, "error", "draw the damage"
    )
    gathering.leave_out("nobody has annotated them yet", idle, "warning", "annotate them, also where nothing is wrong")
    gathering.leave_out("their masks are not to be read", maskless, "error", "name them in data.exclude too")
    listing.close(unlabelled)
    return gathering.reading()


def _path(address: str) -> str:
    """Return the path in an address; the name of its bucket is a folder, as people may have fetched it so."""
    return address.partition("://")[2] or address


def _defect(line: Line) -> str | None:
    """Return the defect type of a picture without a mask; None = a normal part."""
    return line.damaged.replace("/", "-") if line.damaged else None
