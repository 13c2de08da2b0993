"""The verb `studio`; `command_line.py` adds it to the command line."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated, Optional

import typer

from flawsmith.cli.arguments import Sets
from flawsmith.cli.closing import say
from flawsmith.errors import ConfigError, DataError
from flawsmith.processes import rest_while_waiting


def studio(
    source: Annotated[
        Optional[Path],
        typer.Argument(help="A run, a folder of photographs or a TOML file; else here.", metavar="RUN|FOLDER"),
    ] = None,
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="Where accepted pictures go; else RUN/painted or FOLDER-painted."),
    ] = None,
    host: Annotated[str, typer.Option(help="Who can reach it; else this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 = any that is free.", min=0, max=65535)] = 0,
    root: Annotated[
        Optional[Path],
        typer.Option(help="Runs and folders below this one can be opened from the page.", metavar="FOLDER"),
    ] = None,
    set_: Sets = [],  # noqa: B006
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Open a local page to draw, make, judge, prove and export samples (needs the extra studio)."""
    rest_while_waiting()  # a browser works beside what the page asks for
    try:
        from flawsmith.studio.server import serve
        from flawsmith.studio.session import Studio
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "starlette", "uvicorn"):
            raise
        raise ConfigError(
            f"studio: {error.name} is not installed; install what it needs with pip install 'flawsmith[studio]'"
        ) from None
    from flawsmith.config import parse_overrides
    from flawsmith.studio.workspace import Workspace

    if root is not None and not root.is_dir():
        raise ConfigError(f"--root {root}: there is no such folder; name the one whose folders may be opened")
    if source is None and root is not None:
        if out is not None or set_:
            raise ConfigError("--root without RUN|FOLDER opens nothing yet: leave --out and --set out, or name it too")
        opened = Workspace.nothing(root)
    else:
        try:
            opened = Workspace.open(source or Path("."), out, parse_overrides(set_))
        except DataError as error:
            raise DataError("\n".join([str(error), *_answered(error, source, set_)])) from None
    with Studio(opened, host, port, root) as started:
        if not started.local:
            say(
                "studio",
                f"whoever can reach this machine and knows the address below can look at these photographs and write "
                f"into {root or opened.painted.parent}; the connection is not encrypted",
                error=True,
            )
        say("studio", f"open {started.address} (Ctrl-C ends it)")
        if host in ("0.0.0.0", "::"):
            say("studio", f"on this machine http://127.0.0.1:{started.port}/{started.token}/")
        if browser and started.local:
            import webbrowser

            webbrowser.open(started.address)
        serve(started)
    say("studio", "ended")


def _answered(error: DataError, source: Path | None, settings: list[str]) -> list[str]:
    """Return the command that opens what was refused, as a line for each setting that the refusal names."""
    lines = []
    for answer in error.answers:
        settled = [*settings, f"{answer.setting}={json.dumps(answer.value, ensure_ascii=False)}"]
        words = ["flawsmith", "studio", str(source or "."), *(word for one in settled for word in ("--set", one))]
        lines.append(f"  open it with: {shlex.join(words)}")
    return lines


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(studio)
