"""What the page asks when somebody paints: proposals, candidates, and the word on them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, HTTPException, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from flawsmith.data import images
from flawsmith.errors import DataError
from flawsmith.run.painted import PaintedPair, painted_pairs
from flawsmith.studio.candidates import Candidate, accept
from flawsmith.studio.masks import MOST_RUNS, runs_of_file
from flawsmith.studio.picture_answers import answered
from flawsmith.studio.picture_routes import End, Name, window_of
from flawsmith.studio.pictures import around, png, visible
from flawsmith.studio.workshop import Job

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio

Seed = Annotated[int, Field(ge=0, lt=2**31 - 64)]
Word = Annotated[str, Field(max_length=4000)]


class _Asked(BaseModel):
    """A request of the page; what is unknown or of another type is refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PaintAsked(_Asked):
    """Candidates are asked for."""

    photograph: Word
    mask: Annotated[list[int], Field(max_length=2 * MOST_RUNS)]
    defect: Word
    generator: Word
    seed: Seed = 0
    count: Annotated[int, Field(ge=1, le=8)] = 4


class ProposalAsked(_Asked):
    """A mask is asked for."""

    photograph: Word
    way: Word
    defect: Word
    seed: Seed = 0
    sentence: Annotated[str, Field(max_length=500)] = ""


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file."""
    router, workspace = APIRouter(prefix="/api"), studio.workspace

    @router.post("/paint")
    def paint(asked: Annotated[PaintAsked, Body()]) -> dict[str, Any]:
        """Begin to paint candidates, with seeds that follow one another."""
        workspace.normal(asked.photograph)
        if not asked.mask:
            raise DataError("the mask is empty; draw where the damage is to be")
        job = studio.painting.ask(
            "paint",
            photograph=asked.photograph,
            mask=asked.mask,
            defect=asked.defect,
            generator=asked.generator,
            seeds=[asked.seed + number for number in range(asked.count)],
        )
        return job.to_json()

    @router.post("/propose")
    def propose(asked: Annotated[ProposalAsked, Body()]) -> dict[str, Any]:
        """Begin to look for a mask."""
        workspace.normal(asked.photograph)
        return studio.painting.ask("propose", **asked.model_dump()).to_json()

    @router.get("/job/{number}")
    def job(number: int) -> dict[str, Any]:
        """Say how far a job is."""
        return _known(studio.job(number)).to_json()

    @router.post("/job/{number}/cancel")
    def cancel(number: int) -> dict[str, Any]:
        """Take a job back."""
        known = _known(studio.job(number))
        studio.painting.cancel(number)
        studio.checking.cancel(number)
        return known.to_json()

    @router.post("/mask")
    async def mask(request: Request, name: Name) -> dict[str, Any]:
        """Read a mask file that was handed over."""
        from fastapi.concurrency import run_in_threadpool

        example, content = workspace.normal(name), await request.body()
        return {"mask": await run_in_threadpool(runs_of_file, content, example)}

    @router.get("/candidate/{name}/crop")
    def crop(name: str, low: End = None, high: End = None) -> Response:
        """Return a candidate's part of the picture as PNG, to be laid over the photograph."""
        candidate = Candidate.load(studio.candidates, name)
        example = workspace.normal(candidate.photograph)
        span = images.range_of(studio.pictures.native(example.image), example.span)
        return Response(png(visible(candidate.crop, span, window_of(low, high))), media_type="image/png")

    @router.get("/candidate/{name}/near")
    def near(name: str, before: Annotated[bool, Query()] = False, low: End = None, high: End = None) -> Response:
        """Return a candidate with what is round it, or the photograph there before, as PNG."""
        candidate = Candidate.load(studio.candidates, name)
        example = workspace.normal(candidate.photograph)
        native = studio.pictures.native(example.image)
        span = images.range_of(native, example.span)
        top, left, bottom, right = around(candidate.box, candidate.shape)
        part = np.array(native[top:bottom, left:right])
        if not before:
            box = candidate.box
            part[box[0] - top : box[2] - top, box[1] - left : box[3] - left] = candidate.crop
        return Response(png(visible(part, span, window_of(low, high))), media_type="image/png")

    @router.post("/candidate/{name}/accept")
    def accepted(name: str) -> dict[str, Any]:
        """Keep a candidate as a pair."""
        candidate = Candidate.load(studio.candidates, name)
        with studio.accepting:
            pair = studio.accepted.get(name)  # asked twice, by two clicks or tabs: it is one pair
            if pair is None:
                pair = accept(candidate, workspace.normal(candidate.photograph), workspace.painted)
                studio.accepted[name] = pair
        return {"name": pair, "folder": str(workspace.painted)}

    @router.get("/painted")
    def painted() -> list[dict[str, Any]]:
        """List what was accepted."""
        return [
            {"name": pair.name, "product": pair.product, "defect": pair.defect, "area": pair.area}
            for pair in painted_pairs(workspace.painted)
        ]

    @router.get("/painted/thumb")
    def painted_thumb(request: Request, name: Name) -> Response:
        """Return what was accepted as a thumbnail, with the outline of its mask."""
        pair = _pair(painted_pairs(workspace.painted), name)
        span = next((one.span for one in workspace.normals if one.product == pair.product), None)
        draw = partial(studio.pictures.damage, pair.image, pair.mask, span, 128, outline=True, whole=False)
        return answered(request, "image/jpeg", draw, [pair.image, pair.mask], span)

    return router


def _known(job: Job | None) -> Job:
    if job is None:
        raise HTTPException(404, "there is no such job any more; start it again")
    return job


def _pair(pairs: list[PaintedPair], name: str) -> PaintedPair:
    for pair in pairs:
        if pair.name == name:
            return pair
    raise DataError(f"{name[:200]!r}: nothing of that name was accepted")
