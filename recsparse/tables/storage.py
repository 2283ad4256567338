"""Packed tables in safetensors files: written whole or not at all, opened by mapping them into memory.

The file's metadata holds one JSON header under ``recsparse``: format, version, what
:attr:`~recsparse.tables.packed.PackedTable.header` says, and checksums of every tensor and of itself. Opening reads the
header and the last counts; a lookup reads the pages its rows are on.
"""

import json
import struct
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.files import atomic_directory, atomic_file
from recsparse.tables.arrays import check_rows
from recsparse.tables.bits import frozen
from recsparse.tables.factored import FactoredTable
from recsparse.tables.mapping import advise
from recsparse.tables.packed import PackedTable
from recsparse.tables.seal import seal, unseal
from recsparse.tables.sharded import ShardedTable
from recsparse.tables.table import Table
from recsparse.tensors import save_tensors

DTYPES: dict[str, Any] = {
    "U8": np.uint8, "I16": np.int16, "U16": np.uint16, "F16": np.float16, "U32": np.uint32, "F32": np.float32,
    "U64": np.uint64,
}  # fmt: skip
LARGEST_HEADER = 100_000_000
VERIFY_UP_TO = 64_000_000
INDEX = "table.safetensors.index.json"
KINDS: dict[str, Any] = {"packed": PackedTable.from_tensors, "factored": FactoredTable.from_tensors}


def save_table(table: Table, path: str | Path, *, shard_bytes: int | None = None, overwrite: bool = True) -> None:
    """Write a table to one file, or to a directory of shards; whole or not at all.

    Args:
        table: what to write. A :class:`~recsparse.tables.sharded.ShardedTable` becomes a directory, a file a shard.
        path: of the file or directory, which is replaced only when the new one is complete and can be opened.
        shard_bytes: cut the table by rows into files of about so many bytes. The shards it has are cut further where
            they are larger, and not joined. Each file repeats the fallback, and the basis of a factored table.
        overwrite: whether a directory may replace another.

    Raises:
        ConfigError: ``shard_bytes`` is below 1, or a file would be more than half what each repeats.
        DataError: the table cannot be read again, its kind being unknown to :data:`KINDS`, say.

    Example:
        >>> import tempfile
        >>> from recsparse.tables import pack
        >>> path = Path(tempfile.mkdtemp()) / "items.safetensors"
        >>> save_table(pack(np.eye(3)), path)
        >>> load_table(path).lookup([1])
        array([[0., 1., 0.]], dtype=float32)
    """
    if shard_bytes is not None and shard_bytes < 1:
        raise ConfigError(f"shard_bytes is {shard_bytes}; it must be at least 1.")
    if shard_bytes is None and not isinstance(table, ShardedTable):
        with atomic_file(Path(path)) as partial:
            _write(table, partial)
        return
    shards = list(_shards(table, shard_bytes))
    with atomic_directory(Path(path), overwrite=overwrite) as directory:
        for number, shard in enumerate(shards):
            _write(shard, directory / shard_name(number, len(shards)))
        write_index(directory, len(shards))


def _shards(table: Table, shard_bytes: int | None) -> Iterator[Table]:
    """The tables, none of them sharded, that become a file each."""
    if isinstance(table, ShardedTable):
        for shard in table.shards:
            yield from _shards(shard, shard_bytes)
        return
    if shard_bytes is None or table.nbytes <= shard_bytes:
        yield table
        return
    repeated = table[0:0].nbytes
    if shard_bytes < 2 * repeated:
        raise ConfigError(
            f"shard_bytes is {shard_bytes:,}, and every file repeats {repeated:,} bytes (the fallback, say) of this "
            f"table's {table.nbytes:,}; make it at least {2 * repeated:,}, or leave it out."
        )
    rows = table.shape[0]
    n = min(-(-(table.nbytes - repeated) // (shard_bytes - repeated)), rows)
    for start, stop in pairwise(rows * number // n for number in range(n + 1)):
        yield table[start:stop]


def shard_name(number: int, n: int) -> str:
    """The file of shard ``number`` (from 0) of ``n``."""
    return f"table-{number + 1:05}-of-{n:05}.safetensors"


def write_index(directory: Path, n: int) -> None:
    """Say what is in each shard, so that the files there are one table, whoever wrote them.

    Args:
        directory: where the shards are, named by :func:`shard_name`.
        n: how many there are.
    """
    opened = [_open(directory / shard_name(number, n), verify=False) for number in range(n)]
    whole = ShardedTable(tuple(table for table, _ in opened))
    shards = [{"rows": table.shape[0], "checksum": checksum} for table, checksum in opened]
    ranges = [f"{start}-{stop}" for start, stop in pairwise(whole.starts.tolist())]
    index = {
        "metadata": {"shape": whole.shape, "total_size": whole.nbytes},
        "weight_map": dict(zip(ranges, (shard_name(number, n) for number in range(n)), strict=True)),
        "shards": shards,
    }
    (directory / INDEX).write_text(json.dumps(seal(index), indent=2))


def load_table(path: str | Path, *, rows: tuple[int, int] | None = None, verify: bool | None = None) -> Table:
    """Open what :func:`save_table` wrote, by memory mapping: in milliseconds, however large it is.

    Lookups then read the pages their rows are on and no others, until :meth:`~recsparse.tables.Table.read_ahead` or a
    pass over the table, which calls it.

    Args:
        path: the file, or the directory of shards.
        rows: only rows ``rows[0]`` to ``rows[1]``, numbered from 0, for one rank of several, say.
            Other rows are not read.
        verify: check every byte of the tensors against their checksums; by default of tables up to 64 MB, all shards
            together. (Headers always are.) Lookups in a damaged table that was not verified raise, or return wrong
            numbers, but never read outside of it.

    Raises:
        FormatError: it is missing, truncated, corrupt, not a table, or of a newer version.
        DataError: the table does not have those rows.
    """
    table = _load(Path(path), rows, verify)
    if rows is None:
        advise(table.tensors().values(), ahead=False)
    return table


def _load(path: Path, rows: tuple[int, int] | None, verify: bool | None) -> Table:
    if not path.is_dir():
        table: Table = _open(path, verify)[0]
        if rows is None:
            return table
        check_rows(*rows, table.shape[0], path)
        return table[rows[0] : rows[1]]
    index = _read_index(path / INDEX)
    shards, (_, dim) = index["shards"], index["metadata"]["shape"]
    starts = [0, *accumulate(shard["rows"] for shard in shards)]
    if verify is None:  # many small shards may make a table that takes seconds to read
        verify = index["metadata"]["total_size"] <= VERIFY_UP_TO
    low, high = 0, len(shards)
    if rows is not None:
        check_rows(*rows, starts[-1], path)
        low = min(bisect_right(starts, rows[0]), high) - 1
        high = max(bisect_left(starts, rows[1]), low + 1)
    parts = []
    for number in range(low, high):
        file = path / shard_name(number, len(shards))
        part, checksum = _open(file, verify)
        if (*part.shape, checksum) != (shards[number]["rows"], dim, shards[number].get("checksum")):
            raise FormatError(f"{file} is not the shard that {path / INDEX} was written for; save the table again.")
        parts.append(part)
    table = ShardedTable(tuple(parts))
    return table if rows is None else table[rows[0] - starts[low] : rows[1] - starts[low]]


def _write(table: Table, path: Path) -> None:
    tensors = table.tensors()
    checksums = {name: zlib.crc32(np.ascontiguousarray(tensor).view(np.uint8).data) for name, tensor in tensors.items()}
    save_tensors(tensors, path, {"recsparse": json.dumps(seal({"crc32": checksums, **table.header}))})
    try:  # before it replaces anything
        _open(path, verify=False)
    except FormatError as error:
        reason = error.__cause__ or error
        raise DataError(f"{table!r} was not saved, for it could not be opened again: {reason!r}.") from error


def _open(path: Path, verify: bool | None) -> tuple[Table, int]:
    """The table of one file, and its header's checksum."""
    metadata, tensors = read_tensors(path)
    header = unseal(metadata.get("recsparse"), path, "a recsparse table")
    advise(tensors.values(), ahead=False)  # a few counts are read here
    try:
        table: Table = KINDS[header["kind"]](header, tensors)
        if set(table.tensors()) != set(tensors):
            raise ValueError(f"tensors {sorted(set(tensors) ^ set(table.tensors()))}")
        advise(tensors.values(), ahead=True)
        if verify or (verify is None and path.stat().st_size <= VERIFY_UP_TO):
            for name, tensor in tensors.items():
                if zlib.crc32(tensor.view(np.uint8).data) != header["crc32"][name]:
                    raise ValueError(f"the checksum of {name}")
    except (AttributeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"{path} is damaged: its header and its tensors do not fit ({error!r}).") from error
    return table, header["checksum"]


def _read_index(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} is not the index of a sharded table ({error!r}).") from error
    index = unseal(text, path, "the index of a sharded table")
    try:
        rows, dim = index["metadata"]["shape"]
        counts = [shard["rows"] for shard in index["shards"]]
        if min(dim, index["metadata"]["total_size"], *counts) < 0 or sum(counts) != rows:
            raise ValueError(f"{rows} rows in shards of {counts}")
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{path} is damaged: its numbers do not fit ({error!r}).") from error
    return index


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, npt.NDArray[Any]]]:
    """Metadata and read-only tensors of a safetensors file, mapped into memory.

    The safetensors package copies what it reads for NumPy; this reads nothing until it is used.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, LARGEST_HEADER):
                raise FormatError(f"{path} is damaged: its header is {length:,} bytes long, the file {size:,}.")
            header = dict(json.loads(file.read(length)))
            memory = np.memmap(file, dtype=np.uint8, mode="r") if size else np.zeros(0, dtype=np.uint8)
        data = memory[8 + length :]
        metadata = dict(header.pop("__metadata__", {}))
        tensors = {name: _tensor(data, entry) for name, entry in header.items()}
        places = sorted(entry["data_offsets"] for entry in header.values())
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, struct.error) as error:
        raise FormatError(f"{path} cannot be read as a safetensors file ({error}).") from error
    ends = [0, *(stop for _, stop in places)]
    if [*(start for start, _ in places), len(data)] != ends:
        raise FormatError(f"{path} is damaged: its tensors do not fill it; it was cut short or has bytes added.")
    return metadata, tensors


def _tensor(data: npt.NDArray[np.uint8], entry: dict[str, Any]) -> npt.NDArray[Any]:
    start, stop = entry["data_offsets"]
    dtype = np.dtype(DTYPES[entry["dtype"]])
    if not 0 <= start <= stop <= len(data) or (stop - start) != dtype.itemsize * int(np.prod(entry["shape"])):
        raise ValueError(f"a tensor from byte {start} to {stop} in {len(data)} bytes of data")
    tensor = np.asarray(data[start:stop]).view(dtype).reshape(entry["shape"])
    return frozen(tensor if tensor.flags.aligned else tensor.copy())
