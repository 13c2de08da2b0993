"""config.py: TOML in, --set on top, and every mistake one line that names the place."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import unicodedata
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flawsmith.config import (
    Config,
    DataConfig,
    Pattern,
    Settings,
    commented_toml,
    load_config,
    parse_overrides,
    validate,
)
from flawsmith.errors import ConfigError
from flawsmith.run.defect_types import wrong_tables

FULL = """
seed = 7
[data]
root = "photos"
layout = "pattern"
normal = "MT_Free"
shots = "third"
patterns = [{image = "{defect}/{stem}.png", mask = "m/{defect}/{stem}.png"}, {image = "ok/{stem}.png", normal = true}]
[backbone]
source = "models/sd"
dtype = "float32"
[generator]
name = "controlnet_inpaint"
[generator.settings]
prompt = "a photo of a {defect}"
[train]
steps = 300
learning_rate = 1e-4
[generate]
count = {crack = 3, hole = 0}
paint = {crack = "replace"}
"""


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    path = tmp_path / "my.toml"
    path.write_text(FULL)
    return path


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_a_byte_order_mark_is_no_part_of_the_file(tmp_path: Path, ends: str) -> None:
    (tmp_path / "plain.toml").write_bytes(FULL.replace("\n", ends).encode("utf-8"))
    (tmp_path / "marked.toml").write_bytes(FULL.lstrip().replace("\n", ends).encode("utf-8-sig"))
    assert load_config(tmp_path / "marked.toml") == load_config(tmp_path / "plain.toml")
    assert load_config(tmp_path / "marked.toml").seed == 7


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_refused_in_one_sentence(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(FULL.encode(encoding))
    with pytest.raises(ConfigError) as told:
        load_config(path)
    assert str(told.value) == f"{path}: not a text file in UTF-8 but in UTF-16; save it again with the encoding UTF-8"


def test_names_of_defects_are_read_in_composed_form() -> None:
    name = unicodedata.normalize("NFD", "찍힘")
    config = load_config(
        None,
        {
            "generate.count": {name: 3},
            "generate.paint": {name: "replace"},
            "generate.reference": {name: name},
            "generate.masks": {name: "mixed"},
            "generate.without_shots.size": {name: [0.1, 0.2]},
            "data.mask.values": {name: 255},
            "generate.transfer": {"from": "tile", "defect": name},
            "data.root": name,
        },
    )
    assert (config.generate.count, config.generate.paint) == ({"찍힘": 3}, {"찍힘": "replace"})
    assert (config.generate.masks, config.data.mask.values) == ({"찍힘": "mixed"}, {"찍힘": 255})
    assert config.generate.without_shots.size == {"찍힘": (0.1, 0.2)}
    assert config.generate.transfer == [{"from": "tile", "defect": "찍힘"}]
    assert config.generate.reference == {"찍힘": name}  # a shot's id, which is as the disk has it
    assert str(config.data.root) == name


def complaint(overrides: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as told:
        load_config(None, overrides)
    return str(told.value)


def sections(plugin: type[Settings]) -> Iterator[type[Settings]]:
    yield plugin
    for field in plugin.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
            yield from sections(field.annotation)


# ---- reading ------------------------------------------------------------------------------------


def test_a_file_is_read(toml: Path):
    config = load_config(toml)
    assert config.seed == 7 and config.data.root == Path("photos") and config.data.shots == "third"
    assert config.data.normal == ["MT_Free"], "one name is a list of one"
    assert config.data.patterns == [
        Pattern(image="{defect}/{stem}.png", mask="m/{defect}/{stem}.png"),
        Pattern(image="ok/{stem}.png", normal=True),
    ]
    assert config.generator.settings == {"prompt": "a photo of a {defect}"}
    assert config.generate.count == {"crack": 3, "hole": 0} and config.generate.paint == {"crack": "replace"}
    assert config.train.batch == Config().train.batch


def test_nothing_given_is_the_defaults():
    assert load_config() == Config()


@pytest.mark.parametrize("text", ["", "\n", "# what a `flawsmith new` that failed left\n"])
def test_a_file_that_says_nothing_is_refused_unless_photographs_are_named(tmp_path: Path, text: str):
    path = tmp_path / "my.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as told:
        load_config(path, {"train.steps": 3})
    assert str(told.value) == f"{path} is empty; write it with: flawsmith new --from FOLDER > {path}"
    assert load_config(path, {"data.root": "photos"}).data.root == Path("photos")


def test_what_set_laid_on_top_is_not_blamed_on_the_file(toml: Path):
    toml.write_text(FULL.replace("steps = 300", "stesp = 300"))
    with pytest.raises(ConfigError) as told:
        load_config(toml, {"generate.coutn": 3, "train": {"steps": -1, "stesp": 2}, "seed": "one"})
    assert sorted(str(told.value).splitlines()) == [
        "--set generate.coutn: unknown key; did you mean 'count'?",
        "--set seed: should be a valid integer, not 'one'",
        "--set train.steps: should be greater than or equal to 0, not -1",
        "--set train.stesp: unknown key; did you mean 'steps'?",
    ]
    with pytest.raises(ConfigError, match=f"^{re.escape(str(toml))}: train.stesp: unknown key"):
        load_config(toml, {"train.steps": 3})


def test_overrides_lie_on_top(toml: Path):
    config = load_config(
        str(toml), {"train.steps": 5, "generator.settings.prompt": "x", "data.defects": ["crack"], "seed": 1}
    )
    assert (config.train.steps, config.train.learning_rate, config.seed) == (5, 1e-4, 1)
    assert config.generator.settings == {"prompt": "x"} and config.data.defects == ["crack"]


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("data.root=2024-11-28", "2024-11-28"),
        ("data.product=12", "12"),
        ("data.product=1.10", "1.10"),
        ("data.defects=1", "1"),
        ("data.defects=[1, true, 2024-11-28]", ["1", "true", "2024-11-28"]),
        ("generate.prompt=2024", "2024"),
        ("generator.name=1", "1"),
        ("generator.name={crack = 'perlin'}", {"crack": "perlin"}),
        ("generator.settings.name=1", 1),
        ("data.shots=5", 5),
        ("backbone.offline=false", False),
        ("no.such=1", 1),
    ],
)
def test_names_that_look_like_dates_and_numbers_stay_text(pair: str, value: Any) -> None:
    assert parse_overrides([pair]) == {pair.partition("=")[0]: value}


def test_bare_names_in_other_letters_are_answered_with_quotes() -> None:
    with pytest.raises(ConfigError, match="""put the names in quotes: 'generate.count={"긁힘"=5, b = 1}'"""):
        parse_overrides(["generate.count={긁힘=5, b = 1}"])
    assert 'add "긁힘" = "..."' in complaint_of_missing({"crack": "perlin"}, "긁힘")
    (said,) = wrong_tables(load_config(None, {"generator.name": {"crack": "perlin"}}), ("crack", "긁힘"))
    assert 'add "긁힘" = "..."' in said and 'generate.count = {"긁힘" = 0, ...}' in said
    assert 'add dent = "..."' in complaint_of_missing({"crack": "perlin"}, "dent")


def complaint_of_missing(table: dict[str, str], defect: str) -> str:
    with pytest.raises(ConfigError) as told:
        load_config(None, {"generator.name": table}).generator.of(defect)
    return str(told.value)


def test_a_table_of_ranges_that_does_not_fit_is_said_in_plain_words() -> None:
    assert "constrained" not in complaint({"generate.without_shots.size": {"dent": [0.1, "x"]}})


def test_overrides_are_toml_and_bare_words_are_text():
    found = parse_overrides(
        [
            "train.steps=300",
            "train.learning_rate=1e-4",
            'data.defects=["crack", "hole"]',
            "backbone.offline=false",
            "data.root=/photos/line 1",
            "data.shots=third",
            "generate.count={crack = 3}",
            " seed = 4",
            "generator.settings.prompt=a = b",
            "data.product=",
        ]
    )
    assert found == {
        "train.steps": 300,
        "train.learning_rate": 1e-4,
        "data.defects": ["crack", "hole"],
        "backbone.offline": False,
        "data.root": "/photos/line 1",
        "data.shots": "third",
        "generate.count": {"crack": 3},
        "seed": 4,
        "generator.settings.prompt": "a = b",
        "data.product": "",
    }


def test_a_config_survives_json(toml: Path):
    config = load_config(toml)
    assert validate(Config, config.model_dump(mode="json")) == config
    assert Config.model_validate_json(config.model_dump_json()) == config


def test_a_config_is_frozen():
    with pytest.raises(ValidationError):
        Config().seed = 3  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Config().train.steps = 3  # type: ignore[misc]


# ---- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key, wanted",
    [
        ("data.shot", "data.shot: unknown key; did you mean 'shots'?"),
        ("trian.steps", "trian: unknown key; did you mean 'train'?"),
        ("train.stepz", "train.stepz: unknown key; did you mean 'steps'?"),
        ("backbone.zzz", "backbone.zzz: unknown key; known: clip_skip, device, dtype, lora, offline, source"),
    ],
)
def test_an_unknown_key_is_named_with_its_nearest(key: str, wanted: str):
    assert complaint({key: 3}) == wanted


@pytest.mark.parametrize(
    "key, value, wanted",
    [
        ("train.steps", -1, ["train.steps: ", "greater than or equal to 0", "not -1"]),
        ("train.steps", "many", ["train.steps: ", "integer", "not 'many'"]),
        ("train.steps", 2.5, ["train.steps: ", "integer", "not 2.5"]),
        ("train.learning_rate", 0, ["train.learning_rate: ", "greater than 0", "not 0"]),
        ("train.learning_rate", float("nan"), ["train.learning_rate: ", "finite number", "not nan"]),
        ("generate.guidance", 0.5, ["generate.guidance: ", "from 1 to 30", "not 0.5"]),
        ("generate.bend", 9, ["generate.bend: ", "should be from 0 to 2, not 9"]),
        ("generate.bend", -1, ["generate.bend: ", "should be from 0 to 2, not -1"]),
        ("prove.confidence", 1, ["prove.confidence: ", "should be above 0.5 and below 1, not 1"]),
        ("generate.masks", "drawn", ["generate.masks: ", "half and half", "'drawn' does not fit"]),
        ("backbone.dtype", "fp8", ["backbone.dtype: ", "'float32'", "not 'fp8'"]),
        ("backbone.offline", "perhaps", ["backbone.offline: ", "boolean", "not 'perhaps'"]),
        ("seed", 2**31, ["seed: ", "from 0 to 2147483647"]),
        ("data.defects", 3, ["data.defects: ", "list", "not 3"]),
        ("data", 3, ["data: ", "not 3"]),
        ("windows.size", 4096, ["windows.size: ", "from 0 to 2048"]),
    ],
)
def test_a_value_that_does_not_fit(key: str, value: Any, wanted: list[str]):
    said = complaint({key: value})
    assert "\n" not in said and "pydantic" not in said and "validation error" not in said.lower()
    for part in wanted:
        assert part in said, said


@pytest.mark.parametrize(
    "key, value",
    [
        ("generate.count", "some"),
        ("generate.count", -3),
        ("data.shots", "half"),
        ("data.shots", -1),
        ("generate.paint", 7),
        ("data.mask.ignore", "x"),
        ("data.mask.values", "some"),
        ("data.mask.inverted", "maybe"),
    ],
)
def test_a_value_of_several_kinds_is_explained_in_the_fields_own_words(key: str, value: Any):
    said = complaint({key: value})
    section, _, name = key.rpartition(".")
    field = type(attrgetter(section)(Config())).model_fields[name]
    assert said == f"{key}: {value!r} does not fit; it is: {field.description}"


def test_a_value_inside_a_table_is_named():
    assert complaint({"generate.count": {"crack": -1}}).startswith("generate.count")
    assert "crack" in complaint({"generate.count": {"crack": -1}})


def test_every_mistake_gets_its_own_line(tmp_path: Path):
    (tmp_path / "c.toml").write_text("sed = 1\n[train]\nsteps = -1\nbatch = 0\n[data]\nshot = 3\n")
    with pytest.raises(ConfigError) as told:
        load_config(tmp_path / "c.toml")
    lines = str(told.value).splitlines()
    assert len(lines) == 4 and all(line.startswith(f"{tmp_path / 'c.toml'}: ") for line in lines)
    assert {line.split(": ")[1] for line in lines} == {"sed", "train.steps", "train.batch", "data.shot"}


def test_a_place_in_a_list_is_named():
    said = complaint({"data.patterns": [{"image": "a"}, {"mask": "b", "imagee": "c"}]})
    assert "data.patterns.1.image: is missing" in said
    assert "data.patterns.1.imagee: unknown key; did you mean 'image'?" in said


def test_a_value_where_a_section_is_needed():
    assert complaint({"seed.x": 3, "train.steps.y": 1}).startswith("seed")
    assert complaint({"train.steps": 3, "train.steps.y": 1}) == "train.steps.y: steps is a value, not a section"


@pytest.mark.parametrize("pair", ["train.steps", "=3", " = 3"])
def test_an_override_without_key_or_value(pair: str):
    with pytest.raises(ConfigError, match="expected key=value, e.g. --set train.steps=300"):
        parse_overrides([pair])


@pytest.mark.parametrize("content", [b"[train\nsteps = 3", b"a = ", b"\xff\xfe\x00", b"steps = 1\nsteps = 2"])
def test_a_broken_file(tmp_path: Path, content: bytes):
    path = tmp_path / "c.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as told:
        load_config(path)
    assert str(told.value).startswith(f"{path}: not ") and "\n" not in str(told.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"gone\.toml: no such configuration file; `flawsmith new > gone\.toml`"):
        load_config(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="cannot be read as a text file"):
        load_config(tmp_path)


def test_a_plugins_settings_are_checked_the_same_way():
    class Mine(Settings):
        """Mine."""

        much: int = 3
        """How much."""

    assert validate(Mine, {}).much == 3
    with pytest.raises(ConfigError, match=r"^generator\.settings: mucch: unknown key; did you mean 'much'\?$"):
        validate(Mine, {"mucch": 1}, where="generator.settings")
    with pytest.raises(
        ConfigError, match=r"^generator\.settings: strenght: unknown key"
    ):  # begins as a type's name does
        validate(Mine, {"strenght": 1}, where="generator.settings")
    with pytest.raises(ConfigError, match=r"^generator\.settings: "):
        validate(Mine, 3, where="generator.settings")


# ---- one source, three readers ------------------------------------------------------------------


def test_every_field_has_a_line_of_help():
    for section in (*sections(Config), Pattern):
        assert (section.__doc__ or "").strip(), section
        for name, field in section.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, Settings):
                continue
            help_ = field.description
            assert help_ and "\n" not in help_ and help_[-1] in ".;", f"{section.__name__}.{name}: {help_!r}"


def test_the_starting_file_reads_back_to_the_defaults():
    text = commented_toml(Config())
    assert validate(Config, tomllib.loads(text)) == Config()
    for section in sections(Config):
        for name, field in section.model_fields.items():
            if not (isinstance(field.annotation, type) and issubclass(field.annotation, Settings)):
                assert f"# {field.description}\n{name} = " in text


def test_the_starting_file_of_any_config_reads_back(toml: Path):
    awkward = {"data.root": 'a "b"\\c', "generator.settings": {"prompt": "ä {defect}\n\ttab", "n": 0.1, "flag": True}}
    for config in (load_config(toml), load_config(None, awkward)):
        assert validate(Config, tomllib.loads(commented_toml(config))) == config


def test_the_new_command_prints_it(tmp_path: Path):
    found = subprocess.run([sys.executable, "-m", "flawsmith", "new"], capture_output=True, text=True, check=True)
    (tmp_path / "new.toml").write_text(found.stdout)
    assert load_config(tmp_path / "new.toml") == Config() and found.stderr == ""


def test_the_json_schema_builds_with_help_and_limits():
    schema = Config.model_json_schema()
    assert set(schema["properties"]) == set(Config.model_fields)
    steps = schema["$defs"]["TrainConfig"]["properties"]["steps"]
    assert steps["minimum"] == 0 and steps["description"] == "Training steps; 0 = none." and steps["default"] == 600
    assert schema["additionalProperties"] is False


def test_relative_roots_are_the_shells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert DataConfig(root="photos").root.resolve() == tmp_path.resolve() / "photos"
