"""The only training loop: a generator that yields a Step, and can be killed and resumed at any moment.

Everything random in step i comes from a generator seeded by (seed, i), and a checkpoint holds weights, optimiser
moments and past losses; so resumed = uninterrupted, byte for byte, on one machine with one number of threads.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from flawsmith.errors import RunError
from flawsmith.nn.processes import Processes
from flawsmith.nn.weights import StoredTensors, save_tensors


@dataclass(frozen=True, slots=True)
class SplitLoss:
    """The loss of a batch that a card has no room for at once: its gradient is added up from that of its parts."""

    rows: int
    """B: samples of the whole batch."""
    parts: Iterator[Tensor]
    """Yields the loss of each sample of one part, float32, when the part before it has been dealt with."""


LossOf = Callable[[int, torch.Generator], Tensor | SplitLoss]
"""(step, rng) -> loss of each sample, float32 (B,), or in parts; every random number comes from rng."""


@dataclass(frozen=True, slots=True)
class Step:
    """One finished training step."""

    index: int
    """From 0."""
    loss: float
    seconds: float
    saved: bool
    """True: a checkpoint of this step is on disk."""


class LossScale:
    """What a loss is multiplied by, so that small gradients are not lost in float16 (Micikevicius et al. 2018).

    A power of two: halved when a gradient is no finite number, whose step is left out, and doubled after 2000 steps
    without one, as torch's GradScaler does it; that one cannot divide gradients whose step another device takes.
    """

    _START, _LEAST, _PATIENCE = 2.0**16, 2.0**-10, 2000

    def __init__(self, enabled: bool) -> None:
        self.value = self._START if enabled else 1.0
        self.quiet = 0
        """Steps since it was last changed."""
        self._enabled = enabled

    def lowered(self) -> bool:
        """Halve it; False = it cannot help: gradients are no numbers at any scale, or float16 is not in use."""
        if not self._enabled or self.value <= self._LEAST:
            return False
        self.value, self.quiet = self.value / 2, 0
        return True

    def went_well(self) -> None:
        """Count a step; after enough of them, double it."""
        self.quiet += 1
        if self._enabled and self.quiet == self._PATIENCE:
            self.value, self.quiet = self.value * 2, 0


class Trainer:
    """Train named networks with AdamW (Loshchilov & Hutter 2019): warm-up, cosine, gradient norm 1, averaged weights.

    Args:
        modules: What is trained; float32. Only parameters that require a gradient are touched.
        loss_of: The loss of a step.
        steps: How many.
        learning_rate: The peak; reached after a 20th of the steps, then a cosine down to a tenth.
        weight_decay: AdamW's.
        seed: From which every step's randomness follows.
        average: Decay of the exponential moving average that is left in the networks at the end; 0 = the last weights.
        autocast: bfloat16 or float16 = compute in it where torch's autocast deems it safe; None = float32.
        state: Checkpoint file; None = none.
        save_every: Steps between checkpoints.
        identity: Text that must agree between a checkpoint and this training, else the checkpoint is refused.
        name: What is trained, for an error.
        optimiser_on_host: Keep AdamW's moments and the average in the host's memory and take its steps there.
        average_on_host: Keep the average there.
        processes: Those that train together, each on its rows of a batch; the first writes checkpoints.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        loss_of: LossOf,
        *,
        steps: int,
        learning_rate: float,
        weight_decay: float = 1e-2,
        seed: int = 0,
        average: float = 0.0,
        autocast: torch.dtype | None = None,
        state: Path | None = None,
        save_every: int = 100,
        identity: str = "",
        name: str = "training",
        optimiser_on_host: bool = False,
        average_on_host: bool = False,
        processes: Processes | None = None,
    ) -> None:
        self.losses: list[float] = []
        self._loss_of, self._steps, self._seed, self._average = loss_of, steps, seed, average
        self._state, self._save_every, self._identity = state, save_every, identity
        self._name, self._processes = name, processes
        self._writes = processes is None or processes.first
        self._named = {
            f"{name}.{key}": parameter
            for name, module in modules.items()
            for key, parameter in module.named_parameters()
            if parameter.requires_grad
        }
        if not self._named:
            raise ValueError("nothing to train: no parameter requires a gradient")
        self._modules = list(modules.values())
        parameters = list(self._named.values())
        self._device = parameters[0].device
        self._autocast = autocast if autocast in (torch.bfloat16, torch.float16) else None
        self._scale = LossScale(self._autocast == torch.float16)
        # What the optimiser changes: the weights themselves, or copies that the weights then follow.
        self._stepped: dict[str, Tensor] = dict(self._named)
        if optimiser_on_host:
            self._stepped = {name: _copied(p, "cpu").requires_grad_() for name, p in self._named.items()}
        stepped = list(self._stepped.values())
        # torch's fused kernel goes through memory once and needs no more of it; its plain ones a dozen times, and on a
        # card they take as much again as the weights. On the processor the plain one is kept: its bytes are known.
        fused = True if optimiser_on_host or self._device.type == "cuda" else None
        self._optimiser = torch.optim.AdamW(stepped, lr=learning_rate, weight_decay=weight_decay, fused=fused)
        self._scheduler = torch.optim.lr_scheduler.LambdaLR(self._optimiser, lambda step: _rate(step, steps))
        where = torch.device("cpu") if average_on_host or optimiser_on_host else self._device
        self._shadow = {name: _copied(p, where) for name, p in self._named.items()} if average else {}

    def run(self) -> Iterator[Step]:
        """Train from the last checkpoint on; yield after each step. At the end the averaged weights are in place.

        Raises:
            RunError: a loss is no finite number, or a gradient (in float16: at any scale of the loss), or the
                checkpoint is damaged. A checkpoint is never written after such a step.
        """
        first = self._resume()
        for module in self._modules:
            module.train()
        for index in range(first, self._steps):
            begun = time.perf_counter()
            loss = self._step(index)
            self.losses.append(loss)
            saved = self._state is not None and ((index + 1) % self._save_every == 0 or index + 1 == self._steps)
            if saved and self._writes:
                self._save(index + 1)
            yield Step(index, loss, time.perf_counter() - begun, saved)
        for module in self._modules:
            module.eval()
        with torch.no_grad():
            for name, value in self._shadow.items():
                self._named[name].copy_(value)
        for parameter in self._named.values():
            parameter.grad = None  # as large as the weights, and would lie there while pictures are painted

    def _step(self, index: int) -> float:
        rng = torch.Generator().manual_seed((self._seed * 1_000_003 + index * 7_368_787) % (2**63 - 1))
        for parameter in self._named.values():
            parameter.grad = None
        loss = 0.0
        for part in self._parts(index, rng):
            if not torch.isfinite(part):
                raise self._diverged(index, f"loss {part.item()}")
            (part * self._scale.value).backward()
            loss += float(part.detach())
        if self._processes is not None:
            loss = self._processes.add((weight.grad for weight in self._named.values()), loss)
        norm = self._clip()
        if torch.isfinite(norm):
            self._update()
            self._scale.went_well()
        elif not self._scale.lowered():  # the step would make every weight no number
            raise self._diverged(index, f"gradient {norm.item()}")
        with warnings.catch_warnings():  # torch warns when the rate moves before any step was taken
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self._scheduler.step()
        if self._shadow:
            # diffusers' EMAModel has decay 0 in the first step and rounds otherwise: the bytes would be others.
            # Early on a long memory would keep the random start alive: the decay grows into its value.
            decay = min(self._average, (1 + index) / (10 + index))
            with torch.no_grad():
                self._follow(1 - decay)
        return loss

    def _parts(self, index: int, rng: torch.Generator) -> Iterator[Tensor]:
        """Yield the parts of which the step's mean loss is the sum, each with its graph."""
        # A weight is used once in a pass: keeping its copy in half precision for the whole of it only takes room.
        half = self._autocast or torch.bfloat16
        compute = partial(
            torch.autocast, self._device.type, half, enabled=self._autocast is not None, cache_enabled=False
        )
        with compute():
            loss = self._loss_of(index, rng)
            whole = loss.mean() if isinstance(loss, Tensor) else None
        if isinstance(loss, Tensor):
            assert whole is not None
            yield whole
            return
        while True:
            with compute():
                part = next(loss.parts, None)
                share = None if part is None else part.sum() / loss.rows
            del part
            if share is None:
                return
            yield share

    def _clip(self) -> Tensor:
        """Take the loss's scale out of the gradients and limit their norm to 1; return what it was."""
        weights = list(self._named.values())
        if self._scale.value != 1:
            torch._foreach_div_([weight.grad for weight in weights if weight.grad is not None], self._scale.value)
        return nn.utils.clip_grad_norm_(weights, 1.0)

    def _update(self) -> None:
        """Take the optimiser's step with the gradients that the weights have."""
        for name, weight in self._named.items():
            if (leaf := self._stepped[name]) is not weight:
                leaf.grad = None if weight.grad is None else weight.grad.to(leaf.device)
                weight.grad = None
        self._optimiser.step()
        with torch.no_grad():
            for name, weight in self._named.items():
                if (leaf := self._stepped[name]) is not weight:
                    leaf.grad = None
                    weight.copy_(leaf)

    def _follow(self, share: float) -> None:
        """Move the average by a share of its distance to the weights."""
        averages, weights = list(self._shadow.values()), list(self._stepped.values())
        if averages[0].device == weights[0].device:
            # One call for all: on a GPU, hundreds of calls of a few microseconds each would be a tenth of a step.
            torch._foreach_lerp_(averages, weights, share)
            return
        for average, weight in zip(averages, weights, strict=True):
            average.lerp_(weight.to(average.device), share)

    def _diverged(self, index: int, what: str) -> RunError:
        return RunError(f"{self._name} diverged at step {index} ({what}); lower train.learning_rate")

    def _save(self, done: int) -> None:
        assert self._state is not None
        tensors: dict[str, Tensor] = {"losses": torch.tensor(self.losses, dtype=torch.float64)}
        for name, parameter in self._named.items():
            tensors[f"weight/{name}"] = parameter
            moments = self._optimiser.state.get(self._stepped[name])
            if not moments:
                continue  # no gradient has ever reached it
            tensors |= {f"first/{name}": moments["exp_avg"], f"second/{name}": moments["exp_avg_sq"]}
            if int(moments["step"]) != done:
                tensors[f"count/{name}"] = moments["step"]
        tensors |= {f"average/{name}": value for name, value in self._shadow.items()}
        notes = {"done": str(done), "identity": self._identity}
        if self._autocast == torch.float16:
            notes |= {"scale": str(self._scale.value), "quiet": str(self._scale.quiet)}
        save_tensors(self._state, tensors, notes)

    def _resume(self) -> int:
        if self._state is None or not self._state.exists():
            return 0
        tensors = StoredTensors(self._state)
        if tensors.notes.get("identity", "") != self._identity or f"weight/{next(iter(self._named))}" not in tensors:
            return 0  # it is of another training: this one begins anew and overwrites it
        try:
            done = int(tensors.notes["done"])
            self._fill(tensors, done)
            if "scale" in tensors.notes:
                self._scale.value, self._scale.quiet = float(tensors.notes["scale"]), int(tensors.notes["quiet"])
        except (KeyError, RuntimeError, ValueError) as error:
            why = str(error).splitlines()[0]
            raise RunError(f"{self._state}: does not fit this training ({why}); delete it and train again") from None
        self.losses = tensors["losses"].tolist()
        self._scheduler.last_epoch = done
        for group, base in zip(self._optimiser.param_groups, self._scheduler.base_lrs, strict=True):
            group["lr"] = base * _rate(done, self._steps)
        return done

    @torch.no_grad()
    def _fill(self, tensors: Mapping[str, Tensor], done: int) -> None:
        for name, value in tensors.items():
            if not torch.isfinite(value).all():
                raise ValueError(f"{name} holds values that are no numbers")
        fused = bool(self._optimiser.param_groups[0]["fused"])
        for name, parameter in self._named.items():
            leaf = self._stepped[name]
            parameter.copy_(tensors[f"weight/{name}"])
            if leaf is not parameter:
                leaf.copy_(parameter)
            if f"first/{name}" in tensors:
                count = tensors[f"count/{name}"].clone() if f"count/{name}" in tensors else torch.tensor(float(done))
                self._optimiser.state[leaf] = {
                    "step": count.to(leaf.device if fused else "cpu"),  # where the kernel wants it
                    "exp_avg": torch.empty_like(leaf).copy_(tensors[f"first/{name}"]),
                    "exp_avg_sq": torch.empty_like(leaf).copy_(tensors[f"second/{name}"]),
                }
            if self._shadow:
                self._shadow[name].copy_(tensors[f"average/{name}"])


def _copied(parameter: Tensor, device: str | torch.device) -> Tensor:
    """Return a parameter's values apart from it, in its memory layout."""
    return parameter.detach().to(device, copy=True)


def _rate(step: int, steps: int) -> float:
    """Return the share of the peak learning rate; diffusers' cosine ends at zero, this one at a tenth."""
    warm = max(1, steps // 20)
    if step < warm:
        return (step + 1) / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))
