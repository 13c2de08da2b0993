"""Machines without a shared folder: a run's files go through fsspec, here its storages in memory and in a folder."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from test_spread import run_with, same_files

import flawsmith as fs
from flawsmith.cluster.exchange import TRAFFIC, Exchange, Storage, Worker
from flawsmith.errors import ConfigError, RunError
from flawsmith.pipeline import run_all


class Elsewhere:
    """Does pieces in the folders of two workers, in turn; they see nothing but the storage."""

    def __init__(self, url: str, run: fs.Run) -> None:
        self.exchange, self.top = Exchange(url, "mark", run), run.folder.absolute()
        self.workers = [Worker(url, "mark") for _ in range(2)]
        self.handouts = 0

    def __call__(
        self, piece: Callable[..., Any], calls: Iterable[tuple[Any, ...]], *, network: bool
    ) -> Iterator[tuple[int, Any]]:
        self.handouts += 1
        for number, call in enumerate(calls):
            self.exchange.offer(piece.__name__, call)
            work, arguments = pickle.loads(pickle.dumps((piece, call)))
            returned, written = self.workers[number % 2].done(self.top, self.handouts, work, arguments)
            self.exchange.take(written)
            yield number, returned


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_run_through_storage_is_that_of_one_folder(
    where: str, factory_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "workers"))
    (tmp_path / "workers").mkdir()
    url = f"memory://{tmp_path.name}" if where == "memory" else f"file://{tmp_path}/storage"
    one, other = (run_with(tmp_path / name, factory_root, screened=False) for name in ("one", "other"))
    run_all(one, until="generate")
    elsewhere = Elsewhere(url, other)
    run_all(other, until="generate", spread=elsewhere)
    assert same_files(one.folder, other.folder) >= {"samples", "controls"}
    files, root = fsspec.core.url_to_fs(url)
    assert files.find(f"{root}/runs/mark") and files.find(f"{root}/photographs")
    assert not [path for worker in elsewhere.workers for path in worker.folder.rglob("*.png")]
    elsewhere.exchange.end()
    assert not files.exists(f"{root}/runs/mark") or not files.find(f"{root}/runs/mark")
    for worker in elsewhere.workers:
        worker.end()
        assert not worker.folder.exists()


def test_what_cannot_be_exchanged_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--share nowhere://x: cannot be reached"):
        Storage("nowhere://x")
    with pytest.raises(RunError, match="--share memory://x: runs/gone cannot be exchanged"):
        Storage("memory://x").get("runs/gone", tmp_path / "gone")


def test_every_piece_says_what_it_reads_and_writes() -> None:
    """What stages hand to `Spread` is named in TRAFFIC; found by its first argument and its docstring."""
    from flawsmith.evaluation import at_once
    from flawsmith.screening import screen
    from flawsmith.synthesis import train
    from flawsmith.synthesis.batches import workers

    pieces = {
        name
        for module in (train, workers, screen, at_once)
        for name, value in vars(module).items()
        if callable(value) and "a piece for `Spread`" in (value.__doc__ or "")
    }
    assert pieces == set(TRAFFIC)
