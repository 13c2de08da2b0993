"""What `flawsmith.paint` gives back: the picture, its mask, and how both came about; and the three files of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith.data import images
from flawsmith.data.codecs.metadata_reading import metadata_of
from flawsmith.data.masks.poses import Pose
from flawsmith.errors import DataError, RunError
from flawsmith.files import write_json


@dataclass(frozen=True, slots=True)
class Provenance:
    """How a painted picture came about: enough to paint it again."""

    version: str
    """Of flawsmith."""
    source: str
    """The run folder, or the folder of photographs, that lent shots and settings."""
    inputs: str
    """A 16-digit hash of the settings that decide the picture, of the shots of its type, and of the trained weights."""
    generator: str
    product: str
    defect: str
    seed: int
    attempt: int
    """How many seeds were tried before this one, as little of the paint showed."""
    photograph: str
    """Path of what was painted on; "" = it was handed over as an array."""
    shot: str
    """Id of the shot that was laid on the mask for the generator to start from; "" = none was."""
    pose: Pose | None
    """How its damage was laid."""
    overlap: float | None
    """Intersection over union of that damage and the drawn mask, 0 to 1; None = nothing was fitted."""
    paint: str
    """`residual`, `replace` or `whole`: how the window came back into the photograph."""
    asked_area: int
    """Pixels of the drawn mask."""
    area: int
    """Pixels of the mask that came of it."""

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {**asdict(self), "pose": self.pose.to_json() if self.pose else None}


@dataclass(frozen=True, slots=True)
class Painted:
    """A photograph with painted damage."""

    picture: np.ndarray
    """Native, like the photograph: same size, depth and mode; outside the mask every pixel is the photograph's."""
    mask: np.ndarray
    """bool (H,W): what visibly changed; it lies inside the drawn mask, but for a generator that replaces
    whole windows (DualAnoDiff as published)."""
    provenance: Provenance

    def write(self, path: str | Path, *, overwrite: bool = False) -> tuple[Path, Path, Path]:
        """Write picture, mask (x.mask.png) and provenance (x.json); each whole or not at all, the last one last.

        Args:
            path: x.png, x.tif, ...: a format that loses nothing of the picture.
            overwrite: False = files that are there are left, and it raises.

        Raises:
            RunError: a file is there already, or cannot be written.
            DataError: the format loses something.
        """
        files = require_free(path, overwrite=overwrite)
        photograph = Path(self.provenance.photograph)
        metadata = images.with_reasons(photograph, metadata_of) if photograph.is_file() else None
        images.write(files[0], self.picture, metadata)
        images.write_mask(files[1], self.mask)
        write_json(files[2], self.provenance.to_json())
        return files


def require_free(path: str | Path, *, overwrite: bool = False) -> tuple[Path, Path, Path]:
    """Return the files of a picture, its mask and its provenance.

    Raises:
        RunError: one is there already, unless it may be overwritten.
        DataError: pictures are not written in the format that the name says.
    """
    path = Path(path)
    if path.suffix.lower() not in (".png", ".tif", ".tiff", ".bmp"):
        raise DataError(
            f"{path}: pictures are written as .png, .tif or .bmp, not {path.suffix or 'without a suffix'}; name it so"
        )
    files = path, path.with_suffix(".mask.png"), path.with_suffix(".json")
    there = [str(file) for file in files if file.exists()]
    if there and not overwrite:
        stand = "is there already" if len(there) == 1 else "are there already"
        raise RunError(f"{', '.join(there)} {stand}; name another file, or allow it with --overwrite (overwrite=True)")
    return files
