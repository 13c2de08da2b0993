"""What lies under a photograph's damage when the shots that lend it are laid over the photograph."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np

from flawsmith.data.masks.poses import Pose, apply_pose_image, apply_pose_mask
from flawsmith.data.patches.grain import PIECE, regrained, sharpened
from flawsmith.data.photographs import Photographs
from flawsmith.data.tiling import Spot
from flawsmith.data.windows import spot_of
from flawsmith.run.records import PlanLine
from flawsmith.types import Example


def posed_shot(
    line: PlanLine,
    by_id: Mapping[str, Example],
    normal: np.ndarray,
    damage: np.ndarray,
    spot: Spot,
    photographs: Photographs,
) -> np.ndarray | None:
    """Return what lies under a spot of the photograph, float32 (h,w,3) in [-1,1]; None = the line lays no shot.

    Where several shots lend damage, each pixel shows the one whose damage is nearest. On surfaces a shot's grain is
    laid unscaled, as strong as the normal picture has it; on parts what is fine is as strong as it was in the shot.

    Args:
        line: A sample's.
        by_id: The photographs that it may name.
        normal: float32 (h,w,3): the photograph in the spot.
        damage: bool (H,W): where damage is asked for.
        spot: Rows and columns of the photograph.
        photographs: Reads them.
    """
    shot = by_id.get(line.shot)
    if line.pose is None or shot is None:
        return None
    posed = _laid(line, shot, line.pose, normal, damage, spot, photographs)
    if not line.further:
        return posed
    nearest = _distance(shot, line.pose, damage.shape, spot, photographs)
    for further in line.further:
        lender = by_id[further.shot]
        distance = _distance(lender, further.pose, damage.shape, spot, photographs)
        nearer = distance < nearest
        posed[nearer] = _laid(line, lender, further.pose, normal, damage, spot, photographs)[nearer]
        nearest = np.minimum(nearest, distance)
    return posed


def _laid(
    line: PlanLine,
    shot: Example,
    pose: Pose,
    normal: np.ndarray,
    damage: np.ndarray,
    spot: Spot,
    photographs: Photographs,
) -> np.ndarray:
    """Return a shot under a spot of the photograph, float32 (h,w,3)."""
    lender, part = photographs.read(shot), photographs.part(shot)
    posed = apply_pose_image(lender.native, lender.span, pose, damage.shape, spot, part)
    assert lender.mask is not None
    box = spot_of([], lender.mask, 2 * PIECE)
    lent = lender.model(box), lender.mask[box]
    if not (photographs.is_surface(line.product) and photographs.is_surface(shot.product)):
        return sharpened(posed, damage[spot], *lent)  # of a part, threads and outlines would count as grain
    corners = (box[1].start, box[0].start), (spot[1].start, spot[0].start)
    return regrained(posed, *lent, pose.array, normal, damage[spot], corners=corners)


def _distance(shot: Example, pose: Pose, shape: tuple[int, ...], spot: Spot, photographs: Photographs) -> np.ndarray:
    """Return how far each pixel of a spot is from a shot's damage, float32 (h,w) in px."""
    mask = photographs.read(shot).mask
    assert mask is not None
    laid = apply_pose_mask(mask, pose, shape, photographs.part(shot))[spot]
    if not laid.any():
        return np.full(laid.shape, np.inf, np.float32)
    return np.asarray(cv2.distanceTransform((~laid).astype(np.uint8), cv2.DIST_L2, 5))
