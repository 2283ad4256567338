"""What a person, or a machine, sees: progress on stderr, answers on stdout."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from recsparse.errors import ConfigError

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

Tell = Callable[[str, int, int | None], None]
"""Told the stage (what follows a colon is news of it), how much is done, and the total where it is known."""

AsJson = Annotated[bool, typer.Option("--json", help="Answer with one line of JSON for machines.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there, once the new is complete.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="What to write; it appears whole or not at all.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting; NAME may be recipe.density.")
]

NEWS_SECONDS = 10.0
"""How often a log hears news of a stage."""


def answer(values: dict[str, Any], as_json: bool, title: str) -> None:
    """Say what came of a command: one line of JSON, or a line a value."""
    if as_json:
        sys.stdout.write(json.dumps(values, default=str) + "\n")
        return
    out.print(title, style="bold", markup=False, highlight=False)
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        out.print(f"  {name:{width}}  {_text(value)}", markup=False)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{_text(part)} {name.replace('_', ' ')}" for name, part in value.items())
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def read_settings(pairs: list[str] | None, option: str = "--set") -> dict[str, Any]:
    """Read NAME=VALUE: a number, true or false, a JSON value, or else text."""
    settings: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"{option} is {pair!r}; it must be NAME=VALUE, for example dim=64.")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text
    return settings


@contextmanager
def progress() -> Iterator[Tell]:
    """Draw stages as they report; where nobody watches, say each stage once, and its news now and then."""
    if not err.is_terminal:
        said: dict[str, float] = {}

        def say(stage: str, done: int, total: int | None) -> None:
            name, colon, _ = stage.partition(":")
            now = time.monotonic()
            if name not in said or (colon and now - said[name] > NEWS_SECONDS):
                said[name] = now
                err.print(f"{stage} ...", highlight=False, markup=False)

        yield say
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=err, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def draw(stage: str, done: int, total: int | None) -> None:
            name = stage.split(" ", 1)[0]
            if name not in tasks:
                tasks[name] = bars.add_task(stage, total=total)
            bars.update(tasks[name], description=stage, completed=done, total=total)

        yield draw
