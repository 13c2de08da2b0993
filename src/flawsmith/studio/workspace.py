"""What the studio has opened: a run, a folder of photographs or a TOML file; and the files that it may show.

The page names photographs by their ids and samples by their numbers. Both are looked up here, so no path ever comes
from the page, and nothing but the set and the run can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flawsmith import registry
from flawsmith.config import AUTO, Config, DataConfig, load_config, overridden
from flawsmith.data.split import Split
from flawsmith.errors import ConfigError, DataError
from flawsmith.run.dataset import load_split, scanned_dataset
from flawsmith.run.folder import Run
from flawsmith.run.painted import FOLDER
from flawsmith.synthesis.by_hand.source import DEFAULT_GENERATOR, config_of, run_at
from flawsmith.types import Example


@dataclass(frozen=True, slots=True)
class GeneratorChoice:
    """A generator that can paint right now."""

    name: str
    summary: str


@dataclass(frozen=True)
class Workspace:
    """An opened source, as the page sees it."""

    source: Path
    """As the user named it."""
    run: Run | None
    """None = a folder of photographs or a TOML file."""
    config: Config
    settings: Mapping[str, Any]
    """Those that were laid on top, by dotted name."""
    normals: tuple[Example, ...]
    """Normal photographs: what may be painted on."""
    labelled: tuple[Example, ...]
    """Photographs with masks, shots first."""
    shots: frozenset[str]
    """Ids of those of `labelled` that are learned from."""
    defects: dict[str, tuple[str, ...]]
    """Each product with the defect types that there are shots of."""
    painted: Path
    """The folder that accepted pictures go to."""
    split: Split
    """Which photographs are learned from, painted on and tested on."""
    opened: bool = True
    """False: nothing is, and the page asks which folder to open."""
    _by_id: dict[str, Example] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, source: Path, painted: Path | None = None, settings: Mapping[str, Any] | None = None) -> Workspace:
        """Read which photographs there are.

        Args:
            source: A run folder, a folder of photographs in one of the layouts of docs/data.md, or a TOML file.
            painted: Where accepted pictures go; None = RUN/painted, or beside the folder of photographs.
            settings: Settings by dotted name on top, such as {"data.layout": "pairs"}.

        Raises:
            DataError: nothing usable is there, or `painted` lies among the photographs.
            RunError: the run cannot be read.
            ConfigError: the TOML file cannot be read, or another place is named for a run's pictures.
        """
        run = run_at(source)
        settings = dict(settings or {})
        config = _config_of(run or source, settings)
        if run and run.path("data.json").exists():
            split = load_split(run)
        elif run or not source.is_dir() or any(map(_says_layout, settings)):
            split = scanned_dataset(config).split
        else:
            settings, config, split = _looked_over(source, settings, config)
        if run and painted:
            raise ConfigError(f"--out: what is painted for a run is kept in {run.path(FOLDER)}; leave --out out")
        accepted = run.path(FOLDER) if run else painted or _beside(config.data.root)
        if not run and accepted.resolve().is_relative_to(config.data.root.resolve()):
            raise DataError(
                f"{accepted}: lies among the photographs, which are only read; name another place with --out"
            )
        labelled = (*split.shots, *split.test_defects)
        types: dict[str, set[str]] = {}
        for shot in split.shots:
            types.setdefault(shot.product, set()).add(str(shot.defect))
        return cls(
            source=source,
            run=run,
            config=config,
            settings=settings,
            normals=split.normals,
            labelled=labelled,
            shots=frozenset(shot.id for shot in split.shots),
            defects={product: tuple(sorted(types[product])) for product in sorted(types)},
            painted=accepted,
            split=split,
            _by_id={example.id: example for example in (*split.normals, *split.test_normals, *labelled)},
        )

    @classmethod
    def nothing(cls, root: Path) -> Workspace:
        """Return a workspace in which nothing is open: a folder below `root` is chosen on the page."""
        config = Config(data=DataConfig(root=root))
        return cls(root, None, config, {}, (), (), frozenset(), {}, root, Split((), (), (), ()), opened=False)

    @property
    def runs(self) -> Path:
        """Return the folder that runs of these photographs are made in."""
        return self.run.folder.parent if self.run else self.painted.parent

    def example(self, name: str) -> Example:
        """Return a photograph of the set by its id.

        Raises:
            DataError: there is none of that name.
        """
        if name not in self._by_id:
            raise DataError(f"{name[:200]!r}: the set has no such photograph")
        return self._by_id[name]

    def normal(self, name: str) -> Example:
        """Return a normal photograph by its id.

        Raises:
            DataError: there is none of that name, or it shows damage.
        """
        example = self.example(name)
        if example.defect is not None or example not in self.normals:
            raise DataError(f"{name}: is not among the normal photographs that are painted on")
        return example

    @property
    def generators(self) -> tuple[GeneratorChoice, ...]:
        """Return what can paint without further training, the default one first."""
        known = registry.entries("generators")
        trained = self.run.record("train").get("generator") if self.run and self.run.stage_hash("train") else ""
        names = [name for name, entry in known.items() if entry.pixels]
        names += [trained] if trained in known else []
        first = self.default_generator
        ordered = sorted(dict.fromkeys(names), key=lambda name: (name != first, name))
        return tuple(GeneratorChoice(name, known[name].summary) for name in ordered)

    @property
    def default_generator(self) -> str:
        """Return the run's own generator where one paints everything by pixels, else `DEFAULT_GENERATOR`."""
        name = self.config.generator.name
        entry = registry.entries("generators").get(name) if isinstance(name, str) and name != AUTO else None
        return str(name) if entry and entry.pixels else DEFAULT_GENERATOR


def _config_of(source: Run | Path, settings: Mapping[str, Any]) -> Config:
    """Return the configuration of a source, with settings on top."""
    if isinstance(source, Run):
        if not settings:
            return source.config
        config_of(source, DEFAULT_GENERATOR, settings)  # a run keeps its photographs: refuses settings of data
        return overridden(source.config, settings)
    config = config_of(source, "", settings) if source.is_dir() else load_config(source, settings)
    if not config.data.root.is_dir():
        raise DataError(f"{config.data.root}: there is no such folder of photographs; put data.root right in {source}")
    return config


def _says_layout(setting: str) -> bool:
    """Tell whether a setting says how a folder is to be read, so that nobody has to find out."""
    return setting.startswith("data.") and setting != "data.normal" and not setting.startswith("data.mask.")


def _looked_over(folder: Path, settings: dict[str, Any], config: Config) -> tuple[dict[str, Any], Config, Split]:
    """Return settings, configuration and split of a folder of photographs, in whatever layout it is."""
    try:
        return settings, config, scanned_dataset(config).split
    except DataError:
        from flawsmith.preflight.recognise import SETTING, SHOTLESS, recognise

        normal = settings.get(SETTING, ())  # where the page answered
        understood = recognise(folder, normal, by=SETTING).data.model_dump(
            mode="json", exclude_defaults=True, exclude={"root"}
        )
        settings |= {f"data.{key}": value for key, value in understood.items()}
        if understood.get("shots") == 0:  # there is no defect to learn from
            settings.setdefault("generator.name", SHOTLESS)
        config = _config_of(folder, settings)
        return settings, config, scanned_dataset(config).split


def _beside(root: Path) -> Path:
    """Return the folder beside a folder of photographs that accepted pictures go to."""
    whole = root.resolve()
    return whole.with_name(f"{whole.name}-painted")
