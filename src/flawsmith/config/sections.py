"""The sections of the configuration and the tree they make.

The line of text under each field is its help: `flawsmith new` prints it as a comment, the docs and (later) the studio's
form show the same line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from flawsmith.config.settings import Settings, _set, validate
from flawsmith.errors import ConfigError


class Pattern(Settings):
    """One of the user's own globs: templates with the fields {product}, {kind} and {stem}."""

    image: str
    """Where the photographs lie below the root, e.g. `line1/{kind}/{stem}.jpg`."""
    mask: str = ""
    """Where the mask of each lies, e.g. `labels/{kind}/{stem}.png`; empty for sound parts."""
    normal: bool = False
    """True: these are sound parts."""
    product: str = ""
    """The product, when the template has no {product}."""
    kind: str = ""
    """The defect kind, when the template has no {kind}."""


class DataConfig(Settings):
    """The photographs: where they lie, how the folders are laid out, which defects are learned from."""

    root: Path = Path("data")
    """The folder of photographs; it is only read."""
    layout: str = "mvtec"
    """How it is laid out: mvtec, visa, pairs (the mask beside the picture) or pattern (your own globs)."""
    normal: list[str] = []
    """Names of the folders or kinds that hold sound parts (pairs, pattern)."""
    products: list[str] = []
    """Only these products; empty = all."""
    kinds: list[str] = []
    """Only these defect kinds; empty = all."""
    product: str = ""
    """The product's name where the layout does not say it (pairs); empty = the root folder's name."""
    patterns: list[Pattern] = []
    """For layout pattern: templates such as {image = "{kind}/{stem}.png", mask = "masks/{kind}/{stem}.png"}."""
    shots: Annotated[int, Field(ge=1)] | Literal["third"] = 10
    """Real defects a kind to learn from, or "third" (the papers' protocol); the rest are test."""

    @field_validator("normal", "products", "kinds", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class BackboneConfig(Settings):
    """The frozen diffusion model that every generator stands on."""

    source: str = "builtin"
    """"builtin", a diffusers folder, or (with offline = false) a hub id."""
    offline: bool = True
    """True: nothing is ever asked of the network."""
    device: str = "auto"
    """"auto" (a GPU when there is one), "cpu", "cuda", "cuda:1", "mps"."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """"auto" = bfloat16 where the processor gains from it, else float32."""


class WindowsConfig(Settings):
    """Native resolution: which window round the damage a generator sees."""

    size: Annotated[int, Field(ge=0, le=2048)] = 0
    """The working size in pixels; 0 = the backbone's own."""
    context: Annotated[float, Field(ge=1.0, le=8.0)] = 1.6
    """Side of the window over side of the damage's box."""
    min_thickness: Annotated[float, Field(ge=0.0, le=64.0)] = 6.0
    """Thinnest damage, in working pixels: a hairline gets closer, smaller windows so that the model can draw it."""
    max_zoom: Annotated[float, Field(ge=1.0, le=16.0)] = 2.0
    """The most that a window may be enlarged on its way to the working size."""
    overlap: Annotated[float, Field(ge=0.0, le=0.8)] = 0.3
    """How much neighbouring windows of one long damage share."""


class GeneratorConfig(Settings):
    """The method, and what it is told."""

    name: str = "controlnet_inpaint"
    """Which generator: see `flawsmith list`."""
    settings: dict[str, Any] = {}
    """Its own settings: see `flawsmith new --generator NAME`."""


class TrainConfig(Settings):
    """Learning from the shots."""

    scope: Literal["product", "kind", "all"] = "product"
    """One model for all kinds of a product, one for each kind, or one for everything."""
    steps: Annotated[int, Field(ge=0)] = 600
    """Training steps; 0 = none."""
    batch: Annotated[int, Field(ge=1)] = 16
    """Windows a step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """AdamW's peak learning rate; warmed up over the first 20th, then a cosine down to a tenth."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """AdamW's weight decay."""
    views: Annotated[int, Field(ge=1)] = 24
    """Views (flips, turns, shifts, scales) of each shot, encoded once and kept."""
    sound_views: Annotated[float, Field(ge=0, le=4)] = 0.5
    """Views of sound parts with the word for sound, as a share of the views of shots."""
    turn: bool = True
    """Also learn from mirrored views and views turned by right angles."""
    save_every: Annotated[int, Field(ge=1)] = 50
    """Steps between checkpoints: the most that a killed run loses."""


class GenerateConfig(Settings):
    """What to make."""

    count: Annotated[int, Field(ge=1)] | Literal["balance"] | dict[str, Annotated[int, Field(ge=0)]] = 50
    """Pairs a kind: a number, a table {kind = number}, or "balance" (fill every kind up to the largest)."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 12
    """Denoising steps."""
    guidance: Annotated[float, Field(ge=1.0, le=30.0)] = 3.0
    """Weight of the words; 1 = as trained."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Pairs made together; part of a sample's identity: another batch size gives other rounding."""
    paint: Literal["auto", "replace", "residual"] | dict[str, Literal["auto", "replace", "residual"]] = "auto"
    """residual (keeps the camera's grain), replace, auto (residual unless little shows), or a table {kind = paint}."""
    masks: Literal["shots", "procedural", "mixed"] = "shots"
    """Where masks come from: real masks re-posed, shapes of their statistics, or half and half."""
    turn: Literal["free", "right", "none"] = "free"
    """How re-posed damage may be turned on a surface: any angle, right angles, or not at all (a brushed surface)."""
    outline: bool = True
    """On parts: damage that changes the part's outline (a broken tip) takes the sound outline beside it away too."""
    feather: Annotated[float, Field(ge=0.0, le=64.0)] = 1.0
    """Width in native pixels over which the paint fades in, inside the mask."""
    visible: Annotated[float, Field(gt=0.0, le=1.0)] = 0.024
    """Least change that counts as painted, as a share of full range (0.024 = 6 of 255)."""
    min_painted: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """A pair with less of its asked mask visibly painted is made again with another seed."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """How often, before the pair is given up (and the report says so)."""
    shams: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Shams a pair: sound parts repainted as sound, so that a detector cannot learn "repainted = damaged"."""
    reference: str | dict[str, str] = "shot"
    """Whose look a pair gets (cross_modal, hybrid): shot, nearest, random, a shot's id, a kind, or a table by kind."""
    borrow: list[dict[Literal["from", "kind", "onto"], str]] = []
    """Kinds a product lends to those without: {from = "tile", kind = "crack"}; onto = "screw" names one of them."""
    say: str = ""
    """A plain sentence that decides kind, place, size and look of every pair, as `run --say` does."""

    @field_validator("borrow", mode="before")
    @classmethod
    def _one_loan_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    @field_validator("borrow")
    @classmethod
    def _whole_loans(cls, value: list[dict[str, str]]) -> list[dict[str, str]]:
        for loan in value:
            if missing := {"from", "kind"} - loan.keys():
                raise ValueError(f'{" and ".join(sorted(missing))} missing; write {{from = "...", kind = "..."}}')
        return value


class FeaturesConfig(Settings):
    """The frozen network through which pictures are compared, probed and screened."""

    extractor: str = "efficientnet-lite0"
    """efficientnet-lite0 (lies beside this package), dinov2, inception or lpips-vgg."""
    source: str = ""
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
    """The quality gate: every pair is scored, and those below a threshold are rejected with named reasons."""

    enabled: bool = False
    """True: `flawsmith run` screens; False: it does not, and `flawsmith screen RUN` does it all the same."""
    filters: list[str] = ["alignment", "visible", "realism", "duplicates", "seam", "kind"]
    """Which, in this order; see `flawsmith list`."""
    settings: dict[str, dict[str, Any]] = {}
    """Their own settings: {realism = {neighbours = 3}}."""
    thresholds: dict[str, Rule] = {}
    """A score or filter = {absolute = least}, {quantile = of left-out shots}, {keep = share a kind} or "off"."""
    quantile: Annotated[float, Field(ge=0, lt=0.5)] = 0.02
    """For scores without a threshold of their own: so many of the left-out real shots would be rejected."""
    slack: Annotated[float, Field(ge=0, le=10)] = 0.5
    """Thresholds from quantiles are lowered by this share of the distance from there to the median: shots are few."""
    times: Annotated[float, Field(ge=1, le=50)] = 1.0
    """Pairs are made so many times over: with {keep = 1/4} a threshold, 4 is the paper's way."""
    rounds: Annotated[int, Field(ge=0, le=100)] = 3
    """How often what a kind lacks after screening is planned again with new seeds; 0 = never."""
    repair: bool = False
    """True: a label that does not fit is fitted anew to what changed, and screened with that; False: rejected."""
    keep_rejected: bool = True
    """False: pictures that were rejected are deleted when the last round is screened; their scores stay."""
    sound: Annotated[int, Field(ge=1, le=10_000)] = 64
    """Sound parts a product that are looked at, evenly spread, where a picture's own photograph is unknown."""

    @field_validator("thresholds")
    @classmethod
    def _one_rule_each(cls, value: dict[str, Rule]) -> dict[str, Rule]:
        for name, rule in value.items():
            if rule == "off":
                continue
            if len(rule) != 1:
                raise ValueError(f"{name} needs exactly one of absolute, quantile and keep")
            kind, number = next(iter(rule.items()))
            if (kind == "keep" and not 0 < number <= 1) or (kind == "quantile" and not 0 <= number < 0.5):
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
    """Rulers of the pictures themselves, beside real ones."""

    enabled: bool = True
    """False: `flawsmith run` leaves it out; `flawsmith measure RUN` does it all the same."""
    metrics: list[str] = ["kid", "frechet", "diversity", "prdc", "alignment", "seam", "copies"]
    """Which: see `flawsmith list`."""
    resamples: Annotated[int, Field(ge=0, le=100_000)] = 200
    """Bootstrap resamples behind each interval; 0 = none."""


class ProveConfig(Settings):
    """Does it help? Detectors are trained with and without the pairs, and compared on test pictures never seen."""

    enabled: bool = True
    """False: `flawsmith run` leaves it out; `flawsmith prove RUN` does it all the same."""
    protocol: Literal["clean", "field"] = "clean"
    """clean (the test set is seen once, at the end) or field (the papers' way: best-on-test and last, side by side)."""
    detectors: list[str] = ["probe"]
    """Which are trained: the first that tells where, whether or which answers that question; see `flawsmith list`."""
    settings: dict[str, dict[str, Any]] = {}
    """Their own settings: {probe = {steps = 400}}."""
    budget: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each detector's full training; the report says what less than 1 leaves out."""
    size: Annotated[int, Field(ge=0, le=2048)] = 0
    """Side of the pictures that detectors see; 0 = 256 in the field protocol, else the median photograph's, to 384."""
    seeds: Annotated[int, Field(ge=1, le=100)] = 3
    """Trainings an arm; below 3 the report calls the verdict unsafe."""
    against: list[str] = ["crop_paste"]
    """Other generators to compare with, with their default settings; each makes the same plan's pairs."""
    mix: bool = True
    """Also an arm that learns from our pairs and the first other generator's together."""
    curve: list[Annotated[float, Field(gt=0)]] = [1, 3, 10]
    """Also trained with this many pairs a shot, to see how many help most; empty = no curve."""
    shams: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the sound pictures shown in training that are shams, where `generate.shams` made some."""
    twins: Literal["drop", "keep"] = "drop"
    """Test pictures that seem to be second photographs of a shot: left out, or kept (flatters)."""
    resamples: Annotated[int, Field(ge=100, le=100_000)] = 2000
    """Bootstrap resamples of test pictures and seeds behind each interval."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Of the intervals that decide a verdict."""

    @field_validator("size")
    @classmethod
    def _large_enough(cls, value: int) -> int:
        if 0 < value < 32:
            raise ValueError(f"{value} pixels show nothing; use 32 or more, or 0")
        return value


class ExportConfig(Settings):
    """Layouts to write for other tools."""

    formats: list[str] = ["mvtec"]
    """See `flawsmith list`."""


class ReportConfig(Settings):
    """What the report shows."""

    per_kind: Annotated[int, Field(ge=1, le=200)] = 12
    """Pairs a kind on the contact sheets."""


class Config(Settings):
    """Everything that decides a run's result."""

    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """One number from which all randomness follows."""
    data: DataConfig = DataConfig()
    backbone: BackboneConfig = BackboneConfig()
    windows: WindowsConfig = WindowsConfig()
    generator: GeneratorConfig = GeneratorConfig()
    train: TrainConfig = TrainConfig()
    generate: GenerateConfig = GenerateConfig()
    features: FeaturesConfig = FeaturesConfig()
    screen: ScreenConfig = ScreenConfig()
    measure: MeasureConfig = MeasureConfig()
    prove: ProveConfig = ProveConfig()
    export: ExportConfig = ExportConfig()
    report: ReportConfig = ReportConfig()


def load_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> Config:
    """Read a TOML file and lay overrides such as {"train.steps": 300} on top.

    A relative `data.root` is taken from the working directory, as a shell user expects.

    Raises:
        ConfigError: the file is missing or broken, a key is unknown, or a value does not fit; names each place.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        path = Path(path)
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"{path}: no such configuration file; `flawsmith new > {path.name}` writes one") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path}: not a text file in UTF-8; save it in that encoding") from None
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read as a text file ({error.strerror}); name a TOML file") from None
        except RecursionError:
            raise ConfigError(f"{path}: not valid TOML: nested too deeply") from None
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path}: not valid TOML: {error}") from None
    for key, value in (overrides or {}).items():
        _set(tree, key, value)
    return validate(Config, tree, where=str(path) if path else "")
