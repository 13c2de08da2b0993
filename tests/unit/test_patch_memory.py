"""nn/methods/patch_memory.py: the nearest normal patch, against a reference in numpy, and the maps made of it."""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import Tensor
from torch.nn import functional as F

from flawsmith.detectors.memory_probe import MemoryProbe, MemoryProbeSettings
from flawsmith.errors import ConfigError, DataError
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.methods import patch_memory
from flawsmith.nn.methods.patch_memory import MemoryMaps, PatchMemory, described, digest, farthest_of
from flawsmith.nn.networks.extractor import Extractor


class Pooled(Extractor):
    """Colours at two scales: a real extractor, small enough to check by hand."""

    name, fingerprint, strides, channels = "pooled", "0" * 12, (2, 4), (3, 3)
    asked = 0

    def maps(self, image: Tensor) -> list[Tensor]:
        self.asked += 1
        return [F.avg_pool2d(image, 2), F.avg_pool2d(image, 4)]

    def vector(self, image: Tensor) -> Tensor:
        return image.mean((2, 3))


def pictures(count: int, seed: int) -> Tensor:
    return torch.rand((count, 3, 16, 24), generator=torch.Generator().manual_seed(seed)) * 2 - 1


def memory_of(images: Tensor, size: int = 40, extractor: Extractor | None = None) -> PatchMemory:
    return PatchMemory.of(
        extractor or Pooled(),
        lambda: [images],
        (0, 1),
        photographs=range(len(images)),
        size=size,
        draw=96 * len(images),
    )


def distances(memory: PatchMemory, patches: Tensor) -> np.ndarray:
    table: np.ndarray = np.linalg.norm(
        patches.numpy()[:, None].astype(np.float64) - memory.patches.numpy()[None], axis=2
    )
    return table


def test_rounded_features_have_a_memory_of_their_own() -> None:
    """What is delivered does not depend on what was proven before in the same process."""
    images = pictures(4, 0)
    alone = memory_of(images).fingerprint
    patch_memory._REMEMBERED.clear()
    rounded = memory_of(images, extractor=FeatureCache(Pooled(), half=True)).fingerprint
    assert rounded != alone and memory_of(images).fingerprint == alone


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_memory, "_NEAREST", patch_memory._Nearest(1 << 20))
    monkeypatch.setattr(patch_memory, "_REMEMBERED", OrderedDict())


def test_the_nearest_patch_is_that_of_a_reference() -> None:
    memory = memory_of(pictures(4, 0))
    patches = torch.rand((50, 6), generator=torch.Generator().manual_seed(1)) * 2 - 1
    table = distances(memory, patches)
    for without in (None, 2):
        asked = np.where(memory.photographs.numpy() == without, np.inf, table)
        distance, number = memory.nearest(patches, without)
        assert np.allclose(distance, asked.min(1), atol=1e-4)
        assert np.allclose(asked[np.arange(50), number], asked.min(1), atol=1e-4)


def test_the_maps_are_residual_distance_and_surroundings() -> None:
    memory, image = memory_of(pictures(4, 0)), pictures(2, 5)
    maps = MemoryMaps(Pooled(), memory).maps(image)
    assert [one.shape for one in maps] == [(2, 3, 8, 12), (2, 3, 4, 6), (2, 8, 8, 12)]
    assert torch.equal(maps[0], Pooled().maps(image)[0])
    patches = described(Pooled().maps(image), (0, 1))[1].flatten(1).T.numpy()
    nearest = np.linalg.norm(patches[:, None] - memory.patches.numpy()[None], axis=2).argmin(1)
    residual = np.abs(patches - memory.patches.numpy()[nearest])
    assert np.allclose(maps[2][1, :6].flatten(1).T, residual, atol=1e-5)
    far = np.log(np.linalg.norm(residual, axis=1) + 1e-3).reshape(8, 12)
    assert np.allclose(maps[2][1, 6], far, atol=1e-4)
    for row, column in ((0, 0), (4, 6), (7, 11)):
        around = far[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5].max()
        assert abs(float(maps[2][1, 7, row, column]) - around) < 1e-4


def test_what_is_remembered_lies_at_no_distance() -> None:
    image = pictures(1, 3)
    maps = MemoryMaps(Pooled(), memory_of(image, size=10_000))
    assert maps.memory.patches.shape == (96, 6)
    distance, other = (maps.maps(one)[2][:, 6].exp() - 1e-3 for one in (image, pictures(1, 4)))
    assert float(distance.max()) < 1e-2 and float(other.mean()) > 0.05


def test_a_photograph_is_not_compared_with_itself() -> None:
    normals = pictures(3, 3)
    memory = memory_of(normals, size=10_000)
    alone = memory_of(normals[:2], size=10_000)
    known = MemoryMaps(Pooled(), memory, {digest(normals[2]): 2}).maps(normals)[2][:, 6].exp() - 1e-3
    assert float(known[:2].max()) < 1e-2 and float(known[2].mean()) > 0.05
    patches = described(Pooled().maps(normals[2:]), (0, 1))[0].flatten(1).T
    assert np.allclose(known[2].flatten(), distances(alone, patches).min(1), atol=1e-3)
    # Of a memory of one photograph something is left to compare with.
    single = memory_of(normals[2:], size=10_000)
    assert torch.isfinite(MemoryMaps(Pooled(), single, {digest(normals[2]): 0}).maps(normals[2:])[2]).all()


def test_how_far_a_picture_lies_is_told_by_its_loudest_cells() -> None:
    memory, image = memory_of(pictures(4, 0)), pictures(3, 5)
    maps = MemoryMaps(Pooled(), memory)
    far = maps.maps(image)[2][:, 6].numpy()
    smooth = np.stack([uniform_filter(one, 3, mode="constant") for one in far])
    inside = uniform_filter(np.ones((8, 12)), 3, mode="constant")
    assert np.allclose(farthest_of(maps.far(image)), (smooth / inside).max((1, 2)), atol=1e-4)  # 0.3 % of 96 cells: one


def test_of_equal_pictures_it_is_the_same_memory_and_made_once() -> None:
    images, extractor = pictures(4, 0), Pooled()
    first = memory_of(images, extractor=extractor)
    asked = extractor.asked
    assert memory_of(images.clone(), extractor=extractor) is first and extractor.asked == asked
    assert memory_of(images, size=20, extractor=extractor) is not first
    patch_memory._REMEMBERED.clear()
    assert torch.equal(memory_of(images).patches, first.patches)


def test_no_chosen_patch_is_chosen_twice_and_none_lies_far() -> None:
    pool = torch.rand((200, 5), generator=torch.Generator().manual_seed(2))
    chosen = patch_memory._k_centre(pool, 20, torch.Generator().manual_seed(0))
    assert len(set(chosen.tolist())) == 20
    rng = torch.Generator().manual_seed(0)
    projected = (pool @ torch.randn(5, 5, generator=rng)).double().numpy()
    expected = [int(torch.randint(200, (1,), generator=rng))]
    while len(expected) < 20:
        gaps = np.linalg.norm(projected[:, None] - projected[expected][None], axis=2).min(1)
        expected.append(int(gaps.argmax()))
    assert chosen.tolist() == expected


def test_the_nearest_patches_are_kept_per_memory_and_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    image = pictures(2, 9)
    asked: list[int] = []
    nearest = PatchMemory.nearest

    def counted(self: PatchMemory, patches: Tensor, without: int | None = None) -> tuple[Tensor, Tensor]:
        asked.append(len(patches))
        return nearest(self, patches, without)

    monkeypatch.setattr(PatchMemory, "nearest", counted)
    first = MemoryMaps(Pooled(), memory_of(pictures(4, 0))).maps(image)
    assert asked == [96, 96]
    again = MemoryMaps(Pooled(), memory_of(pictures(4, 0))).maps(image)
    assert asked == [96, 96] and all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = MemoryMaps(Pooled(), memory_of(pictures(4, 1))).maps(image)
    MemoryMaps(Pooled(), memory_of(pictures(4, 0)), {digest(image[0]): 1}).maps(image)
    assert len(asked) == 5 and not torch.equal(first[2], other[2])


def test_little_room_costs_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    image, maps = pictures(3, 9), MemoryMaps(Pooled(), memory_of(pictures(4, 0)))
    roomy = maps.maps(image)
    monkeypatch.setattr(patch_memory, "_NEAREST", patch_memory._Nearest(1))
    assert all(torch.equal(a, b) for a, b in zip(roomy, maps.maps(image), strict=True))


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"memory_probe.depths: pooled has no depth 7"):
        MemoryProbe(MemoryProbeSettings(depths=(1, 7)), ["crack"], extractor=Pooled())
    with pytest.raises(ConfigError, match=r"memory_probe.head"):
        MemoryProbe(MemoryProbeSettings(head={"stepps": 3}, depths=(0, 1)), ["crack"], extractor=Pooled())
    detector = MemoryProbe(MemoryProbeSettings(head={"steps": 100}, depths=(0, 1)), ["crack"], extractor=Pooled())
    assert detector.reduced(1) == ""
    text = "memory_probe remembers 2000 patches, not 4000; each of the probe's heads trains 50 steps, not 100"
    assert detector.reduced(0.5) == text
    with pytest.raises(DataError, match="call fit first"):
        detector.predict(pictures(1, 0))
