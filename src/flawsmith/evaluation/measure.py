"""Metrics of the samples: windows round real and made damage, features once, every metric per defect type.

In the clean protocol samples are compared with the shots alone, so the test set stays unseen; in the field protocol
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
from flawsmith.data.feature_windows import SIDE, FeatureWindow, feature_window, window_of
from flawsmith.data.tensors import image_tensor
from flawsmith.errors import RunError
from flawsmith.files import write_json
from flawsmith.interfaces import Metric
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import load_extractor
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.run.dataset import Dataset, open_dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.run.records import Sample
from flawsmith.run.stage import Inputs, stage
from flawsmith.run.unchanged import require_as_learned, require_as_made
from flawsmith.types import Example, FeatureSet, Figure

_CHUNK = 16


def measure(run: Run, data: Dataset | None = None) -> Path:
    """Run the stage; does nothing when it is done already with the same input; returns the path of metrics.json.

    Args:
        run: The run.
        data: Its photographs, when they are open already.

    Raises:
        RunError: no samples were generated yet, or they or their photographs were changed since.
        ConfigError: a metric is unknown, or the extractor's weights are missing.
    """
    config, path, part = run.config, run.path("metrics.json"), run.config.features
    for name in config.measure.metrics:
        registry.require("metrics", name, "measure.metrics")
    made = run.samples_hash()
    if not made:
        raise RunError(f"{run.folder}: no samples are made yet; run `flawsmith generate {run.folder}` first")
    data = data or open_dataset(run)
    require_as_learned(run, data)
    require_as_made(run, run.kept())
    field = config.prove.protocol == "field"
    real = data.split.test_defects if field else data.split.shots
    where = config.backbone
    network = load_extractor(part.extractor, part.source, offline=where.offline, device=where.device)
    extractor = FeatureCache(network, run.path("state", "features"))
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
                theirs = [window_of(one) for one in real if (one.product, one.defect) == (product, defect)]
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


def feature_set(windows: Sequence[FeatureWindow], extractor: Extractor) -> FeatureSet:
    """Describe windows once; `below` is there when all of them have one."""
    image = image_tensor([one.image for one in windows]) if windows else torch.zeros(0, 3, SIDE, SIDE)
    mask = torch.from_numpy(np.array([one.mask for one in windows], bool).reshape(len(windows), SIDE, SIDE))
    normals = [one.below for one in windows if one.below is not None]
    below = image_tensor(normals) if windows and len(normals) == len(windows) else None
    chunks = image.split(_CHUNK) if windows else []
    vectors = [extractor.vector(chunk) for chunk in chunks]
    depths = [extractor.perceptual(chunk) for chunk in chunks]
    classes = [extractor.probabilities(chunk) for chunk in chunks]
    return FeatureSet(
        image,
        mask,
        torch.cat(vectors).float() if vectors else torch.zeros(0, 1),
        tuple(torch.cat(depth).float() for depth in zip(*depths, strict=True)),
        extractor.name,
        torch.cat([one for one in classes if one is not None]) if classes and classes[0] is not None else None,
        below,
    )


def _made(run: Run, sample: Sample, normals: dict[str, Example]) -> FeatureWindow:
    normal = images.read(normals[sample.normal].image)
    span = images.range_of(normal, normals[sample.normal].span)
    native = images.read(run.path(sample.image))
    mask = images.read_mask(run.path(sample.mask), native.shape)
    return feature_window(images.to_model(native, span), mask, images.to_model(normal, span))


def _plain(figure: Figure) -> dict[str, Any]:
    return {
        name: round(value, 6) if isinstance(value, float) else value
        for name, value in asdict(figure).items()
        if value not in (None, "") or name == "value"
    }
