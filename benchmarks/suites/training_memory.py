"""What training takes of a card's memory at Stable Diffusion 1.5's size, estimated without a card; and is that right?

    python benchmarks/suites/training_memory.py                        # every generator and preset, some minutes
    python benchmarks/suites/training_memory.py --folder FOLDER        # the same networks, as people have them
    python benchmarks/suites/training_memory.py --measure              # the estimate against what this machine's memory
                                                                       # shows: an hour on two busy cores, 10 GB

The product's own networks, generators and `Trainer` take two training steps on tensors without content: only sizes
are worked out, operation by operation, and the bytes of all tensors that are alive are added up; the highest sum is the
estimate. Random weights of the published sizes (UNet with 9 channels, AutoencoderKL, CLIP ViT-L/14's text encoder), 512
px. Where the card would compute in bfloat16 by torch's autocast, the same casts are done here, by the lists in torch's
documentation. What a kernel takes while it runs, and what the allocator loses between tensors, is not in it; the CUDA
context takes half a GiB more.

card       estimates for `train.memory` on a card: the tensors lie on torch's "meta" device.
encode     the same for the autoencoder alone: the views that `flawsmith train` takes at once, and their masked copies.
known      the same for what `memory.json` measured on an H100 before there were presets.
measured   `--measure`: the same steps with content on this machine's processor, in a process each, with windows of
           `--measured-size` px, for 512 take hours: the sum of the tensors beside the growth of the process's memory.
           controlnet_inpaint and hybrid are not averaged there, or they would need more than 10 GB.
spared     `--measure --measured-size 512 --spared`: two training steps and a picture, memory spared as presets do.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import re
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from memory import GENERATORS, backbone
from sets import RESULTS
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from flawsmith import registry
from flawsmith.files import write_json
from flawsmith.nn import backbone as backbone_module
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.memory import recomputation
from flawsmith.nn.memory.presets import PRESETS, Preset, spare
from flawsmith.nn.methods.csm import load_csm
from flawsmith.nn.text import Text
from flawsmith.nn.trainer import Trainer
from flawsmith.run.manifest import machine
from flawsmith.synthesis.learning import ENCODE_BATCH, loss_in_parts
from flawsmith.testing import example_condition
from flawsmith.types import Encoded

Row = dict[str, Any]
META, CPU = torch.device("meta"), torch.device("cpu")
STEPS = 2
"""Moments come with the first step, so the second is as full as any."""
_HALF = ("conv2d", "linear", "matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "scaled_dot_product_attention")
_FLOAT = ("group_norm", "layer_norm", "softmax", "sum", "norm", "mse_loss", "square", "pow")


class LiveTensors(TorchDispatchMode):
    """Adds up the bytes of all tensors of one device that are alive."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._device, self._live = device.type, dict[int, Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1.0  # "is it finite": there is nothing in it that could be asked
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.device.type == self._device:
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: Any) -> None:
        key, size = storage._cdata, storage.nbytes()
        if (known := self._live.get(key)) is not None and known() is storage:
            return

        def gone(reference: Any) -> None:
            self.now -= size
            if self._live.get(key) is reference:
                del self._live[key]

        self._live[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


class Flash(torch.autograd.Function):
    """What fused attention keeps for the backward pass: queries, keys, values, result, and one number per query."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, out, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.empty_like(part) for part in ctx.saved_tensors[:3])


class Casts(TorchFunctionMode):
    """torch's autocast on CUDA, for the meta device: which functions take half precision, and which float32."""

    enabled = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        if Casts.enabled and name in _HALF:
            args, kwargs = tree_map(lambda x: _cast(x, torch.bfloat16), (args, kwargs))
        elif Casts.enabled and name in _FLOAT:
            args, kwargs = tree_map(lambda x: _cast(x, torch.float32), (args, kwargs))
        if name == "scaled_dot_product_attention":
            return Flash.apply(*args[:3])
        return func(*args, **kwargs)


def _cast(value: Any, dtype: torch.dtype) -> Any:
    floats = isinstance(value, Tensor) and value.is_floating_point() and value.device.type == "meta"
    return value.to(dtype) if floats and value.dtype != dtype else value


@contextlib.contextmanager
def casting(enabled: bool) -> Iterator[None]:
    """Take the place of `torch.autocast`."""
    before, Casts.enabled = Casts.enabled, enabled
    try:
        yield
    finally:
        Casts.enabled = before


@contextlib.contextmanager
def on_a_card(*, as_before: bool) -> Iterator[None]:
    """Let tensors of the meta device stand for a card's: autocast, its state in blocks computed again, AdamW."""
    honest, adamw = recomputation.checkpoint, torch.optim.AdamW

    def checkpoint(function: Any, *args: Any, **named: Any) -> Any:
        enabled = Casts.enabled

        def again(*given: Any, **more: Any) -> Any:
            with casting(enabled), Casts():  # a mode is off within the backward pass
                return function(*given, **more)

        return honest(again, *args, **named)

    def plain(parameters: Any, *, fused: Any = None, **told: Any) -> Any:
        # One weight after another takes as little beside the moments as the fused kernel, all at once as much as one.
        return adamw(parameters, **told, foreach=as_before)

    def autocast(device: Any, dtype: Any = None, enabled: bool = True, cache_enabled: Any = None) -> Any:
        return casting(Casts.enabled if as_before and dtype is None else enabled)

    with (
        mock.patch.object(torch, "autocast", autocast),
        mock.patch.object(recomputation, "checkpoint", checkpoint),
        mock.patch.object(torch.optim, "AdamW", plain),
        mock.patch.object(backbone_module, "pick_device", torch.device),
        Casts(),
    ):
        yield


def views_of(generator: Any, count: int, size: int) -> Encoded:
    """Return encoded views of the right sizes; nobody looks at what is in them."""
    back = generator.backbone
    side, channels = size // back.factor, back.latent_channels
    latents = {name: torch.zeros(count, channels, side, side) for name in ("latent", "masked", "whole", "alone")}
    tokens = back.tokens(["a photo of a crack"] * count)
    cells, mask = torch.zeros(count, 1, side, side), torch.zeros(count, 1, size, size, dtype=torch.uint8)
    feature, numbers = torch.zeros(count, 128), torch.zeros(count, dtype=torch.int64)
    known = {name: latents[name] for name in ("latent", "masked")} | {"cells": cells}
    spatial = {"mask": mask, "tokens": tokens}
    semantic = {"tokens": tokens, "feature": feature, "defect": numbers}
    pairs = torch.stack([tokens, tokens], 1)
    return Encoded(
        {
            "controlnet_inpaint": {**known, **spatial},
            "cross_modal": {**known, **semantic},
            "dual_branch": {"whole": latents["whole"], "alone": latents["alone"], "cells": cells}
            | {"tokens": pairs, "pair": numbers},
            "hybrid": known
            | {f"spatial.{name}": tensor for name, tensor in spatial.items()}
            | {f"semantic.{name}": tensor for name, tensor in semantic.items()},
        }[_name(generator)]
    )


def _name(generator: Any) -> str:
    return next(name for name in GENERATORS if registry.get("generators", name) is type(generator))


def train(
    name: str, back: Any, batch: int, preset: Preset, average: float, *, size: int = 512, as_before: bool = False
) -> None:
    """Make a generator with its defaults and take training steps with it.

    Args:
        name: The generator.
        back: The backbone.
        batch: Windows per step.
        preset: How memory is spared. What it keeps on the host is left out, so that the host's tensors do not count.
        average: As `Trainer`'s.
        size: Of the windows in pixels.
        as_before: As it was when `memory.json` was measured: gradients lived on through the next forward pass.
    """
    plugin = registry.get("generators", name)
    settings = {"hybrid": {"semantic": {"ip_adapter": ""}}, "cross_modal": {"ip_adapter": ""}}.get(name, {})
    with torch.device(back.device):
        generator = plugin(back, plugin.Settings(**settings))
    views = views_of(generator, batch, size)
    spare(
        [generator.backbone.unet, *(net for part in generator.trainable().values() for net in part.modules())], preset
    )
    held: list[Any] = []

    def loss_of(_: int, rng: torch.Generator) -> Any:
        loss = loss_in_parts(generator, views, rng, preset.windows)
        held.clear()
        return loss

    trainer = Trainer(
        generator.trainable(),
        loss_of,
        steps=STEPS,
        learning_rate=1e-6,
        average=0.0 if preset.average_on_host else average,
        autocast=back.dtype,
    )
    weights, update = list(trainer._named.values()), trainer._update

    def updated() -> None:
        if not preset.optimiser_on_host:
            update()
        held[:] = [weight.grad for weight in weights] if as_before else []

    trainer._update = updated  # type: ignore[method-assign]
    list(trainer.run())
    return generator


def on_card(name: str, preset: Preset, batch: int, *, as_before: bool = False) -> Row:
    """Return the estimate for a card."""
    gc.collect()
    read = mock.patch.object(Backbone, "read", lambda back, tokens: _text(len(tokens.flatten(0, -2))))
    csm = mock.patch("flawsmith.generators.cross_modal.load_csm", lambda *_, **__: load_csm())
    load_csm()
    with LiveTensors(META) as live, on_a_card(as_before=as_before), read, csm, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = backbone(META, "bfloat16", small=False)
        encoders = sum(p.numel() * p.element_size() for net in back.encoders() for p in net.parameters())
        live.peak = 0
        train(name, back, batch, preset, 0.99, as_before=as_before)
    return {"gib": _gib(live.peak - (encoders if preset.parks_encoders else 0))}


def encoding(count: int) -> Row:
    """Return the estimate for encoding some pictures, as `flawsmith train` does with a batch and its masked copies."""
    with LiveTensors(META) as live, on_a_card(as_before=False):
        back = backbone(META, "bfloat16", small=False)
        gc.collect()
        live.peak = before = live.now
        back.encode(torch.zeros(count, 3, back.size, back.size))
    return {"pictures": count, "networks_gib": _gib(before), "gib": _gib(live.peak)}


def _text(rows: int) -> Text:
    return Text(torch.empty(rows, 77, 768, device=META))


def measured(name: str, size: int, spared: bool) -> Row:
    """Return the sum of tensors, and the growth of this process's memory, of the same steps with content.

    Spared: blocks are computed again, all is averaged, and a picture is painted afterwards with 2 denoising steps, so
    that it is what a processor needs for all that a run does.
    """

    def status(key: str) -> int:
        found = re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())
        assert found
        return 1024 * int(found[1])

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    load_csm()
    before, average = status("VmRSS"), 0.99 if spared or name not in ("controlnet_inpaint", "hybrid") else 0.0
    with LiveTensors(CPU) as live:
        back = backbone(CPU, "bfloat16", small=False)
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        live.peak = live.now
        begun = time.monotonic()
        generator = train(name, back, 1, Preset(recomputes=spared), average, size=size)
        seconds = time.monotonic() - begun
        trained = status("VmHWM") - before
        if spared:
            gc.collect()  # the trainer, whose step is replaced here, holds itself; that of `flawsmith train` does not
            generator.sample(example_condition(size, 1), [1], steps=2, guidance=3.0)
    process = status("VmHWM") - before
    whole = {"with_libraries_gib": _gib(status("VmHWM")), "trained_gib": _gib(trained)}
    return {
        "size_px": size,
        **(whole if spared else {}),
        "batch": 1,
        "average": average,
        "tensors_gib": _gib(live.peak),
        "process_gib": _gib(process),
        "ratio": round(live.peak / process, 3),
        "seconds_per_step": round(seconds / STEPS, 1),
    }


def _gib(count: float) -> float:
    return round(count / 2**30, 2)


def main() -> None:
    """Parse, estimate or measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GENERATORS, default=list(GENERATORS))
    parser.add_argument("--measure", action="store_true", help="take the steps on this machine's processor as well")
    parser.add_argument(
        "--folder", type=Path, help="write these networks there, as a diffusers folder of 2 GB, and end"
    )
    parser.add_argument("--measured-size", type=int, default=256, help="windows of --measure, in pixels")
    parser.add_argument("--spared", action="store_true", help="--measure: spare memory as presets do, and paint too")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=RESULTS / "training_memory.json")
    args = parser.parse_args()
    if args.folder:
        backbone(CPU, "float32", small=False).save(args.folder, shard="10GB")
        return
    if args.one:
        print(json.dumps(measured(args.one, args.measured_size, args.spared)))
        return
    results: Row = json.loads(args.results.read_text()) if args.results.exists() else {"card": {}, "known": {}}
    results |= {"machine": machine(), "backbone": "Stable Diffusion 1.5's shape, inpainting, 512 px, bfloat16"}
    if args.measure:
        for name in args.only:
            told = [sys.executable, __file__, "--one", name, "--measured-size", str(args.measured_size)]
            told += ["--spared"] if args.spared else []
            environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**21)}
            done = subprocess.run(told, capture_output=True, text=True, check=True, env=environment)
            kept = "spared" if args.spared else "measured"
            results.setdefault(kept, {})[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, results[kept][name], flush=True)
            write_json(args.results, results)
        return
    results["encode"] = encoding(2 * ENCODE_BATCH)
    print("encode", results["encode"], flush=True)
    known = json.loads((RESULTS / "memory.json").read_text())["generators"]
    for name in args.only:
        rows: Row = {}
        for label, preset in {"none": Preset(), **PRESETS}.items():
            # Of a batch that is gone through in parts, the second part is as full as any later one.
            more = {"larger batches": 2 * preset.windows} if preset.windows else {"batch 4": 4, "batch 16": 16}
            for words, batch in {"batch 1": 1, **more}.items():
                rows.setdefault(label, {})[words] = on_card(name, preset, batch)
                print(name, label, words, rows[label][words], flush=True)
        results["card"][name] = rows
        results["known"][name] = {}
        for label, row in known[name]["train"].items():
            estimate = on_card(name, Preset(), int(label.split()[1]), as_before=True)["gib"]
            told = {"estimate_gib": estimate, "measured_gib": row["allocated_gib"]}
            results["known"][name][label] = told | {"ratio": round(estimate / row["allocated_gib"], 3)}
            print(name, label, results["known"][name][label], flush=True)
        write_json(args.results, results)


if __name__ == "__main__":
    main()
