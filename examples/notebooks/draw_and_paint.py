# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Draw a mask and paint
#
# One defect, into a mask that you drew, on one photograph. No run is needed: the generator works straight from a
# folder of photographs.

# %%
import tempfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import flawsmith as fs
from flawsmith.data import factory

folder = Path(tempfile.mkdtemp())
factory.write_dataset(folder, "leather", ["cut", "stain"], normals=6, per_defect=5, seed=2, size=224)
photograph = np.asarray(Image.open(folder / "leather/train/good/000.png"))

# %% [markdown]
# ## Draw
#
# A mask is a bool array of the photograph's size, or a picture of that size from any drawing program. This one is
# a hook.

# %%
drawn = np.zeros(photograph.shape[:2], np.uint8)
cv2.ellipse(drawn, (112, 105), (62, 48), 0, 20, 250, 255, 7)
Image.fromarray(drawn)

# %% [markdown]
# ## Paint
#
# A brush opens the folder once. Each seed gives another cut; the same seed gives the same bytes.

# %%
brush = fs.Brush.open(folder, settings={"data.layout": "mvtec"})
painted = [brush.paint(photograph, drawn > 0, "cut", seed=seed) for seed in range(3)]
again = brush.paint(photograph, drawn > 0, "cut", seed=0)
assert np.array_equal(again.picture, painted[0].picture)
Image.fromarray(np.hstack([photograph, *(one.picture for one in painted)]))

# %% [markdown]
# ## What came about
#
# The mask that comes back marks what visibly changed. It lies inside what was drawn, and outside it every pixel
# is the photograph's.

# %%
one = painted[0]
assert not (one.mask & (drawn == 0)).any()
assert np.array_equal(one.picture[~one.mask], photograph[~one.mask])
print(f"{one.mask.sum()} of {(drawn > 0).sum()} drawn pixels changed visibly")
print(one.provenance.generator, one.provenance.defect, "seed", one.provenance.seed)

# %% [markdown]
# ## Another generator, another mask

# %%
blot = np.zeros_like(drawn)
cv2.ellipse(blot, (110, 120), (55, 30), 25, 0, 360, 255, -1)
generators = ("patch_synthesis", "crop_paste")
stains = [fs.Brush.open(folder, generator=name).paint(photograph, blot > 0, "stain") for name in generators]
Image.fromarray(np.hstack([np.repeat(blot[..., None], 3, axis=2), *(one.picture for one in stains)]))

# %% [markdown]
# `one.write("painted/001.png")` writes picture, mask and provenance, as `flawsmith paint` does. In the browser:
# `flawsmith studio`.
