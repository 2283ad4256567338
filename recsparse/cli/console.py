"""What a person, or a machine, sees: progress on stderr, answers on stdout."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from recsparse.interactions.download import Progress as Tell

out = Console(soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)

AsJson = Annotated[bool, typer.Option("--json", help="Answer with one line of JSON for machines.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there, once the new is complete.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="What to write; it appears whole or not at all.")]


def answer(values: dict[str, Any], as_json: bool, title: str) -> None:
    """Say what came of a command: one line of JSON, or a line a value."""
    if as_json:
        sys.stdout.write(json.dumps(values, default=str) + "\n")
        return
    table = Table(title=title, title_justify="left", show_header=False, box=None, title_style="bold")
    for name, value in values.items():
        table.add_row(f"  {name}", f"{value:,}" if isinstance(value, int) else str(value))
    out.print(table)


@contextmanager
def progress() -> Iterator[Tell]:
    """Draw stages as they report; where nobody watches, say each stage once."""
    if not err.is_terminal:
        said: list[str] = []

        def say(stage: str, done: int, total: int | None) -> None:
            if stage not in said:
                said.append(stage)
                err.print(f"{stage} ...", highlight=False, markup=False)

        yield say
        return
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
