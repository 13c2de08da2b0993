"""The verbs `weights` and `backbone`; `command_line.py` adds them to the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from flawsmith.cli.arguments import RunPath
from flawsmith.cli.closing import say


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


def backbone(
    out: Annotated[Path, typer.Argument(help="Folder to write; training goes on there when it was interrupted.")],
    from_: Annotated[
        Optional[Path],
        typer.Option(
            "--from",
            help="A TOML file whose section data names your own pictures; else the factory makes them.",
            metavar="CONFIG",
        ),
    ] = None,
    set_: Annotated[
        list[str], typer.Option("--set", help="Override the recipe, e.g. --set steps=400.", metavar="KEY=VALUE")
    ] = [],  # noqa: B006
) -> None:
    """Train a small backbone from pictures: autoencoder, text encoder, inpainting UNet."""
    from flawsmith.config import load_config, parse_overrides, validate
    from flawsmith.recipes.backbone import Recipe, make_backbone

    recipe = validate(Recipe, parse_overrides(set_), where="--set")
    made = make_backbone(out, recipe, load_config(from_) if from_ else None)
    say("backbone", f"{out} ({made.fingerprint}); use it with --set backbone.source={out}")


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(weights)
    app.command()(backbone)
