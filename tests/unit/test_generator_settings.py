"""What generators' settings affect, and their old names."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from flawsmith import registry
from flawsmith.config import validate
from flawsmith.errors import RenamedSetting

GUIDED = ("negative_prompt", "guidance_rescale")
LATE = {
    "anomaly_diffusion": {"reweighting", "compared", "start", "strength", "detail", "sampler", *GUIDED},
    "controlnet_inpaint": {"control_scale", "start", "strength", "detail", "sampler", *GUIDED},
    "cross_modal": {"scale", "start", "strength", "detail", "sampler", *GUIDED},
    "dual_branch": {
        "out",
        "against",
        "hold",
        "start",
        "strength",
        "detail",
        "smallest",
        "largest",
        "saliency",
        "sampler",
        "guidance_rescale",
    },
}
"""What sampling alone reads."""


@pytest.mark.parametrize("name", LATE)
def test_a_setting_affects_training_or_sampling(name: str) -> None:
    plugin = registry.get("generators", name)
    trained, sampled = (plugin.affecting(plugin.Settings(), output) for output in ("train", "generate"))
    assert set(sampled) == LATE[name] and set(trained) == plugin.Settings.model_fields.keys() - LATE[name]
    assert sampled["start"] == plugin.Settings().start


def test_a_hybrid_asks_its_parts() -> None:
    plugin = registry.get("generators", "hybrid")
    settings = plugin.Settings(semantic={"scale": 0.5, "tokens": 2}, controlnet="somewhere")
    trained, sampled = (plugin.affecting(settings, output) for output in ("train", "generate"))
    late = {f"spatial.{n}" for n in LATE["controlnet_inpaint"]} | {f"semantic.{n}" for n in LATE["cross_modal"]}
    assert set(sampled) == late and sampled["semantic.scale"] == 0.5
    assert trained["semantic.tokens"] == 2 and trained["controlnet"] == "somewhere" and trained["sga"] == ""
    assert not set(trained) & late


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("controlnet_inpaint", {"sound_prompt": "x"}, {"normal_prompt": "x"}),
        ("cross_modal", {"sound_prompt": "x", "reader": "y"}, {"normal_prompt": "x", "csm": "y"}),
        ("dual_branch", {"sound_prompt": "x", "against": "sound"}, {"normal_prompt": "x", "against": "normal"}),
        ("hybrid", {"adapter": "z"}, {"sga": "z"}),
    ],
)
def test_old_names_are_read_with_a_sentence(name: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    plugin = registry.get("generators", name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert validate(plugin.Settings, old) == plugin.Settings(**new)
    assert len(caught) == len(old) and all(one.category is RenamedSetting for one in caught)


@pytest.mark.parametrize("name", ["controlnet_inpaint", "cross_modal", "dual_branch"])
def test_weights_saved_under_old_names_are_loaded(name: str, backbone: Any, tmp_path: Path) -> None:
    plugin = registry.get("generators", name)
    plugin(backbone, plugin.Settings()).save(tmp_path)
    path = tmp_path / "settings.json"
    written = json.loads(path.read_text())
    written["sound_prompt"] = written.pop("normal_prompt")
    path.write_text(json.dumps(written))
    with pytest.warns(RenamedSetting, match="sound_prompt.* is called normal_prompt now"):
        assert plugin.load(tmp_path, backbone).settings == plugin.Settings()
