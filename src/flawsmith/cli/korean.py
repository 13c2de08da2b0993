"""The command line in Korean: `FLAWSMITH_LANG=ko flawsmith --help`.

`korean.json` has the Korean of every help text by its English, as the studio's catalogue has that of the page. A test
finds one that is missing, and one that nobody says any more. All else that is said, Typer's own errors among it, has
its Korean in `flawsmith.korean`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flawsmith.korean import spoken

CATALOGUE = Path(__file__).with_name("korean.json")
HELP_OF_HELP = "Show this message and exit."
"""Typer's own text of --help, which each command makes when it is asked for."""
PANELS = {
    "ARGUMENTS_PANEL_TITLE": "Arguments",
    "OPTIONS_PANEL_TITLE": "Options",
    "COMMANDS_PANEL_TITLE": "Commands",
    "DEFAULT_STRING": "[default: {}]",
    "REQUIRED_LONG_STRING": "[required]",
    "ERRORS_PANEL_TITLE": "Error",
    "RICH_HELP": "Try [blue]'{command_path} {help_option}'[/] for help.",
}
"""Typer's names of its fixed words, and the words."""
USAGE = "Usage:"
"""What stands before the words that a command takes."""


def translate(command: Any) -> None:
    """Put Korean in the place of every help text of a command and of those below it, and of Typer's errors."""
    from typer import rich_utils

    catalogue: dict[str, str] = json.loads(CATALOGUE.read_text(encoding="utf-8"))
    for holder in holders(command):
        for name in ("help", "short_help"):
            if text := getattr(holder, name, None):
                setattr(holder, name, catalogue.get(text, text))
    for part in (command, *getattr(command, "commands", {}).values()):
        part.get_help_option = _translated(part.get_help_option, catalogue[HELP_OF_HELP])
        part.get_usage = _with_usage(part.get_usage, catalogue[USAGE])
    for name, text in PANELS.items():
        setattr(rich_utils, name, catalogue[text])
    rich_utils.rich_format_error = _in_korean(rich_utils.rich_format_error)  # type: ignore[assignment]


def holders(command: Any) -> Iterator[Any]:
    """Yield a command, its parameters, and those of every command below it: all that has a `help`."""
    yield command
    yield from command.params
    for part in getattr(command, "commands", {}).values():
        yield from holders(part)


def _translated(made: Any, text: str) -> Any:
    def option(context: Any) -> Any:
        shown = made(context)
        if shown is not None:
            shown.help = text
        return shown

    return option


def _with_usage(made: Callable[[Any], str], text: str) -> Callable[[Any], str]:
    return lambda context: made(context).replace(USAGE, text, 1)


def _in_korean(show: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return what shows an error of Typer's, a missing argument or its like, in Korean."""

    def shown(error: Any) -> None:
        message = spoken(error.format_message())
        error.format_message = lambda: message
        show(error)

    return shown
