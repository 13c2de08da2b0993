"""Anomaly maps read straight from a trained generator: nothing is trained to detect.

A generator that was taught to paint damage under words, or beside a second branch, knows something of where there is
damage. Of a run that `run` names its trained generator is read:

    by words   the noise in a picture is predicted under the word for normal and under those for damage; where the
               latter explain it better, there may be damage (`nn.anomaly_maps.words`)
    by branch  `dual_branch`: its first branch is held at the picture, and what its second branch draws on grey is the
               map (`nn.anomaly_maps.branches`)

Without a run the frozen backbone is read by words. Which ideas are whose stands in these two files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from flawsmith import config, registry
from flawsmith.config import BackboneConfig, Config, GeneratorConfig
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import ConfigError, DataError
from flawsmith.files import read_json, reading
from flawsmith.interfaces import Detector, Generator
from flawsmith.nn.anomaly_maps.branches import DrawsDamage, branch_map
from flawsmith.nn.anomaly_maps.words import HearsWords, word_map
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.loading.source import locate
from flawsmith.nn.loading.usable import load_usable
from flawsmith.types import Prediction

UNTRAINED = "prompt_inpaint"
"""The generator that is read where no run is named: the frozen backbone with its prompts."""
READABLE = ("controlnet_inpaint", "cross_modal", "hybrid", "anomaly_diffusion", "prompt_inpaint", "dual_branch")
"""Ours that can be read, for a sentence."""


class DenoisingSettings(config.Settings):
    """Which generator is read, and how."""

    run: str = ""
    """Folder of a run whose trained generator is read; empty = the frozen backbone alone, by its words."""
    backbone: str = "builtin"
    """With run empty, what `backbone.source` is for a run."""
    words: Literal["damage", "normal"] = "damage"
    """By words: what those for damage explain better, or what the one for normal does not explain."""
    size: Annotated[int, Field(ge=0, le=2048)] = 0
    """Shorter side in pixels at which the generator sees a picture; 0 = as detectors do. Stable Diffusion wants 512."""
    levels: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = (0.15, 0.35, 0.5)
    """By words: how far into the noise schedule pictures are read, as shares of it."""
    draws: Annotated[int, Field(ge=1, le=64)] = 2
    """Noises that pictures are read with, at each level; the mean counts."""
    steps: Annotated[int, Field(ge=1, le=100)] = 6
    """By branch: denoising steps of a drawing."""
    batch: Annotated[int, Field(ge=1, le=1024)] = 24
    """How often the network looks at once, pictures by levels and draws, a picture at least; fewer take less memory."""

    def reads(self) -> tuple[Path, ...]:
        """Return the trained weights of the run: when it is trained anew, other maps are read from it."""
        weights = Path(self.run, "weights")
        files = (path for pattern in ("settings.json", "*.safetensors") for path in weights.rglob(pattern))
        return tuple(sorted(files)) if self.run else ()


class Denoising(Detector):
    """What a generator's denoising says of a picture; tells localization and detection."""

    Settings: ClassVar[type[config.Settings]] = DenoisingSettings
    tells: ClassVar[frozenset[str]] = frozenset({"localization", "detection"})
    needs_damage: ClassVar[bool] = False
    settings: DenoisingSettings

    _product, _seed = "", 0
    _generators: dict[str, Generator] | None = None

    def prepare(self) -> None:
        self._config = _configuration(self.settings)
        for defect in self.defects:
            _class_of(self._config, defect, self.settings)

    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        """Load the generator of each defect type; of the training pictures the product's name alone is read."""
        if not training.pictures:
            raise DataError("denoising reads the product's name off the training set, and that is empty")
        if self.settings.run:
            _require_unseen(self.settings, training)
        self._product = training.pictures[0].product
        self._seed = int(torch.randint(2**31 - 1, (1,), generator=rng))
        backbone = _backbone_of(self._config, self.device, self.settings)
        jobs: dict[Path | None, Generator] = {}
        self._generators = {}
        for defect in self.defects:
            plugin = _class_of(self._config, defect, self.settings)
            folder = _weights(self._config, self.settings, self._product, defect)
            if folder not in jobs:
                if folder is None:
                    jobs[folder] = plugin(backbone, plugin.Settings())
                else:
                    jobs[folder] = _as_it_samples(plugin.load(folder, backbone), self._config, defect)
            self._generators[defect] = jobs[folder]
        yield 1.0

    @torch.inference_mode()
    def predict(self, image: Tensor) -> Prediction:
        if self._generators is None:
            raise DataError("denoising was asked before it was trained; call fit first")
        together = max(1, self.settings.batch // (len(self.settings.levels) * self.settings.draws))
        cells = torch.cat([self._read(chunk) for chunk in image.split(together)])
        # One cell's error is mostly the noise that was drawn there; the loudest one tells a picture all the same.
        smooth = avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
        return Prediction(interpolate(smooth, image.shape[-2:], mode="bilinear"), cells.amax((1, 2, 3)))

    def _read(self, image: Tensor) -> Tensor:
        """Return what is read of each cell, float32 (B,1,h,w): the mean over the defect types' generators."""
        assert self._generators is not None
        chosen, draws, product = self.settings, range(self._seed, self._seed + self.settings.draws), self._product
        types: dict[int, list[str]] = {}
        for defect, one in self._generators.items():
            types.setdefault(id(one), []).append(defect)
        maps: list[Tensor] = []
        for defects in types.values():
            generator = self._generators[defects[0]]
            assert generator.backbone is not None
            shown = _at_size(image.to(generator.backbone.device), generator.backbone, chosen.size)
            if isinstance(generator, DrawsDamage):
                maps += [branch_map(generator, shown, product, one, draws, steps=chosen.steps) for one in defects]
            elif isinstance(generator, HearsWords):
                read = defects if chosen.words == "damage" else ()
                maps += [word_map(generator, shown, product, read, chosen.levels, draws)] * len(defects)
        return torch.stack(maps).mean(0)


def _at_size(image: Tensor, backbone: Backbone, size: int) -> Tensor:
    """Return pictures (B,3,R,C) scaled so that the UNet can halve them and the shorter side is about `size`; 0 = as is.

    Args:
        image: float32 (B,3,R,C).
        backbone: What is to read them.
        size: In pixels.
    """
    step = backbone.factor * 2 ** (len(backbone.unet.config.block_out_channels) - 1)
    larger = size / min(image.shape[-2:]) if size else 1.0
    shape = [max(step, round(side * larger / step) * step) for side in image.shape[-2:]]
    if shape == list(image.shape[-2:]):
        return image
    return interpolate(image, shape, mode="bilinear", antialias=True).clamp(-1, 1)


def _configuration(settings: DenoisingSettings) -> Config:
    """Return the configuration of the run that is read, or of the bare backbone.

    Raises:
        ConfigError: there is no run.
    """
    if not settings.run:
        return Config(generator=GeneratorConfig(name=UNTRAINED), backbone=BackboneConfig(source=settings.backbone))
    path = Path(settings.run) / "config.json"
    if not path.is_file():
        raise ConfigError(
            f"prove.settings.denoising.run: {settings.run} is no run (it holds no config.json); name the folder of a "
            "run whose generator was trained"
        )
    return config.validate(Config, read_json(path), where=str(path))


def _class_of(trained: Config, defect: str, settings: DenoisingSettings) -> Any:
    """Return the class of the generator that paints a defect type.

    Raises:
        ConfigError: nothing can be read of it.
    """
    name = trained.generator.of(defect if isinstance(trained.generator.name, dict) else "")
    plugin = registry.get("generators", name)
    if not (hasattr(plugin, "predictor") or hasattr(plugin, "pair_of")):
        raise ConfigError(
            f"prove.settings.denoising.run: the generator of {settings.run} is {name}, which has no diffusion network "
            f"whose predictions can be read; name a run of {', '.join(READABLE)}"
        )
    return plugin


def _as_it_samples(generator: Generator, trained: Config, defect: str) -> Generator:
    """Return a trained generator with the settings of sampling that its run has now, as `flawsmith generate` does."""
    name = trained.generator.of(defect if isinstance(trained.generator.name, dict) else "")
    settings, plugin = trained.with_generator(name).generator.settings, type(generator)
    present = config.validate(plugin.Settings, settings, where="generator.settings")
    # Others that training reads would be those of another model than this one.
    if plugin.affecting(present, "train") == plugin.affecting(generator.settings, "train"):
        generator.settings = present
    return generator


def _weights(trained: Config, settings: DenoisingSettings, product: str, defect: str) -> Path | None:
    """Return the folder of the model that paints a defect type of a product; None = nothing is trained.

    Raises:
        ConfigError: the run has no such model.
    """
    if not settings.run:
        return None
    folder = Path(settings.run, "weights", *trained.job_of(product, defect).split("/"))
    if not (folder / "settings.json").is_file():
        raise ConfigError(
            f"prove.settings.denoising.run: {settings.run} has no trained model of {product}/{defect} ({folder}); name "
            f"a run that learned it, or `flawsmith train {settings.run}`"
        )
    return folder


def _backbone_of(trained: Config, device: str, settings: DenoisingSettings) -> Backbone:
    """Return the backbone that the generator stands on.

    Raises:
        ConfigError: the run was trained on another one.
    """
    part = trained.backbone
    files = locate(part.source, offline=part.offline).weights()
    backbone = _loaded(files, part.source, part.offline, device, part.dtype, part.clip_skip, tuple(part.lora))
    manifest = Path(settings.run, "manifest.json")
    if settings.run and manifest.is_file():
        with reading(manifest):
            trained_on = (read_json(manifest)["stages"].get("train") or {}).get("backbone")
        if trained_on and trained_on["fingerprint"] != backbone.fingerprint:
            raise ConfigError(
                f"prove.settings.denoising.run: {settings.run} was trained on the backbone "
                f"{trained_on['fingerprint']}, and {part.source} is now {backbone.fingerprint}; train the run again"
            )
    return backbone


@lru_cache(maxsize=1)
def _loaded(
    files: Any, source: str, offline: bool, device: str, dtype: str, clip_skip: int, lora: tuple[str, ...]
) -> Backbone:
    """Load a backbone; a proof has a detector for each arm and seed, and all read the same. `files` name its state."""
    return load_usable(source, offline=offline, device=device, dtype=dtype, clip_skip=clip_skip, lora=list(lora))


def _require_unseen(settings: DenoisingSettings, training: TrainingSet) -> None:
    """Refuse a generator that learned from a test picture: it may say of it what it was told.

    Raises:
        DataError: it did, or its photographs are not there any more, so that nobody can tell.
    """
    path = Path(settings.run, "data.json")
    if not path.is_file():
        return
    root = _configuration(settings).data.root.absolute()
    with reading(path):
        tree = read_json(path)
        before = Path(tree.get("root", root)).absolute()
        images = [Path(row["image"]).absolute() for name in ("shots", "normals") for row in tree[name]]
        learned = [root / image.relative_to(before) for image in images]  # they may have moved since
    there = [image for image in learned if image.is_file()]
    if learned and not there:
        raise DataError(
            f"prove.settings.denoising.run: the photographs that {settings.run} learned from are not below {root}, so "
            "nobody can tell whether test pictures are among them; put them back, or name another run"
        )
    for image in there:
        if training.forbids(image):
            raise DataError(
                f"prove.settings.denoising.run: {settings.run} learned from {image}, which is a test picture here; "
                "name a run that learned from the same shots"
            )
