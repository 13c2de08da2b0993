"""Files through S3 and Google Cloud Storage (`--share`): the real drivers, and servers that stand for the services.

moto answers as S3 does and gcp-storage-emulator as Google Cloud Storage, each over HTTP on this machine. Credentials,
real networks and what the services promise of consistency are not shown here.
"""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from object_stores import BUCKET, missing, serving
from two_nodes import assert_alike, flawsmith

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module", params=["s3", "gs"])
def storage(request: pytest.FixtureRequest, environment: dict[str, str]) -> Iterator[str]:
    """The address of a bucket."""
    if absent := missing(request.param):
        pytest.skip(f"{' and '.join(absent)} absent: `make test-ray` brings the extra `ray-tests`")
    with serving(request.param) as address:
        yield address


def test_files_go_there_and_come_back(storage: str, tmp_path: Path) -> None:
    from flawsmith.cluster.exchange import Storage
    from flawsmith.errors import RunError

    (tmp_path / "one").write_bytes(bytes(range(256)))
    there = Storage(f"{storage}/deep/er/")
    assert there.sizes("") == {} and there.sizes("a") == {}
    for name in ("a/1.png", "a/b/2.png", "ab/3.png"):
        there.put(name, tmp_path / "one")
    assert there.sizes("a") == {"a/1.png": 256, "a/b/2.png": 256} and there.sizes("a/1.png") == {"a/1.png": 256}
    there.get("a/b/2.png", tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == bytes(range(256))
    with pytest.raises(RunError, match="a/none.png cannot be exchanged"):
        there.get("a/none.png", tmp_path / "none")
    assert not (tmp_path / "none").exists()
    there.remove("a")
    there.remove("never")
    assert list(there.sizes("")) == ["ab/3.png"]


def test_a_worker_that_sees_the_store_alone_paints_the_same(storage: str, parts: Path, tmp_path: Path) -> None:
    """Without Ray: photographs, weights and records come out of the store, and pictures go back through it."""
    import flawsmith as fs
    from flawsmith.cluster.exchange import Exchange, Worker
    from flawsmith.config import load_config
    from flawsmith.synthesis.generate import generate

    photographs = shutil.copytree(parts, tmp_path / "photographs")
    settings = {"data.root": str(photographs), "data.shots": 5, "generator.name": "crop_paste", "generate.count": 3}
    settings |= {"generate.batch": 2, "generate.workers": 1, "measure.enabled": False, "prove.enabled": False}
    whole, run = (fs.Run.create(tmp_path / name, load_config(None, settings)) for name in ("whole", "run"))
    for one in (whole, run):
        fs.train(one)
    exchange = Exchange(f"{storage}/alone", "mark", run)
    worker = Worker(f"{storage}/alone", "mark")
    pieces: list[str] = []

    def spread(piece: Any, calls: Iterable[tuple[Any, ...]], *, network: bool) -> Iterator[tuple[int, Any]]:
        for number, call in enumerate(calls):
            exchange.offer(piece.__name__, call)
            photographs.rename(tmp_path / "elsewhere")
            returned, written = worker.done(run.folder, 1, piece, pickle.loads(pickle.dumps(call)))
            (tmp_path / "elsewhere").rename(photographs)
            assert written and not any((run.folder / name).exists() for name in written)
            exchange.take(written)
            pieces.append(piece.__name__)
            yield number, returned

    assert fs.generate(whole) and generate(run, spread=spread)
    assert set(pieces) == {"paint_batch"} and len(pieces) > 3
    assert_alike(whole.folder, run.folder)
    exchange.end()
    worker.end()
    assert all(name.startswith("photographs/") for name in exchange.storage.sizes(""))


def test_a_bucket_that_is_not_there_is_not_made(
    settings: dict[str, Any], environment: dict[str, str], storage: str, tmp_path: Path
) -> None:
    wrong = f"{storage}-misspelt"
    words = ("--on", "ray", "--share", f"{wrong}/runs")
    ended = flawsmith(settings, tmp_path / "run", *words, environment=environment)
    assert ended.returncode == 2, ended.stderr
    assert (
        f"no bucket '{BUCKET}-misspelt' can be reached; make it first" in ended.stderr
        and "Traceback" not in ended.stderr
    )
    import fsspec

    assert not fsspec.filesystem(storage.partition(":")[0]).exists(f"{BUCKET}-misspelt")
