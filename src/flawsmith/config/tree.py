"""The configuration tree, and how it is read: TOML in, overrides on top."""

from __future__ import annotations

import codecs
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import Field

from flawsmith.config.judging import (
    ExportConfig,
    FeaturesConfig,
    MeasureConfig,
    ProveConfig,
    ReportConfig,
    ScreenConfig,
)
from flawsmith.config.making import (
    AUTO,
    BackboneConfig,
    DataConfig,
    GenerateConfig,
    GeneratorConfig,
    TrainConfig,
    WindowsConfig,
)
from flawsmith.config.settings import Affects, Settings, _set, toml_key, validate
from flawsmith.errors import ConfigError
from flawsmith.paths import open_file


class Config(Settings):
    """Everything that decides a run's result."""

    seed: Annotated[int, Field(ge=0, lt=2**31), Affects("train", "generate", "screen", "measure", "prove")] = 0
    """One number from which all randomness follows."""
    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    windows: WindowsConfig = WindowsConfig()
    generator: GeneratorConfig = GeneratorConfig()
    train: TrainConfig = TrainConfig()
    generate: GenerateConfig = GenerateConfig()
    features: FeaturesConfig = FeaturesConfig()
    screen: ScreenConfig = ScreenConfig()
    measure: MeasureConfig = MeasureConfig()
    prove: ProveConfig = ProveConfig()
    export: ExportConfig = ExportConfig()
    report: ReportConfig = ReportConfig()

    def with_absolute_root(self) -> Config:
        """Return the configuration with `data.root` as it is named from any working directory."""
        data = self.data.model_copy(update={"root": self.data.root.absolute()})
        return self.model_copy(update={"data": data})

    def job_of(self, product: str, defect: str) -> str:
        """Return the name of the model that paints a defect type of a product, its folder below RUN/weights."""
        scope = {"all": "all", "product": product, "defect": f"{product}/{defect}"}
        several = f"{self.generator.of(defect)}/" if len(self.generator.names) > 1 else ""
        return several + scope[self.train.scope]

    @property
    def rivals(self) -> list[str]:
        """Return the other generators that a proof compares with: `prove.against`, by default not the run's own."""
        against = self.prove.against
        if against != ProveConfig().against or self.generator.name == AUTO:
            return against
        return [name for name in against if (name,) != self.generator.names]

    @property
    def why_no_rival(self) -> str:
        """Return why a proof compares with no other generator though nobody asked for that, in a sentence; "" = it
        does, or somebody did."""
        if not self.prove.against or self.rivals:
            return ""
        return (
            f"the proof compares with the real shots alone: {self.prove.against[0]}, which it compares with by "
            "default, is this run's own generator; prove.against can name another"
        )

    def with_generator(self, name: str) -> Config:
        """Return the configuration in which one of its generators paints everything."""
        return self.model_copy(update={"generator": self.generator.alone(name)})


def load_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a TOML file and lay overrides such as {"train.steps": 300} on top.

    A relative `data.root` is taken from the working directory, as a shell user expects.

    Raises:
        ConfigError: the file is missing or broken, or it is empty and the overrides name no photographs; a key is
            unknown, or a value does not fit; names each place.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        path = Path(path)
        try:
            tree = tomllib.loads(_text(path))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such configuration file; `flawsmith new > {path.name}` writes one") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not a text file in UTF-8; save it in that encoding") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read as a text file ({error.strerror}); name a TOML file") from None
        except RecursionError:
            raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: not valid TOML: {error}") from None
        if not tree and "data.root" not in (overrides or {}):
            raise ConfigError(f"{path} is empty; write it with: flawsmith new --from FOLDER > {path}")
    for key, value in (overrides or {}).items():
        _set(tree, key, value)
    return validate(Config, tree, where=str(path) if path else "", overrides=overrides or {})


def overridden(config: Config, overrides: Mapping[str, Any]) -> Config:
    """Return a configuration with overrides such as {"export.formats": ["coco"]} on top.

    Raises:
        ConfigError: a key is unknown, or a value does not fit.
    """
    tree = config.model_dump(mode="json")
    for key, value in overrides.items():
        _set(tree, key, value)
    return validate(Config, tree)


def parse_overrides(overrides: list[str]) -> dict[str, Any]:
    """Turn ["train.steps=300", "data.defects=[\"crack\"]"] into a table; values are TOML, and bare words are text.

    Where a setting is a text, what TOML takes for a date or a number stays text: `data.root=2024-11-28`.
    """
    table: dict[str, Any] = {}
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--set {override}: expected key=value, e.g. --set train.steps=300")
        table[key.strip()] = _of_its_field(key.strip(), _value(override, text), text)
    return table


def _value(override: str, text: str) -> Any:
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except (tomllib.TOMLDecodeError, RecursionError):
        quoted = re.sub(r"([{,]\s*)([^\s\"'={},]+)(\s*=)", lambda fit: f"{fit[1]}{toml_key(fit[2])}{fit[3]}", text)
        if quoted == text or not text.lstrip().startswith("{"):
            return text
    try:
        tomllib.loads(f"x = {quoted}")
    except (tomllib.TOMLDecodeError, RecursionError):
        return text
    raise ConfigError(f"--set {override}: put the names in quotes: '{override.partition('=')[0]}={quoted}'")


def _of_its_field(key: str, value: Any, text: str) -> Any:
    """Return a value of `--set`, as text where its setting takes no other."""
    section: Any = Config
    *sections, name = key.split(".")
    for step in sections:
        field = section.model_fields.get(step)
        section = field.annotation if field else None
        if not (isinstance(section, type) and issubclass(section, Settings)):
            return value
    field = section.model_fields.get(section.renamed.get(name, name))
    annotation = field.annotation if field else None
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    if annotation == list[str]:
        if isinstance(value, list):
            return [one if isinstance(one, str | list | dict) else _as_text(one) for one in value]
        return value if isinstance(value, str | dict) else text.strip()
    return text.strip() if {str, Path} & {*kinds} and not isinstance(value, str | dict | list) else value


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _text(path: Path) -> str:
    """Read a text file in UTF-8, with or without the byte-order mark that Windows editors put first."""
    with open_file(path) as file:
        raw = file.read()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 0 in raw[:2]:
        raise ConfigError(f"{path}: not a text file in UTF-8 but in UTF-16; save it again with the encoding UTF-8")
    return raw.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
