"""The camera: exposure, lens, sensor noise and the 8-bit file it writes."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from flawsmith.data.factory.noise import Field, Rng


@dataclass(slots=True)
class Camera:
    """One camera and its settings. Signals are linear until `tone`."""

    defocus: float
    """Gaussian sigma in px."""
    falloff: Field
    """float32 (n,n): vignette times the gradient of the light over the scene."""
    shot: float
    """Variance of the shot noise at signal 1."""
    read: float
    """Standard deviation of the read noise."""
    colours: np.ndarray
    """float32 (3,3), or (1,3) for a grey camera: what each sensor channel takes of the scene's RGB."""
    contrast: float
    """Exponent of the tone curve, about 1."""
    quality: int | None
    """JPEG quality, or None for a lossless file."""
    grain: Field
    """float32 (n,n,3) or (n,n): this exposure's unit noise, the same for the normal and the damaged picture."""


def camera(look: Rng, own: Rng, n: int, grey: bool, *, vignette: float = 0.0) -> Camera:
    """Return a camera for pictures of side n; `vignette` adds to what the lens has anyway."""
    axis = np.linspace(-1.0, 1.0, n, dtype=np.float32)
    strength = abs(look.normal(0.0, 0.16)) + vignette
    cx, cy = look.normal(0.0, 0.2, 2)
    far = (axis[None, :] - np.float32(cx)) ** 2 + (axis[:, None] - np.float32(cy)) ** 2
    falloff = 1.0 / (1.0 + np.float32(strength * 0.5) * far) ** 2
    gx, gy = look.normal(0.0, 0.12, 2) + own.normal(0.0, 0.01, 2)
    falloff = falloff * np.exp(np.float32(gx) * axis[None, :] + np.float32(gy) * axis[:, None])
    defocus = float(look.choice([0.0, 0.45, 0.6, 0.8, 1.1], p=[0.15, 0.3, 0.3, 0.17, 0.08])) * max(0.6, min(n / 256, 2))
    gain = look.uniform(0.2, 1.6) ** 2
    shot, read = 0.0011 * gain, 0.0022 * gain
    weights = np.array([[0.3, 0.59, 0.11]])
    vivid = look.uniform(0.95, 1.3)
    mix = np.eye(3) * vivid + (1 - vivid) * weights
    colours = weights if grey else mix * np.exp(look.normal(0.0, 0.025, 3))[:, None]
    contrast = look.uniform(0.9, 1.5)
    quality = int(look.integers(72, 97)) if look.random() < 0.4 else None
    soft = look.random() < 0.5
    grain = own.standard_normal((n, n) if grey else (n, n, 3), dtype=np.float32)
    if soft:
        # A demosaiced colour picture, or one that the camera denoised, has noise that spans more than a pixel.
        grain = cv2.GaussianBlur(grain, (3, 3), 0.6) * np.float32(1.7)
    return Camera(defocus, falloff.astype(np.float32), shot, read, colours.astype(np.float32), contrast, quality, grain)


def project(cam: Camera, scene: Field, gain: float) -> Field:
    """Return what falls on the sensor: linear float32 (h,w,3), or (h,w) for a grey camera, about [0,2].

    `cam` is cut to the window that `scene` shows.
    """
    signal = cv2.transform(scene, cam.colours * np.float32(gain))
    signal *= cam.falloff if signal.ndim == 2 else cam.falloff[..., None]
    if cam.defocus > 0:
        signal = cv2.GaussianBlur(signal, (0, 0), cam.defocus)
    return np.maximum(signal, 0.0, out=signal)


def tone(cam: Camera, signal: Field) -> Field:
    """Return float32 in [0,255]: the camera's curve with a soft shoulder, white at about 2."""
    curve = signal * np.float32(0.25)
    curve += 1.0
    curve *= signal
    curve /= signal + np.float32(1.0)
    np.sqrt(curve, out=curve)
    if abs(cam.contrast - 1.0) > 0.02:
        # A pull about mid grey in place of a power: ten times as fast.
        pull = np.float32(0.6 * (cam.contrast - 1.0))
        curve *= 1 + pull
        curve -= np.float32(0.42) * pull
    curve *= 255.0
    return np.clip(curve, 0.0, 255.0, out=curve)


def windowed(cam: Camera, window: tuple[slice, slice]) -> Camera:
    """Return the camera with its per-pixel fields cut to a window."""
    return replace(cam, falloff=cam.falloff[window], grain=cam.grain[window])


def expose(cam: Camera, signal: Field) -> np.ndarray:
    """Return the file's pixels, uint8, with this exposure's noise."""
    noisy = signal + cam.grain * np.sqrt(np.float32(cam.shot) * signal + np.float32(cam.read**2))
    picture: np.ndarray = (tone(cam, np.maximum(noisy, 0.0)) + 0.5).astype(np.uint8)
    if cam.quality is not None:
        _, coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, cam.quality])
        return np.asarray(cv2.imdecode(coded, cv2.IMREAD_UNCHANGED))
    return picture
