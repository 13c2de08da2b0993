"""The network of DualAnoDiff (CVPR 2025): one frozen UNet that predicts whole picture and damage alone together.

It binds the parts: low-rank changes and SAIM of each attention layer (`branches.py`, `saim.py`), BCM's background
(`bcm.py`), low-rank changes of the text encoder (`lora.py`). An inpainting UNet is fed with the mask everywhere and a
grey picture, since everything is to be made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import Predict, Sampler, denoise
from flawsmith.nn.methods.bcm import Hidden, noised_anew, noised_once
from flawsmith.nn.methods.branches import Branches, Pass
from flawsmith.nn.methods.lora import Rows, adapted_text
from flawsmith.nn.text import Text


class DualUNet:
    """Two branches on a fork of a backbone. Rows of a batch: the whole pictures first, then the damages alone.

    Args:
        backbone: The frozen model; it is left as it is.
        pairs: Names of the pairs of adapters.
        rank: Of each branch's low-rank changes.
        text_rank: Of the text encoder's; 0 = it stays frozen.
        saim: Width within SAIM, 0 = the layer's own; None = no SAIM.
        zero_start: True: SAIM exchanges nothing at first.
        bcm: "off", "paper" (latents without the autoencoder's scale, new noise in every row and at every step) or
            "scaled" (ours: scaled latents, a start above zero, one noise).
    """

    def __init__(
        self,
        backbone: Backbone,
        pairs: Sequence[str],
        *,
        rank: int,
        text_rank: int,
        saim: int | None,
        zero_start: bool,
        bcm: Literal["off", "scaled", "paper"],
    ) -> None:
        self.backbone, self.bcm, self._pair_count = backbone.fork(), bcm, len(pairs)
        self.branches = Branches(
            self.backbone.unet,
            [f"{name}/{branch}" for name in pairs for branch in ("whole", "alone")],
            rank=rank,
            saim=saim,
            zero_start=zero_start,
            bcm={"off": None, "paper": 0.0, "scaled": 0.1}[bcm],
        ).to(backbone.device)
        self.text_changes: nn.ModuleDict | None = None
        if text_rank:
            self.backbone.text_encoder, self.text_changes = adapted_text(backbone.text_encoder, text_rank)
            self.text_changes.to(backbone.device)
        self._greys: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def trainable(self) -> dict[str, nn.Module]:
        """Return what is trained, by the names of its files."""
        others = {"exchange": self.branches.saims, "background": self.branches.bcms, "words": self.text_changes}
        parts: dict[str, nn.Module] = {"adapters": self.branches.changes}
        return parts | {name: part for name, part in others.items() if part is not None and len(part)}

    def read(self, tokens: Tensor) -> Text:
        """Return the text of token rows int64 (B,2,N), one per branch: 2B rows, those of the whole pictures first."""
        return self.backbone.read(tokens.transpose(0, 1).flatten(0, 1))

    def predict(
        self,
        noisy: Tensor,
        t: Tensor,
        text: Text,
        pair: Sequence[int],
        *,
        background: Hidden | None = None,
        kept: dict[str, tuple[Tensor, Tensor]] | None = None,
        folded: bool = False,
        guidance: float = 1.0,
    ) -> Tensor:
        """Return the UNet's raw output float32 (2B,C,h,w).

        Args:
            noisy: Noisy latents (2B,C,h,w).
            t: int64 (2B,).
            text: 2B rows.
            pair: The number of the pair of adapters of each of the B requests.
            background: What `hidden_of` returned for the B backgrounds.
            kept: Keys and values of the text, filled by the first call and reused by those after it.
            folded: True: with the weights that `Branches.fold` prepared; no gradients.
            guidance: Weight of the text, for a UNet that reads it.
        """
        rows = Rows.of([2 * number for number in pair] + [2 * number + 1 for number in pair])
        now = Pass(rows, background=background, text=kept)
        return self._run(noisy, t, text, now, folded=folded, guidance=guidance)

    def hidden_of(
        self, noisy: Tensor, t: Tensor, text: Text, pair: Sequence[int], *, folded: bool = False
    ) -> dict[str, Tensor]:
        """Return what enters each self-attention when the first branch runs on noisy backgrounds (B,C,h,w)."""
        kept: dict[str, Tensor] = {}
        now = Pass(Rows.of([2 * number for number in pair]), saim=False, keep=kept)
        self._run(noisy, t, text, now, folded=folded)
        return kept

    def predictor(
        self,
        tokens: Tensor,
        pair: list[int],
        latent: Tensor,
        seeds: Sequence[int],
        against: str | None,
        *,
        guidance: float,
    ) -> Predict:
        """Return the network for sampling, over latent pairs (B,2C,h,w), with text and background bound.

        Args:
            tokens: int64 (B,2,N), the prompts of both branches.
            pair: The pair of adapters of each request.
            latent: float32 (B,C,h,w), the photographs, for BCM.
            seeds: One per request.
            against: With guidance, what it leads away from; None = dropped text.
            guidance: Weight of the text; where it is not the network's own, batches come doubled, the half of `against`
                first, unless it is 1.
        """
        if self.backbone.free_guidance(guidance) != 1.0:
            led_away = self.backbone.tokens([against]).expand_as(tokens)
            pair, tokens = pair * 2, torch.cat([led_away, tokens])
        text = self.read(tokens)
        self.branches.fold(self.backbone.dtype, merge=self._pair_count == 1)
        kept = dict[str, tuple[Tensor, Tensor]]()
        background = self._background_at(latent, text[: len(pair)], tokens[:, 0], pair, seeds)

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            hidden = None if background is None else background(t)
            noisy, twice = torch.cat(latent.chunk(2, dim=1)), torch.cat([t, t])
            how: dict[str, Any] = {"background": hidden, "kept": kept, "folded": True, "guidance": guidance}
            prediction = self.predict(noisy, twice, text, pair, **how)
            return torch.cat(prediction.chunk(2), dim=1)

        return predict

    def denoised(
        self,
        predict: Predict,
        seeds: Sequence[int],
        shape: Sequence[int],
        *,
        start: Tensor | None,
        strength: float,
        steps: int,
        sampler: Sampler,
    ) -> tuple[Tensor, Tensor]:
        """Return the clean latents of whole pictures and damages alone, each float32 of `shape` (B,C,h,w)."""
        _, channels, *sides = shape
        latent = denoise(
            predict,
            self.backbone.noise,
            seeds,
            (2 * channels, *sides),
            steps=steps,
            sampler=sampler,
            start=start,
            strength=1.0 if start is None else strength,
            device=self.backbone.device,
        )
        whole, alone = latent.chunk(2, dim=1)
        return whole, alone

    @torch.no_grad()
    def grey(self, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return mid-grey of a window's (height, width) as latent (1,C,h,w), and decoded again (1,3,H,W)."""
        key = tuple(size)
        if key not in self._greys:
            with torch.autocast(self.backbone.device.type, enabled=False):
                latent = self.backbone.encode(torch.zeros(1, 3, *key))
                self._greys[key] = latent, self.backbone.decode(latent)
        return self._greys[key]

    def bcm_latent(self, latent: Tensor) -> Tensor:
        """Return the latent that BCM's pass starts from; the authors' code leaves out the autoencoder's scale."""
        scale = float(self.backbone.vae.config.scaling_factor)
        return latent / scale if self.bcm == "paper" else latent

    def _background_at(
        self, latent: Tensor, text: Text, tokens: Tensor, pair: list[int], seeds: Sequence[int]
    ) -> Callable[[Tensor], Hidden] | None:
        """Return what gives BCM's hidden states at a timestep; `text` and `pair` are a guided batch's."""
        if self.bcm == "off":
            return None
        run, noise, shown = partial(self.hidden_of, folded=True), self.backbone.noise, self.bcm_latent(latent)
        last = slice(len(pair) - len(latent), len(pair))
        if self.bcm == "scaled":
            return noised_once(run, noise, shown, text[last], tokens[last], pair[last])
        if len(pair) > len(latent):  # grey is the background of the half that guidance leads away from
            grey = self.bcm_latent(self.grey(self.backbone.pixels(latent))[0])
            shown = torch.cat([grey.expand_as(shown), shown])
        return noised_anew(run, noise, shown, text, pair, seeds)

    def _run(self, noisy: Tensor, t: Tensor, text: Text, now: Pass, *, folded: bool, guidance: float = 1.0) -> Tensor:
        mask = masked = None
        if self.backbone.inpaints:
            mask = torch.ones_like(noisy[:, :1])
            masked = self.grey(self.backbone.pixels(noisy))[0].expand_as(noisy)
        with self.branches.passing(now, folded=folded):
            return self.backbone.predict(noisy, t, text, mask=mask, masked=masked, guidance=guidance)
