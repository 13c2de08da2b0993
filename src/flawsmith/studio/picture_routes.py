"""What the page asks of the opened source: what there is, and its pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from flawsmith.data import images
from flawsmith.errors import DataError
from flawsmith.run.manifest import machine
from flawsmith.studio.picture_answers import answered
from flawsmith.studio.pictures import DEEPEST, PictureStore
from flawsmith.types import Example, Range

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio

Name = Annotated[str, Query(max_length=4000)]
Level = Annotated[int, Query(ge=0, le=DEEPEST)]
TileNumber = Annotated[int, Query(ge=0, le=1 << 20)]
Side = Annotated[int, Query(ge=32, le=1024)]
End = Annotated[float | None, Query(allow_inf_nan=False)]
_PERCENT = (0.5, 99.5)


@dataclass(frozen=True, slots=True)
class TileAsked:
    """Which tile of a picture, and in which values."""

    level: int
    column: int
    row: int
    window: Range | None
    """Values that are shown from black to white; None = the product's."""


def tile_asked(level: Level, column: TileNumber, row: TileNumber, low: End = None, high: End = None) -> TileAsked:
    """Read a tile off an address's query."""
    return TileAsked(level, column, row, window_of(low, high))


Tile = Annotated[TileAsked, Depends(tile_asked)]


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file."""
    router, workspace, pictures = APIRouter(prefix="/api"), studio.workspace, studio.pictures
    number = studio.opened  # of this workspace, also where another one is just being opened

    @router.get("/source")
    def source() -> dict[str, Any]:
        """Say what is open."""
        return {
            "version": machine()["packages"]["flawsmith"],
            "source": str(workspace.source),
            "root": str(workspace.config.data.root.absolute()),
            "opened": workspace.opened,
            "number": number,
            "folders": studio.root is not None,
            "run": workspace.run is not None,
            "painted": str(workspace.painted),
            "defects": workspace.defects,
            "generators": [{"name": one.name, "summary": one.summary} for one in workspace.generators],
            "photographs": [{"id": one.id, "product": one.product} for one in workspace.normals],
        }

    @router.get("/labelled")
    def labelled() -> list[dict[str, Any]]:
        """List the photographs with masks."""
        return [
            {"id": one.id, "product": one.product, "defect": one.defect, "shot": one.id in workspace.shots}
            for one in workspace.labelled
        ]

    @router.get("/photograph")
    def photograph(name: Name) -> dict[str, Any]:
        """Describe a photograph: size, depth, and the native values that are shown black and white."""
        example = workspace.example(name)
        native = pictures.native(example.image)
        return {"name": name, "product": example.product, **described(native, example.span)}

    @router.get("/photograph/tile")
    def tile(request: Request, name: Name, asked: Tile) -> Response:
        """Return a tile of a photograph."""
        return tile_of(request, pictures, workspace.example(name), asked)

    @router.get("/photograph/thumb")
    def thumb(request: Request, name: Name, side: Side = 160, outline: bool = False) -> Response:
        """Return a thumbnail of a photograph."""
        example = workspace.example(name)
        files, more = (example.image, *example.masks), (example.mask_rule, example.span)
        return answered(request, "image/jpeg", lambda: pictures.thumb(example, side, outline=outline), files, *more)

    return router


def tile_of(request: Request, pictures: PictureStore, example: Example, asked: TileAsked) -> Response:
    """Return a tile of a picture as an answer."""
    draw = partial(pictures.tile, example.image, asked.level, asked.column, asked.row, example.span, asked.window)
    return answered(request, "image/png", draw, [example.image], example.span)


def window_of(low: float | None, high: float | None) -> Range | None:
    """Return the native values that are shown black and white; None = as the product's range says.

    Raises:
        DataError: black is not below white.
    """
    if low is None or high is None:
        return None
    if not low < high:
        raise DataError("window: black must lie below white")
    return Range(low, high)


def described(native: Any, span: Range | None) -> dict[str, Any]:
    """Return what the page must know to show a picture: size, depth, and proposals for black and white."""
    import numpy as np

    shown = images.range_of(native, span)
    few = native[:: max(1, native.shape[0] // 512), :: max(1, native.shape[1] // 512)]
    few = few[np.isfinite(few)] if few.dtype.kind == "f" else few
    low, high = (float(value) for value in np.percentile(few, _PERCENT)) if few.size else (shown.low, shown.high)
    return {
        "width": native.shape[1],
        "height": native.shape[0],
        "depth": native.dtype.itemsize * 8,
        "colour": native.ndim == 3,
        "range": [shown.low, shown.high],
        "fit": [low, high] if low < high else [shown.low, shown.high],
    }
