"""A run that learns few steps from a trained one: same photographs, backbone and windows, generator `few_steps`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flawsmith import registry
from flawsmith.config import overridden, validate
from flawsmith.errors import ConfigError, RunError
from flawsmith.nn.weights import read_settings
from flawsmith.run.folder import Run
from flawsmith.run.unchanged import require_as_trained
from flawsmith.synthesis.train import generator_settings

STUDENT = "few_steps"
STEPS = 4
"""`generate.steps` of a student's run."""


def student_run(run: Run, folder: Path, overrides: Mapping[str, Any], *, quarter: bool = False) -> Run:
    """Start the run of a student, or open it again; `flawsmith train` of it goes on.

    Args:
        run: The teacher's, trained.
        folder: The student's.
        overrides: Settings of the student's run, as after `--set`.
        quarter: A quarter of the weights.

    Raises:
        RunError: the run is not trained, or its weights were changed since.
        ConfigError: it has several generators, or one that cannot teach.
    """
    name = run.config.generator.name
    if not isinstance(name, str) or not hasattr(registry.get("generators", name), "guided_predictor"):
        raise ConfigError(
            f"distill {run.folder}: {run.config.generator.label} cannot teach few steps; train a run with "
            'generator.name = "controlnet_inpaint"'
        )
    if not run.stage_hash("train"):
        raise RunError(f"distill {run.folder}: is not trained yet; run `flawsmith train {run.folder}` first")
    require_as_trained(run)
    if folder.resolve() == run.folder.resolve():
        raise ConfigError(f"--out {folder}: is the run that teaches; name another folder")
    own = registry.get("generators", STUDENT).Settings.model_fields
    settings = {key: value for key, value in run.config.generator.settings.items() if key in own and key != "sampler"}
    settings |= {"teacher": str(run.path("weights").absolute()), "method": name, "quarter": quarter}
    settings |= {"teaching": changed} if (changed := _changed(run, set(own))) else {}
    of_run = {
        "generator.name": STUDENT,
        "generator.settings": {**settings, "guidance": run.config.generate.guidance},
        "generate.steps": STEPS,
    }
    return Run.create(folder, overridden(run.config, {**of_run, **overrides}))


def _changed(run: Run, own: set[str]) -> dict[str, Any]:
    """Return what of a run's sampling is another now than its weights' own files say, but for what a student has."""
    plugin = registry.get("generators", str(run.config.generator.name))
    now = plugin.affecting(generator_settings(run.config), "generate")
    changed: dict[str, Any] = {}
    for file in sorted(run.path("weights").rglob("settings.json")):
        trained = validate(plugin.Settings, read_settings(file.parent), where=str(file))
        before = plugin.affecting(trained, "generate")
        changed |= {key: value for key, value in now.items() if key not in own and value != before.get(key)}
    return changed
