"""What is trained on, validated with and tested on, of one product of a run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from anomalib.data import AnomalibDataModule

from flawsmith.data.exported.arrangement import arranged
from flawsmith.data.exported.names import safe_name
from flawsmith.data.split import Split, without_near_duplicates
from flawsmith.errors import ConfigError, DataError, nearest
from flawsmith.exports.export import exported
from flawsmith.integrations.anomalib.pictures import PictureDataset, Shown
from flawsmith.run.dataset import load_ranges, load_split
from flawsmith.run.folder import Run
from flawsmith.types import Example


class DataModule(AnomalibDataModule):
    """One product of a run: made samples, controls and shots to train, real held-out pictures to test.

    - `train_data`: the normal parts to learn from, the negative controls, and labelled anomalous with their masks the
      samples that stand and the real shots.
    - `val_data`: a share of the normal photographs that were painted on, with their samples. None of them is in
      `train_data`, but the damage is made: a threshold that Anomalib sets here is a guess for real damage.
    - `test_data`: the real defects and normal parts that the run kept for its test.

    They are made once. A second `setup`, the trainer's, leaves them, also where they were changed in between.

    Args:
        run: A run with samples, or its folder.
        product: Which; "" = the run's only one.
        damaged: False: `train_data` holds the normal parts alone, for models to which everything in training is normal.
        shots: Whether the real shots are trained on.
        validation: Share of each defect type's samples that is for validation, by photograph; 0 = none.
        train_batch_size: Pictures per step.
        eval_batch_size: Pictures that are asked about together.
        num_workers: Processes that read pictures beside the trainer's.
        train_augmentations: A torchvision transform; damage, mask and the photograph beneath undergo the same.

    Raises:
        RunError: there is no run, or it has no sample that stands.
        ConfigError: the product is unknown, or must be named.
        DataError: the run kept no real pictures for a test.
    """

    _is_setup: bool

    def __init__(
        self,
        run: Run | str | Path,
        *,
        product: str = "",
        damaged: bool = True,
        shots: bool = True,
        validation: float = 0.2,
        train_batch_size: int = 8,
        eval_batch_size: int = 8,
        num_workers: int = 0,
        train_augmentations: Any = None,
    ) -> None:
        super().__init__(
            train_batch_size=train_batch_size,
            eval_batch_size=eval_batch_size,
            num_workers=num_workers,
            train_augmentations=train_augmentations,
            val_split_mode="from_dir",
            test_split_mode="from_dir",
        )
        if not 0 <= validation <= 0.5:
            raise ConfigError(f"validation: {validation} is no share of the samples from 0 to 0.5")
        self.run = run if isinstance(run, Run) else Run.open(run)
        split = load_split(self.run)
        self.product = _product(split, product)
        self._split = split.of(self.product)
        self._damaged, self._shots, self._validation = damaged, shots, validation
        self.category = safe_name(self.product)

    @property
    def name(self) -> str:
        """Name of the folder in which Anomalib keeps what it learned."""
        return "flawsmith"

    def setup(self, stage: str | None = None) -> None:
        """Read what the run holds, once; Anomalib's own would do so twice and drop what was changed in between."""
        if not self._is_setup:
            self._setup(stage)
            self._is_setup = True
        self._update_augmentations()

    def _setup(self, _stage: str | None = None) -> None:
        train, validation = self._learned()
        if not self._damaged:
            train = [one for one in train if one.origin == "real" and not one.damage]
        self.train_data = PictureDataset(train, "train")
        self.val_data = PictureDataset(validation, "val")
        self.test_data = PictureDataset(self._tested(), "test")

    def train_dataloader(self) -> Any:
        """Return the training part; refuse to show damage to a model that would take it for normal."""
        model = getattr(self.trainer, "lightning_module", None)
        if model is not None and self.train_data.has_anomalous and not getattr(model, "supervised", False):
            raise ConfigError(
                f"{type(model).__name__} takes all that it is trained on for normal, and {_count(self.train_data)}; "
                "use DataModule(run, damaged=False), or a model that learns from damage, such as "
                "Supersimplenet(supervised=True)"
            )
        return super().train_dataloader()

    def _learned(self) -> tuple[list[Shown], list[Shown]]:
        """Return what is trained on, and what is for validation."""
        normals = {one.id: one for one in self._split.normals}
        made = [one for one in exported(self.run) if one.product == self.product and one.painted_on]
        span = load_ranges(self.run).get(self.product)
        repainted = [one for one in self.run.controls() if one.made and one.product == self.product]
        controls = [
            Example(one.image, self.run.path(one.image), one.product, span=span, painted_on=one.normal)
            for one in repainted
        ]
        donors = {one.image: one.donor for one in repainted}
        everything = [*normals.values(), *made, *controls]
        sides = arranged([replace(one, split="train") for one in everything], self._validation)
        held = {one.photograph for one in sides if one.side == "val"}
        train: list[Shown] = []
        validation: list[Shown] = []
        for one in everything:
            beneath = normals.get(one.painted_on)
            origin = "real" if not one.painted_on else "made" if one.defect is not None else "control"
            picture = Shown(
                one.image, one.span, (one,) if one.defect else (), origin, beneath.image if beneath else None
            )
            if (one.painted_on or one.id) in held:
                validation += [picture] if origin != "control" else []
            elif donors.get(one.id) not in held:
                train.append(picture)
        if self._shots:
            train += by_picture(self._split.shots)
        return train, validation

    def _tested(self) -> list[Shown]:
        drop = self.run.config.prove.near_duplicates == "drop"
        kept = without_near_duplicates(self._split) if drop else self._split
        if not kept.test_normals or not kept.test_defects:
            raise DataError(
                f"{self.product}: the run kept {len(kept.test_normals)} normal and {len(kept.test_defects)} damaged "
                "real pictures for its test, and it takes both; lower data.shots or add some, with prove.enabled = true"
            )
        return by_picture([*kept.test_defects, *kept.test_normals])


def by_picture(examples: Sequence[Example]) -> list[Shown]:
    """Return each picture once, with all that is marked on it; examples of one picture show several defect types."""
    types: dict[Path, list[Example]] = defaultdict(list)
    for example in examples:
        types[example.image].append(example)
    return [
        Shown(image, shown[0].span, tuple(one for one in shown if one.defect is not None))
        for image, shown in types.items()
    ]


def _product(split: Split, asked: str) -> str:
    products = sorted({one.product for one in (*split.normals, *split.shots)})  # a run may learn from no shots
    if not products:
        raise ConfigError("product: the run has no photographs to learn from, so there is nothing to train on")
    if asked and asked not in products:
        raise ConfigError(f"product: there is no {asked!r}{nearest(asked, products)}")
    if not asked and len(products) > 1:
        raise ConfigError(f"product: the run has several; name one of {', '.join(products)}")
    return asked or products[0]


def _count(pictures: PictureDataset) -> str:
    count = int(pictures.samples.label_index.sum())
    return "1 picture is damaged" if count == 1 else f"{count} pictures are damaged"
