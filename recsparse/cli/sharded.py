"""``recsparse plan``, and ``recsparse train`` on many ranks."""

import json
import os
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table as Lines

from recsparse.cli.console import AsJson, Settings, answer, err, out, progress, read_settings
from recsparse.errors import ConfigError, RecsparseError

if TYPE_CHECKING:
    from recsparse.distributed import Plan, PlannedTable, TrainConfig

FromFile = Annotated[
    Path | None, typer.Option("--settings", help="TOML or JSON file of settings; each --set goes on top.")
]


def read_file(file: Path) -> dict[str, Any]:
    """Read settings, TOML or JSON."""
    try:
        text = file.read_text(encoding="utf-8")
        found = json.loads(text) if file.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read as settings in TOML or JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file} holds {type(found).__name__}; it must hold a setting a line.")
    return found


def all_settings(file: Path | None, pairs: list[str] | None) -> dict[str, Any]:
    """The file's settings with those of the command line on top."""
    from recsparse.pipeline.rows import with_settings

    return with_settings({} if file is None else read_file(file), read_settings(pairs))


def under_torchrun() -> bool:
    """Whether this process is one of several ranks."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def train_sharded(
    data: Path, output: Path, settings: dict[str, Any], ranks: int | None, *, restarts: int, as_json: bool
) -> None:
    """Be one of torchrun's ranks, or start them."""
    from recsparse.distributed import TrainConfig, train_on_ranks

    if given := {"data", "output"} & settings.keys():
        raise ConfigError(f"{' and '.join(sorted(given))} of a sharded training stand on the command line; leave out.")
    config = TrainConfig.parse({"data": data, "output": output, **settings}, "settings")
    if under_torchrun():
        if ranks is not None:
            raise ConfigError("torchrun says how many ranks there are; leave out --ranks.")
        _be_a_rank(config, as_json=as_json)
        return
    summary = train_on_ranks(config, ranks or 1, restarts=restarts, say=lambda line: err.print(line, highlight=False))
    _answer(config, summary, as_json=as_json)


def _be_a_rank(config: "TrainConfig", *, as_json: bool) -> None:
    from recsparse.distributed import train

    first = os.environ["RANK"] == "0"
    try:
        if not first:
            train(config)
            return
        with progress() as tell:

            def say(done: int, of: int, validation: list[dict[str, float]]) -> None:
                if validation and done % (of // config.epochs) == 0:
                    found = ", ".join(f"{name} {value:.4f}" for name, value in validation[-1].items())
                    tell(f"train mf epoch {len(validation)}: {found}", done, of)
                tell(f"train mf: step {done:,} of {of:,}", done, of)

            summary = train(config, say)
    except RecsparseError as error:  # all ranks say the same, but of a rank that is lost each its own
        if first or "waited" in str(error) or "lost another rank" in str(error):
            raise
        raise typer.Exit(1) from error
    _answer(config, summary, as_json=as_json)


def _answer(config: "TrainConfig", summary: dict[str, Any], *, as_json: bool) -> None:
    told = ("ranks", "steps", "resumed_at", "seconds", "samples_per_second", "loss")
    said: dict[str, Any] = {"directory": config.output, **{name: summary[name] for name in told}}
    said |= {f"sharding of {table}": kind for table, kind in summary["sharding"].items()}
    said["bytes sent a rank and step"] = sum(summary["bytes_sent_per_step"]) / summary["ranks"]
    said |= {f"bytes of {table}": sizes["nbytes"] for table, sizes in summary["packed"].items()}
    if "epoch" in summary:
        said["epoch"] = summary["epoch"]
    said |= summary["metrics"] or {"no metrics": summary["metrics_note"]}
    answer(said, as_json, f"trained mf on {summary['ranks']} ranks")


def plan(
    dataset: Annotated[Path | None, typer.Option(help="A dataset or split directory: its users and items.")] = None,
    tables: Annotated[
        Path | None,
        typer.Option(help="Or TOML or JSON: a list `tables` of name, rows, dim, lookups, recipe, ..."),
    ] = None,
    world_size: Annotated[int, typer.Option(min=1, help="Devices.")] = 1,
    device_memory: Annotated[str, typer.Option(help="Of each device, for example 80GiB.")] = "80GiB",
    device: Annotated[str, typer.Option(help="cuda or cpu.")] = "cuda",
    recipe: Annotated[
        str | None, typer.Option(help='For tables without their own, in JSON: {"density":0.1,"granularity":"row"}.')
    ] = None,
    file: FromFile = None,
    settings: Settings = None,
    as_json: AsJson = False,
) -> None:
    """Say whether tables fit on N devices, how they would be sharded and at what cost, dense against sparse.

    Torchrec's planner on paper, with the sizes after sparsity: nothing is trained and no device is needed. With --dataset
    the settings are those of `recsparse train --ranks` (--settings FILE, --set items.budget.rows=100000); with --tables
    only optimiser and batch_size count.

    Example: recsparse plan --dataset data --world-size 4 --device-memory 16GiB --recipe '{"density":0.1,"granularity":"row"}'
    """  # noqa: E501 (the example)
    from recsparse.distributed import TrainConfig
    from recsparse.distributed import plan as make
    from recsparse.distributed.planning import planned_tables, read_tables
    from recsparse.interactions.store import read_info, read_table
    from recsparse.models.features import Encoding
    from recsparse.scoring.memory import parse_bytes

    if (dataset is None) == (tables is None):
        raise ConfigError("Give --dataset DIR or --tables FILE, one of them.")
    if device not in ("cuda", "cpu"):
        raise ConfigError(f"--device is {device!r}; it must be cuda or cpu.")
    config = TrainConfig.parse({"data": ".", "output": "."} | all_settings(file, settings), "settings")
    if dataset is not None:
        part = dataset / "train" if (dataset / "split.json").exists() else dataset
        counts = read_info(part)["counts"]
        features = (
            0 if side is None else len(Encoding.of(read_table(part / name)).names)
            for name, side in (("users.parquet", config.user_features), ("items.parquet", config.item_features))
        )  # fmt: skip
        asked = planned_tables(config, int(counts["users"]), int(counts["items"]), *features)
    else:
        asked = read_tables(read_file(tables), str(tables))  # type: ignore[arg-type]
    asked = _with_recipe(asked, recipe)
    with progress() as tell:
        tell("plan", 0, None)
        found = make(
            asked, world_size=world_size, device_memory=parse_bytes(device_memory),
            device=device,  # type: ignore[arg-type]
            optimiser=config.optimiser, batch_size=config.batch_size,
        )  # fmt: skip
    if as_json:
        answer(asdict(found), as_json, "")
        return
    out.print(_lines(found, f"{len(asked)} tables on {world_size} {device} devices of {device_memory}"))
    for name, layout in (("dense", found.dense), ("sparse", found.sparse)):
        if not layout.fits:
            out.print(f"{name} does not fit: {layout.reason}", markup=False, highlight=False)


def _with_recipe(asked: "list[PlannedTable]", text: str | None) -> "list[PlannedTable]":
    from recsparse.sparsity import Recipe

    if text is None:
        return asked
    try:
        given = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f'--recipe is {text!r}; write JSON, for example {{"density":0.1,"granularity":"row"}}.'
        ) from error
    recipe = Recipe.parse(given)
    return [table if table.recipe or table.budget else replace(table, recipe=recipe) for table in asked]


def _lines(found: "Plan", title: str) -> Lines:
    from recsparse.report.words import human_bytes

    lines = Lines("", "dense", "sparse", title=title)
    both = (found.dense, found.sparse)

    def add(name: str, *values: str) -> None:
        lines.add_row(name, *values)

    def where_it_fits(text: Any) -> list[str]:
        return [text(layout) if layout.fits else "-" for layout in both]

    add("fits", *("yes" if layout.fits else "no" for layout in both))
    add(
        "fewest devices that fit",
        *("none up to 16,384" if each.smallest is None else f"{each.smallest:,}" for each in both),
    )
    for table in found.served:
        add(f"sharding of {table}", *where_it_fits(lambda layout, table=table: layout.sharding[table]))
    add("weights in training, all devices", *(human_bytes(layout.weight_bytes) for layout in both))
    add("fullest device in training", *where_it_fits(lambda layout: human_bytes(layout.bytes_per_device)))
    add("of it remaps and utilities", "-", human_bytes(found.copied_bytes))
    add("step, estimated", *where_it_fits(lambda layout: f"{layout.milliseconds:,.3g} ms"))
    add("sent a device and step", *where_it_fits(lambda layout: human_bytes(layout.traffic)))
    for table, size in found.served.items():
        add(f"{table} when served", human_bytes(found.served_dense[table]), human_bytes(size))
    return lines
