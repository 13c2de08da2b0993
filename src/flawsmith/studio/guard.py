"""Who is answered: a request with the token in its address, from the studio's own page, of a bearable size.

The token stands in the address (http://127.0.0.1:8765/TOKEN/) and not in a cookie, for cookies of one host are shared
by all its ports. Another site that is open in the same browser does not know it; were it to guess, its requests carry
another origin. A name that an attacker lets point to 127.0.0.1 is told by the Host header.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 32 << 20
"""Of a request's body: a mask that is handed over as a file, or the runs of a drawn one."""
LOCAL = ("127.0.0.1", "localhost", "[::1]")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # "no-referrer" would make the page's own origin "null"
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Stands before the studio's application and refuses what it must not see.

    Args:
        app: The application; it sees addresses without the token.
        token: What the address must begin with.
        hosts: Values of the Host header that are answered, such as "127.0.0.1:8765"; () = any, for an address that
            other machines may reach under names that nobody here knows.
    """

    def __init__(self, app: App, token: str, hosts: tuple[str, ...]) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return

        async def answer(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                named = {name.lower() for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message["headers"] = [*message["headers"], *((n, value) for n, value in more if n not in named)]
            await send(message)

        if refusal := self._refusal(scope):
            status, sentence = refusal
            body = json.dumps({"error": sentence}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await answer({"type": "http.response.start", "status": status, "headers": [*headers]})
            await answer({"type": "http.response.body", "body": body})
            return
        path = scope["path"][len(self._token) + 1 :]
        await self._app({**scope, "path": path, "raw_path": path.encode()}, receive, answer)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return status and sentence of a request that is not answered; None = it is."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if self._hosts and host not in self._hosts:
            return 421, "this studio answers under the address that it printed, and no other"
        first, slash, _ = scope["path"].lstrip("/").partition("/")
        if not hmac.compare_digest(first.encode(), self._token.encode()) or not slash or scope["path"][0] != "/":
            return 403, "open the whole address that `flawsmith studio` printed: its token is missing or wrong"
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "same-origin")
        if origin is not None and origin != f"http://{host}" or site not in ("same-origin", "none"):
            return 403, "this request comes from another page than the studio's own"
        if scope["method"] in ("GET", "HEAD"):
            return None
        if origin is None:
            return 403, "a request that changes something names its origin, as browsers do"
        length = headers.get("content-length", "")
        if not (length.isascii() and length.isdigit()):
            return 411, "say how long the request is (Content-Length)"
        if int(length) > MOST_BYTES:
            return 413, f"{length} bytes are more than the {MOST_BYTES} that are taken"
        return None
