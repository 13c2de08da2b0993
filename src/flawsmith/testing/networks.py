"""The checks of generators and detectors, and small real things to run them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from flawsmith.config import Settings
from flawsmith.data import factory, images
from flawsmith.data.training_set import TrainingSet
from flawsmith.errors import DataError, FlawsmithError
from flawsmith.interfaces import Detector, Generator
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.extractor import Extractor, scaled
from flawsmith.nn.features import tensors_fingerprint
from flawsmith.nn.fit import Fit
from flawsmith.nn.weights import tensor_hash
from flawsmith.types import Batch, Condition, Example, Found, Made

Check = Callable[[type[Generator], Backbone], None]


def example_batch(size: int, count: int = 4) -> Batch:
    """Return windows with a dark streak under the mask, float32 (count,3,size,size) and (count,1,size,size)."""
    rng = torch.Generator().manual_seed(5)
    shade = torch.rand(count, 3, 1, 1, generator=rng) * 0.6 - 0.2
    image = shade + 0.1 * torch.randn(count, 3, size, size, generator=rng)
    mask = torch.zeros(count, 1, size, size)
    for row in range(count):
        top = size // 4 + row * size // 16
        mask[row, :, top : top + size // 6, size // 4 : size // 2] = 1
    return Batch((image - 0.5 * mask).clamp(-1, 1), mask, ("tile",) * count, ("crack", "hole")[:1] * count)


def example_condition(size: int, count: int = 4) -> Condition:
    """Return sound windows with the masks, and shots, of `example_batch`."""
    shot = example_batch(size, count)
    rng = torch.Generator().manual_seed(6)
    normal = (0.2 + 0.1 * torch.randn(count, 3, size, size, generator=rng)).clamp(-1, 1)
    return Condition(normal, shot.mask, shot.product, shot.defect, shot)


def settings_round_trip(kind: type[Generator], backbone: Backbone) -> None:
    """Settings have a default and a line of help for every field, are frozen, and survive JSON."""
    _settings_hold(kind.__name__, kind.Settings)


def loss_is_per_sample(kind: type[Generator], backbone: Backbone) -> None:
    """The loss is float32 (B,), finite, repeatable from rng, and moves neither the global stream nor the backbone."""
    generator = _new(kind, backbone)
    if not generator.trainable():
        return
    before, stream = _hash(backbone), torch.get_rng_state()
    seen = generator.encode(example_batch(backbone.size))
    losses = [generator.loss(seen, torch.Generator().manual_seed(1)) for _ in range(2)]
    other = generator.loss(seen, torch.Generator().manual_seed(2))
    assert losses[0].shape == (4,) and losses[0].dtype == torch.float32, (
        f"loss is {tuple(losses[0].shape)} {losses[0].dtype}"
    )
    assert torch.isfinite(losses[0]).all()
    assert torch.equal(*losses), "the same rng gave another loss"
    assert not torch.equal(losses[0], other), "the loss does not read rng"
    losses[0].mean().backward()
    assert _hash(backbone) == before, "the loss changed the backbone"
    assert all(p.grad is None for p in backbone.unet.parameters()), "gradients reached the frozen backbone"
    assert torch.equal(torch.get_rng_state(), stream), "the global random stream moved"


def training_lowers_the_loss(kind: type[Generator], backbone: Backbone) -> None:
    """Twenty steps on one batch lower the loss, and leave the backbone's weights bit-identical."""
    generator = _new(kind, backbone)
    if not generator.trainable():
        return
    before = _hash(backbone)
    seen = generator.encode(example_batch(backbone.size))

    def mean_loss() -> float:
        with torch.no_grad():
            return sum(float(generator.loss(seen, torch.Generator().manual_seed(k)).mean()) for k in range(16)) / 16

    first = mean_loss()
    fit = Fit(generator.trainable(), lambda _, rng: generator.loss(seen, rng), steps=20, learning_rate=2e-3)
    for _ in fit.run():
        pass
    last = mean_loss()
    assert last < first, f"twenty steps did not lower the loss: {first:.4f} -> {last:.4f}"
    assert _hash(backbone) == before, "training changed the backbone"


def sample_is_repeatable(kind: type[Generator], backbone: Backbone) -> None:
    """Shapes and ranges hold; the same seeds and batch give the same bytes, other seeds other pictures."""
    generator = _new(kind, backbone)
    asked = example_condition(backbone.size, 1 if kind.native else 4)
    stream = torch.get_rng_state()
    first, again = (_sample(generator, asked, range(len(asked))) for _ in range(2))
    other = _sample(generator, asked, range(100, 100 + len(asked)))
    assert first.image.shape == asked.normal.shape and first.image.dtype == torch.float32
    assert first.mask.shape == asked.mask.shape and set(first.mask.unique().tolist()) <= {0.0, 1.0}
    assert float(first.image.abs().max()) <= 1.0, "the picture leaves [-1,1]"
    assert first.base is None or first.base.shape == first.image.shape
    assert torch.equal(first.image, again.image) and torch.equal(first.mask, again.mask), "same seeds, other bytes"
    assert not torch.equal(first.image, other.image), "the seeds change nothing"
    assert torch.equal(torch.get_rng_state(), stream), "the global random stream moved"


def mask_is_respected(kind: type[Generator], backbone: Backbone) -> None:
    """What it says it painted lies inside what was asked for, is not empty, and something there is new."""
    generator = _new(kind, backbone)
    asked = example_condition(backbone.size, 1 if kind.native else 4)
    made = _sample(generator, asked, range(len(asked)))
    assert bool((made.mask <= asked.mask).all()), "it painted outside of what was asked for"
    assert bool((made.mask.flatten(1).sum(1) > 0).all()), "an empty mask"
    assert bool(((made.image - asked.normal).abs() * made.mask).flatten(1).sum(1).gt(0).all()), "nothing was painted"


def save_and_load(kind: type[Generator], backbone: Backbone) -> None:
    """Saved and loaded, it paints the same bytes; what is saved is safetensors and JSON."""
    generator = _new(kind, backbone)
    asked = example_condition(backbone.size, 1 if kind.native else 2)
    with torch.no_grad():
        for module in generator.trainable().values():
            for parameter in module.parameters():
                parameter.add_(0.01)
    with TemporaryDirectory() as place:
        generator.save(Path(place))
        kinds = {path.suffix for path in Path(place).rglob("*") if path.is_file()}
        assert kinds <= {".json", ".safetensors"}, f"saved as {sorted(kinds)}"
        loaded = kind.load(Path(place), backbone if kind.needs_backbone else None)
    assert loaded.settings == generator.settings
    first, again = (_sample(g, asked, range(len(asked))) for g in (generator, loaded))
    assert torch.equal(first.image, again.image), "after save and load it paints other bytes"


def two_on_one_backbone(kind: type[Generator], backbone: Backbone) -> None:
    """A second generator on the same backbone, trained, does not change what the first one paints."""
    first = _new(kind, backbone)
    asked = example_condition(backbone.size, 1 if kind.native else 2)
    before = _sample(first, asked, range(len(asked)))
    second = _new(kind, backbone)
    if second.trainable():
        seen = second.encode(example_batch(backbone.size))
        for _ in Fit(second.trainable(), lambda _, rng: second.loss(seen, rng), steps=2, learning_rate=1e-2).run():
            pass
    _sample(second, asked, range(len(asked)))
    after = _sample(first, asked, range(len(asked)))
    assert torch.equal(before.image, after.image), "a second generator on the backbone disturbed the first"


GENERATOR_CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        settings_round_trip,
        loss_is_per_sample,
        training_lowers_the_loss,
        sample_is_repeatable,
        mask_is_respected,
        save_and_load,
        two_on_one_backbone,
    )
}
"""Every check, by name. The exact-background guarantee is checked on whole runs: see tests/e2e/test_pipeline.py."""


def check_generator(kind: type[Generator], backbone: Backbone) -> None:
    """Run every check on a generator class.

    Args:
        kind: The class.
        backbone: A backbone; small and random is enough.

    Raises:
        AssertionError: the first promise that is not kept, as a sentence.
    """
    for check in GENERATOR_CHECKS.values():
        check(kind, backbone)


def _new(kind: type[Generator], backbone: Backbone) -> Generator:
    return kind(backbone if kind.needs_backbone else None, kind.Settings())


def _sample(generator: Generator, asked: Condition, seeds: range) -> Made:
    return generator.sample(asked, list(seeds), steps=2, guidance=2.0)


def _hash(backbone: Backbone) -> str:
    return tensor_hash({**backbone.unet.state_dict(), **backbone.vae.state_dict()})


def _settings_hold(owner: str, kind: type[Settings]) -> None:
    settings = kind()
    for name, field in kind.model_fields.items():
        assert field.description, f"{owner}.Settings.{name} has no line of help under it"
    assert kind.model_validate_json(settings.model_dump_json()) == settings
    assert kind.model_config.get("frozen"), f"{owner}.Settings is not frozen"
    assert kind.model_config.get("extra") == "forbid", f"{owner}.Settings takes unknown keys"


# Detectors. `check_detector(MyDetector)` trains it for seconds on small surfaces with planted damage.

DetectorCheck = Callable[[type[Detector]], None]
_KINDS = ("disc", "bar")
_PARTS = {"where": "heat", "whether": "score", "which": "kind"}
_LEAST = 0.0005
"""A budget that shows how a detector behaves, not what it can learn."""


class _TinyExtractor(Extractor):
    name = "tiny"
    strides, channels = (4, 8, 16), (12, 24, 32)

    def __init__(self) -> None:
        super().__init__()
        depths = zip((3, *self.channels), self.channels, (4, 2, 2), strict=False)
        with torch.random.fork_rng([]):
            torch.manual_seed(7)
            self.network = torch.nn.ModuleList(torch.nn.Conv2d(a, b, s + 1, s, s // 2) for a, b, s in depths)
        self.fingerprint = tensors_fingerprint(self)

    @torch.inference_mode()
    def maps(self, image: Tensor) -> list[Tensor]:
        found = [image]
        for layer in self.network:
            found.append(layer(found[-1]).relu())
        return found[1:]

    @torch.inference_mode()
    def vector(self, image: Tensor) -> Tensor:
        return self.maps(scaled(image, self.side))[-1].mean((2, 3))


def tiny_extractor() -> Extractor:
    """Return a small extractor with the same random weights each time: three depths, 32 numbers a picture."""
    return _TinyExtractor().eval().requires_grad_(False)


def example_training(count: int = 12, *, side: int = 64, seed: int = 1, damaged: bool = True) -> TrainingSet:
    """Return surfaces of one line, every second one with a bright disc or bar on it (unless `damaged` is False).

    Other seeds give other pictures of the same line: something to be tested on.
    """
    training, rng = TrainingSet(side, _KINDS), np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    with TemporaryDirectory() as place:
        for number in range(count):
            pixels = factory.make("steel", None, seed=1000 * seed + number, line=1, size=side).image.copy()
            defect = _KINDS[number // 2 % 2] if number % 2 else None
            top, left = rng.integers(side // 4, 3 * side // 4, 2)
            if defect == "disc":
                mask = (rows - top) ** 2 + (columns - left) ** 2 <= (side // 10) ** 2
            else:
                mask = (abs(rows - top) <= side // 20) & (abs(columns - left) <= side // 5)
            example = Example(f"{number}.png", Path(place, f"{number}.png"), "steel")
            if defect is not None and damaged:
                pixels[mask] = 250
                example = replace(example, defect=defect, mask=Path(place, f"{number}_mask.png"))
                images.write_mask(Path(place, f"{number}_mask.png"), mask)
            images.write(example.image, pixels)
            if defect is None or damaged:
                training.add(example, "real")
    return training


def detector_settings_round_trip(kind: type[Detector]) -> None:
    """Settings have a default and a line of help for every field, are frozen, and survive JSON."""
    _settings_hold(kind.__name__, kind.Settings)


def detector_says_what_it_tells(kind: type[Detector]) -> None:
    """It tells something that there is a word for; asked before it was trained, it says so."""
    assert kind.tells and kind.tells <= set(_PARTS), f"tells is {set(kind.tells)}, not some of {set(_PARTS)}"
    detector = _detector(kind)
    for budget in (1.0, 0.01):
        said = detector.reduced(budget)
        assert isinstance(said, str) and "\n" not in said, f"reduced({budget}) is no sentence: {said!r}"
    try:
        detector.predict(torch.zeros(1, 3, 64, 64))
    except FlawsmithError as error:
        assert "fit" in str(error) or "train" in str(error), f"not trained yet, it says: {error}"
    else:
        raise AssertionError("it predicts before it was trained")


def found_is_well_formed(kind: type[Detector]) -> None:
    """The share done rises to 1; from the first epoch on `predict` fills what it tells and nothing else, in shape."""
    training, detector = example_training(), _detector(kind)
    image = training.batch(range(5)).image
    shares: list[float] = []
    for share in detector.fit(training, torch.Generator().manual_seed(0), budget=_LEAST):
        if not shares:
            _well_formed(detector, detector.predict(image), image)
        shares.append(share)
    assert shares and shares[-1] == 1.0 and 0 < shares[0], f"the shares done are {shares[:3]} ... {shares[-1:]}"
    assert all(a < b for a, b in zip(shares, shares[1:], strict=False)), "the share done does not rise"
    found, alone = detector.predict(image), detector.predict(image[2:3])
    _well_formed(detector, found, image)
    for whole, one in zip(_said(detector, found), _said(detector, alone), strict=True):
        assert torch.allclose(whole[2:3], one, rtol=1e-2, atol=1e-3), "what it says depends on the pictures beside it"


def same_rng_same_predictions(kind: type[Detector]) -> None:
    """Trained again from the same rng it says the same, also when it was asked in between; global streams stay."""
    training, detector = example_training(), _detector(kind)
    image, stream = training.batch(range(4)).image, torch.get_rng_state()
    for _ in detector.fit(training, torch.Generator().manual_seed(3), budget=_LEAST):
        first = detector.predict(image)
    again = _fitted(detector, training, seed=3).predict(image)
    for one, other in zip(_said(detector, first), _said(detector, again), strict=True):
        assert torch.equal(one, other), "the same rng gave other predictions"
    assert torch.equal(torch.get_rng_state(), stream), "the global random stream moved"


def planted_damage_is_found(kind: type[Detector]) -> None:
    """After a small share of its training it ranks bright spots on pictures that it never saw far above chance."""
    if not kind.tells & {"where", "whether"}:
        return
    training, batch = example_training(), example_training(24, seed=2).batch(range(24))
    labels = {"heat": batch.mask, "score": batch.mask.flatten(1).amax(1)}
    for budget in (0.006, 0.06, 0.3):
        found = _fitted(_detector(kind), training, budget=budget).predict(batch.image)
        answers = {part: getattr(found, part) for part in labels}
        ranked = {part: _ranked(said, labels[part]) for part, said in answers.items() if said is not None}
        if min(ranked.values()) >= 0.75:
            return
    raise AssertionError(f"planted damage is not found: AUROC {ranked} (chance is 0.5)")


def sound_alone_is_enough_or_refused(kind: type[Detector]) -> None:
    """Without damaged pictures it trains, or says that it needs some; it never trains on what it should ignore."""
    sound, detector = example_training(damaged=False), _detector(kind)
    image = sound.batch(range(3)).image
    if not kind.needs_damage:
        said = [_said(detector, _fitted(detector, one).predict(image)) for one in (sound, example_training())]
        assert all(map(torch.equal, *said)), "needs_damage is False, yet damage counts"
        return
    try:
        _fitted(detector, sound)
    except DataError as error:
        assert "damage" in str(error) or "defect" in str(error), f"without damaged pictures it says: {error}"
    else:
        raise AssertionError("needs_damage is True, yet it trains without; set it to False or raise DataError")


DETECTOR_CHECKS: dict[str, DetectorCheck] = {
    check.__name__: check
    for check in (
        detector_settings_round_trip,
        detector_says_what_it_tells,
        found_is_well_formed,
        same_rng_same_predictions,
        planted_damage_is_found,
        sound_alone_is_enough_or_refused,
    )
}
"""Every check, by name."""


def check_detector(kind: type[Detector]) -> None:
    """Run every check on a detector class.

    Raises:
        AssertionError: the first promise that is not kept, as a sentence.
    """
    for check in DETECTOR_CHECKS.values():
        check(kind)


def _detector(kind: type[Detector]) -> Detector:
    return kind(kind.Settings(), _KINDS, extractor=tiny_extractor() if kind.needs_extractor else None)


def _fitted(detector: Detector, training: TrainingSet, seed: int = 0, budget: float = _LEAST) -> Detector:
    for _ in detector.fit(training, torch.Generator().manual_seed(seed), budget=budget):
        pass
    return detector


def _said(detector: Detector, found: Found) -> list[Tensor]:
    return [getattr(found, part) for task, part in _PARTS.items() if task in detector.tells]


def _well_formed(detector: Detector, found: Found, image: Tensor) -> None:
    count, _, height, width = image.shape
    shapes = {"heat": (count, 1, height, width), "score": (count,), "kind": (count, len(_KINDS))}
    for task, part in _PARTS.items():
        value = getattr(found, part)
        if task not in detector.tells:
            assert value is None, f"it does not tell {task}, so {part} must be None"
            continue
        assert value is not None, f"it tells {task}, but {part} is None"
        assert value.shape == shapes[part], f"{part} is {tuple(value.shape)}, not {shapes[part]}"
        assert value.dtype == torch.float32 and value.device.type == "cpu", f"{part} is {value.dtype} on {value.device}"
        assert bool(torch.isfinite(value).all()) and not value.requires_grad, f"{part} is not finite, or has a gradient"
    if found.kind is not None:
        assert float(found.kind.min()) >= 0, "a kind's probability is below 0"
        assert torch.allclose(found.kind.sum(1), torch.ones(count), atol=1e-4), "a row of kinds does not sum to 1"


def _ranked(scores: Tensor, labels: Tensor) -> float:
    """Return the area under the ROC curve, from ranks."""
    ranks, hit = rankdata(scores.numpy().ravel()), labels.numpy().ravel() > 0.5
    most = int(hit.sum())
    return float((ranks[hit].sum() - most * (most + 1) / 2) / (most * (len(hit) - most)))
