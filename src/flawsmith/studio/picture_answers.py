"""A picture as an answer: the browser keeps it, and asks each time whether it is still today's.

Another run has its samples under the same addresses, and samples are made anew, so no picture may be shown unasked. The
answer "it is" needs neither decoding nor drawing, so scrolling stays quick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fastapi import Request, Response

from flawsmith.files import digest, file_state


def answered(request: Request, kind: str, make: Callable[[], bytes], files: Iterable[Path], *more: Any) -> Response:
    """Return a picture, or 304 where the browser has it as it would be made now.

    Args:
        request: Its query says how the picture is to be shown.
        kind: "image/png", say.
        make: Draws the picture.
        files: What it is drawn from.
        more: What else it depends on.
    """
    states = [(str(path), file_state(path)) for path in files]  # before drawing: what changes meanwhile is drawn anew
    tag = f'"{digest(request.url.query, states, *map(str, more))}"'
    headers = {"cache-control": "private, no-cache", "etag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(make(), media_type=kind, headers=headers)
