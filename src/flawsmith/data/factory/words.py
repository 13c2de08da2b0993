"""Words for what was made: places, sizes, severities, and the caption."""

from __future__ import annotations

from typing import Any

import numpy as np

from flawsmith.data.factory.hit import Hit
from flawsmith.data.sentences.grammar import SIZES

_SURFACE = {
    "steel": "brushed steel", "milled": "milled metal", "cast": "cast metal", "magnet": "a dark magnetic tile",
    "concrete": "concrete", "wood": "wood", "weave": "woven cloth", "leather": "leather", "plastic": "moulded plastic",
    "tile": "glazed tile", "screw": "a screw", "washer": "a washer", "nut": "a hexagon nut", "tablet": "a tablet",
    "board": "a circuit board",
}  # fmt: skip
_DEFECT = {
    "scratch": "scratch", "crack": "crack", "dent": "dent", "hole": "hole", "chip": "chipped piece",
    "pores": "blowhole", "cut": "cut", "abrasion": "rubbed patch", "bend": "bend", "burr": "burr", "fold": "fold",
    "blister": "blister", "stain": "stain", "contamination": "contamination", "fray": "frayed patch",
    "discolouration": "discoloured patch", "rust": "rust patch", "uneven": "uneven patch", "solder": "solder splash",
}  # fmt: skip
_MASS = ("contamination",)


def describe(defect: str, hit: Hit, mask: np.ndarray) -> dict[str, Any]:
    """Return the facts of one defect: words and numbers, from its mask bool (n,n)."""
    n = mask.shape[0]
    ys, xs = np.nonzero(mask)
    x, y = float(xs.mean()) / n, float(ys.mean()) / n
    extent = float(max(np.ptp(xs), np.ptp(ys)) + 1) / n
    share = len(xs) / mask.size
    severity = min(1.0, hit.power)
    return {
        "kind": defect,
        "place": place(x, y),
        "size": size(extent),
        "severity": "faint" if severity < 0.5 else "severe" if severity > 0.8 else "moderate",
        "x": round(x, 4),
        "y": round(y, 4),
        "extent": round(extent, 4),
        "share": round(share, 5),
        "power": round(severity, 3),
    }


def caption(surface: str, facts: dict[str, Any]) -> str:
    """Return one English phrase for a piece."""
    ground = _SURFACE[surface]
    if facts["kind"] is None:
        return f"a photo of {ground} without defects"
    thing = _DEFECT[facts["kind"]]
    words = [w for w in (facts["size"], facts["severity"]) if w not in ("medium", "moderate")]
    phrase = " ".join([*words, thing])
    article = "" if facts["kind"] in _MASS else "an " if phrase[0] in "aeiou" else "a "
    return f"a photo of {article}{phrase} on {ground}, {facts['place']}"


def size(extent: float) -> str:
    """Return the word for a longer side, as a share of the picture's."""
    if extent > SIZES["large"][0]:
        return "large"
    return next(word for word, (_, most) in SIZES.items() if extent < most or word == "medium")


def place(x: float, y: float) -> str:
    """Return the words for a place; x and y as shares of the picture's sides."""
    across = "left" if x < 0.36 else "right" if x > 0.64 else ""
    down = "top" if y < 0.36 else "bottom" if y > 0.64 else ""
    where = f"{down} {across}".strip()
    return f"near the {where}" if where else "in the middle"
