"""What the page Generate asks: what can be set, what would be made, and to begin or go on with it."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, Header
from pydantic import BaseModel, ConfigDict, Field

from flawsmith import registry
from flawsmith.config import AUTO, Config, affecting, overridden
from flawsmith.errors import ConfigError, DataError, FlawsmithError, RunError
from flawsmith.run.folder import Run
from flawsmith.run.opening import leaving_nothing
from flawsmith.run.painted import FOLDER, PaintedPair, painted_pairs
from flawsmith.studio.candidates import folder_name
from flawsmith.studio.commands import costs, forms
from flawsmith.studio.commands.process import language_of, said
from flawsmith.studio.picture_routes import Name
from flawsmith.studio.workspace import Workspace
from flawsmith.synthesis.counts import counts

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio

PageLanguage = Annotated[str, Header(alias="accept-language", max_length=1000)]
"""The page names the language that it shows first."""
Values = Annotated[dict[str, Any], Field(max_length=100)]


class PlanAsked(BaseModel):
    """What is to be made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    values: Values = {}
    """Of the form, by dotted name; see `forms.asked`."""
    count: int | Literal["balance"] | dict[str, int] | None = None
    """As `generate.count`; None = as it is."""
    generator: Annotated[str, Field(max_length=200)] = ""
    """Its name; "" = as it is."""
    name: Annotated[str, Field(max_length=120)] = ""
    """Of the run's folder, where none is open yet."""


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file."""
    router, workspace = APIRouter(prefix="/api"), studio.workspace

    def config() -> Config:
        return studio.run.config if workspace.run else workspace.config

    @router.get("/plan")
    def plan() -> dict[str, Any]:
        """Say what can be set, and what it is set to."""
        known = config()
        return {
            "run": str(workspace.run.folder) if workspace.run else "",
            "name": "" if workspace.run else _free_name(workspace),
            "folder": str(workspace.runs),
            "count": known.generate.count,
            "generator": known.generator.name if isinstance(known.generator.name, str) else "",
            "generators": [
                *({"name": name, "summary": one.summary, "learns": one.learns} for name, one in _generators()),
                {"name": AUTO, "summary": "", "learns": False},
            ],
            "fields": forms.fields(known, forms.GENERATE),
        }

    @router.get("/plan/generator")
    def generator(name: Name = "") -> list[dict[str, Any]]:
        """Say what a generator can be told; it is loaded for that, which takes seconds when it is the first."""
        return _own_fields(config(), name)

    @router.post("/plan")
    def preview(asked: Annotated[PlanAsked, Body()]) -> dict[str, Any]:
        """Say what would be made, and the command that makes it; changes nothing."""
        known = config()
        settings = _settings(known, asked)
        wanted = overridden(known, settings)
        target = workspace.run.folder if workspace.run else _target(workspace, asked.name)
        words = _words(target, forms.changed(known, settings) if workspace.run else _to_choose(wanted))
        rows, problem = [], ""
        try:
            planned = counts(wanted, workspace.split)
        except ConfigError as error:
            planned, problem = {}, str(error)
        made = _made(studio.run) if workspace.run else Counter()
        shots = Counter((shot.product, shot.defect) for shot in workspace.split.shots)
        for product, defect in sorted({*planned, *made, *((p, d) for p, d in shots if d)}):
            key = product, defect
            rows.append(
                {
                    "product": product,
                    "defect": defect,
                    "shots": shots[key],
                    "planned": planned.get(key, 0),
                    "made": made[key],
                }
            )
        anew = bool(made) and _makes_anew(known, wanted)
        cost = costs.cost_of(studio, wanted, costs.MAKING) if not problem else costs.NONE
        return {
            "rows": rows,
            "command": said(words),
            "problem": problem,
            "begun": bool(made),
            "anew": anew,
            "complete": bool(made) and not anew and _complete(studio.run, wanted),
            "cost": cost,
        }

    @router.post("/generate")
    def generate(asked: Annotated[PlanAsked, Body()], accepted: PageLanguage = "") -> dict[str, Any]:
        """Begin to make samples, or go on; without a run one is made first, and opened."""
        known = config()
        settings, language = _settings(known, asked), language_of(accepted)
        wanted = overridden(known, settings)
        counts(wanted, workspace.split)  # says at once what cannot be
        with studio.accepting:
            if workspace.run:
                words = _words(workspace.run.folder, forms.changed(known, settings))
                return studio.commands.start("generate", words, workspace.run.folder, language).to_json()
            target = _target(workspace, asked.name)
            chosen_later = _to_choose(wanted)
            with studio.commands.held():
                if target.exists() and any(target.iterdir()):
                    raise ConfigError(f"{target}: is there already; name another folder for this run")
                begun_with = overridden(known, settings | {"generator": {}}) if chosen_later else wanted
                studio.open(_begun(workspace, target, begun_with))
            return studio.commands.start("generate", _words(target, chosen_later), target, language).to_json()

    return router


def _generators() -> list[tuple[str, registry.Entry]]:
    """Return the generators by name, those that need no training first."""
    return sorted(registry.entries("generators").items(), key=lambda item: (not item[1].pixels, item[0]))


def _settings(config: Config, asked: PlanAsked) -> dict[str, Any]:
    """Return what was asked for as settings.

    Raises:
        ConfigError: the generator is unknown, or a setting is not of this page.
    """
    name: Any = asked.generator or config.generator.name
    if asked.generator not in ("", AUTO, *registry.entries("generators")):
        raise ConfigError(f"generator.name: {asked.generator[:80]!r} is unknown")
    offered = forms.fields(config, forms.GENERATE)
    if any(key.startswith("generator.settings.") for key in asked.values):
        offered += _own_fields(config, name)
    settings = forms.asked(asked.values, offered)
    if asked.count is not None:
        settings["generate.count"] = asked.count
    if name != config.generator.name:  # the settings of the generator before would be unknown to this one
        prefix = "generator.settings."
        own_settings = {key.removeprefix(prefix): value for key, value in settings.items() if key.startswith(prefix)}
        settings = {key: value for key, value in settings.items() if not key.startswith(prefix)}
        settings |= {"generator.name": name, "generator.settings": own_settings}
    return settings


def _own_fields(config: Config, name: Any) -> list[dict[str, Any]]:
    """Return the fields of a generator's own settings; [] = none is named, or one for each type."""
    known = isinstance(name, str) and name in registry.entries("generators")
    return forms.generator_fields(config, name) if known else []


def _to_choose(config: Config) -> dict[str, Any]:
    """Return the setting that lets the command choose the generator; {} = one is named. No run holds "auto" itself."""
    return {"generator.name": AUTO} if config.generator.name == AUTO else {}


def _words(run: Path, settings: dict[str, Any]) -> list[str]:
    return ["run", str(run), "--until", "screen", *forms.set_words(settings)]


def _makes_anew(before: Config, wanted: Config) -> bool:
    """Return whether samples that are made give way to others: what they depend on is changed."""
    return any(affecting(before, output) != affecting(wanted, output) for output in ("train", "generate"))


def _complete(run: Run, config: Config) -> bool:
    """Return whether a run has finished what its plan asks for."""
    return all(run.stage_hash(stage) for stage in ("generate", *(["screen"] if config.screen.enabled else [])))


def _made(run: Run) -> Counter[tuple[str, str]]:
    return Counter((sample.product, sample.defect) for sample in run.samples() if sample.made)


def _free_name(workspace: Workspace) -> str:
    """Return a name for a run's folder that is free: photographs-run, photographs-run-2, ..."""
    name = f"{workspace.config.data.root.resolve().name or 'photographs'}-run"
    number = 1
    while (workspace.runs / (name if number == 1 else f"{name}-{number}")).exists():
        number += 1
    return name if number == 1 else f"{name}-{number}"


def _target(workspace: Workspace, name: str) -> Path:
    """Return where a new run is made.

    Raises:
        ConfigError: the name is none that every system takes as a folder's.
        DataError: it would lie among the photographs.
    """
    name = name or _free_name(workspace)
    if folder_name(name) != name:
        raise ConfigError(f"{name!r}: no name for a folder; use letters, digits, - and _")
    target = workspace.runs / name
    if target.resolve().is_relative_to(workspace.config.data.root.resolve()):
        raise DataError(f"{target}: lies among the photographs, which are only read; name another place with --out")
    return target


def _begun(workspace: Workspace, target: Path, config: Config) -> Workspace:
    """Return a new run in an empty folder, opened; where that fails, nothing is left that is in the way of a retry.

    Raises:
        FlawsmithError: what was painted cannot be read, or the run not be written or opened.
    """
    pairs = painted_pairs(workspace.painted)
    with leaving_nothing(target):
        try:
            _bring(pairs, Run.create(target, config))
            return Workspace.open(target)
        except (OSError, FlawsmithError) as error:
            shutil.rmtree(target / FOLDER, ignore_errors=True)
            if isinstance(error, OSError):
                raise RunError(f"{target}: cannot be written ({error.strerror})") from None
            raise


def _bring(pairs: Sequence[PaintedPair], run: Run) -> None:
    """Copy what was painted and accepted before there was a run into the run: its export takes it along."""
    for pair in pairs:
        files = [*sorted(pair.image.parent.glob(f"{pair.image.stem}.*"))]
        target = run.path(FOLDER, *pair.name.split("/")[:-1])
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(files, key=lambda path: path.suffix == ".json"):  # that one last: then the pair counts
            shutil.copy2(file, target / file.name)
