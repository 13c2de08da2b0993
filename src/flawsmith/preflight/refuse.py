"""What would stop a run after hours of work, said before it begins: plug-ins, what they are told, weights, test set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from flawsmith import registry
from flawsmith.config import Config, FeaturesConfig, ProveConfig, validate
from flawsmith.data import images
from flawsmith.data.split import Split, provable
from flawsmith.errors import Answer, BackboneError, ConfigError, FlawsmithError, nearest
from flawsmith.exports.export import load_exporter
from flawsmith.nn.loading.facts import low_rank_stamps, require_describer, require_layers
from flawsmith.preflight.backbone import look_for_device, look_over
from flawsmith.run.defect_types import without_shots
from flawsmith.run.tracker import require_tracker
from flawsmith.synthesis.sentences.prompt import known_places, parsed_prompts, require_room
from flawsmith.synthesis.transfer import known_references

if TYPE_CHECKING:
    from flawsmith.nn.networks.extractor import Extractor


_LONGEST = 255
"""Bytes of a folder's name on most disks."""


def preflight(config: Config, split: Split | None, *, near_duplicates: bool = True) -> dict[str, tuple[Answer, ...]]:
    """Return a sentence for each thing that a stage of `flawsmith run` would refuse, be it the last, with the settings
    that answer it; {} = none.

    A plug-in of ours is imported only where it is told something, so that `flawsmith check` stays quick.

    Args:
        config: What the run is told.
        split: Its pictures; None = they are not known.
        near_duplicates: Also count the test pictures that second photographs leave, for which every picture is decoded.
    """
    if unknown := registry.misnamed(config):
        return dict.fromkeys(unknown, ())  # what nobody knows cannot be asked
    generator, screen, prove = config.generator, config.screen, config.prove
    others = _of_others(config)
    checks: list[Callable[[], Any]] = [partial(registry.get, *plugin) for plugin in others]
    checks += [partial(load_exporter, config, name) for family, name in others if family == "exports"]
    checks += [partial(_made, config, name) for family, name in others if family == "generators"]
    if generator.settings:
        checks.append(partial(_generator, config))
    checks += [partial(_backbone, config), partial(look_for_device, config.backbone)]
    checks.append(partial(require_tracker, config.train.tracker))
    if screen.enabled:
        checks.append(partial(_gate, config))
    if prove.enabled:
        checks.append(partial(registry.known_rivals, config))
        plain = [name for name in ProveConfig().detectors if name not in prove.settings]
        checks += [partial(_detector, config, name) for name in sorted({*prove.detectors, *prove.settings} - {*plain})]
    checks += [partial(load_exporter, config, name) for name in config.export.formats if name in config.export.settings]
    if config.generate.describe:
        checks.append(partial(require_describer, config.generate.describer))
    if split is not None:
        checks.append(partial(_named_folders, config, split))
        checks.append(partial(known_references, config, split))
        checks.append(partial(known_places, config, split))
        if config.generate.prompt:
            checks.append(partial(_prompt, config, split))
    if prove.enabled and split is not None:
        for product in sorted({shot.product for shot in split.shots}):
            checks.append(
                partial(
                    provable,
                    split.of(product),
                    drop_near_duplicates=near_duplicates and prove.near_duplicates == "drop",
                )
            )
    if (screen.enabled or config.measure.enabled or prove.enabled) and config.features != FeaturesConfig():
        checks.append(partial(_extractor, config))
    sentences: dict[str, tuple[Answer, ...]] = {}
    for check in checks:
        try:
            check()
        except FlawsmithError as error:
            sentences |= dict.fromkeys(str(error).splitlines(), error.answers)
    return sentences


def _of_others(config: Config) -> list[tuple[str, str]]:
    """Return (family, name) of the plug-ins that a run uses and that are not ours: they may not be there to import."""
    used = [("generators", name) for name in config.generator.names]
    used += [("exports", name) for name in config.export.formats]
    if config.measure.enabled:
        used += [("metrics", name) for name in config.measure.metrics]
    if config.prove.enabled:
        used += [("generators", name) for name in config.prove.against]
    return [plugin for plugin in used if not registry.is_ours(*plugin)]


def _generator(config: Config) -> None:
    part = config.generator
    for name in part.names:
        where = "generator.settings" if isinstance(part.name, str) else f"generator.settings.{name}"
        validate(registry.get("generators", name).Settings, part.alone(name).settings, where=where)
    if isinstance(part.name, dict) and (others := [name for name in part.settings if name not in part.names]):
        raise ConfigError(
            f"generator.settings.{others[0]}: generator.name names no such generator{nearest(others[0], part.names)}; "
            "where it is a table, settings are given as {generator = {its settings}}"
        )


def _named_folders(config: Config, split: Split) -> None:
    """Refuse products and types of which no folder of weights can have the name."""
    table = config.generator.name
    pairs = {(shot.product, str(shot.defect)) for shot in split.shots} | set(without_shots(config, split))
    for pair in sorted(pairs):
        if isinstance(table, dict) and pair[1] not in table:
            continue  # nothing is made of it
        for part in (job := config.job_of(*pair)).split("/"):
            if part in ("", ".", ".."):
                raise ConfigError(f"data.product: {job!r} cannot name a folder of weights; use a plain name")
            if (size := len(part.encode())) > _LONGEST:
                raise ConfigError(f"{part[:20]}...: a folder's name has at most {_LONGEST} bytes, and this {size}")


def _prompt(config: Config, split: Split) -> None:
    """Refuse a sentence that is not understood, or asks for damage larger than the photographs."""
    pixel_mm = config.data.pixel_mm
    for wish in parsed_prompts(config, split):
        least = max(bounds[0] if bounds else 0.0 for bounds in (wish.length_mm, wish.width_mm))
        for product in sorted({normal.product for normal in split.normals}) if least else ():
            if wish.product in ("", product):
                # Those of a product are mostly alike, so the header of one is read.
                normal = next(one for one in split.normals if one.product == product)
                require_room(least / pixel_mm, images.describe(normal.image).shape, pixel_mm)


def _made(config: Config, name: str) -> None:
    """Make a generator of another package once, where that takes no backbone."""
    plugin = registry.get("generators", name)
    if name in config.generator.names and not plugin.needs_backbone:
        where = "generator.settings"
        settings = validate(plugin.Settings, config.generator.alone(name).settings, where=where)
        with registry.making("generators", name):
            plugin(None, settings)


def _backbone(config: Config) -> None:
    try:
        facts = look_over(config.backbone.source, offline=config.backbone.offline)
        if facts is not None and facts.text_layers and config.backbone.clip_skip:
            require_layers(config.backbone.clip_skip, facts.text_layers)
        low_rank_stamps(config.backbone.lora)
    except BackboneError:
        if any(registry.get("generators", name).needs_backbone for name in config.generator.names):
            raise


def _detector(config: Config, name: str) -> None:
    plugin = registry.get("detectors", name)
    settings = validate(plugin.Settings, config.prove.settings.get(name, {}), where=f"prove.settings.{name}")
    if name in config.prove.detectors:  # its package may be missing
        extractor = _extractor(config) if plugin.needs_extractor else None
        with registry.making("detectors", name):
            plugin(settings, ("any",), extractor=extractor)


def _gate(config: Config) -> None:
    from flawsmith.screening.gate import known_filters

    known_filters(config.screen)


def _extractor(config: Config) -> Extractor:
    from flawsmith.nn.features import load_extractor

    return load_extractor(config.features.extractor, config.features.source, offline=config.backbone.offline)
