"""Photographs a second of sampling and steps a second of training, ours against plain diffusers on the same weights.

    python benchmarks/suites/speed.py                      # the built-in backbone, about 10 minutes on two quiet cores
    python benchmarks/suites/speed.py --quick              # a look, about 2 minutes

Plain is `StableDiffusionControlNetInpaintPipeline` as it comes (float32, nothing cached) with the sampler, steps and
guidance that ours uses, and a training loop of the shape that diffusers' ControlNet example has: autoencoder and text
encoder inside every step, float32, AdamW. Both sides hold the same weights, get the same pictures and run in turn
(A B A B ...) in one process, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import copy
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Set before torch starts its threads.
THREADS = int(os.environ.get("FLAWSMITH_BENCH_THREADS", "2"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from flawsmith.files import write_json  # noqa: E402
from flawsmith.generators.controlnet_inpaint import ControlNetInpaint, ControlNetInpaintSettings  # noqa: E402
from flawsmith.nn.backbone import Backbone  # noqa: E402
from flawsmith.nn.loading.networks import quiet  # noqa: E402
from flawsmith.nn.trainer import Trainer  # noqa: E402
from flawsmith.nn.weights import tensor_hash  # noqa: E402
from flawsmith.run.manifest import machine  # noqa: E402
from flawsmith.testing import example_batch, example_condition  # noqa: E402

Work = Callable[[], None]


# ---- ours ---------------------------------------------------------------------------------------


def ours(source: str, dtype: str) -> ControlNetInpaint:
    """A generator whose ControlNet has left its zeros, the same at every call."""
    generator = ControlNetInpaint(
        Backbone.load(source, device="cpu", dtype=dtype), ControlNetInpaintSettings(start="noise")
    )
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in generator.control.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=rng)
    return generator


def our_sampling(generator: ControlNetInpaint, args: argparse.Namespace, *, cached: bool = True) -> Work:
    asked, seeds = example_condition(args.size, args.batch), list(range(args.batch))

    def work() -> None:
        if not cached:
            generator.backbone._texts.clear()
        with embedding_every_step(generator, on=not cached):
            generator.sample(asked, seeds, steps=args.steps, guidance=args.guidance)

    return work


@contextmanager
def embedding_every_step(generator: ControlNetInpaint, *, on: bool) -> Any:
    """Hand the raw hint to the ControlNet, which then embeds it at every step, as the pipeline does."""
    control = generator._sampling_copy()
    if on:
        control.embed_hint = lambda hint: hint
    try:
        yield
    finally:
        control.__dict__.pop("embed_hint", None)


def our_training(generator: ControlNetInpaint, args: argparse.Namespace, *, cached: bool = True) -> Work:
    views = example_batch(args.size, args.views)
    seen = generator.encode(views)
    back = generator.backbone

    def loss_of(_: int, rng: torch.Generator) -> Tensor:
        rows = torch.randint(args.views, (args.train_batch,), generator=rng)
        if cached:
            return generator.loss(seen.rows(rows), rng)
        back._texts.clear()
        words = tuple(views.product[i] for i in rows), tuple(views.defect[i] for i in rows)
        fresh = type(views)(views.image[rows], views.mask[rows], *words)
        return generator.loss(generator.encode(fresh), rng)

    fit = Trainer(generator.trainable(), loss_of, steps=10**6, learning_rate=1e-6, average=0.99, autocast=back.dtype)
    walk = fit.run()
    return lambda: next(walk) and None


# ---- plain diffusers ----------------------------------------------------------------------------


class Plain:
    """Fresh diffusers modules with a generator's weights: float32, standard layout, diffusers' own attention."""

    def __init__(self, generator: ControlNetInpaint) -> None:
        from diffusers import ControlNetModel, DPMSolverMultistepScheduler, UNet2DConditionModel

        back = generator.backbone
        assert back.dtype == torch.float32
        self.vae = _for_pipelines(_fresh(type(back.vae), back.vae))
        self.unet = _fresh(UNet2DConditionModel, back.unet)
        self.control = _fresh(ControlNetModel, generator.control.net)
        self.text_encoder = copy.deepcopy(back.text_encoder.models[0])
        self.tokenizer = back.text_encoder.tokenizers[0]
        self.config = {**back.noise.config, "timestep_spacing": "trailing"}
        self.scheduler = DPMSolverMultistepScheduler.from_config(self.config)
        self.prompt = generator.prompt
        self.channels = self.unet.config.in_channels
        # The pipeline asks the config, not the weights, whether a UNet inpaints, and knows 9 as the only answer.
        self.unet.register_to_config(in_channels=9)

    def sampling(self, args: argparse.Namespace) -> Work:
        from diffusers import StableDiffusionControlNetInpaintPipeline

        with quiet():
            pipeline = StableDiffusionControlNetInpaintPipeline(
                vae=self.vae,
                text_encoder=self.text_encoder,
                tokenizer=self.tokenizer,
                unet=self.unet,
                controlnet=self.control,
                scheduler=self.scheduler,
                safety_checker=None,
                feature_extractor=None,
                requires_safety_checker=False,
            )
        pipeline.set_progress_bar_config(disable=True)
        asked = example_condition(args.size, args.batch)
        prompts = [self.prompt(d, p) for d, p in zip(asked.defect, asked.product, strict=True)]

        def work() -> None:
            pipeline(
                prompt=prompts,
                image=asked.normal / 2 + 0.5,
                mask_image=asked.mask,
                control_image=asked.mask.expand(-1, 3, -1, -1),
                num_inference_steps=args.steps,
                guidance_scale=args.guidance,
                controlnet_conditioning_scale=1.0,
                generator=torch.Generator().manual_seed(0),
                output_type="np",
            )

        return work

    def training(self, args: argparse.Namespace) -> Work:
        from diffusers import DDIMScheduler

        views = example_batch(args.size, args.views)
        schedule = DDIMScheduler.from_config(self.config)
        control = copy.deepcopy(self.control).train().requires_grad_(True)
        optimiser = torch.optim.AdamW(control.parameters(), lr=1e-6, weight_decay=1e-2)
        prompts = [self.prompt(d, p) for d, p in zip(views.defect, views.product, strict=True)]

        def encode(image: Tensor) -> Tensor:
            seen = self.vae.encode(image)
            latent = seen.latents if hasattr(seen, "latents") else seen.latent_dist.sample()
            return latent * self.vae.config.scaling_factor

        def work() -> None:
            rows = torch.randint(args.views, (args.train_batch,))
            image, mask = views.image[rows], views.mask[rows]
            with torch.no_grad():
                latent, masked = encode(image), encode(image * (1 - mask))
                words = [prompts[i] for i in rows]
                length = self.tokenizer.model_max_length
                tokens = self.tokenizer(
                    words, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
                )
                text = self.text_encoder(tokens.input_ids)[0]
            noise = torch.randn_like(latent)
            t = torch.randint(schedule.config.num_train_timesteps, (len(rows),))
            noisy = schedule.add_noise(latent, noise, t)
            down, middle = control(noisy, t, text, mask.expand(-1, 3, -1, -1), return_dict=False)
            cells = nn.functional.interpolate(mask, latent.shape[-2:])
            said = self.unet(
                torch.cat([noisy, cells, masked], 1),
                t,
                encoder_hidden_states=text,
                down_block_additional_residuals=down,
                mid_block_additional_residual=middle,
            ).sample
            wanted = noise if schedule.config.prediction_type == "epsilon" else schedule.get_velocity(latent, noise, t)
            loss = nn.functional.mse_loss(said.float(), wanted.float())
            loss.backward()
            nn.utils.clip_grad_norm_(control.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()

        return work


def _fresh(plugin: Any, old: Any) -> Any:
    with quiet():
        made = plugin.from_config(old.config)
    made.load_state_dict(old.state_dict())
    return made.eval().requires_grad_(False)


def _for_pipelines(vae: Any) -> Any:
    """Let an AutoencoderDC answer as the other autoencoders do: the pipeline knows neither its widths nor `latent`."""
    if type(vae).__name__ == "AutoencoderDC":
        from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTinyOutput

        plain, back = vae.encode, vae.decode
        vae.register_to_config(block_out_channels=vae.config.encoder_block_out_channels)
        vae.encode = lambda image, return_dict=True: AutoencoderTinyOutput(latents=plain(image).latent)
        vae.decode = lambda latent, return_dict=True, generator=None: back(latent, return_dict=return_dict)
    return vae


# ---- timing -------------------------------------------------------------------------------------


Times = dict[str, list[tuple[float, float]]]


def in_turn(works: dict[str, Work], repeats: int, inner: int, tell: Callable[[str], None]) -> Times:
    """(seconds, processor seconds) of one call of each, `repeats` times, in turn; the first round only warms up."""
    times: Times = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            begun, burnt = time.perf_counter(), time.process_time()
            for _ in range(inner if turn else 1):
                work()
            if turn:
                spent = time.perf_counter() - begun, time.process_time() - burnt
                times[name].append((spent[0] / inner, spent[1] / inner))
        tell(f"round {turn}/{repeats}")
    return times


def summary(times: Times, base: str, per_call: int) -> dict[str, Any]:
    """Rates, and the ratio to `base` within each round: median, least and most."""
    rows = {}
    for name, pairs in times.items():
        seconds, burnt = zip(*pairs, strict=True)
        ratios = [b[0] / s for b, s in zip(times[base], seconds, strict=True)]
        rows[name] = {
            "seconds": [round(s, 4) for s in seconds],
            "processor_seconds": [round(s, 4) for s in burnt],
            "rate_median": round(per_call / statistics.median(seconds), 3),
            "rate_min": round(per_call / max(seconds), 3),
            "rate_max": round(per_call / min(seconds), 3),
            "ratio_median": round(statistics.median(ratios), 3),
            "ratio_min": round(min(ratios), 3),
            "ratio_max": round(max(ratios), 3),
            "processor_ratio_median": round(
                statistics.median(b[1] / s for b, s in zip(times[base], burnt, strict=True)), 3
            ),
        }
    return rows


def table(title: str, unit: str, rows: dict[str, Any]) -> str:
    lines = [f"{title:46} {unit:>11}   x plain (least - most)  in CPU time"]
    for name, row in rows.items():
        spread = f"{row['ratio_median']:6.2f} ({row['ratio_min']:.2f} - {row['ratio_max']:.2f})"
        burnt = row["processor_ratio_median"]
        lines.append(f"  {name:44} {row['rate_median']:11.2f}   {spread:23} {burnt:8.2f}")
    return "\n".join(lines)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


# ---- main ---------------------------------------------------------------------------------------


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    here = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="builtin", help='"builtin" or a diffusers folder')
    parser.add_argument("--out", type=Path, default=here / "results" / "speed.json", help="JSON to write")
    parser.add_argument("--size", type=int, default=128, help="side of the windows in pixels")
    parser.add_argument("--steps", type=int, default=12, help="denoising steps")
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--batch", type=int, default=8, help="pictures sampled together")
    parser.add_argument("--train-batch", type=int, default=16, help="windows a training step")
    parser.add_argument("--views", type=int, default=64, help="windows to train on")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that are counted")
    parser.add_argument("--quick", action="store_true", help="2 rounds, one training step each, no variants")
    args = parser.parse_args(argv)
    args.inner = 1 if args.quick else 3
    if args.quick:
        args.repeats = 2
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    tell = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    load_before = os.getloadavg()[0] if hasattr(os, "getloadavg") else None

    best, fine = ours(args.backbone, "auto"), ours(args.backbone, "float32")
    plain = Plain(fine)
    best.control.load_state_dict(fine.control.state_dict())  # made from a bfloat16 UNet, it starts rounded
    same = tensor_hash(plain.control.state_dict()) == tensor_hash(best.control.net.state_dict())
    assert same and best.backbone.fingerprint == fine.backbone.fingerprint, "the sides hold other weights"
    defect = str(best.backbone.dtype).removeprefix("torch.")

    sampling = {"plain diffusers pipeline": plain.sampling(args), f"ours ({defect})": our_sampling(best, args)}
    training = {"plain loop": plain.training(args), f"ours ({defect})": our_training(best, args)}
    if not args.quick:
        if defect != "float32":
            sampling["ours, float32"] = our_sampling(fine, args)
            training["ours, float32"] = our_training(fine, args)
        sampling[f"ours ({defect}), words and hint not cached"] = our_sampling(best, args, cached=False)
        training[f"ours ({defect}), latents and words not cached"] = our_training(
            ours(args.backbone, "auto"), args, cached=False
        )
    tell("sampling")
    sampled = summary(in_turn(sampling, args.repeats, 1, tell), "plain diffusers pipeline", args.batch)
    tell("training")
    trained = summary(in_turn(training, args.repeats, args.inner, tell), "plain loop", 1)

    back = best.backbone
    write_json(
        args.out,
        {
            "what": "sampling in pictures/s, training in steps/s; ratio = plain's seconds / these seconds, by round",
            "machine": {
                "processor": processor(),
                "threads": THREADS,
                "load_before": load_before,
                "load_after": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
                **machine(),
            },
            "backbone": {
                "name": "builtin" if args.backbone == "builtin" else Path(args.backbone).name,
                "fingerprint": back.fingerprint,
                "unet_channels_in": plain.channels,
                "latent_channels": back.latent_channels,
                "told_to_the_pipeline": "in_channels = 9 in the config; the weights are untouched",
                "parameters": sum(p.numel() for p in back.unet.parameters()),
            },
            "settings": {
                **{name: getattr(args, name) for name in ("size", "steps", "guidance", "batch", "train_batch")},
                "sampler": "DPM-Solver++ 2M",
                "rounds": args.repeats,
                "training_steps_a_round": args.inner,
                "quick": args.quick,
            },
            "sampling": sampled,
            "training": trained,
        },
    )
    print(f"{processor()}, {THREADS} threads, backbone {args.backbone} ({back.fingerprint}), {args.size} px")
    print(table(f"sampling, {args.steps} steps, guidance {args.guidance:g}, batch {args.batch}", "pictures/s", sampled))
    print(table(f"training, batch {args.train_batch}", "steps/s", trained))
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
