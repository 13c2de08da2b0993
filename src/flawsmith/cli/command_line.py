"""The command line: parse, open the run, call a stage. Every verb is a few lines; heavy imports happen inside."""

from __future__ import annotations

import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from flawsmith.cli import choice, distillation, inspection, korean, start, studio, weights
from flawsmith.cli.about import about
from flawsmith.cli.arguments import AsJson, ExportSets, Moved, On, RunPath, Sets, Share, require_together
from flawsmith.cli.closing import Closing, closing_of, closing_of_run, closing_of_screening, say, say_json
from flawsmith.cli.opening import config_of, config_of_run, opened_for, started
from flawsmith.errors import ConfigError, FlawsmithError, RenamedSetting
from flawsmith.interruption import stopped, terminable
from flawsmith.korean import spoken, wanted
from flawsmith.processes import busy, rest_while_waiting
from flawsmith.types import Stage
from flawsmith.version import VERSION

app = typer.Typer(
    name="flawsmith",
    help="Learn a defect from a few photographs, make realistic ones with exact masks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ShardText = Annotated[
    str,
    typer.Option(
        "--shard",
        help="Make only every n-th batch: i/n, e.g. 0/4; auto: as Slurm, torchrun or MPI number this process; "
        "auto/n: as Kubernetes does.",
        metavar="I/N|auto",
    ),
]


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="With --version: all that a report of a fault needs.")
    ] = False,
) -> None:
    if version:
        typer.echo(about() if verbose else f"flawsmith {VERSION}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise ConfigError("-v goes with --version; `flawsmith --help` lists the verbs")


start.add_to(app)


@app.command()
def run(
    source: Annotated[
        Path, typer.Argument(help="A TOML file, with --out; or a run folder, to go on with.", metavar="CONFIG|RUN")
    ],
    out: Annotated[
        Optional[Path],
        typer.Option("--out", "-o", help="With a TOML file: the run folder; going on where it stopped when it exists."),
    ] = None,
    balance: Annotated[
        bool, typer.Option("--balance", help="Fill every defect type up to the largest: generate.count = balance.")
    ] = False,
    prompt: Annotated[
        str,
        typer.Option(
            help='What every sample shall show, e.g. "a long thin scratch near the top left".', metavar="TEXT"
        ),
    ] = "",
    say: Annotated[str, typer.Option(hidden=True)] = "",  # the name of --prompt in release 0.1
    until: Annotated[Stage, typer.Option(help="The last stage; the same command without it goes on.")] = "report",
    shard: ShardText = "",
    on: On = "",
    share: Share = "",
    set_: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Every stage: train, generate, screen, measure, prove, export, report; skips what is done."""
    import json

    from flawsmith.config.settings import warn_renamed
    from flawsmith.run.opening import leaving_nothing
    from flawsmith.run.shard import Shard

    settings = [*set_, *(["generate.count=balance"] if balance else [])]
    if say:
        warn_renamed("--say", "--prompt")
    if prompt or say:
        settings.append(f"generate.prompt={json.dumps(prompt or say, ensure_ascii=False)}")
    require_together(on, share, shard)
    if source.is_dir():
        if out is not None:
            raise ConfigError(
                f"run {source}: a folder; --out goes with a TOML text file, and a run folder goes on without it"
            )
        asked, out = config_of_run(source, settings), source
    elif out is None:
        raise ConfigError(f"run {source}: a TOML file needs --out RUN")
    else:
        asked = config_of(source, settings)
    part = Shard.parse(shard) if shard else Shard()
    # Where shards start together, another one may be about to use the folder.
    with nullcontext() if part.name else leaving_nothing(out):
        opened = started("run", out, asked, settings)  # a typo is said at once: torch takes seconds to load
        from flawsmith.cluster.on_ray import on_ray
        from flawsmith.pipeline import run_all, run_shard

        with on_ray(on, opened, share) if on else nullcontext() as spread:
            report = run_shard(opened, part, until=until) if part.name else run_all(opened, until=until, spread=spread)
    if report:
        closing_of_run("run", report).say(as_json)
    else:
        facts = {"run": opened.folder.as_posix(), "shard": shard, "finished": False}
        Closing("run", f"shard {shard}: its part is made; the last one does what follows", facts).say(as_json)


@app.command()
def train(
    source: Annotated[Path, typer.Argument(help="A run folder; or a TOML file, with --out.", metavar="RUN|CONFIG")],
    out: Annotated[Optional[Path], typer.Option("--out", "-o", help="With a TOML file: the run folder.")] = None,
    set_: Sets = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Learn the generator from the shots."""
    from flawsmith.run.opening import leaving_nothing

    if out is None and source.is_file():
        raise ConfigError(f"train {source}: a TOML file needs --out RUN")
    with leaving_nothing(out or source):
        opened = (
            opened_for("train", source, set_) if out is None else started("train", out, config_of(source, set_), set_)
        )
        from flawsmith.synthesis.train import train_together

        if train_together(opened):
            closing_of("train", opened).say(as_json)


@app.command()
def generate(
    run: RunPath,
    shard: ShardText = "0/1",
    set_: Moved = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Make the planned samples."""
    from flawsmith.run.shard import Shard

    part = Shard.parse(shard)
    opened = opened_for("generate", run, set_)
    from flawsmith.synthesis.generate import generate as stage

    stage(opened, part)
    closing_of("generate", opened).say(as_json)


@app.command()
def paint(
    source: Annotated[Path, typer.Argument(help="A run, a folder of photographs, a TOML file.", metavar="RUN|FOLDER")],
    photograph: Annotated[Path, typer.Option(help="What is painted on.")],
    mask: Annotated[Path, typer.Option(help="Where: a mask that you drew, of the photograph's size.")],
    defect: Annotated[str, typer.Option(help="The defect type.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The picture; x.mask.png and x.json are written beside it.")],
    seed: Annotated[int, typer.Option(help="Another seed, another damage.")] = 0,
    generator: Annotated[str, typer.Option(help="What paints, as `flawsmith list` names it; else the run's own.")] = "",
    product: Annotated[str, typer.Option(help="What the photograph shows, where several products have the type.")] = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Files that are there may be written over.")] = False,
    set_: Sets = [],  # noqa: B006
) -> None:
    """Paint a defect into a mask that you drew, on one photograph."""
    from flawsmith.config import parse_overrides
    from flawsmith.synthesis.by_hand.brush import paint_file

    settings = parse_overrides(set_)
    typer.echo(paint_file(source, photograph, mask, defect, seed, generator, product, settings, out, overwrite))


@app.command()
def screen(
    run: Annotated[
        Path, typer.Argument(help="A run folder; with --replay, any folder of pictures.", metavar="RUN|FOLDER")
    ],
    replay: Annotated[
        Optional[Path],
        typer.Option("--replay", help="Judge FOLDER by this gate, or by the gate of this run.", metavar="GATE|RUN"),
    ] = None,
    layout: Annotated[
        str,
        typer.Option(help="With --replay: beside (x.png, x.mask.png, perhaps x.normal.png), mvtec, visa or pairs."),
    ] = "beside",
    out: Annotated[
        Optional[Path], typer.Option(help="With --replay: the file of verdicts; else FOLDER/replayed.jsonl.")
    ] = None,
    extractor: Annotated[
        str, typer.Option(help="With --replay: file, folder or hub id of the gate's extractor; else the usual place.")
    ] = "",
    online: Annotated[bool, typer.Option("--online", help="With --replay: the hub may be asked for it.")] = False,
    set_: Moved = [],  # noqa: B006
    as_json: AsJson = False,
) -> None:
    """Judge the samples: scores, thresholds, verdicts and reasons in scores.jsonl; plans again what is lacking."""
    if replay is not None:
        from flawsmith.screening.replay import replay as again

        say("screen", again(replay, run, layout=layout, out=out, source=extractor, offline=not online))
        return
    opened = opened_for("screen", run, set_)
    from flawsmith.run.screened import require_kept
    from flawsmith.screening.screen import screened

    more = screened(opened)
    closing_of_screening(opened, more).say(as_json)
    if not more:
        require_kept(opened)


@app.command()
def measure(run: RunPath, set_: Moved = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Compare the samples with real pictures: distances, diversity, labels, seams, copies."""
    opened = opened_for("measure", run, set_)
    from flawsmith.evaluation.measure import measure as stage

    stage(opened)
    closing_of("measure", opened).say(as_json)


@app.command()
def prove(run: RunPath, set_: Moved = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Train detectors with and without the samples: a verdict per defect type, helps, no effect or harms."""
    opened = opened_for("prove", run, set_)
    from flawsmith.pipeline import prove as stage

    stage(opened)
    closing_of("prove", opened).say(as_json)


@app.command()
def export(run: RunPath, set_: ExportSets = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Write the samples in the layouts of other tools; --set takes export.* and data.root, and is kept in the run."""
    from flawsmith.exports.export import export as stage
    from flawsmith.exports.export import opened as open_for_export

    opened = open_for_export(run, set_)
    stage(opened)
    closing_of("export", opened).say(as_json)


@app.command()
def report(run: RunPath, set_: Moved = [], as_json: AsJson = False) -> None:  # noqa: B006
    """Write report.html and report.md."""
    opened = opened_for("report", run, set_)
    from flawsmith.reporting.report import report as stage

    closing_of_run("report", stage(opened)).say(as_json)


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Name every plug-in that is known."""
    from flawsmith import registry

    if as_json:
        entries = {family: registry.entries(family) for family in registry.FAMILIES}
        say_json({family: {name: known[name].summary for name in sorted(known)} for family, known in entries.items()})
        return
    for family in registry.FAMILIES:
        typer.echo(family)
        known = sorted(registry.entries(family).items())
        for name, entry in known:
            typer.echo(f"  {name:20} {spoken(entry.summary)}")
        if not known:
            typer.echo(f"  {spoken('(none yet)')}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the demo's data and run.")] = Path("demo"),
    as_json: AsJson = False,
) -> None:
    """The main job on factory parts with the built-in backbone, in minutes; ends with a report to open."""
    from flawsmith.factory_demo import demo as show

    closing_of_run("demo", show(out)).say(as_json)


for verbs in (choice, distillation, inspection, studio, weights):
    verbs.add_to(app)


def main() -> None:
    """Entry point: a FlawsmithError becomes its sentence and exit code 2; Ctrl-C and SIGTERM say how to go on."""
    warnings.showwarning = _show_warning
    if busy() > 1:
        rest_while_waiting()
    try:
        command = typer.main.get_command(app)
        if wanted():
            korean.translate(command)
        with terminable():
            command(standalone_mode=True)
    except FlawsmithError as error:
        print(f"flawsmith: {spoken(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        stopped()
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        reason = f"cannot be used ({error.strerror or error}); is the path right, and may it be read and written?"
        print(f"flawsmith: {place}{spoken(reason)}", file=sys.stderr)
        sys.exit(2)
    except SystemExit as end:
        if end.code == 130:  # typer turns Ctrl-C into this
            stopped()
        raise


def _show_warning(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> None:
    """Print our own warnings as the sentence that they are; others as Python does."""
    if issubclass(category, RenamedSetting):
        print(f"flawsmith: {spoken(str(message))}", file=sys.stderr)
    else:
        print(warnings.formatwarning(message, category, *place[:2]), file=sys.stderr, end="")
