"""Learn the generator from the shots, a model for each job: weights/<job>/, and state/<job>/ until it is learned."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flawsmith import registry
from flawsmith.config import Config, Settings, validate
from flawsmith.data.photographs import Photographs
from flawsmith.data.split import Split
from flawsmith.errors import ConfigError, RunError
from flawsmith.files import file_digest, read_json, reading, write_json
from flawsmith.interfaces import LEARNED, Generator
from flawsmith.nn.processes import Processes
from flawsmith.run.dataset import Dataset, open_dataset, recorded_dataset
from flawsmith.run.defect_types import without_shots
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress, unshown
from flawsmith.run.stage import Inputs, Spread, is_done, stage, stamp_of
from flawsmith.run.tracker import require_tracker
from flawsmith.run.unchanged import require_as_trained, weight_digests
from flawsmith.synthesis.backbones.of_run import RunBackbone, loaded
from flawsmith.synthesis.backbones.words import require_distinct_words
from flawsmith.synthesis.crops import crops
from flawsmith.synthesis.finite import require_finite_weights
from flawsmith.synthesis.learning import Job, fit, forget_state

if TYPE_CHECKING:
    from flawsmith.nn.backbone import Backbone


CONSTANTS = "backbone_constants"
"""Under this name training records what `Backbone.constants` was."""


def generator_classes(config: Config) -> dict[str, type[Generator]]:
    """Return the classes that the configuration names, by name."""
    return {name: registry.get("generators", name) for name in config.generator.names}


def generator_class(config: Config, defect: str = "") -> type[Generator]:
    """Return the class that paints a defect type; "" = the only one."""
    plugin: type[Generator] = registry.get("generators", config.generator.of(defect))
    return plugin


def backbone_of(run: Run) -> RunBackbone | None:
    """Return the run's backbone, not loaded yet; None when no generator needs one."""
    plugins = generator_classes(run.config).values()
    return RunBackbone(run) if any(plugin.needs_backbone for plugin in plugins) else None


def load_backbone(config: Config) -> Backbone | None:
    """Return the backbone, or None when no generator needs one.

    Raises:
        BackboneError: it cannot be loaded, or its configurations hold what does not fit.
    """
    if not any(plugin.needs_backbone for plugin in generator_classes(config).values()):
        return None
    return loaded(config.backbone)


def jobs_of(config: Config, split: Split) -> list[Job]:
    """Return the models that `train.scope` asks for; where there are several generators, each learns its own types.

    Types that a table of generators leaves out are learned by none: nothing is made of them. A job may be without
    shots: of types that none shows (`generate.without_shots`).
    """
    jobs, table = [], config.generator.name
    painted = [shot for shot in split.shots if isinstance(table, str) or shot.defect in table]
    pairs_of: dict[str, set[tuple[str, str]]] = {}
    shown = {(shot.product, str(shot.defect)) for shot in painted}
    unseen = [pair for pair in without_shots(config, split) if isinstance(table, str) or pair[1] in table]
    for pair in (*shown, *unseen):
        pairs_of.setdefault(config.job_of(*pair), set()).add(pair)
    for job, pairs in sorted(pairs_of.items()):
        own = tuple(shot for shot in painted if (shot.product, str(shot.defect)) in pairs)
        if any(part in ("", ".", "..") for part in job.split("/")):
            raise ConfigError(f"data.product: {job!r} cannot name a folder of weights; use a plain name")
        products = {product for product, _ in pairs}
        generator = config.generator.of(min(defect for _, defect in pairs))
        jobs.append(Job(job, generator, own, tuple(e for e in split.normals if e.product in products)))
    return jobs


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
    generator.job = job.name
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


def train_inputs(run: Run, data: Dataset, backbone: Backbone | RunBackbone | None) -> Inputs:
    """Return what the stage depends on: equal inputs, equal weights."""
    files = {path: content for path, content in _starting_files(run).items() if content}
    inputs = generator_inputs(
        run.config,
        "train",
        shots=data.content(data.split.shots),
        normals=data.content(data.split.normals),
        backbone=[backbone.fingerprint, str(backbone.dtype)] if backbone else [],
        **({"starts_from": files} if files else {}),
    )
    if backbone is None:
        return inputs
    record = run.record("train")
    if CONSTANTS not in record.get("inputs", {}).get("content", {}) and not inputs.changes(record):
        return inputs  # learned by a release that did not record them, and nothing else changed
    return replace(inputs, content={**inputs.content, CONSTANTS: backbone.constants})


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
    """Return whether the stage is done with these inputs, and its weights are still there.

    Raises:
        RunError: they were changed since.
    """
    if done := is_done(run, "train", inputs, _weights(run)):
        require_as_trained(run)
    return done


def _weights(run: Run) -> list[Path]:
    with reading(run.path("manifest.json")):
        return [run.path(name) for name in run.record("train").get("weights", ())]


def train(
    run: Run,
    data: Dataset | None = None,
    *,
    patience: float = 0.0,
    spread: Spread | None = None,
    processes: Processes | None = None,
) -> None:
    """Run the stage; does nothing when it is done already with the same input, and goes on from a checkpoint.

    Args:
        run: The run.
        data: Its photographs, when they are open already.
        patience: How many seconds to wait for another process that trains.
        spread: Has each model trained on whichever machine is free; None = one after another, here.
        processes: Those that train each model together; this is the first of them, see `train_together`.

    Raises:
        RunError: what is trained already was changed since.
    """
    data = data or open_dataset(run)
    backbone = backbone_of(run)
    inputs = train_inputs(run, data, backbone)
    if not inputs.changes(run.record("train")):
        require_as_trained(run)
    with stage(run, "train", inputs, outputs=_weights(run), patience=patience) as work:
        if work.done:
            return
        require_tracker(run.config.train.tracker)
        weights, learned, jobs = list[str](), 0, jobs_of(run.config, data.split)
        if spread is not None:
            todo = [job.name for job in jobs if not _learned(run, job, work.stamp)]
            with progress("train", len(todo), "models") as advance:
                calls = ((run, name, work.stamp) for name in todo)
                for number, _ in spread(learn_one, calls, network=backbone is not None):
                    advance(1, todo[number])
        for job in jobs:
            model = _learned(run, job, work.stamp)
            if model is None:
                if processes is not None:
                    processes.from_first((job.name, work.stamp))
                model = _learn(run, job, data, backbone, work.stamp, processes)
            forget_state(run, job)
            weights += model["weights"]
            learned = model["steps"]
        work.facts |= {"generator": run.config.generator.label, "weights": weights}
        work.facts["weight_digests"] = weight_digests(run, weights)
        if backbone:
            told = {"name": run.config.backbone.source, "fingerprint": backbone.fingerprint, "dtype": backbone.dtype}
            work.facts["backbone"] = told
        work.what = f"{learned} steps" if learned else "nothing to train"


def learn_one(run: Run, name: str, stamp: str) -> None:
    """Train one model of a run whose photographs are on record, by its name: a piece for `Spread`.

    Raises:
        RunError: what is learned here would not be what was asked for: photographs, weights or precision differ.
    """
    data, backbone = recorded_dataset(run), backbone_of(run)
    if stamp_of(run, "train", train_inputs(run, data, backbone)) != stamp:
        raise RunError(
            f"{run.folder}: this machine has other photographs or another backbone, or computes in another precision, "
            "than where the run was started; make them alike, or set backbone.dtype"
        )
    job = next(job for job in jobs_of(run.config, data.split) if job.name == name)
    if not _learned(run, job, stamp):
        _learn(run, job, data, backbone, stamp)


def train_together(run: Run) -> bool:
    """Run the stage with all processes that torchrun or `accelerate launch` started; alone where there are no others.

    Returns:
        Whether this process is the one that speaks for all.

    Raises:
        ConfigError: a method cannot be trained by several, or they are more than a batch has windows.
    """
    processes = Processes.started(run.config.backbone.device)
    if processes is None or processes.first:
        train(run, processes=processes)
        if processes is not None:
            processes.from_first(None)
    else:
        with unshown():
            while (asked := processes.from_first(None)) is not None:
                name, stamp = asked
                data, backbone = recorded_dataset(run), backbone_of(run)
                job = next(job for job in jobs_of(run.config, data.split) if job.name == name)
                _learn(run, job, data, backbone, stamp, processes)
    if processes is not None:
        processes.end()
    return processes is None or processes.first


def _learn(
    run: Run,
    job: Job,
    data: Dataset,
    backbone: RunBackbone | None,
    stamp: str,
    processes: Processes | None = None,
) -> dict[str, Any]:
    """Train one model and save it; return its files and the number of its steps, as `_learned` does.

    Of several processes the first saves it; the others return {}.
    """
    config, folder = run.config, run.path("weights", *job.name.split("/"))
    frozen = backbone.loaded if backbone else None
    generator, steps = untrained_generator(config, frozen, job, data.photographs), 0
    require_distinct_words(generator, job)
    if generator.trainable() and config.train.steps:
        losses = fit(run, generator, job, data.photographs, working_size(config, frozen), stamp, processes)
        steps = len(losses)
    if processes is not None and not processes.first:
        return {}
    if steps:
        write_json(folder / "losses.json", {"steps": steps, "losses": losses})
    require_finite_weights(generator, f"{job.generator} ({job.name})")
    generator.save(folder)
    weights = [folder / "settings.json", *(folder / f"{name}.safetensors" for name in generator.trainable())]
    weights += [folder / LEARNED] if generator.learned() else []
    model = {"stamp": stamp, "steps": steps, "weights": [path.relative_to(run.folder).as_posix() for path in weights]}
    write_json(_mark(run, job), model)
    return model


def _learned(run: Run, job: Job, stamp: str) -> dict[str, Any] | None:
    """Return what `_learn` returned when it was done before a kill and all is there still; None = it is to be done."""
    mark = _mark(run, job)
    model = read_json(mark) if mark.is_file() else {}
    with reading(mark):
        there = model.get("stamp") == stamp and all(run.path(name).is_file() for name in model["weights"])
    return model if there else None


def _mark(run: Run, job: Job) -> Path:
    return run.path("state", *job.name.split("/"), "learned.json")
