"""The mask that a generator draws itself: where the picture of the damage alone leaves mid-grey.

In that picture everything normal is exactly mid-grey by construction, so the distance to grey says where the damage is.
How far is far enough is learned from shots made half anew, whose masks are known: the threshold with the best mean
overlap (IoU), once for pixels and once for cells of the latent. A network that tells salient from plain (U^2-Net, as
the paper's authors use) would look for the same thing without having been told what grey means.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

LEVELS = 64
"""Thresholds that are tried."""
_RANGES = {"pixel": (0.01, 1.0), "cell": (0.02, 4.0)}
"""Distances between which they lie, evenly in the logarithm."""
_STARTS = {"pixel": 0.15, "cell": 0.5}
"""Thresholds before anything was learned."""


def pixel_distance(image: Tensor, grey: Tensor) -> Tensor:
    """Return float32 (B,1,H,W): how far pixels are from grey, in [0,2], averaged over 3 x 3.

    Args:
        image: float32 (B,3,H,W) in [-1,1], decoded.
        grey: float32 (1,3,H,W): mid-grey after the same decoder, which seldom gives back an exact zero.
    """
    return avg_pool2d((image - grey).abs().amax(1, keepdim=True), 3, stride=1, padding=1, count_include_pad=False)


def cell_distance(latent: Tensor, grey: Tensor) -> Tensor:
    """Return float32 (B,1,h,w): how far latents (B,C,h,w) are from grey's (1,C,h,w), root mean square over channels."""
    return (latent - grey).square().mean(1, keepdim=True).sqrt()


def overlaps(distance: Tensor, mask: Tensor, defect: str) -> Tensor:
    """Return the overlap (IoU) of each view's mask with its thresholded distance, float32 (B,LEVELS).

    Args:
        distance: float32 (B,1,H,W).
        mask: float32 (B,1,H,W) in {0,1}.
        defect type: "pixel" or "cell".
    """
    flat, truth = distance.flatten(1), mask.flatten(1)
    found = []
    for level in _levels(defect):
        seen = (flat > level).float()
        both = (seen * truth).sum(1)
        found.append(both / (seen.sum(1) + truth.sum(1) - both).clamp_min(1))
    return torch.stack(found, 1)


class MaskThreshold(nn.Module):
    """The learned thresholds; saved as two numbers, never trained by gradients."""

    pixel: Tensor
    cell: Tensor

    def __init__(self) -> None:
        super().__init__()
        for defect, value in _STARTS.items():
            self.register_buffer(defect, torch.tensor(value))

    def learn(self, defect: str, found: Tensor) -> float:
        """Take the threshold with the best mean overlap, and return that overlap.

        Args:
            defect type: "pixel" or "cell".
            found: float32 (N,LEVELS) from `overlaps`.
        """
        mean = found.float().mean(0)
        best = int(mean.argmax())
        getattr(self, defect).fill_(_levels(defect)[best])
        return float(mean[best])

    def forward(
        self, distance: Tensor, allowed: Tensor, smallest: float, largest: float
    ) -> tuple[Tensor, tuple[str, ...]]:
        """Return masks float32 (B,1,H,W) in {0,1}, never empty where something is allowed, and what is wrong with them.

        Args:
            distance: float32 (B,1,H,W) from `pixel_distance`.
            allowed: float32 (B,1,H,W) in {0,1}: where damage may lie.
            smallest: Pieces below this share of the window are dropped; when none is left, the word is "empty".
            largest: Above this share of the window the word is "overflow".
        """
        area = distance[0].numel()
        found = tidy((distance > self.pixel) * allowed, round(smallest * area)) * allowed
        words = []
        for row, share in enumerate((found.flatten(1).sum(1) / area).tolist()):
            words.append("empty" if share == 0 else "overflow" if share > largest else "")
            if share == 0:  # something to look at all the same
                found[row] = strongest(distance[row : row + 1], allowed[row : row + 1], smallest)[0]
        return found, tuple(words)


def packed(mask: Tensor) -> Tensor:
    """Return masks (B,1,H,W) in {0,1} as bits, uint8 (B,ceil(HW/8)): views are kept by the thousand."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(len(mask), -1).astype(bool), axis=1))


def unpacked(bits: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return masks float32 (B,1,H,W) in {0,1}; undoes `packed`."""
    flat = np.unpackbits(bits.numpy(), axis=1, count=shape[0] * shape[1])
    return torch.from_numpy(flat).float().view(-1, 1, *shape)


def tidy(found: Tensor, smallest: int) -> Tensor:
    """Return masks (B,1,H,W) in {0,1} without pieces below `smallest` pixels and with their pinholes closed."""
    kept = []
    for mask in found[:, 0].cpu().numpy().astype(np.uint8):
        closed = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8))
        count, labels, stats, _ = cv2.connectedComponentsWithStats(closed, connectivity=8)
        large = stats[:, cv2.CC_STAT_AREA] >= smallest
        large[0] = False
        kept.append(large[labels] if count > 1 else np.zeros_like(mask, bool))
    return torch.from_numpy(np.stack(kept))[:, None].float().to(found.device)


def strongest(distance: Tensor, allowed: Tensor, share: float) -> Tensor:
    """Return the farthest pixels of what is allowed, at least one, float32 (B,1,H,W) in {0,1}.

    Args:
        distance: float32 (B,1,H,W).
        allowed: float32 (B,1,H,W) in {0,1}.
        share: How many, as a share of what is allowed.
    """
    out = torch.zeros_like(allowed)
    for row in range(len(out)):
        inside = torch.where(allowed[row] > 0, distance[row], -1.0).flatten()
        count = max(1, round(share * float(allowed[row].sum())))
        out[row].view(-1)[inside.topk(count).indices] = 1
    return out * (allowed > 0)


def _levels(defect: str) -> list[float]:
    low, high = _RANGES[defect]
    return [float(level) for level in np.geomspace(low, high, LEVELS)]
