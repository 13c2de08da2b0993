"""What several verbs are told in the same way."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flawsmith.errors import ConfigError

ConfigPath = Annotated[Path, typer.Argument(help="A TOML file; `flawsmith new` writes one.", metavar="CONFIG")]
RunPath = Annotated[Path, typer.Argument(help="A run folder, made by `flawsmith run`.", metavar="RUN")]
Sets = Annotated[
    list[str],
    typer.Option("--set", help="Override one key, e.g. --set train.steps=300 (again and again).", metavar="KEY=VALUE"),
]
ExportSets = Annotated[
    list[str],
    typer.Option(
        "--set",
        help="Only export.* and data.root, e.g. --set export.real=shots (again and again).",
        metavar="KEY=VALUE",
    ),
]
Moved = Annotated[
    list[str],
    typer.Option(
        "--set", help="Only data.root=FOLDER: where the photographs are now; the run keeps it.", metavar="KEY=VALUE"
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Say the end as one JSON object on stdout, for scripts.")]


def _engine(on: str) -> str:
    if on and on != "ray" and not on.startswith("ray://"):
        raise ConfigError(f"--on {on}: expected ray, or ray://host:port")
    return on


On = Annotated[
    str,
    typer.Option(
        help="The Ray cluster that does the work: ray = that of this machine, or a new one; see docs/ray.md.",
        metavar="ray[://HOST:PORT]",
        callback=_engine,
    ),
]
Share = Annotated[
    str,
    typer.Option(
        help="With --on: object storage for machines that share no folder, as fsspec names it.", metavar="URL"
    ),
]


def require_together(on: str, share: str, shard: str) -> None:
    """Refuse options that do not go with one another.

    Raises:
        ConfigError: says which to leave out.
    """
    if on and shard:
        raise ConfigError("--on has all batches made by the cluster; leave --shard out with it")
    if share and not on:
        raise ConfigError("--share goes with --on: without a cluster nothing is exchanged")
