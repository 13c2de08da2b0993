"""What a run knows of its backbone: constants beside weights, old records without them, types with the same words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import flawsmith as fs
from flawsmith.config import load_config
from flawsmith.errors import ConfigError
from flawsmith.files import write_json
from flawsmith.generators.controlnet_inpaint import ControlNetInpaint
from flawsmith.generators.dual_branch import DualBranch
from flawsmith.nn.backbone import Backbone
from flawsmith.nn.loading.source import locate
from flawsmith.run.dataset import open_dataset
from flawsmith.run.folder import Run
from flawsmith.synthesis.backbones.of_run import RunBackbone
from flawsmith.synthesis.backbones.words import require_distinct_words
from flawsmith.synthesis.learning import Job
from flawsmith.synthesis.train import CONSTANTS, is_trained, jobs_of, train_inputs

PRODUCT = {"data.products": ["magnet"], "train.steps": 1, "train.views": 1, "train.batch": 2}


def change(path: Path, **said: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))


def constants(folder: Path) -> str:
    return Backbone.load(folder, device="cpu", dtype="float32").constants


def test_what_counts_beside_the_weights(backbone_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(backbone_folder, folder)
    before = Backbone.load(folder, device="cpu", dtype="float32")
    found = {before.constants}
    assert constants(folder) == before.constants
    change(folder / "scheduler" / "scheduler_config.json", timestep_spacing="leading", steps_offset=1)
    assert constants(folder) == before.constants, "a sampler's own affair"
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    found.add(constants(folder))
    change(folder / "vae" / "config.json", scaling_factor=0.5)
    found.add(constants(folder))
    change(folder / "tokenizer" / "tokenizer_config.json", model_max_length=9)
    found.add(constants(folder))
    assert len(found) == 4
    after = Backbone.load(folder, device="cpu", dtype="float32")
    assert after.fingerprint == before.fingerprint, "the fingerprint is that of the weights"


def test_a_mended_configuration_trains_anew_and_an_old_record_does_not(
    backbone_folder: Path, small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "backbone"
    shutil.copytree(backbone_folder, folder)
    run = Run.create(tmp_path / "run", load_config(None, small_config | PRODUCT | {"backbone.source": str(folder)}))
    fs.train(run)
    data, first = open_dataset(run), run.stage_hash("train")

    def done() -> bool:
        return is_trained(run, train_inputs(run, data, RunBackbone(run)))

    with monkeypatch.context() as patched:
        patched.setattr("flawsmith.nn.loading.usable.load_usable", None)
        assert done(), "told without loading"
    change(folder / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    assert not done()
    manifest = run.path("manifest.json")
    tree = json.loads(manifest.read_text())
    content = tree["stages"]["train"]["inputs"]["content"]
    assert content.pop(CONSTANTS)
    write_json(manifest, tree)
    assert done(), "a record of an earlier release, which did not hold them"
    fs.train(run)
    assert run.stage_hash("train") == first
    other = Run(run.folder, run.config.model_copy(update={"seed": 5}))
    assert CONSTANTS in train_inputs(other, data, RunBackbone(other)).content, "what is trained anew records them"


def test_what_is_remembered_of_an_earlier_release(
    backbone_folder: Path, small_config: dict[str, Any], tmp_path: Path
) -> None:
    """It has the fingerprint and no constants; hashing the weights again would take longer than reading them."""
    folder = tmp_path / "backbone"  # what is remembered of the shared one would be wrong for all later tests
    shutil.copytree(backbone_folder, folder)
    run = Run.create(tmp_path / "run", load_config(None, small_config | {"backbone.source": str(folder)}))
    first = RunBackbone(run)
    known = first.fingerprint, first.constants
    path = run.path("state", "backbone.json")
    old = json.loads(path.read_text())
    write_json(path, {name: old[name] for name in ("files", "weights", "fingerprint")} | {"weights": "0" * 16})
    again = RunBackbone(run)
    assert again.constants == known[1] and again.loaded.weights == "0" * 16
    assert again.fingerprint == "0" * 16, "as it was remembered"


def test_small_files_are_told(backbone_folder: Path) -> None:
    source = locate(backbone_folder, offline=True)
    names = {Path(name).name for name, _, _ in source.texts()}
    assert {"scheduler_config.json", "config.json", "tokenizer_config.json", "model_index.json"} <= names
    assert not [name for name in names if name.endswith((".safetensors", ".bin"))]


def job(run: Run, *names: str) -> Job:
    """A job whose shots show damage of these names."""
    (one,) = jobs_of(run.config, open_dataset(run).split)
    return replace(one, shots=tuple(replace(one.shots[0], defect=name) for name in names))


def test_types_that_read_the_same_are_refused(
    make_backbone: Callable[..., Any], small_config: dict[str, Any], tmp_path: Path
) -> None:
    back, long = make_backbone(), "very_long_name_of_damage_upper_"
    run = Run.create(tmp_path / "run", load_config(None, small_config | PRODUCT))
    generator = ControlNetInpaint(back, ControlNetInpaint.Settings())
    require_distinct_words(generator, job(run, "crack", "긁힘", "찍힘", "划痕", "滑痕"))
    require_distinct_words(generator, job(run, f"{long}left"))
    with pytest.raises(ConfigError, match="are the same words for this backbone, which reads 24 tokens of") as refused:
        require_distinct_words(generator, job(run, "crack", f"{long}left", f"{long}right"))
    assert f"{long}left and {long}right" in str(refused.value) and "\n" not in str(refused.value)
    wordless = ControlNetInpaint(back, ControlNetInpaint.Settings(prompt="a photo of damage"))
    require_distinct_words(wordless, job(run, f"{long}left", f"{long}right"))  # as it was asked for
    own = DualBranch(back, DualBranch.Settings(adapters=[f"{long}left"]))
    require_distinct_words(own, job(run, f"{long}left", f"{long}right"))  # adapters of its own tell it


def test_training_refuses_them_before_a_step(
    small_config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt = {"generator.settings": {"prompt": "a photo of a " + "photo " * 30 + "{defect}"}}
    run = Run.create(tmp_path / "run", load_config(None, small_config | PRODUCT | prompt))
    monkeypatch.setattr("flawsmith.synthesis.train.fit", None)
    with pytest.raises(ConfigError, match="chip and crack are the same words for this backbone"):
        fs.train(run)
