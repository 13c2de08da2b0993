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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flawsmith.nn.networks.extractor import Extractor

_PROJECTED = 64
_ROWS = 1024
"""Patches that are compared with the memory at once."""
_LEAST = 1e-3
"""Added to a distance before its logarithm is taken."""
_AROUND = 9
"""Side, in cells, of the surroundings whose greatest distance a cell is told."""
_LOUDEST = 0.003
"""Share of a picture's cells that say how far it lies from the memory."""
_KEPT = 256 << 20
"""Bytes of nearest patches that are kept between trainings."""
_MEMORIES = 8
"""Memories that are kept between trainings: the arms of a proof share their normal pictures, so does what is tried in
each of the folds of a choice."""


class Place(NamedTuple):
    """Where a remembered patch was taken."""

    picture: int
    """`digest` of the picture."""
    row: int
    """On the grid of the finest of the memory's depths, as is `column`."""
    column: int


class PatchMemory:
    """Normal patches, and the nearest of them to any patch.

    Args:
        patches: float32 (M,D).
        photographs: int64 (M,): the number of the photograph that each patch comes from.
        depths: Which of the extractor's depths (0 = the finest) describe a patch.
        places: Where each patch was taken.
    """

    def __init__(self, patches: Tensor, photographs: Tensor, depths: Sequence[int], places: Sequence[Place]) -> None:
        self.patches, self.photographs, self.depths = patches, photographs, tuple(depths)
        self.places = tuple(places)
        self.fingerprint = hashlib.sha256(patches.cpu().numpy().tobytes()).hexdigest()[:16]
        self._squares = patches.square().sum(1)
        # One place for all comparisons: taken anew for each picture, what is kept between them would tear the heap.
        self._compared = torch.empty((_ROWS, len(patches)), device=patches.device)

    @classmethod
    def of(
        cls,
        extractor: Extractor,
        batches: Callable[[], Iterable[Tensor]],
        depths: Sequence[int],
        *,
        photographs: Sequence[int],
        size: int,
        draw: int,
    ) -> PatchMemory:
        """Choose the patches of normal pictures to remember; of equal pictures it is the same memory every time.

        Args:
            extractor: What describes them.
            batches: Gives the pictures anew, in their order: float32 (B,3,H,W), RGB, [-1,1].
            depths: Those of the extractor's depths that describe a patch.
            photographs: The number of the photograph that each picture shows; tiles of one share it.
            size: Patches to keep.
            draw: Patches drawn at random, as many from every picture, from which those are chosen.
        """
        described_by = f"{extractor.name} {extractor.fingerprint} {extractor.rounding}"
        asked = f"{described_by} {tuple(depths)} {size} {draw} {list(photographs)}"
        digests = [digest(picture) for batch in batches() for picture in batch]
        key: tuple[str | int, ...] = (asked, *digests)
        if key not in _REMEMBERED:
            rng = torch.Generator().manual_seed(0)
            each = max(1, draw // len(digests))
            drawn: list[Tensor] = []
            places: list[Place] = []
            with torch.inference_mode():
                for batch in batches():
                    for cells in described(extractor.maps(batch), depths):
                        patches, picture = cells.flatten(1), digests[len(drawn)]
                        numbers = torch.randperm(patches.shape[1], generator=rng)[:each]
                        drawn.append(patches[:, numbers].T)
                        places += [Place(picture, *divmod(one, cells.shape[2])) for one in numbers.tolist()]
                pool = torch.cat(drawn)
                shown = torch.tensor(photographs).repeat_interleave(torch.tensor([len(one) for one in drawn]))
                chosen = _k_centre(pool, min(size, len(pool)), rng)
                taken = [places[number] for number in chosen.tolist()]
                _REMEMBERED[key] = cls(pool[chosen], shown[chosen], depths, taken)
            while len(_REMEMBERED) > _MEMORIES:
                _REMEMBERED.popitem(last=False)
        _REMEMBERED.move_to_end(key)
        return _REMEMBERED[key]

    def to(self, device: str) -> PatchMemory:
        """Return the memory on a device."""
        if device == str(self.patches.device):
            return self
        return PatchMemory(self.patches.to(device), self.photographs.to(device), self.depths, self.places)

    @torch.inference_mode()
    def nearest(self, patches: Tensor, without: int | None = None) -> tuple[Tensor, Tensor]:
        """Return the distance to the nearest remembered patch, float32 (N,), and its number, int64 (N,).

        Args:
            patches: float32 (N,D).
            without: Number of a photograph whose patches are not looked at: the one that is shown, or from which a
                sample or control was made. Compared with itself, all that is learned from would lie nearer than what
                is tested.
        """
        squares = self._squares
        if without is not None and not bool((alone := self.photographs == without).all()):
            squares = squares.masked_fill(alone, torch.inf)
        distances, numbers = [], []
        for part in patches.to(squares.device).split(_ROWS):
            # The square of the asked patch is left out of the search: it moves all distances of a row alike.
            compared = self._compared[: len(part)]
            least = torch.addmm(squares[None], part, self.patches.T, alpha=-2, out=compared).min(1)
            distances.append((least.values + part.square().sum(1)).clamp_min(0).sqrt())
            numbers.append(least.indices)
        return torch.cat(distances), torch.cat(numbers)

    @torch.inference_mode()
    def nearest_first(self, patch: Tensor) -> Iterator[tuple[float, Place]]:
        """Yield the distance to each remembered patch and its place, the nearest first.

        Args:
            patch: float32 (D,).
        """
        distances = (self.patches - patch.to(self.patches.device)).norm(dim=1).cpu()
        for number in distances.argsort(stable=True).tolist():
            yield float(distances[number]), self.places[number]


class MemoryMaps(Extractor):
    """An extractor whose maps have one more depth: what a memory of normal patches says of every cell.

    Of D + 2 channels: the absolute residual to the nearest normal patch, the logarithm of its distance, and the
    greatest logarithm in the surroundings. Which patch is nearest is kept between trainings, per picture.

    Args:
        inner: The extractor whose maps come first.
        memory: Of its patches.
        photographs: Which remembered photograph a picture shows or was made from, by the picture's `digest`; what is
            not in it is compared with the whole memory.
    """

    def __init__(self, inner: Extractor, memory: PatchMemory, photographs: Mapping[int, int] | None = None) -> None:
        super().__init__()
        self.inner, self.memory, self._photographs = inner, memory, photographs or {}
        self.name, self.fingerprint = inner.name, f"{inner.fingerprint}-{memory.fingerprint}"
        finest = min(memory.depths)
        self.strides = (*inner.strides, inner.strides[finest])
        self.channels = (*inner.channels, memory.patches.shape[1] + 2)

    def maps(self, image: Tensor) -> list[Tensor]:
        maps = self.inner.maps(image)
        patches = described(maps, self.memory.depths)
        distance, number = self._nearest(image, lambda: patches)
        remembered = self.memory.patches.cpu()[number]
        return [*maps, _said_by_memory(patches, remembered, distance).to(maps[0].device)]

    def vector(self, image: Tensor) -> Tensor:
        return self.inner.vector(image)

    def graph(self) -> nn.Module:
        return MemoryGraph(self.inner.graph(), self.memory)

    def far(self, image: Tensor) -> Tensor:
        """Return float32 (B,1,h,w): the logarithm of the cells' distance from the memory, without the other maps."""
        distance, _ = self._nearest(image, lambda: described(self.inner.maps(image), self.memory.depths))
        return torch.log(distance[:, None] + _LEAST)

    def _nearest(self, image: Tensor, patches: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Return distances, float32 (B,h,w), and numbers, int64 (B,h,w), of the nearest patches.

        Args:
            image: The pictures.
            patches: Describes them, float32 (B,D,h,w); called only where the nearest of one are not kept.
        """
        digests = [digest(picture) for picture in image]
        keys = [(self.fingerprint, one, self._photographs.get(one)) for one in digests]
        rows = [_NEAREST.get(key) for key in keys]
        if any(row is None for row in rows):
            for at, cells in enumerate(patches()):
                if rows[at] is None:
                    distance, number = self.memory.nearest(cells.flatten(1).T, keys[at][2])
                    grid = cells.shape[1:]
                    rows[at] = _NEAREST.put(keys[at], (distance.view(grid), number.view(grid)))
        kept = [row for row in rows if row is not None]
        return torch.stack([distance for distance, _ in kept]), torch.stack([number.long() for _, number in kept])


class NearestGraph(nn.Module):
    """The search for the nearest remembered patch as a network: what `PatchMemory.nearest` does, for every cell.

    Args:
        memory: A copy of its patches becomes part of the network.
    """

    patches: Tensor
    squares: Tensor

    def __init__(self, memory: PatchMemory) -> None:
        super().__init__()
        self.depths = memory.depths
        self.register_buffer("patches", memory.patches.cpu().clone())
        self.register_buffer("squares", self.patches.square().sum(1))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return cells float32 (B,D,h,w), their distances (B,h,w), and the nearest patches (B,h,w,D)."""
        cells = described(maps, self.depths)
        rows = cells.permute(0, 2, 3, 1).flatten(0, 2)
        least = torch.addmm(self.squares[None], rows, self.patches.T, alpha=-2).min(1)
        distance = (least.values + rows.square().sum(1)).clamp_min(0).sqrt()
        grid = cells.shape[-2:]
        return cells, distance.unflatten(0, (-1, *grid)), self.patches[least.indices].unflatten(0, (-1, *grid))


class MemoryGraph(nn.Module):
    """The maps of `MemoryMaps` as a network; every picture is compared with the whole memory.

    Args:
        inner: The graph of the extractor within.
        memory: Of its patches.
    """

    def __init__(self, inner: nn.Module, memory: PatchMemory) -> None:
        super().__init__()
        self.inner, self.nearest = inner, NearestGraph(memory)

    def forward(self, image: Tensor) -> list[Tensor]:
        maps: list[Tensor] = self.inner(image)
        cells, distance, remembered = self.nearest(maps)
        return [*maps, _said_by_memory(cells, remembered, distance)]


def log_distance(maps: Sequence[Tensor]) -> Tensor:
    """Return float32 (B,1,h,w): the logarithm of the distances, from the maps of `MemoryMaps`."""
    return maps[-1][:, -2:-1]


def farthest_of(far: Tensor) -> Tensor:
    """Return float32 (B,): how far pictures lie from the memory, where they lie farthest.

    The mean over `_LOUDEST` of the cells of the logarithm of their distance, each averaged over 3 x 3 cells: one cell
    by itself is often noise.

    Args:
        far: float32 (B,1,h,w): the logarithm of the distances.
    """
    smooth = F.avg_pool2d(far, 3, 1, 1, count_include_pad=False).flatten(1)
    return smooth.topk(max(1, round(smooth.shape[1] * _LOUDEST)), 1).values.mean(1)


def _said_by_memory(cells: Tensor, remembered: Tensor, distance: Tensor) -> Tensor:
    """Return float32 (B,D+2,h,w): what the memory says of cells (B,D,h,w), from their nearest patches (B,h,w,D)."""
    far = torch.log(distance[:, None] + _LEAST)
    around = F.max_pool2d(far, _AROUND, 1, _AROUND // 2)
    return torch.cat([(cells - remembered.permute(0, 3, 1, 2)).abs(), far, around], 1)


_Key = tuple[str, int, int | None]
"""A memory, a picture, and the remembered photograph that it was not compared with."""


class _Nearest:
    """The nearest patches of pictures looked at before; the arms of a proof share most pictures and the memory."""

    def __init__(self, limit: int) -> None:
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[_Key, tuple[Tensor, Tensor]] = OrderedDict()

    def get(self, key: _Key) -> tuple[Tensor, Tensor] | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: _Key, nearest: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        row = nearest[0].cpu(), nearest[1].to("cpu", torch.int32)
        self._kept[key] = row
        self._bytes += _size(row)
        while self._bytes > self._limit and len(self._kept) > 1:
            self._bytes -= _size(self._kept.popitem(last=False)[1])
        return row


_NEAREST = _Nearest(_KEPT)
_REMEMBERED: OrderedDict[tuple[str | int, ...], PatchMemory] = OrderedDict()


def digest(picture: Tensor) -> int:
    """Return a hash of a picture's shape and bytes, by which this process knows it again."""
    # Python's own, SipHash of 64 bits with a random key, is several times faster than a cryptographic one: every
    # picture is asked for at every prediction.
    return hash((tuple(picture.shape), picture.cpu().contiguous().numpy().tobytes()))


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
    squares = projected.square().sum(1)
    distance = torch.full((len(projected),), torch.inf)
    for number in range(1, count):
        latest = chosen[number - 1]
        distance = torch.minimum(
            distance, torch.addmv(squares, projected, projected[latest], alpha=-2) + squares[latest]
        )
        chosen[number] = distance.argmax()
    return chosen
