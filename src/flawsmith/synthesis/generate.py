"""Make what is planned: samples/000017.png with samples/000017.mask.png, and a line for each in samples.jsonl.

Negative controls, which are normal parts repainted as normal, follow in controls/ and controls.jsonl. A batch is made
whole or not at all, so a run that was killed makes the same bytes when it goes on. What screening asks for since
(rounds.json) is planned and made behind the rest. `--shard i/n` makes every n-th batch; shards share the plan and write
their own lines.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

from flawsmith.config import Config, affecting
from flawsmith.errors import RunError
from flawsmith.files import file_digest, read_json, reading, write_json
from flawsmith.interfaces import Generator
from flawsmith.locks import locked
from flawsmith.nn.memory.exhausted import memory_suffices
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.records import Role, Sample, append_records, each_record
from flawsmith.run.screened import forget_discarded, read_discarded, read_rounds
from flawsmith.run.shard import ALL, Shard
from flawsmith.run.stage import Inputs, Spread, stage, stamp_of
from flawsmith.run.unchanged import require_as_made
from flawsmith.synthesis.attention import has_attention, paint_attention
from flawsmith.synthesis.batches import made
from flawsmith.synthesis.batches.kept import beside_numbers
from flawsmith.synthesis.batches.planned import Planned, batches, each_planned, marked, plan, survey
from flawsmith.synthesis.batches.workers import painted
from flawsmith.synthesis.counts import counts
from flawsmith.synthesis.painters import Painters, Room
from flawsmith.synthesis.sentences.describe import described, inputs_of_descriptions
from flawsmith.synthesis.sweep import has_sweep, paint_sweep
from flawsmith.synthesis.train import (
    backbone_of,
    generator_classes,
    generator_inputs,
    is_trained,
    train_inputs,
)

_LESS = "take a smaller windows.size or backbone, or end what else uses this memory"
_ROLES: tuple[Role, ...] = ("sample", "control")


def generate(
    run: Run,
    shard: Shard = ALL,
    data: Dataset | None = None,
    *,
    patience: float = 0.0,
    spread: Spread | None = None,
) -> bool:
    """Run the stage; does nothing when it is done already with the same input, and goes on where it was killed.

    Args:
        run: The run.
        shard: Which part of it this process makes.
        data: Its photographs, when they are open already.
        patience: How many seconds to wait for other processes at it.
        spread: Has each batch painted on whichever machine is free; None = all are painted on this one.

    Returns:
        Whether the first plan and its controls are made, by whichever shards. What is lacking then is of later rounds.

    Raises:
        RunError: the generator is not trained, or what is made already was changed since.
    """
    config = run.config
    data = data or open_dataset(run)
    backbone = backbone_of(run)
    training = train_inputs(run, data, backbone)
    if not is_trained(run, training):
        raise RunError(
            f"{run.folder}: the generator is not trained with this configuration, or its weights are gone; "
            f"run `flawsmith train {run.folder}`"
        )
    if config.generate.describe:
        data = replace(data, descriptions=described(run, data, sorted(counts(config, data.split))))
    samples = _inputs(run, stamp_of(run, "train", training))
    # Another number of controls leaves the samples as they are.
    both = replace(
        samples,
        settings={**samples.settings, **affecting(config, "controls")},
        defaults={**samples.defaults, **affecting(Config(), "controls")},
    )
    painters = Painters(config, data, backbone, run.path("weights"))
    there = partial(_all_there, run, shard)
    with stage(run, "generate", both, there=there, shard=shard.name, patience=patience) as work:
        if not work.done:
            with locked(run.path("state", "lock")):
                forget_discarded(run)  # something is missing, so whatever is not there is made again
                _clear_controls(run, both)
            planned = plan(run, data, samples, shard)
            made.drop_beyond(run, _line_files(run, shard), planned.samples)
            _require_as_made(run, shard)
            room = Room(run, shard.name, work.stamp, painters)
            number = sum(_make(run, data, planned, role, shard, room, spread) for role in _ROLES)
            work.what = f"{number} samples and controls, shard {shard.number}/{shard.count}"
            rows, controls = (made.tally(run, role, _total(planned, role)) for role in _ROLES)
            work.finished = rows.lines == planned.samples and controls.lines == planned.controls
            if work.finished:  # also of shards that are no longer: there may have been another number of them
                made.drop_beyond(run, run.line_files("sample"), planned.samples)
            work.facts |= {"samples": rows.made, "given_up": rows.lines - rows.made, "controls": planned.controls}
            first = rows if planned.first() == planned.samples else made.tally(run, "sample", planned.first())
            complete = first.lines == planned.first() and controls.lines == planned.controls
    if work.done or work.finished:
        _show_settings(run, painters)
    return work.done or complete


def _show_settings(run: Run, painters: Painters) -> None:
    """Paint what the report shows of a generator's settings and words, once; of several shards the first does."""
    classes = generator_classes(run.config)
    swept = next((plugin for plugin in classes.items() if plugin[1].sweep[0]), None)
    if swept and run.stage_hash("generate") and not has_sweep(run):
        with locked(run.path("state", "sweep.lock")), memory_suffices("sweep", _LESS):
            lines = (line for line in each_planned(run) if line.generator == swept[0])
            paint_sweep(run, lines, *swept[1].sweep, painters.of)
    worded = {name for name, plugin in classes.items() if plugin.attention is not Generator.attention}
    if worded and run.stage_hash("generate") and not has_attention(run):
        indices = {row.index for row in made.each_row(run, "sample") if row.made}
        listened = (line for line in each_planned(run) if line.generator in worded and line.index in indices)
        with locked(run.path("state", "attention.lock")), memory_suffices("attention of words", _LESS):
            paint_attention(run, listened, painters.of)


def _inputs(run: Run, trained: str) -> Inputs:
    """Return what the samples depend on."""
    config, said = run.config, inputs_of_descriptions(run)
    masks = {path: file_digest(config.data.root / path) for path in _place_masks(config)}
    inputs = generator_inputs(config, "generate", train=trained, **said, **({"places": masks} if masks else {}))
    if config.screen.enabled:
        return inputs
    unread = "screen.times"
    settings, defaults = ({k: v for k, v in tree.items() if k != unread} for tree in (inputs.settings, inputs.defaults))
    return replace(inputs, settings=settings, defaults=defaults)


def _place_masks(config: Config) -> list[str]:
    """Return the mask files of named places that are there; who reads one that is not says so."""
    asked = config.generate.prompt or config.generate.describe
    named = {place.mask for place in config.data.places.values()} if asked else set()
    return sorted(path for path in named if path and (config.data.root / path).is_file())


def _total(planned: Planned, role: Role) -> int:
    return planned.samples if role == "sample" else planned.controls


def _make(
    run: Run, data: Dataset, planned: Planned, role: Role, shard: Shard, room: Room, spread: Spread | None
) -> int:
    """Make this shard's batches of samples or controls that are not on disk yet; return how many were made."""
    total, share = _total(planned, role), planned.shares[role]
    if not total:
        return 0
    path = made.lines_file(run, role, shard)
    ours = (batch for batch in batches(run, role) if batch[0].batch in shard)
    whole = made.whole_batches(run, path, ours, made.there(run, role, total))
    done = sum(whole)
    with progress("generate" if role == "sample" else "controls", share, f"{role}s", done=done) as advance:
        todo = (batch for batch in batches(run, role) if batch[0].batch in shard and not whole[batch[0].index])
        for rows in painted(run, data, room, todo, share - done, spread):
            append_records(path, rows)
            advance(len(rows))
    made.sort_lines(path)
    return share - done


def _all_there(run: Run, shard: Shard) -> bool:
    """Return whether every planned sample has its line and its files: what a user deletes is made again."""
    planned = survey(run, None, shard)
    _require_as_made(run, shard)
    rows, controls = (made.tally(run, role, _total(planned, role)) for role in _ROLES)
    gone = read_discarded(run)
    return (
        0 < planned.samples == rows.lines
        and planned.controls == controls.lines == run.record("generate").get("controls")
        and planned.holds(read_rounds(run))
        and all(row.index in gone or made.is_there(run, row) for row in made.each_row(run, "sample"))
        and all(made.is_there(run, row) for row in made.each_row(run, "control"))
    )


def _line_files(run: Run, shard: Shard) -> list[Path]:
    """Return the files of lines that this process alone may write."""
    return [made.lines_file(run, "sample", shard)] if shard.name else run.line_files("sample")


def _require_as_made(run: Run, shard: Shard) -> None:
    """Refuse to go on with pictures that somebody edited; of many shards each looks at its own."""
    if shard.name:
        paths = [made.lines_file(run, role, shard) for role in _ROLES]
        rows = chain.from_iterable(each_record(path, Sample) for path in paths)
    else:
        rows = chain.from_iterable(made.each_row(run, role) for role in _ROLES)
    require_as_made(run, rows, gone=True)


def _clear_controls(run: Run, inputs: Inputs) -> None:
    """Take away the controls of another input; what a killed run made of this one stays.

    When only the number of samples changed, `plan` takes away those whose lines are others.
    """
    mark = run.path("state", "controls.json")
    known = read_json(mark) if mark.exists() else {}
    with reading(mark):
        changes = inputs.changes(known) if known else [""]
    if not changes:
        return
    if beside_numbers(changes):
        made.clear(run, "control")
    write_json(mark, marked(inputs))
