"""The section `generate.without_shots`: which damage is made of types that nobody has photographed."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any

from pydantic import Field, field_validator

from flawsmith.config.settings import Settings

Share = Annotated[float, Field(ge=0, le=1)]
SUIT_ANYTHING = ("scratch", "dent", "crack", "pores", "stain", "contamination")
"""Types that are made where nothing is learned from and none is named."""
_SIZE = (0.04, 0.25)


def nfc(name: str) -> str:
    """Return a name in Unicode's composed form, in which names are compared; macOS writes the decomposed one."""
    return unicodedata.normalize("NFC", name)


def with_composed_keys(value: Any) -> Any:
    """Return a table whose keys are as the layouts give names; on macOS one that is copied from a folder is not."""
    if not isinstance(value, dict):
        return value
    return {nfc(key) if isinstance(key, str) else key: item for key, item in value.items()}


class WithoutShotsConfig(Settings):
    """Damage of types that no shot shows; for rendered, cutpaste, nsa, perlin, component and prompt_inpaint."""

    affects = ("train", "generate")

    types: list[str] = []
    """Types to make; rendered draws what a name says. Empty: six that suit anything if data.shots is 0, else none."""
    size: tuple[Share, Share] | dict[str, tuple[Share, Share]] = _SIZE
    """Least and greatest length, as shares of the longer side of the part or of a surface's picture; or by type."""
    within: tuple[Share, Share, Share, Share] = (0.0, 0.0, 1.0, 1.0)
    """Where its middle may lie: left, top, right and bottom, as shares of the picture's width and height."""

    @field_validator("types", mode="before")
    @classmethod
    def _in_composed_form(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        return [nfc(name) if isinstance(name, str) else name for name in names] if isinstance(names, list) else names

    @field_validator("size", mode="before")
    @classmethod
    def _defects_in_composed_form(cls, value: Any) -> Any:
        return with_composed_keys(value)

    @field_validator("size")
    @classmethod
    def _from_least_to_greatest(cls, value: Any) -> Any:
        for low, high in value.values() if isinstance(value, dict) else (value,):
            if not 0 < low <= high:
                raise ValueError(f"[{low:g}, {high:g}] is no range of lengths; write [least, greatest], both above 0")
        return value

    @field_validator("within")
    @classmethod
    def _not_empty(cls, value: tuple[float, float, float, float]) -> tuple[float, float, float, float]:
        left, top, right, bottom = value
        if not (left < right and top < bottom):
            raise ValueError(f"{list(value)} holds no place; write [left, top, right, bottom] with left < right")
        return value

    def size_of(self, defect: str) -> tuple[float, float]:
        """Return the least and greatest length of a type."""
        if isinstance(self.size, dict):
            return self.size.get(defect) or _SIZE
        return self.size
