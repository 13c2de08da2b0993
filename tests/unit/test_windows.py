"""Windows cover every damage at a thickness that can be painted; pasting touches no byte outside the mask."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flawsmith.data import images, windows
from flawsmith.data.tiling import MOST, Window, native_window, plan_windows, thickness
from flawsmith.data.windows import cut_mask
from flawsmith.errors import DataError


def blank(height=480, width=640):
    return np.zeros((height, width), np.uint8)


VISIBLE = 12 / 255
"""Change that counts, on the scale -1..1."""


def planned(mask, size, **other):
    """Windows with context and zoom that are easy to reckon with."""
    return plan_windows(mask, size, **{"context": 2.0, "min_thickness": 3.0, "max_zoom": 4.0, "overlap": 0.25, **other})


def covered(mask, plan, margin=0.125):
    seen = np.zeros(mask.shape, bool)
    for window in plan:
        top, left, bottom, right = window.inner(mask.shape, window.side * margin)
        seen[top:bottom, left:right] = True
    return bool((seen | ~mask).all())


def photograph(rng, shape, dtype):
    if dtype == np.float32:
        return rng.random(shape, dtype=np.float32)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize(("wide", "expected"), [(1, 1), (3, 3), (7, 7), (20, 20)])
def test_thickness_of_a_bar(wide, expected):
    mask = blank()
    mask[100 : 100 + wide, 50:400] = 1
    assert thickness(mask > 0) == pytest.approx(expected, rel=0.1)


def test_thickness_sees_the_tail_and_not_the_corners():
    mask = blank()
    mask[200:260, 200:260] = 1
    assert thickness(mask > 0) > 50
    cv2.line(mask, (230, 230), (600, 230), 1, 2)
    assert thickness(mask > 0) < 5


def test_a_hairline_is_walked():
    mask = blank()
    cv2.line(mask, (100, 60), (380, 345), 1, 2)
    mask = mask > 0
    plan = planned(mask, 128, min_thickness=3.0, max_zoom=4.0)
    assert 2 <= len(plan) <= 8 and covered(mask, plan)
    for window in plan:
        assert 128 / window.side <= 4.0
        assert thickness(mask) * 128 / window.side >= 3.0
        assert windows.cut_mask(mask, window, 128).any()
    # neighbours in painting order overlap
    for one, other in zip(plan, plan[1:], strict=False):
        assert max(abs(one.top - other.top), abs(one.left - other.left)) < one.side


def test_a_blob_is_native_window_with_context_inside_the_picture():
    mask = blank()
    cv2.circle(mask, (300, 200), 30, 1, -1)
    (window,) = planned(mask > 0, 128, context=2.0)
    assert window.side == pytest.approx(2 * 61, abs=2)
    mask = blank()
    cv2.circle(mask, (5, 5), 10, 1, -1)
    (window,) = planned(mask > 0, 64)
    assert window.top == 0 and window.left == 0
    assert covered(mask > 0, [window])


def test_one_pixel_is_not_enlarged_beyond_max_zoom():
    mask = blank() > 0
    mask[240, 320] = True
    (window,) = planned(mask, 128, max_zoom=4.0)
    assert window.side == 32


def test_far_parts_get_their_own_window_and_near_parts_share():
    mask = blank()
    mask[10:30, 10:30] = mask[440:460, 600:620] = 1
    assert len(planned(mask > 0, 128)) == 2
    mask = blank()
    mask[100:120, 100:120] = mask[100:120, 124:144] = 1
    assert len(planned(mask > 0, 128)) == 1


@pytest.mark.parametrize("shape", [(20, 30), (480, 640), (64, 700)])
def test_the_whole_picture_and_nothing(shape):
    assert planned(np.zeros(shape, bool), 128) == []
    full = np.ones(shape, bool)
    assert covered(full, planned(full, 128))


def test_never_more_windows_than_the_limit():
    rng = np.random.default_rng(0)
    spray = rng.random((480, 640)) < 0.002
    plan = planned(spray, 128)
    assert len(plan) <= MOST and covered(spray, plan)


@given(seed=st.integers(0, 10_000), size=st.sampled_from([32, 64, 128]), overlap=st.sampled_from([0.0, 0.25, 0.5]))
@settings(max_examples=40, deadline=None)
def test_any_mask_is_covered(seed, size, overlap):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(4, 260, 2)
    mask = blank(height, width)
    for _ in range(rng.integers(1, 5)):
        at = [(int(rng.integers(width)), int(rng.integers(height))) for _ in range(2)]
        if rng.random() < 0.5:
            cv2.line(mask, *at, 1, int(rng.integers(1, 6)))
        else:
            cv2.circle(mask, at[0], int(rng.integers(0, 40)), 1, -1)
    mask = mask > 0
    plan = planned(mask, size, overlap=overlap)
    assert 1 <= len(plan) <= MOST
    assert covered(mask, plan, max(overlap, 0.125) / 2)
    assert all(window.side >= size / 4.0 for window in plan)
    assert covered(mask, [native_window(mask, drawn=False)], 1 / 16)


def test_a_window_is_json():
    window = Window(-3, 4, 17)
    assert Window.from_json(window.to_json()) == window


def test_cut_reflects_and_uncut_brings_back():
    rng = np.random.default_rng(1)
    picture = rng.uniform(-1, 1, (7, 5, 3)).astype(np.float32)
    window = Window(-9, -20, 40)
    seen = windows.cut(picture, window)
    assert seen.shape == (40, 40, 3)
    np.testing.assert_array_equal(seen[9:16, 20:25], picture)
    np.testing.assert_array_equal(seen[8, 20:25], picture[1])  # the border row is not repeated
    canvas, valid = windows.uncut(seen, window, picture.shape)
    assert valid.all()
    np.testing.assert_array_equal(canvas, picture)
    canvas, valid = windows.uncut(np.ones((8, 8, 1), np.float32), Window(5, 3, 16), (7, 5))
    assert valid.sum() == 4 and canvas.sum() == 4 and canvas.shape == (7, 5, 1)


def test_cut_scales_and_stays_in_range():
    rng = np.random.default_rng(2)
    picture = np.sign(rng.uniform(-1, 1, (40, 40, 3))).astype(np.float32)
    for size in (16, 64):
        seen = windows.cut(picture, Window(2, 3, 30), size)
        assert seen.shape == (size, size, 3) and seen.dtype == np.float32 and np.abs(seen).max() <= 1


def test_a_thin_mask_neither_vanishes_nor_breaks_when_shrunk():
    mask = blank(512, 512)
    cv2.line(mask, (10, 30), (500, 420), 1, 1)
    small = windows.cut_mask(mask > 0, Window(0, 0, 512), 64)
    assert cv2.connectedComponents(small.astype(np.uint8), connectivity=8)[0] == 2
    mask = blank(512, 512)
    mask[100, 100] = 1
    assert windows.cut_mask(mask > 0, Window(0, 0, 512), 64).sum() == 1
    mask = blank(512, 512)
    cv2.circle(mask, (256, 256), 100, 1, -1)
    small = windows.cut_mask(mask > 0, Window(0, 0, 512), 128)
    assert small.sum() == pytest.approx(mask.sum() / 16, rel=0.05)


@given(
    seed=st.integers(0, 10_000),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    colour=st.booleans(),
    paint=st.sampled_from(["replace", "residual"]),
    with_base=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_outside_the_mask_every_byte_is_the_cameras(seed, dtype, colour, paint, with_base):
    rng = np.random.default_rng(seed)
    height, width = (int(value) for value in rng.integers(3, 70, 2))
    native = photograph(rng, (height, width, 3) if colour else (height, width), dtype)
    kept = native.copy()
    mask = rng.random((height, width)) < rng.choice([0.02, 0.4, 1.0])
    window = Window(int(rng.integers(-30, height)), int(rng.integers(-30, width)), int(rng.integers(1, 110)))
    size = int(rng.integers(1, 48))
    made, base = rng.uniform(-1, 1, (2, size, size, 3)).astype(np.float32)
    feather = float(rng.uniform(0, 6))
    after = windows.paste(native, made, base if with_base else None, mask, window, paint=paint, feather=feather)
    assert after.dtype == native.dtype and after.shape == native.shape
    assert after[~mask].tobytes() == native[~mask].tobytes()
    assert native.tobytes() == kept.tobytes()
    result = windows.refit(native, after, mask, threshold=VISIBLE)
    assert not (result.mask & ~mask).any()
    assert result.image[~result.mask].tobytes() == native[~result.mask].tobytes()
    assert 0 <= result.share <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_residual_paint_of_no_change_changes_nothing(dtype):
    rng = np.random.default_rng(3)
    native = photograph(rng, (60, 80), dtype)
    made = rng.uniform(-1, 1, (32, 32, 3)).astype(np.float32)
    after = windows.paste(
        native, made, made.copy(), np.ones((60, 80), bool), Window(-5, 10, 70), paint="residual", feather=4
    )
    assert after.tobytes() == native.tobytes()


def test_paint_reaches_full_strength_in_hairlines_and_middles():
    native = np.full((80, 80), 100, np.uint8)
    made = np.ones((80, 80, 3), np.float32)
    mask = blank(80, 80)
    mask[20, 5:75] = 1
    mask[40:70, 20:60] = 1
    after = windows.paste(native, made, None, mask > 0, Window(0, 0, 80), paint="replace", feather=5)
    assert after[20, 40] == 255 and after[55, 40] == 255
    assert 100 < after[40, 40] < 200  # soft at the border
    hard = windows.paste(native, made, None, mask > 0, Window(0, 0, 80), paint="replace", feather=0)
    assert (hard[mask > 0] == 255).all()


def test_two_overlapping_windows_leave_no_seam():
    native = np.full((60, 160), 90, np.uint8)
    mask = np.zeros((60, 160), bool)
    mask[20:40, 10:150] = True
    after = native
    for left in (0, 45, 90, 100):
        made = np.full((60, 60, 3), 0.5, np.float32)
        after = windows.paste(after, made, None, mask, Window(0, left, 60), paint="replace", feather=3)
    inner = after[28:32, 20:140].astype(int)
    assert np.ptp(inner) <= 2


def test_wrong_shapes_are_told():
    native = np.zeros((10, 10), np.uint8)
    made = np.zeros((4, 4, 3), np.float32)
    with pytest.raises(DataError, match="one size"):
        windows.paste(native, made, None, np.zeros((9, 10), bool), Window(0, 0, 8), paint="residual", feather=4)
    with pytest.raises(DataError, match="residual"):
        windows.paste(native, made, None, np.zeros((10, 10), bool), Window(0, 0, 8), paint="oil", feather=4)


def test_refit_keeps_what_changed_and_gives_back_the_rest():
    rng = np.random.default_rng(4)
    before = rng.normal(120, 2, (120, 120)).clip(0, 255).astype(np.uint8)
    asked = np.zeros((120, 120), bool)
    asked[20:100, 20:100] = True
    after = before.copy()
    after[40:70, 40:70] = before[40:70, 40:70] + 40
    after[52:55, 52:55] = before[52:55, 52:55]  # a hole, to be filled
    after[asked] = np.where(after[asked] == before[asked], before[asked] + 1, after[asked])  # invisible
    image, mask, share = windows.refit(before, after, asked, threshold=VISIBLE)
    truth = np.zeros_like(asked)
    truth[40:70, 40:70] = True
    assert (mask & truth).sum() / (mask | truth).sum() > 0.85
    assert mask[53, 53] and share == pytest.approx(mask.sum() / asked.sum())
    assert image[~mask].tobytes() == before[~mask].tobytes()
    assert image[mask].tobytes() == after[mask].tobytes()


def test_refit_of_nothing_is_empty_and_of_noise_too():
    rng = np.random.default_rng(5)
    before = rng.normal(120, 6, (64, 64)).clip(0, 255).astype(np.uint8)
    asked = np.ones((64, 64), bool)
    assert not windows.refit(before, before, asked, threshold=VISIBLE).mask.any()
    again = rng.normal(120, 6, (64, 64)).clip(0, 255).astype(np.uint8)
    assert windows.refit(before, again, asked, threshold=VISIBLE).share < 0.05


def test_refit_keeps_a_speck_when_it_is_all_there_is():
    before = np.full((200, 200), 100, np.uint8)
    after = before.copy()
    after[50, 50:52] = 255
    result = windows.refit(before, after, np.ones((200, 200), bool), threshold=VISIBLE)
    assert result.mask[50, 50] and result.mask.sum() < 60


def test_a_12_bit_camera_is_painted_in_its_own_range():
    native = np.full((40, 40), 2000, np.uint16)
    made = np.zeros((40, 40, 3), np.float32)
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    span = images.Range(0, 4095)
    after = windows.paste(native, made, None, mask, Window(0, 0, 40), paint="replace", feather=0, span=span)
    assert abs(int(after[20, 20]) - 2048) <= 1


@pytest.mark.parametrize("paint", ["residual", "replace"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_grey_photograph_in_a_colour_file_stays_grey_and_a_coloured_one_may_change_colour(paint, dtype):
    rng = np.random.default_rng(0)
    grey = np.repeat(photograph(rng, (64, 64, 1), dtype), 3, axis=2)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    made, base = (rng.uniform(-1, 1, (64, 64, 3)).astype(np.float32) for _ in range(2))
    window = Window(0, 0, 64)
    out = windows.paste(grey, made, base, mask, window, paint=paint, feather=0)
    assert (out == out[:, :, :1]).all() and (out[mask] != grey[mask]).any()
    # As a file of one channel would have been painted.
    alone = windows.paste(np.ascontiguousarray(grey[:, :, 0]), made, base, mask, window, paint=paint, feather=0)
    apart = np.abs(out[:, :, 0].astype(np.float64) - alone.astype(np.float64)).max()
    assert apart <= (1 if dtype != np.float32 else 1e-6)
    grey[0, 0, 2] -= grey.dtype.type(1)
    tinted = windows.paste(grey, made, base, mask, window, paint=paint, feather=0)
    assert (tinted[mask] != tinted[mask][:, :1]).any()


def test_of_what_overhangs_the_picture_nothing_need_be_marked():
    mask = np.ones((20, 30), bool)
    window = Window(-6, -1, 32)
    assert cut_mask(mask, window).all()
    alone = cut_mask(mask, window, mirrored=False)
    assert alone.sum() == 20 * 30 and alone[6:26, 1:31].all()
