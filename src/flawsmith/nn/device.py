"""Which device a network runs on, and in which precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from flawsmith.errors import BackboneError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@contextmanager
def one_thread(wanted: bool = True) -> Iterator[None]:
    """Let torch compute on one core while the block runs, where that is wanted.

    How a sum is divided among threads decides its rounding, so what must be the same everywhere is computed by one.
    """
    before = torch.get_num_threads()
    if not wanted or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
        # Of the chosen card, not of the first one; and in hardware: Turing and Volta emulate it, slower than float16.
        with torch.cuda.device(device):
            real = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if real else torch.float16
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
