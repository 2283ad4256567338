"""``recsparse run``: a pipeline file from the data to the report."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from recsparse.cli.console import AsJson, answer, out, progress


def run(
    config: Annotated[Path, typer.Argument(help="A pipeline file, for example pipelines/ml-100k.toml.")],
    directory: Annotated[Path | None, typer.Option("--output", "-o", help="Instead of runs/NAME.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run a whole pipeline: data, split, models, evaluation, recommendations and report; skip what is up to date.

    Example: recsparse run pipelines/ml-100k.toml
    """
    from recsparse.config import read_config
    from recsparse.pipeline import Run
    from recsparse.report import choose

    made = Run(read_config(config), directory=directory)
    with progress() as tell:
        made.tell = tell
        results = made(command=shlex.join(["recsparse", *sys.argv[1:]]))
    choice = choose(results)
    paths = {"report": made.directory / "report.html", "results": made.directory / "results.json"}
    paths |= {Path(name).stem: made.directory / name for name in ("models/", "recommendations/", "audit/")}
    if as_json:
        answer({"ship": choice.row.label, "bytes": choice.row.bytes_total, **paths}, as_json, "")
        return
    metrics = [results.headline, *[metric for metric in results.metrics if metric != results.headline]]
    table = Table(
        "table", "bytes/item", *metrics, title=f"{results.dataset.title or results.dataset.name}", title_justify="left"
    )
    for row in results.rows:
        size = "" if row.bytes_per_item is None else f"{row.bytes_per_item:,.1f}"
        figures = [f"{row.metrics[metric].mean:.4f}" for metric in metrics]
        figures[0] += f" [{row.metrics[metrics[0]].low:.3f}, {row.metrics[metrics[0]].high:.3f}]"
        table.add_row(row.label, size, *figures, style="bold green" if row.label == choice.row.label else None)
    out.print(table)
    out.print(
        f"Ship [bold]{choice.row.label}[/bold]: {choice.times_smaller:.1f} times smaller than {choice.reference.label}. "
        f"All figures are means over {results.split.test_users:,} test users, with 95 % intervals."
    )
    answer(paths, as_json, "written")
