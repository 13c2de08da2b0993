"""saliency.py: a network from an ONNX file, written here byte by byte; how it trims a mask; what is refused."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from flawsmith.errors import ConfigError
from flawsmith.nn.methods.saliency import Saliency, refined


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, value: bytes | int) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx(path: Path, weights: np.ndarray, side: int = 320) -> Path:
    """Write a network of one 1x1 convolution (1,3,1,1) and a sigmoid, as the ONNX format has it."""

    def value(name: str, channels: int) -> bytes:
        shape = b"".join(field(1, field(1, size)) for size in (1, channels, side, side))
        return field(1, name.encode()) + field(2, field(1, field(1, 1) + field(2, shape)))

    def node(defect: str, given: list[str], made: str) -> bytes:
        inputs = b"".join(field(1, name.encode()) for name in given)
        return inputs + field(2, made.encode()) + field(3, f"{defect}1".encode()) + field(4, defect.encode())

    numbers = b"".join(struct.pack("<f", x) for x in weights.ravel())
    tensor = b"".join(field(1, n) for n in weights.shape) + field(2, 1) + field(8, b"w") + field(9, numbers)
    graph = field(1, node("Conv", ["x", "w"], "c")) + field(1, node("Sigmoid", ["c"], "y"))
    graph += field(2, b"g") + field(5, tensor) + field(11, value("x", 3)) + field(12, value("y", 1))
    path.write_bytes(field(1, 8) + field(7, graph) + field(8, field(1, b"") + field(2, 13)))
    return path


def test_it_sees_rgb_scaled_as_imagenet_and_answers_at_the_pictures_size(tmp_path):
    network = Saliency(onnx(tmp_path / "red.onnx", np.array([2.0, 0, 0], np.float32).reshape(1, 3, 1, 1)))
    image = torch.zeros(2, 3, 64, 64)
    image[0, 0], image[1, 2] = 0.8, 0.8
    found = network(image)
    assert found.shape == (2, 1, 64, 64) and found.dtype == torch.float32
    for row, red in ((0, 0.9), (1, 0.5)):
        torch.testing.assert_close(
            found[row], torch.full((1, 64, 64), 2 * (red - 0.485) / 0.229).sigmoid(), atol=1e-4, rtol=0
        )


def test_a_mask_is_trimmed_to_what_is_salient_and_grown_to_it_by_two_pixels():
    found, salient = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    found[..., 8:20, 8:20] = 1
    salient[..., 12:24, 8:20] = 0.9
    salient[..., 0:4, 0:4] = 1.0  # salient, but far from the damage
    wanted = torch.zeros(1, 1, 32, 32)
    wanted[..., 12:22, 8:20] = 1
    assert torch.equal(refined(found, salient), wanted)


def test_a_mask_where_nothing_is_salient_stays_and_rows_do_not_mix():
    found, salient = torch.zeros(2, 1, 16, 16), torch.zeros(2, 1, 16, 16)
    found[..., 4:8, 4:8] = 1
    salient[1, :, 4:6, 4:8] = 0.8
    made = refined(found, salient)
    assert torch.equal(made[0], found[0]) and made[1].sum() == 8


def test_wrong_files_get_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="no such file; name an ONNX file"):
        Saliency(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(ConfigError, match="is no network for pictures 1x3x320x320"):
        Saliency(tmp_path / "text.onnx")(torch.zeros(1, 3, 32, 32))
    three = onnx(tmp_path / "three.onnx", np.ones((3, 3, 1, 1), np.float32))
    with pytest.raises(ConfigError, match="where 1x1x320x320 is expected"):
        Saliency(three)(torch.zeros(1, 3, 32, 32))
