"""The verbs for what leaves the house: deliver, inspect, calibrate; `command_line.py` adds them to the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from flawsmith.cli.arguments import Moved, RunPath
from flawsmith.cli.closing import say
from flawsmith.errors import ConfigError
from flawsmith.korean import spoken

ModelPath = Annotated[Path, typer.Argument(help="A folder that `flawsmith deliver` wrote.", metavar="MODEL")]
Rate = Annotated[
    Optional[float],
    typer.Option("--rate", help="Share of normal parts that may raise a false alarm, e.g. 0.02.", metavar="SHARE"),
]
RuntimeName = Annotated[str, typer.Option("--runtime", help="What computes: onnxruntime or openvino.")]


def deliver(
    run: RunPath,
    out: Annotated[Optional[Path], typer.Option("--out", "-o", help="Where to; else RUN/model.")] = None,
    rate: Rate = None,
    set_: Moved = [],  # noqa: B006
) -> None:
    """Train the final detector and write it as ONNX, with threshold, model card and an example."""
    from flawsmith.run.opening import open_run

    opened = open_run(run, set_, verb="deliver")
    from flawsmith.inspection.deliver import deliver as write

    typer.echo(f"deliver: {write(opened, out, rate=rate)}")


def inspect(
    model: ModelPath,
    folder: Annotated[
        Optional[Path], typer.Argument(help="Pictures to inspect, or one of them.", metavar="FOLDER")
    ] = None,
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", help="Where to; else FOLDER-inspection beside it.")
    ] = None,
    overlays: Annotated[str, typer.Option(help="Write the maps over the pictures of: defects, all, none.")] = "defects",
    serve: Annotated[bool, typer.Option("--serve", help="Answer pictures over HTTP instead of a folder.")] = False,
    host: Annotated[str, typer.Option(help="With --serve: who is answered; else this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="With --serve.", min=0, max=65535)] = 8700,
    max_megabytes: Annotated[float, typer.Option(help="With --serve: the largest request.")] = 64,
    max_seconds: Annotated[float, typer.Option(help="With --serve: time to send a request, and to wait.")] = 10,
    runtime: RuntimeName = "onnxruntime",
) -> None:
    """Inspect pictures with a delivered model: verdicts in a table, maps as overlays; or serve it. Needs no torch."""
    if serve == (folder is not None):
        raise ConfigError("inspect: name the FOLDER of pictures, or say --serve (one of the two)")
    from flawsmith.inspection.inspector import Inspector

    inspector = Inspector(model, runtime)  # type: ignore[arg-type]
    if folder is None:
        from flawsmith.inspection.serve import InspectionServer
        from flawsmith.inspection.serve import serve as answer

        server = InspectionServer(inspector, host, port, megabytes=max_megabytes, seconds=max_seconds)
        say("inspect", f"http://{host}:{server.server_port}/inspect answers until Ctrl-C")
        say("inspect", f"stopped; pictures inspected: {answer(server)}")
        return
    from flawsmith.inspection.inspect import inspect as look

    report = look(inspector, folder, out, overlays=overlays)  # type: ignore[arg-type]
    for sentence in report.problems:
        say("flawsmith", sentence, error=True)
    say("inspect", report.sentence())


def calibrate(
    model: ModelPath,
    normals: Annotated[Path, typer.Argument(help="New photographs of normal parts.", metavar="NORMALS")],
    rate: Rate = None,
    runtime: RuntimeName = "onnxruntime",
) -> None:
    """Set a delivered model's threshold anew from normal parts, without training. Needs no torch."""
    from rich.console import Console
    from rich.table import Table

    from flawsmith.inspection.calibrate import calibrate as again

    calibration = again(model, normals, rate=rate, runtime=runtime)  # type: ignore[arg-type]
    for sentence in calibration.left_out:
        say("flawsmith", sentence, error=True)
    table = Table("", *map(spoken, ("pictures", "old threshold", "new threshold")))
    for line in calibration.table:
        table.add_row(*map(spoken, line.cells()))
    Console().print(table)
    for sentence in calibration.sentences():
        say("calibrate", sentence)


def add_to(app: typer.Typer) -> None:
    """Add the verbs to the command line."""
    for verb in (deliver, inspect, calibrate):
        app.command()(verb)
