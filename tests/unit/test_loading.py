"""nn/loading: backbones as people have them: fp16 folders, hub caches, .bin, one file in the original layout."""

from __future__ import annotations

import gzip
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from flawsmith.errors import BackboneError
from flawsmith.nn import builtin
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.loading import companions, single_file
from flawsmith.nn.loading.facts import facts_of
from flawsmith.nn.loading.networks import load_whole, quiet
from flawsmith.nn.loading.original import recognise, shapes_in
from flawsmith.nn.loading.source import locate

NETWORKS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A hub's cache of the test's own, and no open_clip, whatever the machine has."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(companions, "find_spec", lambda name: None)
    return tmp_path / "cache"


def load(source: Path | str) -> Backbone:
    return Backbone.load(source, device="cpu", dtype="float32")


def as_variant(folder: Path, to: Path, variant: str, kind: str = "safetensors") -> Path:
    """Copy a diffusers folder, its weights as a variant in half precision, or as .bin."""
    shutil.copytree(folder, to)
    for part, name in NETWORKS.items():
        (plain,) = (to / part).glob("*.safetensors")
        tensors = {key: x.half() if variant == "fp16" else x for key, x in load_file(plain).items()}
        plain.unlink()
        stem = "pytorch_model" if (kind, name) == ("bin", "model") else name
        path = to / part / f"{stem}{'.' if variant else ''}{variant}.{kind}"
        save_file(tensors, path, metadata={"format": "pt"}) if kind == "safetensors" else torch.save(tensors, path)
    return to


# ---- folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "kind"), [("fp16", "safetensors"), ("fp16", "bin"), ("", "bin")])
def test_a_folder_of_a_variant_or_of_bin_files(
    backbone_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], variant: str, kind: str
) -> None:
    loaded = load(as_variant(backbone_folder, tmp_path / "half", variant, kind))
    captured = capfd.readouterr()
    assert captured.out + captured.err == "", "a library's remarks reach the user"
    plain = load(backbone_folder)
    for mine, whole in zip(loaded.unet.parameters(), plain.unet.parameters(), strict=True):
        assert torch.equal(mine, whole.half().float() if variant else whole)
    assert (loaded.fingerprint == plain.fingerprint) == (variant == "")


def test_half_precision_is_read_as_it_is_stored(backbone_folder: Path, tmp_path: Path) -> None:
    """Widened first, it would take the host three times its size; what is mixed is widened."""
    folder = as_variant(backbone_folder, tmp_path / "half", "fp16")
    read = load_whole(UNet2DConditionModel, str(folder), "unet", {"local_files_only": True})
    assert {x.dtype for x in read.parameters()} == {torch.float16}
    path = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    tensors = load_file(path)
    first = next(iter(tensors))
    save_file(tensors | {first: tensors[first].float() + 1e-4}, path, metadata={"format": "pt"})
    mixed = load_whole(UNet2DConditionModel, str(folder), "unet", {"local_files_only": True})
    assert {x.dtype for x in mixed.parameters()} == {torch.float32}
    assert torch.equal(mixed.state_dict()[first], tensors[first].float() + 1e-4)


def test_plain_weights_come_before_a_variant_and_averaged_ones_before_those_that_are_not(
    backbone_folder: Path, tmp_path: Path
) -> None:
    folder = as_variant(backbone_folder, tmp_path / "half", "fp16")
    fp16 = folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    shutil.copy(fp16, fp16.with_name("diffusion_pytorch_model.non_ema.safetensors"))
    broken = fp16.with_name("diffusion_pytorch_model.bin")
    broken.write_bytes(b"a pickle, which is not opened")
    load(folder)
    fp16.write_bytes(b"torn")
    with pytest.raises(BackboneError, match="not a readable safetensors file"):
        load(folder)
    shutil.copy(backbone_folder / "unet" / "diffusion_pytorch_model.safetensors", fp16.parent)
    load(folder)


def test_a_pickle_with_code_is_refused(backbone_folder: Path, tmp_path: Path) -> None:
    folder = as_variant(backbone_folder, tmp_path / "bin", "", "bin")
    torch.save({"a": Path("x")}, folder / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(BackboneError, match="cannot be loaded") as refused:
        load(folder)
    assert "\n" not in str(refused.value)


def test_a_hubs_cache_and_an_id_that_was_fetched(backbone_folder: Path, no_cache: Path) -> None:
    model = no_cache / "models--someone--a-model"
    for name in ("abc", "def"):
        (model / "snapshots" / name).mkdir(parents=True)
        for part in backbone_folder.iterdir():
            (model / "snapshots" / name / part.name).symlink_to(part)
    with pytest.raises(BackboneError, match=r"holds 2 snapshots; write .*abc or .*def"):
        load(model)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("def\n")
    for source in (model, model / "snapshots", "someone/a-model"):
        assert locate(source, offline=True).path == model / "snapshots" / "def"
    assert load("someone/a-model").fingerprint == load(backbone_folder).fingerprint
    with pytest.raises(BackboneError, match="no such folder or file, and asking a hub is off"):
        load("someone/another-model")


def test_a_hubs_model_with_half_precision_files_alone(backbone_folder: Path, no_cache: Path, tmp_path: Path) -> None:
    """Asked by its id, as with `offline = false`, libraries look into the hub's cache themselves."""
    folder = as_variant(backbone_folder, tmp_path / "half", "fp16")
    model = no_cache / "models--someone--a-model"
    (model / "refs").mkdir(parents=True)
    commit = "0123456789" * 4
    (model / "refs" / "main").write_text(commit)
    shutil.copytree(folder, model / "snapshots" / commit)
    options = {"local_files_only": True, "cache_dir": str(no_cache)}
    with quiet():
        for plugin, part in ((UNet2DConditionModel, "unet"), (CLIPTextModel, "text_encoder")):
            read = load_whole(plugin, "someone/a-model", part, options)
            wanted = load_whole(plugin, str(folder), part, {"local_files_only": True}).state_dict()
            assert all(torch.equal(x.float(), wanted[name].float()) for name, x in read.state_dict().items())


# ---- one file ------------------------------------------------------------------------------------------------------


def original_unet(unet: Any) -> dict[str, Tensor]:
    """Name a UNet's tensors as the first releases did, written out from their modules' order."""
    layers, named = unet.config.layers_per_block, {}
    resnet = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1"}
    resnet |= {"norm2": "out_layers.0", "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}
    plain = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    plain |= {"add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
    plain |= {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    last = len(unet.config.block_out_channels) - 1
    for name, tensor in unet.state_dict().items():
        module, _, leaf = name.rpartition(".")
        if module in plain:
            named[f"{plain[module]}.{leaf}"] = tensor
            continue
        side, *place = name.split(".")
        if side == "mid_block":
            at = f"middle_block.{2 * int(place[1]) if place[0] == 'resnets' else 1}"
            remaining = place[2:]
        else:
            level, kind, number = int(place[0]), place[1], int(place[2])
            remaining = place[3:]
            if side == "down_blocks":
                block = 1 + level * (layers + 1) + (layers if kind == "downsamplers" else number)
                slot = {"resnets": 0, "attentions": 1, "downsamplers": 0}[kind]
                remaining = ["op", *remaining[1:]] if kind == "downsamplers" else remaining
                at = f"input_blocks.{block}.{slot}"
            else:
                block = level * (layers + 1) + (layers if kind == "upsamplers" else number)
                attends = "CrossAttn" in unet.config.up_block_types[level]
                slot = {"resnets": 0, "attentions": 1, "upsamplers": 2 if attends else 1}[kind]
                at = f"output_blocks.{block}.{slot}"
        if remaining[0] in resnet:
            remaining = [resnet[remaining[0]], *remaining[1:]]
        named[".".join((at, *remaining))] = tensor
    assert last and len(named) == len(unet.state_dict())
    return {f"model.diffusion_model.{name}": tensor for name, tensor in named.items()}


def original_vae(vae: Any) -> dict[str, Tensor]:
    levels, named = len(vae.config.block_out_channels), {}
    for name, tensor in vae.state_dict().items():
        name = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", name)
        name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d+)\.resnets", lambda at: f"up.{levels - 1 - int(at[1])}.block", name)
        name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda at: f"up.{levels - 1 - int(at[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda at: f"mid.block_{int(at[1]) + 1}", name)
        for ours, theirs in (
            ("mid_block.attentions.0.group_norm", "mid.attn_1.norm"),
            *((f"mid_block.attentions.0.to_{x}.", f"mid.attn_1.{x}.") for x in "qkv"),
            ("mid_block.attentions.0.to_out.0", "mid.attn_1.proj_out"),
            ("conv_norm_out", "norm_out"),
            ("conv_shortcut", "nin_shortcut"),
        ):
            name = name.replace(ours, theirs)
        projects = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", name)
        named[f"first_stage_model.{name}"] = tensor[..., None, None] if projects else tensor
    return named


def original_open_clip(model: Any, prefix: str, extra_layer: bool) -> dict[str, Tensor]:
    """Name a text encoder's tensors as open_clip does; with a last layer that Stable Diffusion 2 leaves out."""
    state = {name.removeprefix("text_model."): tensor for name, tensor in model.state_dict().items()}
    named = {
        "token_embedding.weight": state["embeddings.token_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "ln_final.weight": state["final_layer_norm.weight"],
        "ln_final.bias": state["final_layer_norm.bias"],
    }
    width = model.config.hidden_size
    projection = state.get("text_projection.weight")
    named["text_projection"] = torch.eye(width) if projection is None else projection.T.contiguous()
    layers = model.config.num_hidden_layers
    for number in range(layers):
        at, to = f"encoder.layers.{number}.", f"transformer.resblocks.{number}."
        for leaf in ("weight", "bias"):
            heads = [state[f"{at}self_attn.{x}_proj.{leaf}"] for x in "qkv"]
            named[f"{to}attn.in_proj_{leaf}"] = torch.cat(heads)
            for ours, theirs in (
                ("self_attn.out_proj", "attn.out_proj"),
                ("layer_norm1", "ln_1"),
                ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"),
                ("mlp.fc2", "mlp.c_proj"),
            ):
                named[f"{to}{theirs}.{leaf}"] = state[f"{at}{ours}.{leaf}"]
    if extra_layer:
        last = f"transformer.resblocks.{layers - 1}."
        named |= {
            name.replace(last, f"transformer.resblocks.{layers}."): torch.full_like(x, 9.0)
            for name, x in named.items()
            if name.startswith(last)
        }
    return {prefix + name: tensor for name, tensor in named.items()}


FORMS = ("1", "1 inpainting", "2", "XL")


def networks_of(form: str) -> dict[str, Any]:
    """Small networks of a family, of the real classes, with the heads and activations that its releases have."""
    family, channels = form.split()[0], 9 if "inpainting" in form else 4
    tokens = builtin.tokenizer(["a photo of a crack on tile", "a photo of sound surface"])
    text = {"vocab_size": len(tokens), "num_hidden_layers": 2, "max_position_embeddings": builtin.TEXT_LENGTH}
    text |= {"bos_token_id": tokens.bos_token_id, "eos_token_id": tokens.eos_token_id}
    first = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 1, "hidden_act": "quick_gelu"}
    second = {"hidden_size": 128, "intermediate_size": 96, "num_attention_heads": 2, "hidden_act": "gelu"}
    parts: dict[str, Any] = {"tokenizer": tokens}
    parts["text_encoder"] = CLIPTextModel(CLIPTextConfig(**text, **(second if family == "2" else first)))
    unet: dict[str, Any] = {"cross_attention_dim": {"1": 64, "2": 128, "XL": 192}[family]}
    if family == "XL":
        parts["tokenizer_2"] = tokens
        parts["text_encoder_2"] = CLIPTextModelWithProjection(CLIPTextConfig(**text, **second, projection_dim=128))
        unet |= {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}
        unet |= {"projection_class_embeddings_input_dim": 128 + 48, "transformer_layers_per_block": (1, 2)}
        kinds = ("DownBlock2D", "CrossAttnDownBlock2D"), ("CrossAttnUpBlock2D", "UpBlock2D")
    else:
        kinds = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    unet |= (
        {"attention_head_dim": 8} if family == "1" else {"attention_head_dim": (1, 2), "use_linear_projection": True}
    )
    parts["unet"] = UNet2DConditionModel(
        sample_size={"2": 96, "XL": 128}.get(family, 64),  # that of version 2 predicts velocity
        in_channels=channels,
        out_channels=4,
        block_out_channels=(64, 128),
        down_block_types=kinds[0],
        up_block_types=kinds[1],
        layers_per_block=1,
        **unet,
    )
    parts["vae"] = AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        scaling_factor=0.13025 if family == "XL" else 0.18215,
    )
    return parts


def one_file(form: str, parts: dict[str, Any], path: Path) -> Path:
    """Write networks as one file of the original layout, with the folder `tokenizer` beside it."""
    family = form.split()[0]
    tensors = {**original_unet(parts["unet"]), **original_vae(parts["vae"])}
    if family == "2":
        tensors |= original_open_clip(parts["text_encoder"], "cond_stage_model.model.", extra_layer=True)
    else:
        at = "conditioner.embedders.0" if family == "XL" else "cond_stage_model"
        state = {name.removeprefix("text_model."): x for name, x in parts["text_encoder"].state_dict().items()}
        tensors |= {f"{at}.transformer.text_model.{name}": tensor for name, tensor in state.items()}
    if family == "XL":
        tensors |= original_open_clip(parts["text_encoder_2"], "conditioner.embedders.1.model.", extra_layer=False)
    tensors["model_ema.decay"] = torch.tensor(0.0)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    else:
        torch.save({"state_dict": tensors, "global_step": 470000}, path)
    for name in ("tokenizer", "tokenizer_2"):
        if name in parts:
            parts[name].save_pretrained(path.parent / name)
    return path


def folder_of(form: str, parts: dict[str, Any], folder: Path) -> Path:
    """Write the same networks as a diffusers folder."""
    with quiet():
        for name, part in parts.items():
            part.save_pretrained(folder / name)
    (folder / "scheduler").mkdir()
    schedule = companions.SCHEDULE | {"prediction_type": "v_prediction" if form == "2" else "epsilon"}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))
    return folder


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_one_file_is_the_same_model_as_its_folder(form: str, tmp_path: Path) -> None:
    torch.manual_seed(FORMS.index(form))
    parts = networks_of(form)
    path = one_file(form, parts, tmp_path / "models" / "model.safetensors")
    if form == "2":
        path.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    mine, whole = load(path), load(folder_of(form, parts, tmp_path / "folder"))
    assert mine.fingerprint == whole.fingerprint
    assert (mine.inpaints, mine.size, mine.noise.target) == (whole.inpaints, whole.size, whole.noise.target)
    torch.testing.assert_close(mine.noise.alphas, whole.noise.alphas)
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    latent = mine.encode(picture)
    assert torch.equal(latent, whole.encode(picture)) and torch.equal(mine.decode(latent), whole.decode(latent))
    given = {"mask": torch.ones(1, 1, 4, 4), "masked": latent} if mine.inpaints else {}
    said = [one.predict(latent, torch.tensor([500]), one.embed(["a crack"]), **given) for one in (mine, whole)]
    torch.testing.assert_close(*said, rtol=1e-5, atol=1e-5)
    dropped = mine.predict(latent, torch.tensor([500]), mine.embed([None]), **given)
    assert float((said[0] - dropped).abs().max()) > 1e-3, "the text does nothing here"


PUBLISHED: dict[str, tuple[dict[str, Any], tuple[dict[str, Any], ...], float]] = {
    "1 inpainting": (
        {"in_channels": 9, "cross_attention_dim": 768, "attention_head_dim": 8},
        ({"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},),
        859.54,
    ),
    "2": (
        {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
        ({"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16},),
        865.91,
    ),
    "XL": (
        {
            "sample_size": 128,
            "block_out_channels": [320, 640, 1280],
            "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            "transformer_layers_per_block": [1, 2, 10],
            "cross_attention_dim": 2048,
            "attention_head_dim": [5, 10, 20],
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        (
            {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
            {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "projection_dim": 1280}
            | {"num_attention_heads": 20},
        ),
        2567.46,
    ),
}
"""Form -> what published configurations say of the UNet and the text encoders; the UNet's parameters in millions."""


@pytest.mark.parametrize("form", PUBLISHED)
def test_the_published_sizes_are_told_from_their_shapes(form: str) -> None:
    unet, texts, millions = PUBLISHED[form]
    vae = {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "latent_channels": 4}
    kinds = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    classes = (CLIPTextModel, CLIPTextModelWithProjection)
    with init_empty_weights():  # no memory
        network, autoencoder = UNet2DConditionModel(**unet), AutoencoderKL(**vae, **kinds)
        encoders = [plugin(CLIPTextConfig(**one)) for plugin, one in zip(classes, texts, strict=False)]
    tensors = {**original_unet(network), **original_vae(autoencoder)}
    family = form.split()[0]
    if family == "2":
        tensors |= original_open_clip(encoders[0], "cond_stage_model.model.", extra_layer=True)
    else:
        at = "conditioner.embedders.0" if family == "XL" else "cond_stage_model"
        state = {name.removeprefix("text_model."): x for name, x in encoders[0].state_dict().items()}
        tensors |= {f"{at}.transformer.text_model.{name}": tensor for name, tensor in state.items()}
    if family == "XL":
        tensors |= original_open_clip(encoders[1], "conditioner.embedders.1.model.", extra_layer=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found = recognise(shapes, Path("x.safetensors"))
    assert found.family == f"Stable Diffusion {family}"
    assert {name: found.configs["unet"][name] for name in unet} == unet
    assert {name: found.configs["vae"][name] for name in vae} == vae
    for part, one in zip(("text_encoder", "text_encoder_2"), texts, strict=False):
        assert {name: found.configs[part][name] for name in one} == one
    parameters = sum(math.prod(shape) for name, shape in shapes.items() if name.startswith("model.diffusion_model."))
    assert parameters / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of Stable Diffusion 1's shape, with its tokenizer beside."""
    torch.manual_seed(0)
    return one_file("1", networks_of("1"), tmp_path_factory.mktemp("one") / "v1-5.safetensors")


def test_a_ckpt_is_read_without_its_code(first: Path, tmp_path: Path) -> None:
    path = tmp_path / "v1-5.ckpt"
    shutil.copytree(first.parent / "tokenizer", tmp_path / "tokenizer")
    torch.save({"state_dict": load_file(first), "global_step": 1}, path)
    assert load(path).fingerprint == load(first).fingerprint
    torch.save({"state_dict": load_file(first), "callbacks": Path("code")}, path)
    with pytest.raises(
        BackboneError, match=r"cannot be read as weights .*; take the model's \.safetensors file"
    ) as refused:
        load(path)
    assert "\n" not in str(refused.value)


def test_configurations_beside_the_file_are_taken(first: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    shutil.copy(first, path)
    beside = tmp_path / "mine"
    shutil.copytree(first.parent / "tokenizer", beside / "tokenizer")
    for part, stated in (("unet", {"sample_size": 8}), ("vae", {"scaling_factor": 0.5})):
        (beside / part).mkdir()
        (beside / part / "config.json").write_text(json.dumps(stated))
    (beside / "scheduler").mkdir()
    schedule = companions.SCHEDULE | {"prediction_type": "v_prediction", "beta_end": 0.02}
    (beside / "scheduler" / "scheduler_config.json").write_text(json.dumps(schedule))
    back = load(path)
    assert (back.size, back.vae.config.scaling_factor, back.noise.target) == (64, 0.5, "v_prediction")
    assert float(back.noise.alphas[-1]) < float(load(first).noise.alphas[-1])
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    (beside / "scheduler" / "scheduler_config.json").write_text(json.dumps(flow))
    with pytest.raises(BackboneError, match="mine/scheduler: FlowMatchEulerDiscreteScheduler is not supported"):
        locate(path, offline=True)


def without(*prefixes: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda tensors: {name: x for name, x in tensors.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("first_stage_model"), "the autoencoder is not in it"),
        (without("first_stage_model", "cond_stage_model"), "the autoencoder and the text encoder is not in it"),
        (without("model."), "holds no Stable Diffusion 1.x, 2.x or XL in the original layout"),
        (
            lambda tensors: {"double_blocks.0.img_attn.qkv.weight": torch.zeros(1)},
            r"tensors begin with double_blocks\)",
        ),
        (lambda tensors: tensors | {"conditioner.embedders.0.model.ln_final.bias": torch.zeros(1)}, "XL's refiner"),
        (lambda tensors: tensors | {"edm_mean": torch.zeros(4)}, "is a model of EDM's schedule"),
        (lambda tensors: tensors | {"model.diffusion_model.label_emb.weight": torch.zeros(1)}, "class labels"),
        (without("model.diffusion_model.out.2.weight"), r"out\.2\.weight' is missing"),
        (without("model.diffusion_model.out.2.bias"), r"unet: 1 tensors are missing .*, e\.g\. conv_out\.bias"),
        (without("first_stage_model.quant_conv.bias"), r"vae: 1 tensors are missing .*, e\.g\. quant_conv\.bias"),
        (without("cond_stage_model.transformer.text_model.final_layer_norm"), "text_encoder: 2 tensors are missing"),
        (
            lambda tensors: tensors | {"model.diffusion_model.time_embed.cond_proj.weight": torch.zeros(1)},
            "this variant of the model is not supported as one file",
        ),
    ],
)
def test_a_file_that_is_not_whole_is_one_sentence(
    first: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], sentence: str
) -> None:
    path = tmp_path / "other.safetensors"
    shutil.copytree(first.parent / "tokenizer", tmp_path / "tokenizer")
    save_file(change(load_file(first)), path)
    with pytest.raises(BackboneError, match=sentence) as refused:
        load(path)
    assert "\n" not in str(refused.value) and str(path) in str(refused.value)


def test_what_check_says_of_a_file(first: Path, tmp_path: Path, no_cache: Path) -> None:
    """Words and schedule are looked for without loading; a torn file and a picture are seen too."""
    path = tmp_path / "alone.safetensors"
    shutil.copy(first, path)
    with pytest.raises(BackboneError, match=r"does not hold the words of its tokenizer; put a folder `tokenizer`"):
        locate(path, offline=True)
    assert locate(path, offline=False).is_file
    words = no_cache / "models--openai--clip-vit-large-patch14" / "snapshots" / "abc"
    shutil.copytree(first.parent / "tokenizer", words)
    assert locate(path, offline=True).path == path and companions.words_of(path) == words
    path.write_bytes(first.read_bytes()[:-10])
    with pytest.raises(BackboneError, match="not a readable safetensors file .it is not whole."):
        locate(path, offline=True)
    path.write_bytes(b"not weights")
    with pytest.raises(BackboneError, match="not a readable safetensors file"):
        locate(path, offline=True)
    (tmp_path / "a.png").touch()
    with pytest.raises(BackboneError, match="is a file, but none of weights"):
        locate(tmp_path / "a.png", offline=True)


def test_what_a_plain_model_of_version_2_predicts_is_not_guessed(tmp_path: Path) -> None:
    path = one_file("2", networks_of("2"), tmp_path / "768-v.safetensors")
    with pytest.raises(BackboneError, match=r"predicts noise or velocity.*put its 768-v\.yaml beside it"):
        locate(path, offline=True)
    path.with_suffix(".yaml").write_text("model: {}\n")
    assert companions.schedule_of(path, recognise(shapes_in(path), path), ())["prediction_type"] == "epsilon"


def test_words_of_open_clip(first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of byte pairs in open_clip's package makes CLIP's tokenizer."""
    listed = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    listed.write_bytes(gzip.compress(b"#version: 0.2\nc r\ncr a\ncra c\ncrac k</w>"))
    found = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(companions, "find_spec", lambda name: found)
    alone = tmp_path / "alone.safetensors"
    shutil.copy(first, alone)
    assert companions.words_of(alone) == listed
    tokenizer = single_file._from_merges(listed)
    # 512 letters, then the four pairs, then the two marks; "!" is the first letter.
    assert tokenizer("Crack!").input_ids == [516, 515, 256, 517] and tokenizer.model_max_length == 77


def test_a_velocity_model_of_version_2_works_on_768_pixels(tmp_path: Path) -> None:
    """For `windows.size = 0`, and as `check` says it; a config.json beside the file wins."""
    path = one_file("2", networks_of("2"), tmp_path / "mine.safetensors")
    sizes = {}
    for said, line in (("noise", "model: {}"), ("velocity", "parameterization: v")):
        path.with_suffix(".yaml").write_text(f"{line}\n")
        facts = facts_of(locate(path, offline=True))
        assert facts is not None and facts.size == load(path).size
        sizes[said] = facts.size
    assert sizes == {"noise": 512, "velocity": 768}
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "config.json").write_text(json.dumps({"sample_size": 8}))
    facts = facts_of(locate(path, offline=True))
    assert facts is not None and facts.size == load(path).size == 64
