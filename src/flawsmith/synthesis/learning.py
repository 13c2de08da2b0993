"""One model is learned: views of the shots, encoded once; then the loop, in the memory that there is.

state/<job>/ holds what a killed run goes on from, views and a checkpoint, until the model's weights are saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from flawsmith import registry
from flawsmith.config import Config
from flawsmith.data.augmentation import View, damage_view, loosened, normal_view
from flawsmith.data.photographs import Photographs, windows_over
from flawsmith.data.scaling import eight_bits
from flawsmith.data.tensors import image_tensor, mask_tensor, picture_of
from flawsmith.errors import ConfigError
from flawsmith.interfaces import Generator
from flawsmith.nn.memory.exhausted import memory_suffices
from flawsmith.nn.memory.parking import parked
from flawsmith.nn.memory.presets import Preset, preset_of, smaller, spare
from flawsmith.nn.processes import Processes
from flawsmith.nn.trainer import SplitLoss, Trainer
from flawsmith.nn.weights import load_tensors, save_tensors
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.tracker import tracked
from flawsmith.types import Advance, Batch, Condition, Encoded, Example

ENCODE_BATCH = 16
"""The most windows that are encoded at once."""
SHOWN = 4
"""How often in a training a tracker is shown pictures."""
WATCHED = "shot, its ground, painted anew"
"""The name of these pictures."""
_LAYOUT = "tokens"
"""Part of what names the encoded views: another version's are encoded anew."""


@dataclass(frozen=True, slots=True)
class Job:
    """One model to train: its name below weights/, its generator, and the shots that it learns."""

    name: str
    generator: str
    shots: tuple[Example, ...]
    normals: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class LabelledView:
    """A window to learn from, and what it shows."""

    view: View
    product: str
    defect: str
    """"" = a normal part."""


@runtime_checkable
class _InParts(Protocol):
    """A generator whose `calibrate` can do with fewer windows at a time."""

    windows_at_once: int
    """0 = as it likes."""


def fit(
    run: Run,
    generator: Generator,
    job: Job,
    photographs: Photographs,
    size: int,
    stamp: str,
    processes: Processes | None = None,
) -> list[float]:
    """Train one model and calibrate it; return the loss of every step.

    Of several processes all have the weights afterwards; the first alone writes files and calibrates.

    Raises:
        RunError: memory ran out; it names the next smaller `train.memory`. Or training diverged.
    """
    config, preset = run.config, preset_of(run.config.train.memory, generator.backbone)
    name = f"{job.generator} ({job.name})"
    with memory_suffices(f"{name}: training", _remedy(preset)):
        with processes.first_before_others() if processes else nullcontext():
            encoded = _encoded(run, generator, job, photographs, size, stamp)
        with ExitStack() as shown:
            if generator.backbone is not None:
                trained = [network for part in generator.trainable().values() for network in part.modules()]
                spare([generator.backbone.unet, *trained], preset)
                if preset.parks_encoders:
                    shown.enter_context(parked(generator.encoders(), generator.backbone.device))
            kept = {"state": checkpoint_of(run, job), "identity": f"{stamp}/{job.name}", "name": f"{name}: training"}
            trainer = trainer_of(config, generator, encoded, preset, processes, **kept)
            advance: Advance | None = None
            writes = processes is None or processes.first
            tracker = shown.enter_context(tracked(run, job.name, stamp)) if writes else None
            watched = _one_view_per_type(config, job, photographs, size) if tracker else None
            for step in trainer.run():
                if advance is None:  # the first step says how many were done before a kill
                    bar = progress(f"train {job.name}", config.train.steps, "steps", done=step.index)
                    advance = shown.enter_context(bar)
                advance(1, f"loss {np.mean(trainer.losses[-50:]):.4f}")
                if tracker and watched:
                    tracker.step(step.index, step.loss, step.seconds)
                    if (step.index + 1) % max(1, config.train.steps // SHOWN) == 0:
                        tracker.pictures(WATCHED, painted_again(generator, watched, config), step.index)
        if writes and type(generator).calibrate is not Generator.calibrate:
            if isinstance(generator, _InParts):
                generator.windows_at_once = preset.windows
            with progress(f"calibrate {job.name}", 100, "%") as advance_percent:
                done = 0
                for share in generator.calibrate(encoded):
                    advance_percent(round(100 * share) - done)
                    done = round(100 * share)
    return trainer.losses


def painted_again(generator: Generator, views: Batch, config: Config) -> list[np.ndarray]:
    """Return a picture per view of a shot: the shot, the window without its damage, and painted anew in its mask.

    Training may go on afterwards as if nothing had been painted.
    """
    from flawsmith.nn.inpaint import filled  # diffusers, which painting with pixels does without

    ground = filled(views.image, views.mask)
    asked = Condition(ground, views.mask, views.product, views.defect, views)
    networks, count = list(generator.trainable().values()), len(views)
    for network in networks:
        network.eval()
    settings = config.generate
    made = generator.sample(asked, list(range(count)), steps=settings.steps, guidance=settings.guidance)
    for network in networks:
        network.train()
    rows = torch.cat([views.image, ground, made.image.float().cpu()], 3)
    return [eight_bits(picture_of(row)) for row in rows]


def _one_view_per_type(config: Config, job: Job, photographs: Photographs, size: int) -> Batch:
    """Return a view of the first shot of each defect type, of at most `ENCODE_BATCH`."""
    first = {shot.defect: shot for shot in reversed(job.shots)}
    alone = (replace(job, shots=(shot,), normals=()) for _, shot in sorted(first.items(), key=str))
    chosen = [next(views(config, one, photographs, size)) for one in islice(alone, ENCODE_BATCH)]
    return next(_batches(chosen, ENCODE_BATCH))


def trainer_of(
    config: Config,
    generator: Generator,
    encoded: Encoded,
    preset: Preset,
    processes: Processes | None = None,
    **told: Any,
) -> Trainer:
    """Return what trains a generator on its encoded views as the configuration and a preset say.

    Args:
        config: The run's configuration.
        generator: What is trained.
        encoded: Its views.
        preset: How memory is spared.
        processes: Those that train together; None = this one.
        told: Checkpoint, identity and name: see `Trainer`.
    """

    def loss_of(_: int, rng: torch.Generator) -> torch.Tensor | SplitLoss:
        batch = encoded.rows(torch.randint(len(encoded), (config.train.batch,), generator=rng))
        return loss_in_parts(generator, batch, rng, preset.windows, processes)

    on_card = generator.backbone is not None and generator.backbone.device.type != "cpu"
    return Trainer(
        generator.trainable(),
        loss_of,
        steps=config.train.steps,
        learning_rate=config.train.learning_rate,
        weight_decay=config.train.weight_decay,
        seed=config.seed,
        average=0.99,
        autocast=generator.backbone.dtype if generator.backbone else None,
        save_every=config.train.save_every,
        # On a processor the host's memory is all there is: copies there would only take more of it.
        optimiser_on_host=preset.optimiser_on_host and on_card,
        average_on_host=preset.average_on_host and on_card,
        processes=processes,
        **told,
    )


def loss_in_parts(
    generator: Generator, batch: Encoded, rng: torch.Generator, windows: int, processes: Processes | None = None
) -> torch.Tensor | SplitLoss:
    """Return a batch's loss, `windows` rows at a time; whole where they are all at once, or the method has no parts.

    Of several processes each gets the loss of its rows; together they are the batch.

    Raises:
        ConfigError: several processes are to share the batch of a method without parts, or one of fewer rows.
    """
    has_parts = type(generator).loss_of is not Generator.loss_of
    if processes is not None and not has_parts:
        raise ConfigError(
            f"{type(generator).__name__} learns from whole batches (it has no loss_of), so one process trains it"
        )
    if processes is None and not (has_parts and 0 < windows < len(batch)):
        return generator.loss(batch, rng)
    drawn = generator.draw(batch, rng)
    own = torch.arange(len(drawn)) if processes is None else processes.rows(len(drawn))
    parts = own.split(windows or len(own))
    return SplitLoss(len(drawn), (generator.loss_of(drawn.rows(rows)) for rows in parts))


def forget_state(run: Run, job: Job) -> None:
    """Delete what a killed run would have gone on from: the model is learned and saved."""
    for path in (checkpoint_of(run, job), _views_of(run, job)):
        path.unlink(missing_ok=True)


def checkpoint_of(run: Run, job: Job) -> Path:
    """Return where a job's checkpoint lies."""
    return run.path("state", *job.name.split("/"), "checkpoint.safetensors")


def _views_of(run: Run, job: Job) -> Path:
    return run.path("state", *job.name.split("/"), "views.safetensors")


def _remedy(preset: Preset) -> str:
    if name := smaller(preset):
        return f'set train.memory = "{name}", which learns the same in less'
    return "no train.memory takes less; take a smaller windows.size, a smaller backbone or a larger card"


def _encoded(run: Run, generator: Generator, job: Job, photographs: Photographs, size: int, stamp: str) -> Encoded:
    """Encode the job's views, or read them back when a killed run had finished that."""
    path, identity = _views_of(run, job), f"{stamp}/{_LAYOUT}"
    if path.exists():
        tensors, notes = load_tensors(path)
        if notes.get("identity") == identity:
            return Encoded(tensors)
    count = round(len(job.shots) * run.config.train.views * (1 + run.config.train.normal_views))
    parts = []
    with progress(f"encode {job.name}", count, "views") as advance:
        at_once = min(ENCODE_BATCH, run.config.train.batch)
        for batch in _batches(views(run.config, job, photographs, size), at_once):
            parts.append(generator.encode(batch))
            advance(len(batch))
    encoded = Encoded.cat(parts)
    save_tensors(path, encoded.tensors, {"identity": identity})
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
