"""The command line: the only part of recsparse that prints."""

import errno
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from recsparse.cli import data, run, stages
from recsparse.cli.console import AsJson, answer, err, out
from recsparse.errors import RecsparseError

app = typer.Typer(
    name="recsparse",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Recommenders whose embedding tables are sparse: train, prune, pack, evaluate and serve them.",
    epilog="Begin with `recsparse run pipelines/ml-100k.toml`, or bring your own: `recsparse build --help`.",
)
app.add_typer(data.app, name="data")
for command in (stages.build, stages.split, stages.train, stages.evaluate, stages.report, run.run):
    app.command()(command)


def _say_version(asked: bool) -> None:
    if asked:
        out.print(version("recsparse"))
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version_: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Options of every command."""


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, what works, and what to do about the rest; exit code 1 if something needed is broken."""
    from recsparse.doctor import check

    checks = check()
    colours = {"ok": "green", "warning": "yellow", "missing": "dim", "broken": "red"}
    if as_json:
        answer({each.name: [each.status, each.found, each.advice] for each in checks}, as_json, "")
    else:
        for each in checks:
            out.print(f"[{colours[each.status]}]{each.status:8}[/] {each.name:14} {each.found}")
            if each.advice:
                out.print(f"{'':24}{each.advice}", style="dim", markup=False)
    raise typer.Exit(int(any(each.status == "broken" for each in checks)))


def main() -> None:
    """Run the command line; an error a user can mend is one sentence and exit code 1, without a traceback."""
    try:
        app()
    except RecsparseError as error:
        _fail(str(error), error)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        advice = "; free some space and run the command again" if error.errno == errno.ENOSPC else ""
        _fail(f"{error.strerror or error}{place}{advice}.", error)
    except KeyboardInterrupt as error:
        _fail("Interrupted; nothing half written is left.", error, code=130)


def _fail(message: str, error: BaseException, code: int = 1) -> None:
    if "--debug" in sys.argv:
        raise error
    err.print("[bold red]Error:[/] ", end="")
    err.print(message, markup=False, highlight=False)
    raise SystemExit(code)
