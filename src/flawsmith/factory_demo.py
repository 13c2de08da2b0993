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
    "screw": ("rust", "chip", "contamination"),
}
"""What the demo's production line makes, a surface and a part, and what goes wrong there."""
SHOTS = 8
"""Photographs of a defect type to learn from."""
TESTS = 48
"""Photographs of a defect type to test on; the proof drops a few that look like second photographs of a shot."""
NORMALS = 100
"""Normal photographs to learn from and paint on: a fifth of them can set a threshold for 5 % false alarms."""
TEST_NORMALS = 40
"""Normal photographs to test on."""

CONFIG = """# The demo's configuration: run it again with `flawsmith run demo/demo.toml --out demo/run`.
seed = 0
[data]
root = "{root}"
layout = "mvtec"
shots = {shots}
[generator]
name = "patch_synthesis"
[train]
scope = "all"
steps = 160
batch = 8
views = 8
# On the built-in backbone four steps are worth what twenty are (docs/backbones.md, few steps).
[generate]
count = 16
controls = 0.5
steps = 4
[measure]
resamples = 100
# The default judge, smaller, so that the demo takes minutes: your own proof takes the default sizes. A diffusion method
# stands beside it, made from the same plan with its default settings; the steps below [train] are for it.
[prove]
against = ["crop_paste", "controlnet_inpaint"]
size = 160
curve = []
mix = false
[prove.settings.memory_probe]
memory = 500
draw = 8000
heads = 2
[prove.settings.memory_probe.head]
steps = 100
places = 1024
views = 4
[prove.settings.patchcore]
memory = 500
draw = 8000
[report]
per_defect = 8
"""


def demo(out: Path) -> Path:
    """Make the data set below OUT/photographs, run every stage in OUT/run, and return the report's path."""
    data = out / "photographs"
    # As many files as there will be: what a killed demo left is made again.
    whole = {product: NORMALS + TEST_NORMALS + 2 * len(PRODUCTS[product]) * (SHOTS + TESTS) for product in PRODUCTS}
    missing = [product for product in PRODUCTS if len([*(data / product).rglob("*.png")]) < whole[product]]
    with progress("photograph", len(missing), "products") as advance:
        for product in missing:
            factory.write_dataset(
                data,
                product,
                PRODUCTS[product],
                normals=NORMALS,
                per_defect=SHOTS + TESTS,
                seed=7,
                size=256,
                test_normals=TEST_NORMALS,
            )
            advance()
    write_text(out / "demo.toml", CONFIG.format(root=data.as_posix(), shots=SHOTS))
    return run_all(Run.create(out / "run", load_config(out / "demo.toml")))
