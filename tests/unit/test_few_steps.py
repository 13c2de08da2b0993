"""few_steps and `flawsmith distill`: a student begins as the backbone, learns a teacher's path, and paints in a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler
from torch import nn

import flawsmith as fs
from flawsmith.config import load_config, validate
from flawsmith.data import images
from flawsmith.errors import ConfigError, RunError
from flawsmith.generators.few_steps import FewSteps
from flawsmith.nn.diffusion import Noise
from flawsmith.nn.distillation.consistency import TEACHER_STEPS, distance, drawn_times, earlier
from flawsmith.nn.distillation.student import pixels_of, student_of
from flawsmith.nn.trainer import Trainer
from flawsmith.run.folder import Run
from flawsmith.synthesis.backbones.of_run import RunBackbone
from flawsmith.synthesis.distillation.student_run import student_run


@pytest.mark.parametrize("target", ["epsilon", "v_prediction"])
def test_a_step_is_that_of_ddim(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against diffusers' scheduler at fifty steps, at noisy and clean times, and to the clean latent at the last."""
    monkeypatch.setattr("flawsmith.nn.distillation.consistency._APART", 1)
    zero = target == "v_prediction"
    config = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": target}
    config |= {"rescale_betas_zero_snr": zero, "timestep_spacing": "trailing", "clip_sample": False}
    noise, scheduler = Noise(config), DDIMScheduler.from_config(config)
    scheduler.set_timesteps(50)
    rng = torch.Generator().manual_seed(0)
    noisy, prediction = (torch.randn(1, 4, 3, 3, generator=rng) for _ in range(2))
    for t in (999, 499, 79, 59, 19):
        stepped, s = earlier(noise, noisy, prediction, torch.tensor([t]))
        wanted = scheduler.step(prediction, t, noisy).prev_sample
        assert int(s) == t - 20
        assert torch.allclose(stepped, wanted, atol=2e-4, rtol=1e-3), (t, (stepped - wanted).abs().max())


def test_it_learns_at_the_times_that_the_sampler_knows() -> None:
    noise = Noise({"prediction_type": "v_prediction"})
    times = set(drawn_times(noise, 3000, torch.Generator().manual_seed(0)).tolist())
    assert times == set(range(19, 1000, 20))
    for steps in (1, 2, 4, 8):
        assert set(noise.sampler("lcm", steps).timesteps.tolist()) <= times


@pytest.mark.parametrize("inpaints", [True, False])
def test_a_student_begins_as_the_backbone(inpaints: bool, make_backbone: Callable[..., Any]) -> None:
    back = make_backbone(inpaints=inpaints)
    unet, channels, factor = back.unet, back.latent_channels, back.factor
    whole, half = (student_of(unet, channels, factor, half=half) for half in (False, True))
    rng = torch.Generator().manual_seed(0)
    latent, masked = (torch.randn(2, channels, 8, 8, generator=rng) for _ in range(2))
    mask = (torch.rand(2, 1, 64, 64, generator=rng) > 0.9).float()
    cells, t, states = back.latent_mask(mask), torch.tensor([999, 19]), torch.randn(2, 5, 32, generator=rng)
    pixels = pixels_of(mask, factor)
    # Channel k of a cell is its pixel (k // f, k % f).
    assert torch.equal(pixels[1, 10, 3, 5], mask[1, 0, 3 * factor + 10 // factor, 5 * factor + 10 % factor])
    given = torch.cat([latent, cells, masked], 1) if inpaints else latent
    told = torch.cat([latent, cells, masked, pixels], 1)
    with torch.no_grad():
        expected = unet(given, t, states).sample
        assert torch.allclose(whole(told, t, states).sample, expected, atol=1e-5)
        assert half(told, t, states).sample.shape == expected.shape
    weights = [sum(p.numel() for p in net.parameters()) for net in (unet, half)]
    assert weights[1] < 0.45 * weights[0], weights  # a quarter but for layers at input, output and text
    with pytest.raises(ConfigError, match="no student half as wide"):
        student_of(half, channels, factor, half=True).conv_in  # noqa: B018  32 norms do not fit 8 channels


def test_a_student_ends_where_the_path_does() -> None:
    """A world of two points, -1 and 1, whose best denoiser is known: at full noise it says 0; paths end at a point."""
    told = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "prediction_type": "sample"}
    noise, rng = Noise(told), torch.Generator().manual_seed(0)

    def teacher(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        signal, spread = noise._levels(t, noisy)
        return (noisy * signal / spread.square()).tanh()

    begun = torch.randn(500, 1, 1, 1, generator=rng)
    path, at = begun, torch.full((500,), 999)
    while int(at[0]) >= 0:
        path, at = earlier(noise, path, teacher(path, at), at)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(11, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1))

    def student(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        waves = t[:, None] / 1000 * 3.14 * torch.tensor([1, 2, 4, 8, 16])
        return network(torch.cat([noisy.flatten(1), waves.sin(), waves.cos()], 1)).view(-1, 1, 1, 1)

    def learn(steps: int, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        def loss(_: int, rng: torch.Generator) -> torch.Tensor:
            t, points = drawn_times(noise, 256, rng), torch.randint(2, (256, 1, 1, 1), generator=rng) * 2.0 - 1
            return loss_of(noise.add(points, torch.randn(256, 1, 1, 1, generator=rng), t), t)

        for _ in Trainer({"student": network}, loss, steps=steps, learning_rate=3e-3, average=0.99).run():
            pass

    def consistency(noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            stepped, s = noisy, t
            for _ in range(TEACHER_STEPS):
                moved, before = earlier(noise, stepped, teacher(stepped, s.clamp_min(0)), s.clamp_min(0))
                stepped = torch.where((s >= 0).view(-1, 1, 1, 1), moved, stepped)
                s = torch.where(s >= 0, before, s)
            aim = torch.where((s >= 0).view(-1, 1, 1, 1), student(stepped, s.clamp_min(0)), stepped)
        return distance(student(noisy, t), aim, torch.ones_like(aim))

    def gap() -> float:
        return float((student(begun, torch.full((500,), 999)) - path).detach().abs().mean())

    learn(300, lambda noisy, t: (student(noisy, t) - teacher(noisy, t)).square().flatten())  # as a student begins
    before = gap()
    learn(500, consistency)
    assert gap() < 0.65 * before, (before, gap())


@pytest.fixture(scope="module")
def taught(backbone_folder: Path, factory_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A trained run of controlnet_inpaint with a model for each of two products."""
    config = {
        "data.root": str(factory_root),
        "data.shots": 2,
        "generator.name": "controlnet_inpaint",
        "generator.settings": {"prompt": "a {defect} here", "start": "noise", "sampler": "ddim"},
        "backbone.source": str(backbone_folder),
        "backbone.dtype": "float32",
        "train.steps": 2,
        "train.views": 1,
        "train.batch": 2,
        "generate.count": 1,
        "generate.guidance": 2.5,
        "generate.controls": 0.0,
        **{f"{stage}.enabled": False for stage in ("screen", "measure", "prove")},
    }
    run = Run.create(tmp_path_factory.mktemp("taught") / "run", load_config(None, config))
    fs.train(run)
    return run


def test_a_student_of_a_run(taught: Run, tmp_path: Path) -> None:
    student = student_run(taught, tmp_path / "student", {"train.steps": 1}, quarter=True)
    settings = student.config.generator.settings
    assert (settings["guidance"], settings["prompt"], settings["quarter"]) == (2.5, "a {defect} here", True)
    assert "sampler" not in settings and student.config.generate.steps == 4
    fs.train(student)
    for product in ("magnet", "screw"):
        assert student.path("weights", product, "student.safetensors").is_file()
        assert json.loads(student.path("weights", product, "losses.json").read_text())["steps"] == 1
    fs.generate(student)
    normals = {row["id"]: Path(row["image"]) for row in json.loads(student.path("data.json").read_text())["normals"]}
    rows = [row for row in student.samples() if row.made]
    assert rows
    for row in rows:
        before, after = images.read(normals[row.normal]), images.read(student.path(row.image))
        mask = images.read_mask(student.path(row.mask), after.shape)
        assert (before[~mask] == after[~mask]).all() and (before[mask] != after[mask]).any()
    again = student_run(taught, tmp_path / "student", {"train.steps": 1}, quarter=True)
    assert again.config == student.config and again.stage_hash("generate"), "called again it is done"


def test_who_cannot_teach(taught: Run, tmp_path: Path, small_config: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is the run that teaches"):
        student_run(taught, taught.folder, {})
    bare = Run.create(tmp_path / "bare", taught.config)
    with pytest.raises(RunError, match="is not trained yet"):
        student_run(bare, tmp_path / "a", {})
    other = Run.create(tmp_path / "other", load_config(None, small_config | {"generator.name": "dual_branch"}))
    with pytest.raises(ConfigError, match="dual_branch cannot teach few steps"):
        student_run(other, tmp_path / "b", {})
    gone = student_run(taught, tmp_path / "c", {"generator.settings.teacher": str(tmp_path / "nowhere")})
    with pytest.raises(RunError, match="nowhere.magnet is not there; name the folder weights/"):
        fs.train(gone)


def test_a_student_is_taught_with_the_settings_that_its_teacher_samples_with_now(taught: Run, tmp_path: Path) -> None:
    """They may have changed since the teacher was trained, whose weights' own file says the old ones."""
    assert "teaching" not in student_run(taught, tmp_path / "as trained", {}).config.generator.settings
    now = {**taught.config.generator.settings, "control_scale": 0.5, "negative_prompt": "blurred", "sampler": "dpm"}
    changed = taught.config.model_copy(
        update={"generator": taught.config.generator.model_copy(update={"settings": now})}
    )
    student = student_run(Run(taught.folder, changed), tmp_path / "student", {})
    teaching = student.config.generator.settings["teaching"]
    assert teaching == {"control_scale": 0.5, "negative_prompt": "blurred"}, "the sampler is the student's own"
    backbone = RunBackbone(taught).loaded
    generator: Any = FewSteps(backbone, validate(FewSteps.Settings, student.config.generator.settings, where="here"))
    generator.job = "magnet"
    teacher = generator._taught_by()
    assert (teacher.settings.control_scale, teacher.settings.negative_prompt) == (0.5, "blurred")
    assert teacher.settings.prompt == "a {defect} here"
