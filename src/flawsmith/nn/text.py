"""Phrases for a diffusion model: what becomes of them is a `Text`, which only this file and the backbone open.

Families of models differ in their text encoders, in what is taken from them, and in what UNet and ControlNet are given
of it. Each family is one class here:

    ClipText   Stable Diffusion 1.x and 2.x, the built-in backbone: one CLIP encoder, its last hidden states
    SdxlText   Stable Diffusion XL (Podell et al. 2024): two CLIP encoders, the last but one hidden states of both side
               by side; the second one's pooled vector and six numbers (sizes and crop) go with the timestep
"""

from __future__ import annotations

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from flawsmith.nn.loading.facts import require_family, require_layers
from flawsmith.nn.loading.networks import load_whole
from flawsmith.nn.prompts import spelled, word_numbers

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, slots=True)
class Text:
    """The text embedding of B phrases. Opaque: it is stacked, selected and passed on; only the backbone opens it."""

    states: Tensor
    """float32 (B,T,D): hidden states of T tokens, for cross-attention."""
    pooled: Tensor | None = None
    """float32 (B,P): one vector per phrase; None where the family has none."""

    def __len__(self) -> int:
        return len(self.states)

    def __getitem__(self, rows: slice | Tensor) -> Text:
        """Return some rows; `rows` is a slice or an int64 index (K,)."""
        return Text(self.states[rows], None if self.pooled is None else self.pooled[rows])

    @staticmethod
    def cat(parts: Sequence[Text]) -> Text:
        """Join texts of one backbone along the first dimension."""
        pooled = [part.pooled for part in parts if part.pooled is not None]
        return Text(torch.cat([part.states for part in parts]), torch.cat(pooled) if pooled else None)

    def to(self, device: torch.device | str) -> Text:
        """Return the text on a device."""
        return Text(self.states.to(device), None if self.pooled is None else self.pooled.to(device))


class TextEncoder(ABC):
    """The text encoders of one family with their tokenizers: phrases -> token rows -> `Text` -> a network's arguments.

    Args:
        models: transformers' text encoders, in the order of `parts`.
        tokenizers: Their tokenizers.
    """

    parts: ClassVar[tuple[tuple[str, str, Any], ...]]
    """(folder of the encoder, folder of its tokenizer, class of the encoder), one per encoder."""
    vae_overflows: ClassVar[bool] = False
    """True: the family's autoencoder leaves float16's range where its config says `force_upcast`."""

    def __init__(self, models: Sequence[Any], tokenizers: Sequence[Any]) -> None:
        self.models, self.tokenizers = tuple(models), tuple(tokenizers)
        self.skip = 0
        """How many of the encoders' last layers are left out."""
        self.trained = False
        """True: low-rank changes in the encoders are being trained, so nothing that they gave may be kept."""

    @classmethod
    def load(cls, place: str, options: dict[str, Any]) -> Self:
        """Read the encoders and tokenizers of a diffusers folder or hub id.

        Raises:
            BackboneError: a weights file lacks tensors.
        """
        models = [load_whole(plugin, place, folder, options) for folder, _, plugin in cls.parts]
        return cls(
            models, [CLIPTokenizer.from_pretrained(place, subfolder=name, **options) for _, name, _ in cls.parts]
        )

    def skipping(self, layers: int) -> Self:
        """Return the same without some of the encoders' last layers ("clip skip").

        Raises:
            BackboneError: an encoder has not so many.
        """
        if not layers:
            return self
        require_layers(layers, min(int(model.config.num_hidden_layers) for model in self.models))
        other = copy.copy(self)
        other.skip = layers
        return other

    def with_models(self, models: Sequence[Any]) -> Self:
        """Return the same with other encoders, whose low-rank changes are being trained."""
        other = copy.copy(self)
        other.models, other.trained = tuple(models), True
        return other

    def named(self) -> dict[str, Any]:
        """Return {folder: encoder}."""
        return {folder: model for (folder, _, _), model in zip(self.parts, self.models, strict=True)}

    def tokens(self, texts: Sequence[str | None]) -> Tensor:
        """Return token numbers int64 (B,N) on the CPU, those of all tokenizers side by side; None = dropped text."""
        words = [text or "" for text in texts]
        pairs = zip(self.tokenizers, self.models, strict=True)
        return torch.cat([token_numbers(tokenizer, model, words) for tokenizer, model in pairs], 1)

    def positions(self, prompt: str, words: str) -> list[int]:
        """Return the places of some words' tokens among those of a prompt, where they first stand; [] = nowhere.

        Every family here has one row of places for all of its encoders, counted as by the first tokenizer.
        """
        tokenizer = self.tokenizers[0]
        row = token_numbers(tokenizer, self.models[0], [prompt])[0].tolist()
        wanted = word_numbers(tokenizer, spelled(tokenizer, words))
        starts = (at for at in range(len(row) - len(wanted) + 1) if wanted and row[at : at + len(wanted)] == wanted)
        first = next(starts, None)
        return [] if first is None else list(range(first, first + len(wanted)))

    @abstractmethod
    def read(self, tokens: Tensor) -> Text:
        """Return the text of token rows int64 (B,N); gradients pass to the encoders' low-rank changes."""

    @abstractmethod
    def arguments(self, text: Text, size: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
        """Return what a UNet or ControlNet of this family is called with, beside latent and timestep.

        Args:
            text: B rows.
            size: Height and width of the window in pixels.
            dtype: The network's precision.
        """


class ClipText(TextEncoder):
    """One CLIP encoder. Dropped text is the empty phrase."""

    parts = (("text_encoder", "tokenizer", CLIPTextModel),)

    def read(self, tokens: Tensor) -> Text:
        (model,) = self.models
        out = model(tokens.to(model.device), output_hidden_states=self.skip > 0)
        if not self.skip:
            return Text(out.last_hidden_state.float())
        return Text(getattr(model, "text_model", model).final_layer_norm(out.hidden_states[-1 - self.skip]).float())

    def arguments(self, text: Text, size: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
        return {"encoder_hidden_states": text.states.to(dtype)}


class SdxlText(TextEncoder):
    """Two CLIP encoders. Dropped text is all zeros, or the empty phrase where the folder's model_index.json says so."""

    parts = (
        ("text_encoder", "tokenizer", CLIPTextModel),
        ("text_encoder_2", "tokenizer_2", CLIPTextModelWithProjection),
    )
    vae_overflows = True
    drops_to_zeros = True

    @classmethod
    def load(cls, place: str, options: dict[str, Any]) -> Self:
        loaded, index = super().load(place, options), Path(place) / "model_index.json"
        if index.is_file():
            written = json.loads(index.read_text(encoding="utf-8"))
            loaded.drops_to_zeros = bool(written.get("force_zeros_for_empty_prompt", True))
        return loaded

    def tokens(self, texts: Sequence[str | None]) -> Tensor:
        ids = super().tokens(texts)
        dropped = torch.tensor([text is None for text in texts])
        # No token has the number -1: such a row stands for zeros.
        return torch.where(dropped[:, None], -1, ids) if self.drops_to_zeros else ids

    def read(self, tokens: Tensor) -> Text:
        kept = (tokens[:, 0] >= 0).to(self.models[0].device)
        states, pooled = [], None
        for model, ids in zip(self.models, tokens.clamp_min(0).chunk(2, dim=1), strict=True):
            out = model(ids.to(model.device), output_hidden_states=True)
            states.append(out.hidden_states[-2 - self.skip].float())
            pooled = out[0].float()  # of the last one
        assert pooled is not None
        return Text(torch.cat(states, -1) * kept[:, None, None], pooled * kept[:, None])

    def arguments(self, text: Text, size: tuple[int, int], dtype: torch.dtype) -> dict[str, Any]:
        assert text.pooled is not None, "this text is another family's"
        # Size of the original, top left of the crop, size of the target: a window is a whole picture of its own size.
        numbers = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=text.states.device)
        added = {"text_embeds": text.pooled.to(dtype), "time_ids": numbers.expand(len(text), -1)}
        return {"encoder_hidden_states": text.states.to(dtype), "added_cond_kwargs": added}


def family_of(unet_config: Any, name: str) -> type[TextEncoder]:
    """Return the class for a UNet's text, told by its config.

    Raises:
        BackboneError: the UNet wants something beside its text that no class here gives.
    """
    families: dict[Any, type[TextEncoder]] = {None: ClipText, "text_time": SdxlText}
    require_family(unet_config, name)
    return families[unet_config.get("addition_embed_type")]


def token_numbers(tokenizer: Any, text_encoder: Any, texts: Sequence[str]) -> Tensor:
    """Return int64 (B,T) on the CPU: texts padded and cut to what a text encoder reads, strange words spelled."""
    length = min(tokenizer.model_max_length, text_encoder.config.max_position_embeddings)
    words = [spelled(tokenizer, text) for text in texts]
    coded = tokenizer(words, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    ids: Tensor = coded.input_ids
    return ids
