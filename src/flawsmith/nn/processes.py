"""Several processes that train one model together, a card each, as torchrun or `accelerate launch` starts them.

All of them draw the same batch with the same random numbers; each works on its own rows, and the gradients are added
up. So they learn what one process learns with that batch, but for the order in which a sum rounds.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from flawsmith.errors import ConfigError

_PATIENCE = timedelta(days=1)
"""How long one waits for another: the first encodes the shots alone, and nobody may give up meanwhile."""


class Processes:
    """The processes of one training, as accelerate knows them.

    Args:
        device: What backbone.device says.

    Raises:
        ConfigError: a card is named that all would take.
    """

    def __init__(self, device: str) -> None:
        # An optimizer imports it at its first step. Imported after the group of processes was made it keeps that group
        # for good: its threads outlive `end`, and now and then one of them ends the interpreter by SIGABRT.
        from accelerate import PartialState
        from torch import _dynamo  # noqa: F401

        if ":" in device:
            raise ConfigError(f'backbone.device = "{device}": each process takes a card of its own; write "cuda"')
        on_cpu = device == "cpu" or not torch.cuda.is_available()
        self._state = PartialState(cpu=on_cpu, timeout=_PATIENCE)
        self.number: int = self._state.process_index
        self.count: int = self._state.num_processes

    @classmethod
    def started(cls, device: str) -> Processes | None:
        """Return the processes that a launcher started together with this one; None = it is alone."""
        count = os.environ.get("WORLD_SIZE", "")
        return cls(device) if count.isdecimal() and int(count) > 1 else None

    @property
    def first(self) -> bool:
        """Whether this one writes what is learned."""
        return self.number == 0

    def rows(self, batch: int) -> Tensor:
        """Return which rows of a batch are this process's: int64, as many as the others' but for one.

        Raises:
            ConfigError: some process would have none.
        """
        if batch < self.count:
            raise ConfigError(f"train.batch: {batch} windows cannot be shared by {self.count} processes; take more")
        return torch.arange(batch).tensor_split(self.count)[self.number]

    def add(self, gradients: Iterable[Tensor | None], loss: float) -> float:
        """Put the sum over all processes in the place of each gradient, and return that of their losses."""
        from accelerate.utils import reduce

        for gradient in gradients:
            if gradient is not None:  # where no gradient reaches a weight, none does in any process
                gradient.copy_(reduce(gradient, reduction="sum"))
        return float(reduce(torch.tensor(loss, device=self._state.device), reduction="sum"))

    def from_first(self, value: Any) -> Any:
        """Return what the first process gives here; all of them must ask."""
        from accelerate.utils import broadcast_object_list

        (given,) = broadcast_object_list([value])
        return given

    def first_before_others(self) -> AbstractContextManager[None]:
        """Return a block that the first process is through before the others begin it: they read what it wrote."""
        block: AbstractContextManager[None] = self._state.main_process_first()
        return block

    def end(self) -> None:
        """Take leave of the others, when all is done."""
        self._state.destroy_process_group()
