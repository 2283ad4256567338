"""``recsparse train``, ``evaluate`` and ``inspect``: one model, its figures, its table."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table as Lines

from recsparse.cli.console import AsJson, Output, Overwrite, Settings, answer, out, progress
from recsparse.cli.sharded import FromFile, all_settings, train_sharded, under_torchrun
from recsparse.errors import ConfigError, DivergenceError


def train(
    data: Annotated[Path, typer.Argument(help="A split directory (its training part is used) or a dataset directory.")],
    output: Output,
    kind: Annotated[str | None, typer.Option(help="popularity, ease, ials, ...; sharded: mf.  [default: ials]")] = None,
    file: FromFile = None,
    settings: Settings = None,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Train mf sharded over so many processes, which torchrun starts here.")
    ] = None,
    restarts: Annotated[int, typer.Option(min=0, help="With --ranks: how often to go on after a rank died.")] = 3,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="A file written after each epoch; a training that was killed goes on from it."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Fit one model and save it with its packed table.

    With patience among the settings, training stops after so many epochs without a better metric on the split's
    validation users, and keeps the best epoch. A training that diverges saves the model of the best epoch before, and
    the command fails.

    With --ranks N, or started by torchrun on any number of machines, matrix factorisation is trained with its tables
    sharded over the ranks (torchrec). Settings are then TrainConfig's (docs/distributed.md), training goes on from the
    last checkpoint in --output, and packed tables come to be there.

    Example: recsparse train split -o model --set dim=64 --set recipe.density=0.0625 --set value_type=int8

    Example: recsparse train split -o model --kind mf --set epochs=200 --set patience=5 --checkpoint mf.checkpoint

    Example: recsparse train split -o run --ranks 2 --set dim=64 --set items.recipe.density=0.125
    """
    params = all_settings(file, settings)
    if ranks is not None or under_torchrun():
        if kind not in (None, "mf"):
            raise ConfigError(f"--kind is {kind}; sharded training knows mf.")
        if overwrite:
            raise ConfigError("Sharded training goes on from what --output holds; choose another one, or remove it.")
        if checkpoint is not None:
            raise ConfigError("Sharded training has its checkpoints in --output; leave --checkpoint out.")
        train_sharded(data, output, params, ranks, restarts=restarts, as_json=as_json)
        return
    kind = kind or "ials"
    from recsparse.interactions import read, read_split
    from recsparse.models.factors import FactorModel
    from recsparse.pipeline.fit import fit
    from recsparse.pipeline.rows import make

    where = "--set" if file is None else str(file)
    model = make(kind, params, where)
    split = read_split(data) if (data / "split.json").exists() else None
    interactions = read(data) if split is None else split.train
    with progress() as tell:
        tell(f"train {kind}", 0, None)
        try:
            fit(
                model, params, interactions, None if split is None else split.validation,
                lambda news, done, total: tell(f"train {kind}: {news}", done, total),
                checkpoint=checkpoint, where=where,
            )  # fmt: skip
        except DivergenceError as error:
            model.save(output, overwrite=overwrite)
            raise DivergenceError(f"{error} It is saved in {output}.") from error
    model.save(output, overwrite=overwrite)
    said: dict[str, Any] = {"directory": output, "users": interactions.shape[0], "items": interactions.shape[1]}
    if "patience" in params:
        said["epochs"] = model.get_params()["epochs"]
    if isinstance(model, FactorModel):
        said |= {"layout": model.item_table_.layout, "bytes": model.item_table_.nbytes}
        said |= {f"bytes of {part}": size for part, size in model.item_table_.breakdown().items()}
    answer(said, as_json, f"trained {kind}")


def evaluate(
    model: Annotated[Path, typer.Argument(help="A saved model.")],
    data: Annotated[Path, typer.Argument(help="A split directory.")],
    on: Annotated[str, typer.Option(help="test, or validation (while settings are being chosen).")] = "test",
    metric: Annotated[list[str] | None, typer.Option(help="ndcg@20, recall@50, ...; may be repeated.")] = None,
    ratings: Annotated[
        bool, typer.Option("--ratings", help="RMSE and MAE of the ratings that biased-mf predicts, instead.")
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Parquet file for a line a user.")] = None,
    as_json: AsJson = False,
) -> None:
    """Rank the whole catalogue for held-out users and measure, with 95 % bootstrap intervals over users.

    Example: recsparse evaluate model split --metric ndcg@20 --metric recall@50

    Example: recsparse evaluate rated split --ratings
    """
    from recsparse.evaluation import DEFAULT_METRICS
    from recsparse.evaluation import evaluate as measure
    from recsparse.evaluation.ratings import rating_errors
    from recsparse.interactions import read_split
    from recsparse.models import BiasedMF, Recommender

    if on not in ("test", "validation"):
        raise ConfigError(f"--on is {on!r}; it must be test or validation.")
    parts = read_split(data)
    holdout = parts.test if on == "test" else parts.validation
    if ratings:
        if metric or output:
            raise ConfigError("--ratings goes without --metric and --output; measure lists by a command of their own.")
        if not isinstance(loaded := Recommender.load(model), BiasedMF):
            raise ConfigError(f"{model} is {loaded.kind}, whose scores are no ratings; --ratings is for biased-mf.")
        answer(asdict(rating_errors(loaded, holdout)), as_json, f"ratings of {on} users of {data}")
        return
    with progress() as tell:
        tell("evaluate", 0, None)
        role = "test" if on == "test" else "validation"
        found = measure(Recommender.load(model), holdout, metric or DEFAULT_METRICS, role=role)  # type: ignore[arg-type]
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


def inspect(
    table: Annotated[
        Path,
        typer.Argument(help="A packed table (.safetensors, or a directory of shards), or a saved model's directory."),
    ],
    as_json: AsJson = False,
) -> None:
    """Say what a packed table takes, for what, and what other layouts and the entropy of its support would take.

    Example: recsparse inspect model
    """
    from recsparse.models.factors import ITEM_TABLE
    from recsparse.tables import inspect as measure
    from recsparse.tables import load_table
    from recsparse.tables.storage import INDEX

    in_model = table / ITEM_TABLE
    found = measure(load_table(in_model if table.is_dir() and not (table / INDEX).exists() else table))
    if as_json:
        answer(found, as_json, "")
        return
    _show(found, str(table))


def _show(found: dict[str, Any], title: str) -> None:
    rows, dim = found.pop("shape")
    breakdown, layouts, parts = (found.pop(name, {}) for name in ("breakdown", "layouts", "parts"))
    nbytes = found["nbytes"]
    said = {"rows": rows, "dim": dim, **found, "bytes a row": nbytes / max(rows, 1)}
    answer(said | {f"bytes of {part}": size for part, size in breakdown.items()}, False, title)
    if layouts:
        lines = Lines("layout", "bytes", "of this table's", title="The same entries in every layout")
        for layout, size in layouts.items():
            lines.add_row(layout, f"{size:,}", f"{size / max(nbytes, 1):.2f}")
        out.print(lines)
    for name, part in parts.items():
        _show(part, f"{title}: {name}")
