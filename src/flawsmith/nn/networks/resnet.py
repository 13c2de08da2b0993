"""ResNet-34 (He et al., CVPR 2016) with a new head, ImageNet's weights from a transformers folder or none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ResNetConfig, ResNetForImageClassification

from flawsmith.errors import ConfigError
from flawsmith.nn.loading.networks import quiet
from flawsmith.nn.weights import fresh_layers
from flawsmith.paths import require_files

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of pictures in [0,1]."""
_SHAPE: dict[str, Any] = {"depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}


class ResNet34(nn.Module):
    """Pictures in, a logit a class out.

    Args:
        classes: How many.
        rng: Decides the head, and all weights where no folder gives them.
        folder: A transformers folder (config.json and safetensors) with weights; "" = random ones.

    Raises:
        ConfigError: the folder is missing, cannot be read, holds another network or lacks weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int, rng: torch.Generator, folder: str | Path = "") -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(3, 1, 1))
        with fresh_layers(int(torch.randint(2**31, (1,), generator=rng))), quiet():
            self.network = _read(Path(folder), classes) if str(folder) else _new(classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B,classes) of pictures float32 (B,3,H,W), RGB, [-1,1], H and W at least 32."""
        return self.network(((image + 1) / 2 - self.mean) / self.std).logits


_from_pretrained: Any = ResNetForImageClassification.from_pretrained


def _new(classes: int) -> nn.Module:
    config = ResNetConfig(**_SHAPE)
    config.num_labels = classes
    return ResNetForImageClassification(config)


def check_folder(folder: Path) -> ResNetConfig:
    """Return the configuration in a transformers folder, of a ResNet-34.

    Raises:
        ConfigError: the folder is missing, cannot be read or holds another network.
    """
    require_files(folder)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: no transformers folder (config.json is missing); name one with a ResNet-34")
    with _readable(folder), quiet():
        config = ResNetConfig.from_pretrained(folder, local_files_only=True)
    if config.model_type != "resnet" or any(getattr(config, key) != value for key, value in _SHAPE.items()):
        raise ConfigError(
            f"{folder}: holds {config.layer_type} blocks by {config.depths}, not a ResNet-34 (basic, [3, 4, 6, 3])"
        )
    return config


def _read(folder: Path, classes: int) -> nn.Module:
    config = check_folder(folder)
    config.num_labels = classes
    network: Any
    with _readable(folder):
        # A head for ImageNet's thousand classes does not fit and is left out on purpose.
        network, report = _from_pretrained(
            folder, config=config, local_files_only=True, ignore_mismatched_sizes=True, output_loading_info=True
        )
    names = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    if wrong := sorted(name for name in names if not name.startswith("classifier.")):
        raise ConfigError(f"{folder}: {len(wrong)} tensors of its weights are missing or misshapen, e.g. {wrong[0]}")
    # The head is always new, also where the folder's own has as many classes by chance.
    network.classifier[1].reset_parameters()
    return network.float()


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # transformers raises its own kind of error for each broken file
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise ConfigError(f"{folder}: cannot be read as a ResNet-34 of transformers: {reason}") from error
