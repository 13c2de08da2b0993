"""Do a CPU and a card agree: the same training and the same samples of every generator on both, built-in backbone.

    python benchmarks/suites/devices.py            # on a machine with a CUDA card, about a minute

Each generator is trained for a few steps on the CPU in float32; what it learned paints two windows on the CPU, on the
card in float32 with and without TF32 convolutions (torch's default is with), and on the card in bfloat16 (what
`backbone.dtype = "auto"` takes there). The figures are absolute differences of pixels from the CPU's, of a range of 2:
0.008 is one grey level of 256. The same training is then done on the card: the largest relative difference of a step's
loss.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import torch
from sets import RESULTS

from flawsmith import registry
from flawsmith.files import write_json
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.trainer import Trainer
from flawsmith.run.manifest import machine
from flawsmith.testing import example_batch, example_condition

GENERATORS = ("controlnet_inpaint", "cross_modal", "dual_branch", "hybrid")
BATCH = 4


def trained(name: str, back: Backbone, steps: int) -> tuple[Any, list[float]]:
    """Return a generator after some steps on one batch, and their losses."""
    plugin = registry.get("generators", name)
    torch.manual_seed(0)
    generator = plugin(back, plugin.Settings())
    views = generator.encode(example_batch(back.size, BATCH))
    trainer = Trainer(
        generator.trainable(),
        lambda _, rng: generator.loss(views.rows(torch.randint(BATCH, (BATCH,), generator=rng)), rng),
        steps=steps,
        learning_rate=1e-4,
        autocast=back.dtype,
    )
    for _ in trainer.run():
        pass
    return generator, trainer.losses


def compared(name: str, backs: dict[str, Backbone], args: argparse.Namespace) -> dict[str, Any]:
    """Return how far the card's pictures and losses are from the CPU's."""
    generator, losses = trained(name, backs["cpu"], args.steps)
    asked = example_condition(backs["cpu"].size, 2)
    row: dict[str, Any] = {}

    def painted(one: Any) -> torch.Tensor:
        image: torch.Tensor = one.sample(asked, [1, 2], steps=args.paint_steps, guidance=3.0).image
        return image

    wanted = painted(generator)
    with tempfile.TemporaryDirectory() as folder:
        generator.save(Path(folder))
        for way, (kind, tf32) in {
            "float32": ("float32", True),
            "float32 without TF32": ("float32", False),
            "bfloat16": ("bfloat16", True),
        }.items():
            torch.backends.cudnn.allow_tf32 = tf32
            back = backs[kind]
            difference = (painted(type(generator).load(Path(folder), back)) - wanted).abs()
            _, others = trained(name, back, args.steps)
            row[way] = {
                "pixels_max": round(float(difference.max()), 5),
                "pixels_mean": round(float(difference.mean()), 6),
                "losses_relative_max": round(max(abs(a - b) / a for a, b in zip(losses, others, strict=True)), 6),
            }
    return row


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--steps", type=int, default=8, help="of training")
    parser.add_argument("--paint-steps", type=int, default=8)
    parser.add_argument("--results", type=Path, default=RESULTS / "devices.json")
    args = parser.parse_args()
    backs = {"cpu": Backbone.load("builtin", device="cpu", dtype="float32")}
    backs |= {dtype: Backbone.load("builtin", device=args.device, dtype=dtype) for dtype in ("float32", "bfloat16")}
    card = torch.cuda.get_device_name() if args.device.startswith("cuda") else args.device
    results: dict[str, Any] = {"machine": machine(), "card": card, "backbone": backs["cpu"].fingerprint}
    for name in GENERATORS:
        results[name] = compared(name, backs, args)
        print(name, results[name], flush=True)
        write_json(args.results, results)


if __name__ == "__main__":
    main()
