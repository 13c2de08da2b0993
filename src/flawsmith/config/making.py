"""The sections that decide what is made: data, backbone, windows, generator, train, generate.

The line of text under each field is its help: `flawsmith new` prints it as a comment, the docs show the same line.
`Affects` says which outputs a setting changes, where that is not what its section says.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from flawsmith.config.places import Place
from flawsmith.config.settings import Affects, Settings, toml_key, warn_renamed
from flawsmith.config.without_shots import WithoutShotsConfig, nfc, with_composed_keys
from flawsmith.errors import ConfigError

MaskValue = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")]
"""A value in a mask: a grey level or palette index, or a colour as "#rrggbb"."""

MOST = 999_999
"""Samples of a type: their files are named by six digits."""


ExamplePer = Literal["type", "object"]
"""What becomes an example of its own on a picture that a labelling tool marked."""


class Pattern(Settings):
    """One of the user's own globs: templates with the fields {product}, {defect} and {stem}."""

    renamed = {"kind": "defect"}

    image: str
    """Where the photographs lie below the root, e.g. `line1/{defect}/{stem}.jpg`."""
    mask: str = ""
    """Where the mask of each lies, e.g. `labels/{defect}/{stem}.png`; empty for normal parts."""
    normal: bool = False
    """True: these are normal parts."""
    product: str = ""
    """The product, when the template has no {product}."""
    defect: str = ""
    """The defect type, when the template has no {defect}."""

    @field_validator("image", "mask", mode="before")
    @classmethod
    def _field_by_its_new_name(cls, value: Any) -> Any:
        if isinstance(value, str) and "{kind}" in value:
            warn_renamed("data.patterns: {kind}", "{defect}")
            return value.replace("{kind}", "{defect}")
        return value


class MaskConfig(Settings):
    """How your masks are read, where they do not say it themselves; see docs/data.md."""

    affects = ("data",)

    values: dict[str, MaskValue | list[MaskValue]] | Literal["", "all"] = ""
    """Which value is which defect type, e.g. {scratch = 1, dent = [2, "#ff0000"]}; "all" = all but the background."""
    inverted: bool | Literal["auto"] = "auto"
    """True: what would be background is damage; false: damage may cover most of a picture; "auto": `check` asks."""
    alpha: bool | Literal["auto"] = "auto"
    """True: alpha is the mask; false: alpha is left out; "auto": alpha, where the colours say nothing."""
    ignore: list[MaskValue] | Literal["auto"] = "auto"
    """Values that are neither damage nor background; "auto": 255 (65535) beside small numbers in one mask."""

    @field_validator("values", mode="before")
    @classmethod
    def _defects_in_composed_form(cls, value: Any) -> Any:
        return with_composed_keys(value)


class DataConfig(Settings):
    """The photographs: where they lie, how the folders are laid out, which defects are learned from."""

    affects = ("data",)
    renamed = {"kinds": "defects"}

    root: Path = Path("data")
    """The folder of photographs; it is only read."""
    layout: str = "mvtec"
    """mvtec, visa, pairs (masks beside pictures), pattern (your globs), coco, yolo, labelme, label_studio, lookout."""
    normal: list[str] = []
    """Names of the folders of normal parts; "." = what lies in no folder (pairs), or has no label (labelling tools)."""
    products: list[str] = []
    """Only these products; empty = all."""
    defects: list[str] = []
    """Only these defect types; empty = all."""
    exclude: list[str] = []
    """Pictures and masks to leave out, as globs of paths below the root such as `test/**/*_preview.png`."""
    product: str = ""
    """The product's name where the layout does not say it (pairs); empty = the root folder's name."""
    patterns: list[Pattern] = []
    """For layout pattern: templates such as {image = "{defect}/{stem}.png", mask = "masks/{defect}/{stem}.png"}."""
    example_per: ExamplePer = "type"
    """Of a picture that a labelling tool marked: an example for each defect type, or for each marked object."""
    shots: Annotated[int, Field(ge=0)] | Literal["third"] = 10
    """Real pictures per defect type to learn from, or "third" (the papers' protocol); the rest are test. 0 = none."""
    mask: MaskConfig = MaskConfig()
    places: Annotated[dict[str, Place], Affects("generate")] = {}
    """Places on the product for sentences: {head = {box = [0.1, 0.1, 0.4, 0.4]}}, or with polygon or mask."""
    pixel_mm: Annotated[float, Field(ge=0, le=1000), Affects("generate")] = 0.0
    """Millimetres that a pixel shows, for sizes in sentences ("3 mm long"); 0 = not known."""

    @field_validator("normal", "products", "defects", "exclude", mode="before")
    @classmethod
    def _one_name_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


class BackboneConfig(Settings):
    """The frozen diffusion model of the diffusion generators; those of real pixels (patch_synthesis) use none."""

    # Which weights these settings lead to, and in which precision, is what stages compare: no setting counts itself.

    source: str = "builtin"
    """"builtin", a diffusers folder, one .safetensors file, or a hub id (fetched before, or with offline = false)."""
    offline: bool = True
    """True: nothing is ever asked of the network."""
    device: str = "auto"
    """"auto" (a GPU when there is one), "cpu", "cuda", "cuda:1", "mps"."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """"auto" = bfloat16 where the hardware gains from it, float16 on older GPUs (Turing, Volta), else float32."""
    clip_skip: Annotated[int, Field(ge=0, le=11)] = 0
    """Last layers of the text encoder to leave out; some models of Stable Diffusion 1 want 1 ("clip skip 2")."""
    lora: list[str] = []
    """Files of low-rank changes (LoRA) of the UNet, such as LCM's for few steps; they are added to its weights."""


class WindowsConfig(Settings):
    """Native resolution: which window round the damage a generator sees."""

    affects = ("train", "generate")

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


AUTO = "auto"
"""In place of a generator: `flawsmith run` chooses, by folds inside the shots."""


class GeneratorConfig(Settings):
    """The method, and what it is told."""

    affects = ("train",)

    name: str | Annotated[dict[str, str], Field(min_length=1)] = "patch_synthesis"
    """Which generator: see `flawsmith list`; a table {type = generator}; or "auto", what `flawsmith choose` chooses."""
    # Its class says of each of these what it affects.
    settings: Annotated[dict[str, Any], Affects()] = {}
    """Its own settings: see `flawsmith new --generator NAME`; where `name` is a table, {generator = {its settings}}."""

    @field_validator("name")
    @classmethod
    def _defects_in_composed_form(cls, value: str | dict[str, str]) -> str | dict[str, str]:
        return {nfc(defect): name for defect, name in value.items()} if isinstance(value, dict) else value

    @property
    def names(self) -> tuple[str, ...]:
        """The generators, each once.

        Raises:
            ConfigError: nothing is chosen yet.
        """
        if self.name == AUTO:
            raise ConfigError(
                'generator.name: "auto" is chosen by `flawsmith run CONFIG --out RUN`; elsewhere name a generator, or '
                "use what `flawsmith choose CONFIG --out FOLDER` writes"
            )
        return (self.name,) if isinstance(self.name, str) else tuple(sorted(set(self.name.values())))

    @property
    def label(self) -> str:
        """The generators in words: "crop_paste (chip, dent) and patch_synthesis (crack)"."""
        if isinstance(self.name, str):
            return self.name
        by_name = {name: [defect for defect, its in self.name.items() if its == name] for name in self.names}
        parts = [f"{name} ({', '.join(defects)})" for name, defects in by_name.items()]
        return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))

    def of(self, defect: str) -> str:
        """Return the generator of a defect type.

        Raises:
            ConfigError: the table names none, or nothing is chosen yet.
        """
        if not defect or self.name == AUTO:
            (name,) = self.names
            return name
        if isinstance(self.name, str):
            return self.name
        if defect not in self.name:
            raise ConfigError(
                f'generator.name: no generator for the defect type {defect!r}; add {toml_key(defect)} = "..."'
            )
        return self.name[defect]

    def alone(self, name: str) -> GeneratorConfig:
        """Return one of the generators with its settings."""
        return self if isinstance(self.name, str) else GeneratorConfig(name=name, settings=self.settings.get(name, {}))


class TrainConfig(Settings):
    """Learning from the shots."""

    affects = ("train",)
    renamed = {"sound_views": "normal_views"}
    renamed_values = {"scope": {"kind": "defect"}}

    scope: Literal["product", "defect", "all"] = "product"
    """One model for all defect types of a product, one for each defect type, or one for everything."""
    steps: Annotated[int, Field(ge=0)] = 600
    """Training steps; 0 = none."""
    batch: Annotated[int, Field(ge=1)] = 16
    """Windows per step."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    """AdamW's peak learning rate; warmed up over the first 20th, then a cosine down to a tenth."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-2
    """AdamW's weight decay."""
    views: Annotated[int, Field(ge=1)] = 24
    """Augmented views (flips, turns, shifts, scales) of each shot, encoded once and kept."""
    normal_views: Annotated[float, Field(ge=0, le=4)] = 0.5
    """Views of normal parts with the prompt for normal, as a share of the views of shots."""
    turn: bool = True
    """Also learn from mirrored views and views turned by right angles."""
    memory: Annotated[Literal["auto", "24GB", "12GB", "8GB"], Affects()] = "auto"
    """The card that a large backbone is to be trained on; the same is learned. "auto": the card that is there."""
    save_every: Annotated[int, Field(ge=1), Affects()] = 50
    """Steps between checkpoints: the most that a killed run loses."""
    tracker: Annotated[Literal["none", "tensorboard", "wandb", "comet"], Affects()] = "none"
    """Record losses, pictures and settings in RUN/tracking, offline; "tensorboard" needs the extra tracker."""


class GenerateConfig(Settings):
    """What to make."""

    affects = ("generate",)
    renamed = {"shams": "controls", "borrow": "transfer", "say": "prompt"}

    count: (
        Annotated[int, Field(ge=1, le=MOST)] | Literal["balance"] | dict[str, Annotated[int, Field(ge=0, le=MOST)]]
    ) = 50
    """Samples per defect type: 1 to 999999, {type = number} (0 or left out: none), or "balance" (up to the largest)."""
    steps: Annotated[int, Field(ge=1, le=1000)] = 12
    """Denoising steps."""
    guidance: Annotated[float, Field(ge=1.0, le=30.0)] = 3.0
    """Weight of the words; 1 = as trained."""
    batch: Annotated[int, Field(ge=1)] = 8
    """Samples made together; part of a sample's identity: another batch size gives other rounding."""
    paint: Literal["auto", "replace", "residual"] | dict[str, Literal["auto", "replace", "residual"]] = "auto"
    """residual (keeps the camera's grain), replace, auto (residual unless little shows), or a table {type = paint}."""
    masks: Literal["shots", "procedural", "mixed"] | dict[str, Literal["shots", "procedural", "mixed"]] = "shots"
    """Where masks come from: real masks re-posed, shapes of their statistics, half and half; or {type = masks}."""
    turn: Literal["free", "right", "none"] = "free"
    """How re-posed damage may be turned on a surface: any angle, right angles, or not at all (a brushed surface)."""
    bend: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """How far re-posed damage is bent, its mask alike: 0 = not, 1 = clearly; from 1.5 on the picture may fold."""
    outline: bool = True
    """On parts: damage that changes the part's outline (a broken tip) takes the normal outline beside it away too."""
    feather: Annotated[float, Field(ge=0.0, le=64.0)] = 1.0
    """Width in native pixels over which the paint fades in, inside the mask."""
    visible: Annotated[float, Field(gt=0.0, le=1.0), Affects("generate", "screen")] = 0.024
    """Least change that counts as painted, as a share of full range (0.024 = 6 of 255)."""
    min_painted: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """A sample with less of its asked mask visibly painted is made again with another seed."""
    attempts: Annotated[int, Field(ge=1, le=20)] = 3
    """How often, before the sample is given up (and the report says so)."""
    workers: Annotated[Annotated[int, Field(ge=1, le=1024)] | Literal["auto"], Affects()] = "auto"
    """Processes that paint, for generators that work on pixels; "auto": one per core where that pays, else this one."""
    controls: Annotated[float, Field(ge=0, le=1), Affects("controls")] = 0.5
    """Negative controls per sample: normal parts repainted as normal, so no detector learns "repainted = damaged"."""
    reference: str | dict[str, str] = "shot"
    """Whose appearance samples get (cross_modal, hybrid): shot, nearest, random, a shot's id, a type; or a table."""
    transfer: list[dict[Literal["from", "defect", "onto"], str]] = []
    """Types that a product gives to others: {from = "tile", defect = "crack"}; onto = "screw" names one of them."""
    without_shots: WithoutShotsConfig = WithoutShotsConfig()
    prompt: str = ""
    """A plain sentence that decides type, place, size and appearance of every sample, as `run --prompt` does."""
    describe: bool = False
    """True: a vision-language model looks at photographs and says of each type where it may be, and how it looks."""
    describer: str = ""
    """For `describe`: a transformers folder of an image-text-to-text model."""

    @field_validator("count", "paint", "masks", "reference", mode="before")
    @classmethod
    def _defects_in_composed_form(cls, value: Any) -> Any:
        return with_composed_keys(value)

    @field_validator("transfer", mode="before")
    @classmethod
    def _one_transfer_is_a_list(cls, value: Any) -> Any:
        value = [value] if isinstance(value, dict) else value
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            return value
        if any("kind" in item for item in value):
            warn_renamed("generate.transfer: kind", "defect")
        return [{"defect" if key == "kind" else key: text for key, text in item.items()} for item in value]

    @field_validator("transfer")
    @classmethod
    def _whole_transfers(cls, value: list[dict[str, str]]) -> list[dict[str, str]]:
        for item in value:
            if missing := {"from", "defect"} - item.keys():
                raise ValueError(f'{" and ".join(sorted(missing))} missing; write {{from = "...", defect = "..."}}')
        return [{key: nfc(name) if isinstance(name, str) else name for key, name in item.items()} for item in value]

    @model_validator(mode="after")
    def _one_who_says(self) -> GenerateConfig:
        if self.describe and not self.describer:
            raise ValueError("describe needs describer: a transformers folder of an image-text-to-text model")
        if self.describe and self.prompt:
            raise ValueError("prompt says already what is made; set describe = false, or leave prompt empty")
        return self
