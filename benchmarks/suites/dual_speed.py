"""DualAnoDiff, ours against a literal version run as its authors run it, on the same weights: pairs a second, steps a
second, and peak memory.

    python benchmarks/suites/dual_speed.py                # a scaled-down UNet on the CPU, about 10 minutes
    python benchmarks/suites/dual_speed.py --size sd15    # SD-1.5's shapes, random weights, 512 px: for a GPU

Literal is what the authors' code does: float32, one pair at a time, 100 PLMS steps (101 calls), words encoded for each
pair, branches one after the other, SAIM with five matrices and attention over two tokens; a training step runs the
autoencoder on picture and damage and the text encoder on every prompt. Its attention is the reference of our tests.

The ladder takes our measures one after another, each on top of those before, so that a rung's factor is its own part.
Sides run in turn within each round (A B C A B C ...), so that a busy machine slows all; a factor is taken within a
round. Peak memory is that of a process of its own a side: allocated on a GPU, resident above the start on a CPU.
"""

from __future__ import annotations

import argparse
import copy
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

THREADS = int(os.environ.get("FLAWSMITH_BENCH_THREADS", "2"))
os.environ["OMP_NUM_THREADS"] = str(THREADS)
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "unit"))

import torch  # noqa: E402
from dual_literal import Literal  # noqa: E402
from speed import processor  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from flawsmith.files import write_json  # noqa: E402
from flawsmith.generators.dual_branch import DualBranch, DualBranchSettings  # noqa: E402
from flawsmith.nn import builtin  # noqa: E402
from flawsmith.nn.backbone import Backbone  # noqa: E402
from flawsmith.nn.cpu_kernels import PlaneGroupNorm, SplitGEGLU  # noqa: E402
from flawsmith.nn.text import ClipText  # noqa: E402
from flawsmith.nn.trainer import Trainer  # noqa: E402
from flawsmith.run.manifest import machine  # noqa: E402
from flawsmith.testing import example_batch, example_condition  # noqa: E402

Work = Callable[[], None]
PLMS_STEPS, GUIDANCE = 100, 2.5
SIZES: dict[str, dict[str, Any]] = {
    "tiny": dict(widths=(32, 64), cross=32, heads=4, pixels=64, vae=(32, 32, 32, 32), words=(2, 32, 24)),
    "small": dict(widths=(64, 128, 256, 256), cross=128, heads=2, pixels=256, vae=(32, 32, 64, 64), words=(4, 128, 77)),
    "sd15": dict(
        widths=(320, 640, 1280, 1280), cross=768, heads=8, pixels=512, vae=(128, 256, 512, 512), words=(12, 768, 77)
    ),
}
"""Shapes; words = the text encoder's (layers, width, tokens). Heads are as wide as SD-1.5's (32 to 160)."""


def backbone(size: str, device: str, dtype: str) -> Backbone:
    """A backbone of Stable Diffusion 1.5's classes with random weights, the same at every call."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    shape = SIZES[size]
    layers, width, length = shape["words"]
    torch.manual_seed(0)
    tokens = builtin.tokenizer(["a photo of a crack on tile"])
    tokens.model_max_length = length
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokens),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=max(4, width // 64),
            max_position_embeddings=length,
            bos_token_id=tokens.bos_token_id,
            eos_token_id=tokens.eos_token_id,
            pad_token_id=tokens.pad_token_id,
        )
    )
    deep = len(shape["widths"]) - 1
    unet = UNet2DConditionModel(
        sample_size=shape["pixels"] // 8,
        block_out_channels=shape["widths"],
        down_block_types=("CrossAttnDownBlock2D",) * deep + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * deep,
        cross_attention_dim=shape["cross"],
        attention_head_dim=shape["heads"],
    )
    vae = AutoencoderKL(
        block_out_channels=shape["vae"],
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        layers_per_block=2,
        sample_size=shape["pixels"],
    )
    scheduler = {
        "num_train_timesteps": 1000,
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "prediction_type": "epsilon",
        "clip_sample": False,
        "set_alpha_to_one": False,
        "steps_offset": 1,
    }
    return Backbone(vae, ClipText([text], [tokens]), unet, scheduler, name=f"random {size}", device=device, dtype=dtype)


def ours(args: argparse.Namespace, dtype: str, saim: str = "full") -> DualBranch:
    """Our generator, its adapters off their zeros, the same at every call."""
    settings = DualBranchSettings(out="whole", saim=saim, zero_start=False, text_dropout=0.0)
    generator = DualBranch(backbone(args.size, args.device, dtype), settings)
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in generator.unet.branches.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=rng).to(parameter.device)
    return generator


class Authors:
    """The literal side: plain diffusers modules with our weights, and the authors' order of work."""

    def __init__(self, args: argparse.Namespace, dtype: str = "float32") -> None:
        # Branches on a fork are only read here, for their weights.
        donor = ours(args, "float32")
        back = donor.backbone
        self.args, self.device = args, back.device
        self.dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[dtype]
        self.vae, self.text = _plain(back.vae), _plain(back.text_encoder.models[0])
        self.unet = _plain(back.unet)
        self.literal = Literal(self.unet, donor.unet.branches)
        for module in (self.vae, self.text, self.unet, self.literal):
            nn.Module.to(module, dtype=self.dtype)
        self.tokens, self.noise, self.texts = back.tokens, back.noise, donor.prompts_of("crack", "tile")
        self.scale = float(back.vae.config.scaling_factor)

    def read(self, texts: list[str]) -> Tensor:
        return self.text(self.tokens(texts).to(self.device)).last_hidden_state

    @torch.no_grad()
    def sample(self, *, pairs: int, steps: int, plms: bool, cached: Tensor | None = None) -> None:
        """Make `pairs` pairs together; rows are [none, none, whole, alone] a pair, by pairs."""
        from diffusers import PNDMScheduler

        if plms:
            walk: Any = PNDMScheduler.from_config(self.noise.config, skip_prk_steps=True)
            walk.set_timesteps(steps)
        else:
            walk = self.noise.sampler("dpm", steps)
        words = cached if cached is not None else self.read(["", "", *self.texts] * pairs)
        side = SIZES[self.args.size]["pixels"] // 8
        latent = torch.randn(2 * pairs, 4, side, side, device=self.device, dtype=self.dtype)
        for t in walk.timesteps:
            rows = latent.unflatten(0, (pairs, 2))
            said = self.unet(
                torch.cat([rows, rows], 1).flatten(0, 1), t.to(self.device), encoder_hidden_states=words
            ).sample.unflatten(0, (pairs, 4))
            said = said[:, :2] + GUIDANCE * (said[:, 2:] - said[:, :2])
            latent = walk.step(said.flatten(0, 1), t, latent).prev_sample
        for row in latent.split(2):
            self.vae.decode(row / self.scale).sample.cpu()

    def words(self, pairs: int) -> Tensor:
        with torch.no_grad():
            return self.read(["", "", *self.texts] * pairs)

    def training(self, *, cached: bool) -> Work:
        count, noise = self.args.train_batch, self.noise
        views = example_batch(SIZES[self.args.size]["pixels"], count)
        image = views.image.to(self.device)
        paired = torch.stack([image, image * views.mask.to(self.device)], 1).flatten(0, 1)
        trained = self.literal.requires_grad_(True).train()
        optimiser = torch.optim.AdamW(trained.parameters(), lr=1e-6)
        rng = torch.Generator().manual_seed(0)

        @torch.no_grad()
        def frozen() -> tuple[Tensor, Tensor]:
            return self.vae.encode(paired).latent_dist.sample() * self.scale, self.read([*self.texts] * count)

        kept = frozen() if cached else None

        def step() -> None:
            latent, words = kept if kept is not None else frozen()
            t = torch.randint(1000, (count,), generator=rng).to(self.device).repeat_interleave(2)
            fresh = torch.randn(latent.shape, generator=rng).to(self.device)
            said = self.unet(noise.add(latent, fresh, t), t, encoder_hidden_states=words).sample
            loss = (said.float() - fresh).square().mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
            optimiser.step()

        return step


def our_sampling(generator: DualBranch, args: argparse.Namespace, pairs: int) -> Work:
    asked = example_condition(SIZES[args.size]["pixels"], pairs)
    asked = type(asked)(asked.normal, torch.ones_like(asked.mask), asked.product, asked.defect)
    return lambda: generator.sample(asked, list(range(pairs)), steps=args.steps, guidance=GUIDANCE) and None


def our_training(generator: DualBranch, args: argparse.Namespace) -> Work:
    seen = generator.encode(example_batch(SIZES[args.size]["pixels"], args.train_batch))
    fit = Trainer(
        generator.trainable(),
        lambda _, rng: generator.loss(seen, rng),
        steps=10**6,
        learning_rate=1e-6,
        autocast=generator.backbone.dtype,
    )
    walk = fit.run()
    return lambda: next(walk) and None


# ---- rungs --------------------------------------------------------------------------------------


def rungs(args: argparse.Namespace, what: str) -> dict[str, Callable[[], tuple[Work, int]]]:
    """Makers of (work, pairs or steps a call), in the order of the ladder; each measure on top of those before."""
    quick = args.dtype

    def authors(dtype: str, **named: Any) -> tuple[Work, int]:
        side = Authors(args, dtype)
        if named.pop("cache", False):
            named["cached"] = side.words(named["pairs"])
        return (lambda: side.sample(**named)), named["pairs"]

    if what == "sampling":
        few: dict[str, Any] = {"steps": args.steps, "plms": False}
        ladder: dict[str, Callable[[], tuple[Work, int]]] = {
            "literal": lambda: authors("float32", pairs=1, steps=PLMS_STEPS, plms=True),
            f"+ {args.steps} steps of DPM-Solver++": lambda: authors("float32", pairs=1, **few),
            f"+ {args.batch} pairs a batch": lambda: authors("float32", pairs=args.batch, **few),
            "+ words cached": lambda: authors("float32", pairs=args.batch, cache=True, **few),
            "+ branches in one product, folding, merging": lambda: (
                our_sampling(ours(args, "float32"), args, args.batch),
                args.batch,
            ),
        }
        if quick != "float32":
            ladder[f"+ {quick}"] = lambda: (our_sampling(ours(args, quick), args, args.batch), args.batch)
        ladder["+ narrow SAIM"] = lambda: (our_sampling(ours(args, quick, "narrow"), args, args.batch), args.batch)
        return ladder
    ladder = {
        "literal": lambda: (Authors(args).training(cached=False), 1),
        "+ latents and words cached": lambda: (Authors(args).training(cached=True), 1),
        "+ branches in one product, folding": lambda: (our_training(ours(args, "float32"), args), 1),
    }
    if quick != "float32":
        ladder[f"+ {quick}"] = lambda: (our_training(ours(args, quick), args), 1)
    ladder["+ narrow SAIM"] = lambda: (our_training(ours(args, quick, "narrow"), args), 1)
    return ladder


def measure(args: argparse.Namespace, what: str) -> dict[str, Any]:
    """Time every rung in turn; return rates, factors to the literal side and to the rung below, by round."""
    works = {name: make() for name, make in rungs(args, what).items()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(args.repeats + 1):
        for name, (work, each) in works.items():
            begun = time.perf_counter()
            for _ in range(1 if what == "sampling" or not turn else args.inner):
                work()
            _finish(args)
            if turn:
                seconds[name].append((time.perf_counter() - begun) / each / (1 if what == "sampling" else args.inner))
        print(f"{what}: round {turn}/{args.repeats}", file=sys.stderr, flush=True)
    rows, below = {}, None
    for name, spent in seconds.items():
        base, last = seconds["literal"], seconds[below or name]
        total = [b / s for b, s in zip(base, spent, strict=True)]
        rows[name] = {
            "seconds": [round(s, 5) for s in spent],
            "rate_median": round(1 / statistics.median(spent), 4),
            "times_literal_median": round(statistics.median(total), 2),
            "times_literal_min": round(min(total), 2),
            "times_literal_max": round(max(total), 2),
            "times_rung_below_median": round(statistics.median(b / s for b, s in zip(last, spent, strict=True)), 2),
        }
        below = name
    return rows


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """Peak memory of the first and the last two rungs, each in a process of its own, in MiB."""

    def alone(rung: str, batch: int) -> Any:
        told = {name: getattr(args, name) for name in ("size", "device", "dtype", "steps", "train_batch")}
        options = [f"--{name.replace('_', '-')}={value}" for name, value in (told | {"batch": batch}).items()]
        command = [sys.executable, __file__, f"--peak={rung}", *options]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(f"memory: {rung}, batch {batch}: {said.strip()}", file=sys.stderr, flush=True)
        return json.loads(said.strip().splitlines()[-1])

    found: dict[str, Any] = {}
    for what in ("sampling", "training"):
        names = list(rungs(args, what))
        found[what] = {name: alone(f"{what}:{name}", args.batch) for name in (names[0], *names[-2:])}
        if what == "sampling":  # the literal side holds one pair at a time: ours with one pair, for a fair look
            found[what][f"{names[-2]}, one pair a batch"] = alone(f"{what}:{names[-2]}", 1)
    return found


def peak(args: argparse.Namespace) -> dict[str, float]:
    """Run one rung twice in this process and return its peak: MiB allocated on a GPU, resident growth on a CPU."""
    what, _, name = args.peak.partition(":")
    cuda = args.device.startswith("cuda")
    before = _resident("VmRSS")
    work, _each = rungs(args, what)[name]()
    gc.collect()  # what only served to build this side does not count
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        work()
    _finish(args)
    if cuda:
        return {"allocated_mib": round(torch.cuda.max_memory_allocated() / 2**20, 1)}
    return {"resident_mib": round(_resident("VmHWM") - before, 1)}


def _resident(field: str) -> float:
    """MiB from Linux' own account of this process: VmRSS now, VmHWM at its highest since it was cleared."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


def _finish(args: argparse.Namespace) -> None:
    if args.device.startswith("cuda"):
        torch.cuda.synchronize()


def _plain(module: Any) -> Any:
    """A copy in the standard layout with diffusers' or transformers' own parts, without our processors and norms."""
    plain = copy.deepcopy(module)
    for part in plain.modules():
        if type(part) in (PlaneGroupNorm, SplitGEGLU):
            part.__class__ = type(part).__base__
    if hasattr(plain, "set_default_attn_processor"):
        from diffusers.models.attention_processor import AttnProcessor2_0

        plain.set_attn_processor(AttnProcessor2_0())
    return nn.Module.to(plain, memory_format=torch.contiguous_format)


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=tuple(SIZES), default="small")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="auto", help='precision of our last rungs; "auto" = the backbone\'s own')
    parser.add_argument("--steps", type=int, default=20, help="our denoising steps")
    parser.add_argument("--batch", type=int, default=8, help="pairs we sample together")
    parser.add_argument("--train-batch", type=int, default=4, help="pairs a training step, on both sides")
    parser.add_argument("--repeats", type=int, default=3, help="rounds that are counted")
    parser.add_argument("--inner", type=int, default=2, help="training steps a round")
    parser.add_argument("--only", choices=("sampling", "training", "memory"), default=None)
    parser.add_argument("--peak", default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE.parent / "results" / "dual_speed.json")
    args = parser.parse_args(argv)
    if args.dtype == "auto":
        from flawsmith.nn.device import pick_dtype

        args.dtype = str(pick_dtype("auto", torch.device(args.device))).removeprefix("torch.")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(argv)
    torch.set_num_threads(THREADS)
    if args.peak:
        print(json.dumps(peak(args)))
        return 0
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    found = {
        what: measure(args, what)
        for what in ("sampling", "training")
        if args.only in (None, what)  # a portion alone is written alone: name another --out
    }
    parts = ours(args, "float32").trainable()
    facts = {
        "what": "sampling in pairs/s, training in steps/s; factors are taken within a round",
        "machine": {
            "processor": processor() if args.device == "cpu" else torch.cuda.get_device_name(),
            "threads": THREADS,
            "load_before": load,
            **machine(),
        },
        "settings": {
            **{key: getattr(args, key) for key in ("size", "device", "dtype", "steps", "batch", "train_batch")},
            "pixels": SIZES[args.size]["pixels"],
            "guidance": GUIDANCE,
            "literal_steps": PLMS_STEPS,
            "rounds": args.repeats,
            "trained_parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        },
        **found,
        "peak_memory": memory(args) if args.only in (None, "memory") else {},
    }
    write_json(args.out, facts)
    for what, rows in found.items():
        print(f"{what:48} {'a second':>9}  x literal (least - most)  x rung below")
        for name, row in rows.items():
            spread = f"{row['times_literal_median']:6.2f} ({row['times_literal_min']} - {row['times_literal_max']})"
            print(f"  {name:46} {row['rate_median']:9.3f}  {spread:24}  {row['times_rung_below_median']:6.2f}")
    print(json.dumps(facts["peak_memory"], indent=1))
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
