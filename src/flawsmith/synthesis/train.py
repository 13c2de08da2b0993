"""Learn the generator from the shots: views, encoded once; then the loop; weights/<job>/ and state/<job>/."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from flawsmith import registry
from flawsmith.config import Config, validate
from flawsmith.data.augmentation import View, damage_view, loosened, normal_view
from flawsmith.data.photographs import Photographs, windows_over
from flawsmith.data.split import Split
from flawsmith.data.tensors import image_tensor, mask_tensor
from flawsmith.errors import ConfigError
from flawsmith.files import digest, write_json
from flawsmith.interfaces import Generator
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.features import file_fingerprint
from flawsmith.nn.trainer import Trainer
from flawsmith.nn.weights import load_tensors, save_tensors
from flawsmith.run.dataset import split_data
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.types import Batch, Encoded, Example

ENCODE_BATCH = 16


@dataclass(frozen=True, slots=True)
class Job:
    """One model to train: its name below weights/, and the shots that it learns."""

    name: str
    shots: tuple[Example, ...]
    normals: tuple[Example, ...]


def generator_class(config: Config) -> type[Generator]:
    """Return the class that the configuration names."""
    plugin: type[Generator] = registry.get("generators", config.generator.name)
    return plugin


def load_backbone(config: Config) -> Backbone | None:
    """Return the backbone, or None when the generator needs none."""
    if not generator_class(config).needs_backbone:
        return None
    part = config.backbone
    return Backbone.load(part.source, offline=part.offline, device=part.device, dtype=part.dtype)


def jobs_of(config: Config, split: Split) -> list[Job]:
    """Return the models that `train.scope` asks for."""

    def name(example: Example) -> str:
        if config.train.scope == "all":
            return "all"
        return example.product if config.train.scope == "product" else f"{example.product}/{example.defect}"

    jobs = []
    for job in sorted({name(example) for example in split.shots}):
        own = tuple(example for example in split.shots if name(example) == job)
        if any(part in ("", ".", "..") for part in job.split("/")):
            raise ConfigError(f"data.product: {job!r} cannot name a folder of weights; use a plain name")
        products = {example.product for example in own}
        jobs.append(Job(job, own, tuple(e for e in split.normals if e.product in products)))
    return jobs


def working_size(config: Config, backbone: Backbone | None) -> int:
    """Return the side of the windows in pixels."""
    size = config.windows.size or (backbone.size if backbone else 128)
    if backbone is not None and size % (backbone.factor * 4):
        raise ConfigError(f"windows.size: {size} does not suit this backbone; use a multiple of {backbone.factor * 4}")
    return size


def train_hash(run: Run, split: Split, backbone: Backbone | None) -> str:
    """Return the input hash of the stage: same hash, same weights."""
    config = run.config
    # Shots by content: a mask that was drawn anew may well have the old one's size.
    used = [(e.id, digest(e.image), digest(e.mask) if e.mask else "") for e in split.shots]
    used += [(e.id, str(e.image.stat().st_size), "") for e in split.normals]
    tree = config.model_dump(mode="json", include={"seed", "generator", "windows", "train"})
    tree["train"].pop("save_every")
    own = tree["generator"]["settings"]
    for name in generator_class(config).sampling_only:
        part, _, key = name.rpartition(".")
        (own.get(part, {}) if part else own).pop(key, None)
        if part and not own.get(part):
            own.pop(part, None)
    begun = [started] if (started := _started(run)) else []
    return digest(tree, used, backbone.fingerprint if backbone else "", str(backbone.dtype) if backbone else "", *begun)


def _started(run: Run) -> dict[str, str]:
    """Return the files that training starts from -> a hash of their contents, cached when they are gone."""
    plugin, known = generator_class(run.config), run.stage("train").get("started", {})
    settings = validate(plugin.Settings, run.config.generator.settings, where="generator.settings")
    return {str(p): file_fingerprint(p) if p.is_file() else known.get(str(p), "") for p in plugin.starts_from(settings)}


def is_trained(run: Run, stamp: str) -> bool:
    """Return whether the stage is done with this input, and its weights are still there."""
    done = run.stage("train")
    return done.get("hash") == stamp and all(run.path(name).is_file() for name in done.get("weights", ()))


def train(run: Run) -> None:
    """Run the stage; does nothing when it is done already with the same input, and goes on from a checkpoint."""
    config = run.config
    plugin = generator_class(config)
    settings = validate(plugin.Settings, config.generator.settings, where="generator.settings")
    split = split_data(run)
    backbone = load_backbone(config)
    stamp, started = train_hash(run, split, backbone), _started(run)
    if is_trained(run, stamp):
        return
    begun = time.time()
    pictures = Photographs(split.normals)
    kept: list[Path] = []
    for job in jobs_of(config, split):
        folder = run.path("weights", *job.name.split("/"))
        generator = plugin(backbone, settings)
        if generator.trainable() and config.train.steps:
            losses = _fit(run, generator, job, pictures, working_size(config, backbone), stamp)
            write_json(folder / "losses.json", {"steps": len(losses), "losses": losses})
        generator.save(folder)
        kept += [folder / "settings.json", *(folder / f"{name}.safetensors" for name in generator.trainable())]
    facts = (
        {"name": backbone.name, "fingerprint": backbone.fingerprint, "dtype": str(backbone.dtype)} if backbone else None
    )
    names = [path.relative_to(run.folder).as_posix() for path in kept]
    run.finish("train", stamp, backbone=facts, generator=config.generator.name, weights=names, started=started)
    run.log(stage="train", seconds=round(time.time() - begun, 1), what=f"{config.train.steps} steps")


def _fit(run: Run, generator: Generator, job: Job, pictures: Photographs, size: int, stamp: str) -> list[float]:
    config = run.config
    state = run.path("state", *job.name.split("/"))
    seen = _encoded(run, generator, job, pictures, size, stamp)

    def loss_of(_: int, rng: torch.Generator) -> torch.Tensor:
        return generator.loss(seen.rows(torch.randint(len(seen), (config.train.batch,), generator=rng)), rng)

    fit = Trainer(
        generator.trainable(),
        loss_of,
        steps=config.train.steps,
        learning_rate=config.train.learning_rate,
        weight_decay=config.train.weight_decay,
        seed=config.seed,
        average=0.99,
        autocast=generator.backbone.dtype if generator.backbone else None,
        state=state / "checkpoint.safetensors",
        save_every=config.train.save_every,
        identity=f"{stamp}/{job.name}",
    )
    steps = fit.run()
    bar = None
    for step in steps:
        if bar is None:
            manager = progress(f"train {job.name}", config.train.steps, "steps", done=step.index)
            bar = manager.__enter__()
        bar(1, f"loss {np.mean(fit.losses[-50:]):.4f}")
    if bar is not None:
        manager.__exit__(None, None, None)
    if type(generator).calibrate is not Generator.calibrate:
        with progress(f"calibrate {job.name}", 100, "%") as advance:
            done = 0
            for share in generator.calibrate(seen):
                advance(round(100 * share) - done)
                done = round(100 * share)
    return fit.losses


def _encoded(run: Run, generator: Generator, job: Job, pictures: Photographs, size: int, stamp: str) -> Encoded:
    """Encode the job's views, or read them back when a killed run had finished that."""
    path = run.path("state", *job.name.split("/"), "views.safetensors")
    if path.exists():
        tensors, notes = load_tensors(path)
        if notes.get("identity") == stamp:
            return Encoded(tensors)
    count = round(len(job.shots) * run.config.train.views * (1 + run.config.train.normal_views))
    parts = []
    with progress(f"encode {job.name}", count, "views") as advance:
        for batch in _batches(views(run.config, job, pictures, size)):
            parts.append(generator.encode(batch))
            advance(len(batch))
    seen = Encoded.cat(parts)
    save_tensors(path, seen.tensors, {"identity": stamp})
    return seen


def views(config: Config, job: Job, pictures: Photographs, size: int) -> Iterator[tuple[View, str, str]]:
    """Yield (view, product, defect) of every shot in turn, and of normal parts with defect ""."""
    rng = np.random.default_rng((config.seed, 21))
    owed, lone = 0.0, not generator_class(config).needs_mask
    for example in job.shots:
        shot = pictures.read(example)
        assert shot.mask is not None and example.defect is not None
        picture = shot.model()
        windows = windows_over(config, shot.mask, size, lone=lone)
        for _ in range(config.train.views):
            view = damage_view(picture, shot.mask, windows, size, rng, turn=config.train.turn)
            yield View(view.image, loosened(view.mask, rng, 2)), example.product, example.defect
            owed += config.train.normal_views
            own = [normal for normal in job.normals if normal.product == example.product]
            while owed >= 1 and own:
                owed -= 1
                normal = own[int(rng.integers(len(own)))]
                side = windows[int(rng.integers(len(windows)))].side
                view_of_normal = normal_view(
                    pictures.read(normal).model(),
                    pictures.part(normal),
                    view.mask,
                    side,
                    size,
                    rng,
                    turn=config.train.turn,
                )
                yield view_of_normal, normal.product, ""


def _batches(items: Iterable[tuple[View, str, str]]) -> Iterator[Batch]:
    chunk: list[tuple[View, str, str]] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == ENCODE_BATCH:
            yield _batch(chunk)
            chunk = []
    if chunk:
        yield _batch(chunk)


def _batch(chunk: list[tuple[View, str, str]]) -> Batch:
    image, mask = image_tensor([view.image for view, _, _ in chunk]), mask_tensor([view.mask for view, _, _ in chunk])
    return Batch(image, mask, tuple(p for _, p, _ in chunk), tuple(d for _, _, d in chunk))
