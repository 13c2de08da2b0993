"""Gradient checkpointing (Chen et al. 2016): a block keeps what enters it, and is computed again in the backward pass.

diffusers' networks do so block by block. What is added here: attention processors that are told something for the
length of a pass (a reference's tokens, the adapter of each row) are told it again when a block is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Protocol

from torch import nn
from torch.utils.checkpoint import checkpoint


class Told(Protocol):
    """What attention processors read while a pass is under way."""

    def resumed(self) -> Callable[[], AbstractContextManager[None]]:
        """Return what brings the state of this moment back for the length of a block, as often as it is called."""


def recompute(network: Any) -> None:
    """Let a diffusers network keep only what enters each of its blocks, wherever gradients are wanted."""

    def block(module: nn.Module, *given: Any, **named: Any) -> Any:
        owners = {id(owner): owner for owner in map(_owner_of, network.attn_processors.values()) if owner is not None}
        states = [owner.resumed() for owner in owners.values()]
        # Nothing here draws random numbers, so none have to be kept.
        return checkpoint(
            module,
            *given,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _all(states)),
            **named,
        )

    network.enable_gradient_checkpointing(block)


def _owner_of(processor: Any) -> Told | None:
    owner: Told | None = getattr(processor, "owner", None)
    return owner


@contextmanager
def _all(states: Sequence[Callable[[], AbstractContextManager[None]]]) -> Iterator[None]:
    with ExitStack() as stack:
        for state in states:
            stack.enter_context(state())
        yield
