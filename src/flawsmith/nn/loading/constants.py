"""What decides a backbone's arithmetic beside its weights: schedule, scale of latents, and numbers of words.

Someone who mends `scheduler_config.json`, `vae/config.json` or a tokenizer has another model with the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flawsmith.files import digest

_OF_THE_SCHEDULE = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
                    "prediction_type", "rescale_betas_zero_snr")  # fmt: skip
_OF_LATENTS = ("scaling_factor", "shift_factor")
_OF_WORDS = ("model_max_length", "bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id")


def constants_of(
    schedule: Mapping[str, Any], vae: Mapping[str, Any], tokenizers: Sequence[Any], drops_to_zeros: bool | None
) -> str:
    """Return a digest of what counts.

    Args:
        schedule: A diffusers scheduler's configuration, whole.
        vae: The autoencoder's configuration.
        tokenizers: All of the family's.
        drops_to_zeros: Whether dropped text is zeros, where a family has both ways.
    """
    words = [[sorted(one.get_vocab().items()), *(getattr(one, name, None) for name in _OF_WORDS)] for one in tokenizers]
    read = [[tree.get(name) for name in names] for tree, names in ((schedule, _OF_THE_SCHEDULE), (vae, _OF_LATENTS))]
    return digest(*read, words, drops_to_zeros)
