"""A network's training, kept on disk between its epochs: a killed one goes on, on the CPU to the same bytes.

Kept are the weights, the running statistics of batch norm, Adam's moments, the learning rate and the state of the
random generator. `nn.trainer` has its own checkpoints, of steps: there every step's randomness follows from its number.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from flawsmith.errors import RunError
from flawsmith.files import digest
from flawsmith.nn.weights import StoredTensors, save_tensors

SECONDS = 60.0
"""Least seconds between two writes: a U-Net's state takes 340 MB, and some epochs are over in a moment."""
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of each weight."""


class TrainingState:
    """Keeps a training in a file.

    Args:
        path: The file; None = nothing is kept.
        network: What is trained, with its first weights.
        optimizer: Its Adam, which has taken no step yet, over all of its parameters in their order.
        schedule: Of the learning rate; one step per epoch.
        rng: All randomness that is left.
        identity: Must agree between a file and this training, else the file is of another and this one begins anew.
    """

    def __init__(
        self,
        path: Path | None,
        network: nn.Module,
        optimizer: torch.optim.Adam,
        schedule: torch.optim.lr_scheduler.MultiStepLR,
        rng: torch.Generator,
        identity: str,
    ) -> None:
        self._path, self._network, self._optimizer, self._schedule = path, network, optimizer, schedule
        self._rng, self._identity = rng, identity
        self._written = time.monotonic()

    def resume(self) -> int:
        """Put everything where the file says it stood; return how many epochs are done, 0 = there is no such file.

        Raises:
            RunError: the file is damaged.
        """
        if self._path is None or not self._path.is_file():
            return 0
        stored = StoredTensors(self._path)
        if stored.notes.get("identity") != self._identity:
            return 0
        try:
            done = int(stored.notes["done"])
            rate = float.fromhex(stored.notes["rate"])
            self._fill(stored)
        except (KeyError, ValueError, RuntimeError) as error:
            why = str(error).splitlines()[0]
            raise RunError(f"{self._path}: does not fit this training ({why}); delete it and train again") from None
        self._schedule.last_epoch = done
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return done

    @torch.no_grad()
    def _fill(self, stored: StoredTensors) -> None:
        for name, value in self._network.state_dict().items():  # these are the network's own, and copying keeps layout
            value.copy_(stored[f"network/{name}"])
        for name, parameter in self._network.named_parameters():
            # Of the fused kernel, the count of steps lies where the weight does.
            self._optimizer.state[parameter] = {
                "step": stored[f"step/{name}"].to(parameter.device),
                **{key: torch.empty_like(parameter).copy_(stored[f"{key}/{name}"]) for key in _MOMENTS[1:]},
            }
        self._rng.set_state(stored["rng"])

    def keep(self, done: int, *, last: bool) -> None:
        """Write the file after an epoch, if it is the last one, or the last write was some time ago."""
        if self._path is None or not last and time.monotonic() - self._written < SECONDS:
            return
        (group,) = self._optimizer.param_groups
        notes = {"done": str(done), "identity": self._identity, "rate": float(group["lr"]).hex()}
        save_tensors(self._path, dict(self._tensors()), notes)
        self._written = time.monotonic()

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for name, value in self._network.state_dict().items():
            yield f"network/{name}", value
        for name, parameter in self._network.named_parameters():
            for key in _MOMENTS:
                yield f"{key}/{name}", self._optimizer.state[parameter][key]
        yield "rng", self._rng.get_state()


def identity_of(rng: torch.Generator, *plan: object) -> str:
    """Return what tells a training from others.

    Args:
        rng: As it was given, before anything is drawn.
        plan: All else that decides the result, as values that JSON takes.
    """
    return digest(hashlib.sha256(rng.get_state().numpy().tobytes()).hexdigest(), *plan)
