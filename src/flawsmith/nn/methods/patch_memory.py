"""A memory of normal patches, as in PatchCore, and what it says of a picture as maps beside an extractor's own.

Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022: patches of mid-depth feature maps,
averaged with their neighbours (section 3.1), thinned to a coreset by greedy k-centre on random projections (3.2), and
compared by the distance to the nearest (3.3). What differs: the extractor is the house's, and the greedy search starts
from a random draw of patches, so that two cores manage it.

That the residual to the nearest normal feature helps a head that is taught with few defects: Yao et al., "Explicit
Boundary Guided Semi-Push-Pull Contrastive Learning" (BGAD, CVPR 2023) and Zhang et al., "Prototypical Residual
Networks for Anomaly Detection and Localization" (PRN, CVPR 2023) learn from it; here it is one more map.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith.nn.networks.extractor import Extractor

_PROJECTED = 64
_ROWS = 4096
"""Patches that are compared with the memory at once."""
_LEAST = 1e-3
"""Added to a distance before its logarithm is taken."""
_AROUND = 9
"""Side, in cells, of the surroundings whose greatest distance a cell is told."""
_KEPT = 256 << 20
"""Bytes of nearest patches that are kept between trainings."""


class PatchMemory:
    """Normal patches, and the nearest of them to any patch.

    Args:
        patches: float32 (M,D).
        depths: Which of the extractor's depths (0 = the finest) describe a patch.
    """

    def __init__(self, patches: Tensor, depths: Sequence[int]) -> None:
        self.patches = patches
        self.depths = tuple(depths)
        self.fingerprint = hashlib.sha256(patches.cpu().numpy().tobytes()).hexdigest()[:16]

    @classmethod
    def of(
        cls,
        batches: Iterable[Sequence[Tensor]],
        depths: Sequence[int],
        *,
        size: int,
        each: int,
        rng: torch.Generator,
    ) -> PatchMemory:
        """Choose the patches to remember.

        Args:
            batches: An extractor's maps of normal pictures, float32 (B,C_i,h_i,w_i) per depth.
            depths: Those that describe a patch.
            size: Patches to keep.
            each: Patches drawn at random per picture, from which those are chosen.
            rng: Draws.
        """
        drawn = []
        for maps in batches:
            for row in described(maps, depths).flatten(2):
                drawn.append(row[:, torch.randperm(row.shape[1], generator=rng)[:each]].T)
        pool = torch.cat(drawn)
        return cls(pool[_k_centre(pool, min(size, len(pool)), rng)], depths)

    def to(self, device: str) -> PatchMemory:
        """Return the memory on a device."""
        return PatchMemory(self.patches.to(device), self.depths)

    def nearest(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distance to the nearest remembered patch, float32 (N,), and its number, int64 (N,)."""
        parts = [torch.cdist(part, self.patches).min(1) for part in patches.to(self.patches.device).split(_ROWS)]
        return torch.cat([part.values for part in parts]).float(), torch.cat([part.indices for part in parts])


class MemoryMaps(Extractor):
    """An extractor whose maps have one more depth: what a memory of normal patches says of every cell.

    Of D + 2 channels: the absolute residual to the nearest normal patch, the logarithm of its distance, and the
    greatest logarithm in the surroundings. Which patch is nearest is kept between trainings, per picture.
    """

    def __init__(self, inner: Extractor, memory: PatchMemory) -> None:
        super().__init__()
        self.inner, self.memory = inner, memory
        self.name, self.fingerprint = inner.name, f"{inner.fingerprint}-{memory.fingerprint}"
        finest = min(memory.depths)
        self.strides = (*inner.strides, inner.strides[finest])
        self.channels = (*inner.channels, memory.patches.shape[1] + 2)

    def maps(self, image: Tensor) -> list[Tensor]:
        maps = self.inner.maps(image)
        patches = described(maps, self.memory.depths)
        distance, number = self._nearest(image, patches)
        remembered = self.memory.patches.cpu()[number].permute(0, 3, 1, 2)
        far = torch.log(distance[:, None] + _LEAST)
        around = F.max_pool2d(far, _AROUND, 1, _AROUND // 2)
        return [*maps, torch.cat([(patches - remembered).abs(), far, around], 1).to(maps[0].device)]

    def vector(self, image: Tensor) -> Tensor:
        return self.inner.vector(image)

    def _nearest(self, image: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Return distances, float32 (B,h,w), and numbers, int64 (B,h,w), of the nearest patches."""
        grid, rows = patches.shape[-2:], []
        for picture, cells in zip(image, patches, strict=True):
            key = self.fingerprint, hashlib.sha256(picture.cpu().numpy().tobytes()).digest()
            rows.append(_NEAREST.get(key) or _NEAREST.put(key, self.memory.nearest(cells.flatten(1).T)))
        return (
            torch.stack([distance for distance, _ in rows]).view(-1, *grid),
            torch.stack([number.long() for _, number in rows]).view(-1, *grid),
        )


class _Nearest:
    """The nearest patches of pictures looked at before; the arms of a proof share most pictures and the memory."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[tuple[str, bytes], tuple[Tensor, Tensor]] = OrderedDict()

    def get(self, key: tuple[str, bytes]) -> tuple[Tensor, Tensor] | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: tuple[str, bytes], nearest: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        row = nearest[0].cpu(), nearest[1].to("cpu", torch.int32)
        self._kept[key] = row
        self._bytes += _size(row)
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return row


_NEAREST = _Nearest(_KEPT)


def described(maps: Sequence[Tensor], depths: Sequence[int]) -> Tensor:
    """Return float32 (B,D,h,w): the chosen depths, averaged over 3 x 3 neighbours, on the finest one's grid."""
    chosen = [F.avg_pool2d(maps[depth].float().cpu(), 3, 1, 1) for depth in depths]
    grid = chosen[0].shape[-2:]
    return torch.cat([F.interpolate(one, grid, mode="bilinear", align_corners=False) for one in chosen], 1)


def _size(row: tuple[Tensor, Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in row)


def _k_centre(pool: Tensor, count: int, rng: torch.Generator) -> Tensor:
    """Choose `count` rows so that no row is far from a chosen one: greedy, on a random projection (section 3.2)."""
    projection = torch.randn(pool.shape[1], min(_PROJECTED, pool.shape[1]), generator=rng)
    projected = pool @ projection
    chosen = torch.empty(count, dtype=torch.long)
    chosen[0] = int(torch.randint(len(projected), (1,), generator=rng))
    distance = torch.full((len(projected),), torch.inf)
    for number in range(1, count):
        distance = torch.minimum(distance, (projected - projected[chosen[number - 1]]).square().sum(1))
        chosen[number] = distance.argmax()
    return chosen
