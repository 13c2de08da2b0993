"""detectors/probe.py with several heads, detectors/memory_probe.py: folds, what heads say together, weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from flawsmith.data import images
from flawsmith.data.inspection_tiles import Tiles
from flawsmith.data.training_set import TrainingSet
from flawsmith.detectors.memory_probe import MemoryProbe, MemoryProbeSettings
from flawsmith.detectors.probe import Probe, ProbeSettings, _dealt, _draw, _Pool
from flawsmith.nn.anomaly_maps.fusion import Fusion, map_fusion, score_fusion
from flawsmith.nn.methods.patch_memory import farthest_of
from flawsmith.nn.methods.place_head import PlaceHead, kept_units, standardised, together
from flawsmith.testing.detectors import example_training, tiny_extractor
from flawsmith.types import Example

QUICK = {"steps": 40, "places": 256, "width": 32}


def trained(training: TrainingSet, heads: int) -> Probe:
    probe = Probe(ProbeSettings(heads=heads, **QUICK), training.defects, extractor=tiny_extractor())
    for _ in probe.fit(training, torch.Generator().manual_seed(0)):
        pass
    return probe


def test_pictures_are_dealt_by_kind_and_with_their_photograph() -> None:
    training = example_training(24)
    samples = [
        replace(training.pictures[index], origin="made", photograph=f"{2 * number}.png")
        for number, index in enumerate(training.damaged())
    ]
    training.pictures += samples
    dealt = _dealt(training, 3, torch.Generator().manual_seed(0)).tolist()
    for group in (training.normal("real"), training.damaged("disc", "real"), training.damaged("bar", "real")):
        counts = [sum(dealt[index] == head for index in group) for head in range(3)]
        assert sum(counts) == len(group) and max(counts) - min(counts) <= 1
    place = {training.pictures[index].photograph: dealt[index] for index in training.normal("real")}
    made = [index for index, one in enumerate(training.pictures) if one.origin == "made"]
    assert all(dealt[index] == place[training.pictures[index].photograph] for index in made)
    assert (_dealt(training, 1, torch.Generator()) == -1).all()


def test_tiles_of_one_shot_and_types_of_one_photograph_go_to_one_head(tmp_path: Path) -> None:
    """They show the same damage: a head that has learned from one of them is no judge of the others."""
    rng, training = np.random.default_rng(0), TrainingSet((64, 64), ("bar", "disc"), tiles=Tiles(64))
    for number in range(8):
        files = {name: tmp_path / f"{number}{name}" for name in (".png", ".bar.png", ".disc.png")}
        images.write(files[".png"], rng.integers(0, 255, (64, 130), dtype=np.uint8))
        for name, place in ((".bar.png", slice(20, 110)), (".disc.png", slice(90, 100))):
            mask = np.zeros((64, 130), bool)
            mask[30:34, place] = True
            images.write_mask(files[name], mask)
            defect = name.split(".")[1]
            training.add(Example(f"{number}{defect}", files[".png"], "p", defect, (files[name],)), "real")
    dealt = _dealt(training, 3, torch.Generator().manual_seed(0)).tolist()
    heads: dict[str, set[int]] = {}
    for picture, head in zip(training.pictures, dealt, strict=True):
        heads.setdefault(picture.example_id[0], set()).add(head)
    assert len(training.pictures) > 16 and all(len(one) == 1 for one in heads.values())
    assert set(dealt) == {0, 1, 2}


def test_what_is_too_rare_to_be_dealt_is_learned_by_every_head() -> None:
    training = example_training(8)  # two shots of each type
    dealt = _dealt(training, 3, torch.Generator().manual_seed(0))
    assert (dealt[training.damaged()] == -1).all() and set(dealt[training.normal()].tolist()) == {0, 1, 2}
    # Samples on one photograph would all go to one head.
    shots = training.damaged("disc")
    training.pictures += [replace(training.pictures[shots[0]], origin="made", photograph="0.png") for _ in range(6)]
    dealt = _dealt(training, 3, torch.Generator().manual_seed(0))
    assert (dealt[8:] == -1).all()


def test_a_head_learns_nothing_from_its_share_and_as_much_of_every_pool_as_the_others() -> None:
    rng = torch.Generator().manual_seed(0)
    picture = torch.arange(6).repeat_interleave(50)
    pool = _Pool(picture[:, None].half(), torch.zeros(300, 3), picture)
    without = torch.tensor([0, 1, 2, -1, 0, 1])
    features, _, weight = _draw(
        {"normal": pool, "made disc": pool}, {"normal": 0.7, "made disc": 0.3}, 400, without, 3, rng
    )
    drawn = features[:, 0].long()
    assert weight.shape == (400, 3) and bool((drawn[:280] != drawn[280:].repeat(3)[:280]).any())
    assert bool(((weight == 0) == (without[drawn, None] == torch.arange(3))).all())
    assert torch.allclose(weight[:280].sum(0), torch.full((3,), 0.7)), "whatever share of a pool a head leaves out"
    assert torch.allclose(weight[280:].sum(0), torch.full((3,), 0.3))


def test_heads_that_learn_together_are_heads_by_themselves() -> None:
    rng = torch.Generator().manual_seed(0)
    features = torch.randn(40, 7, generator=rng) * 3 + 1
    mean, scale = features.mean(0), 1 / features.std(0)
    heads = [PlaceHead(mean, scale, 16, 3, rng) for _ in range(4)]
    kept = kept_units(40, 64, 0.25, rng)
    logits = together(heads, standardised(features, mean, scale), kept)
    for number, head in enumerate(heads):
        hidden = torch.nn.functional.gelu(head.first((features - mean) * scale))
        assert torch.allclose(logits[:, number], head.second(hidden * kept[:, 16 * number :][:, :16]), atol=1e-5)
    # One head's loss moves no other head.
    logits[:, 1].sum().backward()
    grads = [head.first.weight.grad for head in heads]
    assert [bool(grad.any()) for grad in grads if grad is not None] == [False, True, False, False]
    # A picture's places as a 1 x 1 convolution are the same places.
    dense = heads[0].dense([features[:36].T.reshape(1, 7, 6, 6)], (6, 6))
    alone = together(heads[:1], standardised(features[:36], mean, scale), torch.ones(36, 16))[:, 0]
    assert torch.allclose(dense[0].flatten(1).T, alone, atol=1e-5)


@pytest.mark.parametrize("dropout", [0.0, 0.2, 0.95])
def test_hidden_units_are_left_out_at_random_and_their_mean_stays(dropout: float) -> None:
    kept = kept_units(1001, 131, dropout, torch.Generator().manual_seed(0))
    assert kept.shape == (1001, 131) and len(kept.unique()) == (2 if dropout else 1)
    assert float((kept == 0).float().mean()) == pytest.approx(dropout, abs=0.005)
    assert float(kept.mean()) == pytest.approx(1, abs=0.03)
    assert (
        abs(float(torch.corrcoef(torch.stack([kept[:-1].flatten(), kept[1:].flatten()]))[0, 1])) < 0.02 or not dropout
    )


def test_several_heads_answer_by_the_mean_of_their_log_odds() -> None:
    training = example_training(12)
    probe, image = trained(training, 3), example_training(4, seed=2).batch(range(4)).image
    maps = probe._maps(image)
    shares = [softmax(head.dense(maps, (16, 16)).numpy(force=True), axis=1) for head in probe._heads]
    assert not np.allclose(shares[0], shares[1], atol=1e-2)
    odds = np.mean([np.log((1 - one[:, 0]) / one[:, 0]) for one in shares], axis=0)
    types = np.mean([one[:, 1:] / one[:, 1:].sum(1, keepdims=True) for one in shares], axis=0)
    together = probe.predict(image)
    assert together.anomaly_map is not None and together.score is not None and together.probabilities is not None
    # 0.3 % of 256 places is one.
    loudest = odds.reshape(4, -1).argmax(1)
    assert np.allclose(together.score, expit(odds.reshape(4, -1).max(1)), atol=1e-4)
    assert np.allclose(together.probabilities, types.reshape(4, 2, -1)[np.arange(4), :, loudest], atol=1e-4)
    on_places = torch.nn.functional.avg_pool2d(together.anomaly_map, 4)[:, 0].numpy()
    assert np.corrcoef(on_places.ravel(), expit(odds).ravel())[0, 1] > 0.97


def test_heads_that_disagree_on_the_type_agree_that_it_is_damage() -> None:
    training = example_training(12)
    probe, image = trained(training, 2), training.batch(training.damaged("disc")[:1]).image
    for head, logits in zip(probe._heads, ([0.0, 9.0, 0.0], [0.0, 0.0, 9.0]), strict=True):
        torch.nn.init.zeros_(head.second.weight)
        head.second.bias.data = torch.tensor(logits)
    answer = probe.predict(image)
    assert answer.score is not None and float(answer.score) > 0.999
    assert answer.probabilities is not None and torch.allclose(answer.probabilities, torch.tensor([[0.5, 0.5]]))


def test_out_of_fold_each_picture_is_judged_by_the_head_that_has_not_seen_it() -> None:
    training = example_training(12)
    probe = trained(training, 3)
    answer = probe.out_of_fold(training)
    assert answer is not None and probe._without is not None
    indices, prediction = answer
    assert sorted(indices) == list(range(12)) and prediction.score is not None
    for at, index in enumerate(indices):
        head = probe._heads[int(probe._without[index])]
        own = probe._answer(training.batch([index]).image, (head,)).score
        assert torch.allclose(prediction.score[at], own, atol=1e-5)
    assert trained(training, 1).out_of_fold(training) is None


def test_scores_are_weighed_by_how_well_each_tells_shots() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([-1, 0, 1], [200, 300, 300])
    scores = rng.normal(size=(800, 2)) + np.where(labels[:, None] < 0, 0.0, [2.4, 1.0])
    normal = scores[labels < 0]
    scores = (scores - normal.mean(0)) / normal.std(0, ddof=1)
    weight = score_fusion(*torch.from_numpy(scores).float().T, torch.from_numpy(labels), 600).weight
    assert float(weight.sum()) == pytest.approx(1, abs=1e-6)
    areas = [
        np.mean([roc_auc_score(labels[labels != 1 - one] >= 0, scores[labels != 1 - one, k]) for one in (0, 1)])
        for k in (0, 1)
    ]
    separation = norm.ppf(areas)
    beforehand = 0.5 * 600 / 615
    expected = (600 * separation / separation.sum() + 20 * np.array([beforehand, 1 - beforehand])) / 620
    assert np.allclose(weight, expected, atol=1e-4) and weight[0] > 0.65


def test_few_shots_move_the_weights_little_and_none_not_at_all() -> None:
    normal = torch.randn((50, 2), generator=torch.Generator().manual_seed(1))
    perfect = torch.tensor([[9.0, 0.0]]).repeat(3, 1)
    labels = torch.tensor([-1] * 50 + [0] * 3)
    weight = score_fusion(*torch.cat([normal, perfect]).T, labels, 10**6).weight
    assert 0.5 < float(weight[0]) < 0.57
    assert score_fusion(*normal.T, labels[:50], 10**6).weight.tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    many = torch.tensor([-1] * 50 + [0] * 300)
    weight = score_fusion(*torch.cat([normal, perfect.repeat(100, 1)]).T, many, 300).weight
    assert float(weight[0]) > 0.85


@pytest.mark.parametrize(("learned", "heads"), [(0, 0.0), (5, 0.125), (15, 0.25), (285, 0.475)])
def test_heads_that_no_shot_has_tested_weigh_by_what_they_have_learned_from(learned: int, heads: float) -> None:
    normal = torch.randn((50, 2), generator=torch.Generator().manual_seed(1))
    labels = torch.full((50,), -1)
    places = torch.randn((50, 1, 2, 2), generator=torch.Generator().manual_seed(2))
    for fusion in (
        score_fusion(*normal.T, labels, learned),
        map_fusion(places, -places, torch.zeros_like(places), torch.ones_like(places), labels, learned),
    ):
        assert fusion.weight.tolist() == pytest.approx([heads, 1 - heads])


def test_what_is_joined_is_standardized_first() -> None:
    fusion = Fusion(torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5]), torch.tensor([0.75, 0.25]))
    joined = fusion.join(torch.tensor([3.0, 1.0]), torch.tensor([-1.0, -2.0]))
    assert joined.tolist() == pytest.approx([0.75 * 1 + 0.25 * 2, 0.0])


def test_maps_are_weighed_by_the_average_precision_of_places() -> None:
    """Of 4 normal pictures, 3 shots of a type that the heads see, and 57 of one that both see alike."""
    rng = np.random.default_rng(2)
    labels = np.repeat([-1, 0, 1], [4, 3, 57])
    cover = np.where(rng.random((64, 1, 8, 8)) < 0.1, rng.choice([0.25, 1.0], (64, 1, 8, 8)), 0) * (
        labels >= 0
    ).reshape(-1, 1, 1, 1)
    counted = np.where(rng.random((64, 1, 8, 8)) < 0.2, np.maximum(cover, 0.5), 1.0)
    lift = np.where(labels == 0, 0.0, 2.0).reshape(-1, 1, 1, 1)
    heads, memory = (rng.normal(size=cover.shape) + (cover > 0) * one for one in (2.0, lift))
    arrays = [torch.from_numpy(one).float() for one in (heads, memory, cover, counted)]
    fusion = map_fusion(*arrays, torch.from_numpy(labels), 60)

    normal = labels < 0
    assert np.allclose(fusion.mean, [heads[normal].mean(), memory[normal].mean()], atol=1e-5)
    assert np.allclose(fusion.deviation, [heads[normal].std(ddof=1), memory[normal].std(ddof=1)], atol=1e-5)
    worth = {}
    for share in np.arange(9) / 8:
        joined = sum(
            w * (one - one[normal].mean()) / one[normal].std(ddof=1) for w, one in ((1 - share, heads), (share, memory))
        )
        each = []
        for label in (0, 1):
            among = normal | (labels == label)
            score, hits, misses = joined[among].ravel(), cover[among].ravel(), (counted - cover)[among].ravel()
            truth, weight = np.repeat([1, 0], len(score)), np.concatenate([hits, misses])
            each.append(average_precision_score(truth, np.tile(score, 2), sample_weight=weight))
        worth[share] = np.mean(each)
    best = max(worth, key=worth.__getitem__)
    assert 0 < best < 0.5
    assert float(fusion.weight[1]) == pytest.approx((60 * best + 20 * (1 - 0.5 * 60 / 75)) / 80, abs=1e-6)


def test_without_a_shot_maps_weigh_nearly_alike_where_heads_have_learned_much() -> None:
    places = torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(3))
    nothing, counted = torch.zeros_like(places), torch.ones_like(places)
    fusion = map_fusion(places, 3 * places + 1, nothing, counted, torch.full((6,), -1), 10**6)
    assert fusion.weight.tolist() == pytest.approx([0.5, 0.5], abs=1e-4)
    assert torch.allclose(fusion.join(places, 3 * places + 1), (places - places.mean()) / places.std(), atol=1e-4)


def test_it_says_what_the_memory_weighs() -> None:
    training = example_training(24)
    detector = MemoryProbe(
        MemoryProbeSettings(depths=(0, 1), memory=200, head=QUICK), training.defects, extractor=tiny_extractor()
    )
    assert detector.facts() == {}
    for _ in detector.fit(training, torch.Generator().manual_seed(0)):
        pass
    assert len(detector.facts()) == 2 and all(0 < weight < 1 for weight in detector.facts().values())
    unseen = example_training(16, seed=5)
    score = detector.predict(unseen.batch(range(16)).image).score
    assert score is not None
    damaged = [unseen.label(index) >= 0 for index in range(16)]
    assert roc_auc_score(damaged, score) == 1
    assert abs(float(score[[not one for one in damaged]].mean())) < 3  # standardized by normal pictures


def test_out_of_fold_map_and_score_are_the_joined_ones() -> None:
    """What the heads and the memory say of a photograph that they have not learned from, weighed as in `predict`."""
    training = example_training(24)
    settings = MemoryProbeSettings(heads=3, memory=60, draw=600, head=QUICK)
    detector = MemoryProbe(settings, training.defects, extractor=tiny_extractor())
    assert detector.out_of_fold(training) is None
    for _ in detector.fit(training, torch.Generator().manual_seed(0)):
        pass
    indices, answer = detector.out_of_fold(training)
    unseen, heads = detector._probe.out_of_fold(training)
    assert indices == unseen and torch.equal(answer.probabilities, heads.probabilities)
    image = training.batch(indices).image
    for joined, said in ((answer, heads), (detector.predict(image), detector._probe.predict(image))):
        far = detector._maps.far(image)
        logit = torch.log(said.score / (1 - said.score)).clamp(-13.8, 13.8)
        fusion = detector.fusions.score
        scores = (torch.stack([logit, farthest_of(far)], 1) - fusion.mean) / fusion.deviation
        assert torch.allclose(joined.score, (scores * fusion.weight).sum(1), atol=1e-3)
        logit = torch.log(said.anomaly_map / (1 - said.anomaly_map)).clamp(-9.21, 9.21)
        far = torch.nn.functional.interpolate(far, logit.shape[-2:], mode="bilinear")
        fusion = detector.fusions.anomaly_map
        both = (torch.stack([logit, far], -1) - fusion.mean) / fusion.deviation
        assert torch.allclose(joined.anomaly_map, torch.sigmoid((both * fusion.weight).sum(-1)), atol=1e-3)
