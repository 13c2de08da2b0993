"""ASEA: a CSM's attention is moved onto the damage, for each reference, before its features are used.

Part of AnomalyControl-CSM (arXiv 2412.06510): a visual prompt is added to the image tokens and optimised for some
steps, with the CSM frozen, so that more of the queries' attention A lies on the mask M: (1 - sum(A M) / sum(A))^2.

    picture (B,3,H,W) RGB in [-1,1], words, mask (B,1,H,W) in {0,1}  ->  queries (B,Q,D), attention (B,g*g)

Ours, not the paper's: the mask is pooled by area and divided by its largest cell, so that a scratch much thinner than
a cell still pulls (nearest pixel, as in the code that the release borrows, may lose it altogether, and the loss is then
a constant); an empty mask leaves the tokens as they are; the feature after the *last* update (the release reads it
before; `parity` does so too).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from flawsmith.nn.methods.csm import CSM

_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class ASEA:
    """Settings of the test-time optimisation; the paper's values."""

    steps: int = 5
    """0 = off."""
    rate: float = 0.1
    """Adam's."""
    alpha: float = 1.0
    """Weight of the loss; Adam divides it out again, all but its epsilon."""
    parity: bool = False
    """True: the feature of the last forward pass before the last update, as the release's code has it."""


@dataclass(frozen=True, slots=True)
class Features:
    """What a CSM made of B references."""

    queries: Tensor
    """float32 (B,Q,D)."""
    attention: Tensor
    """float32 (B,g*g)."""
    before: Tensor
    """float32 (B,): share of the attention on the mask without ASEA; 0 for an empty mask."""
    after: Tensor
    """float32 (B,): the same for what is returned."""

    @property
    def vector(self) -> Tensor:
        """float32 (B,D): the mean over the queries."""
        return self.queries.mean(1)


def features(csm: CSM, image: Tensor, texts: Sequence[str], mask: Tensor, asea: ASEA) -> Features:
    """Read B references. Rows are optimised side by side and do not influence one another, save by rounding.

    Args:
        csm: A frozen CSM.
        image: float32 (B,3,H,W), RGB, [-1,1].
        texts: B phrases.
        mask: float32 (B,1,H,W), {0,1}; a row without damage is read without ASEA.
        asea: How the attention is moved.
    """
    device = csm.query.device
    with torch.no_grad():
        tokens, phrases = csm.tokens(image.to(device)), csm.phrases(texts)
        damage = pooled(mask.to(device), csm.grid)
        queries, attention = csm.query_picture(tokens, phrases)
        before = share(attention, damage)
    damaged = (damage.flatten(1).sum(1) > 0).float()
    if not asea.steps or not bool(damaged.any()):
        return Features(queries, attention, before, before)
    updates = asea.steps - 1 if asea.parity else asea.steps
    with torch.enable_grad():
        prompt = torch.zeros_like(tokens, requires_grad=True)
        optimiser = torch.optim.Adam([prompt], lr=asea.rate)
        for _ in range(updates):
            _, attention = csm.query_picture(tokens + prompt, phrases)
            # A row without damage has no gradient, and Adam leaves what has none where it is.
            loss = asea.alpha * (damaged * (1 - share(attention, damage)).square()).sum()
            prompt.grad = torch.autograd.grad(loss, prompt)[0]
            optimiser.step()
    with torch.no_grad():
        queries, attention = csm.query_picture(tokens + prompt, phrases)
        return Features(queries, attention, before, share(attention, damage))


def pooled(mask: Tensor, grid: int) -> Tensor:
    """Return float32 (B,g,g) in [0,1]: each cell's damaged area over that of the most damaged cell; 0 = no damage."""
    area = F.adaptive_avg_pool2d(mask.float(), grid)[:, 0]
    most = area.flatten(1).amax(1)[:, None, None]
    return area / torch.where(most > 0, most, torch.ones_like(most))


def share(attention: Tensor, damage: Tensor) -> Tensor:
    """Return float32 (B,): the share of the attention (B,g*g) that lies on a pooled mask (B,g,g)."""
    return (attention * damage.flatten(1)).flatten(1).sum(1) / attention.flatten(1).sum(1).clamp_min(1e-12)


class FeatureMemory:
    """Reads each reference once: kept in memory by the hash of picture, mask, words, settings and CSM.

    Each is read alone. Read in company it would differ in its last bits, and a run that goes on after a kill meets
    other company than one that was never killed.
    """

    def __init__(self, csm: CSM) -> None:
        self.csm = csm
        self._kept: dict[str, Tensor] = {}

    def vectors(self, image: Tensor, texts: Sequence[str], mask: Tensor, asea: ASEA) -> Tensor:
        """Return float32 (B,D) on the CPU; arguments as for `features`."""
        rows = []
        for number, text in enumerate(texts):
            one = slice(number, number + 1)
            key = hashlib.blake2b(f"{self.csm.fingerprint} {asea} {text} {tuple(image.shape)}".encode())
            for tensor in (image[one], mask[one]):
                key.update(tensor.detach().cpu().float().contiguous().numpy().tobytes())
            name = key.hexdigest()
            if name not in self._kept:
                if len(self._kept) >= _REMEMBERED:
                    self._kept.pop(next(iter(self._kept)))
                self._kept[name] = features(self.csm, image[one], [text], mask[one], asea).vector[0].cpu()
            rows.append(self._kept[name])
        return torch.stack(rows)


@lru_cache(maxsize=4)
def memory_of(csm: CSM) -> FeatureMemory:
    """Return the memory of a CSM: all generators of a process that read with it read each reference once."""
    return FeatureMemory(csm)
