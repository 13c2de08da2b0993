"""The prompts that the packaged weights were trained with, and how a prompt's fields are filled in.

The built-in backbone, CSM and SGA know these very words ("sound" is theirs for normal), so they do not follow the
renames of the code.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from anyascii import anyascii

from flawsmith.config import nfc

PROMPT = "a photo of a {defect}"
PROMPT_ON_PRODUCT = "a photo of a {defect} on {product}"
NORMAL_PROMPT = "a photo of sound surface"
NORMAL_PROMPT_ON_PRODUCT = "a photo of sound {product}"
_PIECE = re.compile(r"[^\s!-/:-@\[-`{-~]+")
"""What stands between blanks and ASCII punctuation; marks of other scripts belong to their letters."""
_SOUNDS = 5
"""Letters of a word's sound that are kept: text encoders read few tokens, and the ending tells words apart."""


def filled_in(prompt: str, defect: str, product: str) -> str:
    """Return a prompt with its fields filled in, names in words."""
    return prompt.format(defect=defect.replace("_", " "), product=product.replace("_", " "))


def checked(prompt: str) -> str:
    """Return a prompt unchanged when {defect} and {product} are all that it leaves open; ValueError otherwise."""
    try:
        prompt.format(defect="x", product="y")
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"only {{defect}} and {{product}} can be filled in ({error})") from None
    return prompt


def spelled(tokenizer: Any, text: str) -> str:
    """Return a phrase in which words of scripts that a tokenizer does not know are spelled in letters that it knows.

    To it 긁힘 and 찍힘 are the same row of unknowns. Spelled, a word is the first letters of its sound and an ending
    that follows from the whole word, for words may sound alike. Words whose tokens it knows stay as they are.
    """
    if tokenizer.unk_token_id not in word_numbers(tokenizer, text):
        return text
    return _PIECE.sub(lambda match: _spelled(tokenizer, match[0]), nfc(text))


def word_numbers(tokenizer: Any, text: str) -> list[int]:
    """Return the numbers of a phrase's own tokens, without those for its begin and end."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _spelled(tokenizer: Any, word: str) -> str:
    unknown = tokenizer.unk_token_id
    if unknown not in word_numbers(tokenizer, word):
        return word
    sound = re.sub(r"[^a-z0-9]", "", anyascii(word).lower())[:_SOUNDS]
    number = int.from_bytes(hashlib.sha256(word.lower().encode()).digest()[:8], "big")
    ending = "".join(chr(ord("a") + number // 26**place % 26) for place in range(3))
    known = sound + ending
    return word if unknown in word_numbers(tokenizer, known) else known
