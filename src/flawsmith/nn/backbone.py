"""One frozen diffusion model, from one diffusers folder: encode, decode, embed, predict, fork.

Stable Diffusion 1.x (C-channel UNet), its inpainting form ((2C+1)-channel UNet) and the built-in backbone are told
apart only in `predict`. Only diffusers' models and schedulers are used, never its pipelines.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderDC, AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from flawsmith.errors import BackboneError
from flawsmith.nn import builtin
from flawsmith.nn.attention import use_small_attention
from flawsmith.nn.cpu_kernels import use_plane_norms, use_split_gates
from flawsmith.nn.diffusion import Noise
from flawsmith.nn.weights import tensor_hash

_AUTOENCODERS: dict[str, Any] = {defect.__name__: defect for defect in (AutoencoderDC, AutoencoderKL, AutoencoderTiny)}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class Backbone:
    """A frozen text-to-image diffusion model and its arithmetic. Nothing here is ever trained or changed in place."""

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: dict[str, Any],
        *,
        name: str = "unnamed",
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        self.name = name
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        self.vae, self.text_encoder, self.unet = (_frozen(m, self.device) for m in (vae, text_encoder, unet))
        self.tokenizer = tokenizer
        self.noise = Noise(scheduler)
        self.latent_channels = int(vae.config.latent_channels)
        self.inpaints = _inpaints(unet.config.in_channels, self.latent_channels, name)
        self.factor = 2 ** (len(_widths(vae)) - 1)
        self.size = int(unet.config.sample_size) * self.factor
        self.fingerprint = tensor_hash(
            {
                f"{part}.{key}": value
                for part in ("vae", "text_encoder", "unet")
                for key, value in getattr(self, part).state_dict().items()
            }
        )
        self._texts: dict[str, Tensor] = {}
        # Weights are stored in the working precision only after the fingerprint is taken, so that it names the model
        # and not the precision it happens to run in.
        for module in (self.vae, self.text_encoder, self.unet):
            cast(module, self.dtype)

    @classmethod
    def load(
        cls, source: str | Path = "builtin", *, offline: bool = True, device: str = "auto", dtype: str = "auto"
    ) -> Backbone:
        """Read a backbone.

        Args:
            source: "builtin", a diffusers folder (vae/, text_encoder/, tokenizer/, unet/, scheduler/), or a hub id.
            offline: True = a hub is never asked, also not for a file that is missing.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            dtype: "auto", "float32", "bfloat16", "float16".

        Raises:
            BackboneError: the folder is not there or incomplete, a class is not supported, or shapes do not fit.
        """
        folder = builtin.folder() if str(source) == "builtin" else Path(source)
        if not folder.is_dir():
            if offline:
                raise BackboneError(
                    f"backbone {str(source)!r}: no such folder, and asking a hub is off; "
                    'name a diffusers folder, "builtin", or set backbone.offline = false'
                )
            place: str = str(source)
        else:
            place = str(folder)
            missing = [
                part
                for part in ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
                if not (folder / part).is_dir()
            ]
            if missing:
                raise BackboneError(f"{folder}: not a whole diffusers folder; {', '.join(missing)} is missing")
        options: dict[str, Any] = {"local_files_only": offline}
        try:
            with quiet():
                vae = _autoencoder(place, options)
                unet = _whole(UNet2DConditionModel, place, "unet", options)
                text_encoder = _whole(CLIPTextModel, place, "text_encoder", options)
                tokenizer = CLIPTokenizer.from_pretrained(place, subfolder="tokenizer", **options)
                from diffusers import DDIMScheduler

                scheduler = DDIMScheduler.load_config(place, subfolder="scheduler", **options)
        except BackboneError:
            raise
        except Exception as error:  # every library below raises its own defect type for a broken file
            raise BackboneError(f"backbone {str(source)!r}: cannot be loaded: {_first_line(error)}") from error
        return cls(vae, text_encoder, tokenizer, unet, dict(scheduler), name=str(source), device=device, dtype=dtype)

    def save(self, folder: Path, dtype: torch.dtype = torch.float16, shard: str = "16MB") -> None:
        """Write a diffusers folder: config.json and safetensors in `dtype` for each part."""
        with quiet():
            for part in ("vae", "unet", "text_encoder"):
                module = copy.deepcopy(getattr(self, part)).cpu()
                cast(module, dtype, torch.contiguous_format)
                if part != "text_encoder" and "_name_or_path" in module.config:
                    module.register_to_config(_name_or_path="")  # else where it was read from is told to the world
                module.save_pretrained(folder / part, max_shard_size=shard)
            self.tokenizer.save_pretrained(folder / "tokenizer")
            self.noise.schedule.save_pretrained(folder / "scheduler")
        index = {
            "_class_name": "StableDiffusionInpaintPipeline",
            "vae": ["diffusers", type(self.vae).__name__],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "scheduler": ["diffusers", "DDIMScheduler"],
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
        }
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Return latents float32 (B,C,h,w), the posterior's mean, of images float32 (B,3,H,W) RGB in [-1,1]."""
        seen = self.vae.encode(self._in(image))
        latent = next((seen[name] for name in ("latent", "latents") if name in seen), None)
        latent = seen.latent_dist.mean if latent is None else latent
        return (latent.float() - self._shift()) * float(self.vae.config.scaling_factor)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Return images float32 (B,3,H,W) RGB in [-1,1] of latents (B,C,h,w)."""
        plain = latent.float() / float(self.vae.config.scaling_factor) + self._shift()
        return self.vae.decode(self._in(plain)).sample.float().clamp(-1, 1)

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """Return text float32 (B,T,D); each distinct text is encoded once in the backbone's life."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if fresh:
            states = self.text_encoder(self.tokens(fresh).to(self.device)).last_hidden_state.float()
            self._texts.update(zip(fresh, states, strict=True))
        return torch.stack([self._texts[text] for text in texts])

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Return the texts' token numbers, int64 (B,T), on the CPU."""
        return token_numbers(self.tokenizer, self.text_encoder, texts)

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Return float32 (B,1,h,w) in {0,1}: a cell is 1 when any of its pixels is.

        Diffusers' pipelines take the nearest pixel, so damage thinner than a cell may vanish; here it cannot.
        """
        return nn.functional.max_pool2d(mask.float(), self.factor)

    def predict(
        self,
        latent: Tensor,
        t: Tensor,
        text: Tensor,
        *,
        mask: Tensor | None = None,
        masked: Tensor | None = None,
        residuals: tuple[Sequence[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the UNet's raw output float32 (B,C,h,w); gradients pass through to `residuals`.

        Args:
            latent: Noisy latent (B,C,h,w).
            t: int64 (B,).
            text: (B,T,D).
            mask: (B,1,h,w), 1 = to paint; needed by an inpainting UNet, ignored by a plain one.
            masked: (B,C,h,w), the latent of the picture with the mask greyed out; likewise.
            residuals: A ControlNet's (down blocks, middle block).
        """
        seen = latent
        if self.inpaints:
            if mask is None or masked is None:
                raise ValueError(f"{self.name} is an inpainting backbone: predict needs mask and masked")
            seen = torch.cat([latent, mask, masked], dim=1)
        down, middle = residuals if residuals is not None else (None, None)
        return self.unet(
            self._in(seen),
            t,
            encoder_hidden_states=text.to(self.dtype),
            down_block_additional_residuals=None if down is None else [x.to(self.dtype) for x in down],
            mid_block_additional_residual=None if middle is None else middle.to(self.dtype),
            return_dict=False,
        )[0].float()

    def fork(self) -> Backbone:
        """Return a backbone with its own UNet on the same parameter storage, whose attention may be replaced freely."""
        twin = copy.copy(self)
        shared = {id(tensor): tensor for tensor in (*self.unet.parameters(), *self.unet.buffers())}
        twin.unet = copy.deepcopy(self.unet, memo=shared)
        twin._texts = dict(self._texts)
        return twin

    def _in(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)

    def _shift(self) -> float:
        return float(getattr(self.vae.config, "shift_factor", None) or 0.0)


def token_numbers(tokenizer: Any, text_encoder: Any, texts: Sequence[str]) -> Tensor:
    """Return int64 (B,T) on the CPU: texts padded and cut to what a text encoder reads."""
    length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
    seen = tokenizer(list(texts), padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    ids: Tensor = seen.input_ids
    return ids


def pick_device(name: str) -> torch.device:
    """Turn "auto" into the best device there is; refuse one that is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps", "xpu"):
        raise BackboneError(f"backbone.device {name!r}: unknown; use auto, cpu, cuda, cuda:1 or mps") from None
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise BackboneError(
            f"backbone.device {name!r}: no such GPU here ({torch.cuda.device_count()} found); use auto or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise BackboneError(f"backbone.device {name!r}: not available here; use auto or cpu")
    return device


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn "auto" into bfloat16 where the hardware gains from it (GPUs; CPUs with AMX or AVX512-bf16), else float32."""
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and gains_from_bfloat16():
        return torch.bfloat16
    return torch.float32


def gains_from_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices in hardware; without that, float32 is faster."""
    for probe in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        check = getattr(torch.cpu, probe, None)
        if check is not None and check():
            return True
    return False


def _frozen(module: Any, device: torch.device) -> Any:
    module = cast(module.to(device), torch.float32).eval().requires_grad_(False)
    if hasattr(module, "set_attn_processor"):
        use_small_attention(module)
        use_plane_norms(module)
        use_split_gates(module)
    return module


def cast(module: Any, dtype: torch.dtype, layout: torch.memory_format = torch.channels_last) -> Any:
    """Put a network into a precision and a memory layout, in place, and return it."""
    # torch's own `to`: diffusers' logs a line about float32 modules, of which these classes have none.
    nn.Module.to(module, dtype=dtype)
    nn.Module.to(module, memory_format=layout)  # type: ignore[call-overload]
    return module


@contextmanager
def quiet() -> Iterator[None]:
    """Keep diffusers and transformers from printing their own bars and advice; errors still come through."""
    levels = diffusers_logging.get_verbosity(), transformers_logging.get_verbosity()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for log in (diffusers_logging, transformers_logging):
            log.set_verbosity_error()
            log.disable_progress_bar()
        try:
            yield
        finally:
            diffusers_logging.set_verbosity(levels[0])
            transformers_logging.set_verbosity(levels[1])


def _autoencoder(place: str, options: dict[str, Any]) -> Any:
    config = AutoencoderKL.load_config(place, subfolder="vae", **options)
    defect = config.get("_class_name")
    if defect not in _AUTOENCODERS:
        raise BackboneError(f"{place}/vae: class {defect} is not supported; known: {', '.join(_AUTOENCODERS)}")
    return _whole(_AUTOENCODERS[defect], place, "vae", options)


def _whole(plugin: Any, place: str, part: str, options: dict[str, Any]) -> Any:
    # What a file lacks would be left empty by diffusers and filled with random numbers by transformers.
    model, found = plugin.from_pretrained(place, subfolder=part, output_loading_info=True, **options)
    missing = sorted(found["missing_keys"])
    if missing:
        raise BackboneError(f"{place}/{part}: {len(missing)} tensors missing from its weights, e.g. {missing[0]}")
    return model


def _widths(vae: Any) -> Sequence[int]:
    widths: Sequence[int] = getattr(vae.config, "block_out_channels", None) or vae.config.encoder_block_out_channels
    return widths


def _inpaints(channels: int, latent: int, name: str) -> bool:
    if channels == latent:
        return False
    if channels == 2 * latent + 1:
        return True
    raise BackboneError(
        f"{name}: the UNet takes {channels} channels; with {latent} latent channels it should be {latent} (plain) "
        f"or {2 * latent + 1} (inpainting)"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
