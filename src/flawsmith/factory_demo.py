"""The main job on factory parts: make a small data set, learn from it, paint, measure, prove, export, report."""

from __future__ import annotations

from pathlib import Path

from flawsmith.config import load_config
from flawsmith.data import factory
from flawsmith.files import write_text
from flawsmith.pipeline import run_all
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress

PRODUCTS: dict[str, tuple[str, ...]] = {
    "magnet": ("crack", "pores", "chip"),
    "steel": ("scratch", "dent", "stain"),
    "screw": ("scratch", "rust"),
}
"""What the demo's production line makes, and what goes wrong there."""

CONFIG = """# The demo's configuration: run it again with `flawsmith run demo/demo.toml --out demo/run`.
seed = 0
[data]
root = "{root}"
layout = "mvtec"
shots = 8
[generator]
name = "controlnet_inpaint"
[generator.settings]
start = "shot"
strength = 0.4
[train]
scope = "all"
steps = 160
views = 10
[generate]
count = 8
controls = 0.5
[measure]
resamples = 100
# Small, so that the demo takes minutes: a proof worth believing has more test pictures, the default judge and sizes.
[prove]
detectors = ["probe"]
size = 128
curve = []
mix = false
resamples = 500
[prove.settings.probe]
steps = 100
places = 2048
views = 4
[prove.settings.patchcore]
memory = 500
draw = 8000
[report]
per_defect = 8
"""


def demo(out: Path) -> Path:
    """Make the data set below OUT/data, run every stage in OUT/run, and return the report's path."""
    data = out / "data"
    missing = [product for product in PRODUCTS if not (data / product).is_dir()]
    with progress("photograph", len(missing), "products") as advance:
        for product in missing:
            factory.write_dataset(
                data, product, PRODUCTS[product], normals=24, per_defect=12, seed=7, size=256, test_normals=8
            )
            advance()
    write_text(out / "demo.toml", CONFIG.format(root=data.as_posix()))
    return run_all(Run.create(out / "run", load_config(out / "demo.toml")))
