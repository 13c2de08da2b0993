"""Memory that runs out: told from other failures, and said in one sentence."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flawsmith.errors import RunError

_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that the memory of a card or of the host ran out."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The host's allocator, and Apple's, raise a RuntimeError.
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


@contextmanager
def memory_suffices(what: str, remedy: str) -> Iterator[None]:
    """Turn memory that runs out in the block into one sentence.

    Args:
        what: What was being done.
        remedy: What would be right.

    Raises:
        RunError: it ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
        raise RunError(f"{what}: the memory ran out; {remedy}") from None


def give_back() -> None:
    """Give a card's memory back that nothing holds any more, as after an error."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
