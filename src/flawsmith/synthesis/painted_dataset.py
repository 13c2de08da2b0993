"""Samples painted while a detector trains: a torch `Dataset` that writes nothing and never shows a sample twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from flawsmith.data import images
from flawsmith.data.scaling import scaled, scaled_mask
from flawsmith.data.tensors import image_tensor, mask_tensor
from flawsmith.errors import ConfigError, DataError, nearest
from flawsmith.synthesis.by_hand.brush import Brush
from flawsmith.synthesis.by_hand.source import Source
from flawsmith.synthesis.plan import plan_line

_TRIES = 8
"""Lines that are tried for one picture; a line is given up when nothing of its paint shows."""
_APART = 1 << 40
"""Between the numbers of these lines: no epoch gets there."""


class PaintedDataset(Dataset[dict[str, Tensor]]):
    """Damaged pictures, painted when they are asked for: other ones in every epoch.

    Photograph, shot, mask and pose are chosen as `generate` plans them, from (seed, epoch, index) alone: the same ones
    whatever the number of workers. The defect types of all products take turns. An item is

        image   float32 (3,R,C), RGB, [-1,1]
        mask    float32 (1,R,C), {0,1}; 1 = damaged, never empty
        defect  int64 (), its place in `defects`

    Only shots and normal parts to learn from are used, so no test picture of the set gets into training. Workers of a
    `DataLoader` may be forked or spawned; a spawned one opens the source anew. Call `set_epoch` before each epoch;
    workers that persist hear of it too.

    Args:
        source: A run or its folder, a folder of photographs, or a configuration file; see `Brush.open`.
        length: Pictures per epoch.
        seed: Another seed, other pictures.
        shape: (R,C) that each picture is scaled to; None = as the photograph is, which a batch needs to be equal.
        products: Only these; () = all.
        defects: Only these defect types; () = all.
        generator: As for `Brush.open`.
        settings: As for `Brush.open`.

    Raises:
        ConfigError: nothing to paint, an unknown product or type, a length below 1; and what `Brush.open` raises.
    """

    def __init__(
        self,
        source: Source,
        length: int,
        *,
        seed: int = 0,
        shape: tuple[int, int] | None = None,
        products: Sequence[str] = (),
        defects: Sequence[str] = (),
        generator: str = "",
        settings: dict[str, Any] | None = None,
    ) -> None:
        if length < 1 or not 0 <= seed < 2**31:
            raise ConfigError(f"length {length}, seed {seed}: a length is at least 1, a seed from 0 to {2**31 - 1}")
        self.length, self.seed, self.shape = length, seed, shape
        self._opening: dict[str, Any] = {"source": source, "generator": generator, "settings": settings}
        self._brush: Brush | None = None
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # so that workers hear of `set_epoch`
        known = self.brush.defects
        for what, names, valid in (
            ("products", products, known),
            ("defects", defects, {name for types in known.values() for name in types}),
        ):
            if unknown := [name for name in names if name not in valid]:
                raise ConfigError(f"{what}: there are no shots of {unknown[0]!r}{nearest(unknown[0], valid)}")
        painted_on = {normal.product for normal in self.brush.data.split.normals}
        self._kinds = [
            (product, name)
            for product, types in known.items()
            for name in types
            if product in painted_on and product in (products or known) and name in (defects or types)
        ]
        if not self._kinds:
            raise ConfigError("products, defects: no product has shots of these types; leave one of the two out")
        self.defects = tuple(sorted({name for _, name in self._kinds}))
        """The defect types, in the order in which `defect` counts them."""

    def __len__(self) -> int:
        return self.length

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_brush": None}  # a spawned worker opens its own

    @property
    def brush(self) -> Brush:
        """What paints; opened once in each process."""
        if self._brush is None:
            self._brush = Brush.open(**self._opening)
        return self._brush

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch it is, 0 or later; the pictures of an epoch are always the same."""
        if epoch < 0:
            raise ConfigError(f"epoch: {epoch} is out of range; the first is 0")
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Paint one picture.

        Raises:
            DataError: nothing of the paint shows, after several photographs, shots and poses.
        """
        if not 0 <= index < self.length:
            raise IndexError(index)
        product, defect = self._kinds[index % len(self._kinds)]
        native, mask = self._painted(int(self._epoch) * self.length + index, product, defect)
        picture = images.to_model(native, images.range_of(native, self.brush.range_of(product)))
        if self.shape is not None:
            picture, mask = scaled(picture, self.shape), scaled_mask(mask, self.shape)
        return {
            "image": image_tensor([picture])[0],
            "mask": mask_tensor([mask])[0],
            "defect": torch.tensor(self.defects.index(defect)),
        }

    def _painted(self, number: int, product: str, defect: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the native picture of this number among those of all epochs, and its mask."""
        brush = self.brush
        job, config = brush.job_of(product, defect), brush.config.model_copy(update={"seed": self.seed})
        for attempt in range(_TRIES):
            line = plan_line(
                config,
                brush.data,
                index=number + attempt * _APART,
                batch=0,
                job=job,
                product=product,
                defect=defect,
            )
            (painted,) = brush.painters.of(job).paint([line])
            if painted.picture is not None and painted.mask is not None:
                return painted.picture, painted.mask
        raise DataError(
            f"{product}/{defect}: of {_TRIES} samples of {brush.config.generator.name} none shows any damage; look at "
            "`flawsmith check`, or name another generator"
        )
