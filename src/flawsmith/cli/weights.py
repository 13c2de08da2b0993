"""The verb `weights`; `command_line.py` adds it to the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flawsmith.cli.arguments import RunPath


def weights(
    run: RunPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")],
) -> None:
    """Write a run's ControlNet or low-rank changes (LoRA) as diffusers and PEFT read them."""
    from flawsmith.run.folder import Run

    opened = Run.open(run)
    from flawsmith.inspection.weights import publish

    for folder in publish(opened, out):
        typer.echo(str(folder))


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(weights)
