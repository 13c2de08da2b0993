"""A run's pictures as Anomalib's items: at their own size, with masks, and with the photograph beneath."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from anomalib.data import AnomalibDataset, ImageBatch, ImageItem
from pandas import DataFrame
from torch import Tensor
from torchvision.transforms.v2 import Resize
from torchvision.tv_tensors import Image, Mask

from flawsmith.data import images
from flawsmith.data.masks.reading import read_label
from flawsmith.data.scaling import as_detectors_see, scaled_mask
from flawsmith.types import Example, Range


@dataclass
class PaintedItem(ImageItem):
    """One picture, and the photograph that it was painted on."""

    beneath: Tensor | None = None
    """float32 (3,H,W), RGB, [0,1]; the picture itself where it is a photograph."""


@dataclass
class PaintedBatch(ImageBatch):
    """Several of them."""

    item_class: ClassVar[type[ImageItem]] = PaintedItem
    beneath: Tensor | None = None
    """float32 (B,3,H,W)."""


@dataclass(frozen=True)
class Shown:
    """A picture on disk as Anomalib meets it."""

    image: Path
    span: Range | None
    damage: tuple[Example, ...] = ()
    """Itself once for each of its defect types; () = it is labelled normal."""
    origin: str = "real"
    """`real`, `made` or `control`."""
    beneath: Path | None = None
    """The photograph that it was painted on."""


class PictureDataset(AnomalibDataset):
    """Pictures at their own size, in their product's value range, with what is marked as damaged.

    `samples` has Anomalib's columns, and `defect` and `origin` (`real`, `made`, `control`). The mask of a picture that
    is only resized is scaled so that thin damage stays; Anomalib's own scaling takes every so many rows and may step
    over it. What a mask leaves open, neither damage nor background, counts as normal, for Anomalib knows no third.
    """

    def __init__(self, pictures: Iterable[Shown], part: str) -> None:
        super().__init__()
        self._pictures = {str(one.image): one for one in pictures}
        rows = {
            "image_path": list(self._pictures),
            "label": ["abnormal" if one.damage else "normal" for one in self._pictures.values()],
            "label_index": [int(bool(one.damage)) for one in self._pictures.values()],
            "mask_path": "",
            "split": part,
            "defect": ["+".join(str(two.defect) for two in one.damage) for one in self._pictures.values()],
            "origin": [one.origin for one in self._pictures.values()],
        }
        frame = DataFrame(rows)
        frame.attrs["task"] = "segmentation"
        self.samples = frame

    def __getitem__(self, index: int) -> PaintedItem:
        path = self.samples.iloc[index].image_path
        picture = self._pictures[path]
        native = images.read(picture.image)
        damage = np.zeros(native.shape[:2], bool)
        for example in picture.damage:
            damage |= read_label(example, native.shape)
        image = _tensor(native, picture.span)
        beneath = image if picture.beneath is None else _tensor(images.read(picture.beneath), picture.span)
        mask = Mask(torch.from_numpy(damage).to(torch.uint8))
        if self.augmentations is not None:
            resized = isinstance(self.augmentations, Resize)
            image, mask, beneath = self.augmentations(image, mask, beneath)
            if resized:
                mask = Mask(torch.from_numpy(scaled_mask(damage, image.shape[-2:])).to(torch.uint8))
        label = torch.tensor(int(bool(picture.damage)))
        return PaintedItem(image=image, gt_mask=mask, gt_label=label, image_path=path, mask_path="", beneath=beneath)

    @property
    def collate_fn(self) -> Callable[..., Any]:
        return PaintedBatch.collate


def _tensor(native: np.ndarray, span: Range | None) -> Any:
    shown = as_detectors_see(native, span, native.shape[:2])
    return Image(torch.from_numpy(shown).permute(2, 0, 1).float() / 255)
