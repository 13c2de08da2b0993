"""AnomalyControl-CSM: damage that looks as the damage of a reference does, whatever product it was seen on.

Idea: a frozen vision-language encoder (CSM) reads a reference picture with its words, its attention moved onto the
damage (ASEA); its features become a few tokens, to which every cross-attention layer of a frozen inpainting model
attends beside the text, through the same queries (SGA). Only SGA is trained. One model serves all products and defect
types, and a reference of one product can be painted on another.

Paper: "AnomalyControl: Learning Cross-modal Semantic Features for Controllable Anomaly Synthesis", He et al., 2024
(arXiv 2412.06510). Its released code cannot run and has no weights; it was read for facts only.
From the paper and its code: CSM, ASEA and its constants; one mean vector per reference -> 1024 -> 4 tokens, layer norm;
keys and values started from the text's (or an IP-Adapter's); scale 1; in training each picture is its own reference;
the three dropouts of 5 %; guidance over text and reference together; sampling from the normal window's noised latent at
0.7. `Settings.paper` and `CrossModal.paper` hold their values. What they cannot hold: CSM is BLIP-2 and SGA starts from
ip-adapter_sd15.bin, which a user brings (`csm`, `ip_adapter`); captions written by hand for each picture; a negative
prompt; target masks drawn by AnomalyDiffusion. How many steps they trained is not known.
Ours: masks are {0,1} in training and in sampling (the release trains on {-1,1} and samples on {0,1}); one seed per
sample (the release takes 42 for all); the feature after ASEA's last update; half of the references in training are
another view of the same defect type, so that a reference tells an appearance and not a place; the loss weight outside
the mask; a cell of the latent mask is on when any of its pixels is; the built-in CSM and SGA; and all of
`nn/inpaint.py`, such as the start from a re-posed shot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from flawsmith import config
from flawsmith.config import Affects
from flawsmith.errors import ConfigError, RunError
from flawsmith.interfaces import Generator
from flawsmith.nn import prompts
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import Predict, Sampler, guided, weighted_loss
from flawsmith.nn.inpaint import Known, guided_text, known_of, paint
from flawsmith.nn.methods.asea import ASEA, features, memory_of
from flawsmith.nn.methods.csm import load_csm
from flawsmith.nn.methods.sga import (
    BUILTIN,
    SGA,
    attach,
    defect_numbers,
    fill_from_builtin,
    fill_from_ip_adapter,
    guided_tokens,
)
from flawsmith.nn.weights import load_modules, read_settings
from flawsmith.types import Batch, Condition, Encoded, Generated

Share = Annotated[float, Field(ge=0, le=1)]


class CrossModalSettings(config.Settings):
    """The settings of AnomalyControl-CSM; `paper` returns the paper's."""

    renamed = {"reader": "csm", "sound_prompt": "normal_prompt"}

    prompt: str = prompts.PROMPT
    """The prompt for what is painted; {defect} and {product} are filled in."""
    reference_prompt: str = prompts.PROMPT_ON_PRODUCT
    """The words with which a reference is read."""
    normal_prompt: str = prompts.NORMAL_PROMPT
    """Both of them where there is no damage."""
    csm: str = "builtin"
    """What reads references: "builtin", a folder of BLIP-2 for image-text retrieval (the paper's), or its hub id."""
    offline: bool = True
    """True: a hub is never asked for the CSM."""
    asea_steps: Annotated[int, Field(ge=0, le=100)] = 5
    """Steps that move the CSM's attention onto the damage, for each reference; 0 = none."""
    asea_rate: Annotated[float, Field(gt=0)] = 0.1
    """Their learning rate."""
    asea_alpha: Annotated[float, Field(gt=0)] = 1.0
    """Weight of their loss."""
    parity: bool = False
    """True: the feature is read before ASEA's last update, as the authors' code does."""
    tokens: Annotated[int, Field(ge=1, le=64)] = 4
    """Tokens that a reference becomes."""
    hidden: Annotated[int, Field(ge=1)] = 1024
    """Width between the CSM's vector and the tokens."""
    ip_adapter: str = "builtin"
    """Training starts from an IP-Adapter file, from the text's own keys and values (""), or "builtin" where it fits."""
    image_dropout: Share = 0.05
    """Share of training samples without reference."""
    text_dropout: Share = 0.05
    """Share without text."""
    both_dropout: Share = 0.05
    """Share without either, which guidance needs."""
    other_view: Share = 0.5
    """Share of training samples whose reference is another view of the same type instead of the picture itself."""
    outside_weight: Share = 0.2
    """Loss weight outside the mask; 1 = plain squared error (the paper's), 0 = the mask alone."""
    scale: Annotated[float, Field(ge=0, le=4), Affects("generate")] = 1.0
    """Weight of the reference beside the text when sampling; 0 = text alone."""
    start: Annotated[Literal["normal", "noise", "shot", "patches"], Affects("generate")] = "normal"
    """Sample from the normal window (the paper's), noise, a re-posed shot, or damage made of patches of shots."""
    strength: Annotated[float, Field(gt=0, le=1), Affects("generate")] = 0.7
    """With start = normal, shot or patches: how much is made anew; 1 = everything."""
    detail: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 1.0
    """With start = shot or patches: how much of what the autoencoder loses (grain, colour, hairlines) is given back."""
    sampler: Annotated[Sampler, Affects("generate")] = "dpm"
    """dpm (DPM-Solver++ 2M), ddim, euler or unipc; lcm or tcd for a backbone that was distilled for it."""
    negative_prompt: Annotated[str, Affects("generate")] = ""
    """What guidance leads away from; empty = no text."""
    guidance_rescale: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 0.0
    """How far strong guidance is brought back to the spread of its text alone; 0 = not at all, 1 = wholly."""

    @field_validator("prompt", "reference_prompt", "normal_prompt")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        return prompts.checked(value)

    @classmethod
    def paper(cls) -> CrossModalSettings:
        """Return the settings with every value that the paper or its code states."""
        return cls(
            asea_steps=5,
            asea_rate=0.1,
            asea_alpha=1.0,
            parity=True,
            tokens=4,
            hidden=1024,
            ip_adapter="",
            image_dropout=0.05,
            text_dropout=0.05,
            both_dropout=0.05,
            other_view=0.0,
            outside_weight=1.0,
            scale=1.0,
            start="normal",
            strength=0.7,
        )


class CrossModal(Generator):
    """See the module's text. Without any reference it paints from text alone."""

    Settings: ClassVar[type[config.Settings]] = CrossModalSettings
    settings: CrossModalSettings
    reads_reference = True
    sweep = ("scale", (0.0, 0.5, 1.0))
    paper: ClassVar[dict[str, Any]] = {
        "data.shots": "third",
        "train.scope": "all",
        "train.batch": 16,  # theirs is 8, with gradients of two batches added up before each step
        "train.learning_rate": 1e-4,
        "train.weight_decay": 1e-2,
        "train.normal_views": 0.0,
        "train.turn": False,
        "generate.steps": 50,
        "generate.guidance": 7.0,
        "generate.reference": "random",
        "generate.paint": "replace",
    }

    def __init__(self, backbone: Backbone | None, settings: config.Settings) -> None:
        if backbone is None:
            raise ConfigError("cross_modal needs a backbone")
        super().__init__(backbone, settings)
        self.backbone: Backbone = backbone
        chosen = self.settings
        self.csm = load_csm(chosen.csm, offline=chosen.offline, device=str(backbone.device))
        self._features = memory_of(self.csm)
        self.sga = SGA(backbone.unet, self.csm.width, tokens=chosen.tokens, hidden=chosen.hidden)
        # The buffer's name is that of weights on disk.
        self.sga.register_buffer("reader", torch.tensor(list(self.csm.fingerprint.encode()), dtype=torch.uint8))
        self.sga.to(backbone.device)
        if chosen.ip_adapter == "builtin":
            fill_from_builtin(self.sga, backbone.fingerprint, self.csm.fingerprint)
        elif chosen.ip_adapter:
            fill_from_ip_adapter(self.sga, Path(chosen.ip_adapter), backbone.unet)
        # Its cross-attention attends to SGA's tokens; outside of `conditioned` it is the backbone that was given.
        self.backbone = backbone.fork()
        attach(self.sga, self.backbone.unet)

    @classmethod
    def starts_from(cls, settings: config.Settings) -> tuple[Path, ...]:
        assert isinstance(settings, CrossModalSettings)
        file = settings.ip_adapter
        return (BUILTIN,) if file == "builtin" else (Path(file),) if file else ()

    def trainable(self) -> dict[str, nn.Module]:
        return {"adapter": self.sga}

    @classmethod
    def load(cls, folder: Path, backbone: Backbone | None) -> CrossModal:
        settings = config.validate(CrossModalSettings, read_settings(folder), where=f"{folder}/settings.json")
        # The IP-Adapter was where training started; what it ended in lies in the folder.
        generator = cls(backbone, settings.model_copy(update={"ip_adapter": ""}))
        generator.settings = settings
        load_modules(folder, generator.trainable())
        generator.check_csm(folder)
        return generator

    def check_csm(self, folder: Path) -> None:
        """Refuse weights of `folder` that were trained with another CSM: its vectors mean something else.

        Raises:
            RunError: they were.
        """
        trained_with = bytes(self.sga.reader.tolist()).decode()  # type: ignore[operator]
        if trained_with != self.csm.fingerprint:
            raise RunError(
                f"{folder}: was trained with the CSM {trained_with}, and generator.settings.csm is now "
                f"{self.csm.fingerprint}; name the same one, or train again"
            )

    def prompt(self, defect: str, product: str, *, reference: bool = False) -> str:
        """Return the prompt of a type, or the words with which a reference is read; an empty type means normal."""
        damaged = self.settings.reference_prompt if reference else self.settings.prompt
        return prompts.filled_in(damaged if defect else self.settings.normal_prompt, defect, product)

    def told(self, defect: str, product: str) -> str:
        return self.prompt(defect, product)

    def attention(self, defect: str, product: str) -> tuple[Backbone, str]:
        return self.backbone, self.prompt(defect, product)

    def encoders(self) -> list[nn.Module]:
        return [*super().encoders(), self.csm]

    def encode(self, shots: Batch, known: Known | None = None) -> Encoded:
        known = known or known_of(self.backbone, shots.image, shots.mask)
        names = list(zip(shots.defect, shots.product, strict=True))
        words = [self.prompt(*pair, reference=True) for pair in names]
        reference = features(self.csm, shots.image, words, shots.mask, self._asea())
        return Encoded(
            {
                **known.tensors(),
                "tokens": self.backbone.tokens([self.prompt(*pair) for pair in names]),
                "feature": reference.vector.cpu(),
                "defect": defect_numbers(names),
            }
        )

    def draw(self, views: Encoded, rng: torch.Generator) -> Encoded:
        settings, count, tokens = self.settings, len(views), views["tokens"].clone()
        same_type = (views["defect"][:, None] == views["defect"][None]).float()
        other = torch.multinomial(same_type, 1, generator=rng)[:, 0]
        swapped = torch.rand(count, 1, generator=rng) < settings.other_view
        vector = torch.where(swapped, views["feature"][other], views["feature"])
        draw = torch.rand(count, generator=rng)
        neither = draw < settings.both_dropout
        no_reference = neither | ((draw - settings.both_dropout) % 1.0 < settings.image_dropout)
        no_text = neither | ((draw - settings.both_dropout - settings.image_dropout) % 1.0 < settings.text_dropout)
        tokens[no_text] = self.backbone.tokens([None])
        t = torch.randint(len(self.backbone.noise), (count,), generator=rng)
        noise = torch.randn(views["latent"].shape, generator=rng)
        read = {"tokens": tokens, "feature": vector * ~no_reference[:, None]}
        return Encoded({**views.tensors, **read, "t": t, "noise": noise})

    def loss_of(self, drawn: Encoded) -> Tensor:
        back, settings, device = self.backbone, self.settings, self.backbone.device
        latent, masked, cells, t, noise = (
            drawn[name].to(device) for name in ("latent", "masked", "cells", "t", "noise")
        )
        text, noisy = back.read(drawn["tokens"]), back.noise.add(latent, noise, t)
        with self.sga.conditioned(self.sga(drawn["feature"].to(device))):
            prediction = back.predict(noisy, t, text, mask=cells, masked=masked)
        weight = settings.outside_weight + (1 - settings.outside_weight) * cells
        return weighted_loss(prediction, back.noise.target_of(latent, noise, t), weight)

    @torch.no_grad()
    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        back, settings = self.backbone, self.settings
        known = known_of(back, asked.normal, asked.mask)
        with self.conditioned(asked, guidance):
            return paint(
                back,
                asked,
                known,
                self._predictor(asked, known, guidance),
                seeds,
                steps=steps,
                sampler=settings.sampler,
                start=settings.start,
                strength=settings.strength,
                detail=settings.detail,
            )

    def predictor(self, asked: Condition, known: Known, guidance: float) -> Predict:
        """Return what `sample` denoises with; see `nn.anomaly_maps.words`."""
        bound = self._predictor(asked, known, guidance)

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            with self.conditioned(asked, guidance):
                return bound(latent, t)

        return predict

    def _predictor(self, asked: Condition, known: Known, guidance: float) -> Predict:
        """Bind text, guidance and what is known of B requests; the references are `conditioned`'s."""
        back, settings, free = self.backbone, self.settings, self.backbone.free_guidance(guidance)
        text = guided_text(back, [self.prompt(*names) for names in asked.named()], free, settings.negative_prompt)
        rows = known.guided(free)

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            return back.predict(latent, t, text, mask=rows.cells, masked=rows.masked, guidance=guidance)

        return guided(predict, free, settings.guidance_rescale)

    @contextmanager
    @torch.no_grad()
    def conditioned(self, asked: Condition, guidance: float) -> Iterator[None]:
        """Let the backbone attend to the requests' references, in batches that are doubled by guidance."""
        reference = asked.reference if asked.reference is not None else asked.shot
        if reference is None:
            vector = torch.zeros(len(asked), self.csm.width)
        else:
            names = zip(reference.defect, reference.product, strict=True)
            words = [self.prompt(*pair, reference=True) for pair in names]
            vector = self._features.vectors(reference.image, words, reference.mask, self._asea())
        tokens = guided_tokens(self.sga, vector.to(self.backbone.device), self.backbone.free_guidance(guidance))
        with self.sga.conditioned(tokens, self.settings.scale):
            yield

    def _asea(self) -> ASEA:
        settings = self.settings
        return ASEA(settings.asea_steps, settings.asea_rate, settings.asea_alpha, settings.parity)
