"""How a stage hands out its pieces: to other machines where `flawsmith run --on` names some, else nobody is asked.

A piece is a function of a module, with arguments that can be pickled. It writes what it makes into the run's folder,
which all machines share, or returns it; done twice it gives the same bytes. The stage itself (its lock, its record, its
lines) stays with the process that was started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

from flawsmith.data.photographs import Photographs
from flawsmith.files import read_json, reading
from flawsmith.run.dataset import GROUPS, Dataset, load_split, row_identity
from flawsmith.run.folder import Run

Result = TypeVar("Result")


class Spread(Protocol):
    """Does pieces on whichever machine is free."""

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


def recorded_dataset(run: Run) -> Dataset:
    """Return the run's photographs as data.json names them; the folder is not scanned, and nothing is written.

    Raises:
        RunError: no stage has written data.json yet, or the photographs are not there.
    """
    path = run.path("data.json")
    made, tree = load_split(run), read_json(path)
    with reading(path):
        hashes = {row["id"]: row_identity(row) for name in GROUPS for row in tree[name]}
        return Dataset(made, Photographs(made.normals), hashes, str(tree["hash"]))
