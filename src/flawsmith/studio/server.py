"""The studio's server: one application behind the guard.

with Studio(Workspace.open(Path("runs/tile"))) as studio:
    serve(studio)
"""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.exceptions import HTTPException as HttpError

from flawsmith.errors import DataError, FlawsmithError
from flawsmith.korean import templates
from flawsmith.studio import data_routes, folder_routes, paint_routes, picture_routes, review_routes
from flawsmith.studio.commands import command_routes, export_routes, plan_routes, progress_routes, proof_routes
from flawsmith.studio.guard import LOCAL, Guard, Receive, Scope, Send
from flawsmith.studio.session import Studio

if TYPE_CHECKING:
    import uvicorn

PAGE = Path(__file__).parent / "page"
HTTP_PORT = 80
OPENED = "x-flawsmith-opened"
"""Header in which a page names the source that it shows, by `Studio.opened`."""
_ANY_SOURCE = ("/api/open", "/api/command/cancel")
"""What can be asked whatever is open."""
_KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


def guarded(studio: Studio) -> Guard:
    """Return the application as it is served."""
    names = [f"{name}:{studio.port}" for name in LOCAL]
    if studio.port == HTTP_PORT:
        names += LOCAL  # browsers leave this port out
    hosts = tuple(names) if studio.local else ()
    return Guard(_Opened(studio), studio.token, hosts)


class _Opened:
    """The application of what is open; a new one when another source is opened."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._workspace, self._application = studio.workspace, application(studio)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._workspace is not self._studio.workspace:
            self._workspace, self._application = self._studio.workspace, application(self._studio)
        await self._application(scope, receive, send)


def application(studio: Studio) -> FastAPI:
    """Return the application; it stands behind a `Guard`, which takes the token off the address."""
    app = FastAPI(title="flawsmith studio", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(FlawsmithError)
    def refused(request: Request, error: FlawsmithError) -> Response:
        content = {"error": str(error), "answers": [asdict(answer) for answer in error.answers]}
        return JSONResponse(content, 404 if isinstance(error, DataError) else 400)

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
        return JSONResponse({"error": f"{field or 'the request'}: {first['msg']}"}, 400)

    @app.exception_handler(HttpError)
    def unknown(request: Request, error: HttpError) -> Response:
        return JSONResponse({"error": str(error.detail)}, error.status_code)

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"this failed unexpectedly ({type(error).__name__})"}, 500)

    @app.get("/")
    def index() -> Response:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    @app.get("/page/korean.json")
    def korean() -> Response:
        return JSONResponse(templates(), headers={"cache-control": "no-cache"})

    @app.get("/page/{name}")
    def page(name: str) -> Response:
        path = PAGE / name
        if path.parent != PAGE or path.suffix not in _KINDS or not path.is_file():
            raise HTTPException(404, "there is no such file")
        return FileResponse(path, media_type=_KINDS[path.suffix], headers={"cache-control": "no-cache"})

    async def same_source(request: Request) -> None:
        """Refuse what a page asks of a source that is not open any more: it would fall on another one."""
        shown = request.headers.get(OPENED, str(studio.opened))
        asks = request.method == "POST" and request.url.path not in _ANY_SOURCE
        if asks and shown != str(studio.opened):
            raise HTTPException(
                409, "the open folder or its settings have changed since this page was loaded; load the page anew"
            )

    making = (command_routes, plan_routes, proof_routes, export_routes, progress_routes)
    for part in (data_routes, folder_routes, picture_routes, paint_routes, review_routes, *making):
        app.include_router(part.routes(studio), dependencies=[Depends(same_source)])
    return app


def server_of(studio: Studio) -> uvicorn.Server:
    """Return the server; `run(sockets=[studio.socket])` answers until it is told to stop."""
    import uvicorn

    class Server(uvicorn.Server):
        """Leaves signals to `serve`: uvicorn would raise them again before the workers are ended."""

        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            studio.ending.set()  # before open answers are waited for
            await super().shutdown(sockets)

    config = uvicorn.Config(
        guarded(studio),
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=3,
        limit_concurrency=200,
        ws="none",
        lifespan="off",
    )
    return Server(config)


@contextmanager
def serving(studio: Studio) -> Iterator[Studio]:
    """Answer from a thread of this process while the block runs; the studio is closed behind it."""
    server = server_of(studio)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [studio.socket]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield studio
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        studio.close()


def serve(studio: Studio) -> None:
    """Answer until Ctrl-C, SIGTERM, or the terminal is closed."""
    server = server_of(studio)

    def stop(number: int, frame: Any) -> None:
        server.force_exit = server.should_exit  # asked twice: open connections are not waited for
        server.should_exit = True

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), stop) for name in names}
    try:
        if studio.workspace.opened:
            studio.painting.ask("warm")
        server.run(sockets=[studio.socket])
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
