"""The checks of generators, and small requests to run them on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from flawsmith.interfaces import Generator
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.methods.attention_maps import AttentionMaps
from flawsmith.nn.trainer import Trainer
from flawsmith.nn.weights import tensor_hash
from flawsmith.testing.settings import settings_hold
from flawsmith.types import Batch, Condition, Crop, Generated

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
    """Return normal windows with the masks, and shots, of `example_batch`."""
    shot = example_batch(size, count)
    rng = torch.Generator().manual_seed(6)
    normal = (0.2 + 0.1 * torch.randn(count, 3, size, size, generator=rng)).clamp(-1, 1)
    return Condition(normal, shot.mask, shot.product, shot.defect, shot)


def example_crops(size: int, count: int = 3) -> list[Crop]:
    """Return what a generator learns at native scale: shots of `example_batch`, and as many normal parts."""
    shots = example_batch(size, count)
    normals = example_condition(size, count).normal
    crops = []
    for row in range(count):
        mask = shots.mask[row, 0].numpy() > 0.5
        for image, defect in ((shots.image, shots.defect[row]), (normals, "")):
            crops.append(Crop(image[row].permute(1, 2, 0).numpy().copy(), mask, shots.product[row], defect))
    return crops


def settings_round_trip(plugin: type[Generator], backbone: Backbone) -> None:
    """Settings have a default and a line of help for every field, are frozen, and survive JSON."""
    settings_hold(plugin.__name__, plugin.Settings)


def loss_is_per_sample(plugin: type[Generator], backbone: Backbone) -> None:
    """The loss is float32 (B,), finite, repeatable from rng, and moves neither the global stream nor the backbone."""
    generator = _new(plugin, backbone)
    if not generator.trainable():
        return
    before, stream = _hash(backbone), torch.get_rng_state()
    views = generator.encode(example_batch(backbone.size))
    losses = [generator.loss(views, torch.Generator().manual_seed(1)) for _ in range(2)]
    other = generator.loss(views, torch.Generator().manual_seed(2))
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


def rows_are_learned_alone(plugin: type[Generator], backbone: Backbone) -> None:
    """What is drawn for a batch gives some of its rows the loss that they have in the whole of it."""
    generator = _new(plugin, backbone)
    if not generator.trainable() or plugin.loss_of is Generator.loss_of:
        return
    views, rng = generator.encode(example_batch(backbone.size, 3)), torch.Generator().manual_seed(1)
    drawn = generator.draw(views, rng)
    assert all(len(tensor) == 3 for tensor in drawn.tensors.values()), "draw returns other rows than the batch has"
    with torch.no_grad():
        whole = generator.loss(views, torch.Generator().manual_seed(1))
        parts = torch.cat([generator.loss_of(drawn.rows(rows)) for rows in (torch.tensor([0, 1]), torch.tensor([2]))])
    assert torch.allclose(whole, parts, rtol=1e-3, atol=1e-5), (
        f"the loss of a part depends on the others: {whole - parts}"
    )


def training_lowers_the_loss(plugin: type[Generator], backbone: Backbone) -> None:
    """Twenty steps at the default rate on one batch lower the loss, and leave the backbone's weights bit-identical."""
    generator = _new(plugin, backbone)
    if not generator.trainable():
        return
    before = _hash(backbone)
    views = generator.encode(example_batch(backbone.size))
    drawn_often = views.rows(torch.arange(len(views)).repeat(16))

    def mean_loss() -> float:
        """Mean over 16 draws of each row, in one pass: 16 passes of small networks would take several times as long."""
        with torch.no_grad():
            return float(generator.loss(drawn_often, torch.Generator().manual_seed(0)).mean())

    first = mean_loss()
    trainer = Trainer(generator.trainable(), lambda _, rng: generator.loss(views, rng), steps=20, learning_rate=2e-4)
    for _ in trainer.run():
        pass
    last = mean_loss()
    assert last < first, f"twenty steps did not lower the loss: {first:.4f} -> {last:.4f}"
    assert _hash(backbone) == before, "training changed the backbone"


def sample_is_repeatable(plugin: type[Generator], backbone: Backbone) -> None:
    """Shapes and ranges hold; the same seeds and batch give the same bytes, other seeds other pictures."""
    generator = _new(plugin, backbone)
    asked = example_condition(backbone.size, 1 if plugin.native else 4)
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


def mask_is_respected(plugin: type[Generator], backbone: Backbone) -> None:
    """What it says it painted lies inside what was asked for, is not empty, and something there is new."""
    generator = _new(plugin, backbone)
    asked = example_condition(backbone.size, 1 if plugin.native else 4)
    made = _sample(generator, asked, range(len(asked)))
    assert bool((made.mask <= asked.mask).all()), "it painted outside of what was asked for"
    assert bool((made.mask.flatten(1).sum(1) > 0).all()), "an empty mask"
    assert bool(((made.image - asked.normal).abs() * made.mask).flatten(1).sum(1).gt(0).all()), "nothing was painted"


def save_and_load(plugin: type[Generator], backbone: Backbone) -> None:
    """Saved and loaded, it paints the same bytes and has learned the same; saved are safetensors and JSON."""
    generator = _new(plugin, backbone)
    asked = example_condition(backbone.size, 1 if plugin.native else 2)
    with torch.no_grad():
        for module in generator.trainable().values():
            for parameter in module.parameters():
                parameter.add_(0.01)
    with TemporaryDirectory() as folder:
        generator.save(Path(folder))
        suffixes = {path.suffix for path in Path(folder).rglob("*") if path.is_file()}
        assert suffixes <= {".json", ".safetensors"}, f"saved as {sorted(suffixes)}"
        loaded = plugin.load(Path(folder), backbone if plugin.needs_backbone else None)
    assert loaded.settings == generator.settings
    assert tensor_hash(loaded.learned()) == tensor_hash(generator.learned()), "what it learned is not what was saved"
    first, again = (_sample(g, asked, range(len(asked))) for g in (generator, loaded))
    assert torch.equal(first.image, again.image), "after save and load it paints other bytes"


def two_on_one_backbone(plugin: type[Generator], backbone: Backbone) -> None:
    """A second generator on the same backbone, trained, does not change what the first one paints."""
    first = _new(plugin, backbone)
    asked = example_condition(backbone.size, 1 if plugin.native else 2)
    before = _sample(first, asked, range(len(asked)))
    second = _new(plugin, backbone)
    if second.trainable():
        views = second.encode(example_batch(backbone.size))
        for _ in Trainer(second.trainable(), lambda _, rng: second.loss(views, rng), steps=2, learning_rate=1e-2).run():
            pass
    _sample(second, asked, range(len(asked)))
    after = _sample(first, asked, range(len(asked)))
    assert torch.equal(before.image, after.image), "a second generator on the backbone disturbed the first"


def training_reads_no_sampling_settings(plugin: type[Generator], backbone: Backbone) -> None:
    """What does not affect "train" is never read by training, and `sweep` is a number that affects "generate" alone."""
    trained, sampled = (plugin.affecting(plugin.Settings(), output) for output in ("train", "generate"))
    known = plugin.Settings.model_fields
    unknown = {name for name in (*trained, *sampled) if name.partition(".")[0] not in known}
    assert not unknown, f"affecting names {sorted(unknown)}, which are no settings"
    name, values = plugin.sweep
    if name:
        assert name in sampled and name not in trained, f"sweep names {name}, which does not affect generate alone"
        assert len(values) > 1, "a sweep needs two values or more"
    generator, read = _new(plugin, backbone), set[str]()
    if not generator.trainable():
        return

    class Watched(plugin.Settings):  # type: ignore[name-defined]
        def __getattribute__(self, key: str) -> object:
            read.add(key)
            return super().__getattribute__(key)

    generator.settings = Watched.model_construct(**dict(generator.settings))
    views = generator.encode(example_batch(backbone.size))
    generator.loss(views, torch.Generator().manual_seed(1))
    list(generator.calibrate(views))
    late = read & (sampled.keys() - trained.keys())
    assert not late, f"training reads {sorted(late)}, which are said not to affect it"


def listening_changes_nothing(plugin: type[Generator], backbone: Backbone) -> None:
    """Who reads words says the prompt and the backbone that reads it; listening to that changes no byte of a sample."""
    generator, asked = _new(plugin, backbone), example_condition(backbone.size, 1)
    read = generator.attention(asked.defect[0], asked.product[0])
    if read is None:
        return
    assert asked.defect[0] in read[1], f"the prompt of {asked.defect[0]!r} is {read[1]!r}, which does not name it"
    quiet, maps = _sample(generator, asked, range(1)), AttentionMaps(read[0].unet)
    with maps.listening():
        heard = _sample(generator, asked, range(1))
    assert torch.equal(quiet.image, heard.image), "listening changed the sample"
    size = asked.mask.shape[-2] // read[0].factor, asked.mask.shape[-1] // read[0].factor
    assert maps.take(size) is not None, "the backbone that attention() names was never asked"


GENERATOR_CHECKS: dict[str, Check] = {
    check.__name__: check
    for check in (
        settings_round_trip,
        loss_is_per_sample,
        rows_are_learned_alone,
        training_lowers_the_loss,
        sample_is_repeatable,
        mask_is_respected,
        save_and_load,
        two_on_one_backbone,
        training_reads_no_sampling_settings,
        listening_changes_nothing,
    )
}
"""Every check, by name. The exact-background guarantee is checked on whole runs: see tests/e2e/test_pipeline.py."""


def check_generator(plugin: type[Generator], backbone: Backbone) -> None:
    """Run every check on a generator class.

    Args:
        plugin: The class.
        backbone: A backbone; small and random is enough.

    Raises:
        AssertionError: the first promise that is not kept, as a sentence.
    """
    for check in GENERATOR_CHECKS.values():
        check(plugin, backbone)


def _new(plugin: type[Generator], backbone: Backbone) -> Generator:
    generator = plugin(backbone if plugin.needs_backbone else None, plugin.Settings())
    generator.learn(example_crops(backbone.size))
    return generator


def _sample(generator: Generator, asked: Condition, seeds: range) -> Generated:
    return generator.sample(asked, list(seeds), steps=2, guidance=2.0)


def _hash(backbone: Backbone) -> str:
    return tensor_hash({**backbone.unet.state_dict(), **backbone.vae.state_dict()})
