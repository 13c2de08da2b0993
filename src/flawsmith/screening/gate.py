"""The gate: filters fitted on a product's shots, thresholds, verdicts with their reasons. Saved, it judges anywhere.

    gate/gate.json          filters and their settings, thresholds, extractor, what each product's shots score left out
    gate/000.safetensors    what the filters learned from the first product's shots and normal parts: vectors, and the
                            shots' brightness at 32 x 32, by which copies are known; no photograph

Scores are rounded before they are judged, so a verdict is a function of the numbers that are published.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from flawsmith import registry
from flawsmith.config import ScreenConfig, validate
from flawsmith.errors import ConfigError, RunError, nearest
from flawsmith.files import read_json, reading, write_json
from flawsmith.interfaces import Filter
from flawsmith.nn.networks.extractor import Extractor
from flawsmith.nn.weights import load_tensors, save_tensors
from flawsmith.paths import confined
from flawsmith.run.records import Reason, Verdict
from flawsmith.types import Range, ScreeningSet

DIGITS = 5
LEAST_SHOTS = 5
"""Left-out shots below which a quantile says nothing, and the score is not judged."""
_VERSION = 2


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What the shots score when each is left out of the fit."""

    shots: int
    """Shots for which the filter could tell."""
    least: float
    median: float
    greatest: float


@dataclass(frozen=True)
class FittedGate:
    """The filters fitted on one product's shots, and their thresholds."""

    defects: tuple[str, ...]
    filters: dict[str, Filter]
    limits: dict[str, float | None]
    """Least value of each score; None = not judged, or by its rank ({keep})."""
    notes: list[str]
    """What a reader must know: which filter is off and why."""
    left_out: dict[str, LeftOut]
    """By score."""
    span: Range | None = None
    """The product's value range, in which pictures that are judged must be read as well."""


@dataclass(frozen=True)
class Gate:
    """A fitted gate."""

    settings: ScreenConfig
    extractor: str
    fingerprint: str
    visible: float
    """Least change that counts, on the scale -1..1."""
    fitted_gates: dict[str, FittedGate]

    def judge(self, product: str, judged: ScreeningSet) -> list[Verdict]:
        """Return a verdict per picture, in order: every score, every threshold, and the named reasons.

        Raises:
            ConfigError: the gate does not know the product, or a defect type.
        """
        fitted = self.fitted(product)
        for defect in judged.defect:
            if defect not in fitted.defects:
                raise ConfigError(
                    f"{defect!r} is no defect type that this gate was fitted on{nearest(defect, fitted.defects)}"
                )
        columns: dict[str, list[float | None]] = {}
        words: dict[str, str] = {}
        for member in fitted.filters.values():
            words |= member.scores
            columns |= {name: _plain(values) for name, values in member.score(judged).items()}
        limits: list[dict[str, float]] = [{} for _ in judged.name]
        failed: list[list[str]] = [[] for _ in judged.name]
        for name, values in columns.items():
            limit = fitted.limits.get(name)
            for row, value in enumerate(values):
                if limit is not None and value is not None:
                    limits[row][name] = limit
                    if value < limit:
                        failed[row].append(name)
        for name, values in columns.items():
            rule = self.settings.rule_of(name)
            if isinstance(rule, dict) and "keep" in rule:
                _keep(name, rule["keep"], values, judged.defect, limits, failed)
        return [
            Verdict(
                name=judged.name[row],
                product=product,
                defect=judged.defect[row],
                kept=not failed[row],
                reasons=tuple(Reason(name, words[name]) for name in failed[row]),
                scores={name: values[row] for name, values in columns.items()},
                thresholds=limits[row],
            )
            for row in range(len(judged))
        ]

    def fitted(self, product: str) -> FittedGate:
        """Return what judges a product.

        Raises:
            ConfigError: the gate does not know it.
        """
        if product not in self.fitted_gates:
            raise ConfigError(
                f"{product!r} is no product that this gate was fitted on{nearest(product, self.fitted_gates)}"
            )
        return self.fitted_gates[product]

    def save(self, folder: Path) -> None:
        """Write gate.json and a safetensors file per product."""
        tree: dict[str, Any] = {
            "version": _VERSION,
            "extractor": {"name": self.extractor, "fingerprint": self.fingerprint},
            "visible": self.visible,
            "settings": self.settings.model_dump(mode="json"),
            "products": {},
        }
        for number, (product, fitted) in enumerate(self.fitted_gates.items()):
            tensors = {
                f"{name}/{key}": value for name, one in fitted.filters.items() for key, value in one.state().items()
            }
            save_tensors(folder / f"{number:03d}.safetensors", tensors)
            tree["products"][product] = {
                "defects": list(fitted.defects),
                "file": f"{number:03d}.safetensors",
                "filters": {name: one.settings.model_dump(mode="json") for name, one in fitted.filters.items()},
                "limits": fitted.limits,
                "notes": fitted.notes,
                "left_out": {score: asdict(one) for score, one in fitted.left_out.items()},
            }
            if fitted.span is not None and fitted.span.depth > 8:
                tree["products"][product]["range"] = fitted.span.to_json()
        write_json(folder / "gate.json", tree)

    @classmethod
    def load(cls, folder: Path) -> Gate:
        """Read what `save` wrote.

        Raises:
            RunError: there is no gate, or it is damaged.
        """
        path = folder / "gate.json"
        if not path.is_file():
            raise RunError(f"{folder}: holds no gate (gate.json is missing); `flawsmith screen RUN` writes RUN/gate")
        tree = read_json(path)
        if not isinstance(tree, dict) or tree.get("version") != _VERSION:
            raise RunError(f"{path}: not a gate of this version; screen its run again")
        with reading(path, "screen its run again"):
            return cls._of(tree, folder)

    @classmethod
    def _of(cls, tree: dict[str, Any], folder: Path) -> Gate:
        """Return what gate.json says, with what the filters learned beside it."""
        path, fitted_gates = folder / "gate.json", {}
        for product, own in tree["products"].items():
            tensors, _ = load_tensors(confined(folder, own["file"]))
            filters = {}
            for name, settings in own["filters"].items():
                plugin = registry.get("filters", name)
                chosen = validate(plugin.Settings, settings, where=f"{path}: {name}")
                with registry.making("filters", name):
                    filters[name] = plugin(chosen, own["defects"])
                prefix = f"{name}/"
                filters[name].restore({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
            left_out = {score: LeftOut(**one) for score, one in own["left_out"].items()}
            span = Range.from_json(own["range"]) if own.get("range") else None
            fitted_gates[product] = FittedGate(
                tuple(own["defects"]), filters, own["limits"], own["notes"], left_out, span
            )
        if not fitted_gates:
            raise ValueError("no product")
        settings = validate(ScreenConfig, tree["settings"], where=str(path))
        return cls(settings, tree["extractor"]["name"], tree["extractor"]["fingerprint"], tree["visible"], fitted_gates)

    def require(self, extractor: Extractor) -> None:
        """Refuse features of another extractor.

        Raises:
            ConfigError: names both.
        """
        if (extractor.name, extractor.fingerprint) != (self.extractor, self.fingerprint):
            raise ConfigError(
                f"this gate was fitted with {self.extractor} ({self.fingerprint}), not with {extractor.name} "
                f"({extractor.fingerprint}), and its thresholds hold for that one alone; name the same weights with "
                "features.extractor and features.source"
            )


def known_filters(settings: ScreenConfig) -> None:
    """Refuse unknown filters, and settings or thresholds of what is no filter or score here.

    Raises:
        ConfigError: names the nearest.
    """
    for name in settings.filters:
        registry.require("filters", name, "screen.filters")
    known = registry.entries("filters")
    if settings.repair and "alignment" not in settings.filters:
        raise ConfigError("screen.repair needs the filter alignment; add it to screen.filters")
    for name in settings.filters:
        plugin = registry.get("filters", name)
        its_settings = validate(plugin.Settings, settings.settings.get(name, {}), where=f"screen.settings.{name}")
        with registry.making("filters", name):
            plugin(its_settings, ("any",))  # its package may be missing
    for name in settings.settings:
        if name not in known:
            raise ConfigError(f"screen.settings: filter {name!r} is unknown{nearest(name, known)}")
    for name in settings.thresholds:
        family = name.partition(".")[0]
        if family not in known:
            raise ConfigError(f"screen.thresholds: {name!r} is no filter and no score{nearest(family, known)}")
        scores = registry.get("filters", family).scores
        if name != family and name not in scores:
            raise ConfigError(f"screen.thresholds: {name!r} is no score{nearest(name, [*scores, family])}")


def fit_gate(settings: ScreenConfig, defects: Sequence[str], shots: ScreeningSet, normals: ScreeningSet) -> FittedGate:
    """Fit every filter on one product's shots, and set the thresholds."""
    filters: dict[str, Filter] = {}
    limits: dict[str, float | None] = {}
    left_out: dict[str, LeftOut] = {}
    notes = []
    for name in settings.filters:
        plugin = registry.get("filters", name)
        its_settings = validate(plugin.Settings, settings.settings.get(name, {}), where=f"screen.settings.{name}")
        with registry.making("filters", name):
            filters[name] = plugin(its_settings, defects)
        scores = filters[name].fit(shots, normals)
        for score in filters[name].scores:
            values = np.array([value for value in _plain(scores[score]) if value is not None])
            limits[score] = None
            rule = settings.rule_of(score)
            if isinstance(rule, dict) and "absolute" in rule:
                limits[score] = rule["absolute"]
            if isinstance(rule, dict) and "quantile" in rule and len(values) >= LEAST_SHOTS:
                low, middle = float(np.quantile(values, rule["quantile"])), float(np.median(values))
                limits[score] = round(low - settings.slack * (middle - low), DIGITS)
            if len(values):
                least, median, greatest = (
                    round(float(value), DIGITS) for value in (values.min(), np.median(values), values.max())
                )
                left_out[score] = LeftOut(len(values), least, median, greatest)
        if words := filters[name].said():
            notes.append(words)
    return FittedGate(tuple(defects), filters, limits, notes, left_out)


def _keep(
    name: str,
    share: float,
    values: Sequence[float | None],
    defects: Sequence[str],
    limits: list[dict[str, float]],
    failed: list[list[str]],
) -> None:
    """Of what is left of each defect type, let the best so many pass; what the filter cannot tell passes too."""
    for defect in sorted(set(defects)):
        standing = [
            (-value, row)
            for row, value in enumerate(values)
            if defects[row] == defect and not failed[row] and value is not None
        ]
        if not standing:
            continue
        standing.sort()
        count = math.ceil(share * len(standing) - 1e-9)
        last = -standing[count - 1][0]
        for order, (_, row) in enumerate(standing):
            limits[row][name] = last
            if order >= count:
                failed[row].append(name)


def _plain(values: Tensor) -> list[float | None]:
    return [round(value, DIGITS) + 0.0 if math.isfinite(value) else None for value in values.tolist()]
