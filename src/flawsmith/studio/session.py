"""What a studio holds while it runs: the opened source, decoded pictures, the workers, candidates that wait."""

from __future__ import annotations

import secrets
import socket
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from flawsmith.errors import ConfigError
from flawsmith.studio.pictures import PictureStore
from flawsmith.studio.workshop import Job, Workshop
from flawsmith.studio.workspace import Workspace


class Studio:
    """What the server holds: the opened source, decoded pictures, the workers, candidates that wait.

    Args:
        workspace: What is open.
        host: Who is answered: this machine alone, unless another address is named.
        port: 0 = any that is free; `port` says which.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(self, workspace: Workspace, host: str = "127.0.0.1", port: int = 0) -> None:
        self.workspace, self.host = workspace, host
        self.token = secrets.token_urlsafe(24)
        self.pictures = PictureStore()
        self.socket = _bound(host, port)
        self.port: int = self.socket.getsockname()[1]
        self._folder = tempfile.TemporaryDirectory(prefix="flawsmith-studio-")
        self.candidates = Path(self._folder.name)
        self.painting = Workshop(workspace, self.candidates)
        self.checking = Workshop(workspace, self.candidates, lasting=False)
        self.checked: Job | None = None
        self.accepting = threading.Lock()

    @property
    def local(self) -> bool:
        """Whether this machine alone can reach it."""
        return self.host in ("127.0.0.1", "localhost", "::1")

    @property
    def address(self) -> str:
        """Return the address to open, with its token."""
        if self.host in ("0.0.0.0", "::"):
            shown = socket.gethostname()
        else:
            shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{shown}:{self.port}/{self.token}/"

    def job(self, number: int) -> Job | None:
        """Return a job of any workshop."""
        return self.painting.job(number) or self.checking.job(number)

    def close(self) -> None:
        """End the workers and forget the candidates."""
        self.painting.close()
        self.checking.close()
        self.socket.close()
        self._folder.cleanup()

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket that listens; said before anything is opened."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{host}:{port}: cannot be served on ({reason}); choose another --port or --host") from None
    listening.set_inheritable(False)
    return listening
