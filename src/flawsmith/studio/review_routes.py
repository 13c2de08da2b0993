"""What the page asks when somebody judges samples: what was made, what the gate said, and the word of people."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, HTTPException, Response
from pydantic import BaseModel, ConfigDict, Field

from flawsmith.errors import ConfigError, DataError, nearest
from flawsmith.files import file_state
from flawsmith.run.folder import Run
from flawsmith.run.records import Sample, Verdict
from flawsmith.run.review import FILE, Word, decide, reviews
from flawsmith.studio.picture_routes import Side

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio


class ReviewAsked(BaseModel):
    """A decision on a sample."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sample: Annotated[int, Field(ge=0)]
    word: Word
    defect: Annotated[str, Field(max_length=4000)] = ""


class MadeSamples:
    """A run's samples and the gate's verdicts, read again when their files have changed."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self._lock = Lock()
        self._state: Any = None
        self._samples: dict[int, Sample] = {}
        self._verdicts: Mapping[int, Verdict] | None = None

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


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file; without a run there are none."""
    router, workspace = APIRouter(prefix="/api"), studio.workspace
    if workspace.run is None:
        return router
    run, made = workspace.run, MadeSamples(workspace.run)
    photographs = {example.id: example for example in workspace.normals}
    spans = {example.product: example.span for example in workspace.normals}

    def one(index: int) -> Sample:
        samples, verdicts = made()
        if index not in samples:
            raise HTTPException(404, f"there is no sample {index}, or it was given up")
        sample = samples[index]
        repair = verdicts[index].repair if verdicts and index in verdicts else None
        if not run.path(sample.image).is_file():
            raise HTTPException(404, f"the picture of sample {index} was deleted")
        if repair is None:
            return sample
        return Sample.from_json({**sample.to_json(), "image": repair.image, "mask": repair.mask, "area": repair.area})

    @router.get("/samples")
    def samples() -> dict[str, Any]:
        """List what was made, with scores and reasons."""
        known, verdicts = made()
        names = sorted({name for verdict in (verdicts or {}).values() for name in verdict.scores})
        rows = [_row(sample, (verdicts or {}).get(sample.index)) for sample in known.values()]
        return {"screened": verdicts is not None, "scores": names, "samples": rows, **said()}

    @router.get("/reviews")
    def said(since: str = "") -> dict[str, Any]:
        """Say what people decided; nothing but the version where it is the one that the page knows."""
        version = str(file_state(run.path(FILE)))
        if since == version:
            return {"version": version}
        hold = reviews(run.folder, list(made()[0].values()))
        words = {index: {"word": review.word, "defect": review.defect} for index, review in hold.items()}
        return {"version": version, "reviews": words}

    @router.post("/review")
    def review(asked: Annotated[ReviewAsked, Body()]) -> dict[str, Any]:
        """Note a decision."""
        known, _ = made()
        if asked.sample not in known:
            raise DataError(f"there is no sample {asked.sample}, or it was given up")
        sample = known[asked.sample]
        types = {other.defect for other in known.values() if other.product == sample.product}
        if asked.defect and asked.defect not in types:
            raise ConfigError(
                f"defect: {sample.product} has no type {asked.defect[:80]!r}{nearest(asked.defect, types)}"
            )
        decide(run.folder, sample, asked.word, asked.defect)
        return said()

    @router.get("/sample/{index}")
    def picture(
        index: int, side: Side = 192, outline: bool = True, whole: bool = False, before: bool = False
    ) -> Response:
        """Return a sample, or the photograph that it was painted on, whole or round the damage."""
        sample = one(index)
        image = run.path(sample.image)
        if before:
            if sample.normal not in photographs:
                raise DataError(f"{sample.normal}: is not among the photographs any more")
            image = photographs[sample.normal].image
        span = spans.get(sample.product)
        content = studio.pictures.damage(image, run.path(sample.mask), span, side, outline=outline, whole=whole)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "private, max-age=60"})

    return router


def _row(sample: Sample, verdict: Verdict | None) -> dict[str, Any]:
    """Return what the page shows of a sample."""
    return {
        "index": sample.index,
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
