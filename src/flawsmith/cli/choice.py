"""The verb `choose`; `command_line.py` adds it to the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flawsmith.cli.arguments import ConfigPath, Sets
from flawsmith.korean import spoken

if TYPE_CHECKING:
    from flawsmith.config import Config


def choose(
    config: ConfigPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the choice; going on where it stopped.")],
    folds: Annotated[int, typer.Option(help="Into how many folds the shots are dealt.")] = 5,
    also: Annotated[
        list[str],
        typer.Option(help="A generator to try beside the usual ones (again and again); diffusion takes hours."),
    ] = [],  # noqa: B006
    workers: Annotated[
        int, typer.Option(help="Processes that work at the same time; 0 = one per core, on a GPU one.")
    ] = 0,
    set_: Sets = [],  # noqa: B006
) -> None:
    """Find out which generator, masks and number of samples serve each defect type; never looks at test pictures."""
    from flawsmith.config import load_config, parse_overrides

    asked = load_config(config, parse_overrides(set_))
    from flawsmith.choice.choose import choose as decide
    from flawsmith.choice.words import closing_words

    typer.echo(spoken(closing_words(out, decide(asked, out, folds=folds, also=also, workers=workers))))


def settled(config: Config, out: Path) -> Config:
    """Return what a run is made with: where the generator is "auto", what is chosen in the run's folder first."""
    if config.generator.name != "auto":
        return config
    from flawsmith.choice.choose import chosen_config

    return chosen_config(config, out)


def add_to(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command()(choose)
