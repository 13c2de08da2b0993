"""Old names of settings: each is read for one release with one sentence that says the new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from flawsmith import registry
from flawsmith.config import Config, Settings, load_config, validate
from flawsmith.errors import ConfigError, RenamedSetting

OTHER = {"transfer": [{"from": "magnet", "defect": "crack"}]}
"""Values of keys that a rule guards."""
NEEDED: dict[str, dict[str, Any]] = {"Pattern": {"image": "{stem}.png"}}
"""What a class has no default for."""


def sections(section: type[Settings], place: tuple[str | int, ...] = ()) -> Iterator[tuple[type[Settings], tuple]]:
    """Yield (class, place) of a settings class and of all that stand in it, in lists too."""
    yield section, place
    for name, field in section.model_fields.items():
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, Settings):
                listed = get_origin(field.annotation) is list
                yield from sections(inner, (*place, name, 0) if listed else (*place, name))


def plugins() -> Iterator[tuple[type[Settings], tuple]]:
    for family in registry.FAMILIES:
        for name in registry._OURS[family]:
            if family != "metrics":  # plain functions
                yield registry.get(family, name).Settings, ()


CLASSES = [(section, place, Config) for section, place in sections(Config)]
CLASSES += [(section, place, section) for section, place in plugins()]
KEYS = [(root, place, section, old, new) for section, place, root in CLASSES for old, new in section.renamed.items()]
VALUES = [
    (root, place, section, key, old, new)
    for section, place, root in CLASSES
    for key, table in section.renamed_values.items()
    for old, new in table.items()
]


def name_of(value: Any) -> str:
    return value.__name__ if isinstance(value, type) else str(value)


def another(section: type[Settings], key: str) -> Any:
    """A value that is not the default."""
    if key in OTHER:
        return OTHER[key]
    field = section.model_fields[key]
    default = field.default
    if get_origin(field.annotation) is Literal:
        return next(value for value in get_args(field.annotation) if value != default)
    if isinstance(default, (int, float)):
        return default / 2 if isinstance(default, float) and default else default + 1
    return ["crack"] if isinstance(default, list) else "crack"


def tree_of(place: tuple[str | int, ...], section: type[Settings], **values: Any) -> Any:
    """The plain tree that has values at a place of the configuration."""
    tree: Any = NEEDED.get(section.__name__, {}) | values
    for step in reversed(place):
        tree = [tree] if isinstance(step, int) else {step: tree}
    return tree


def read(root: type[Settings], tree: Any) -> tuple[Settings, list[str]]:
    """Return the settings and the sentences that were said."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        settings = validate(root, tree)
    assert all(one.category is RenamedSetting for one in told)
    return settings, [str(one.message) for one in told]


def dotted(place: tuple[str | int, ...], key: str) -> str:
    return ".".join(str(step) for step in (*place, key))


def test_something_was_renamed() -> None:
    assert len(KEYS) >= 8 and {"Pattern", "GenerateConfig", "ProveConfig"} <= {row[2].__name__ for row in KEYS}
    assert {(row[3], row[4]) for row in VALUES} >= {("scope", "kind"), ("thresholds", "kind")}


@pytest.mark.parametrize(("root", "place", "section", "old", "new"), KEYS, ids=name_of)
def test_an_old_key(root: type, place: tuple, section: type, old: str, new: str) -> None:
    assert old not in section.model_fields and new in section.model_fields
    value = another(section, new)
    wanted, none = read(root, tree_of(place, section, **{new: value}))
    assert none == []
    assert wanted != read(root, tree_of(place, section))[0], "the value that is tried is the default"
    settings, told = read(root, tree_of(place, section, **{old: value}))
    assert settings == wanted
    assert told == [f"{dotted(place, old)} is called {new} now; the old name is read for one more release"]
    with pytest.raises(ConfigError) as caught:
        validate(root, tree_of(place, section, **{old: value, new: value}))
    assert str(caught.value) == f"{dotted(place, old)}: is called {new} now, and both are given; leave {old} out"


@pytest.mark.parametrize(("root", "place", "section", "key", "old", "new"), VALUES, ids=name_of)
def test_an_old_value(root: type, place: tuple, section: type, key: str, old: str, new: str) -> None:
    default, table = section.model_fields[key].default, isinstance(section.model_fields[key].default, dict)
    inner: Any = "off" if key == "thresholds" else {}

    def holding(*names: str) -> Any:
        return dict.fromkeys(names, inner) if table else list(names) if isinstance(default, list) else names[0]

    wanted, none = read(root, tree_of(place, section, **{key: holding(new)}))
    assert none == []
    settings, told = read(root, tree_of(place, section, **{key: holding(old)}))
    assert settings == wanted
    assert told == [f'{dotted(place, key)}: "{old}" is called "{new}" now; the old name is read for one more release']
    if table:
        with pytest.raises(ConfigError, match=f"{key}.{old}: is called {new} now, and both are given"):
            validate(root, tree_of(place, section, **{key: holding(old, new)}))


def test_each_is_said_where_it_stands(tmp_path: Path) -> None:
    """In a file and in an override, and each once however often it is read."""
    path = tmp_path / "old.toml"
    path.write_text("[generate]\nshams = 0.25\n[data]\nlayout = 'pattern'\npatterns = [{image = 'a', kind = 'b'}]\n")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        config = load_config(path, {"prove.twins": "keep"})
    assert config.generate.controls == 0.25 and config.prove.near_duplicates == "keep"
    assert config.data.patterns[0].defect == "b"
    assert sorted(str(one.message).partition(" now;")[0] for one in told) == [
        f"{path}: data.patterns.0.kind is called defect",
        f"{path}: generate.shams is called controls",
        f"{path}: prove.twins is called near_duplicates",
    ]


def test_the_command_line_says_it_in_one_line(factory_root: Path, tmp_path: Path) -> None:
    path = tmp_path / "old.toml"
    path.write_text(f"[data]\nroot = '{factory_root.as_posix()}'\nkinds = ['crack']\nshots = 2\n")
    words = ["check", str(path), "--set", "generate.shams=0.5", "--set", "backbone.device=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "flawsmith", *words], capture_output=True, text=True, env=dict(os.environ), timeout=120
    )
    assert done.returncode == 0, done.stderr
    rest = "now; the old name is read for one more release"
    assert sorted(done.stderr.splitlines()) == [
        f"flawsmith: {path}: data.kinds is called defects {rest}",
        f"flawsmith: {path}: generate.shams is called controls {rest}",
    ]


def test_say_is_still_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flawsmith import cli
    from flawsmith.run.folder import Run

    class Asked(Exception):
        pass

    def create(folder: Path, config: Config) -> None:
        raise Asked(config.generate.prompt)

    (tmp_path / "seed.toml").write_text(f"data.root = {json.dumps(str(tmp_path))}")
    monkeypatch.setattr(Run, "create", create)
    for option in ("--prompt", "--say"):
        monkeypatch.setattr(
            sys, "argv", ["flawsmith", "run", str(tmp_path / "seed.toml"), "-o", "x", option, "긴 균열"]
        )
        with warnings.catch_warnings(), pytest.raises(Asked) as asked:
            warnings.simplefilter("default")
            cli.main()
        assert asked.value.args == ("긴 균열",)
        told = capsys.readouterr().err.splitlines()
        assert told == (
            ["flawsmith: --say is called --prompt now; the old name is read for one more release"]
            if option == "--say"
            else []
        )
