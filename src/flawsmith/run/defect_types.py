"""Defect types: those that no shot shows, and whether settings that are tables by type name those that are there."""

from __future__ import annotations

from collections.abc import Collection

from flawsmith.config import SUIT_ANYTHING, Config, toml_key
from flawsmith.data.split import Split
from flawsmith.errors import ConfigError, nearest


def without_shots(config: Config, split: Split) -> list[tuple[str, str]]:
    """Return the (product, defect type) pairs that are made though no shot of the product shows the type."""
    types = config.generate.without_shots.types or ([] if config.data.shots else list(SUIT_ANYTHING))
    have = {(shot.product, str(shot.defect)) for shot in split.shots}
    pairs = [(product, defect) for product in sorted({one.product for one in split.normals}) for defect in types]
    return [pair for pair in dict.fromkeys(pairs) if pair not in have]


def require_defects(config: Config, names: Collection[str]) -> None:
    """Refuse a configuration that names defect types which are not these.

    Raises:
        ConfigError: names the first.
    """
    if wrong := wrong_tables(config, names):
        raise ConfigError(wrong[0])


def wrong_tables(config: Config, defects: Collection[str]) -> list[str]:
    """Return a sentence for each type that a table by type names and that is none of these, or leaves out wrongly."""
    sentences = unknown_defects(config, defects, "count", "paint", "masks")
    name, count, sizes = config.generator.name, config.generate.count, config.generate.without_shots.size
    sentences += [
        f"generate.without_shots.size: there is no defect type {defect!r}{nearest(defect, defects)}"
        for defect in (sizes if isinstance(sizes, dict) else ())
        if defect not in defects
    ]
    if isinstance(name, dict):
        sentences += [
            f"generator.name: there is no defect type {defect!r}{nearest(defect, defects)}"
            for defect in name
            if defect not in defects
        ]
        made = [defect for defect in sorted(defects) if not isinstance(count, dict) or count.get(defect)]
        sentences += [
            f'generator.name: no generator for the defect type {defect!r}; add {toml_key(defect)} = "...", or make '
            f"none of it with generate.count = {{{toml_key(defect)} = 0, ...}}"
            for defect in made
            if defect not in name
        ]
    return sentences


def unknown_defects(config: Config, defects: Collection[str], *fields: str) -> list[str]:
    """Return a sentence for each type that fields of `generate`, tables by type, name and that is none of these."""
    tables = {field: table for field in fields if isinstance(table := getattr(config.generate, field), dict)}
    return [
        f"generate.{field}: there is no defect type {defect!r}{nearest(defect, defects)}"
        for field, table in tables.items()
        for defect in table
        if defect not in defects
    ]
