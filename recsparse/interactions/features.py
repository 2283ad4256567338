"""The features of users and items, joined to the rows that the ratings gave them."""
# ruff: noqa: S608 (SQL is put together from our own names and from what the user's own source says)

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsparse.errors import DataError
from recsparse.interactions.engine import Engine, quoted
from recsparse.interactions.ids import INTEGER
from recsparse.interactions.layout import Layout, find_layout
from recsparse.interactions.source import Column, Features

TYPES = {"string": "STRING", "integer": "BIGINT", "float": "DOUBLE"}


@dataclass(frozen=True)
class Joined:
    """What the users or items become."""

    select: str
    """The query, in row order."""
    coverage: dict[str, int]
    """Lines in the feature files, and how many of them have a known id."""
    files: tuple[Path, ...]


def join_features(
    engine: Engine, spec: Features | None, table: str, *, id_kind: str, root: Path, work: Path, old: Path | None
) -> Joined:
    """Join features to ``users`` or ``items`` (id, code), whose codes are dense.

    Args:
        engine: has the table.
        spec: the feature files; None for none.
        table: ``users`` or ``items``.
        id_kind: ``BIGINT`` or ``STRING``.
        root: where the files' paths start.
        work: for what has to be extracted.
        old: the dataset that is appended to; its features count where the files say nothing.

    Raises:
        DataError: an id has two lines, no id is known, a value is not of the type that was asked for, or the columns
            are not those of the old dataset.
    """
    before = _before(engine, table, old) if old else {}
    coverage: dict[str, int] = {}
    files: tuple[Path, ...] = ()
    typed: dict[str, str] = {}
    joins = f"{table} x"
    if spec is not None:
        layout = find_layout(spec, root, work / f"{table}-features", spec.id, *spec.columns.values())
        coverage, files = _read(engine, spec, table, layout), layout.files
        if old and list(before) != list(spec.columns):
            raise DataError(f"{layout.files[0]} gives the features {list(spec.columns)}, {old} has {list(before)}.")
        for number, (name, column) in enumerate(spec.columns.items()):
            value = _typed(engine, table, layout, (name, column), number, before.get(name))
            typed[name] = f"COALESCE({value}, b.f{number})" if old else value
        joins += f" LEFT JOIN {table}_features f ON f.id = x.id"
    elif before:
        typed = {name: f"b.f{number}" for number, name in enumerate(before)}
    if before:
        joins += f" LEFT JOIN {table}_before b ON b.id = x.id"
    columns = [f"CAST(x.id AS {id_kind}) AS {table[:-1]}_id", *(f"{sql} AS {_name(n)}" for n, sql in typed.items())]
    return Joined(f"SELECT {', '.join(columns)} FROM {joins} ORDER BY x.code", coverage, files)


def _before(engine: Engine, table: str, old: Path) -> dict[str, str]:
    """Make ``users_before`` or ``items_before`` of the old dataset; give its features' types."""
    file = old / f"{table}.parquet"
    schema = pq.read_schema(file)
    engine.scan(f"{table}_old", Layout((file,), "parquet", tuple(schema.names), ("text",) * len(schema), ()))
    columns = ", ".join(f"c{place + 2} AS f{place}" for place in range(len(schema) - 1))
    if not columns:
        return {}
    engine.create(f"{table}_before", f"SELECT CAST(c1 AS STRING) AS id, {columns} FROM {table}_old")
    return {field.name: _kind(field.type) for field in list(schema)[1:]}


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "integer"
    return "float" if pa.types.is_floating(kind) else "string"


def _read(engine: Engine, spec: Features, table: str, layout: Layout) -> dict[str, int]:
    """Make ``users_features`` or ``items_features`` (id, f0, f1, ...), one line an id."""
    engine.scan(f"{table}_files", layout)
    columns = "".join(f", {layout.sql(column)} AS f{number}" for number, column in enumerate(spec.columns.values()))
    engine.create(
        f"{table}_features",
        f"SELECT trim(CAST({layout.sql(spec.id)} AS STRING)) AS id{columns} FROM {table}_files "
        f"WHERE {spec.where or 'TRUE'}",
    )
    repeated = engine.rows(f"SELECT id, count(*) FROM {table}_features GROUP BY id HAVING count(*) > 1 LIMIT 1")
    if repeated:
        raise DataError(f"{layout.files[0]} has {repeated[0][1]} lines for the id {repeated[0][0]!r}; keep one.")
    known, lines = engine.rows(
        f"SELECT count(x.id), count(*) FROM {table}_features f LEFT JOIN {table} x ON f.id = x.id"
    )[0]
    if not known:
        raise DataError(
            f"None of the {lines} ids in {layout.files[0]} is one of the {table}' ids; is it the right column?"
        )
    return {"lines": lines, "known": known}


def _name(name: str) -> str:
    if not name.isidentifier():
        raise DataError(f"The feature name {name!r} must be letters, digits and underscores.")
    return name


def _typed(
    engine: Engine, table: str, layout: Layout, feature: tuple[str, Column], number: int, before: str | None
) -> str:
    """Give the SQL of one feature in its type."""
    name, column = feature
    value = f"f.f{number}"
    if column.separator is not None:
        return f"split_text(nullif(trim({value}), ''), {quoted(column.separator)})"
    if layout.type(column) in {"list", "number", "integer", "time"} and column.type == "auto":
        return value
    text = f"nullif(trim(CAST({value} AS STRING)), '')"
    kind = before or (column.type if column.type != "auto" else _seen_type(engine, table, number))
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
