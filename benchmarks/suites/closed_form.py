"""Closed-form patch diffusion, alone and mixed with a network: what suite `patch_diffusion` tries. Nothing is run here.

The score of a finite set of patches is known in closed form: at every noise level the clean pixel is the posterior mean
over all patches, given the noisy patch round it (Kamb & Ganguli, arXiv 2412.20292; of one picture at several scales:
arXiv 2606.04299). The patches are those of `patch_synthesis`, logarithms of ratios, with the label's distance as guide.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import cv2
import numpy as np
import torch
from torch import Tensor

from flawsmith.data.patches import analogy
from flawsmith.data.patches.layers import Layer, Stack, patches_of, weights_of
from flawsmith.data.patches.ratios import RIM, from_logs, logs, relative_depth, signed_distance, undamaged
from flawsmith.data.patches.sources import (
    Source,
    chosen,
    course_of,
    guide_of,
    laid,
    on_ground,
    shine_through,
    width_of,
)
from flawsmith.data.poisson import grown
from flawsmith.data.tensors import image_tensor, picture_of
from flawsmith.generators import controlnet_inpaint, patch_synthesis
from flawsmith.nn import inpaint
from flawsmith.synthesis.canvas import Canvas
from flawsmith.synthesis.paint import Painter
from flawsmith.types import Condition, Crop, Generated

LEVELS = (1.0, 0.6, 0.4, 0.28, 0.2, 0.14, 0.1, 0.07, 0.05, 0.035)
"""Noise levels of the logarithms of ratios, from coarse to fine."""
BETWEEN, FINEST = 0.28, 0.2
"""The level at which a finer scale goes on, and the finest."""
RETEXTURED = 0.1
"""The level to which a sketch is noised that is to keep its structure."""
GUIDE = 0.15
"""Deviation of the guide's patches within which one stands for another."""
COMPONENTS = 24
"""Principal components in which patches are compared."""
HIGH, LOW = 1.5, 0.2
"""Noise level (standard deviation over signal) down to which the network decides alone, and from which the patches."""


class Bank:
    """The patches of a stack, at most so many that `pairs` of them with the asked ones are compared."""

    def __init__(self, stack: Stack, asked: int, rng: np.random.Generator, pairs: int = 30_000_000) -> None:
        most, count = int(np.clip(pairs // max(asked, 1), 1000, 12_000)), len(stack.centres)
        kept = np.sort(rng.choice(count, most, replace=False)) if count > most else np.arange(count)
        self.stack, self.centres = stack, stack.centres[kept]
        self.middle = stack.values[self.centres]
        self._pixels = _Space(stack.patches(stack.values, self.centres), COMPONENTS, 1.0)
        share = 1 / np.sqrt(weights_of(2.0).sum())
        self._guide = _Space(stack.patches(stack.guide, self.centres), 8, float(share) / GUIDE)

    def of_guide(self, guide: np.ndarray, asked: np.ndarray) -> np.ndarray:
        """Return the guide's patches round pixels as vectors, float32 (Q,d)."""
        return self._guide.of(patches_of(guide, asked))

    def posterior(self, values: np.ndarray, asked: np.ndarray, guide: np.ndarray, sigma: float) -> np.ndarray:
        """Return how likely each patch is at each pixel, float32 (Q,K), rows summing to 1."""
        noisy = np.concatenate([self._pixels.of(patches_of(values, asked)) / sigma, guide], 1).astype(np.float32)
        keys = np.concatenate([self._pixels.keys / sigma, self._guide.keys], 1).astype(np.float32)
        odds = noisy @ keys.T
        odds -= 0.5 * np.einsum("kd,kd->k", keys, keys)[None]
        odds -= odds.max(axis=1, keepdims=True)
        np.exp(odds, out=odds)
        odds /= odds.sum(axis=1, keepdims=True)
        return np.asarray(odds)

    def cleaned(
        self, values: np.ndarray, mask: np.ndarray, asked: np.ndarray, guide: np.ndarray, sigma: float
    ) -> np.ndarray:
        """Return the values (h,w,C) with the posterior mean under the mask."""
        mean = self.posterior(values, asked, guide, sigma) @ self.middle
        clean = values.copy()
        clean[mask] = mean
        return clean


class _Space:
    """Patches in their principal components, weighted towards their middles."""

    def __init__(self, patches: np.ndarray, components: int, weight: float) -> None:
        self._root = weight * np.sqrt(weights_of(2.0))[None, :, None]
        flat = np.reshape(patches * self._root, (len(patches), -1))
        self._mean = flat.mean(axis=0)
        apart = flat - self._mean
        self._axes = np.linalg.eigh((apart.T @ apart).astype(np.float64))[1][:, ::-1][:, :components].astype(np.float32)
        self.keys = apart @ self._axes

    def of(self, patches: np.ndarray) -> np.ndarray:
        return np.asarray((np.reshape(patches * self._root, (len(patches), -1)) - self._mean) @ self._axes)


def diffused(
    target: Layer, sources: Sequence[Layer], rng: np.random.Generator, sketch: np.ndarray | None = None
) -> np.ndarray:
    """Do what `analogy.filled` does by closed-form diffusion, at the same scales; or change a sketch (h,w,C)."""
    if not target.mask.any():
        return target.values
    scales = analogy._scales(int(target.mask.sum())) if sketch is None else [1.0]
    filling, finest = sketch, len(scales) - 1
    for number, scale in enumerate(scales):
        here = target.at(scale, 0.4)
        stack = Stack.of([analogy._bounded(source.at(scale, 0.6), rng) for source in sources])
        asked = np.flatnonzero(here.mask)
        bank = Bank(stack, len(asked), rng)
        guide = bank.of_guide(here.guide, asked)
        if filling is None:
            first, clean = LEVELS[0], np.broadcast_to(bank.middle.mean(axis=0), here.values.shape)
        else:
            first = RETEXTURED if sketch is not None else FINEST if number == finest else BETWEEN
            larger = cv2.resize(np.ascontiguousarray(filling), here.mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
            clean = larger.reshape(here.values.shape)
        levels = [level for level in LEVELS if level <= first][: None if number == finest else -1]
        # What is known is noised as much: then patches must suit it as closely as they suit each other.
        noise = rng.standard_normal(here.values.shape).astype(np.float32)
        noisy = np.where(here.mask[:, :, None], clean, here.values) + first * noise
        for level, following in zip(levels, [*levels[1:], 0.0], strict=True):
            mean = bank.cleaned(noisy, here.mask, asked, guide, level)
            clean = np.where(here.mask[:, :, None], mean, here.values)
            noisy = clean + np.float32(following / level) * (noisy - clean)
        filling = np.asarray(clean, np.float32)
    if scales[-1] == 1:
        return np.asarray(filling)
    nearest = bank.posterior(filling, asked, guide, LEVELS[-1]).argmax(axis=1)
    return analogy._followed(target, sources, here, stack, bank.centres[nearest])


def rediffused(target: Layer, sources: Sequence[Layer], rng: np.random.Generator) -> np.ndarray:
    """Do what `analogy.retextured` does by closed-form diffusion from the sketch that the target holds."""
    if not target.mask.any() or target.mask.sum() > 4 * analogy._SEARCHED:
        return target.values
    changed = diffused(target, sources, rng, target.values)
    apart = cv2.GaussianBlur(np.sqrt(((changed - target.values) ** 2).mean(axis=2)), (0, 0), 2.0)
    likeness = np.exp(-((apart / analogy._LIKE) ** 2)).astype(np.float32)[:, :, None]
    return np.asarray(target.values + likeness * (changed - target.values), np.float32)


class Region:
    """What of one window is painted, at the scale at which its patches are compared."""

    def __init__(
        self, normal: np.ndarray, mask: np.ndarray, side: int, crops: Sequence[Crop], rng: np.random.Generator
    ) -> None:
        self.normal = normal
        size = min(side, len(normal))
        scale = size / side
        small = self._small(normal, size)
        self.mask = cv2.resize(mask.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) >= 0.4
        self.mask |= ~self.mask.any()
        logarithms = logs(small)
        self.smooth = undamaged(logarithms, self.mask)
        self.context, distance = logarithms - self.smooth, signed_distance(self.mask)
        depth, course = relative_depth(distance), course_of(self.context, distance)
        width = width_of(distance, depth)
        sources = [_source(crop, scale) for crop in crops]
        drawn = laid(chosen(sources, width, rng, most=3), distance, width, course, rng, 2)
        drawn = [on_ground(one, self.smooth[self.mask].mean(axis=0), shine_through(sources)) for one in drawn]
        layers = [layer for layer in map(patch_synthesis._layer, drawn) if layer.mask.any()]
        stack = Stack.of([analogy._bounded(layer, rng) for layer in layers or [patch_synthesis._layer(sources[0])]])
        self.filled = grown(self.mask, RIM)
        self.asked = np.flatnonzero(self.filled)
        self.bank = Bank(stack, len(self.asked), rng, 6_000_000)
        self.guide = self.bank.of_guide(guide_of(distance, depth), self.asked)
        self.spread = float(self.bank.middle.std())

    def mixed(self, picture: np.ndarray, level: float, share: float) -> np.ndarray:
        """Return share * picture + (1 - share) * the patches' posterior mean in ratios, float32 (S,S,3)."""
        ratio = logs(self._small(picture, len(self.mask))) - self.smooth
        ratio = np.where(self.filled[:, :, None], ratio, self.context)
        sigma = max(level * self.spread, LEVELS[-1])
        patches = self.bank.cleaned(ratio, self.filled, self.asked, self.guide, sigma)
        ratio = np.where(self.mask[:, :, None], share * ratio + (1 - share) * patches, self.context)
        change = from_logs(self.smooth + ratio) - from_logs(self.smooth + self.context)
        size = self.normal.shape[:2][::-1]
        return np.clip(self.normal + cv2.resize(change, size, interpolation=cv2.INTER_LINEAR), -1, 1)

    @staticmethod
    def _small(picture: np.ndarray, size: int) -> np.ndarray:
        return cv2.resize(np.ascontiguousarray(picture), (size, size), interpolation=cv2.INTER_AREA)


def _source(crop: Crop, scale: float) -> Source:
    """Return a crop of a shot as a source at another scale."""
    size = tuple(max(round(scale * length), 8) for length in crop.mask.shape[::-1])
    cover = cv2.resize(crop.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    picture = cv2.resize(crop.image, size, interpolation=cv2.INTER_AREA)
    return Source.of(picture, cover >= min(0.4, float(cover.max())))


class MixedPainter(Painter):
    """Paints with `controlnet_inpaint`, whose prediction it mixes with the patches' at each step."""

    _sides: tuple[int, ...] = ()

    def _condition(self, group: list[Canvas], number: int, *, draws: bool) -> Condition:
        self._sides = tuple(canvas.windows[number].side for canvas in group)
        return super()._condition(group, number, draws=draws)

    def _paint_windows(self, group: list[Canvas], number: int) -> None:
        with mock.patch.object(controlnet_inpaint, "paint", self._mixed):
            super()._paint_windows(group, number)

    def _mixed(
        self, backbone: Any, asked: Condition, known: Any, predict: Any, seeds: Sequence[int], **options: Any
    ) -> Generated:
        crops = self._sketcher()._crops  # type: ignore[attr-defined]
        regions = []
        for row, seed in enumerate(seeds):
            window = picture_of(asked.normal[row]), asked.mask[row, 0].numpy() > 0.5, self._sides[row]
            known_crops = crops[asked.product[row], asked.defect[row]]
            regions.append(Region(*window, known_crops, np.random.default_rng((seed, 95))))
        lost = asked.normal - backbone.decode(known.latent)
        final = asked.normal

        def mixing(latent: Tensor, t: Tensor) -> Tensor:
            nonlocal final
            raw = predict(latent, t)
            alpha = float(backbone.noise.alphas[int(t[0])])
            level = float(np.sqrt((1 - alpha) / max(alpha, 1e-6)))
            share = float(np.clip(np.log(level / LOW) / np.log(HIGH / LOW), 0, 1))
            if share == 1:
                return raw
            clean = backbone.noise.clean(latent, raw, t)
            seen = backbone.decode(known.cells * clean + (1 - known.cells) * known.latent) + lost
            pictures = [one.mixed(picture_of(seen[row]), level, share) for row, one in enumerate(regions)]
            final = image_tensor(pictures)
            clean = torch.where(known.cells > 0, backbone.encode(final), clean)
            return backbone.noise.prediction_of(latent, clean, t)

        inpaint.paint(backbone, asked, known, mixing, seeds, **options)
        return Generated(final, asked.mask, asked.normal)


@contextmanager
def closed_form() -> Iterator[None]:
    """Let `patch_synthesis` fill and retexture by closed-form diffusion."""
    with (
        mock.patch.object(patch_synthesis, "filled", diffused),
        mock.patch.object(patch_synthesis, "retextured", rediffused),
    ):
        yield
