"""A delivered model behind HTTP, for a line's controller: one picture in, one verdict out. Needs no torch.

    POST /inspect         the bytes of a picture file -> {"score", "threshold", "verdict", "type", "type_score"}
    POST /inspect?map=1   the same, and "map": the anomaly map as PNG of 8 bits in base64, "map_low", "map_high"
    GET  /health          {"status": "ok", product, version, threshold, inspected}

Errors are {"error": a sentence}: 400 no picture, 404 no such address, 405 no such method, 408 sent too slowly, 411 no
length, 413 too large, 503 too many at once. It answers this machine alone unless another host is named: there is no
password, and whoever reaches it may ask.
"""

from __future__ import annotations

import base64
import io
import json
import signal
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np

from flawsmith.data import images
from flawsmith.errors import ConfigError, DataError
from flawsmith.inspection.inspector import Inspection, Inspector

HOST, PORT = "127.0.0.1", 8700
_MEGABYTE = 1 << 20
_PIXELS_PER_MEGABYTE = 2_000_000
"""A picture may have so many pixels per megabyte that may be sent: a small file must not unpack to fill the memory."""
_PIECE = 1 << 16
_UNREAD = (
    HTTPStatus.NOT_FOUND,
    HTTPStatus.METHOD_NOT_ALLOWED,
    HTTPStatus.LENGTH_REQUIRED,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.NOT_IMPLEMENTED,
)
"""What is answered before the picture is read, so that it is still on its way."""
_LEAVING = 0.2
"""Seconds in which a connection that was answered gives its place free."""


class InspectionServer(ThreadingHTTPServer):
    """Answers pictures; each connection has a thread, and there are no more of them than `connections`.

    Args:
        inspector: The model.
        host: Which addresses are answered; "0.0.0.0" = whoever can reach this machine.
        port: 0 = any that is free; `server_port` says which.
        megabytes: The largest request.
        seconds: Time for a client to send its request, and for a request to wait for its turn.
        connections: Requests that are held at once; one more is answered 503.
        workers: Pictures that are looked at at once.

    Raises:
        ConfigError: the address cannot be used, or a limit is none.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        inspector: Inspector,
        host: str = HOST,
        port: int = PORT,
        *,
        megabytes: float = 64,
        seconds: float = 10,
        connections: int = 16,
        workers: int = 2,
    ) -> None:
        if min(megabytes, seconds, connections, workers) <= 0:
            raise ConfigError("limits of size, time, connections and workers are above 0")
        self.inspector, self.seconds = inspector, seconds
        self.most_bytes, self.most_pixels = int(megabytes * _MEGABYTE), int(megabytes * _PIXELS_PER_MEGABYTE)
        self.turns = threading.BoundedSemaphore(workers)
        self.inspected = 0
        self._free = threading.BoundedSemaphore(connections)
        self._count = threading.Lock()
        try:
            super().__init__((host, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigError(f"{host}:{port}: cannot be served on ({reason}); choose another --port") from None

    def process_request(self, request: Any, client_address: Any) -> None:
        # Who was just answered leaves a moment later: one client asking on and on must not be in its own way.
        if self._free.acquire(timeout=_LEAVING):
            super().process_request(request, client_address)
            return
        body = json.dumps({"error": "too many requests at once; ask again in a moment"}).encode()
        head = (
            f"HTTP/1.0 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            request.settimeout(1)
            request.sendall(head.encode() + body)
        except OSError:
            pass
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hangs up is no error of ours, and all others are answered."""

    def look(self, picture: np.ndarray) -> Inspection:
        """Look at a picture when it is its turn.

        Raises:
            _Refused: the turn did not come in time.
        """
        if not self.turns.acquire(timeout=self.seconds):
            raise _Refused(HTTPStatus.SERVICE_UNAVAILABLE, "too many pictures at once; ask again in a moment")
        try:
            inspection = self.inspector.inspect(picture)
        finally:
            self.turns.release()
        with self._count:
            self.inspected += 1
        return inspection


class _Refused(Exception):
    """A request that is not answered as asked."""

    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class _Sent(socket.SocketIO):
    """What a client sends, head and body, up to a moment: a limit for each read would let it send a byte now and then.

    Raises:
        TimeoutError: the moment has come.
    """

    def __init__(self, connection: socket.socket, until: float) -> None:
        super().__init__(connection, "r")
        self._connection, self._until = connection, until

    def readinto(self, buffer: Any) -> int | None:
        self._connection.settimeout(max(0.001, self._until - time.monotonic()))
        return super().readinto(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One request per connection."""

    protocol_version = "HTTP/1.1"
    """Clients that ask whether to send a large picture at all (curl) are told at once."""
    server: InspectionServer

    def setup(self) -> None:
        self._until = time.monotonic() + self.server.seconds
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Sent(self.connection, self._until))

    def version_string(self) -> str:
        return "flawsmith"

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal for what matters; a controller logs what it asked."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what is no request that this server knows, as `http.server` finds it."""
        self._send(HTTPStatus(code), {"error": message or HTTPStatus(code).phrase})

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, work: Callable[[], dict[str, Any]]) -> None:
        try:
            status, tree = HTTPStatus.OK, work()
        except _Refused as refused:
            status, tree = refused.status, {"error": refused.sentence}
        except DataError as error:
            status, tree = HTTPStatus.BAD_REQUEST, {"error": " ".join(str(error).split())}
        except TimeoutError:
            status, tree = HTTPStatus.REQUEST_TIMEOUT, {"error": f"not sent within {self.server.seconds:g} s"}
        except OSError:  # the client hung up
            return
        except Exception as error:  # one bad picture must not end the service without a word
            status, tree = HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"cannot be inspected ({type(error).__name__})"}
        self._send(status, tree)

    def _get(self) -> dict[str, Any]:
        path = urlsplit(self.path).path
        if path == "/inspect":
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "POST the bytes of a picture file to /inspect")
        self._require(path == "/health")
        model = self.server.inspector.model
        return {
            "status": "ok",
            "product": model.product,
            "flawsmith": model.flawsmith,
            "network": model.network,
            "threshold": None if model.threshold is None else model.threshold.value,
            "inspected": self.server.inspected,
        }

    def _post(self) -> dict[str, Any]:
        asked = urlsplit(self.path)
        if asked.path == "/health":
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, "GET /health")
        self._require(asked.path == "/inspect")
        picture = images.read_bytes(self._body(), "the request", self.server.most_pixels)
        inspection = self.server.look(picture)
        tree: dict[str, Any] = {
            "score": inspection.score,
            "threshold": inspection.threshold,
            "verdict": inspection.verdict or None,
            "type": inspection.defect or None,
            "type_score": inspection.probability,
        }
        if self.server.inspector.other_depth(picture):
            tree["warning"] = "another bit depth than the model learned from: the score means little"
        if parse_qs(asked.query).get("map", ["0"])[-1] not in ("0", ""):
            tree |= _map(inspection.anomaly_map)
        return tree

    def _require(self, known: bool) -> None:
        if not known:
            raise _Refused(HTTPStatus.NOT_FOUND, "no such address; POST /inspect and GET /health are answered")

    def _body(self) -> bytes:
        """Read the request's body, within the limits of size and time."""
        text, most = self.headers.get("Content-Length"), self.server.most_bytes
        if text is None or not text.isascii() or not text.isdigit():
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "say Content-Length, the bytes of the picture file")
        if (length := int(text)) > most:
            raise _Refused(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{length} bytes are more than the {most} that are taken; see --max-megabytes",
            )
        body = bytearray()
        while len(body) < length:
            piece = self.rfile.read1(min(_PIECE, length - len(body)))
            if not piece:
                raise _Refused(HTTPStatus.BAD_REQUEST, f"{len(body)} of {length} bytes came; send the whole file")
            body += piece
        return bytes(body)

    def _discard(self) -> None:
        """Read what a client still sends: when the connection is cut before, many lose the answer."""
        try:
            self.connection.shutdown(socket.SHUT_WR)
            while (left := self._until - time.monotonic()) > 0:
                self.connection.settimeout(left)
                if not self.connection.recv(_PIECE):
                    return
        except OSError:  # it hung up, or is too slow
            pass

    def _send(self, status: HTTPStatus, tree: dict[str, Any]) -> None:
        body = json.dumps(tree, ensure_ascii=False).encode()
        try:
            self.connection.settimeout(self.server.seconds)
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client hung up
            return
        if status in _UNREAD and self.command != "GET":
            self._discard()


def serve(server: InspectionServer) -> int:
    """Answer until Ctrl-C or SIGTERM; return how many pictures were inspected."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        server.serve_forever(poll_interval=0.2)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
        server.server_close()
    return server.inspected


def _map(anomaly_map: np.ndarray) -> dict[str, Any]:
    low, high = float(anomaly_map.min()), float(anomaly_map.max())
    level = np.rint(255 * (anomaly_map - low) / max(high - low, 1e-9)).astype(np.uint8)
    _, png = cv2.imencode(".png", level)
    return {"map": base64.b64encode(png.tobytes()).decode(), "map_low": low, "map_high": high}
