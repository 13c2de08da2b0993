"""Learn the generator from the shots: views, encoded once; then the loop; weights/<job>/ and state/<job>/."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from flawsmith import registry
from flawsmith.config import Config, Settings, validate
from flawsmith.data.augmentation import View, damage_view, loosened, normal_view
from flawsmith.data.photographs import Photographs, windows_over
from flawsmith.data.split import Split
from flawsmith.data.tensors import image_tensor, mask_tensor
from flawsmith.errors import ConfigError
from flawsmith.files import file_digest, reading, write_json
from flawsmith.interfaces import LEARNED, Generator
from flawsmith.nn.trainer import Trainer
from flawsmith.nn.weights import load_tensors, save_tensors
from flawsmith.paths import require_files
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.stage import Inputs, is_done, stage
from flawsmith.synthesis.crops import crops
from flawsmith.synthesis.finite import require_finite_weights
from flawsmith.types import Advance, Batch, Encoded, Example

if TYPE_CHECKING:
    from flawsmith.nn.backbone import Backbone

ENCODE_BATCH = 16
"""The most windows that are encoded at once."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model to train: its name below weights/, its generator, and the shots that it learns."""

    name: str
    generator: str
    shots: tuple[Example, ...]
    normals: tuple[Example, ...]


def generator_classes(config: Config) -> dict[str, type[Generator]]:
    """Return the classes that the configuration names, by name."""
    return {name: registry.get("generators", name) for name in config.generator.names}


def generator_class(config: Config, defect: str = "") -> type[Generator]:
    """Return the class that paints a defect type; "" = the only one."""
    plugin: type[Generator] = registry.get("generators", config.generator.of(defect))
    return plugin


def load_backbone(config: Config) -> Backbone | None:
    """Return the backbone, or None when no generator needs one."""
    if not any(plugin.needs_backbone for plugin in generator_classes(config).values()):
        return None
    from flawsmith.nn.backbone import Backbone  # diffusers takes seconds, and generators of pixels do without it

    part = config.backbone
    require_files(part.source)
    return Backbone.load(
        part.source, offline=part.offline, device=part.device, dtype=part.dtype, clip_skip=part.clip_skip
    )


def jobs_of(config: Config, split: Split) -> list[Job]:
    """Return the models that `train.scope` asks for; where there are several generators, each learns its own types.

    Types that a table of generators leaves out are learned by none: nothing is made of them.
    """
    table = config.generator.name
    painted = [shot for shot in split.shots if isinstance(table, str) or shot.defect in table]

    def name(example: Example) -> str:
        scope = {"all": "all", "product": example.product, "defect": f"{example.product}/{example.defect}"}
        several = f"{config.generator.of(str(example.defect))}/" if len(config.generator.names) > 1 else ""
        return several + scope[config.train.scope]

    jobs = []
    for job in sorted({name(example) for example in painted}):
        own = tuple(example for example in painted if name(example) == job)
        if any(part in ("", ".", "..") for part in job.split("/")):
            raise ConfigError(f"data.product: {job!r} cannot name a folder of weights; use a plain name")
        products = {example.product for example in own}
        generator = config.generator.of(str(own[0].defect))
        jobs.append(Job(job, generator, own, tuple(e for e in split.normals if e.product in products)))
    return jobs


def job_names(config: Config, split: Split) -> dict[Example, str]:
    """Return the name of the model that learns from each shot."""
    return {shot: job.name for job in jobs_of(config, split) for shot in job.shots}


def working_size(config: Config, backbone: Backbone | None) -> int:
    """Return the side of the windows in pixels."""
    size = config.windows.size or (backbone.size if backbone else 128)
    if backbone is not None and size % (backbone.factor * 4):
        raise ConfigError(f"windows.size: {size} does not suit this backbone; use a multiple of {backbone.factor * 4}")
    return size


def generator_settings(config: Config) -> Settings:
    """Return the own settings of the only generator, checked."""
    return validate(generator_class(config).Settings, config.generator.settings, where="generator.settings")


def untrained_generator(config: Config, backbone: Backbone | None, job: Job, photographs: Photographs) -> Generator:
    """Return a job's generator as it is before any training: all that a generator of pixels needs."""
    config = config.with_generator(job.generator)
    plugin = generator_class(config)
    settings = generator_settings(config)
    with registry.making("generators", job.generator):
        generator = plugin(backbone if plugin.needs_backbone else None, settings)
    if plugin.learn is not Generator.learn:
        generator.learn(crops(job.shots, job.normals, photographs, config.seed))
    return generator


def generator_inputs(config: Config, output: str, **content: Any) -> Inputs:
    """Return the inputs of `train` or `generate`: those of the configuration and of the generators' own settings."""
    inputs = Inputs.of(config, output, **content)
    given, plain = dict(inputs.settings), dict(inputs.defaults)
    for name, plugin in generator_classes(config).items():
        prefix = f"generator.settings.{name}." if isinstance(config.generator.name, dict) else "generator.settings."
        for tree, settings in ((given, generator_settings(config.with_generator(name))), (plain, plugin.Settings())):
            tree |= {f"{prefix}{key}": value for key, value in plugin.affecting(settings, output).items()}
    return Inputs(given, plain, inputs.content)


def train_inputs(run: Run, data: Dataset, backbone: Backbone | None) -> Inputs:
    """Return what the stage depends on: equal inputs, equal weights."""
    files = {path: content for path, content in _starting_files(run).items() if content}
    return generator_inputs(
        run.config,
        "train",
        shots=data.content(data.split.shots),
        normals=data.content(data.split.normals),
        backbone=[backbone.fingerprint, str(backbone.dtype)] if backbone else [],
        **({"starts_from": files} if files else {}),
    )


def _starting_files(run: Run) -> dict[str, str]:
    """Return the files that training starts from -> a hash of their contents, remembered when they are gone."""
    known = run.record("train").get("inputs", {}).get("content", {}).get("starts_from", {})
    known = known if isinstance(known, dict) else {}
    paths = [
        path
        for name, plugin in generator_classes(run.config).items()
        for path in plugin.starts_from(generator_settings(run.config.with_generator(name)))
    ]
    return {str(path): file_digest(path) if path.is_file() else known.get(str(path), "") for path in paths}


def is_trained(run: Run, inputs: Inputs) -> bool:
    """Return whether the stage is done with these inputs, and its weights are still there."""
    return is_done(run, "train", inputs, _weights(run))


def _weights(run: Run) -> list[Path]:
    with reading(run.path("manifest.json")):
        return [run.path(name) for name in run.record("train").get("weights", ())]


def train(run: Run, data: Dataset | None = None) -> None:
    """Run the stage; does nothing when it is done already with the same input, and goes on from a checkpoint.

    Args:
        run: The run.
        data: Its photographs, when they are open already.
    """
    config = run.config
    data = data or open_dataset(run)
    backbone = load_backbone(config)
    inputs = train_inputs(run, data, backbone)
    with stage(run, "train", inputs, outputs=_weights(run)) as work:
        if work.done:
            return
        weights: list[Path] = []
        learned = 0
        for job in jobs_of(config, data.split):
            folder = run.path("weights", *job.name.split("/"))
            generator = untrained_generator(config, backbone, job, data.photographs)
            if generator.trainable() and config.train.steps:
                losses = _fit(run, generator, job, data.photographs, working_size(config, backbone), work.stamp)
                learned = len(losses)
                write_json(folder / "losses.json", {"steps": len(losses), "losses": losses})
            require_finite_weights(generator, _name(job))
            generator.save(folder)
            weights += [folder / "settings.json", *(folder / f"{name}.safetensors" for name in generator.trainable())]
            weights += [folder / LEARNED] if generator.learned() else []
        work.facts["generator"] = config.generator.label
        work.facts["weights"] = [path.relative_to(run.folder).as_posix() for path in weights]
        if backbone:
            dtype = str(backbone.dtype)
            work.facts["backbone"] = {"name": backbone.name, "fingerprint": backbone.fingerprint, "dtype": dtype}
        work.what = f"{learned} steps" if learned else "nothing to train"


@dataclass(frozen=True, slots=True)
class LabelledView:
    """A window to learn from, and what it shows."""

    view: View
    product: str
    defect: str
    """"" = a normal part."""


def _name(job: Job) -> str:
    """Return the generator and what it learns, for a sentence."""
    return f"{job.generator} ({job.name})"


def _fit(run: Run, generator: Generator, job: Job, photographs: Photographs, size: int, stamp: str) -> list[float]:
    """Train one model and calibrate it; return the loss of every step."""
    config = run.config
    encoded = _encoded(run, generator, job, photographs, size, stamp)

    def loss_of(_: int, rng: torch.Generator) -> torch.Tensor:
        return generator.loss(encoded.rows(torch.randint(len(encoded), (config.train.batch,), generator=rng)), rng)

    trainer = Trainer(
        generator.trainable(),
        loss_of,
        steps=config.train.steps,
        learning_rate=config.train.learning_rate,
        weight_decay=config.train.weight_decay,
        seed=config.seed,
        average=0.99,
        autocast=generator.backbone.dtype if generator.backbone else None,
        state=run.path("state", *job.name.split("/"), "checkpoint.safetensors"),
        save_every=config.train.save_every,
        identity=f"{stamp}/{job.name}",
        name=f"{_name(job)}: training",
    )
    with ExitStack() as shown:
        advance: Advance | None = None
        for step in trainer.run():
            if advance is None:  # the first step says how many were done before a kill
                bar = progress(f"train {job.name}", config.train.steps, "steps", done=step.index)
                advance = shown.enter_context(bar)
            advance(1, f"loss {np.mean(trainer.losses[-50:]):.4f}")
    if type(generator).calibrate is not Generator.calibrate:
        with progress(f"calibrate {job.name}", 100, "%") as advance_percent:
            done = 0
            for share in generator.calibrate(encoded):
                advance_percent(round(100 * share) - done)
                done = round(100 * share)
    return trainer.losses


def _encoded(run: Run, generator: Generator, job: Job, photographs: Photographs, size: int, stamp: str) -> Encoded:
    """Encode the job's views, or read them back when a killed run had finished that."""
    path = run.path("state", *job.name.split("/"), "views.safetensors")
    if path.exists():
        tensors, notes = load_tensors(path)
        if notes.get("identity") == stamp:
            return Encoded(tensors)
    count = round(len(job.shots) * run.config.train.views * (1 + run.config.train.normal_views))
    parts = []
    with progress(f"encode {job.name}", count, "views") as advance:
        # A small batch is chosen where memory is short, and at 512 px the autoencoder takes more than a small step.
        at_once = min(ENCODE_BATCH, run.config.train.batch)
        for batch in _batches(views(run.config, job, photographs, size), at_once):
            parts.append(generator.encode(batch))
            advance(len(batch))
    encoded = Encoded.cat(parts)
    save_tensors(path, encoded.tensors, {"identity": stamp})
    return encoded


def views(config: Config, job: Job, photographs: Photographs, size: int) -> Iterator[LabelledView]:
    """Yield augmented views of every shot in turn and, in between, views of normal parts."""
    rng = np.random.default_rng((config.seed, 21))
    plugin: type[Generator] = registry.get("generators", job.generator)
    owed, lone, turn = 0.0, not plugin.needs_mask, config.train.turn
    for shot in job.shots:
        photograph = photographs.read(shot)
        assert photograph.mask is not None and shot.defect is not None
        windows = windows_over(config, photograph.mask, size, lone=lone)
        normals = [normal for normal in job.normals if normal.product == shot.product]
        for _ in range(config.train.views):
            view = damage_view(photograph.native, photograph.mask, windows, size, rng, turn=turn, span=photograph.span)
            yield LabelledView(View(view.image, loosened(view.mask, rng, 2)), shot.product, shot.defect)
            owed += config.train.normal_views
            while owed >= 1 and normals:
                owed -= 1
                normal = normals[int(rng.integers(len(normals)))]
                side = windows[int(rng.integers(len(windows)))].side
                base, part = photographs.read(normal), photographs.part(normal)
                of_normal = normal_view(base.native, part, view.mask, side, size, rng, turn=turn, span=base.span)
                yield LabelledView(of_normal, normal.product, "")


def _batches(items: Iterable[LabelledView], size: int) -> Iterator[Batch]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield Batch(
            image_tensor([item.view.image for item in chunk]),
            mask_tensor([item.view.mask for item in chunk]),
            tuple(item.product for item in chunk),
            tuple(item.defect for item in chunk),
        )
