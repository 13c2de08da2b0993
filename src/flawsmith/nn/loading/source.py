"""What stands where a backbone should, told from names, small JSON files and headers: torch is not needed.

    folder   diffusers' layout; each part holds plain weights or a variant of them (fp16), as safetensors or .bin
    cache    a hub's, models--OWNER--NAME, or a hub id that was fetched before: the snapshot in it is such a folder
    file     one .safetensors or .ckpt file in the layout of the first releases, see `original.py`

`locate` refuses what cannot be read and says what to write instead. `Backbone.load` and `flawsmith check` both ask it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from flawsmith.errors import BackboneError
from flawsmith.nn import builtin
from flawsmith.nn.loading.companions import folder_beside, no_words, schedule_of, words_of
from flawsmith.nn.loading.files import fetched, listed, read_json, snapshot_of
from flawsmith.nn.loading.original import recognise, shapes_in
from flawsmith.nn.loading.schedules import require_known
from flawsmith.paths import require_files

INDEX = "model_index.json"
PARTS = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
SECOND = ("text_encoder_2", "tokenizer_2")
"""What Stable Diffusion XL has beside PARTS."""
NETWORKS = ("vae", "unet", "text_encoder", "text_encoder_2")
"""Parts that hold weights; the others hold words and numbers."""
ONE_FILE = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
_WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model|pytorch_model)(?:\.(?P<variant>\w+))??(?:-\d+-of-\d+)?\.(?P<kind>safetensors|bin)"
)
_FAMILIES = {"text_time": SECOND}
"""A UNet's `addition_embed_type` -> the parts that its family has beside PARTS."""


@dataclass(frozen=True, slots=True)
class Source:
    """A backbone's place, found to be whole."""

    name: str
    """As the settings give it."""
    path: Path | None
    """A diffusers folder, or one file; None = the hub is asked for `name`."""

    @property
    def is_file(self) -> bool:
        """True: one file of weights in the original layout."""
        return self.path is not None and self.path.is_file()

    def weights(self) -> tuple[tuple[str, int, int], ...]:
        """Return (path, size, time of change) of every file of weights."""
        if self.path is None:
            return ()
        files = [self.path.resolve()] if self.is_file else sorted(self.path.resolve().glob("*/*"))
        stats = [(path, path.stat()) for path in files if path.suffix in ONE_FILE]
        return tuple((str(path), facts.st_size, facts.st_mtime_ns) for path, facts in stats)

    def texts(self) -> tuple[tuple[str, int, int], ...]:
        """Return (path, size, time of change) of every file that may say how the weights are to be used."""
        if self.path is None:
            return ()
        folder = self.path.resolve().parent if self.is_file else self.path.resolve()
        beside = folder_beside(self.path) if self.is_file else None
        folders = [folder, *([beside.resolve()] if beside is not None else [])]
        # Beside one file may lie all that its owner has; what counts of it lies in folders that are named.
        deep = [path for place in folders for part in (*PARTS, *SECOND) for path in place.glob(f"{part}/*")]
        near = [path for place in folders for path in place.glob("*") if path.suffix in (".json", ".yaml")]
        files = sorted({path for path in (*near, *deep) if path.suffix not in ONE_FILE and path.is_file()})
        stats = [(path, path.stat()) for path in files]
        return tuple((str(path), facts.st_size, facts.st_mtime_ns) for path, facts in stats)


def locate(source: str | Path, *, offline: bool) -> Source:
    """Find what a `backbone.source` names.

    Args:
        source: "builtin", a folder, a file, or a hub id.
        offline: True = a hub is never asked; what was fetched from it before is found.

    Raises:
        BackboneError: says what stands there, and what to write.
        ConfigError: a pipe or a device stands among the files.
    """
    name, path = str(source), Path(source)
    if name == "builtin":
        return Source(name, builtin.folder())
    require_files(path)
    if path.is_file():
        if path.suffix.lower() not in ONE_FILE:
            raise BackboneError(
                f"backbone.source: {name} is a file, but none of weights ({', '.join(ONE_FILE)}); "
                "name a diffusers folder or one file of weights"
            )
        if path.suffix.lower() == ".safetensors":  # the others are pickles, which are opened with torch alone
            shapes = shapes_in(path)
            schedule_of(path, recognise(shapes, path), shapes)
        if offline and words_of(path) is None:
            raise BackboneError(no_words(path))
        return Source(name, path)
    if not path.is_dir():
        if offline and _is_hub_id(name) and (snapshot := fetched(name)):
            return Source(name, _whole(snapshot))
        if offline:
            raise BackboneError(
                f"backbone.source: {name!r}: no such folder or file, and asking a hub is off; "
                'name a diffusers folder, one file of weights, "builtin", or set backbone.offline = false'
            )
        return Source(name, None)
    if not _is_diffusers(path):
        if snapshot := snapshot_of(path.parent if path.name == "snapshots" else path):
            return Source(name, _whole(snapshot))
        if inner := sorted(index.parent for index in path.glob(f"*/{INDEX}")):
            raise BackboneError(f"backbone.source: {name} is the folder above; write {listed(inner)}")
    return Source(name, _whole(path))


def parts_of(folder: Path) -> tuple[str, ...]:
    """Return the parts that a diffusers folder must have: those of its UNet's family, and those its index names."""
    index, added = read_json(folder / INDEX), read_json(folder / "unet" / "config.json").get("addition_embed_type")
    second = _FAMILIES.get(added, ()) if isinstance(added, str) else ()
    return (*PARTS, *(part for part in SECOND if part in second or any(index.get(part) or ())))


def weights_in(part: Path) -> tuple[str | None, str]:
    """Return which weights of a part are read: (variant, "safetensors" or "bin").

    Plain ones before a variant, safetensors before .bin, which is a pickle; the averaged weights before those that were
    not (`non_ema`).

    Raises:
        BackboneError: there are none.
    """
    names = [path.name for path in part.iterdir() if path.is_file()]
    kinds = {(match["variant"], match["kind"]) for name in names if (match := _WEIGHTS.fullmatch(name))}
    if not kinds:
        raise BackboneError(
            f"backbone.source: {part} holds no weights ({part.name}/*.safetensors or *.bin); "
            "copy the whole folder again"
        )
    order = {None: 0, "fp32": 1, "bf16": 2, "fp16": 3, "non_ema": 9}
    return min(kinds, key=lambda kind: (kind[1] == "bin", order.get(kind[0], 5), str(kind[0])))


def files_of(part: Path, variant: str | None, kind: str) -> list[Path]:
    """Return the files of the weights that `weights_in` chose."""
    named = ((path, _WEIGHTS.fullmatch(path.name)) for path in sorted(part.iterdir()))
    return [path for path, match in named if match and (match["variant"], match["kind"]) == (variant, kind)]


def _whole(folder: Path) -> Path:
    """Return a diffusers folder that lacks nothing that can be seen to be lacking."""
    missing = [part for part in parts_of(folder) if not (folder / part).is_dir()]
    if missing:
        files = sorted(path.name for path in folder.iterdir() if path.suffix in ONE_FILE)
        instead = f"; to read one file of weights, write {folder / files[0]}" if files else ""
        raise BackboneError(
            f"backbone.source: {folder} is no whole diffusers folder; {', '.join(missing)} is missing{instead}"
        )
    require_known(read_json(folder / "scheduler" / "scheduler_config.json"), str(folder / "scheduler"))
    for part in parts_of(folder):
        if part in NETWORKS:
            if not (folder / part / "config.json").is_file():
                raise BackboneError(
                    f"backbone.source: {folder / part} holds no config.json; copy the whole folder again"
                )
            _require_shards(files_of(folder / part, *weights_in(folder / part)))
    return folder


def _require_shards(files: list[Path]) -> None:
    """Refuse weights in several files of which one is not there."""
    numbers = [match for path in files if (match := re.search(r"-(\d+)-of-(\d+)\.", path.name))]
    present, totals = ({int(match[group]) for match in numbers} for group in (1, 2))
    if lacking := sorted(set(range(1, max(totals, default=0) + 1)) - present):
        raise BackboneError(
            f"backbone.source: {files[0].parent}: file {lacking[0]} of {max(totals)} of its weights is not there; "
            "copy the whole folder again"
        )


def _is_diffusers(folder: Path) -> bool:
    return (folder / INDEX).is_file() or (folder / "unet").is_dir()


def _is_hub_id(name: str) -> bool:
    """Say whether a text may be OWNER/NAME on a hub, and is no path."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None and Path(name).suffix not in ONE_FILE
