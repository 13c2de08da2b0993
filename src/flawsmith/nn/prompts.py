"""The prompts that the packaged weights were trained with, and how a prompt's fields are filled in.

The built-in backbone, CSM and SGA know these very words ("sound" is theirs for normal), so they do not follow the
renames of the code.
"""

from __future__ import annotations

PROMPT = "a photo of a {defect}"
PROMPT_ON_PRODUCT = "a photo of a {defect} on {product}"
NORMAL_PROMPT = "a photo of sound surface"
NORMAL_PROMPT_ON_PRODUCT = "a photo of sound {product}"


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
