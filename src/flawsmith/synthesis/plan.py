"""Decide every sample before any is made: plan.jsonl, one line per sample.

The plan is a function of configuration and data alone, so shards and resumed runs agree on it without talking.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.masks.bend import Bend
from flawsmith.data.masks.part_frames import with_outline
from flawsmith.data.masks.poses import Pose, Turn, apply_pose_mask, pose_mask
from flawsmith.data.masks.shapes import procedural
from flawsmith.data.photographs import Photographs
from flawsmith.data.rendering.sites import site_mask
from flawsmith.data.split import Split
from flawsmith.errors import DataError, FlawsmithError
from flawsmith.interfaces import Generator
from flawsmith.run.dataset import Dataset
from flawsmith.run.records import LaidShot, PlanLine
from flawsmith.run.screened import Counts
from flawsmith.synthesis.counts import counts
from flawsmith.synthesis.sentences.prompt import prompted_shots, wishes_for
from flawsmith.synthesis.train import generator_class
from flawsmith.synthesis.transfer import known_references, reference_of, shots_for, transfers
from flawsmith.synthesis.without_shots.placing import placed
from flawsmith.types import Example


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of a plan line before anything is chosen; the arguments of `plan_line`."""

    index: int
    batch: int
    job: str
    product: str
    defect: str
    owner: str
    round: int


def make_plan(config: Config, data: Dataset) -> list[PlanLine]:
    """Return the plan's lines, in the order in which they are made."""
    return [plan_line(config, data, **asdict(place)) for place in first_places(config, data)]


def first_places(config: Config, data: Dataset) -> Iterator[Place]:
    """Yield the places of the first plan, in the order in which they are made.

    Raises:
        ConfigError: `generate.reference` names what the run does not have; said before the first.
    """
    known_references(config, data.split)
    return places(config, data, asked_counts(config, data.split))


def asked_counts(config: Config, split: Split) -> Counts:
    """Return how many samples of each (product, defect) the first plan holds: more than asked for, when screened."""
    times = config.screen.times if config.screen.enabled else 1
    return {key: math.ceil(times * number) for key, number in counts(config, split).items()}


def places(
    config: Config, data: Dataset, count_of: Counts, after: PlanLine | None = None, round: int = 0
) -> Iterator[Place]:
    """Yield places for so many samples of each (product, defect), numbered on from the last line planned before.

    A line's choices and seed follow from its index, so no two rounds ask for the same.
    """
    split = data.split
    lent = transfers(config, split)
    by_job: dict[str, dict[tuple[str, str], int]] = {}
    for (product, defect), count in sorted(count_of.items()):
        if not count:
            continue  # no generator need be named for it
        job = config.job_of(lent.get((product, defect), product), defect)
        by_job.setdefault(job, {})[product, defect] = count
    index = after.index + 1 if after else 0
    batch = after.batch if after else -1
    for job, counts_of_job in sorted(by_job.items()):
        for number, (product, defect) in enumerate(_in_turn(counts_of_job)):
            batch += number % config.generate.batch == 0
            yield Place(index, batch, job, product, defect, lent.get((product, defect), ""), round)
            index += 1


def _in_turn(count_of: Counts) -> Iterator[tuple[str, str]]:
    """Yield each (product, defect) so often; they take turns, so that the first half of a run shows all of them."""
    for turn in range(max(count_of.values())):
        yield from (key for key, count in count_of.items() if count > turn)


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


def _choose(
    config: Config, data: Dataset, plugin: type[Generator], shots: Sequence[Example], line: PlanLine
) -> PlanLine:
    """Return a line with its seed, photograph, shot, mask and pose chosen, all from its index."""
    rng = np.random.default_rng((config.seed, 31, line.index))
    seed = int(rng.integers(2**31))
    normals = data.photographs.normals_of(line.product)
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
    by_id = {example.id: example for example in shots}
    pose, further, in_place, appearance = None, tuple[LaidShot, ...](), True, ""
    sentence, wishes = wishes_for(config, data, line, rng)
    if wishes:
        try:
            laid, appearance, in_place = prompted_shots(config, wishes, shots, normal, data.photographs, rng)
        except FlawsmithError:
            if config.generate.prompt:
                raise
            sentence = ""  # a model said it of another photograph, and on this one there is no room for it
        else:
            source = "shots"
            shot, pose, further = by_id[laid[0].shot], laid[0].pose, tuple(laid[1:])
    if pose is None and source == "shots":
        pose = _pose(config, shot, normal, data.photographs, rng)
    if pose is not None and config.generate.bend:
        pose = replace(pose, bend=_bend(config, shot, data.photographs, seed))
        further = tuple(
            replace(one, pose=replace(one.pose, bend=_bend(config, by_id[one.shot], data.photographs, seed + number)))
            for number, one in enumerate(further, start=1)
        )
    if pose is not None:
        appearance = appearance or data.descriptions.appearance(shot.id)
    # Another product's outline says nothing of this one's.
    outlined = shot.product == line.product and not data.photographs.is_surface(line.product)
    return replace(
        line,
        seed=seed,
        normal=normal.id,
        shot=shot.id,
        mask_source=source,
        pose=pose,
        further=further,
        sentence=sentence,
        outline=pose is not None and config.generate.outline and outlined and in_place,
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
        shot: What lends the damage; None = nothing does, as in a site or a mask file.
        shots: All shots of the run; the statistics of drawn masks are those of the line's own type.
        photographs: Reads them.
        turn: How drawn masks may lie.
    """
    shape = photographs.read(normal).native.shape[:2]
    if line.mask_source == "site":
        assert line.pose is not None
        return site_mask(line.pose, photographs.part(normal))
    if line.mask_source == "file":
        return images.read_mask(Path(line.mask_file), shape)
    assert shot is not None
    if line.pose is not None:
        mask = photographs.read(shot).mask
        assert mask is not None
        shot_part = photographs.part(shot)
        posed = apply_pose_mask(mask, line.pose, shape, shot_part) | _further(line, shots, shape, photographs)
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


def _further(line: PlanLine, shots: Sequence[Example], shape: Sequence[int], photographs: Photographs) -> np.ndarray:
    """Return where a line wants damage beside that of its first shot, bool (H,W)."""
    asked = np.zeros((int(shape[0]), int(shape[1])), bool)
    for laid in line.further:
        shot = next(example for example in shots if example.id == laid.shot)
        mask = photographs.read(shot).mask
        assert mask is not None
        asked |= apply_pose_mask(mask, laid.pose, shape, photographs.part(shot))
    return asked
