"""``recsparse report`` and ``recsparse compare``: what runs have found."""

from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from recsparse.cli.console import AsJson, Output, answer, out, progress


def report(
    results: Annotated[Path, typer.Argument(help="A run's results.json.")],
    output: Output,
    as_json: AsJson = False,
) -> None:
    """Write the report of a run as one self-contained HTML file.

    Example: recsparse report runs/demo/results.json -o report.html
    """
    from recsparse.report import read_results, write_report

    write_report(read_results(results), output)
    answer({"report": output}, as_json, "written")


def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Run directories, two or more; A,B,C are the seeds of one and are pooled.")
    ],
    row: Annotated[str | None, typer.Option(help="The row compared; what each run ships if not given.")] = None,
    metric: Annotated[str | None, typer.Option(help="The runs' headline metric if not given.")] = None,
    permutations: Annotated[int, typer.Option(min=0, help="Draws of the permutation test; 0 leaves it out.")] = 9999,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and the permutations.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Compare runs of one split user by user: the difference, its interval, and p values corrected for all pairs.

    Example: recsparse compare runs/one runs/other --metric ndcg@20
    """
    from recsparse.report.compare import compare_runs

    groups = [[Path(each) for each in run.split(",")] for run in runs]
    with progress() as tell:
        tell("compare", 0, None)
        found = compare_runs(groups, label=row, metric=metric, n_permutations=permutations, seed=seed)
    if as_json:
        answer({"differences": [each.to_dict() for each in found]}, as_json, "")
        return
    table = Table(title=f"{found[0].metric}, {found[0].users:,} users", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("a, and b")
    for name in ("mean", "a - b", "95 %", "wins", "p (Holm)"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in found:
        table.add_row(
            Text(f"{each.a}\n{each.b}"), f"{each.mean_a:.4f}\n{each.mean_b:.4f}", f"{each.difference:+.4f}",
            f"{each.low:+.4f}\n{each.high:+.4f}", f"{each.wins:,}\n{each.losses:,}", f"{each.p_holm:.2g}",
        )  # fmt: skip
    out.print(table)
