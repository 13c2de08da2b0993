"""`data.places`: places on a product that sentences may name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from flawsmith.config.settings import Settings

Share = Annotated[float, Field(ge=0.0, le=1.0)]
"""A share of a photograph's width or height."""


class Place(Settings):
    """A place on a product that a sentence may name; box, polygon or mask says where it is."""

    affects = ("generate",)

    box: list[Share] = []
    """Left, top, right and bottom, as shares of the photograph's width and height."""
    polygon: list[Annotated[list[Share], Field(min_length=2, max_length=2)]] = []
    """Its corners as [across, down], likewise."""
    mask: str = ""
    """A picture of a photograph's size, not 0 where the place is; a path from the root, or an absolute one."""
    drawn_on: str = ""
    """Of a part that lies in any direction: the normal photograph it was drawn on, e.g. screw/train/good/001.png."""
    product: str = ""
    """Only this product has it; empty = all."""
    words: list[str] = []
    """Other words for it in sentences, e.g. ["나사 머리"]."""

    @model_validator(mode="after")
    def _somewhere(self) -> Place:
        given = [name for name in ("box", "polygon", "mask") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("give exactly one of box, polygon and mask")
        if self.box and not (len(self.box) == 4 and self.box[0] < self.box[2] and self.box[1] < self.box[3]):
            raise ValueError("box is [left, top, right, bottom], left below right and top below bottom")
        if self.polygon and len(self.polygon) < 3:
            raise ValueError("polygon needs three corners or more")
        return self
