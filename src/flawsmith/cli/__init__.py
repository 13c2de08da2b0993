"""The command line: `command_line.py` has the stages of a run and `main`; each other file a few verbs beside them."""

from flawsmith.cli.command_line import app, main

__all__ = ["app", "main"]
