"""Patches: ratios to the undamaged, sources turned and chosen, the search and the votes, the profile of a label."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flawsmith.data.patches import analogy, search
from flawsmith.data.patches.damage_profile import BINS, mean_profile, profile_of, with_profile
from flawsmith.data.patches.grain import grain_in, laid_unscaled, regrained, sharpened
from flawsmith.data.patches.layers import HALF, PATCH, Layer, Stack, patches_of, weights_of
from flawsmith.data.patches.ratios import from_logs, logs, relative_depth, signed_distance, undamaged
from flawsmith.data.patches.search import coherent, nearest_of
from flawsmith.data.patches.sources import (
    Direction,
    Source,
    chosen,
    course_of,
    guide_of,
    laid,
    on_ground,
    position_of,
    shine_through,
)


def disc(size: int, radius: float, at: tuple[float, float] | None = None) -> np.ndarray:
    row, column = np.mgrid[:size, :size]
    middle = at or ((size - 1) / 2, (size - 1) / 2)
    return (row - middle[0]) ** 2 + (column - middle[1]) ** 2 <= radius**2


def layer(values: np.ndarray, label: np.ndarray, mask: np.ndarray | None = None) -> Layer:
    distance = signed_distance(label)
    use = distance > -3 if mask is None else mask
    grain = grain_in(values.astype(np.float32), distance)
    guide = guide_of(distance, relative_depth(distance))
    return Layer(values.astype(np.float32) - grain, grain, guide, position_of(distance), use)


def test_the_undamaged_is_a_membrane_through_the_surroundings():
    """Of a slope, which is its own membrane, damage and grain are taken away; depth comes back to the last digit."""
    row, column = np.mgrid[:48, :60].astype(np.float32)
    slope = (0.004 * row - 0.003 * column - 0.2)[:, :, None]
    mask = np.zeros((48, 60), bool)
    mask[16:30, 20:40] = True
    damaged = slope - 0.5 * mask[:, :, None]
    smooth = undamaged(damaged.astype(np.float32), mask)
    inner = np.s_[8:-8, 8:-8]  # a mean at the picture's own edge sees one side only
    assert np.abs(smooth - slope)[inner].max() < 0.02
    picture = from_logs(damaged)
    assert (
        np.allclose(logs(picture), damaged, atol=1e-5) and np.abs(from_logs(np.float32([[[9.0], [-9.0]]]))).max() <= 1
    )


def test_a_wide_membrane_is_solved_smaller_and_comes_out_alike(monkeypatch):
    rng = np.random.default_rng(0)
    field = cv2.GaussianBlur(rng.normal(size=(120, 120)).astype(np.float32), (0, 0), 12)[:, :, None] * 5
    mask = disc(120, 40)
    whole = undamaged(field, mask)
    monkeypatch.setattr("flawsmith.data.patches.ratios._MOST", 800)
    small = undamaged(field, mask)
    assert not np.array_equal(whole, small) and np.abs(whole - small).max() < 0.1 * np.ptp(field)


def test_distances_do_not_end_at_the_pictures_edge():
    mask = np.zeros((20, 30), bool)
    mask[:, :10] = True  # touches three edges
    distance = signed_distance(mask)
    assert (np.abs(distance - (9.5 - np.arange(30))[None]) < 0.6).all()
    assert (signed_distance(np.ones((4, 4), bool)) > 100).all() and (signed_distance(np.zeros((4, 4), bool)) < 0).all()


def test_the_middle_of_a_line_is_as_deep_as_that_of_a_blob():
    label = disc(80, 15, at=(40, 20))
    label[37:44, 40:76] = True
    distance = signed_distance(label)
    depth = relative_depth(distance)
    assert depth[40, 60] == pytest.approx(1) and depth[40, 20] == pytest.approx(1) and (depth[~label] <= 0).all()
    assert depth[38, 60] == pytest.approx(1.5 / 3.5) and depth[40, 9] == pytest.approx(distance[40, 9] / 15, abs=0.1)


@pytest.mark.parametrize("pairs", [1_000_000, 500])
def test_the_nearest_is_that_of_brute_force(pairs: int, monkeypatch):
    monkeypatch.setattr(search, "_PAIRS", pairs)  # few: several blocks
    rng = np.random.default_rng(1)
    wanted, keys = (rng.normal(size=(count, 5)).astype(np.float32) for count in (40, 70))
    apart = ((wanted[:, None] - keys[None]) ** 2).sum(axis=2)
    assert np.array_equal(nearest_of(wanted, keys), apart.argmin(axis=1))
    noise = rng.random(70).astype(np.float32) * 9
    assert np.array_equal(nearest_of(wanted, keys, noise=noise), (apart + noise).argmin(axis=1))
    complete = nearest_of(wanted, keys, alpha=0.05)
    assert len(set(complete)) > len(set(apart.argmin(axis=1))), "completeness uses more of the keys"
    least = np.minimum(apart.min(axis=0) / np.median(apart.min(axis=1)), 1)
    assert np.array_equal(complete, (apart / (0.05 + least)).argmin(axis=1))


def test_a_stack_gives_back_patches_and_places():
    rng = np.random.default_rng(2)
    pictures = [rng.random((9, 12, 2)).astype(np.float32), rng.random((15, 8, 2)).astype(np.float32)]
    layers = [layer(picture, disc(20, 3)[: picture.shape[0], : picture.shape[1]]) for picture in pictures]
    stack = Stack.of(layers)
    source, row, column = np.array([0, 1, 1]), np.array([4, 7, 0]), np.array([6, 3, 7])
    pixels = stack.pixels(source, row, column)
    assert all(np.array_equal(a, b) for a, b in zip(stack.locate(pixels), (source, row, column), strict=True))
    taken = stack.patches(stack.values, pixels)
    for number in range(3):
        around = np.pad(layers[source[number]].values, ((HALF, HALF), (HALF, HALF), (0, 0)), mode="edge")
        expected = around[row[number] : row[number] + PATCH, column[number] : column[number] + PATCH]
        assert np.array_equal(taken[number], expected.reshape(-1, 2))
    assert np.array_equal(patches_of(layers[0].values, np.array([4 * 12 + 6]))[0], taken[0])


def test_votes_are_weighted_means_of_the_patches_that_cover_a_pixel():
    rng = np.random.default_rng(3)
    source = rng.random((16, 16, 1)).astype(np.float32)
    stack = Stack.of([layer(source, disc(16, 6))])
    mask = disc(14, 4)
    here = layer(rng.random((14, 14, 1)), mask, mask)
    origin = stack.pixels(np.zeros(mask.sum(), int), *rng.integers(3, 13, (2, mask.sum())))
    voted = analogy._voted(here, stack, origin, 2.0)
    patches = dict(zip(map(tuple, np.argwhere(mask)), stack.patches(stack.values, origin)[:, :, 0], strict=True))
    weights = weights_of(2.0).reshape(PATCH, PATCH)
    for row, column in np.argwhere(mask):
        total = weight = 0.0
        for (top, left), patch in patches.items():
            down, across = row - top + HALF, column - left + HALF
            if 0 <= down < PATCH and 0 <= across < PATCH and weights[down, across] >= 1e-3:
                total += weights[down, across] * patch.reshape(PATCH, PATCH)[down, across]
                weight += weights[down, across]
        assert voted[row, column, 0] == pytest.approx(total / weight, abs=1e-5)
    assert np.array_equal(voted[~mask], here.values[~mask])


def test_coherence_mends_a_stray_patch():
    """In a piece that was copied whole, one patch that is nearly as good elsewhere goes back to its place."""
    source = np.random.default_rng(4).random((20, 20, 1)).astype(np.float32)
    stack = Stack.of([layer(source, disc(20, 8), np.ones((20, 20), bool))])
    vectors = stack.patches(stack.values, stack.centres)[:, :, 0]
    mask = np.zeros((12, 12), bool)
    mask[3:9, 3:9] = True
    row, column = np.nonzero(mask)
    right = (row + 4) * 20 + column + 4
    wrong = right.copy()
    wrong[14] = 399
    mended = coherent(vectors[right] + 0.01, vectors, wrong, mask, stack)
    assert np.array_equal(mended, right)


def test_a_source_fills_its_own_mask_with_itself():
    """The only source laid in the mask that it came from: every patch finds itself, and nothing is averaged away."""
    rng = np.random.default_rng(5)
    values = cv2.GaussianBlur(rng.normal(size=(40, 40, 1)).astype(np.float32), (0, 0), 1.5).reshape(40, 40, 1)
    label = disc(40, 12)
    target = layer(np.where(label[:, :, None], 0, values), label, label)
    made = analogy.filled(target, [layer(values, label)], np.random.default_rng(0))
    assert np.allclose(made[~label], values[~label], atol=1e-6)
    assert np.corrcoef(made[label][:, 0], values[label][:, 0])[0, 1] > 0.9
    assert 0.9 < made[label].std() / values[label].std() < 1.1


def test_wide_masks_are_searched_smaller_and_keep_their_grain(monkeypatch):
    monkeypatch.setattr(analogy, "_SEARCHED", 300)
    rng = np.random.default_rng(6)
    values = rng.normal(size=(64, 64, 1)).astype(np.float32) * 0.1 - 0.5
    label = disc(64, 24)
    target = layer(np.zeros((70, 70, 1)), disc(70, 26), disc(70, 26))
    made = analogy.filled(target, [layer(values, label)], np.random.default_rng(0))[disc(70, 22)]
    assert made.mean() == pytest.approx(-0.5, abs=0.05) and 0.06 < made.std() < 0.11


def test_grain_is_parted_from_what_stands_out_of_it():
    """A line of eight times the noise stays out of the grain, and nearly all of the noise is in it."""
    rng = np.random.default_rng(2)
    noise = rng.normal(0, 0.02, (60, 60, 1)).astype(np.float32)
    label = np.zeros((60, 60), bool)
    label[28:31, 10:50] = True
    line = np.where(label, -0.16, 0)[:, :, None].astype(np.float32)
    distance = signed_distance(label)
    grain = grain_in(line + noise, distance)
    assert np.abs(grain[label]).max() < 0.05 < np.abs(line[label]).min()
    far = distance < -6
    local = noise - cv2.blur(noise, (5, 5))[:, :, None]
    assert grain[far].std() == pytest.approx(local[far].std(), rel=0.05)


def test_grain_is_laid_without_a_change_of_size():
    """Unmoved and turned by right angles it is the same to the bit; scaled or turned, as strong and as fine."""
    grain = np.random.default_rng(3).normal(size=(80, 70, 2)).astype(np.float32)
    assert np.array_equal(laid_unscaled(grain, np.eye(2, 3), (70, 80)), grain)
    quarter = np.array([[0.0, -1.0, 79.0], [1.0, 0.0, 0.0]])  # y runs down, so a positive angle turns clockwise
    assert np.array_equal(laid_unscaled(grain, quarter, (80, 70)), np.rot90(grain, -1))
    for scale, angle in ((1.6, 0.0), (0.6, 0.5), (1.2, -2.4)):
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        laid = laid_unscaled(grain, np.array([[cos, -sin, 30.0], [sin, cos, 20.0]]), (60, 60))
        assert laid.std() == pytest.approx(1, abs=0.06)
        assert np.diff(laid, axis=1).std() == pytest.approx(np.sqrt(2), abs=0.1), "neighbours agree no more"


def test_turned_sources_run_where_they_are_asked_to():
    label = np.zeros((50, 50), bool)
    label[22:27, 8:42] = True
    picture = np.where(label, -0.4, 0.1)[:, :, None].astype(np.float32)
    source = Source.of(picture, label)
    assert source.tangent.strength > 0.5 and abs(np.sin(source.tangent.angle)) < 0.05
    assert source.contrast[0] < -0.5 and source.width == pytest.approx(2.5, abs=0.6)
    quarter = source.turned(np.pi / 2, mirrored=False, scale=1.0)
    assert np.array_equal(quarter.ratio, np.rot90(source.ratio, -1)), "a right angle moves whole pixels"
    for angle in (0.5, -1.1):
        moved = source.turned(angle, mirrored=False, scale=1.3)
        points = np.argwhere(moved.usable & (moved.distance > 0))[:, ::-1].astype(float)
        axis = np.linalg.svd(points - points.mean(axis=0), full_matrices=False)[2][0]
        assert abs(axis @ [np.cos(angle), np.sin(angle)]) > 0.99
        assert len(points) == pytest.approx(1.3**2 * label.sum(), rel=0.15)
    tall = label.T
    drawn = laid([source], signed_distance(tall), 2.5, Direction(0, 0), np.random.default_rng(0), 2)
    assert len(drawn) == 2
    for one in drawn:
        rows, columns = np.nonzero(one.usable & (one.distance > 0))
        assert np.ptp(rows) > 3 * np.ptp(columns), "it runs as the mask does"


@pytest.mark.parametrize("angle", [0.4, 1.1, 2.5])
def test_turning_a_hard_dark_edge_makes_no_bright_pixels(angle: float):
    mask = disc(40, 8)
    source = Source.of(np.repeat(np.where(mask, -0.95, 0.1)[:, :, None], 3, axis=2).astype(np.float32), mask)
    turned = source.turned(angle, mirrored=False, scale=1.2).ratio
    assert source.ratio.min() - 1e-6 <= turned.min() and turned.max() <= source.ratio.max() + 1e-6


@pytest.mark.parametrize("shape", [(1, 1), (1, 12), (2, 2)])
def test_labels_of_a_pixel_or_a_line_are_sources_too(shape: tuple[int, int]):
    label = np.zeros((24, 24), bool)
    label[10 : 10 + shape[0], 6 : 6 + shape[1]] = True
    source = Source.of(np.where(label, -0.5, 0.2)[:, :, None].astype(np.float32), label)
    assert source.contrast[0] < -0.3 and source.width == 1
    for one in laid([source], signed_distance(label), 1.0, Direction(0, 0), np.random.default_rng(0), 2):
        assert np.isfinite(one.ratio).all() and one.usable.any()


def test_surroundings_with_a_direction_decide_the_turn():
    rng = np.random.default_rng(7)
    brushed = np.repeat(rng.normal(size=(60, 1, 1)) * 0.1, 60, axis=1).astype(np.float32)  # lines along the rows
    label = disc(60, 8)
    source = Source.of(brushed, label)
    assert source.course.strength > 0.5 and abs(np.sin(source.course.angle)) < 0.1
    upright = course_of(logs(brushed.transpose(1, 0, 2)), signed_distance(label))
    for one in laid([source], signed_distance(label), 8.0, upright, rng, 3):
        across, along = np.abs(np.diff(one.ratio, axis=1)).mean(), np.abs(np.diff(one.ratio, axis=0)).mean()
        assert across > 3 * along, "the lines run upright now"


def test_unlike_shots_are_not_mixed():
    label = disc(40, 8)
    pictures = [np.full((40, 40, 3), 0.2, np.float32) for _ in range(6)]
    for number, picture in enumerate(pictures):
        picture[label] = (-0.5, 0.2, 0.2) if number % 2 else (0.2, 0.2, -0.5)
    sources = [Source.of(picture, label) for picture in pictures]
    first = set()
    for seed in range(8):
        drawn = chosen(sources, 8.0, np.random.default_rng(seed), most=3)
        reds = {bool(source.contrast[0] < source.contrast[2]) for source in drawn}
        assert len(reds) == 1 and len(drawn) == 3
        first |= reds
        (likely,) = chosen(sources, 8.0, np.random.default_rng(seed), most=1, like=sources[1].contrast)
        assert likely.contrast[0] < likely.contrast[2], "the first looks as the mask's own shot does"
    assert len(first) == 2, "both looks are drawn"


def test_what_shines_through_is_learned_from_grounds_that_differ():
    label = disc(40, 9)
    grounds = np.linspace(-0.6, 0.6, 5)
    shadow, chip = [], []
    for ground in grounds:
        picture = np.full((40, 40, 1), ground, np.float32)
        shadow.append(Source.of(from_logs(logs(picture) - 0.6 * label[:, :, None].astype(np.float32)), label))
        chip.append(Source.of(np.where(label[:, :, None], np.float32(0.9), picture), label))
    assert shine_through(shadow) > 0.9 and shine_through(chip) < 0.15
    assert shine_through(chip[:1]) == 1.0
    asked = logs(np.full((1, 1, 1), 0.3, np.float32))[0, 0]
    laid = on_ground(chip[0], asked, 0.0)
    painted = from_logs(asked + laid.ratio)[disc(40, 5)]
    assert painted == pytest.approx(0.9, abs=0.03), "a chip has its own tone on any ground"


def test_the_profile_is_the_mean_change_at_each_depth():
    rng = np.random.default_rng(8)
    label = disc(50, 18)
    depth = relative_depth(signed_distance(label))
    ratio = (-0.8 * np.clip(depth, 0, 1))[:, :, None].astype(np.float32)
    values, count = profile_of(ratio, depth)
    assert count.sum() == label.sum() and (np.diff(values) > 0).all()
    part = (depth > 0.5) & (depth < 4 / 6)
    assert values[3] == pytest.approx(0.8 * depth[part].mean(), abs=0.02)
    grain = rng.normal(size=ratio.shape).astype(np.float32) * 0.02
    wanted = np.linspace(0.7, 0.1, BINS)
    made = with_profile(0.4 + 0 * ratio + grain, depth, wanted)
    followed = mean_profile([profile_of(made, depth)])
    assert np.abs(followed / np.clip(wanted, 0.2, 0.8) - 1).max() < 0.2, "within its limits of a half and twice"
    fine = made - cv2.GaussianBlur(made, (0, 0), 1.0)[:, :, None]
    assert fine[label].std() == pytest.approx(
        (grain - cv2.GaussianBlur(grain, (0, 0), 1.0)[:, :, None])[label].std(), rel=0.1
    )


@pytest.mark.parametrize("scale", [0.7, 1.0, 1.4])
@pytest.mark.parametrize("target", [0.02, 0.05])
def test_a_reposed_shot_has_its_grain_at_the_strength_of_the_normal_photograph(scale: float, target: float):
    """Damage with 1.5 times the grain of its surroundings keeps that, turned, mirrored, scaled, on noisier pictures."""
    rng = np.random.default_rng(8)
    label = disc(90, 26)
    shot = (0.2 - 0.3 * label + rng.normal(0, 0.02, label.shape) * (1 + 0.5 * label)).astype(np.float32)[:, :, None]
    normal = (0.2 + rng.normal(0, target, (120, 120, 1))).astype(np.float32)
    cos, sin = scale * np.cos(0.3), scale * np.sin(0.3)
    matrix = np.array([[-cos, -sin, 0.0], [-sin, cos, 0.0]])
    matrix[:, 2] = np.array([60.0, 60.0]) - matrix[:, :2] @ [45.0, 45.0]
    part = slice(10, 110), slice(5, 115)
    laid = cv2.warpAffine(shot, matrix, (120, 120), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)
    asked = cv2.warpAffine(label.astype(np.float32), matrix, (120, 120)) >= 0.5
    crop = slice(3, 90), slice(4, 88)
    corners = (4, 3), (5, 10)
    made = regrained(
        laid[part][:, :, None], shot[crop], label[crop], matrix, normal[part], asked[part], corners=corners
    )
    deep = disc(120, int(26 * scale) - 4)[part]
    fine = made - cv2.blur(made, (5, 5))[:, :, None]
    wanted = 1.5 * target * np.sqrt(24 / 25)
    assert fine[deep].std() == pytest.approx(wanted, rel=0.15)
    plain = laid[part] - cv2.blur(laid[part], (5, 5))
    assert plain[deep].std() < 0.85 * wanted or target == 0.02, "noisier than the shot"


@pytest.mark.parametrize("soft", [0.5, 0.7])
def test_a_reposed_part_is_as_sharp_as_its_shot(soft: float):
    """By two measures of noise; the thread lies where it lay, and what was not interpolated stays as it is."""
    rng = np.random.default_rng(2)
    label = disc(90, 26)
    noise = cv2.GaussianBlur(rng.normal(0, 1, label.shape), (0, 0), soft)
    thread = 0.3 * np.sin(np.arange(90) / 2.5)[None, :]
    shot = (thread + 0.03 * noise / noise.std()).astype(np.float32)[:, :, None]
    matrix = cv2.getRotationMatrix2D((44.5, 44.5), 3.0, 1.02)
    posed = cv2.warpAffine(shot, matrix, (90, 90), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)[:, :, None]
    made = sharpened(posed, label, shot, label)
    plain = cv2.warpAffine(thread.repeat(90, 0), matrix, (90, 90), flags=cv2.INTER_CUBIC)[:, :, None]
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]]) / 6

    def noise_of(picture: np.ndarray) -> tuple[float, float]:
        deep = disc(90, 22)
        finest = float(cv2.filter2D(picture[:, :, 0].astype(np.float64), -1, kernel)[deep].std())
        return finest, float((picture[:, :, 0] - cv2.blur(picture[:, :, 0], (5, 5)))[deep].std())

    wanted = noise_of(shot - thread[:, :, None])
    assert noise_of(posed - plain)[0] < 0.85 * wanted[0], "interpolation took more"
    assert noise_of(made - plain) == pytest.approx(wanted, rel=0.15)
    assert np.corrcoef(made[label].ravel(), plain[label].ravel())[0, 1] > 0.98
    np.testing.assert_array_equal(sharpened(shot, label, shot, label), shot)


def test_rough_damage_is_no_grain():
    """Ridges of a broken surface stay where they are; noise of half as much again as round it is grain."""
    rng = np.random.default_rng(5)
    label, noise = disc(96, 30), rng.normal(0, 0.02, (96, 96))
    ridges = 0.2 * np.sign(np.sin(np.arange(96) / 1.2))[None, :] * label
    distance = signed_distance(label)
    deep = distance > 5
    for inside, least, most in ((ridges, 0.0, 0.25), (0.5 * noise * label, 0.9, 1.1)):
        ratio = (noise + inside).astype(np.float32)[:, :, None]
        fine = ratio - cv2.blur(ratio, (5, 5))[:, :, None]
        share = grain_in(ratio, distance)[deep].std() / fine[deep].std()
        assert least <= share <= most, share
