"""The ranking equals scikit-learn and a brute-force PRO, whatever ties, dtype or order."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from flawsmith.arithmetic import ranking
from flawsmith.arithmetic.binned import histograms, weighted_ap, weighted_ap_of_unions
from flawsmith.arithmetic.confusion import confusion
from flawsmith.arithmetic.ranking import Ranking
from flawsmith.errors import ConfigError, DataError

sklearn_metrics = pytest.importorskip("sklearn.metrics", reason="compares with scikit-learn, which is not installed")

QUICK = settings(max_examples=60, deadline=None)
TOLERANCE = 1e-9


def ranked(pictures, **options):
    made = Ranking(**options)
    for scores, labels in pictures:
        made.add(scores, labels)
    return made.result()


def by_sklearn(scores, labels):
    """AUROC, AP and F1-max; of the ranks, because scikit-learn refuses infinities."""
    ranks = np.unique(scores, return_inverse=True)[1].ravel().astype(np.float64)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, ranks)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return (
        sklearn_metrics.roc_auc_score(labels, ranks),
        sklearn_metrics.average_precision_score(labels, ranks),
        f1.max(),
    )


def brute_pro(pictures, limit):
    """Every distinct threshold, every region, one at a time; then the trapezoid up to the limit."""
    regions, normal = [], []
    for scores, labels in pictures:
        places, count = ndimage.label(labels, structure=np.ones((3, 3)))
        regions += [scores[places == number] for number in range(1, count + 1)]
        normal.append(scores[~labels])
    normal = np.concatenate(normal)
    x, y = [0.0], [0.0]
    for threshold in sorted({float(s) for scores, _ in pictures for s in scores.ravel()}, reverse=True):
        x.append(float(np.mean(normal >= threshold)))
        y.append(float(np.mean([np.mean(region >= threshold) for region in regions])))
    area = 0.0
    for x0, x1, y0, y1 in zip(x, x[1:], y, y[1:], strict=False):
        if x0 >= limit:
            break
        cut = min(x1, limit)
        y_cut = y1 if x1 <= limit else y0 + (y1 - y0) * (cut - x0) / (x1 - x0)
        area += (cut - x0) * (y0 + y_cut) / 2
    return area / limit


def check(pictures, limits=(0.3, 1.0, 0.05), **options):
    found = ranked(pictures, regions=True, **options)
    scores = np.concatenate([s.ravel() for s, _ in pictures])
    labels = np.concatenate([m.ravel() for _, m in pictures]) != 0
    np.testing.assert_allclose((found.auroc, found.ap, found.f1_max), by_sklearn(scores, labels), atol=TOLERANCE)
    for limit in limits:
        assert found.aupro(limit) == pytest.approx(brute_pro(pictures, limit), abs=TOLERANCE)
    flagged = scores >= found.threshold
    right = np.count_nonzero(flagged & labels)
    assert 2 * right / (flagged.sum() + labels.sum()) == pytest.approx(found.f1_max, abs=TOLERANCE)
    assert found.threshold in scores
    assert (found.positives, found.negatives) == (labels.sum(), (~labels).sum())
    return found


TYPES = st.sampled_from([np.float32, np.float16])
TRICKY = {
    np.float32: [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 1e-45, -1e-45, 3e-39, 3.4028235e38, -3.4028235e38, 0.1, 0.5],
    np.float16: [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, 6e-8, -6e-8, 3e-5, 65504.0, -65504.0, 0.1, 0.5],
}


@st.composite
def picture_sets(draw):
    """A few small pictures: tricky numbers with many ties, or any numbers; at least one pixel of each class."""
    defect = draw(TYPES)
    width = 16 if defect == np.float16 else 32
    values = draw(
        st.sampled_from(
            [
                st.sampled_from([defect(v) for v in TRICKY[defect]]),
                st.sampled_from([defect(0.25), defect(0.5)]),
                st.floats(width=width, allow_nan=False),
                st.floats(0, 1, width=width),
            ]
        )
    )
    pictures = []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
        pictures.append((draw(hnp.arrays(defect, shape, elements=values)), draw(hnp.arrays(bool, shape))))
    first, last = pictures[0][1], pictures[-1][1]
    last[-1, -1] = False
    first[0, 0] = True
    if not any((~mask).any() for _, mask in pictures):
        pictures.append((np.array([[draw(values)]], defect), np.zeros((1, 1), bool)))
    return pictures


@QUICK
@given(picture_sets())
def test_equal_to_scikit_learn_and_brute_force_on_adversarial_pictures(pictures):
    check(pictures)


@QUICK
@given(pictures=picture_sets(), seed=st.integers(0, 9))
def test_order_changes_no_bit(pictures, seed):
    straight = ranked(pictures, regions=True)
    shuffled = [pictures[place] for place in np.random.default_rng(seed).permutation(len(pictures))]
    other = ranked(shuffled, regions=True)
    assert straight == other
    assert [straight.aupro(limit) for limit in (0.01, 0.3, 1.0)] == [other.aupro(limit) for limit in (0.01, 0.3, 1.0)]


@pytest.mark.parametrize("defect", [np.float32, np.float16])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.97])
def test_equal_on_random_pictures_of_ordinary_scores(defect, share):
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(4):
        mask = ndimage.gaussian_filter(rng.normal(size=(18, 18)), 2)
        mask = mask > np.quantile(mask, 1 - share)
        pictures.append(((rng.normal(size=mask.shape) + mask).astype(defect), mask))
    check(pictures)


@pytest.mark.parametrize("defect", [np.float32, np.float16])
def test_constant_scores_are_a_coin(defect):
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:5] = True
    found = check([(np.full((8, 8), 0.25, defect), mask)])
    assert found.auroc == 0.5 and found.ap == 6 / 64 and found.threshold == 0.25
    assert found.aupro(0.3) == pytest.approx(0.15)


def test_regions_that_touch_at_a_corner_are_one():
    scores = np.array([[3, 0, 0, 0], [0, 2, 0, 1], [0, 0, 0, 0]], np.float32)
    mask = np.array([[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], bool)
    assert check([(scores, mask)]).regions == 2
    assert check([(scores, mask), (scores, mask)]).regions == 4


def test_a_stack_of_pictures_is_its_pictures():
    rng = np.random.default_rng(1)
    scores, masks = rng.random((3, 9, 9), np.float32), rng.random((3, 9, 9)) < 0.2
    masks[0, -1], masks[1, 0] = True, True  # these would be one region if pictures were joined
    assert ranked([(scores, masks)], regions=True) == ranked(zip(scores, masks, strict=True), regions=True)


def test_perfect_and_perfectly_wrong():
    mask = np.zeros((6, 6), bool)
    mask[1:3, 1:3] = True
    right = check([(mask.astype(np.float32), mask)])
    assert (right.auroc, right.ap, right.f1_max, right.threshold, right.aupro()) == (1, 1, 1, 1, 1)
    wrong = check([(1 - mask.astype(np.float32), mask)])
    assert (wrong.auroc, wrong.aupro()) == (0, 0)


def test_many_portions_equal_one(monkeypatch):
    rng = np.random.default_rng(2)
    scores = np.round(rng.random((40, 64, 64), np.float32), 4)
    scores[rng.random(scores.shape) < 0.3] = 0.75  # one tie wider than a portion
    masks = ndimage.gaussian_filter(rng.normal(size=scores.shape), (0, 3, 3)) > 0.1
    whole = ranked([(scores, masks)], regions=True)
    monkeypatch.setattr(ranking, "_CHUNK", 5000)
    parted = ranked([(scores, masks)], regions=True)
    pairs = list(zip(scores, masks, strict=True))
    singly = ranked(pairs, regions=True)
    assert len(parted._curve) > 5 and whole == parted == singly
    assert parted.aupro(0.2) == singly.aupro(0.2) == pytest.approx(whole.aupro(0.2), abs=1e-12)
    expected = by_sklearn(scores.ravel(), masks.ravel())
    np.testing.assert_allclose((whole.auroc, whole.ap, whole.f1_max), expected, atol=TOLERANCE)


def test_many_more_ties_than_32_bits_hold():
    made = Ranking()
    made.add(np.zeros(4, np.float16), np.array([0, 0, 1, 1]))
    made.add(np.ones(2, np.float16), np.array([0, 1]))
    made._counts[:2] <<= 31  # as if every picture had been added two thousand million times
    made._positives <<= 31
    made._negatives <<= 31
    found = made.result()
    assert found.auroc == 0.5 and found.ap == pytest.approx(0.5) and found.f1_max == pytest.approx(2 / 3)


def test_more_may_be_added_after_a_result():
    rng = np.random.default_rng(3)
    pictures = [(rng.random((16, 16), np.float32), rng.random((16, 16)) < 0.1) for _ in range(6)]
    made = Ranking(regions=True)
    for picture in pictures[:3]:
        made.add(*picture)
    first = made.result()
    half = first.aupro()
    for picture in pictures[3:]:
        made.add(*picture)
    assert made.result() == ranked(pictures, regions=True)
    assert first.aupro() == half and first == ranked(pictures[:3], regions=True)


def test_the_arrays_that_were_given_may_change_afterwards():
    rng = np.random.default_rng(4)
    scores, labels = rng.random((8, 8), np.float32), rng.random((8, 8)) < 0.4
    expected = ranked([(scores, labels)])
    made = Ranking()
    given, mask = scores.copy(), labels.copy()
    made.add(given, mask)
    given[:], mask[:] = 0, True
    assert made.result() == expected


def test_layouts_and_types_of_the_same_numbers_agree():
    rng = np.random.default_rng(5)
    scores, labels = rng.random((8, 6), np.float32), rng.random((8, 6)) < 0.4
    expected = ranked([(scores, labels)], regions=True)
    for same in (np.asfortranarray(scores), scores.astype(">f4"), scores.astype(np.float64)):
        assert ranked([(same, labels)], regions=True) == expected
    for mask in (labels.astype(np.uint8) * 255, labels.astype(np.int64), np.asfortranarray(labels)):
        assert ranked([(scores, mask)], regions=True) == expected
    assert ranked([(scores.T, labels.T)], regions=True) == expected
    assert ranked([([3, 1, 2], [True, False, False])]).auroc == 1


def test_float16_equals_float32_of_the_same_numbers():
    rng = np.random.default_rng(6)
    pictures = [(rng.random((20, 20)).astype(np.float16), rng.random((20, 20)) < 0.2) for _ in range(3)]
    small, wide = ranked(pictures, regions=True), ranked([(s.astype(np.float32), m) for s, m in pictures], regions=True)
    assert small == wide
    assert small.aupro() == pytest.approx(wide.aupro(), abs=1e-14)


def test_figures_by_name():
    rng = np.random.default_rng(7)
    picture = rng.random((8, 8), np.float32), rng.random((8, 8)) < 0.4
    found = ranked([picture], regions=True)
    assert found.figures()["aupro"] == found.aupro(0.3)
    assert set(ranked([picture]).figures()) == {"auroc", "ap", "f1_max", "threshold"}
    assert "_curve" not in repr(found)


# ---- what is refused ----------------------------------------------------------------------------

GOOD = np.zeros((4, 4), np.float32)
SOUND = np.zeros((4, 4), bool)


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [
        (GOOD, SOUND[:3], r"scores are \(4, 4\) and labels \(3, 4\)"),
        (np.full((4, 4), np.nan, np.float32), SOUND, "16 of 16 scores are NaN"),
        (np.full((4, 4), -np.nan, np.float16), SOUND, "16 of 16 scores are NaN"),
        (np.full((4, 4), 0.1), SOUND, "float64 scores that float32 cannot hold"),
        (np.full((4, 4), 1e300), SOUND, "float64 scores that float32 cannot hold"),
        (np.full((4, 4), np.nan), SOUND, "16 of 16 scores are NaN"),
        (GOOD, SOUND.astype(np.float32), "float32 labels; give float32 scores and bool labels"),
        (GOOD.astype(complex), SOUND, "complex128 scores"),
        (GOOD[:0], SOUND[:0], r"an array of shape \(0, 4\) holds no score"),
        (GOOD[0], SOUND[0], r"regions need pictures \(..., H, W\) and not shape \(4,\)"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_a_sentence(scores, labels, said):
    made = Ranking(regions=True)
    with pytest.raises(DataError, match=said) as caught:
        made.add(scores, labels)
    assert "\n" not in str(caught.value)
    made.add(GOOD, ~SOUND)  # nothing of the refused picture stays
    made.add(GOOD, SOUND)
    assert made.result().positives == made.result().negatives == 16


def test_one_class_alone_is_refused():
    for labels, missing in ((SOUND, "defect"), (~SOUND, "normal")):
        made = Ranking()
        made.add(GOOD, labels)
        with pytest.raises(DataError, match=f"none of 16 scores is labelled {missing}; add some"):
            made.result()
    with pytest.raises(DataError, match="none of 0 scores"):
        Ranking().result()


def test_two_types_of_scores_are_refused():
    made = Ranking()
    made.add(GOOD, SOUND)
    with pytest.raises(DataError, match="float16 scores after float32 ones"):
        made.add(GOOD.astype(np.float16), SOUND)


@pytest.mark.parametrize("limit", [0, -0.1, 1.01, float("nan")])
def test_limits_that_are_no_rates_are_refused(limit):
    mask = SOUND.copy()
    mask[0, 0] = True
    with pytest.raises(ConfigError, match="no false-positive rate"):
        ranked([(GOOD, mask)], regions=True).aupro(limit)
    with pytest.raises(ConfigError, match=re.escape("Ranking(regions=True)")):
        ranked([(GOOD, mask)]).aupro()


# ---- resampled pictures -------------------------------------------------------------------------


def pictures_of(count, rng, side=96):
    made = []
    for _ in range(count):
        mask = ndimage.gaussian_filter(rng.normal(size=(side, side)), 4) > 0.03
        made.append(((rng.normal(size=mask.shape) + 1.2 * mask).astype(np.float32), mask))
    return made


@pytest.mark.parametrize("edges", ["every score", "quantiles"])
def test_resamples_equal_the_exact_figures_of_repeated_pictures(edges):
    rng = np.random.default_rng(10)
    pictures = pictures_of(6, rng)
    if edges == "every score":
        pictures = [(np.round(s, 1), m) for s, m in pictures]
    scores, masks = zip(*pictures, strict=True)
    cuts = np.unique(np.concatenate([s.ravel() for s in scores]))
    bound = 1e-12
    if edges == "quantiles":
        damaged = np.sort(np.concatenate([s[m] for s, m in pictures]))
        assert len(damaged) > 2 * 4096
        cuts, bound = np.unique(damaged[np.arange(1, 4096) * len(damaged) // 4096]), 1 / 4096
    weights = rng.multinomial(6, np.full(6, 1 / 6), size=5)
    counts = histograms(scores, masks, cuts)
    assert counts[0].shape == (6, len(cuts) + 1)
    assert (counts[0].sum(), counts[1].sum()) == (np.sum(masks), np.sum(~np.array(masks)))
    exact = [ranked(pictures[p] for p in np.repeat(np.arange(6), row)) for row in weights]
    for drawn in (weights, weights.astype(np.float32)):
        np.testing.assert_allclose(weighted_ap(*counts, drawn), [one.ap for one in exact], atol=bound, rtol=0)


def test_bins_run_from_high_to_low_and_an_edge_belongs_above():
    scores = np.array([0.0, 0.5, 0.6, 1.0, 2.0], np.float32)
    labels = np.array([0, 1, 0, 1, 1])
    pos, neg = histograms([scores], [labels], np.array([0.5, 1.0], np.float32))
    assert pos.tolist() == [[2, 1, 0]] and neg.tolist() == [[0, 1, 1]]


def test_a_resample_without_a_class_is_no_number():
    pos, neg = np.array([[1, 0], [0, 0]]), np.array([[0, 0], [3, 4]])
    weights = np.array([[1, 1], [0, 1], [1, 0], [0, 0]])
    np.testing.assert_array_equal(weighted_ap(pos, neg, weights), [1 / 4, np.nan, 1, np.nan])
    assert weighted_ap(pos, neg, weights[:0]).shape == (0,)


def test_unions_of_groups_are_what_each_is_alone():
    rng = np.random.default_rng(11)
    pos, neg = rng.integers(0, 9, (7, 50)), rng.integers(0, 900, (7, 50))
    pos[:3] = 0  # normal pictures
    weights = rng.multinomial(7, np.full(7, 1 / 7), size=200)
    groups = [np.array([0, 1, 2]), np.array([6, 4]), np.array([3]), np.array([], int)]
    unions = [[0, 1], [0, 2], [0, 1, 2, 3], [3], [2]]
    precisions = weighted_ap_of_unions(pos, neg, weights, groups, unions)
    for one, union in zip(precisions, unions, strict=True):
        members = np.concatenate([groups[number] for number in union])
        np.testing.assert_array_equal(one, weighted_ap(pos[members], neg[members], weights[:, members]))
    assert np.isnan(precisions[3]).all() and not np.isnan(precisions[2]).all()


def test_resamples_of_other_shapes_are_refused():
    with pytest.raises(DataError, match=r"give \(P,B\), \(P,B\) and \(R,P\)"):
        weighted_ap(np.ones((3, 4)), np.ones((3, 4)), np.ones((5, 4)))


# ---- decisions ----------------------------------------------------------------------------------


def test_confusion():
    true, said = ["dent", "hole", "hole", "dent"], ["dent", "dent", "hole", "dent"]
    assert confusion(true, said, ["dent", "hole", "crack"]).tolist() == [[2, 0, 0], [1, 1, 0], [0, 0, 0]]
    assert confusion(np.array([0, 1, 1]), np.array([0, 0, 1]), range(2)).tolist() == [[1, 0], [1, 1]]
    with pytest.raises(DataError, match="'hol' is none of the defect types; did you mean 'hole'"):
        confusion(true, ["hol", *said[1:]], ["dent", "hole"])
    with pytest.raises(DataError, match="4 true and 3 predicted"):
        confusion(true, said[:3], ["dent", "hole"])


def test_it_loads_without_torch():
    import subprocess
    import sys

    code = "import sys, flawsmith.arithmetic.ranking; sys.exit('torch' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
