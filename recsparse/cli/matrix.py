"""``recsparse build`` and ``recsparse split``: from raw files to training and test."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer

from recsparse.cli.console import AsJson, Output, Overwrite, Settings, answer, progress, read_settings
from recsparse.errors import ColumnError, ConfigError


def build(
    source: Annotated[
        str,
        typer.Argument(
            help="A file, glob or directory (CSV, TSV, JSON lines, Parquet); a card's name; or a TOML file "
            "that describes ratings, users and items."
        ),
    ],
    output: Output,
    user: Annotated[
        str | None, typer.Option(help="The users' column: its name, or its number from 1; user_id if not given.")
    ] = None,
    item: Annotated[str | None, typer.Option(help="The items' column; item_id if not given.")] = None,
    value: Annotated[
        str | None, typer.Option(help="The ratings' column; without it every interaction counts 1.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="The times' column: epoch seconds, milliseconds or ISO.")] = None,
    delimiter: Annotated[str | None, typer.Option(help="Between columns; seen from the file if not given.")] = None,
    header: Annotated[bool | None, typer.Option(help="Whether the first line names the columns.")] = None,
    ids: Annotated[str | None, typer.Option(help="string keeps ids of which only some are integers as text.")] = None,
    since: Annotated[int | None, typer.Option(help="Leave out what is before (seconds since the epoch).")] = None,
    until: Annotated[int | None, typer.Option(help="Leave out what is then or later.")] = None,
    min_value: Annotated[float | None, typer.Option(help="Leave out interactions with a lower rating.")] = None,
    duplicates: Annotated[str | None, typer.Option(help="Of repeated pairs keep: last, max, sum or count.")] = None,
    transform: Annotated[str | None, typer.Option(help="implicit (all values 1), log1p or sqrt.")] = None,
    min_user: Annotated[int | None, typer.Option(help="Leave out users with fewer items.")] = None,
    min_item: Annotated[int | None, typer.Option(help="Leave out items with fewer users.")] = None,
    k_core: Annotated[
        int | None, typer.Option(help="Leave out users and items with fewer, again and again, until none is left.")
    ] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Add to the dataset that is there, cleaned as it was built.")
    ] = False,
    engine: Annotated[str, typer.Option(help="duckdb (this machine) or spark; equal bytes.")] = "duckdb",
    master: Annotated[str | None, typer.Option(help="Spark's master; local[*] if not given.")] = None,
    memory: Annotated[str | None, typer.Option(help="DuckDB's limit, for example 4GB; what is more spills.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="DuckDB's threads; all cores if not given.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Build the user x item matrix in Parquet from ratings of any size.

    Example: recsparse build ratings.csv --user userId --item movieId --value rating --time timestamp -o data
    """
    from recsparse.interactions import Cleaning, load_card
    from recsparse.interactions import append as add
    from recsparse.interactions import build as make
    from recsparse.interactions.store import read_info
    from recsparse.validation import validate

    cleaning = _given(
        since=since, until=until, min_value=min_value, duplicates=duplicates, transform=transform, min_user=min_user,
        min_item=min_item, k_core=k_core,
    )  # fmt: skip
    columns = _given(user=user, item=item, value=value, time=time, delimiter=delimiter, header=header, ids=ids)
    read = _source(source, columns)
    how: dict[str, Any] = {"engine": _engine(engine, master), "memory_limit": memory, "threads": threads}
    if engine == "spark" and (memory or threads):
        raise ConfigError("--memory and --threads are DuckDB's; give Spark its own with its configuration files.")
    described = isinstance(read, str) or source.endswith(".toml")
    with progress() as tell, _naming_the_columns(described=described):
        if append and (cleaning or overwrite):
            words = ", ".join(f"--{name.replace('_', '-')}" for name in [*cleaning, *["overwrite"] * overwrite])
            raise ConfigError(f"--append adds to {output} as it was built; leave out {words}.")
        if append:
            add(read, output, progress=tell, **how)
        else:
            if isinstance(read, str):
                cleaning = load_card(read).cleaning.model_dump(exclude_defaults=True) | cleaning
            checked = validate(Cleaning, cleaning, "build")
            make(read, output, cleaning=checked, overwrite=overwrite, progress=tell, **how)
    info = read_info(output)
    said = {"directory": output, **info["counts"], "density": info["density"]}
    answer(said, as_json, "added" if append else "built")


@contextmanager
def _naming_the_columns(*, described: bool) -> Iterator[None]:
    """Say which options name the columns, unless a card or a TOML file does."""
    try:
        yield
    except ColumnError as error:
        if described:
            raise
        raise ColumnError(f"{error} Name its columns with --user, --item, --value and --time.") from error


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _source(source: str, columns: dict[str, Any]) -> Any:
    """What to read: a description, or a card's name as it is."""
    import tomllib

    from recsparse.interactions import Source, list_cards
    from recsparse.validation import validate

    path = Path(source)
    if path.exists() or source.partition(":")[0] not in list_cards():
        if path.suffix != ".toml":
            ratings = {name: int(text) if str(text).isdecimal() and name not in ("delimiter", "header") else text
                       for name, text in columns.items()}  # fmt: skip
            return validate(Source, {"ratings": {"path": source, **ratings}}, "build")
        if not columns:
            try:
                return validate(Source, tomllib.loads(path.read_text(encoding="utf-8")), source)
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise ConfigError(f"{source} is not TOML: {error}.") from error
    if columns:
        raise ConfigError(f"{source} says itself how its files are read; leave out --{', --'.join(columns)}.")
    return source


def _engine(name: str, master: str | None) -> Any:
    if name == "spark":
        from recsparse.interactions.spark import spark_engine

        return spark_engine(master or "local[*]")
    if name != "duckdb":
        raise ConfigError(f"--engine is {name!r}; it must be duckdb or spark.")
    if master:
        raise ConfigError("--master is Spark's; add --engine spark.")
    return None


def split(
    data: Annotated[str, typer.Argument(help="A dataset directory; with --protocol published a card's name.")],
    output: Output,
    protocol: Annotated[
        str,
        typer.Option(help="strong, few-shot, random, 50-25-25, leave-last, time, cold-users, cold-items, mult-vae; "
                          "published (with the card); parts (with --validation and --test)."),
    ] = "strong",
    validation: Annotated[Path | None, typer.Option(help="The validation part, a dataset directory.")] = None,
    test: Annotated[Path | None, typer.Option(help="The test part; DATA is then the training part.")] = None,
    seed: Annotated[int | None, typer.Option(help="Decides all that is random; 0, or as published.")] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Cut a dataset into training, validation and test, and say what leaks.

    Example: recsparse split data -o split --protocol strong --set test=0.2 --set target=0.2
    """
    from recsparse.interactions import Interactions, Split, published_split, read, write_split
    from recsparse.interactions.published import mult_vae, predefined
    from recsparse.interactions.split_stream import split_directory

    def parts(data: Interactions) -> Split:
        if validation is None or test is None:
            raise ConfigError("The protocol parts needs --validation and --test, each a dataset directory.")
        return predefined(data, read(validation), read(test))

    options = read_settings(settings) | ({} if seed is None else {"seed": seed})
    others: dict[str, Callable[..., Split]] = {"mult-vae": mult_vae, "parts": parts, "published": published_split}
    if protocol in others:
        known = [name for name, one in signature(others[protocol]).parameters.items() if one.kind is one.KEYWORD_ONLY]
        if unknown := sorted(set(options) - set(known)):
            raise ConfigError(f"The protocol {protocol} has no option {unknown[0]!r}; it has: {', '.join(known)}.")
    if protocol != "parts" and (validation or test):
        raise ConfigError("--validation and --test name published parts; add --protocol parts.")
    with progress() as tell:
        tell("split", 0, None)
        made: Split | None
        if protocol == "published":
            made = published_split(data, progress=tell, **options)
        elif protocol in others:
            made = others[protocol](read(Path(data)), **options)
        else:
            split_directory(Path(data), output, protocol, overwrite=overwrite, progress=tell, **options)
            made = None
        if made is not None:
            write_split(made, output, overwrite=overwrite)
    report = json.loads((output / "split.json").read_text(encoding="utf-8"))["report"]
    answer({"directory": output, **report}, as_json, f"split by {protocol}")
