"""The configuration tree: TOML in, `--set a.b=c` on top, strict: an unknown key is an error with the nearest name.

`sections` holds what can be set, `settings` what all of it is made of. Nothing here imports torch: `flawsmith --help`,
`new` and `check` stay quick.
"""

from flawsmith.config.sections import (
    THRESHOLDS,
    BackboneConfig,
    Config,
    DataConfig,
    ExportConfig,
    FeaturesConfig,
    GenerateConfig,
    GeneratorConfig,
    MeasureConfig,
    Pattern,
    ProveConfig,
    ReportConfig,
    Rule,
    ScreenConfig,
    TrainConfig,
    WindowsConfig,
    load_config,
)
from flawsmith.config.settings import Settings, _set, _toml, commented_toml, parse_overrides, validate

__all__ = [
    "BackboneConfig",
    "Config",
    "DataConfig",
    "ExportConfig",
    "FeaturesConfig",
    "GenerateConfig",
    "GeneratorConfig",
    "MeasureConfig",
    "Pattern",
    "ProveConfig",
    "ReportConfig",
    "Rule",
    "ScreenConfig",
    "Settings",
    "THRESHOLDS",
    "TrainConfig",
    "WindowsConfig",
    "commented_toml",
    "load_config",
    "parse_overrides",
    "validate",
    "_set",
    "_toml",
]
