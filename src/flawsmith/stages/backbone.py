"""Train a small backbone from pictures: autoencoder, then text encoder and inpainting UNet together.

`flawsmith backbone OUT` makes the pictures in the factory; `--from CONFIG` takes a user's own. The built-in backbone is
this recipe with its defaults. It is resumable: each half keeps a checkpoint in OUT/state.

Objective of the second half: v-prediction (Salimans & Ho 2022) of the window's latent given the window with the mask
greyed out, the mask and words; masks are the damage's own, loosened, or borrowed from another damage and laid on a
sound part with the word for sound; a share of windows has the mask everywhere, so that whole windows can be made too.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from flawsmith.config import Config, Settings
from flawsmith.data import factory
from flawsmith.data.cover import Window
from flawsmith.data.views import View, damage_view, loosened, sound_view
from flawsmith.errors import ConfigError, RunError
from flawsmith.files import append_lines, digest, write_json
from flawsmith.nn import builtin
from flawsmith.nn.attention import use_small_attention
from flawsmith.nn.backbone import Backbone, pick_device, pick_dtype
from flawsmith.nn.diffusion import Noise, weighted_loss
from flawsmith.nn.fit import Fit
from flawsmith.stages.pictures import Pictures
from flawsmith.stages.progress import Advance, progress
from flawsmith.stages.split import make_split

SOUND = "sound"
"""The word that stands where a defect's name would, for a part without damage."""


class Recipe(Settings):
    """How to train a backbone."""

    seed: int = 0
    """One number from which all randomness follows."""
    pictures: Annotated[int, Field(ge=4)] = 5000
    """Factory pictures to make (kept in memory: 0.45 MB each at 256 px)."""
    picture_size: Annotated[int, Field(ge=64)] = 256
    """Their side in pixels."""
    autoencoder_steps: Annotated[int, Field(ge=1)] = 900
    """Steps of the first half."""
    autoencoder_batch: Annotated[int, Field(ge=1)] = 16
    """Crops a step."""
    crop: Annotated[int, Field(ge=32)] = 96
    """Side of a crop in pixels."""
    views: Annotated[int, Field(ge=8)] = 10000
    """Windows encoded once and kept for the second half."""
    steps: Annotated[int, Field(ge=1)] = 900
    """Steps of the second half."""
    batch: Annotated[int, Field(ge=1)] = 48
    """Windows a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 4e-4
    """Peak learning rate of both halves."""
    widths: tuple[int, ...] = (128, 192, 256)
    """Widths of the UNet's levels."""
    autoencoder_width: Annotated[int, Field(ge=8)] = 128
    """Width of the autoencoder."""
    window: Annotated[int, Field(ge=32)] = builtin.WINDOW
    """Side of the windows in pixels, a multiple of 8."""
    wordless: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of steps without words, for guidance."""
    workers: Annotated[int, Field(ge=1)] = 2
    """Processes that make pictures."""
    save_every: Annotated[int, Field(ge=1)] = 200
    """Steps between checkpoints."""


@dataclass(frozen=True, slots=True)
class Source:
    """A picture to train on: with damage, without it, and what it shows."""

    damaged: np.ndarray
    """uint8 (H,W,3) RGB; equal to `sound` when there is no damage."""
    sound: np.ndarray | None
    """uint8 (H,W,3) RGB, or None when the part was never seen sound."""
    mask: np.ndarray
    """bool (H,W)."""
    part: np.ndarray
    """bool (H,W)."""
    product: str
    defect: str | None
    caption: str


def prompt(defect: str | None, product: str | None = None) -> str:
    """Return the words for a defect kind, or for sound when it is None; the same for training and for sampling."""
    kind = (defect or SOUND).replace("_", " ")
    if defect is None:
        return f"a photo of {SOUND} {(product or 'surface').replace('_', ' ')}"
    return f"a photo of a {kind}" + (f" on {product.replace('_', ' ')}" if product else "")


def factory_sources(recipe: Recipe) -> list[Source]:
    """Make the factory's pictures, on several processes."""
    seeds = np.arange(recipe.pictures) + recipe.seed * 1_000_003
    jobs = [(chunk.tolist(), recipe.picture_size) for chunk in np.array_split(seeds, max(1, len(seeds) // 50))]
    if recipe.workers == 1:
        return [source for job in jobs for source in _make(job)]
    with ProcessPoolExecutor(recipe.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [source for made in pool.map(_make, jobs) for source in made]


def _make(job: tuple[list[int], int]) -> list[Source]:
    import cv2

    cv2.setNumThreads(1)
    sources = []
    for seed in job[0]:
        piece = factory.make_random(seed, size=job[1], sound_share=0.1)
        image, normal = (
            np.ascontiguousarray(np.broadcast_to(x[:, :, None], (*x.shape[:2], 3)) if x.ndim == 2 else x)
            for x in (piece.image, piece.normal)
        )
        sources.append(Source(image, normal, piece.mask, piece.part, piece.surface, piece.defect, piece.caption))
    return sources


def train_backbone(out: Path, recipe: Recipe, sources: list[Source], show: Any = None) -> Backbone:
    """Train on pictures and write a diffusers folder to `out`; return the backbone.

    Args:
        out: Folder to write; OUT/state holds the checkpoints, OUT/training.jsonl the losses.
        recipe: Sizes and steps.
        sources: At least one with damage.
        show: Called with (stage name, done, all, loss) after each step.
    """
    device, dtype = pick_device("auto"), pick_dtype("auto", pick_device("auto"))
    autocast = None if dtype == torch.float32 else dtype
    torch.manual_seed(recipe.seed)
    identity = digest(recipe.model_dump(mode="json", exclude={"workers", "save_every"}))
    vae = builtin.autoencoder(recipe.autoencoder_width).to(device, memory_format=torch.channels_last)
    captions = [source.caption for source in sources]
    words = [prompt(d, p) for s in sources for d in (s.defect, None) for p in (s.product, None)]
    tokens = builtin.tokenizer([*sorted(set(captions)), *sorted(set(words))])
    text_encoder = builtin.text_encoder(tokens).to(device)
    unet = builtin.unet(recipe.widths, window=recipe.window).to(device, memory_format=torch.channels_last)
    use_small_attention(unet)

    def told(name: str, fit: Fit, steps: int) -> None:
        rows, begun = [], time.time()
        for step in fit.run():
            if show is not None:
                show(name, step.index + 1, steps, step.loss)
            rows.append({"half": name, "step": step.index, "loss": step.loss, "seconds": round(step.seconds, 3)})
            if step.saved:
                append_lines(out / "training.jsonl", rows)
                rows = []
        write_json(
            out / "state" / f"{name}.json",
            {"steps": steps, "seconds": round(time.time() - begun, 1), "losses": fit.losses},
        )

    out.mkdir(parents=True, exist_ok=True)
    fit = Fit(
        {"vae": vae},
        lambda step, rng: _autoencoder_loss(vae, _crops(sources, recipe, step), rng, device),
        steps=recipe.autoencoder_steps,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        average=0.99,
        autocast=autocast,
        state=out / "state" / "autoencoder.safetensors",
        save_every=recipe.save_every,
        identity=identity,
    )
    told("autoencoder", fit, recipe.autoencoder_steps)
    _centre_latents(vae, sources, recipe, device)

    frozen = Backbone(vae, text_encoder, tokens, unet, builtin.SCHEDULER, name=str(out))
    cache, texts = _encode_views(frozen, sources, recipe, show)
    ids = tokens(
        texts, padding="max_length", truncation=True, max_length=builtin.TEXT_LENGTH, return_tensors="pt"
    ).input_ids
    empty = tokens([""], padding="max_length", max_length=builtin.TEXT_LENGTH, return_tensors="pt").input_ids
    noise = frozen.noise
    text_encoder, unet = (m.float().requires_grad_(True).to(device) for m in (text_encoder, unet))
    fit = Fit(
        {"text_encoder": text_encoder, "unet": unet},
        lambda step, rng: _inpainting_loss(unet, text_encoder, noise, cache, ids, empty, recipe, rng, device),
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed + 1,
        average=0.997,
        autocast=autocast,
        state=out / "state" / "unet.safetensors",
        save_every=recipe.save_every,
        identity=identity,
    )
    told("unet", fit, recipe.steps)
    trained = Backbone(vae, text_encoder, tokens, unet, builtin.SCHEDULER, name=str(out), dtype="float32")
    trained.save(out)
    return Backbone.load(out)


def _to_tensor(views: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).contiguous()


def _model(pixels: np.ndarray) -> np.ndarray:
    return pixels.astype(np.float32) / 127.5 - 1


def _crops(sources: list[Source], recipe: Recipe, step: int) -> Tensor:
    """Random crops at random scales and tones, half of them grey, float32 (B,3,crop,crop)."""
    import cv2

    rng = np.random.default_rng((recipe.seed, 11, step))
    views = []
    for _ in range(recipe.autoencoder_batch):
        source = sources[int(rng.integers(len(sources)))]
        picture = source.damaged
        side = min(int(recipe.crop * rng.choice([0.5, 0.75, 1.0, 1.0, 1.5, 2.0])), *picture.shape[:2])
        top, left = (int(rng.integers(0, n - side + 1)) for n in picture.shape[:2])
        seen = _model(picture[top : top + side, left : left + side])
        if side != recipe.crop:
            seen = cv2.resize(
                seen, (recipe.crop,) * 2, interpolation=cv2.INTER_AREA if side > recipe.crop else cv2.INTER_CUBIC
            )
        seen = np.rot90(seen, int(rng.integers(4)))
        seen = (seen + 1) * np.float32(rng.uniform(0.6, 1.4)) - 1 + np.float32(rng.uniform(-0.25, 0.25))
        if rng.random() < 0.35:
            seen = np.repeat(seen.mean(2, keepdims=True), 3, axis=2)
        views.append(np.clip(seen, -1, 1).astype(np.float32))
    return _to_tensor(views).contiguous(memory_format=torch.channels_last)


def _autoencoder_loss(vae: Any, image: Tensor, rng: torch.Generator, device: torch.device) -> Tensor:
    """L1 of pixels and of their gradients (grain weighs as much as planes); latents are kept near unit normal."""
    image = image.to(device)
    latent = vae.encoder(image)
    # A little noise teaches the decoder to forgive the denoiser its last small errors.
    jitter = torch.randn(latent.shape, generator=rng).to(latent) * 0.05
    made = vae.decoder(latent + jitter).float()
    error = (made - image).abs().flatten(1).mean(1)
    for axis in (2, 3):
        error = error + (made.diff(dim=axis) - image.diff(dim=axis)).abs().flatten(1).mean(1)
    latent = latent.float()
    spread = (latent.var((0, 2, 3)) - 1).square().mean() + latent.mean((0, 2, 3)).square().mean()
    return error + 0.01 * spread


@torch.no_grad()
def _centre_latents(vae: Any, sources: list[Source], recipe: Recipe, device: torch.device) -> None:
    """Set the scaling factor so that latents have unit variance."""
    latent = torch.cat([vae.encode(_crops(sources, recipe, 10_000 + i).to(device)).latents for i in range(8)]).float()
    vae.register_to_config(scaling_factor=round(float(1 / latent.std()), 4))


def _views(sources: list[Source], recipe: Recipe, count: int, seed: int) -> Iterator[tuple[View, str]]:
    rng = np.random.default_rng((recipe.seed, 12, seed))
    damaged = [source for source in sources if source.mask.any()]
    sound = [(source, source.sound) for source in sources if source.sound is not None]
    last: View | None = None
    for _ in range(count):
        source = damaged[int(rng.integers(len(damaged)))]
        window = _window_at(source.mask, recipe.window, rng)
        view = damage_view(_model(source.damaged), source.mask, [window], recipe.window, rng, tone=0.1)
        words = (
            source.caption
            if rng.random() < 0.2
            else prompt(source.defect, source.product if rng.random() < 0.4 else None)
        )
        draw = rng.random()
        if draw < 0.25 and last is not None and sound:
            other, picture = sound[int(rng.integers(len(sound)))]
            view = sound_view(_model(picture), other.part, last.mask, window.side, recipe.window, rng, tone=0.1)
            words = prompt(None, other.product if rng.random() < 0.5 else None)
        elif draw < 0.35:
            view = View(view.image, np.ones_like(view.mask))
        else:
            view = View(view.image, loosened(view.mask, rng, 6))
        if draw >= 0.35:
            last = view
        yield view, words


def _window_at(mask: np.ndarray, size: int, rng: np.random.Generator) -> Window:
    """Return a window round some damaged pixel, of half to one and a half times the working size."""
    rows, columns = np.nonzero(mask)
    pick = int(rng.integers(len(rows)))
    side = round(size * float(np.exp(rng.uniform(np.log(0.5), np.log(1.6)))))
    return Window(int(rows[pick]) - side // 2, int(columns[pick]) - side // 2, side)


def _encode_views(
    backbone: Backbone, sources: list[Source], recipe: Recipe, show: Any
) -> tuple[dict[str, Tensor], list[str]]:
    """Encode every window once: latents and masked latents float16, masks uint8."""
    parts: dict[str, list[Tensor]] = {"latent": [], "masked": [], "mask": []}
    texts: list[str] = []
    batch: list[tuple[View, str]] = []

    def flush() -> None:
        image = _to_tensor([view.image for view, _ in batch])
        mask = torch.from_numpy(np.stack([view.mask for view, _ in batch])).float()[:, None]
        parts["latent"].append(backbone.encode(image).half())
        parts["masked"].append(backbone.encode(image * (1 - mask)).half())
        parts["mask"].append(backbone.latent_mask(mask).to(torch.uint8))
        texts.extend(words for _, words in batch)
        batch.clear()

    for index, item in enumerate(_views(sources, recipe, recipe.views, 0)):
        batch.append(item)
        if len(batch) == 32 or index + 1 == recipe.views:
            flush()
            if show is not None:
                show("encode", index + 1, recipe.views, float("nan"))
    return {name: torch.cat(values) for name, values in parts.items()}, texts


def _inpainting_loss(
    unet: Any,
    text_encoder: Any,
    noise: Noise,
    cache: dict[str, Tensor],
    ids: Tensor,
    empty: Tensor,
    recipe: Recipe,
    rng: torch.Generator,
    device: torch.device,
) -> Tensor:
    rows = torch.randint(len(ids), (recipe.batch,), generator=rng)
    latent, masked, mask = (cache[name][rows].float().to(device) for name in ("latent", "masked", "mask"))
    tokens = torch.where(torch.rand(recipe.batch, 1, generator=rng) < recipe.wordless, empty, ids[rows]).to(device)
    t = torch.randint(len(noise), (recipe.batch,), generator=rng).to(device)
    fresh = torch.randn(latent.shape, generator=rng).to(device)
    noisy = noise.add(latent, fresh, t)
    seen = torch.cat([noisy, mask, masked], 1).contiguous(memory_format=torch.channels_last)
    text = text_encoder(tokens).last_hidden_state
    said = unet(seen, t, encoder_hidden_states=text, return_dict=False)[0]
    return weighted_loss(said, noise.truth(latent, fresh, t), 0.2 + 0.8 * mask)


def make_backbone(out: Path, recipe: Recipe, config: Config | None = None) -> Backbone:
    """Train a backbone from the factory's pictures, or from those that a configuration's [data] names.

    Raises:
        RunError: `out` holds something else.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / "state").is_dir())):
        raise RunError(f"{out}: not empty and not a backbone in training; name another folder")
    if recipe.window % 32:
        raise ConfigError(f"window: {recipe.window} does not suit the UNet; use a multiple of 32")
    (out / "state").mkdir(parents=True, exist_ok=True)
    sources = user_sources(config) if config else factory_sources(recipe)
    with ExitStack() as stack:
        bars: dict[str, Advance] = {}

        def show(name: str, done: int, total: int, loss: float) -> None:
            if name not in bars:
                stack.close()
                bars[name] = stack.enter_context(
                    progress(name, total, "windows" if name == "encode" else "steps", done=done - 1)
                )
                seen[name] = done - 1
            bars[name](done - seen[name], "" if loss != loss else f"loss {loss:.4f}")
            seen[name] = done

        seen: dict[str, int] = {}
        return train_backbone(out, recipe, sources, show)


def user_sources(config: Config) -> list[Source]:
    """Read the shots and sound parts of a configuration; test pictures are not touched."""
    split = make_split(config)
    pictures = Pictures(split.normals)
    sources = []
    for example in (*split.shots, *split.normals):
        seen = pictures.read(example)
        pixels = np.round((seen.model() + 1) * 127.5).astype(np.uint8)
        mask = np.zeros(pixels.shape[:2], bool) if seen.mask is None else seen.mask
        part = pictures.part(example)
        words = prompt(example.defect, example.product)
        sources.append(
            Source(
                pixels, pixels if example.defect is None else None, mask, part, example.product, example.defect, words
            )
        )
    return sources
