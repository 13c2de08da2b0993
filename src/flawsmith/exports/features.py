"""Embeddings of the pictures by the run's extractor, for tools that learn from tables of numbers, such as PyOD.

    FOLDER/features.npz         or features.parquet: a row for each picture

A row says what the picture is (name, product, defect, origin, source, photograph, side) and holds three embeddings:

    whole      of the whole picture
    window     of the square round its damage; NaN (parquet: null) for a normal part
    beneath    of the same square of the photograph that was painted on; NaN for all but samples

So `beneath` and `window` of the samples are pairs: the same place without damage and with it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from flawsmith import config
from flawsmith.data import images
from flawsmith.data.exported.arrangement import Outgoing, arranged, counted, labels_of
from flawsmith.data.exported.pictures import ranges_of
from flawsmith.data.feature_windows import feature_window, whole_picture
from flawsmith.errors import ConfigError
from flawsmith.files import write_bytes
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example, Range

if TYPE_CHECKING:
    from flawsmith.nn.networks.extractor import Extractor

LEVELS = ("whole", "window", "beneath")


class FeaturesSettings(config.Settings):
    """What the export can be told."""

    table: Literal["npz", "parquet"] = "npz"
    """Format of the table: npz, which NumPy reads, or parquet, which needs the package pyarrow."""
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Share of the samples of each type for validation, by photograph; 0 = none (held-out normal parts stay there)."""


class Features(Exporter):
    """A table of embeddings; equal pictures and weights give equal bytes."""

    Settings: ClassVar[type[config.Settings]] = FeaturesSettings
    settings: FeaturesSettings

    def __init__(self, settings: config.Settings) -> None:
        super().__init__(settings)
        if self.settings.table == "parquet" and find_spec("pyarrow") is None:
            raise ConfigError(
                'export.settings.features.table: "parquet" needs the package pyarrow, which is not installed; run '
                '`pip install pyarrow`, or set "npz"'
            )
        self._source: tuple[str, str, bool, Path | None] = ("efficientnet-lite0", "", True, None)

    def use_features(self, features: config.FeaturesConfig, offline: bool, cache: Path) -> dict[str, Any]:
        self._source = (features.extractor, features.source, offline, cache)
        extractor = _extractor(*self._source)
        return {"extractor": extractor.name, "weights": extractor.fingerprint}

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        pictures = arranged(examples, self.settings.validation)
        extractor = _extractor(*self._source)
        spans, photographs = ranges_of(examples), {one.id: one.image for one in examples if one.defect is None}
        rows = []
        for one in pictures:
            beneath = photographs.get(one.photograph) if one.made else None
            rows.append(_embedded(one, beneath, spans.get(one.product), extractor))
            advance(max(len(one.damaged), 1))
        columns: dict[str, list[str]] = {
            "name": [one.name for one in pictures],
            "product": [one.product for one in pictures],
            "defect": ["+".join(str(each.defect) for each in one.damaged) for one in pictures],
            "origin": ["made" if one.made else "real" for one in pictures],
            "source": [one.id for one in pictures],
            "photograph": [one.photograph for one in pictures],
            "side": [one.side for one in pictures],
        }
        length = len(rows[0]["whole"])
        blank = np.full(length, np.nan, np.float32)
        levels = {level: np.stack([row.get(level, blank) for row in rows]) for level in LEVELS}
        facts = {"extractor": extractor.name, "weights": extractor.fingerprint}
        written = _parquet if self.settings.table == "parquet" else _npz
        write_bytes(folder / f"features.{self.settings.table}", written(columns, levels, facts))
        return counted(pictures)


@lru_cache(maxsize=1)
def _extractor(name: str, source: str, offline: bool, folder: Path | None) -> Extractor:
    """Return the extractor; what a run's other stages asked it already is read from the run's folder."""
    from flawsmith.nn.feature_cache import FeatureCache
    from flawsmith.nn.features import load_extractor

    return FeatureCache(load_extractor(name, source, offline=offline), folder)


def _embedded(
    picture: Outgoing, beneath: Path | None, span: Range | None, extractor: Extractor
) -> dict[str, np.ndarray]:
    """Return the embeddings of a picture, float32 (D,) each, by their level; those that it has."""
    from flawsmith.data.tensors import image_tensor

    def embed(square: np.ndarray) -> np.ndarray:
        return np.asarray(extractor.vector(image_tensor([square]))[0].float().cpu().numpy())

    native = images.read(picture.image)
    span = images.range_of(native, span)
    model = images.to_model(native, span)
    row = {"whole": embed(whole_picture(model, extractor.side))}
    labels = labels_of(picture, native.shape[:2])
    if labels:
        below = None if beneath is None else images.to_model(images.read(beneath), span)
        window = feature_window(model, np.logical_or.reduce(list(labels.values())), below)
        row["window"] = embed(window.image)
        if window.below is not None:
            row["beneath"] = embed(window.below)
    return row


def _npz(columns: Mapping[str, list[str]], levels: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> bytes:
    """Return NumPy's archive; texts are Unicode arrays, so that it opens without pickle."""
    file = io.BytesIO()
    texts = {name: np.array(values) for name, values in {**columns, **facts}.items()}
    np.savez(file, **texts, **levels)  # type: ignore[arg-type]
    return file.getvalue()


def _parquet(columns: Mapping[str, list[str]], levels: Mapping[str, np.ndarray], facts: Mapping[str, str]) -> bytes:
    """Return a parquet file; an embedding is a list of float32, or null."""
    import pyarrow
    from pyarrow import parquet

    table = {name: pyarrow.array(values, pyarrow.string()) for name, values in columns.items()}
    for name, values in levels.items():
        kind = pyarrow.list_(pyarrow.float32(), values.shape[1])
        table[name] = pyarrow.array([None if np.isnan(row).any() else row.tolist() for row in values], kind)
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(table).replace_schema_metadata(dict(facts)), file)
    return file.getvalue()
