"""The two real sets that the suites measure on: where they lie below --data, and what of them can be looked at closely.

They are not part of the project: see the head of each example for where to get them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from flawsmith.config import Config, load_config
from flawsmith.data import images
from flawsmith.data.masks.reading import read_label
from flawsmith.types import Example

HOME = Path(__file__).resolve().parents[2]
RESULTS = HOME / "benchmarks" / "results"
FOLDERS = {"magnetic-tile": "magnetic-tile", "screw": "mvtec-screw-512"}
"""Set -> its folder below --data."""
EXAMPLES = {f"{name}{way}": name for name in FOLDERS for way in ("", "-inpaint", "-dual", "-csm", "-anomaly-diffusion")}
"""Example -> its set; a set has one per generator."""
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
"""Where the judges compute that a suite trains itself."""
CARD = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
"""The card that a result was made on; "" = none."""


def configuration(data: Path, example: str, told: dict[str, Any] | None = None) -> Config:
    """Return the configuration of an example; `told` overrides its keys."""
    root = data / FOLDERS[EXAMPLES[example]]
    if not root.is_dir():
        raise SystemExit(f"--data: there is no {root}; the head of examples/{example}.toml says where to get the set")
    overrides = {"data.root": str(root), **(told or {})}
    return load_config(HOME / "examples" / f"{example}.toml", overrides)


def with_damage(examples: Iterable[Example]) -> list[Example]:
    """Return the examples whose mask marks anything; one of the tiles' is empty."""
    return [
        example for example in examples if example.masks and read_label(example, images.read(example.image).shape).any()
    ]


def link(path: Path, target: Path) -> None:
    """Let a path be a link to a photograph or a mask."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_symlink():
        path.symlink_to(target.resolve())
