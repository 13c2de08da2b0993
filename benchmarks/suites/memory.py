"""Memory and time of every generator on Stable Diffusion 1.5's shape, on a card: encoding, training, painting.

    python benchmarks/suites/memory.py                       # on a machine with a CUDA card, about two minutes
    python benchmarks/suites/memory.py --small --device cpu  # the same calls on toy sizes: does the script still run

Networks of the published sizes with random weights (UNet with 9 channels, AutoencoderKL, CLIP ViT-L/14's text
encoder), made on the card itself. The product's own `Backbone`, generators with their defaults and `Trainer` (AdamW,
averaged weights) do the work, in the precision that `backbone.dtype = "auto"` takes there. For each generator:

encode   one batch of views, as many as `flawsmith train` takes at once.
train    steps at each batch size and under each preset of `train.memory`; the first two warm up and do not count.
paint    one window with guidance; seconds are for all its denoising steps, after one call that warms up.

Memory is torch's own count of its tensors (allocated) and of what it took from the card for them (reserved), in GiB,
at its peak in each part; the CUDA context, about half a GiB, comes on top. `out of memory` is a result too.
Without a card there is nothing to measure: torch counts no memory on a CPU. `memory.json` was written before there were
presets, with nothing beside it on the machine.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from sets import RESULTS
from transformers import CLIPTextConfig, CLIPTextModel, Dinov2Backbone, Dinov2Config

from flawsmith import registry
from flawsmith.config import Config
from flawsmith.files import write_json
from flawsmith.nn import builtin
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.device import pick_device
from flawsmith.nn.features import load_extractor
from flawsmith.nn.loading.networks import quiet
from flawsmith.nn.memory.parking import parked
from flawsmith.nn.memory.presets import PRESETS, Preset, spare
from flawsmith.nn.text import ClipText
from flawsmith.run.manifest import machine
from flawsmith.synthesis.learning import ENCODE_BATCH, trainer_of
from flawsmith.testing import example_batch, example_condition

GENERATORS = ("controlnet_inpaint", "cross_modal", "dual_branch", "hybrid")
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "epsilon",
    "clip_sample": False,
}
EXTRACTORS = {"dinov2-small": (384, 12, 6), "dinov2-base": (768, 12, 12)}
"""Name -> width, layers, heads."""
NONE = "none"
"""Where no preset is needed: a card of 40 GB and more."""
COMPILED = ("BasicTransformerBlock", "ResnetBlock2D")
"""The blocks that are compiled, each kind and shape once, as diffusers' regional compilation does."""
Row = dict[str, Any]


def backbone(device: torch.device, dtype: str, *, small: bool) -> Backbone:
    """Return a backbone of Stable Diffusion 1.5's inpainting shape with random weights, made on its device."""
    tokens = builtin.tokenizer(["a photo of a crack on a tile", "a photo of a hole"])
    tokens.model_max_length = 77
    numbers = {name: getattr(tokens, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    widths = (32, 32, 64, 64) if small else (128, 256, 512, 512)
    torch.manual_seed(0)
    with device:
        vae = AutoencoderKL(
            block_out_channels=widths,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            layers_per_block=2,
            sample_size=64 if small else 512,
            scaling_factor=0.18215,
        )
        unet = UNet2DConditionModel(
            sample_size=8 if small else 64,
            in_channels=9,
            out_channels=4,
            block_out_channels=(32, 32, 64, 64) if small else (320, 640, 1280, 1280),
            cross_attention_dim=768,
            attention_head_dim=8,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=768,
                intermediate_size=3072,
                num_hidden_layers=1 if small else 12,
                num_attention_heads=12,
                max_position_embeddings=77,
                **numbers,
            )
        )
    # Hashing four gigabytes would take longer than all that is measured; nothing here reads the fingerprint.
    return Backbone(
        vae,
        ClipText([text], [tokens]),
        unet,
        SCHEDULER,
        name="random",
        device=str(device),
        dtype=dtype,
        fingerprint="-",
    )


class Meter:
    """Peak memory and time of pieces of work on one device."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._counts = device, device.type == "cuda"

    def of(self, work: Callable[[], Row]) -> Row:
        """Return what a piece of work tells, with its peak memory; running out of memory is told, not raised."""
        self.clear()
        try:
            row = work()
        except torch.cuda.OutOfMemoryError:
            row = {"out of memory": True}
        if self._counts and "out of memory" not in row:
            row |= {
                "allocated_gib": _gib(torch.cuda.max_memory_allocated(self._device)),
                "reserved_gib": _gib(torch.cuda.max_memory_reserved(self._device)),
            }
        return row

    def clear(self) -> None:
        """Give back what is not in use, and count from here."""
        gc.collect()
        if self._counts:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self._device)

    def seconds(self, work: Callable[[], Any]) -> float:
        """Return how long a piece of work takes until the device has done it."""
        self._wait()
        begun = time.perf_counter()
        work()
        self._wait()
        return time.perf_counter() - begun

    def in_use(self) -> float | None:
        """Return the GiB of all tensors that are alive; None where torch does not count them."""
        self.clear()
        return _gib(torch.cuda.memory_allocated(self._device)) if self._counts else None

    def _wait(self) -> None:
        if self._counts:
            torch.cuda.synchronize(self._device)


def measured(name: str, back: Backbone, args: argparse.Namespace, meter: Meter) -> Row:
    """Return what one generator takes."""
    plugin = registry.get("generators", name)
    torch.manual_seed(0)
    generator = plugin(back, plugin.Settings())
    trained = sum(p.numel() for net in generator.trainable().values() for p in net.parameters() if p.requires_grad)
    row: Row = {"trained_million": round(trained / 1e6, 1), "networks_gib": meter.in_use()}
    views: list[Any] = []

    def encode() -> Row:
        shots = example_batch(back.size, ENCODE_BATCH)
        generator.encode(shots)
        seconds = meter.seconds(lambda: views.append(generator.encode(shots)))
        return {"views": ENCODE_BATCH, "seconds": round(seconds, 3)}

    row["encode"] = meter.of(encode)

    def train(preset: Preset, batch: int) -> Row:
        told = {"steps": args.steps + 2, "learning_rate": 1e-6, "batch": batch}
        config = Config.model_validate({"data": {"root": "."}, "generator": {"name": name}, "train": told})
        trained = [part for network in generator.trainable().values() for part in network.modules()]
        spare([generator.backbone.unet, *trained], preset)
        with ExitStack() as away:
            if preset.parks_encoders:
                away.enter_context(parked(generator.encoders(), generator.backbone.device))
            # Each step reads its loss, so the device has done it.
            seconds = [step.seconds for step in trainer_of(config, generator, views[0], preset).run()]
        for network in (generator.backbone.unet, *trained):
            if preset.recomputes and hasattr(network, "attn_processors"):
                network.disable_gradient_checkpointing()
        return {"seconds_per_step": round(statistics.median(seconds[2:]), 4), "first_seconds": round(seconds[0], 2)}

    if views:
        row["train"] = {
            preset: {
                f"batch {batch}": meter.of(lambda p=preset, b=batch: train(PRESETS.get(p, Preset()), b))
                for batch in args.batches
            }
            for preset in args.presets
        }
        if args.compiled:
            networks = [generator.backbone.unet, *generator.trainable().values()]
            blocks = [part for net in networks for part in net.modules() if type(part).__name__ in COMPILED]
            for block in blocks:
                block.compile()
            row["compiled"] = {f"batch {b}": meter.of(lambda b=b: train(Preset(), b)) for b in args.batches}

    def paint() -> Row:
        asked = example_condition(back.size, 1)

        def once() -> None:
            generator.sample(asked, [1], steps=args.paint_steps, guidance=3.0)

        once()
        return {"steps": args.paint_steps, "guidance": 3.0, "seconds": round(meter.seconds(once), 3)}

    row["paint"] = meter.of(paint)
    return row


def extractors(device: torch.device, meter: Meter, *, small: bool) -> Row:
    """Return what DINOv2 takes for the vectors of 16 pictures of 512 px (small: two of 64)."""
    rows: Row = {}
    for name, (width, layers, heads) in EXTRACTORS.items():
        with tempfile.TemporaryDirectory() as folder:
            told = Dinov2Config(hidden_size=width, num_hidden_layers=1 if small else layers, num_attention_heads=heads)
            with quiet(), device:
                network = Dinov2Backbone(told)
            network.cpu().save_pretrained(folder)
            extractor = load_extractor("dinov2", folder, device=str(device))
            pictures = torch.zeros(2 if small else 16, 3, *(2 * [64 if small else 512]), device=device)

            def work(extractor: Any = extractor, pictures: Any = pictures) -> Row:
                extractor.vector(pictures)
                seconds = meter.seconds(lambda: extractor.vector(pictures))
                return {"pictures": len(pictures), "seconds": round(seconds, 3)}

            rows[name] = meter.of(work)
    return rows


def main() -> None:
    """Parse, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="auto", help="as backbone.dtype")
    parser.add_argument("--small", action="store_true", help="toy sizes; nothing is written")
    parser.add_argument("--only", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--presets", nargs="+", choices=[NONE, *PRESETS], default=[NONE, *PRESETS])
    parser.add_argument("--compiled", action="store_true", help="train with torch.compile as well; the last for a UNet")
    parser.add_argument("--steps", type=int, default=3, help="training steps that count")
    parser.add_argument("--paint-steps", type=int, default=4)
    parser.add_argument("--results", type=Path, default=RESULTS / "memory_presets.json")
    args = parser.parse_args()
    if not args.small and not torch.cuda.is_available():
        parser.error("this measures a CUDA card and there is none here; --small --device cpu only tries the script")
    device = pick_device(args.device)
    meter = Meter(device)
    back = backbone(device, args.dtype, small=args.small)
    parts = {"unet": back.unet, "vae": back.vae, "text_encoder": back.text_encoder.models[0]}
    results: Row = {
        "machine": machine(),
        "card": _card(device),
        "dtype": str(back.dtype).removeprefix("torch."),
        "size_px": back.size,
        "parameters_million": {
            name: round(sum(p.numel() for p in net.parameters()) / 1e6, 1) for name, net in parts.items()
        },
        "backbone_gib": meter.in_use(),
        "generators": {},
    }
    for name in args.only:
        results["generators"][name] = measured(name, back, args, meter)
        print(name, results["generators"][name], flush=True)
        if not args.small:
            write_json(args.results, results)  # whatever happens later, this much is known
    del back
    results["extractors"] = extractors(device, meter, small=args.small)
    print(results["extractors"], flush=True)
    if not args.small:
        write_json(args.results, results)


def _card(device: torch.device) -> Row | None:
    if device.type != "cuda":
        return None
    facts = torch.cuda.get_device_properties(device)
    return {"name": facts.name, "gib": _gib(facts.total_memory), "cuda": torch.version.cuda}


def _gib(count: int) -> float:
    return round(count / 2**30, 2)


if __name__ == "__main__":
    main()
