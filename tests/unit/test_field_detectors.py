"""detectors/unet.py, detectors/classifier.py, nn/networks/resnet.py: the field's protocol, figure by figure."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import uniform_filter
from torch import nn

from flawsmith.data.training_set import TrainingSet
from flawsmith.detectors.classifier import Classifier, ClassifierSettings
from flawsmith.detectors.unet import Unet, UnetSettings, _Network, focal_loss
from flawsmith.errors import ConfigError, DataError, RunError
from flawsmith.nn.networks import training_state
from flawsmith.nn.networks.resnet import ResNet34
from flawsmith.nn.weights import fresh_layers
from flawsmith.testing import example_training

DEFECTS = ("disc", "bar")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fitted(detector: Any, training: TrainingSet, budget: float = 1.0) -> Any:
    for _ in detector.fit(training, seeded(), budget=budget):
        pass
    return detector


def rates(detector: Any, training: TrainingSet) -> list[float]:
    """Return the learning rate that each epoch was trained with, read off the running generator."""
    found, run = [1.0], detector.fit(training, seeded())
    for _ in run:
        found.append(run.gi_frame.f_locals["optimizer"].param_groups[0]["lr"] / detector.settings.learning_rate)
    return found[:-1]


@pytest.fixture(scope="module")
def training() -> TrainingSet:
    return example_training(12, side=32)


@pytest.fixture(scope="module")
def mixed(training: TrainingSet) -> TrainingSet:
    """Many pictures, unevenly: 40 normal, 4 controls, 700 discs, 10 bars."""
    several = training.clone()
    normal, disc, bar = (training.pictures[k] for k in (0, 1, 3))
    control = replace(normal, origin="control")
    several.pictures = [normal] * 40 + [control] * 4 + [disc] * 700 + [bar] * 10
    return several


def test_the_defaults_are_the_letter() -> None:
    part, other = UnetSettings(), ClassifierSettings()
    assert (part.width, part.epochs, part.samples_per_epoch, part.batch, part.learning_rate) == (64, 200, 500, 8, 1e-4)
    assert (other.epochs, other.repeats, other.batch, other.learning_rate) == (30, 5, 8, 1e-4)


def test_the_network_is_draems() -> None:
    network = _Network(64, seeded())
    shapes = [tuple(m.weight.shape[1::-1]) for m in network.modules() if isinstance(m, nn.Conv2d)]
    down = [(3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), *[(512, 512)] * 5]
    rise = [(512, 512), (512, 256), (256, 128), (128, 64), (64, 64)]
    up = [(1024, 512), (512, 512), (768, 256), (256, 256), (384, 128), (128, 128), (192, 64), (64, 64)]
    assert shapes == [*down, *rise, *up, (128, 64), (64, 64), (64, 2)]
    convolutions = torch.cat([m.weight.detach().flatten() for m in network.modules() if isinstance(m, nn.Conv2d)])
    norms = torch.cat([m.weight.detach() for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    assert abs(float(convolutions.mean())) < 1e-4 and float(convolutions.std()) == pytest.approx(0.02, rel=0.01)
    assert float(norms.mean()) == pytest.approx(1, abs=2e-3) and float(norms.std()) == pytest.approx(0.02, rel=0.1)


def test_focal_loss_is_its_definition() -> None:
    rng = np.random.default_rng(0)
    damaged = rng.random((2, 1, 4, 5))
    damaged[0, 0, 0, :2] = 0, 1
    mask = rng.random((2, 1, 4, 5)) < 0.5
    terms = []
    for p, truth in zip(damaged.ravel(), mask.ravel(), strict=True):
        right, wrong = (p, 1 - p) if truth else (1 - p, p)
        seen = right * (1 - 1e-5) + wrong * 1e-5 + 1e-5
        terms.append(-((1 - seen) ** 2) * math.log(seen))
    probability = torch.from_numpy(np.concatenate([1 - damaged, damaged], 1)).float()
    loss = focal_loss(probability, torch.from_numpy(mask).float())
    assert float(loss) == pytest.approx(np.mean(terms), rel=1e-5)
    even = focal_loss(torch.full((1, 2, 3, 3), 0.5), torch.ones(1, 1, 3, 3))
    assert float(even) == pytest.approx(0.25 * math.log(2), rel=1e-4)


def test_half_of_the_draws_are_sound_and_kinds_come_evenly(mixed: TrainingSet) -> None:
    def drawn(**settings: float) -> Counter[str]:
        places = Unet(UnetSettings(**settings), DEFECTS)._draw(mixed, 8000, seeded())
        assert max(Counter(places)) < 44 + 500 or min(p for p in places if p >= 544) >= 744
        return Counter(mixed.pictures[p].defect or mixed.pictures[p].origin for p in places)

    found = drawn()
    for name, share in {"disc": 0.25, "bar": 0.25, "control": 0.25, "real": 0.25}.items():
        assert found[name] / 8000 == pytest.approx(share, abs=0.02), name
    assert "control" not in drawn(controls=0)
    assert drawn(controls=0.1)["control"] / 8000 == pytest.approx(0.05, abs=0.01)
    assert "real" not in drawn(controls=1)


def test_the_score_is_the_greatest_mean_of_21_pixels(training: TrainingSet) -> None:
    detector = fitted(Unet(UnetSettings(width=2, epochs=1, samples_per_epoch=8), DEFECTS), training)
    found = detector.predict(training.batch(range(3)).image)
    assert float(found.anomaly_map.min()) >= 0 and float(found.anomaly_map.max()) <= 1
    for anomaly_map, score in zip(found.anomaly_map[:, 0].numpy(), found.score.tolist(), strict=True):
        assert score == pytest.approx(uniform_filter(anomaly_map, 21, mode="constant").max(), rel=1e-4)


def test_the_learning_rate_falls_twice(training: TrainingSet) -> None:
    want = pytest.approx([1] * 8 + [0.2] + [0.04])
    assert rates(Unet(UnetSettings(width=2, epochs=10, samples_per_epoch=2), DEFECTS), training) == want
    few = training.clone()
    few.pictures = training.pictures[:4]
    assert rates(Classifier(ClassifierSettings(epochs=5, repeats=1), DEFECTS), few) == pytest.approx([1] * 4 + [0.04])


def test_a_budget_says_what_it_leaves_out() -> None:
    unet = Unet(UnetSettings(), DEFECTS)
    assert unet.reduced(1.0) == ""
    assert unet.reduced(0.25) == (
        "the U-Net trains with 100 epochs, not 200; 250 pictures an epoch, not 500; "
        "32 channels at the first level, not 64"
    )
    on_gpu = Unet(UnetSettings(), DEFECTS, device="cuda")
    assert on_gpu.reduced(0.25) == "the U-Net trains with 100 epochs, not 200; 250 pictures an epoch, not 500"
    # A smaller setting is no less of a reduction than a smaller budget.
    assert "20 epochs, not 200" in Unet(UnetSettings(epochs=20), DEFECTS).reduced(1.0)
    random = "starts from random weights, not ImageNet's (name a folder in prove.settings.classifier.weights)"
    assert Classifier(ClassifierSettings(), DEFECTS).reduced(1.0) == f"the classifier {random}"
    assert Classifier(ClassifierSettings(), DEFECTS).reduced(0.04) == (
        f"the classifier trains 6 epochs, not 30; sees each picture 1 times an epoch, not 5; {random}"
    )


@pytest.mark.parametrize(("side", "samples"), [(32, 9), (72, 4)])
def test_a_lone_last_picture_and_odd_sizes_are_fine(side: int, samples: int) -> None:
    training = example_training(4, side=side)
    detector = fitted(Unet(UnetSettings(width=2, epochs=1, samples_per_epoch=samples), DEFECTS), training)
    assert detector.predict(training.batch([0]).image).anomaly_map.shape == (1, 1, side, side)


def test_what_the_unet_cannot_learn_from(training: TrainingSet) -> None:
    unet = Unet(UnetSettings(width=2), DEFECTS)
    for pictures, said in ((training.pictures[::2], "labelled pictures"), (training.pictures[1::2], "normal pictures")):
        one = training.clone()
        one.pictures = list(pictures)
        with pytest.raises(DataError, match=said):
            next(iter(unet.fit(one, seeded())))
    tiny = example_training(4, side=32)
    tiny.shape = (31, 64)
    with pytest.raises(DataError, match="31 pixels are too few"):
        next(iter(unet.fit(tiny, seeded())))


def test_the_classifier_learns_kinds_from_damaged_pictures_alone(training: TrainingSet) -> None:
    detector = fitted(Classifier(ClassifierSettings(epochs=6, repeats=4, learning_rate=1e-3), DEFECTS), training)
    batch = training.batch(training.damaged())
    guess = detector.predict(batch.image).probabilities.argmax(1)
    assert [DEFECTS[k] for k in guess] == list(batch.defect)
    few = training.clone()
    few.pictures = [one for one in training.pictures if one.defect is not None]
    settings = ClassifierSettings(epochs=1, repeats=1)
    ours, theirs = (fitted(Classifier(settings, DEFECTS), one).predict(batch.image) for one in (training, few))
    assert torch.equal(ours.probabilities, theirs.probabilities), "normal pictures changed it"


def test_an_epoch_shows_each_picture_five_times_and_500_a_kind(training: TrainingSet, mixed: TrainingSet) -> None:
    few = training.clone()
    few.pictures = training.pictures[:4]
    run = Classifier(ClassifierSettings(epochs=2), DEFECTS).fit(few, seeded())
    next(run)
    assert Counter(run.gi_frame.f_locals["order"].tolist()) == {0: 5, 1: 5}
    run = Classifier(ClassifierSettings(epochs=2, repeats=0.01), DEFECTS).fit(mixed, seeded())
    next(run)
    assert run.gi_frame.f_locals["own"] == [*range(44, 544), *range(744, 754)]


def test_what_the_classifier_cannot_learn_from(training: TrainingSet) -> None:
    detector = Classifier(ClassifierSettings(), DEFECTS)
    with pytest.raises(DataError, match="damaged pictures, and the training set holds none"):
        next(iter(detector.fit(example_training(4, side=32, damaged=False), seeded())))
    with pytest.raises(DataError, match="made for disc, not for disc, bar"):
        next(iter(Classifier(ClassifierSettings(), ("disc",)).fit(training, seeded())))


def test_one_kind_is_always_that_kind(training: TrainingSet) -> None:
    one = TrainingSet((32, 32), ("disc",))
    one.pictures = [training.pictures[k] for k in (0, 1, 5)]
    found = fitted(Classifier(ClassifierSettings(epochs=1, repeats=1), ("disc",)), one).predict(one.batch([0, 1]).image)
    assert found.probabilities.tolist() == [[1.0], [1.0]]


@pytest.fixture(scope="module")
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[ResNet34, Path]:
    """A ResNet-34 with a head of ten classes, and its folder."""
    folder = tmp_path_factory.mktemp("resnet34")
    network = ResNet34(10, seeded(9))
    network.network.save_pretrained(folder)
    return network, folder


def test_resnet34_is_resnet34() -> None:
    assert sum(p.numel() for p in ResNet34(1000, seeded()).parameters()) == 21_797_672


def test_weights_come_from_a_folder_and_the_head_is_new(imagenet: tuple[ResNet34, Path]) -> None:
    network, folder = imagenet
    first, again, other, same = (ResNet34(k, seeded(s), folder) for k, s in ((2, 0), (2, 0), (2, 1), (10, 0)))
    for one in (first, other, same):
        trunk = one.network.resnet.state_dict()
        assert all(torch.equal(trunk[name], value) for name, value in network.network.resnet.state_dict().items())
    head = [one.network.classifier[1].weight for one in (first, again, other, same, network)]
    assert head[0].shape == (2, 512) and torch.equal(head[0], head[1]) and not torch.equal(head[0], head[2])
    assert head[3].shape == head[4].shape and not torch.equal(head[3], head[4]), "the head is the folder's own"
    assert Classifier(ClassifierSettings(weights=str(folder)), DEFECTS).reduced(1.0) == ""
    image = torch.rand(1, 3, 40, 40) * 2 - 1
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        want = first.eval().network((image / 2 + 0.5 - mean) / std).logits
        assert torch.allclose(first(image), want, atol=1e-5)


def test_a_folder_that_holds_no_resnet34_is_refused(imagenet: tuple[ResNet34, Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    def refused(said: str) -> None:
        with pytest.raises(ConfigError, match=said):
            ResNet34(2, seeded(), tmp_path)

    with pytest.raises(ConfigError, match="config.json is missing"):
        Classifier(ClassifierSettings(weights=str(tmp_path / "nowhere")), DEFECTS)
    config = (imagenet[1] / "config.json").read_text()
    (tmp_path / "config.json").write_text(config)
    refused("cannot be read as a ResNet-34")
    weights = load_file(imagenet[1] / "model.safetensors")
    name = next(key for key in weights if "stages.3" in key and key.endswith("convolution.weight"))
    for broken in ({}, {name: torch.zeros(3, 3)}):
        kept = {key: value for key, value in weights.items() if key != name} | broken
        save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
        refused(f"1 tensors of its weights are missing or misshapen, e.g. {name}")
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    refused("cannot be read as a ResNet-34")
    (tmp_path / "config.json").write_text(config.replace('"basic"', '"bottleneck"'))
    refused(r"bottleneck blocks by \[3, 4, 6, 3\], not a ResNet-34")


def _small(classes: int, rng: torch.Generator, weights: str = "") -> nn.Module:
    """A network as ResNet-34 is called; the state of that one takes 250 MB and a second to write."""
    with fresh_layers(int(torch.randint(2**31, (1,), generator=rng))):
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, classes)
        )


@pytest.mark.parametrize("name", ["unet", "classifier"])
def test_a_killed_training_goes_on_to_the_same_bytes(
    training: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("flawsmith.detectors.classifier.ResNet34", _small)
    few, epochs, killed_in = training.clone(), 10, 9  # the learning rate falls before and after it is killed
    few.pictures = training.pictures[:4]

    def made(checkpoint: Path | None) -> Any:
        detector: Any = Classifier(ClassifierSettings(epochs=epochs, repeats=1), DEFECTS)
        if name == "unet":
            detector = Unet(UnetSettings(width=2, epochs=epochs, samples_per_epoch=4), DEFECTS)
        detector.checkpoint = checkpoint
        return detector

    def said(detector: Any) -> torch.Tensor:
        told = detector.predict(few.batch(range(4)).image)
        return told.anomaly_map if name == "unet" else told.probabilities

    whole, checkpoint = fitted(made(None), few), tmp_path / "killed.training"
    monkeypatch.setattr(training_state, "SECONDS", 0.0)
    run = made(checkpoint).fit(few, seeded())
    for _ in range(killed_in):
        next(run)
    run.close()
    monkeypatch.setattr(training_state, "SECONDS", 1e9)
    again, over = made(checkpoint), made(checkpoint)
    assert list(again.fit(few, seeded())) == pytest.approx([n / epochs for n in range(killed_in, epochs + 1)])
    assert torch.equal(said(again), said(whole))
    assert list(over.fit(few, seeded())) == [1.0], "it was trained to its end already"
    assert torch.equal(said(over), said(whole))


def test_a_state_of_another_training_is_not_gone_on_with(training: TrainingSet, tmp_path: Path) -> None:
    checkpoint = tmp_path / "unet.training"

    def epochs_of(pictures: list[Any], seed: int = 0, **settings: int) -> int:
        detector = Unet(UnetSettings(width=2, epochs=2, samples_per_epoch=2, **settings), DEFECTS)
        detector.checkpoint, one = checkpoint, training.clone()
        one.pictures = pictures
        return sum(1 for _ in detector.fit(one, seeded(seed)))

    known = list(training.pictures)
    assert epochs_of(known) == 2 and epochs_of(known) == 1
    brighter = replace(known[0], image=known[0].image + 1)
    for changed in (lambda: epochs_of(known, batch=4), lambda: epochs_of(known, seed=1)):
        assert changed() == 2
    assert epochs_of([brighter, *known[1:]]) == 2
    checkpoint.write_bytes(b"torn")
    with pytest.raises(RunError, match=r"unet\.training: not a readable safetensors file"):
        epochs_of(known)
