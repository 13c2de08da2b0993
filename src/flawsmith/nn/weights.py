"""Saving and loading networks and training state: safetensors and JSON only, written atomically, never a pickle."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from flawsmith.errors import RunError
from flawsmith.files import write_json, write_pieces
from flawsmith.paths import open_file

_KINDS = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""What safetensors calls a tensor's numbers, in the order in which its own writer lays tensors down."""


@contextmanager
def fresh_layers(seed: int = 0) -> Iterator[None]:
    """Draw the weights of new layers from a stream of their own: the same each time, and the global one stays."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def save_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """Write named tensors to one safetensors file, atomically; `notes` (text only) travel in its header.

    One tensor after another is brought to the host and written: `safetensors.save` holds all of them twice at once.
    """
    order = list(_KINDS)
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(notes.items()))} if notes else {}
    end = 0
    for name in names:
        tensor, begin = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        kind = _KINDS[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_pieces(path, chain([struct.pack("<Q", len(text)), text], map(_content, (tensors[name] for name in names))))


def _content(tensor: Tensor) -> memoryview:
    """Return a tensor's bytes, row after row, as the file holds them."""
    return tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy().data


class StoredTensors(Mapping[str, Tensor]):
    """The tensors of a file by name, each read when it is asked for and never kept.

    Args:
        path: What `save_tensors` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            open_file(path).close()  # a pipe would never end
            self._file = safe_open(path, framework="pt", device="cpu").__enter__()
        except FileNotFoundError:
            raise RunError(f"{path}: no such weights file; train first") from None
        except (SafetensorError, OSError) as error:
            raise RunError(f"{path}: not a readable safetensors file ({error}); delete it and train again") from None
        self.notes: dict[str, str] = dict(self._file.metadata() or {})
        self._names = tuple(self._file.keys())

    def __getitem__(self, name: str) -> Tensor:
        """Return a tensor on the CPU."""
        if name not in self._names:
            raise KeyError(name)
        tensor: Tensor = self._file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote: (tensors, notes).

    Raises:
        RunError: the file is missing or damaged.
    """
    stored = StoredTensors(path)
    return dict(stored), stored.notes


def save_modules(folder: Path, modules: Mapping[str, nn.Module], settings: Mapping[str, Any]) -> None:
    """Write settings.json and `<name>.safetensors` for each network (float32, the training precision)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in modules.items():
        save_tensors(folder / f"{name}.safetensors", module.state_dict())
    write_json(folder / "settings.json", settings)


def load_modules(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Fill networks from `save_modules`' files.

    Raises:
        RunError: a file is missing, or holds other tensors than the network (another backbone or other settings).
    """
    for name, module in modules.items():
        path = folder / f"{name}.safetensors"
        tensors = StoredTensors(path)
        state = module.state_dict()
        wrong = sorted(set(state) ^ set(tensors)) or sorted(k for k in state if state[k].shape != tensors[k].shape)
        if wrong:
            raise RunError(
                f"{path}: does not fit this network ({len(wrong)} tensors differ, e.g. {wrong[0]}); "
                "it was trained on another backbone or with other settings"
            )
        module.load_state_dict(dict(tensors))


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that a generator was saved with."""
    path = folder / "settings.json"
    try:
        with open_file(path) as file:
            return dict(json.loads(file.read()))
    except FileNotFoundError:
        raise RunError(f"{folder}: holds no trained generator (settings.json is missing); train again") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror}); delete it and train again") from None
    except (ValueError, TypeError) as error:
        raise RunError(f"{path}: not valid JSON ({error}); delete it and train again") from None


def tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return a hash of names, shapes and float32 values: the same weights have one hash however they are stored."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.numpy().tobytes())
    return digest.hexdigest()[:16]
