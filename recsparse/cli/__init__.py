"""The command line: the only part of recsparse that prints."""

import errno
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from itertools import takewhile
from typing import Annotated, Any, NoReturn

import typer

from recsparse.cli import data, matrix, models, results, run, score, sharded, similar, tune
from recsparse.cli.console import AsJson, answer, err, out
from recsparse.errors import RecsparseError

app = typer.Typer(
    name="recsparse",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Recommenders whose embedding tables are sparse: train, prune, pack, evaluate and serve them.",
    epilog="Begin with `recsparse run pipelines/ml-100k.toml`, or bring your own: `recsparse build --help`.",
)
COMMANDS: dict[str, tuple[Callable[..., Any], ...]] = {
    "The whole job": (run.run,),
    "One stage each, for schedulers": (
        matrix.build, matrix.split, tune.tune, models.train, models.evaluate, score.score, similar.score_pairs,
        results.report,
    ),
    "Before a cluster is paid for": (sharded.plan,),
    "What is there": (models.inspect, similar.similar, results.compare),
}  # fmt: skip
NO_SPACE = os.strerror(errno.ENOSPC)
INTERRUPTED = 130
"""The exit code Typer gives a command that Ctrl-C ended."""

for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(data.app, name="data", rich_help_panel="What is there")


def _say_version(asked: bool) -> None:
    if asked:
        out.print(version("recsparse"), highlight=False)
        raise typer.Exit


@app.callback()
def common(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; goes before the command.")
    ] = False,
    version_: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Options of every command."""


@app.command(rich_help_panel="What is there")
def doctor(as_json: AsJson = False) -> None:
    """Say what is installed, what works, and what to do about the rest; exit code 1 if something needed is broken.

    Example: recsparse doctor
    """
    from recsparse.doctor import check

    checks = check()
    colours = {"ok": "green", "warning": "yellow", "missing": "dim", "broken": "red"}
    if as_json:
        answer({each.name: [each.status, each.found, each.advice, each.note] for each in checks}, as_json, "")
    else:
        for each in checks:
            out.print(f"[{colours[each.status]}]{each.status:8}[/] {each.name:14} {each.found}")
            for words in filter(None, (each.advice, each.note)):
                out.print(f"{'':24}{words}", style="dim", markup=False)
    raise typer.Exit(int(any(each.status == "broken" for each in checks)))


def main() -> None:
    """Run the command line. What a user can mend is one sentence and exit code 1; a wrong command line is code 2."""
    try:
        code = app(prog_name="recsparse", standalone_mode=False)
    except typer.TyperException as error:
        asked = getattr(error, "ctx", None)
        where = f" See {asked.command_path} --help." if asked else ""
        _fail(error.format_message() and f"{error.format_message().rstrip('.')}.{where}", error, code=2)
    except RecsparseError as error:
        _fail(str(error), error)
    except Exception as error:  # the promise of one sentence holds for what we did not foresee, too
        if NO_SPACE in str(error):  # safetensors, Arrow and DuckDB say so in errors of their own
            _fail(f"{error}: free some space and run the command again.", error)
        if isinstance(error, OSError):
            _fail(f"{error.strerror or error}{f' ({error.filename})' if error.filename else ''}.", error)
        _fail(f"This is a defect of recsparse ({type(error).__name__}: {error}); --debug shows where.", error, code=70)
    if code == INTERRUPTED:
        err.print("Interrupted; nothing half written is left.")
    raise SystemExit(code)


def _fail(message: str, error: BaseException, code: int = 1) -> NoReturn:
    if "--debug" in takewhile(lambda word: word.startswith("-"), sys.argv[1:]):
        raise error
    if message:  # without one, the help was shown instead
        err.print("[bold red]Error:[/] ", end="")
        sentence = " ".join(map(str.strip, message.splitlines()))
        err.print(sentence if sentence.endswith((".", "?")) else f"{sentence}.", markup=False, highlight=False)
    raise SystemExit(code)
