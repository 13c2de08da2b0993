"""The procedural factory: exact masks, damage on the part, equal bytes for equal seeds, and sentences for mistakes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from flawsmith.data.factory import DEFECTS, SURFACES, defects_of, make, make_random, write_dataset
from flawsmith.errors import DataError

cv2.setNumThreads(1)
PAIRS = [(surface, defect) for surface in SURFACES for defect in defects_of(surface)]


@pytest.mark.parametrize(("surface", "defect"), PAIRS)
def test_the_mask_is_exactly_where_the_damage_changed_the_picture(surface: str, defect: str) -> None:
    grey = len(surface + defect) % 2 == 0
    piece = make(surface, defect, seed=3, size=96, grey=grey)
    assert piece.image.dtype == np.uint8
    assert piece.image.shape == piece.normal.shape == ((96, 96) if grey else (96, 96, 3))
    assert piece.mask.dtype == piece.part.dtype == np.bool_
    assert piece.mask.any()
    assert piece.mask.mean() < 0.45
    assert np.array_equal(piece.image[~piece.mask], piece.normal[~piece.mask])
    change = np.abs(piece.image.astype(int) - piece.normal).reshape(96, 96, -1).max(-1)[piece.mask]
    assert change.mean() >= 3
    assert (piece.mask & piece.part).sum() >= 0.4 * piece.mask.sum()
    assert piece.facts["kind"] == defect
    assert piece.facts["share"] == pytest.approx(piece.mask.mean(), abs=1e-4)


@pytest.mark.parametrize("surface", SURFACES)
def test_equal_seeds_make_equal_bytes_and_others_do_not(surface: str) -> None:
    kind = defects_of(surface)[0]
    first, again, other = (make(surface, kind, seed=seed, size=64) for seed in (5, 5, 6))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert (first.caption, first.facts) == (again.caption, again.facts)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("surface", SURFACES)
def test_a_sound_piece_has_no_mask_and_a_damaged_one_stems_from_it(surface: str) -> None:
    sound = make(surface, None, seed=8, size=64)
    assert not sound.mask.any()
    assert sound.defect is None
    assert np.array_equal(sound.image, sound.normal)
    assert "without defects" in sound.caption
    struck = make(surface, defects_of(surface)[-1], seed=8, size=64)
    assert np.array_equal(struck.normal, sound.image)


def test_every_defect_is_made_somewhere_and_every_surface_knows_five() -> None:
    assert {defect for _, defect in PAIRS} == set(DEFECTS)
    assert all(len(defects_of(surface)) >= 5 for surface in SURFACES)


def test_a_line_keeps_its_look_from_piece_to_piece() -> None:
    def colour(seed: int, line: int | None) -> np.ndarray:
        return make("plastic", None, seed=seed, size=48, line=line).image.mean((0, 1))

    within = np.std([colour(k, 1) for k in range(6)], axis=0).mean()
    across = np.std([colour(k, None) for k in range(6)], axis=0).mean()
    assert within < 0.5 * across
    one, two = (make("plastic", None, seed=k, size=48, line=1).image for k in (0, 1))
    assert not np.array_equal(one, two)


def test_random_pieces_vary_and_mind_the_share_of_sound_ones() -> None:
    pieces = [make_random(seed, size=48) for seed in range(40)]
    assert len({piece.surface for piece in pieces}) > 6
    assert len({piece.defect for piece in pieces}) > 6
    assert 8 < sum(piece.image.ndim == 2 for piece in pieces) < 32
    assert all(make_random(seed, size=32, sound_share=1.0).defect is None for seed in range(5))
    assert all(make_random(seed, size=32, sound_share=0.0).defect is not None for seed in range(5))


def test_a_data_set_has_the_mvtec_layout_and_equal_bytes(tmp_path: Path) -> None:
    for root in (tmp_path / "a", tmp_path / "b"):
        write_dataset(root, "wood", ["hole", "scratch"], normals=2, per_defect=2, size=48, seed=3, test_normals=1)
    found = sorted(p.relative_to(tmp_path / "a").as_posix() for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert found == [
        "wood/ground_truth/hole/000_mask.png",
        "wood/ground_truth/hole/001_mask.png",
        "wood/ground_truth/scratch/000_mask.png",
        "wood/ground_truth/scratch/001_mask.png",
        "wood/test/good/000.png",
        "wood/test/hole/000.png",
        "wood/test/hole/001.png",
        "wood/test/scratch/000.png",
        "wood/test/scratch/001.png",
        "wood/train/good/000.png",
        "wood/train/good/001.png",
    ]
    for name in found:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    mask = cv2.imread(str(tmp_path / "a" / found[0]), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (48, 48)
    assert set(np.unique(mask)) == {0, 255}


def test_mistakes_are_answered_with_what_would_be_right(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="did you mean 'steel'"):
        make("stel", None, seed=0)
    with pytest.raises(DataError, match="did you mean 'scratch'"):
        make("steel", "scrach", seed=0)
    with pytest.raises(DataError, match="makes no sense on 'weave'; these do: hole, cut"):
        make("weave", "rust", seed=0)
    with pytest.raises(DataError, match="at least 32"):
        make("steel", None, seed=0, size=31)
    with pytest.raises(DataError, match="known: .*steel"):
        defects_of("zzzz")
    with pytest.raises(DataError, match="at least 32"):
        write_dataset(tmp_path, "steel", [], normals=1, per_defect=0, size=8)
    with pytest.raises(DataError):
        write_dataset(tmp_path, "steel", ["scratch", "nothing"], normals=1, per_defect=1)
    assert not list(tmp_path.iterdir())
