"""`generate.describe`: a vision-language model looks at the photographs, and says where damage may be and how it looks.

Of some normal photographs it says where a defect type would be plausible, of the shots what their damage looks like.
Each answer must be a sentence that the grammar of `generate.prompt` understands; else it is asked again, with the
reason. All answers are kept in descriptions.json, so the model is asked once, and a run that is stopped goes on. Who
changes a sentence there gets other samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np

from flawsmith.config import Config
from flawsmith.data.sentences.descriptions import Descriptions, Sentence
from flawsmith.data.sentences.grammar import SIZES, parse
from flawsmith.data.split import Split
from flawsmith.errors import ConfigError, RunError
from flawsmith.files import digest, read_json, reading, write_json
from flawsmith.locks import locked
from flawsmith.nn.networks.describer import Answers, Describer, identity
from flawsmith.run.dataset import Dataset
from flawsmith.run.folder import Run
from flawsmith.run.progress import progress
from flawsmith.types import Example

FILE = "descriptions.json"
_NORMALS = 12
"""Normal photographs of a product that it is asked about, for each type."""
_TRIES = 3
_LONGEST = 200
"""Characters of an answer that are read."""
_SIDE = 768
"""Px of the longer side that it is shown."""


@dataclass(frozen=True, slots=True)
class Description:
    """A photograph with what was said of it."""

    photograph: str
    """Its id."""
    product: str
    defect: str
    """The type that was asked about."""
    caption: bool
    """True: the photograph is a shot of it; False: a normal part."""
    answers: tuple[str, ...]
    """All that was answered."""
    sentence: str = ""
    """What was understood; "" = nothing."""
    reason: str = ""
    """Why the last answer was not."""


def described(run: Run, data: Dataset, wanted: Sequence[tuple[str, str]]) -> Descriptions:
    """Return what is said of a run's photographs; the model is asked where descriptions.json does not say it.

    Args:
        run: With `generate.describe`.
        data: Its photographs.
        wanted: The products and types that samples are made of.

    Raises:
        ConfigError: there is no such model.
    """
    config, path = run.config, run.path(FILE)
    asked = _asked(config, data.split, wanted)
    with locked(run.path("state", "describe.lock")):
        stored = read_json(path) if path.exists() else {}
        with reading(path):
            # Once all is said, the model itself may be gone.
            model = identity(config.generate.describer) or str(stored.get("model", ""))
            stamp = digest([model, [(example.id, data.content([example]), *question) for example, question in asked]])
            rows = [_row(tree) for tree in stored["rows"]] if stored.get("stamp") == stamp else []
        if len(rows) < len(asked):
            describer = load_describer(config)
            with progress("describe", len(asked), "photographs", done=len(rows)) as advance:
                for example, (defect, caption, text) in asked[len(rows) :]:
                    rows.append(_described(config, data, describer, example, defect, caption, text))
                    # A run that is stopped goes on from here.
                    write_json(path, {"model": model, "stamp": stamp, "rows": [asdict(row) for row in rows]})
                    advance(1, f"{sum(bool(row.sentence) for row in rows)} understood")
    return _understood(run, data.split, rows)


def _row(tree: dict[str, Any]) -> Description:
    return Description(**{**tree, "answers": tuple(tree["answers"])})


def load_describer(config: Config) -> Answers:
    """Load the model that the configuration names."""
    return Describer.load(config.generate.describer, device=config.backbone.device, dtype=config.backbone.dtype)


def _asked(
    config: Config, split: Split, wanted: Sequence[tuple[str, str]]
) -> list[tuple[Example, tuple[str, bool, str]]]:
    """Return the photographs to ask about, each with (type, whether it is a shot, question)."""
    asked: list[tuple[Example, tuple[str, bool, str]]] = []
    for product, defect in wanted:
        normals = [example for example in split.normals if example.product == product]
        evenly = np.linspace(0, len(normals) - 1, min(len(normals), _NORMALS)).round().astype(int)
        shots = [shot for shot in split.shots if (shot.product, shot.defect) == (product, defect)]
        for example, caption in [*((normals[n], False) for n in evenly), *((shot, True) for shot in shots)]:
            asked.append((example, (defect, caption, question(config, product, defect, caption=caption))))
    return asked


def question(config: Config, product: str, defect: str, *, caption: bool) -> str:
    """Return what the model is asked about a photograph."""
    thing, part = defect.replace("_", " "), product.replace("_", " ")
    named = [name.replace("_", " ") for name, place in config.data.places.items() if place.product in ("", product)]
    shown = f"The photograph shows the defect '{thing}' on a product: {part}. Where is it, and what does it look like?"
    if not caption:
        shown = (
            f"The photograph shows a product without defects: {part}. Where on it might the defect '{thing}' be, and "
            "what would it look like?"
        )
    places = "near the top, bottom, left, right or middle" + "".join(f", on the {name}" for name in named)
    return (
        f"{shown} Answer with one short phrase of these words only: {', '.join(SIZES)}; long, short, thin, wide; "
        f"faint, severe; {thing}; {places}. For example: a small faint {thing} near the top left"
    )


def _described(
    config: Config, data: Dataset, describer: Answers, example: Example, defect: str, caption: bool, asked: str
) -> Description:
    """Ask about a photograph until the answer is understood, or often enough."""
    picture = data.photographs.read(example).model()
    scale = min(1.0, _SIDE / max(picture.shape[:2]))
    if scale < 1:
        size = max(round(picture.shape[1] * scale), 1), max(round(picture.shape[0] * scale), 1)
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    answers: list[str] = []
    reason = ""
    for _ in range(_TRIES):
        again = f"\nYour last answer was not understood: {reason}. Use those words only." if reason else ""
        answers.append(describer.answer(picture, asked + again))
        try:
            sentence = _sentence(config, data.split, answers[-1], defect)
        except ConfigError as error:
            reason = str(error).removeprefix("--prompt: ").partition(";")[0]
        else:
            return Description(example.id, example.product, defect, caption, tuple(answers), sentence.text)
    return Description(example.id, example.product, defect, caption, tuple(answers), reason=reason)


def _sentence(config: Config, split: Split, answer: str, defect: str) -> Sentence:
    """Return what an answer says, checked by the grammar.

    Raises:
        ConfigError: it is not understood, or speaks of another type.
    """
    lines = answer.strip().splitlines() or [""]
    text = lines[0].partition(".")[0].strip(" '\"*`")[:_LONGEST]
    defects = sorted({str(shot.defect) for shot in split.shots})
    products = sorted({normal.product for normal in split.normals})
    parsed = parse(text, defects, products, {name: place.words for name, place in config.data.places.items()})
    if others := sorted({one.defect for one in parsed} - {defect}):
        raise ConfigError(f"it speaks of {others[0]} and not of {defect}")
    if any(one.length_mm or one.width_mm for one in parsed):
        raise ConfigError("it gives a size in mm, which no model can measure")
    return Sentence(text, parsed)


def _understood(run: Run, split: Split, rows: Sequence[Description]) -> Descriptions:
    """Return what was understood.

    Raises:
        RunError: somebody wrote a sentence into descriptions.json that is not understood.
    """
    wishes: dict[tuple[str, str], tuple[Sentence, ...]] = {}
    captions: dict[str, Sentence] = {}
    for row in rows:
        if not row.sentence:
            continue
        try:
            sentence = _sentence(run.config, split, row.sentence, row.defect)
        except ConfigError as error:
            raise RunError(f"{run.path(FILE)}: {row.photograph}: {str(error).removeprefix('--prompt: ')}") from None
        if row.caption:
            captions[row.photograph] = sentence
        else:
            key = row.product, row.defect
            wishes[key] = (*wishes.get(key, ()), sentence)
    return Descriptions(wishes, captions)


def inputs_of_descriptions(run: Run) -> dict[str, Any]:
    """Return what the plan takes from descriptions.json, for the stage's inputs; {} = nothing is described."""
    if not run.config.generate.describe:
        return {}
    rows = read_json(run.path(FILE))["rows"]
    return {"descriptions": digest([(row["photograph"], row["defect"], row["sentence"]) for row in rows])}
