"""One stage each, for schedulers: build, split, train, evaluate, score, report."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from recsparse.cli.console import AsJson, Output, Overwrite, answer, progress
from recsparse.errors import ConfigError

Sets = Annotated[list[str] | None, typer.Option("--set", help="A setting, NAME=VALUE; NAME may be recipe.density.")]


def build(
    source: Annotated[
        str, typer.Argument(help="A file, glob or directory (CSV, TSV, JSON lines, Parquet), or a card.")
    ],
    output: Output,
    user: Annotated[str, typer.Option(help="The users' column: its name, or its number from 1.")] = "user_id",
    item: Annotated[str, typer.Option(help="The items' column.")] = "item_id",
    value: Annotated[
        str | None, typer.Option(help="The ratings' column; without it every interaction counts 1.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="The times' column: epoch seconds, milliseconds or ISO.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between columns; seen from the file if not given.")] = None,
    header: Annotated[bool | None, typer.Option(help="Whether the first line names the columns.")] = None,
    min_value: Annotated[float | None, typer.Option(help="Leave out interactions with a lower rating.")] = None,
    duplicates: Annotated[str, typer.Option(help="Of repeated pairs keep: last, max, sum or count.")] = "last",
    transform: Annotated[str | None, typer.Option(help="implicit (all values 1), log1p or sqrt.")] = None,
    min_user: Annotated[int, typer.Option(help="Leave out users with fewer items.")] = 0,
    min_item: Annotated[int, typer.Option(help="Leave out items with fewer users.")] = 0,
    k_core: Annotated[int, typer.Option(help="Leave out both, again and again, until none is left.")] = 0,
    memory: Annotated[str | None, typer.Option(help="Memory limit, for example 4GB; what is more spills.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Build the user x item matrix in Parquet from ratings of any size.

    Example: recsparse build ratings.csv --user userId --item movieId --value rating --time timestamp -o data
    """
    from recsparse.interactions import Cleaning, Source
    from recsparse.interactions import build as run
    from recsparse.interactions.cards import list_cards
    from recsparse.interactions.store import read_info
    from recsparse.validation import validate

    cleaning = validate(Cleaning, {
        "min_value": min_value, "duplicates": duplicates, "transform": transform, "min_user": min_user,
        "min_item": min_item, "k_core": k_core,
    }, "build")  # fmt: skip
    read: Source | str = source
    if Path(source).exists() or source.split(":")[0] not in list_cards():
        columns = {"user": user, "item": item, "value": value, "time": time}
        read = validate(Source, {"ratings": {
            "path": source, "delimiter": delimiter, "header": header,
            **{name: int(column) if column.isdigit() else column for name, column in columns.items() if column},
        }}, "build")  # fmt: skip
    with progress() as tell:
        run(read, output, cleaning=cleaning, memory_limit=memory, overwrite=overwrite, progress=tell)
    info = read_info(output)
    answer(
        {"directory": output, **{k: v for k, v in info.items() if isinstance(v, int | float | str)}}, as_json, "built"
    )


def split(
    data: Annotated[Path, typer.Argument(help="A dataset directory, as `recsparse build` makes them.")],
    output: Output,
    protocol: Annotated[
        str, typer.Option(help="strong, random, leave-last, time, cold-users, cold-items, ...")
    ] = "strong",
    seed: Annotated[int, typer.Option(help="Decides all that is random.")] = 0,
    settings: Sets = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Cut a dataset into training, validation and test, and say what leaks.

    Example: recsparse split data -o split --protocol strong --set test=0.2 --set target=0.2
    """
    from recsparse.interactions import read, write_split
    from recsparse.interactions import split as run

    parts = run(read(data), protocol, seed=seed, **_settings(settings))
    write_split(parts, output, overwrite=overwrite)
    answer({"directory": output, **parts.report}, as_json, f"split by {protocol}, seed {seed}")


def train(
    data: Annotated[Path, typer.Argument(help="A split directory (its training part is used) or a dataset directory.")],
    output: Output,
    kind: Annotated[str, typer.Option(help="popularity, ease, ials, ...")] = "ials",
    settings: Sets = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fit one model and save it with its packed table.

    Example: recsparse train split -o model --set dim=64 --set recipe.density=0.0625 --set value_type=int8
    """
    from recsparse.interactions import read
    from recsparse.models.factors import FactorModel
    from recsparse.pipeline.rows import make, with_settings

    model = make(kind, with_settings({}, _settings(settings)), "--set")
    interactions = read(data / "train" if (data / "split.json").exists() else data)
    with progress() as tell:
        tell(f"train {kind}", 0, None)
        model.fit(interactions)
    model.save(output, overwrite=overwrite)
    said: dict[str, Any] = {"directory": output, "users": interactions.shape[0], "items": interactions.shape[1]}
    if isinstance(model, FactorModel):
        said |= {"layout": model.item_table_.layout, "bytes": model.item_table_.nbytes}
        said |= {f"bytes of {part}": size for part, size in model.item_table_.breakdown().items()}
    answer(said, as_json, f"trained {kind}")


def evaluate(
    model: Annotated[Path, typer.Argument(help="A saved model.")],
    data: Annotated[Path, typer.Argument(help="A split directory.")],
    on: Annotated[str, typer.Option(help="test, or validation (while settings are being chosen).")] = "test",
    metric: Annotated[list[str] | None, typer.Option(help="ndcg@20, recall@50, ...; may be repeated.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Parquet file for a line a user.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rank the whole catalogue for held-out users and measure, with 95 % bootstrap intervals over users.

    Example: recsparse evaluate model split --metric ndcg@20 --metric recall@50
    """
    from recsparse.evaluation import DEFAULT_METRICS
    from recsparse.evaluation import evaluate as run
    from recsparse.interactions import read_split
    from recsparse.models import Recommender

    if on not in ("test", "validation"):
        raise ConfigError(f"--on is {on!r}; it must be test or validation.")
    parts = read_split(data)
    holdout = parts.test if on == "test" else parts.validation
    found = run(
        Recommender.load(model), holdout, metric or DEFAULT_METRICS, role="test" if on == "test" else "validation"
    )
    if output:
        found.save(output)
    summaries = {name: summary.to_dict() for name, summary in found.summaries.items()}
    if as_json:
        answer(summaries, as_json, "")
        return
    lines = {
        name: f"{each['mean']:.4f}  [{each['low']:.4f}, {each['high']:.4f}]  {each['users']:,} users"
        for name, each in summaries.items()
    }
    answer(lines, as_json, f"{on} users of {data}")


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


def _settings(pairs: list[str] | None) -> dict[str, Any]:
    """Read NAME=VALUE: a number, true or false, a JSON value, or else text."""
    settings: dict[str, Any] = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise ConfigError(f"--set is {pair!r}; it must be NAME=VALUE, for example dim=64.")
        try:
            settings[name] = json.loads(text)
        except json.JSONDecodeError:
            settings[name] = text
    return settings
