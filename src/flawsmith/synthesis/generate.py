"""Make the planned pairs: samples/000017.png with samples/000017.mask.png, and a line each in samples.jsonl.

Controls, which are normal parts repainted as normal, follow in controls/ and controls.jsonl. A batch is made whole or
not at all, so a run that was killed makes the same bytes when it goes on. What screening asks for since (rounds.json)
is planned and made behind the rest. `--shard i/n` makes every n-th batch; shards share the
plan and write their own lines.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flawsmith.config import Settings, validate
from flawsmith.data import images
from flawsmith.data.photographs import Photographs
from flawsmith.errors import ConfigError, RunError
from flawsmith.files import append_lines, digest, mend_lines, read_json, read_lines, write_json, write_text
from flawsmith.interfaces import Generator
from flawsmith.run.dataset import split_data
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.rounds import forget_discarded, forget_rounds, read_discarded, read_rounds
from flawsmith.synthesis.paint import Painter, Pair
from flawsmith.synthesis.plan import Line, make_controls, make_plan, plan_lines
from flawsmith.synthesis.sweep import has_sweep, paint_sweep
from flawsmith.synthesis.train import generator_class, is_trained, load_backbone, train_hash, working_size

Shard = tuple[int, int]
NEW: dict[str, Any] = {"reference": "shot", "borrow": [], "say": ""}
"""Settings that came later, with the value that changes nothing: it is left out of the stage's input hash."""
PAIRS, CONTROLS = "samples", "controls"
"""Folders in a run, and the names of the files that hold a line each."""


def parse_shard(text: str) -> Shard:
    """Turn "0/4" into (0, 4).

    Raises:
        ConfigError: it is not i/n with 0 <= i < n.
    """
    first, slash, second = text.partition("/")
    if slash and first.strip().isdigit() and second.strip().isdigit() and int(first) < int(second):
        return int(first), int(second)
    raise ConfigError(f"--shard {text}: expected i/n with i from 0 to n-1, e.g. 0/4")


def generate(run: Run, shard: Shard = (0, 1)) -> None:
    """Run the stage; does nothing when it is done already with the same input, and goes on where it was killed."""
    config = run.config
    plugin = generator_class(config)
    settings = validate(plugin.Settings, config.generator.settings, where="generator.settings")
    split = split_data(run)
    backbone = load_backbone(config)
    trained = train_hash(run, split, backbone)
    if not is_trained(run, trained):
        raise RunError(
            f"{run.folder}: the generator is not trained with this configuration, or its weights are gone; "
            f"run `flawsmith train {run.folder}`"
        )
    tree = config.generate.model_dump(mode="json")
    share = tree.pop("controls")
    for name, default in NEW.items():
        if tree[name] == default:  # runs from before these settings are as they were
            tree.pop(name)
    late = {name: _told(settings, name) for name in sorted(plugin.sampling_only)}
    stamp = digest(trained, tree, late)  # another number of controls leaves the pairs as they are
    if config.screen.enabled and config.screen.times > 1:
        stamp = digest(stamp, config.screen.times)
    both = digest(stamp, share)
    if run.stage_hash("generate") == both and _all_there(run) and (not plugin.sweep[0] or has_sweep(run)):
        return
    begun = time.time()
    pictures = Photographs(split.normals)
    with _locked(run.path("state", "lock")):
        forget_discarded(run)  # something is missing, so whatever is not there is made again
        lines = _planned(run, stamp, lambda: make_plan(config, split, plugin, pictures))
        lines = _with_rounds(
            run, lines, lambda asked, before: plan_lines(config, split, plugin, pictures, asked, before)
        )
        # Rounds after the first replace pairs; the controls of the first are as many as were asked for.
        controls = make_controls(config, split, plugin, pictures, [line for line in lines if "round" not in line])
        _clear_controls(run, both)
    made = 0
    work = ((PAIRS, lines, run.samples), (CONTROLS, controls, run.controls))
    generators: dict[str, Generator] = {}

    def painter_of(job: str) -> Painter:
        if job not in generators:
            # Weights of one job at a time: a product has many, and memory is one.
            generators.clear()
            generators[job] = plugin.load(run.path("weights", *job.split("/")), backbone)
            generators[job].settings = settings
        return Painter(config, generators[job], working_size(config, backbone), split, pictures)

    for name, planned, rows_of in work:
        made += _make(run, name, planned, shard, rows_of, painter_of)
    told = f"{made} pairs and controls, shard {shard[0]}/{shard[1]}"
    run.log(stage="generate", seconds=round(time.time() - begun, 1), what=told)
    rows = run.samples()
    if len(rows) == len(lines) and len(run.controls()) == len(controls):
        good = sum(row["status"] == "made" for row in rows)
        run.finish("generate", both, pairs=good, given_up=len(rows) - good, controls=len(controls))
        if plugin.sweep[0]:
            paint_sweep(run, lines, *plugin.sweep, painter_of)


def _told(settings: Settings, name: str) -> Any:
    part, _, key = name.rpartition(".")
    return getattr(settings, part).get(key) if part else getattr(settings, key)


def _make(
    run: Run,
    name: str,
    lines: list[Line],
    shard: Shard,
    rows_of: Callable[[], list[dict[str, Any]]],
    painter_of: Callable[[str], Painter],
) -> int:
    """Make this shard's batches of pairs or controls that are not on disk yet; return how many were made."""
    path = run.path(f"{name}.jsonl" if shard[1] == 1 else f"{name}.{shard[0]}-of-{shard[1]}.jsonl")
    batches = [group for number, group in sorted(_by_batch(lines).items()) if number % shard[1] == shard[0]]
    done = _whole_batches(run, path, batches, rows_of)
    todo = [group for group in batches if group[0]["batch"] not in done]
    if todo:
        run.forget("generate", "screen", "measure", "prove", "export", "report")
    total = sum(len(group) for group in batches)
    left = sum(len(group) for group in todo)
    what = "generate" if name == PAIRS else name
    with progress(what, total, "pairs" if name == PAIRS else name, done=total - left) as advance:
        for group in todo:
            rows = [_write(run, name, pair) for pair in painter_of(group[0]["job"]).paint(group)]
            append_lines(path, rows)
            advance(len(rows))
    _sort_lines(path)
    return left


def _planned(run: Run, stamp: str, make: Any) -> list[Line]:
    """Return the plan on disk when it is of this input; else clear what another input left, and plan."""
    mark, path = run.path("state", "generate.json"), run.path("plan.jsonl")
    if mark.exists() and (planned := read_json(mark)).get("hash") == stamp:
        if not path.exists():  # deleted: pairs that are made stay, the plan comes out alike
            _write_lines(path, make())
        return _read_plan(path, planned.get("lines"))
    lines = make()
    mark.unlink(missing_ok=True)
    forget_rounds(run)
    shutil.rmtree(run.path("samples"), ignore_errors=True)
    for old in run.folder.glob("samples*.jsonl"):
        old.unlink()
    _write_lines(path, lines)
    write_json(mark, {"hash": stamp, "lines": len(lines)})
    return lines


def _with_rounds(
    run: Run, lines: list[Line], make: Callable[[dict[tuple[str, str], int], list[Line]], list[Line]]
) -> list[Line]:
    """Return the plan with the lines that screening asked for since; the pairs of rounds that no longer hold go."""
    base = [line for line in lines if "round" not in line]
    whole = list(base)
    for number, asked in enumerate(read_rounds(run), start=1):
        there = [line for line in lines if line.get("round") == number]
        if Counter((line["product"], line["defect"]) for line in there) != Counter(asked):
            there = [line | {"round": number} for line in make(asked, whole)]
        whole += there
    if whole != lines:
        _write_lines(run.path("plan.jsonl"), whole)
    for path in sorted(run.folder.glob("samples*.jsonl")):
        rows = read_lines(path)
        gone = [row for row in rows if row["index"] >= len(whole)]
        if gone:
            run.forget("generate", "screen", "measure", "prove", "export", "report")
            _write_lines(path, [row for row in rows if row["index"] < len(whole)])
            for name in (row[part] for row in gone for part in ("image", "mask") if row[part]):
                run.path(name).unlink(missing_ok=True)
    return whole


def _write_lines(path: Path, lines: list[Line]) -> None:
    write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _read_plan(path: Path, count: int | None) -> list[Line]:
    advice = "delete the file and run again: it is planned alike, and pairs that are made stay"
    try:
        lines = read_lines(path)
    except RunError as error:
        raise RunError(f"{str(error).partition(';')[0]}; {advice}") from None
    first = [line.get("index") for line in lines if "round" not in line]
    if count is not None and first != list(range(count)):
        raise RunError(f"{path}: {len(first)} lines are not the {count} lines that were planned; {advice}")
    return lines


def _all_there(run: Run) -> bool:
    """Return whether every planned pair has its line and its files: what a user deletes is made again."""
    rows = run.samples()
    plan = _read_plan(run.path("plan.jsonl"), None)
    controls = run.controls()
    whole = 0 < len(plan) == len(rows) and len(controls) == run.stage("generate").get("controls")
    rounds = [sum(asked.values()) for asked in read_rounds(run)]
    of_rounds = Counter(line["round"] for line in plan if "round" in line)
    gone = read_discarded(run)
    return (
        whole
        and of_rounds == Counter(dict(enumerate(rounds, start=1)))
        and all(_is_there(run, row) or row["index"] in gone for row in rows)
        and all(_is_there(run, row) for row in controls)
    )


def _is_there(run: Run, row: dict[str, Any]) -> bool:
    return row["status"] != "made" or (run.path(row["image"]).is_file() and run.path(row["mask"]).is_file())


def _by_batch(lines: list[Line]) -> dict[int, list[Line]]:
    groups: dict[int, list[Line]] = {}
    for line in lines:
        groups.setdefault(line["batch"], []).append(line)
    return groups


def _whole_batches(
    run: Run, path: Path, batches: list[list[Line]], rows_of: Callable[[], list[dict[str, Any]]]
) -> set[int]:
    """Return the batches whose every line and file is on disk, from whichever shard; drop our lines of all others."""
    mend_lines(path)
    there = {row["index"] for row in rows_of() if _is_there(run, row)}
    whole = {group[0]["batch"] for group in batches if all(line["index"] in there for line in group)}
    indices = {line["index"] for group in batches if group[0]["batch"] in whole for line in group}
    own = read_lines(path)
    keep = [row for row in own if row["index"] in indices]
    if len(keep) < len(own):
        _write_lines(path, keep)
    return whole


def _sort_lines(path: Path) -> None:
    """Put lines in the order of the plan: a batch that was made again in the middle stands at the end."""
    rows = read_lines(path)
    ordered = sorted(rows, key=lambda row: row["index"])
    if rows != ordered:
        _write_lines(path, ordered)


def _clear_controls(run: Run, stamp: str) -> None:
    """Take away the controls of another input; what a killed run made of this one stays."""
    mark = run.path("state", "controls.json")
    if mark.exists() and read_json(mark).get("hash") == stamp:
        return
    shutil.rmtree(run.path(CONTROLS), ignore_errors=True)
    for old in run.folder.glob(f"{CONTROLS}*.jsonl"):
        old.unlink()
    write_json(mark, {"hash": stamp})


def _write(run: Run, folder: str, pair: Pair) -> dict[str, Any]:
    row = dict(pair.row)
    if pair.picture is None or pair.mask is None:
        return row | {"image": None, "mask": None}
    suffix = images.lossless_suffix(pair.picture)
    name = f"{folder}/{row['index']:06d}"
    images.write(run.path(f"{name}{suffix}"), pair.picture)
    images.write_mask(run.path(f"{name}.mask.png"), pair.mask)
    return row | {"image": f"{name}{suffix}", "mask": f"{name}.mask.png"}


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time plan; where the system has no file locks, shards must be started one after another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):
            pass
        yield
