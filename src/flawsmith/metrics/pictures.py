"""Distances between made and real pictures in feature space; each figure names its extractor.

The papers' figures are defined on Inception's features, with ten thousands of pictures. Here any extractor serves, so a
figure is comparable only with figures of the same extractor and of about as many pictures. Intervals resample pictures;
a picture drawn twice makes no pair with itself.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flawsmith.arithmetic.bootstrap import with_interval
from flawsmith.types import FeatureSet, Figure

NEIGHBOURS = 5
"""k of precision, recall, density and coverage; fewer where there are fewer pictures."""
MOST_OF_A_CLUSTER = 50
"""Made pictures of a cluster that diversity compares: the first so many."""


def kid(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    """Return the kernel inception distance x 1000: the unbiased squared maximum mean discrepancy of the features.

    `kid[extractor]`: about 0 (it may be a little below) and more; 0 = alike, lower is better. Kernel (x.y / D + 1)^3,
    over all pairs. Binkowski et al., "Demystifying MMD GANs", ICLR 2018. Extractor: `vector`.
    """
    name = f"kid[{made.extractor}]"
    if few := _few(real, made, 2):
        return {name: few}
    x, y = _vectors(real), _vectors(made)
    kernels = [(a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]

    def distance(w: np.ndarray, v: np.ndarray) -> float:
        return 1000 * (_apart(kernels[0], w) + _apart(kernels[1], v) - 2 * w @ kernels[2] @ v / (w.sum() * v.sum()))

    return {name: _figure(distance, len(real), len(made), rng, resamples)}


def frechet(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    """Return the Frechet distance of Gaussians fitted to the features (FID where they are Inception's).

    `frechet[extractor]`: 0 and more; 0 = alike, lower is better; biased upward for few pictures, and said so below as
    many as the features have dimensions. At most 50 resamples, for each takes long. Heusel et al., "GANs Trained by a
    Two Time-Scale Update Rule", NeurIPS 2017. Extractor: `vector`.
    """
    name = f"frechet[{made.extractor}]"
    if few := _few(real, made, 3):
        return {name: few}
    x, y = _vectors(real), _vectors(made)

    def distance(w: np.ndarray, v: np.ndarray) -> float:
        (mean, a), (other, b) = _centred(x, w), _centred(y, v)
        # The trace of the root of the covariances' product is the sum of these few singular values.
        shared = np.linalg.svd(a @ b.T, compute_uv=False).sum()
        return float(((mean - other) ** 2).sum() + (a**2).sum() + (b**2).sum() - 2 * shared)

    figure = _figure(distance, len(real), len(made), rng, min(resamples, 50))
    least = min(len(real), len(made))
    if least <= x.shape[1]:
        return {name: Figure(figure.value, figure.low, figure.high, f"{least} pictures for {x.shape[1]} dimensions")}
    return {name: figure}


def inception_score(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    """Return the inception score: exp(mean KL(p(y|x), p(y))) of the made pictures.

    `is[extractor]`: 1 to the number of classes; higher = each picture of a sure class, all together of many. Salimans
    et al., "Improved Techniques for Training GANs", NeurIPS 2016, section 4. Extractor: `probabilities`, which
    Inception alone tells.
    """
    name = f"is[{made.extractor}]"
    if made.probabilities is None:
        return {name: Figure(None, reason=f"{made.extractor} tells no classes; set features.extractor = inception")}
    if len(made) < 2:
        return {name: Figure(None, reason=f"{len(made)} made pictures")}
    p = np.clip(made.probabilities.double().numpy(), 1e-12, None)

    def score(w: np.ndarray, v: np.ndarray) -> float:
        share = v / v.sum()
        return float(np.exp(share @ (p * (np.log(p) - np.log(share @ p))).sum(1)))

    return {name: _figure(score, 0, len(made), rng, resamples)}


def prdc(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    """Return precision and density (made pictures lie among real ones), recall and coverage (real ones are all met).

    `precision`, `recall`, `coverage[extractor]`: 0..1; `density[extractor]`: 0 and more, 1 = as dense as real ones.
    Higher is better. Precision and recall: Kynkaanniemi et al., "Improved Precision and Recall Metric", NeurIPS 2019,
    section 2; density and coverage: Naeem et al., "Reliable Fidelity and Diversity Metrics", ICML 2020, section 3.
    k = 5 neighbours, fewer where there are fewer pictures, and then said so. Extractor: `vector`.
    """
    names = [f"{name}[{made.extractor}]" for name in ("precision", "density", "recall", "coverage")]
    if few := _few(real, made, 3):
        return dict.fromkeys(names, few)
    x, y = _vectors(real), _vectors(made)
    k = min(NEIGHBOURS, len(x) - 1, len(y) - 1)
    within, other, between = _gaps(x, x), _gaps(y, y), _gaps(x, y)
    # Place 0 of a sorted row is the picture itself.
    reach, made_reach = np.sort(within, 1)[:, k], np.sort(other, 1)[:, k]
    inside = between <= reach[:, None]
    # Each figure is a mean of these over the made or over the real pictures.
    parts = [inside.any(0), inside.sum(0) / k, (between <= made_reach[None]).any(1), inside.any(1)]
    note = f"k = {k}" if k < NEIGHBOURS else ""
    figures = {}
    for number, (name, part) in enumerate(zip(names, parts, strict=True)):
        values, over_made = part.astype(np.float64), number < 2

        def mean(w: np.ndarray, v: np.ndarray, values: np.ndarray = values, over_made: bool = over_made) -> float:
            weights = v if over_made else w
            return float(weights @ values / weights.sum())

        figure = _figure(mean, len(x), len(y), rng, resamples)
        figures[name] = Figure(figure.value, figure.low, figure.high, note)
    return figures


def diversity(real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int) -> dict[str, Figure]:
    """Return the mean perceptual distance within clusters: each made picture belongs to the real one nearest to it.

    `ic-lpips`, or `ic-diversity[extractor]` with another extractor than LPIPS' own: 0 and more; higher = more varied, 0
    = all alike. At most 50 pictures of a cluster count; clusters of one or none are left out. Ojha et al., "Few-shot
    Image Generation via Cross-domain Correspondence", CVPR 2021, section 4 (intra-cluster LPIPS). Extractor:
    `perceptual`.
    """
    name = "ic-lpips" if made.extractor == "lpips-vgg" else f"ic-diversity[{made.extractor}]"
    if few := _few(real, made, 1):
        return {name: few}
    x, y = _perceptual(real), _perceptual(made)
    nearest = (_gaps(x, y) ** 2).argmin(0)
    clusters = [np.flatnonzero(nearest == centre)[:MOST_OF_A_CLUSTER] for centre in range(len(x))]
    clusters = [members for members in clusters if len(members) > 1]
    if not clusters:
        return {name: Figure(None, reason="no real picture has two made ones nearest to it")}
    gaps = [_gaps(y[members], y[members]) ** 2 for members in clusters]

    def spread(w: np.ndarray, v: np.ndarray) -> float:
        each = [
            _apart(gap, v[members])
            for members, gap in zip(clusters, gaps, strict=True)
            if np.count_nonzero(v[members]) > 1
        ]
        return float(np.mean(each)) if each else float("nan")

    return {name: _figure(spread, 0, len(made), rng, resamples)}


def _few(real: FeatureSet, made: FeatureSet, least: int) -> Figure | None:
    if min(len(real), len(made)) >= least:
        return None
    return Figure(None, reason=f"{len(real)} real and {len(made)} made pictures; it takes {least} of each")


def _vectors(feature_set: FeatureSet) -> np.ndarray:
    return np.asarray(feature_set.vector.double().numpy())


def _perceptual(feature_set: FeatureSet) -> np.ndarray:
    """Return float64 (N,*) in which squared Euclidean distance is the perceptual one."""
    parts = [(depth / depth[0, 0].numel() ** 0.5).flatten(1) for depth in feature_set.perceptual]
    return np.concatenate([part.double().numpy() for part in parts], 1)


def _gaps(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return Euclidean distances (len(x), len(y)); exactly 0 from a picture to itself."""
    squared = (x**2).sum(1)[:, None] + (y**2).sum(1)[None] - 2 * x @ y.T
    gaps = np.sqrt(np.maximum(squared, 0))
    if x is y or (x.shape == y.shape and np.array_equal(x, y)):
        np.fill_diagonal(gaps, 0)
    return gaps


def _apart(matrix: np.ndarray, weights: np.ndarray) -> float:
    """Return the weighted mean of the entries off the diagonal."""
    pairs = weights.sum() ** 2 - (weights**2).sum()
    return float((weights @ matrix @ weights - (weights**2) @ np.diagonal(matrix)) / pairs)


def _centred(x: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean, and rows whose products sum to the covariance."""
    total = weights.sum()
    mean = weights @ x / total
    return mean, (x - mean) * np.sqrt(weights / (total - 1))[:, None]


def _figure(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    real: int,
    made: int,
    rng: np.random.Generator,
    resamples: int,
) -> Figure:
    """Return a statistic of weights over real and made pictures, with its bootstrap interval."""
    value = statistic(np.ones(real), np.ones(made))
    if not resamples:
        return Figure(float(value))
    drawn = []
    for _ in range(resamples):
        w, v = (rng.multinomial(n, np.full(n, 1 / n)).astype(float) if n else np.ones(0) for n in (real, made))
        if all(np.count_nonzero(one) > 1 for one in (w, v) if len(one) > 1):
            drawn.append(statistic(w, v))
    return with_interval(value, drawn)
