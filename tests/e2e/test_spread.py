"""Pieces of a run that are done elsewhere, in any order, make the same bytes; Ray itself is tested in tests/ray."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import flawsmith as fs
from flawsmith.cli import app
from flawsmith.config import load_config
from flawsmith.errors import ConfigError
from flawsmith.pipeline import run_all


class Pickled:
    """Does pieces here, the last first, from what a network connection would bring."""

    def __init__(self) -> None:
        self.pieces: list[str] = []

    def __call__(
        self, piece: Callable[..., Any], calls: Iterable[tuple[Any, ...]], *, network: bool
    ) -> Iterator[tuple[int, Any]]:
        for number, call in reversed(list(enumerate(calls))):
            self.pieces.append(piece.__name__)
            work, arguments = pickle.loads(pickle.dumps((piece, call)))
            yield number, pickle.loads(pickle.dumps(work(*arguments)))


def run_with(folder: Path, root: Path, *, screened: bool = True) -> fs.Run:
    """Return a run of two samples and a control, not begun."""
    settings = {
        "data.root": str(root),
        "data.product": "magnet",
        "data.shots": 1,
        "generator.name": "crop_paste",
        "generate.count": 2,
        "generate.batch": 1,
        "generate.controls": 0.5,
        "screen.enabled": screened,
        "screen.rounds": 0,
        "screen.normals": 2,
        "measure.enabled": False,
        "prove.enabled": False,
    }
    return fs.Run.create(folder, load_config(None, settings))


def same_files(one: Path, other: Path) -> set[str]:
    """Hold a run to have the files of another; return which kinds there are."""
    kinds = {"samples", "controls", "gate", "weights", "repaired"}
    names = [path.relative_to(one) for path in one.rglob("*") if path.is_file()]
    made = [name for name in names if name.parts[0] in kinds or name.suffix == ".jsonl" and name.name != "log.jsonl"]
    assert [str(name) for name in made if (one / name).read_bytes() != (other / name).read_bytes()] == []
    return {name.parts[0] for name in made}


def test_pieces_make_the_run_of_one_process(factory_root: Path, tmp_path: Path) -> None:
    one, other = (run_with(tmp_path / name, factory_root) for name in ("one", "other"))
    elsewhere = Pickled()
    run_all(one, until="screen")
    run_all(other, until="screen", spread=elsewhere)
    assert {"learn_one", "paint_batch", "fit_one", "look_at"} == set(elsewhere.pieces)
    assert same_files(one.folder, other.folder) >= {"samples", "controls", "gate", "scores.jsonl", "samples.jsonl"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--on", "dask"], "expected ray, or ray://host:port"),
        (["--on", "ray", "--shard", "0/2"], "leave --shard out"),
        (["--share", "s3://bucket"], "--share goes with --on"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: list[str], sentence: str, tmp_path: Path) -> None:
    config = tmp_path / "x.toml"
    config.write_text("")
    ended = CliRunner().invoke(app, ["run", str(config), "--out", str(tmp_path / "run"), *options])
    assert isinstance(ended.exception, ConfigError) and sentence in str(ended.exception)
    assert not (tmp_path / "run").exists()
