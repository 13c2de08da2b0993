"""AnomalyDiffusion: words for how a damage looks are learned from the shots, words for where it is from its mask.

Idea: nothing of the diffusion model is trained. A few token embeddings are learned for each defect type (appearance),
and a small encoder that makes token embeddings of a mask (place); both stand in the prompt. In sampling the background
is the normal photograph's at each step, and the words are heard more where little damage shows as yet.

Paper: "AnomalyDiffusion: Few-Shot Anomaly Image Generation with Diffusion Model", Hu et al., AAAI 2024. Its text and
its authors' code were read for facts only.
From the paper: the spatial anomaly embedding, k = 8 words for each type and n = 4 of the mask, one encoder for all
types, its feature pyramid (3.2); the loss inside the mask alone ("masked textual inversion", 3.2); the blended
background (3.1); adaptive attention re-weighting (3.3). From the code: weights within 1 and 1.5, DDIM in 200 steps
without guidance, batches of 4. `Settings.paper` and `AnomalyDiffusion.paper` hold their values. What they cannot hold:
the latent diffusion model with BERT at 256 px; ResNet-50 in the encoder; a learning rate of raw embeddings (ours moves
words in standard deviations of the vocabulary); DDIM's noise at each step (eta 1); masks of their mask generator (3.4).
Ours, because it serves small data or small machines: the defect type's name behind the learned words, which a frozen
model knows something about; words that start as the type's name; a small encoder; differences of latents in place of
decoded pictures, which cost a decoder's pass a step; a map made of the step before; an inpainting backbone, which is
given mask and masked picture; normal parts in training, with words of their own, for controls; guidance, which needs no
dropped text in training, for the model is frozen and knows it; and all of `nn/inpaint.py`, such as the start from a
re-posed shot. More in `nn/anomaly_diffusion/`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from flawsmith import config
from flawsmith.config import Affects
from flawsmith.errors import ConfigError
from flawsmith.interfaces import LEARNED, Generator
from flawsmith.nn import prompts
from flawsmith.nn.anomaly_diffusion.location import LocationEncoder, shrunk
from flawsmith.nn.anomaly_diffusion.reweighting import Reweighting, weight_map
from flawsmith.nn.anomaly_diffusion.words import MARK, AppearanceWords, MarkedPrompt, marked, read_with
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import Predict, Sampler, guided, weighted_loss
from flawsmith.nn.inpaint import Known, known_of, paint, with_negative
from flawsmith.nn.text import Text
from flawsmith.nn.weights import load_modules, load_tensors, read_settings
from flawsmith.types import Batch, Condition, Crop, Encoded, Generated

Pair = tuple[str, str]
"""(product, defect type); the type "" is a normal part."""


class AnomalyDiffusionSettings(config.Settings):
    """The settings of AnomalyDiffusion; `paper` returns the paper's."""

    prompt: str = "a photo of a * {defect}"
    """The prompt; * is where the learned words stand, {defect} and {product} are filled in. The paper's: without."""
    normal_prompt: str = "a photo of * sound surface"
    """The prompt for a mask that is to be repainted as normal, with learned words of its own."""
    appearance_tokens: Annotated[int, Field(ge=1, le=64)] = 8
    """Words that are learned for each defect type of each product."""
    location_tokens: Annotated[int, Field(ge=0, le=16)] = 4
    """Words that are made of the mask; 0 = none."""
    reweighting: Annotated[float, Field(ge=1, le=10), Affects("generate")] = 1.5
    """The most that the words are heard more where little damage shows; 1 = no re-weighting."""
    compared: Annotated[Literal["latents", "pixels"], Affects("generate")] = "latents"
    """What re-weighting compares with the normal picture; pixels (the paper's) cost a decoder's pass at each step."""
    start: Annotated[Literal["noise", "shot", "patches"], Affects("generate")] = "noise"
    """Sample from noise (the paper's), from a re-posed shot blended in, or from damage made of patches of shots."""
    strength: Annotated[float, Field(gt=0, le=1), Affects("generate")] = 0.7
    """With start = shot or patches: how much is made anew; 1 = everything."""
    detail: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 1.0
    """With start = shot or patches: how much of what the autoencoder loses (grain, colour, hairlines) is given back."""
    sampler: Annotated[Sampler, Affects("generate")] = "dpm"
    """dpm (DPM-Solver++ 2M), ddim, euler or unipc; lcm or tcd for a backbone that was distilled for it."""
    negative_prompt: Annotated[str, Affects("generate")] = ""
    """What guidance leads away from; empty = no text."""
    guidance_rescale: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 0.0
    """How far strong guidance is brought back to the spread of its text alone; 0 = not at all, 1 = wholly."""

    @field_validator("prompt", "normal_prompt")
    @classmethod
    def _one_mark(cls, value: str) -> str:
        if value.count(MARK) != 1:
            raise ValueError(f"one {MARK} says where the learned words stand, and there are {value.count(MARK)}")
        return prompts.checked(value)

    @classmethod
    def paper(cls) -> AnomalyDiffusionSettings:
        """Return the settings with every value that the paper or its code states."""
        return cls(
            prompt="a photo of a *",
            appearance_tokens=8,
            location_tokens=4,
            reweighting=1.5,
            compared="pixels",
            start="noise",
            sampler="ddim",
        )


class AnomalyDiffusion(Generator):
    """See the module's text. `learn` takes the names of the products and types that there are words for."""

    Settings: ClassVar[type[config.Settings]] = AnomalyDiffusionSettings
    settings: AnomalyDiffusionSettings
    sweep = ("reweighting", (1.0, 1.5, 3.0))
    paper: ClassVar[dict[str, Any]] = {
        "data.shots": "third",
        "train.scope": "all",
        "train.batch": 4,
        "train.normal_views": 0.0,
        "generate.count": 1000,
        "generate.steps": 200,
        "generate.guidance": 1.0,
    }

    def __init__(self, backbone: Backbone | None, settings: config.Settings) -> None:
        if backbone is None:
            raise ConfigError("anomaly_diffusion needs a backbone")
        super().__init__(backbone, settings)
        self.backbone: Backbone = backbone.fork()
        self._reweighting = Reweighting(self.backbone.unet)
        self._location: LocationEncoder | None = None
        if self.settings.location_tokens:
            encoder = LocationEncoder(backbone.text_encoder, self.settings.location_tokens)
            self._location = encoder.to(backbone.device)
        self._pairs: tuple[Pair, ...] = ()
        self._appearance: AppearanceWords | None = None

    def learn(self, crops: Iterable[Crop]) -> None:
        damaged = {(crop.product, crop.defect) for crop in crops if crop.defect}
        self._prepare_words({*damaged, *((product, "") for product, _ in damaged)})

    def learned(self) -> dict[str, Tensor]:
        if not self._pairs:
            return {}
        return {"pairs": torch.tensor(list(json.dumps(self._pairs).encode()), dtype=torch.uint8)}

    def restore(self, learned: Mapping[str, Tensor]) -> None:
        self._prepare_words({(product, defect) for product, defect in json.loads(bytes(learned["pairs"].tolist()))})

    def _prepare_words(self, pairs: set[Pair]) -> None:
        """Give each product and type words of its own, which start as the type's name.

        Raises:
            ConfigError: the words do not fit into what the text encoder reads.
        """
        self._pairs = tuple(sorted(pairs))
        for product, defect in self._pairs:
            self.marked(defect, product)  # refused here, before anything is encoded
        names = [self.phrase(defect, product).replace(MARK, " ") for product, defect in self._pairs]
        starts = [defect.replace("_", " ") or name for (_, defect), name in zip(self._pairs, names, strict=True)]
        words = AppearanceWords(self.backbone.text_encoder, starts, self.settings.appearance_tokens)
        self._appearance = words.to(self.backbone.device)

    @classmethod
    def load(cls, folder: Path, backbone: Backbone | None) -> AnomalyDiffusion:
        settings = config.validate(AnomalyDiffusionSettings, read_settings(folder), where=f"{folder}/settings.json")
        generator = cls(backbone, settings)
        # How many words there are decides the shapes of what is loaded.
        generator.restore(load_tensors(folder / LEARNED)[0])
        load_modules(folder, generator.trainable())
        return generator

    def trainable(self) -> dict[str, nn.Module]:
        networks = {"appearance": self._appearance, "location": self._location}
        return {name: network for name, network in networks.items() if network is not None}

    def encoders(self) -> list[nn.Module]:
        # The text encoder works in every step: gradients pass through it.
        return [self.backbone.vae]

    def phrase(self, defect: str, product: str) -> str:
        """Return the prompt of a type with its mark; an empty type means normal."""
        return prompts.filled_in(self.settings.prompt if defect else self.settings.normal_prompt, defect, product)

    def marked(self, defect: str, product: str) -> MarkedPrompt:
        """Return the prompt of a type with room for the learned words."""
        count = self.settings.appearance_tokens + self.settings.location_tokens
        return marked(self.backbone.text_encoder, self.phrase(defect, product), count)

    def attention(self, defect: str, product: str) -> tuple[Backbone, str] | None:
        named = "{defect}" in self.settings.prompt
        return (self.backbone, self.marked(defect, product).text) if named else None

    def row_of(self, product: str, defect: str) -> int:
        """Return which words are a type's: the product's own, or else those of another product's type of that name.

        Raises:
            ConfigError: none were learned.
        """
        rows = {pair: row for row, pair in enumerate(self._pairs)}
        named = [row for pair, row in rows.items() if pair[1] == defect]
        if (product, defect) in rows or named:
            return rows.get((product, defect), named[0] if named else 0)
        known = ", ".join(sorted({pair[1] for pair in self._pairs} - {""})) or "none"
        raise ConfigError(
            f"anomaly_diffusion has learned no words for the defect type {defect!r}; it knows {known}: train it with "
            "shots of that type"
        )

    def encode(self, shots: Batch) -> Encoded:
        known, names = known_of(self.backbone, shots.image, shots.mask), zip(shots.defect, shots.product, strict=True)
        prompted = [self.marked(*pair) for pair in names]
        rows = [self.row_of(*pair) for pair in zip(shots.product, shots.defect, strict=True)]
        return Encoded(
            {
                **known.tensors(),
                "mask": shrunk(shots.mask.cpu()).to(torch.uint8),
                "tokens": self.backbone.tokens([one.text for one in prompted]),
                "first": torch.tensor([one.first for one in prompted]),
                "row": torch.tensor(rows),
            }
        )

    def draw(self, views: Encoded, rng: torch.Generator) -> Encoded:
        t = torch.randint(len(self.backbone.noise), (len(views),), generator=rng)
        noise = torch.randn(views["latent"].shape, generator=rng)
        return Encoded({**views.tensors, "t": t, "noise": noise})

    def loss_of(self, drawn: Encoded) -> Tensor:
        back, device = self.backbone, self.backbone.device
        latent, masked, cells, t, noise = (
            drawn[name].to(device) for name in ("latent", "masked", "cells", "t", "noise")
        )
        text = self._read(drawn["tokens"], drawn["first"], drawn["row"], drawn["mask"].float())
        prediction = back.predict(back.noise.add(latent, noise, t), t, text, mask=cells, masked=masked)
        return weighted_loss(prediction, back.noise.target_of(latent, noise, t), cells)

    def _read(self, tokens: Tensor, first: Tensor, row: Tensor, mask: Tensor) -> Text:
        """Return the text of prompts with their learned words in place; gradients pass to the words."""
        assert self._appearance is not None, "`learn` names the types before anything is read"
        device = self.backbone.device
        words = [self._appearance(row.to(device))]
        if self._location is not None:
            words.append(self._location(mask.to(device)))
        return read_with(self.backbone.text_encoder, tokens, first, torch.cat(words, 1))

    @torch.no_grad()
    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        back, settings = self.backbone, self.settings
        known = known_of(back, asked.normal, asked.mask)
        predict, doubled = self.predictor(asked, known, guidance), back.free_guidance(guidance) != 1.0
        return paint(
            back,
            asked,
            known,
            self._reweighted(predict, asked, known, doubled=doubled),
            seeds,
            steps=steps,
            sampler=settings.sampler,
            start=settings.start,
            strength=settings.strength,
            detail=settings.detail,
        )

    @torch.no_grad()
    def predictor(self, asked: Condition, known: Known, guidance: float) -> Predict:
        """Return what `sample` denoises with, but for the re-weighting; see `nn.anomaly_maps.words`."""
        back, settings, free = self.backbone, self.settings, self.backbone.free_guidance(guidance)
        prompted = [self.marked(*names) for names in asked.named()]
        text = self._read(
            back.tokens([one.text for one in prompted]),
            torch.tensor([one.first for one in prompted]),
            torch.tensor([self.row_of(*pair) for pair in zip(asked.product, asked.defect, strict=True)]),
            shrunk(asked.mask),
        )
        text, rows = with_negative(back, text, free, settings.negative_prompt), known.guided(free)

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            return back.predict(latent, t, text, mask=rows.cells, masked=rows.masked, guidance=guidance)

        return guided(predict, free, settings.guidance_rescale)

    def _reweighted(self, predict: Predict, asked: Condition, known: Known, *, doubled: bool) -> Predict:
        """Return a predictor that hears the words more where the step before it showed little damage.

        Args:
            predict: The network with text, guidance and conditions bound.
            asked: B requests.
            known: What `known_of` returned for them.
            doubled: Whether the network gets each row twice, without text first.
        """
        back, settings = self.backbone, self.settings
        if settings.reweighting == 1:
            return predict
        normal, mask, weights = known.latent, known.cells, None
        if settings.compared == "pixels":
            normal, mask = asked.normal.to(back.device), asked.mask.to(back.device)

        def heard(latent: Tensor, t: Tensor) -> Tensor:
            nonlocal weights
            with self._reweighting.by(weights):
                prediction = predict(latent, t)
            implied = back.noise.clean(latent, prediction, t)
            implied = back.decode(implied) if settings.compared == "pixels" else implied
            weights = weight_map(implied, normal, mask, settings.reweighting)
            weights = torch.cat([torch.ones_like(weights), weights]) if doubled else weights
            return prediction

        return heard
