"""metrics/pictures.py and labels.py against their definitions, written out plainly, and on planted cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.data.feature_windows import feature_window
from flawsmith.evaluation.measure import measure
from flawsmith.metrics import labels, pictures
from flawsmith.reporting.report import report
from flawsmith.reporting.sections import metric_table
from flawsmith.synthesis.generate import generate
from flawsmith.synthesis.train import train
from flawsmith.types import FeatureSet

RNG = np.random.default_rng(0)


def of_vectors(x: np.ndarray, **more: Any) -> FeatureSet:
    n = len(x)
    blank = torch.zeros(n, 3, 8, 8), torch.zeros(n, 8, 8, dtype=torch.bool)
    return FeatureSet(*blank, torch.from_numpy(x).float(), more.pop("perceptual", ()), "tiny", **more)


def test_kid_is_its_definition():
    x, y = RNG.normal(size=(7, 5)).astype(np.float32), RNG.normal(size=(9, 5)).astype(np.float32) + 0.3

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((np.dot(a.astype(float), b.astype(float)) / 5 + 1) ** 3)

    xx = np.mean([k(x[i], x[j]) for i in range(7) for j in range(7) if i != j])
    yy = np.mean([k(y[i], y[j]) for i in range(9) for j in range(9) if i != j])
    xy = np.mean([k(a, b) for a in x for b in y])
    found = pictures.kid(of_vectors(x), of_vectors(y), RNG, 0)["kid[tiny]"].value
    assert found == pytest.approx(1000 * (xx + yy - 2 * xy), rel=1e-9)


def test_kid_is_unbiased():
    values = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        x, y = (rng.normal(size=(8, 4)).astype(np.float32) for _ in range(2))
        values.append(pictures.kid(of_vectors(x), of_vectors(y), rng, 0)["kid[tiny]"].value)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(len(values))


def test_frechet_is_its_definition():
    x, y = RNG.normal(size=(40, 6)).astype(np.float32), (RNG.normal(size=(50, 6)) * 1.4 + 0.5).astype(np.float32)
    a, b = np.cov(x.astype(float), rowvar=False), np.cov(y.astype(float), rowvar=False)
    gap = x.astype(float).mean(0) - y.astype(float).mean(0)
    expected = float(gap @ gap + np.trace(a + b - 2 * np.real(sqrtm(a @ b))))
    found = pictures.frechet(of_vectors(x), of_vectors(y), RNG, 0)["frechet[tiny]"]
    assert found.value == pytest.approx(expected, rel=1e-6) and found.reason == ""
    few = pictures.frechet(of_vectors(x[:5]), of_vectors(y), RNG, 0)["frechet[tiny]"]
    assert few.reason == "5 pictures for 6 dimensions"


def test_prdc_is_its_definition():
    x, y = RNG.normal(size=(15, 3)).astype(np.float32), RNG.normal(size=(20, 3)).astype(np.float32) + 0.7
    k = 5

    def reach(z: np.ndarray, i: int) -> float:
        return sorted(float(np.linalg.norm(z[i].astype(float) - z[j])) for j in range(len(z)) if j != i)[k - 1]

    gap = np.array([[np.linalg.norm(a.astype(float) - b) for b in y] for a in x])
    expected = {
        "precision": np.mean([any(gap[i, j] <= reach(x, i) for i in range(15)) for j in range(20)]),
        "density": np.mean([sum(gap[i, j] <= reach(x, i) for i in range(15)) / k for j in range(20)]),
        "recall": np.mean([any(gap[i, j] <= reach(y, j) for j in range(20)) for i in range(15)]),
        "coverage": np.mean([min(gap[i]) <= reach(x, i) for i in range(15)]),
    }
    found = pictures.prdc(of_vectors(x), of_vectors(y), RNG, 0)
    for name, value in expected.items():
        assert found[f"{name}[tiny]"].value == pytest.approx(value)
    assert pictures.prdc(of_vectors(x[:4]), of_vectors(y), RNG, 0)["recall[tiny]"].reason == "k = 3"


def test_inception_score_is_its_definition():
    p = RNG.dirichlet(np.ones(4), 12).astype(np.float32)
    made = of_vectors(np.zeros((12, 2), np.float32), probabilities=torch.from_numpy(p))
    mean = p.astype(float).mean(0)
    expected = np.exp(np.mean([(row * np.log(row / mean)).sum() for row in p.astype(float)]))
    assert pictures.inception_score(made, made, RNG, 0)["is[tiny]"].value == pytest.approx(expected, rel=1e-6)
    bare = replace(made, probabilities=None)
    assert "tells no classes" in pictures.inception_score(bare, bare, RNG, 0)["is[tiny]"].reason


def test_diversity_is_the_ic_lpips_procedure():
    depths = [(3, 4, 4), (5, 2, 2)]
    real, made = (tuple(torch.from_numpy(RNG.normal(size=(n, *d)).astype(np.float32)) for d in depths) for n in (3, 9))

    def apart(a: tuple[torch.Tensor, ...], i: int, b: tuple[torch.Tensor, ...], j: int) -> float:
        return float(sum((x[i].double() - y[j]).square().sum(0).mean() for x, y in zip(a, b, strict=True)))

    nearest = [min(range(3), key=lambda i: apart(real, i, made, j)) for j in range(9)]
    means = []
    for centre in range(3):
        own = [j for j in range(9) if nearest[j] == centre]
        if len(own) > 1:
            means.append(np.mean([apart(made, i, made, j) for i in own for j in own if i < j]))
    feature_sets = (of_vectors(np.zeros((n, 2), np.float32), perceptual=p) for n, p in ((3, real), (9, made)))
    found = pictures.diversity(*feature_sets, RNG, 0)["ic-diversity[tiny]"]
    assert found.value == pytest.approx(np.mean(means), rel=1e-6)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        values = rng.normal(size=40)
        figure = labels._mean(values, rng, 200)
        assert figure.low is not None and figure.high is not None
        covered += figure.low < 0 < figure.high
    assert covered >= 50


def damaged(count: int, seed: int) -> FeatureSet:
    rng = torch.Generator().manual_seed(seed)
    below = (torch.randn(count, 1, 64, 64, generator=rng) * 0.1).expand(-1, 3, -1, -1).clone()
    mask = torch.zeros(count, 64, 64, dtype=torch.bool)
    mask[:, 20:40, 24:44] = True
    grain = torch.randn(count, 1, 64, 64, generator=rng) * 0.3 - 0.4
    image = torch.where(mask[:, None], grain.expand(-1, 3, -1, -1), below).clamp(-1, 1)
    return FeatureSet(image, mask, torch.zeros(count, 2), (), "tiny", None, below)


def test_alignment_tells_a_label_that_does_not_fit():
    made = damaged(6, 0)
    fits = labels.alignment(made, made, RNG, 0)
    assert fits["change_inside"].value == 1.0 and fits["label_changed"].value > 0.8 and fits["boundary"].value < 2
    shifted = replace(made, mask=made.mask.roll(10, 2))
    off = labels.alignment(made, shifted, RNG, 0)
    assert off["change_inside"].value == pytest.approx(0.55, abs=0.05)
    assert off["label_changed"].value < 0.6 and off["boundary"].value > 3
    nothing = labels.alignment(made, replace(made, image=made.below), RNG, 0)
    assert nothing["label_changed"].value == 0 and nothing["boundary"].reason == "nothing changed in any picture"


def test_seam_sees_a_hard_border():
    real = damaged(8, 0)
    assert labels.seam(real, damaged(8, 1), RNG, 0)["seam"].value == pytest.approx(1, abs=0.2)
    hard = real.image.clone()
    edge = real.mask & ~torch.from_numpy(np.stack([m for m in real.mask.numpy()])).roll(1, 2)
    hard[edge[:, None].expand_as(hard)] = 1.0
    assert labels.seam(real, replace(real, image=hard), RNG, 0)["seam"].value > 1.3


def test_copies_of_the_shots_are_caught():
    shots, honest = damaged(8, 0), damaged(20, 1)
    assert labels.copies(shots, honest, RNG, 0)["copies"].value == 0
    disguises = {
        "as it is": shots.image,
        "brightened": (shots.image * 0.8 + 0.15).clamp(-1, 1),
        "mirrored": shots.image.flip(-1),
        "turned": shots.image.rot90(1, (2, 3)),
        "grainier": shots.image + 0.02 * torch.randn(shots.image.shape, generator=torch.Generator().manual_seed(2)),
    }
    for name, image in disguises.items():
        planted = torch.cat([image, honest.image[:8]])
        found = labels.copies(shots, replace(honest, image=planted), RNG, 0)["copies"].value
        assert found == pytest.approx(0.5), name


# --- the stage ------------------------------------------------------------------------------------------------------


def test_windows_hold_the_damage_at_its_place():
    picture = np.zeros((200, 300, 3), np.float32)
    mask = np.zeros((200, 300), bool)
    mask[5:30, 250:290] = True
    picture[mask] = 1
    cut = feature_window(picture, mask, picture)
    assert cut.image.shape == (128, 128, 3) and cut.mask.shape == (128, 128) and np.array_equal(cut.image, cut.below)
    assert ((cut.image[..., 0] > 0.5) == cut.mask).mean() > 0.99
    wide = np.ones((40, 300), bool)  # a damage as wide as the picture, which is not square
    cut = feature_window(np.zeros((40, 300, 3), np.float32), wide)
    assert cut.image.shape == (128, 128, 3) and cut.mask.all() and cut.below is None


def test_measure_writes_figures_of_every_kind(small_config: dict[str, Any], tmp_path: Path):
    table = small_config | {"generator.name": "crop_paste", "generate.count": 4, "measure.resamples": 20}
    run = fs.Run.create(tmp_path / "run", load_config(None, table))
    train(run)
    generate(run)
    path = measure(run)
    tree = json.loads(path.read_text())
    assert {product: set(defects) for product, defects in tree["products"].items()} == {
        "magnet": {"crack", "chip"},
        "screw": {"bend"},
    }
    own = tree["products"]["magnet"]["crack"]
    assert (own["made"], own["real"], tree["real"]) == (4, 2, "shots")
    assert own["figures"]["change_inside"]["value"] > 0.97 and own["figures"]["label_changed"]["value"] > 0.1
    assert own["figures"]["kid[efficientnet-lite0]"]["value"] is not None
    table = metric_table(tree, "magnet")
    assert len(table.heads) == len(table.rows[0]) and "crack (4 samples, 2 real)" in table.rows[1][0]
    changed = path.stat().st_mtime_ns
    measure(run)
    assert path.stat().st_mtime_ns == changed
    report(run)
    assert "kid[efficientnet-lite0]" in run.path("report.html").read_text()
    assert "## Metrics" in run.path("report.md").read_text()
