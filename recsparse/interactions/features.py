"""The features of users and items, joined to the rows that the ratings gave them."""
# ruff: noqa: S608 (SQL is put together from our own names and from what the user's own source says)

from pathlib import Path
from typing import Any

from recsparse.errors import DataError
from recsparse.interactions.engine import Engine, quoted
from recsparse.interactions.ids import INTEGER
from recsparse.interactions.layout import Layout, find_layout
from recsparse.interactions.source import Column, Features

TYPES = {"string": "STRING", "integer": "BIGINT", "float": "DOUBLE"}


def join_features(
    engine: Engine, spec: Features | None, table: str, *, root: Path, work: Path, id_kind: str
) -> tuple[str, dict[str, Any], tuple[Path, ...]]:
    """Give the query for ``users.parquet`` or ``items.parquet``, what it covers, and the files it reads.

    Args:
        engine: has ``users`` or ``items`` (id, code) with dense codes.
        spec: the feature files; None for none.
        table: ``users`` or ``items``.
        root: where the files' paths start.
        work: for what has to be extracted.
        id_kind: ``BIGINT`` or ``STRING``.

    Raises:
        DataError: an id has two lines, no id is known, or a value is not of the type that was asked for.
    """
    id_name = f"{table[:-1]}_id"
    select = f"SELECT CAST(x.id AS {id_kind}) AS {id_name}"
    if spec is None:
        return f"{select} FROM {table} x ORDER BY x.code", {}, ()
    layout = find_layout(spec, root, work / f"{table}-features", spec.id, *spec.columns.values())
    engine.scan(f"{table}_files", layout)
    columns = [f"{layout.sql(column)} AS f{number}" for number, column in enumerate(spec.columns.values())]
    where = f" WHERE {spec.where}" if spec.where else ""
    engine.create(
        f"{table}_features",
        f"SELECT trim(CAST({layout.sql(spec.id)} AS STRING)) AS id, {', '.join(columns)} FROM {table}_files{where}",
    )
    _refuse_repeats(engine, table, layout)
    known, lines = engine.rows(
        f"SELECT count(x.id), count(*) FROM {table}_features f LEFT JOIN {table} x ON f.id = x.id"
    )[0]
    if not known:
        raise DataError(
            f"None of the {lines} ids in {layout.files[0]} is one of the {table}' ids; is it the right column?"
        )
    for number, (name, column) in enumerate(spec.columns.items()):
        select += f", {_typed(engine, table, layout, (name, column), number)} AS {_name(name)}"
    covered = {"lines": lines, "known": known}
    return f"{select} FROM {table} x LEFT JOIN {table}_features f ON f.id = x.id ORDER BY x.code", covered, layout.files


def _name(name: str) -> str:
    if not name.isidentifier():
        raise DataError(f"The feature name {name!r} must be letters, digits and underscores.")
    return name


def _refuse_repeats(engine: Engine, table: str, layout: Layout) -> None:
    repeated = engine.rows(f"SELECT id, count(*) FROM {table}_features GROUP BY id HAVING count(*) > 1 LIMIT 1")
    if repeated:
        raise DataError(f"{layout.files[0]} has {repeated[0][1]} lines for the id {repeated[0][0]!r}; keep one.")


def _typed(engine: Engine, table: str, layout: Layout, feature: tuple[str, Column], number: int) -> str:
    """Give the SQL of one feature in its type."""
    name, column = feature
    value = f"f.f{number}"
    if column.separator is not None:
        return f"split(nullif(trim({value}), ''), {quoted(column.separator)})"
    if layout.type(column) in {"list", "number", "integer", "time"} and column.type == "auto":
        return value
    text = f"nullif(trim(CAST({value} AS STRING)), '')"
    kind = column.type if column.type != "auto" else _seen_type(engine, table, number)
    if kind != "string":
        wrong = engine.rows(
            f"SELECT f.id, {value} FROM {table}_features f WHERE {text} IS NOT NULL "
            f"AND TRY_CAST({text} AS {TYPES[kind]}) IS NULL LIMIT 1"
        )
        if wrong:
            raise DataError(f"{layout.files[0]}: the {name} of {wrong[0][0]!r} is {wrong[0][1]!r}, not {kind}.")
    return f"TRY_CAST({text} AS {TYPES[kind]})"


def _seen_type(engine: Engine, table: str, number: int) -> str:
    """Call a feature integer if every value is one, a float if every value is a number, else text."""
    value = f"nullif(trim(CAST(f{number} AS STRING)), '')"
    given, integers, numbers = engine.rows(
        f"SELECT count({value}), count(CASE WHEN regexp_like({value}, '{INTEGER}') THEN 1 END), "
        f"count(TRY_CAST({value} AS DOUBLE)) FROM {table}_features"
    )[0]
    if given and given == integers:
        return "integer"
    return "float" if given and given == numbers else "string"
