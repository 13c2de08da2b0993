"""Poisson image editing (Perez, Gangnet, Blake: SIGGRAPH 2003), solved here on float32.

OpenCV's seamlessClone works on 8 bits, moves the patch to where it likes and takes the picture's edge for a border;
ours keeps 16-bit cameras whole, pastes in place, and lets nothing flow through the picture's edge.

Inside the mask the result has the source's gradients and joins the target without a seam. It is written as source + h,
where h spreads the difference at the border into the mask. One sparse factorisation serves all channels; a region too
large for that is solved by multigrid cycles, each of which corrects at half the size what is left.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from scipy import sparse
from scipy.sparse import linalg

Mask = np.ndarray
Floats = np.ndarray

_DIRECT = 150_000
"""Unknowns up to which one factorisation takes about a second."""


DARK = 0.1
"""Added to a brightness of 0..2 before its logarithm: about 12 of 255, so that grain in the dark stays small."""


def poisson(target: Floats, source: Floats, mask: Mask, *, mixed: bool = False) -> Floats:
    """Return the target with the source's gradients inside the mask, float32 (H,W,C); outside, the target itself.

    Args:
        target: float32 (H,W,C) in [-1,1]: what is pasted into, and the border's values.
        source: float32 (H,W,C): what is pasted, aligned with the target.
        mask: bool (H,W). A region without a border (a mask that covers the picture) keeps the target's mean.
        mixed: True: of each pair of neighbours, keep the stronger gradient of the two pictures, so that the target's
            own texture shows through where the source is smooth.

    Returns:
        Not clipped: steep gradients may leave [-1,1] a little.
    """
    if target.shape != source.shape or mask.shape != target.shape[:2]:
        raise ValueError(f"target {target.shape}, source {source.shape} and mask {mask.shape} do not fit")
    out = np.array(target, dtype=np.float32)
    if not mask.any():
        return out
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # One pixel of border is all that the solution sees; beyond the picture there is none.
    spot = (
        slice(max(int(rows[0]) - 1, 0), int(rows[-1]) + 2),
        slice(max(int(columns[0]) - 1, 0), int(columns[-1]) + 2),
    )
    flat = target.ndim == 2
    goal, patch = (np.atleast_3d(picture[spot]).astype(np.float64) for picture in (target, source))
    solved = patch + _spread(goal, patch, mask[spot], mixed)
    part = out[spot]
    part[mask[spot]] = (solved[:, :, 0] if flat else solved)[mask[spot]].astype(np.float32)
    return out


def blended(
    normal: Floats, shot: Floats, mask: Mask, *, rim: int = 3, gain: float | None = None, mixed: bool = False
) -> Floats:
    """Return the normal with the shot's damage blended in by Poisson's equation, float32 (H,W,3) in [-1,1].

    Labels are tight: solved in the label alone, a dark hole would hang on its own half-dark rim and fade. So it is
    solved in the mask grown by `rim` px, where the shot's tone counts as normal.

    Args:
        normal: float32 (H,W,3) in [-1,1].
        shot: float32 (H,W,3), its damage under the mask.
        mask: bool (H,W).
        rim: Pixels.
        gain: Contrast of the damage in tones; None = blend ratios instead of tones, as light works, so that a pit keeps
            its share of darkness on a brighter part.
        mixed: As for `poisson`.
    """
    if not mask.any():
        return normal
    where = grown(mask, rim)
    if gain is not None:
        # Scaling the source scales its gradients, and gradients are all that the solution takes from it.
        pasted = poisson(normal, shot * np.float32(gain), where, mixed=mixed)
    else:
        lit = np.exp(poisson(_logs(normal), _logs(shot), where, mixed=mixed)) - (1 + DARK)
        pasted = np.where(where[:, :, None], lit, normal)
    return np.asarray(np.clip(pasted, -1.0, 1.0), np.float32)


def _logs(picture: Floats) -> Floats:
    return np.asarray(np.log(picture + np.float32(1 + DARK)), np.float32)


def grown(mask: Mask, by: int) -> Mask:
    """Return a bool mask (H,W) grown by a disc of radius `by` px."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1))
    return np.asarray(cv2.dilate(mask.astype(np.uint8), disc) > 0)


def _spread(goal: np.ndarray, patch: np.ndarray, mask: Mask, mixed: bool) -> np.ndarray:
    """The correction h (H,W,C), 0 outside the mask: laplacian h = divergence of what `mixed` adds, h = goal - patch at
    the border."""
    height, width, channels = goal.shape
    matrix, known, bare = _laplacian(mask)
    apart = np.where(mask[:, :, None], 0.0, goal - patch)
    # each unknown hears its neighbours outside the mask through `known`
    right = known @ apart.reshape(-1, channels)
    if mixed:
        right += _extra(goal, patch)[mask]
    hold = 1e-6 * bare  # nothing holds a region without a border: hold its mean, very lightly
    right += hold[:, None] * (goal - patch)[mask]
    result = np.zeros((height, width, channels))
    result[mask] = _solver(matrix, hold, mask)(right)
    return result


def _solver(matrix: sparse.csr_array, hold: np.ndarray, mask: Mask) -> Any:
    """A function that solves the matrix over the mask's pixels (N,N) for right sides (N,C), returning (N,C)."""
    if hold.any():
        matrix = (matrix + sparse.diags_array(hold)).tocsr()
    if matrix.shape[0] <= _DIRECT:
        return _factorised(matrix)
    height, width = mask.shape
    # Only cells that lie wholly inside: a coarse border farther out than the fine one would overshoot.
    even = np.pad(np.stack([mask, _placed(hold, mask)]), ((0, 0), (0, height % 2), (0, width % 2)), mode="edge")
    cells = even.reshape(2, even.shape[1] // 2, 2, even.shape[2] // 2, 2)
    low = np.asarray(cells[0].all(axis=(1, 3)))
    if not low.any():
        return _factorised(matrix)
    coarse = _solver(_laplacian(low)[0], cells[1].sum(axis=(1, 3))[low], low)
    diagonal = matrix.diagonal()[:, None]

    def solve(right: np.ndarray) -> np.ndarray:
        now = np.zeros_like(right)
        full = np.zeros((low.shape[0] * 2, low.shape[1] * 2, right.shape[1]))
        half = np.zeros((*low.shape, right.shape[1]))
        for _ in range(12):
            for _ in range(4):
                now += 0.8 * (right - matrix @ now) / diagonal
            full[:height, :width][mask] = right - matrix @ now
            # a coarse pixel answers for the sum of its four: so the fluxes through its sides agree
            half[low] = coarse(full.reshape(low.shape[0], 2, low.shape[1], 2, -1).sum(axis=(1, 3))[low])
            now += cv2.resize(half, full.shape[1::-1], interpolation=cv2.INTER_LINEAR).reshape(full.shape)[
                :height, :width
            ][mask]
            for _ in range(4):
                now += 0.8 * (right - matrix @ now) / diagonal
        return now

    return solve


def _factorised(matrix: sparse.csr_array) -> Any:
    """A function that solves a symmetric matrix (N,N) for right sides (N,C)."""
    columns = sparse.csc_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)  # its rows are those
    # SuperLU would treat columns in groups, for the caches of 1998; one by one takes two thirds of time and memory.
    return linalg.splu(columns, permc_spec="MMD_AT_PLUS_A", relax=1, panel_size=1).solve


def _placed(values: np.ndarray, mask: Mask) -> np.ndarray:
    canvas = np.zeros(mask.shape)
    canvas[mask] = values
    return canvas


def _laplacian(mask: Mask) -> tuple[sparse.csr_array, sparse.csr_array, np.ndarray]:
    """The five-point Laplacian over the mask's pixels (N,N), what ties them to all pixels outside (N,H*W), and which
    pixels belong to a region that has no border at all, bool (N,)."""
    height, width = mask.shape
    count = int(mask.sum())
    number = np.full((height, width), -1, np.int32)
    number[mask] = np.arange(count, dtype=np.int32)
    pixel = np.arange(height * width, dtype=np.int32).reshape(height, width)
    degree = np.zeros(count)
    inner: list[np.ndarray] = []
    outer: list[np.ndarray] = []
    pairs = (
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    )
    for one, other in pairs:
        for here, there in ((one, other), (other, one)):
            mine = mask[here]
            np.add.at(degree, number[here][mine], 1.0)  # neighbours that exist; none beyond the picture's edge
            both, edge = mine & mask[there], mine & ~mask[there]
            inner.append(np.stack([number[here][both], number[there][both]]))
            outer.append(np.stack([number[here][edge], pixel[there][edge]]))
    ties, rim = np.concatenate(inner, axis=1), np.concatenate(outer, axis=1)
    off = sparse.csr_array((np.full(ties.shape[1], -1.0), (ties[0], ties[1])), shape=(count, count))
    matrix = off + sparse.diags_array(degree)
    known = sparse.csr_array((np.ones(rim.shape[1]), (rim[0], rim[1])), shape=(count, height * width))
    regions, region = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    tied = np.zeros(regions, bool)
    tied[region[mask][rim[0]]] = True
    return matrix.tocsr(), known, ~tied[region[mask]]


def _extra(goal: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """What mixed gradients add: minus the divergence of (the stronger gradient - the source's own), (H,W,C)."""
    added = np.zeros_like(goal)
    for axis in (0, 1):
        theirs, ours = np.diff(goal, axis=axis), np.diff(patch, axis=axis)
        gain = np.where(np.abs(theirs) > np.abs(ours), theirs - ours, 0.0)
        low = [slice(None)] * 3
        high = [slice(None)] * 3
        low[axis], high[axis] = slice(None, -1), slice(1, None)
        added[tuple(low)] -= gain
        added[tuple(high)] += gain
    return added
