"""Prompt inpainting: words alone. A frozen model is asked for the defect by name; nothing is trained, no shot is read.

Idea: a large model knows what "a scratch" is, but rare damage in a small place is what it tends to leave out. So while
it inpaints, the noisy latent is moved a little, in each early step, to where the places inside the mask attend more to
the words that name the defect.

Paper: "Unseen Visual Anomaly Generation" (AnomalyAny), Sun et al., CVPR 2025, for plain Stable Diffusion. From it: the
start from the noised normal picture, at 0.75 of the noise; the latent's gradient step that raises the attention of the
defect's words (after Chefer et al., "Attend-and-Excite", SIGGRAPH 2023); descriptions in place of bare names.
Ours: a mask, which says where, by inpainting, so attention is raised inside it (its mean there over all layers) and the
latent moved there alone; a step of a given size whatever the model's gradients, fading with the noise. Left out: the
refinement by CLIP, and the mask read from the attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from flawsmith import config
from flawsmith.config import Affects
from flawsmith.errors import ConfigError
from flawsmith.interfaces import Generator
from flawsmith.nn import prompts
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.diffusion import Predict, Sampler, guided
from flawsmith.nn.inpaint import Known, guided_text, known_of, paint
from flawsmith.nn.methods.attention_maps import grid_of, word_shares
from flawsmith.nn.text import Text
from flawsmith.types import Condition, Generated


class PromptInpaintSettings(config.Settings):
    """The settings of prompt inpainting; all are read when sampling."""

    prompt: Annotated[str, Affects("generate")] = prompts.PROMPT
    """The prompt; {defect} and {product} are filled in. With {product} big models draw a whole one."""
    normal_prompt: Annotated[str, Affects("generate")] = prompts.NORMAL_PROMPT
    """The prompt for a mask that is to be repainted as normal."""
    descriptions: Annotated[dict[str, str], Affects("generate")] = {}
    """What a defect type's name is replaced by in the prompt, e.g. {uneven = "dull uneven patch"}."""
    attention: Annotated[float, Field(ge=0, le=2), Affects("generate")] = 0.1
    """How far a step moves the latent to raise the words' attention in the mask (1 = as far as noise goes); 0 = not."""
    attention_until: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 0.5
    """Down to which share of the noise times the attention is raised."""
    start: Annotated[Literal["normal", "noise"], Affects("generate")] = "normal"
    """Sample from the noised normal window (the paper's) or from noise alone."""
    strength: Annotated[float, Field(gt=0, le=1), Affects("generate")] = 0.75
    """With start = normal: how much is made anew; 1 = everything."""
    sampler: Annotated[Sampler, Affects("generate")] = "dpm"
    """dpm (DPM-Solver++ 2M), ddim, euler or unipc; lcm or tcd for a backbone that was distilled for it."""
    negative_prompt: Annotated[str, Affects("generate")] = ""
    """What guidance leads away from; empty = no text."""
    guidance_rescale: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 0.0
    """How far strong guidance is brought back to the spread of its text alone; 0 = not at all, 1 = wholly."""

    @field_validator("descriptions", mode="before")
    @classmethod
    def _defects_in_composed_form(cls, value: Any) -> Any:
        return config.with_composed_keys(value)

    @field_validator("prompt", "normal_prompt")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        return prompts.checked(value)


class PromptInpaint(Generator):
    """See the module's text. A plain UNet serves as well: the known latent is then held at every step."""

    Settings: ClassVar[type[config.Settings]] = PromptInpaintSettings
    settings: PromptInpaintSettings
    without_shots: ClassVar[Literal["", "new", "always"]] = "new"
    sweep = ("attention", (0.0, 0.1, 0.3))

    def __init__(self, backbone: Backbone | None, settings: config.Settings) -> None:
        if backbone is None:
            raise ConfigError("prompt_inpaint needs a backbone")
        super().__init__(backbone, settings)
        self.backbone: Backbone = backbone

    def words(self, defect: str) -> str:
        """Return what stands for a defect type in the prompt, also behind words of its appearance ("small faint")."""
        known = self.settings.descriptions
        fitting = [name for name in known if defect == name or defect.endswith(f" {name}")]
        name = max(fitting, key=len, default="")
        return (defect.removesuffix(name) + known.get(name, "")).replace("_", " ")

    def prompt(self, defect: str, product: str) -> str:
        """Return the prompt of a defect type; an empty one means normal."""
        settings = self.settings
        return prompts.filled_in(settings.prompt if defect else settings.normal_prompt, self.words(defect), product)

    def told(self, defect: str, product: str) -> str:
        return self.prompt(defect, product)

    def attention(self, defect: str, product: str) -> tuple[Backbone, str]:
        return self.backbone, self.prompt(defect, product)

    @torch.no_grad()
    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        back, settings = self.backbone, self.settings
        known, lines = known_of(back, asked.normal, asked.mask), self._lines(asked)
        prompted, tokens = back.embed(lines), self._tokens(lines, asked.defect)

        def raised(latent: Tensor, t: Tensor) -> Tensor:
            if settings.attention == 0 or int(t[0]) < settings.attention_until * len(back.noise):
                return latent
            return self._raised(latent, t, prompted, known, tokens, guidance)

        return paint(
            back,
            asked,
            known,
            self.predictor(asked, known, guidance),
            seeds,
            steps=steps,
            sampler=settings.sampler,
            start=settings.start,
            strength=settings.strength,
            detail=0.0,
            adjust=raised,
        )

    def predictor(self, asked: Condition, known: Known, guidance: float) -> Predict:
        """Return what `sample` denoises with, but for the raised attention; see `nn.anomaly_maps.words`."""
        back, settings, free = self.backbone, self.settings, self.backbone.free_guidance(guidance)
        text, rows = guided_text(back, self._lines(asked), free, settings.negative_prompt), known.guided(free)

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            return back.predict(latent, t, text, mask=rows.cells, masked=rows.masked, guidance=guidance)

        return guided(predict, free, settings.guidance_rescale)

    def _lines(self, asked: Condition) -> list[str]:
        """Return the prompt of each row."""
        prompt, normal = self.settings.prompt, self.settings.normal_prompt
        words = [f"{words} {self.words(name)}".strip() if name else "" for words, name in _appearances(asked)]
        return [
            prompts.filled_in(prompt if name else normal, name, product)
            for name, product in zip(words, asked.product, strict=True)
        ]

    def _tokens(self, lines: Sequence[str], defects: Sequence[str]) -> Tensor:
        """Return float32 (B,T): each row's share of the tokens that name its defect; a row of zeros names none."""
        back, rows = self.backbone, []
        length = back.embed(lines[:1]).states.shape[1]
        for line, defect in zip(lines, defects, strict=True):
            row = torch.zeros(length)
            if defect and (places := back.text_encoder.positions(line, self.words(defect))):
                row[places] = 1 / len(places)
            rows.append(row)
        return torch.stack(rows).to(back.device)

    def _raised(self, latent: Tensor, t: Tensor, text: Text, known: Known, tokens: Tensor, guidance: float) -> Tensor:
        """Return noisy latents (B,C,h,w) moved inside the mask to where it attends more to the words."""
        back = self.backbone
        with torch.enable_grad():
            moved = latent.detach().float().requires_grad_()
            conditions: dict[str, Any] = {"mask": known.cells, "masked": known.masked, "guidance": guidance}
            with word_shares(back.unet, tokens) as shares:
                back.predict(moved, t, text, **conditions)
            inside = [_inside(share, known.cells) for share in shares]
            aim = torch.stack(inside).mean(0).sum()
            # Half precision loses small gradients, and large ones overflow; their size does not count below.
            for scale in (2.0**16, 1.0) if back.dtype == torch.float16 else (1.0,):
                (gradient,) = torch.autograd.grad(aim * scale, moved, retain_graph=scale > 1)
                if bool(gradient.isfinite().all()):
                    break
        gradient = gradient * known.cells
        size = (gradient.square().flatten(1).sum(1) / (known.cells.flatten(1).sum(1) * latent.shape[1])).sqrt()
        far = self.settings.attention * t.float() / len(back.noise) / size.clamp_min(1e-12)
        return latent + far.view(-1, 1, 1, 1) * gradient


def _appearances(asked: Condition) -> list[tuple[str, str]]:
    """Return (words such as "small faint", defect type) of each row."""
    return list(zip(asked.appearance or ("",) * len(asked), asked.defect, strict=True))


def _inside(share: Tensor, cells: Tensor) -> Tensor:
    """Return the mean (B,) of a layer's shares (B,places) over the places that a latent mask (B,1,h,w) touches."""
    size = int(cells.shape[-2]), int(cells.shape[-1])
    places = adaptive_max_pool2d(cells, grid_of(share.shape[1], size)).flatten(1)
    return (share * places).sum(1) / places.sum(1).clamp_min(1)
