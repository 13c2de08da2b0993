"""Normal parts photographed otherwise: other light, a lens out of focus, a noisier camera, rendered on test pictures.

The kinds are those of studies of robustness (Hendrycks, Dietterich: "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", 2019; Cao, Zhu, Pang: "Anomaly Detection under Distribution Shift", 2023), with uneven
light beside them. The sizes are ours, with less blur and noise than there: what a lamp, a lens or a camera does on a
line before anybody notices. A part stays free of damage under all of them.
"""

from __future__ import annotations

import cv2
import numpy as np

STOPS = 0.5
"""Of light more or less, in stops: half a stop less is 0.71 times the light."""
GAMMA = 2.2
"""Values of pictures go with light to the power of 1 / GAMMA, as in sRGB: half a stop less is 0.85 times the value."""
BLUR = 1.0
"""Standard deviation of the blur, in pixels of the picture that a detector sees."""
NOISE = 4.0
"""Standard deviation of the noise, in grey levels of 255."""

SHIFTS: dict[str, str] = {
    "darker": f"{STOPS:g} stop less light",
    "brighter": f"{STOPS:g} stop more light",
    "blurred": f"a Gaussian blur of {BLUR:g} pixel",
    "noisy": f"Gaussian noise of {NOISE:g} grey levels of 255",
    "uneven light": f"from {STOPS:g} stop less light at the left side to {STOPS:g} stop more at the right",
}
"""What is rendered, and how, in words."""


def shifted(image: np.ndarray, shift: str, seed: int) -> np.ndarray:
    """Return a picture as it would look under a shift: the same bytes for the same picture, shift and seed.

    Args:
        image: uint8 (R,C,3), RGB.
        shift: One of SHIFTS.
        seed: Of the noise; each picture has its own.

    Raises:
        KeyError: there is no such shift.
    """
    values = image.astype(np.float32)
    if shift == "darker":
        values *= _gain(-STOPS)
    elif shift == "brighter":
        values *= _gain(STOPS)
    elif shift == "blurred":
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), BLUR, borderType=cv2.BORDER_REFLECT_101), np.float32)
    elif shift == "noisy":
        # A camera without colours has one noise for all channels.
        grey = bool((image == image[..., :1]).all())
        size = (*image.shape[:2], 1 if grey else 3)
        values = values + NOISE * np.random.default_rng((seed, 83)).standard_normal(size, np.float32)
    elif shift == "uneven light":
        values *= _gain(np.linspace(-STOPS, STOPS, image.shape[1], dtype=np.float32))[:, None]
    else:
        raise KeyError(shift)
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)


def _gain(stops: float | np.ndarray) -> np.ndarray:
    """Return what values are multiplied by when there is so much more light."""
    return np.asarray(2 ** (np.asarray(stops) / GAMMA), np.float32)
