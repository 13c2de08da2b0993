"""Machines without a shared folder: a run's files go through fsspec, here its storages in memory and in a folder."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
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


def test_a_photograph_that_was_cut_off_is_stored_again(factory_root: Path, tmp_path: Path) -> None:
    """As uploads in place left it: the name is there, the picture is not."""
    run = run_with(tmp_path / "run", factory_root, screened=False)
    run_all(run, until="train")
    exchange = Exchange(f"file://{tmp_path}/storage", "mark", run)
    exchange.offer("learn_one", (run,))
    photographs = tmp_path / "storage" / "photographs"
    stored = {path: path.read_bytes() for path in photographs.rglob("*") if path.is_file()}
    times = {path: path.stat().st_mtime_ns for path in stored}
    cut = sorted(stored)[0]
    cut.write_bytes(stored[cut][:100])
    Exchange(f"file://{tmp_path}/storage", "another", run).offer("learn_one", (run,))
    assert {path: path.read_bytes() for path in photographs.rglob("*") if path.is_file()} == stored
    assert {path for path, time in times.items() if path.stat().st_mtime_ns != time} == {cut}
    assert not list((tmp_path / "storage" / "parts").iterdir())


@pytest.mark.skipif(os.name != "posix", reason="limits of processes are POSIX's")
def test_an_upload_that_is_cut_off_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(bytes(50_000))
    code = "import resource, sys; from pathlib import Path; from flawsmith.cluster.exchange import Storage\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    code += "Storage(f'file://{sys.argv[1]}/storage').put('photographs/a/1.png', Path(sys.argv[1], 'picture'))"
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert "photographs/a/1.png cannot be exchanged" in ended.stderr
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]


def test_a_run_is_sent_whatever_the_folders_above_it_are_called(factory_root: Path, tmp_path: Path) -> None:
    run = run_with(tmp_path / "state" / "features" / "my.parts" / "run", factory_root, screened=False)
    run_all(run, until="train")
    for name in ("state/features/method/1.npz", "arms/a/state/features/1.npz", "arms/a/.x.part", "arms/a/scores.jsonl"):
        run.path(name).parent.mkdir(parents=True, exist_ok=True)
        run.path(name).write_bytes(b"x")
    exchange = Exchange(f"file://{tmp_path}/storage", "mark", run)
    exchange.offer("train_one", (run,))
    exchange.offer("paint_batch", (run,))
    mark = tmp_path / "storage" / "runs" / "mark"
    sent = {path.relative_to(mark).as_posix() for path in mark.rglob("*") if path.is_file()}
    assert sent >= {"config.json", "manifest.json", "data.json", "arms/a/scores.jsonl"}
    assert {name for name in sent if name.startswith("weights/")}
    assert {name for name in sent if name.startswith(("state/", "arms/"))} == {"arms/a/scores.jsonl"}


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
