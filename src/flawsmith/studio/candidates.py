"""Candidates: what was painted into a mask and waits for a person's word; and what becomes of one that is accepted.

Of a candidate only the part round its change is kept, in a file of the studio's own. Accepted, it is laid into the
photograph again, so outside the mask every pixel is the photograph's.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith.data import images
from flawsmith.data.exported.names import safe_name
from flawsmith.data.masks.poses import Pose
from flawsmith.errors import DataError
from flawsmith.files import file_digest
from flawsmith.locks import locked
from flawsmith.run.painted import SUFFIXES
from flawsmith.studio.masks import mask_of
from flawsmith.studio.pictures import Box, box_around
from flawsmith.synthesis.by_hand.painted import Painted, Provenance
from flawsmith.types import Example

_NUMBER = re.compile(r"(\d{6,})\.")


@dataclass(frozen=True)
class Candidate:
    """What was painted, without the photograph round it."""

    name: str
    photograph: str
    """Id of what was painted on."""
    digest: str
    """Of that file's bytes."""
    shape: tuple[int, int]
    box: Box
    """Where the change lies: top, left, bottom, right."""
    crop: np.ndarray
    """The picture there, native."""
    mask: np.ndarray
    """bool: what visibly changed there."""
    drawn: tuple[int, ...]
    """Runs of the mask as it was drawn (`studio.masks`)."""
    provenance: Provenance

    @classmethod
    def of(cls, name: str, example: Example, native: np.ndarray, painted: Painted, drawn: tuple[int, ...]) -> Candidate:
        """Return a painted picture as a candidate; `native` is the photograph."""
        whole = painted.provenance.paint == "whole"  # only then anything changes outside the mask
        box = box_around(images.differs(painted.picture, native) | painted.mask if whole else painted.mask)
        inside = slice(box[0], box[2]), slice(box[1], box[3])
        provenance = replace(painted.provenance, photograph=str(example.image))
        return cls(
            name=name,
            photograph=example.id,
            digest=file_digest(example.image),
            shape=(native.shape[0], native.shape[1]),
            box=box,
            crop=painted.picture[inside].copy(),
            mask=painted.mask[inside].copy(),
            drawn=drawn,
            provenance=provenance,
        )

    def save(self, folder: Path) -> None:
        """Write it to folder/NAME.npz; a half-written file has another name."""
        part = folder / f"{self.name}.part.npz"
        words = {"photograph": self.photograph, "digest": self.digest, "provenance": self.provenance.to_json()}
        numbers = {"shape": self.shape, "box": self.box, "drawn": np.asarray(self.drawn, np.int64)}
        text = np.frombuffer(json.dumps(words).encode(), np.uint8)
        np.savez(part, crop=self.crop, mask=self.mask, words=text, **numbers)  # type: ignore[arg-type]
        part.rename(folder / f"{self.name}.npz")

    @classmethod
    def load(cls, folder: Path, name: str) -> Candidate:
        """Read what `save` wrote.

        Raises:
            DataError: there is no such candidate any more.
        """
        path = folder / f"{name}.npz"
        if not re.fullmatch(r"\d+-\d+", name) or not path.is_file():
            raise DataError(f"candidate {name[:40]!r}: is not there any more; paint again")
        with np.load(path, allow_pickle=False) as file:
            words = json.loads(file["words"].tobytes())
            top, left, bottom, right = (int(value) for value in file["box"])
            height, width = (int(value) for value in file["shape"])
            return cls(
                name=name,
                photograph=words["photograph"],
                digest=words["digest"],
                shape=(height, width),
                box=(top, left, bottom, right),
                crop=file["crop"],
                mask=file["mask"],
                drawn=tuple(int(value) for value in file["drawn"]),
                provenance=_provenance(words["provenance"]),
            )

    def laid_on(self, native: np.ndarray) -> Painted:
        """Return the whole picture: the photograph, with the candidate in its place."""
        picture, mask = native.copy(), np.zeros(self.shape, bool)
        top, left, bottom, right = self.box
        picture[top:bottom, left:right] = self.crop
        mask[top:bottom, left:right] = self.mask
        return Painted(picture, mask, self.provenance)


def accept(candidate: Candidate, example: Example, folder: Path) -> str:
    """Write a candidate as a pair, whole or not at all; return its name below the folder (`run.painted`).

    Args:
        candidate: What was chosen.
        example: The photograph that it was painted on.
        folder: RUN/painted, or the folder of pictures that belong to no run.

    Raises:
        DataError: the photograph is another one by now.
        RunError: the place cannot be written.
    """
    if file_digest(example.image) != candidate.digest:
        raise DataError(f"{example.image}: has changed since the candidates were painted; paint again")
    painted = candidate.laid_on(images.read(example.image))
    made = candidate.provenance
    type_folder = folder / folder_name(made.product) / folder_name(made.defect)
    with locked(folder / ".lock"):
        number = 1 + max(
            (int(fit[1]) for path in type_folder.glob("*") if (fit := _NUMBER.match(path.name))), default=0
        )
        path = type_folder / f"{number:06d}{images.lossless_suffix(painted.picture)}"
        assert path.suffix in SUFFIXES
        images.write_mask(path.with_suffix(".drawn.mask.png"), mask_of(candidate.drawn, candidate.shape))
        painted.write(path)
    return path.relative_to(folder).with_suffix("").as_posix()


def folder_name(name: str) -> str:
    """Return a folder's name for a product or a type: the name itself where every system takes it as a folder."""
    plain = name == name.strip(" .") and not re.search(r'[\x00-\x1f<>:"/\\|?*]', name) and 0 < len(name.encode()) <= 120
    return name if plain else safe_name(name)


def _provenance(tree: dict[str, Any]) -> Provenance:
    return Provenance(**{**tree, "pose": Pose.from_json(tree["pose"]) if tree["pose"] else None})
