"""MVTec LOCO's folder layout: logical anomalies, which break a rule of the product, apart from structural damage.

    FOLDER/provenance.jsonl                                          one line per picture: where it came from
    FOLDER/<product>/train/good/000.png                              normal parts to learn from
    FOLDER/<product>/validation/good/000.png                         normal parts to set thresholds with
    FOLDER/<product>/test/good/000.png                               normal parts held out
    FOLDER/<product>/test/logical_anomalies/000.png                  something is missing, doubled, turned or misplaced
    FOLDER/<product>/test/structural_anomalies/000.png               everything else
    FOLDER/<product>/ground_truth/logical_anomalies/000/000.png      one mask for each defect type on the picture
    FOLDER/<product>/defects_config.json                             what values mean, and how much must be found

Bergmann et al., "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and Localization"
(IJCV 2022), section 4: a mask holds the value of its defect type, and defects_config.json says per type its saturation
area, of which the metric sPRO asks no more to be found. Anomalib's `MVTecLOCO` loads the layout.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from flawsmith import config
from flawsmith.data import images
from flawsmith.data.exported.arrangement import Outgoing, Written, arranged, write_pictures
from flawsmith.data.exported.names import folder_names
from flawsmith.data.exported.pictures import Depth
from flawsmith.errors import DataError
from flawsmith.files import digest, write_json, write_lines
from flawsmith.interfaces import Exporter
from flawsmith.types import Advance, Example

_LOGICAL, _STRUCTURAL = "logical_anomalies", "structural_anomalies"
_CHANGES_COMPONENTS = "component"
"""The generator whose defects are logical, whatever their type is called."""


class MvtecLocoSettings(config.Settings):
    """What the export can be told."""

    bits: Depth = "8"
    """Depth of the pictures: "8", or "native" as the photograph has it."""
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.15
    """Share of the normal parts to learn from that go into validation/good instead."""
    logical: list[str] = [_LOGICAL, "missing", "doubled", "turned", "moved"]
    """Defect types that are logical, beside all that the generator `component` made; the others are structural."""
    saturation: dict[str, Annotated[float, Field(gt=0)]] = {"moved": 0.5}
    """Type -> what is enough to be found: up to 1 the share of a mask, above 1 pixels; of types not named all of it."""


@dataclass(frozen=True)
class _Plan:
    """Where the pictures of a product go, and what their masks hold."""

    folder: str
    values: Mapping[str, int]
    """Defect type -> the value of its pixels."""
    logical: Set[str]


class MvtecLoco(Exporter):
    """Normal parts, logical and structural anomalies in MVTec LOCO's folders; all damage is in the test, as there."""

    Settings: ClassVar[type[config.Settings]] = MvtecLocoSettings
    settings: MvtecLocoSettings

    def __init__(self, settings: config.Settings) -> None:
        super().__init__(settings)
        self._made_by: Mapping[str, Set[str]] = {}

    def use_generators(self, made_by: Mapping[str, Set[str]]) -> None:
        """Take which generators made the samples of each defect type."""
        self._made_by = made_by

    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        pictures = arranged(examples, 0)
        plans = self._plans(pictures)
        places = self._places(pictures, plans)

        def labelled(written: Written) -> dict[str, Any]:
            one, place = written.of, places[written.of.name]
            plan, masks = plans[one.product], []
            for number, (defect, damage) in enumerate(sorted(written.labels.items())):
                home, _, kind, name = place.split("/")
                masks.append(f"{home}/ground_truth/{kind}/{name}/{number:03d}.png")
                images.write(folder / masks[-1], damage.astype(np.uint8) * np.uint8(plan.values[defect]))
            file = written.file.relative_to(folder).as_posix()
            return {"file": file, "masks": masks, "defects": sorted(written.labels), **one.provenance(written.how)}

        lines = list(
            write_pictures(
                pictures, examples, self.settings.bits, lambda one: folder / places[one.name], labelled, advance
            )
        )
        for plan in plans.values():
            write_json(folder / plan.folder / "defects_config.json", self._defects(plan))
        write_lines(folder / "provenance.jsonl", lines)
        return dict(sorted(Counter(place.rpartition("/")[0] for place in places.values()).items()))

    def _plans(self, pictures: Sequence[Outgoing]) -> dict[str, _Plan]:
        homes = folder_names((one.product for one in pictures), ["provenance.jsonl"])
        types: dict[str, set[str]] = defaultdict(set)
        for one in pictures:
            types[one.product] |= {str(damage.defect) for damage in one.damaged}
        plans = {}
        for product, home in homes.items():
            if len(types[product]) > 255:
                raise DataError(f"{product}: {len(types[product])} defect types, and masks have values for 255")
            values = {defect: 255 - number for number, defect in enumerate(sorted(types[product]))}
            plans[product] = _Plan(home, values, {defect for defect in values if self._is_logical(defect)})
        return plans

    def _is_logical(self, defect: str) -> bool:
        return defect in self.settings.logical or self._made_by.get(defect) == {_CHANGES_COMPONENTS}

    def _places(self, pictures: Sequence[Outgoing], plans: Mapping[str, _Plan]) -> dict[str, str]:
        """Return name -> path of each picture below the export, without a suffix."""
        chosen = self._for_validation(pictures)
        members: dict[str, list[Outgoing]] = defaultdict(list)
        for one in pictures:
            plan = plans[one.product]
            if one.damaged:
                # A part with a scratch on which a pin is missing breaks the rule all the same.
                breaks = any(damage.defect in plan.logical for damage in one.damaged)
                part = f"test/{_LOGICAL if breaks else _STRUCTURAL}"
            else:
                part = "test/good" if one.side == "val" else "validation/good" if one.id in chosen else "train/good"
            members[f"{plan.folder}/{part}"].append(one)
        places: dict[str, str] = {}
        for home, ones in members.items():
            digits = max(3, len(str(len(ones) - 1)))  # of equal width, for Anomalib pairs masks by sorted names
            places |= {one.name: f"{home}/{number:0{digits}d}" for number, one in enumerate(ones)}
        return places

    def _for_validation(self, pictures: Sequence[Outgoing]) -> set[str]:
        """Return ids of normal parts for validation, in an order drawn from their ids: neighbours may show one lot."""
        chosen: set[str] = set()
        learned = [one for one in pictures if not one.damaged and one.side == "train"]
        for product in dict.fromkeys(one.product for one in learned):
            ids = sorted((one.id for one in learned if one.product == product), key=digest)
            share = self.settings.validation
            count = min(max(round(share * len(ids)), 1), len(ids) - 1) if share else 0
            chosen |= set(ids[:count])
        return chosen

    def _defects(self, plan: _Plan) -> list[dict[str, Any]]:
        """Return defects_config.json of a product."""
        rows = []
        for defect, value in plan.values.items():
            enough = self.settings.saturation.get(defect, 1.0)
            relative = enough <= 1
            rows.append(
                {
                    "defect_name": defect,
                    "pixel_value": value,
                    "saturation_threshold": enough if relative else round(enough),
                    "relative_saturation": relative,
                }
            )
        return rows
