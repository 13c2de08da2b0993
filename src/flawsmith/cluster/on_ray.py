"""`flawsmith run --on ray`: the pieces of a run's stages as Ray tasks, with Ray's retries, resources and scheduling.

The process that was started keeps the run: it plans, records and collects. Its machine and all nodes share the run's
folder and the photographs, under the same paths. A task has one GPU to itself where the run computes on GPUs, and as
many processors as it has threads (OMP_NUM_THREADS, else 1), for the number of threads decides how networks round.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from flawsmith.cluster.exchange import Exchange, Worker
from flawsmith.errors import ConfigError, FlawsmithError, RunError
from flawsmith.files import write_text
from flawsmith.korean import spoken
from flawsmith.nn.device import pick_device
from flawsmith.run.folder import Run
from flawsmith.run.stage import Result, Spread

ATTEMPTS = 4
"""How often a piece is begun whose worker or node dies, before the run gives up."""
_LISTENS = 10.0
"""Seconds in which an address must answer."""


@dataclass(frozen=True, slots=True)
class Start:
    """What every node must have in common with the process that was started."""

    version: str
    folder: str
    """The run's folder, from the root."""
    mark: str
    """A file in it that is there as long as the run is at work: a node without it has another folder there."""
    working: str
    """The folder that relative paths of the configuration start from."""
    device: str
    """What backbone.device says."""
    kind: str
    """What that is where the run was started: cuda, mps or cpu."""
    threads: int
    plugins: str
    """FLAWSMITH_PLUGINS."""
    share: str = ""
    """Object storage through which files are exchanged; "" = all share the folder."""


@contextmanager
def on_ray(where: str, run: Run, share: str = "") -> Iterator[Spread]:
    """Give what hands a run's pieces to a Ray cluster.

    Args:
        where: "ray" = the cluster that RAY_ADDRESS names, else the one of this machine, else a new one on all of its
            cores; "ray://host:port" = the cluster with that address of Ray Client.
        run: The run.
        share: Object storage (an address of fsspec) through which machines without a shared folder exchange files.

    Raises:
        ConfigError: Ray is not installed, or there is no such cluster.
    """
    try:
        import ray
    except ImportError:
        raise ConfigError(f'--on {where}: Ray is not installed; pip install "flawsmith[ray]"') from None
    threads = _threads()
    kind = pick_device(run.config.backbone.device).type
    mark = run.path("state", f"on-ray-{uuid4().hex}")
    start = Start(
        version=version("flawsmith"),
        folder=str(run.folder.absolute()),
        mark=mark.name,
        working=os.getcwd(),
        device=run.config.backbone.device,
        kind=kind,
        threads=threads,
        plugins=os.environ.get("FLAWSMITH_PLUGINS", ""),
        share=share,
    )
    exchange = Exchange(share, mark.name, run) if share else None
    _connect(where)
    try:
        write_text(mark, "")
        yield _Tasks(start, exchange)
    finally:
        if exchange is not None:
            with suppress(RunError):
                exchange.end()
        with suppress(OSError):
            mark.unlink()
        ray.shutdown()


def _threads() -> int:
    text = os.environ.get("OMP_NUM_THREADS", "") or "1"
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"OMP_NUM_THREADS={text}: with --on it is the number of threads of each task, e.g. 1")
    return int(text)


def _connect(where: str) -> None:
    """Join the cluster that is asked for, or start one."""
    import ray

    # Nobody is told of the use of a cluster that is started here.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _require_reachable(where, os.environ.get("RAY_ADDRESS", "") if where == "ray" else where)
    on_main = threading.current_thread() is threading.main_thread()
    terminate = signal.getsignal(signal.SIGTERM) if on_main else None
    try:
        ray.init(
            address=where if where != "ray" else None,
            ignore_reinit_error=True,
            include_dashboard=None if where != "ray" or os.environ.get("RAY_ADDRESS") else False,
            log_to_driver=False,
            logging_level="warning",
        )
    except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise _no_cluster(where, why) from None
    finally:
        if on_main and terminate is not None:  # Ray takes SIGTERM over; here it means what Ctrl-C does
            signal.signal(signal.SIGTERM, terminate)


def _require_reachable(where: str, address: str) -> None:
    """Refuse an address where nobody listens: Ray would try for minutes."""
    host, colon, port = address.removeprefix("ray://").strip("/").rpartition(":")
    if not colon or not port.isdecimal():  # "auto", "local" or a name: Ray finds out by itself
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _LISTENS).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(where, f"{address}: {error}") from None


def _no_cluster(where: str, why: str) -> ConfigError:
    return ConfigError(
        f"--on {where}: no cluster can be joined there ({why}); `ray status` says what runs, and `ray start --head` "
        "starts one"
    )


class _Tasks:
    """Hands pieces out as tasks; at most two per place are under way, so a plan of millions is no queue of millions."""

    def __init__(self, start: Start, exchange: Exchange | None) -> None:
        self._start, self._exchange = start, exchange
        self._handouts = 0

    def __call__(
        self, piece: Callable[..., Result], calls: Iterable[tuple[Any, ...]], *, network: bool
    ) -> Iterator[tuple[int, Result]]:
        from ray.exceptions import RayTaskError, WorkerCrashedError

        import ray

        on_gpu = network and self._start.kind == "cuda"
        needs = {"CPU": float(self._start.threads), **({"GPU": 1.0} if on_gpu else {})}
        task = ray.remote(_done).options(
            name=f"flawsmith {piece.__name__}",
            num_cpus=self._start.threads,
            num_gpus=1 if on_gpu else 0,
            max_retries=ATTEMPTS - 1,
        )
        _say_when_none_fits(needs)
        self._handouts += 1
        numbered = enumerate(calls)
        pending: list[Any] = []
        numbers: dict[Any, int] = {}
        try:
            while True:
                while len(pending) < max(2, 2 * _places(needs)):
                    following = next(numbered, None)
                    if following is None:
                        break
                    number, arguments = following
                    if self._exchange is not None:
                        self._exchange.offer(piece.__name__, arguments)
                    reference = task.remote(self._start, self._handouts, network, piece, arguments)
                    pending.append(reference)
                    numbers[reference] = number
                if not pending:
                    return
                (ready,), pending = ray.wait(pending, num_returns=1)
                try:
                    returned, written = ray.get(ready)
                except RayTaskError as error:
                    cause = error.cause
                    if isinstance(cause, FlawsmithError):
                        raise type(cause)(str(cause)) from None
                    raise
                except (WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError) as error:
                    why = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
                    raise RunError(
                        f"{self._start.folder}: a task of {piece.__name__} was begun {ATTEMPTS} times and its worker "
                        f"died each time ({why}); Ray's log says more, and the same command goes on from here"
                    ) from None
                if self._exchange is not None:
                    self._exchange.take(written)
                yield numbers.pop(ready), returned
        finally:
            for reference in pending:
                with suppress(Exception):
                    ray.cancel(reference, force=True)


def _places(needs: dict[str, float]) -> int:
    """Return how many tasks of these needs the cluster can do at once."""
    import ray

    there = ray.cluster_resources()
    return int(min(there.get(name, 0.0) // number for name, number in needs.items()))


def _say_when_none_fits(needs: dict[str, float]) -> None:
    """Say on stderr what Ray would wait for in silence; a cluster that grows by itself may bring it."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0.0) >= number for name, number in needs.items()) for node in nodes):
        wanted = " and ".join(f"{number:g} {name}" for name, number in needs.items())
        sentence = f"no node of this Ray cluster has {wanted}; waiting for one"
        print(f"flawsmith: {spoken(sentence)}", file=sys.stderr)


_WORKERS: dict[str, Worker] = {}
"""This process's folder, by the mark of the run that it works for."""


def _done(
    start: Start, handout: int, network: bool, piece: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Any, list[str]]:
    """Do one piece, in a worker; return what it returned, and what it wrote where files are exchanged."""
    host = socket.gethostname()
    if start.version != (here := version("flawsmith")):
        raise ConfigError(
            f"{host} has flawsmith {here}, the run was started with {start.version}; install the same on all"
        )
    if not start.share and not Path(start.folder, "state", start.mark).exists():
        raise RunError(
            f"{start.folder}: {host} does not see the run's folder; all nodes must share it and the photographs, under "
            "the same paths, or exchange them with --share"
        )
    if start.plugins:
        os.environ["FLAWSMITH_PLUGINS"] = start.plugins
    with suppress(OSError):
        os.chdir(start.working)
    torch.set_num_threads(start.threads)
    if network and (kind := pick_device(start.device).type) != start.kind:
        raise ConfigError(
            f"{host} computes on {kind}, and the run was started on {start.kind}: pictures would differ; start it on a "
            "machine like the nodes, or set backbone.device"
        )
    if not start.share:
        return piece(*arguments), []
    if start.mark not in _WORKERS:
        _WORKERS[start.mark] = worker = Worker(start.share, start.mark)
        atexit.register(worker.end)
    return _WORKERS[start.mark].done(Path(start.folder), handout, piece, arguments)
