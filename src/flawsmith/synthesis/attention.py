"""Show where a defect's words acted: the cross-attention of the first sample of each defect type, over its window.

The samples are made when this begins. The first of each type is painted once more from the same line and seed while
somebody listens (`nn.methods.attention_maps`), and nothing of it is kept but what `attention/` holds: the window before
and after, its mask and the map. attention.json says what they are; the report shows them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from flawsmith.data import images
from flawsmith.data.scaling import eight_bits
from flawsmith.files import read_json, reading, write_json
from flawsmith.run.folder import Run
from flawsmith.run.records import PlanLine
from flawsmith.synthesis.sweep import first_of_each, is_of_samples

if TYPE_CHECKING:
    from torch import Tensor

    from flawsmith.interfaces import Generator
    from flawsmith.nn.backbone import Backbone
    from flawsmith.synthesis.paint import Painter
    from flawsmith.types import Condition, Generated

_NAME = re.compile(r"\d{6,}(\.normal|\.mask|\.map|)\.png")


@dataclass(frozen=True, slots=True)
class WordMap:
    """Where the words of one defect type acted in one sample's window."""

    product: str
    defect: str
    words: str
    """As the prompt has them."""
    prompt: str
    index: int
    """The sample's."""
    ratio: float | None
    """Mean of the map inside the mask over its mean outside, on cells of the latent; None = one of the two is empty."""
    strongest: float
    """Greatest share, 0..1, of a place's attention that the words get; the map's 255."""
    weakest: float
    """The map's 0."""

    def files(self, run: Run) -> dict[str, Path]:
        """Return where the window before ("normal") and after ("image") lies, its mask and its map."""
        name = f"{self.index:06d}"
        suffixes = {"normal": ".normal.png", "image": ".png", "mask": ".mask.png", "map": ".map.png"}
        return {what: run.path("attention", f"{name}{suffix}") for what, suffix in suffixes.items()}


def paint_attention(run: Run, lines: Iterable[PlanLine], painter_of: Callable[[str], Painter]) -> None:
    """Record the words of a run whose samples are all made; nothing is done when that is there for these samples.

    Args:
        run: Its folder gets attention.json and attention/.
        lines: Lines of the plan whose samples were made, by generators that read words.
        painter_of: Job -> what paints it.
    """
    if has_attention(run):
        return
    run.remove_made("attention", _NAME)
    rows = [row for line in first_of_each(lines) if (row := _recorded(run, line, painter_of(line.job)))]
    write_json(run.path("attention.json"), {"hash": run.stage_hash("generate"), "rows": [asdict(row) for row in rows]})


def has_attention(run: Run) -> bool:
    """Return whether attention.json is there and belongs to the run's samples."""
    return is_of_samples(run, "attention.json")


def word_maps(run: Run) -> list[WordMap]:
    """Return what `paint_attention` recorded of the samples that the run has now; [] = nothing."""
    if not has_attention(run):
        return []
    path = run.path("attention.json")
    with reading(path):
        return [WordMap(**row) for row in read_json(path)["rows"]]


class _Heard:
    """The window of a sample that shows most of its mask, with the map of its words; of several tries the last."""

    def __init__(self, generator: Generator, backbone: Backbone) -> None:
        from flawsmith.nn.methods.attention_maps import AttentionMaps

        self._generator, self._backbone = generator, backbone
        self.maps = AttentionMaps(backbone.unet)
        self.prompt = ""
        self.window: tuple[Condition, Generated, Tensor] | None = None

    def take(self, asked: Condition, generated: Generated) -> None:
        """Look at a window that was painted just now."""
        size = asked.mask.shape[-2] // self._backbone.factor, asked.mask.shape[-1] // self._backbone.factor
        heard, words = self.maps.take(size), _words_of(self._generator, asked.defect[0])
        read = self._generator.attention(*asked.named()[0])
        if heard is None or read is None or generated.image.shape[-2:] != asked.mask.shape[-2:]:
            return
        tokens = self._backbone.text_encoder.positions(read[1], words)
        if tokens and (self.window is None or generated.mask.sum() >= self.window[1].mask.sum()):
            self.prompt, self.window = read[1], (asked, generated, heard[tokens].mean(0))


@runtime_checkable
class _Describes(Protocol):
    """A generator in whose prompts something else may stand for a defect type's name."""

    def words(self, defect: str) -> str: ...


def _words_of(generator: Generator, defect: str) -> str:
    return generator.words(defect) if isinstance(generator, _Describes) else defect.replace("_", " ")


def _recorded(run: Run, line: PlanLine, painter: Painter) -> WordMap | None:
    """Paint a line once more, listening, and write what was heard; None = its prompt does not have the words."""
    read = painter.generator.attention(line.defect, line.product)
    if read is None:
        return None
    from flawsmith.data.tensors import picture_of  # torch, which the report does without

    heard = _Heard(painter.generator, read[0])
    painter.listener = heard.take
    with heard.maps.listening():
        for _ in painter.paint([line]):
            pass
    if heard.window is None:
        return None
    asked, generated, where = heard.window
    damage = generated.mask  # what was asked for, or what the generator drew itself
    cells, ratio = read[0].latent_mask(damage)[0, 0].bool(), None
    if bool(cells.any()) and not bool(cells.all()):
        ratio = float(where[cells].mean() / where[~cells].mean().clamp_min(1e-12))
    least, most = float(where.min()), float(where.max())
    words = _words_of(painter.generator, line.defect)
    row = WordMap(line.product, line.defect, words, heard.prompt, line.index, ratio, most, least)
    level = ((where - least) / max(most - least, 1e-12) * 255).round().byte().numpy()
    files = row.files(run)
    images.write(files["normal"], eight_bits(picture_of(asked.normal[0])))
    images.write(files["image"], eight_bits(picture_of(generated.image[0])))
    images.write_mask(files["mask"], damage[0, 0].numpy() > 0.5)
    images.write(files["map"], level)
    return row
