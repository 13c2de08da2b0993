"""Patch synthesis as a generator: what it learns and saves, and that what it paints is filled as the shots are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, convolve, gaussian_filter, uniform_filter

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.data.patches.damage_profile import mean_profile, profile_of
from flawsmith.data.patches.sources import Source
from flawsmith.data.photographs import Photographs
from flawsmith.data.tensors import image_tensor, mask_tensor
from flawsmith.errors import DataError
from flawsmith.generators.patch_synthesis import PatchSynthesis
from flawsmith.interfaces import LEARNED
from flawsmith.run.dataset import open_dataset
from flawsmith.synthesis.crops import crops
from flawsmith.synthesis.generate import Shard, generate
from flawsmith.types import Batch, Condition, Crop, Example

SIZE = 96


def painter(crops: Sequence[Crop], **settings: Any) -> PatchSynthesis:
    made = PatchSynthesis(None, PatchSynthesis.Settings(**settings))
    made.learn(crops)
    return made


def shots(surface: str, defect: str, count: int = 4) -> list[Crop]:
    crops = []
    for seed in range(count):
        piece = factory.make(surface, defect, seed=seed, size=SIZE)
        crops.append(Crop(images.to_model(piece.image), piece.mask > 0, surface, defect))
    return crops


def asked(normal: np.ndarray, mask: np.ndarray, product: str, defect: str, shot: np.ndarray | None = None) -> Condition:
    words = (product,), (defect,)
    posed = None if shot is None else Batch(image_tensor([shot]), mask_tensor([mask]), *words)
    return Condition(image_tensor([normal]), mask_tensor([mask]), *words, posed)


def blob(size: int, area: int, seed: int) -> np.ndarray:
    """A mask of one piece of about so many pixels, of a shape that no shot has."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:size, :size] - size / 2
    height = cv2.GaussianBlur(rng.normal(size=(size, size)), (0, 0), 4) * 3 - np.hypot(row, column) / size * 2
    return np.asarray(height >= np.sort(height, axis=None)[-area])


def ellipse(long: int, short: int, angle: float, size: int = 64) -> np.ndarray:
    """A square mask with an ellipse in its middle, its half axes in px."""
    return (
        cv2.ellipse(np.zeros((size, size), np.uint8), (size // 2, size // 2), (long, short), angle, 0, 360, 1, -1) > 0
    )


def painted(generator: PatchSynthesis, request: Condition, seed: int = 0) -> np.ndarray:
    return generator.sample(request, [seed]).image[0].numpy().transpose(1, 2, 0)


@pytest.fixture(scope="module")
def stained() -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(normal, mask, painted) of factory tiles with holes in new shapes."""
    generator = painter(shots("tile", "hole"))
    made = []
    for seed in range(6):
        normal = images.to_model(factory.make("tile", None, seed=50 + seed, size=SIZE).image)
        mask = blob(SIZE, 500, seed)
        made.append((normal, mask, painted(generator, asked(normal, mask, "tile", "hole"), seed)))
    return made


def profile(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    sources = [Source.of(picture, mask) for picture, mask in pairs]
    return mean_profile([profile_of(one.ratio, one.depth) for one in sources])


def test_masks_are_filled_as_annotators_fill_them(stained):
    """The change over the depth in the label runs as in the shots, in masks of new shapes on grounds of other tones."""
    wanted = profile([(crop.image, crop.mask) for crop in shots("tile", "hole")])
    made = profile([(picture, mask) for _, mask, picture in stained])
    assert np.abs(made / made.max() - wanted / wanted.max()).mean() < 0.1, f"{made.round(2)} against {wanted.round(2)}"
    pasted = profile([(np.where(mask[:, :, None], -0.5, normal), mask) for normal, mask, _ in stained])
    assert np.abs(pasted / pasted.max() - wanted / wanted.max()).mean() > 0.1, "filled evenly it would not"


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_tight_and_generous_labels_stay_so(share: float):
    """Where annotators left a rim of normal surface in the label, it is left in the samples; else it is not."""
    rng = np.random.default_rng(1)
    normal = (0.2 + rng.normal(0, 0.01, (64, 64, 1))).repeat(3, 2).astype(np.float32)
    crops = []
    for seed in range(3):
        mask, image = ellipse(13, 9 + 2 * seed, 40 * seed), np.roll(normal, seed, axis=0).copy()
        distance = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
        image[distance > (1 - share) * distance.max()] -= 0.4
        crops.append(Crop(image, mask, "plate", "pit"))
    generator = painter(crops, strength=0.0)
    masks = [ellipse(15 - 2 * seed, 11, 20 + 50 * seed) for seed in range(3)]
    made = profile([(painted(generator, asked(normal, mask, "plate", "pit")), mask) for mask in masks])
    wanted = profile([(crop.image, crop.mask) for crop in crops])
    assert np.abs(made - wanted).mean() < 0.15 * wanted.mean(), f"{made.round(2)} against {wanted.round(2)}"
    assert (wanted[0] < 0.2 * wanted.max()) == (share < 1)


def test_nothing_outside_changes_and_new_damage_is_no_copy(stained):
    for normal, mask, picture in stained:
        assert np.array_equal(picture[~mask], normal[~mask]) and not np.array_equal(picture[mask], normal[mask])
    sizes = {(int(mask.sum()), float(np.abs(picture - normal)[mask].mean())) for normal, mask, picture in stained}
    assert len(sizes) == len(stained)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("times", [0.5, 1, 2])
@pytest.mark.parametrize("sigma", [0.0, 0.7])
def test_grain_is_that_of_the_shots(channels: int, times: float, sigma: float):
    """Within 15 % in masks half as wide as the shots', as wide, and twice as wide; also where it agrees over 2 px."""
    rng = np.random.default_rng(0)

    def noise(size: int, planes: int) -> np.ndarray:
        values = rng.normal(0, 0.03, (size, size, planes))
        values = gaussian_filter(values, (sigma, sigma, 0)) if sigma else values
        return np.repeat(values * 0.03 / values.std(), 3 // planes, 2)

    def strength(picture: np.ndarray, mask: np.ndarray) -> float:
        """Standard deviation of what a mean over 5 px leaves, away from the border of the damage."""
        fine = picture - uniform_filter(picture.astype(np.float64), (5, 5, 1))
        return float(fine[binary_erosion(mask, np.ones((5, 5)))].std())

    crops = []
    for seed in range(3):
        mask = ellipse(27, 18 + seed, 50.0 * seed, size=80)
        image = 0.3 + noise(80, channels)
        image[mask] = (image[mask] - 0.3) * 1.5 - 0.3
        crops.append(Crop(image.astype(np.float32), mask, "plate", "stain"))
    generator = painter(crops, strength=0.0)
    wanted = np.mean([strength(crop.image, crop.mask) for crop in crops])
    made = []
    for seed in range(2):
        mask = ellipse(round(25 * times), round(19 * times), 40.0 * seed, size=120)
        normal = (0.3 + noise(120, channels)).astype(np.float32)
        made.append(strength(painted(generator, asked(normal, mask, "plate", "stain"), seed), mask))
    assert np.mean(made) == pytest.approx(wanted, rel=0.15)


DEPTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "12 bits in 16": lambda light: np.rint(light * 4095).astype(np.uint16),
    "16 bits": lambda light: np.rint(light * 65535).astype(np.uint16),
    "float": lambda light: (light * 3 - 1.7).astype(np.float32),
}
"""Depth -> what a camera or a height sensor of it makes of light in 0..1."""


@pytest.mark.parametrize(
    "told", [{"generator.name": "patch_synthesis"}, {"generator.name": "crop_paste", "generate.bend": 1.0}]
)
@pytest.mark.parametrize("depth", DEPTHS)
def test_deep_photographs_keep_range_and_grain(tmp_path: Path, depth: str, told: dict[str, Any]):
    """In the file's own values: inside the product's range, and in the mask the grain of the shots within 15 %."""
    rng = np.random.default_rng(3)
    for number in range(7):
        damaged, mask = number < 3, np.pad(ellipse(20, 14 + number, 60.0 * number), 16)
        cover = cv2.GaussianBlur(mask.astype(np.float64), (0, 0), 1.0) * damaged
        light = np.linspace(0.3, 0.7, SIZE) * (1 - 0.3 * cover)  # slanting light: a camera's whole range
        light = light + rng.normal(0, 0.01, (SIZE, SIZE)) * (1 + cover)
        photograph = DEPTHS[depth](light)
        name = f"{number}{images.lossless_suffix(photograph)}"
        images.write(tmp_path / f"data/plate/{'test/pit' if damaged else 'train/good'}" / name, photograph)
        if damaged:
            images.write_mask(tmp_path / f"data/plate/ground_truth/pit/{number}_mask.png", mask)
    settings = {**told, "generate.count": 4, "generate.controls": 0}
    settings |= {"data.root": str(tmp_path / "data"), "prove.enabled": False}
    run = fs.Run.create(tmp_path / "run", load_config(None, settings))
    opened = open_dataset(run)
    fs.train(run, opened)
    generate(run, data=opened)

    def grain(photograph: np.ndarray, mask: np.ndarray) -> float:
        """Standard deviation of the grain in the file's own values: Immerkaer, 1996, equation 3, with squares."""
        second = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]])
        inner = binary_erosion(mask, np.ones((7, 7)))
        return float(np.sqrt((convolve(photograph.astype(np.float64), second)[inner] ** 2).mean()) / 6)

    wanted = [
        grain(images.read(shot.image), images.read_mask(shot.masks[0], (SIZE, SIZE))) for shot in opened.split.shots
    ]
    span, made = opened.split.shots[0].span, []
    assert span is not None
    for sample in run.kept():
        picture, mask = images.read(run.path(sample.image)), images.read_mask(run.path(sample.mask), (SIZE, SIZE))
        assert picture.dtype == images.read(opened.split.shots[0].image).dtype
        assert picture.min() >= span.low and picture.max() <= span.high
        made.append(grain(picture, mask))
    assert len(made) == 4 and np.mean(made) == pytest.approx(np.mean(wanted), rel=0.15)


def test_values_stay_inside_the_range():
    """A dark stain on a black photograph, a bright one on a white photograph: no value leaves [-1,1] or is lost."""
    mask = blob(48, 200, 0)
    for tone, change in ((-0.95, -0.5), (0.95, 0.6)):
        image = np.full((48, 48, 3), tone / 2, np.float32)
        image[mask] = np.clip(image[mask] + change, -1, 1)
        picture = painted(painter([Crop(image, mask, "p", "d")]), asked(np.full_like(image, tone), mask, "p", "d"))
        assert np.isfinite(picture).all() and np.abs(picture).max() <= 1


def test_it_saves_what_it_learned(tmp_path: Path):
    """Names in any script, grey and colour; afterwards it paints the same bytes."""
    crops = [Crop(crop.image, crop.mask, "나사 a/b", 'löch "1"', surface=False) for crop in shots("tile", "hole", 2)]
    grey = crops[0].image.mean(axis=2, keepdims=True).repeat(3, axis=2)
    crops += [Crop(grey, crops[0].mask, "grey", "", surface=True)]
    generator = painter(crops)
    generator.save(tmp_path)
    assert (tmp_path / LEARNED).is_file()
    loaded = PatchSynthesis.load(tmp_path, None)
    assert [(c.product, c.defect, c.surface) for cs in loaded._crops.values() for c in cs] == [
        (crop.product, crop.defect, crop.surface) for crop in crops
    ]
    for product, defect in (("나사 a/b", 'löch "1"'), ("grey", "")):
        request = asked(np.zeros((SIZE, SIZE, 3), np.float32), blob(SIZE, 300, 1), product, defect)
        assert np.array_equal(painted(generator, request), painted(loaded, request))


def test_another_products_shots_and_the_rows_own_serve_too():
    normal, mask = np.full((48, 48, 3), 0.2, np.float32), blob(48, 150, 3)
    image = normal.copy()
    image[mask] = -0.6
    learned = painter([Crop(image, mask, "nut", "hole")])
    assert painted(learned, asked(normal, mask, "bolt", "hole"))[mask].mean() < -0.3
    assert painted(painter([]), asked(normal, mask, "bolt", "hole", image))[mask].mean() < -0.3
    with pytest.raises(DataError, match="no shot of 'crack' .known: hole"):
        learned.sample(asked(normal, mask, "nut", "crack"), [0])


def test_a_part_keeps_the_structure_of_the_shot():
    """An edge runs through the mask and ends there in the shot: it ends there in the sample, in its own place."""
    column = np.arange(64)
    normal = np.where(column < 32, 0.5, -0.5)[None, :, None].repeat(64, 0).repeat(3, 2).astype(np.float32)
    mask = np.zeros((64, 64), bool)
    mask[20:44, 24:44] = True
    shot = normal.copy()
    shot[26:38, 28:40] = 0.5
    crops = [Crop(shot, mask, "rod", "chip", surface=False)]
    kept = painted(painter(crops, strength=0.0), asked(normal, mask, "rod", "chip", shot))
    assert np.abs(kept - shot).mean() < 0.02
    alone = painted(painter(crops, strength=0.0), asked(normal, mask, "rod", "chip"))
    assert not np.array_equal(alone, normal), "without a shot to lay, patches are painted"


@pytest.mark.parametrize(("radius", "kept"), [(34, True), (9, False)])
def test_wide_damage_of_a_surface_is_laid_as_the_reposed_shot_has_it(radius: int, kept: bool):
    """A tone that runs across the label runs so in the sample; what is narrow is made of patches, another each time."""
    rng = np.random.default_rng(4)
    normal = np.repeat(0.1 + 0.02 * rng.normal(size=(SIZE, SIZE, 1)), 3, axis=2).astype(np.float32)
    mask = ellipse(radius, radius, 0, SIZE)
    shot = normal.copy()
    shot[mask] -= np.linspace(0.1, 0.7, SIZE, dtype=np.float32)[None, :, None].repeat(SIZE, 0)[mask]
    crops = [Crop(np.rot90(shot, turns).copy(), mask, "plate", "stain") for turns in range(4)]
    generator = painter(crops, shots=1, strength=0.0)
    made = [painted(generator, asked(normal, mask, "plate", "stain", shot), seed) for seed in range(4)]
    assert all(np.array_equal(made[0], other) for other in made) == kept
    if kept:
        assert np.abs(made[0] - shot)[binary_erosion(mask, iterations=3)].max() < 0.02
    other = painted(generator, asked(normal, mask, "plate", "stain"))
    assert not np.array_equal(other, made[0]), "without a shot to lay, patches are painted"


def test_controls_look_normal():
    """A place repainted from patches of normal parts keeps its tone and its grain."""
    rng = np.random.default_rng(0)
    plates = [(0.2 + rng.normal(0, 0.05, (64, 64, 1))).repeat(3, 2).astype(np.float32) for _ in range(4)]
    generator = painter([Crop(plate, blob(64, 300, seed), "plate", "") for seed, plate in enumerate(plates[:3])])
    mask = blob(64, 300, 9)
    made = painted(generator, asked(plates[3], mask, "plate", "", plates[0]))
    assert not np.array_equal(made, plates[3])
    assert made[mask].mean() == pytest.approx(0.2, abs=0.02) and made[mask].std() == pytest.approx(0.05, rel=0.25)


def test_a_run_keeps_what_was_learned(small_config: dict[str, Any], tmp_path: Path):
    """The crops are an output of `train`: made again when they are gone; shards in any order paint the same bytes."""
    settings = {"generator.name": "patch_synthesis", "generate.batch": 2, "generate.controls": 0.5}
    config = load_config(None, small_config | settings)
    whole, halves = (fs.Run.create(tmp_path / name, config) for name in ("whole", "halves"))
    for run in (whole, halves):
        data = open_dataset(run)
        fs.train(run, data)
        generate(run, data=data) if run is whole else [generate(run, Shard(k, 2), data) for k in (1, 0)]
    files = sorted(path.relative_to(whole.folder) for path in whole.folder.glob("[sc]*s/*.png"))
    assert len(files) == 2 * (6 + 3), "three types, two samples and a control each"
    for file in files:
        assert (whole.folder / file).read_bytes() == (halves.folder / file).read_bytes(), file
    saved = [whole.path("weights", product, LEARNED) for product in ("magnet", "screw")]
    before = [path.read_bytes() for path in saved]
    saved[0].unlink()
    fs.train(whole)
    assert [path.read_bytes() for path in saved] == before


def test_crops_are_the_damage_and_places_like_it(factory_root: Path):
    shots_of, normals = [], []
    for path in sorted((factory_root / "magnet/test/crack").glob("*.png")):
        mask = factory_root / "magnet/ground_truth/crack" / f"{path.stem}_mask.png"
        shots_of.append(Example(path.name, path, "magnet", "crack", (mask,)))
    for path in sorted((factory_root / "magnet/train/good").glob("*.png")):
        normals.append(Example(path.name, path, "magnet"))
    made = list(crops(shots_of, normals, Photographs(normals), 0))
    assert [crop.defect for crop in made] == ["crack"] * len(shots_of) + [""] * len(shots_of)
    for crop, shot in zip(made, shots_of, strict=False):
        whole = images.read_mask(shot.masks[0], images.read(shot.image).shape)
        assert crop.mask.sum() == whole.sum() and crop.image.shape == (*crop.mask.shape, 3)
        assert max(crop.mask.shape) <= np.ptp(np.argwhere(whole), axis=0).max() + 1 + 2 * 24
    for crop in made[len(shots_of) :]:
        assert crop.mask.any() and crop.image.shape[:2] == crop.mask.shape and crop.surface


def test_rows_do_not_depend_on_one_another():
    generator = painter(shots("tile", "hole", 2))
    normals = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)) - 0.5
    masks = mask_tensor([blob(48, 120, 0), blob(48, 90, 1)])
    both = Condition(normals, masks, ("tile",) * 2, ("hole",) * 2)
    one = Condition(normals[1:], masks[1:], ("tile",), ("hole",))
    assert torch.equal(generator.sample(both, [3, 4]).image[1], generator.sample(one, [4]).image[0])
