"""DualAnoDiff: two branches of one frozen diffusion model make the whole picture and the damage alone, together.

Idea: one branch makes a damaged window, the other the damage alone on mid-grey; both are the same frozen UNet with
low-rank changes of their own, and attention at each position (SAIM) keeps them in step. So the mask need not be asked
for: it is where the second branch leaves mid-grey.

Paper: "Dual-Interrelated Diffusion Model for Few-Shot Anomaly Image Generation", Jin et al., CVPR 2025.
From the paper and its authors' code: LoRA of rank 32 on query, key, value and out of every attention, a set per branch;
SAIM after the output projection; BCM; one timestep for both branches and independent noise; the target of the second
branch, picture x mask on mid-grey; two prompts; plain squared error; LoRA of the text encoder. `Settings.paper` and
`DualBranch.paper` hold their values, those of their code with BCM (without it: batch 4, 100 steps, guidance 2.5).
What they cannot hold: a constant learning rate, flips without turns, PLMS for a sampler, and U^2-Net, which draws their
masks and cuts their backgrounds out. 512 px is Stable Diffusion 1.5's own size, which `windows.size = 0` takes.
Ours, because it serves small data or small machines: a narrow SAIM that starts from nothing; prompts with the defect
type, so that one model serves many of them, and SAIM shared by them; normal parts in training, whose second branch
stays grey; text dropout; DPM-Solver++; the mask by distance to grey, at a threshold learned from shots made half anew;
an inpainting UNet fed with the mask everywhere and a grey picture, since all is to be made; BCM's background, which is
the window with the damage filled from round it; `bcm = "scaled"`; and of `nn/inpaint.py` the start from a re-posed shot
and `out = "transplant"`: damage grows into a real background.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from flawsmith import config
from flawsmith.config import Affects
from flawsmith.errors import ConfigError
from flawsmith.interfaces import Generator
from flawsmith.nn import prompts
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import Sampler, guided, weighted_loss
from flawsmith.nn.inpaint import NO_SKETCH, Sketch, Transplant, filled
from flawsmith.nn.methods.dual_unet import DualUNet
from flawsmith.nn.methods.mask_threshold import (
    MaskThreshold,
    cell_distance,
    overlaps,
    packed,
    pixel_distance,
    tidy,
    unpacked,
)
from flawsmith.nn.methods.saliency import Saliency, refined
from flawsmith.types import Batch, Condition, Encoded, Generated

SHARED = "shared"
"""The pair of adapters of every defect type that has none of its own."""
_CHANGED = 0.05
"""With start = shot: a sketch that is this far from the normal window is damage there; 2 is the full range."""
_CALIBRATION_VIEWS, _CALIBRATION_BATCH, _CALIBRATION_GUIDANCE = 48, 8, 2.0
_CALIBRATION: dict[str, Any] = {"strength": 0.5, "steps": 12, "sampler": "dpm"}
"""The thresholds are learned from so many views, in batches of so many at most, made half anew."""
Share = Annotated[float, Field(ge=0, le=1)]


class DualBranchSettings(config.Settings):
    """The settings of DualAnoDiff; `paper` returns the paper's."""

    renamed = {"sound_prompt": "normal_prompt"}
    renamed_values = {"against": {"sound": "normal"}}

    out: Annotated[Literal["transplant", "whole"], Affects("generate")] = "transplant"
    """transplant: the damage on the real photograph, exact outside its mask; whole (the paper's): all synthetic."""
    prompt: str = prompts.PROMPT
    """The prompt of the whole picture; {defect} and {product} are filled in. The paper's: "a vfx with sks"."""
    alone_prompt: str = "{defect}"
    """The prompt of the damage alone. The paper's: "sks"."""
    normal_prompt: str = prompts.NORMAL_PROMPT
    """The prompt of a normal picture, whose second branch is grey."""
    against: Annotated[Literal["nothing", "normal"], Affects("generate")] = "nothing"
    """What guidance leads away from: no text (the paper's), or the prompt for normal."""
    adapters: list[str] = []
    """Defect types (`crack`) or `product/type` that get a pair of adapters of their own; all others share one."""
    rank: Annotated[int, Field(ge=1, le=512)] = 32
    """Rank of the changes of each branch."""
    text_rank: Annotated[int, Field(ge=0, le=512)] = 0
    """Rank of the text encoder's changes; 0 = it stays frozen. The paper's: 32."""
    saim: Literal["narrow", "full", "off"] = "narrow"
    """SAIM between the branches: full (the paper's, 5 matrices of full width per layer), narrow, or off."""
    saim_rank: Annotated[int, Field(ge=1, le=1280)] = 64
    """Width of the narrow SAIM."""
    zero_start: bool = True
    """True: at first nothing is exchanged; False (the paper's): the exchange starts at random."""
    bcm: Literal["off", "scaled", "paper"] = "off"
    """Show the background to the whole picture's self-attention: scaled (mended, one pass per background), or paper."""
    text_dropout: Share = 0.1
    """Share of training samples without text, which guidance needs; the paper's: 0."""
    damage_weight: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Loss weight of damaged cells; 1 = plain squared error (the paper's)."""
    hold: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 0.8
    """With out = transplant: from which noise level down the real background is held; 1 = all the way."""
    start: Annotated[Literal["noise", "shot", "patches"], Affects("generate")] = "noise"
    """Make both branches from noise (the paper's), or from a re-posed shot or patches of shots, which then survive."""
    strength: Annotated[float, Field(gt=0, le=1), Affects("generate")] = 0.7
    """With start = shot or patches: how much is made anew; 1 = everything."""
    detail: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 1.0
    """With start = shot or patches: how much of what the autoencoder loses (grain, colour, hairlines) is given back."""
    smallest: Annotated[float, Field(ge=0, lt=1), Affects("generate")] = 0.001
    """Pieces of the drawn mask below this share of the window are dropped; nothing left = refused as empty."""
    largest: Annotated[float, Field(gt=0, le=1), Affects("generate")] = 0.5
    """A drawn mask above this share of the window is refused as overflow."""
    saliency: Annotated[str, Affects("generate")] = ""
    """An ONNX file of U^2-Net or its kin, to trim the drawn mask by what it finds salient; empty = none."""
    sampler: Annotated[Sampler, Affects("generate")] = "dpm"
    """dpm (DPM-Solver++ 2M), ddim, euler or unipc; lcm or tcd for a distilled backbone; the paper's is PLMS."""
    guidance_rescale: Annotated[Share, Affects("generate")] = 0.0
    """How far strong guidance is brought back to the spread of its text alone; 0 = not at all, 1 = wholly."""

    @field_validator("prompt", "alone_prompt")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        return prompts.checked(value)

    @field_validator("adapters")
    @classmethod
    def _own_names(cls, value: list[str]) -> list[str]:
        if len({SHARED, *value}) <= len(value) or any(not name or "." in name for name in value):
            raise ValueError(f"each name once, not empty, without a dot, and none of them {SHARED!r}")
        return value

    @classmethod
    def paper(cls) -> DualBranchSettings:
        """Return the settings with every value that the paper or its code states."""
        return cls(out="whole", prompt="a vfx with sks", alone_prompt="sks", against="nothing", rank=32, text_rank=32,
                   saim="full", zero_start=False, bcm="paper", text_dropout=0.0, damage_weight=1.0, start="noise",
                   smallest=0.0, largest=1.0)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Request:
    """What sampling needs of B requests, on the backbone's device."""

    allowed: Tensor
    """float32 (B,1,H,W) in {0,1}: where damage may lie."""
    is_control: Tensor
    """bool (B,1,1,1): rows to be repainted as normal."""
    latent: Tensor
    """float32 (B,C,h,w): the normal windows; grey where nothing reads them."""
    tokens: Tensor
    """int64 (B,2,N): the prompts of both branches."""
    pair: list[int]
    """The pair of adapters of each row."""
    start: Tensor | None
    """float32 (B,2C,h,w): the latent pair to start from; None = noise."""
    transplant: Transplant | None
    """Puts the damage on the photograph; None = the whole window is synthetic."""


class DualBranch(Generator):
    """See the module's text. Rows of a batch: the whole pictures first, then the damages alone, in the same order."""

    Settings: ClassVar[type[config.Settings]] = DualBranchSettings
    settings: DualBranchSettings
    needs_mask: ClassVar[bool] = False
    paper: ClassVar[dict[str, Any]] = {
        "data.shots": "third",
        "backbone.dtype": "float32",
        "train.scope": "defect",
        "train.steps": 5000,
        "train.batch": 2,
        "train.learning_rate": 2e-5,
        "train.weight_decay": 1e-2,
        "train.normal_views": 0.0,
        "generate.count": 500,
        "generate.steps": 50,
        "generate.guidance": 2.0,
    }

    def __init__(self, backbone: Backbone | None, settings: config.Settings) -> None:
        if backbone is None:
            raise ConfigError("dual_branch needs a backbone")
        super().__init__(backbone, settings)
        chosen = self.settings
        self.pairs = [SHARED, *chosen.adapters]
        saim = {"full": 0, "narrow": chosen.saim_rank, "off": None}[chosen.saim]
        ranks = {"rank": chosen.rank, "text_rank": chosen.text_rank}
        self.unet = DualUNet(backbone, self.pairs, saim=saim, zero_start=chosen.zero_start, bcm=chosen.bcm, **ranks)
        self.backbone: Backbone = self.unet.backbone
        self.mask_threshold = MaskThreshold()
        self.windows_at_once = 0
        """How many windows `calibrate` sends through the network together; 0 = as many as it likes."""
        self._saliency: tuple[str, Saliency] | None = None

    def trainable(self) -> dict[str, nn.Module]:
        return {**self.unet.trainable(), "mask": self.mask_threshold}

    def prompts_of(self, defect: str, product: str) -> tuple[str, str]:
        """Return the prompts of the whole picture and of the damage alone; an empty defect type means normal."""
        if not defect:
            return self.settings.normal_prompt, self.settings.normal_prompt
        whole, alone = self.settings.prompt, self.settings.alone_prompt
        return prompts.filled_in(whole, defect, product), prompts.filled_in(alone, defect, product)

    def told(self, defect: str, product: str) -> str | None:
        which = 1 if "{defect}" in self.settings.alone_prompt else 0  # the shorter one, where it names the type
        return None if self.pair_of(defect, product) else self.prompts_of(defect, product)[which]

    def attention(self, defect: str, product: str) -> tuple[Backbone, str]:
        return self.backbone, self.prompts_of(defect, product)[1]

    def pair_of(self, defect: str, product: str) -> int:
        """Return the number of a defect type's pair of adapters."""
        return next((self.pairs.index(n) for n in (f"{product}/{defect}", defect) if n in self.pairs), 0)

    @torch.no_grad()
    def encode(self, shots: Batch) -> Encoded:
        back = self.backbone
        image, mask = shots.image.to(back.device), shots.mask.to(back.device)
        damaged = torch.tensor([float(bool(defect)) for defect in shots.defect], device=back.device).view(-1, 1, 1, 1)
        mask = mask * damaged
        whole, alone = back.encode(torch.cat([image, image * mask])).chunk(2)
        names = list(zip(shots.defect, shots.product, strict=True))
        encoded = {
            "whole": whole,
            "alone": alone,
            "cells": back.latent_mask(mask),
            "mask": packed(mask),
            "damaged": damaged.flatten(),
            "tokens": self._tokens(names),
            "pair": torch.tensor([self.pair_of(*pair) for pair in names]),
        }
        if self.settings.bcm != "off":
            # A hole would tell BCM where the damage is, and when sampling there is none.
            encoded["background"] = back.encode(filled(image, mask))
        return Encoded({name: value.cpu() for name, value in encoded.items()})

    def draw(self, views: Encoded, rng: torch.Generator) -> Encoded:
        count, tokens = len(views), views["tokens"].clone()
        tokens[torch.rand(count, generator=rng) < self.settings.text_dropout] = self.backbone.tokens([None])
        t = torch.randint(len(self.backbone.noise), (count,), generator=rng)
        whole, alone = torch.randn((2 * count, *views["whole"].shape[1:]), generator=rng).chunk(2)
        drawn = {"tokens": tokens, "t": t, "noise_whole": whole, "noise_alone": alone}
        if self.settings.bcm != "off":
            drawn["noise_background"] = torch.randn(views["background"].shape, generator=rng)
        return Encoded({**views.tensors, **drawn})

    def loss_of(self, drawn: Encoded) -> Tensor:
        back, count, device, pair = self.backbone, len(drawn), self.backbone.device, drawn["pair"].tolist()
        t = drawn["t"].to(device)
        clean, noise = (torch.cat([drawn[f"{kind}whole"], drawn[f"{kind}alone"]]).to(device) for kind in ("", "noise_"))
        text, twice, hidden = self.unet.read(drawn["tokens"]), torch.cat([t, t]), None
        if self.settings.bcm != "off":
            background = self.unet.bcm_latent(drawn["background"].to(device))
            noisy = back.noise.add(background, drawn["noise_background"].to(device), t)
            hidden = self.unet.hidden_of(noisy, t, text[:count], pair)
        prediction = self.unet.predict(back.noise.add(clean, noise, twice), twice, text, pair, background=hidden)
        weight = 1 + (self.settings.damage_weight - 1) * drawn["cells"].to(device)
        target = back.noise.target_of(clean, noise, twice)
        return weighted_loss(prediction, target, torch.cat([weight, weight])).view(2, count).mean(0)

    @torch.no_grad()
    def calibrate(self, views: Encoded) -> Iterator[float]:
        # A sampler's grey is not as grey as an encoder's: a threshold learned from clean shots draws too much.
        back, damaged = self.backbone, (views["damaged"] > 0).nonzero().flatten()
        count = min(_CALIBRATION_VIEWS, len(damaged))
        chosen = damaged[torch.linspace(0, len(damaged) - 1, count).long()]
        measured: dict[str, list[Tensor]] = {"pixel": [], "cell": []}
        at_once = min(self.windows_at_once or _CALIBRATION_BATCH, _CALIBRATION_BATCH)
        for first in range(0, count, at_once):
            batch = views.rows(chosen[first : first + at_once])
            start = torch.cat([batch["whole"], batch["alone"]], 1).to(back.device)
            background = (batch["background"] if self.settings.bcm != "off" else batch["whole"]).to(back.device)
            seeds = range(first, first + len(batch))
            asked = batch["tokens"], batch["pair"].tolist(), background, seeds, None
            predict = self.unet.predictor(*asked, guidance=_CALIBRATION_GUIDANCE)
            predict = guided(predict, self.backbone.free_guidance(_CALIBRATION_GUIDANCE))
            _, alone = self.unet.denoised(predict, seeds, background.shape, start=start, **_CALIBRATION)
            grey, grey_image = self.unet.grey(back.pixels(alone))
            measured["cell"].append(overlaps(cell_distance(alone, grey).cpu(), batch["cells"], "cell"))
            distance = pixel_distance(back.decode(alone), grey_image).cpu()
            masks = unpacked(batch["mask"], (distance.shape[2], distance.shape[3]))
            measured["pixel"].append(overlaps(distance, masks, "pixel"))
            done = first + len(batch)
            for scale, rows in measured.items() if done == count else ():
                self.mask_threshold.learn(scale, torch.cat(rows))
            yield done / count

    @torch.no_grad()
    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        back, settings, request = self.backbone, self.settings, self._request(asked)
        against = settings.normal_prompt if settings.against == "normal" else None
        predict = self.unet.predictor(request.tokens, request.pair, request.latent, seeds, against, guidance=guidance)
        predict = guided(predict, back.free_guidance(guidance), settings.guidance_rescale)
        if request.transplant is not None:
            predict = request.transplant.holding(predict, back.noise)
        how: dict[str, Any] = {"strength": settings.strength, "steps": steps, "sampler": settings.sampler}
        whole, alone = self.unet.denoised(predict, seeds, request.latent.shape, start=request.start, **how)
        mask, refused = self._mask(alone, request)
        if request.transplant is None:
            return Generated(back.decode(whole).cpu(), mask.cpu(), None, refused, True)
        image, base = request.transplant.decoded(back, whole, mask)
        return Generated(image.cpu(), mask.cpu(), base.cpu(), refused)

    def _request(self, asked: Condition) -> _Request:
        back, settings = self.backbone, self.settings
        normal, allowed = asked.normal.to(back.device), asked.mask.to(back.device)
        is_control = torch.tensor([not defect for defect in asked.defect], device=back.device).view(-1, 1, 1, 1)
        grey = self.unet.grey(normal.shape[2:])[0]
        transplanted = settings.out == "transplant" or bool(is_control.any())
        read = transplanted or settings.bcm != "off"
        latent = back.encode(normal) if read else grey.expand(len(normal), -1, -1, -1)
        start = sketch = transplant = None
        if settings.start in ("shot", "patches"):
            if asked.sketch is None:
                raise ConfigError(NO_SKETCH)
            picture = asked.sketch.to(back.device)
            # Nobody says here which part of it is damage, but where it differs from the normal window it is.
            changed = tidy(pixel_distance(picture, normal) > _CHANGED, 1)
            whole, alone = back.encode(torch.cat([picture, picture * changed])).chunk(2)
            start, sketch = torch.cat([whole, alone], 1), Sketch(normal, picture, whole, settings.detail)
        if transplanted:
            cells, hold = back.latent_mask(allowed), settings.hold if start is None else 1.0
            transplant = Transplant(latent, grey, cells, is_control, self._shows_damage, sketch, hold)
        pair = [self.pair_of(*names) for names in zip(asked.defect, asked.product, strict=True)]
        return _Request(allowed, is_control, latent, self._tokens(asked.named()), pair, start, transplant)

    def _shows_damage(self, alone: Tensor) -> Tensor:
        """Return bool (B,1,h,w): the cells of the damages alone that have left grey."""
        return cell_distance(alone, self.unet.grey(self.backbone.pixels(alone))[0]) > self.mask_threshold.cell

    def _tokens(self, names: Sequence[tuple[str, str]]) -> Tensor:
        """Return the prompts of (defect type, product) for both branches as token rows int64 (B,2,N)."""
        return torch.stack([self.backbone.tokens(self.prompts_of(*pair)) for pair in names])

    def _mask(self, alone: Tensor, request: _Request) -> tuple[Tensor, tuple[str, ...]]:
        """Return where the damage was drawn, (B,1,H,W) in {0,1}, and why a row must not be used."""
        settings, image = self.settings, self.backbone.decode(alone)
        distance = pixel_distance(image, self.unet.grey(image.shape[2:])[1])
        drawn, refused = self.mask_threshold(distance, request.allowed, settings.smallest, settings.largest)
        if settings.saliency:
            # Read when it is needed: settings that only sampling reads may change after the weights were loaded.
            if self._saliency is None or self._saliency[0] != settings.saliency:
                self._saliency = settings.saliency, Saliency(settings.saliency)
            drawn = refined(drawn, self._saliency[1](image))
        is_control = request.is_control
        reasons = [word if damaged else "" for word, damaged in zip(refused, ~is_control.flatten(), strict=True)]
        return torch.where(is_control, request.allowed, drawn), tuple(reasons)
