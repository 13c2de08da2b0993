"""One frozen diffusion model, from one diffusers folder or file: encode, decode, embed, predict, fork.

Stable Diffusion 1.x and XL, plain (a UNet of C channels) or inpainting (2C+1 channels), and the built-in backbone are
told apart here and in `text.py` only. diffusers' models and schedulers are used, never its pipelines.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flawsmith.nn.attention import use_small_attention
from flawsmith.nn.cpu_kernels import use_plane_norms, use_split_gates
from flawsmith.nn.device import pick_device, pick_dtype
from flawsmith.nn.diffusion import Noise, guidance_embedding
from flawsmith.nn.loading.constants import constants_of
from flawsmith.nn.loading.facts import inpaints
from flawsmith.nn.loading.low_rank import add_low_rank
from flawsmith.nn.loading.networks import quiet
from flawsmith.nn.loading.parts import read_parts
from flawsmith.nn.loading.source import locate
from flawsmith.nn.memory.parking import at_work
from flawsmith.nn.memory.slices import decoded, encoded
from flawsmith.nn.text import Text, TextEncoder
from flawsmith.nn.weights import tensor_hash

_FINGERPRINTS: dict[tuple[tuple[str, int, int], ...], str] = {}
"""(path, size, time of change) of a folder's weights -> their fingerprint: hashed once in a process."""


class Backbone:
    """A frozen text-to-image diffusion model and its arithmetic. Nothing here is ever trained or changed in place."""

    def __init__(
        self,
        vae: Any,
        text_encoder: TextEncoder,
        unet: Any,
        scheduler: dict[str, Any],
        *,
        name: str = "unnamed",
        device: str = "auto",
        dtype: str = "auto",
        fingerprint: str = "",
        clip_skip: int = 0,
        lora: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        self.vae, self.unet = (_frozen(network, self.device) for network in (vae, unet))
        self.text_encoder = text_encoder.skipping(clip_skip)
        for model in text_encoder.models:
            _frozen(model, self.device)
        self.noise = Noise(scheduler)
        self.latent_channels = int(vae.config.latent_channels)
        self.inpaints = inpaints(unet.config.in_channels, self.latent_channels, name)
        self.factor = 2 ** (len(_widths(vae)) - 1)
        self.size = int(unet.config.sample_size) * self.factor
        self.fingerprint = fingerprint or tensor_hash(
            {f"{part}.{key}": tensor for part, net in self._parts().items() for key, tensor in net.state_dict().items()}
        )
        self.weights = self.fingerprint
        """The fingerprint of the weights alone."""
        if clip_skip:
            self.fingerprint = f"{self.fingerprint}-skip{clip_skip}"
        self.reads_guidance = bool(unet.config.get("time_cond_proj_dim"))
        """True: a UNet that was distilled with guidance, whose weight it is told (LCM)."""
        self._texts: dict[str | None, Text] = {}
        self._read: dict[tuple[int, ...], Text] = {}
        # Weights are stored in the working precision only after the fingerprint is taken, so that it names the model
        # and not the precision it happens to run in.
        widened = self.dtype == torch.float32
        changed = "" if widened else add_low_rank(self.unet, lora)  # rounded once, where it is rounded least
        for network in self._parts().values():
            cast(network, self.dtype)
        self.fingerprint += add_low_rank(self.unet, lora) if widened else changed
        self.constants = constants_of(
            self.noise.config, vae.config, text_encoder.tokenizers, getattr(text_encoder, "drops_to_zeros", None)
        )
        """A digest of what decides its arithmetic beside its weights; not part of the fingerprint."""
        if self.dtype == torch.float16 and text_encoder.vae_overflows and vae.config.get("force_upcast"):
            cast(self.vae, torch.float32)

    @classmethod
    def load(
        cls,
        source: str | Path = "builtin",
        *,
        offline: bool = True,
        device: str = "auto",
        dtype: str = "auto",
        clip_skip: int = 0,
        weights: str = "",
        lora: Sequence[str] = (),
    ) -> Backbone:
        """Read a backbone.

        Args:
            source: "builtin", a diffusers folder (vae/, text_encoder/, tokenizer/, unet/, scheduler/, and for Stable
                Diffusion XL text_encoder_2/ and tokenizer_2/), a hub's cache, one file of weights, or a hub id.
            offline: True = a hub is never asked, also not for a file that is missing.
            device: "auto", "cpu", "cuda", "cuda:1", "mps".
            dtype: "auto", "float32", "bfloat16", "float16".
            clip_skip: How many of the text encoder's last layers are left out.
            weights: The fingerprint of its weights where that is known; hashing them takes longer than reading them.
            lora: Files of low-rank changes that are added to the UNet's weights.

        Raises:
            BackboneError: the folder is not there or incomplete, a class is not supported, or shapes do not fit.
        """
        place = locate(source, offline=offline)
        stamp = place.weights()
        parts = read_parts(place, offline=offline)
        fingerprint = weights or _FINGERPRINTS.get(stamp, "")
        loaded = cls(
            parts.vae,
            parts.text_encoder,
            parts.unet,
            parts.scheduler,
            name=place.name,
            device=device,
            dtype=dtype,
            fingerprint=fingerprint,
            clip_skip=clip_skip,
            lora=lora,
        )
        if stamp:
            _FINGERPRINTS[stamp] = loaded.weights
        return loaded

    def save(self, folder: Path, dtype: torch.dtype = torch.float16, shard: str = "16MB") -> None:
        """Write a diffusers folder: config.json and safetensors in `dtype` for each part."""
        index: dict[str, Any] = {
            "_class_name": "StableDiffusionInpaintPipeline",
            "scheduler": ["diffusers", "DDIMScheduler"],
            "safety_checker": [None, None],
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
        }
        if len(self.text_encoder.parts) > 1:
            index["_class_name"] = "StableDiffusionXLInpaintPipeline"
            index["force_zeros_for_empty_prompt"] = getattr(self.text_encoder, "drops_to_zeros", True)
        with quiet():
            for part, network in self._parts().items():
                copied = cast(copy.deepcopy(network).cpu(), dtype, torch.contiguous_format)
                library = "diffusers" if part in ("vae", "unet") else "transformers"
                if library == "diffusers" and "_name_or_path" in copied.config:
                    copied.register_to_config(_name_or_path="")  # else where it was read from is told to the world
                copied.save_pretrained(folder / part, max_shard_size=shard)
                index[part] = [library, type(network).__name__]
            for (_, part, _), tokenizer in zip(self.text_encoder.parts, self.text_encoder.tokenizers, strict=True):
                tokenizer.save_pretrained(folder / part)
                index[part] = ["transformers", "CLIPTokenizer"]
            self.noise.schedule.save_pretrained(folder / "scheduler")
        (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")

    @torch.no_grad()
    def encode(self, image: Tensor) -> Tensor:
        """Return latents float32 (B,C,h,w), the posterior's mean, of images float32 (B,3,H,W) RGB in [-1,1]."""
        return encoded(self.vae, image, self.device)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Return images float32 (B,3,H,W) RGB in [-1,1] of latents (B,C,h,w); NaN where numbers overflowed."""
        return decoded(self.vae, latent, self.factor, self.device)

    @torch.no_grad()
    def embed(self, texts: Sequence[str | None]) -> Text:
        """Return the text of B phrases, None = dropped text; each distinct one is encoded once."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            with at_work(self.text_encoder.models, self.device):
                text = self.text_encoder.read(self.tokens(new))
            self._texts.update((phrase, text[row : row + 1]) for row, phrase in enumerate(new))
        return Text.cat([self._texts[text] for text in texts])

    def tokens(self, texts: Sequence[str | None]) -> Tensor:
        """Return the phrases as token rows int64 (B,N) on the CPU, for `read`; None = dropped text."""
        return self.text_encoder.tokens(texts)

    def read(self, tokens: Tensor) -> Text:
        """Return the text of token rows int64 (B,N), each distinct one encoded once.

        While low-rank changes of the text encoder are trained, nothing is kept, and gradients pass to them.
        """
        distinct, rows = tokens.unique(dim=0, return_inverse=True)
        rows = rows.to(self.device)
        if self.text_encoder.trained:
            return self.text_encoder.read(distinct)[rows]
        keys = [tuple(row.tolist()) for row in distinct]
        new = [(key, row) for key, row in zip(keys, distinct, strict=True) if key not in self._read]
        with torch.no_grad(), self._plain(), at_work(self.text_encoder.models if new else (), self.device):
            self._read.update((key, self.text_encoder.read(row[None])) for key, row in new)
        return Text.cat([self._read[key] for key in keys])[rows]

    def latent_mask(self, mask: Tensor) -> Tensor:
        """Return float32 (B,1,h,w) in {0,1}: a cell is 1 when any of its pixels is.

        Diffusers' pipelines take the nearest pixel, so damage thinner than a cell may vanish; here it cannot.
        """
        return nn.functional.max_pool2d(mask.float(), self.factor)

    def pixels(self, latent: Tensor) -> tuple[int, int]:
        """Return height and width in pixels of the window that a latent (B,C,h,w) stands for."""
        return latent.shape[-2] * self.factor, latent.shape[-1] * self.factor

    def predict(
        self,
        latent: Tensor,
        t: Tensor,
        text: Text,
        *,
        mask: Tensor | None = None,
        masked: Tensor | None = None,
        residuals: tuple[Sequence[Tensor], Tensor] | None = None,
        guidance: float = 1.0,
    ) -> Tensor:
        """Return the UNet's raw output float32 (B,C,h,w); gradients pass through to `residuals`.

        Args:
            latent: Noisy latent (B,C,h,w).
            t: int64 (B,).
            text: B rows.
            mask: (B,1,h,w), 1 = to paint; needed by an inpainting UNet, ignored by a plain one.
            masked: (B,C,h,w), the latent of the picture with the mask greyed out; likewise.
            residuals: A ControlNet's (down blocks, middle block).
            guidance: Weight of the text, for a UNet that reads it; others do not look at it.
        """
        given = latent
        if self.inpaints:
            if mask is None or masked is None:
                raise ValueError(f"{self.name} is an inpainting backbone: predict needs mask and masked")
            given = torch.cat([latent, mask, masked], dim=1)
        down, middle = residuals if residuals is not None else (None, None)
        # In half precision it trains as it samples: autocast would make its norms float32, and keep them so.
        with self._plain() if next(self.unet.parameters()).dtype != torch.float32 else nullcontext():
            return self.unet(
                self._in(given, self.unet),
                t,
                **self.text_encoder.arguments(text, self.pixels(latent), self.dtype),
                down_block_additional_residuals=None if down is None else [x.to(self.dtype) for x in down],
                mid_block_additional_residual=None if middle is None else middle.to(self.dtype),
                timestep_cond=self._guidance_embedding(guidance, len(latent)),
                return_dict=False,
            )[0].float()

    def free_guidance(self, guidance: float) -> float:
        """Return the weight of the text that is left to a doubled batch: 1, none, where the UNet reads it itself."""
        return 1.0 if self.reads_guidance else guidance

    def _guidance_embedding(self, guidance: float, count: int) -> Tensor | None:
        if not self.reads_guidance:
            return None
        width = int(self.unet.config.time_cond_proj_dim)
        return guidance_embedding(guidance, width).to(self.device, self.dtype).expand(count, -1)

    def residuals(
        self, control: Any, latent: Tensor, t: Tensor, text: Text, hint: Tensor, *, scale: float = 1.0
    ) -> tuple[Sequence[Tensor], Tensor]:
        """Return what a ControlNet adds to the UNet's (down blocks, middle block), for `predict`.

        Args:
            control: A `methods.control.Control` of this backbone's UNet, in whatever precision.
            latent: Noisy latent (B,C,h,w).
            t: int64 (B,).
            text: B rows.
            hint: float32 (B,3,H,W) in {0,1}, or what `control.embed_hint` returned.
            scale: Strength of the control.
        """
        dtype = next(control.parameters()).dtype
        given = self.text_encoder.arguments(text, self.pixels(latent), dtype)
        steered: tuple[Sequence[Tensor], Tensor] = control(latent.to(dtype), t, hint=hint, scale=scale, **given)
        return steered

    def fork(self) -> Backbone:
        """Return a backbone with its own UNet on the same parameter storage, whose attention may be replaced freely."""
        fork = copy.copy(self)
        shared = {id(tensor): tensor for tensor in (*self.unet.parameters(), *self.unet.buffers())}
        fork.unet = copy.deepcopy(self.unet, memo=shared)
        fork._texts, fork._read = dict(self._texts), dict(self._read)
        return fork

    def encoders(self) -> list[nn.Module]:
        """Return the frozen networks beside the UNet: the autoencoder and, unless it is being trained, the text's."""
        return [self.vae, *(() if self.text_encoder.trained else self.text_encoder.models)]

    def _parts(self) -> dict[str, Any]:
        """Return the networks by their folders' names."""
        return {"vae": self.vae, "unet": self.unet, **self.text_encoder.named()}

    def _plain(self) -> torch.autocast:
        return torch.autocast(self.device.type, enabled=False)

    def _in(self, tensor: Tensor, network: Any) -> Tensor:
        dtype = next(network.parameters()).dtype
        return tensor.to(self.device, dtype).contiguous(memory_format=torch.channels_last)


def _frozen(module: Any, device: torch.device) -> Any:
    # In the precision of its file: widened first, half of it would take the host three times its size.
    module = module.to(device).eval().requires_grad_(False)
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


def _widths(vae: Any) -> Sequence[int]:
    widths: Sequence[int] = getattr(vae.config, "block_out_channels", None) or vae.config.encoder_block_out_channels
    return widths
