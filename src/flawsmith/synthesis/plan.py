"""Decide every sample before any is made: plan.jsonl, one line per sample.

The plan is a function of configuration and data alone, so shards and resumed runs agree on it without talking.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.masks.bend import Bend
from flawsmith.data.masks.parts import with_outline
from flawsmith.data.masks.poses import Pose, Turn, apply_pose_mask, pose_mask
from flawsmith.data.masks.shapes import procedural
from flawsmith.data.photographs import Photograph, Photographs
from flawsmith.data.poisson import grown
from flawsmith.data.rendering.places import place_mask
from flawsmith.data.split import Split
from flawsmith.data.windows import spot_of
from flawsmith.errors import DataError
from flawsmith.interfaces import Generator
from flawsmith.run.dataset import Dataset
from flawsmith.run.progress import progress
from flawsmith.run.records import PlanLine
from flawsmith.run.rounds import Counts
from flawsmith.synthesis.counts import counts
from flawsmith.synthesis.prompt import parsed_prompt, prompted_pose
from flawsmith.synthesis.train import generator_class, job_name
from flawsmith.synthesis.transfer import known_references, reference_of, shots_for, transfers
from flawsmith.synthesis.without_shots.placing import placed
from flawsmith.types import Example

_DONORS = 8
"""Photographs that are looked at for a control's normal matter."""
_SHADE = 4
"""Sigma in pixels of what counts as shading, and how far round the mask it is compared."""


def make_plan(config: Config, data: Dataset) -> list[PlanLine]:
    """Return the plan's lines, in the order in which they are made."""
    known_references(config, data.split)
    return plan_lines(config, data, asked_counts(config, data.split))


def asked_counts(config: Config, split: Split) -> Counts:
    """Return how many samples of each (product, defect) the first plan holds: more than asked for, when screened."""
    times = config.screen.times if config.screen.enabled else 1
    return {key: math.ceil(times * number) for key, number in counts(config, split).items()}


def plan_lines(
    config: Config,
    data: Dataset,
    count_of: Counts,
    before: Sequence[PlanLine] = (),
    round: int = 0,
) -> list[PlanLine]:
    """Return lines for so many samples of each (product, defect), numbered on from those planned before.

    A line's choices and seed follow from its index, so no two rounds ask for the same.
    """
    split = data.split
    lent = transfers(config, split)
    order: list[tuple[str, str, str]] = []
    for (product, defect), count in count_of.items():
        if not count:
            continue  # no generator need be named for it
        job = job_name(config, lent.get((product, defect), product), defect)
        order += [(job, product, defect)] * count
    # Types take turns within a job, so that the first half of a run shows all of them.
    turn: Counter[tuple[str, str, str]] = Counter()
    keyed = []
    for item in order:
        keyed.append((item[0], turn[item], item[1], item[2]))
        turn[item] += 1
    lines: list[PlanLine] = []
    first = before[-1].index + 1 if before else 0
    batch, last, size = before[-1].batch if before else -1, "", 0
    with progress("plan", len(keyed), "samples") as advance:
        for index, (job, _, product, defect) in enumerate(sorted(keyed), start=first):
            if job != last or size == config.generate.batch:
                batch, size, last = batch + 1, 0, job
            size += 1
            lines.append(
                plan_line(
                    config,
                    data,
                    index=index,
                    batch=batch,
                    job=job,
                    product=product,
                    defect=defect,
                    owner=lent.get((product, defect), ""),
                    round=round,
                )
            )
            advance()
    return lines


def plan_line(
    config: Config,
    data: Dataset,
    *,
    index: int,
    batch: int,
    job: str,
    product: str,
    defect: str,
    owner: str = "",
    round: int = 0,
) -> PlanLine:
    """Return the line of this number: seed, photograph, shot, mask and pose all follow from `config.seed` and `index`.

    Args:
        config: What is asked for.
        data: The photographs; there is a shot of this type.
        index: Its number, 0 or more; another number makes another sample.
        batch: The lines that it is painted with.
        job: What paints it, a folder below weights/.
        product: What is painted on.
        defect: The defect type.
        owner: The product that lends the type to this one; "" = this one has shots of it.
        round: See `PlanLine.round`.
    """
    plugin = generator_class(config, defect)
    line = PlanLine(
        index=index,
        role="sample",
        batch=batch,
        job=job,
        generator=config.generator.of(defect),
        product=product,
        defect=defect,
        seed=0,
        normal="",
        shot="",
        mask_source="shots",
        transferred_from=owner,
        round=round,
    )
    line = _choose(config, data, plugin, shots_for(owner or product, defect, data.split.shots), line)
    return replace(line, reference=reference_of(config, data, line)) if plugin.reads_reference else line


def make_controls(config: Config, data: Dataset, lines: Sequence[PlanLine]) -> list[PlanLine]:
    """Return the negative controls' lines: places of some of the samples, evenly over the types, repainted as normal.

    A control is painted on its sample's photograph, in its sample's mask. The normal matter to start from comes from
    the same place of another photograph where the product fills its pictures; a part that lies in any direction has no
    same place, so there it is the photograph's own.
    """
    if not config.generate.controls:
        return []
    share, count = config.generate.controls, Counter[tuple[str, str]]()
    controls: list[PlanLine] = []
    batch, last, size = -1, "", 0
    for line in lines:
        key = (line.product, line.defect)
        if line.transferred_from:  # controls serve the proof, and what a product never had is not proved on it
            continue
        if not generator_class(config, line.defect).paints_controls:
            continue
        count[key] += 1
        if int(count[key] * share) == int((count[key] - 1) * share):
            continue
        if line.job != last or size == config.generate.batch:
            batch, size, last = batch + 1, 0, line.job
        size += 1
        rng = np.random.default_rng((config.seed, 33, line.index))
        controls.append(
            replace(
                line,
                role="control",
                index=len(controls),
                control_of=line.index,
                batch=batch,
                seed=int(rng.integers(2**31)),
                donor=_donor(config, data, line, rng),
            )
        )
    return controls


def _donor(config: Config, data: Dataset, line: PlanLine, rng: np.random.Generator) -> str:
    """Return the id of the photograph whose normal matter a control starts from.

    Of a few drawn at random, the one whose shading is most like this one's in and round the mask: an edge or a shadow
    that only the other photograph has would look like damage.
    """
    split, photographs = data.split, data.photographs
    if not photographs.is_surface(line.product):
        return line.normal
    by_id = {example.id: example for example in (*split.normals, *split.shots)}
    others = [e for e in split.normals if e.product == line.product and e.id != line.normal]
    if not others:
        return line.normal
    normal, shot = by_id[line.normal], by_id[line.shot]
    mask = asked_mask(line, normal, shot, split.shots, photographs, config.generate.turn)
    near = grown(mask, _SHADE)
    here = _shading(photographs.read(normal), near)
    gaps = {}
    for number in rng.choice(len(others), min(_DONORS, len(others)), replace=False):
        there = _shading(photographs.read(others[number]), near)
        gaps[others[number].id] = float((there - here).std())
    return min(gaps, key=lambda name: gaps[name])


def _shading(photograph: Photograph, near: np.ndarray) -> np.ndarray:
    """Return a photograph's brightness without its grain, float32 (N,), where a mask of another one's size is True."""
    spot = slice(0, near.shape[0]), slice(0, near.shape[1])
    if photograph.native.shape[:2] == near.shape:
        spot = spot_of([], near, 8 * _SHADE)  # farther than the blur reaches
        grey = photograph.brightness(spot)
    else:
        grey = cv2.resize(photograph.brightness(), near.shape[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), _SHADE)[near[spot]])


def _choose(
    config: Config, data: Dataset, plugin: type[Generator], shots: Sequence[Example], line: PlanLine
) -> PlanLine:
    """Return a line with its seed, photograph, shot, mask and pose chosen, all from its index."""
    rng = np.random.default_rng((config.seed, 31, line.index))
    seed = int(rng.integers(2**31))
    normals = [example for example in data.split.normals if example.product == line.product]
    if not normals:
        raise DataError(f"product {line.product!r} has no normal part to paint on; add photographs of good parts")
    if plugin.without_shots == "always" or not shots:
        return placed(config, data, shots, normals, replace(line, seed=seed), rng)
    shot, normal = shots[int(rng.integers(len(shots)))], normals[int(rng.integers(len(normals)))]
    masks = config.generate.masks
    masks = masks.get(line.defect, "shots") if isinstance(masks, dict) else masks
    source = masks if masks != "mixed" else ("shots" if rng.random() < 0.5 else "procedural")
    if plugin.needs_shot:
        source = "shots"
    pose, appearance = None, ""
    if config.generate.prompt:
        source = "shots"
        parsed = parsed_prompt(config, data.split)
        shot, pose = prompted_pose(parsed, shots, normal, data.photographs, rng, turn=config.generate.turn)
        appearance = parsed.appearance
    elif source == "shots":
        pose = _pose(config, shot, normal, data.photographs, rng)
    if pose is not None and config.generate.bend:
        pose = replace(pose, bend=_bend(config, shot, data.photographs, seed))
    # Another product's outline says nothing of this one's.
    outlined = shot.product == line.product and not data.photographs.is_surface(line.product)
    return replace(
        line,
        seed=seed,
        normal=normal.id,
        shot=shot.id,
        mask_source=source,
        pose=pose,
        outline=pose is not None and config.generate.outline and outlined,
        appearance=appearance,
    )


def _pose(config: Config, shot: Example, normal: Example, photographs: Photographs, rng: np.random.Generator) -> Pose:
    """Return a pose whose mask really lies in the picture."""
    mask = photographs.read(shot).mask
    assert mask is not None
    shape = photographs.read(normal).native.shape[:2]
    best, most = Pose.identity(), -1.0
    for _ in range(6):
        pose = pose_mask(mask, photographs.part(shot), photographs.part(normal), rng, turn=config.generate.turn)
        share = float(apply_pose_mask(mask, pose, shape).sum() / (mask.sum() * pose.scale**2))
        if share > most:
            best, most = pose, share
        if share > 0.7:
            break
    if most <= 0:
        raise DataError(f"{shot.id}: its damage cannot be laid on {normal.id}; is the mask of this product?")
    return best


def _bend(config: Config, shot: Example, photographs: Photographs, seed: int) -> Bend | None:
    """Return how a shot is bent before it is posed."""
    mask, width = photographs.read(shot).mask, photographs.appearance(shot).thickness
    assert mask is not None
    on_part = not photographs.is_surface(shot.product)
    return Bend.of(mask, config.generate.bend, seed, thickness=width, on_part=on_part)


def asked_mask(
    line: PlanLine,
    normal: Example,
    shot: Example | None,
    shots: Sequence[Example],
    photographs: Photographs,
    turn: Turn,
) -> np.ndarray:
    """Return where a plan line wants damage, bool (H,W) of the normal's size, never empty.

    Args:
        line: The line.
        normal: What it is painted on.
        shot: What lends the damage; None = nothing does, as in a place or a mask file.
        shots: All shots of the run; the statistics of drawn masks are those of the line's own type.
        photographs: Reads them.
        turn: How drawn masks may lie.
    """
    shape = photographs.read(normal).native.shape[:2]
    if line.mask_source == "place":
        assert line.pose is not None
        return place_mask(line.pose, photographs.part(normal))
    if line.mask_source == "file":
        return images.read_mask(Path(line.mask_file), shape)
    assert shot is not None
    if line.pose is not None:
        mask = photographs.read(shot).mask
        assert mask is not None
        shot_part = photographs.part(shot)
        posed = apply_pose_mask(mask, line.pose, shape, shot_part)
        if line.transferred_from:  # what another product's damage would do to the backdrop is no damage of this one
            on_part = posed & photographs.part(normal)
            return on_part if on_part.any() else posed
        if not line.outline:
            return posed
        # No bend moves the outline of a part.
        laid_part = apply_pose_mask(shot_part, line.pose.unbent, shape)
        return with_outline(posed, laid_part, photographs.part(normal))
    rng = np.random.default_rng((line.seed, 32))
    kin = [shot for shot in shots_for(line.transferred_from or line.product, line.defect, shots) if shot.masks]
    real = [mask for mask in (photographs.read(example).mask for example in kin) if mask is not None]
    part = photographs.part(normal)
    return procedural(real, shape, part, rng, turn=turn, shot_part=lambda number: photographs.part(kin[number]))
