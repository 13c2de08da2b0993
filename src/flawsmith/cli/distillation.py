"""The verb `distill`; `command_line.py` adds it to the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flawsmith.cli.arguments import AsJson, RunPath, Sets


def distill(
    run: RunPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="The student's run; going on where it stopped.")],
    quarter: Annotated[bool, typer.Option("--quarter", help="A student of a quarter of the weights.")] = False,
    set_: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Teach a trained run's generator to paint in 4 steps; OUT is a run, to be generated from as any other."""
    from flawsmith.cli.closing import closing_of
    from flawsmith.config import parse_overrides
    from flawsmith.run.folder import Run

    opened = Run.open(run)
    from flawsmith.synthesis.distillation.student_run import student_run
    from flawsmith.synthesis.train import train

    student = student_run(opened, out, parse_overrides(set_), quarter=quarter)
    train(student)
    closing_of("train", student).say(as_json)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(distill)
