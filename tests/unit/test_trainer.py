"""nn/trainer.py: resumed = uninterrupted to the last bit, and every other promise of the only training loop."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_trainer import STEPS, small_network, small_trainer
from torch import Tensor, nn

from flawsmith.errors import RunError
from flawsmith.nn.trainer import LossScale, Trainer
from flawsmith.nn.weights import load_tensors, save_tensors, tensor_hash


def whole(**told: Any) -> tuple[str, list[float]]:
    network = small_network()
    fit = small_trainer(network, **told)
    assert [step.index for step in fit.run()] == list(range(STEPS))
    return tensor_hash(network.state_dict()), fit.losses


@pytest.fixture(scope="module")
def reference() -> tuple[str, list[float]]:
    return whole()


# ---- resume -------------------------------------------------------------------------------------


@pytest.mark.parametrize("killed_after", [1, 2, 5, 11, 12])
@pytest.mark.parametrize("save_every", [1, 3])
def test_resumed_equals_uninterrupted(tmp_path: Path, reference, killed_after: int, save_every: int):
    state = tmp_path / "deep" / "checkpoint.safetensors"
    walk = small_trainer(small_network(), state, save_every=save_every).run()
    for _ in range(killed_after):
        next(walk)
    del walk
    torch.rand(7)  # another process has another global stream
    network = small_network(seed=99)
    fit = small_trainer(network, state, save_every=save_every)
    steps = list(fit.run())
    first = STEPS if killed_after == STEPS else killed_after // save_every * save_every
    assert [step.index for step in steps] == list(range(first, STEPS))
    if first == 0:  # nothing was saved yet: the start decides, and ours was another
        return
    assert (tensor_hash(network.state_dict()), fit.losses) == reference


def test_killed_again_and_again(tmp_path: Path, reference):
    state, seen = tmp_path / "c", 0
    while seen < STEPS:
        network = small_network(seed=seen)
        if seen == 0:
            network = small_network()
        fit = small_trainer(network, state)
        for step in fit.run():
            seen = step.index + 1
            if seen % 5 == 0:
                break
    assert (tensor_hash(network.state_dict()), fit.losses) == reference


def test_a_finished_training_is_read_back_without_a_step(tmp_path: Path, reference):
    list(small_trainer(small_network(), tmp_path / "c").run())
    stamp = (tmp_path / "c").read_bytes()
    network = small_network(seed=5)
    fit = small_trainer(network, tmp_path / "c")
    assert list(fit.run()) == []
    assert (tensor_hash(network.state_dict()), fit.losses) == reference
    assert not network.training and (tmp_path / "c").read_bytes() == stamp


def test_a_checkpoint_does_not_change_the_result(tmp_path: Path, reference):
    assert whole(state=tmp_path / "c") == reference
    assert whole() == reference


def test_channels_last_weights_resume_too(tmp_path: Path):
    def start(seed: int) -> nn.Module:
        return small_network(seed).to(memory_format=torch.channels_last)

    first = start(0)
    list(small_trainer(first).run())
    walk = small_trainer(start(0), tmp_path / "c").run()
    for _ in range(4):
        next(walk)
    second = start(1)
    list(small_trainer(second, tmp_path / "c").run())
    assert tensor_hash(first.state_dict()) == tensor_hash(second.state_dict())


# ---- float16 ------------------------------------------------------------------------------------


def steep_trainer(network: nn.Module, state: Path | None = None, **changes: Any) -> Trainer:
    """Train in float16 on a loss whose gradient is too large for it at first, and within it when halved often."""

    def loss_of(step: int, rng: torch.Generator) -> Tensor:
        x = torch.randn(3, 2, 6, 6, generator=rng)
        return 40 * (network(x).float() - x.flip(-1)).square().flatten(1).mean(1)

    options: dict[str, Any] = {"steps": STEPS, "learning_rate": 1e-2, "average": 0.9, "save_every": 1, "seed": 3}
    return Trainer({"net": network}, loss_of, state=state, autocast=torch.float16, **{**options, **changes})


def test_float16_learns_what_float32_does(reference):
    _, losses = whole(autocast=torch.float16, learning_rate=1e-3)
    _, wanted = whole(learning_rate=1e-3)
    assert np.allclose(losses, wanted, rtol=0.02)
    assert losses != wanted


def test_float16_leaves_out_steps_that_overflow_and_halves_the_scale():
    network = small_network()
    scales, hashes = [2.0**16], [tensor_hash(network.state_dict())]
    fit = steep_trainer(network, average=0)
    for _ in fit.run():
        scales.append(fit._scale.value)
        hashes.append(tensor_hash(network.state_dict()))
    lowered = [later < former for former, later in pairwise(scales)]
    assert 0 < sum(lowered) < STEPS
    assert lowered == [later == former for former, later in pairwise(hashes)]
    assert fit.losses[-1] < fit.losses[0]


def test_float16_resumes_with_its_scale(tmp_path: Path):
    first = small_network()
    wanted = steep_trainer(first)
    list(wanted.run())
    for killed_after in (1, 4, 9):
        state = tmp_path / str(killed_after)
        walk = steep_trainer(small_network(), state).run()
        for _ in range(killed_after):
            next(walk)
        del walk
        second = small_network(seed=5)
        fit = steep_trainer(second, state)
        list(fit.run())
        assert (tensor_hash(second.state_dict()), fit.losses) == (tensor_hash(first.state_dict()), wanted.losses)


def test_float16_gradients_that_no_scale_mends_are_refused():
    network = small_network()

    def loss_of(step: int, rng: torch.Generator) -> Tensor:
        value = network(torch.zeros(1, 2, 6, 6)).float().square().sum()
        return (value * 0 + value.sub(value.detach()).clamp(min=0).sqrt()).reshape(1)  # finite, with a gradient of NaN

    fit = Trainer({"net": network}, loss_of, steps=60, learning_rate=1e-2, autocast=torch.float16, name="crack")
    with pytest.raises(RunError, match=r"crack diverged at step 26 \(gradient nan\)"):
        list(fit.run())


def test_the_scale_grows_again_after_enough_good_steps():
    scale = LossScale(True)
    assert scale.lowered()
    assert scale.value == 2.0**15
    for _ in range(LossScale._PATIENCE):
        scale.went_well()
    assert (scale.value, scale.quiet) == (2.0**16, 0)
    assert not LossScale(False).lowered()


def test_bfloat16_autocast_resumes_too(tmp_path: Path):
    first = small_network()
    wanted = small_trainer(first, autocast=torch.bfloat16)
    list(wanted.run())
    assert next(first.parameters()).dtype == torch.float32
    walk = small_trainer(small_network(), tmp_path / "c", autocast=torch.bfloat16).run()
    for _ in range(7):
        next(walk)
    second = small_network(4)
    fit = small_trainer(second, tmp_path / "c", autocast=torch.bfloat16)
    list(fit.run())
    assert tensor_hash(first.state_dict()) == tensor_hash(second.state_dict()) and fit.losses == wanted.losses
    assert wanted.losses != whole()[1]


def test_another_identity_is_not_resumed(tmp_path: Path, reference):
    walk = small_trainer(small_network(seed=7), tmp_path / "c", identity="mine").run()
    for _ in range(4):
        next(walk)
    network = small_network()
    fit = small_trainer(network, tmp_path / "c", identity="yours")
    assert [step.index for step in fit.run()] == list(range(STEPS))
    assert (tensor_hash(network.state_dict()), fit.losses) == reference
    assert load_tensors(tmp_path / "c")[1]["identity"] == "yours"


def test_another_network_of_the_same_identity_is_not_resumed(tmp_path: Path):
    list(small_trainer(small_network(), tmp_path / "c").run())
    other = nn.Linear(2, 2)
    fit = Trainer(
        {"other": other},
        lambda step, rng: other(torch.randn(3, 2, generator=rng)).square().mean(1),
        steps=2,
        learning_rate=1e-3,
        state=tmp_path / "c",
    )
    assert len(list(fit.run())) == 2


@pytest.mark.parametrize("keep", [0, 5, 300, -3])
def test_a_torn_checkpoint_is_one_clear_sentence(tmp_path: Path, keep: int):
    state = tmp_path / "checkpoint.safetensors"
    list(small_trainer(small_network(), state).run())
    state.write_bytes(state.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"checkpoint\.safetensors: not a readable safetensors file"):
        list(small_trainer(small_network(), state).run())


def test_a_checkpoint_of_other_shapes_or_without_moments_is_one_clear_sentence(tmp_path: Path):
    state = tmp_path / "checkpoint.safetensors"
    list(small_trainer(small_network(), state).run())
    tensors, notes = load_tensors(state)
    narrow = {k: v[:3] if k.endswith("0.bias") else v for k, v in tensors.items()}
    for broken in (narrow, {k: v for k, v in tensors.items() if not k.startswith("second/")}):
        save_tensors(state, broken, notes)
        with pytest.raises(RunError, match=r"checkpoint\.safetensors.*delete it"):
            list(small_trainer(small_network(), state).run())


def test_a_checkpoint_is_never_half_there(tmp_path: Path):
    for step in small_trainer(small_network(), tmp_path / "c", save_every=5).run():
        assert step.saved == (step.index in (4, 9, 11))
        if step.saved:
            assert load_tensors(tmp_path / "c")[1]["done"] == str(step.index + 1)
        assert [p.name for p in tmp_path.iterdir()] in ([], ["c"])


# ---- what is trained ----------------------------------------------------------------------------


def test_the_loss_falls(reference):
    assert reference[1][-1] < 0.9 * reference[1][0] and len(reference[1]) == STEPS


def test_frozen_parameters_stay(tmp_path: Path):
    network = small_network()
    network[0].requires_grad_(False)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    list(small_trainer(network, tmp_path / "c").run())
    after = network.state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved == {"2.weight", "2.bias", "3.weight", "3.bias"}
    assert not any("net.0." in name for name in load_tensors(tmp_path / "c")[0])


@pytest.mark.parametrize("reached_from", [STEPS, 3])
def test_a_parameter_that_the_loss_reaches_late_or_never(tmp_path: Path, reached_from: int):
    def start(seed: int, state: Path | None) -> tuple[nn.ParameterDict, Trainer]:
        torch.manual_seed(seed)
        part = nn.ParameterDict({"used": torch.randn(4), "idle": torch.randn(4)})

        def loss_of(step: int, rng: torch.Generator) -> Tensor:
            x = torch.randn(3, 4, generator=rng)
            said = x * part["used"] + (x.square() * part["idle"] if step >= reached_from else 0)
            return (said - x.flip(1)).square().mean(1)

        return part, Trainer(
            {"p": part}, loss_of, steps=STEPS, learning_rate=1e-2, average=0.9, state=state, save_every=1
        )

    first, fit = start(0, None)
    idle = first["idle"].detach().clone()
    list(fit.run())
    assert torch.equal(first["idle"], idle) == (reached_from == STEPS)
    walk = start(0, tmp_path / "c")[1].run()
    for _ in range(5):
        next(walk)
    second, fit = start(1, tmp_path / "c")
    list(fit.run())
    assert tensor_hash(first.state_dict()) == tensor_hash(second.state_dict())


def test_nothing_to_train_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        small_trainer(small_network().requires_grad_(False))


def test_the_average_is_in_place_at_the_end():
    network = small_network()
    shadow = {k: v.detach().clone() for k, v in network.named_parameters()}
    fit = small_trainer(network, average=0.5)
    for step in fit.run():
        decay = min(0.5, (1 + step.index) / (10 + step.index))
        for name, value in network.named_parameters():
            shadow[name] = decay * shadow[name] + (1 - decay) * value.detach()
        last = {k: v.detach().clone() for k, v in network.named_parameters()}
    for name, value in network.named_parameters():
        torch.testing.assert_close(value, shadow[name])
        assert not torch.equal(value, last[name])


def test_without_average_the_last_weights_stay():
    network = small_network()
    for _ in small_trainer(network, average=0.0).run():
        last = tensor_hash(network.state_dict())
    assert tensor_hash(network.state_dict()) == last


def test_networks_are_in_training_mode_inside_and_out_of_it_after():
    network = small_network().eval()
    assert all(network.training for _ in small_trainer(network).run()) and not network.training


def test_gradients_are_clipped_to_norm_one():
    network = nn.Linear(2, 1)
    fit = Trainer(
        {"n": network},
        lambda step, rng: 1e4 * network(torch.ones(2, 2)).flatten(),
        steps=1,
        learning_rate=1e-3,
    )
    (norm,) = (math.sqrt(sum(float(p.grad.square().sum()) for p in network.parameters())) for _ in fit.run())
    assert norm == pytest.approx(1, abs=1e-3)
    assert all(p.grad is None for p in network.parameters())  # they would lie in memory while pictures are painted


# ---- the schedule -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4, 19, 40, 100])
def test_the_learning_rate_warms_up_and_falls_to_a_tenth(steps: int):
    network = small_network()
    fit = small_trainer(network, steps=steps, learning_rate=2e-3)
    rates = []
    walk = fit.run()
    while True:
        rates.append(fit._optimiser.param_groups[0]["lr"])
        if next(walk, None) is None:
            break
    warm = max(1, steps // 20)
    for index, rate in enumerate(rates[:steps]):
        if index < warm:
            wanted = (index + 1) / warm
        else:
            wanted = 0.1 + 0.45 * (1 + math.cos(math.pi * (index - warm) / max(1, steps - warm)))
        assert rate == pytest.approx(2e-3 * wanted)
    assert max(rates) == pytest.approx(2e-3)
    if steps >= 40:
        assert rates[steps - 1] == pytest.approx(2e-4, rel=0.05)


def test_the_learning_rate_goes_on_where_it_was(tmp_path: Path):
    def rates(fit: Trainer, count: int) -> list[float]:
        found, walk = [], fit.run()
        for _ in range(count):
            next(walk)
            found.append(fit._optimiser.param_groups[0]["lr"])
        return found

    everything = rates(small_trainer(small_network()), STEPS)
    begun = rates(small_trainer(small_network(), tmp_path / "c"), 5)
    assert begun + rates(small_trainer(small_network(), tmp_path / "c"), STEPS - 5) == everything


# ---- the words ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_a_sentence_and_keeps_the_checkpoint(tmp_path: Path, bad: float):
    network = small_network()

    def loss_of(step: int, rng: torch.Generator) -> Tensor:
        loss = network(torch.randn(2, 2, 4, 4, generator=rng)).square().flatten(1).mean(1)
        return loss * bad if step == 3 else loss

    fit = Trainer({"net": network}, loss_of, steps=6, learning_rate=1e-3, state=tmp_path / "c", save_every=1)
    with pytest.raises(RunError, match=r"diverged at step 3 .*lower train\.learning_rate"):
        list(fit.run())
    assert load_tensors(tmp_path / "c")[1]["done"] == "3"
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_every_random_number_follows_from_seed_and_step():
    def draws(seed: int) -> list[float]:
        network, seen = small_network(), []

        def loss_of(step: int, rng: torch.Generator) -> Tensor:
            seen.append(float(torch.rand(1, generator=rng)))
            return network(torch.ones(1, 2, 4, 4)).square().flatten(1).mean(1)

        list(Trainer({"net": network}, loss_of, steps=5, learning_rate=1e-3, seed=seed).run())
        return seen

    assert draws(1) == draws(1) and not set(draws(1)) & set(draws(2)) and len(set(draws(1))) == 5


def test_the_global_stream_is_not_touched():
    network = small_network()
    torch.manual_seed(1)
    wanted = torch.rand(2)
    torch.manual_seed(1)
    list(small_trainer(network).run())
    assert torch.equal(torch.rand(2), wanted)


def test_a_step_tells_its_loss_and_time():
    for step in small_trainer(small_network()).run():
        assert step.loss > 0 and step.seconds > 0 and step.saved is False
