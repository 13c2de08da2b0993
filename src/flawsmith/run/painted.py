"""Pictures that a person had painted and accepted: RUN/painted/<product>/<type>/000001.png and what lies beside it.

    000001.png              the picture; .tif where the photograph holds floats
    000001.mask.png         what visibly changed
    000001.drawn.mask.png   the mask as it was drawn
    000001.json             how it came about (`synthesis.by_hand.painted.Provenance`); written last

A pair counts when its .json is there, so one that was being written when the power failed is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flawsmith.errors import RunError
from flawsmith.files import read_json, reading
from flawsmith.paths import confined

FOLDER = "painted"
"""Of a run; pictures that belong to no run lie in a folder of their own in the same way."""
SUFFIXES = (".png", ".tif")


@dataclass(frozen=True, slots=True)
class PaintedPair:
    """A picture that was painted by hand and accepted, with its mask."""

    name: str
    """Path of the picture below the folder, without suffix: "magnet/crack/000001"."""
    image: Path
    mask: Path
    product: str
    defect: str
    photograph: str
    """Path of what was painted on."""
    generator: str
    seed: int
    area: int
    """Pixels of the mask."""


def painted_pairs(folder: Path) -> list[PaintedPair]:
    """Return the pairs below a folder by name; [] = there are none, or no such folder.

    Raises:
        RunError: a .json is not what flawsmith writes there, or a file of a pair is missing.
    """
    pairs = []
    for record in sorted(folder.rglob("*.json")):
        name = record.relative_to(folder).with_suffix("").as_posix()
        tree = read_json(confined(folder, f"{name}.json"))
        images = [path for suffix in SUFFIXES if (path := confined(folder, name + suffix)).is_file()]
        mask = confined(folder, f"{name}.mask.png")
        if not images or not mask.is_file():
            raise RunError(f"{record}: its picture or its mask is missing; delete {record.name} too, or put both back")
        with reading(record, "delete it with its picture and paint again"):
            text = {key: tree[key] for key in ("product", "defect", "photograph", "generator")}
            if not all(isinstance(value, str) for value in text.values()):
                raise TypeError("a name is no text")
            seed, area = int(tree["seed"]), int(tree["area"])
            pairs.append(PaintedPair(name=name, image=images[0], mask=mask, **text, seed=seed, area=area))
    return pairs
