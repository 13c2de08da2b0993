"""What was called what: the table behind accuracy and recall of defect types."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from flawsmith.errors import DataError, nearest


def confusion(true: Sequence[Hashable], predicted: Sequence[Hashable], defects: Sequence[Hashable]) -> np.ndarray:
    """Return int64 (K,K): entry [i, j] counts what is truly defects[i] and was called defects[j].

    Raises:
        DataError: the lengths differ, or an entry is none of `defects`.
    """
    if len(true) != len(predicted):
        raise DataError(f"confusion: {len(true)} true and {len(predicted)} predicted; give as many of both")
    place = {defect: index for index, defect in enumerate(defects)}
    table = np.zeros((len(place), len(place)), np.int64)
    try:
        for t, p in zip(true, predicted, strict=True):
            table[place[t], place[p]] += 1
    except KeyError as error:
        defect = error.args[0]
        raise DataError(
            f"confusion: {defect!r} is none of the defect types{nearest(str(defect), map(str, defects))}"
        ) from None
    return table
