"""The arithmetic of the filters and of the gate, against references that share no code with them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flawsmith import registry
from flawsmith.config import ScreenConfig
from flawsmith.errors import ConfigError, DataError
from flawsmith.nn.feature_cache import FeatureCache
from flawsmith.screening.describe import Describer, Shown
from flawsmith.screening.gate import Gate, fit_gate, known_filters
from flawsmith.testing import described, example_screening_set, tiny_extractor

DEFECTS = ("bar", "disc")


def fitted(name: str, **settings: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    plugin = registry.get("filters", name)
    member = plugin(plugin.Settings(**settings), DEFECTS)
    return member, member.fit(example_screening_set(16, own=False), example_screening_set(12, seed=3, damaged=False))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return 1 - float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_realism_is_the_mean_distance_to_the_nearest_of_the_kind():
    member, left_out = fitted("realism", neighbours=2)
    shots, made = example_screening_set(16, own=False), example_screening_set(4, seed=7)
    told = member.score(made)
    for level in ("whole", "window", "tokens"):
        real = shots.vector[level].double().numpy()
        own = {defect: [n for n in range(16) if shots.defect[n] == defect] for defect in DEFECTS}
        usual = {}
        for defect, places in own.items():
            away = []
            for n in places:
                others = sorted(cosine(real[n], real[m]) for m in places if m != n)
                away.append(np.mean(others[:2]))
            usual[defect] = np.median(away)
            wanted = [-value / usual[defect] for value in away]
            assert left_out[f"realism.{level}"][places].numpy() == pytest.approx(wanted, rel=1e-3, abs=1e-5)
        for n, defect in enumerate(made.defect):
            picture = made.vector[level][n].double().numpy()
            near = np.mean(sorted(cosine(picture, real[m]) for m in own[defect])[:2])
            assert float(told[f"realism.{level}"][n]) == pytest.approx(-near / usual[defect], rel=1e-3, abs=1e-5)


def test_grain_is_held_against_the_strongest_of_the_shots():
    member, _ = fitted("realism")
    shots, made = example_screening_set(16, own=False), example_screening_set(4, seed=7)
    times = torch.tensor([1.0, 4.0, 0.5])
    noisy = replace(made.rows(range(3)), grain=times * (shots.grain.max() + 0.004) - 0.004)
    found = member.score(noisy)["realism.grain"].tolist()
    assert found == pytest.approx([1.0, 0.25, 2.0], rel=1e-4)


def test_visible_looks_at_the_own_photograph_and_else_at_all():
    member, left_out = fitted("visible")
    made, normal = example_screening_set(4, seed=7), example_screening_set(12, seed=3, damaged=False)
    told = member.score(made)
    assert torch.equal(told["visible.tokens"], made.moved)
    assert all(told[f"visible.{level}_all"].isnan().all() for level in ("whole", "window", "tokens"))
    wanted = [cosine(*(part["window"][0].double().numpy() for part in (made.vector, made.beneath)))]
    assert told["visible.window"][:1].tolist() == pytest.approx(wanted, abs=1e-5)
    unknown = member.score(replace(made, own=torch.zeros(4, dtype=torch.bool)))
    assert unknown["visible.tokens"].isnan().all()
    vectors = normal.vector["tokens"].double().numpy()
    near = [min(cosine(one.double().numpy(), other) for other in vectors) for one in made.vector["tokens"]]
    assert unknown["visible.tokens_all"].tolist() == pytest.approx(near, abs=1e-5)
    assert left_out["visible.tokens"].isfinite().all() and left_out["visible.tokens_all"].isfinite().all()
    untouched = described(made.below, made.mask, made.below, made.defect)
    assert member.score(untouched)["visible.tokens"].tolist() == [0, 0, 0, 0]


def test_alignment_counts_pixels():
    member, _ = fitted("alignment", slack=0)
    below = torch.zeros(3, 3, 20, 20)
    label, painted = torch.zeros(3, 20, 20, dtype=torch.bool), torch.zeros(3, 20, 20, dtype=torch.bool)
    label[:, 4:8, 4:14] = True  # 40 pixels
    painted[0, 4:8, 4:14] = True
    painted[1, 4:8, 9:19] = True  # half of it beside the label
    image = below - 0.5 * painted[:, None]
    told = member.score(described(image, label, below, ("bar", "bar", "bar")))
    assert told["alignment.inside"][:2].tolist() == [1.0, 0.5] and told["alignment.covered"][:2].tolist() == [1.0, 0.5]
    assert told["alignment.inside"][2].isnan()  # nothing changed: that one is not visible
    loose, _ = fitted("alignment", slack=2)
    inside = loose.score(described(image, label, below, ("bar", "bar", "bar")))["alignment.inside"]
    assert inside[1] == pytest.approx(7 / 10)


def test_a_hard_border_has_a_seam():
    member, _ = fitted("seam")
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    away = (y - 32).square() + (x - 32).square()
    mask = (away < 196)[None]
    hard, soft = -0.5 * mask[0].float(), -0.5 * torch.sigmoid((14 - away.sqrt()) / 6)
    images = torch.stack([hard, soft])[:, None].expand(-1, 3, -1, -1).contiguous()
    told = member.score(described(images, mask.expand(2, -1, -1).clone(), torch.zeros_like(images), ("bar", "bar")))
    assert told["seam"][0] < told["seam"][1] - 1


def test_copies_are_known_turned_and_mirrored():
    member, left_out = fitted("duplicates")
    shots = example_screening_set(16, own=False)
    turned = torch.rot90(shots.image.flip(3), 1, (2, 3)).contiguous()
    copies = described(
        turned, torch.rot90(shots.mask.flip(2), 1, (1, 2)).contiguous(), shots.below, shots.defect, own=False
    )
    assert (member.score(copies)["duplicates.shot"] < 0.01).all()
    assert (left_out["duplicates.shot"] >= 1).all()  # no two shots are more alike than the two most alike
    fresh = example_screening_set(6, seed=5)
    assert (member.score(fresh)["duplicates.shot"] > 1).all()
    again = fresh.rows([0, 1, 2, 1, 3])
    told = member.score(again)["duplicates.made"]
    assert told[0].isnan() and told[3] < 0.01 and (told[[1, 2, 4]] > 1).all()
    # On one photograph all but the paint is alike, and that is no copy.
    spots = fresh.mask.clone()
    ground = fresh.below[:1].expand(6, -1, -1, -1)
    same = described((ground - 0.1 * spots[:, None]).contiguous(), spots, ground.contiguous(), fresh.defect)
    assert (member.score(same)["duplicates.made"][1:] > 1).all()


def test_second_photographs_among_shots_make_copies_rarer():
    plugin = registry.get("filters", "duplicates")
    shots = example_screening_set(8, own=False)
    rng = torch.Generator().manual_seed(0)
    image = shots.image.clone()
    image[1] = image[0] + 0.02 * torch.randn(image[0].shape, generator=rng)
    member = plugin(plugin.Settings(), DEFECTS)
    left_out = member.fit(replace(shots, image=image), example_screening_set(2, damaged=False))
    assert left_out["duplicates.shot"].min() >= 1
    third = image[:1] + 0.03 * torch.randn(image[:1].shape, generator=rng)
    told = member.score(described(third, shots.mask[:1], shots.below[:1], shots.defect[:1], own=False))
    assert told["duplicates.shot"][0] > 1


def test_kind_is_linear_discriminant_analysis():
    discriminant = pytest.importorskip("sklearn.discriminant_analysis").LinearDiscriminantAnalysis
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0, 0, 0], [1.5, 1, 0, 0.5]])
    tokens = np.concatenate([rng.normal(size=(12, 4)) * [1, 0.5, 2, 1] + centre for centre in centres])
    judged = example_screening_set(24, own=False)
    judged = replace(judged, defect=("bar",) * 12 + ("disc",) * 12)
    judged = replace(judged, vector={**judged.vector, "tokens": torch.from_numpy(tokens).float()})
    plugin = registry.get("filters", "defect_type")
    member = plugin(plugin.Settings(shrinkage=0.3), DEFECTS)
    left_out = member.fit(judged, example_screening_set(2, damaged=False))["defect_type"]
    model = discriminant(solver="lsqr", shrinkage=0.3, priors=[0.5, 0.5]).fit(tokens, np.repeat([0, 1], 12))
    odds = model.decision_function(tokens) * np.repeat([-1, 1], 12)
    scale = (24 - 2) / 24  # ours divides by the degrees of freedom, theirs by the count
    assert member.score(judged)["defect_type"].numpy() == pytest.approx(odds * scale, rel=1e-3, abs=1e-3)
    right = 0
    for n in range(24):
        rest = np.arange(24) != n
        part = discriminant(solver="lsqr", shrinkage=0.3, priors=[0.5, 0.5])
        right += part.fit(tokens[rest], np.repeat([0, 1], 12)[rest]).predict(tokens[n : n + 1])[0] == n // 12
    assert abs(int((left_out > 0).sum()) - right) <= 1
    assert f"{int((left_out > 0).sum())} of 24" in member.said()


def test_kind_is_off_where_it_cannot_tell():
    plugin = registry.get("filters", "defect_type")
    rng = torch.Generator().manual_seed(1)
    judged = example_screening_set(16, own=False)
    guessing = replace(judged, vector={**judged.vector, "tokens": torch.randn(16, 5, generator=rng)})
    for shots, defects, why in (
        (guessing, DEFECTS, "not clearly better than guessing"),
        (judged.rows(range(5)), DEFECTS, r"too few shots to tell \(2 of a defect type"),
        (judged.rows(range(0, 16, 2)), ("bar",), "one defect type"),
    ):
        member = plugin(plugin.Settings(), defects)
        assert member.fit(shots, example_screening_set(2, damaged=False))["defect_type"].isnan().all()
        assert member.score(shots)["defect_type"].isnan().all()
        assert " off" in member.said()
        assert re.search(why, member.said())


def gate_of(settings: ScreenConfig, shots: int = 16) -> Gate:
    made = fit_gate(
        settings,
        DEFECTS,
        example_screening_set(16, own=False).rows(range(shots)),
        example_screening_set(12, seed=3, damaged=False),
    )
    return Gate(settings, "tiny", "0", 0.048, {"steel": made})


def test_thresholds_are_quantiles_of_left_out_shots():
    settings = ScreenConfig(filters=["seam", "realism"], quantile=0.1, slack=0.25)
    gate = gate_of(settings)
    told = fitted("seam")[1]["seam"].double().numpy().round(5)
    low, middle = np.quantile(told, 0.1), np.median(told)
    limit = gate.fitted_gates["steel"].limits["seam"]
    assert limit == pytest.approx(low - 0.25 * (middle - low), abs=1e-5)
    assert gate.fitted_gates["steel"].limits["realism.whole"] is None
    for row in gate.judge("steel", example_screening_set(8, seed=5)):
        score = row.scores["seam"]
        assert score is not None and row.thresholds["seam"] == limit
        assert (score < limit) == ("seam" in [reason.score for reason in row.reasons])
    few = gate_of(settings, shots=4).fitted_gates["steel"].limits
    assert few["seam"] is None and few["realism.grain"] == 0.25  # four shots give no quantile; what is absolute stays


def test_keep_takes_the_best_of_what_stands_in_turn():
    rules: Any = {"realism.tokens": {"keep": 0.5}, "visible.tokens": {"keep": 0.5}, "realism.window": "off"}
    rules |= {"realism.grain": "off", "visible.tokens_all": "off"}
    gate = gate_of(ScreenConfig(filters=["realism", "visible"], thresholds=rules))
    rows = gate.judge("steel", example_screening_set(16, seed=5))
    for defect in DEFECTS:
        own = [row for row in rows if row.defect == defect]
        near = sorted(own, key=lambda row: -row.scores["realism.tokens"])[:4]
        far = sorted(near, key=lambda row: -row.scores["visible.tokens"])[:2]
        assert sorted(row.name for row in own if row.kept) == sorted(row.name for row in far)
        assert all("visible.tokens" not in row.thresholds for row in own if row not in near)


def test_a_gate_says_what_it_does_not_know():
    gate = gate_of(ScreenConfig(filters=["seam"]))
    with pytest.raises(ConfigError, match="'stel' is no product .* did you mean 'steel'"):
        gate.judge("stel", example_screening_set(2))
    with pytest.raises(ConfigError, match="'disk' is no defect type .* did you mean 'disc'"):
        gate.judge("steel", replace(example_screening_set(2), defect=("bar", "disk")))
    with pytest.raises(ConfigError, match="did you mean 'duplicates'"):
        known_filters(ScreenConfig(filters=["duplicate"]))


def pair(side: int = 96, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    below = rng.integers(110, 140, (side, side, 3)).astype(np.uint8)
    mask = np.zeros((side, side), bool)
    mask[30:50, 40:70] = True
    picture = below.copy()
    picture[mask] //= 3
    return picture, mask, below


def test_a_picture_is_described_by_itself(tmp_path: Path):
    """Its numbers do not depend on its neighbours, nor on whether they were cached; the change is found."""
    shown = [Shown(str(n), "bar", *pair(seed=n), source=str(n)) for n in range(3)]
    every = Describer(FeatureCache(tiny_extractor(), tmp_path), 0.048).screening_set(shown)
    last = Describer(tiny_extractor(), 0.048).screening_set(shown[2:])
    mute = tiny_extractor()
    mute.maps = mute.vector = None  # type: ignore[assignment]
    cached = Describer(FeatureCache(mute, tmp_path), 0.048).screening_set(shown[1:])
    for level in ("whole", "window", "tokens"):
        assert torch.equal(every.vector[level][2:], last.vector[level])
        assert torch.equal(every.beneath[level][1:], cached.beneath[level])
    assert torch.equal(every.moved[2:], last.moved) and torch.equal(every.moved[1:], cached.moved)
    overlap = (every.changed & every.mask).sum((1, 2)) / (every.changed | every.mask).sum((1, 2))
    assert (overlap > 0.95).all() and every.own.all() and (every.moved > 0).all()


def test_the_change_is_seen_outside_the_label():
    describer = Describer(tiny_extractor(), 0.048)
    picture, mask, below = pair()
    row = describer.describe(Shown("a", "bar", picture, np.roll(mask, 30, axis=0), below))
    assert row.changed.any() and not (row.changed & row.mask).any()
    fixed, label = describer.repaired(Shown("a", "bar", picture, mask, below))
    assert (label & mask).sum() / (label | mask).sum() > 0.9 and np.array_equal(fixed[~label], below[~label])
    untouched = describer.describe(Shown("b", "bar", below, mask, below))
    assert not untouched.changed.any() and float(untouched.moved) == 0


def test_grain_tells_noise_from_a_smooth_hole():
    describer = Describer(tiny_extractor(), 0.048)
    picture, mask, below = pair()
    smooth, noisy = below.copy(), below.copy()
    smooth[mask] = 40
    noisy[mask] = np.random.default_rng(1).normal(128, 40, (int(mask.sum()), 1)).clip(0, 255).astype(np.uint8)
    one, other = (float(describer.describe(Shown("a", "bar", p, mask, below)).grain) for p in (smooth, noisy))
    assert one == 0 and other == pytest.approx(40 / 127.5, rel=0.15)


def test_a_stand_in_makes_real_damage_look_slight():
    """Of the ways to fill the damage, the one that changes least; without any, there is nothing to compare with."""
    describer = Describer(tiny_extractor(), 0.048)
    picture, mask, below = pair()
    filled = describer.describe(Shown("a", "bar", picture, mask, stand_ins=[below, np.full_like(below, 255)]))
    assert bool(filled.compared) and not bool(filled.own) and float(filled.moved) > 0
    window = filled.below.mean(0)[filled.mask]
    assert float(window.mean()) == pytest.approx(125 / 127.5 - 1, abs=0.1)  # as bright as the surface round it
    assert not bool(describer.describe(Shown("a", "bar", picture, mask)).compared)


def test_what_cannot_be_described_is_said():
    describer = Describer(tiny_extractor(), 0.048)
    picture, mask, below = pair()
    with pytest.raises(DataError, match="its mask is empty"):
        describer.describe(Shown("a", "bar", picture, np.zeros_like(mask)))
    with pytest.raises(DataError, match="they must be alike"):
        describer.describe(Shown("a", "bar", picture, mask, below[:90]))
