"""Learned words: token embeddings that stand for what no word says, put into a prompt before a text encoder reads it.

Textual inversion (Gal et al., ICLR 2023): the diffusion model and its text encoder stay frozen, and gradients pass
through both to a few token embeddings. In AnomalyDiffusion (Hu et al., AAAI 2024, section 3.2) these are the anomaly
embedding, k words for each defect type, and the spatial embedding, n words that an encoder makes of the mask.

Ours: a learned word starts as a word of the type's name (Gal et al. start from such a word; Hu et al. at random), and
what is learned is the way from there in standard deviations of the vocabulary, so that one learning rate suits every
text encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flawsmith.errors import ConfigError
from flawsmith.nn.prompts import spelled, word_numbers
from flawsmith.nn.text import Text, TextEncoder, token_numbers

MARK = "*"
"""Where the learned words stand in a prompt."""
REACH = 400.0
"""Standard deviations of the vocabulary that a learned word moves for each unit of its parameter: a twelfth of one in a
step at the default learning rate, which suits the encoder of masks as it is."""
_FILLER = "x"
"""A word of one token in every vocabulary here; the learned words take its place."""


@dataclass(frozen=True, slots=True)
class MarkedPrompt:
    """A prompt in which `count` fillers stand where the learned words are to be."""

    text: str
    first: int
    """The number of the first filler's token among the prompt's."""


def marked(encoder: TextEncoder, prompt: str, count: int) -> MarkedPrompt:
    """Return a prompt with its mark replaced by fillers; what lies behind them is cut where the encoder reads no more.

    Args:
        encoder: A backbone's.
        prompt: One phrase with one `MARK`.
        count: How many learned words there are.

    Raises:
        ConfigError: the learned words themselves do not fit.
    """
    before, _, after = prompt.partition(MARK)
    text = " ".join([before.strip(), *[_FILLER] * count, after.strip()]).strip()
    # The first token of every row says that a text begins.
    first = 1 + len(word_numbers(encoder.tokenizers[0], spelled(encoder.tokenizers[0], before)))
    length = token_numbers(encoder.tokenizers[0], encoder.models[0], [text]).shape[1]
    if first + count >= length:
        raise ConfigError(
            f"generator.settings: {count} learned words after {before.strip()!r} do not fit into the {length} tokens "
            "that this backbone's text encoder reads; set fewer appearance_tokens or location_tokens, or move the * "
            "of the prompt forward"
        )
    return MarkedPrompt(text, first)


def read_with(encoder: TextEncoder, tokens: Tensor, first: Tensor, words: Tensor) -> Text:
    """Return the text of token rows whose fillers are replaced by learned words; gradients pass to the words.

    Args:
        encoder: A backbone's; it is left as it is.
        tokens: int64 (B,N): what `TextEncoder.tokens` returned for the texts of marked prompts.
        first: int64 (B,): each row's `MarkedPrompt.first`.
        words: float32 (B,count,W): W is the width of all of the family's encoders together.
    """
    rows = torch.arange(len(words), device=words.device)[:, None]
    places = first.to(words.device)[:, None] + torch.arange(words.shape[1], device=words.device)
    handles = []

    def put(part: Tensor) -> Any:
        def replaced(_: nn.Module, __: Any, embedded: Tensor) -> Tensor:
            return embedded.index_put((rows, places), part.to(embedded.dtype))

        return replaced

    try:
        for model, part in zip(encoder.models, words.split(_widths(encoder), -1), strict=True):
            handles.append(model.get_input_embeddings().register_forward_hook(put(part)))
        return encoder.read(tokens)
    finally:
        for handle in handles:
            handle.remove()


class Vocabulary(nn.Module):
    """What the token embeddings of a family's encoders are like, side by side: W numbers a token."""

    middle: Tensor
    """float32 (W,): their mean."""
    spread: Tensor
    """float32 (W,): the standard deviation of their encoder's table."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        tables = _tables(encoder)
        self.register_buffer("middle", torch.cat([table.mean(0) for table in tables]))
        self.register_buffer("spread", torch.cat([table.std().expand(table.shape[1]) for table in tables]))


class AppearanceWords(nn.Module):
    """The anomaly embedding: some words for each defect type of each product.

    Args:
        encoder: A backbone's.
        names: What each row's words start as, such as "crack".
        count: Words a row.
    """

    start: Tensor

    def __init__(self, encoder: TextEncoder, names: Sequence[str], count: int) -> None:
        super().__init__()
        self.vocabulary = Vocabulary(encoder)
        self.register_buffer("start", torch.stack([_repeated(encoder, name, count) for name in names]))
        self.offset = nn.Parameter(torch.zeros_like(self.start))

    def forward(self, rows: Tensor) -> Tensor:
        """Return the words of rows int64 (B,): float32 (B,count,W)."""
        return self.start[rows] + REACH * self.vocabulary.spread * self.offset[rows]


def _repeated(encoder: TextEncoder, name: str, count: int) -> Tensor:
    """Return float32 (count,W): the embeddings of a name's tokens, again and again; of the mean token without any."""
    columns = []
    for tokenizer, table in zip(encoder.tokenizers, _tables(encoder), strict=True):
        numbers = word_numbers(tokenizer, spelled(tokenizer, name))
        rows = table[numbers] if numbers else table.mean(0, keepdim=True)
        columns.append(rows[torch.arange(count, device=rows.device) % len(rows)])
    return torch.cat(columns, -1)


def _tables(encoder: TextEncoder) -> list[Tensor]:
    return [model.get_input_embeddings().weight.detach().float() for model in encoder.models]


def _widths(encoder: TextEncoder) -> list[int]:
    return [int(model.get_input_embeddings().embedding_dim) for model in encoder.models]
