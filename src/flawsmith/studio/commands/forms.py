"""Forms from the settings' schema: which fields the page shows, and what of its answers becomes `--set` of a command.

A field's type, range, choices and help are those of the setting, so nothing of it is written down twice. Settings that
name files are left out: from the page no path may come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flawsmith import registry
from flawsmith.config import Config, Settings, _toml, overridden, parse_overrides
from flawsmith.errors import ConfigError, FlawsmithError

GENERATE = (
    *("seed", "screen.enabled", "generate.masks", "generate.turn", "generate.bend", "generate.outline"),
    *("generate.paint", "generate.feather", "generate.visible", "generate.min_painted", "generate.attempts"),
    *("generate.controls", "generate.prompt", "generate.steps", "generate.guidance", "generate.batch"),
    *("generate.reference", "generate.transfer", "train.scope", "train.steps", "train.batch"),
)
"""On the page Generate, beside how many of each type and the generator."""
PROVE = (
    *("prove.detectors", "prove.against", "prove.seeds", "prove.size", "prove.tile", "prove.budget", "prove.curve"),
    *("prove.mix", "prove.controls", "prove.protocol", "prove.near_duplicates", "prove.resamples"),
    *("prove.confidence", "prove.false_alarm_rate", "measure.enabled"),
)
"""On the page Proof."""
EXPORT = ("export.real",)
"""On the page Export, beside the formats and what each can be told."""
_NATIVE = ("switch", "choice", "whole", "number")
"""Kinds of fields that cannot name a file."""


def fields(config: Config, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the fields of settings of the configuration, by dotted name."""
    found = []
    for name in names:
        section: Settings = config
        *sections, last = name.split(".")
        for step in sections:
            section = getattr(section, step)
        found.append(_field(name, type(section), last, getattr(section, last)))
    return found


def generator_fields(config: Config, name: str) -> list[dict[str, Any]]:
    """Return the fields of a generator's own settings, without those that could name a file."""
    chosen = config.generator.settings if config.generator.name == name else {}
    return _own("generators", name, "generator.settings", chosen, _NATIVE)


def format_fields(config: Config, name: str) -> list[dict[str, Any]]:
    """Return the fields of an export format's own settings."""
    chosen = config.export.settings.get(name, {})
    return _own("exports", name, f"export.settings.{name}", chosen, (*_NATIVE, "text"))


def asked(values: Mapping[str, Any], offered: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the page sends as settings by dotted name.

    Args:
        values: By dotted name: the value itself, or for a field of kind "toml" the text as after `--set NAME=`.
        offered: The fields that the page was given.

    Raises:
        ConfigError: a setting was not offered.
    """
    kinds = {str(field["name"]): field["kind"] for field in offered}
    settings: dict[str, Any] = {}
    for name, value in values.items():
        if name not in kinds:
            raise ConfigError(f"{name[:80]}: is not set on this page; change it with `flawsmith run RUN --set`")
        is_text = kinds[name] == "toml" and isinstance(value, str)
        settings |= parse_overrides([f"{name}={value}"]) if is_text else {name: value}
    return settings


def changed(config: Config, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the settings that differ from what the configuration has.

    Raises:
        ConfigError: a value does not fit.
    """
    before, after = (one.model_dump(mode="json") for one in (config, overridden(config, settings)))
    return {name: value for name, value in settings.items() if value_at(before, name) != value_at(after, name)}


def set_words(settings: Mapping[str, Any]) -> list[str]:
    """Return settings as words of a command: ["--set", "generate.count=50", ...]."""
    return [word for name, value in settings.items() for word in ("--set", f"{name}={_toml(value)}")]


def value_at(tree: Any, name: str) -> Any:
    """Return a setting's value in a tree of settings, by its dotted name; None = there is none."""
    for step in name.split("."):
        tree = tree.get(step) if isinstance(tree, dict) else None
    return tree


def _own(family: str, name: str, where: str, chosen: Mapping[str, Any], kinds: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the fields of a plug-in's own settings; [] = it cannot be loaded here."""
    try:
        section: type[Settings] = registry.get(family, name).Settings
        settings = section.model_validate(dict(chosen))
    except (FlawsmithError, ValueError):
        return []
    made = [_field(f"{where}.{key}", section, key, value) for key, value in settings]
    return [field for field in made if field["kind"] in kinds]


def _field(name: str, section: type[Settings], key: str, value: Any) -> dict[str, Any]:
    """Return what the page must know of a setting to draw its control."""
    schema = section.model_json_schema()
    rules = _resolved(schema, schema["properties"][key])
    plain = section.model_validate({}).model_dump(mode="json")[key] if not _required(schema) else None
    value = value.model_dump(mode="json") if isinstance(value, Settings) else value
    field: dict[str, Any] = {"name": name, "help": rules.get("description", ""), "default": plain}
    branches = rules.get("anyOf", [rules])
    choices = next((list(one["enum"]) for one in branches if "enum" in one), None)
    if len(branches) > 1 and (choices is None or not isinstance(value, str)):
        choices = None
        kind = "toml"
    elif choices:
        kind = "choice"
    else:
        kinds = {"boolean": "switch", "integer": "whole", "number": "number", "string": "text"}
        kind = kinds.get(str(rules.get("type")), "toml")
    if kind in ("whole", "number"):
        field |= {"least": rules.get("minimum", rules.get("exclusiveMinimum")), "most": rules.get("maximum")}
    shown = (value if isinstance(value, str) else _toml(value)) if kind == "toml" else value
    return {**field, "kind": kind, "choices": choices or [], "value": shown}


def _resolved(schema: Mapping[str, Any], rules: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the rules of a property, of a definition that it points to where it does."""
    if "$ref" in rules:
        return {**schema["$defs"][rules["$ref"].rpartition("/")[2]], **rules}
    return rules


def _required(schema: Mapping[str, Any]) -> bool:
    return bool(schema.get("required"))
