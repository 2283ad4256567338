"""The lines of rating files as a checked table ``lines``: user_id, item_id, value[, t], line."""
# ruff: noqa: S608 (SQL is put together from our own names and from what the user's own source says)

from recsparse.errors import DataError
from recsparse.interactions.engine import Engine
from recsparse.interactions.layout import Layout
from recsparse.interactions.source import Column, Ratings

LARGEST = 3.4028234663852886e38
MILLISECONDS = 100_000_000_000
"""A number of seconds this large is the year 5138; data with such times count milliseconds."""


def time_unit(spec: Ratings, layout: Layout) -> str | None:
    """Say how the times are written; None where there are none."""
    if spec.time is None:
        return None
    if spec.time_unit != "auto":
        return spec.time_unit
    if layout.type(spec.time) == "time":
        return "iso"
    position = layout.position(spec.time)
    first = None if position is None or not layout.first else layout.first[position]
    try:
        return "milliseconds" if float(first or 0) > MILLISECONDS else "seconds"
    except ValueError:
        return "iso"


def read_lines(engine: Engine, spec: Ratings, layout: Layout) -> int:
    """Read the files once into ``lines``, check every value, and give the number of lines.

    Raises:
        DataError: an id is missing, or a value or a time is missing, unparsable, not finite or negative.
    """
    for role in (spec.user, spec.item):
        if layout.type(role) == "number":
            raise DataError(f"{layout.files[0]}: the ids in {role.name or role.position} are floating-point numbers.")
    engine.scan("files", layout)
    columns = [
        f"CAST({layout.sql(spec.user)} AS STRING) AS user_id",
        f"CAST({layout.sql(spec.item)} AS STRING) AS item_id",
        "CAST(1 AS FLOAT) AS value" if spec.value is None else f"{_number(layout, spec.value)} AS value",
    ]
    unit = time_unit(spec, layout)
    if spec.time is not None and unit is not None:
        columns.append(f"{_time(layout, spec.time, unit)} AS t")
    engine.number("lines", columns, "files", spec.where)
    return _check(engine, spec, layout)


def _number(layout: Layout, column: Column) -> str:
    """Parse a number; None where it is none.

    DuckDB pushes a bare TRY_CAST into its CSV reader, where what cannot be cast is an error; hence the trim.
    """
    sql = layout.sql(column)
    return (
        f"CAST({sql} AS FLOAT)" if layout.type(column) in {"integer", "number"} else f"TRY_CAST(trim({sql}) AS FLOAT)"
    )


def _time(layout: Layout, column: Column, unit: str) -> str:
    """Parse a time to whole seconds, rounded down; None where it is none."""
    sql = layout.sql(column)
    if unit == "iso":
        return f"unix_seconds(TRY_CAST({sql} AS TIMESTAMP))"
    scale = " / 1000" if unit == "milliseconds" else ""
    return f"TRY_CAST(floor(TRY_CAST({sql} AS DOUBLE){scale}) AS BIGINT)"


def _check(engine: Engine, spec: Ratings, layout: Layout) -> int:
    faults = {
        "user": "user_id IS NULL OR trim(user_id) = ''",
        "item": "item_id IS NULL OR trim(item_id) = ''",
        "value": f"value IS NULL OR NOT abs(CAST(value AS DOUBLE)) <= {LARGEST!r}",
    }
    if spec.time is not None:
        faults["time"] = "t IS NULL OR t < 0"
    counts = ", ".join(f"count(CASE WHEN {fault} THEN 1 END)" for fault in faults.values())
    total, *found = engine.rows(f"SELECT count(*), {counts} FROM lines")[0]
    if not total:
        raise DataError(f"{layout.files[0]} holds no line of data{' that the condition keeps' if spec.where else ''}.")
    for (role, fault), count in zip(faults.items(), found, strict=True):
        if count:
            raise DataError(_describe(engine, spec, layout, role, fault=fault, count=count))
    return int(total)


def _describe(engine: Engine, spec: Ratings, layout: Layout, role: str, *, fault: str, count: int) -> str:
    """Say what is wrong with the first faulty line, as it stands in the file."""
    line = engine.rows(f"SELECT min(line) FROM lines WHERE {fault}")[0][0]
    user, item = engine.rows(f"SELECT user_id, item_id FROM lines WHERE line = {line}")[0]
    column: Column = getattr(spec, role)
    engine.number("faults", [f"CAST({layout.sql(column)} AS STRING) AS raw"], "files", spec.where)
    text = engine.rows(f"SELECT raw FROM faults WHERE line = {line}")[0][0]
    single = engine.exact_lines and len(layout.files) == 1 and not spec.where
    where = f"{layout.files[0]}, line {line + 1 + layout.header}" if single else f"{layout.files[0].parent}"
    name = column.name or (f"column {column.position}" if column.position else column.sql)
    wanted = {
        "user": "an id", "item": "an id", "value": "a finite number",
        "time": f"a time in {time_unit(spec, layout)} that is not negative",
    }[role]  # fmt: skip
    more = f" ({count} such lines)" if count > 1 else ""
    shown = "is missing" if text is None or not text.strip() else f"is {text.strip()!r}"
    header = ""
    if line == 0 and layout.format == "csv" and not layout.header and role in {"value", "time"}:
        header = " If that line is a header, say so (header = true)."
    return (
        f"{where}: the {role} ({name}) {shown}, but must be {wanted}; the line is of user {user!r} and item {item!r}"
        f"{more}. Mend or remove it.{header}"
    )
