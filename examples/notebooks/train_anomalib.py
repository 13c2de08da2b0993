# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     name: python3
# ---

# %% [markdown]
# # Train Anomalib on the samples
#
# It needs the extra `anomalib`. A model of Anomalib that learns from damage is trained on samples, and tested on
# real defects that the run kept for that. Everything here is as small as it can be: the figures show that it
# works, not what it is worth ([Anomalib](../../docs/anomalib.md) has measurements).

# %%
import logging
import tempfile
import warnings
from pathlib import Path

from anomalib.engine import Engine
from anomalib.models import Supersimplenet

import flawsmith as fs
from flawsmith.data import factory
from flawsmith.integrations.anomalib import DataModule, backbone

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)
folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A run with samples

# %%
factory.write_dataset(
    folder / "photographs", "tile", ["crack", "stain"], normals=24, per_defect=8, seed=1, size=128, test_normals=6
)
settings = {
    "data.root": str(folder / "photographs"),
    "data.shots": 4,
    "generate.count": 12,
    "measure.enabled": False,
}
run = fs.Run.create(folder / "run", fs.load_config(None, settings))
fs.train(run)
fs.generate(run)
print(len(run.kept()), "samples and", len(run.controls()), "negative controls")

# %% [markdown]
# ## Training
#
# The data module hands samples and shots over as anomalous, with their masks. The backbone lies beside flawsmith,
# so no hub is asked.

# %%
pictures = DataModule(run)
model = Supersimplenet(backbone=backbone(), layers=["stride8", "stride16"], supervised=True)
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
engine = Engine(max_epochs=1, default_root_dir=folder / "results", accelerator="cpu", **quiet)
engine.fit(model, datamodule=pictures)
print(len(pictures.train_data), "pictures to learn from,", len(pictures.test_data), "real ones to test on")

# %% [markdown]
# ## Test on real defects

# %%
(figures,) = engine.test(model, datamodule=pictures, verbose=False)
print("measured on real defects:", ", ".join(sorted(figures)))
