"""The generators made of pixels alone: their masks hold, their seeds repeat, their seams are where they say."""

import numpy as np
import pytest
import torch

from flawsmith.data import images
from flawsmith.errors import DataError
from flawsmith.generators.component import ComponentChange
from flawsmith.generators.crop_paste import CropPaste
from flawsmith.generators.cutpaste import CutPaste
from flawsmith.generators.nsa import NSA
from flawsmith.generators.patch_synthesis import PatchSynthesis
from flawsmith.generators.perlin import Perlin, perlin_noise
from flawsmith.types import Batch, Condition, Crop

SIZE = (48, 64)


def asked(seed=0, batch=2, grey=False, mask=None):
    rng = torch.Generator().manual_seed(seed)
    normal, shot = (torch.rand(batch, 1 if grey else 3, *SIZE, generator=rng) * 0.6 - 0.3 for _ in range(2))
    normal, shot = normal.expand(-1, 3, -1, -1).contiguous(), shot.expand(-1, 3, -1, -1).contiguous()
    if mask is None:
        mask = torch.zeros(batch, 1, *SIZE)
        mask[:, :, 12:34, 20:44] = 1
        shot[:, :, 15:31, 24:40] -= 0.6
    words = ("tile",) * batch, ("hole",) * batch
    return Condition(normal, mask, *words, shot=Batch(shot, mask, *words))


MAKERS = [CropPaste(None, CropPaste.Settings(blend=blend)) for blend in ("poisson", "mixed", "feather", "none")]
MAKERS += [Perlin(None, Perlin.Settings()), PatchSynthesis(None, PatchSynthesis.Settings())]
MAKERS += [
    CutPaste(None, CutPaste.Settings()),
    NSA(None, NSA.Settings()),
    ComponentChange(None, ComponentChange.Settings()),
]


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: getattr(maker.settings, "blend", type(maker).__name__))
def test_what_every_generator_owes(maker):
    request = asked()
    made = maker.sample(request, [1, 2], steps=1, guidance=1.0)
    again = maker.sample(request, [1, 2], steps=1, guidance=1.0)
    other = maker.sample(request, [3, 4], steps=1, guidance=1.0)
    assert made.image.dtype == torch.float32 and made.image.shape == request.normal.shape
    assert made.mask.shape == request.mask.shape and made.base is None
    assert set(made.mask.unique().tolist()) <= {0.0, 1.0} and made.mask.flatten(1).any(dim=1).all()
    assert made.image.abs().max() <= 1 and torch.isfinite(made.image).all()
    assert not (made.mask.bool() & ~request.mask.bool()).any()
    outside = (made.mask < 0.5).expand_as(made.image)
    assert torch.equal(made.image[outside], request.normal[outside])
    assert (made.image != request.normal).any()
    assert torch.equal(made.image, again.image) and torch.equal(made.mask, again.mask)
    assert not torch.equal(made.image, other.image)
    # a row does not depend on its neighbours
    alone = maker.sample(asked(batch=2), [9, 2], steps=1, guidance=1.0)
    assert torch.equal(alone.image[1], made.image[1])


@pytest.mark.parametrize("blend", ["poisson", "feather"])
def test_a_pasted_hole_is_as_deep_as_it_was(blend):
    request = asked()
    maker = CropPaste(None, CropPaste.Settings(blend=blend, strength=0.0))
    made = maker.sample(request, [0, 1], steps=1, guidance=1.0)
    change = (made.image - request.normal)[:, :, 18:28, 27:37].mean(dim=(1, 2, 3))
    assert ((change + 0.6).abs() < 0.2).all()


def test_tone_is_matched_to_the_surroundings():
    request = asked()
    bright = Batch(request.shot.image + 0.35, request.mask, *((("tile",) * 2, ("hole",) * 2)))
    request = Condition(request.normal - 0.2, request.mask, request.product, request.defect, bright)
    edge = np.s_[:, :, 13, 22:42]
    for blend in ("poisson", "feather", "none"):
        made = CropPaste(None, CropPaste.Settings(blend=blend)).sample(request, [0, 1], steps=1, guidance=1.0)
        assert (made.image[edge].mean() - request.normal[edge].mean()).abs() < 0.12
    plain = CropPaste(None, CropPaste.Settings(blend="none", match=False)).sample(
        request, [0, 1], steps=1, guidance=1.0
    )
    assert plain.image[edge].mean() - request.normal[edge].mean() > 0.4


def test_crop_paste_asks_for_a_shot():
    request = asked()
    with pytest.raises(DataError, match="shot"):
        CropPaste(None, CropPaste.Settings()).sample(
            Condition(request.normal, request.mask, request.product, request.defect), [1, 2], steps=1, guidance=1.0
        )


@pytest.mark.parametrize("scales", [0, 3, 6])
def test_perlin_is_never_empty(scales):
    maker = Perlin(None, Perlin.Settings(scales=scales, threshold=0.95))
    mask = torch.zeros(8, 1, *SIZE)
    for row in range(8):
        mask[row, 0, 3 : 4 + 5 * row, 5 : 6 + row] = 1
    made = maker.sample(asked(batch=8, mask=mask), list(range(8)), steps=1, guidance=1.0)
    area = made.mask.sum(dim=(1, 2, 3))
    assert (area >= torch.minimum(mask.sum(dim=(1, 2, 3)), torch.tensor(24.0))).all()
    assert torch.equal(made.mask[0], mask[0])  # a tiny place is used whole
    nowhere = maker.sample(asked(mask=torch.zeros(2, 1, *SIZE)), [1, 2], steps=1, guidance=1.0)
    assert nowhere.mask.sum() > 0  # no place given = anywhere


def test_a_grey_camera_sees_no_colour():
    made = Perlin(None, Perlin.Settings()).sample(asked(grey=True, batch=4), [1, 2, 3, 4], steps=1, guidance=1.0)
    assert torch.equal(made.image[:, 0], made.image[:, 1]) and torch.equal(made.image[:, 0], made.image[:, 2])


def test_textures_come_from_the_folder(tmp_path):
    images.write(
        tmp_path / "red.png", np.dstack([np.full((30, 50), 250, np.uint8)] + [np.zeros((30, 50), np.uint8)] * 2)
    )
    (tmp_path / "._red.png").write_bytes(b"\0\5\x16\7")  # macOS leaves such ones on a stick
    made = Perlin(None, Perlin.Settings(textures=tmp_path, opacity=(0.9, 0.9))).sample(
        asked(), [1, 2], steps=1, guidance=1.0
    )
    assert Perlin.starts_from(Perlin.Settings(textures=tmp_path)) == (tmp_path / "red.png",)
    assert Perlin.starts_from(Perlin.Settings()) == ()
    where = made.mask[:, 0] > 0
    assert (made.image[:, 0][where] - made.image[:, 1][where]).abs().mean() > 0.3
    with pytest.raises(DataError, match="no texture"):
        empty = tmp_path / "none"
        empty.mkdir()
        Perlin(None, Perlin.Settings(textures=empty)).sample(asked(), [1, 2], steps=1, guidance=1.0)


def test_noise_is_perlin_noise():
    rng = np.random.default_rng(0)
    noise = perlin_noise((64, 96), (4, 8), rng)
    assert noise.shape == (64, 96) and noise.dtype == np.float32
    assert abs(noise.mean()) < 0.2 and 0.5 < np.abs(noise).max() <= 1.5
    assert np.abs(np.diff(noise, axis=0)).max() < 0.5  # smooth
    turned = perlin_noise((64, 96), (1, 64), np.random.default_rng(1), angle=40)
    assert np.isfinite(turned).all() and turned.std() > 0.1


EVERYWHERE = torch.ones(1, 1, *SIZE)


def test_a_cut_patch_is_found_again_in_the_picture_and_has_the_papers_sides():
    request = asked(batch=1, mask=EVERYWHERE)
    maker = CutPaste(None, CutPaste.Settings(kind="patch", jitter=0.0))
    normal, areas = request.normal[0].permute(1, 2, 0).numpy(), []
    for seed in range(24):
        made = maker.sample(request, [seed], steps=1, guidance=1.0)
        mask, image = made.mask[0, 0].numpy() > 0.5, made.image[0].permute(1, 2, 0).numpy()
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        piece = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert mask.sum() == piece.shape[0] * piece.shape[1], "it is no rectangle"
        windows = np.lib.stride_tricks.sliding_window_view(normal, (*piece.shape[:2], 3))[:, :, 0]
        assert np.abs(windows - piece).max(axis=(2, 3, 4)).min() < 1e-6, "it does not come from the picture"
        if rows[0] and columns[0] and rows[-1] < SIZE[0] - 1 and columns[-1] < SIZE[1] - 1:  # not cut by an edge
            areas.append(mask.sum() / mask.size)
            assert 0.25 < piece.shape[0] / piece.shape[1] < 4
    assert len(areas) > 8 and 0.015 < min(areas) and max(areas) < 0.16


def test_scars_are_thin_and_turned():
    request = asked(batch=1, mask=torch.ones(1, 1, 256, 256))
    request = Condition(torch.rand(1, 3, 256, 256) * 0.6, request.mask, ("tile",), ("hole",))
    maker, turned = CutPaste(None, CutPaste.Settings(kind="scar")), 0
    for seed in range(12):
        rows, columns = np.nonzero(maker.sample(request, [seed], steps=1, guidance=1.0).mask[0, 0].numpy())
        assert len(rows) <= 16 * 25 * 1.2
        turned += len(rows) < 0.9 * (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
    assert turned > 6, "an upright rectangle fills its box"


def test_nsa_blends_what_it_has_learned_without_a_seam():
    request, maker = asked(batch=1, mask=EVERYWHERE), NSA(None, NSA.Settings(patches=1))
    flat = Condition(torch.zeros_like(request.normal), request.mask, ("tile",), ("hole",))
    rough = np.random.default_rng(0).uniform(-0.2, 0.2, (50, 60, 3)).astype(np.float32)
    none = np.zeros((50, 60), bool)
    learned = (rough + 0.6, "tile", ""), (rough - 0.6, "screw", ""), (rough, "tile", "crack")
    maker.learn([Crop(picture, none, product, defect) for picture, product, defect in learned])
    assert sorted(maker.learned()) == ['["screw", 0]', '["tile", 0]'], "only normal parts, by product"
    for seed in range(8):
        made = maker.sample(flat, [seed], steps=1, guidance=1.0)
        change = made.image[made.mask.expand_as(made.image) > 0.5]
        assert 0.03 < change.std() < 0.3, "its texture is there"
        assert abs(change.mean()) < 0.25, "and its tone, 0.6 brighter, is not"
