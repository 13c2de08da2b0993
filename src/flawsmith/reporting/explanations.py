"""What a detector looked at in a few test pictures, and where the words of a prompt acted in a few samples.

proof.json names photographs and boxes (`evaluation.explain`); the pictures are cut from the photographs themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.previews import OUTLINE, fit, outlined, shown
from flawsmith.data.split import Split
from flawsmith.errors import DataError
from flawsmith.evaluation.statistics import Outcome
from flawsmith.reporting.contact_sheets import TILE
from flawsmith.reporting.document import PictureRow, Section, Sheet
from flawsmith.reporting.verdict import OURS, Tree
from flawsmith.run.folder import Run
from flawsmith.synthesis.attention import word_maps
from flawsmith.types import Example

PATCH = (0, 132, 255)
"""The colour of a patch's frame."""
_CONTEXT = 3
"""Side of the close-up round a patch, over the patch's longer side."""
_NORMALS = ("nearest normal patch", "second nearest", "third nearest")
_CLOSEUP = 192
"""Side of the close-up on the page, px."""


def explanation_section(run: Run, product: Tree, number: int, split: Split) -> Section | None:
    """Return what the detector of `ours` looked at; None = the proof says nothing of it, or its photographs are gone.

    Args:
        run: The run.
        product: A product's part of proof.json.
        number: The product's place in proof.json, for file names.
        split: The run's photographs.
    """
    explained = product.get("explanations")  # missing in a proof of an earlier release
    if not explained:
        return None
    examples = _by_name(split)
    maps = _maps(run, explained)
    rows = [
        _row(fault, examples, None if maps is None else maps[number])
        for number, fault in enumerate(explained["faults"])
    ]
    kept = tuple(row for row in rows if row)
    if not kept:
        return None
    widest = max(len(fault["normals"]) for fault in explained["faults"])
    heads = ("test photograph", *(("anomaly map",) if maps is not None else ()), "loudest patch")
    heads = (*heads, *_NORMALS[:widest], "nearest shot")
    counted = tuple(f"{defect}: {found} of {tests} found" for defect, (found, tests) in explained["found"].items())
    memory = (
        "Each nearest normal patch in its memory comes from another photograph."
        if widest
        else "It remembers no normal patches, so none are shown."
    )
    sentences = (
        f"What {explained['detector']} looked at, trained on '{OURS}' with seed {explained['seed']}. A fault "
        "counts as found when the patch where the anomaly map is highest touches the label, whatever the image score. "
        "Of each defect type the first test picture that was found and the first that was missed are shown, in the "
        "order of the test set.",
        "The anomaly map is red where it is highest in this picture, however high that is. Red is the outline of the "
        "label, blue the frame of the patch: 3 x 3 cells, whose averaged features are "
        f"compared; the network sees more than the frame. {memory} The nearest shot is the one with the nearest "
        "damaged patch, of whichever defect type.",
    )
    title = "What the detector looked at"
    sheet = Sheet(title, f"proof-{number:02d}-looked-at", heads, kept)
    return Section(title, sentences=sentences, notes=counted, sheets=(sheet,))


def attention_section(run: Run) -> Section | None:
    """Return where the words of each defect type acted; None = nothing of that is recorded for the samples."""
    rows = []
    for one in word_maps(run):
        files = one.files(run)
        try:
            normal, image, heat = (images.read(files[what]) for what in ("normal", "image", "map"))
            mask = images.read_mask(files["mask"], image.shape)
        except DataError:
            continue  # deleted since: the report shows what is left
        pictures = [fit(picture, _CLOSEUP) for picture in (normal, image)]
        marked = outlined(overlaid(pictures[1], heat), mask, PATCH)
        times = "" if one.ratio is None else f", in the mean {one.ratio:.2f} times as much inside the mask as outside"
        caption = (
            f'{one.product}: {one.defect}, sample {one.index:06d}, "{one.words}" in "{one.prompt}": it gets '
            f"{one.weakest:.1%} to {one.strongest:.1%} of the attention of a place{times}"
        )
        rows.append(PictureRow(caption, (pictures[0], pictures[1], marked)))
    if not rows:
        return None
    sentence = (
        "The first sample of each defect type: the window before and after painting, and where the words of its prompt "
        "that name the defect acted. That is the share of cross-attention which each place gives to these words, in "
        "the mean over heads, layers and steps (Tang et al. 2023): red where it is greatest in this window, grey where "
        "it is least, however little they differ. Blue is the outline of the mask. Where the network is told the mask, "
        "words need not act inside it; of dual_branch, which draws the mask itself, the branch of the damage alone is "
        "shown. A map shows where words were read, not what they caused."
    )
    heads = ("normal window", "sample", "where the words acted")
    title = "Where the defect's words acted"
    return Section(title, sentences=(sentence,), sheets=(Sheet(title, "attention", heads, tuple(rows)),))


def _maps(run: Run, explained: Tree) -> np.ndarray | None:
    """Return the small anomaly maps uint8 (F,t,t) of what is explained; None = they were deleted or are damaged."""
    try:
        strip = images.read(run.path("state", "prove", explained["maps"]))
    except DataError:
        return None
    count = len(explained["faults"])
    return strip.reshape(count, -1, strip.shape[1]) if strip.ndim == 2 and len(strip) % count == 0 else None


def anomaly_maps(run: Run, below: str) -> np.ndarray | None:
    """Return the small anomaly maps uint8 (P,t,t) that lie so far below state/prove/; None = they were deleted."""
    path = run.path("state", "prove", below)
    return Outcome.load(path).thumbs if path.is_file() else None


def overlaid(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map (uint8, 0 to 255, of any size) over its picture uint8 (H,W,3), red where it is high."""
    scaled = cv2.resize(heat, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    weight = scaled.astype(np.float32)[..., None] / 255
    grey = image.mean(axis=2, keepdims=True) * 0.75
    return np.asarray(np.clip(grey * (1 - weight) + np.array([255.0, 40.0, 20.0]) * weight, 0, 255), np.uint8)


_Examples = Mapping[tuple[str, str | None], Example]
"""By id and defect type: a picture that shows several types is an example of each."""


def _by_name(split: Split) -> _Examples:
    groups: Iterable[Example] = (*split.shots, *split.normals, *split.test_defects, *split.test_normals)
    return {(example.id, example.defect): example for example in groups}


def _row(fault: Tree, examples: _Examples, anomaly_map: np.ndarray | None) -> PictureRow | None:
    """Return one fault's pictures, with its map uint8 (t,t); None = a photograph is gone or cannot be read."""
    near = [*fault["normals"], fault["shot"]]
    try:
        example = examples[fault["id"], fault["defect"]]
        native = images.read(example.image)
        small = fit(shown(native, example.span), TILE)
        label = read_label(example, native.shape)
        tiles = [_framed(outlined(small, label, OUTLINE), fault["patch"], native.shape)]
        if anomaly_map is not None:
            tiles.append(overlaid(small, anomaly_map))
        tiles.append(_around(native, example, fault["patch"]))
        for one in near:
            neighbour = examples[one["id"], one["defect"]]
            tiles.append(_around(images.read(neighbour.image), neighbour, one["patch"]))
    except (DataError, KeyError):
        return None
    return PictureRow(_caption(fault), tuple(tiles))


def _caption(fault: Tree) -> str:
    of, above, shot = f"{fault['defect']}, {fault['id']}", fault["above"], fault["shot"]
    score = "" if above is None else f", image score above {above:.0%} of the normal test pictures"
    outcome = f"{of}: found{score}." if fault["found"] else f"{of}: missed{score}."
    normals = ", ".join(f"{one['id']} ({one['distance']:.2f})" for one in fault["normals"])
    nearest = f"the shot {shot['id']} ({shot['defect']}, {shot['distance']:.2f})"
    if normals:
        return f"{outcome} Distance in features to normal patches of {normals}, and to {nearest}"
    return f"{outcome} Distance in features to {nearest}"


def _framed(small: np.ndarray, patch: Sequence[int], native: Sequence[int]) -> np.ndarray:
    """Draw the frame of a patch on a small picture of a photograph of shape `native`."""
    scale = small.shape[0] / native[0], small.shape[1] / native[1]
    start = round(patch[1] * scale[1]), round(patch[0] * scale[0])
    end = round(patch[3] * scale[1]) - 1, round(patch[2] * scale[0]) - 1
    return np.asarray(cv2.rectangle(small.copy(), start, end, PATCH, 1))


def _around(native: np.ndarray, example: Example, patch: Sequence[int]) -> np.ndarray:
    """Return the surroundings of a patch, as far as the photograph reaches, enlarged, with the patch's frame."""
    top, left, bottom, right = patch
    side = _CONTEXT * max(bottom - top, right - left)
    starts = [
        int(np.clip((low + high - side) // 2, 0, max(0, length - side)))
        for low, high, length in ((top, bottom, native.shape[0]), (left, right, native.shape[1]))
    ]
    window = shown(native[starts[0] : starts[0] + side, starts[1] : starts[1] + side], example.span)
    moved = (top - starts[0], left - starts[1], bottom - starts[0], right - starts[1])
    return _framed(fit(window, _CLOSEUP), moved, window.shape)
