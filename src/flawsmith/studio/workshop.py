"""Long work in a process of its own, so that the page never freezes: jobs, their states, and what a killed worker is.

A job waits, runs, and ends as done, failed, cancelled or lost. It is lost when the worker process died under it
(killed, out of memory); the page is told so, and another worker is started for the next job.
"""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from flawsmith.errors import FlawsmithError
from flawsmith.studio.workspace import Workspace

State = Literal["waiting", "running", "done", "failed", "cancelled", "lost"]
_FINISHED = ("done", "failed", "cancelled", "lost")
GRACE = 5.0
"""Seconds that a cancelled job has to end by itself before its worker is ended."""
_REMEMBERED = 30
"""Jobs that are over and still known."""
_LOOK = 0.05
"""Seconds between two looks at the worker."""
MOST_WAITING = 20


@dataclass
class Job:
    """One piece of work, as the page sees it."""

    number: int
    task: str
    arguments: Mapping[str, Any] = field(repr=False)
    state: State = "waiting"
    sofar: dict[str, Any] = field(default_factory=dict)
    """What is done so far; of a job that is done, its result."""
    problem: str = ""
    """Why it failed or was lost, in a sentence."""

    def to_json(self) -> dict[str, Any]:
        """Return what the page is told."""
        return {"job": self.number, "state": self.state, "result": self.sofar, "problem": self.problem}


class Workshop:
    """A worker process and the jobs that wait for it; one job is done at a time.

    Args:
        workspace: What is open; each worker gets it.
        folder: Where candidates are left.
        lasting: False: the worker ends when nothing waits, and gives its memory back.
    """

    _numbers = itertools.count(1)

    def __init__(self, workspace: Workspace, folder: Path, *, lasting: bool = True) -> None:
        self.started = 0
        """How many workers there were; more than 1 = some died."""
        self._workspace, self._folder, self._lasting = workspace, folder, lasting
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._waiting: deque[Job] = deque()
        self._change = threading.Condition()
        self._closed = False
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._work, name="studio-workshop", daemon=True)
        self._thread.start()

    def ask(self, task: str, **arguments: Any) -> Job:
        """Put a job at the end of the queue.

        Raises:
            FlawsmithError: too many wait already.
        """
        with self._change:
            if len(self._waiting) >= MOST_WAITING:
                raise FlawsmithError(f"{MOST_WAITING} jobs wait already; let one end, or cancel one")
            job = Job(next(self._numbers), task, arguments)
            self._jobs[job.number] = job
            for number in [number for number, one in self._jobs.items() if one.state in _FINISHED][:-_REMEMBERED]:
                del self._jobs[number]
            for running in self._jobs.values():
                if running.task == "warm" and running.state == "running":
                    running.state = "cancelled"  # whoever asks for something waits for no preparations
            self._waiting.append(job)
            self._change.notify_all()
        return job

    def job(self, number: int) -> Job | None:
        """Return a job by its number; None = there is none, or it is forgotten."""
        return self._jobs.get(number)

    def cancel(self, number: int) -> None:
        """Take a job back; one that runs ends soon, or its worker is ended."""
        with self._change:
            job = self._jobs.get(number)
            if job is None or job.state in _FINISHED:
                return
            if job in self._waiting:
                self._waiting.remove(job)
            job.state = "cancelled"
            self._change.notify_all()

    @property
    def worker(self) -> int | None:
        """Return the worker's process id; None = none runs."""
        process = self._process
        return process.pid if process and process.is_alive() else None

    def close(self) -> None:
        """End the worker; nothing is left running."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._thread.join(timeout=10)
        self._end()

    def _work(self) -> None:
        while True:
            with self._change:
                while not self._waiting and not self._closed:
                    if not self._lasting and self._process is not None:
                        self._end()
                    self._change.wait(timeout=1)
                if self._closed:
                    return
                job = self._waiting.popleft()
                job.state = "running"
            try:
                self._do(job)
            except Exception as error:  # this thread must live as long as the studio
                self._lose(job, f"the worker cannot be used ({type(error).__name__}: {error}); try again")

    def _do(self, job: Job) -> None:
        if self._process is None or not self._process.is_alive():
            self._end()
            self._begin()
        assert self._connection is not None and self._process is not None
        self._connection.send(("do", job.number, job.task, dict(job.arguments)))
        job.arguments = {}  # a mask may be long, and the job is remembered for a while
        cancelled: float | None = None
        while True:
            try:
                if self._connection.poll(_LOOK):
                    number, state, answer = self._connection.recv()
                    if number == job.number and self._heard(job, state, answer):
                        return
                    continue
            except (EOFError, OSError):
                self._lose(job, _why_lost(self._process))
                return
            if job.state == "cancelled" or self._closed:
                if cancelled is None:
                    cancelled = time.monotonic()
                    self._connection.send(("stop", job.number, "", {}))
                late = time.monotonic() - cancelled > GRACE and job.task != "warm"  # what it learns is wanted anyway
                if self._closed or late:
                    self._end()
                    return

    def _heard(self, job: Job, state: str, answer: Any) -> bool:
        """Note what the worker says; return whether the job is over."""
        if state == "sofar":
            job.sofar = answer
            return False
        with self._change:
            if job.state != "cancelled":
                job.state = "done" if state == "done" else "failed"
                if state == "done":
                    job.sofar = answer
                else:
                    job.problem = str(answer)
        return True

    def _lose(self, job: Job, why: str) -> None:
        self._end()
        with self._change:
            if job.state != "cancelled":
                job.state, job.problem = "lost", why

    def _begin(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, workers_end = context.Pipe()
        arguments = workers_end, self._workspace, self._folder, list(sys.path)
        process = context.Process(target=_worker, args=arguments, name="flawsmith-studio-worker", daemon=True)
        process.start()
        self._process = process
        workers_end.close()
        self.started += 1

    def _end(self) -> None:
        process, connection, self._process, self._connection = self._process, self._connection, None, None
        if connection is not None:
            connection.close()
        if process is not None:
            if process.is_alive():
                process.kill()
            process.join(timeout=10)


def _why_lost(process: BaseProcess) -> str:
    process.join(timeout=5)
    ended = how_it_ended(process.exitcode)
    return f"the worker {ended} during this job; another one takes its place, so start the job again"


def how_it_ended(code: int | None) -> str:
    """Return how a process ended, in words, by its exit code; below 0 = killed by that signal."""
    if code is None or code >= 0:
        return f"ended with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"was killed ({name}{', perhaps for want of memory' if name == 'SIGKILL' else ''})"


def _worker(connection: Connection, workspace: Workspace, folder: Path, path: list[str]) -> None:
    """Do jobs until the studio ends; this is the worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the studio ends its workers
    sys.path[:] = path
    from flawsmith.studio.tasks import Bench, Errand

    bench = Bench(workspace, folder)
    while True:
        try:
            order, number, task, arguments = connection.recv()
        except (EOFError, OSError):
            return  # the studio is gone
        if order == "stop":
            continue  # of a job that was over before the word came

        def tell(answer: dict[str, Any], number: int = number) -> None:
            connection.send((number, "sofar", answer))

        def stopped(number: int = number) -> bool:
            while connection.poll():
                order, of, _, _ = connection.recv()
                if order == "stop" and of == number:
                    return True
            return False

        try:
            answer = getattr(bench, task)(Errand(number, tell, stopped), **arguments)
            reply: tuple[int, str, Any] = (number, "done", answer)
        except FlawsmithError as error:
            reply = (number, "failed", str(error))
        except MemoryError:
            reply = (number, "failed", "there is not enough memory for this picture")
        except Exception as error:  # a fault of flawsmith's: the page says it, the worker goes on
            reply = (number, "failed", f"this failed unexpectedly ({type(error).__name__}: {error})")
        with suppress(OSError):  # where the studio is gone, the next `recv` ends this
            connection.send(reply)
