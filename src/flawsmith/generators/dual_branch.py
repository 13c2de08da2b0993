"""DualAnoDiff: two branches of one frozen diffusion model make the whole picture and the damage alone, together.

Idea: one branch makes a damaged window, the other the damage alone on mid-grey; both are the same frozen UNet with
low-rank changes of their own, and attention at each position (SAIM) keeps them in step. So the mask need not be asked
for: it is where the second branch leaves mid-grey.

Paper: "Dual-Interrelated Diffusion Model for Few-Shot Anomaly Image Generation", Jin et al., CVPR 2025.
From the paper and its authors' code: LoRA of rank 32 on q, k, v and out of every attention, a set a branch; SAIM after
the output projection; one timestep for both branches and independent noise; the target of the second branch, picture x
mask on mid-grey; two prompts; plain squared error; LoRA of the text encoder (here an option); BCM with `bcm = "paper"`.
Their values: saim = "full", zero_start = false, text_dropout = 0, prompt = "a vfx with sks", alone_prompt = "sks",
text_rank = 32, out = "whole", train.scope = "defect type", train.learning_rate = 2e-5, train.normal_views = 0, guidance 2.5.
Ours, because it serves small data or small machines: a narrow SAIM that starts from nothing; prompts with the defect
type, so that one model serves many defect types, and SAIM shared by them; normal parts in training, whose second branch
stays grey; text dropout; DPM-Solver++; the mask by distance to grey, at a threshold learned from shots made half anew
(theirs: U^2-Net); an inpainting UNet fed with the mask everywhere and a grey picture, since all is to be made; BCM's
background, which is the window with the damage filled from round it (theirs: the object cut out by U^2-Net); `bcm = "scaled"`; the
start from a re-posed shot; and `out = "transplant"`: from `hold` on, the clean picture that each step implies is taken
from the real photograph wherever the second branch shows no damage, so that damage grows into a real background.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from flawsmith.config import Settings as BaseSettings
from flawsmith.errors import ConfigError
from flawsmith.interfaces import Generator
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import Predict, denoise, guided, stacked_noise, weighted_loss
from flawsmith.nn.inpaint import filled, prompt_fields, worded
from flawsmith.nn.methods.lora import Rows, adapted_words
from flawsmith.nn.methods.mask_threshold import (
    MaskThreshold,
    cell_distance,
    overlaps,
    packed,
    pixel_distance,
    tidy,
    unpacked,
)
from flawsmith.nn.methods.saim_bcm import Branches, Pass
from flawsmith.nn.methods.saliency import Saliency, refined
from flawsmith.types import Batch, Condition, Encoded, Generated

SHARED = "shared"
"""The pair of adapters of every defect type that has none of its own."""
_CHANGED = 0.05
"""With start = shot: a sketch that is this far from the normal window is damage there; 2 is the full range."""
_TRIED, _AT_ONCE, _ANEW, _STEPS, _GUIDANCE = 48, 8, 0.5, 12, 2.0
"""How many views tell the thresholds, in batches of what, how much of them is made anew, in how many steps, guided."""


class Settings(BaseSettings):
    """What DualAnoDiff can be told. The module's text lists the paper's values."""

    out: Literal["transplant", "whole"] = "transplant"
    """transplant: the damage on the real photograph, exact outside its mask; whole (the paper's): all synthetic."""
    prompt: str = "a photo of a {defect}"
    """The words of the whole picture; {defect} and {product} are filled in. The paper's: "a vfx with sks"."""
    alone_prompt: str = "{defect}"
    """The words of the damage alone. The paper's: "sks"."""
    normal_prompt: str = "a photo of sound surface"
    """The words of a normal picture, whose second branch is grey."""
    against: Literal["nothing", "normal"] = "nothing"
    """What guidance leads away from: no words (the paper's), or the words for normal."""
    adapters: list[str] = []
    """Kinds (`crack`) or `product/defect type` that get a pair of adapters of their own; all others share one."""
    rank: Annotated[int, Field(ge=1, le=512)] = 32
    """Rank of the changes of each branch."""
    text_rank: Annotated[int, Field(ge=0, le=512)] = 0
    """Rank of the text encoder's changes; 0 = it stays frozen. The paper's: 32."""
    saim: Literal["narrow", "full", "off"] = "narrow"
    """SAIM between the branches: full (the paper's, 5 matrices of full width a layer), narrow, or none."""
    saim_rank: Annotated[int, Field(ge=1, le=1280)] = 64
    """Width of the narrow exchange."""
    zero_start: bool = True
    """True: at first nothing is exchanged; False (the paper's): the exchange starts at random."""
    bcm: Literal["off", "scaled", "paper"] = "off"
    """Show the background to the whole picture's self-attention: scaled (mended, one pass a background), or paper."""
    text_dropout: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of training samples without words, which guidance needs; the paper's: 0."""
    damage_weight: Annotated[float, Field(ge=1, le=100)] = 1.0
    """Loss weight of damaged cells; 1 = plain squared error (the paper's)."""
    hold: Annotated[float, Field(ge=0, le=1)] = 0.8
    """With out = transplant: from which noise level down the real background is held; 1 = all the way."""
    start: Literal["noise", "shot"] = "noise"
    """Make both branches from noise (the paper's), or from a re-posed shot, whose structure then survives."""
    strength: Annotated[float, Field(gt=0, le=1)] = 0.7
    """With start = shot: how much is made anew; 1 = everything."""
    detail: Annotated[float, Field(ge=0, le=1)] = 1.0
    """With start = shot: how much of what the autoencoder loses (grain, colour, hairlines) is given back."""
    smallest: Annotated[float, Field(ge=0, lt=1)] = 0.001
    """Pieces of the drawn mask below this share of the window are dropped; nothing left = refused as empty."""
    largest: Annotated[float, Field(gt=0, le=1)] = 0.5
    """A drawn mask above this share of the window is refused as overflow."""
    saliency: str = ""
    """An ONNX file of U^2-Net or its kin, to trim the drawn mask by what it finds salient; empty = none."""
    sampler: Literal["dpm", "ddim"] = "dpm"
    """DPM-Solver++ 2M, or DDIM; the paper's is PLMS with 100 steps."""

    @field_validator("prompt", "alone_prompt")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        return prompt_fields(value)

    @field_validator("adapters")
    @classmethod
    def _own_names(cls, value: list[str]) -> list[str]:
        if len({SHARED, *value}) <= len(value) or any(not name or "." in name for name in value):
            raise ValueError(f"each name once, not empty, without a dot, and none of them {SHARED!r}")
        return value


DualBranchSettings = Settings


class DualBranch(Generator):
    """See the module's text. Rows of a batch: the whole pictures first, then the damages alone, in the same order."""

    Settings: ClassVar[type[BaseSettings]] = Settings
    needs_mask: ClassVar[bool] = False
    sampling_only: ClassVar[frozenset[str]] = frozenset(
        {"out", "against", "hold", "start", "strength", "detail", "smallest", "largest", "saliency", "sampler"}
    )
    settings: DualBranchSettings

    def __init__(self, backbone: Backbone | None, settings: BaseSettings) -> None:
        if backbone is None:
            raise ConfigError("dual_branch needs a backbone")
        own = backbone.fork()
        super().__init__(own, settings)
        self.backbone: Backbone = own
        told = self.settings
        self.pairs = [SHARED, *told.adapters]
        self.branches = Branches(
            own.unet,
            [f"{name}/{branch}" for name in self.pairs for branch in ("whole", "alone")],
            rank=told.rank,
            exchange={"full": 0, "narrow": told.saim_rank, "off": None}[told.saim],
            zero_start=told.zero_start,
            backdrop={"off": None, "paper": 0.0, "scaled": 0.1}[told.bcm],
        ).to(own.device)
        self.words: nn.ModuleDict | None = None
        if told.text_rank:
            own.text_encoder, self.words = adapted_words(own.text_encoder, told.text_rank)
            self.words.to(own.device)
        self.drawn = MaskThreshold()
        self._saliency: tuple[str, Saliency] | None = None
        self._read: dict[tuple[int, ...], Tensor] = {}
        self._greys: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def trainable(self) -> dict[str, nn.Module]:
        parts: dict[str, nn.Module] = {"adapters": self.branches.changes, "mask": self.drawn}
        others = {"exchange": self.branches.exchanges, "background": self.branches.backdrops, "words": self.words}
        return parts | {name: part for name, part in others.items() if part is not None and len(part)}

    def texts(self, defect: str, product: str) -> tuple[str, str]:
        """Return the prompts of the whole picture and of the damage alone; an empty defect type means normal."""
        if not defect:
            return self.settings.normal_prompt, self.settings.normal_prompt
        whole, alone = (worded(one, defect, product) for one in (self.settings.prompt, self.settings.alone_prompt))
        return whole, alone

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
        named = list(zip(shots.defect, shots.product, strict=True))
        seen = {
            "whole": whole,
            "alone": alone,
            "cells": back.latent_mask(mask),
            "mask": packed(mask),
            "damaged": damaged.flatten(),
            "tokens": torch.stack([back.tokens(self.texts(*names)) for names in named]),
            "pair": torch.tensor([self.pair_of(*names) for names in named]),
        }
        if self.settings.bcm != "off":
            seen["ground"] = back.encode(filled(image, mask))
        return Encoded({name: value.cpu() for name, value in seen.items()})

    def loss(self, seen: Encoded, rng: torch.Generator) -> Tensor:
        back, count, place = self.backbone, len(seen), self.backbone.device
        tokens = seen["tokens"].clone()
        silent = torch.rand(count, generator=rng) < self.settings.text_dropout
        tokens[silent] = back.tokens([""])
        t = torch.randint(len(back.noise), (count,), generator=rng).to(place)
        clean = torch.cat([seen["whole"], seen["alone"]]).to(place)
        fresh = torch.randn(clean.shape, generator=rng).to(place)
        text = self._states(tokens.transpose(0, 1).flatten(0, 1))
        pair = [int(p) for p in seen["pair"]]
        both = torch.cat([t, t])
        noisy = back.noise.add(clean, fresh, both)
        now = Pass(_rows_of(pair))
        if self.settings.bcm != "off":
            ground = self._ground_latent(seen["ground"].to(place))
            veiled = back.noise.add(ground, torch.randn(ground.shape, generator=rng).to(place), t)
            now.ground = self._background(veiled, t, text[:count], pair, folded=False)
        said = self._predict(noisy, both, text, now, folded=False)
        weight = 1 + (self.settings.damage_weight - 1) * seen["cells"].to(place)
        truth = back.noise.truth(clean, fresh, both)
        return weighted_loss(said, truth, torch.cat([weight, weight])).view(2, count).mean(0)

    @torch.no_grad()
    def calibrate(self, seen: Encoded) -> Iterator[float]:
        # A sampler's grey is not as grey as an encoder's: a threshold learned from clean shots draws too much.
        back, damaged = self.backbone, (seen["damaged"] > 0).nonzero().flatten()
        chosen = damaged[torch.linspace(0, len(damaged) - 1, min(_TRIED, len(damaged))).long()]
        found: dict[str, list[Tensor]] = {"pixel": [], "cell": []}
        for first in range(0, len(chosen), _AT_ONCE):
            some = seen.rows(chosen[first : first + _AT_ONCE])
            start = torch.cat([some["whole"], some["alone"]], 1).to(back.device)
            ground = (some["ground"] if self.settings.bcm != "off" else some["whole"]).to(back.device)
            seeds = range(first, first + len(some))
            walk = guided(self._walker(some["tokens"], some["pair"].tolist(), ground, seeds, ""), _GUIDANCE)
            _, alone = self._denoised(walk, seeds, ground, start, _ANEW, steps=_STEPS, sampler="dpm")
            grey, grey_image = self._grey(self._like(start))
            found["cell"].append(overlaps(cell_distance(alone, grey).cpu(), some["cells"], "cell"))
            far = pixel_distance(back.decode(alone), grey_image).cpu()
            found["pixel"].append(overlaps(far, unpacked(some["mask"], (far.shape[2], far.shape[3])), "pixel"))
            done = min(first + _AT_ONCE, len(chosen))
            for defect, rows in found.items() if done == len(chosen) else ():
                self.drawn.learn(defect, torch.cat(rows))
            yield done / len(chosen)

    @torch.no_grad()
    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        back, told = self.backbone, self.settings
        normal, allowed = asked.normal.to(back.device), asked.mask.to(back.device)
        grey, grey_image = self._grey(normal)
        is_control = torch.tensor([not defect for defect in asked.defect], device=back.device).view(-1, 1, 1, 1)
        transplant = told.out == "transplant" or bool(is_control.any())
        known = grey.expand(len(normal), -1, -1, -1)
        if transplant or told.bcm != "off":
            known = back.encode(normal)
        start, sketch = self._start(asked, normal)
        tokens = torch.stack([back.tokens(self.texts(*names)) for names in asked.named()])
        pair = [self.pair_of(*names) for names in zip(asked.defect, asked.product, strict=True)]
        silent = None if guidance == 1.0 else told.normal_prompt if told.against == "normal" else ""
        walk = guided(self._walker(tokens, pair, known, seeds, silent), guidance)
        if transplant:
            free = back.latent_mask(allowed)
            walk = self._held(walk, known, grey, free, is_control, 1.0 if start is not None else told.hold)
        whole, alone = self._denoised(walk, seeds, known, start, told.strength, steps=steps, sampler=told.sampler)
        mask, refused = self._mask(back.decode(alone), grey_image, allowed, is_control)
        if not transplant:
            return Generated(back.decode(whole).cpu(), mask.cpu(), None, refused, True)
        cells = max_pool2d(back.latent_mask(mask), 3, stride=1, padding=1)
        image, base = back.decode(torch.cat([cells * whole + (1 - cells) * known, known])).chunk(2)
        if start is not None and sketch is not None and told.detail > 0:
            # What a round trip through the autoencoder takes from the sketch and from the is_control window is known.
            image = (image + told.detail * (sketch - back.decode(start[:, : back.latent_channels]))).clamp(-1, 1)
            base = base + told.detail * (normal - base)
        return Generated(image.cpu(), mask.cpu(), base.cpu(), refused)

    def _denoised(
        self, walk: Predict, seeds: Sequence[int], like: Tensor, start: Tensor | None, strength: float, **how: Any
    ) -> tuple[Tensor, Tensor]:
        """Return the latents of the whole pictures and of the damages alone, each of the size of `like`."""
        back, shape = self.backbone, (2 * self.backbone.latent_channels, *like.shape[2:])
        anew = 1.0 if start is None else strength
        latent = denoise(walk, back.noise, seeds, shape, start=start, strength=anew, device=back.device, **how)
        whole, alone = latent.chunk(2, dim=1)
        return whole, alone

    def _walker(
        self, tokens: Tensor, pair: list[int], known: Tensor, seeds: Sequence[int], silent: str | None
    ) -> Predict:
        """Return the network with words (guided away from `silent`) and background bound; it takes latent pairs."""
        if silent is not None:
            pair, tokens = pair * 2, torch.cat([self.backbone.tokens([silent]).expand_as(tokens), tokens])
        text = self._states(tokens.transpose(0, 1).flatten(0, 1))
        self.branches.fold(self.backbone.dtype, merge=len(self.pairs) == 1)
        rows, kept = _rows_of(pair), dict[str, tuple[Tensor, Tensor]]()
        behind = self._behind(known, text[: len(pair)], pair, seeds)

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            now = Pass(rows, words=kept, ground=behind(t))
            said = self._predict(torch.cat(latent.chunk(2, dim=1)), torch.cat([t, t]), text, now, folded=True)
            return torch.cat(said.chunk(2), dim=1)

        return predict

    def _behind(
        self, known: Tensor, text: Tensor, pair: list[int], seeds: Sequence[int]
    ) -> Callable[[Tensor], dict[str, Tensor] | None]:
        """Return what gives BCM's view of the photographs at a timestep: len(pair) rows a self-attention."""
        noise, place, count = self.backbone.noise, self.backbone.device, len(known)
        if self.settings.bcm == "off":
            return lambda t: None
        ground = self._ground_latent(known)
        if self.settings.bcm == "paper":  # noise of its own in every row and step; grey behind the wordless half
            rng = torch.Generator().manual_seed(int(seeds[0]) * 2 + 1)
            if len(pair) > count:
                grey = self._ground_latent(self._grey(self._like(known))[0]).expand_as(ground)
                ground = torch.cat([grey, ground])

            def fresh(t: Tensor) -> dict[str, Tensor]:
                veil = torch.randn(ground.shape, generator=rng).to(place)
                return self._background(noise.add(ground, veil, t), t, text, pair, folded=True)

            return fresh
        # One noise for all: then rows with the same photograph, words and adapters share one pass, and so do the
        # worded half of a batch (which comes last) and the wordless one.
        first: dict[tuple[bytes, bytes, int], int] = {}
        alike = []
        for row, said in enumerate(range(len(pair) - count, len(pair))):
            content = (known[row].cpu().numpy().tobytes(), text[said].detach().cpu().numpy().tobytes(), pair[said])
            first.setdefault(content, said)
            alike.append(list(first).index(content))
        chosen = torch.tensor(list(first.values()), device=place)
        spread = torch.tensor(alike * (len(pair) // count), device=place)
        veil = stacked_noise([0], tuple(known.shape[1:])).to(place)

        def shared(t: Tensor) -> dict[str, Tensor]:
            one = t[: len(chosen)]
            veiled = noise.add(ground[chosen - (len(pair) - count)], veil, one)
            seen = self._background(veiled, one, text[chosen], [pair[int(i)] for i in chosen], folded=True)
            return {name: part[spread] for name, part in seen.items()}

        return shared

    def _held(self, walk: Predict, known: Tensor, grey: Tensor, free: Tensor, normal: Tensor, hold: float) -> Predict:
        """Hold what is clear already: grey where no damage may lie, the photograph where the damage does not show."""
        noise = self.backbone.noise

        def held(latent: Tensor, t: Tensor) -> Tensor:
            whole, alone = noise.clean(latent, walk(latent, t), t).chunk(2, dim=1)
            alone = torch.where((free > 0) & ~normal, alone, grey)
            seen = max_pool2d((cell_distance(alone, grey) > self.drawn.cell).float(), 3, stride=1, padding=1) * free
            early = t.view(-1, 1, 1, 1) > hold * len(noise)
            cells = torch.where(early | normal, free, seen)
            return noise.saying(latent, torch.cat([cells * whole + (1 - cells) * known, alone], 1), t)

        return held

    def _mask(self, alone: Tensor, grey: Tensor, allowed: Tensor, normal: Tensor) -> tuple[Tensor, tuple[str, ...]]:
        """Return where the damage was drawn, (B,1,H,W) in {0,1}, and why a row must not be used."""
        told = self.settings
        found, refused = self.drawn(pixel_distance(alone, grey), allowed, told.smallest, told.largest)
        if told.saliency:
            # Read when it is needed: settings that only sampling reads may change after the weights were loaded.
            if self._saliency is None or self._saliency[0] != told.saliency:
                self._saliency = told.saliency, Saliency(told.saliency)
            found = refined(found, self._saliency[1](alone))
        asked = [word if row else "" for word, row in zip(refused, ~normal.flatten(), strict=True)]
        return torch.where(normal, allowed, found), tuple(asked)

    def _start(self, asked: Condition, normal: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the latent pair (B,2C,h,w) of the re-posed shot, and its picture; None to start from noise."""
        if self.settings.start == "noise":
            return None, None
        if asked.sketch is None:
            raise ConfigError('generator.settings.start = "shot" needs masks from shots; set generate.masks = "shots"')
        sketch = asked.sketch.to(normal.device)
        # Which of it is damage nobody says here, but where it differs from the normal window it is.
        changed = tidy(pixel_distance(sketch, normal) > _CHANGED, 1)
        return torch.cat(self.backbone.encode(torch.cat([sketch, sketch * changed])).chunk(2), dim=1), sketch

    def _predict(self, noisy: Tensor, t: Tensor, text: Tensor, now: Pass, *, folded: bool) -> Tensor:
        """Run the UNet on rows; an inpainting one is told that everything is to be made."""
        mask = masked = None
        if self.backbone.inpaints:
            mask = torch.ones_like(noisy[:, :1])
            masked = self._grey(self._like(noisy))[0].expand_as(noisy)
        with self.branches.passing(now, folded=folded):
            return self.backbone.predict(noisy, t, text, mask=mask, masked=masked)

    def _background(
        self, veiled: Tensor, t: Tensor, text: Tensor, pair: Sequence[int], *, folded: bool
    ) -> dict[str, Tensor]:
        """Return what enters each self-attention when the UNet, as the whole picture's branch, sees a background."""
        kept: dict[str, Tensor] = {}
        now = Pass(Rows.of([2 * number for number in pair]), exchange=False, keep=kept)
        self._predict(veiled, t, text, now, folded=folded)
        return kept

    def _ground_latent(self, latent: Tensor) -> Tensor:
        """Return the latent that BCM sees; the paper's code leaves out the autoencoder's scale."""
        scale = float(self.backbone.vae.config.scaling_factor)
        return latent / scale if self.settings.bcm == "paper" else latent

    def _like(self, latent: Tensor) -> Tensor:
        """Return a picture of a latent's size that holds nothing."""
        height, width = (side * self.backbone.factor for side in latent.shape[2:])
        return torch.zeros((1, 3, height, width), device="meta")

    @torch.no_grad()
    def _grey(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mid-grey of a window's size as latent (1,C,h,w), and decoded again (1,3,H,W)."""
        shape = tuple(like.shape[2:])
        if shape not in self._greys:
            with torch.autocast(self.backbone.device.type, enabled=False):
                latent = self.backbone.encode(torch.zeros(1, 3, *shape))
                self._greys[shape] = latent, self.backbone.decode(latent)
        return self._greys[shape]

    def _states(self, tokens: Tensor) -> Tensor:
        """Return text float32 (R,T,D) of token rows int64 (R,T); each distinct row is read once."""
        distinct, place = tokens.unique(dim=0, return_inverse=True)
        encoder, device = self.backbone.text_encoder, self.backbone.device
        if self.words is not None:
            return encoder(distinct.to(device)).last_hidden_state.float()[place.to(device)]
        keys = [tuple(row.tolist()) for row in distinct]
        for key, row in zip(keys, distinct, strict=True):
            if key not in self._read:
                with torch.no_grad(), torch.autocast(device.type, enabled=False):
                    self._read[key] = encoder(row[None].to(device)).last_hidden_state.float()[0]
        return torch.stack([self._read[key] for key in keys])[place.to(device)]


def _rows_of(pair: Sequence[int]) -> Rows:
    """Return the adapters of a batch of pairs: all first branches, then all second ones."""
    return Rows.of([2 * number for number in pair] + [2 * number + 1 for number in pair])
