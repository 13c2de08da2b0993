"""denoising: maps read from a generator are what the formulas say, and a run that cannot be read is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flawsmith import registry
from flawsmith.config import load_config
from flawsmith.data.training_set import TrainingSet
from flawsmith.detectors.denoising import Denoising, DenoisingSettings
from flawsmith.errors import ConfigError, DataError, FlawsmithError
from flawsmith.evaluation.prove import _files_read
from flawsmith.nn.anomaly_maps.branches import DrawsDamage, branch_map
from flawsmith.nn.anomaly_maps.words import HearsWords, word_map
from flawsmith.nn.diffusion import stacked_noise
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.stage import Inputs
from flawsmith.synthesis.train import train
from flawsmith.types import Example

TYPES = ("crack", "hole")


def made(name: str, backbone: Any, **settings: Any) -> Any:
    plugin = registry.get("generators", name)
    return plugin(backbone, plugin.Settings(**settings))


def pictures(count: int = 2, rows: int = 32, columns: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, rows, columns, generator=torch.Generator().manual_seed(3)) * 2 - 1


def test_words_are_weighed_by_the_errors_that_they_leave(backbone: Any) -> None:
    image, levels, draws = pictures(), (0.2, 0.6), range(5, 7)
    maps = word_map(made("prompt_inpaint", backbone), image, "tile", TYPES, levels, draws)
    alphas = np.asarray(backbone.noise.schedule.alphas_cumprod, np.float64)
    latent, grey = backbone.encode(image), backbone.encode(torch.zeros_like(image))
    errors: dict[str, Any] = {}
    for word, prompt in {"": "sound surface", **{name: name for name in TYPES}}.items():
        text, everywhere = backbone.embed([f"a photo of {'a ' if word else ''}{prompt}"] * 2), latent[:, :1] * 0 + 1
        for seed in draws:
            noise = stacked_noise([seed], tuple(latent.shape[1:])).expand_as(latent)
            for level in levels:
                t = round(level * 999)
                signal, spread = alphas[t] ** 0.5, (1 - alphas[t]) ** 0.5
                noisy = (signal * latent + spread * noise).float()
                said = backbone.predict(noisy, torch.tensor([t, t]), text, mask=everywhere, masked=grey)
                velocity = signal * noise - spread * latent
                errors[word] = errors.get(word, 0) + (said - velocity).square().mean(1, keepdim=True) / 4
    wanted = errors[""] - (errors["crack"] + errors["hole"]) / 2
    assert maps.shape == (2, 1, 4, 8) and float(maps.abs().max()) > 0
    torch.testing.assert_close(maps, wanted.float(), rtol=1e-3, atol=1e-5)


def test_without_words_for_damage_the_error_under_normal_is_left(backbone: Any) -> None:
    generator, image = made("prompt_inpaint", backbone), pictures()
    alone = word_map(generator, image, "tile", (), (0.4,), range(1))
    beside = word_map(generator, image, "tile", ("crack",), (0.4,), range(1))
    assert float(alone.min()) >= 0 and not torch.equal(alone, beside)


@pytest.mark.parametrize("name", ["controlnet_inpaint", "cross_modal", "hybrid", "prompt_inpaint", "anomaly_diffusion"])
def test_what_is_read_is_what_paints(name: str) -> None:
    """Every generator that hears words is known as one, and none of them as one that draws damage."""
    plugin = registry.get("generators", name)
    assert hasattr(plugin, "predictor") and not hasattr(plugin, "pair_of")


def test_the_second_branch_draws_beside_the_held_picture(backbone: Any) -> None:
    generator, image = made("dual_branch", backbone, rank=2, zero_start=False), pictures()
    assert isinstance(generator, DrawsDamage) and not isinstance(generator, HearsWords)
    with torch.no_grad():  # untrained low-rank changes are zero
        for number, weight in enumerate(generator.unet.branches.parameters()):
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    drawn = branch_map(generator, image, "tile", "crack", range(4, 5), steps=2)
    back, noise = generator.backbone, generator.backbone.noise
    latent, grey = back.encode(image), generator.unet.grey((32, 64))[0]
    tokens = torch.stack([back.tokens(["a photo of a crack", "crack"])] * 2)
    text = generator.unet.read(tokens)
    start = stacked_noise([4, 4], (2 * latent.shape[1], *latent.shape[2:]))
    whole, alone = start.chunk(2, dim=1)
    for t, after in ((999, 499), (499, None)):
        noisy, at = torch.cat([whole, alone]), torch.full((4,), t)
        with torch.no_grad():
            clean = noise.clean(noisy, generator.unet.predict(noisy, at, text, [0, 0]), at)[2:]
        left, a = noise.noise_of(alone, clean, at[:2]), noise.alphas[after or 0]
        alone = clean if after is None else a.sqrt() * clean + (1 - a).sqrt() * left
        whole = latent if after is None else a.sqrt() * latent + (1 - a).sqrt() * start.chunk(2, dim=1)[0]
    wanted = (alone - grey).square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(drawn, wanted, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(drawn[0], drawn[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, backbone_folder: Path, factory_root: Path) -> Run:
    """A run whose ControlNet was trained for a step."""
    told = {"data.root": str(factory_root), "data.products": ["magnet"], "data.shots": 2, "train.steps": 1}
    told |= {"backbone.source": str(backbone_folder), "backbone.dtype": "float32", "train.batch": 2, "train.views": 1}
    run = Run.create(tmp_path_factory.mktemp("read") / "run", load_config(None, told | CONTROLNET))
    train(run)
    return run


CONTROLNET = {"generator.name": "controlnet_inpaint"}


def learned_from(run: Run, forbidden: tuple[str, ...] = ()) -> TrainingSet:
    split = load_split(run)
    training = TrainingSet((32, 64), tuple(sorted({str(e.defect) for e in split.shots})), forbidden)
    training.add(split.normals[0], "real") if not forbidden else None
    return training


def reader(run: Run | str, training: TrainingSet, **settings: Any) -> Denoising:
    folder = run if isinstance(run, str) else str(run.folder)
    detector = Denoising(DenoisingSettings(run=folder, levels=(0.3,), draws=1, **settings), training.defects)
    for _ in detector.fit(training, torch.Generator().manual_seed(1)):
        pass
    return detector


def test_a_trained_run_is_read_whatever_goes_through_the_network_together(trained: Run) -> None:
    training, image = learned_from(trained), pictures(3)
    one = reader(trained, training).predict(image)
    other = reader(trained, training, batch=1).predict(image)
    assert one.anomaly_map is not None and one.anomaly_map.shape == (3, 1, 32, 64)
    torch.testing.assert_close(one.anomaly_map, other.anomaly_map, rtol=1e-3, atol=1e-5)
    larger = reader(trained, training, size=64).predict(image)
    assert larger.anomaly_map is not None and larger.anomaly_map.shape == (3, 1, 32, 64)


def refused(error: type[FlawsmithError], words: str, run: Run | str, training: TrainingSet) -> None:
    with pytest.raises(error, match=words) as raised:
        reader(run, training)
    assert "\n" not in str(raised.value)


def test_a_run_that_cannot_be_read_is_refused(trained: Run, tmp_path: Path) -> None:
    training = learned_from(trained)
    refused(ConfigError, "nowhere is no run", "nowhere", training)
    pasted = Run.create(tmp_path / "pasted", load_config(None, {"generator.name": "crop_paste"}))
    refused(ConfigError, "crop_paste, which has no diffusion network", pasted, training)
    untaught = Run.create(tmp_path / "untaught", trained.config)
    refused(ConfigError, "no trained model of magnet/.*flawsmith train", untaught, training)
    manifest = json.loads(trained.path("manifest.json").read_text())
    manifest["stages"]["train"]["backbone"]["fingerprint"] = "another"
    untaught.path("manifest.json").write_text(json.dumps(manifest))
    refused(ConfigError, "trained on the backbone another", untaught, training)
    refused(DataError, "that is empty", trained, TrainingSet((32, 64), training.defects))


def test_a_generator_that_learned_from_a_test_picture_is_refused(trained: Run, tmp_path: Path) -> None:
    from flawsmith.data.fingerprints import content_hash

    split = load_split(trained)
    training = learned_from(trained, (content_hash(split.shots[0].image),))
    training.add(Example("n", split.normals[0].image, "magnet"), "real")
    refused(DataError, "which is a test picture here", trained, training)
    config = trained.config.model_dump(mode="json")
    for moved_to in (shutil.copytree(trained.config.data.root, tmp_path / "moved"), tmp_path / "nowhere"):
        moved = Path(shutil.copytree(trained.folder, tmp_path / f"run {moved_to.name}"))
        (moved / "config.json").write_text(json.dumps(config | {"data": config["data"] | {"root": str(moved_to)}}))
        there = moved_to.name == "moved"
        refused(DataError, "which is a test picture here" if there else "nobody can tell", str(moved), training)


def test_a_proof_depends_on_the_weights_of_the_run_that_is_read(trained: Run, tmp_path: Path) -> None:
    shutil.copytree(trained.path("weights"), tmp_path / "read/weights")
    told = {"prove.detectors": ["denoising", "probe"], "prove.settings": {"denoising": {"run": str(tmp_path / "read")}}}
    config = load_config(None, told)
    before = Inputs.of(config, "prove", files=_files_read(config))
    record = {"inputs": {"settings": dict(before.settings), "content": dict(before.content)}}
    assert len(_files_read(config)) == 2 and not before.changes(record)
    (weights,) = (tmp_path / "read/weights").rglob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert Inputs.of(config, "prove", files=_files_read(config)).changes(record) == ["files"]
    assert _files_read(load_config(None, {"prove.detectors": ["denoising", "probe"]})) == {}


def test_a_run_is_read_with_the_settings_that_it_samples_with_now(trained: Run, tmp_path: Path) -> None:
    """Its weights' own file says those that it was trained with."""
    folder, training = tmp_path / "run", learned_from(trained)
    shutil.copytree(trained.folder, folder)
    said = json.loads((folder / "config.json").read_text())
    scales = {}
    for changed in ({}, {"control_scale": 0.25}, {"control_scale": 0.25, "prompt": "{defect}"}):
        (folder / "config.json").write_text(
            json.dumps({**said, "generator": {**said["generator"], "settings": changed}})
        )
        (generator,) = {id(one): one for one in reader(str(folder), training)._generators.values()}.values()
        scales[len(changed)] = (generator.settings.control_scale, generator.settings.prompt)
    plain = "a photo of a {defect}"
    assert scales == {0: (1.0, plain), 1: (0.25, plain), 2: (1.0, plain)}, "another prompt is that of other weights"
