# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # A generator of your own, in 40 lines
#
# A generator is one class. This one paints streaks of dirt: it takes from the shots how much darker or brighter
# damage is than its surroundings, and draws soft streaks of that tone into the mask. Where to paint, in what mask
# and with which seed is decided by the run, and outside the mask the photograph stays as it is, whatever the
# class does.

# %%
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import cv2
import numpy as np
import torch
from PIL import Image
from pydantic import Field

import flawsmith as fs
from flawsmith import config
from flawsmith.data import factory
from flawsmith.interfaces import Generator
from flawsmith.testing import check_generator
from flawsmith.types import Condition, Crop, Generated


# %%
class Settings(config.Settings):
    """The settings of Streaks: each has a default and a line of help (in a file, a docstring under it will do)."""

    length: Annotated[
        int, Field(ge=3, le=99, description="Length of a streak in pixels."), config.Affects("generate")
    ] = 25


class Streaks(Generator):
    """Soft streaks of dirt, of the tone that the shots have."""

    Settings: ClassVar[type[config.Settings]] = Settings
    settings: Settings
    needs_backbone = False
    tone = 0.0

    def learn(self, crops: Iterable[Crop]) -> None:
        """Take the mean difference between damage and its surroundings; a crop's picture is in [-1,1]."""
        shown = [(crop.image, crop.mask) for crop in crops if crop.defect and crop.mask.any() and not crop.mask.all()]
        self.tone = float(np.mean([image[mask].mean() - image[~mask].mean() for image, mask in shown] or [-0.4]))

    def learned(self) -> dict[str, torch.Tensor]:
        return {"tone": torch.tensor([self.tone], dtype=torch.float64)}

    def restore(self, learned: Mapping[str, torch.Tensor]) -> None:
        self.tone = float(learned["tone"][0])

    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        painted = []
        for normal, mask, seed in zip(asked.normal, asked.mask, seeds, strict=True):
            rng = np.random.default_rng(seed)
            streaks = rng.random(mask.shape[1:]).astype(np.float32)
            streaks = cv2.blur(streaks, (1, self.settings.length))  # along the columns
            streaks = (streaks - streaks.min()) / np.ptp(streaks)
            painted.append(normal + mask * self.tone * torch.from_numpy(0.5 + streaks))
        return Generated(torch.stack(painted).clamp(-1, 1), asked.mask)


# %% [markdown]
# ## Hold it to the contract
#
# The checks ask what every generator promises: the same bytes from the same seeds, other pictures from other
# seeds, nothing outside the mask, the same pictures after saving and loading, and so on. A check that fails says
# in a sentence what is wrong.

# %%
check_generator(Streaks, fs.Backbone.load("builtin"))  # which it does not touch

# %% [markdown]
# ## Use it
#
# The variable names the plug-in; in a package of your own an entry point does that
# ([CONTRIBUTING](../../CONTRIBUTING.md)).

# %%
os.environ["FLAWSMITH_PLUGINS"] = "generators.streaks=__main__:Streaks"
folder = Path(tempfile.mkdtemp())
factory.write_dataset(folder / "photographs", "magnet", ["pores"], normals=12, per_defect=6, seed=3, size=192)
settings = {
    "data.root": str(folder / "photographs"),
    "generator.name": "streaks",
    "generate.count": 4,
    "generate.controls": 0,
    "measure.enabled": False,
    "prove.enabled": False,
}
run = fs.Run.create(folder / "run", fs.load_config(None, settings))
fs.run_all(run)
print(len(run.kept()), "samples by", run.record("train")["generator"])

# %%
shots = [folder / "photographs/magnet/test/pores" / f"{number:03d}.png" for number in range(len(run.kept()))]
made = [run.path(sample.image) for sample in run.kept()]
Image.fromarray(np.vstack([np.hstack([np.asarray(Image.open(path)) for path in paths]) for paths in (shots, made)]))

# %% [markdown]
# Shots above, samples below. To know whether they help, let a run prove it: `prove.enabled = true`, with
# `prove.against = ["crop_paste"]` beside it.
