"""A procedural factory: photographs of normal surfaces and parts, and the same with known damage, masks and captions.

    piece = make("steel", "scratch", seed=7)
    piece.image, piece.mask, piece.normal, piece.caption

Matter (height, albedo, roughness, metal) is built, struck by a defect in its geometry or colour, and both versions are
lit by the same lamps and photographed by the same camera: the damage shades, glints and casts shadows as the rest does.
"""

from flawsmith.data.factory.catalogue import DEFECTS, SURFACES, defects_of
from flawsmith.data.factory.dataset import write_dataset
from flawsmith.data.factory.scene import Piece, make, make_random

__all__ = ["DEFECTS", "SURFACES", "Piece", "defects_of", "make", "make_random", "write_dataset"]
