"""nn/methods: branches, saim, bcm and lora: the fast attention gives what the literal one gives, gradients included."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from flawsmith.nn.backbone import Backbone
from flawsmith.nn.methods.branches import Branches, Pass
from flawsmith.nn.methods.lora import LowRank, Rows, adapted_words
from flawsmith.nn.methods.saim import SAIM
from flawsmith.nn.weights import load_modules, save_modules

sys.path.insert(0, str(Path(__file__).parent))
from dual_literal import PARTS, Literal

PAIRS = 3


def randomise(module: torch.nn.Module, seed: int = 3, scale: float = 0.2) -> None:
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=rng)


class RowWise(torch.nn.Module):
    """Embeds timesteps one by one: it is done in float32, and vectorised sines differ with a row's place."""

    def __init__(self, embed: Any) -> None:
        super().__init__()
        self.embed = embed

    def forward(self, t: Tensor) -> Tensor:
        return torch.cat([self.embed(one[None]) for one in t])


def both(backbone: Backbone, **changes: Any) -> tuple[Backbone, Branches, Any, Literal]:
    """Return ours and the literal one, in float64, with the same random weights in every place."""
    own = backbone.fork()
    own.unet = copy.deepcopy(backbone.unet).double()
    own.unet.time_proj = RowWise(own.unet.time_proj)
    settings: dict[str, Any] = {"rank": 4, "saim": 0, "zero_start": False, "bcm": 0.3} | changes
    branches = Branches(own.unet, ["a/whole", "a/alone"], **settings)
    randomise(branches)
    branches.double()
    unet = copy.deepcopy(backbone.unet).double()
    unet.time_proj = RowWise(unet.time_proj)
    literal = Literal(unet, branches).double()
    for layer in literal.layers.values():
        if layer.has_saim:  # it cancels in ours, so there is none; here it is anything but zero
            torch.nn.init.normal_(layer.t_k.bias, generator=torch.Generator().manual_seed(9))
    return own, branches, unet, literal


def inputs(backbone: Backbone) -> tuple[Tensor, Tensor, Tensor]:
    """Return a noisy pair latent (2,PAIRS,C,8,8), timesteps (PAIRS,) and words (2,PAIRS,T,D)."""
    rng = torch.Generator().manual_seed(4)
    channels = backbone.unet.config.in_channels
    words = (2, PAIRS, backbone.text_encoder.models[0].config.max_position_embeddings, 32)
    latent, text = torch.randn(2, PAIRS, channels, 8, 8, generator=rng), torch.randn(words, generator=rng)
    precision = next(backbone.unet.parameters()).dtype
    return latent.to(precision), torch.tensor([10, 400, 900]), text.to(precision)


def ours(own: Backbone, branches: Branches, *, ground: bool, folded: bool = False) -> Tensor:
    latent, t, text = inputs(own)
    seen = None
    if ground:
        seen = {}
        with branches.passing(Pass(Rows.of([0] * PAIRS), saim=False, keep=seen), folded=folded):
            own.unet(latent[0] * 0.5, t, text[0])
    with branches.passing(Pass(Rows.of([0] * PAIRS + [1] * PAIRS), background=seen, text={}), folded=folded):
        return own.unet(latent.flatten(0, 1), torch.cat([t, t]), text.flatten(0, 1)).sample.unflatten(0, (2, PAIRS))


def theirs(own: Backbone, unet: Any, literal: Literal, *, ground: bool) -> Tensor:
    latent, t, text = inputs(own)
    if ground:
        literal.mode = "w"
        unet(latent[0] * 0.5, t, text[0])
    literal.mode = "r" if ground else "pair"
    paired = (x.transpose(0, 1).flatten(0, 1) for x in (latent, text))
    said = unet(next(paired), t.repeat_interleave(2), next(paired)).sample
    return said.unflatten(0, (PAIRS, 2)).transpose(0, 1)


@pytest.mark.parametrize("exchange", [0, 8, None], ids=["full", "narrow", "none"])
@pytest.mark.parametrize("ground", [False, True], ids=["pair", "background"])
def test_outputs_and_gradients_are_the_literal_ones(backbone: Backbone, exchange: int | None, ground: bool) -> None:
    own, branches, unet, literal = both(backbone, saim=exchange)
    said, told = ours(own, branches, ground=ground), theirs(own, unet, literal, ground=ground)
    torch.testing.assert_close(said, told, rtol=1e-6, atol=1e-8)
    goal = torch.randn(said.shape, generator=torch.Generator().manual_seed(5))
    (said - goal).square().mean().backward()
    (told - goal).square().mean().backward()
    compared = 0
    for name, layer in literal.layers.items():
        matching: list[tuple[Tensor | None, Tensor | None]] = []
        for part in PARTS:
            mine = getattr(branches.changes[name], part)
            for branch in (0, 1):
                matching.append((mine.down.grad[branch], layer.down[f"{part}{branch}"].grad))
                matching.append((mine.up.grad[branch], layer.up[f"{part}{branch}"].grad))
        if layer.has_saim:
            mine = branches.saims[name]
            pairs = zip(
                (mine.norm, mine.inner, mine.query, mine.value, mine.out),
                (layer.norm, layer.t_i, layer.t_q, layer.t_v, layer.t_o),
                strict=True,
            )
            matching += [
                (a.grad, b.grad) for x, y in pairs for a, b in zip(x.parameters(), y.parameters(), strict=True)
            ]
            matching.append((mine.key.weight.grad, layer.t_k.weight.grad))
            assert layer.t_k.bias.grad.abs().max() < 1e-6, "the key's bias should cancel"
        if layer.has_bcm and ground:
            mine = branches.bcms[name]
            matching.append((mine.share.grad, layer.a.grad))
            layers = zip((mine.inner, mine.outer), layer.mlp, strict=True)
            matching += [
                (a.grad, b.grad) for x, y in layers for a, b in zip(x.parameters(), y.parameters(), strict=True)
            ]
        for mine_grad, literal_grad in matching:
            assert mine_grad is not None and literal_grad is not None
            torch.testing.assert_close(mine_grad, literal_grad, rtol=1e-5, atol=1e-9, msg=name)
            compared += 1
        assert any(float(grad.abs().max()) > 1e-5 for grad, _ in matching if grad is not None), name
    assert compared >= 16 * len(literal.layers)


@pytest.mark.parametrize("exchange", [0, 8, None], ids=["full", "narrow", "none"])
def test_folded_and_merged_say_the_same(backbone: Backbone, exchange: int | None) -> None:
    own, branches, *_ = both(backbone, saim=exchange)
    with torch.no_grad():
        plain = ours(own, branches, ground=True)
        for merge in (False, True):
            branches.fold(torch.float64, merge=merge)
            assert bool(branches._folded[2]) == merge
            torch.testing.assert_close(ours(own, branches, ground=True, folded=True), plain, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rank", [0, 5], ids=["full", "narrow"])
@torch.no_grad()
def test_the_fold_is_exact(rank: int) -> None:
    """To 1e-5 in float32 against attention over two tokens, written out."""
    torch.manual_seed(1)
    saim = SAIM(24, rank, zero_start=False)
    randomise(saim, scale=0.1)
    hidden = torch.randn(6, 10, 24)
    normed = layer_norm(hidden, (24,), saim.norm.weight, saim.norm.bias, 1e-6)
    x = saim.inner(normed).unflatten(0, (2, 3)).permute(1, 2, 0, 3)  # pairs, positions, 2, width
    q, k, v = saim.query(x), saim.key(x) + torch.randn(x.shape[-1]), saim.value(x)
    weights = (q @ k.mT / x.shape[-1] ** 0.5).softmax(-1)
    expected = hidden + saim.out(weights @ v).permute(2, 0, 1, 3).flatten(0, 1)
    folded = saim.folded()
    assert folded.gate.shape == ((5, 5) if rank else (24, 24)) and (folded.down is None) == (rank == 0)
    assert float((folded(hidden) - expected).abs().max()) < 1e-5
    assert float((expected - hidden).abs().max()) > 0.1, "the exchange does nothing here: nothing was tested"


def test_zero_start_is_no_exchange(backbone: Backbone) -> None:
    said = {}
    for exchange in (8, None):
        own = backbone.fork()
        branches = Branches(own.unet, ["x", "y"], rank=2, saim=exchange, zero_start=True, bcm=None)
        said[exchange] = ours(own, branches, ground=False).detach()
    latent, t, text = inputs(backbone)
    plain = backbone.unet(latent.flatten(0, 1), torch.cat([t, t]), text.flatten(0, 1)).sample.unflatten(0, (2, PAIRS))
    assert torch.equal(said[8], said[None])
    torch.testing.assert_close(said[8], plain, rtol=1e-4, atol=1e-5)


def test_the_branches_hear_each_other(backbone: Backbone) -> None:
    """With SAIM a change of the damage's row changes the picture's; without it, it does not."""
    for exchange in (8, None):
        own, branches, *_ = both(backbone, saim=exchange)
        latent, t, text = inputs(own)
        other = latent.clone()
        other[1] += 1
        with torch.no_grad(), branches.passing(Pass(Rows.of([0] * PAIRS + [1] * PAIRS))):
            first, second = (
                own.unet(x.flatten(0, 1), torch.cat([t, t]), text.flatten(0, 1)).sample[:PAIRS] for x in (latent, other)
            )
        moved = float((first - second).abs().max())
        assert moved > 1e-3 if exchange else moved < 1e-9


def test_rows_of_many_adapters(backbone: Backbone) -> None:
    """Rows with adapters in any order get what each would get alone."""
    torch.manual_seed(0)
    layer = LowRank(6, 5, 2, ["a", "b", "c"])
    randomise(layer)
    x = torch.randn(6, 4, 6)
    for adapters in ([0] * 6, [0, 0, 0, 1, 1, 1], [2, 0, 1, 1, 0, 2], [1, 1, 2, 2, 0, 0]):
        said = layer(x, Rows.of(adapters))
        for row, number in enumerate(adapters):
            torch.testing.assert_close(said[row], x[row] @ layer.down[number].T @ layer.up[number].T)
    assert Rows.of([1, 1, 2, 2]).runs == (1, 2) and Rows.of([1, 1, 2]).runs == (1, 1, 2)


def test_adapters_lie_on_disk_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    layer = torch.nn.ModuleDict({"x": LowRank(6, 5, 2, ["shared/whole", "crack/whole"])})
    randomise(layer)
    assert sorted(layer.state_dict()) == [
        f"x.{name}.{part}" for name in ("crack/whole", "shared/whole") for part in ("down", "up")
    ]
    save_modules(tmp_path, {"adapters": layer}, {})
    # The order of the names in memory is another: they are found by name.
    other = torch.nn.ModuleDict({"x": LowRank(6, 5, 2, ["crack/whole", "shared/whole"])})
    load_modules(tmp_path, {"adapters": other})
    assert torch.equal(other["x"].down[0], layer["x"].down[1]) and torch.equal(other["x"].up[1], layer["x"].up[0])


def test_words_are_adapted_on_shared_storage(backbone: Backbone) -> None:
    twin, changes = adapted_words(backbone.text_encoder.models[0], 2)
    ids = backbone.tokens(["a crack", "a hole"])
    plain = backbone.text_encoder.models[0](ids).last_hidden_state
    assert torch.equal(twin(ids).last_hidden_state, plain), "adapters that are zero change nothing"
    assert len(changes) == 4 * backbone.text_encoder.models[0].config.num_hidden_layers
    storages = {p.data_ptr() for p in backbone.text_encoder.models[0].parameters()}
    assert {p.data_ptr() for p in twin.parameters()} == storages
    randomise(changes)
    said = twin(ids).last_hidden_state
    assert float((said - plain).detach().abs().max()) > 1e-2
    said.sum().backward()
    assert all(p.grad is not None for p in changes.parameters())
    assert torch.equal(backbone.text_encoder.models[0](ids).last_hidden_state, plain)


def test_the_global_stream_stays_and_weights_repeat(make_backbone: Callable[..., Any], backbone: Backbone) -> None:
    before = torch.get_rng_state()
    made = [Branches(backbone.fork().unet, ["x", "y"], rank=2, saim=4, zero_start=False, bcm=0.1) for _ in range(2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in made), strict=True))
