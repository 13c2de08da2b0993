"""What the page asks of the command that runs: how far it is, as server-sent events; and to stop it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

if TYPE_CHECKING:
    from flawsmith.studio.session import Studio

_LOOK = 0.2
"""Seconds between two looks at the command."""
_ALIVE = 15.0
"""Seconds after which a sign of life is sent where nothing happens, so that nobody between takes the line for dead."""


def routes(studio: Studio) -> APIRouter:
    """Return the addresses of this file."""
    router, commands = APIRouter(prefix="/api"), studio.commands

    @router.get("/command")
    def command() -> dict[str, Any]:
        """Say what runs, or ran last; {} = nothing did yet."""
        return commands.last.to_json() if commands.last else {}

    @router.post("/command/cancel")
    def cancel() -> dict[str, Any]:
        """Stop what runs, as Ctrl-C does."""
        if commands.last:
            commands.last.cancel()
        return command()

    @router.get("/command/events")
    async def events(request: Request) -> StreamingResponse:
        """Tell how far the command is whenever that changes, until it is over."""

        async def told() -> AsyncIterator[str]:
            before: tuple[int, int] | None = None
            sent = time.monotonic()
            while not studio.ending.is_set() and not await request.is_disconnected():
                last = commands.last
                now = (last.number, last.version) if last else (0, 0)
                over = last is None or last.state != "running"
                if now != before or over:
                    before, sent = now, time.monotonic()
                    yield f"data: {json.dumps(command())}\n\n"
                elif time.monotonic() - sent > _ALIVE:
                    sent = time.monotonic()
                    yield ": still at it\n\n"
                if over:
                    return
                await asyncio.sleep(_LOOK)

        return StreamingResponse(told(), media_type="text/event-stream", headers={"cache-control": "no-store"})

    return router
