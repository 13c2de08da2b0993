"""From a sentence (`generate.prompt`) to plan lines: which shot lends its damage, where it is laid, and how large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flawsmith.config import Config
from flawsmith.data.masks.poses import Pose, apply_pose_mask, pose_mask
from flawsmith.data.photographs import Photographs
from flawsmith.data.poisson import grown
from flawsmith.data.sentences.grammar import SIZES, ParsedPrompt, parse
from flawsmith.data.sentences.regions import outward, region_mask, room_for
from flawsmith.data.split import Split
from flawsmith.errors import ConfigError, nearest
from flawsmith.run.dataset import Dataset
from flawsmith.run.defect_types import without_shots
from flawsmith.run.records import LaidShot, PlanLine
from flawsmith.types import Example

_TRIES = 24
"""Poses that are looked at; the one that meets the sentence best is taken."""
_SHARE = 0.34
"""Of a type's shots, the share that counts as long, thin, faint ..."""
_FITS = (0.5, 0.85)
"""Of a place's longer side, what damage takes that would be larger than it."""
_STRAY = 8.0
"""Degrees by which damage may lie off a direction that is asked for."""
_FEW = 20
"""Photographs up to which all are named in a sentence."""
_APART = 6
"""Px that damages of one photograph keep between them."""


def parsed_prompts(config: Config, split: Split) -> tuple[ParsedPrompt, ...]:
    """Return the damages that `generate.prompt` asks for, in its order.

    Raises:
        ConfigError: it is not understood (the sentence says what is known), or asks for mm and `data.pixel_mm` is 0.
    """
    defects = sorted({str(e.defect) for e in split.shots} | {defect for _, defect in without_shots(config, split)})
    places = {name: place.words for name, place in config.data.places.items()}
    parsed = parse(config.generate.prompt, defects, sorted({e.product for e in split.normals}), places)
    if not config.data.pixel_mm and any(one.length_mm or one.width_mm for one in parsed):
        raise ConfigError("--prompt: for sizes in mm, set data.pixel_mm to the millimetres that a pixel shows")
    return parsed


def known_places(config: Config, split: Split) -> None:
    """Refuse named places that could not be found on a photograph.

    Raises:
        ConfigError: a mask file is not there, or `drawn_on` names no normal photograph.
    """
    ids = {normal.id for normal in split.normals}
    for name, place in config.data.places.items():
        if place.mask and not (config.data.root / place.mask).is_file():
            raise ConfigError(f"data.places.{name}.mask: {config.data.root / place.mask}: no such file")
        if place.drawn_on and place.drawn_on not in ids:
            hint = nearest(place.drawn_on, ids) if len(ids) < _FEW else f"; one is {min(ids)}"
            raise ConfigError(f"data.places.{name}.drawn_on: {place.drawn_on!r} is no normal photograph{hint}")


def prompted_counts(config: Config, split: Split, asked: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Keep of the counts those of the defect types, and of the product, that the sentence names.

    Raises:
        ConfigError: a place that it names is on no product with that type.
    """
    parsed = parsed_prompts(config, split)
    wanted = {
        (product, defect): count
        for (product, defect), count in asked.items()
        if any(asks_for(one, product, defect, config) for one in parsed)
    }
    for one in parsed:
        if one.region and not any(asks_for(one, product, defect, config) for product, defect in asked):
            owner = config.data.places[one.region].product
            raise ConfigError(f"--prompt: {one.region} is a place of {owner!r}, which gets no {one.defect} here")
    return wanted


def wishes_for(
    config: Config, data: Dataset, line: PlanLine, rng: np.random.Generator
) -> tuple[str, Sequence[ParsedPrompt]]:
    """Return the sentence that decides a sample's place and look, and what it asks for; "" and () = none does."""
    if config.generate.prompt:
        parsed = parsed_prompts(config, data.split)
        return config.generate.prompt, [one for one in parsed if asks_for(one, line.product, line.defect, config)]
    sentence = data.descriptions.drawn(line.product, line.defect, rng)
    return (sentence.text, sentence.parsed) if sentence is not None else ("", ())


def asks_for(parsed: ParsedPrompt, product: str, defect: str, config: Config) -> bool:
    """Return whether a damage of a sentence is meant for this type of this product."""
    owner = config.data.places[parsed.region].product if parsed.region else ""
    return parsed.defect == defect and parsed.product in ("", product) and owner in ("", product)


@dataclass(frozen=True, slots=True)
class _Ground:
    """A normal photograph that a sentence's damages are laid on."""

    shape: tuple[int, ...]
    part: np.ndarray
    """bool (H,W)."""
    region: np.ndarray | None
    """bool (H,W): the place that the sentence names; along an edge without one, the part."""
    taken: np.ndarray
    """bool (H,W): the damages laid so far, and what is too near to them."""
    pixel_mm: float


def prompted_shots(
    config: Config,
    wishes: Sequence[ParsedPrompt],
    shots: Sequence[Example],
    normal: Example,
    photographs: Photographs,
    rng: np.random.Generator,
) -> tuple[list[LaidShot], str, bool]:
    """Return shots and how to lay them on a normal photograph so that the sentence comes true as nearly as it can.

    Length, width and severity choose among the shots; size, place and direction among poses. On a surface a damage is
    moved, turned and scaled to what was asked for. On a part it stays where such damage lies on the part, and the
    nearest of many poses is taken, unless the sentence names a place, an edge to lie along, a direction or mm.

    Args:
        config: The run's.
        wishes: What is asked for, see `wishes_for`; one at least.
        shots: Those of the defect type that the sample is of.
        normal: What is painted on.
        photographs: Reads them.
        rng: All randomness.

    Returns:
        A shot for each damage, one at least; the words of appearance of the first; and whether all of them lie where
        such damage lies on the part.

    Raises:
        ConfigError, DataError: a named place is not on this photograph, or the damage asked for is larger than it.
    """
    part = photographs.part(normal)
    shape = photographs.read(normal).native.shape[:2]
    taken = np.zeros(shape, bool)
    laid: list[LaidShot] = []
    for wish in wishes:
        region = part if wish.along else None
        if wish.region:
            region = region_mask(wish.region, config.data, normal, photographs)
        for _ in range(wish.number):
            ground = _Ground(shape, part, region, taken, config.data.pixel_mm)
            shot, pose = _prompted_pose(wish, shots, ground, photographs, rng, config)
            laid.append(LaidShot(shot.id, pose))
            mask = photographs.read(shot).mask
            assert mask is not None
            taken = taken | grown(apply_pose_mask(mask, pose, shape), _APART)
    return laid, wishes[0].appearance, not any(map(_moves, wishes))


def _prompted_pose(
    wish: ParsedPrompt,
    shots: Sequence[Example],
    ground: _Ground,
    photographs: Photographs,
    rng: np.random.Generator,
    config: Config,
) -> tuple[Example, Pose]:
    """Return the shot and pose, of some, that come nearest to a wish."""
    fitting = _fitting(wish, shots, photographs)
    best: tuple[float, Example, Pose] | None = None
    for _ in range(_TRIES):
        shot = fitting[int(rng.integers(len(fitting)))]
        mask = photographs.read(shot).mask
        assert mask is not None
        pose = pose_mask(mask, photographs.part(shot), ground.part, rng, turn=config.generate.turn)
        room = None
        if ground.part.all() or _moves(wish):
            width = photographs.appearance(shot).thickness if wish.width_mm else 0.0
            pose, room = _moved(pose, mask, width, wish, ground, rng)
        scale = abs(float(np.linalg.det(pose.array[:, :2])))
        miss = _miss(wish, apply_pose_mask(mask, pose, ground.shape), float(mask.sum()) * scale, room, ground.taken)
        if best is None or miss < best[0]:
            best = miss, shot, pose
        if miss == 0:
            break
    assert best is not None
    return best[1], best[2]


def _moves(wish: ParsedPrompt) -> bool:
    """Return whether a wish takes damage from where it lies on the part."""
    return bool(wish.region or wish.along or wish.direction or wish.length_mm or wish.width_mm)


def _fitting(parsed: ParsedPrompt, shots: Sequence[Example], photographs: Photographs) -> list[Example]:
    """Return the third of the shots that are longest, thinnest, faintest ... of their type."""
    wants = [
        (number, -1.0 if word in ("long", "wide", "severe") else 1.0)
        for number, word in enumerate((parsed.length, parsed.width, parsed.severity))
        if word
    ]
    if not wants:
        return list(shots)
    measures = np.array([photographs.appearance(example) for example in shots])
    ranks = measures.argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    score = sum(sign * ranks[:, number] for number, sign in wants)
    order = np.argsort(score, kind="stable")
    return [shots[index] for index in order[: max(1, round(_SHARE * len(shots)))]]


def _moved(
    pose: Pose, mask: np.ndarray, width: float, wish: ParsedPrompt, ground: _Ground, rng: np.random.Generator
) -> tuple[Pose, np.ndarray | None]:
    """Return the pose with its damage brought to size, direction and place, and where it may lie (None: anywhere)."""
    points = np.argwhere(mask)[:, ::-1].astype(np.float64)
    linear = _sized(pose.array[:, :2].copy(), points, width, wish, ground, rng)
    size = np.array([ground.shape[1], ground.shape[0]], np.float64)
    room, to, angle = None, None, None
    if ground.region is not None:
        room = room_for(wish, ground.region, ground.part, float(np.ptp(points @ linear.T, axis=0).max() + 1))
        places = np.argwhere(room & ~ground.taken) if (room & ~ground.taken).any() else np.argwhere(room)
        place = places[int(rng.integers(len(places)))]
        to = place[::-1].astype(np.float64)
        if wish.along:
            across = outward(ground.region)[place[0], place[1]]
            angle = float(np.arctan2(across[1], across[0])) + np.pi / 2
    if wish.direction:
        angle = 0.0 if wish.direction == "horizontal" else np.pi / 2
    if angle is not None:
        by = angle + np.deg2rad(rng.uniform(-_STRAY, _STRAY)) - _axis(points @ linear.T)
        linear = np.array([[np.cos(by), -np.sin(by)], [np.sin(by), np.cos(by)]]) @ linear
    moved = points @ linear.T
    half = np.ptp(moved, axis=0) / 2
    middle = moved.min(axis=0) + half
    if to is None:
        to = _asked_place(wish, (pose.array[:, :2] @ points.mean(axis=0) + pose.array[:, 2]) / size, rng) * size
    else:
        middle = moved.mean(axis=0)  # of a bent scratch the box's middle may lie beside it
    low, high = half + 1 - (moved.min(axis=0) + half - middle), size - half - 2 - (moved.min(axis=0) + half - middle)
    centre = np.clip(to, low, np.maximum(high, low))
    return Pose.of(np.column_stack([linear, centre - middle])), room


def _asked_place(wish: ParsedPrompt, lies: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return where in the picture the damage is to be, (2,) as shares across and down; `lies`: where it is now."""
    to = lies
    if wish.place is not None:
        to = np.array(wish.place) + rng.uniform(-0.08, 0.08, 2)
        # A sentence that names one side alone leaves the other free.
        to = np.where([not wish.across, not wish.down], rng.uniform(0.15, 0.85, 2), to)
    if wish.edge:
        sides = {"left": (0, 0.0), "right": (0, 1.0), "top": (1, 0.0), "bottom": (1, 1.0)}
        named = [sides[word] for word in (wish.across, wish.down) if word in sides]
        axis, end = named[0] if named else list(sides.values())[int(rng.integers(4))]
        to[axis] = end
    return to


def _sized(
    linear: np.ndarray,
    points: np.ndarray,
    width: float,
    wish: ParsedPrompt,
    ground: _Ground,
    rng: np.random.Generator,
) -> np.ndarray:
    """Return the linear part (2,2) of a pose with its damage as large as asked for.

    Raises:
        ConfigError: that is larger than the photograph.
    """
    side, on_place = float(max(ground.shape)), bool(wish.region) and not wish.beside
    if on_place and ground.region is not None:
        ys, xs = np.nonzero(ground.region)
        side = float(max(np.ptp(xs), np.ptp(ys)) + 1)
    extent = float(np.ptp(points @ linear.T, axis=0).max() + 1)
    if wish.size:
        low, high = SIZES[wish.size]
        return linear * (float(np.exp(rng.uniform(np.log(low * 1.1), np.log(high * 0.9)))) * side / extent)
    if wish.length_mm or wish.width_mm:
        moved = points @ linear.T
        axis = _axis(moved)
        along = np.array([np.cos(axis), np.sin(axis)])
        sizes = [float(np.ptp(moved @ along)) + 1, width * float(np.sqrt(abs(np.linalg.det(linear))))]
        asked = [_drawn(bounds, rng) / ground.pixel_mm for bounds in (wish.length_mm, wish.width_mm)]
        require_room(max(asked), ground.shape, ground.pixel_mm)
        # The width is measured only where it is asked for.
        by = [want / now if want else 0.0 for want, now in zip(asked, sizes, strict=True)]
        lengthwise = by[0] or by[1]
        crosswise = by[1] or by[0]
        # Alike in both directions, unless both sizes are asked for.
        return (lengthwise * np.outer(along, along) + crosswise * (np.eye(2) - np.outer(along, along))) @ linear
    if on_place and extent > _FITS[1] * side:
        return linear * (float(rng.uniform(*_FITS)) * side / extent)
    return linear


def require_room(pixels: float, shape: Sequence[int], pixel_mm: float) -> None:
    """Refuse a size that is larger than a photograph."""
    if pixels > max(shape):
        raise ConfigError(
            f"--prompt: {pixels * pixel_mm:g} mm are {pixels:.0f} px, and the photograph has {max(shape)}; ask for "
            "less, or see to data.pixel_mm"
        )


def _drawn(bounds: tuple[float, float] | None, rng: np.random.Generator) -> float:
    return float(rng.uniform(*bounds)) if bounds else 0.0


def _axis(points: np.ndarray) -> float:
    """Return the direction of the long axis of points (N,2), in radians."""
    spread = np.cov((points - points.mean(axis=0)).T) if len(points) > 1 else np.eye(2)
    vector = np.linalg.eigh(spread)[1][:, 1]
    return float(np.arctan2(vector[1], vector[0]))


def _miss(wish: ParsedPrompt, posed: np.ndarray, area: float, room: np.ndarray | None, taken: np.ndarray) -> float:
    """Return how far a posed mask is from what the sentence asks for; 0 = it is met."""
    ys, xs = np.nonzero(posed)
    if not len(xs):
        return float("inf")
    height, width = posed.shape
    miss = max(0.0, 0.7 - len(xs) / max(area, 1.0)) + float(taken[ys, xs].mean())
    if room is not None:
        return miss + max(0.0, 0.95 - float(room[ys, xs].mean()))
    if wish.place is not None:
        x, y = wish.place
        gap = [
            abs(xs.mean() / width - x) if wish.across else 0.0,
            abs(ys.mean() / height - y) if wish.down else 0.0,
        ]
        miss += max(0.0, max(gap) - 0.15)
    if wish.size:
        low, high = SIZES[wish.size]
        extent = (max(np.ptp(xs) / width, np.ptp(ys) / height)) or 1 / max(width, height)
        miss += max(0.0, low - extent) + max(0.0, extent - high)
    if wish.edge:
        miss += min(xs.min() / width, ys.min() / height, 1 - xs.max() / width, 1 - ys.max() / height)
    return float(miss)
