"""Configurations of a backbone with values that do not belong there: one sentence, before anything is trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flawsmith.config import load_config
from flawsmith.errors import BackboneError
from flawsmith.synthesis.train import load_backbone

JUNK = {
    "a schedule of no kind": ("scheduler/scheduler_config.json", {"beta_schedule": ""}),
    "betas that are one number": ("scheduler/scheduler_config.json", {"trained_betas": 3.0}),
    "a scale in words": ("vae/config.json", {"scaling_factor": "x"}),
    "a scale that is no number": ("vae/config.json", {"scaling_factor": float("nan")}),
    "a length below nothing": ("tokenizer/tokenizer_config.json", {"model_max_length": -1}),
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_is_said_also_where_diffusers_takes_it(name: str, backbone_folder: Path, tmp_path: Path) -> None:
    file, values = JUNK[name]
    shutil.copytree(backbone_folder, tmp_path / "junk")
    path = tmp_path / "junk" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    settings = {"backbone.source": str(tmp_path / "junk"), "generator.name": "controlnet_inpaint"}
    with pytest.raises(BackboneError, match="junk") as error:
        load_backbone(load_config(None, {**settings, "backbone.device": "cpu"}))
    assert "\n" not in str(error.value)


def test_without_junk_it_is_loaded(backbone_folder: Path) -> None:
    settings = {"backbone.source": str(backbone_folder), "generator.name": "controlnet_inpaint"}
    assert load_backbone(load_config(None, {**settings, "backbone.device": "cpu"})) is not None
