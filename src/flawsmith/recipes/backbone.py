"""Train a small backbone from pictures: autoencoder, then text encoder and inpainting UNet together.

`flawsmith backbone OUT` makes the pictures in the factory; `--from CONFIG` takes a user's own. The built-in backbone is
this recipe with its defaults. It is resumable: each half keeps a checkpoint in OUT/state.

Objective of the second half: v-prediction (Salimans & Ho 2022) of the window's latent given the window with the mask
greyed out, the mask and a prompt. Masks are the damage's own, loosened, or rough, so that the prompt has to tell the
shape; or borrowed from another damage and laid on a normal part with the prompt for normal; a share of windows has the
mask everywhere, so that whole windows can be made too. With `start` the second half goes on from another backbone.
"""

from __future__ import annotations

import copy
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from flawsmith.config import Config, Settings
from flawsmith.data.tensors import image_tensor, mask_tensor
from flawsmith.errors import ConfigError, RunError
from flawsmith.files import append_lines, digest, write_json
from flawsmith.nn import builtin
from flawsmith.nn.attention import use_small_attention
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.device import pick_device, pick_dtype
from flawsmith.nn.diffusion import Noise, weighted_loss
from flawsmith.nn.pca_init import can_start, start_from_components
from flawsmith.nn.text import ClipText
from flawsmith.nn.trainer import LossOf, Trainer
from flawsmith.recipes.backbone_data import (
    FactoryMaterial,
    Material,
    Source,
    UserMaterial,
    crops,
    prompt,
    user_sources,
)
from flawsmith.run.progress import progress
from flawsmith.types import Advance


class Recipe(Settings):
    """How to train a backbone."""

    seed: int = 0
    """One number from which all randomness follows."""
    start: str = ""
    """Backbone to train on, "builtin" or a folder: its autoencoder stays, the second half goes on from its weights."""
    pictures: Annotated[int, Field(ge=4)] = 3000
    """Factory pictures to make, for the autoencoder and again for each turn's windows (0.45 MB each at 256 px)."""
    picture_size: Annotated[int, Field(ge=64)] = 256
    """Their side in pixels."""
    autoencoder_steps: Annotated[int, Field(ge=1)] = 500
    """Steps of the first half."""
    autoencoder_batch: Annotated[int, Field(ge=1)] = 16
    """Crops per step."""
    crop: Annotated[int, Field(ge=32)] = 96
    """Side of a crop in pixels."""
    steps: Annotated[int, Field(ge=1)] = 2400
    """Steps of the second half."""
    turns: Annotated[int, Field(ge=1)] = 2
    """How often the second half gets new pictures, beside those it has; the next ones are made while it trains."""
    views: Annotated[int, Field(ge=8)] = 12000
    """Windows per turn: encoded once, kept in memory (17 kB each at 128 px)."""
    batch: Annotated[int, Field(ge=1)] = 48
    """Windows per step."""
    autoencoder_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate of the first half, which begins near a good place."""
    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    """Peak learning rate of the second half."""
    widths: tuple[int, ...] = (128, 192, 256)
    """Widths of the UNet's levels."""
    autoencoder_width: Annotated[int, Field(ge=8)] = 128
    """Width of the autoencoder."""
    window: Annotated[int, Field(ge=32)] = builtin.WINDOW
    """Side of the windows in pixels, a multiple of 8."""
    wordless: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of windows without text, for guidance."""
    workers: Annotated[int, Field(ge=1)] = 2
    """Processes that make pictures."""
    save_every: Annotated[int, Field(ge=1)] = 200
    """Steps between checkpoints."""


def train_backbone(out: Path, recipe: Recipe, material: Material, show: Any = None) -> Backbone:
    """Train on pictures and write a diffusers folder to `out`; return the backbone.

    Args:
        out: Folder to write: state/ holds the checkpoints, training.jsonl the losses, recipe.json the recipe.
        recipe: Sizes and steps.
        material: Where pictures and windows come from; at least one shows damage.
        show: Called with (stage name, done, all, loss) after each step.
    """
    device, dtype = pick_device("auto"), pick_dtype("auto", pick_device("auto"))
    autocast = None if dtype == torch.float32 else dtype
    torch.manual_seed(recipe.seed)
    begun_from = Backbone.load(recipe.start, dtype="float32") if recipe.start else None
    if begun_from is not None:
        _check_start(begun_from, recipe)
    made_of = recipe.model_dump(mode="json", exclude={"workers", "save_every"})
    shown = [material.identity] if material.identity else []  # so that a checkpoint of the factory's stays good
    identity = digest(made_of, begun_from.fingerprint if begun_from else "", *shown)

    def teach(
        name: str, modules: dict[str, Any], loss_of: LossOf, steps: int, rate: float, seed: int, average: float
    ) -> None:
        trainer = Trainer(
            modules,
            loss_of,
            steps=steps,
            learning_rate=rate,
            seed=seed,
            average=average,
            autocast=autocast,
            state=out / "state" / f"{name}.safetensors",
            save_every=recipe.save_every,
            identity=identity,
        )
        rows, begun = [], time.time()
        for step in trainer.run():
            if show is not None:
                show(name, step.index + 1, steps, step.loss)
            rows.append({"half": name, "step": step.index, "loss": step.loss, "seconds": round(step.seconds, 3)})
            if step.saved:
                append_lines(out / "training.jsonl", rows)
                rows = []
        write_json(
            out / "state" / f"{name}.json",
            {"steps": steps, "seconds": round(time.time() - begun, 1), "losses": trainer.losses},
        )

    (out / "state").mkdir(parents=True, exist_ok=True)
    write_json(out / "recipe.json", recipe.model_dump(mode="json"))
    if begun_from is not None:
        vae, unet = begun_from.vae, begun_from.unet
        (text_encoder,), (tokens,) = begun_from.text_encoder.models, begun_from.text_encoder.tokenizers
        scheduler = dict(begun_from.noise.config)
    else:
        sources, scheduler = material.pictures(), builtin.SCHEDULER
        vae = builtin.autoencoder(recipe.autoencoder_width)
        captions = [source.caption for source in sources]
        words = [prompt(d, p) for s in sources for d in (s.defect, None) for p in (s.product, None)]
        tokens = builtin.tokenizer([*sorted(set(captions)), *sorted(set(words))])
        text_encoder = builtin.text_encoder(tokens).to(device)
        unet = builtin.unet(recipe.widths, window=recipe.window).to(device, memory_format=torch.channels_last)
        use_small_attention(unet)
        if can_start(vae):
            start_from_components(vae, _some_crops(sources, recipe, 40))
        vae = vae.to(device, memory_format=torch.channels_last)
        teach(
            "autoencoder",
            {"vae": vae},
            lambda step, rng: _autoencoder_loss(
                vae, crops(sources, recipe.crop, recipe.autoencoder_batch, (recipe.seed, 11, step)), rng, device
            ),
            recipe.autoencoder_steps,
            recipe.autoencoder_rate,
            recipe.seed,
            0.99,
        )
        _scale_latents(vae, _some_crops(sources, recipe, 8).to(device))

    # Copies, because a backbone keeps its networks in the precision that it works in.
    first, second, third = (copy.deepcopy(part) for part in (vae, text_encoder, unet))
    frozen = Backbone(first, ClipText([second], [tokens]), third, scheduler, name=str(out))
    turns = _Turns(frozen, recipe, material, show)
    text_encoder, unet = (m.float().requires_grad_(True).to(device) for m in (text_encoder, unet))
    teach(
        "unet",
        {"text_encoder": text_encoder, "unet": unet},
        lambda step, rng: _inpainting_loss(unet, text_encoder, frozen.noise, turns.at(step), recipe, rng, device),
        recipe.steps,
        recipe.learning_rate,
        recipe.seed + 1,
        0.997,
    )
    trained = Backbone(vae, ClipText([text_encoder], [tokens]), unet, scheduler, name=str(out), dtype="float32")
    trained.save(out)
    return Backbone.load(out)


def _check_start(back: Backbone, recipe: Recipe) -> None:
    """Raise ConfigError unless the second half can go on from a backbone."""
    if not back.inpaints:
        raise ConfigError(f"start: {back.name} is not an inpainting model; this recipe trains one that is given a mask")
    if not isinstance(back.text_encoder, ClipText):
        raise ConfigError(f"start: {back.name} has two text encoders; this recipe trains models with one")
    if back.size != recipe.window:
        raise ConfigError(f"window: {recipe.window} px, and {back.name} was made for {back.size}; set window to that")


def _some_crops(sources: list[Source], recipe: Recipe, count: int) -> Tensor:
    """Return `count` batches of crops that training does not see."""
    size = recipe.crop // 8 * 8
    return torch.cat([crops(sources, size, recipe.autoencoder_batch, (recipe.seed, 13, i)) for i in range(count)])


def _autoencoder_loss(vae: Any, image: Tensor, rng: torch.Generator, device: torch.device) -> Tensor:
    """L1 of pixels and of their gradients: grain weighs as much as planes."""
    image = image.to(device)
    latent = vae.encoder(image)
    # A little noise teaches the decoder to forgive the denoiser its last small errors, and keeps the latents from
    # growing smaller, where it would weigh more.
    jitter = torch.randn(latent.shape, generator=rng).to(latent) * 0.02
    made = vae.decoder(latent + jitter).float()
    error = (made - image).abs().flatten(1).mean(1)
    for axis in (2, 3):
        error = error + (made.diff(dim=axis) - image.diff(dim=axis)).abs().flatten(1).mean(1)
    latent = latent.float()
    return error + 0.01 * (latent.square().mean() - 1).square() + 0.01 * latent.mean((0, 2, 3)).square().mean()


@torch.no_grad()
def _scale_latents(vae: Any, image: Tensor) -> None:
    """Set the scaling factor so that latents have unit variance."""
    latent = torch.cat([vae.encoder(part) for part in image.split(16)]).float()
    vae.register_to_config(scaling_factor=round(float(1 / latent.std()), 4))


class _Turns:
    """The encoded windows of all turns up to the one that a step belongs to; the next turn's are made meanwhile."""

    def __init__(self, backbone: Backbone, recipe: Recipe, material: Material, show: Any) -> None:
        self._backbone, self._recipe, self._material, self._show = backbone, recipe, material, show
        self._turn = -1
        self._kept: dict[str, Tensor] = {}
        self._dropped = backbone.tokens([None]).to(backbone.device)

    def at(self, step: int) -> dict[str, Tensor]:
        """Return the windows by name, on the backbone's device.

        `latent` and `masked` float16 (N,C,h,w), `mask` uint8 (N,1,h,w), `tokens` int64 (N,T), `dropped` int64 (1,T).
        """
        recipe = self._recipe
        while self._turn < step * recipe.turns // recipe.steps:
            self._turn += 1
            # Called from within a training step, whose choice of precisions is not the backbone's.
            with torch.autocast(self._backbone.device.type, enabled=False):
                encoded, kept = self._encoded(self._turn), self._kept
                self._kept = {name: torch.cat([kept[name], new]) if kept else new for name, new in encoded.items()}
            if self._turn + 1 < recipe.turns:
                self._material.ahead(self._turn + 1, recipe.views, recipe.window)
        return self._kept | {"dropped": self._dropped}

    @torch.no_grad()
    def _encoded(self, turn: int) -> dict[str, Tensor]:
        back, recipe, device = self._backbone, self._recipe, self._backbone.device
        batch = 32 if device.type == "cpu" else 256
        parts: dict[str, list[Tensor]] = {"latent": [], "masked": [], "mask": [], "tokens": []}
        done = 0
        for portion in self._material.windows(turn, recipe.views, recipe.window):
            parts["tokens"].append(back.tokens(portion.captions).to(device))
            for first in range(0, len(portion.image), batch):
                image = image_tensor(portion.image[first : first + batch], device)
                mask = mask_tensor(portion.mask[first : first + batch], device)
                parts["latent"].append(back.encode(image).half())
                parts["masked"].append(back.encode(image * (1 - mask)).half())
                parts["mask"].append(back.latent_mask(mask).to(torch.uint8))
            done += len(portion.image)
            if self._show is not None:
                self._show(f"encode {turn + 1}", done, recipe.views, float("nan"))
        return {name: torch.cat(values) for name, values in parts.items()}


def _inpainting_loss(
    unet: Any,
    text_encoder: Any,
    schedule: Noise,
    seen: dict[str, Tensor],
    recipe: Recipe,
    rng: torch.Generator,
    device: torch.device,
) -> Tensor:
    rows = torch.randint(len(seen["tokens"]), (recipe.batch,), generator=rng).to(device)
    latent, masked, mask = (seen[name][rows].float() for name in ("latent", "masked", "mask"))
    dropped = torch.rand(recipe.batch, 1, generator=rng).to(device) < recipe.wordless
    tokens = torch.where(dropped, seen["dropped"], seen["tokens"][rows])
    t = torch.randint(len(schedule), (recipe.batch,), generator=rng).to(device)
    noise = torch.randn(latent.shape, generator=_drawing_on(device, rng), device=device)
    noisy = schedule.add(latent, noise, t)
    given = torch.cat([noisy, mask, masked], 1).contiguous(memory_format=torch.channels_last)
    text = text_encoder(tokens).last_hidden_state
    prediction = unet(given, t, encoder_hidden_states=text, return_dict=False)[0]
    return weighted_loss(prediction, schedule.target_of(latent, noise, t), 0.2 + 0.8 * mask)


def _drawing_on(device: torch.device, rng: torch.Generator) -> torch.Generator:
    """Return a generator of a device that follows from one of the CPU, where large batches of noise take too long."""
    if device.type == "cpu":
        return rng
    return torch.Generator(device).manual_seed(int(torch.randint(2**62, (1,), generator=rng)))


def make_backbone(out: Path, recipe: Recipe, config: Config | None = None) -> Backbone:
    """Train a backbone from the factory's pictures, or from those that a configuration's [data] names.

    Raises:
        RunError: `out` holds something else.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "state").is_dir())):
        raise RunError(f"{out}: not empty and not a backbone in training; name another folder")
    if recipe.window % 32:
        raise ConfigError(f"window: {recipe.window} does not suit the UNet; use a multiple of 32")
    with ExitStack() as pools, ExitStack() as stack:
        material: Material
        if config is not None:
            material = UserMaterial(user_sources(config), recipe.seed)
        else:
            pool = None
            if recipe.workers > 1:
                pool = pools.enter_context(
                    ProcessPoolExecutor(recipe.workers, mp_context=multiprocessing.get_context("spawn"))
                )
            material = FactoryMaterial(recipe.pictures, recipe.picture_size, recipe.seed, pool)
        bars: dict[str, Advance] = {}

        def show(name: str, done: int, total: int, loss: float) -> None:
            if name not in bars:
                stack.close()
                bars.clear()
                start = seen.setdefault(name, 0 if name.startswith("encode") else done - 1)
                unit = "windows" if name.startswith("encode") else "steps"
                bars[name] = stack.enter_context(progress(name, total, unit, done=start))
            bars[name](done - seen[name], "" if loss != loss else f"loss {loss:.4f}")
            seen[name] = done

        seen: dict[str, int] = {}
        return train_backbone(out, recipe, material, show)
