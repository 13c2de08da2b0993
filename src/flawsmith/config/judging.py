"""The sections that decide how samples are judged and handed on: features, screen, measure, prove, export, report."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from flawsmith.config.settings import Affects, Settings


class FeaturesConfig(Settings):
    """The frozen network through which pictures are compared, probed and screened."""

    affects = ("screen", "measure", "prove")

    extractor: str = "efficientnet-lite0"
    """efficientnet-lite0 (lies beside this package), dinov2, dinov3, inception or lpips-vgg."""
    # What measure and prove compare is the weights themselves; a round of screening holds for one place of them.
    source: Annotated[str, Affects("screen")] = ""
    """A folder or file with its weights, or (with backbone.offline = false) a hub id; empty = the usual place."""


Rule = dict[Literal["absolute", "quantile", "keep"], float] | Literal["off"]
THRESHOLDS: dict[str, Rule] = {
    "alignment.inside": {"absolute": 0.8},
    "alignment.covered": {"absolute": 0.4},
    "visible.tokens": {"quantile": 0.02},
    "visible.tokens_all": {"quantile": 0.02},
    "realism.tokens": {"quantile": 0.02},
    "realism.window": {"quantile": 0.02},
    "realism.grain": {"absolute": 0.25},
    "duplicates.shot": {"absolute": 1.0},
    "duplicates.made": {"absolute": 1.0},
    "visible.whole": "off",
    "visible.window": "off",
    "visible.whole_all": "off",
    "visible.window_all": "off",
    "realism.whole": "off",
}
"""What `screen.thresholds` is laid upon."""


class ScreenConfig(Settings):
    """The quality gate: every sample is scored, and those below a threshold are rejected with named reasons."""

    affects = ("screen",)
    renamed = {"sound": "normals"}
    renamed_values = {name: {"kind": "defect_type"} for name in ("filters", "settings", "thresholds")}

    enabled: Annotated[bool, Affects()] = False
    """True: `flawsmith run` screens; False: it does not, and `flawsmith screen RUN` does it all the same."""
    filters: list[str] = ["alignment", "visible", "realism", "duplicates", "seam", "defect_type"]
    """Which, in this order; see `flawsmith list`."""
    settings: dict[str, dict[str, Any]] = {}
    """Their own settings: {realism = {neighbours = 3}}."""
    thresholds: dict[str, Rule] = {}
    """A score or filter = {absolute = least}, {quantile = of left-out shots}, {keep = share per type} or "off"."""
    quantile: Annotated[float, Field(ge=0, lt=0.5)] = 0.02
    """For scores without a threshold of their own: so many of the left-out real shots would be rejected."""
    slack: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Thresholds from quantiles are lowered by this share of the distance from there to the median: shots are few."""
    times: Annotated[float, Field(ge=1, le=50), Affects("generate", "screen")] = 1.0
    """Samples are made so many times over: with {keep = 1/4} as threshold, 4 is the paper's way."""
    rounds: Annotated[int, Field(ge=0, le=100), Affects()] = 3
    """How often what a defect type lacks after screening is planned again with new seeds; 0 = never."""
    repair: bool = False
    """True: a label that does not fit is fitted anew to what changed, and screened with that; False: rejected."""
    keep_rejected: Annotated[bool, Affects()] = True
    """False: pictures that were rejected are deleted when the last round is screened; their scores stay."""
    normals: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Normal parts per product that are looked at, evenly spread, where a picture's own photograph is unknown."""

    @field_validator("thresholds")
    @classmethod
    def _one_rule_each(cls, value: dict[str, Rule]) -> dict[str, Rule]:
        for name, rule in value.items():
            if rule == "off":
                continue
            if len(rule) != 1:
                raise ValueError(f"{name} needs exactly one of absolute, quantile and keep")
            how, number = next(iter(rule.items()))
            if (how == "keep" and not 0 < number <= 1) or (how == "quantile" and not 0 <= number < 0.5):
                raise ValueError(f"{name}: keep lies above 0 and up to 1, quantile from 0 to below 0.5")
        return value

    def rule_of(self, score: str) -> Rule:
        """Return the threshold of a score: its own, its filter's, ours, or `quantile`."""
        family = score.partition(".")[0]
        for table in (self.thresholds, THRESHOLDS):
            for name in (score, family):
                if name in table:
                    return table[name]
        return {"quantile": self.quantile}


class MeasureConfig(Settings):
    """Metrics of the samples, measured beside real pictures."""

    affects = ("measure",)

    enabled: Annotated[bool, Affects()] = True
    """False: `flawsmith run` leaves it out; `flawsmith measure RUN` does it all the same."""
    metrics: list[str] = ["kid", "frechet", "diversity", "prdc", "alignment", "seam", "copies"]
    """Which: see `flawsmith list`."""
    resamples: Annotated[int, Field(ge=0, le=100_000)] = 200
    """Bootstrap resamples behind each interval; 0 = none."""


class ProveConfig(Settings):
    """Does it help? Detectors are trained with and without the samples, and compared on test pictures never seen."""

    affects = ("prove",)
    renamed = {"shams": "controls", "twins": "near_duplicates"}

    enabled: Annotated[bool, Affects()] = True
    """False: `flawsmith run` leaves it out, and real defects up to `data.shots` are all shots, none kept to test."""
    protocol: Annotated[Literal["clean", "field"], Affects("measure", "prove")] = "clean"
    """clean (the test set is seen once, at the end) or field (the papers' way: best-on-test and last, side by side)."""
    detectors: list[str] = ["memory_probe"]
    """Which are trained; the first that does localization, detection or classification answers for it."""
    settings: dict[str, dict[str, Any]] = {}
    """Their own settings: {memory_probe = {heads = 5}}."""
    budget: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each detector's full training; the report says what less than 1 leaves out."""
    size: Annotated[int, Field(ge=0, le=2048)] = 0
    """Side of the square that detectors see, or as many pixels; 0 = the median photograph's, to 384 (field: 256)."""
    tile: Annotated[int, Field(ge=0, le=2048)] = 0
    """Side of overlapping tiles that detectors see instead: of photographs of `size`, or 0 = their own resolution."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    """Trainings per arm; below 3 the report calls the verdict unsafe."""
    workers: Annotated[Annotated[int, Field(ge=1, le=1024)] | Literal["auto"], Affects()] = "auto"
    """Trainings at the same time, a process each; "auto": one per core as far as memory allows, on a GPU one."""
    against: list[str] = ["crop_paste"]
    """Other generators to compare with: default settings, the same plan; the run's own is left out of the default."""
    mix: bool = True
    """Also an arm that learns from our samples and the first other generator's together."""
    curve: list[Annotated[float, Field(gt=0)]] = [1, 3, 10]
    """Also trained with this many samples per shot, to see how many help most; empty = no curve."""
    controls: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the normal pictures shown in training that are negative controls, where there are any."""
    near_duplicates: Literal["drop", "keep"] = "drop"
    """Test pictures that seem to be second photographs of a shot: left out, or kept (flatters)."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Bootstrap resamples of test pictures and seeds behind each interval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the intervals that decide a verdict."""
    false_alarm_rate: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """Share of normal parts that may raise a false alarm: it sets the threshold at which missed defects are counted."""

    @field_validator("size", "tile")
    @classmethod
    def _large_enough(cls, value: int) -> int:
        if 0 < value < 32:
            raise ValueError("should be 0, or 32 pixels or more")
        return value

    @field_validator("tile")
    @classmethod
    def _no_papers_way(cls, value: int, given: ValidationInfo) -> int:
        if value and given.data.get("protocol") == "field":
            raise ValueError("should be 0 with protocol = 'field', for the papers show photographs whole")
        return value


class ExportConfig(Settings):
    """Layouts to write for other tools."""

    affects = ("export",)

    formats: list[str] = ["mvtec"]
    """See `flawsmith list`."""
    settings: dict[str, dict[str, Any]] = {}
    """Their own settings: {mvtec = {bits = "native"}}."""
    real: Literal["shots", "none"] = "none"
    """Which real defects go along, marked as real: the shots (mvtec, mvtec_loco, visa: in their test), or none."""


class ReportConfig(Settings):
    """What the report shows."""

    affects = ("report",)
    renamed = {"per_kind": "per_defect"}

    per_defect: Annotated[int, Field(ge=1, le=200)] = 12
    """Samples per defect type on the contact sheets."""
