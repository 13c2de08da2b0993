# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # From Python, on factory parts
#
# Photographs, a configuration, samples, an export and a report, in a minute. The command line calls the same
# functions.

# %%
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import flawsmith as fs
from flawsmith.data import factory

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## Photographs
#
# The procedural factory stands in for yours. It writes the layout of MVTec AD: 12 normal surfaces, and 8
# photographs with masks of each of two defect types.

# %%
factory.write_dataset(folder / "photographs", "magnet", ["crack", "chip"], normals=12, per_defect=8, seed=7, size=192)
sorted(path.relative_to(folder).as_posix() for path in folder.rglob("000*.png"))

# %% [markdown]
# ## What was understood
#
# Settings are those of the TOML file, by their dotted names. `check` learns nothing.

# %%
config = fs.load_config(
    None,
    {
        "data.root": str(folder / "photographs"),
        "data.shots": 4,
        "generate.count": 6,
        "generate.controls": 0,
        "measure.enabled": False,
        "prove.enabled": False,  # this page is about making; docs/get-started.md proves
    },
)
findings = fs.check(config)
for facts in findings.defects:
    print(facts.product, facts.defect or "(normal)", "pictures:", facts.pictures, "to learn from:", facts.shots)
print("ready" if findings.ok else findings.errors)

# %% [markdown]
# ## Samples
#
# A run is a folder; every stage skips what is done, so these cells may be run again.

# %%
run = fs.Run.create(folder / "run", config)
fs.train(run)
fs.generate(run)
for sample in run.kept()[:3]:
    print(sample.image, "shows a", sample.defect, "on", sample.normal, "with", sample.area, "damaged pixels")

# %% [markdown]
# Shots above, samples below:


# %%
def row(paths):
    return np.hstack([np.asarray(Image.open(path)) for path in paths])


shots = [
    folder / "photographs/magnet/test" / defect / f"{number:03d}.png"
    for defect in ("crack", "chip")
    for number in (0, 1)
]
made = [run.path(sample.image) for defect in ("crack", "chip") for sample in run.kept() if sample.defect == defect]
Image.fromarray(np.vstack([row(shots), row([*made[:2], *made[-2:]])]))

# %% [markdown]
# ## Outside the mask nothing has changed

# %%
sample = run.kept()[0]
photograph = np.asarray(Image.open(folder / "photographs" / sample.normal))
painted = np.asarray(Image.open(run.path(sample.image)))
mask = np.asarray(Image.open(run.path(sample.mask))) > 0
assert np.array_equal(painted[~mask], photograph[~mask])
print(f"{(~mask).sum()} pixels outside the mask, all of them the photograph's own")

# %% [markdown]
# ## What is handed on

# %%
fs.export(run)
report = fs.report(run)
print(
    report.name,
    *sorted(path.relative_to(run.folder).as_posix() for path in (run.folder / "export/mvtec/magnet").iterdir()),
)
