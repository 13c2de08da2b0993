"""What a backbone is trained on: the factory's pictures or a user's own, and crops and windows of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor

from flawsmith.config import Config
from flawsmith.data import factory, images
from flawsmith.data.augmentation import View, damage_view, loosened, normal_view, roughed
from flawsmith.data.photographs import Photographs
from flawsmith.data.ranges import ranges_of, with_ranges
from flawsmith.data.tensors import image_tensor
from flawsmith.data.tiling import Window
from flawsmith.nn import prompts
from flawsmith.run.dataset import divide

ROUGH = 0.3
"""Share of windows whose mask does not tell the damage's shape: the caption has to."""


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to train on: with damage, without it, and what it shows."""

    damaged: np.ndarray
    """uint8 (H,W,3) RGB; equal to `normal` when there is no damage."""
    normal: np.ndarray | None
    """uint8 (H,W,3) RGB, or None when the part was never seen normal."""
    mask: np.ndarray
    """bool (H,W)."""
    part: np.ndarray
    """bool (H,W)."""
    product: str
    defect: str | None
    caption: str


def prompt(defect: str | None, product: str | None = None) -> str:
    """Return the prompt for a defect type, or for normal when it is None; the same for training and for sampling."""
    if defect is None:
        return prompts.filled_in(prompts.NORMAL_PROMPT_ON_PRODUCT, "", product or "surface")
    return prompts.filled_in(prompts.PROMPT_ON_PRODUCT if product else prompts.PROMPT, defect, product or "")


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows with their masks and captions."""

    image: np.ndarray
    """uint8 (N,size,size,3) RGB."""
    mask: np.ndarray
    """bool (N,size,size)."""
    captions: list[str]


class Material(Protocol):
    """Where pictures and windows come from."""

    @property
    def identity(self) -> str:
        """What tells it from other material beside the recipe; "" = the recipe says all."""

    def pictures(self) -> list[Source]:
        """Return pictures for the autoencoder, and captions for the tokenizer."""

    def ahead(self, turn: int, count: int, size: int) -> None:
        """Begin to make the windows of a turn, where other processes can do that."""

    def windows(self, turn: int, count: int, size: int) -> Iterator[Windows]:
        """Yield a turn's windows, in portions; the same turn gives the same windows."""


class FactoryMaterial:
    """Pictures made on the fly by the factory, new ones each turn.

    Args:
        count: Pictures for the autoencoder, and pictures from which each turn's windows are cut.
        size: Their side in pixels.
        seed: From which everything follows.
        pool: Processes to make them on; None = this one.
    """

    def __init__(self, count: int, size: int, seed: int, pool: Executor | None = None) -> None:
        self._count, self._size, self._seed, self._pool = count, size, seed, pool
        self._begun: dict[int, list[Future[Windows]]] = {}

    @property
    def identity(self) -> str:
        return ""  # the recipe holds count, size and seed

    def pictures(self) -> list[Source]:
        spread = map if self._pool is None else self._pool.map
        made = spread(_make, self._seeds(0), repeat(self._size))
        return [source for part in made for source in part]

    def ahead(self, turn: int, count: int, size: int) -> None:
        if self._pool is not None and turn not in self._begun:
            self._begun[turn] = [self._pool.submit(_cut, *job) for job in self._jobs(turn, count, size)]

    def windows(self, turn: int, count: int, size: int) -> Iterator[Windows]:
        if self._pool is None:
            yield from (_cut(*job) for job in self._jobs(turn, count, size))
        else:
            self.ahead(turn, count, size)
            yield from (portion.result() for portion in self._begun.pop(turn))

    def _jobs(self, turn: int, count: int, size: int) -> list[tuple[Any, ...]]:
        chunks = self._seeds(turn)
        shares = [len(part) for part in np.array_split(np.arange(count), len(chunks))]
        return [
            (seeds, self._size, size, share, (self._seed, 12, turn, number))
            for number, (seeds, share) in enumerate(zip(chunks, shares, strict=True))
        ]

    def _seeds(self, turn: int) -> list[list[int]]:
        first = self._seed * 1_000_000_007 + turn * self._count
        chunks = np.array_split(np.arange(self._count) + first, max(1, self._count // 50))
        return [chunk.tolist() for chunk in chunks]


class UserMaterial:
    """A user's own pictures, cut anew each turn."""

    def __init__(self, sources: list[Source], seed: int) -> None:
        self._sources, self._seed = sources, seed

    @property
    def identity(self) -> str:
        hasher = hashlib.sha256()
        for one in self._sources:
            for part in (one.damaged, one.normal, one.mask, one.part):
                hasher.update(b"none" if part is None else str((part.shape, part.dtype)).encode() + part.tobytes())
            hasher.update(json.dumps([one.product, one.defect, one.caption]).encode())
        return hasher.hexdigest()[:16]

    def pictures(self) -> list[Source]:
        return self._sources

    def ahead(self, turn: int, count: int, size: int) -> None:
        pass

    def windows(self, turn: int, count: int, size: int) -> Iterator[Windows]:
        for number, part in enumerate(np.array_split(np.arange(count), max(1, count // 200))):
            yield windows_of(self._sources, len(part), size, (self._seed, 12, turn, number))


def _make(seeds: list[int], size: int) -> list[Source]:
    cv2.setNumThreads(1)
    sources = []
    for seed in seeds:
        part = factory.make_random(seed, size=size, sound_share=0.1)
        image, normal = (
            np.ascontiguousarray(np.broadcast_to(x[:, :, None], (*x.shape[:2], 3)) if x.ndim == 2 else x)
            for x in (part.image, part.normal)
        )
        sources.append(Source(image, normal, part.mask, part.part, part.surface, part.defect, part.caption))
    return sources


def _cut(seeds: list[int], picture_size: int, size: int, count: int, seed: tuple[int, ...]) -> Windows:
    return windows_of(_make(seeds, picture_size), count, size, seed)


def user_sources(config: Config) -> list[Source]:
    """Read the shots and normal parts of a configuration; test pictures are not touched."""
    split = divide(config)
    split = with_ranges(split, ranges_of(split))
    pictures = Photographs(split.normals)
    sources = []
    for example in (*split.shots, *split.normals):
        photograph, part = pictures.read(example), pictures.part(example)
        pixels = np.round((photograph.model() + 1) * 127.5).astype(np.uint8)
        mask = np.zeros(pixels.shape[:2], bool) if photograph.mask is None else photograph.mask
        normal = pixels if example.defect is None else None
        caption = prompt(example.defect, example.product)
        sources.append(Source(pixels, normal, mask, part, example.product, example.defect, caption))
    return sources


def crops(sources: list[Source], size: int, count: int, seed: tuple[int, ...]) -> Tensor:
    """Return random crops at random scales and tones, a third of them grey, float32 (count,3,size,size) in [-1,1]."""
    rng = np.random.default_rng(seed)
    views = []
    for _ in range(count):
        source = sources[int(rng.integers(len(sources)))]
        picture = source.damaged
        side = min(int(size * rng.choice([0.5, 0.75, 1.0, 1.0, 1.5, 2.0])), *picture.shape[:2])
        top, left = (int(rng.integers(0, n - side + 1)) for n in picture.shape[:2])
        crop = images.to_model(picture[top : top + side, left : left + side])
        if side != size:
            crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
        crop = np.rot90(crop, int(rng.integers(4)))
        crop = (crop + 1) * np.float32(rng.uniform(0.6, 1.4)) - 1 + np.float32(rng.uniform(-0.25, 0.25))
        if rng.random() < 0.35:
            crop = np.repeat(crop.mean(2, keepdims=True), 3, axis=2)
        views.append(np.clip(crop, -1, 1).astype(np.float32))
    return image_tensor(views).contiguous(memory_format=torch.channels_last)


def windows_of(sources: list[Source], count: int, size: int, seed: tuple[int, ...]) -> Windows:
    """Cut windows: damage with its own mask, a rough one or one everywhere, and normal parts under another's mask."""
    rng = np.random.default_rng(seed)
    damaged = [source for source in sources if source.mask.any()]
    normal = [(source, source.normal) for source in sources if source.normal is not None]
    last: View | None = None
    pixels, masks, captions = [], [], []
    for _ in range(count):
        source = damaged[int(rng.integers(len(damaged)))]
        window = window_at(source.mask, size, rng)
        view = damage_view(images.to_model(source.damaged), source.mask, [window], size, rng, tone=0.1)
        caption = source.caption
        if rng.random() >= 0.2:
            caption = prompt(source.defect, source.product if rng.random() < 0.4 else None)
        draw = rng.random()
        if draw < 0.25 and last is not None and normal:
            other, picture = normal[int(rng.integers(len(normal)))]
            view = normal_view(images.to_model(picture), other.part, last.mask, window.side, size, rng, tone=0.1)
            caption = prompt(None, other.product if rng.random() < 0.5 else None)
        elif draw < 0.35:
            view = View(view.image, np.ones_like(view.mask))
        elif draw < 0.35 + ROUGH:
            view = View(view.image, roughed(view.mask, rng))
        else:
            view = View(view.image, loosened(view.mask, rng, 6))
        if draw >= 0.35:
            last = view
        pixels.append(np.rint((view.image + 1) * 127.5).astype(np.uint8))
        masks.append(view.mask)
        captions.append(caption)
    return Windows(np.stack(pixels), np.stack(masks), captions)


def window_at(mask: np.ndarray, size: int, rng: np.random.Generator) -> Window:
    """Return a window round some damaged pixel, of half to one and a half times the working size."""
    rows, columns = np.nonzero(mask)
    pick = int(rng.integers(len(rows)))
    side = round(size * float(np.exp(rng.uniform(np.log(0.5), np.log(1.6)))))
    return Window(int(rows[pick]) - side // 2, int(columns[pick]) - side // 2, side)
