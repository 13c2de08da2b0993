"""Write normal parts and samples in the layouts that other tools read: export/<format>/, whole or not at all."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from flawsmith import registry
from flawsmith.config import Config, validate
from flawsmith.data.exported.reads_features import ReadsFeatures
from flawsmith.data.exported.reads_generators import ReadsGenerators
from flawsmith.data.split import Split
from flawsmith.files import digest, file_digest, read_json, reading, whole_folder, write_json
from flawsmith.interfaces import Exporter
from flawsmith.run.dataset import load_split
from flawsmith.run.folder import Run
from flawsmith.run.opening import open_run
from flawsmith.run.painted import FOLDER, painted_pairs
from flawsmith.run.progress import progress
from flawsmith.run.records import Sample
from flawsmith.run.screened import require_kept
from flawsmith.run.stage import Inputs, stage
from flawsmith.run.unchanged import require_as_made, require_unchanged_photographs
from flawsmith.types import Example

_SIZES = ("state", "export.json")
"""The file that says what each export holds."""
_MADE_OF = ("state", "exported.json")
"""The file that says which samples each folder of exports was written from, those of earlier settings too."""


def opened(folder: Path, overrides: Sequence[str] = ()) -> Run:
    """Open a run, and change what it exports: ["export.formats=[\"coco\"]"], or `data.root`; the run keeps that.

    Raises:
        RunError: there is no run.
        ConfigError: a setting of another section, which would change what was made; a wrong key, value or format.
    """

    def require(config: Config) -> None:
        for name in {*config.export.formats, *config.export.settings}:
            load_exporter(config, name)

    return open_run(folder, overrides, section="export", verb="export", require=require)


def export(run: Run) -> None:
    """Run the stage; does nothing when every format is there already with the same input.

    Exported are the normal parts to learn from (train), those held out (test) and the samples that stand (test, with
    masks): made, and not rejected where the run is screened, as people who reviewed them said; and what was painted by
    hand for the run and accepted (test, with masks). With `export.real = "shots"` the real shots go along
    (train, with masks). Test pictures never do: they must stay unseen.

    Raises:
        RunError: no sample was made, or every one was rejected; counts the reasons. Or samples or photographs were
            changed since.
        ConfigError: a format or one of its settings is unknown.
    """
    exporters = {name: load_exporter(run.config, name) for name in run.config.export.formats}
    examples = exported(run)
    content = _content_of(examples)
    hashes = {"data": run.data_hash(), "samples": run.samples_hash(), "examples": content}
    for name, exporter in exporters.items():
        if (asked := _told(run, exporter)) is not None:
            hashes[name] = digest(asked)
    inputs = Inputs.of(run.config, "export", **hashes)
    folders = {name: run.path("export", name) for name in exporters}
    with stage(run, "export", inputs, outputs=folders.values(), there=lambda: _whole(run, folders)) as work:
        if work.done:
            return
        counts = {name: write(exporter, examples, folders[name]) for name, exporter in exporters.items()}
        made_of = digest(hashes["data"], hashes["samples"], [_identity(one) for one in examples if not _is_shot(one)])
        write_json(run.path(*_MADE_OF), _written_from(run) | dict.fromkeys(exporters, made_of))
        there = {name: sizes(folder) for name, folder in folders.items()}
        write_json(run.path(*_SIZES), there)
        work.facts |= {
            "counts": counts,
            "made_of": made_of,
            "files": {name: len(files) for name, files in there.items()},
        }
        written = (f"{name}: {sum(count.values())} pictures" for name, count in counts.items())
        work.what = ", ".join(written) or "no format asked for"


def outdated(run: Run) -> list[str]:
    """Return the formats whose folders were written before the samples changed; [] = all are of today's samples.

    Those of the last export are of today's, so it is folders of formats that `export.formats` no longer names.
    """
    now = run.record("export").get("made_of")
    before = {name: of for name, of in _written_from(run).items() if now and of != now}
    return [name for name in before if run.path("export", name).is_dir()]


def _written_from(run: Run) -> dict[str, str]:
    """Return which samples each format's folder was written from, as a digest."""
    path = run.path(*_MADE_OF)
    return dict(read_json(path)) if path.is_file() else {}


def _identity(example: Example) -> list[str | None]:
    """Return what identifies a picture; samples and photographs with their names, by their stages' own hashes."""
    words = [example.id, example.product, example.defect, example.split]
    if example.id.startswith(f"{FOLDER}/"):  # another pair may have been painted under a name that was free again
        words += [file_digest(path) for path in (example.image, *example.masks)]
    return words


def _is_shot(example: Example) -> bool:
    return example.defect is not None and example.split == "train"


def prepared(run: Run, exporter: Exporter) -> Exporter:
    """Return an exporter that may write: it is told what it asks of the run."""
    _told(run, exporter)
    return exporter


def _told(run: Run, exporter: Exporter) -> object:
    """Tell an exporter what it asks of the run; return what identifies that, None = it asks nothing."""
    if isinstance(exporter, ReadsFeatures):
        cache = run.path("state", "features")
        return exporter.use_features(run.config.features, run.config.backbone.offline, cache)
    if isinstance(exporter, ReadsGenerators):
        made_by: dict[str, set[str]] = defaultdict(set)
        for sample in run.kept():
            made_by[sample.defect].add(sample.generator)
        exporter.use_generators(made_by)
        return {defect: sorted(names) for defect, names in made_by.items()}
    return None


def sizes(folder: Path) -> dict[str, int]:
    """Return the size of each file below a folder in bytes, by its path below it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _whole(run: Run, folders: Mapping[str, Path]) -> bool:
    """Return whether nothing that was written is missing or cut; what a tool wrote beside it does not count."""
    path = run.path(*_SIZES)
    written: Mapping[str, Mapping[str, int]] = read_json(path) if path.is_file() else {}
    counts: Mapping[str, int] = run.record("export").get("files") or {}
    with reading(path):
        for name, folder in folders.items():
            there = sizes(folder)
            if len(there) < counts.get(name, 0):
                return False
            if any(there.get(file, -1) < size for file, size in written.get(name, {}).items()):
                return False
    return True


def load_exporter(config: Config, name: str) -> Exporter:
    """Return an exporter with its settings.

    Raises:
        ConfigError: the format is unknown, or one of its settings.
    """
    plugin: type[Exporter] = registry.get("exports", name)
    settings = validate(plugin.Settings, config.export.settings.get(name, {}), where=f"export.settings.{name}")
    with registry.making("exports", name):
        return plugin(settings)


def write(exporter: Exporter, examples: Sequence[Example], folder: Path) -> dict[str, int]:
    """Let an exporter write a folder; what stood there is replaced, whole or not at all.

    Raises:
        DataError: an example does not suit the layout.
        RunError: the place cannot be written; nothing was changed there.
    """
    with whole_folder(folder, "the export") as part:
        with progress(f"export {folder.name}", len(examples), "pictures") as advance:
            return exporter.write(examples, part, destination=folder, advance=advance)


def exported(run: Run) -> list[Example]:
    """Return what goes out: normal parts with split "train" or "test", then the kept samples by index.

    With `export.real = "shots"`, the shots follow them.

    Raises:
        RunError: there is no kept sample; or samples or photographs were changed since.
    """
    split, kept = load_split(run), _kept(run)
    examples = _outgoing(run, split, kept)
    if not any(one.painted_on for one in examples):
        require_kept(run)
    require_unchanged_photographs(run)
    require_as_made(run, kept)
    return examples


def content_now(run: Run) -> str:
    """Return what identifies the pictures that an export would hold now, as `export` compares it.

    Whether every file is as it was is not looked at: the studio asks often, and need not wait for that.

    Raises:
        RunError: a record is damaged, or the photographs are not there.
    """
    return _content_of(_outgoing(run, load_split(run), _kept(run)))


def _content_of(examples: Sequence[Example]) -> str:
    return digest([_identity(one) for one in examples])


def _kept(run: Run) -> list[Sample]:
    return run.kept() if run.samples() else []


def _outgoing(run: Run, split: Split, kept: Sequence[Sample]) -> list[Example]:
    spans = {one.product: one.span for one in split.normals}
    normals = [Example(one.id, one.image, one.product, None, (), "train", span=one.span) for one in split.normals]
    normals += [Example(one.id, one.image, one.product, None, (), "test", span=one.span) for one in split.test_normals]
    made = [
        Example(
            one.image,
            run.path(one.image),
            one.product,
            one.defect,
            (run.path(one.mask),),
            "test",
            span=spans.get(one.product),
            painted_on=one.normal,
        )
        for one in kept
    ]
    made += _painted(run, split.normals)
    shots = split.shots if run.config.export.real == "shots" else ()
    return [*normals, *made, *(replace(shot, split="train") for shot in shots)]


def _painted(run: Run, normals: Sequence[Example]) -> list[Example]:
    """Return what was painted by hand for the run and accepted, as examples."""
    by_path = {os.path.abspath(one.image): one for one in normals}
    examples = []
    for pair in painted_pairs(run.path(FOLDER)):
        photograph = os.path.abspath(pair.photograph) if pair.photograph else ""
        below = by_path.get(photograph) or _where_it_moved(photograph, normals)
        examples.append(
            Example(
                f"{FOLDER}/{pair.name}{pair.image.suffix}",
                pair.image,
                pair.product,
                pair.defect,
                (pair.mask,),
                "test",
                span=below.span if below else None,
                painted_on=below.id if below else photograph or pair.name,
            )
        )
    return examples


def _where_it_moved(photograph: str, normals: Sequence[Example]) -> Example | None:
    """Return the photograph that is at another path now: below another root it has the same id."""
    path = Path(photograph).as_posix()
    moved = [one for one in normals if path.endswith(f"/{one.id}")]
    return moved[0] if len(moved) == 1 else None
