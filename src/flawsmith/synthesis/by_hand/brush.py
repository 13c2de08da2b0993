"""Paint by hand: damage of a known type into a mask that somebody drew, on one photograph.

    brush = flawsmith.Brush.open("runs/tile")              # once: reads shots, loads the generator
    painted = brush.paint("part.png", "mask.png", "crack", seed=7)
    painted.write("part-with-crack.png")

It paints with what `generate` paints with (`Painter`), so a mask and a pose of the plan give the sample of the plan.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flawsmith import registry
from flawsmith.config import Config
from flawsmith.data import images
from flawsmith.data.masks.fitting import fitted_pose
from flawsmith.data.masks.poses import Pose
from flawsmith.data.masks.reading import read_label
from flawsmith.data.photographs import Photograph
from flawsmith.data.tiling import box_of
from flawsmith.errors import ConfigError, DataError, RunError, nearest
from flawsmith.files import digest, file_digest
from flawsmith.run.dataset import Dataset, open_dataset, scanned_dataset
from flawsmith.run.defect_types import without_shots
from flawsmith.run.folder import Run
from flawsmith.run.manifest import machine
from flawsmith.run.records import PlanLine
from flawsmith.synthesis.by_hand.drawn import Picture, asked_area, photograph_of
from flawsmith.synthesis.by_hand.painted import Painted, Provenance, require_free
from flawsmith.synthesis.by_hand.source import DEFAULT_GENERATOR, Source, config_of, run_at
from flawsmith.synthesis.painters import Painters
from flawsmith.synthesis.train import (
    generator_class,
    generator_settings,
    is_trained,
    load_backbone,
    train_inputs,
)
from flawsmith.synthesis.transfer import shots_for
from flawsmith.types import Example, Range

_READ = ("steps", "guidance", "paint", "feather", "visible", "min_painted", "attempts")
"""What painting one picture reads of `generate`; the rest decides which pictures are made."""


class Brush:
    """A run or a folder of photographs, opened for painting by hand; it may be kept and used for many pictures."""

    def __init__(self, config: Config, data: Dataset, painters: Painters, source: Path, trained: str) -> None:
        self.config = config
        self.data = data
        self.painters = painters
        self.source = source
        self.plugin = generator_class(config)
        self._trained, self._version = trained, machine()["packages"]["flawsmith"]
        self._masks: dict[str, tuple[np.ndarray, tuple[int, int]]] = {}

    @classmethod
    def open(cls, source: Source, *, generator: str = "", settings: Mapping[str, Any] | None = None) -> Brush:
        """Read the shots and load the generator.

        Args:
            source: A run or its folder, finished or just prepared; a folder of photographs in one of the layouts of
                docs/data.md; or a configuration file. Without a run, pictures are not compared and nothing is written.
            generator: Its name; "" = the run's or the configuration's own, for a folder `DEFAULT_GENERATOR`.
            settings: Settings by dotted name on top, such as {"data.layout": "pairs", "data.normal": ["good"]}.

        Raises:
            ConfigError: an unknown generator or setting, or a generator that learns and has no run to learn in.
            RunError: the run's generator is not trained.
            DataError: there is no such folder, or nothing usable in it.
        """
        run = source if isinstance(source, Run) else run_at(Path(source))
        config = config_of(run or Path(str(source)), generator, settings or {})
        plugin, chosen = generator_class(config), generator_settings(config)
        with registry.making("generators", config.generator.names[0]):
            learns = plugin.needs_backbone or bool(plugin(None, chosen).trainable())
        if run is None and learns:
            raise ConfigError(
                f"{config.generator.name} learns from the shots before it paints; start a run with `flawsmith run` and "
                f"paint from that, or name a generator that needs no training, such as {DEFAULT_GENERATOR}"
            )
        known = run is not None and run.data_hash() is not None
        if run is not None and learns:  # said before a backbone is loaded
            trained_one = run.record("train").get("generator") if known and run.stage_hash("train") else ""
            if trained_one != config.generator.name:
                raise _untrained(run, config)
        backbone = load_backbone(config)
        data = open_dataset(run) if run is not None and known else scanned_dataset(config)
        weights, trained = None, ""
        if run is not None and learns:
            asked = Run(run.folder, config)
            if not is_trained(asked, train_inputs(asked, data, backbone)):
                raise _untrained(run, config)
            weights, trained = run.path("weights"), str(run.stage_hash("train"))
        painters = Painters(config, data, backbone, weights)
        return cls(config, data, painters, config.data.root if run is None else run.folder, trained)

    @property
    def defects(self) -> dict[str, tuple[str, ...]]:
        """Each product with the defect types that there are shots of, or that are made without."""
        known: dict[str, set[str]] = {}
        shown = [(shot.product, str(shot.defect)) for shot in self.data.split.shots]
        drawn = without_shots(self.config, self.data.split) if self.plugin.without_shots else []
        for product, defect in [*shown, *drawn]:
            known.setdefault(product, set()).add(defect)
        return {product: tuple(sorted(known[product])) for product in sorted(known)}

    def range_of(self, product: str) -> Range | None:
        """Return a product's value range; None = its pictures are read by their own values."""
        photographs = (*self.data.split.shots, *self.data.split.normals)
        return next(one.span for one in photographs if one.product == product)

    def job_of(self, product: str, defect: str) -> str:
        """Return the trained model that paints a type of a product, a folder below weights/."""
        return self.config.job_of(product, defect)

    def paint(
        self,
        photograph: Picture,
        mask: Picture,
        defect: str,
        seed: int = 0,
        *,
        product: str = "",
        shot: str = "",
        pose: Pose | None = None,
    ) -> Painted:
        """Paint a defect into a mask.

        A generator that starts from a shot gets the one whose damage fits the mask best, laid on it by centroid, long
        axis and size. Only where the shot shows damage the picture changes, and the mask that is returned says where.

        Args:
            photograph: What is painted on: a file, or (H,W) or (H,W,3) RGB, uint8, uint16 or float32.
            mask: Where: a file, or bool (H,W), of the photograph's size. Of a file what is not background counts.
            defect: The defect type.
            seed: 0 to 2^31 - 1; equal seeds give equal bytes.
            product: What the photograph shows; "" = one of the set's photographs, or only one product has the type.
            shot: Id of the shot to start from; "" = the one that fits best.
            pose: How that shot is laid, as a plan line says; None = as well as it fits.

        Raises:
            ConfigError: an unknown defect type, product or shot, a product that is not clear, a seed out of range.
            DataError: photograph or mask cannot be read, the mask is empty or of another size, or nothing shows.
        """
        if not 0 <= seed < 2**31:
            raise ConfigError(f"seed: {seed} is out of range; give a whole number from 0 to {2**31 - 1}")
        native, name = photograph_of(photograph)
        product = self._product_of(name, defect, product)
        asked = asked_area(mask, native, name)
        kin = shots_for(product, defect, self.data.split.shots)
        lender, overlap = (self._shot_of(shot, kin) if shot else None), None
        if pose is not None and lender is None:
            raise ConfigError("pose: it belongs to a shot; name that too")
        fits = lender is not None or self.plugin.needs_shot or not self.plugin.native
        if pose is None and fits and kin:  # a type that is painted without shots has none
            lender, pose, overlap = self._fitted([lender] if lender else kin, asked)
        line = PlanLine(
            index=0,
            role="sample",
            batch=0,
            job=self.job_of(product, defect),
            generator=self.config.generator.of(defect),
            product=product,
            defect=defect,
            seed=seed,
            normal=name,
            shot="" if lender is None else lender.id,
            mask_source="file",
            mask_file="" if isinstance(mask, np.ndarray) else str(mask),
            pose=pose,
            reference=lender.id if lender and self.plugin.reads_reference else "",
        )
        ground = Photograph(native, images.range_of(native, self.range_of(product)), None)
        painted = self.painters.of(line.job).paint_on(line, ground, asked)
        if painted.picture is None or painted.mask is None:
            raise DataError(_nothing_shows(line, painted.sample.status, overlap, self.config.generate.attempts))
        sample = painted.sample
        provenance = Provenance(
            version=self._version,
            source=str(self.source),
            inputs=self._inputs(kin),
            generator=line.generator,
            product=product,
            defect=defect,
            seed=seed,
            attempt=sample.attempt,
            photograph=name,
            shot=line.shot,
            pose=pose,
            overlap=None if overlap is None else round(overlap, 4),
            paint=sample.paint,
            asked_area=int(asked.sum()),
            area=sample.area,
        )
        return Painted(painted.picture, painted.mask, provenance)

    def _product_of(self, photograph: str, defect: str, product: str) -> str:
        """Return the product that a photograph shows; it has shots of the defect type."""
        known = self.defects
        types = sorted({name for names in known.values() for name in names})
        if defect not in types:
            raise ConfigError(f"defect: there are no shots of {defect!r}{nearest(defect, types)}")
        having = [name for name, names in known.items() if defect in names]
        if product and product not in known:
            raise ConfigError(f"product: {product!r} is unknown{nearest(product, known)}")
        shown = product or (self._product_on_file(photograph) if len(known) > 1 else "")
        if not shown and len(having) > 1:
            raise ConfigError(
                f"product: {photograph or 'the photograph'} is none of the set, and {' and '.join(having)} all have "
                f"shots of {defect!r}; name the product"
            )
        if shown and shown not in having:
            types_there = ", ".join(known.get(shown, ())) or "none"
            raise ConfigError(f"defect: {shown!r} has no shots of {defect!r}; those that it has: {types_there}")
        return shown or having[0]

    def _product_on_file(self, photograph: str) -> str:
        """Return the product of one of the set's photographs; "" = it is none of them."""
        split, path = self.data.split, os.path.abspath(photograph) if photograph else ""
        everyone = (*split.normals, *split.test_normals, *split.shots, *split.test_defects)
        return next((example.product for example in everyone if os.path.abspath(example.image) == path), "")

    def _shot_of(self, name: str, kin: list[Example]) -> Example:
        ids = [example.id for example in kin]
        if name not in ids:
            raise ConfigError(f"shot: {name!r} is no shot of this defect type{nearest(name, ids)}")
        return kin[ids.index(name)]

    def _fitted(self, shots: list[Example], asked: np.ndarray) -> tuple[Example, Pose, float]:
        """Return the shot whose damage fits a drawn mask best, how it is laid, and their overlap."""
        best: tuple[Example, Pose, float] | None = None
        for shot in shots:
            damage, corner = self._damage_of(shot)
            pose, overlap = fitted_pose(damage, asked)
            if best is None or overlap > best[2]:
                matrix = pose.array
                matrix[:, 2] -= matrix[:, :2] @ corner
                best = shot, Pose.of(matrix), overlap
        assert best is not None
        return best

    def _damage_of(self, shot: Example) -> tuple[np.ndarray, tuple[int, int]]:
        """Return a shot's mask, cut to its damage, and the (x, y) of its corner; the photograph is not decoded."""
        if shot.id not in self._masks:
            mask = read_label(shot, images.describe(shot.image).shape)
            top, left, bottom, right = box_of(np.argwhere(mask))
            self._masks[shot.id] = mask[top:bottom, left:right].copy(), (left, top)
        return self._masks[shot.id]

    def _inputs(self, kin: list[Example]) -> str:
        """Return what identifies all that decides a picture beside photograph, mask and seed."""
        generate = {name: getattr(self.config.generate, name) for name in _READ}
        settings = self.config.generator.name, generator_settings(self.config).model_dump(mode="json")
        shots = [[shot.id, shot.mask_rule, shot.span, *map(file_digest, (shot.image, *shot.masks))] for shot in kin]
        return digest(generate, self.config.windows.model_dump(mode="json"), settings, shots, self._trained)


def paint(
    source: Brush | Source,
    photograph: Picture,
    mask: Picture,
    defect: str,
    seed: int = 0,
    *,
    generator: str = "",
    product: str = "",
    settings: Mapping[str, Any] | None = None,
) -> Painted:
    """Paint a defect into a mask on one photograph; see `Brush.open` and `Brush.paint` for arguments and errors.

    It opens the source anew each time. To paint many pictures, open a `Brush` and hand it over as the source.
    """
    if not isinstance(source, Brush):
        source = Brush.open(source, generator=generator, settings=settings)
    elif settings or generator not in ("", *source.config.generator.names):
        raise ConfigError("generator, settings: this brush is open already; name them to `Brush.open`")
    return source.paint(photograph, mask, defect, seed, product=product)


def paint_file(
    source: Source,
    photograph: Path,
    mask: Path,
    defect: str,
    seed: int,
    generator: str,
    product: str,
    settings: Mapping[str, Any],
    out: Path,
    overwrite: bool,
) -> str:
    """Do what `flawsmith paint` does: `paint`, and write the three files; return a sentence that says so.

    Raises:
        RunError: a file is there already, or is what is painted with; said before anything is opened.
    """
    there = [file for file in require_free(out, overwrite=overwrite) if file.exists()]
    for file in there:
        if any(given.exists() and file.samefile(given) for given in (photograph, mask)):
            raise RunError(f"{file}: is the photograph or the mask that you paint with; name another file with --out")
    painted = paint(source, photograph, mask, defect, seed, generator=generator, product=product, settings=settings)
    picture, mask, record = painted.write(out, overwrite=overwrite)
    made = painted.provenance
    sentence = f"{picture}: {made.defect} by {made.generator}{f' from {made.shot}' if made.shot else ''}, "
    sentence += f"{made.area} of {made.asked_area} px of the mask; {mask.name} and {record.name} beside it"
    return f"{sentence}; overwritten: {', '.join(file.name for file in there)}" if there else sentence


def _untrained(run: Run, config: Config) -> RunError:
    return RunError(
        f"{run.folder}: {config.generator.name} is not trained with this configuration, or its weights are gone; "
        f"run `flawsmith train {run.folder}`, or name a generator that needs no training, such as {DEFAULT_GENERATOR}"
    )


def _nothing_shows(line: PlanLine, status: str, overlap: float | None, attempts: int) -> str:
    """Return why nothing was made, in one sentence."""
    tried = (
        f"{line.normal or 'the photograph'}: of {attempts} seeds of {line.generator} none left a visible {line.defect}"
    )
    if status != "invisible":
        tried += f" ({status})"
    if overlap is None:
        return f"{tried} in the mask; draw a larger mask, or try another seed"
    return (
        f"{tried}, and the shot that fits the mask best, {line.shot}, overlaps it by {100 * overlap:.0f} %; "
        "draw the mask more like such a damage, or name a generator that needs no shot"
    )
