"""Train the built-in SGA on factory pictures: the built-in backbone learns to follow a reference before any shot.

The paper's SGA starts from an IP-Adapter that was trained on millions of pictures; ten shots cannot teach a UNet to
follow a reference. So ours sees thousands of factory windows first, as `cross_modal` trains on shots (its own `encode`
and `loss`). Half of them come without text, so that the reference has to tell the defect type; a window's reference is
itself or another of its defect type, on whatever surface.

Resumable: windows are encoded into OUT/state in portions, training goes on from its checkpoint.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field

from flawsmith import registry
from flawsmith.config import Settings
from flawsmith.data.augmentation import loosened
from flawsmith.data.tensors import image_tensor, mask_tensor
from flawsmith.files import digest, file_digest, write_json
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.methods.sga import defect_numbers, fill, save_builtin
from flawsmith.nn.trainer import Trainer
from flawsmith.nn.weights import load_tensors, save_tensors
from flawsmith.recipes.csm import captioned_views
from flawsmith.recipes.training import train_until
from flawsmith.run.progress import progress
from flawsmith.types import Batch, Encoded


class Recipe(Settings):
    """How to train an SGA."""

    seed: int = 1
    """One number from which all randomness follows; the CSM's pictures are those of 0."""
    start: str = ""
    """An SGA file to go on from, whatever backbone it was made with; "" = the text's own keys and values."""
    pictures: Annotated[int, Field(ge=20)] = 2000
    """Factory pictures to make; the last tenth is held out."""
    picture_size: Annotated[int, Field(ge=64)] = 192
    """Their side in pixels."""
    views: Annotated[int, Field(ge=1)] = 2
    """Windows per picture."""
    portion: Annotated[int, Field(ge=1)] = 50
    """Pictures per file in OUT/state: the most that a killed run loses."""
    steps: Annotated[int, Field(ge=1)] = 3000
    """Training steps."""
    batch: Annotated[int, Field(ge=2)] = 24
    """Windows per step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    text_dropout: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of windows without text."""
    save_every: Annotated[int, Field(ge=1)] = 100
    """Steps between checkpoints."""


def make_sga(out: Path, recipe: Recipe, *, seconds: float = float("inf")) -> dict[str, Any] | None:
    """Train an SGA for the built-in backbone and CSM, write OUT/adapter.safetensors, return what was measured.

    Args:
        out: Folder to write; OUT/state holds windows and checkpoint, OUT/training.jsonl the losses.
        recipe: Sizes and steps.
        seconds: Stop after this long, and return None; the same call goes on.
    """
    until = time.monotonic() + seconds
    state = out / "state"
    state.mkdir(parents=True, exist_ok=True)
    backbone = Backbone.load("builtin", device="cpu")
    plugin = registry.get("generators", "cross_modal")
    generator = plugin(backbone, plugin.Settings(ip_adapter="", text_dropout=recipe.text_dropout))
    if recipe.start:
        fill(generator.sga, Path(recipe.start))
    parts = []
    with progress("encode", recipe.pictures, "pictures") as advance:
        for first in range(0, recipe.pictures, recipe.portion):
            parts.append(_portion(state, generator, recipe, range(first, min(first + recipe.portion, recipe.pictures))))
            advance(recipe.portion)
            if time.monotonic() > until:
                return None
    seen = Encoded.cat(parts)
    kept = len(seen) - recipe.views * (recipe.pictures // 10)

    def loss_of(_: int, rng: torch.Generator) -> torch.Tensor:
        return generator.loss(_batch(seen, torch.randint(kept, (recipe.batch,), generator=rng)), rng)

    trainer = Trainer(
        generator.trainable(),
        loss_of,
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        seed=recipe.seed,
        average=0.99,
        autocast=backbone.dtype,
        state=state / "adapter.safetensors",
        save_every=recipe.save_every,
        identity=digest(
            recipe.model_dump(mode="json", exclude={"save_every", "portion"}),
            backbone.fingerprint,
            generator.csm.fingerprint,
            file_digest(Path(recipe.start)) if recipe.start else "",
        ),
    )
    if not train_until(trainer, out, "train SGA", recipe.steps, until):
        return None
    measured = {
        "recipe": recipe.model_dump(mode="json"),
        "windows": {"trained": kept, "held_out": len(seen) - kept},
        "samples_seen": recipe.steps * recipe.batch,
        "loss": {"first_50": float(np.mean(trainer.losses[:50])), "last_50": float(np.mean(trainer.losses[-50:]))},
        "held_out_loss": _measure(generator, seen.rows(torch.arange(kept, len(seen)))),
    }
    save_builtin(generator.sga, out / "adapter.safetensors", backbone.fingerprint, generator.csm.fingerprint)
    write_json(out / "measured.json", measured)
    return measured


def _portion(state: Path, generator: Any, recipe: Recipe, numbers: range) -> Encoded:
    """Return a portion's windows, encoded in float16; made once."""
    path = state / f"seen-{numbers[0]:05d}.safetensors"
    made_of = ["tokens", recipe.seed, recipe.picture_size, recipe.views, [numbers.start, numbers.stop]]
    mark = digest(made_of, generator.backbone.fingerprint, generator.csm.fingerprint)
    if path.exists():
        tensors, notes = load_tensors(path)
        if notes.get("mark") == mark:
            return Encoded(tensors)
    images, masks, products, defects = [], [], [], []
    rng = np.random.default_rng((recipe.seed, 43, numbers[0]))
    last = None
    for number in numbers:
        size, many = generator.backbone.size, recipe.views
        for view, caption in captioned_views(
            number + recipe.seed * 1_000_003, recipe.picture_size, many, (recipe.seed, number), size=size
        ):
            if not caption.defect:  # a normal surface is repainted where damage might have been
                if last is None:
                    last = np.zeros_like(view.mask)
                    last[size // 4 : size // 2, size // 4 : size // 2] = True
                mask = last
            else:
                mask = last = loosened(view.mask, rng, 2)
            images.append(view.image)
            masks.append(mask)
            products.append(caption.product)
            defects.append(caption.defect)
    parts = []
    for first in range(0, len(images), 16):
        some = slice(first, first + 16)
        batch = Batch(image_tensor(images[some]), mask_tensor(masks[some]), tuple(products[some]), tuple(defects[some]))
        # Other references are of the same defect type on any surface: the appearance counts, not what it lies on.
        parts.append(
            Encoded(
                {**generator.encode(batch).tensors, "defect": defect_numbers([("", defect) for defect in batch.defect])}
            )
        )
    seen = Encoded.cat(parts)
    seen = Encoded({name: part.half() if part.is_floating_point() else part for name, part in seen.tensors.items()})
    save_tensors(path, seen.tensors, {"mark": mark})
    return seen


def _batch(seen: Encoded, rows: torch.Tensor) -> Encoded:
    some = seen.rows(rows)
    return Encoded({name: part.float() if part.is_floating_point() else part for name, part in some.tensors.items()})


@torch.no_grad()
def _measure(generator: Any, seen: Encoded) -> dict[str, dict[str, float]]:
    """Return the loss on held-out windows, with text and without, by what the reference is; same noise for all.

    own: the window itself; defect: another of its defect type; wrong: one of another defect type; none.
    """
    settings = generator.settings
    rows = _batch(seen, torch.arange(len(seen)))
    rng = torch.Generator().manual_seed(0)
    order = torch.randperm(len(rows), generator=rng)
    same = rows["defect"][:, None] == rows["defect"][None]
    references = {"own": rows["feature"], "none": torch.zeros_like(rows["feature"])}
    for name, fits in (("defect", same & ~torch.eye(len(rows), dtype=torch.bool)), ("wrong", ~same)):
        chances = fits.float() + 1e-6
        references[name] = rows["feature"][torch.multinomial(chances, 1, generator=rng)[:, 0]]
    measured: dict[str, dict[str, float]] = {}
    device, dtype = generator.backbone.device.type, generator.backbone.dtype
    for name, text_dropout in (("with words", 0.0), ("without words", 1.0)):
        generator.settings = settings.model_copy(
            update={"text_dropout": text_dropout, "image_dropout": 0.0, "both_dropout": 0.0, "other_view": 0.0}
        )
        for reference, vectors in references.items():
            losses = []
            changed = Encoded({**rows.tensors, "feature": vectors})
            for first in range(0, len(rows), 32):
                draw = torch.Generator().manual_seed(first)
                with torch.autocast(device, dtype, enabled=dtype != torch.float32):
                    losses.append(generator.loss(changed.rows(order[first : first + 32]), draw).float())
            measured.setdefault(name, {})[reference] = round(float(torch.cat(losses).mean()), 5)
    generator.settings = settings
    return measured
