"""The words of the house: what an example, a batch, a request and a result are, with their shapes and ranges.

    image   float32 (B,3,H,W), RGB, in [-1,1]
    mask    float32 (B,1,H,W), in {0,1}; 1 = damaged
    latent  float32 (B,C,h,w), scaled to about unit variance
    text    a `nn.text.Text` of B rows, which the backbone alone opens

Outside the networks a picture is a numpy array as the camera gave it: (H,W) or (H,W,3), uint8, uint16 or float32, RGB
order; a native mask is bool (H,W). `flawsmith.data.images` is the only place that turns one into the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from typing import Self

    import numpy as np
    from torch import Tensor


class Advance(Protocol):
    """Tell that `count` more are done; `note` stands beside the bar."""

    def __call__(self, count: int = 1, note: str = "") -> None: ...


Stage = Literal["train", "generate", "screen", "measure", "prove", "export", "report"]  # of a run, in order
MaskSource = Literal["grey", "index", "colour", "alpha"]
"""What of a mask file counts."""


@dataclass(frozen=True, slots=True, order=True)
class MaskRule:
    """How the users' masks of one product and defect type are read, decided once from all masks of the product.

    A value is a grey level, a palette index, a colour 0xRRGGBB (16 bits: 0xRRRRGGGGBBBB) or alpha, as `source` says.
    """

    source: MaskSource = "grey"
    """What of the file counts. `grey` of a coloured file is its brightest channel."""
    background: tuple[float, ...] = (0,)
    """Values that are not damage."""
    damage: tuple[float, ...] = ()
    """Values that are damage; () = all that are neither background nor ignored."""
    ignore: tuple[float, ...] = ()
    """Values that are neither: such pixels count for nothing."""
    soft: float = 0.0
    """The largest value of all masks where edges are soft: damage is then more than half of a file's largest, and of a
    quarter of this. 0 = every value counts as it is."""
    inverted: bool = False
    """True: damage and background change places."""
    alpha: bool = True
    """True: what is transparent is not damage, whatever its colour."""


@dataclass(frozen=True, slots=True, order=True)
class Range:
    """A product's value range: the native values that become -1 and +1, and those that mean "not measured"."""

    low: float
    high: float
    sentinels: tuple[float, ...] = ()
    """Finite values that mean "not measured", such as -99999 in a height map; NaN and the infinities always do."""
    fill: float | None = None
    """What a network sees in their place: the median of the normal pictures; None = the middle of the range."""
    step: int = 1
    """All values are multiples of it: 16 where a 12-bit camera fills the upper end of 16 bits."""
    depth: int = 0
    """Bits per sample of the pictures that it holds for: 8, 16 or 32 (float); 0 = any."""
    rule: str = ""
    """How it was decided, in a few words: "12 bits in 16"."""

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Range:
        """Read what `to_json` wrote."""
        return cls(**{**row, "sentinels": tuple(row["sentinels"])})

    def to_json(self) -> dict[str, Any]:
        """Return the fields by name, with lists for tuples."""
        return {**asdict(self), "sentinels": list(self.sentinels)}

    @property
    def half(self) -> float:
        """Native units per model unit."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True, order=True)
class Example:
    """One photograph on disk, and what is known of it."""

    id: str
    """Path below the data root, posix style: stable across machines."""
    image: Path
    """The photograph."""
    product: str
    """The part or surface, e.g. `screw`."""
    defect: str | None = None
    """The defect type, e.g. `scratch`; None = a normal part."""
    masks: tuple[Path, ...] = ()
    """The files of its label, each of the photograph's size; their union is the damage. () for a normal part."""
    split: str = ""
    """`train` or `test` where the folder layout says so, else ``."""
    mask_rule: MaskRule | None = None
    """How `masks` are read; None = they are flawsmith's own (0 and 255), or not judged yet."""
    span: Range | None = None
    """The value range of its product (`data.ranges`); None = not decided yet: the picture is read by its own values."""
    painted_on: str = ""
    """Of a made picture, the id of the photograph that it was painted on; "" = it is a photograph itself."""


@dataclass(frozen=True, slots=True)
class Crop:
    """A place of a real photograph at the camera's own scale: what a generator that works on pixels learns from."""

    image: np.ndarray
    """float32 (h,w,3), RGB, [-1,1]."""
    mask: np.ndarray
    """bool (h,w): the damage; of a normal part, where a shot's damage might lie."""
    product: str
    defect: str
    """"" = a normal part."""
    surface: bool = True
    """Whether the product fills its pictures; False: it is a part before a backdrop."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of real photographs with their masks, products and defect types, ready for a network."""

    image: Tensor
    """float32 (B,3,H,W), RGB, [-1,1]."""
    mask: Tensor
    """float32 (B,1,H,W), {0,1}."""
    product: tuple[str, ...]
    defect: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.product)

    def __getitem__(self, rows: slice) -> Self:
        return type(self)(self.image[rows], self.mask[rows], self.product[rows], self.defect[rows])


@dataclass(frozen=True, slots=True)
class Condition:
    """A request for damage: this normal window, in this place, of this defect type."""

    normal: Tensor
    """float32 (B,3,H,W), RGB, [-1,1]: the window of a normal photograph."""
    mask: Tensor
    """float32 (B,1,H,W), {0,1}: where to damage; for a generator with `needs_mask = False`, where damage may lie."""
    product: tuple[str, ...]
    defect: tuple[str, ...]
    shot: Batch | None = None
    """A real shot of the same type and size, re-posed so that its damage lies under `mask`; row i belongs to row i."""
    sketch: Tensor | None = None
    """float32 (B,3,H,W): the normal with that damage blended in: something to start from."""
    reference: Batch | None = None
    """Windows whose damage looks as wanted; they may be of another product than is painted on."""
    appearance: tuple[str, ...] = ()
    """Words that go before the defect type's name, such as "small faint", one entry per row; () = none."""

    def __len__(self) -> int:
        return len(self.product)

    def named(self) -> list[tuple[str, str]]:
        """Return (defect type with its words, product) of each row, for prompts; the type is "" for normal."""
        words = self.appearance or ("",) * len(self)
        defects = [
            f"{word} {defect}".strip() if defect else "" for word, defect in zip(words, self.defect, strict=True)
        ]
        return list(zip(defects, self.product, strict=True))


@dataclass(frozen=True, slots=True)
class Generated:
    """What a generator painted."""

    image: Tensor
    """float32 (B,3,H,W), RGB, [-1,1]: the whole window, damage in place."""
    mask: Tensor
    """float32 (B,1,H,W), {0,1}: where the generator meant to paint."""
    base: Tensor | None = None
    """float32 (B,3,H,W): the normal window after the same decoder, for residual paint; None = the normal itself."""
    refused: tuple[str, ...] = ()
    """Per row a word why it must not be used, "" = it may be; () = all may. `mask` and `image` are there anyway."""
    whole: bool = False
    """True: the whole window is synthetic and replaces the photograph's; `mask` only says what of it is damage."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """The frozen half of a training step, computed once per view: named tensors of equal first dimension N."""

    tensors: dict[str, Tensor]

    def __len__(self) -> int:
        return next(iter(self.tensors.values())).shape[0] if self.tensors else 0

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def rows(self, index: Tensor) -> Encoded:
        """Return the views named by an int64 index (K,)."""
        return Encoded({name: value[index] for name, value in self.tensors.items()})

    @staticmethod
    def cat(parts: Sequence[Encoded]) -> Encoded:
        """Join encodings of several batches along the first dimension."""
        import torch

        return Encoded({name: torch.cat([part[name] for part in parts]) for name in parts[0].tensors})


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a detector says of B pictures; a task that it does not tell is None."""

    anomaly_map: Tensor | None = None
    """Localization: float32 (B,1,H,W) of the pictures' shape; higher = more likely damaged."""
    score: Tensor | None = None
    """Detection: float32 (B,); higher = more likely damaged."""
    probabilities: Tensor | None = None
    """Classification: float32 (B,K), over the defect types of the training set, in their order; each row sums to 1."""

    @classmethod
    def joined(cls, parts: Sequence[Prediction], way: Callable[[list[Tensor]], Tensor]) -> Prediction:
        """Return what is said of all parts, put together by `torch.cat` or `torch.stack`.

        A task that one of them does not tell is None.
        """

        def each(values: Sequence[Tensor | None]) -> Tensor | None:
            filled = [value for value in values if value is not None]
            return way(filled) if filled and len(filled) == len(values) else None

        return cls(
            each([part.anomaly_map for part in parts]),
            each([part.score for part in parts]),
            each([part.probabilities for part in parts]),
        )


@dataclass(frozen=True, slots=True)
class FeatureSet:
    """N windows round the damage of one defect type, with all that metrics read, computed once."""

    image: Tensor
    """float32 (N,3,S,S), RGB, [-1,1]."""
    mask: Tensor
    """bool (N,S,S)."""
    vector: Tensor
    """float32 (N,D): one embedding per window."""
    perceptual: tuple[Tensor, ...]
    """float32 (N,C,h,w) per depth; see `nn.networks.extractor.Extractor.perceptual_of`."""
    extractor: str
    """Its name, which figures that are made from features state."""
    probabilities: Tensor | None = None
    """float32 (N,K), where the extractor tells classes; each row sums to 1."""
    below: Tensor | None = None
    """float32 (N,3,S,S): the same windows of the normal photographs; None where not all of them are known."""

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True, slots=True)
class ScreeningSet:
    """N pictures of one product for filters to judge, with all that filters read, computed once.

    Embeddings come at three levels: `whole` is the picture, `window` is round the damage, and `tokens` are the
    extractor's maps of the window, averaged inside the mask, all depths side by side.
    """

    name: tuple[str, ...]
    defect: tuple[str, ...]
    """The intended defect type; "" for normal parts."""
    image: Tensor
    """float32 (N,3,S,S), RGB, [-1,1]: the window round label and change."""
    mask: Tensor
    """bool (N,S,S): the label."""
    below: Tensor
    """float32 (N,3,S,S): the normal window to compare with; zeros where there is none."""
    changed: Tensor
    """bool (N,S,S): what visibly differs from the picture's own normal photograph; all False where that is unknown."""
    own: Tensor
    """bool (N,): `below` is the very photograph that was painted on."""
    compared: Tensor
    """bool (N,): there is a `below`, the photograph itself or a stand-in."""
    vector: dict[str, Tensor]
    """float32 (N,D) per level: embeddings of the picture."""
    beneath: dict[str, Tensor]
    """float32 (N,D) per level: embeddings of the normal picture; NaN where there is none."""
    moved: Tensor
    """float32 (N,), 0..4: mean squared distance of the maps inside the mask from those of `below` at the same places,
    each of unit length; NaN where there is no `below`."""
    grain: Tensor
    """float32 (N,): standard deviation of the grain inside the mask at native size, on the scale -1..1: the median of
    Immerkaer's filter (1996)."""
    extractor: str
    """The name of the network whose features these are."""

    def __len__(self) -> int:
        return len(self.name)

    def rows(self, index: Sequence[int]) -> ScreeningSet:
        """Return the pictures named by an index, in its order."""
        rows = list(index)
        chosen: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                chosen[field.name] = tuple(value[row] for row in rows)
            elif isinstance(value, dict):
                chosen[field.name] = {level: tensor[rows] for level, tensor in value.items()}
            else:
                chosen[field.name] = value if isinstance(value, str) else value[rows]
        return ScreeningSet(**chosen)


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value with its interval; without a value, the reason why not."""

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""


def to_device(value: Any, device: Any) -> Any:
    """Return a Batch, Condition, Generated or Encoded with every tensor on `device`."""
    import torch

    if isinstance(value, Encoded):
        return Encoded({name: tensor.to(device) for name, tensor in value.tensors.items()})
    moved = {}
    for field in fields(value):
        item = getattr(value, field.name)
        if isinstance(item, torch.Tensor):
            moved[field.name] = item.to(device)
        elif isinstance(item, Batch):
            moved[field.name] = to_device(item, device)
    return replace(value, **moved)
