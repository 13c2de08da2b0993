"""Damage without a shot: sites on the part, what a photograph tells of its light, blur and grain, and the paint."""

import unicodedata

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from flawsmith.data.rendering.observed import blur_of, grain_of, lighting_of, mean_gradient
from flawsmith.data.rendering.sites import axes_of, site_mask, site_on
from flawsmith.data.rendering.strike import KINDS, struck
from flawsmith.data.sentences.naming import meant_by
from flawsmith.errors import ConfigError
from flawsmith.generators.rendered import Rendered, RenderedSettings
from flawsmith.testing.generators import example_condition

LEFT, RIGHT = np.pi, 0.0


def three(grey):
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.float32)


def ground(seed=0, side=128, grain=0.01):
    return three(-0.1 + grain * np.random.default_rng(seed).standard_normal((side, side)))


def lit(azimuth=LEFT, hardness=0.7):
    gradient = np.array([np.cos(azimuth), np.sin(azimuth), 1.0])
    light = lighting_of([gradient, gradient])
    return type(light)(light.azimuth, hardness)


# --- sites --------------------------------------------------------------------------------------------------------


def test_a_place_lies_on_the_part_and_is_as_long_as_asked():
    part = np.zeros((90, 120), bool)
    part[30:70, 20:110] = True
    rng = np.random.default_rng(0)
    for _ in range(20):
        pose = site_on(part, rng, size=(0.2, 0.3), within=(0.5, 0.0, 1.0, 1.0))
        mask = site_mask(pose, part)
        assert mask.any() and not (mask & ~part).any()
        assert 0.2 * 90 <= 2 * np.hypot(*pose.array[:, 0]) <= 0.3 * 90
        assert pose.array[0, 2] >= 59
    whole = np.ones((200, 200), bool)
    pose = site_on(whole, rng, size=(0.2, 0.2))
    rows, columns = np.mgrid[:200, :200]
    # By the definition of an ellipse: both axes' shares of a point, squared.
    axis, across, middle = pose.array.T
    away = np.stack([columns - middle[0], rows - middle[1]])
    shares = [(away * one[:, None, None]).sum(0) / (one**2).sum() for one in (axis, across)]
    assert np.array_equal(site_mask(pose, whole), shares[0] ** 2 + shares[1] ** 2 <= 1)


def test_at_an_edge_the_middle_lies_on_the_border():
    whole, rng = np.ones((60, 80), bool), np.random.default_rng(2)
    ends = [site_on(whole, rng, size=(0.1, 0.2), border=True).array[:, 2] for _ in range(12)]
    assert all(x in (0, 79) or y in (0, 59) for x, y in ends)
    tops = [site_on(whole, rng, size=(0.1, 0.2), within=(0, 0.05, 1, 0.35), border=True).array for _ in range(6)]
    assert all(pose[1, 2] == 0 for pose in tops)


@pytest.mark.parametrize("turn", [0.0, 0.6, 2.0])
def test_axes_are_those_of_an_ellipse(turn):
    rows, columns = np.mgrid[:200, :240]
    along = (columns - 120) * np.cos(turn) + (rows - 90) * np.sin(turn)
    across = (rows - 90) * np.cos(turn) - (columns - 120) * np.sin(turn)
    x, y, long, narrow, angle = axes_of((along / 40) ** 2 + (across / 15) ** 2 <= 1)
    assert np.allclose([x, y, long, narrow], [120, 90, 40, 15], atol=0.4)
    assert abs(np.sin(angle - turn)) < 0.01


def test_a_part_of_one_pixel_gets_its_place_there():
    part = np.zeros((40, 40), bool)
    part[31, 7] = True
    mask = site_mask(site_on(part, np.random.default_rng(1), size=(0.1, 0.2)), part)
    assert np.array_equal(mask, part)


# --- what a photograph tells --------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.0])
@pytest.mark.parametrize("grain", [0.0, 0.01])
def test_blur_is_that_of_the_edges(sigma, grain):
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[: 4 * 128, : 4 * 128]
    discs = np.zeros((4 * 128, 4 * 128))
    for x, y in ((130, 140), (350, 160), (200, 370)):
        discs[(columns - x) ** 2 + (rows - y) ** 2 < 90**2] = 0.9
    fine = gaussian_filter(discs, 4 * sigma).reshape(128, 4, 128, 4).mean(axis=(1, 3))
    assert blur_of(three(fine + grain * rng.standard_normal(fine.shape))) == pytest.approx(sigma, rel=0.2, abs=0.1)


def test_a_picture_without_edges_has_the_usual_blur_and_its_own_grain():
    picture = ground(grain=0.02)
    assert blur_of(picture) == 0.6
    assert grain_of(picture) == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("azimuth", [0.3, 1.9, -2.5])
def test_light_comes_from_where_domes_are_bright(azimuth):
    rows, columns = np.mgrid[:96, :96] - 47.5
    high = np.sqrt(np.maximum(60.0**2 - rows**2 - columns**2, 100))
    slope = (columns * np.cos(azimuth) + rows * np.sin(azimuth)) / 60
    rng = np.random.default_rng(0)
    domes = [three(0.6 * slope + 0.5 * high / 60 - 0.5 + 0.01 * rng.standard_normal(high.shape)) for _ in range(3)]
    light = lighting_of([mean_gradient(one) for one in domes])
    assert np.cos(light.azimuth - azimuth) > 0.97
    assert light.hardness > 0.5


def test_light_that_nothing_tells_comes_from_the_top_left():
    light = lighting_of([mean_gradient(ground(seed)) for seed in range(4)])
    assert np.cos(light.azimuth) < 0 and np.sin(light.azimuth) < 0
    assert lighting_of([]) == light


# --- the paint ----------------------------------------------------------------------------------------------------


def site(side=128, x=64, y=64, long=26, narrow=18):
    rows, columns = np.mgrid[:side, :side]
    return ((columns - x) / long) ** 2 + ((rows - y) / narrow) ** 2 <= 1


WAY = {"power": 0.8, "metal": 0.1, "contrast": 1.0, "blur": 0.6}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_stays_in_its_place(kind):
    normal, where = ground(), site(x=100)
    picture, mask = struck(normal, where, kind, np.random.default_rng(2), lighting=lit(), **WAY)
    assert picture.dtype == np.float32 and np.abs(picture).max() <= 1
    assert mask.sum() > 20 and not (mask & ~where).any()
    assert np.array_equal(picture[~mask], normal[~mask])
    assert np.ptp(picture, axis=2).max() == 0, "a grey photograph was painted in colour"
    assert np.abs(picture[mask] - normal[mask]).max() > 0.06


def test_a_hollow_is_lit_on_the_far_side_of_the_lamp():
    normal, where = ground(), site(long=30, narrow=30)
    halves = np.broadcast_to(np.arange(128) < 64, (128, 128))

    def gap(azimuth):
        picture, _ = struck(normal, where, "dent", np.random.default_rng(5), lighting=lit(azimuth), **WAY)
        change = (picture - normal).mean(axis=2)
        return change[~halves].mean() - change[halves].mean()

    assert gap(LEFT) > 0 > gap(RIGHT)


def test_a_dark_place_keeps_the_grain_of_the_photograph():
    normal, where = ground(grain=0.05), site(long=40, narrow=40)
    picture, mask = struck(normal, where, "stain", np.random.default_rng(4), lighting=lit(), **WAY)
    assert picture[mask].mean() < normal[mask].mean() - 0.1
    spot = slice(50, 78), slice(50, 78)
    assert mask[spot].all()
    assert grain_of(picture[spot]) == pytest.approx(0.05, rel=0.35)


def test_contrast_and_severity_say_how_much_is_changed():
    normal, where = ground(), site()

    def change(kind, **other):
        picture, mask = struck(normal, where, kind, np.random.default_rng(7), lighting=lit(), **{**WAY, **other})
        return np.abs(picture - normal).sum(), mask.sum()

    faint, clear = (change("dent", contrast=value)[0] for value in (0.5, 1.5))
    assert 1.5 * faint < clear
    assert change("scratch", power=0.3)[0] < change("scratch", power=1.0)[0]


def test_a_name_says_what_is_drawn():
    drawn = Rendered(None, RenderedSettings(looks={"thread_top": "dent"}))
    rng = np.random.default_rng(0)
    names = {"scratch": "scratch", "MT_Blowhole": "pores", "긁힘": "scratch", "thread_top": "dent", "rust": "rust"}
    assert {name: drawn._kind(name, rng) for name in names} == names
    assert {drawn._kind("type 7", rng) for _ in range(40)} > {"scratch", "dent"}
    assert meant_by("type 7") == []
    copied = unicodedata.normalize("NFD", "찍힘")  # of a folder, on macOS
    from_mac = RenderedSettings(looks={copied: "dent"}, severity={copied: (0.1, 0.2)})
    assert from_mac == RenderedSettings(looks={"찍힘": "dent"}, severity={"찍힘": (0.1, 0.2)})
    with pytest.raises(ValueError, match="'bend' cannot be drawn"):
        RenderedSettings(looks={"x": "bend"})
    with pytest.raises(ValueError, match="is no range"):
        RenderedSettings(severity=(0.9, 0.2))


def test_what_is_told_goes_before_what_is_seen():
    def painted(**told):
        made = Rendered(None, RenderedSettings(**told)).sample(example_condition(64, 1), [3])
        return made.image

    assert torch.equal(painted(azimuth=135.0, hardness=0.5), painted(hardness=0.5)), "the top left is 135 degrees"
    assert not torch.equal(painted(azimuth=315.0), painted())
    assert not torch.equal(painted(blur=2.0), painted())


def test_the_light_that_is_learned_survives_a_file(tmp_path):
    from flawsmith.types import Crop

    one = Rendered(None, RenderedSettings())
    ramp = three(np.linspace(-0.5, 0.5, 64)[None].repeat(64, 0))
    one.learn([Crop(ramp, np.ones((64, 64), bool), "tile", "")])
    one.save(tmp_path)
    other = Rendered.load(tmp_path, None)
    request = example_condition(64, 1)
    assert torch.equal(one.sample(request, [1]).image, other.sample(request, [1]).image)
    assert not torch.equal(
        one.sample(request, [1]).image, Rendered(None, RenderedSettings()).sample(request, [1]).image
    )


# --- runs without shots -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def normals(tmp_path_factory):
    """Six normal factory parts, and no damage at all."""
    from flawsmith.data import factory, images

    root = tmp_path_factory.mktemp("normals")
    for seed in range(6):
        piece = factory.make("steel", None, seed=seed, size=64, line=3, grey=True)
        images.write(root / "steel" / "train" / "good" / f"{seed}.png", piece.image)
    return root


def told(root, **more):
    from flawsmith.config import Config, overridden

    tree = {"data.root": str(root), "data.shots": 0, "generator.name": "rendered", "generate.count": 2}
    tree["measure.enabled"] = False  # there is nothing to compare with
    return overridden(Config(), tree | more)


def test_a_run_without_any_damage(normals, tmp_path):
    from flawsmith.data import images
    from flawsmith.pipeline import run_all
    from flawsmith.run.folder import Run

    config = told(
        normals,
        **{"generate.without_shots.types": ["scratch", "blot"], "generate.without_shots.size": {"blot": [0.3, 0.5]}},
    )
    run = Run.create(tmp_path / "run", config)
    report = run_all(run).read_text()
    samples = run.samples()
    assert sorted(sample.defect for sample in samples) == ["blot", "blot", "scratch", "scratch"]
    assert all(sample.made and not sample.shot for sample in samples)
    for sample in samples:
        normal, picture = images.read(normals / sample.normal), images.read(run.path(sample.image))
        mask = images.read_mask(run.path(sample.mask), normal.shape)
        assert np.array_equal(picture[~mask], normal[~mask]) and (picture[mask] != normal[mask]).any()
    assert "contrast" in report  # the dial is shown side by side
    assert "a proof compares with shots" in run.path("log.jsonl").read_text()
    assert not run.path("proof.json").exists()


def test_a_sentence_says_what_how_large_and_where(normals):
    from flawsmith.run.dataset import scanned_dataset
    from flawsmith.synthesis.plan import make_plan

    config = told(normals, **{"generate.prompt": "오른쪽 아래에 큰 얼룩", "generate.count": 6})
    lines = make_plan(config, scanned_dataset(config))
    assert {line.defect for line in lines} == {"stain"} and {line.appearance for line in lines} == {"large"}
    middles = np.array([line.pose.array[:, 2] for line in lines])
    assert (middles > 0.6 * 64).all() and (middles < 64).all()
    lengths = [2 * np.hypot(*line.pose.array[:, 0]) / 64 for line in lines]
    assert min(lengths) >= 0.4 and max(lengths) <= 0.8
    assert len({tuple(middle) for middle in middles}) > 1


def test_where_there_are_shots_damage_is_as_long_as_theirs(normals, tmp_path):
    from flawsmith.data import images
    from flawsmith.run.dataset import scanned_dataset
    from flawsmith.synthesis.plan import make_plan

    root = tmp_path / "set"
    root.mkdir()
    (root / "steel").mkdir()
    (root / "steel" / "train").symlink_to(normals / "steel" / "train")
    mask = np.zeros((64, 64), bool)
    mask[20:24, 10:42] = True
    for number in range(2):
        picture = images.read(normals / "steel/train/good/0.png") // 2 + number
        images.write(root / f"steel/test/nick/{number}.png", picture)
        images.write_mask(root / f"steel/ground_truth/nick/{number}_mask.png", mask)
    config = told(root, **{"data.shots": 1, "generate.count": 3})
    lines = make_plan(config, scanned_dataset(config))
    assert {line.defect for line in lines} == {"nick"} and {line.mask_source for line in lines} == {"site"}
    # The ellipse like a bar of 32 px has an axis of 32 x 2 / sqrt(3) px.
    assert [2 * np.hypot(*line.pose.array[:, 0]) for line in lines] == pytest.approx([32 * 2 / 3**0.5] * 3, rel=0.01)


def test_what_cannot_be_made_without_shots_is_said(normals):
    from flawsmith.run.dataset import scanned_dataset
    from flawsmith.synthesis.counts import counts

    config = told(normals, **{"generator.name": "patch_synthesis"})
    with pytest.raises(ConfigError, match="patch_synthesis learns damage from shots, and none shows 'scratch'"):
        counts(config, scanned_dataset(config).split)
    with pytest.raises(ConfigError, match="there is no defect type 'dent'"):
        scanned_dataset(
            told(
                normals,
                **{
                    "generate.without_shots.types": ["scratch"],
                    "generate.without_shots.size": {"dent": [0.1, 0.2]},
                },
            )
        )


def test_screening_needs_shots_of_every_type(normals, tmp_path):
    from flawsmith.data import images
    from flawsmith.run.dataset import scanned_dataset
    from flawsmith.synthesis.counts import counts

    (tmp_path / "steel").mkdir()
    (tmp_path / "steel" / "train").symlink_to(normals / "steel" / "train")
    mask = np.zeros((64, 64), bool)
    mask[20:24, 10:42] = True
    for number in range(2):
        images.write(tmp_path / f"steel/test/nick/{number}.png", np.full((64, 64), 40 + 9 * number, np.uint8))
        images.write_mask(tmp_path / f"steel/ground_truth/nick/{number}_mask.png", mask)
    config = told(tmp_path, **{"data.shots": 1, "generate.without_shots.types": ["dent"]})
    split = scanned_dataset(config).split
    assert counts(config, split) == {("steel", "nick"): 2, ("steel", "dent"): 2}
    screened = told(tmp_path, **{"data.shots": 1, "generate.without_shots.types": ["dent"], "screen.enabled": True})
    with pytest.raises(ConfigError, match="screening compares with shots, and none of '.*' shows 'dent'"):
        counts(screened, split)


def test_a_sentence_names_directions_places_and_one_damage(normals):
    from flawsmith.run.dataset import scanned_dataset
    from flawsmith.synthesis.plan import make_plan

    def poses(sentence, **more):
        config = told(normals, **{"generate.prompt": sentence, "generate.count": 3, **more})
        return [line.pose.array for line in make_plan(config, scanned_dataset(config))]

    assert all(abs(pose[1, 0]) < 1e-6 for pose in poses("a horizontal scratch"))
    head = {"data.places": {"head": {"box": [0.0, 0.0, 0.4, 0.5]}}}
    for pose in poses("a dent on the head", **head):
        assert pose[0, 2] <= 0.4 * 64 and pose[1, 2] <= 0.5 * 64  # the pixel on the border is the place's
    for pose in poses("a 4 mm crack", **{"data.pixel_mm": 0.25}):
        assert 2 * np.hypot(*pose[:, 0]) == pytest.approx(16)
    with pytest.raises(ConfigError, match="one scratch is drawn on a photograph"):
        poses("two scratches")
    with pytest.raises(ConfigError, match="40 mm are longer than the part"):
        poses("a 40 mm crack", **{"data.pixel_mm": 0.25})


def test_every_generator_that_says_so_makes_types_without_shots(normals, tmp_path):
    from flawsmith import registry
    from flawsmith.data.rendering.sites import site_mask
    from flawsmith.run.dataset import open_dataset
    from flawsmith.run.folder import Run
    from flawsmith.synthesis.generate import generate
    from flawsmith.synthesis.train import train

    pixels = [name for name, entry in registry.entries("generators").items() if entry.pixels]
    names = [name for name in pixels if registry.get("generators", name).without_shots]
    assert {"rendered", "cutpaste", "nsa", "perlin"} <= set(names)
    strayed = set()
    for name in names:
        told_one = {"generator.name": name, "generate.count": 2, "generate.without_shots.types": ["dent"]}
        run = Run.create(tmp_path / name, told(normals, **told_one))
        dataset = open_dataset(run)
        train(run, dataset)
        generate(run, data=dataset)
        for line, sample in zip(run.plan(), run.samples(), strict=True):
            assert sample.made, name
            mask = mask_at(run.path(sample.mask))
            if (mask & ~site_mask(line.pose, np.ones_like(mask))).any():
                strayed.add(name)
    # A site confines only what is always given one; to others it says round where.
    assert "rendered" not in strayed and {"cutpaste", "nsa"} <= strayed


def mask_at(path):
    from flawsmith.data import images

    return images.read(path) > 0
