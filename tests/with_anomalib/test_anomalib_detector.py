"""Anomalib's models as a detector: asked for what they know, and in a whole proof."""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from flawsmith.errors import ConfigError, DataError
from flawsmith.testing import example_training

pytest.importorskip("anomalib", reason="Anomalib is not installed: make test-anomalib has an environment with it")

from flawsmith.detectors import anomalib as detector_file
from flawsmith.detectors.anomalib import (
    TAKES_OFFLINE,
    Anomalib,
    AnomalibSettings,
    arguments_of,
    models_of_pictures,
    without_hub,
)

pytestmark = pytest.mark.anomalib
ROOT = Path(__file__).parents[2]
RANDOM = {"backbone": "resnet18", "layers": ["layer1", "layer2"], "pre_trained": False}
OURS = {"backbone": "efficientnet-lite0"}


def made(model: str, arguments: dict[str, Any] | None = None, **more: Any) -> Anomalib:
    return Anomalib(AnomalibSettings(model=model, arguments=arguments or {}, **more), ("disc", "bar"))


# --- what it advises exists ------------------------------------------------------------------------------------------


def advised() -> list[tuple[str, str, dict[str, Any]]]:
    """Every model with arguments that the settings' help and the documents name, as (where, model, arguments)."""
    source = inspect.getsource(detector_file)
    (names,) = re.findall(r"class in anomalib.models: (.+), \.\.\.", source)
    rows = [("help", name, {}) for name in names.split(", ")]
    for name, arguments in re.findall(r"`(\w+)` with `arguments\s*=\s*(\{.+?\})`", source, re.S):
        rows.append(("docstring", name, tomllib.loads(f"arguments = {arguments}")["arguments"]))
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for text in re.findall(r"^```toml\n(.*?)^```", path.read_text("utf-8"), re.M | re.S):
            settings = tomllib.loads(text).get("prove", {}).get("settings", {}).get("anomalib")
            if settings is not None:
                rows.append((path.name, settings.get("model", "Patchcore"), settings.get("arguments", {})))
    return rows


def test_every_model_and_argument_that_is_advised_exists() -> None:
    rows = advised()
    assert {where for where, *_ in rows} >= {"help", "docstring", "anomalib.md"}
    assert {name for _, name, _ in rows} >= {"Patchcore", "Padim", "Supersimplenet"}
    for where, name, arguments in rows:
        assert name in models_of_pictures(), f"{where}: there is no {name}"
        assert set(arguments) <= arguments_of(models_of_pictures()[name]), f"{where}: {name} {arguments}"
    for name, model in models_of_pictures().items():
        for argument in re.findall(r"\{(\w+) =", without_hub(model)):
            assert argument in inspect.signature(model).parameters, f"{name} is advised {argument}, which it lacks"
    classes = re.findall(r"from anomalib.models import ([\w, ]+)", (ROOT / "docs/anomalib.md").read_text("utf-8"))
    assert classes and set(", ".join(classes).split(", ")) <= set(models_of_pictures())


@pytest.mark.parametrize("name", ["Padim", "Supersimplenet", "Stfpm"])
def test_where_no_hub_is_reached_it_says_what_can_be_done(name: str) -> None:
    with pytest.raises(ConfigError, match="wants files that are not on this machine") as refused:
        list(made(name).fit(example_training(6), torch.Generator()))
    said = str(refused.value)
    assert ("pre_trained" in said) == (name == "Padim")
    assert ('backbone = "efficientnet-lite0"' in said) == (name in TAKES_OFFLINE)


def test_unknown_names_are_refused_before_any_training() -> None:
    with pytest.raises(ConfigError, match="no model for pictures of anomalib.models; did you mean 'Supersimplenet'"):
        made("SuperSimpleNet")
    with pytest.raises(ConfigError, match="'Padimm' .* did you mean 'Padim'"):
        made("Padimm")
    with pytest.raises(ConfigError, match="'AiVad' is no model for pictures"):
        made("AiVad")
    with pytest.raises(ConfigError, match="Supersimplenet has no 'pre_trained'"):
        made("Supersimplenet", {"pre_trained": False})
    with pytest.raises(ConfigError, match="Padim has no 'evaluator'"):
        made("Padim", {"evaluator": False})
    with pytest.raises(
        ConfigError, match="Stfpm cannot stand on efficientnet-lite0; Padim, Patchcore, Supersimplenet can"
    ):
        made("Stfpm", OURS)


def test_a_torchvision_that_does_not_fit_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anomalib.models", None)  # what `import` raises for is an ImportError here
    with pytest.raises(ConfigError, match="cannot be imported .* a torchvision that fits torch"):
        made("Padim")


def test_a_value_that_does_not_fit_and_pictures_too_small_are_sentences() -> None:
    with pytest.raises(ConfigError, match="Padim does not take them: .*n_features"):
        list(made("Padim", RANDOM | {"n_features": 10_000}).fit(example_training(6), torch.Generator()))
    with pytest.raises(DataError, match="Supersimplenet cannot be trained on these 12 pictures of 32 x 64 pixels"):
        supervised = made("Supersimplenet", OURS | {"supervised": True}, epochs=1)
        list(supervised.fit(example_training(12, oblong=True), torch.Generator().manual_seed(0)))


# --- it works --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(TAKES_OFFLINE))
def test_models_on_our_backbone_find_planted_damage(name: str) -> None:
    """All of them; on squares, for Supersimplenet's noise needs 256 pixels."""
    arguments: dict[str, Any] = dict(OURS)
    if name == "Supersimplenet":
        arguments["supervised"] = True
    detector = made(name, arguments, epochs=2)
    list(detector.fit(example_training(), torch.Generator().manual_seed(0)))
    unseen = example_training(12, seed=2).batch(range(12))
    said = detector.predict(unseen.image)
    assert said.anomaly_map is not None and said.anomaly_map.shape == unseen.mask.shape
    inside = unseen.mask.bool()
    assert ranked(said.anomaly_map[inside], said.anomaly_map[~inside]) > 0.8


def ranked(high: torch.Tensor, low: torch.Tensor) -> float:
    """AUROC by sorting: the share of pairs in which the first is higher."""
    below = torch.searchsorted(low.sort().values, high)
    return float(below.double().mean() / len(low))


def test_nothing_of_its_talk_is_heard(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(made("Padim", RANDOM).fit(example_training(6), torch.Generator())) == [1.0]
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_supervised_model_sees_the_damage() -> None:
    from flawsmith.detectors.anomalib import _Pictures

    training = example_training(8)
    plain, taught = _Pictures(training, damaged=False), _Pictures(training, damaged=True)
    assert (len(plain), len(taught)) == (4, 8)
    items = [taught[place] for place in range(8)]
    assert sum(bool(item.gt_label) for item in items) == 4
    assert all(bool(item.gt_mask.any()) == bool(item.gt_label) for item in items)
    assert 0 <= float(items[0].image.min()) and float(items[0].image.max()) <= 1


def test_a_proof_with_it(finished_run: Any, tmp_path: Path) -> None:
    """Padim alone and Supersimplenet with the damage, from the configuration to the verdicts in proof.json."""
    import shutil

    import flawsmith as fs
    from flawsmith.config import overridden

    for model, arguments in (("Padim", OURS), ("Supersimplenet", OURS | {"supervised": True})):
        folder = tmp_path / model
        shutil.copytree(finished_run.folder, folder)
        settings = {"anomalib": {"model": model, "arguments": arguments, "epochs": 1}}
        told = {"prove.detectors": ["anomalib"], "prove.settings": settings, "prove.size": 64}
        run = fs.Run.create(folder, overridden(finished_run.config, told))
        fs.prove(run)
        tree = json.loads(run.path("proof.json").read_text())["products"]["magnet"]
        arms = tree["arms"]
        assert {"real-only", "ours", "made-only"} <= set(arms)
        for arm in arms.values():
            assert 0 < arm["figures"]["detection"]["mean over defect types"]["auroc"]["mean"] <= 1
        rows = [row for row in tree["comparisons"] if row["arm"] == "ours" and row["against"] == "real-only"]
        assert {row["task"] for row in rows} == {"localization", "detection"}
        # Padim learns normal parts alone, so no arm can differ from another; Supersimplenet sees each arm's damage.
        moved = [row["difference"] for row in rows]
        assert any(moved) == (model == "Supersimplenet"), moved
