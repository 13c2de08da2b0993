"""nn/methods/mask_threshold.py: the mask from the distance to grey, its learned threshold, and what is refused."""

from __future__ import annotations

import numpy as np
import torch

from flawsmith.nn.methods.mask_threshold import (
    LEVELS,
    MaskThreshold,
    cell_distance,
    overlaps,
    packed,
    pixel_distance,
    strongest,
    tidy,
    unpacked,
)


def test_distance_to_grey() -> None:
    image = torch.zeros(2, 3, 12, 12)
    image[1, 0, 4:8, 4:8] = -0.6  # one channel is enough, darker or lighter
    seen = pixel_distance(image + 0.1, torch.full((1, 3, 12, 12), 0.1))
    assert seen.shape == (2, 1, 12, 12) and float(seen[0].abs().max()) < 1e-6
    assert np.isclose(float(seen[1, 0, 5, 5]), 0.6) and float(seen[1, 0, 0, 0]) < 1e-6
    latent = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    assert np.isclose(float(cell_distance(latent, torch.zeros(1, 2, 1, 1))), (25 / 2) ** 0.5)


def test_the_threshold_is_learned() -> None:
    """Damage at 0.3 in a haze of up to 0.2: the learned threshold lies between, and its overlap is whole."""
    rng = torch.Generator().manual_seed(0)
    mask = torch.zeros(4, 1, 32, 32)
    mask[:, :, 10:20, 8:16] = 1
    distance = 0.2 * torch.rand(mask.shape, generator=rng) * (1 - mask) + 0.3 * mask
    found = overlaps(distance, mask, "pixel")
    assert found.shape == (4, LEVELS)
    level = float(torch.tensor(0.25))
    assert float(found.max()) == 1.0 and float(found[:, 0].max()) < 0.5
    drawn = MaskThreshold()
    assert drawn.learn("pixel", found) == 1.0
    assert 0.19 < float(drawn.pixel) < 0.3 and abs(float(drawn.pixel) - level) < 0.06
    other = MaskThreshold()
    other.load_state_dict(drawn.state_dict())
    assert float(other.pixel) == float(drawn.pixel)
    assert not list(drawn.parameters()), "it is computed, not trained"


def test_empty_and_overflowing_masks_are_refused_with_a_word() -> None:
    drawn = MaskThreshold()
    drawn.pixel.fill_(0.5)
    distance = torch.zeros(4, 1, 20, 20)
    distance[0, 0, 5:10, 5:10] = 1
    distance[1] = 0.1
    distance[1, 0, 3, 3] = 0.2
    distance[2] = 1
    distance[3, 0, 5, 5] = 1  # a speck
    allowed = torch.ones_like(distance)
    allowed[0, 0, :, 8:] = 0
    mask, words = drawn(distance, allowed, 0.01, 0.5)
    assert words == ("", "empty", "overflow", "empty")
    assert bool((mask <= allowed).all()) and set(mask.unique().tolist()) == {0.0, 1.0}
    assert int(mask[0].sum()) == 5 * 3
    assert bool(mask[1, 0, 3, 3]) and int(mask[1].sum()) == 4, "the farthest pixels stand in for nothing"


def test_tidy_drops_specks_and_closes_pinholes() -> None:
    mask = torch.zeros(1, 1, 20, 20)
    mask[0, 0, 4:10, 4:10] = 1
    mask[0, 0, 6, 6] = 0
    mask[0, 0, 15, 15] = 1
    out = tidy(mask, 4)
    assert bool(out[0, 0, 6, 6]) and not bool(out[0, 0, 15, 15]) and int(out.sum()) == 36
    assert int(tidy(torch.zeros(1, 1, 8, 8), 1).sum()) == 0


def test_strongest_stays_inside() -> None:
    distance = torch.arange(16.0).view(1, 1, 4, 4)
    allowed = torch.zeros(1, 1, 4, 4)
    allowed[0, 0, :2] = 1
    out = strongest(distance, allowed, 0.25)
    assert out.flatten().nonzero().flatten().tolist() == [6, 7]
    assert int(strongest(distance, torch.zeros(1, 1, 4, 4), 0.5).sum()) == 0


def test_packed_masks_come_back_whole() -> None:
    mask = (torch.rand(3, 1, 13, 11, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    bits = packed(mask)
    assert bits.dtype == torch.uint8 and bits.shape == (3, 18)
    assert torch.equal(unpacked(bits, (13, 11)), mask)
