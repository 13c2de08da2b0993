"""nn/diffusion.py against diffusers' own arithmetic, and THE denoising loop against a plain one."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    TCDScheduler,
    UniPCMultistepScheduler,
)
from torch import Tensor

from flawsmith.errors import BackboneError
from flawsmith.nn import builtin
from flawsmith.nn.diffusion import Noise, Sampler, denoise, guidance_embedding, guided, stacked_noise, weighted_loss

BETAS = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
SCHEDULES = {
    "epsilon": {**BETAS, "prediction_type": "epsilon"},
    "v_prediction": {**BETAS, "prediction_type": "v_prediction"},
    "sample": {**BETAS, "prediction_type": "sample"},
    "zero terminal snr": {**BETAS, "prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
}
SHAPE = (2, 5, 6)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=SCHEDULES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(SCHEDULES[request.param])


def mixer(latent: Tensor, t: Tensor) -> Tensor:
    """A stand-in for a network: smooth, non-linear, different at every time, row by row."""
    return 0.7 * torch.tanh(latent.roll(1, dims=-1) + t.view(-1, 1, 1, 1) / 700) - 0.2 * latent


# ---- the schedule -------------------------------------------------------------------------------


def test_noise_is_added_as_diffusers_does(config):
    ours, theirs = Noise(config), DDIMScheduler(**config)
    latent, fresh, t = normal(4, *SHAPE), normal(4, *SHAPE, seed=1), torch.tensor([0, 1, 500, 999])
    torch.testing.assert_close(ours.add(latent, fresh, t), theirs.add_noise(latent, fresh, t), rtol=1e-6, atol=1e-6)
    assert len(ours) == 1000 and ours.target == config["prediction_type"]


def test_truth_is_what_diffusers_trains_on(config):
    ours, theirs = Noise(config), DDIMScheduler(**config)
    latent, fresh, t = normal(4, *SHAPE), normal(4, *SHAPE, seed=1), torch.tensor([0, 1, 500, 999])
    wanted = {"epsilon": fresh, "sample": latent, "v_prediction": theirs.get_velocity(latent, fresh, t)}
    torch.testing.assert_close(ours.target_of(latent, fresh, t), wanted[ours.target], rtol=1e-6, atol=1e-6)


def test_clean_undoes_add_and_agrees_with_diffusers(config):
    ours, theirs = Noise(config), DDIMScheduler(**config, clip_sample=False)
    theirs.set_timesteps(10)
    latent, fresh = normal(1, *SHAPE), normal(1, *SHAPE, seed=1)
    for step in (1, 400, 900):
        t = torch.tensor([step])
        noisy = ours.add(latent, fresh, t)
        found = ours.clean(noisy, ours.target_of(latent, fresh, t), t)
        torch.testing.assert_close(found, latent, rtol=1e-3, atol=1e-4)
        said = mixer(noisy, t)
        origin = theirs.step(said, step, noisy).pred_original_sample
        torch.testing.assert_close(ours.clean(noisy, said, t), origin, rtol=1e-4, atol=1e-4)


def test_zero_terminal_snr_ends_in_pure_noise_and_is_still_clean():
    noise = Noise(SCHEDULES["zero terminal snr"])
    latent, fresh, last = normal(1, *SHAPE), normal(1, *SHAPE, seed=1), torch.tensor([999])
    torch.testing.assert_close(noise.add(latent, fresh, last), fresh, atol=1e-5, rtol=0)
    torch.testing.assert_close(noise.target_of(latent, fresh, last), -latent, atol=1e-5, rtol=0)
    torch.testing.assert_close(noise.clean(fresh, -latent, last), latent, atol=1e-5, rtol=0)
    plain = Noise(SCHEDULES["v_prediction"])
    assert plain.alphas[-1] > 1e-3 > noise.alphas[-1] >= 0


def test_levels_are_float32_and_one_a_row():
    noise = Noise(SCHEDULES["epsilon"])
    rows = noise.add(torch.ones(3, 1, 1, 1), torch.zeros(3, 1, 1, 1), torch.tensor([0, 500, 999])).flatten()
    assert rows.dtype == torch.float32 and rows[0] > rows[1] > rows[2] > 0


def test_epsilon_at_a_vanishing_signal_stays_finite():
    noise = Noise({**SCHEDULES["epsilon"], "rescale_betas_zero_snr": True})
    assert torch.isfinite(noise.clean(normal(1, *SHAPE), normal(1, *SHAPE, seed=2), torch.tensor([999]))).all()


# ---- the loop -----------------------------------------------------------------------------------


def plain_loop(defect: str, config: dict[str, Any], latent: Tensor, steps: int, skip: int = 0) -> Tensor:
    named: dict[str, Any] = {"timestep_spacing": "trailing"}
    if defect == "ddim":
        scheduler: Any = DDIMScheduler(**config, **named, clip_sample=False)
    elif defect == "dpm":
        scheduler = DPMSolverMultistepScheduler(**config, **named, algorithm_type="dpmsolver++")
    else:
        scheduler = {"euler": EulerDiscreteScheduler, "unipc": UniPCMultistepScheduler}[defect](**config, **named)
    scheduler.set_timesteps(steps)
    if defect != "ddim":
        scheduler.set_begin_index(skip)
    if defect == "euler":  # its latents grow with the noise
        latent = latent * (scheduler.sigmas[skip] ** 2 + 1) ** 0.5
    for t in scheduler.timesteps[skip:]:
        seen = scheduler.scale_model_input(latent, t)
        latent = scheduler.step(mixer(seen, t.repeat(len(latent))), t, latent).prev_sample
    return latent


@pytest.mark.parametrize("defect", ["ddim", "dpm", "euler", "unipc"])
def test_denoise_equals_a_plain_loop(defect, config):
    seeds = [3, 9]
    made = denoise(mixer, Noise(config), seeds, SHAPE, steps=7, sampler=defect)
    wanted = plain_loop(defect, config, stacked_noise(seeds, SHAPE), 7)
    assert made.dtype == torch.float32 and made.shape == (2, *SHAPE)
    torch.testing.assert_close(made, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("defect", "plugin"), [("lcm", LCMScheduler), ("tcd", TCDScheduler)])
def test_a_distilled_sampler_draws_each_rows_noise_from_its_seed(defect, plugin, config):
    seeds = [3, 9]
    scheduler = plugin(**config, clip_sample=False)
    scheduler.set_timesteps(4)
    drawn, latent = [stacked_noise(seeds, (4, *SHAPE), stream=1)], stacked_noise(seeds, SHAPE)
    assert drawn[0].shape[1] == len(scheduler.timesteps)
    streams = [torch.Generator().manual_seed((seed * 1_000_003 + 7919) % (2**63 - 1)) for seed in seeds]
    for t in scheduler.timesteps:
        latent = scheduler.step(mixer(latent, t.repeat(2)), t, latent, generator=streams).prev_sample
    made = denoise(mixer, Noise(config), seeds, SHAPE, steps=4, sampler=defect)
    torch.testing.assert_close(made, latent, rtol=1e-5, atol=1e-5)
    alone = denoise(mixer, Noise(config), seeds[1:], SHAPE, steps=4, sampler=defect)
    torch.testing.assert_close(alone[0], made[1], rtol=1e-5, atol=1e-5)
    assert denoise(mixer, Noise(config), seeds, SHAPE, steps=60, sampler=defect).isfinite().all()


def test_a_models_own_solver_settings_are_left_out():
    """A configuration saved with Karras' noise levels says how somebody sampled, not what the model is."""
    plain = Noise(SCHEDULES["epsilon"])
    karras = Noise(
        SCHEDULES["epsilon"]
        | {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"}
    )
    for sampler in get_args(Sampler):
        made = [denoise(mixer, one, [1], SHAPE, steps=4, sampler=sampler) for one in (plain, karras)]
        assert torch.equal(*made)


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "FlowMatchEulerDiscreteScheduler is not supported: it is flow",
        ),
        (
            {"_class_name": "EDMDPMSolverMultistepScheduler"},
            "EDMDPMSolverMultistepScheduler is not supported: it is EDM",
        ),
        ({"_class_name": "VQDiffusionScheduler"}, "VQDiffusionScheduler is not supported: it is another kind"),
        ({"prediction_type": "flow_prediction"}, "prediction_type 'flow_prediction' is not supported; known: epsilon"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule 'sigmoid' is not supported; known: linear"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "'continuous' is not supported"),
    ],
)
def test_a_schedule_of_another_kind_is_refused_by_name(stated, sentence):
    with pytest.raises(BackboneError, match=sentence):
        Noise(BETAS | stated)


def test_what_a_configuration_leaves_out_is_its_own_class_default():
    """LCM's betas are scaled_linear where it states none, DDIM's are linear."""
    torch.testing.assert_close(
        Noise({"_class_name": "LCMScheduler"}).alphas, LCMScheduler().alphas_cumprod, rtol=1e-6, atol=0
    )
    torch.testing.assert_close(Noise({}).alphas, DDIMScheduler().alphas_cumprod, rtol=1e-6, atol=0)


def test_ddim_equals_its_formula():
    config = SCHEDULES["v_prediction"]
    alphas = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    latent = stacked_noise([4], SHAPE).double()
    times = [999, 799, 599, 399, 199]
    for t, to in zip(times, [*times[1:], None], strict=True):
        a, b = alphas[t], 1.0 if to is None else alphas[to]
        said = mixer(latent, torch.tensor([t]))
        origin, fresh = a**0.5 * latent - (1 - a) ** 0.5 * said, a**0.5 * said + (1 - a) ** 0.5 * latent
        latent = b**0.5 * origin + (1 - b) ** 0.5 * fresh
    made = denoise(mixer, Noise(config), [4], SHAPE, steps=5, sampler="ddim")
    torch.testing.assert_close(made.double(), latent, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("defect", get_args(Sampler))
@pytest.mark.parametrize("name", ["epsilon", "v_prediction", "sample", "zero terminal snr"])
def test_a_network_that_knows_the_answer_reaches_it(defect, name):
    noise, answer = Noise(SCHEDULES[name]), normal(2, *SHAPE, seed=8)

    def oracle(latent: Tensor, t: Tensor) -> Tensor:
        alpha = noise.alphas[t].view(-1, 1, 1, 1)
        fresh = (latent - alpha.sqrt() * answer) / (1 - alpha).sqrt()
        return noise.target_of(answer, fresh, t)

    # Five steps divide the schedule: otherwise diffusers' DDIM, for which the step before is t - 1000 // steps, may
    # stop at t = 0 instead of at the clean latent.
    made = denoise(oracle, noise, [0, 1], SHAPE, steps=5, sampler=defect)
    # TCD's last step ends at t = 0, where a little noise is left (Zheng et al. 2024, algorithm 1).
    torch.testing.assert_close(made, answer, rtol=1e-3, atol=0.12 if defect == "tcd" else 1e-3)


def test_every_step_begins_with_the_noisiest_time():
    seen: list[int] = []
    denoise(lambda x, t: seen.append(int(t[0])) or mixer(x, t), Noise(SCHEDULES["epsilon"]), [0], SHAPE, steps=4)
    assert seen == [999, 749, 499, 249]


def test_an_unknown_solver_state_is_never_shared_between_calls():
    noise = Noise(SCHEDULES["v_prediction"])
    first = denoise(mixer, noise, [1], SHAPE, steps=5)
    denoise(mixer, noise, [2], SHAPE, steps=3, sampler="ddim")
    assert torch.equal(first, denoise(mixer, noise, [1], SHAPE, steps=5))


# ---- a start ------------------------------------------------------------------------------------


def test_full_strength_forgets_the_start():
    noise, start = Noise(SCHEDULES["v_prediction"]), normal(2, *SHAPE, seed=5)
    pure = denoise(mixer, noise, [1, 2], SHAPE, steps=5)
    assert torch.equal(pure, denoise(mixer, noise, [1, 2], SHAPE, steps=5, start=start, strength=1.0))


def test_no_strength_returns_the_start_without_asking_the_network():
    noise, start = Noise(SCHEDULES["v_prediction"]), normal(1, *SHAPE, seed=5)

    def forbidden(latent: Tensor, t: Tensor) -> Tensor:
        raise AssertionError("asked")

    assert torch.equal(denoise(forbidden, noise, [1], SHAPE, steps=10, start=start, strength=0.0), start)


def walked_times(noise: Noise, start: Tensor, steps: int, strength: float) -> list[int]:
    times: list[int] = []

    def network(x: Tensor, t: Tensor) -> Tensor:
        times.append(int(t[0]))
        return mixer(x, t)

    denoise(network, noise, [1], SHAPE, steps=steps, start=start, strength=strength)
    return times


@pytest.mark.parametrize("strength, walked", [(0.05, 1), (0.3, 3), (0.45, 4), (0.5, 5), (0.94, 9), (0.96, 10)])
def test_strength_walks_the_last_steps_only(strength, walked):
    noise, start = Noise(SCHEDULES["v_prediction"]), normal(1, *SHAPE, seed=5)
    steps = 20 if strength == 0.05 else 10
    times = walked_times(noise, start, steps, strength)
    assert times == [int(t) for t in noise.sampler("dpm", steps).timesteps[-walked:]]


@pytest.mark.parametrize("defect", ["ddim", "dpm", "euler", "unipc"])
def test_a_start_is_noised_and_walked_as_a_plain_loop_would(defect, config):
    noise, start, seeds = Noise(config), normal(2, *SHAPE, seed=5), [7, 8]
    made = denoise(mixer, noise, seeds, SHAPE, steps=8, sampler=defect, start=start, strength=0.5)
    first = noise.sampler(defect, 8).timesteps[4]
    noisy = DDIMScheduler(**config).add_noise(start, stacked_noise(seeds, SHAPE), first.repeat(2))
    torch.testing.assert_close(made, plain_loop(defect, config, noisy, 8, skip=4), rtol=1e-5, atol=1e-5)


def test_a_small_strength_takes_one_step_from_its_own_noise():
    noise, start = Noise(SCHEDULES["v_prediction"]), normal(1, *SHAPE, seed=5)
    for strength, steps, begun in ((0.1, 4, 99), (0.04, 10, 39), (1e-6, 10, 0)):
        times = walked_times(noise, start, steps, strength)
        assert times == [begun], (strength, times)


def test_less_strength_stays_nearer_to_the_start():
    noise, start = Noise(SCHEDULES["zero terminal snr"]), normal(1, *SHAPE, seed=5)
    far = [
        float((denoise(mixer, noise, [3], SHAPE, steps=20, start=start, strength=s) - start).square().mean())
        for s in (0.05, 0.3, 0.6, 1.0)
    ]
    assert far[0] < 0.1 < far[1] < far[2] < far[3]


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_every_number_of_steps_has_as_many_times(sampler):
    """From the noisiest time down, none below zero: rounding makes "trailing" times one too many for 61, 103, 121."""
    noise = Noise(SCHEDULES["epsilon"])
    for steps in (*range(1, 210), 241, 603, 999, 1000):
        solver = noise.sampler(sampler, steps)
        times = solver.timesteps.tolist()
        assert len(set(times)) == steps and times[0] == 999 and times[-1] >= 0, (steps, len(times), times[-1])
        assert solver.num_inference_steps == steps and len(getattr(solver, "sigmas", times)) >= steps


@pytest.mark.parametrize("sampler", ["ddim", "dpm", "euler", "unipc"])
@pytest.mark.parametrize("steps", [50, 61, 121])
def test_a_perfect_network_ends_at_the_clean_latent(sampler, steps, config):
    """Whatever the file says of DDIM's end: those of Stable Diffusion let it stop one time earlier."""
    noise, clean = Noise({**config, "set_alpha_to_one": False}), normal(1, *SHAPE, seed=4)

    def perfect(latent: Tensor, t: Tensor) -> Tensor:
        assert int(t[0]) >= 0
        return noise.prediction_of(latent, clean, t)

    made = denoise(perfect, noise, [1], SHAPE, steps=steps, sampler=sampler)
    torch.testing.assert_close(made, clean, rtol=0, atol=2e-3)


# ---- seeds --------------------------------------------------------------------------------------


def test_a_row_of_noise_depends_on_its_seed_alone():
    assert torch.equal(stacked_noise([5, 6], SHAPE)[1], stacked_noise([6], SHAPE)[0])
    assert torch.equal(stacked_noise([5], SHAPE), stacked_noise([5], SHAPE))
    assert not torch.equal(stacked_noise([5], SHAPE), stacked_noise([6], SHAPE))
    assert not torch.equal(stacked_noise([5], SHAPE), stacked_noise([5], SHAPE, stream=1))
    wide = stacked_noise(range(40), (4, 32, 32))
    assert abs(float(wide.mean())) < 0.01 and abs(float(wide.std()) - 1) < 0.01
    assert stacked_noise([2**31 - 1, 2**62], SHAPE).isfinite().all()


def test_noise_leaves_the_global_stream_alone():
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    denoise(mixer, Noise(SCHEDULES["epsilon"]), [1], SHAPE, steps=2)
    assert torch.equal(torch.rand(3), wanted)


def test_a_sample_is_the_same_in_any_company(backbone):
    text = backbone.embed(["a photo of a crack", "a photo of a hole", "scratch"])
    masks, shape = torch.ones(3, 1, 8, 8), (backbone.latent_channels, 8, 8)
    masked = normal(3, *shape, seed=3)

    def run(rows: list[int], seeds: list[int]) -> Tensor:
        def predict(latent: Tensor, t: Tensor) -> Tensor:
            return backbone.predict(latent, t, text[rows], mask=masks[rows], masked=masked[rows])

        return denoise(predict, backbone.noise, seeds, shape, steps=3)

    together = run([0, 1, 2], [10, 11, 12])
    torch.testing.assert_close(run([1], [11])[0], together[1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(run([2, 1], [12, 11])[1], together[1], rtol=1e-5, atol=1e-5)
    assert (run([1], [99])[0] - together[1]).abs().max() > 0.1


# ---- guidance -----------------------------------------------------------------------------------


def test_guidance_of_one_asks_for_no_wordless_half():
    rows: list[int] = []

    def predict(latent: Tensor, t: Tensor) -> Tensor:
        rows.append(len(latent))
        return latent

    latent, t = normal(3, *SHAPE), torch.tensor([1, 2, 3])
    assert guided(predict, 1.0) is predict
    assert torch.equal(guided(predict, 1.0)(latent, t), latent)
    guided(predict, 2.0)(latent, t)
    assert rows == [3, 6]


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.5, 3.0, 7.5])
def test_guidance_extrapolates_in_a_line(weight):
    latent, t = normal(2, *SHAPE), torch.tensor([10, 20])
    shift = torch.cat([torch.full((2, 1, 1, 1), -1.0), torch.full((2, 1, 1, 1), 2.0)])

    def predict(doubled: Tensor, times: Tensor) -> Tensor:
        assert torch.equal(doubled, torch.cat([latent, latent])) and torch.equal(times, torch.cat([t, t]))
        return doubled + shift  # wordless half first

    torch.testing.assert_close(guided(predict, weight)(latent, t), latent - 1 + weight * 3)


def test_rescaled_guidance_is_diffusers_own():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    latent, t, halves = normal(2, *SHAPE), torch.tensor([10, 20]), normal(4, *SHAPE, seed=3)
    dropped, prompted = halves.chunk(2)
    for rescale in (0.0, 0.4, 1.0):
        wanted = rescale_noise_cfg(dropped + 5 * (prompted - dropped), prompted, guidance_rescale=rescale)
        torch.testing.assert_close(guided(lambda x, t: halves, 5.0, rescale)(latent, t), wanted)


@pytest.mark.parametrize("width", [256, 33])
def test_the_embedding_of_guidance_is_diffusers_own(width):
    from diffusers import StableDiffusionPipeline

    wanted = StableDiffusionPipeline.get_guidance_scale_embedding(None, torch.tensor([6.5]), embedding_dim=width)
    torch.testing.assert_close(guidance_embedding(7.5, width), wanted, rtol=1e-5, atol=1e-5)


# ---- held latents -------------------------------------------------------------------------------


@pytest.mark.parametrize("defect", get_args(Sampler))
def test_what_is_known_is_kept(defect):
    noise, known = Noise(SCHEDULES["v_prediction"]), normal(2, *SHAPE, seed=5)
    free = torch.zeros(2, 1, *SHAPE[1:])
    free[:, :, 1:3, 2:4] = 1
    seen: list[tuple[Tensor, Tensor]] = []

    def spy(latent: Tensor, t: Tensor) -> Tensor:
        seen.append((latent, t))
        return mixer(latent, t)

    seeds = [1, 2]
    made = denoise(spy, noise, seeds, SHAPE, steps=5, sampler=defect, known=known, known_mask=free)
    outside = (free == 0).expand_as(made)
    assert torch.equal(made[outside], known[outside])
    assert not torch.allclose(made[~outside], known[~outside], atol=0.1)
    fresh = stacked_noise(seeds, SHAPE)
    for latent, t in seen[1:]:
        assert torch.equal(latent[outside], noise.add(known, fresh, t)[outside])


def test_everything_free_is_nothing_known():
    noise, known = Noise(SCHEDULES["v_prediction"]), normal(1, *SHAPE, seed=5)
    made = denoise(mixer, noise, [1], SHAPE, steps=4, known=known, known_mask=torch.ones(1, 1, *SHAPE[1:]))
    torch.testing.assert_close(made, denoise(mixer, noise, [1], SHAPE, steps=4))


# ---- the loss -----------------------------------------------------------------------------------


def test_the_loss_equals_numpys():
    said, truth = normal(3, *SHAPE), normal(3, *SHAPE, seed=1)
    weight = torch.rand(3, 1, *SHAPE[1:], generator=torch.Generator().manual_seed(2))
    error = (said.double().numpy() - truth.double().numpy()) ** 2
    plain = weighted_loss(said, truth)
    assert plain.shape == (3,) and plain.dtype == torch.float32
    np.testing.assert_allclose(plain.numpy(), error.mean((1, 2, 3)), rtol=1e-5)
    wide = np.broadcast_to(weight.double().numpy(), error.shape)
    wanted = (error * wide).sum((1, 2, 3)) / wide.sum((1, 2, 3))
    np.testing.assert_allclose(weighted_loss(said, truth, weight).numpy(), wanted, rtol=1e-5)


def test_the_loss_of_equal_weights_is_the_plain_one_and_of_none_is_nought():
    said, truth = normal(2, *SHAPE), normal(2, *SHAPE, seed=1)
    even = weighted_loss(said, truth, torch.full((2, 1, *SHAPE[1:]), 0.3))
    torch.testing.assert_close(even, weighted_loss(said, truth))
    assert torch.equal(weighted_loss(said, truth, torch.zeros(2, 1, *SHAPE[1:])), torch.zeros(2))
    half = weighted_loss(said.bfloat16(), truth.bfloat16())
    assert half.dtype == torch.float32


def test_the_builtin_schedule_is_one_that_diffusers_takes_as_it_is():
    noise = Noise(builtin.SCHEDULER)
    taken = DDIMScheduler.from_config(builtin.SCHEDULER)
    assert torch.equal(noise.alphas, taken.alphas_cumprod.float())
    assert {k: taken.config[k] for k in builtin.SCHEDULER} == builtin.SCHEDULER
