"""What a plan for a set will cost, from what `check` measured of the set's files.

The files are looked at once. What a setting changes (how many samples, seeds, tiles) is worked out anew for each plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import mean

from flawsmith.config import AUTO, Config, GeneratorConfig
from flawsmith.data.split import Split
from flawsmith.errors import Answer, FlawsmithError
from flawsmith.evaluation.shape import proof_tiles
from flawsmith.nn.loading.facts import BackboneFacts
from flawsmith.preflight.cost import estimate
from flawsmith.run.defect_types import without_shots
from flawsmith.synthesis.transfer import transfers

CHOSEN_FIRST = (
    "generators are chosen first, by folds inside the shots, which takes up to an hour; the estimate leaves it out"
)
"""Said of a plan with `generator.name = "auto"`."""


@dataclass(frozen=True, slots=True)
class SetFacts:
    """What of a set's files decides what a run costs; plain values."""

    defects: tuple[tuple[str, str, int], ...]
    """(product, defect type, real pictures of it)."""
    shapes: tuple[tuple[str, tuple[int, int], int], ...]
    """(product, (rows, columns), normal photographs of that shape), of products with shots."""
    windows: float
    """Windows that a damage takes, on average."""
    picture_bytes: float
    """Raw bytes of a typical photograph."""
    largest: tuple[float, float]
    """Raw bytes and pixels of the largest photograph."""
    damaged: float
    """Pixels of the largest damage."""
    photographs: int
    """How many are learned from."""
    backbone: BackboneFacts | None
    """What the backbone is; None = unknown."""


def plan_cost(
    config: Config, facts: SetFacts, divided: Split | None
) -> tuple[dict[str, str], dict[str, tuple[Answer, ...]]]:
    """Return {what: how much} for a reader, and warnings with the settings that answer them; {} = nothing is made.

    Args:
        config: The run's configuration; where it lets generators be chosen first, the default one stands for that.
        facts: Of the set's files.
        divided: Which photographs are learned from and tested on; None = they cannot be divided.
    """
    if config.generator.name == AUTO:
        config = config.model_copy(update={"generator": GeneratorConfig()})
    made = _learned_from(facts, divided)
    if divided:
        made |= dict.fromkeys(without_shots(config, divided), 0)
    if not made:
        return {}, {}
    return estimate(
        config,
        made,
        windows=facts.windows,
        picture_bytes=facts.picture_bytes,
        largest=facts.largest,
        damaged=facts.damaged,
        photographs=facts.photographs,
        backbone=facts.backbone,
        transferred=_transferred(config, divided),
        tiles=_tiles(config, facts),
    )


def _transferred(config: Config, divided: Split | None) -> list[tuple[str, str]]:
    """Return each (product, defect type) that is painted and was never seen on the product; [] where that is wrong."""
    try:
        return list(transfers(config, divided)) if divided else []
    except FlawsmithError:  # `check` says it
        return []


def _learned_from(facts: SetFacts, divided: Split | None) -> dict[tuple[str, str], int]:
    """Return the real pictures of each (product, defect type) of which there are shots."""
    every = {(product, defect): number for product, defect, number in facts.defects}
    learned = {(shot.product, shot.defect) for shot in divided.shots} if divided else every.keys()
    return {key: number for key, number in every.items() if key in learned}


def _tiles(config: Config, facts: SetFacts) -> float:
    """Return into how many tiles a photograph is cut for the proof, in the mean; 1 = detectors see it whole."""
    counts: list[int] = []
    for product in {product for product, _, _ in facts.shapes}:
        shapes = [shape for name, shape, number in facts.shapes if name == product for _ in range(number)]
        if tiles := proof_tiles(config.prove, shapes):
            counts += [len(tiles.grid(tiles.size_of(shape))) for shape in shapes]
    return mean(counts) if counts else 1.0
