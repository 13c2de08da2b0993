"""generators/dual_branch.py: what the contract does not ask of every generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flawsmith.errors import ConfigError, RunError
from flawsmith.generators.dual_branch import DualBranch
from flawsmith.generators.dual_branch import DualBranchSettings as Settings
from flawsmith.nn.attention import attend
from flawsmith.nn.diffusion import Noise
from flawsmith.nn.inpaint import filled
from flawsmith.nn.memory.portions import in_portions
from flawsmith.nn.methods import branches
from flawsmith.nn.methods.attention_maps import AttentionMaps
from flawsmith.nn.methods.dual_unet import DualUNet
from flawsmith.nn.weights import load_tensors
from flawsmith.testing import GENERATOR_CHECKS, check_generator, example_batch, example_condition
from flawsmith.types import Condition


def variant(**settings: Any) -> type[DualBranch]:
    """Return the generator with other defaults, for checks that make their own."""

    class Other(Settings):
        pass

    for name, value in settings.items():
        Other.model_fields[name].default = value
    Other.model_rebuild(force=True)
    assert all(getattr(Other(), name) == value for name, value in settings.items())

    class Variant(DualBranch):
        Settings = Other

    return Variant


def shaken(generator: DualBranch, scale: float = 0.1) -> DualBranch:
    rng = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for module in generator.trainable().values():
            for parameter in module.parameters():
                parameter += scale * torch.randn(parameter.shape, generator=rng)
    return generator


def ask(backbone: Any, count: int = 3) -> Condition:
    asked = example_condition(backbone.size, count)
    return replace(asked, mask=torch.ones_like(asked.mask), shot=None)


PAPER = {"saim": "full", "zero_start": False, "bcm": "paper", "text_rank": 4, "text_dropout": 0.0, "rank": 8}


@pytest.mark.parametrize(
    "settings", [PAPER, {"bcm": "scaled", "adapters": ["crack"]}, {"saim": "off"}], ids=["paper", "scaled", "off"]
)
@pytest.mark.parametrize("inpaints", [True, False], ids=["inpainting", "plain"])
def test_every_way_keeps_the_contract(
    settings: dict[str, Any], inpaints: bool, make_backbone: Callable[..., Any], small_backbone: Any
) -> None:
    defect = variant(**settings)
    if inpaints:
        check_generator(defect, small_backbone)
    else:
        plain = make_backbone(inpaints=False, kl=True, target="epsilon", window=small_backbone.size)
        for check in ("loss_is_per_sample", "sample_is_repeatable"):
            GENERATOR_CHECKS[check](defect, plain)


def test_the_loss_is_the_formula(backbone: Any) -> None:
    """Mean over both branches of the squared error, one timestep a pair, independent noise; targets as encoded."""
    generator = DualBranch(backbone, Settings(text_dropout=0.0, bcm="off"))
    shots = example_batch(backbone.size)
    seen = generator.encode(shots)
    expected = backbone.encode(torch.cat([shots.image, shots.image * shots.mask])).chunk(2)
    for name, latent in zip(("whole", "alone"), expected, strict=True):
        torch.testing.assert_close(seen[name], latent)
    rng = torch.Generator().manual_seed(3)
    torch.rand(4, generator=rng)
    t = torch.randint(len(backbone.noise), (4,), generator=rng)
    noise = torch.randn(8, *expected[0].shape[1:], generator=rng)
    assert not torch.equal(noise[:4], noise[4:])
    grey = backbone.encode(torch.zeros(1, 3, backbone.size, backbone.size)).expand(4, -1, -1, -1)
    total = torch.zeros(4)
    for clean, eps, word in zip(expected, noise.chunk(2), ("a photo of a crack", "crack"), strict=True):
        # Adapters start from nothing: the frozen model's own word is what the untrained branches say.
        said = backbone.predict(
            backbone.noise.add(clean, eps, t),
            t,
            backbone.embed([word] * 4),
            mask=torch.ones(4, 1, *clean.shape[2:]),
            masked=grey,
        )
        total += (said - backbone.noise.target_of(clean, eps, t)).square().flatten(1).mean(1) / 2
    torch.testing.assert_close(generator.loss(seen, torch.Generator().manual_seed(3)), total, rtol=1e-4, atol=1e-5)


def test_sound_views_teach_grey_and_the_threshold_ignores_them(backbone: Any) -> None:
    generator = DualBranch(backbone, Settings())
    shots = example_batch(backbone.size)
    mixed = replace(shots, defect=("crack", "crack", "", ""))
    seen, grey = generator.encode(mixed), backbone.encode(torch.zeros(1, 3, backbone.size, backbone.size))
    torch.testing.assert_close(seen["alone"][2:], grey.expand(2, -1, -1, -1))
    assert float((seen["alone"][:2] - grey).abs().max()) > 1e-3
    before = float(generator.mask_threshold.cell)
    list(generator.calibrate(seen))
    alone = DualBranch(backbone, Settings())
    list(alone.calibrate(seen.rows(torch.tensor([0, 1]))))
    assert float(generator.mask_threshold.cell) == float(alone.mask_threshold.cell) != before
    list(generator.calibrate(generator.encode(replace(shots, defect=("",) * 4))))  # no damage at all: it stays
    assert float(generator.mask_threshold.cell) == float(alone.mask_threshold.cell)


def test_a_sample_is_the_same_on_the_slow_path(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folding, merging and reuse of the words' keys change the result by rounding alone."""
    generator = shaken(DualBranch(backbone, Settings(bcm="scaled", out="whole")))
    fast = generator.sample(ask(backbone), [1, 2, 3], steps=3, guidance=2.0)
    honest = generator.unet._run

    def slow(noisy: Tensor, t: Tensor, text: Any, now: Any, *, folded: bool, guidance: float = 1.0) -> Tensor:
        now.text = None
        return honest(noisy, t, text, now, folded=False, guidance=guidance)

    monkeypatch.setattr(generator.unet, "_run", slow)
    plain = generator.sample(ask(backbone), [1, 2, 3], steps=3, guidance=2.0)
    assert float((fast.image - plain.image).abs().mean()) < 1e-3 and fast.whole and fast.base is None
    assert float((fast.image - ask(backbone).normal).abs().mean()) > 1e-2


def test_training_changes_what_is_sampled(backbone: Any) -> None:
    """Folded weights are made anew when what is trained has changed."""
    generator = DualBranch(backbone, Settings())
    first = generator.sample(ask(backbone), [1, 2, 3], steps=2, guidance=1.0)
    shaken(generator)
    assert not torch.equal(generator.sample(ask(backbone), [1, 2, 3], steps=2, guidance=1.0).image, first.image)


def test_one_background_is_passed_once(backbone: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows with one photograph share BCM's pass, those with dropped text too; the paper's form has a row each."""
    asked = ask(backbone, 4)
    asked = replace(asked, normal=asked.normal[[0, 0, 0, 1]])
    counts: dict[str, list[int]] = {}
    for bcm in ("scaled", "paper"):
        generator = shaken(DualBranch(backbone, Settings(bcm=bcm)))
        honest = generator.unet.hidden_of

        def counted(veiled: Tensor, *args: Any, _honest: Any = honest, _bcm: str = bcm, **named: Any) -> Any:
            counts.setdefault(_bcm, []).append(len(veiled))
            return _honest(veiled, *args, **named)

        monkeypatch.setattr(generator.unet, "hidden_of", counted)
        made = generator.sample(asked, [1, 2, 3, 4], steps=2, guidance=2.0)
        # The background matters: another photograph in the same place gives another whole picture.
        other = generator.sample(replace(asked, normal=asked.normal.flip(0)), [1, 2, 3, 4], steps=2, guidance=2.0)
        assert not torch.equal(made.image, other.image)
    assert set(counts["scaled"]) == {2} and set(counts["paper"]) == {8}


def test_background_reaches_the_first_branch(backbone: Any) -> None:
    told = {}
    for bcm in ("scaled", "off"):
        generator = shaken(DualBranch(backbone, Settings(bcm=bcm, out="whole", saim="off")))
        asked = ask(backbone)
        pair = [
            generator.sample(replace(asked, normal=normal), [1, 2, 3], steps=2, guidance=1.0).image
            for normal in (asked.normal, -asked.normal)
        ]
        told[bcm] = torch.equal(*pair)
    assert told == {"scaled": False, "off": True}


def test_the_unscaled_latent_is_the_papers(backbone: Any) -> None:
    latent = torch.randn(1, 8, 2, 2)
    scale = float(backbone.vae.config.scaling_factor)
    assert torch.equal(DualBranch(backbone, Settings(bcm="paper")).unet.bcm_latent(latent), latent / scale)
    assert torch.equal(DualBranch(backbone, Settings(bcm="scaled")).unet.bcm_latent(latent), latent)
    starts = {
        bcm: {float(b.share.detach()) for b in DualBranch(backbone, Settings(bcm=bcm)).unet.branches.bcms.values()}
        for bcm in ("paper", "scaled")
    }
    assert starts["paper"] == {0.0} and 0.0 not in starts["scaled"]


def test_transplant_leaves_the_photograph_where_no_damage_shows(backbone: Any) -> None:
    """Far from the drawn mask picture and base are the same decoded latent."""
    generator = shaken(DualBranch(backbone, Settings(largest=1.0)))
    asked = ask(backbone)
    inside = torch.zeros_like(asked.mask)
    inside[:, :, :16, :16] = 1
    made = generator.sample(replace(asked, mask=inside), [1, 2, 3], steps=3, guidance=2.0)
    assert made.base is not None and not made.whole and bool((made.mask <= inside).all())
    change = (made.image - made.base).abs().amax(1, keepdim=True)
    assert float(change[:, :, :16, :16].max()) > 0.01
    assert float(change[:, :, :, 48:].max()) < 1e-4 + 0.2 * float(change.max())


def test_sound_is_repainted_where_it_was_asked(backbone: Any) -> None:
    generator = shaken(DualBranch(backbone, Settings(out="whole")))
    asked = replace(example_condition(backbone.size), defect=("",) * 4)
    made = generator.sample(asked, [1, 2, 3, 4], steps=2, guidance=2.0)
    assert torch.equal(made.mask, asked.mask) and set(made.refused) == {""} and not made.whole
    assert made.base is not None and not torch.equal(made.image, made.base)


def test_kinds_with_adapters_of_their_own(backbone: Any, tmp_path: Path) -> None:
    generator = DualBranch(backbone, Settings(adapters=["hole", "tile/crack"]))
    known = [generator.pair_of(*names) for names in (("crack", "tile"), ("crack", "x"), ("hole", "x"), ("", "tile"))]
    assert known == [2, 0, 1, 0]
    asked = replace(ask(backbone), defect=("crack", "hole", "hole"), product=("tile",) * 3)
    before = generator.sample(asked, [1, 2, 3], steps=2, guidance=2.0)
    with torch.no_grad():
        for layer in generator.unet.branches.changes.values():
            layer.query.up[2:4] += 1.0  # the pair of hole
    after = generator.sample(asked, [1, 2, 3], steps=2, guidance=1.0)
    same = DualBranch(backbone, Settings(adapters=["hole", "tile/crack"])).sample(
        asked, [1, 2, 3], steps=2, guidance=1.0
    )
    assert torch.allclose(after.image[0], same.image[0], atol=1e-5), "crack has nothing to do with hole's adapters"
    assert not torch.allclose(after.image[1], same.image[1], atol=1e-3) and before.image.shape == after.image.shape
    generator.save(tmp_path)
    names = {
        key.partition("query.")[2].rpartition(".")[0] for key in load_tensors(tmp_path / "adapters.safetensors")[0]
    }
    assert names - {""} == {f"{n}/{b}" for n in ("shared", "hole", "tile/crack") for b in ("whole", "alone")}
    (tmp_path / "settings.json").write_text(Settings().model_dump_json())
    with pytest.raises(RunError, match="other settings"):
        DualBranch.load(tmp_path, backbone)


def test_start_from_a_shot(backbone: Any) -> None:
    generator = DualBranch(backbone, Settings(start="shot"))
    generator.settings = generator.settings.model_copy(update={"strength": 0.0})
    asked = ask(backbone)
    with pytest.raises(ConfigError, match="neither sketch nor shot"):
        generator.sample(asked, [1, 2, 3], steps=4, guidance=1.0)
    sketch = asked.normal.clone()
    sketch[:, :, 20:40, 20:40] -= 0.8
    asked = replace(asked, sketch=sketch.clamp(-1, 1))
    first, second = (generator.sample(asked, seeds, steps=4, guidance=1.0) for seeds in ([1, 2, 3], [4, 5, 6]))
    assert torch.equal(first.image, second.image), "at no strength the shot itself comes back, whatever the seed"
    torch.testing.assert_close(first.base, asked.normal)


def test_filled_knows_nothing_of_the_damage() -> None:
    image = torch.full((2, 3, 32, 32), 0.25)
    mask = torch.zeros(2, 1, 32, 32)
    mask[:, :, 8:20, 8:20] = 1
    damaged = image - 0.7 * mask
    torch.testing.assert_close(filled(damaged, mask), image)
    torch.testing.assert_close(filled(damaged, torch.zeros_like(mask)), damaged)


@pytest.mark.parametrize("target", ["epsilon", "v_prediction", "sample"])
def test_prediction_of_undoes_clean(target: str) -> None:
    from flawsmith.nn import builtin

    noise = Noise({**builtin.SCHEDULER, "prediction_type": target, "rescale_betas_zero_snr": target != "epsilon"})
    rng = torch.Generator().manual_seed(0)
    noisy, said = torch.randn(3, 4, 2, 2, generator=rng), torch.randn(3, 4, 2, 2, generator=rng)
    t = torch.tensor([5, 500, 990])
    torch.testing.assert_close(noise.prediction_of(noisy, noise.clean(noisy, said, t), t), said, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("wrong", [["crack", "crack"], ["shared"], [""], ["a.b"]])
def test_adapters_need_names(wrong: list[str]) -> None:
    with pytest.raises(ValueError, match="each name once"):
        Settings(adapters=wrong)


def test_a_saliency_network_named_after_loading_is_used(backbone: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """Only sampling reads it: generate loads the weights with the settings they were saved with, then sets today's."""
    plugin, asked = variant(smallest=0.0, largest=1.0), ask(backbone, 2)
    generator = shaken(plugin(backbone, plugin.Settings()))
    generator.save(tmp_path)
    loaded = plugin.load(tmp_path, backbone)
    before = loaded.sample(asked, [1, 2], steps=2, guidance=1.0).mask

    class Upper:
        def __init__(self, path: str) -> None:
            assert path == "upper.onnx"

        def __call__(self, image: Tensor) -> Tensor:
            seen = torch.zeros_like(image[:, :1])
            seen[:, :, : image.shape[2] // 2] = 1
            return seen

    monkeypatch.setattr("flawsmith.generators.dual_branch.Saliency", Upper)
    loaded.settings = loaded.settings.model_copy(update={"saliency": "upper.onnx"})
    after = loaded.sample(asked, [1, 2], steps=2, guidance=1.0).mask
    half = before.shape[2] // 2
    assert before[:, :, half:].any() and not after[:, :, half:].any() and after.any()
    monkeypatch.undo()
    loaded.settings = loaded.settings.model_copy(update={"saliency": "gone.onnx"})
    with pytest.raises(ConfigError, match="gone.onnx: no such file"):
        loaded.sample(asked, [1, 2], steps=2, guidance=1.0)
    loaded.save(tmp_path)
    assert plugin.load(tmp_path, backbone).settings.saliency == "gone.onnx", "weights load though the file has gone"


@pytest.mark.parametrize("settings", [{}, {"bcm": "scaled", "adapters": ["crack"]}], ids=["merged", "background"])
def test_what_is_heard_is_the_attention_of_the_damage_alone(backbone, monkeypatch, settings):
    generator, asked = shaken(DualBranch(backbone, Settings(**settings))), ask(backbone, 1)
    shares = []

    def recorded(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if key.shape[2] != query.shape[2] and len(query) > 1:  # text of both branches; BCM's background has one row
            scores = query[-1].float() @ key[-1].float().mT / query.shape[-1] ** 0.5
            shares.append(scores.softmax(-1).mean(0))
        return attend(query, key, value)

    monkeypatch.setattr(branches, "attend", recorded)
    maps = AttentionMaps(generator.attention("crack", "tile")[0].unet)
    with maps.listening():
        generator.sample(asked, [3], steps=2, guidance=2.0)
    size = tuple(side // backbone.factor for side in asked.mask.shape[-2:])
    heard, places = maps.take(size), {len(one) for one in shares}
    assert heard is not None and len(places) == 1, "this network reads text at one size alone"
    coarse = torch.stack(shares).mean(0).T.unflatten(1, [side // 2 for side in size])
    expected = torch.nn.functional.interpolate(coarse[None], size, mode="bicubic", align_corners=False)[0].clamp(0, 1)
    assert torch.allclose(heard, expected, atol=1e-4)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_a_row_of_the_papers_background_does_not_depend_on_its_neighbours(backbone: Any, guidance: float) -> None:
    """Memory that runs out halves a batch, and its rows must stay as they are."""
    generator = shaken(DualBranch(backbone, Settings(bcm="paper", out="whole")))
    with torch.no_grad():
        for layer in generator.unet.branches.bcms.values():
            layer.share.fill_(0.5)
    asked = ask(backbone, 2)
    together, apart = (in_portions(generator, asked, [3, 4], size, 2, guidance).image for size in (0, 1))
    torch.testing.assert_close(together, apart, rtol=1e-3, atol=1e-3)


def test_the_threshold_is_learned_in_the_windows_that_memory_has_room_for(
    backbone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, rows, learned = DualBranch(backbone, Settings()).encode(example_batch(backbone.size)), set[int](), []
    real = DualUNet.denoised

    def spied(self: Any, predict: Any, seeds: Any, *given: Any, **named: Any) -> Any:
        rows.add(len(seeds))
        return real(self, predict, seeds, *given, **named)

    monkeypatch.setattr(DualUNet, "denoised", spied)
    for windows in (0, 1):
        generator, _ = DualBranch(backbone, Settings()), rows.clear()
        generator.windows_at_once = windows
        list(generator.calibrate(seen))
        learned.append((float(generator.mask_threshold.cell), float(generator.mask_threshold.pixel)))
        assert rows == ({1} if windows else {len(seen)})
    assert learned[0] == pytest.approx(learned[1], rel=1e-3)
