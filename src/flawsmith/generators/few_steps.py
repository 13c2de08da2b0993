"""Few steps: a student that paints in 4 steps what a trained controlnet_inpaint paints in 20.

Idea: one inpainting UNet, begun as the backbone's, learns by consistency distillation (`nn/distillation`) to say at
once where the guided path of its teacher (UNet and ControlNet) would end, on views of the shots that the teacher
learned from. It is told the words and the mask, also pixel by pixel, so it needs neither ControlNet nor guidance: a
step of it is one network for one row, where a guided step of the teacher is two networks for two. `flawsmith distill
RUN` makes such a run.

Method: Latent Consistency Models (Luo et al. 2023), their sampler `lcm` with it; what differs is in
`nn/distillation/consistency.py`. The student's form (`nn/distillation/student.py`) is ours, and so is the loss weight
outside the mask. Without a teacher's folder the teacher is the backbone itself with the prompt.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from flawsmith import config, registry
from flawsmith.config import Affects
from flawsmith.errors import ConfigError, RunError
from flawsmith.interfaces import Generator
from flawsmith.nn import prompts
from flawsmith.nn.backbone import Backbone, cast
from flawsmith.nn.diffusion import Predict, Sampler, guided
from flawsmith.nn.distillation.consistency import TEACHER_STEPS, distance, drawn_times, earlier
from flawsmith.nn.distillation.student import pixels_of, student_of
from flawsmith.nn.inpaint import Known, known_of, paint
from flawsmith.nn.text import Text
from flawsmith.types import Batch, Condition, Encoded, Generated


class Teacher(Protocol):
    """What a generator has that can be taught from."""

    def encode(self, shots: Batch) -> Encoded:
        """As `Generator.encode`: with `latent`, `masked`, `cells`, `mask` and `tokens`."""

    def guided_predictor(self, views: Encoded, guidance: float) -> Predict:
        """Return what predicts for some views, guided as in sampling."""


class FewStepsSettings(config.Settings):
    """The settings of a student; `flawsmith distill` takes over what the teacher's say."""

    teacher: str = ""
    """The folder weights/ of the run that teaches; empty = the backbone itself, with the prompt."""
    method: str = "controlnet_inpaint"
    """The generator of that run."""
    teaching: dict[str, Any] = {}
    """The teacher's settings of sampling, where they are others than its weights were trained with."""
    guidance: Annotated[float, Field(ge=1.0, le=30.0)] = 3.0
    """Weight of the words in the teacher's steps, which the student takes over; `generate.guidance` is not read."""
    quarter: bool = False
    """True: the student is half as wide as the backbone's UNet, a quarter of its weights."""
    prompt: str = prompts.PROMPT
    """The prompt; {defect} and {product} are filled in."""
    normal_prompt: str = prompts.NORMAL_PROMPT
    """The prompt for a mask that is to be repainted as normal."""
    outside_weight: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Loss weight outside the mask; 1 = as inside, 0 = the mask alone."""
    start: Annotated[Literal["noise", "shot", "patches"], Affects("generate")] = "noise"
    """Sample from noise, from a re-posed shot blended in, or from damage made of patches of shots."""
    strength: Annotated[float, Field(gt=0, le=1), Affects("generate")] = 0.7
    """With start = shot or patches: how much is made anew; 1 = everything."""
    detail: Annotated[float, Field(ge=0, le=1), Affects("generate")] = 1.0
    """With start = shot or patches: how much of what the autoencoder loses (grain, colour, hairlines) is given back."""
    sampler: Annotated[Sampler, Affects("generate")] = "lcm"
    """lcm, what the student is taught for; tcd adds less noise between steps."""

    @field_validator("prompt", "normal_prompt")
    @classmethod
    def _known_fields(cls, value: str) -> str:
        return prompts.checked(value)


class FewSteps(Generator):
    """See the module's text."""

    Settings: ClassVar[type[config.Settings]] = FewStepsSettings
    settings: FewStepsSettings

    def __init__(self, backbone: Backbone | None, settings: config.Settings) -> None:
        if backbone is None:
            raise ConfigError("few_steps needs a backbone")
        super().__init__(backbone, settings)
        self.backbone: Backbone = backbone
        parts = backbone.unet, backbone.latent_channels, backbone.factor
        self.student = student_of(*parts, half=self.settings.quarter).to(backbone.device)
        self._learning = _with_unet(backbone, self.student, torch.float32)
        self._painting: tuple[int, Backbone] | None = None
        self._teacher: Teacher | None = None

    @classmethod
    def starts_from(cls, settings: config.Settings) -> tuple[Path, ...]:
        assert isinstance(settings, FewStepsSettings)
        return tuple(sorted(Path(settings.teacher).rglob("*.safetensors"))) if settings.teacher else ()

    def trainable(self) -> dict[str, nn.Module]:
        return {"student": self.student}

    def prompt(self, defect: str, product: str) -> str:
        """Return the prompt of a defect type; an empty one means normal."""
        return prompts.filled_in(self.settings.prompt if defect else self.settings.normal_prompt, defect, product)

    def told(self, defect: str, product: str) -> str:
        return self.prompt(defect, product)

    def attention(self, defect: str, product: str) -> tuple[Backbone, str]:
        return self._for_painting(), self.prompt(defect, product)

    def encode(self, shots: Batch) -> Encoded:
        taught = self._taught_by().encode(shots)
        tokens = self.backbone.tokens([self.prompt(*pair) for pair in zip(shots.defect, shots.product, strict=True)])
        return Encoded({**taught.tensors, "words": tokens})

    def draw(self, views: Encoded, rng: torch.Generator) -> Encoded:
        t = drawn_times(self.backbone.noise, len(views), rng)
        noise = torch.randn(views["latent"].shape, generator=rng)
        return Encoded({**views.tensors, "t": t, "noise": noise})

    def loss_of(self, drawn: Encoded) -> Tensor:
        back, settings, device = self.backbone, self.settings, self.backbone.device
        latent, masked, cells, t, noise = (
            drawn[name].to(device) for name in ("latent", "masked", "cells", "t", "noise")
        )
        pixels = pixels_of(drawn["mask"].to(device), back.factor)
        text, noisy = back.read(drawn["words"]), back.noise.add(latent, noise, t)

        def end_of(stepped: Tensor, at: Tensor) -> Tensor:
            """Return where the student says that the path from here ends."""
            rows: dict[str, Any] = {"mask": cells, "masked": torch.cat([masked, pixels], 1)}
            return back.noise.clean(stepped, self._learning.predict(stepped, at, text, **rows), at)

        with torch.no_grad():
            stepped, s = self._taken_on(drawn, noisy, t)
            aim = torch.where((s >= 0).view(-1, 1, 1, 1), end_of(stepped, s.clamp_min(0)), stepped)
        weight = settings.outside_weight + (1 - settings.outside_weight) * cells
        return distance(end_of(noisy, t), aim, weight)

    def _taken_on(self, drawn: Encoded, noisy: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return where some steps of the teacher lead from noisy latents, and the times there; below 0 = the end."""
        back, stepped, s = self.backbone, noisy, t
        predict = self._taught_by().guided_predictor(drawn, self.settings.guidance)
        for _ in range(TEACHER_STEPS):
            going, at = (s >= 0).view(-1, 1, 1, 1), s.clamp_min(0)
            moved, before = earlier(back.noise, stepped, predict(stepped, at), at)
            if not back.inpaints:  # as its sampling holds what is known
                latent, noise = (drawn[name].to(back.device) for name in ("latent", "noise"))
                cells, later = drawn["cells"].to(back.device), (before >= 0).view(-1, 1, 1, 1)
                held = torch.where(later, back.noise.add(latent, noise, before.clamp_min(0)), latent)
                moved = cells * moved + (1 - cells) * held
            stepped, s = torch.where(going, moved, stepped), torch.where(s >= 0, before, s)
        return stepped, s

    @torch.no_grad()
    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        back, settings = self._for_painting(), self.settings
        known, text = (
            known_of(back, asked.normal, asked.mask),
            back.embed([self.prompt(*pair) for pair in asked.named()]),
        )
        masked = torch.cat([known.masked, pixels_of(asked.mask.to(back.device), back.factor)], 1)

        def predict(latent: Tensor, t: Tensor) -> Tensor:
            return back.predict(latent, t, text, mask=known.cells, masked=masked)

        return paint(
            back,
            asked,
            known,
            predict,
            seeds,
            steps=steps,
            sampler=settings.sampler,
            start=settings.start,
            strength=settings.strength,
            detail=settings.detail,
        )

    def _for_painting(self) -> Backbone:
        """Return the backbone with the student in its precision; made anew only when the weights have changed."""
        version = sum(parameter._version for parameter in self.student.parameters())
        if self._painting is None or self._painting[0] != version:
            copied = cast(copy.deepcopy(self.student).eval().requires_grad_(False), self.backbone.dtype)
            self._painting = (version, _with_unet(self.backbone, copied, self.backbone.dtype))
        return self._painting[1]

    def _taught_by(self) -> Teacher:
        if self._teacher is None:
            self._teacher = _teacher(self.settings, self.job, self.backbone) if self.settings.teacher else _Words(self)
        return self._teacher


class _Words:
    """The backbone itself as a teacher: an inpainting model with a prompt."""

    def __init__(self, student: FewSteps) -> None:
        self._back, self._student = student.backbone, student

    def encode(self, shots: Batch) -> Encoded:
        known = known_of(self._back, shots.image, shots.mask)
        names = zip(shots.defect, shots.product, strict=True)
        tokens = self._back.tokens([self._student.prompt(*pair) for pair in names])
        return Encoded({**known.tensors(), "mask": shots.mask.cpu().to(torch.uint8), "tokens": tokens})

    def guided_predictor(self, views: Encoded, guidance: float) -> Predict:
        back, free = self._back, self._back.free_guidance(guidance)
        known = Known(*(views[name].to(back.device) for name in ("latent", "masked", "cells"))).guided(free)
        text = back.read(views["tokens"])
        text = text if free == 1.0 else Text.cat([back.embed([None] * len(views)), text])

        def predict(latent: Tensor, at: Tensor) -> Tensor:
            return back.predict(latent, at, text, mask=known.cells, masked=known.masked, guidance=guidance)

        return guided(predict, free)


def _teacher(settings: FewStepsSettings, job: str, backbone: Backbone) -> Teacher:
    """Read the model of a job from the run that teaches.

    Raises:
        ConfigError: its generator cannot be taught from.
        RunError: it has no such model, or one of another backbone.
    """
    plugin = registry.get("generators", settings.method)
    if not hasattr(plugin, "guided_predictor"):
        raise ConfigError(
            f"generator.settings.method: {settings.method} cannot teach few steps, for it is told more than words and "
            "mask; controlnet_inpaint can"
        )
    folder = Path(settings.teacher).joinpath(*job.split("/"))
    if not folder.is_dir():
        raise RunError(f"generator.settings.teacher: {folder} is not there; name the folder weights/ of a trained run")
    teacher: Any = plugin.load(folder, backbone)
    if settings.teaching:
        present = {**teacher.settings.model_dump(mode="json"), **settings.teaching}
        teacher.settings = config.validate(plugin.Settings, present, where="generator.settings.teaching")
    taught: Teacher = teacher
    return taught


def _with_unet(backbone: Backbone, unet: Any, dtype: torch.dtype) -> Backbone:
    """Return a backbone whose UNet is an inpainting student."""
    other = copy.copy(backbone)
    other.unet, other.dtype, other.inpaints = unet, dtype, True
    return other
