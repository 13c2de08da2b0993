"""READ FIRST: the contract between flawsmith and what plugs into it.

A method is one class in one file of its family's folder, named in `registry.py` or by an entry point of another
package. `flawsmith.testing` holds the checks that every plug-in must pass.

    image  float32 (B,3,H,W) RGB in [-1,1]     mask float32 (B,1,H,W) in {0,1}, 1 = damaged
    latent float32 (B,C,h,w), scaled           text: a `nn.text.Text` of B rows, opened by the backbone alone
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from flawsmith.config import Settings as BaseSettings
from flawsmith.config import affecting, validate
from flawsmith.errors import ConfigError
from flawsmith.types import (
    Advance,
    Batch,
    Condition,
    Crop,
    Encoded,
    Example,
    FeatureSet,
    Figure,
    Generated,
    Prediction,
    ScreeningSet,
)

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    import torch
    from torch import Tensor, nn

    from flawsmith.data.training_set import TrainingSet
    from flawsmith.nn.backbone import Backbone
    from flawsmith.nn.methods.patch_memory import PatchMemory
    from flawsmith.nn.networks.extractor import Extractor

LEARNED = "learned.safetensors"
"""In a generator's folder: what `Generator.learn` took."""


class Generator(ABC):
    """A way to paint damage, learned from a few shots. The backbone is shared; what `trainable` returns is its own."""

    Settings: ClassVar[type[BaseSettings]]
    """A frozen settings class; every field has a default and one line of help."""
    needs_backbone: ClassVar[bool] = True
    """False: the method is made of pixels alone and `backbone` is None."""
    needs_mask: ClassVar[bool] = True
    """False: it draws its own mask, inside `Condition.mask`."""
    needs_shot: ClassVar[bool] = False
    """True: `sample` reads `Condition.shot`."""
    without_shots: ClassVar[Literal["", "new", "always"]] = ""
    """Which types it makes without a shot's mask: none, new ones round a site on the part, always all inside sites."""
    reads_reference: ClassVar[bool] = False
    """True: `sample` reads `Condition.reference`, or the shot where there is none."""
    paints_controls: ClassVar[bool] = True
    """False: it cannot repaint a place as *normal*, so no controls can be made with it."""
    native: ClassVar[bool] = False
    """True: it works on windows at the camera's own scale, of any size, one at a time."""
    sweep: ClassVar[tuple[str, tuple[float, ...]]] = ("", ())
    """A number that affects "generate" alone (`part.name`: in the table `part`), and values to show side by side."""
    paper: ClassVar[dict[str, Any]] = {}
    """What its paper states of other sections' settings, e.g. {"train.steps": 5000}; of its own: `Settings.paper()`."""

    def __init__(self, backbone: Backbone | None, settings: BaseSettings) -> None:
        self.backbone, self.settings, self.job = backbone, settings, ""
        """`job`: the name of this model in its run, given before it learns."""

    @property
    def starts_with(self) -> str:
        """Return what sampling starts from; "shot" and "patches" (of shots, or where there is none) need a sketch."""
        return str(getattr(self.settings, "start", ""))

    @classmethod
    def affecting(cls, settings: BaseSettings, output: str) -> dict[str, Any]:
        """Return {name: JSON value} of the settings that change "train" (the default) or "generate" (see `Affects`)."""
        return affecting(settings, output, default=("train",))

    @classmethod
    def starts_from(cls, settings: BaseSettings) -> tuple[Path, ...]:
        """Return files, there or not, that are learned or painted from beside backbone and shots; others begin anew."""
        return ()

    def trainable(self) -> dict[str, nn.Module]:
        """Return the named networks that training may change; {} = nothing to learn."""
        return {}

    def encode(self, shots: Batch) -> Encoded:
        """Do all frozen work of a training step for each view, once, without gradients."""
        raise NotImplementedError(f"{type(self).__name__} trains nothing, so it encodes nothing")

    def encoders(self) -> list[nn.Module]:
        """Return the frozen networks that `encode` runs and `loss` does not; they may leave a card while it trains."""
        return [] if self.backbone is None else self.backbone.encoders()

    def loss(self, views: Encoded, rng: torch.Generator) -> Tensor:
        """Return the training loss of each sample: float32 (B,), not averaged; all randomness comes from `rng`.

        A method writes this, or the two below: then it learns in parts from a batch that memory has no room for.
        """
        return self.loss_of(self.draw(views, rng))

    def draw(self, views: Encoded, rng: torch.Generator) -> Encoded:
        """Return a batch with all that is random in a step, and what a row takes from others, as tensors of B rows."""
        raise NotImplementedError(f"{type(self).__name__} trains nothing, so it has no loss")

    def loss_of(self, drawn: Encoded) -> Tensor:
        """Return the loss of each of some rows of what `draw` returned, float32 (B,), of each row by itself."""
        raise NotImplementedError(f"{type(self).__name__} trains nothing, so it has no loss")

    def calibrate(self, views: Encoded) -> Iterator[float]:
        """Set what no gradient teaches, such as a threshold in a buffer of what is saved; run once, after training.

        It yields the share that is done, in (0,1]; the last is 1.0. Nothing to set = nothing is yielded.
        """
        yield from ()

    def learn(self, crops: Iterable[Crop]) -> None:
        """Take what painting needs from pieces of photographs at the camera's own scale; run once, before any training.

        They show the damage of all of the job's shots, and normal parts under masks of these. Left out: none are cut.
        """
        return None

    def learned(self) -> dict[str, Tensor]:
        """Return all that `learn` took, as tensors: what is saved beside the networks; {} = nothing."""
        return {}

    def restore(self, learned: Mapping[str, Tensor]) -> None:
        """Take what `learned` returned; then `sample` gives the same bytes as there."""
        return None

    @abstractmethod
    def sample(self, asked: Condition, seeds: Sequence[int], *, steps: int, guidance: float) -> Generated:
        """Paint the damage that is asked for.

        Args:
            asked: B requests.
            seeds: B seeds; the same seeds and the same batch give the same bytes.
            steps: Denoising steps (ignored by methods that do not denoise).
            guidance: Weight of the text: 1 = as trained, more = stronger (ignored by methods without text).
        """

    def attention(self, defect: str, product: str) -> tuple[Backbone, str] | None:
        """Return the backbone whose cross-attention reads the prompt of a type, and the prompt; None = reads none."""
        return None

    def save(self, folder: Path) -> None:
        """Write settings.json, a safetensors file for each trainable network and one for `learned`; never a pickle."""
        from flawsmith.nn.weights import save_modules, save_tensors

        save_modules(folder, self.trainable(), self.settings.model_dump(mode="json"))
        if learned := self.learned():
            save_tensors(folder / LEARNED, learned)

    @classmethod
    def load(cls, folder: Path, backbone: Backbone | None) -> Self:
        """Read what `save` wrote."""
        from flawsmith.nn.weights import load_modules, load_tensors, read_settings

        settings = validate(cls.Settings, read_settings(folder), where=f"{folder}/settings.json")
        generator = cls(backbone, settings)
        load_modules(folder, generator.trainable())
        if (folder / LEARNED).exists():
            generator.restore(load_tensors(folder / LEARNED)[0])
        return generator


class Filter(ABC):
    """Named scores of made pictures of one product; higher is better.

    A filter never decides: thresholds live in the configuration. Where it cannot tell, the score is NaN: it abstains.
    """

    Settings: ClassVar[type[BaseSettings]]
    """A frozen settings class; every field has a default and one line of help."""
    scores: ClassVar[dict[str, str]]
    """Name of each score -> what is wrong with a picture whose score is too low, in a few words for the report."""

    def __init__(self, settings: BaseSettings, defects: Sequence[str]) -> None:
        self.settings = settings
        self.defects = tuple(defects)

    @abstractmethod
    def fit(self, shots: ScreeningSet, normal: ScreeningSet) -> dict[str, Tensor]:
        """Learn what real damage and normal parts look like.

        Args:
            shots: Real damage; `below` is a stand-in: the window as it may have looked before.
            normal: Normal parts, under masks that were taken from the shots.

        Returns:
            What each shot scores when it is left out: float32 (N,) per score, NaN where that cannot be told. Thresholds
            are quantiles of these.
        """

    @abstractmethod
    def score(self, made: ScreeningSet) -> dict[str, Tensor]:
        """Return float32 (N,) per name in `scores`; the same pictures give the same bytes."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """Return all that `fit` learned, as tensors: what a saved gate holds."""

    @abstractmethod
    def restore(self, state: dict[str, Tensor]) -> None:
        """Take what `state` returned; then `score` gives the same bytes as there."""

    def said(self) -> str:
        """Return a sentence for the report, such as why it is off; "" = nothing."""
        return ""


class Detector(ABC):
    """A model that finds damage; `prove` trains it on several `TrainingSet`s, which no test picture can enter."""

    Settings: ClassVar[type[BaseSettings]]
    """A frozen settings class; every field has a default and one line of help."""
    tells: ClassVar[frozenset[str]]
    """What `predict` fills: "localization" (anomaly_map), "detection" (score), "classification" (defect type)."""
    needs_damage: ClassVar[bool] = True
    """False: it learns from normal pictures alone and ignores all others."""
    needs_extractor: ClassVar[bool] = False
    """True: it stands on frozen features, and `extractor` is given."""
    checkpoint: Path | None = None
    """Where a long `fit` keeps how far it is, to go on from there; whoever names the file removes it at the end."""

    def __init__(
        self, settings: BaseSettings, defects: Sequence[str], *, extractor: Extractor | None = None, device: str = "cpu"
    ) -> None:
        if self.needs_extractor and extractor is None:
            raise ConfigError(f"{type(self).__name__} stands on frozen features, so it needs an extractor")
        self.settings, self.defects = settings, tuple(defects)
        self.extractor, self.device = extractor, device
        self.prepare()

    def prepare(self) -> None:
        """Refuse settings that cannot work; called once, when all that `__init__` was given is set.

        Raises:
            ConfigError: a package or file is missing, or a setting does not fit the extractor.
        """
        return None

    @abstractmethod
    def fit(self, training: TrainingSet, rng: torch.Generator, *, budget: float = 1.0) -> Iterator[float]:
        """Train from the beginning; yield the share that is done, in (0,1], after each epoch, at last 1.0.

        `predict` works from the first yield on. All randomness comes from `rng` (a CPU generator).

        Args:
            training: Pictures of one shape (not always square). All damage may be made, and a type may lack pictures.
            rng: Decides initial weights, order and augmentation.
            budget: Share of the full training; `reduced` says what less than 1 leaves out.

        Raises:
            DataError: the set lacks normal or damaged pictures that the method needs.
        """

    @abstractmethod
    def predict(self, image: Tensor) -> Prediction:
        """Look at pictures: float32 (B,3,H,W), RGB, [-1,1], of the training set's shape."""

    def out_of_fold(self, training: TrainingSet) -> tuple[list[int], Prediction] | None:
        """Return what it says of photographs that it was trained on, each by a part that has not learned from it.

        Args:
            training: The set that `fit` was given.

        Returns:
            Numbers of photographs (of origin "real", not all of them), and what it says; None = it has no such parts.
        """
        return None

    def graph(self) -> nn.Module:
        """Return what was learned as a network for `torch.export`, from pictures to a tuple of what it tells.

        One that has none raises ConfigError, one that was not trained yet DataError.
        """
        raise ConfigError(f"{type(self).__name__} cannot be delivered, for it has no graph; memory_probe has one")

    def remembered(self) -> PatchMemory | None:
        """Return the normal patches that it compares pictures with; None = it has no such memory."""
        return None

    def facts(self) -> dict[str, float]:
        """Return what it learned about itself and the report should say, as named figures; {} = nothing."""
        return {}

    def reduced(self, budget: float) -> str:
        """Return a sentence for the report about what a budget below 1 leaves out; "" = nothing."""
        return ""


class Metric(Protocol):
    """Compare made pictures of one defect type with real ones.

    Args:
        real: Real damage; changed no more than `made` is.
        made: Made damage, with the normal windows beneath where these are known.
        rng: Draws the resamples.
        resamples: Bootstrap resamples of pictures behind each interval; 0 = no interval.

    Returns:
        Figures by name, the same names whatever the pictures; of too few, the reason. A figure that comes from features
        ends in the extractor's name: `kid[efficientnet-lite0]`.
    """

    def __call__(
        self, real: FeatureSet, made: FeatureSet, rng: np.random.Generator, resamples: int
    ) -> dict[str, Figure]: ...


class Exporter(ABC):
    """Writes pictures with their masks in another tool's layout; `exports.export` keeps them whole or not at all."""

    Settings: ClassVar[type[BaseSettings]]
    """A frozen settings class (`export.settings.NAME`); every field has a default and one line of help."""

    def __init__(self, settings: BaseSettings) -> None:
        self.settings = settings

    @abstractmethod
    def write(
        self, examples: Sequence[Example], folder: Path, *, destination: Path, advance: Advance
    ) -> dict[str, int]:
        """Write all examples into an empty folder; equal examples and settings write equal bytes.

        Args:
            examples: Normal parts (`defect` None; `split` "test" = held out) and damage with masks, only read. For a
                format of 8 bits `data.images.to_bytes(pixels, example.span)` makes a product's pictures alike.
            folder: Empty; it becomes `destination`.
            destination: Where the folder will lie, for paths that are too long and for what a file says of itself.
            advance: To be called once per example that is written.

        Returns:
            Pictures per folder or split, for the report: {"screw/train/good": 41, ...}.

        Raises:
            DataError: an example cannot be written in this layout; names it.
        """
