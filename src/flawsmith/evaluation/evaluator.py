"""The test set of a proof: read only when a trained detector is evaluated, never handed to one that learns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch

from flawsmith.data import images
from flawsmith.data.fingerprints import content_hash
from flawsmith.data.inspection_tiles import Tiles
from flawsmith.data.scaling import scaled_mask
from flawsmith.data.split import Split, provable
from flawsmith.data.tensors import image_tensor
from flawsmith.data.training_set import Scaled, TrainingSet, read_scaled
from flawsmith.evaluation.arms import Made
from flawsmith.evaluation.calibration import evenly_spaced
from flawsmith.evaluation.shape import Shape
from flawsmith.evaluation.shifts import SHIFTS, shifted
from flawsmith.evaluation.statistics import EvaluationSet, Outcome, outcome
from flawsmith.interfaces import Detector
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.types import Example

_CHUNK, _CHUNK_PIXELS = 16, 1 << 24
"""Pictures, and pixels, that are handed to a detector together: photographs at their own resolution may be large."""
SHIFTED = 40
"""Normal test pictures that shifts are rendered on, at most."""
_PART = {"localization": "anomaly_map", "detection": "score", "classification": "probabilities"}


class Evaluator:
    """Holds one product's test pictures, and asks detectors about them.

    Args:
        split: One product's pictures.
        defects: Its defect types, in the order in which detectors count them.
        shape: Rows and columns of the pictures that detectors see.
        drop_near_duplicates: Leave out what seems to be a second photograph of a shot.
        calibration: Normal photographs that no detector learns from; () = no threshold is set.
        tiles: How photographs are cut into tiles of that shape; each is then asked about at its own size. None =
            detectors see them whole.

    Raises:
        DataError: the test set lacks normal or damaged pictures.
    """

    def __init__(
        self,
        split: Split,
        defects: Sequence[str],
        shape: Shape,
        *,
        drop_near_duplicates: bool,
        calibration: Sequence[Example] = (),
        tiles: Tiles | None = None,
    ) -> None:
        kept = provable(split, drop_near_duplicates=drop_near_duplicates)
        self.shape, self.tiles = shape, tiles
        self.left_out = len(split.test_defects) - len(kept.test_defects)
        self.tests = [*(e for e in kept.test_defects if e.defect in defects), *kept.test_normals]
        # Photographs left out as near-duplicates are test pictures still: no detector may learn from them either.
        everyone = [*split.test_defects, *split.test_normals]
        self.forbidden = frozenset(content_hash(example.image) for example in everyone)
        number_of = {defect: number for number, defect in enumerate(defects)}
        numbers = [number_of[e.defect] if e.defect is not None else -1 for e in self.tests]
        self.evaluation_set = EvaluationSet(tuple(e.id for e in self.tests), np.array(numbers), tuple(defects))
        self._normals = {example.id: example for example in split.normals}
        self._read: list[Scaled] = []
        self.calibration = tuple(calibration)
        self.asked = (*self.tests, *self.calibration)
        self.shown = evenly_spaced(self.evaluation_set.groups()[0].tolist(), SHIFTED) if calibration else []
        """Places of the normal test pictures that shifts are rendered on."""

    def size_of(self, example: Example) -> Shape:
        """Return the rows and columns at which a photograph is asked about."""
        return self.shape if self.tiles is None else self.tiles.size_of(images.describe(example.image).shape)

    def read(self, example: Example) -> Scaled:
        """Read a photograph with its label as `predicted` takes it: at `size_of`."""
        return read_scaled(example, self.size_of(example))

    def evaluate(self, detector: Detector, tasks: set[str]) -> Outcome:
        """Let a detector look at every test picture, once, and compute its figures for the tasks."""
        tests = self._tests()
        prediction = predicted(detector, [one.image for one in tests])
        answers = {task: getattr(prediction, _PART[task]) for task in tasks}
        anomaly_map, score, probabilities = (answers.get(task) for task in _PART)
        return outcome(
            self.evaluation_set,
            [one.mask for one in tests],
            None if anomaly_map is None else [one[0].numpy() for one in anomaly_map],
            None if score is None else score.numpy(),
            None if probabilities is None else probabilities.numpy(),
            [one.ignored for one in tests],
        )

    def operate(self, detector: Detector, *, shifts: bool) -> Outcome:
        """Return a detector's scores of the calibration normals, and with `shifts` of shifted normal test pictures.

        Args:
            detector: One that tells detection.
            shifts: Whether it also looks at some normal test pictures under each of `shifts.SHIFTS`.
        """
        answers = Outcome(calibration=_scores(detector, [self.read(example).image for example in self.calibration]))
        if shifts:
            images = [(place, self._tests()[place].image) for place in self.shown]
            answers.shifted = np.stack(
                [_scores(detector, [shifted(image, shift, place) for place, image in images]) for shift in SHIFTS]
            )
        return answers

    def artefact(self, detector: Detector, held: Sequence[Made]) -> dict[str, float]:
        """Return how a detector's anomaly map differs where a normal part was repainted from the same place untouched.

        `louder` is the share of controls whose repainted place has the higher maximum of the anomaly map (a tie counts
        half): 0.5 = a repainted place looks like any other, 1 = the detector has learned "repainted = damaged". The
        held-out controls and their photographs were never learned from.
        """
        values = []
        for control in held:
            repainted = self.read(control.example).image
            untouched = self.read(self._normals[control.normal]).image
            native = images.read_mask(control.mask, images.describe(control.example.image).shape)
            region = scaled_mask(native, self.size_of(control.example))
            anomaly_maps = predicted(detector, [repainted, untouched]).anomaly_map
            assert anomaly_maps is not None
            values.append([float(one[0].numpy()[region].max()) for one in anomaly_maps])
        both = np.array(values)
        louder = np.sign(both[:, 0] - both[:, 1]) * 0.5 + 0.5
        return {
            "louder": float(louder.mean()),
            "control": float(both[:, 0].mean()),
            "untouched": float(both[:, 1].mean()),
        }

    def looked_at(self, example: Example) -> list[np.ndarray]:
        """Return what a detector's network sees of a photograph, uint8 (R,C,3): the whole, or each tile."""
        image = self.read(example).image
        return [image] if self.tiles is None else self.tiles.grid(image.shape).cut(image)

    def _tests(self) -> list[Scaled]:
        self._read = self._read or [self.read(example) for example in self.tests]
        return self._read


def describe_ahead(extractor: Extractor, training: TrainingSet, evaluator: Evaluator, places: Iterable[int]) -> None:
    """Have the features of normal parts and test pictures computed and kept.

    The first trainings would compute them, each for itself, and the time left would count them once for each.

    Args:
        extractor: One that keeps what it says (`FeatureCache`).
        training: What every arm learns from.
        evaluator: Knows the test pictures and calibration normals.
        places: Which: pictures of the training set come first, then those of `Evaluator.asked`.
    """
    with torch.inference_mode():
        for place in places:
            if place < len(training):
                extractor.maps(training.batch([place]).image)
                continue
            for picture in evaluator.looked_at(evaluator.asked[place - len(training)]):
                extractor.maps(image_tensor([picture]))


def _scores(detector: Detector, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return float32 (N,): what a detector says of uint8 (R,C,3) pictures, one score each."""
    score = predicted(detector, pictures).score
    assert score is not None
    return np.asarray(score.numpy())


class Answers(NamedTuple):
    """What a detector says of P pictures; a task that it does not tell is None."""

    anomaly_map: list[torch.Tensor] | None
    """float32 (1,R,C) each, of the picture's own rows and columns."""
    score: torch.Tensor | None
    """float32 (P,)."""
    probabilities: torch.Tensor | None
    """float32 (P,K)."""


def predicted(detector: Detector, pictures: Iterable[np.ndarray]) -> Answers:
    """Look at uint8 (R,C,3) pictures, a few of one shape at a time."""
    parts = []
    for _, alike in groupby(pictures, key=lambda picture: tuple(picture.shape)):
        group = list(alike)
        count = max(1, min(_CHUNK, _CHUNK_PIXELS // (group[0].shape[0] * group[0].shape[1])))
        for start in range(0, len(group), count):
            parts.append(detector.predict(image_tensor([np.asarray(one) for one in group[start : start + count]])))

    def of_all(name: str) -> list[torch.Tensor] | None:
        values = [getattr(one, name) for one in parts]
        return None if any(value is None for value in values) else values

    anomaly_maps, scores, probabilities = (of_all(name) for name in ("anomaly_map", "score", "probabilities"))
    return Answers(
        None if anomaly_maps is None else [one for chunk in anomaly_maps for one in chunk],
        None if scores is None else torch.cat(scores),
        None if probabilities is None else torch.cat(probabilities),
    )
