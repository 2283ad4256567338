"""A dataset back as tables, for new lines to be added to it."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsparse.errors import FormatError
from recsparse.interactions.engine import Engine
from recsparse.interactions.layout import Layout
from recsparse.interactions.store import read_info


def unroll(engine: Engine, directory: Path, work: Path) -> dict[str, int]:
    """Make ``known_users``, ``known_items`` (id, code) and ``old_pairs`` (u, i, value[, t]); give how many are known.

    A row group at a time goes through memory.

    Raises:
        FormatError: a file is damaged.
    """
    info = read_info(directory)
    try:
        for table in ("users", "items"):
            _code(directory / f"{table}.parquet", work / f"known_{table}.parquet")
            _scan(engine, f"known_{table}", ("id", "code"), work / f"known_{table}.parquet")
        files = [directory / "interactions" / part["file"] for part in info["parts"]]
        _flatten(files, work / "old_pairs.parquet")
    except (pa.ArrowException, OSError) as error:
        raise FormatError(f"{directory} cannot be read: {error}") from error
    _scan(engine, "old_pairs", ("u", "i", "value", "t")[: 4 if info["times"] else 3], work / "old_pairs.parquet")
    return {table: info["counts"][table] for table in ("users", "items")}


def _scan(engine: Engine, table: str, names: tuple[str, ...], file: Path) -> None:
    engine.scan(f"{table}_file", Layout((file,), "parquet", names, ("integer",) * len(names), ()))
    columns = ", ".join(f"c{place + 1} AS {name}" for place, name in enumerate(names))
    engine.create(table, f"SELECT {columns} FROM {table}_file")  # noqa: S608 (our own names)


def _code(source: Path, target: Path) -> None:
    schema = pa.schema([("id", pa.string()), ("code", pa.int32())])
    first = 0
    with pq.ParquetWriter(target, schema) as writer, pq.ParquetFile(source) as file:
        for batch in file.iter_batches(columns=[file.schema_arrow.names[0]]):
            codes = pa.array(np.arange(first, first + batch.num_rows, dtype=np.int32))
            writer.write_batch(pa.record_batch([pc.cast(batch.column(0), pa.string()), codes], schema=schema))
            first += batch.num_rows


def _flatten(sources: list[Path], target: Path) -> None:
    writer = None
    for source in sources:
        with pq.ParquetFile(source) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group).combine_chunks()
                lengths = np.diff(table["items"].chunk(0).offsets.to_numpy())
                users = np.repeat(table["user"].to_numpy(), lengths).astype(np.int32)
                columns = [table[name].chunk(0).flatten() for name in table.column_names[1:]]
                flat = pa.table([pa.array(users), *columns], names=["u", *table.column_names[1:]])
                writer = writer or pq.ParquetWriter(target, flat.schema)
                writer.write_table(flat)
    if writer is not None:
        writer.close()
