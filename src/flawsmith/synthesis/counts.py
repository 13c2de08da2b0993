"""How many samples each product gets of each defect type: `generate.count`, transfers and a sentence, put together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from flawsmith import registry
from flawsmith.config import Config, GenerateConfig, _toml
from flawsmith.data.split import Split
from flawsmith.errors import Answer, ConfigError
from flawsmith.run.defect_types import without_shots
from flawsmith.synthesis.sentences.prompt import prompted_counts
from flawsmith.synthesis.transfer import transfers


def counts(config: Config, split: Split) -> dict[tuple[str, str], int]:
    """Return how many samples to make of each (product, defect type).

    "balance" fills every type of a product up to its largest, counting all its real pictures, shots and test alike.

    Raises:
        ConfigError: nothing at all would be made.
    """
    real = Counter((e.product, e.defect) for e in (*split.shots, *split.test_defects) if e.defect)
    defects = sorted({(e.product, e.defect) for e in split.shots if e.defect})
    transferred = list(transfers(config, split))
    defects += transferred
    drawn = [pair for pair in without_shots(config, split) if pair not in defects]
    defects += drawn
    asked = wanted(config, {key: real[key] for key in defects})
    if config.generate.prompt:
        asked = prompted_counts(config, split, asked)
    for _, defect in (pair for pair in drawn if asked.get(pair)):
        if not registry.get("generators", config.generator.of(defect)).without_shots:
            raise ConfigError(
                f"generator.name: {config.generator.of(defect)} learns damage from shots, and none shows {defect!r}; "
                "rendered, cutpaste, nsa, perlin and component need none",
                answers=(Answer("generator.name", "rendered"),),
            )
    unscreened = Answer("screen.enabled", False)
    if config.screen.enabled and (new := [pair for pair in transferred + drawn if asked.get(pair)]):
        product, defect = new[0]
        raise ConfigError(
            f"screen.enabled: screening compares with shots, and none of {product!r} shows {defect!r}; "
            f"leave out one of the two, screening with {unscreened}",
            answers=(unscreened,),
        )
    if not any(asked.values()):
        count = config.generate.count
        why = ", as every defect type has as many pictures as the largest" if count == "balance" else ""
        plain = Answer("generate.count", GenerateConfig.model_fields["count"].default)
        raise ConfigError(
            f"generate.count: {_toml(count)} asks for no sample at all{why}; set a number, e.g. {plain}",
            answers=(plain,),
        )
    return asked


def wanted(config: Config, have: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Return how many samples of each (product, defect type) the configuration asks for.

    Args:
        config: `generate.count` decides; "balance" fills every defect type up to its product's largest.
        have: Real pictures of each (product, defect type).
    """
    count = config.generate.count
    if isinstance(count, int):
        return dict.fromkeys(have, count)
    if isinstance(count, dict):
        return {(product, defect): count.get(defect, 0) for product, defect in have}
    most: dict[str, int] = {}
    for (product, _), number in have.items():
        most[product] = max(most.get(product, 0), number)
    return {key: most[key[0]] - number for key, number in have.items()}
