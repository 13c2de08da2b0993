"""AnomalyControl-CSM: damage that looks as the damage of a reference does, whatever product it was seen on.

Idea: a frozen vision-language reader looks at a reference picture with its words, its attention moved onto the damage
(ASEA); what it saw becomes a few tokens, which every cross-attention layer of a frozen inpainting model hears beside
the words, through the same queries. Only the projection to tokens and their keys and values are trained. One model
serves all products and defect types, and a reference of one product can be painted on another.

Paper: "AnomalyControl: Learning Cross-modal Semantic Features for Controllable Anomaly Synthesis", He et al., 2024
(arXiv 2412.06510). Its released code cannot run and has no weights; it was read for facts only.
From the paper and its code: reader, ASEA and its constants, one mean vector a reference -> 1024 -> 4 tokens, layer
norm, keys and values started from the words' (or an IP-IPAdapter's), scale 1, in training each picture is its own
reference, the three dropouts of 5 %, guidance over words and reference together, sampling from the normal's noised
latent at 0.7.
Ours: masks are {0,1} in training and in sampling (the release trains on {-1,1} and samples on {0,1}); a seed a sample
(the release takes 42 for all); the feature after ASEA's last update; half of the references in training are another
view of the same defect type, so that a reference tells a look and not a place; the loss weight outside the mask; no
negative prompt; a cell of the latent mask is on when any of its pixels is; starting from a blended shot; the built-in
reader.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from flawsmith.config import Settings as BaseSettings
from flawsmith.errors import ConfigError, RunError
from flawsmith.interfaces import Generator
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import guided, weighted_loss
from flawsmith.nn.inpaint import conditions, paint, prompt_fields, worded
from flawsmith.nn.methods.asea import ASEA, ReadOnce, read
from flawsmith.nn.methods.csm import load_reader
from flawsmith.nn.methods.ip_adapter import (
    BUILTIN,
    IPAdapter,
    attach,
    both,
    defects_of,
    fill_from_builtin,
    fill_from_ip_adapter,
)
from flawsmith.nn.weights import load_modules, read_settings
from flawsmith.types import Batch, Condition, Encoded, Generated

Share = Annotated[float, Field(ge=0, le=1)]


class Settings(BaseSettings):
    """What AnomalyControl-CSM can be told; the module's text says which values are the paper's."""

    prompt: str = "a photo of a {defect}"
    """The words for what is painted; {defect} and {product} are filled in."""
    reference_prompt: str = "a photo of a {defect} on {product}"
    """The words with which a reference is read."""
    normal_prompt: str = "a photo of sound surface"
    """The words, of both defect types, where there is no damage."""
    reader: str = "builtin"
    """What reads references: "builtin", a folder of BLIP-2 for image-text retrieval, or a hub id of one."""
    offline: bool = True
    """True: a hub is never asked for the reader."""
    asea_steps: Annotated[int, Field(ge=0, le=100)] = 5
    """Steps that move the reader's attention onto the damage, for each reference; 0 = none."""
    asea_rate: Annotated[float, Field(gt=0)] = 0.1
    """Their learning rate."""
    asea_alpha: Annotated[float, Field(gt=0)] = 1.0
    """Weight of their loss."""
    parity: bool = False
    """True: the feature is read before ASEA's last update, as the authors' code does."""
    tokens: Annotated[int, Field(ge=1, le=64)] = 4
    """Tokens that a reference becomes."""
    hidden: Annotated[int, Field(ge=1)] = 1024
    """Width between the reader's vector and the tokens."""
    ip_adapter: str = "builtin"
    """What training starts from: an IP-IPAdapter file made for the backbone, "" = the words' own keys and values, or
    "builtin" = ours, where backbone, reader, tokens and hidden are those that it was made for, else as ""."""
    image_dropout: Share = 0.05
    """Share of training samples without reference."""
    text_dropout: Share = 0.05
    """Share without words."""
    both_dropout: Share = 0.05
    """Share without either, which guidance needs."""
    other_view: Share = 0.5
    """Share of training samples whose reference is another view of the same type instead of the picture itself."""
    outside_weight: Share = 0.2
    """Loss weight outside the mask; 1 = plain squared error (the paper's), 0 = the mask alone."""
    scale: Annotated[float, Field(ge=0, le=4)] = 1.0
    """Weight of the reference beside the words when sampling; 0 = words alone."""
    start: Literal["normal", "noise", "shot"] = "normal"
    """Sample from the noised normal (the paper's), from noise, or from a re-posed shot blended in."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.7
    """With start = normal or shot: how much is made anew; 1 = everything."""
    detail: Share = 1.0
    """With start = shot: how much of what the autoencoder loses (grain, colour, hairlines) is given back."""
    sampler: Literal["dpm", "ddim"] = "dpm"
    """DPM-Solver++ 2M, or DDIM."""

    @field_validator("prompt", "reference_prompt", "normal_prompt")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        return prompt_fields(value)


CrossModalSettings = Settings


class CrossModal(Generator):
    """See the module's text. Without any reference it paints from words alone."""

    Settings: ClassVar[type[BaseSettings]] = Settings
    settings: CrossModalSettings
    sampling_only: ClassVar[frozenset[str]] = frozenset({"scale", "start", "strength", "detail", "sampler"})
    reads_reference = True
    sweep = ("scale", (0.0, 0.5, 1.0))

    def __init__(self, backbone: Backbone | None, settings: BaseSettings) -> None:
        if backbone is None:
            raise ConfigError("cross_modal needs a backbone")
        super().__init__(backbone, settings)
        self.backbone: Backbone = backbone
        own = self.settings
        self.reader = load_reader(own.reader, offline=own.offline, device=str(backbone.device))
        self._read_once = ReadOnce(self.reader)
        self.adapter = IPAdapter(backbone.unet, self.reader.width, tokens=own.tokens, hidden=own.hidden)
        self.adapter.register_buffer("reader", torch.tensor(list(self.reader.fingerprint.encode()), dtype=torch.uint8))
        self.adapter.to(backbone.device)
        if own.ip_adapter == "builtin":
            fill_from_builtin(self.adapter, backbone.fingerprint, self.reader.fingerprint)
        elif own.ip_adapter:
            fill_from_ip_adapter(self.adapter, Path(own.ip_adapter), backbone.unet)
        self.listening = backbone.fork()
        """The backbone whose cross-attention hears the adapter; while nothing is said it is the backbone."""
        attach(self.adapter, self.listening.unet)

    @classmethod
    def starts_from(cls, settings: BaseSettings) -> tuple[Path, ...]:
        assert isinstance(settings, CrossModalSettings)
        begun = settings.ip_adapter
        return (BUILTIN,) if begun == "builtin" else (Path(begun),) if begun else ()

    def trainable(self) -> dict[str, nn.Module]:
        return {"adapter": self.adapter}

    @classmethod
    def load(cls, folder: Path, backbone: Backbone | None) -> CrossModal:
        settings = cls.Settings.model_validate(read_settings(folder))
        # The IP-IPAdapter was where training started; what it ended in lies in the folder.
        generator = cls(backbone, settings.model_copy(update={"ip_adapter": ""}))
        generator.settings = settings  # type: ignore[assignment]
        load_modules(folder, generator.trainable())
        generator.check_reader(folder)
        return generator

    def check_reader(self, folder: Path) -> None:
        """Refuse weights of `folder` that were trained with another reader: its vectors mean something else.

        Raises:
            RunError: they were.
        """
        kept = bytes(self.adapter.reader.tolist()).decode()  # type: ignore[operator]
        if kept != self.reader.fingerprint:
            raise RunError(
                f"{folder}: was trained with the reader {kept}, and generator.settings.reader is now "
                f"{self.reader.fingerprint}; name the same one, or train again"
            )

    def words(self, defect: str, product: str, *, reference: bool = False) -> str:
        """Return the prompt of a type, or the words with which a reference is read; an empty type means normal."""
        said = self.settings.reference_prompt if reference else self.settings.prompt
        return worded(said if defect else self.settings.normal_prompt, defect, product)

    def encode(self, shots: Batch) -> Encoded:
        known, masked, cells = conditions(self.backbone, shots.image, shots.mask)
        pairs = list(zip(shots.defect, shots.product, strict=True))
        seen = read(
            self.reader, shots.image, [self.words(*pair, reference=True) for pair in pairs], shots.mask, self._asea()
        )
        return Encoded(
            {
                "latent": known.cpu().float(),
                "masked": masked.cpu().float(),
                "cells": cells.cpu(),
                "text": self.backbone.embed([self.words(*pair) for pair in pairs]).cpu(),
                "seen": seen.vector.cpu(),
                "defect": defects_of(pairs),
            }
        )

    def loss(self, seen: Encoded, rng: torch.Generator) -> Tensor:
        back, own, count, place = self.listening, self.settings, len(seen), self.backbone.device
        latent, masked, cells, text = (seen[name].to(place) for name in ("latent", "masked", "cells", "text"))
        same = (seen["defect"][:, None] == seen["defect"][None]).float()
        other = torch.multinomial(same, 1, generator=rng)[:, 0]
        swapped = torch.rand(count, 1, generator=rng) < own.other_view
        vector = torch.where(swapped, seen["seen"][other], seen["seen"])
        draw = torch.rand(count, generator=rng)
        neither = draw < own.both_dropout
        blind = neither | ((draw - own.both_dropout) % 1.0 < own.image_dropout)
        silent = neither | ((draw - own.both_dropout - own.image_dropout) % 1.0 < own.text_dropout)
        text = torch.where(silent[:, None, None].to(place), back.embed([""]), text)
        t = torch.randint(len(back.noise), (count,), generator=rng).to(place)
        fresh = torch.randn(latent.shape, generator=rng).to(place)
        noisy = back.noise.add(latent, fresh, t)
        with self.adapter.saying(self.adapter((vector * ~blind[:, None]).to(place))):
            said = back.predict(noisy, t, text, mask=cells, masked=masked)
        weight = own.outside_weight + (1 - own.outside_weight) * cells
        return weighted_loss(said, back.noise.truth(latent, fresh, t), weight)

    @torch.no_grad()
    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        back = self.listening
        told = conditions(back, asked.normal, asked.mask)
        text = back.embed([self.words(*pair) for pair in asked.named()])
        _, masked, cells = told
        if guidance != 1.0:
            text = torch.cat([back.embed([""] * len(asked)), text])
            cells, masked = torch.cat([cells, cells]), torch.cat([masked, masked])

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            return back.predict(latent, t, text, mask=cells, masked=masked)

        with self.saying(asked, guidance):
            return paint(
                back,
                asked,
                told,
                guided(predict, guidance),
                seeds,
                steps=steps,
                sampler=self.settings.sampler,
                start=self.settings.start,
                strength=self.settings.strength,
                detail=self.settings.detail,
            )

    @contextmanager
    @torch.no_grad()
    def saying(self, asked: Condition, guidance: float) -> Iterator[None]:
        """Let `listening` hear the requests' references, in batches that are doubled when there is guidance."""
        reference = asked.reference if asked.reference is not None else asked.shot
        if reference is None:
            vector = torch.zeros(len(asked), self.reader.width)
        else:
            texts = [
                self.words(*pair, reference=True) for pair in zip(reference.defect, reference.product, strict=True)
            ]
            vector = self._read_once.vectors(reference.image, texts, reference.mask, self._asea())
        with self.adapter.saying(both(self.adapter, vector.to(self.backbone.device), guidance), self.settings.scale):
            yield

    def _asea(self) -> ASEA:
        own = self.settings
        return ASEA(own.asea_steps, own.asea_rate, own.asea_alpha, own.parity)
