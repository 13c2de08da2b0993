"""Where a defect strikes, how big and how hard."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from flawsmith.data.factory.matter import Matter
from flawsmith.data.factory.noise import Field, Rng, blob


@dataclass(slots=True)
class Hit:
    """One strike. Lengths in px, angles in radians on picture axes."""

    n: int
    u: float
    rng: Rng
    x: float
    y: float
    r: float
    """About half the defect's extent."""
    angle: float
    """Its direction; at an outline, the way that leads into the part."""
    power: float
    """Severity, about [0.3,1]; more when a first try could not be seen."""

    def blob(
        self, radius: float | None = None, *, ragged: float = 0.35, aspect: float = 1.0, detail: float = 0.5
    ) -> Field:
        """Return the irregular distance field round the strike: 0 at the centre, 1 on the outline."""
        size = radius or self.r
        return blob(
            self.rng, self.n, self.x, self.y, size, ragged=ragged, aspect=aspect, angle=self.angle, detail=detail
        )


def aim(m: Matter, rng: Rng, n: int, u: float, r: float, power: float, at_edge: bool) -> Hit:
    """Return a strike on the part: anywhere on it, or on its outline (a picture's border, where a surface fills it)."""
    angle = rng.uniform(0, 2 * math.pi)
    if m.alpha is None:
        if at_edge and rng.random() < 0.6:
            return _at_border(rng, n, u, r, power)
        inset = min(0.55 * r, 0.25 * n)
        x, y = rng.uniform(inset, n - inset, 2)
        return Hit(n, u, rng, float(x), float(y), r, angle, power)
    solid = np.pad((m.alpha > 0.5).astype(np.uint8), 1)[1:-1, 1:-1]
    deep = cv2.distanceTransform(cv2.copyMakeBorder(solid, 1, 1, 1, 1, cv2.BORDER_CONSTANT), cv2.DIST_L2, 5)[1:-1, 1:-1]
    if at_edge:
        ys, xs = np.nonzero((deep > 0) & (deep < 2.0))
    else:
        ys, xs = np.nonzero(deep > min(0.25 * r + 1, 0.45 * float(deep.max())))
    k = int(rng.integers(len(xs)))
    x, y = float(xs[k]), float(ys[k])
    if at_edge:
        soft = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), 2.5)
        i, j = min(max(int(x), 1), n - 2), min(max(int(y), 1), n - 2)
        angle = math.atan2(float(soft[j + 1, i] - soft[j - 1, i]), float(soft[j, i + 1] - soft[j, i - 1]))
    return Hit(n, u, rng, x, y, r, angle, power)


def _at_border(rng: Rng, n: int, u: float, r: float, power: float) -> Hit:
    along, side = float(rng.uniform(0.1, 0.9) * n), int(rng.integers(4))
    x, y = ((along, 0.0), (n - 1.0, along), (along, n - 1.0), (0.0, along))[side]
    return Hit(n, u, rng, x, y, r, (side + 1) * math.pi / 2 + rng.normal(0, 0.3), power)
