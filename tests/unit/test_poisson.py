"""The Poisson solver against a brute-force solution."""

import time

import cv2
import numpy as np
import pytest

from flawsmith.data import poisson as blend


def dense(target, source, mask, mixed):
    height, width, channels = target.shape
    index = {tuple(place): row for row, place in enumerate(np.argwhere(mask))}
    matrix, right = np.zeros((len(index), len(index))), np.zeros((len(index), channels))
    for (y, x), row in index.items():
        for there in ((y, x + 1), (y + 1, x), (y, x - 1), (y - 1, x)):
            if not (0 <= there[0] < height and 0 <= there[1] < width):
                continue
            step = source[y, x].astype(float) - source[there]
            if mixed:
                other = target[y, x].astype(float) - target[there]
                step = np.where(np.abs(other) > np.abs(step), other, step)
            matrix[row, row] += 1
            right[row] += step
            if there in index:
                matrix[row, index[there]] -= 1
            else:
                right[row] += target[there]
    out = target.astype(float)
    out[mask] = np.linalg.solve(matrix, right)
    return out


def pictures(rng, height, width, channels=3):
    return rng.uniform(-1, 1, (2, height, width, channels)).astype(np.float32)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_it_is_the_dense_solution(seed, mixed):
    rng = np.random.default_rng(seed)
    target, source = pictures(rng, *rng.integers(5, 14, 2))
    mask = rng.random(target.shape[:2]) < 0.6
    mask[rng.integers(mask.shape[0])] = True  # it touches the picture's edge
    mask[0, 0] = mask[-1, -1] = False
    if seed % 2:
        mask[:2] = mask[-2:] = False
    result = blend.poisson(target, source, mask, mixed=mixed)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, dense(target, source, mask, mixed), atol=1e-4)
    assert result[~mask].tobytes() == target[~mask].tobytes()


def test_pasting_a_picture_into_itself_changes_nothing():
    target, _ = pictures(np.random.default_rng(0), 30, 40)
    mask = np.zeros((30, 40), bool)
    mask[5:20, 10:40] = True
    for mixed in (False, True):
        np.testing.assert_allclose(blend.poisson(target, target, mask, mixed=mixed), target, atol=1e-5)
        np.testing.assert_allclose(blend.poisson(target, target + 0.3, mask, mixed=mixed), target, atol=1e-5)


def test_a_mask_without_a_border_keeps_the_mean():
    target, source = pictures(np.random.default_rng(0), 20, 24)
    result = blend.poisson(target, source, np.ones((20, 24), bool))
    np.testing.assert_allclose(result.mean(axis=(0, 1)), target.mean(axis=(0, 1)), atol=1e-4)
    np.testing.assert_allclose(np.diff(result, axis=0), np.diff(source, axis=0), atol=1e-4)
    np.testing.assert_array_equal(blend.poisson(target, source, np.zeros((20, 24), bool)), target)
    with pytest.raises(ValueError):
        blend.poisson(target, source, np.ones((20, 23), bool))


@pytest.mark.parametrize("mixed", [False, True])
def test_large_masks_are_solved_by_cycles(monkeypatch, mixed):
    rng = np.random.default_rng(0)
    target, source = (cv2.GaussianBlur(picture, (0, 0), 3) * 3 for picture in pictures(rng, 90, 101))
    for full in (False, True):
        mask = cv2.GaussianBlur(rng.normal(size=(90, 101)), (0, 0), 9) > -0.02
        mask |= full
        exact = blend.poisson(target, source, mask, mixed=mixed)
        monkeypatch.setattr(blend, "_DIRECT", 3000)
        np.testing.assert_allclose(blend.poisson(target, source, mask, mixed=mixed), exact, atol=2e-3)
        monkeypatch.undo()


def test_a_window_takes_a_fraction_of_a_second():
    target, source = pictures(np.random.default_rng(0), 128, 128)
    start = time.process_time()
    blend.poisson(target, source, np.ones((128, 128), bool))
    assert time.process_time() - start < 2.0  # 0.1 s on an idle core


def test_blended_keeps_the_damage_and_hides_its_tone() -> None:
    rng = np.random.default_rng(3)
    normal = np.full((64, 64, 3), 0.4, np.float32) + rng.normal(0, 0.01, (64, 64, 3)).astype(np.float32)
    shot = np.full((64, 64, 3), -0.3, np.float32)
    shot[28:36, 24:40] -= 0.4
    mask = np.zeros((64, 64), bool)
    mask[28:36, 24:40] = True
    out = blend.blended(normal, shot, mask)
    away = ~blend.grown(mask, 3)
    np.testing.assert_array_equal(out[away], normal[away])
    ratio = (1 - 0.7 + 0.1) / (1 - 0.3 + 0.1)
    np.testing.assert_allclose(
        out[mask].mean(), 1.5 * ratio - 1.1, atol=0.02
    )  # as much darker as the place is brighter
    plain = blend.blended(normal, shot, mask, gain=1.0)
    np.testing.assert_allclose(plain[mask].mean(), 0.0, atol=0.05)
    np.testing.assert_array_equal(blend.blended(normal, shot, np.zeros_like(mask)), normal)
