"""The verbs of the first hour, `new` and `check`; `command_line.py` adds them to the command line."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from flawsmith.cli.arguments import AsJson, ConfigPath, Sets
from flawsmith.cli.closing import say_json
from flawsmith.korean import spoken, with_comments

_IN_A_FILE = 200
"""Columns of the tables of `check` where no terminal says how wide it is: no column of theirs is cut."""


def new(
    from_: Annotated[
        Optional[Path],
        typer.Option("--from", help="Look at this folder of photographs and write what fits it.", metavar="FOLDER"),
    ] = None,
    normal: Annotated[
        list[str],
        typer.Option(
            help="With --from: a folder of normal parts, where its name does not say so; . = what has no label."
        ),
    ] = [],  # noqa: B006
    generator: Annotated[str, typer.Option(help="Use this generator, and list its own settings too.")] = "",
    paper: Annotated[
        bool, typer.Option("--paper", help="With --generator: the values that its method's paper states.")
    ] = False,
) -> None:
    """Print a commented starting file: flawsmith new --from photographs > my.toml"""
    from flawsmith import registry
    from flawsmith.config import Config, GeneratorConfig, _set, commented_toml, validate
    from flawsmith.errors import ConfigError

    if from_ is not None:
        if generator or paper:
            raise ConfigError("--from writes what fits a folder; leave --generator and --paper out with it")
        from flawsmith.preflight.recognise import recognise

        _print(
            recognise(from_, normal).toml(),
            "--from",
            str(from_),
            *(part for one in normal for part in ("--normal", one)),
        )
        return
    if normal:
        raise ConfigError("--normal names folders of --from; give that too")
    if not generator:
        if paper:
            raise ConfigError("--paper: name the method too, e.g. --generator dual_branch")
        _print(commented_toml(Config()))
        return
    plugin = registry.get("generators", generator)
    if paper:
        if not hasattr(plugin.Settings, "paper"):
            raise ConfigError(f"--paper: {generator} follows no paper, so it has no paper's values; leave --paper out")
        tree: dict[str, Any] = {"generator": {"name": generator}}
        for key, value in plugin.paper.items():
            _set(tree, key, value)
        note = "the values of the method's paper where it states them; all others are the defaults."
        _print(
            commented_toml(validate(Config, tree), plugin.Settings.paper(), note=note),
            "--generator",
            generator,
            "--paper",
        )
        return
    _print(
        commented_toml(Config(generator=GeneratorConfig(name=generator)), plugin.Settings()), "--generator", generator
    )


def check(
    config: ConfigPath,
    page: Annotated[
        Optional[Path],
        typer.Option(help="Where to show what was understood as damage; else CONFIG-check.html beside CONFIG."),
    ] = None,
    set_: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Say what is in the folder, what is wrong with it, and what a run will cost."""
    from rich.console import Console

    from flawsmith.config import load_config, parse_overrides
    from flawsmith.preflight.check import check as inspect

    asked = load_config(config, parse_overrides(set_))
    findings = inspect(asked, page or config.with_name(f"{config.stem}-check.html"))
    settings = [part for setting in set_ for part in ("--set", setting)]
    command = ["flawsmith", "run", str(config), "--out", f"runs/{config.stem}", *settings] if findings.ok else []
    if as_json:
        say_json({"verb": "check", **findings.to_json(), "next": command})
    else:
        findings.render(Console() if sys.stdout.isatty() else Console(width=_IN_A_FILE), spoken)
    if not findings.ok:
        raise typer.Exit(1)
    if not as_json:
        typer.echo(f"{spoken('next')}: {shlex.join(command)}")


def _print(toml: str, *words: str) -> None:
    """Print settings; on a terminal, where they go nowhere, also the command that writes them into a file.

    Args:
        toml: The settings.
        words: What `flawsmith new` was given.
    """
    typer.echo(with_comments(toml, spoken), nl=False)
    if sys.stdout.isatty():
        saved = f"{shlex.join(['flawsmith', 'new', *words])} > my.toml"
        typer.echo(f"{spoken('to write this into a file')}: {saved}", err=True)


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    app.command()(new)
    app.command()(check)
