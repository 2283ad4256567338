"""``recsparse tune``: the best settings of a model, found on the validation users."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from recsparse.cli.console import AsJson, Settings, answer, progress, read_settings


def tune(
    data: Annotated[Path, typer.Argument(help="A split directory; only its training and validation parts are used.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Directory of the trials; a search goes on from it.")],
    kind: Annotated[str, typer.Option(help="ease, ials, mf, ...")] = "ials",
    trials: Annotated[int, typer.Option(min=1, help="How many, those of earlier runs included.")] = 50,
    settings: Settings = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="NAME=JSON",
            help='What to try beside the model\'s own ranges: dim=[32,64], reg={"low":0.001,"high":1,"log":true}, or '
            "null to leave one out.",
        ),
    ] = None,
    metric: Annotated[str, typer.Option(help="ndcg@20, recall@50, ...")] = "ndcg@20",
    seed: Annotated[int, typer.Option(help="Of the search.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Search for a model's best settings on the validation users; a search that was ended goes on where it was.

    Example: recsparse tune split -o tuned --kind ials --trials 30 --set dim=64
    """
    from recsparse.interactions import read_split
    from recsparse.tuning import Tuned
    from recsparse.tuning import tune as find

    parts = read_split(data)
    with progress() as tell:

        def news(best: Tuned) -> None:
            tell(f"tune {kind}: {metric} {best.value:.4f} in trial {best.best_trial}", best.trials, trials)

        tell(f"tune {kind}", 0, trials)
        tuned = find(
            kind, parts.train, parts.validation, output, trials=trials, fixed=read_settings(settings),
            space=read_settings(search, "--search"), metric=metric, seed=seed, on_trial=news,
        )  # fmt: skip
    answer(asdict(tuned), as_json, f"best of {tuned.trials} trials")
