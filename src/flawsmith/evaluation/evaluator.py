"""The test set of a proof: read only when a trained detector is evaluated, never handed to one that learns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from flawsmith.data import images
from flawsmith.data.scaling import scaled_mask
from flawsmith.data.split import Split, content_hash, provable
from flawsmith.data.tensors import image_tensor
from flawsmith.data.training_set import Scaled, read_scaled
from flawsmith.evaluation.arms import Made
from flawsmith.evaluation.calibration import evenly_spaced
from flawsmith.evaluation.shape import Shape
from flawsmith.evaluation.shifts import SHIFTS, shifted
from flawsmith.evaluation.statistics import EvaluationSet, Outcome, outcome
from flawsmith.interfaces import Detector
from flawsmith.types import Example, Prediction

_CHUNK = 16
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
    ) -> None:
        kept = provable(split, drop_near_duplicates=drop_near_duplicates)
        self.shape = shape
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
        self.shown = evenly_spaced(self.evaluation_set.groups()[0].tolist(), SHIFTED) if calibration else []
        """Places of the normal test pictures that shifts are rendered on."""

    def evaluate(self, detector: Detector, tasks: set[str]) -> Outcome:
        """Let a detector look at every test picture, once, and compute its figures for the tasks."""
        tests = self._tests()
        prediction = predicted(detector, torch.from_numpy(np.stack([one.image for one in tests])))
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
        answers = Outcome(
            calibration=_scores(detector, [read_scaled(example, self.shape).image for example in self.calibration])
        )
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
            repainted = read_scaled(control.example, self.shape).image
            untouched = read_scaled(self._normals[control.normal], self.shape).image
            native = images.read_mask(control.mask, images.describe(control.example.image).shape)
            region = scaled_mask(native, self.shape)
            anomaly_map = predicted(detector, torch.from_numpy(np.stack([repainted, untouched]))).anomaly_map
            assert anomaly_map is not None
            values.append([float(anomaly_map[row, 0].numpy()[region].max()) for row in range(2)])
        both = np.array(values)
        louder = np.sign(both[:, 0] - both[:, 1]) * 0.5 + 0.5
        return {
            "louder": float(louder.mean()),
            "control": float(both[:, 0].mean()),
            "untouched": float(both[:, 1].mean()),
        }

    def _tests(self) -> list[Scaled]:
        self._read = self._read or [read_scaled(example, self.shape) for example in self.tests]
        return self._read


def _scores(detector: Detector, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return float32 (N,): what a detector says of uint8 (R,C,3) pictures, one score each."""
    score = predicted(detector, torch.from_numpy(np.stack(pictures))).score
    assert score is not None
    return np.asarray(score.numpy())


def predicted(detector: Detector, pictures: torch.Tensor) -> Prediction:
    """Look at uint8 (P,R,C,3) pictures, a few at a time."""
    return Prediction.joined([detector.predict(image_tensor(chunk.numpy())) for chunk in pictures.split(_CHUNK)])
