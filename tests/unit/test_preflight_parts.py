"""`check` says where damage will lie, and shows the part that it found; a part that is half found is no secret."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flawsmith.config import load_config
from flawsmith.preflight.check import check
from flawsmith.preflight.findings import Findings

SIDE = 96


def photograph(number: int, width: int | None = 60) -> np.ndarray:
    """A dark bar on a light backdrop; None = the surface alone fills the picture."""
    rng = np.random.default_rng(number)
    if width is None:
        return rng.integers(60, 180, (SIDE, SIDE), np.uint8)
    picture = np.full((SIDE, SIDE), 200.0)
    picture[34 + number : 62 + number, 16 : 16 + width] = 60
    return (cv2.GaussianBlur(picture, (0, 0), 0.7) + rng.normal(0, 2, picture.shape)).clip(0, 255).astype(np.uint8)


def looked_over(root: Path, widths: dict[str, list[int | None]], page: Path | None = None) -> Findings:
    for product, each in widths.items():
        for folder in ("train/good", "test/cut", "ground_truth/cut"):
            (root / product / folder).mkdir(parents=True)
        for number, width in enumerate(each):
            cv2.imwrite(str(root / product / f"train/good/{number:03d}.png"), photograph(number, width))
        for number in range(4):
            picture, mask = photograph(20 + number, each[0]), np.zeros((SIDE, SIDE), np.uint8)
            picture[50:56, 30:40], mask[50:56, 30:40] = 230, 255
            cv2.imwrite(str(root / product / f"test/cut/{number:03d}.png"), picture)
            cv2.imwrite(str(root / product / f"ground_truth/cut/{number:03d}_mask.png"), mask)
    settings: dict[str, Any] = {"data.root": str(root), "data.layout": "mvtec", "data.shots": 3, "prove.enabled": False}
    return check(load_config(None, settings), page)


def test_parts_and_surfaces_are_told_apart(tmp_path: Path):
    page = tmp_path / "check.html"
    findings = looked_over(tmp_path / "data", {"bar": [60] * 5, "plate": [None] * 5}, page)
    assert "damage will lie on the part, which was found on its backdrop: bar" in findings.notes
    assert "damage may lie anywhere, for the surface fills its photographs: plate" in findings.notes
    assert not any("normal photographs" in warning for warning in findings.warnings)
    text = page.read_text("utf-8")
    section = text.split("What flawsmith understood as part</h1>")[1]
    assert "bar, 4 of" in section and "plate" not in section and section.count("<figure>") == 4
    assert any(f"{text.count('<figure>')} photographs" in note for note in findings.notes)


def test_surfaces_alone_have_no_page_of_parts(tmp_path: Path):
    page = tmp_path / "check.html"
    looked_over(tmp_path / "data", {"plate": [None] * 5}, page)
    assert "as part" not in page.read_text("utf-8") and "come last" not in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("widths", "sentence"),
    [
        ([60, 60, 60, 24, 60], "bar: in 1 of 4 normal photographs the part that was found is more than twice"),
        ([60, None, 60, 60, 60], "bar: no part was found in 1 of 4 normal photographs"),
        ([60, None, None, None, None], "bar: 1 of 4 normal photographs show a part on a backdrop, the others none"),
    ],
)
def test_where_photographs_do_not_agree_is_said(widths: list[int | None], sentence: str, tmp_path: Path):
    findings = looked_over(tmp_path / "data", {"bar": widths})
    assert sum(warning.startswith(sentence) for warning in findings.warnings) == 1, findings.warnings
