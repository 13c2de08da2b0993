"""The protocol of a stage, written once: what it depends on, whether it is done, what follows from it, and the log.

    with stage(run, "measure", inputs, outputs=[path]) as work:
        if work.done:
            return path
        ...
        work.what = "100 samples"

A stage is done when it was finished with the same inputs and its outputs are still there. When it has to be done again,
what later stages recorded is taken back first. A killed stage, or one that raises, is not finished.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from flawsmith.config import Config, affecting, differing
from flawsmith.files import digest
from flawsmith.run.folder import Run
from flawsmith.run.progress import working

FOLLOWS: dict[str, tuple[str, ...]] = {
    "train": (),
    "generate": ("screen", "measure", "prove", "export", "report"),
    "screen": ("measure", "prove", "export", "report"),
    "measure": ("report",),
    "prove": ("report",),
    "export": (),
    "report": (),
}
"""The stages, and those whose record is taken back when one is done again. What `train` changes, `generate` notices by
its inputs."""


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a stage depends on: its settings, and the content that it reads."""

    settings: Mapping[str, Any]
    """{dotted name: JSON value} of every setting that affects the stage."""
    defaults: Mapping[str, Any]
    """The same with every setting at its default."""
    content: Mapping[str, Any]
    """{what: hash} of pictures, weights and earlier stages, JSON values."""

    @classmethod
    def of(cls, config: Config, output: str, **content: Any) -> Inputs:
        """Return the inputs of an output of the configuration; see `config.Affects`."""
        return cls(affecting(config, output), affecting(Config(), output), content)

    def changes(self, record: Mapping[str, Any]) -> list[str]:
        """Return what differs from the inputs that a stage's record holds; [] = nothing.

        A setting that came with a later version counts only when its value is not its default, so a finished stage
        stays finished.
        """
        before = record.get("inputs") or {}
        content: Mapping[str, Any] = before.get("content") or {}
        differs = [name for name, value in self.content.items() if content.get(name) != value]
        return differing(before.get("settings") or {}, self.settings, self.defaults) + differs


@dataclass(slots=True)
class Work:
    """A stage while it is done."""

    stamp: str
    """Identifies what it makes: equal inputs, equal stamp."""
    done: bool
    """It was finished with these inputs, and its outputs are there: nothing is to do."""
    what: str = ""
    """For the log: what was done, in a few words."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What later stages want to know; kept in manifest.json."""
    finished: bool = True
    """False: leave it unfinished (a shard whose neighbours still work)."""


class Spread(Protocol):
    """Does pieces of a stage on whichever machine is free, where `flawsmith run --on` names some.

    A piece is a function of a module, with arguments that can be pickled. It writes what it makes into the run's
    folder, which all machines share, or returns it; done twice it gives the same bytes. The stage itself (its lock, its
    record, its lines) stays with the process that was started.
    """

    def __call__(
        self, piece: Callable[..., Result], calls: Iterable[tuple[Any, ...]], *, network: bool
    ) -> Iterator[tuple[int, Result]]:
        """Yield the number of each call and what it returned, as they come; a call whose machine dies is done again.

        Args:
            piece: What is called.
            calls: Its arguments, one tuple per call; taken one after another, as machines become free.
            network: Whether it runs a network: then it gets a GPU of its own where the run computes on GPUs.

        Raises:
            FlawsmithError: what a call raised; no more are begun.
        """


def stamp_of(run: Run, name: str, inputs: Inputs) -> str:
    """Return what identifies a stage's result: the stamp it was begun with while its inputs stay, else a new one."""
    record = run.record(name)
    if record.get("inputs") is not None and not inputs.changes(record):
        return str(record["hash"])
    return digest(dict(inputs.settings), dict(inputs.content))


def is_done(run: Run, name: str, inputs: Inputs, outputs: Iterable[Path] = ()) -> bool:
    """Return whether a stage was finished with these inputs and its outputs are there."""
    record = run.record(name)
    return "finished" in record and not inputs.changes(record) and all(path.exists() for path in outputs)


@contextmanager
def stage(
    run: Run,
    name: str,
    inputs: Inputs,
    *,
    outputs: Iterable[Path] = (),
    there: Callable[[], bool] = lambda: True,
    shard: str = "",
    patience: float = 0.0,
) -> Iterator[Work]:
    """Do a stage unless it is done; see the module's text.

    Args:
        run: The run.
        name: One of FOLLOWS.
        inputs: What it depends on.
        outputs: Files and folders that it makes.
        there: Tells False when something that only the stage itself can know of is missing, so that it is not done.
        shard: Name of the part that this process does, beside others; "" = all of it.
        patience: How many seconds to wait for another process.

    Raises:
        BusyError: another process is at this stage.
    """
    with run.alone(name, shard, patience=patience):
        yield from _worked(run, name, inputs, tuple(outputs), there)


def _worked(
    run: Run, name: str, inputs: Inputs, paths: tuple[Path, ...], there: Callable[[], bool]
) -> Generator[Work, None, None]:
    work = Work(stamp_of(run, name, inputs), is_done(run, name, inputs, paths) and there())
    if work.done:
        yield work
        return
    why = _why_again(run, name, inputs, paths)
    # A stage that is only asked for again, such as a report, says so when it is done.
    run.forget(*([name] if why else []), *FOLLOWS[name], why=why or f"{name} is done again")
    plain = {"settings": dict(inputs.settings), "content": dict(inputs.content)}
    run.begin(name, work.stamp, plain)
    begun = time.monotonic()
    with working(name):
        yield work
    run.log(stage=name, seconds=round(time.monotonic() - begun, 1), what=work.what)
    if work.finished:
        run.finish(name, work.stamp, plain, **work.facts)


def _why_again(run: Run, name: str, inputs: Inputs, outputs: Iterable[Path]) -> str:
    """Return why a finished stage has to be done again, for the log; "" = it is not finished, or nobody can tell."""
    record = run.record(name)
    if "finished" not in record:
        return ""
    if changed := inputs.changes(record):
        return f"{', '.join(changed)} changed"
    gone = [path.relative_to(run.folder).as_posix() for path in outputs if not path.exists()]
    return f"{', '.join(gone)} missing" if gone else ""
