"""The configuration tree: TOML in, `--set a.b=c` on top, strict: an unknown key is an error with the nearest name.

`making` and `judging` hold what can be set, `tree` puts it together, `settings` is what all of it is made of. Nothing
here imports torch: `flawsmith --help`, `new` and `check` stay quick.
"""

from flawsmith.config.judging import (
    THRESHOLDS,
    ExportConfig,
    FeaturesConfig,
    MeasureConfig,
    ProveConfig,
    ReportConfig,
    Rule,
    ScreenConfig,
)
from flawsmith.config.making import (
    AUTO,
    BackboneConfig,
    DataConfig,
    ExamplePer,
    GenerateConfig,
    GeneratorConfig,
    MaskConfig,
    Pattern,
    TrainConfig,
    WindowsConfig,
)
from flawsmith.config.settings import (
    Affects,
    Settings,
    _set,
    _toml,
    affecting,
    commented_toml,
    differing,
    toml_key,
    validate,
)
from flawsmith.config.tree import Config, load_config, overridden, parse_overrides
from flawsmith.config.without_shots import SUIT_ANYTHING, WithoutShotsConfig, nfc, with_composed_keys

__all__ = [
    "AUTO",
    "Affects",
    "BackboneConfig",
    "Config",
    "DataConfig",
    "ExamplePer",
    "ExportConfig",
    "FeaturesConfig",
    "GenerateConfig",
    "GeneratorConfig",
    "MaskConfig",
    "MeasureConfig",
    "Pattern",
    "ProveConfig",
    "ReportConfig",
    "Rule",
    "SUIT_ANYTHING",
    "ScreenConfig",
    "Settings",
    "THRESHOLDS",
    "TrainConfig",
    "WindowsConfig",
    "WithoutShotsConfig",
    "affecting",
    "commented_toml",
    "differing",
    "load_config",
    "nfc",
    "overridden",
    "parse_overrides",
    "toml_key",
    "validate",
    "with_composed_keys",
    "_set",
    "_toml",
]
