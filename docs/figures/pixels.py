"""Draw docs/figures/ of the generators of pixels: what each takes, does in between, and makes, on factory parts.

    python docs/figures/pixels.py [NAME ...]

Real inputs and results of the methods themselves, which are listened to while they paint: some 20 s of processor time
in all. Of each the first seed that leaves something large enough to be seen here.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
from listening import Heard, paint
from sheets import near
from strip import Cell, asked_for, draw, heat, outlined, shown, white

from flawsmith import Brush, registry
from flawsmith.data import factory, images
from flawsmith.data.patches import analogy
from flawsmith.data.patches.layers import Layer, Stack
from flawsmith.data.patches.ratios import from_logs, logs, relative_depth, signed_distance, undamaged
from flawsmith.data.rendering import strike
from flawsmith.data.rendering.sites import axes_of
from flawsmith.data.tensors import picture_of
from flawsmith.data.windows import spot_of
from flawsmith.errors import DataError
from flawsmith.generators import component, cutpaste, nsa, perlin
from flawsmith.generators.patch_synthesis import _REACH

SHOTS, SIDE = 6, 216
SOURCES = np.array([[86, 180, 233], [230, 159, 0], [0, 158, 115], [204, 121, 167], [240, 228, 66], [213, 94, 0]])
"""Colours of Okabe and Ito, which people with any eyes tell apart."""


def brush_and_mask(folder: Path, product: str, defect: str, generator: str, **settings: Any) -> tuple[Brush, Path, Any]:
    """Return a brush, a normal photograph, and the mask of a defect that the generator has not seen."""
    if not (folder / product / "test" / defect).exists():
        factory.write_dataset(folder, product, (defect,), normals=SHOTS, per_defect=SHOTS + 1, seed=5, size=256)
    overrides = {"data.shots": SHOTS, "prove.enabled": False, "data.products": [product], **settings}
    brush = Brush.open(folder, generator=generator, settings=overrides)
    mask = images.read(folder / product / "ground_truth" / defect / f"{SHOTS:03d}_mask.png") > 0
    return brush, folder / product / "train" / "good" / "001.png", mask


def first_visible(
    brush: Brush,
    photograph: Path,
    mask: np.ndarray,
    defect: str,
    product: str,
    suits: Callable[[np.ndarray], bool] = lambda damage: True,
) -> Heard:
    """Return what the first seed paints that leaves something visible, of which the mask suits a figure."""
    for seed in range(48):
        try:
            heard = paint(brush, photograph, mask, defect, seed, product=product)
        except DataError:
            continue
        if suits(heard.painted.mask):
            return heard
    raise SystemExit(f"{brush.config.generator.name}: no seed leaves something visible")


def patch_synthesis(folder: Path) -> None:
    product, defect = "steel", "rust"
    brush, photograph, mask = brush_and_mask(folder, product, defect, "patch_synthesis")
    levels: list[tuple[Layer, np.ndarray, Stack, np.ndarray]] = []
    searched: Callable[..., Any] = analogy._searched

    def listened(here: Layer, stack: Stack, *given: Any) -> Any:
        values, origin = searched(here, stack, *given)
        levels.append((here, values, stack, origin))
        return values, origin

    with patch.object(analogy, "_searched", listened):
        heard = first_visible(brush, photograph, mask, defect, product)
    spot = spot_of([], heard.mask, _REACH)
    inside, normal = heard.mask[spot], heard.normal[spot]
    smooth = undamaged(logs(normal), inside)

    def level(number: int) -> np.ndarray:
        here, values, _, _ = levels[number]
        ground = cv2.resize(smooth, here.mask.shape[::-1], interpolation=cv2.INTER_AREA)
        coarse = shown(from_logs(ground + values))
        return np.asarray(cv2.resize(coarse, inside.shape[::-1], interpolation=cv2.INTER_NEAREST))

    here, _, stack, origin = levels[-1]
    lenders = np.full((*here.mask.shape, 3), 235, np.uint8)
    lenders[here.mask] = SOURCES[stack.locate(origin)[0] % len(SOURCES)]
    lenders = cv2.resize(lenders, inside.shape[::-1], interpolation=cv2.INTER_NEAREST)
    bank = np.full((SIDE, SIDE, 3), 250, np.uint8)
    half = SIDE // 2 - 2
    for number in range(4):
        shot = images.read(folder / product / "test" / defect / f"{number:03d}.png")
        damage = images.read(folder / product / "ground_truth" / defect / f"{number:03d}_mask.png") > 0
        top, left = (SIDE - half) * (number // 2), (SIDE - half) * (number % 2)
        bank[top : top + half, left : left + half] = near(outlined(shot, damage, room=2), damage, half)
    depth = np.where(inside, relative_depth(signed_distance(inside)), 0)
    small = [near(picture, inside, SIDE) for picture in (outlined(shown(normal), inside), heat(depth, 0, 1))]
    draw(
        "patch-synthesis",
        [
            [
                Cell(bank, "shots of the type"),
                Cell(small[0], "photograph and mask", "+"),
                Cell(small[1], "guide: how deep in the mask"),
                Cell(near(level(0), inside, SIDE), "coarsest: patches laid by the guide"),
            ],
            [
                Cell(near(level(1), inside, SIDE), "finer: searched again"),
                Cell(near(level(-1), inside, SIDE), "finest, without grain"),
                Cell(near(lenders, inside, SIDE), "which turned shot each patch is from"),
                Cell(near(shown(heard.made[spot]), inside, SIDE), "result, with grain"),
            ],
        ],
    )


def crop_paste(folder: Path) -> None:
    product, defect = "wood", "dent"
    brush, photograph, mask = brush_and_mask(folder, product, defect, "crop_paste")
    heard = first_visible(brush, photograph, mask, defect, product)
    shot = folder / heard.painted.provenance.shot
    number = shot.stem
    damage = images.read(folder / product / "ground_truth" / defect / f"{number}_mask.png") > 0
    plain = registry.get("generators", "crop_paste")
    as_it_is = plain(None, plain.Settings(blend="none", match=False, strength=0)).sample(heard.asked, [0])
    posed = shown(picture_of(heard.asked.shot.image[0]))
    draw(
        "crop-paste",
        [
            [
                Cell(near(outlined(images.read(shot), damage), damage, SIDE), "a shot with its label"),
                Cell(near(outlined(posed, heard.mask), heard.mask, SIDE), "shifted, turned and scaled to the mask"),
                Cell(near(outlined(shown(heard.normal), heard.mask), heard.mask, SIDE), "photograph and mask", "+"),
                Cell(near(shown(picture_of(as_it_is.image[0])), heard.mask, SIDE), "pasted as it is: a seam"),
                Cell(near(shown(heard.made), heard.mask, SIDE), "result: blended, no seam"),
            ]
        ],
    )


def rendered(folder: Path) -> None:
    product, defect = "steel", "dent"
    brush, photograph, _ = brush_and_mask(folder, product, defect, "rendered")
    site = np.zeros((256, 256), np.uint8)
    cv2.ellipse(site, (132, 120), (34, 26), 20, 0, 360, 1, -1)
    lit: list[np.ndarray] = []
    shade: Callable[..., np.ndarray] = strike.shade

    def listened(*given: Any) -> np.ndarray:
        lit.append(shade(*given))
        return lit[-1]

    with patch.object(strike, "shade", listened):
        heard = first_visible(brush, photograph, site > 0, defect, product)
    x, y, long, _, _ = axes_of(heard.mask)
    side = 2 * int(np.ceil(1.3 * long + strike._MARGIN)) + 1
    top, left = round(y) - side // 2, round(x) - side // 2
    normal, made, inside = (
        strike._cut(one, top, left, side) for one in (heard.normal, heard.made, heard.mask.astype(np.uint8))
    )
    before, after = (255 * np.clip(one, 0, 1) ** (1 / 2.2) for one in lit[-2:])
    change = (made - normal).mean(axis=2)
    signed = shown(np.clip(change / max(float(np.abs(change).max()), 1e-6), -1, 1))
    draw(
        "rendered",
        [
            [
                Cell(outlined(shown(normal), inside > 0, room=0), "photograph, and where damage may lie"),
                Cell(before.astype(np.uint8), "flat matter of its colours, in its light"),
                Cell(after.astype(np.uint8), "struck by a dent, in the same light"),
                Cell(signed, "change: brighter, darker"),
                Cell(shown(made), "result: laid on the photograph"),
            ]
        ],
    )


def perlin_noise(folder: Path) -> None:
    product, defect = "tile", "chip"
    brush, photograph, _ = brush_and_mask(folder, product, defect, "perlin")
    allowed = np.zeros((256, 256), bool)
    allowed[40:216, 40:216] = True
    noises: list[np.ndarray] = []
    textures: list[np.ndarray] = []
    noise_of, texture_of = perlin.perlin_noise, perlin.Perlin._texture

    def drawn_noise(*given: Any, **named: Any) -> np.ndarray:
        noises.append(noise_of(*given, **named))
        return noises[-1]

    def taken(*given: Any) -> np.ndarray:
        textures.append(texture_of(*given))
        return textures[-1]

    with patch.object(perlin, "perlin_noise", drawn_noise), patch.object(perlin.Perlin, "_texture", taken):
        heard = first_visible(brush, photograph, allowed, defect, product, lambda damage: damage.sum() > 2000)
    drawn = heard.generated.mask[0, 0].numpy() > 0.5
    draw(
        "perlin",
        [
            [
                Cell(_square(shown(heard.normal)), "photograph"),
                Cell(_square(heat(noises[-1])), "noise, of a random scale", "+"),
                Cell(_square(white(drawn)), "mask: where it is high"),
                Cell(_square(shown(textures[-1])), "foreign texture, changed strongly", "+"),
                Cell(_square(shown(heard.made)), "result: half transparent"),
            ]
        ],
    )


def cut_paste(folder: Path) -> None:
    product, defect = "tile", "chip"
    brush, photograph, _ = brush_and_mask(folder, product, defect, "cutpaste", **{"generator.settings.kind": "patch"})
    allowed = np.zeros((256, 256), bool)
    allowed[40:216, 40:216] = True
    taken: list[tuple[np.ndarray, np.ndarray]] = []
    laid: list[tuple[np.ndarray, np.ndarray]] = []
    jittered, lay = cutpaste.CutPaste._jittered, cutpaste._laid

    def varied(self: Any, piece: np.ndarray, rng: Any) -> np.ndarray:
        taken.append((piece, jittered(self, piece, rng)))
        return taken[-1][1]

    def pasted(*given: Any) -> Any:
        laid.append(lay(*given))
        return laid[-1]

    with patch.object(cutpaste.CutPaste, "_jittered", varied), patch.object(cutpaste, "_laid", pasted):
        heard = first_visible(brush, photograph, allowed, defect, product)
    drawn = heard.generated.mask[0, 0].numpy() > 0.5
    chosen = next(n for n, (_, cover) in enumerate(laid) if np.array_equal(cover & heard.mask, drawn))
    piece, changed = taken[chosen]
    scores = cv2.matchTemplate(np.ascontiguousarray(heard.normal), np.ascontiguousarray(piece), cv2.TM_SQDIFF)
    left, top = cv2.minMaxLoc(scores)[2]  # the piece is of this very picture, so the difference there is none
    source = np.zeros_like(drawn)
    source[top : top + len(piece), left : left + piece.shape[1]] = True
    alone = np.full(heard.normal.shape, 0.96, np.float32)
    alone[source] = changed.reshape(-1, 3)
    draw(
        "cutpaste",
        [
            [
                Cell(_square(outlined(shown(heard.normal), source, room=0)), "photograph, a piece of it"),
                Cell(_square(shown(alone)), "its colours varied a little"),
                Cell(_square(shown(heard.made)), "pasted elsewhere"),
                Cell(_square(white(drawn)), "mask"),
            ]
        ],
    )


def natural_synthetic(folder: Path) -> None:
    product, defect = "board", "scratch"
    brush, photograph, _ = brush_and_mask(folder, product, defect, "nsa")
    allowed = np.zeros((256, 256), bool)
    allowed[40:216, 40:216] = True
    draws: list[dict[str, Any]] = []
    blended, cut, solve = nsa.NSA._blended, nsa._patch, nsa.poisson

    def blending(self: Any, *given: Any) -> Any:
        draws.append({"others": [], "laid": []})
        picture, mask = blended(self, *given)
        draws[-1]["mask"] = mask
        return picture, mask

    def patched(other: np.ndarray, *given: Any) -> np.ndarray:
        draws[-1]["others"].append(other)
        return cut(other, *given)

    def solved(picture: np.ndarray, laid: np.ndarray, region: np.ndarray, **named: Any) -> np.ndarray:
        draws[-1]["laid"].append((laid, region))
        return solve(picture, laid, region, **named)

    with (
        patch.object(nsa.NSA, "_blended", blending),
        patch.object(nsa, "_patch", patched),
        patch.object(nsa, "poisson", solved),
    ):
        heard = first_visible(brush, photograph, allowed, defect, product, lambda damage: damage.sum() > 600)
    drawn = heard.generated.mask[0, 0].numpy() > 0.5
    chosen = next(one for one in draws if np.array_equal(one["mask"], drawn))
    hard = heard.normal.copy()
    for laid, region in chosen["laid"]:
        hard[region] = laid[region]
    other = chosen["others"][0]
    draw(
        "nsa",
        [
            [
                Cell(_square(shown(heard.normal)), "photograph"),
                Cell(_square(shown(other)), "other normal parts", "+"),
                Cell(_square(shown(hard)), "patches of them, scaled, as they are"),
                Cell(_square(shown(heard.made)), "blended by Poisson's equation"),
                Cell(_square(white(drawn)), "mask"),
            ]
        ],
    )


def component_change(folder: Path) -> None:
    product, defect = "board", "scratch"
    brush, photograph, _ = brush_and_mask(
        folder, product, defect, "component", **{"generator.settings.changes": ["moved"]}
    )
    allowed = np.ones((256, 256), bool)
    bases: list[tuple[np.ndarray, np.ndarray]] = []
    found: list[list[np.ndarray]] = []
    without, show = component.without, component.ComponentChange.shown

    def emptied(picture: np.ndarray, hole: np.ndarray, *given: Any, **named: Any) -> np.ndarray:
        bases.append((without(picture, hole, *given, **named), hole))
        return bases[-1][0]

    def finding(*given: Any) -> list[np.ndarray]:
        found.append(show(*given))
        return found[-1]

    with (
        patch.object(component, "without", emptied),
        patch.object(component.ComponentChange, "shown", finding),
    ):
        largest = lambda damage: bool(max(found[-1], key=np.sum)[damage].sum() > 0.3 * damage.sum())  # noqa: E731
        heard = first_visible(brush, photograph, allowed, defect, product, largest)
    drawn = heard.generated.mask[0, 0].numpy() > 0.5
    base, hole = next(one for one in bases if (one[1] & ~drawn).sum() == 0 and one[1].sum() < drawn.sum())
    alone = np.full(heard.normal.shape, 0.96, np.float32)
    alone[hole] = heard.normal[hole]
    draw(
        "component",
        [
            [
                Cell(_square(outlined(shown(heard.normal), *found[-1], room=1)), "photograph, components found"),
                Cell(_square(shown(alone)), "one is cut out"),
                Cell(_square(shown(base)), "its place filled with patches from round it"),
                Cell(_square(shown(heard.made)), "laid at another place"),
                Cell(_square(white(drawn)), "mask: both places"),
            ]
        ],
    )


def _square(picture: np.ndarray) -> np.ndarray:
    """Return the middle square of a picture."""
    side = min(picture.shape[:2])
    top, left = (picture.shape[0] - side) // 2, (picture.shape[1] - side) // 2
    return np.asarray(picture[top : top + side, left : left + side])


FIGURES = {
    "patch_synthesis": patch_synthesis,
    "crop_paste": crop_paste,
    "rendered": rendered,
    "perlin": perlin_noise,
    "cutpaste": cut_paste,
    "nsa": natural_synthetic,
    "component": component_change,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    with tempfile.TemporaryDirectory() as spare:
        for name in asked_for(parser, FIGURES).names:
            FIGURES[name](Path(spare))
