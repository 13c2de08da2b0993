"""rounds.json: what screening asks to be made again, and which rejected pictures are gone on purpose.

A round names how many pairs of each defect type to plan behind the others. It holds for one gate: with other
thresholds, filters or features the rounds of the gate before are taken back.
"""

from __future__ import annotations

from typing import Any

from flawsmith.config import Config
from flawsmith.files import digest, read_json, write_json
from flawsmith.run.folder import Run

Asked = dict[tuple[str, str], int]
"""(product, defect type) -> how many pairs."""


def read_rounds(run: Run) -> list[Asked]:
    """Return what each round after the first asks for, as far as the configuration allows; [] = none."""
    rows = read_tree(run)["rounds"][: run.config.screen.rounds] if run.config.screen.enabled else []
    return [{(product, defect): number for product, defect, number in row} for row in rows]


def read_discarded(run: Run) -> set[int]:
    """Return the indices of pairs whose pictures were deleted on purpose."""
    part = run.config.screen
    return set(read_tree(run)["discarded"]) if part.enabled and not part.keep_rejected else set()


def forget_discarded(run: Run) -> None:
    """Take back that pictures were deleted on purpose: what is missing is made again."""
    tree = read_tree(run)
    if tree["discarded"]:
        write_json(run.path("rounds.json"), tree | {"discarded": []})


def forget_rounds(run: Run) -> None:
    """Take back every round: what is generated is about to be another."""
    run.path("rounds.json").unlink(missing_ok=True)


def gate_hash(config: Config) -> str:
    """Return what identifies the gate that a configuration asks for."""
    part = config.screen.model_dump(mode="json", exclude={"enabled", "rounds", "keep_rejected"})
    return digest(part, config.features.model_dump(mode="json"), config.generate.visible)


def read_tree(run: Run) -> dict[str, Any]:
    path, stamp = run.path("rounds.json"), gate_hash(run.config)
    if path.is_file():
        tree: dict[str, Any] = read_json(path)
        if tree.get("gate") == stamp:
            return tree
    return {"gate": stamp, "rounds": [], "discarded": []}
