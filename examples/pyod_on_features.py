"""Detectors of PyOD on embeddings that flawsmith exported: python pyod_on_features.py RUN/export/features/features.npz

It needs numpy, pyod and scikit-learn, and neither torch nor flawsmith. docs/pyod.md says when this is worth it.
"""

from __future__ import annotations

import sys

import numpy as np
from pyod.models.ecod import ECOD
from pyod.models.knn import KNN
from sklearn.metrics import roc_auc_score


def main(path: str) -> None:
    with np.load(path) as table:
        rows = {name: table[name] for name in table.files}
    damaged, made, held_out = rows["defect"] != "", rows["origin"] == "made", rows["side"] == "val"
    print(
        f"{len(made)} pictures, described by {rows['extractor']}: {made.sum()} samples, {(~damaged).sum()} normal parts"
    )
    for name, detector in (("ECOD", ECOD), ("KNN", KNN)):
        # Whole pictures: learn what is normal, then tell held-out normal parts from samples.
        judged = (~damaged & held_out) | made
        model = detector().fit(rows["whole"][~damaged & ~held_out])
        area = roc_auc_score(damaged[judged], model.decision_function(rows["whole"][judged]))
        print(f"{name}, whole pictures, samples against held-out normal parts: AUROC {area:.3f}")
        # Squares round the damage: the same places before and after it was painted. A half is learned from.
        places = np.flatnonzero(made)
        learned, tested = places[::2], places[1::2]
        model = detector().fit(rows["beneath"][learned])
        scores = [model.decision_function(rows[level][tested]) for level in ("beneath", "window")]
        truth = np.repeat([0, 1], len(tested))
        print(f"{name}, squares, with damage against without: AUROC {roc_auc_score(truth, np.concatenate(scores)):.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
