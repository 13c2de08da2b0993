"""What every section and every plug-in's settings are made of: strict, self-describing, written as commented TOML.

An unknown key is an error with the nearest name; every wrong place gets its own line.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeGuard, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator
from pydantic.fields import FieldInfo

from flawsmith.errors import ConfigError, RenamedSetting, nearest

T = TypeVar("T", bound="Settings")


@dataclass(frozen=True, init=False)
class Affects:
    """Says which outputs a setting changes; stands in a field's `Annotated[...]`.

    An output is a stage (`data`, `train`, `generate`, `screen`, `measure`, `prove`, `export`, `report`) or `controls`,
    the negative controls that `generate` makes beside the samples. A stage is done again when one of the settings that
    affect its output changes. `Affects()` marks a setting that changes no output, such as how often to save.
    """

    outputs: tuple[str, ...]

    def __init__(self, *outputs: str) -> None:
        object.__setattr__(self, "outputs", outputs)


class Settings(BaseModel):
    """The base of every section and of every plug-in's settings: frozen, strict, self-describing."""

    affects: ClassVar[tuple[str, ...]] = ()
    """Outputs that every field changes which says nothing else with `Affects`."""
    renamed: ClassVar[dict[str, str]] = {}
    """Old key -> the key it has now; the old one is read for one release, with a warning."""
    renamed_values: ClassVar[dict[str, dict[str, str]]] = {}
    """Key -> {old value: the value it has now}; for a list its members, for a table its keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, validate_default=True
    )

    def reads(self) -> tuple[Path, ...]:
        """Return the files that these settings name and whose content counts like a setting: other content, other
        result."""
        return ()

    @field_validator("*")
    @classmethod
    def _without_nul(cls, value: Any) -> Any:
        """Refuse the character NUL, which no file and no folder can be called by."""
        if isinstance(value, (str, Path)) and "\0" in str(value):
            raise ValueError("holds the character NUL; leave it out")
        return value


def validate(section: type[T], tree: Any, *, where: str = "", overrides: Collection[str] = ()) -> T:
    """Check a plain tree against a settings class; every wrong place gets its own line in the error.

    Args:
        section: The class.
        tree: Plain values, as of a file.
        where: The file, for the error.
        overrides: Dotted names of what `--set` laid on top of the file, which is then to blame for them.

    Raises:
        ConfigError: a key is unknown, or a value does not fit.
    """
    try:
        return section.model_validate(_with_new_names(section, tree, where))
    except ValidationError as error:
        places: dict[str, list[dict[str, Any]]] = {}
        for item in error.errors():
            places.setdefault(_place(item["loc"]), []).append(dict(item))
        lines = []
        for place, items in places.items():
            head = "--set " if any(f"{place}.".startswith(f"{key}.") for key in overrides) else f"{where}: "
            lines.append((head if where else "") + _sentence(section, place, items).removeprefix(": "))
        raise ConfigError("\n".join(lines)) from None


def affecting(settings: Settings, output: str = "", *, default: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return {dotted name: JSON value} of every setting that changes an output.

    Args:
        settings: A section, the whole configuration, or a plug-in's own settings.
        output: See `Affects`; "" = every setting, whatever it changes.
        default: What a field affects where neither it nor its section says so.
    """
    values: dict[str, Any] = {}
    plain = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            values |= {f"{name}.{key}": item for key, item in affecting(value, output, default=default).items()}
            continue
        marks = [mark.outputs for mark in field.metadata if isinstance(mark, Affects)]
        if not output or output in (marks[0] if marks else type(settings).affects or default):
            values[name] = plain[name]
    return values


def differing(before: Mapping[str, Any], now: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str]:
    """Return the names of the settings that changed between two tables of `affecting`.

    A setting that only `now` has came with a later version: it counts when its value is not its default. One that only
    `before` has is gone, and counts for nothing.
    """
    missing = object()
    return [
        name
        for name, value in now.items()
        if (value != before[name] if name in before else value != defaults.get(name, missing))
    ]


def _with_new_names(section: type[Settings], tree: Any, where: str) -> Any:
    """Return a tree of plain values with today's names of keys and values; each old one is warned of once."""
    if not isinstance(tree, dict):
        return tree
    made: dict[str, Any] = {}
    for key, value in tree.items():
        name = section.renamed.get(str(key), str(key))
        if name != key:
            if name in tree:
                raise ConfigError(f"{_joined(where, key)}: is called {name} now, and both are given; leave {key} out")
            warn_renamed(_joined(where, key), name)
        field = section.model_fields.get(str(name))
        inner = field.annotation if field else None
        member = next(iter(get_args(inner)), None) if isinstance(value, list) else None
        if _is_settings(inner):
            value = _with_new_names(inner, value, _joined(where, name))
        elif _is_settings(member):
            value = [_with_new_names(member, item, _joined(where, f"{name}.{n}")) for n, item in enumerate(value)]
        made[name] = _with_new_values(section.renamed_values.get(name, {}), value, _joined(where, name))
    return made


def _with_new_values(table: Mapping[str, str], value: Any, where: str) -> Any:
    def new(item: Any) -> Any:
        if isinstance(item, str) and item in table:
            warn_renamed(f'{where}: "{item}"', f'"{table[item]}"')
            return table[item]
        return item

    if isinstance(value, list):
        return [new(item) for item in value]
    if not isinstance(value, dict):
        return new(value)
    for key in value:
        if (name := table.get(key)) in value:
            raise ConfigError(f"{where}.{key}: is called {name} now, and both are given; leave {key} out")
    return {new(key): item for key, item in value.items()}


def _is_settings(annotation: Any) -> TypeGuard[type[Settings]]:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def _joined(where: str, name: str) -> str:
    between = "" if not where else ": " if where.endswith((".toml", ".json")) else "."
    return f"{where}{between}{name}"


def warn_renamed(old: str, new: str) -> None:
    """Warn that something has another name now; the old one is read for one more release."""
    warnings.warn(f"{old} is called {new} now; the old name is read for one more release", RenamedSetting, stacklevel=2)


def commented_toml(
    config: Settings,
    generator: Settings | None = None,
    *,
    note: str = "every key may be left out; what stands here is the default.",
    keys: Sequence[str] = (),
) -> str:
    """Return a starting file: every field with its help above it and its default as value.

    Args:
        config: What to write down.
        generator: The generator's own settings, to be listed too; None = `settings` is left as it is.
        note: What the first line says of the values.
        keys: Dotted names of what is written down; () = everything.
    """
    lines = [f"# flawsmith: {note}", ""]
    plain = [(name, value) for name, value in config if not isinstance(value, Settings)]
    lines += list(_field_lines(config, [item for item in plain if not keys or item[0] in keys]))
    for name, section in sections(config):
        first = (type(section).__doc__ or "").strip().splitlines()[0]
        listed = name == "generator" and generator is not None
        items = [item for item in section if not isinstance(item[1], Settings)]
        items = [item for item in items if not (listed and item[0] == "settings")]
        items = [item for item in items if not keys or f"{name}.{item[0]}" in keys]
        if keys and not items:
            continue
        lines += ["", f"# {first}", f"[{name}]", *_field_lines(section, items)]
        if listed and generator is not None:
            lines += ["", "# The generator's own settings.", "[generator.settings]"]
            lines += _field_lines(generator, list(generator))
    return "\n".join(lines) + "\n"


def sections(settings: Settings, above: str = "") -> Iterator[tuple[str, Settings]]:
    """Yield (dotted name, section) of all sections in a tree of settings, a section before those inside it."""
    for name, value in settings:
        if isinstance(value, Settings):
            yield f"{above}{name}", value
            yield from sections(value, f"{above}{name}.")


def _field_lines(owner: Settings, items: list[tuple[str, Any]]) -> Iterator[str]:
    for name, value in items:
        yield f"# {type(owner).model_fields[name].description}"
        if name == "settings" and isinstance(value, dict):
            yield "settings = {" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
        else:
            yield f"{name} = {_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, Settings):
        value = value.model_dump(mode="json")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(item)}" for key, item in value.items()) + "}"
    text = value.as_posix() if isinstance(value, Path) else str(value)
    return json.dumps(text, ensure_ascii=False)  # JSON's escapes are TOML's


def toml_key(name: str) -> str:
    """Return a name as the key of a TOML table: in quotes where it holds more than Latin letters, digits, _ and -."""
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)


def _set(tree: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for name in parents:
        child = tree.setdefault(name, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{key}: {name} is a value, not a section")
        tree = child
    tree[last] = value


def _field_at(section: type[BaseModel], place: list[str]) -> tuple[type[BaseModel], Any]:
    """Follow a dotted place through the tree: (the section it ends in, the field itself or None)."""
    field = None
    for step in place:
        if step.isdigit():
            continue
        field = section.model_fields.get(step)
        if field is None:
            return section, None
        inner = [field.annotation, *get_args(field.annotation)]
        section = next((k for k in inner if isinstance(k, type) and issubclass(k, BaseModel)), section)
    return section, field


def _place(location: tuple[Any, ...]) -> str:
    # A union's branches each complain; pydantic appends the branch's name to the place, which no user wrote.
    plain = {"int", "str", "float", "bool", "[key]"}
    composed = ("constrained-", "literal[", "dict[", "list[", "tuple[", "function-")
    return ".".join(str(step) for step in location if step not in plain and not str(step).startswith(composed))


_LIMITS = {"greater_than_equal": "ge", "greater_than": "gt", "less_than_equal": "le", "less_than": "lt"}
"""An error's type -> the limit that a value is beyond, as a field has it."""


def _sentence(section: type[BaseModel], place: str, items: list[dict[str, Any]]) -> str:
    steps = place.split(".")
    if items[0]["type"] == "extra_forbidden":
        inner, _ = _field_at(section, steps[:-1])
        return f"{place}: unknown key{nearest(steps[-1], inner.model_fields)}"
    if items[0]["type"] == "missing":
        return f"{place}: is missing"
    _, field = _field_at(section, steps)
    value = items[0]["input"]
    if len(items) > 1 and field is not None and field.description:
        return f"{place}: {value!r} does not fit; it is: {field.description}"
    if items[0]["type"] == "model_type":
        return f"{place}: should be a section of settings, not {value!r}"
    if items[0]["type"] in _LIMITS and field is not None and (between := _between(field, repr(value))):
        return f"{place}: {between}"
    message = items[0]["msg"].removeprefix("Value error, ").removeprefix("Input ").partition(", unable to parse")[0]
    sentence = f"{place}: {message[0].lower() + message[1:]}"
    # What a validator of a whole section says names the settings itself, and all of the section would follow it.
    return sentence if isinstance(value, dict) and items[0]["type"] == "value_error" else f"{sentence}, not {value!r}"


def _between(field: FieldInfo, value: str) -> str:
    """Return what a number should be where it has two limits; "" = one side is open, and the error names the other.

    Of whole numbers the last one that fits is named, of others whether the limit itself fits.
    """
    limits = {key: getattr(rule, key) for rule in field.metadata for key in _LIMITS.values() if hasattr(rule, key)}
    least, most = limits.get("ge", limits.get("gt")), limits.get("le", limits.get("lt"))
    if least is None or most is None:
        return ""
    above, below = "gt" in limits, "lt" in limits
    if field.annotation is int:
        least, most, above, below = least + above, most - below, False, False
    least, most = (str(limit) if isinstance(limit, int) else f"{limit:g}" for limit in (least, most))
    if above and below:
        return f"should be above {least} and below {most}, not {value}"
    if above:
        return f"should be above {least} and at most {most}, not {value}"
    if below:
        return f"should be at least {least} and below {most}, not {value}"
    return f"should be from {least} to {most}, not {value}"
