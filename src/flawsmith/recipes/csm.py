"""Train the built-in CSM (`nn/methods/csm.py`) on factory pictures and captions, contrastively, as BLIP-2's stage 1.

Two losses (Li et al., "BLIP-2", ICML 2023). Contrast: the queries that saw a picture alone against words read alone,
within a batch. Match: the queries that saw picture and words together say whether they belong together; the wrong words
are drawn, the likelier the more alike they seem. Ours: a caption that is true of several pictures of a batch ("a photo
of a crack") belongs to all of them; there is no captioning loss; everything else about sizes.

Resumable: pictures are kept in OUT/state in portions, training goes on from its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from flawsmith.config import Settings
from flawsmith.data import factory, images
from flawsmith.data.augmentation import View, damage_view
from flawsmith.data.factory import words as factory_words
from flawsmith.data.tensors import image_tensor, mask_tensor
from flawsmith.data.tiling import Window
from flawsmith.files import digest, read_json, write_json
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.device import pick_device, pick_dtype
from flawsmith.nn.methods.asea import pooled, share
from flawsmith.nn.methods.csm import BuiltinCSM, Phrases
from flawsmith.nn.trainer import Trainer
from flawsmith.nn.weights import fresh_layers, load_tensors, save_tensors
from flawsmith.recipes.backbone_data import prompt
from flawsmith.recipes.training import train_until
from flawsmith.run.progress import progress


class Recipe(Settings):
    """How to train a CSM."""

    seed: int = 0
    """One number from which all randomness follows."""
    pictures: Annotated[int, Field(ge=8)] = 900
    """Factory pictures to make; the last tenth is held out."""
    picture_size: Annotated[int, Field(ge=64)] = 192
    """Their side in pixels."""
    views: Annotated[int, Field(ge=1)] = 2
    """Windows per picture."""
    portion: Annotated[int, Field(ge=1)] = 50
    """Pictures per file in OUT/state: the most that a killed run loses."""
    steps: Annotated[int, Field(ge=1)] = 400
    """Training steps."""
    batch: Annotated[int, Field(ge=4)] = 32
    """Windows per step."""
    cells: Annotated[int, Field(ge=16, le=256)] = 128
    """Cells of each window, of 256, that a step uses: another random half each time (as Li et al., "FLIP", 2023)."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate."""
    temperature: Annotated[float, Field(gt=0)] = 0.07
    """Of the contrast."""
    save_every: Annotated[int, Field(ge=1)] = 50
    """Steps between checkpoints."""


@dataclass(frozen=True, slots=True)
class Caption:
    """What is true of one window: the defect type, on what, and everything."""

    defect: str
    product: str
    whole: str

    def texts(self) -> tuple[str, str, str]:
        """Return three phrases that are true of the window, from the shortest to the longest."""
        defect = self.defect or None
        return prompt(defect), prompt(defect, self.product), self.whole


class Heads(nn.Module):
    """What training alone needs: the projections of the contrast, and the classifier of a match."""

    def __init__(self, width: int, shared: int = 64) -> None:
        super().__init__()
        with fresh_layers(1):
            self.picture, self.words = nn.Linear(width, shared), nn.Linear(width, shared)
            self.match = nn.Linear(width, 2)


def make_csm(out: Path, recipe: Recipe, *, seconds: float = float("inf")) -> dict[str, Any] | None:
    """Train a CSM; write it to `out` and return what was measured, or None when the time ran out before the end.

    Args:
        out: Folder to write; OUT/state holds pictures and checkpoint, OUT/training.jsonl the losses.
        recipe: Sizes and steps.
        seconds: Stop after this long; the same call goes on.
    """
    until = time.monotonic() + seconds
    state = out / "state"
    state.mkdir(parents=True, exist_ok=True)
    encoder = Backbone.load("builtin", device="cpu", dtype="float32").text_encoder
    csm = BuiltinCSM(encoder.models[0], encoder.tokenizers[0])
    cells, masks, captions = [], [], []
    with progress("encode", recipe.pictures, "pictures") as advance:
        for first in range(0, recipe.pictures, recipe.portion):
            seeds = range(first, min(first + recipe.portion, recipe.pictures))
            tensors, rows = _portion(state, csm, recipe, seeds)
            cells.append(tensors["cells"])
            masks.append(tensors["masks"])
            captions += [Caption(*one) for one in rows]
            advance(len(seeds))
            if time.monotonic() > until:
                return None
    windows, damage = torch.cat(cells), torch.cat(masks)
    kept = len(windows) - round(len(windows) / recipe.pictures * (recipe.pictures // 10))
    csm.mean.copy_(windows[:kept].float().mean((0, 1)))
    csm.std.copy_(windows[:kept].float().std((0, 1)).clamp_min(1e-3))
    heads = Heads(csm.width)
    texts = [one.texts() for one in captions]
    spell = {text: number for number, text in enumerate(sorted({text for three in texts for text in three}))}
    states, spelled = csm.states(list(spell))
    ids = torch.tensor([[spell[text] for text in three] for three in texts])
    facts = _numbers(captions)

    def loss_of(_: int, rng: torch.Generator) -> Tensor:
        rows = torch.randint(kept, (recipe.batch,), generator=rng)
        level = torch.randint(3, (recipe.batch,), generator=rng)
        chosen = ids[rows, level]
        heard = Phrases(csm.hear(states[chosen]), spelled[chosen])
        return _loss(csm, heads, windows[rows].float(), heard, _true(facts[rows], facts[rows], level), recipe, rng)

    trainer = Trainer(
        {"reader": csm, "heads": heads},
        loss_of,
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        weight_decay=0.05,
        seed=recipe.seed,
        average=0.99,
        autocast=pick_dtype("auto", pick_device("cpu")),
        state=state / "reader.safetensors",
        save_every=recipe.save_every,
        identity=digest(recipe.model_dump(mode="json", exclude={"save_every", "portion"})),
    )
    if not train_until(trainer, out, "train CSM", recipe.steps, until):
        return None
    measured = {
        "recipe": recipe.model_dump(mode="json"),
        "windows": {"trained": kept, "held_out": len(windows) - kept},
        "samples_seen": recipe.steps * recipe.batch,
        "loss": {"first_20": float(np.mean(trainer.losses[:20])), "last_20": float(np.mean(trainer.losses[-20:]))},
        "held_out": _measure(csm, heads, windows[kept:], damage[kept:], captions[kept:]),
    }
    csm.save(out)
    write_json(out / "measured.json", measured)
    return measured


def _portion(state: Path, csm: BuiltinCSM, recipe: Recipe, seeds: range) -> tuple[dict[str, Tensor], list[list[str]]]:
    """Return a portion's cells float16 (N,g*g,496), pooled masks float16 (N,g,g) and facts; made once."""
    path, notes = state / f"seen-{seeds[0]:05d}.safetensors", state / f"seen-{seeds[0]:05d}.json"
    mark = digest([recipe.seed, recipe.picture_size, recipe.views, [seeds.start, seeds.stop]])
    if path.exists() and notes.exists() and (kept := read_json(notes))["mark"] == mark:
        return load_tensors(path)[0], kept["facts"]
    cells, masks, facts = [], [], []
    for seed in seeds:
        for view, caption in captioned_views(
            seed + recipe.seed * 1_000_003, recipe.picture_size, recipe.views, (recipe.seed, seed)
        ):
            cells.append(csm.cells(image_tensor([view.image])).half())
            masks.append(pooled(mask_tensor([view.mask]), csm.grid).half())
            facts.append([caption.defect, caption.product, caption.whole])
    tensors = {"cells": torch.cat(cells), "masks": torch.cat(masks)}
    save_tensors(path, tensors)
    write_json(notes, {"mark": mark, "facts": facts})
    return tensors, facts


def captioned_views(
    number: int, picture_size: int, count: int, stream: tuple[int, int], *, size: int = 0
) -> Iterator[tuple[View, Caption]]:
    """Yield windows of one factory picture: round its damage, near and far, or anywhere when it is normal.

    Args:
        number: Which picture.
        picture_size: Its side in pixels.
        count: How many windows.
        stream: Two numbers from which the windows' randomness follows.
        size: Side of the windows in pixels; 0 = the picture's.
    """
    part = factory.make_random(number + 500_000, size=picture_size, sound_share=0.1)
    rng = np.random.default_rng((stream[0], 41, stream[1]))
    picture = images.to_model(part.image)
    for _ in range(count):
        damage = part.mask if part.mask.any() else np.ones_like(part.mask)
        rows, columns = np.nonzero(damage)
        pick, near = int(rng.integers(len(rows))), round(picture_size * float(np.exp(rng.uniform(np.log(0.35), 0))))
        window = Window(int(rows[pick]) - near // 2, int(columns[pick]) - near // 2, near)
        view = damage_view(picture, damage, [window], size or picture_size, rng, tone=0.1)
        if part.defect is None:
            yield View(view.image, np.zeros_like(view.mask)), Caption("", part.surface, part.caption)
            continue
        ys, xs = np.nonzero(view.mask)
        side = view.mask.shape[0]
        extent = (max(np.ptp(xs), np.ptp(ys)) + 1) / side
        facts = {
            **part.facts,
            "size": factory_words.size(extent),
            "place": factory_words.place(xs.mean() / side, ys.mean() / side),
        }
        yield view, Caption(part.defect, part.surface, factory_words.caption(part.surface, facts))


def _numbers(captions: list[Caption]) -> Tensor:
    """Return int64 (N,3): the defect type, defect type with product, and the whole caption, as numbers."""
    columns: list[list[Any]] = [
        [one.defect for one in captions],
        [(one.defect, one.product) for one in captions],
        [one.whole for one in captions],
    ]
    known: list[dict[Any, int]] = [{}, {}, {}]
    for names, column in zip(known, columns, strict=True):
        for value in column:
            names.setdefault(value, len(names))
    return torch.tensor([[names[v] for v in column] for names, column in zip(known, columns, strict=True)]).T


def _true(pictures: Tensor, texts: Tensor, level: Tensor) -> Tensor:
    """Return bool (P,T): whether text j, at its level of detail, is true of picture i."""
    picked = torch.stack([pictures[:, one] for one in level.tolist()], 1)
    return picked == texts[torch.arange(len(texts)), level][None]


def _mean_query(csm: BuiltinCSM, tokens: Tensor, phrases: Phrases | None) -> Tensor:
    """Return the mean of the Q-Former's queries, float32 (B,D)."""
    return csm.query_picture(tokens, phrases)[0].mean(1)


def _embedded(csm: BuiltinCSM, phrases: Phrases) -> Tensor:
    """Return float32 (B,D): words read alone, without any picture."""
    out = csm.qformer(query_embeds=phrases.states, query_length=0, attention_mask=phrases.mask).last_hidden_state
    weight = phrases.mask[..., None].float()
    return (out * weight).sum(1) / weight.sum(1)


def _loss(
    csm: BuiltinCSM,
    heads: Heads,
    cells: Tensor,
    phrases: Phrases,
    true: Tensor,
    recipe: Recipe,
    rng: torch.Generator,
) -> Tensor:
    tokens = csm.lifted(cells, torch.randperm(csm.grid**2, generator=rng)[: recipe.cells])
    picture = F.normalize(heads.picture(_mean_query(csm, tokens, None)), dim=-1)
    heard = F.normalize(heads.words(_embedded(csm, phrases)), dim=-1)
    alike = picture @ heard.T / recipe.temperature
    wanted = true.float()
    contrast = -(wanted / wanted.sum(1, keepdim=True) * alike.log_softmax(1)).sum(1)
    contrast = contrast - (wanted / wanted.sum(0, keepdim=True) * alike.log_softmax(0)).sum(0)
    with torch.no_grad():
        chance = alike.softmax(1).masked_fill(true, 0) + 1e-6 * ~true
        other = torch.multinomial(chance, 1, generator=rng)[:, 0]
    right = torch.rand(len(cells), generator=rng) < 0.5
    chosen = torch.where(right, torch.arange(len(cells)), other)
    matches = heads.match(_mean_query(csm, tokens, phrases.rows(chosen)))
    match = F.cross_entropy(matches, right.long(), reduction="none")
    return contrast + match


@torch.no_grad()
def _measure(
    csm: BuiltinCSM, heads: Heads, cells: Tensor, damage: Tensor, captions: list[Caption]
) -> dict[str, float | int | None]:
    """Return how well defect types and captions are recognised on held-out pictures, each beside chance."""
    defects = sorted({one.defect for one in captions})
    tokens = csm.lifted(cells.float())
    pictures = F.normalize(heads.picture(_mean_query(csm, tokens, None)), dim=-1)

    def embedded(texts: list[str]) -> Tensor:
        return F.normalize(heads.words(_embedded(csm, csm.phrases(texts))), dim=-1)

    recognised = (pictures @ embedded([prompt(defect or None) for defect in defects]).T).argmax(1)
    answers = torch.tensor([defects.index(one.defect) for one in captions])
    whole = sorted({one.whole for one in captions})
    guessed = (pictures @ embedded(whole).T).argmax(1)
    whole_numbers = torch.tensor([whole.index(one.whole) for one in captions])
    phrases = csm.phrases([prompt(one.defect or None) for one in captions])
    wrong = torch.arange(len(captions)).roll(1 + len(captions) // 3)
    apart = answers != answers[wrong]
    fits = heads.match(_mean_query(csm, tokens, phrases))[:, 1]
    misfits = heads.match(_mean_query(csm, tokens, phrases.rows(wrong)))[:, 1]
    damaged = damage.float().flatten(1).sum(1) > 0
    attention = csm.query_picture(tokens, phrases)[1]
    most = max(int((answers == number).sum()) for number in range(len(defects))) / len(captions)
    return {
        "windows": len(captions),
        "defects": len(defects),
        "kind_told": round(float((recognised == answers).float().mean()), 4),
        "kind_chance": round(1 / len(defects), 4),
        "kind_always_the_commonest": round(most, 4),
        "caption_told": round(float((guessed == whole_numbers).float().mean()), 4),
        "caption_chance": round(1 / len(whole), 4),
        "right_words_beat_wrong": _mean((fits > misfits)[apart].float()),
        "right_words_beat_wrong_chance": 0.5,
        "attention_on_mask": _mean(share(attention, damage.float())[damaged]),
        "mask_area": _mean(damage.float().mean((1, 2))[damaged]),
    }


def _mean(values: Tensor) -> float | None:
    """Return the mean; None of nothing."""
    return round(float(values.mean()), 4) if len(values) else None
