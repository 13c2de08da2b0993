"""Small runs on factory parts for the figures of methods that learn: one set of photographs, a run for each method."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import strip  # it puts flawsmith on the path
from listening import Heard, paint

from flawsmith import Brush
from flawsmith.config import load_config
from flawsmith.data import factory, images
from flawsmith.data.tensors import picture_of
from flawsmith.errors import DataError
from flawsmith.run.folder import Run
from flawsmith.synthesis.distillation.student_run import student_run
from flawsmith.synthesis.train import train

PRODUCT, DEFECTS = "magnet", ("chip", "crack")
SHOTS = 8
SETTINGS: dict[str, Any] = {
    "data.layout": "mvtec",
    "data.shots": SHOTS,
    "prove.enabled": False,
    "train.scope": "all",
    "windows.min_thickness": 0,  # one window, so that a figure shows all that was painted
}
LIGHT = {"train.batch": 4, "train.views": 2}
LEARNING: dict[str, dict[str, Any]] = {
    "controlnet_inpaint": {"train.steps": 60, "train.batch": 8, "train.views": 8},
    "cross_modal": {"train.steps": 0},  # its built-in SGA was trained on factory parts
    "hybrid": {"train.steps": 0},  # its parts are those of the two above
    "dual_branch": {"train.steps": 60, **LIGHT},
    "anomaly_diffusion": {"train.steps": 24, **LIGHT},
    "few_steps": {"train.steps": 30, **LIGHT},
    "prompt_inpaint": {"train.steps": 0},
}
"""How long each learns: as short as shows how it works, not what it can do."""


@dataclass(frozen=True, slots=True)
class Factory:
    """The photographs, and where the runs of the figures lie."""

    folder: Path

    def __post_init__(self) -> None:
        if not self.photographs.exists():
            number = {"normals": 24, "per_defect": SHOTS + 1, "seed": 7, "size": 256}
            factory.write_dataset(self.photographs, PRODUCT, DEFECTS, **number)

    @property
    def photographs(self) -> Path:
        return self.folder / "photographs"

    @property
    def photograph(self) -> Path:
        """A normal part."""
        return self.photographs / PRODUCT / "train" / "good" / "003.png"

    def mask(self, defect: str) -> np.ndarray:
        """Return the mask of a defect that no run learns from, bool (H,W)."""
        return images.read(self.photographs / PRODUCT / "ground_truth" / defect / f"{SHOTS:03d}_mask.png") > 0

    def run(self, generator: str, **settings: Any) -> Run:
        """Return the run of a method, trained."""
        overrides = {**SETTINGS, **LEARNING[generator], "data.root": str(self.photographs), "generator.name": generator}
        overrides |= {f"generator.settings.{name}": value for name, value in settings.items()}
        run = Run.create(self.folder / generator, load_config(None, overrides))
        train(run)
        return run

    def student(self) -> Run:
        """Return the run of a student of `controlnet_inpaint`, trained."""
        run = student_run(self.run("controlnet_inpaint"), self.folder / "few_steps", LEARNING["few_steps"])
        train(run)
        return run

    def painted(self, run: Run, defect: str, loop: Any, seed: int | None = None, **settings: Any) -> Heard:
        """Paint the mask of an unseen defect on a normal part; without a seed the first that leaves something visible.

        Args:
            run: Trained.
            defect: The defect type.
            loop: See `listening.paint`.
            seed: None = the first of six that leaves something visible.
            settings: Of the generator; `steps` of the denoising loop too.
        """
        overrides = {f"generator.settings.{name}": value for name, value in settings.items() if name != "steps"}
        overrides |= {"generate.steps": settings["steps"]} if "steps" in settings else {}
        brush = Brush.open(run, settings=overrides)
        for number in range(6) if seed is None else [seed]:
            try:
                return paint(brush, self.photograph, self.mask(defect), defect, number, product=PRODUCT, loop=loop)
            except DataError:
                continue
        raise SystemExit(f"{run.config.generator.name}: no seed leaves something visible")


def decoded(backbone: Any, latent: Any) -> np.ndarray:
    """Return the picture of a latent (1,C,h,w), uint8 (H,W,3)."""
    return strip.shown(picture_of(backbone.decode(latent)[0].cpu()))
