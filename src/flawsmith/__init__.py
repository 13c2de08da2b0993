"""flawsmith: realistic defect photographs with exact masks, learned from a handful of examples.

Nothing heavy is imported until a name below is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from flawsmith.version import VERSION

__version__ = VERSION

_HOMES = {
    "Backbone": "flawsmith.nn.backbone",
    "Brush": "flawsmith.synthesis.by_hand.brush",
    "Config": "flawsmith.config",
    "FlawsmithError": "flawsmith.errors",
    "Inspection": "flawsmith.inspection.inspector",
    "Inspector": "flawsmith.inspection.inspector",
    "Painted": "flawsmith.synthesis.by_hand.painted",
    "PaintedDataset": "flawsmith.synthesis.painted_dataset",
    "Provenance": "flawsmith.synthesis.by_hand.painted",
    "Run": "flawsmith.run.folder",
    "calibrate": "flawsmith.inspection.calibrate",
    "check": "flawsmith.preflight.check",
    "choose": "flawsmith.choice.choose",
    "deliver": "flawsmith.inspection.deliver",
    "demo": "flawsmith.factory_demo",
    "export": "flawsmith.exports.export",
    "generate": "flawsmith.synthesis.generate",
    "inspect": "flawsmith.inspection.inspect",
    "load_config": "flawsmith.config",
    "measure": "flawsmith.evaluation.measure",
    "paint": "flawsmith.synthesis.by_hand.brush",
    "prove": "flawsmith.pipeline",
    "report": "flawsmith.reporting.report",
    "run_all": "flawsmith.pipeline",
    "screen": "flawsmith.screening.screen",
    "train": "flawsmith.synthesis.train",
}

__all__ = [
    "Backbone",
    "Brush",
    "Config",
    "FlawsmithError",
    "Inspection",
    "Inspector",
    "Painted",
    "PaintedDataset",
    "Provenance",
    "Run",
    "calibrate",
    "check",
    "choose",
    "deliver",
    "demo",
    "export",
    "generate",
    "inspect",
    "load_config",
    "measure",
    "paint",
    "prove",
    "report",
    "run_all",
    "screen",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'flawsmith' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
