"""The checks of detectors: `check_detector(MyDetector)` trains it for seconds on small surfaces with planted damage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from flawsmith.data import factory, images
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import ConfigError, DataError, FlawsmithError
from flawsmith.interfaces import Detector
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.nn.features import tensors_fingerprint
from flawsmith.nn.networks.extractor import Extractor, scaled
from flawsmith.nn.weights import fresh_layers
from flawsmith.testing.settings import settings_hold
from flawsmith.types import Example, Prediction

DetectorCheck = Callable[[type[Detector]], None]
_DEFECTS = ("disc", "bar")
_PARTS = {"localization": "anomaly_map", "detection": "score", "classification": "probabilities"}
AGREE, AGREE_SHARE = 1e-4, 0.999
"""At least this share of what a graph says lies so near to what `predict` says."""
_LEAST = 0.0005
"""A budget that shows how a detector behaves, not what it can learn."""


class _TinyExtractor(Extractor):
    name = "tiny"
    strides, channels = (4, 8, 16), (12, 24, 32)

    def __init__(self) -> None:
        super().__init__()
        depths = zip((3, *self.channels), self.channels, (4, 2, 2), strict=False)
        with fresh_layers(7):
            self.network = torch.nn.ModuleList(torch.nn.Conv2d(a, b, s + 1, s, s // 2) for a, b, s in depths)
        self.fingerprint = tensors_fingerprint(self)

    @torch.inference_mode()
    def maps(self, image: Tensor) -> list[Tensor]:
        return self(image)

    def forward(self, image: Tensor) -> list[Tensor]:
        depths = [image]
        for layer in self.network:
            depths.append(layer(depths[-1]).relu())
        return depths[1:]

    def graph(self) -> torch.nn.Module:
        return self

    @torch.inference_mode()
    def vector(self, image: Tensor) -> Tensor:
        return self.maps(scaled(image, self.side))[-1].mean((2, 3))


def tiny_extractor() -> Extractor:
    """Return a small extractor with the same random weights each time: three depths, 32 numbers per picture."""
    return _TinyExtractor().eval().requires_grad_(False)


def example_training(
    count: int = 12, *, side: int = 64, oblong: bool = False, seed: int = 1, damaged: bool = True
) -> TrainingSet:
    """Return surfaces of one line, every second one with a bright disc or bar on it (unless `damaged` is False).

    Other seeds give other pictures of the same line: something to be tested on. `oblong` ones are the middle half of
    the square ones' rows, side / 2 x side, in which all damage has its centre.
    """
    return _drawn(count, side, oblong, seed, damaged).clone()


@cache
def _drawn(count: int, side: int, oblong: bool, seed: int, damaged: bool) -> TrainingSet:
    """Return the pictures of `example_training`, which many checks ask for: drawn once."""
    top, height = (side // 4, side // 2) if oblong else (0, side)
    kept, training, rng = slice(top, top + height), TrainingSet((height, side), _DEFECTS), np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    with TemporaryDirectory() as place:
        for number in range(count):
            pixels = factory.make("steel", None, seed=1000 * seed + number, line=1, size=side).image.copy()
            defect = _DEFECTS[number // 2 % 2] if number % 2 else None
            row, column = rng.integers(side // 4, 3 * side // 4, 2)
            if defect == "disc":
                mask = (rows - row) ** 2 + (columns - column) ** 2 <= (side // 10) ** 2
            else:
                mask = (abs(rows - row) <= side // 20) & (abs(columns - column) <= side // 5)
            example = Example(f"{number}.png", Path(place, f"{number}.png"), "steel")
            if defect is not None and damaged:
                pixels[mask] = 250
                example = replace(example, defect=defect, masks=(Path(place, f"{number}_mask.png"),))
                images.write_mask(Path(place, f"{number}_mask.png"), mask[kept])
            images.write(example.image, pixels[kept])
            if defect is None or damaged:
                training.add(example, "real")
    return training


def detector_settings_round_trip(plugin: type[Detector]) -> None:
    """Settings have a default and a line of help for every field, are frozen, and survive JSON."""
    settings_hold(plugin.__name__, plugin.Settings)


def detector_says_what_it_tells(plugin: type[Detector]) -> None:
    """`tells` names tasks; asked before it was trained, it raises a sentence."""
    assert plugin.tells and plugin.tells <= set(_PARTS), f"tells is {set(plugin.tells)}, not some of {set(_PARTS)}"
    detector = _detector(plugin)
    for budget in (1.0, 0.01):
        said = detector.reduced(budget)
        assert isinstance(said, str) and "\n" not in said, f"reduced({budget}) is no sentence: {said!r}"
    try:
        detector.predict(torch.zeros(1, 3, 64, 64))
    except FlawsmithError as error:
        assert "fit" in str(error) or "train" in str(error), f"not trained yet, it says: {error}"
    else:
        raise AssertionError("it predicts before it was trained")


def predictions_are_well_formed(plugin: type[Detector]) -> None:
    """The share done rises to 1; from the first epoch on `predict` fills what it tells and nothing else, in shape.

    So does `out_of_fold`, where a detector has it, and `facts` are figures.
    """
    training, detector = example_training(), _detector(plugin)
    image = training.batch(range(5)).image
    shares: list[float] = []
    for share in detector.fit(training, torch.Generator().manual_seed(0), budget=_LEAST):
        if not shares:
            _well_formed(detector, detector.predict(image), image)
        shares.append(share)
    assert shares and shares[-1] == 1.0 and 0 < shares[0], f"the shares done are {shares[:3]} ... {shares[-1:]}"
    assert all(a < b for a, b in zip(shares, shares[1:], strict=False)), "the share done does not rise"
    predicted, alone = detector.predict(image), detector.predict(image[2:3])
    _well_formed(detector, predicted, image)
    for whole, one in zip(_told(detector, predicted), _told(detector, alone), strict=True):
        assert torch.allclose(whole[2:3], one, rtol=1e-2, atol=1e-3), "what it says depends on the pictures beside it"
    facts = detector.facts()
    assert all(np.isfinite(value) for value in facts.values()), f"facts are figures, not {facts}"
    if (unseen := detector.out_of_fold(training)) is not None:
        indices, answer = unseen
        photographs = {*training.normal("real"), *training.damaged(None, "real")}
        once = len(set(indices)) == len(indices) and set(indices) <= photographs
        assert once, f"out of fold it names the pictures {indices}"
        _well_formed(detector, answer, training.batch(indices).image)


def same_rng_same_predictions(plugin: type[Detector]) -> None:
    """Trained again from the same rng it says the same, also when it was asked in between; global streams stay."""
    training, detector = example_training(), _detector(plugin)
    image, stream = training.batch(range(4)).image, torch.get_rng_state()
    for _ in detector.fit(training, torch.Generator().manual_seed(3), budget=_LEAST):
        first = detector.predict(image)
    again = _fitted(detector, training, seed=3).predict(image)
    for one, other in zip(_told(detector, first), _told(detector, again), strict=True):
        assert torch.equal(one, other), "the same rng gave other predictions"
    assert torch.equal(torch.get_rng_state(), stream), "the global random stream moved"


def remembered_features_change_nothing(plugin: type[Detector]) -> None:
    """It says the same to the last bit whether the features of some pictures are kept from before, or of none.

    So a proof that was killed goes on: some pictures were described by the process that is gone.
    """
    if not plugin.needs_extractor:
        return
    training, said = example_training(6), []
    image = training.batch(range(3)).image
    with TemporaryDirectory() as place:
        for kept in ([], [0, 3, 4]):
            if kept:
                FeatureCache(tiny_extractor(), Path(place), half=True).maps(training.batch(kept).image)
            extractor = FeatureCache(tiny_extractor(), Path(place) if kept else None, half=True)
            detector = plugin(plugin.Settings(), _DEFECTS, extractor=extractor)
            said.append(_told(detector, _fitted(detector, training).predict(image)))
    assert all(map(torch.equal, *said)), "what it says depends on which features were kept"


def planted_damage_is_found(plugin: type[Detector]) -> None:
    """After a small share of its training it ranks bright spots on pictures that it never saw far above chance.

    The pictures are wider than high, for not every product fills a square: who confuses rows and columns fails.
    """
    training = example_training(oblong=True)
    batch = example_training(24, oblong=True, seed=2).batch(range(24))
    labels = {"anomaly_map": batch.mask, "score": batch.mask.flatten(1).amax(1)}
    for budget in (0.006, 0.06, 0.3):
        detector = _detector(plugin)
        predicted = _fitted(detector, training, budget=budget).predict(batch.image)
        _well_formed(detector, predicted, batch.image)
        if not plugin.tells & {"localization", "detection"}:
            return
        answers = {part: getattr(predicted, part) for part in labels}
        ranked = {part: _ranked(said, labels[part]) for part, said in answers.items() if said is not None}
        if min(ranked.values()) >= 0.75:
            return
    raise AssertionError(f"planted damage is not found: AUROC {ranked} (chance is 0.5)")


def normal_alone_is_enough_or_refused(plugin: type[Detector]) -> None:
    """Without damaged pictures it trains, or says that it needs some; it never trains on what it should ignore."""
    normal, detector = example_training(damaged=False), _detector(plugin)
    image = normal.batch(range(3)).image
    if not plugin.needs_damage:
        said = [_told(detector, _fitted(detector, one).predict(image)) for one in (normal, example_training())]
        assert all(map(torch.equal, *said)), "needs_damage is False, yet damage counts"
        return
    try:
        _fitted(detector, normal)
    except DataError as error:
        assert "damage" in str(error) or "defect" in str(error), f"without damaged pictures it says: {error}"
    else:
        raise AssertionError("needs_damage is True, yet it trains without; set it to False or raise DataError")


def made_damage_alone_is_enough(plugin: type[Detector]) -> None:
    """It trains where no damaged picture is a photograph and a defect type has none: the arm `made-only` of a proof."""
    training, detector = example_training(6), _detector(plugin)
    image = training.batch(range(3)).image
    shown = [one for one in training.pictures if one.defect in (None, _DEFECTS[0])]
    training.pictures = [replace(one, origin="real" if one.defect is None else "made") for one in shown]
    try:
        _well_formed(detector, _fitted(detector, training).predict(image), image)
    except FlawsmithError as error:
        raise AssertionError(f"made damage of {_DEFECTS[0]} alone is not enough for it: {error}") from error


def graph_answers_as_predict_does(plugin: type[Detector]) -> None:
    """`graph` returns a network that says what `predict` says, alone or with others; or one sentence that it has none.

    Asked before it was trained, a detector that has one raises a sentence too.
    """
    try:
        _detector(plugin).graph()
    except ConfigError as error:
        assert "delivered" in str(error) and "\n" not in str(error), f"that it has no graph, it says so: {error}"
        return
    except DataError as error:
        assert "fit" in str(error) or "train" in str(error), f"not trained yet, it says: {error}"
    else:
        raise AssertionError("it has a graph before it was trained")
    training = example_training(oblong=True)
    detector = _fitted(_detector(plugin), training)
    image = example_training(6, oblong=True, seed=2).batch(range(6)).image
    graph, predicted = detector.graph(), _told(detector, detector.predict(image))
    with torch.inference_mode():
        answers = (graph(image), tuple(map(torch.cat, zip(graph(image[:1]), graph(image[1:]), strict=True))))
    for answer in answers:
        assert len(answer) == len(predicted), f"its graph has {len(answer)} outputs, and it tells {len(predicted)}"
        for one, other in zip(answer, predicted, strict=True):
            assert one.shape == other.shape, f"its graph says {tuple(one.shape)}, and predict {tuple(other.shape)}"
            # Where two remembered patches lie equally near, rounding decides which one is the nearest.
            near = ((one - other).abs() <= AGREE * (1 + other.abs())).float().mean()
            assert near >= AGREE_SHARE, f"its graph differs from predict in {100 * float(1 - near):.1f} % of the values"


DETECTOR_CHECKS: dict[str, DetectorCheck] = {
    check.__name__: check
    for check in (
        detector_settings_round_trip,
        detector_says_what_it_tells,
        predictions_are_well_formed,
        same_rng_same_predictions,
        remembered_features_change_nothing,
        planted_damage_is_found,
        normal_alone_is_enough_or_refused,
        made_damage_alone_is_enough,
        graph_answers_as_predict_does,
    )
}
"""Every check, by name."""


def check_detector(plugin: type[Detector]) -> None:
    """Run every check on a detector class.

    Raises:
        AssertionError: the first promise that is not kept, as a sentence.
    """
    for check in DETECTOR_CHECKS.values():
        check(plugin)


def _detector(plugin: type[Detector]) -> Detector:
    return plugin(plugin.Settings(), _DEFECTS, extractor=tiny_extractor() if plugin.needs_extractor else None)


def _fitted(detector: Detector, training: TrainingSet, seed: int = 0, budget: float = _LEAST) -> Detector:
    for _ in detector.fit(training, torch.Generator().manual_seed(seed), budget=budget):
        pass
    return detector


def _told(detector: Detector, predicted: Prediction) -> list[Tensor]:
    return [getattr(predicted, part) for task, part in _PARTS.items() if task in detector.tells]


def _well_formed(detector: Detector, predicted: Prediction, image: Tensor) -> None:
    count, _, height, width = image.shape
    shapes = {"anomaly_map": (count, 1, height, width), "score": (count,), "probabilities": (count, len(_DEFECTS))}
    for task, part in _PARTS.items():
        value = getattr(predicted, part)
        if task not in detector.tells:
            assert value is None, f"it does not tell {task}, so {part} must be None"
            continue
        assert value is not None, f"it tells {task}, but {part} is None"
        assert value.shape == shapes[part], f"{part} is {tuple(value.shape)}, not {shapes[part]}"
        assert value.dtype == torch.float32 and value.device.type == "cpu", f"{part} is {value.dtype} on {value.device}"
        assert bool(torch.isfinite(value).all()) and not value.requires_grad, f"{part} is not finite, or has a gradient"
    if predicted.probabilities is not None:
        assert float(predicted.probabilities.min()) >= 0, "a defect type's probability is below 0"
        assert torch.allclose(predicted.probabilities.sum(1), torch.ones(count), atol=1e-4), (
            "a row of defect types does not sum to 1"
        )


def _ranked(scores: Tensor, labels: Tensor) -> float:
    """Return the area under the ROC curve, from ranks."""
    ranks, hit = rankdata(scores.numpy().ravel()), labels.numpy().ravel() > 0.5
    most = int(hit.sum())
    return float((ranks[hit].sum() - most * (most + 1) / 2) / (most * (len(hit) - most)))
