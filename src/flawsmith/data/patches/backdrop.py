"""Take something off a picture: the surroundings go on where it lay, made of their own patches.

`data.patches.analogy` fills, as it does for damage, here with one source: the ring round the hole. Tone follows a
membrane spanned from the ring (`ratios`), so that only what stands out of it is made of patches, and a shading goes on.
"""

from __future__ import annotations

import numpy as np

from flawsmith.data.patches.analogy import filled
from flawsmith.data.patches.grain import grain_in
from flawsmith.data.patches.layers import HALF, Layer
from flawsmith.data.patches.ratios import RIM, from_logs, joined, logs, signed_distance, undamaged
from flawsmith.data.poisson import grown
from flawsmith.data.windows import spot_of

_LEAST_RING = 16
"""Px round the hole from which patches are taken, at least; and as far as the hole is wide."""
_FEWEST = 200
"""Pixels of surroundings that are enough; where others are left out and fewer remain, these are taken too."""


def without(
    picture: np.ndarray, hole: np.ndarray, rng: np.random.Generator, *, others: np.ndarray | None = None
) -> np.ndarray:
    """Return a picture with its surroundings in place of what lies in a hole, float32 (H,W,3) in [-1,1].

    Outside the hole no pixel changes.

    Args:
        picture: float32 (H,W,3), RGB, [-1,1].
        hole: bool (H,W).
        rng: All randomness.
        others: bool (H,W): other things on the picture, which the surroundings shall not show.
    """
    if not hole.any() or hole.all():
        return picture
    ring = max(_LEAST_RING, round(float(np.sqrt(hole.sum()))))
    spot = spot_of([], hole, ring + 2 * HALF)
    near, inside = picture[spot], hole[spot]
    avoided = inside if others is None else inside | others[spot]
    distance = signed_distance(inside)
    # A patch shows no pixel of what is taken off, nor of its soft edge.
    source = (distance > -float(ring)) & ~grown(avoided, RIM + HALF)
    if source.sum() < _FEWEST:
        source = ~grown(inside, RIM + HALF)
    if source.sum() < _FEWEST:
        source = ~inside
    logarithms = logs(near)
    smooth = undamaged(logarithms, inside)
    ratio = logarithms - smooth
    grain = grain_in(ratio, distance)
    wide = grown(inside, RIM)
    guide = np.zeros((*inside.shape, 1), np.float32)
    position = np.zeros((*inside.shape, 2), np.float32)
    target = Layer(ratio - grain, grain, guide, position, wide)
    lender = Layer(ratio - grain, grain, guide, position, source)
    made = joined(filled(target, [lender], rng), ratio, distance, float(max(distance.max(), 1.0)))
    result = picture.copy()
    result[spot] = np.where(inside[:, :, None], from_logs(smooth + made), near)
    return result
