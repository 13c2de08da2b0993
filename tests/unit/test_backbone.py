"""nn/backbone.py: one diffusers folder, whatever it holds; and parity with diffusers' own pipeline."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from flawsmith.errors import BackboneError
from flawsmith.nn import builtin, inpaint
from flawsmith.nn import device as devices
from flawsmith.nn.attention import SmallAttention
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.device import pick_device, pick_dtype
from flawsmith.nn.loading.networks import quiet

WORDS = ["a photo of a scratch", "a photo of a hole"]
DEFECTS = {
    "33 channels, dc": {},
    "16 channels, dc": {"inpaints": False, "target": "epsilon"},
    "9 channels, tiny": {"tiny": True},
    "9 channels, kl": {"kl": True},
    "4 channels, kl": {"kl": True, "inpaints": False},
    "9 channels, kl, epsilon": {"kl": True, "target": "epsilon"},
}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def conditions(back: Backbone, count: int = 2) -> dict[str, Tensor]:
    return {"mask": torch.ones(count, 1, 8, 8), "masked": normal(count, back.latent_channels, 8, 8, seed=4)}


# ---- shapes and defect types ---------------------------------------------------------------------------


@pytest.mark.parametrize("defect", DEFECTS)
def test_every_kind_encodes_decodes_embeds_and_predicts(make_backbone, defect):
    told = DEFECTS[defect]
    back = make_backbone(**told)
    channels = 4 if told.get("kl") or told.get("tiny") else 16
    assert (back.latent_channels, back.factor, back.size) == (channels, 8, 64)
    assert back.inpaints == told.get("inpaints", True) and back.noise.target == told.get("target", "v_prediction")
    image = normal(2, 3, 64, 64).clamp(-1, 1)
    latent, text = back.encode(image), back.embed(WORDS)
    assert latent.shape == (2, channels, 8, 8) and text.states.shape == (2, builtin.TEXT_LENGTH, 32)
    decoded = back.decode(latent)
    assert decoded.shape == image.shape and decoded.min() >= -1 and decoded.max() <= 1
    said = back.predict(latent, torch.tensor([3, 900]), text, **(conditions(back) if back.inpaints else {}))
    assert said.shape == latent.shape
    assert {x.dtype for x in (latent, text.states, decoded, said)} == {torch.float32}
    assert not any(x.requires_grad for x in (latent, text.states, decoded, said))


def test_half_precision_gives_float32_out_and_nearly_the_same(make_backbone):
    fine, rough = make_backbone(), make_backbone(dtype="bfloat16")
    assert {p.dtype for m in (rough.vae, rough.unet, *rough.text_encoder.models) for p in m.parameters()} == {
        torch.bfloat16
    }
    image, t = normal(1, 3, 64, 64).clamp(-1, 1), torch.tensor([500])
    latents = [b.encode(image) for b in (fine, rough)]
    texts = [b.embed(WORDS[:1]) for b in (fine, rough)]
    given = conditions(fine, 1)
    said = [b.predict(latents[0], t, texts[0], **given) for b in (fine, rough)]
    for a, b in (latents, [text.states for text in texts], said):
        assert b.dtype == torch.float32 and 0 < (a - b).abs().max() < 0.1 * a.abs().max()


def test_other_sizes_than_its_own(backbone):
    latent = backbone.encode(torch.zeros(1, 3, 96, 128))
    assert latent.shape == (1, 16, 12, 16)
    given = {"mask": torch.ones(1, 1, 12, 16), "masked": latent}
    assert backbone.predict(latent, torch.tensor([5]), backbone.embed(WORDS[:1]), **given).shape == latent.shape


def test_an_inpainting_unet_without_its_conditions_is_refused(backbone):
    with pytest.raises(ValueError, match="needs mask and masked"):
        backbone.predict(torch.zeros(1, 16, 8, 8), torch.tensor([1]), backbone.embed(["x"]))


def test_a_plain_unet_ignores_the_conditions(make_backbone):
    back = make_backbone(inpaints=False)
    latent, t, text = normal(2, back.latent_channels, 8, 8), torch.tensor([1, 2]), back.embed(WORDS)
    assert torch.equal(back.predict(latent, t, text), back.predict(latent, t, text, **conditions(back)))


def test_nothing_of_it_is_trained(backbone):
    for part in (backbone.vae, backbone.unet, *backbone.text_encoder.models):
        assert not part.training and not any(p.requires_grad for p in part.parameters())


# ---- against diffusers and transformers themselves ----------------------------------------------


def test_predict_is_the_unets_own_answer(backbone, backbone_folder):
    unet = UNet2DConditionModel.from_pretrained(backbone_folder / "unet", local_files_only=True)
    latent, t, text = normal(2, 16, 8, 8), torch.tensor([7, 650]), backbone.embed(WORDS)
    given = conditions(backbone)
    down = [0.1 * normal(2, *shape, seed=i) for i, shape in enumerate([(32, 8, 8), (32, 8, 8), (32, 4, 4), (64, 4, 4)])]
    middle = 0.1 * normal(2, 64, 4, 4, seed=9)
    with torch.no_grad():
        wanted = unet(
            torch.cat([latent, given["mask"], given["masked"]], 1),
            t,
            encoder_hidden_states=text.states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
    found = backbone.predict(latent, t, text, **given, residuals=(down, middle))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert (found - backbone.predict(latent, t, text, **given)).abs().max() > 1e-3


def test_gradients_reach_the_residuals_and_nothing_else(backbone):
    middle = torch.zeros(1, 64, 4, 4, requires_grad=True)
    down = [torch.zeros(1, c, s, s) for c, s in ((32, 8), (32, 8), (32, 4), (64, 4))]
    latent, text = normal(1, 16, 8, 8), backbone.embed(WORDS[:1])
    said = backbone.predict(latent, torch.tensor([9]), text, **conditions(backbone, 1), residuals=(down, middle))
    said.square().sum().backward()
    assert middle.grad is not None and middle.grad.any()
    assert all(p.grad is None for p in backbone.unet.parameters())


def test_embed_is_the_encoders_hidden_states_and_each_text_is_encoded_once(make_backbone, monkeypatch):
    back = make_backbone()
    (encoder,), (tokenizer,) = back.text_encoder.models, back.text_encoder.tokenizers
    tokens = tokenizer(WORDS, padding="max_length", max_length=builtin.TEXT_LENGTH, return_tensors="pt")
    with torch.no_grad():
        wanted = encoder(tokens.input_ids).last_hidden_state
    calls: list[int] = []
    encoder.register_forward_pre_hook(lambda m, args: calls.append(len(args[0])))
    torch.testing.assert_close(back.embed(WORDS).states, wanted)
    repeated = back.embed([WORDS[1], WORDS[0], WORDS[1], ""]).states
    assert calls == [2, 1]
    assert torch.equal(repeated[0], repeated[2]) and torch.equal(repeated[1], back.embed(WORDS).states[0])
    assert not torch.equal(repeated[3], repeated[0])
    long = back.embed(["scratch " * 200]).states
    assert long.shape == (1, builtin.TEXT_LENGTH, 32) and long.isfinite().all()


@pytest.mark.parametrize("shift", [None, 0.25])
def test_encode_scales_and_shifts_the_posteriors_mean(make_backbone, shift):
    back = make_backbone(kl=True)
    back.vae.register_to_config(scaling_factor=0.5, shift_factor=shift)
    image = normal(2, 3, 64, 64, seed=3).clamp(-1, 1)
    with torch.no_grad():
        mean = back.vae.encode(image).latent_dist.mean
        latent = back.encode(image)
        torch.testing.assert_close(latent, (mean - (shift or 0)) * 0.5, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(back.decode(latent), back.vae.decode(mean).sample.clamp(-1, 1), rtol=1e-3, atol=1e-3)
    assert torch.equal(back.encode(image), latent)


def test_encode_scales_the_deep_compression_autoencoders_latents(make_backbone):
    back = make_backbone()
    back.vae.register_to_config(scaling_factor=3.0)
    image = normal(1, 3, 64, 64, seed=3).clamp(-1, 1)
    with torch.no_grad():
        plain = back.vae.encode(image).latent
        torch.testing.assert_close(back.encode(image), 3 * plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            back.decode(3 * plain), back.vae.decode(plain).sample.clamp(-1, 1), atol=1e-4, rtol=0
        )


def test_encode_scales_the_tiny_autoencoders_latents(make_backbone):
    back = make_backbone(tiny=True)
    back.vae.register_to_config(scaling_factor=3.0)
    image = normal(1, 3, 64, 64, seed=3).clamp(-1, 1)
    with torch.no_grad():
        plain = back.vae.encode(image).latents
        torch.testing.assert_close(back.encode(image), 3 * plain, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(
            back.decode(3 * plain), back.vae.decode(plain).sample.clamp(-1, 1), atol=1e-4, rtol=0
        )


def test_a_line_of_one_pixel_survives_in_the_latent_mask(backbone):
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 13, 5:60] = 1
    cells = backbone.latent_mask(mask)
    assert cells.shape == (1, 1, 8, 8) and set(cells.unique().tolist()) == {0.0, 1.0} and cells.dtype == torch.float32
    assert torch.equal(cells[0, 0, 1], torch.ones(8)) and cells.sum() == 8
    assert nn.functional.interpolate(mask, (8, 8)).sum() == 0  # what the pipelines do
    corner = torch.zeros(1, 1, 64, 64)
    corner[..., 63, 63] = 1
    assert backbone.latent_mask(corner).sum() == 1 == backbone.latent_mask(corner)[0, 0, 7, 7]


# ---- on disk ------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(backbone, backbone_folder):
    again = Backbone.load(backbone_folder, dtype="float32", device="cpu")
    assert again.fingerprint == backbone.fingerprint and again.name == str(backbone_folder)
    assert again.noise.config["prediction_type"] == "v_prediction"
    assert torch.equal(again.noise.alphas, backbone.noise.alphas)
    assert torch.equal(again.embed(WORDS).states, backbone.embed(WORDS).states)
    image, latent = normal(1, 3, 64, 64).clamp(-1, 1), normal(1, 16, 8, 8)
    assert torch.equal(again.encode(image), backbone.encode(image))
    assert torch.equal(again.decode(latent), backbone.decode(latent))
    given, text = conditions(backbone, 1), backbone.embed(WORDS[:1])
    t = torch.tensor([44])
    assert torch.equal(again.predict(latent, t, text, **given), backbone.predict(latent, t, text, **given))


def test_diffusers_and_transformers_read_the_folder_themselves(backbone_folder):
    place, options = str(backbone_folder), {"local_files_only": True}
    assert AutoencoderDC.from_pretrained(place, subfolder="vae", **options).config.latent_channels == 16
    assert CLIPTextModel.from_pretrained(place, subfolder="text_encoder", **options).config.hidden_size == 32
    tokens = CLIPTokenizer.from_pretrained(place, subfolder="tokenizer", **options)
    assert tokens("scratch").input_ids[1:-1] == tokens("SCRATCH").input_ids[1:-1] != []
    assert DDIMScheduler.from_pretrained(place, subfolder="scheduler").config.rescale_betas_zero_snr
    assert json.loads((backbone_folder / "model_index.json").read_text())["unet"] == [
        "diffusers",
        "UNet2DConditionModel",
    ]
    assert not [p for p in backbone_folder.rglob("*") if p.suffix in (".bin", ".pt", ".pkl")]


def test_the_fingerprint_is_the_hash_of_the_files_whoever_reads_them(backbone, backbone_folder):
    found: dict[str, Tensor] = {}
    for part in ("vae", "text_encoder", "unet"):
        for file in (backbone_folder / part).glob("*.safetensors"):
            found |= {f"{part}.{name}": value for name, value in load_file(file).items()}
    # transformers leaves its wrapper's prefix out of the file
    state = {f"text_encoder.{n}" for n in backbone.text_encoder.models[0].state_dict()}
    if not state <= set(found):
        found = {n.replace("text_encoder.text_model.", "text_encoder."): v for n, v in found.items()}
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(f"{name}{tuple(found[name].shape)}".encode() + found[name].float().numpy().tobytes())
    assert digest.hexdigest()[:16] == backbone.fingerprint


def test_the_fingerprint_names_the_weights_not_their_storage(backbone, backbone_folder, tmp_path):
    assert Backbone.load(backbone_folder, dtype="bfloat16", device="cpu").fingerprint == backbone.fingerprint
    backbone.save(tmp_path / "half")  # float16 rounds: other weights, once
    half = Backbone.load(tmp_path / "half", dtype="float32", device="cpu")
    assert half.fingerprint != backbone.fingerprint
    half.save(tmp_path / "sharded", dtype=torch.float32, shard="1MB")
    assert len(list((tmp_path / "sharded" / "unet").glob("*.safetensors"))) > 1
    assert Backbone.load(tmp_path / "sharded", dtype="float32", device="cpu").fingerprint == half.fingerprint


@pytest.mark.parametrize("part", ["vae", "text_encoder", "unet"])
def test_the_fingerprint_of_changed_weights_is_another(make_backbone, part):
    back = make_backbone()
    with torch.no_grad():
        first = next(back._parts()[part].parameters())
        first[(0,) * first.ndim] += 1e-3
    changed = Backbone(back.vae, back.text_encoder, back.unet, back.noise.config, device="cpu")
    assert changed.fingerprint != back.fingerprint


def test_saving_leaves_the_backbone_as_it_was(make_backbone, tmp_path):
    back = make_backbone()
    latent, t, text = normal(1, 16, 8, 8), torch.tensor([5]), back.embed(WORDS[:1])
    before = back.predict(latent, t, text, **conditions(back, 1))
    back.save(tmp_path / "x")
    assert torch.equal(back.predict(latent, t, text, **conditions(back, 1)), before)
    assert next(back.unet.parameters()).dtype == torch.float32


# ---- fork ---------------------------------------------------------------------------------------


def test_a_fork_shares_its_weights_and_may_replace_its_attention(make_backbone):
    back = make_backbone()
    latent, t, text, given = (
        normal(2, back.latent_channels, 8, 8),
        torch.tensor([5, 600]),
        back.embed(WORDS),
        conditions(back),
    )
    before = back.predict(latent, t, text, **given)
    twin = back.fork()
    assert twin.unet is not back.unet and twin.fingerprint == back.fingerprint
    ours, theirs = dict(back.unet.named_parameters()), dict(twin.unet.named_parameters())
    assert ours.keys() == theirs.keys() and all(ours[n] is theirs[n] for n in ours)
    assert not {id(m) for m in back.unet.modules()} & {id(m) for m in twin.unet.modules()}
    assert torch.equal(twin.predict(latent, t, text, **given), before)

    class Silent(SmallAttention):
        def __call__(self, attn: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return torch.zeros_like(hidden_states)

    twin.unet.set_attn_processor(Silent())
    assert not torch.equal(twin.predict(latent, t, text, **given), before)
    assert torch.equal(back.predict(latent, t, text, **given), before)
    assert not any(isinstance(p, Silent) for p in back.unet.attn_processors.values())
    second = twin.fork()  # and a fork of a fork keeps what was replaced
    assert all(isinstance(p, Silent) for p in second.unet.attn_processors.values())


def test_a_fork_costs_no_memory_and_keeps_its_own_texts(make_backbone):
    back = make_backbone()
    twin = back.fork()
    assert twin.vae is back.vae and twin.text_encoder is back.text_encoder
    twin.embed(["dent"])
    assert "dent" not in back._texts


# ---- parity with the pipeline -------------------------------------------------------------------


@pytest.fixture(scope="module")
def same_weights(make_backbone: Callable[..., Any]) -> tuple[Backbone, Any]:
    """A 9-channel KL backbone with a woken ControlNet, and diffusers' pipeline of fresh modules with its weights."""
    from diffusers import ControlNetModel, StableDiffusionControlNetInpaintPipeline

    from flawsmith.generators.controlnet_inpaint import ControlNetInpaint
    from flawsmith.generators.controlnet_inpaint import ControlNetInpaintSettings as Settings

    back = make_backbone(kl=True)
    with torch.no_grad():  # the pipeline samples the posterior; without variance that is its mean
        back.vae.quant_conv.weight[4:] = 0
        back.vae.quant_conv.bias[4:] = -40
    generator = ControlNetInpaint(back, Settings(sampler="ddim"))
    rng = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in generator.control.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=rng)

    def fresh(plugin: Any, old: Any) -> Any:
        made = plugin.from_config(old.config)
        made.load_state_dict(old.state_dict())
        return made.eval().requires_grad_(False)

    with quiet():
        pipeline = StableDiffusionControlNetInpaintPipeline(
            vae=fresh(AutoencoderKL, back.vae),
            text_encoder=copy.deepcopy(back.text_encoder.models[0]),
            tokenizer=back.text_encoder.tokenizers[0],
            unet=fresh(UNet2DConditionModel, back.unet),
            controlnet=fresh(ControlNetModel, generator.control.net),
            scheduler=DDIMScheduler.from_config({**back.noise.config, "timestep_spacing": "trailing"}),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipeline.set_progress_bar_config(disable=True)
    return generator, pipeline


def cells_only(count: int) -> Tensor:
    """Masks along the cells' borders, where the pipeline's nearest pixel and our any-pixel agree."""
    mask = torch.zeros(count, 1, 64, 64)
    for row in range(count):
        mask[row, :, 8 * (1 + row) : 40, 16 : 40 + 8 * row] = 1
    return mask


@pytest.mark.parametrize(
    ("sampler", "guidance", "negative"),
    [("ddim", 1.0, ""), ("ddim", 3.0, ""), ("dpm", 1.0, ""), ("dpm", 3.0, ""), ("unipc", 3.0, "a photo of a dent")],
)
def test_sampling_equals_diffusers_pipeline(same_weights, monkeypatch, guidance, sampler, negative):
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    from flawsmith.generators.controlnet_inpaint import ControlNetInpaintSettings as Settings
    from flawsmith.nn.diffusion import stacked_noise
    from flawsmith.types import Condition

    generator, pipeline = same_weights
    back, seeds = generator.backbone, [5, 6]
    plugin = {"ddim": DDIMScheduler, "dpm": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}[sampler]
    pipeline.scheduler = plugin.from_config({**back.noise.config, "timestep_spacing": "trailing"})
    generator.settings = Settings(sampler=sampler, negative_prompt=negative)
    shade = torch.linspace(-0.6, 0.6, 64).view(1, 1, 1, 64)
    normals, mask = (shade + 0.2 * normal(2, 3, 64, 64)).clamp(-1, 1), cells_only(2)
    latents: list[Tensor] = []

    def spied(*args: Any, **kwargs: Any) -> Tensor:
        latents.append(real(*args, **kwargs))
        return latents[-1]

    real = inpaint.denoise
    monkeypatch.setattr(inpaint, "denoise", spied)
    asked = Condition(normals, mask, ("tile",) * 2, ("crack", "hole"))
    made = generator.sample(asked, seeds, steps=5, guidance=guidance)
    with quiet():
        given = {
            "prompt": ["a photo of a crack", "a photo of a hole"],
            "negative_prompt": [negative, negative],
            "image": normals / 2 + 0.5,
            "mask_image": mask,
            "control_image": mask.expand(-1, 3, -1, -1),
            "num_inference_steps": 5,
            "guidance_scale": guidance,
            "latents": stacked_noise(seeds, (4, 8, 8)),
            "strength": 1.0,
            "controlnet_conditioning_scale": 1.0,
        }
        wanted = pipeline(**given, output_type="latent").images
    torch.testing.assert_close(latents[0], wanted, rtol=1e-3, atol=1e-3)
    without = pipeline(**{**given, "controlnet_conditioning_scale": 0.0}, output_type="latent").images
    assert (wanted - without).abs().max() > 0.05, "the ControlNet does nothing here, so this test shows nothing"
    # Inside the mask's own cells the picture is the pipeline's too, but for the known latent that is put back outside.
    known = back.encode(normals)
    cells = back.latent_mask(mask)
    torch.testing.assert_close(made.image, back.decode(cells * wanted + (1 - cells) * known), rtol=1e-3, atol=2e-3)
    torch.testing.assert_close(made.base, back.decode(known), rtol=1e-4, atol=1e-4)


def lcm_backbone(make_backbone: Callable[..., Any]) -> Backbone:
    """A plain backbone whose UNet was distilled with guidance: it reads the weight of the text with the timestep."""
    plain = make_backbone(kl=True, inpaints=False, target="epsilon")
    torch.manual_seed(3)
    config = {key: value for key, value in plain.unet.config.items() if key != "_use_default_values"}
    unet = UNet2DConditionModel.from_config({**config, "time_cond_proj_dim": 32})
    scheduler = {**plain.noise.config, "_class_name": "LCMScheduler"}
    return Backbone(plain.vae, plain.text_encoder, unet, scheduler, name="lcm", device="cpu", dtype="float32")


@torch.no_grad()
def test_a_distilled_model_is_told_the_guidance_and_equals_its_pipeline(make_backbone, monkeypatch):
    """The weight of the text goes in with the timestep, the batch stays single, and LCM's sampler is diffusers'."""
    from diffusers import LCMScheduler, StableDiffusionPipeline

    from flawsmith.nn.diffusion import denoise, stacked_noise

    back, seeds = lcm_backbone(make_backbone), [5, 6]
    assert back.reads_guidance and (back.free_guidance(7.5), make_backbone().free_guidance(7.5)) == (1.0, 7.5)
    text = back.embed(WORDS)

    def run(guidance: float) -> Tensor:
        def predict(latent: Tensor, t: Tensor) -> Tensor:
            return back.predict(latent, t, text, guidance=guidance)

        return denoise(predict, back.noise, seeds, (4, 8, 8), steps=3, sampler="lcm")

    with quiet():
        pipeline = StableDiffusionPipeline(
            vae=back.vae,
            text_encoder=back.text_encoder.models[0],
            tokenizer=back.text_encoder.tokenizers[0],
            unet=back.unet,
            scheduler=LCMScheduler.from_config(back.noise.config, clip_sample=False),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        given: dict[str, Any] = {"prompt": WORDS, "num_inference_steps": 3, "output_type": "latent"}
        given |= {"generator": [torch.Generator().manual_seed((s * 1_000_003 + 7919) % (2**63 - 1)) for s in seeds]}
        wanted = pipeline(**given, guidance_scale=7.5, latents=stacked_noise(seeds, (4, 8, 8))).images
    torch.testing.assert_close(run(7.5), wanted, rtol=1e-5, atol=1e-5)
    assert float((run(7.5) - run(1.0)).abs().max()) > 1e-3, "the guidance does nothing here"


@pytest.mark.parametrize("name", ["controlnet_inpaint", "dual_branch"])
def test_generators_train_and_paint_on_a_distilled_model(make_backbone, name):
    from flawsmith import registry
    from flawsmith.testing import example_batch, example_condition

    back, plugin = lcm_backbone(make_backbone), registry.get("generators", name)
    start = {} if name == "dual_branch" else {"negative_prompt": "dust", "start": "noise"}
    generator = plugin(back, plugin.Settings(sampler="lcm", guidance_rescale=0.5, **start))
    asked = example_condition(64)
    rows: list[int] = []
    back.unet.register_forward_pre_hook(lambda net, given: rows.append(len(given[0])))
    views = generator.encode(example_batch(64))
    assert generator.loss(views, torch.Generator().manual_seed(0)).isfinite().all()
    weak, strong = (
        generator.sample(asked, list(range(len(asked))), steps=2, guidance=guidance) for guidance in (1.0, 8.0)
    )
    assert weak.image.isfinite().all() and strong.image.isfinite().all()
    assert (
        set(rows) <= {len(asked), len(views), 2 * len(asked)}
        if name == "dual_branch"
        else set(rows) <= {len(asked), len(views)}
    )


# ---- what is refused ----------------------------------------------------------------------------


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(
        BackboneError, match=r"no such folder or file, and asking a hub is off; .*backbone\.offline = false"
    ):
        Backbone.load(tmp_path / "nowhere")


def test_a_hub_id_while_offline(monkeypatch):
    forbidden: list[str] = []
    for defect in (AutoencoderDC, AutoencoderKL, AutoencoderTiny, UNet2DConditionModel, CLIPTextModel, CLIPTokenizer):
        monkeypatch.setattr(defect, "from_pretrained", lambda *a, **k: forbidden.append("asked"))
    with pytest.raises(BackboneError, match="'some/model': no such folder or file, and asking a hub is off"):
        Backbone.load("some/model")
    assert not forbidden


@pytest.mark.parametrize("part", ["vae", "text_encoder", "tokenizer", "unet", "scheduler"])
def test_a_folder_with_a_part_missing(backbone_folder, tmp_path, part):
    for name in {"vae", "text_encoder", "tokenizer", "unet", "scheduler"} - {part}:
        (tmp_path / name).symlink_to(backbone_folder / name)
    with pytest.raises(BackboneError, match=rf"no whole diffusers folder; {part} is missing"):
        Backbone.load(tmp_path)


def broken_copy(source: Path, to: Path, part: str) -> Path:
    to.mkdir()
    for folder in source.iterdir():
        if folder.is_dir() and folder.name != part:
            (to / folder.name).symlink_to(folder)
    (to / part).mkdir()
    for file in (source / part).iterdir():
        (to / part / file.name).write_bytes(file.read_bytes())
    return to


@pytest.mark.parametrize("part", ["vae", "text_encoder", "unet"])
@pytest.mark.parametrize("damage", ["config gone", "weights gone", "weights torn", "config torn"])
def test_a_broken_folder_is_one_sentence(backbone_folder, tmp_path, part, damage):
    folder = broken_copy(backbone_folder, tmp_path / "b", part)
    (weights,) = (folder / part).glob("*.safetensors")
    config = folder / part / "config.json"
    if damage == "config gone":
        config.unlink()
    elif damage == "weights gone":
        weights.unlink()
    elif damage == "weights torn":
        weights.write_bytes(weights.read_bytes()[:1000])
    else:
        config.write_text(config.read_text()[:30])
    with pytest.raises(BackboneError) as told:
        Backbone.load(folder)
    said = {"config torn": "cannot be loaded", "weights torn": "not a readable safetensors"}.get(damage, "holds no")
    assert "\n" not in str(told.value) and said in str(told.value) and str(folder) in str(told.value)


def test_weights_of_another_network_are_refused_not_filled_with_noise(backbone_folder, tmp_path):
    for part in ("unet", "text_encoder", "vae"):
        folder = broken_copy(backbone_folder, tmp_path / part, part)
        (weights,) = (folder / part).glob("*.safetensors")
        tensors = load_file(weights)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, weights, metadata={"format": "pt"})
        with pytest.raises(BackboneError, match=rf"{part}: 1 tensors? missing from its weights"):
            Backbone.load(folder)


def test_an_autoencoder_of_another_class(backbone_folder, tmp_path):
    folder = broken_copy(backbone_folder, tmp_path / "b", "vae")
    config = json.loads((folder / "vae" / "config.json").read_text())
    (folder / "vae" / "config.json").write_text(json.dumps({**config, "_class_name": "VQModel"}))
    with pytest.raises(
        BackboneError, match=r"VQModel is not supported; known: AutoencoderDC, AutoencoderKL, AutoencoderTiny"
    ):
        Backbone.load(folder)


def test_channels_that_fit_neither_form(make_backbone):
    plain, deep = make_backbone(kl=True), make_backbone()
    with pytest.raises(BackboneError, match=r"takes 9 channels; with 16 latent channels it should be 16 .* or 33"):
        Backbone(deep.vae, deep.text_encoder, plain.unet, builtin.SCHEDULER, name="mixed", device="cpu")


def test_a_missing_built_in_says_how_to_make_one(monkeypatch, tmp_path):
    monkeypatch.setattr(builtin, "__file__", str(tmp_path / "nn" / "builtin.py"))
    with pytest.raises(BackboneError, match="flawsmith backbone OUT"):
        Backbone.load("builtin")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "CPU!", ""])
def test_a_device_that_is_not_there(name):
    with pytest.raises(BackboneError, match=r"backbone\.device .*use auto"):
        pick_device(name)


def test_devices_and_precisions_that_are_there(monkeypatch):
    cpu = torch.device("cpu")
    assert pick_device("cpu") == cpu and pick_device("auto").type in ("cpu", "cuda", "mps")
    assert pick_dtype("float16", cpu) == torch.float16 and pick_dtype("bfloat16", cpu) == torch.bfloat16
    for gains, wanted in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(devices, "gains_from_bfloat16", lambda gains=gains: gains)
        assert pick_dtype("auto", cpu) == wanted
    assert pick_dtype("auto", torch.device("mps")) == torch.float32


def test_a_card_that_only_emulates_bfloat16_works_in_float16(monkeypatch):
    """Two cards: the first has bfloat16 (Ampere), the second emulates it (Turing); the chosen one decides."""
    current = [torch.device("cuda", 0)]

    @contextmanager
    def chosen(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or current[-1].index == 0

    monkeypatch.setattr(torch.cuda, "device", chosen)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert pick_dtype("auto", torch.device("cuda", 0)) == torch.bfloat16
    assert pick_dtype("auto", torch.device("cuda", 1)) == torch.float16


# ---- the hub ------------------------------------------------------------------------------------


@pytest.mark.parametrize("offline", [True, False])
def test_every_part_is_told_whether_the_hub_may_be_asked(backbone_folder, monkeypatch, offline):
    told: list[tuple[str, str, bool]] = []

    def watch(plugin: Any, method: str) -> None:
        real = getattr(plugin, method)

        def spied(place: str, **options: Any) -> Any:
            told.append((options["subfolder"], place, options["local_files_only"]))
            return real(str(backbone_folder), **options)

        monkeypatch.setattr(plugin, method, spied)

    watch(AutoencoderDC, "from_pretrained")
    for plugin in (UNet2DConditionModel, CLIPTextModel, CLIPTokenizer):
        watch(plugin, "from_pretrained")
    watch(AutoencoderKL, "load_config")
    watch(DDIMScheduler, "load_config")
    place = str(backbone_folder) if offline else "someone/a-model"
    back = Backbone.load(place, offline=offline, device="cpu", dtype="float32")
    assert back.name == place
    assert {part for part, *_ in told} == {"vae", "unet", "text_encoder", "tokenizer", "scheduler"}
    assert {(at, local) for _, at, local in told} == {(place, offline)}
