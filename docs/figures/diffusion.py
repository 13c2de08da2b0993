"""Draw docs/figures/ of the generators that stand on a diffusion model: inputs, noise levels, what each adds, result.

    python docs/figures/diffusion.py [NAME ...] [--folder FOLDER]

Real inputs and results of the methods themselves on the built-in backbone, which are listened to while they paint into
the mask of a factory defect that none has learned from. Of each the first seed that leaves something visible. With
--folder the runs stay there, and a second call trains nothing again; all takes some six minutes of one processor.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from listening import Heard
from strip import Cell, asked_for, draw, heat, outlined, shown, white
from trained import PRODUCT, Factory, decoded

from flawsmith.data.tensors import picture_of
from flawsmith.generators import anomaly_diffusion
from flawsmith.nn import inpaint
from flawsmith.nn.anomaly_diffusion.location import shrunk
from flawsmith.nn.methods import dual_unet, saim
from flawsmith.nn.methods.asea import ASEA, features
from flawsmith.nn.methods.attention_maps import grid_of, word_shares
from flawsmith.nn.methods.csm import load_csm
from flawsmith.nn.methods.mask_threshold import pixel_distance
from flawsmith.types import Batch

STEPS = 12
"""Denoising steps; the default."""


def asked_of(heard: Heard) -> Cell:
    return Cell(outlined(shown(heard.normal), heard.mask), "photograph and mask", "")


def controlnet_inpaint(made: Factory) -> None:
    run = made.run("controlnet_inpaint")
    heard = made.painted(run, "chip", inpaint)
    back = heard.generator.backbone
    first, middle, late = heard.steps[0], heard.steps[5], heard.steps[9]
    draw(
        "controlnet-inpaint",
        [
            [
                asked_of(heard),
                Cell(white(heard.mask), 'to the ControlNet: the mask, "a photo of a chip"', "+"),
                Cell(decoded(back, first.noisy), "step 1: noise", ">"),
                Cell(decoded(back, first.clean), "picture that it implies"),
            ],
            [
                Cell(decoded(back, middle.clean), f"implied by step 6 of {STEPS}"),
                Cell(decoded(back, late.noisy), "step 10: less noise"),
                Cell(decoded(back, late.clean), "picture that it implies"),
                Cell(shown(heard.made), "result: painted under the mask alone"),
            ],
        ],
    )


def cross_modal(made: Factory) -> None:
    run = made.run("cross_modal")
    heard = made.painted(run, "chip", inpaint)
    alone = made.painted(run, "chip", inpaint, heard.painted.provenance.seed, scale=0.0)
    reference = reference_of(heard)
    csm, words = load_csm("builtin"), [f"a photo of a chip on a {PRODUCT}"]
    given = reference.image[:1], words, reference.mask[:1]
    before, after = features(csm, *given, ASEA(steps=0)), features(csm, *given, ASEA())
    ground = shown(picture_of(reference.image[0]))
    most = float(max(before.attention.max(), after.attention.max()))
    maps = [over(ground, one.attention[0].numpy().reshape(csm.grid, csm.grid), most) for one in (before, after)]
    draw(
        "cross-modal",
        [
            [
                Cell(outlined(ground, reference.mask[0, 0].numpy() > 0.5), "reference: a shot with its mask"),
                Cell(maps[0], f"where the CSM looks: {100 * float(before.before):.0f} % on the damage"),
                Cell(maps[1], f"after ASEA: {100 * float(after.after):.0f} % on the damage"),
                Cell(bands(after.queries[0]), "CSM features: 16 queries, one a row"),
            ],
            [
                asked_of(heard),
                Cell(decoded(heard.generator.backbone, heard.steps[3].clean), "implied by step 4"),
                Cell(shown(heard.made), "result"),
                Cell(shown(alone.made), "same seed without the reference", ""),
            ],
        ],
    )


def hybrid(made: Factory) -> None:
    parts = {"controlnet": made.run("controlnet_inpaint"), "sga": made.run("cross_modal")}
    folders = {name: str(next((one.path("weights")).rglob("settings.json")).parent) for name, one in parts.items()}
    run = made.run("hybrid", spatial={"start": "shot", "strength": 0.35}, **folders)
    heard = made.painted(run, "chip", inpaint)
    reference, back = reference_of(heard), heard.generator.backbone
    draw(
        "hybrid",
        [
            [
                Cell(outlined(shown(heard.normal), heard.mask), "photograph, mask to the ControlNet"),
                Cell(
                    outlined(shown(picture_of(reference.image[0])), reference.mask[0, 0].numpy() > 0.5),
                    "reference to SGA",
                    "+",
                ),
                Cell(shown(picture_of(heard.asked.sketch[0])), "sketch: a shot blended in"),
                Cell(decoded(back, heard.steps[0].noisy), "its noise level to start from"),
                Cell(shown(heard.made), "result"),
            ]
        ],
    )


def learned_words(made: Factory) -> None:
    run = made.run("anomaly_diffusion")
    weights: list[torch.Tensor] = []
    weigh = anomaly_diffusion.weight_map

    def listened(*given: Any) -> torch.Tensor:
        weights.append(weigh(*given))
        return weights[-1]

    with patch.object(anomaly_diffusion, "weight_map", listened):
        heard = made.painted(run, "chip", inpaint)
    generator, back = heard.generator, heard.generator.backbone
    row = torch.tensor([generator.row_of(PRODUCT, "chip")])
    with torch.no_grad():
        looks, places = generator._appearance(row)[0], generator._location(shrunk(heard.asked.mask[:1]))[0]
    last = weights[-STEPS:]
    draw(
        "anomaly-diffusion",
        [
            [
                Cell(bands(looks), "learned: 8 words for how a chip looks"),
                asked_of(heard),
                Cell(bands(places), "4 words made of the mask say where"),
                Cell(decoded(back, heard.steps[0].noisy), "noise to start from"),
            ],
            [
                Cell(decoded(back, heard.steps[2].clean), f"implied by step 3 of {STEPS}"),
                Cell(heat(last[2][0, 0].numpy(), 1, 1.5), "bright: words are heard more next"),
                Cell(decoded(back, heard.steps[7].clean), "implied by step 8"),
                Cell(shown(heard.made), "result"),
            ],
        ],
    )


def few_steps(made: Factory) -> None:
    teacher, student = made.run("controlnet_inpaint"), made.student()
    long = made.painted(teacher, "chip", inpaint, steps=20)
    short = made.painted(student, "chip", inpaint, long.painted.provenance.seed)
    rows = [
        [Cell(so_far(long, n), f"teacher, step {n + 1} of 20") for n in (0, 6, 13, 19)],
        [Cell(so_far(short, n), f"student, step {n + 1} of 4") for n in range(4)],
    ]
    draw("few-steps", rows)


def prompt_inpaint(made: Factory) -> None:
    run = made.run("prompt_inpaint")
    raised = made.painted(run, "crack", inpaint, attention=0.3)
    plain = made.painted(run, "crack", inpaint, raised.painted.provenance.seed, attention=0.0)
    generator, back, step = raised.generator, raised.generator.backbone, 2
    maps = [attention_of(generator, one, step) for one in (plain, raised)]
    least, most = min(float(one.min()) for one in maps), max(float(one.max()) for one in maps)
    draw(
        "prompt-inpaint",
        [
            [
                asked_of(raised),
                Cell(decoded(back, raised.steps[0].noisy), "the photograph under noise"),
                Cell(heat(maps[0], least, most), 'attention to "crack", step 3, not raised'),
                Cell(heat(maps[1], least, most), "raised in the mask"),
                Cell(shown(raised.made), 'result: "a photo of a crack"'),
            ]
        ],
    )


def dual_branch(made: Factory) -> None:
    run = made.run("dual_branch", start="shot", strength=0.7)
    shares: list[torch.Tensor] = []
    exchange = saim.Folded.__call__

    def listened(self: Any, hidden: torch.Tensor) -> torch.Tensor:
        shares.append(seen_of_whole(self, hidden))
        return exchange(self, hidden)

    with patch.object(saim.Folded, "__call__", listened):
        heard = made.painted(run, "chip", dual_unet)
    generator, back = heard.generator, heard.generator.backbone
    start, middle, end = heard.steps[0], heard.steps[len(heard.steps) // 2], heard.steps[-1]
    whole = [decoded(back, one.chunk(2, dim=1)[0]) for one in (start.noisy, middle.clean, end.clean)]
    alone = [decoded(back, one.chunk(2, dim=1)[1]) for one in (start.noisy, middle.clean, end.clean)]
    finest = max(len(one) for one in shares)
    tie = torch.stack([one for one in shares if len(one) == finest]).mean(0).numpy().reshape((round(finest**0.5),) * 2)
    grey = generator.unet.grey(heard.asked.normal.shape[2:])[1]
    distance = pixel_distance(back.decode(end.clean.chunk(2, dim=1)[1]), grey)[0, 0].numpy()
    draw(
        "dual-branch",
        [
            [
                Cell(shown(picture_of(heard.asked.sketch[0])), "whole picture: start, a shot blended in"),
                Cell(whole[0], "under noise"),
                Cell(whole[1], "implied half way"),
                Cell(whole[2], "end"),
            ],
            [
                Cell(heat(tie), "tie: bright, the damage looks at the whole"),
                Cell(alone[0], "damage alone, under noise", ""),
                Cell(alone[1], "implied half way"),
                Cell(alone[2], "end"),
            ],
            [
                Cell(heat(distance, 0), "how far that is from grey"),
                Cell(white(heard.generated.mask[0, 0].numpy() > 0.5), "mask: read off at the threshold"),
                Cell(outlined(shown(heard.normal), heard.mask), "photograph, where damage may lie", "+"),
                Cell(shown(heard.made), "result on the photograph"),
            ],
        ],
    )


def so_far(heard: Heard, step: int) -> np.ndarray:
    """Return what the clean picture that a step implies would give under the mask, uint8 (H,W,3)."""
    back = heard.generator.backbone
    known = inpaint.known_of(back, heard.asked.normal[:1], heard.asked.mask[:1])
    image, _ = inpaint.decoded_over(back, heard.steps[step].clean, known.latent, known.cells)
    return shown(picture_of(image[0].cpu()))


def reference_of(heard: Heard) -> Batch:
    """Return what the method took as its reference."""
    reference = heard.asked.reference or heard.asked.shot
    assert reference is not None
    return reference


def seen_of_whole(folded: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return how much each place of the last picture of damage alone takes from the whole picture, float32 (T,), 0..1.

    As `saim.Folded` computes it.
    """
    weight, bias, eps = folded.norm
    tokens = torch.nn.functional.layer_norm(hidden, weight.shape, weight, bias, eps)
    tokens = tokens if folded.down is None else torch.nn.functional.linear(tokens, folded.down)
    first, second = tokens.chunk(2)
    difference = first - second
    score = (second[-1] * torch.nn.functional.linear(difference[-1], folded.gate)).sum(-1) + difference[
        -1
    ] @ folded.lean
    return score.sigmoid().float()


def attention_of(generator: Any, heard: Heard, step: int) -> np.ndarray:
    """Return how much each place of a step's noisy latent attends to the defect's words, float32 (h,w)."""
    back, line = generator.backbone, generator.prompt("crack", PRODUCT)
    known = inpaint.known_of(back, heard.asked.normal[:1], heard.asked.mask[:1])
    latent, t = heard.steps[step].noisy, torch.tensor([heard.steps[step].t])
    with torch.no_grad(), word_shares(back.unet, generator._tokens([line], ["crack"])) as shares:
        back.predict(latent, t, back.embed([line]), mask=known.cells, masked=known.masked)
    size = tuple(latent.shape[-2:])
    maps = [share[0].reshape(grid_of(share.shape[1], size)).float().numpy() for share in shares]
    return np.mean([cv2.resize(one, size[::-1], interpolation=cv2.INTER_CUBIC) for one in maps], axis=0)


def over(picture: np.ndarray, values: np.ndarray, most: float) -> np.ndarray:
    """Return a picture, uint8 (h,w,3), with values (g,g) from 0 to `most` over it in colours."""
    large = cv2.resize(values.astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    grey = np.repeat(picture.mean(axis=2, keepdims=True), 3, axis=2)
    return np.asarray(0.35 * grey + 0.65 * heat(large, 0, most), np.uint8)


def bands(words: torch.Tensor) -> np.ndarray:
    """Return vectors (count,W) as rows of colours, side by side less their mean; every fourth number of them."""
    apart = words - words.mean(0)
    apart = apart if float(apart.std()) > 1e-4 else words
    values = apart[:, ::4].numpy() / max(float(apart.std()), 1e-6)
    tall = np.repeat(values, -(-values.shape[1] // len(values)), axis=0)[: values.shape[1]]
    return heat(tall, -2.5, 2.5)


FIGURES = {
    "controlnet_inpaint": controlnet_inpaint,
    "cross_modal": cross_modal,
    "hybrid": hybrid,
    "prompt_inpaint": prompt_inpaint,
    "dual_branch": dual_branch,
    "anomaly_diffusion": learned_words,
    "few_steps": few_steps,
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where photographs and runs go, and stay")
    asked = asked_for(parser, FIGURES)
    with tempfile.TemporaryDirectory() as spare:
        made = Factory(asked.folder or Path(spare))
        for name in asked.names:
            FIGURES[name](made)
