"""``recsparse run``: a pipeline file from the data to the report."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from recsparse.cli.console import AsJson, answer, out, progress

if TYPE_CHECKING:
    from recsparse.pipeline.stages import Stage
    from recsparse.report import Choice, Results


def run(
    config: Annotated[Path, typer.Argument(help="A pipeline file, for example pipelines/ml-100k.toml.")],
    directory: Annotated[Path | None, typer.Option("--output", "-o", help="Instead of runs/NAME.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is up to date and what would run.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a whole pipeline: data, split, models, evaluation, recommendations and report; skip what is up to date.

    Example: recsparse run pipelines/ml-100k.toml
    """
    from recsparse.pipeline import Run
    from recsparse.report import choose

    made = Run.read(config, directory=directory)
    if dry_run:
        _show(made.plan(), as_json)
        return
    with progress() as tell:
        made.tell = tell
        results = made(command=shlex.join(["recsparse", *sys.argv[1:]]))
    choice = choose(results)
    paths = {"report": made.directory / "report.html", "results": made.directory / "results.json"}
    paths |= {Path(name).stem: made.directory / name for name in ("models/", "recommendations/", "audit/")}
    if as_json:
        answer({"ship": choice.row.label, "bytes": choice.row.bytes_total, **paths}, as_json, "")
        return
    out.print(_table(results, choice))
    out.print(
        f"Ship [bold]{choice.row.label}[/bold], {choice.times_smaller:.1f} times smaller than "
        f"{choice.reference.label}: "
        f"the smallest that loses at most {results.max_loss:.0%} on the validation users. "
        f"Figures: {results.headline} of {results.split.test_users:,} test users, 95 % intervals."
    )
    answer(paths, as_json, "written")


def _show(plan: list[tuple["Stage", bool]], as_json: bool) -> None:
    if as_json:
        stages = [{"stage": stage.name, "up_to_date": done, "directory": str(stage.directory)} for stage, done in plan]
        answer({"stages": stages}, as_json, "")
        return
    for stage, done in plan:
        out.print(
            f"[green]up to date[/]  {stage.name}" if done else f"[yellow]would run [/]  {stage.name}", highlight=False
        )
    out.print(f"{sum(not done for _, done in plan)} of {len(plan)} stages would run.", highlight=False)


def _table(results: "Results", choice: "Choice") -> Table:
    """Orientation rows, then the tables that no smaller one beats, each beside the best dense table of its size."""
    from recsparse.report.choice import bytes_of, equal_bytes_rival

    headline = results.headline
    data = results.dataset.title or results.dataset.name
    title = f"{escape(data)}: tables that no smaller one beats, and the best dense one of each size"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("table", "B/item", f"{headline}, 95 %", "best dense", headline):
        table.add_column(name, no_wrap=True, justify="left" if name in ("table", "best dense") else "right")
    ours = sorted((row for row in results.rows if row.bytes_per_item is not None), key=bytes_of)
    best, frontier = -1.0, []
    for row in ours:
        if row.metrics[headline].mean > best:
            best = row.metrics[headline].mean
            frontier.append(row)
    others = [row for row in results.rows if row.bytes_per_item is None]
    for row in [*others, *frontier, *([choice.reference] if choice.reference not in frontier else [])]:
        measured = row.metrics[headline]
        rival = equal_bytes_rival(results.rows, row, headline) if row.bytes_per_item is not None else None
        table.add_row(
            row.label,
            "" if row.bytes_per_item is None else f"{row.bytes_per_item:,.1f}",
            f"{measured.mean:.4f} {measured.low:.3f}-{measured.high:.3f}",
            "" if rival is None else rival.label,
            "" if rival is None else f"{rival.metrics[headline].mean:.4f}",
            style="bold green" if row.label == choice.row.label else None,
        )
    return table
