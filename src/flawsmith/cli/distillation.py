"""The verb `distill`; `command_line.py` adds it to the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flawsmith.cli.arguments import RunPath, Sets


def distill(
    run: RunPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="The student's run; going on where it stopped.")],
    quarter: Annotated[bool, typer.Option("--quarter", help="A student of a quarter of the weights.")] = False,
    set_: Sets = [],  # noqa: B006
) -> None:
    """Teach a trained run's generator to paint in 4 steps; OUT is a run, to be generated from as any other."""
    from flawsmith.config import parse_overrides
    from flawsmith.run.folder import Run

    opened = Run.open(run)
    from flawsmith.synthesis.distillation.student_run import student_run
    from flawsmith.synthesis.train import train

    train(student_run(opened, out, parse_overrides(set_), quarter=quarter))
    typer.echo(f"distill: {out}; go on with `flawsmith generate {out}`")


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(distill)
