"""What a studio holds while it runs: the opened source, decoded pictures, the workers, candidates that wait."""

from __future__ import annotations

import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from flawsmith.errors import Answer, ConfigError, DataError
from flawsmith.run.folder import Run
from flawsmith.studio.commands.process import Commands
from flawsmith.studio.pictures import PictureStore
from flawsmith.studio.workshop import Job, Workshop
from flawsmith.studio.workspace import Workspace


class Studio:
    """What the server holds: the opened source, decoded pictures, the workers, candidates that wait.

    Args:
        workspace: What is open.
        host: Who is answered: this machine alone, unless another address is named.
        port: 0 = any that is free; `port` says which.
        root: The folder below which another source can be opened from the page; None = none can.

    Raises:
        ConfigError: the address cannot be used.
    """

    def __init__(self, workspace: Workspace, host: str = "127.0.0.1", port: int = 0, root: Path | None = None) -> None:
        self.workspace, self.host, self.root = workspace, host, root
        self.opened = 0
        """How many sources were opened from the page: tells an old page from today's."""
        self.answered: dict[str, tuple[Answer, dict[str, Any]]] = {}
        """Settings that were written to answer a finding, each with the values that stood there before."""
        self.refused: tuple[Answer, ...] = ()
        """Settings that would have answered why a folder was not opened, the last time that one was not."""
        self.ending = threading.Event()
        """Set when the server ends, so that answers without an end do."""
        self.commands = Commands()
        self.token = secrets.token_urlsafe(24)
        self.pictures = PictureStore()
        self.socket = _bound(host, port)
        self.port: int = self.socket.getsockname()[1]
        self._folder = tempfile.TemporaryDirectory(prefix="flawsmith-studio-")
        self.candidates = Path(self._folder.name)
        self.accepting = threading.Lock()
        self.accepted: dict[str, str] = {}
        """Candidates that were accepted, each with the name of its pair."""
        self.opening = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self.painting = Workshop(self.workspace, self.candidates)
        self.checking = Workshop(self.workspace, self.candidates, lasting=False)
        self.checked: Job | None = None

    def open(
        self, workspace: Workspace, answered: Mapping[str, tuple[Answer, dict[str, Any]]] = MappingProxyType({})
    ) -> None:
        """Work with another source from now on; workers of the old one end, and candidates that wait are given up.

        Args:
            workspace: What is open from now on.
            answered: See the attribute; {} where other photographs or another run are opened.
        """
        with self.opening:
            old = self.painting, self.checking
            self.opened += 1  # first: whoever sees the other source sees its number too
            self.workspace, self.answered, self.accepted = workspace, dict(answered), {}
            self._begin()
            for workshop in old:
                workshop.close()
            for candidate in self.candidates.iterdir():
                candidate.unlink(missing_ok=True)
            self.painting.ask("warm")

    @property
    def run(self) -> Run:
        """Return the run that is open, with the configuration that it has now.

        Raises:
            DataError: photographs are open, and no run.
        """
        if self.workspace.run is None:
            raise DataError("no run is open; start one on the page Generate")
        return Run.open(self.workspace.run.folder)

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
        """End the command and the workers, and forget the candidates."""
        self.ending.set()
        self.commands.close()
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
        listening.listen()  # a browser that is quicker than the server waits for it
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{host}:{port}: cannot be served on ({reason}); choose another --port or --host") from None
    listening.set_inheritable(False)
    return listening
