"""Saving and loading networks and training state: safetensors and JSON only, written atomically, never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from flawsmith.errors import RunError
from flawsmith.files import write_bytes, write_json
from flawsmith.paths import open_file


@contextmanager
def fresh_layers(seed: int = 0) -> Iterator[None]:
    """Draw the weights of new layers from a stream of their own: the same each time, and the global one stays."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def save_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str] | None = None) -> None:
    """Write named tensors to one safetensors file, atomically; `notes` (text only) travel in its header."""
    flat, storages = {}, set()
    for name, tensor in tensors.items():
        value = tensor.detach().to("cpu").contiguous()
        # Tied weights and views share a storage, which safetensors refuses: each is written with its own.
        storage = value.untyped_storage().data_ptr()
        flat[name] = value.clone() if storage in storages else value
        storages.add(storage)
    write_bytes(path, save(flat, metadata=dict(notes or {})))


def load_tensors(path: Path, device: str | torch.device = "cpu") -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `save_tensors` wrote: (tensors, notes).

    Raises:
        RunError: the file is missing or damaged.
    """
    try:
        open_file(path).close()  # a pipe would never end
        with safe_open(path, framework="pt", device=str(device)) as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})
    except FileNotFoundError:
        raise RunError(f"{path}: no such weights file; train first") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: not a readable safetensors file ({error}); delete it and train again") from None


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
        tensors, _ = load_tensors(path)
        state = module.state_dict()
        wrong = sorted(set(state) ^ set(tensors)) or sorted(k for k in state if state[k].shape != tensors[k].shape)
        if wrong:
            raise RunError(
                f"{path}: does not fit this network ({len(wrong)} tensors differ, e.g. {wrong[0]}); "
                "it was trained on another backbone or with other settings"
            )
        module.load_state_dict(tensors)


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
