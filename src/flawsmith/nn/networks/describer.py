"""A vision-language model that the user has: it looks at a photograph and answers a question.

Any of transformers' image-text-to-text classes (LLaVA, SmolVLM, Qwen-VL, ...), from a folder, by greedy decoding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from flawsmith.errors import ConfigError
from flawsmith.files import digest, file_digest
from flawsmith.nn.device import pick_device, pick_dtype
from flawsmith.nn.loading.facts import require_describer

LONGEST = 40
"""Tokens of an answer: one short phrase."""


class Answers(Protocol):
    """What answers questions about pictures."""

    def answer(self, picture: np.ndarray, question: str) -> str:
        """Return the answer to a question about a picture, float32 (H,W,3), RGB, [-1,1]; the same each time."""


class Describer:
    """A vision-language model, ready to be asked."""

    def __init__(self, model: Any, processor: Any, device: torch.device) -> None:
        self._model, self._processor, self._device = model, processor, device

    @classmethod
    def load(cls, folder: str, *, device: str = "auto", dtype: str = "auto") -> Describer:
        """Read a model with its processor; nothing is fetched, and no code in the folder runs.

        Args:
            folder: A transformers folder with weights as safetensors.
            device: See `backbone.device`.
            dtype: See `backbone.dtype`.

        Raises:
            ConfigError: there is no such model; says why.
        """
        require_describer(folder)
        from transformers import AutoModelForImageTextToText, AutoProcessor

        from flawsmith.nn.loading.networks import quiet

        where = pick_device(device)
        local = {"local_files_only": True, "trust_remote_code": False}
        try:
            with quiet():
                processor = AutoProcessor.from_pretrained(folder, **local)
                model = AutoModelForImageTextToText.from_pretrained(
                    folder, use_safetensors=True, dtype=pick_dtype(dtype, where), **local
                )
        except Exception as error:  # missing and torn files fail in many ways
            reason = str(error).strip().partition("\n")[0][:200] or type(error).__name__
            raise ConfigError(
                f"generate.describer: {folder!r} holds no image-text-to-text model of transformers ({reason})"
            ) from None
        if not hasattr(processor, "image_processor"):
            raise ConfigError(f"generate.describer: {folder!r}: its processor reads no pictures; name another model")
        return cls(model.eval().requires_grad_(False).to(where), processor, where)

    @torch.inference_mode()
    def answer(self, picture: np.ndarray, question: str) -> str:
        """See `Answers`."""
        levels = np.clip(np.rint((picture + 1) * 127.5), 0, 255).astype(np.uint8)
        if getattr(self._processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = self._processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
        else:
            text = f"{getattr(self._processor, 'image_token', '<image>')}\n{question}"
        asked = self._processor(images=[levels], text=[text], return_tensors="pt").to(self._device)
        for name, value in asked.items():
            if torch.is_floating_point(value):
                asked[name] = value.to(self._model.dtype)
        tokens = self._model.generate(**asked, max_new_tokens=LONGEST, do_sample=False)
        new = tokens[:, asked["input_ids"].shape[1] :]
        return str(self._processor.batch_decode(new, skip_special_tokens=True)[0]).strip()


def identity(folder: str) -> str:
    """Return what tells a model from another: its small files by content, its weights by name and size; "" = gone."""
    paths = sorted(path for path in Path(folder).glob("*") if path.is_file() and path.suffix != ".md")
    small = {".json", ".txt", ".jinja", ".model"}
    facts = [(path.name, file_digest(path) if path.suffix in small else path.stat().st_size) for path in paths]
    return digest(facts) if facts else ""
