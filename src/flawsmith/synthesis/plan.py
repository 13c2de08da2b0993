"""Decide every sample before any is made: plan.jsonl, one line a sample.

The plan is a function of configuration and data alone, so shards and resumed runs agree on it without talking.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from flawsmith.config import Config
from flawsmith.data.masks.parts import with_outline
from flawsmith.data.masks.poses import Pose, apply_pose_mask, pose_mask
from flawsmith.data.masks.shapes import procedural
from flawsmith.data.photographs import Photographs
from flawsmith.data.poisson import grown
from flawsmith.data.split import Split
from flawsmith.errors import DataError
from flawsmith.interfaces import Generator
from flawsmith.run.progress import progress
from flawsmith.synthesis.counts import counts
from flawsmith.synthesis.prompt import parsed_prompt, prompted_pose
from flawsmith.synthesis.train import jobs_of
from flawsmith.synthesis.transfer import known_references, reference_of, shots_for, transfers
from flawsmith.types import Example

Line = dict[str, Any]
_DONORS = 8
"""Photographs that are looked at for a control's normal matter."""
_SHADE = 4
"""Sigma in pixels of what counts as shading, and how far round the mask it is compared."""


def make_plan(config: Config, split: Split, plugin: type[Generator], pictures: Photographs) -> list[Line]:
    """Return the plan's lines, in the order in which they are made."""
    known_references(config, split)
    times = config.screen.times if config.screen.enabled else 1
    asked = {key: math.ceil(times * number) for key, number in counts(config, split).items()}
    return plan_lines(config, split, plugin, pictures, asked)


def plan_lines(
    config: Config,
    split: Split,
    plugin: type[Generator],
    pictures: Photographs,
    count_of: Mapping[tuple[str, str], int],
    before: Sequence[Line] = (),
) -> list[Line]:
    """Return lines for so many pairs of each (product, defect type), numbered on from those planned before.

    A line's choices and seed follow from its index, so no two rounds ask for the same.
    """
    job_of = {shot: job.name for job in jobs_of(config, split) for shot in job.shots}
    lent = transfers(config, split)
    order: list[tuple[str, str, str]] = []
    for (product, defect), count in count_of.items():
        lender = lent.get((product, defect), product)
        own = next(job_of[s] for s in split.shots if (s.product, s.defect) == (lender, defect))
        order += [(own, product, defect)] * count
    # Kinds take turns within a job, so that the first half of a run shows all of them.
    turn: Counter[tuple[str, str, str]] = Counter()
    keyed = []
    for item in order:
        keyed.append((item[0], turn[item], item[1], item[2]))
        turn[item] += 1
    lines: list[Line] = []
    first = before[-1]["index"] + 1 if before else 0
    batch, last, size = before[-1]["batch"] if before else -1, "", 0
    with progress("plan", len(keyed), "pairs") as advance:
        for index, (job, _, product, defect) in enumerate(sorted(keyed), start=first):
            if job != last or size == config.generate.batch:
                batch, size, last = batch + 1, 0, job
            size += 1
            line: Line = {"index": index, "batch": batch, "job": job, "product": product, "defect": defect}
            if (product, defect) in lent:
                line["borrowed"] = lent[product, defect]
            line |= _choices(config, split, plugin, pictures, line)
            if plugin.reads_reference:
                line["reference"] = reference_of(config, split, pictures, line)
            lines.append(line)
            advance()
    return lines


def make_controls(
    config: Config, split: Split, plugin: type[Generator], pictures: Photographs, lines: Sequence[Line]
) -> list[Line]:
    """Return the controls' lines: places of some of the pairs, evenly over the defect types, to be repainted as normal.

    A control is painted on its pair's photograph, in its pair's mask. The normal matter to start from comes from the
    same place of another photograph where the product fills its pictures; a part that lies in any direction has no same
    place, so there it is the photograph's own.
    """
    if not plugin.paints_controls or not config.generate.controls:
        return []
    share, seen = config.generate.controls, Counter[tuple[str, str]]()
    controls: list[Line] = []
    batch, last, size = -1, "", 0
    for line in lines:
        key = (line["product"], line["defect"])
        if "borrowed" in line:  # controls serve the proof, and what was never seen on a product is not proved on it
            continue
        seen[key] += 1
        if int(seen[key] * share) == int((seen[key] - 1) * share):
            continue
        if line["job"] != last or size == config.generate.batch:
            batch, size, last = batch + 1, 0, line["job"]
        size += 1
        rng = np.random.default_rng((config.seed, 33, line["index"]))
        number = {"index": len(controls), "twin": line["index"], "batch": batch, "seed": int(rng.integers(2**31))}
        controls.append({**line, **number, "donor": _donor(config, split, pictures, line, rng)})
    return controls


def _donor(config: Config, split: Split, pictures: Photographs, line: Line, rng: np.random.Generator) -> str:
    """Return the id of the photograph whose normal matter a control starts from.

    Of a few drawn at random, the one whose shading is most like this one's in and round the mask: an edge or a shadow
    that only the other photograph has would look like damage.
    """
    if not pictures.is_surface(line["product"]):
        return str(line["normal"])
    by_id = {example.id: example for example in (*split.normals, *split.shots)}
    others = [e for e in split.normals if e.product == line["product"] and e.id != line["normal"]]
    if not others:
        return str(line["normal"])
    normal, shot = by_id[line["normal"]], by_id[line["shot"]]
    mask = asked_mask(line, normal, shot, shots_for(line, split.shots), pictures, config.generate.turn)
    seen = grown(mask, _SHADE)
    here = _shading(pictures.read(normal).model(), mask.shape)[seen]
    gaps = {}
    for place in rng.choice(len(others), min(_DONORS, len(others)), replace=False):
        there = _shading(pictures.read(others[place]).model(), mask.shape)[seen]
        gaps[others[place].id] = float((there - here).std())
    return min(gaps, key=lambda name: gaps[name])


def _shading(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return a picture's brightness without its grain, float32 (H,W), scaled to a shape."""
    scaled = cv2.resize(picture.mean(axis=2), shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(scaled, (0, 0), _SHADE))


def _choices(config: Config, split: Split, plugin: type[Generator], pictures: Photographs, asked: Line) -> Line:
    product = asked["product"]
    rng = np.random.default_rng((config.seed, 31, asked["index"]))
    seed = int(rng.integers(2**31))
    shots = shots_for(asked, split.shots)
    normals = [e for e in split.normals if e.product == product]
    if not normals:
        raise DataError(f"product {product!r} has no normal part to paint on; add photographs of good parts")
    shot, normal = shots[int(rng.integers(len(shots)))], normals[int(rng.integers(len(normals)))]
    masks = config.generate.masks
    source = masks if masks != "mixed" else ("shots" if rng.random() < 0.5 else "procedural")
    if plugin.needs_shot:
        source = "shots"
    pose, look = None, ""
    if config.generate.prompt:
        source = "shots"
        parsed = parsed_prompt(config, split)
        shot, pose = prompted_pose(parsed, shots, normal, pictures, rng, turn=config.generate.turn)
        look = parsed.appearance
    elif source == "shots":
        pose = _pose(config, shot, normal, pictures, rng)
    line: Line = {"seed": seed, "normal": normal.id, "shot": shot.id, "masks": source, "pose": None}
    if look:
        line["look"] = look
    if pose is not None:
        line["pose"] = pose.to_json()
        # Another product's outline says nothing of this one's.
        own = shot.product == product and not pictures.is_surface(product)
        line["outline"] = config.generate.outline and own
    return line


def _pose(config: Config, shot: Example, normal: Example, pictures: Photographs, rng: np.random.Generator) -> Pose:
    """Return a pose whose mask really lies in the picture."""
    mask = pictures.read(shot).mask
    assert mask is not None
    shape = pictures.read(normal).native.shape[:2]
    best, most = Pose.identity(), -1.0
    for _ in range(6):
        pose = pose_mask(mask, pictures.part(shot), pictures.part(normal), rng, turn=config.generate.turn)
        share = float(apply_pose_mask(mask, pose, shape).sum() / (mask.sum() * pose.scale**2))
        if share > most:
            best, most = pose, share
        if share > 0.7:
            break
    if most <= 0:
        raise DataError(f"{shot.id}: its damage cannot be laid on {normal.id}; is the mask of this product?")
    return best


def asked_mask(
    line: Line, normal: Example, shot: Example, kin: Sequence[Example], pictures: Photographs, turn: Any
) -> np.ndarray:
    """Return where a plan line wants damage, bool (H,W) of the normal's size, never empty."""
    shape = pictures.read(normal).native.shape[:2]
    if line["masks"] == "shots":
        mask = pictures.read(shot).mask
        assert mask is not None
        pose = Pose.from_json(line["pose"])
        posed = apply_pose_mask(mask, pose, shape)
        if "borrowed" in line:  # what another product's damage would do to the backdrop is no damage of this one
            on_part = posed & pictures.part(normal)
            return on_part if on_part.any() else posed
        if not line.get("outline"):
            return posed
        return with_outline(posed, apply_pose_mask(pictures.part(shot), pose, shape), pictures.part(normal))
    rng = np.random.default_rng((line["seed"], 32))
    real = [mask for mask in (pictures.read(example).mask for example in kin) if mask is not None]
    return procedural(real, shape, pictures.part(normal), rng, turn=turn)
