"""What the page asks when somebody judges samples: what was made, what the gate said, and the word of people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Body, HTTPException, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from flawsmith.data import images
from flawsmith.errors import ConfigError, DataError, nearest
from flawsmith.files import digest, file_state
from flawsmith.run.folder import Run
from flawsmith.run.records import Sample, Verdict
from flawsmith.run.review import FILE, Review, Word, applied, decide, redrawn, reviews, standing
from flawsmith.studio.masks import MOST_RUNS, mask_of, runs_of
from flawsmith.studio.picture_answers import answered
from flawsmith.studio.picture_routes import Side, Tile, described, tile_of
from flawsmith.types import Example

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio


Mark = Annotated[str, Field(max_length=100)]
"""Of the sample that was looked at (`mark_of`); "" = whoever asks looked at none."""


class ReviewAsked(BaseModel):
    """A decision on a sample."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sample: Annotated[int, Field(ge=0)]
    mark: Mark = ""
    word: Word
    defect: Annotated[str, Field(max_length=4000)] = ""
    mask: Literal["as it is", "its own"] = "as it is"
    """Its own = a mask that was drawn anew counts no more."""


class MaskAsked(BaseModel):
    """A sample's mask, drawn anew."""

    model_config = ConfigDict(extra="forbid", strict=True)

    mark: Mark = ""
    mask: Annotated[list[int], Field(max_length=2 * MOST_RUNS)]


class MadeSamples:
    """A run's samples, the gate's verdicts and people's decisions, read again when their files have changed."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lock = Lock()
        self._state: Any = None
        self._samples: dict[int, Sample] = {}
        self._verdicts: Mapping[int, Verdict] | None = None
        self._held: tuple[Any, dict[int, Review]] = (None, {})

    def __call__(self) -> tuple[dict[int, Sample], Mapping[int, Verdict] | None]:
        """Return the samples that were made, by index, and the verdicts; None = they are not screened."""
        files = [*self.run.line_files("sample"), self.run.path("scores.jsonl"), self.run.path("manifest.json")]
        state = [(str(path), file_state(path)) for path in files]
        with self._lock:
            if state != self._state:
                self._samples = {sample.index: sample for sample in self.run.samples() if sample.made}
                self._verdicts = self.run.verdicts()
                self._state = state
            return self._samples, self._verdicts

    def held(self) -> dict[int, Review]:
        """Return the decision that holds for each sample, by index."""
        samples, _ = self()
        with self._lock:
            state = self._state, file_state(self.run.path(FILE))
            if state != self._held[0]:
                self._held = state, reviews(self.run.folder, list(samples.values()))
            return self._held[1]


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file; without a run there are none."""
    router, workspace = APIRouter(prefix="/api"), studio.workspace
    if workspace.run is None:
        return router
    run, made, number = workspace.run, MadeSamples(workspace.run), studio.opened
    photographs = {example.id: example for example in workspace.normals}
    spans = {example.product: example.span for example in workspace.normals}

    deciding = Lock()  # a decision keeps what an earlier one says of the mask, and the other way round

    def as_made(index: int, mark: str = "") -> Sample:
        known, _ = made()
        if index not in known:
            raise HTTPException(404, f"there is no sample {index}, or it was given up")
        if mark and mark != mark_of(run, known[index]):
            raise HTTPException(409, f"sample {index} was made anew since it was shown; look at it again")
        if not run.path(known[index].image).is_file():
            raise HTTPException(404, f"the picture of sample {index} was deleted")
        return known[index]

    def below(sample: Sample) -> Path:
        if sample.normal not in photographs:
            raise DataError(f"{sample.normal}: is not among the photographs any more")
        return photographs[sample.normal].image

    def one(index: int) -> Sample:
        sample, verdict = as_made(index), (made()[1] or {}).get(index)
        if verdict is not None:  # a label that the gate repaired is shown so
            (sample,) = standing([sample], {index: replace(verdict, kept=True)})
        review = made.held().get(index)
        return applied(review, sample) if review else sample

    @router.get("/samples")
    def samples() -> dict[str, Any]:
        """List what was made, with scores and reasons."""
        known, verdicts = made()
        names = sorted({name for verdict in (verdicts or {}).values() for name in verdict.scores})
        rows = [_row(run, sample, (verdicts or {}).get(sample.index)) for sample in known.values()]
        facts = {"opened": number, "screened": verdicts is not None, "scores": names, "samples": rows}
        return facts | decisions()

    @router.get("/reviews")
    def decisions(since: str = "") -> dict[str, Any]:
        """Say what people decided; nothing but the version where it is the one that the page knows."""
        version = str(file_state(run.path(FILE)))
        if since == version:
            return {"version": version}
        words = {
            index: {"word": review.word, "defect": review.defect, "mask": review.repair.mask if review.repair else ""}
            for index, review in made.held().items()
        }
        return {"version": version, "reviews": words}

    @router.post("/review")
    def review(asked: Annotated[ReviewAsked, Body()]) -> dict[str, Any]:
        """Note a decision."""
        sample = as_made(asked.sample, asked.mark)
        types = {other.defect for other in made()[0].values() if other.product == sample.product}
        if asked.defect and asked.defect not in types:
            raise ConfigError(
                f"defect: {sample.product} has no type {asked.defect[:80]!r}{nearest(asked.defect, types)}"
            )
        with deciding:
            before = made.held().get(asked.sample)
            repair = before.repair if before and asked.mask == "as it is" else None
            decide(run.folder, sample, asked.word, asked.defect, repair)
        return decisions()

    @router.get("/sample/{index}/facts")
    def facts(index: int) -> dict[str, Any]:
        """Say what the page must know to draw a sample's mask anew."""
        sample = one(index)
        native = studio.pictures.native(run.path(as_made(index).image))
        mask = images.read_mask(run.path(sample.mask), native.shape)
        return {**described(native, spans.get(sample.product)), "name": str(index), "mask": runs_of(mask)}

    @router.get("/sample/{index}/tile")
    def tile(request: Request, index: int, asked: Tile) -> Response:
        """Return a tile of a sample as it was made."""
        sample = as_made(index)
        example = Example(sample.image, run.path(sample.image), sample.product, span=spans.get(sample.product))
        return tile_of(request, studio.pictures, example, asked)

    @router.post("/sample/{index}/mask")
    def redraw(index: int, asked: Annotated[MaskAsked, Body()]) -> dict[str, Any]:
        """Give a sample another mask; what lies outside is given back to the photograph."""
        sample = as_made(index, asked.mark)
        shape = images.describe(run.path(sample.image)).shape
        repair = redrawn(run.folder, sample, mask_of(asked.mask, shape), below(sample))
        with deciding:
            before = made.held().get(index)
            decide(run.folder, sample, before.word if before else "", before.defect if before else "", repair)
        return decisions()

    @router.get("/sample/{index}")
    def picture(
        request: Request,
        index: int,
        side: Side = 192,
        outline: bool = True,
        whole: bool = False,
        before: bool = False,
    ) -> Response:
        """Return a sample, or the photograph that it was painted on, whole or round the damage."""
        sample = one(index)
        image = below(sample) if before else run.path(sample.image)
        mask, span = run.path(sample.mask), spans.get(sample.product)
        draw = partial(studio.pictures.damage, image, mask, span, side, outline=outline, whole=whole)
        return answered(request, "image/jpeg", draw, [image, mask], span)

    return router


def mark_of(run: Run, sample: Sample) -> str:
    """Return what tells a sample from another one that is made in its place."""
    if sample.image_hash and sample.mask_hash:
        return digest(sample.image_hash, sample.mask_hash)
    # An earlier release kept no hashes. The last time of a file is left out: an export that links to it moves that.
    return digest(*(file_state(run.path(name))[:2] for name in (sample.image, sample.mask)))


def _row(run: Run, sample: Sample, verdict: Verdict | None) -> dict[str, Any]:
    """Return what the page shows of a sample."""
    return {
        "index": sample.index,
        "mark": mark_of(run, sample),
        "product": sample.product,
        "defect": sample.defect,
        "generator": sample.generator,
        "normal": sample.normal,
        "shot": sample.shot,
        "seed": sample.seed,
        "area": sample.area,
        "kept": verdict is None or verdict.kept,
        "repaired": bool(verdict and verdict.repair),
        "reasons": [{"score": one.score, "text": one.text} for one in verdict.reasons] if verdict else [],
        "scores": dict(verdict.scores) if verdict else {},
        "thresholds": dict(verdict.thresholds) if verdict else {},
    }
