"""Machines that share no folder exchange a run's files through object storage, by fsspec: s3, gcs, abfs, file, memory.

    URL/photographs/<hash of the data>/...   what data.json names, once
    URL/runs/<mark>/...                      what pieces read, and what they wrote; the run takes it over
    URL/parts/...                            what is on its way, where the storage would show it half written

The process that was started has the run in a folder of its own, and puts what a piece reads into the storage. A worker
fetches that into a folder of its own, does the piece there, and puts what the piece wrote into the storage, from where
the run takes it over. At the end URL/runs/<mark> goes.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

from flawsmith.errors import ConfigError, FlawsmithError, RunError
from flawsmith.files import file_state, read_json, reading, whole_file, write_bytes
from flawsmith.locks import locked
from flawsmith.paths import confined
from flawsmith.run.dataset import GROUPS
from flawsmith.run.folder import Run
from flawsmith.run.records import Sample


@dataclass(frozen=True, slots=True)
class Traffic:
    """Which files and folders of a run a piece reads and writes."""

    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


ALWAYS = ("config.json", "manifest.json", "data.json")
_LINES = ("samples.jsonl", "controls.jsonl", "scores.jsonl", "review.jsonl", "rounds.json")
TRAFFIC = {
    "learn_one": Traffic(writes=("weights", "state")),
    "paint_batch": Traffic(reads=("weights", "state/at_once.json"), writes=("samples", "controls")),
    "fit_one": Traffic(),
    "look_at": Traffic(writes=("repaired",)),  # and it reads the samples that it is told of
    "train_one": Traffic((*_LINES, "samples", "controls", "repaired", "reviewed", "arms"), ("state/prove",)),
}
"""By the piece's name. A piece that is not here has to share a folder."""
_AT_ONCE = 8
"""Files that are on their way side by side."""
_STAYS = (".lock", ".part"), ("backbone.json", "views.safetensors", "checkpoint.safetensors"), "/state/features/"
"""How files end that nobody else needs, their names, and their folder."""
_IN_PLACE = {"file", "local", "sftp", "ssh", "smb", "hdfs", "arrow_hdfs"}
"""Storages of fsspec in which a file is there before it is whole, and may be renamed."""


class Storage:
    """A folder that fsspec reaches.

    Args:
        url: As `s3://bucket/flawsmith`.

    Raises:
        ConfigError: it is no address, what reaches it is not installed, or it names a bucket that does not exist.
        RunError: the storage does not answer, or not to these credentials.
    """

    def __init__(self, url: str) -> None:
        try:
            import fsspec

            self._files, root = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise ConfigError(f"--share {url}: cannot be reached ({error})") from None
        self.url, self._root = url, root.rstrip("/")
        self._folders: set[str] = set()
        known_as = self._files.protocol
        self._in_place = not _IN_PLACE.isdisjoint([known_as] if isinstance(known_as, str) else known_as)
        bucket = self._root.partition("/")[0]  # "" where names begin at a root, as those of files do
        with self._saying(bucket):
            exists = not bucket or self._files.exists(bucket)
        if not exists:  # to make a folder in it would make a bucket of a misspelt name
            raise ConfigError(
                f"--share {url}: no bucket {bucket!r} can be reached; make it first, or correct its name, the store's "
                "address or the credentials"
            )

    def put(self, name: str, path: Path) -> None:
        """Store a file under a name; whole or not at all where the storage is an object store or can rename."""
        with self._saying(name):
            if not self._in_place:
                self._files.pipe_file(self._place(name), path.read_bytes())
                return
            target, part = self._place(name), self._place(f"parts/{uuid4().hex}")
            try:
                self._files.pipe_file(part, path.read_bytes())
                try:
                    self._files.mv(part, target)
                except OSError:  # some do not rename to a name that is taken
                    self._files.rm_file(target)
                    self._files.mv(part, target)
            except BaseException:
                with suppress(Exception):
                    self._files.rm_file(part)
                raise

    def get(self, name: str, path: Path) -> None:
        """Fetch a file."""
        with self._saying(name):
            write_bytes(path, self._files.cat_file(f"{self._root}/{name}"))

    def put_all(self, files: Iterable[tuple[str, Path]]) -> None:
        """Store files under their names, several at a time: a store in the network takes long to answer."""
        _side_by_side(self.put, files)

    def get_all(self, files: Iterable[tuple[str, Path]]) -> None:
        """Fetch files, several at a time."""
        _side_by_side(self.get, files)

    def sizes(self, below: str) -> dict[str, int | None]:
        """Return the size of each file at or below a name, by its name from the storage's root; None = unknown."""
        with self._saying(below):
            self._files.invalidate_cache()
            root = self._files._strip_protocol(self._root)
            files = self._files.find(f"{self._root}/{below}", detail=True)
            return {str(path).removeprefix(root).lstrip("/"): facts.get("size") for path, facts in files.items()}

    def remove(self, below: str) -> None:
        """Delete all files below a name."""
        with self._saying(below):
            if self._files.exists(f"{self._root}/{below}"):
                self._files.rm(f"{self._root}/{below}", recursive=True)

    def _place(self, name: str) -> str:
        """Return the path of a file that is about to be written; its folder is there."""
        target = f"{self._root}/{name}"
        if (folder := target.rpartition("/")[0]) not in self._folders:  # an object store is asked for each
            self._files.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        return target

    @contextmanager
    def _saying(self, name: str) -> Iterator[None]:
        try:
            yield
        except FlawsmithError:
            raise
        except Exception as error:  # each driver has errors of its own: of the network, of credentials
            why = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise RunError(
                f"--share {self.url}: {name} cannot be exchanged ({why}); the same command goes on"
            ) from None


def _side_by_side(move: Callable[[str, Path], None], files: Iterable[tuple[str, Path]]) -> None:
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        for _ in pool.map(lambda file: move(*file), files):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


class Exchange:
    """The side of the process that was started.

    Args:
        url: The storage.
        mark: Names this process's part of it.
        run: The run.
    """

    def __init__(self, url: str, mark: str, run: Run) -> None:
        self.storage, self.url, self.mark, self._top = Storage(url), url, mark, run.folder.absolute()
        self._stored: dict[str, list[int]] = {}
        self._last = ""
        self._photographs: set[tuple[Path, tuple[int, ...]]] = set()
        """Runs whose photographs are stored, with the state of their data.json, which is long in a large set."""

    def offer(self, piece: str, arguments: tuple[Any, ...]) -> None:
        """Put into the storage what a call of a piece reads, as far as it is not there yet; the run comes first.

        Raises:
            ConfigError: nobody knows what the piece reads.
        """
        if piece not in TRAFFIC:
            raise ConfigError(f"--share: {piece} is no piece of flawsmith's, so it needs a shared folder")
        run: Run = arguments[0]
        self._offer_photographs(run)
        folder = self._top / _below(self._top, run)
        key = f"{piece} {folder}"
        if key != self._last:  # what a piece reads stays while its calls are handed out
            self._last = key
            for name in (*ALWAYS, *TRAFFIC[piece].reads):
                self._store(_files(folder / name))
        self._store(confined(folder, name) for name in _named(arguments))

    def take(self, names: Iterable[str]) -> None:
        """Fetch what a worker wrote."""
        paths = {name: confined(self._top, name) for name in names}
        self.storage.get_all((f"runs/{self.mark}/{name}", path) for name, path in paths.items())
        self._stored |= {name: file_state(path) for name, path in paths.items()}

    def end(self) -> None:
        """Delete what was exchanged; the photographs stay for the next run."""
        self.storage.remove(f"runs/{self.mark}")

    def _store(self, paths: Iterable[Path]) -> None:
        named = {path.relative_to(self._top).as_posix(): path for path in paths}
        states = {name: file_state(path) for name, path in named.items()}
        changed = {name: state for name, state in states.items() if self._stored.get(name) != state}
        self.storage.put_all((f"runs/{self.mark}/{name}", named[name]) for name in changed)
        self._stored |= changed

    def _offer_photographs(self, run: Run) -> None:
        known = run.folder, tuple(file_state(run.path("data.json")))
        if known in self._photographs:
            return
        stamp, root, names = _photographs(run)
        there = self.storage.sizes(f"photographs/{stamp}")
        files = ((f"photographs/{stamp}/{name}", root / name) for name in names)
        # One that is shorter was left by an upload that was cut off; a size that is unknown is taken on trust.
        self.storage.put_all(
            (stored, path)
            for stored, path in files
            if stored not in there or there[stored] not in (None, *file_state(path)[:1])
        )
        self._photographs.add(known)


class Worker:
    """The side of a worker: a folder in which pieces are done.

    Args:
        url: The storage.
        mark: As the process that was started names its part of it.
    """

    def __init__(self, url: str, mark: str) -> None:
        self._storage, self._mark = Storage(url), mark
        self.folder = Path(tempfile.mkdtemp(prefix=f"flawsmith-{os.getpid()}-"))
        self._handout = -1
        self._runs: dict[PurePosixPath, Run] = {}

    def done(
        self, top: Path, handout: int, piece: Callable[..., Any], arguments: tuple[Any, ...]
    ) -> tuple[Any, list[str]]:
        """Do a piece here; return what it returned, and the names of the files that it wrote, which are stored.

        Args:
            top: The run's folder where the run was started.
            handout: Counts how often pieces were handed out; while they are, what they read stays.
            piece: The piece.
            arguments: Its arguments; runs among them are exchanged for those of this folder.
        """
        traffic = TRAFFIC[piece.__name__]
        prefix = _below(top, arguments[0])
        if handout != self._handout:
            self._handout = handout
            self._runs.clear()
            for name in (*ALWAYS, *traffic.reads):
                self._fetch(prefix, name)
        self._fetch_samples(prefix, arguments)
        returned = piece(*[self._run(top, argument) for argument in arguments])
        paths = [path for name in traffic.writes for path in _files(self.folder / prefix / name)]
        written = {path.relative_to(self.folder).as_posix(): path for path in paths}
        self._storage.put_all((f"runs/{self._mark}/{name}", path) for name, path in written.items())
        for path in paths:  # whoever reads it fetches it
            path.unlink()
        return returned, list(written)

    def end(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fetch(self, prefix: PurePosixPath, name: str) -> None:
        ours = f"runs/{self._mark}/"
        names = self._storage.sizes(f"{ours}{(prefix / name).as_posix()}")
        files = ((stored, confined(self.folder, stored.removeprefix(ours))) for stored in names)
        # Records change while a run is at work.
        self._storage.get_all(
            (stored, path) for stored, path in files if path.suffix in (".json", ".jsonl") or not path.exists()
        )

    def _fetch_samples(self, prefix: PurePosixPath, arguments: tuple[Any, ...]) -> None:
        names = [(prefix / name).as_posix() for name in _named(arguments)]
        files = ((f"runs/{self._mark}/{name}", confined(self.folder, name)) for name in names)
        self._storage.get_all((stored, path) for stored, path in files if not path.exists())

    def _run(self, top: Path, argument: Any) -> Any:
        """Return a run of this folder in the place of one of `top`; anything else as it is."""
        if isinstance(argument, dict):
            return {name: self._run(top, value) for name, value in argument.items()}
        if not isinstance(argument, Run):
            return argument
        if (prefix := _below(top, argument)) not in self._runs:
            self._runs[prefix] = self._opened(self.folder / prefix, argument)
        return self._runs[prefix]

    def _opened(self, folder: Path, argument: Run) -> Run:
        """Return the run that was fetched into a folder, on photographs that are fetched too."""
        stamp, _, names = _photographs(replace(argument, folder=folder))
        root = Path(tempfile.gettempdir(), f"flawsmith-photographs-{stamp}")
        with locked(root.with_suffix(".lock")):  # once for all workers of a machine
            files = ((f"photographs/{stamp}/{name}", confined(root, name)) for name in names)
            self._storage.get_all((stored, path) for stored, path in files if not path.exists())
        data = argument.config.data.model_copy(update={"root": root})
        return Run(folder, argument.config.model_copy(update={"data": data}))


def _below(top: Path, run: Run) -> PurePosixPath:
    """Return where a run lies below the one that was started: rivals of a proof have folders in it."""
    return PurePosixPath(run.folder.absolute().relative_to(top).as_posix())


def _named(arguments: tuple[Any, ...]) -> list[str]:
    """Return the names of the files of samples among a call's arguments."""
    samples = [one for given in arguments if isinstance(given, list) for one in given if isinstance(one, Sample)]
    return [name for one in samples for name in (one.image, one.mask)]


def _files(place: Path) -> list[Path]:
    """Return the files at or below a place that others may need."""
    files = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    ends, names, folder = _STAYS

    def stays(path: Path) -> bool:
        below = f"/{path.relative_to(place.parent).as_posix()}"  # folders above the run may have any name
        return path.name.endswith(ends) or path.name in names or folder in below

    return [path for path in files if not stays(path)]


def _photographs(run: Run) -> tuple[str, Path, list[str]]:
    """Return what identifies the photographs, the folder that data.json names them in, and their names below it."""
    path = run.path("data.json")
    tree = read_json(path)
    with reading(path):
        root = Path(tree["root"])
        files = [file for group in GROUPS for row in tree[group] for file in (row["image"], *row["masks"])]
        names = {whole_file(Path(file)).relative_to(root).as_posix() for file in files}
        return str(tree["hash"]), root, sorted(names)
