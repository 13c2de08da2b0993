"""Names of plug-ins -> where they live. Nothing is imported until it is asked for.

Another package adds its own through the entry-point group `flawsmith.<family>`; during development the environment
variable FLAWSMITH_PLUGINS="generators.mine=my_module:MyGenerator, …" does the same without installing anything.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from flawsmith.errors import ConfigError, FlawsmithError, nearest

if TYPE_CHECKING:
    from flawsmith.config import Config


@dataclass(frozen=True, slots=True)
class Entry:
    """A plug-in that is known but not imported."""

    target: str
    """"module:object"."""
    summary: str
    """One line for `flawsmith list`."""
    pixels: bool = False
    """A generator that is made of pixels alone: it needs no backbone and trains nothing."""
    words: bool = False
    """A generator that asks a backbone by words alone, and trains nothing."""
    controls: bool = True
    """A generator that repaints normal parts as negative controls (`Generator.paints_controls`)."""

    @property
    def learns(self) -> bool:
        """Whether a generator trains networks before it paints."""
        return not (self.pixels or self.words)


_OURS: dict[str, dict[str, Entry]] = {
    "generators": {
        "component": Entry(
            "flawsmith.generators.component:ComponentChange",
            "a part of the product that is missing, doubled, turned or in the wrong place",
            pixels=True,
            controls=False,
        ),
        "anomaly_diffusion": Entry(
            "flawsmith.generators.anomaly_diffusion:AnomalyDiffusion",
            "AnomalyDiffusion: words learned for each defect type and from the mask steer a frozen model",
        ),
        "controlnet_inpaint": Entry(
            "flawsmith.generators.controlnet_inpaint:ControlNetInpaint",
            "AnomalyControl-Inpaint: a frozen inpainting model steered by a ControlNet learned from the shots",
        ),
        "crop_paste": Entry(
            "flawsmith.generators.crop_paste:CropPaste",
            "a real shot re-posed and pasted, with or without Poisson blending",
            pixels=True,
        ),
        "cutpaste": Entry(
            "flawsmith.generators.cutpaste:CutPaste",
            "a piece of the normal picture pasted elsewhere on it",
            pixels=True,
            controls=False,
        ),
        "dual_branch": Entry(
            "flawsmith.generators.dual_branch:DualBranch",
            "DualAnoDiff: the whole picture and the damage alone, made together; draws its own masks",
        ),
        "cross_modal": Entry(
            "flawsmith.generators.cross_modal:CrossModal",
            "AnomalyControl-CSM: damage that looks as a reference's does, on this product or another",
        ),
        "few_steps": Entry(
            "flawsmith.generators.few_steps:FewSteps",
            "a student of controlnet_inpaint that paints in 4 steps; `flawsmith distill` makes it",
        ),
        "hybrid": Entry(
            "flawsmith.generators.hybrid:Hybrid",
            "cross_modal says what, controlnet_inpaint says where, on one backbone",
        ),
        "nsa": Entry(
            "flawsmith.generators.nsa:NSA",
            "patches of other normal parts, blended in without a seam",
            pixels=True,
            controls=False,
        ),
        "patch_synthesis": Entry(
            "flawsmith.generators.patch_synthesis:PatchSynthesis",
            "damage of a type made anew from patches of several shots, in a mask of any shape",
            pixels=True,
        ),
        "prompt_inpaint": Entry(
            "flawsmith.generators.prompt_inpaint:PromptInpaint",
            "words alone with a large backbone: their attention is raised inside the mask; no training, no shots",
            words=True,
        ),
        "perlin": Entry(
            "flawsmith.generators.perlin:Perlin",
            "DRAEM's noise masks filled with foreign texture",
            pixels=True,
            controls=False,
        ),
        "rendered": Entry(
            "flawsmith.generators.rendered:Rendered",
            "damage without a shot: scratches, dents, pores, stains ... drawn and lit in your own photographs",
            pixels=True,
            controls=False,
        ),
    },
    "filters": {
        "realism": Entry(
            "flawsmith.filters.realism:Realism", "distance to the real shots (stage 1 of the paper's filter)"
        ),
        "visible": Entry("flawsmith.filters.visible:Visible", "distance to the normal photograph (stage 2)"),
        "alignment": Entry("flawsmith.filters.alignment:Alignment", "does the label fit what was painted"),
        "seam": Entry("flawsmith.filters.seam:Seam", "does the label's border show"),
        "duplicates": Entry("flawsmith.filters.duplicates:Duplicates", "copies of a shot, and of one another"),
        "defect_type": Entry(
            "flawsmith.filters.defect_type:DefectType",
            "does a judge trained on the shots name the intended defect type",
        ),
        "outlier": Entry("flawsmith.filters.outlier:Outlier", "any detector of PyOD; needs the extra pyod"),
    },
    "metrics": {
        "kid": Entry(
            "flawsmith.metrics.pictures:kid", "kernel distance of features x 1000, made against real; 0 = alike"
        ),
        "frechet": Entry(
            "flawsmith.metrics.pictures:frechet", "Frechet distance of features, made against real; 0 = alike"
        ),
        "inception_score": Entry(
            "flawsmith.metrics.pictures:inception_score",
            "sure and varied classes; 1 = neither, up to their number (Inception)",
        ),
        "prdc": Entry("flawsmith.metrics.pictures:prdc", "precision, recall, density, coverage of features; 1 = best"),
        "diversity": Entry(
            "flawsmith.metrics.pictures:diversity", "perceptual distance within clusters round the shots; 0 = all alike"
        ),
        "alignment": Entry(
            "flawsmith.metrics.labels:alignment",
            "how well labels fit what was painted: two shares, 1 = best, and a distance in px",
        ),
        "seam": Entry(
            "flawsmith.metrics.labels:seam", "step of brightness on the label's outline, made over real; 1 = as real"
        ),
        "copies": Entry("flawsmith.metrics.labels:copies", "share of made pictures that repeat a shot; 0 = none"),
    },
    "detectors": {
        "probe": Entry("flawsmith.detectors.probe:Probe", "frozen features and a small trained head: quick"),
        "memory_probe": Entry(
            "flawsmith.detectors.memory_probe:MemoryProbe",
            "the probe, told also what a memory of normal patches says: the default",
        ),
        "unet": Entry("flawsmith.detectors.unet:Unet", "the field's localiser: DRAEM's U-Net, made for GPUs"),
        "classifier": Entry(
            "flawsmith.detectors.classifier:Classifier", "the field's classifier of defect types: ResNet-34"
        ),
        "patchcore": Entry(
            "flawsmith.detectors.patchcore:Patchcore", "distance to cached normal patches; needs no defects at all"
        ),
        "denoising": Entry(
            "flawsmith.detectors.denoising:Denoising",
            "anomaly maps read straight from a trained generator; no detector is trained",
        ),
        "anomalib": Entry("flawsmith.detectors.anomalib:Anomalib", "any model of Anomalib; needs the extra anomalib"),
    },
    "exports": {
        "mvtec": Entry("flawsmith.exports.mvtec:Mvtec", "MVTec AD's folder layout, which Anomalib loads"),
        "mvtec_loco": Entry(
            "flawsmith.exports.mvtec_loco:MvtecLoco", "MVTec LOCO's folder layout: logical and structural anomalies"
        ),
        "coco": Entry("flawsmith.exports.coco:Coco", "COCO's annotations, with run lengths or polygons"),
        "yolo": Entry("flawsmith.exports.yolo:Yolo", "YOLO's text files for Ultralytics, with polygons or boxes"),
        "huggingface": Entry(
            "flawsmith.exports.huggingface:Huggingface", "an image folder that Hugging Face's `datasets` loads"
        ),
        "labelme": Entry("flawsmith.exports.labelme:Labelme", "labelme's polygons, to be corrected there"),
        "label_studio": Entry(
            "flawsmith.exports.label_studio:LabelStudio",
            "Label Studio's tasks with brush strokes",
        ),
        "visa": Entry("flawsmith.exports.visa:Visa", "VisA's folder layout"),
        "webdataset": Entry("flawsmith.exports.webdataset:Webdataset", "shards (tar) for large sets"),
        "features": Entry(
            "flawsmith.exports.features:Features", "embeddings by the run's extractor, for PyOD and other tables"
        ),
    },
}

FAMILIES: tuple[str, ...] = tuple(_OURS)


def entries(family: str) -> dict[str, Entry]:
    """Return every known member of a family by name: ours, then installed packages', then FLAWSMITH_PLUGINS'."""
    if family not in _OURS:
        raise ConfigError(f"{family}: no such family of plug-ins{nearest(family, _OURS)}")
    known = _OURS[family] | _installed(family)
    for item in filter(None, (part.strip() for part in os.environ.get("FLAWSMITH_PLUGINS", "").split(","))):
        plugin, equals, target = item.partition("=")
        owner, dot, name = plugin.partition(".")
        if not (equals and dot and ":" in target):
            raise ConfigError(f"FLAWSMITH_PLUGINS: {item!r} should read family.name=module:object")
        if owner not in _OURS:
            raise ConfigError(f"FLAWSMITH_PLUGINS: {item!r}: no such family of plug-ins{nearest(owner, _OURS)}")
        if owner == family:
            known[name.strip()] = Entry(target.strip(), "from FLAWSMITH_PLUGINS")
    return known


@cache
def _installed(family: str) -> dict[str, Entry]:
    """Return the plug-ins of installed packages, which are looked for once: it takes a look into every package."""
    points = entry_points(group=f"flawsmith.{family}")
    return {
        point.name: Entry(point.value, f"from the package {point.dist.name if point.dist else '?'}") for point in points
    }


def is_ours(family: str, name: str) -> bool:
    """Return whether a name stands for a plug-in of this package."""
    return name in _OURS[family] and entries(family)[name] == _OURS[family][name]


def require(family: str, name: str, where: str = "") -> None:
    """Refuse an unknown name without importing anything.

    Raises:
        ConfigError: names the nearest, and `where` the name was given.
    """
    known = entries(family)
    if name not in known:
        prefix = f"{where}: " if where else ""
        raise ConfigError(f"{prefix}{family[:-1]} {name!r} is unknown{nearest(name, known)}")


def misnamed(config: Config) -> list[str]:
    """Return a sentence for each plug-in that a run of a configuration uses and nobody knows; imports none."""
    used = [("generators", name, "generator.name") for name in config.generator.names]
    for wanted, family, names, where in (
        (config.screen.enabled, "filters", config.screen.filters, "screen.filters"),
        (config.measure.enabled, "metrics", config.measure.metrics, "measure.metrics"),
        (config.prove.enabled, "detectors", config.prove.detectors, "prove.detectors"),
        (config.prove.enabled, "detectors", [*config.prove.settings], "prove.settings"),
        (config.prove.enabled, "generators", config.prove.against, "prove.against"),
        (True, "exports", config.export.formats, "export.formats"),
        (True, "exports", [*config.export.settings], "export.settings"),
    ):
        used += [(family, name, where) for name in names if wanted]
    sentences = []
    for family, name, where in used:
        try:
            require(family, name, where)
        except ConfigError as error:
            sentences.append(str(error))
    return list(dict.fromkeys(sentences))


def known_rivals(config: Config) -> None:
    """Refuse other generators to compare with that are none, or are the run's own.

    Raises:
        ConfigError: names the first.
    """
    for name in config.rivals:
        require("generators", name, "prove.against")
        if (name,) == config.generator.names:
            raise ConfigError(f"prove.against: {name!r} is this run's own generator; name another, or [] for none")


def get(family: str, name: str) -> Any:
    """Import and return one member of a family.

    Raises:
        ConfigError: the name is unknown (the nearest is named), or its module cannot be imported.
    """
    require(family, name)
    known = entries(family)
    module, _, attribute = known[name].target.partition(":")
    head = f"{family[:-1]} {name!r} ({known[name].target})"
    try:
        plugin = getattr(import_module(module), attribute)
        whole = family == "metrics" or hasattr(plugin, "Settings")
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{head} cannot be loaded: {error}") from error
    except Exception as error:  # a module runs whatever it holds
        raise ConfigError(f"{head} cannot be loaded: {_said(error)}") from error
    if not whole:
        raise ConfigError(f"{head} has no Settings, so it is no {family[:-1]}; name the class of one")
    return plugin


@contextmanager
def making(family: str, name: str) -> Iterator[None]:
    """Name the plug-in in whatever its construction raises.

    Raises:
        ConfigError: says which plug-in, and what it raised.
    """
    try:
        yield
    except FlawsmithError:
        raise
    except Exception as error:
        target = entries(family)[name].target
        raise ConfigError(f"{family[:-1]} {name!r} ({target}) cannot be made: {_said(error)}") from error


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
