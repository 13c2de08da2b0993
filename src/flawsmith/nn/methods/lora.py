"""Low-rank changes of linear layers (LoRA, Hu et al. 2022), several of them in one batch, each row with its own.

A frozen weight W becomes `W + up @ down` for every named adapter. `Rows` says which adapter each row of a batch takes;
rows that follow one another with the same adapter share one matrix product, so a batch of two adapters costs two small
products whatever its size, and no Python loop runs over rows or adapters.

On disk an adapter is two tensors, `<layer>.<adapter>.down` (rank, in) and `<layer>.<adapter>.up` (out, rank), so that
one file holds adapters of many defect types and products under names that can be read.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flawsmith.nn.text import TextEncoder

_TEXT_LAYERS = ("q_proj", "k_proj", "v_proj", "out_proj")
"""Linear layers of a CLIP text encoder's attention."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Which adapter each row of a batch takes, as the shortest list of runs of equal length."""

    runs: tuple[int, ...]
    """An adapter's number for each run; a batch of N rows has N / len(runs) rows a run."""

    @classmethod
    def of(cls, adapters: Sequence[int]) -> Rows:
        """Return the runs of a list with an adapter a row.

        >>> Rows.of([0, 0, 0, 1, 1, 1]).runs
        (0, 1)
        >>> Rows.of([0, 1, 1]).runs
        (0, 1, 1)
        """
        count = len(adapters)
        for length in range(count, 0, -1):
            if count % length == 0:
                starts = range(0, count, length)
                if all(len(set(adapters[start : start + length])) == 1 for start in starts):
                    return cls(tuple(adapters[start] for start in starts))
        return cls(())

    def take(self, stack: Tensor) -> Tensor:
        """Return the rows of a stack (adapters, ...) a run: (runs, ...); a view where that is possible."""
        first, count = self.runs[0], len(self.runs)
        if self.runs == tuple(range(first, first + count)):
            return stack[first : first + count]
        return stack[torch.tensor(self.runs, device=stack.device)]

    def grouped(self, x: Tensor) -> Tensor:
        """Return (B,T,D) as (runs, B/runs*T, D)."""
        return x.reshape(len(self.runs), -1, x.shape[-1])


class LowRank(nn.Module):
    """The adapters of one linear layer. At first they change nothing.

    Args:
        inside: Width of the input.
        outside: Width of the output.
        rank: Rank of each change; cut to the narrower of the two widths.
        names: The adapters; their order is their number in `Rows`.
    """

    def __init__(self, inside: int, outside: int, rank: int, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        rank = min(rank, inside, outside)
        self.down = nn.Parameter(torch.randn(len(self.names), rank, inside) / rank)
        self.up = nn.Parameter(torch.zeros(len(self.names), outside, rank))

    def forward(self, x: Tensor, rows: Rows) -> Tensor:
        """Return what the adapters add, (B,T,out) in x's precision, for x (B,T,in)."""
        down, up = (rows.take(part).to(x.dtype).mT for part in (self.down, self.up))
        return torch.bmm(torch.bmm(rows.grouped(x), down), up).reshape(*x.shape[:-1], -1)

    def merged(self, weight: Tensor) -> Tensor:
        """Return (adapters, out, in) in the adapters' precision: the frozen weight (out, in) with each one in it."""
        return weight.to(self.up.dtype) + self.up @ self.down

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        for row, name in enumerate(self.names):
            for part in ("down", "up"):
                value = getattr(self, part)
                destination[f"{prefix}{name}.{part}"] = (value if keep_vars else value.detach())[row]

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        known = {f"{prefix}{name}.{part}" for name in self.names for part in ("down", "up")}
        missing_keys += sorted(known - set(state_dict))
        if strict:
            unexpected_keys += [key for key in state_dict if key.startswith(prefix) and key not in known]
        with torch.no_grad():
            for row, name in enumerate(self.names):
                for part in ("down", "up"):
                    if (value := state_dict.get(f"{prefix}{name}.{part}")) is not None:
                        getattr(self, part)[row].copy_(value)


class AdaptedLinear(nn.Module):
    """A frozen linear layer with one adapter, for every row of a batch."""

    def __init__(self, base: nn.Linear, change: LowRank) -> None:
        super().__init__()
        self.base = base
        # In a tuple, so that the encoder does not count the adapter among its own weights.
        self._change = (change,)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(1, -1, x.shape[-1])
        change = self._change[0](flat, Rows((0,))).reshape(*x.shape[:-1], -1)
        return self.base(x) + change


def adapted_text(encoder: TextEncoder, rank: int, name: str = "shared") -> tuple[TextEncoder, nn.ModuleDict]:
    """Return a text encoder on the same parameter storage with low-rank changes in its attention, and the changes.

    Args:
        encoder: A backbone's; it is left as it is.
        rank: Rank of each change.
        name: What the adapter is called on disk.
    """
    models, changes = [], nn.ModuleDict()
    for (part, _, _), model in zip(encoder.parts, encoder.models, strict=True):
        adapted, own = adapted_words(model, rank, name)
        models.append(adapted)
        first = part == encoder.parts[0][0]
        changes.update({layer if first else f"{part}_{layer}": change for layer, change in own.items()})
    return encoder.with_models(models), changes


def adapted_words(encoder: Any, rank: int, name: str = "shared") -> tuple[Any, nn.ModuleDict]:
    """Return one CLIP text encoder on the same parameter storage with adapters in its attention, and the adapters.

    Args:
        encoder: A transformers CLIPTextModel, with projection or without; it is left as it is.
        rank: Rank of each change.
        name: What the adapter is called on disk.
    """
    shared = {id(tensor): tensor for tensor in (*encoder.parameters(), *encoder.buffers())}
    adapted = copy.deepcopy(encoder, memo=shared)
    changes = nn.ModuleDict()
    for path, module in list(adapted.named_modules()):
        parent, _, leaf = path.rpartition(".")
        if leaf in _TEXT_LAYERS and isinstance(module, nn.Linear):
            changes[path.replace(".", "_")] = change = LowRank(module.in_features, module.out_features, rank, [name])
            setattr(adapted.get_submodule(parent), leaf, AdaptedLinear(module, change))
    return adapted, changes
