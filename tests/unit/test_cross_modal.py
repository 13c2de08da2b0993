"""cross_modal and hybrid: the reference is heard, its weight can be read off, and the parts stay apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from flawsmith import registry
from flawsmith.errors import ConfigError, RunError
from flawsmith.nn.trainer import Trainer
from flawsmith.testing import example_batch, example_condition
from flawsmith.types import Batch, Condition

CrossModal = registry.get("generators", "cross_modal")
Hybrid = registry.get("generators", "hybrid")
SEEDS = [0, 1]


def asked(backbone: Any, **changes: Any) -> Condition:
    return replace(example_condition(backbone.size, 2), **changes)


def reference(backbone: Any, defect: str = "hole") -> Batch:
    """A reference of another product: bright blocks on dark ground."""
    image = torch.full((2, 3, backbone.size, backbone.size), -0.6)
    mask = torch.zeros(2, 1, backbone.size, backbone.size)
    mask[:, :, 20:44, 20:44] = 1
    return Batch(image + 1.4 * mask, mask, ("screw",) * 2, (defect,) * 2)


def painted(generator: Any, condition: Condition, guidance: float = 2.0) -> torch.Tensor:
    image: torch.Tensor = generator.sample(condition, SEEDS, steps=3, guidance=guidance).image
    return image


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_the_reference_is_heard_and_its_weight_can_be_read_off(backbone: Any, guidance: float) -> None:
    """From the text's look to the reference's as the scale grows; at 0 the reference does not exist."""
    one, two = asked(backbone, reference=None, shot=None), asked(backbone, reference=reference(backbone))
    silent = CrossModal(backbone, CrossModal.Settings(scale=0.0))
    words = painted(silent, one, guidance)
    assert torch.equal(painted(silent, two, guidance), words)
    far = [
        float((painted(CrossModal(backbone, CrossModal.Settings(scale=s)), two, guidance) - words).norm())
        for s in (0.25, 0.5, 1.0)
    ]
    assert 0 < far[0] < far[1] < far[2]


def test_references_that_differ_give_other_pictures(backbone: Any) -> None:
    generator = CrossModal(backbone, CrossModal.Settings())
    hole = painted(generator, asked(backbone, reference=reference(backbone)))
    shot = painted(generator, asked(backbone))
    other = painted(generator, asked(backbone, reference=reference(backbone, "crack")))
    assert not torch.equal(hole, shot), "the reference, where given, is preferred to the shot"
    assert not torch.equal(hole, other), "the words of the reference count"


def test_it_needs_no_reference(backbone: Any) -> None:
    condition = asked(backbone, shot=None)
    assert torch.isfinite(painted(CrossModal(backbone, CrossModal.Settings()), condition)).all()
    with pytest.raises(ConfigError, match="neither sketch nor shot"):
        painted(CrossModal(backbone, CrossModal.Settings(start="shot")), condition)


def test_dropout_silences_reference_words_or_both(backbone: Any) -> None:
    """With every sample's reference dropped, what the CSM read cannot change the loss; likewise the words."""
    seen = CrossModal(backbone, CrossModal.Settings()).encode(example_batch(backbone.size))

    def loss(name: str, **settings: float) -> tuple[torch.Tensor, torch.Tensor]:
        generator = CrossModal(backbone, CrossModal.Settings(other_view=0.0, **settings))
        other = backbone.tokens(["a photo of a hole"] * len(seen)) if name == "tokens" else seen[name] + 1
        changed = replace(seen, tensors={**seen.tensors, name: other})
        return tuple(generator.loss(x, torch.Generator().manual_seed(0)).detach() for x in (seen, changed))  # type: ignore[return-value]

    none = {"image_dropout": 0.0, "text_dropout": 0.0, "both_dropout": 0.0}
    for name, own in (("feature", "image_dropout"), ("tokens", "text_dropout")):
        assert not torch.equal(*loss(name, **none))
        assert torch.equal(*loss(name, **{**none, own: 1.0}))
        assert torch.equal(*loss(name, **{**none, "both_dropout": 1.0}))


def test_the_empty_mask_is_read_too(backbone: Any) -> None:
    batch = example_batch(backbone.size)
    seen = CrossModal(backbone, CrossModal.Settings()).encode(replace(batch, mask=torch.zeros_like(batch.mask)))
    assert torch.isfinite(seen["feature"]).all()


def test_weights_of_another_csm_are_refused(backbone: Any, tmp_path: Path) -> None:
    generator = CrossModal(backbone, CrossModal.Settings())
    generator.sga.reader[0] += 1
    generator.save(tmp_path)
    with pytest.raises(RunError, match="was trained with the CSM"):
        CrossModal.load(tmp_path, backbone)


def test_prompts_with_other_fields_are_refused() -> None:
    with pytest.raises(ValueError, match="can be filled in"):
        CrossModal.Settings(reference_prompt="a {colour} {defect}")


def test_hybrid_without_scale_is_controlnet_inpaint(backbone: Any) -> None:
    plugin = registry.get("generators", "controlnet_inpaint")
    told = {"start": "shot", "strength": 0.6}
    condition = asked(backbone, reference=reference(backbone))
    alone = painted(plugin(backbone, plugin.Settings(**told)), condition)
    assert torch.equal(
        painted(Hybrid(backbone, Hybrid.Settings(spatial=told, semantic={"scale": 0.0})), condition), alone
    )
    heard = painted(Hybrid(backbone, Hybrid.Settings(spatial=told)), condition)
    assert not torch.equal(heard, alone)
    assert not torch.equal(heard, painted(Hybrid(backbone, Hybrid.Settings(spatial=told)), asked(backbone)))


def test_the_parts_of_hybrid_are_trained_apart(backbone: Any) -> None:
    """Each part's gradient is that of the part alone, on the same random numbers."""
    batch, hybrid = example_batch(backbone.size), Hybrid(backbone, Hybrid.Settings())
    rng = torch.Generator().manual_seed(3)
    hybrid.loss(hybrid.encode(batch), rng).mean().backward()
    rng = torch.Generator().manual_seed(3)
    for name, key in (("controlnet_inpaint", "control"), ("cross_modal", "adapter")):
        plugin = registry.get("generators", name)
        alone = plugin(backbone, plugin.Settings())
        alone.loss(alone.encode(batch), rng).mean().backward()
        grads = zip(alone.trainable()[key].parameters(), hybrid.trainable()[key].parameters(), strict=True)
        assert all(torch.allclose(a.grad, b.grad, atol=1e-6) for a, b in grads if a.grad is not None)


def test_hybrid_takes_parts_that_were_trained_before(backbone: Any, tmp_path: Path) -> None:
    settings = {}
    for name, key in (("controlnet_inpaint", "controlnet"), ("cross_modal", "sga")):
        plugin = registry.get("generators", name)
        part = plugin(backbone, plugin.Settings())
        seen = part.encode(example_batch(backbone.size))
        fit = Trainer(part.trainable(), lambda _, rng, p=part, s=seen: p.loss(s, rng), steps=1, learning_rate=1e-2)
        list(fit.run())
        part.save(tmp_path / name)
        settings[key] = str(tmp_path / name)
    hybrid = Hybrid(backbone, Hybrid.Settings(**settings))
    for key, module in hybrid.trainable().items():
        fresh = Hybrid(backbone, Hybrid.Settings()).trainable()[key].state_dict()
        assert any(not torch.equal(value, fresh[name]) for name, value in module.state_dict().items())
    hybrid.save(tmp_path / "hybrid")
    for name in ("controlnet_inpaint", "cross_modal"):  # what it was made from may go
        (tmp_path / name).rename(tmp_path / f"{name} is gone")
    again = Hybrid.load(tmp_path / "hybrid", backbone)
    assert torch.equal(painted(again, asked(backbone)), painted(hybrid, asked(backbone)))


def test_a_wrong_setting_of_a_part_names_its_place(backbone: Any) -> None:
    with pytest.raises(ConfigError, match=r"generator\.settings\.spatial.*control_scal"):
        Hybrid(backbone, Hybrid.Settings(spatial={"control_scal": 1.0}))


def test_hybrid_does_not_begin_with_weights_of_another_csm(backbone: Any, tmp_path: Path) -> None:
    """They would be trained to the end, and refused when they are loaded to paint."""
    generator = CrossModal(backbone, CrossModal.Settings())
    generator.sga.reader[0] += 1
    generator.save(tmp_path)
    with pytest.raises(RunError, match="was trained with the CSM"):
        Hybrid(backbone, Hybrid.Settings(sga=str(tmp_path)))
