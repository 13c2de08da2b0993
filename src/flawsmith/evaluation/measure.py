"""Rulers of the pictures themselves: windows round real and made damage, features once, every metric a defect type.

In the clean protocol made pairs are compared with the shots alone, so the test set stays unseen; in the field protocol
with the test defects, as papers do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flawsmith import registry
from flawsmith.data import images
from flawsmith.data.feature_windows import SIDE, close_up, window
from flawsmith.errors import RunError
from flawsmith.files import write_json
from flawsmith.interfaces import Metric
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.records import Sample
from flawsmith.run.stage import Inputs, stage
from flawsmith.types import Example, FeatureSet, Figure

_CHUNK = 16

Views = Sequence[tuple[np.ndarray, np.ndarray, np.ndarray | None]]


def measure(run: Run, data: Dataset | None = None) -> Path:
    """Run the stage; does nothing when it is done already with the same input; returns the path of metrics.json.

    Args:
        run: The run.
        data: Its photographs, when they are open already.

    Raises:
        RunError: no samples were generated yet.
        ConfigError: a metric is unknown, or the extractor's weights are missing.
    """
    config, path, part = run.config, run.path("metrics.json"), run.config.features
    for name in config.measure.metrics:
        registry.require("metrics", name, "measure.metrics")
    made = run.samples_hash()
    if not made:
        raise RunError(f"{run.folder}: no samples are made yet; run `flawsmith generate {run.folder}` first")
    data = data or open_dataset(run)
    field = config.prove.protocol == "field"
    real = data.split.test_defects if field else data.split.shots
    extractor = load_extractor(part.extractor, part.source, offline=config.backbone.offline)
    inputs = Inputs.of(config, "measure", samples=made, real=data.content(real), extractor=extractor.fingerprint)
    with stage(run, "measure", inputs, outputs=[path]) as work:
        if work.done:
            return path
        metrics: dict[str, Metric] = {name: registry.get("metrics", name) for name in config.measure.metrics}
        normals = {example.id: example for example in data.split.normals}
        samples = run.kept()
        defects = sorted({(shot.product, str(shot.defect)) for shot in data.split.shots})
        tree: dict[str, Any] = {
            "extractor": {"name": extractor.name, "fingerprint": extractor.fingerprint},
            "window": SIDE,
            "real": "test defects" if field else "shots",
            "resamples": config.measure.resamples,
            "products": {},
        }
        with progress("measure", len(defects), "defect types") as advance:
            for product, defect in defects:
                ours = [one for one in samples if (one.product, one.defect) == (product, defect)]
                theirs = [close_up(one) for one in real if (one.product, one.defect) == (product, defect)]
                sets = (
                    feature_set(theirs, extractor),
                    feature_set([_made(run, one, normals) for one in ours], extractor),
                )
                figures: dict[str, Figure] = {}
                for number, metric in enumerate(metrics.values()):
                    rng = np.random.default_rng((config.seed, 51, number))
                    figures |= metric(*sets, rng, config.measure.resamples)
                tree["products"].setdefault(product, {})[defect] = {
                    "real": len(theirs),
                    "made": len(ours),
                    "figures": {name: _plain(figure) for name, figure in figures.items()},
                }
                advance(1, defect)
        write_json(path, tree)
        work.what = f"{len(samples)} samples"
    return path


def feature_set(views: Views, extractor: Extractor) -> FeatureSet:
    """Describe windows (image float32 (S,S,3), mask bool (S,S), the normal one beneath or None) once."""
    size = (len(views), SIDE, SIDE)
    image = torch.from_numpy(np.array([view[0] for view in views], np.float32).reshape(*size, 3)).permute(0, 3, 1, 2)
    mask = torch.from_numpy(np.array([view[1] for view in views], bool).reshape(size))
    below = None
    if views and all(view[2] is not None for view in views):
        below = torch.from_numpy(np.array([view[2] for view in views], np.float32)).permute(0, 3, 1, 2)
    chunks = image.contiguous().split(_CHUNK) if views else []
    vectors = [extractor.vector(chunk) for chunk in chunks]
    depths = [extractor.perceptual(chunk) for chunk in chunks]
    told = [extractor.probabilities(chunk) for chunk in chunks]
    return FeatureSet(
        image,
        mask,
        torch.cat(vectors).float() if vectors else torch.zeros(0, 1),
        tuple(torch.cat(depth).float() for depth in zip(*depths, strict=True)),
        extractor.name,
        torch.cat([one for one in told if one is not None]) if told and told[0] is not None else None,
        below,
    )


def _made(run: Run, sample: Sample, normals: dict[str, Example]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    normal = images.read(normals[sample.normal].image)
    span = images.range_of(normal)
    native = images.read(run.path(sample.image))
    mask = images.read_mask(run.path(sample.mask), native.shape)
    image, label, below = window(images.to_model(native, span), mask, images.to_model(normal, span))
    return image, label, below


def _plain(figure: Figure) -> dict[str, Any]:
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in asdict(figure).items()
        if value not in (None, "") or name == "value"
    }
