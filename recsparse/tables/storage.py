"""Packed tables in safetensors files: written whole or not at all, opened by mapping them into memory.

The file's metadata holds one JSON header under ``recsparse``: format, version, and what
:attr:`~recsparse.tables.packed.PackedTable.header` says. Opening reads the header only; a lookup reads the pages its
rows are on.
"""

import json
import struct
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from recsparse.errors import FormatError
from recsparse.files import atomic_directory, atomic_file
from recsparse.tables.arrays import check_rows
from recsparse.tables.bits import frozen
from recsparse.tables.factored import FactoredTable
from recsparse.tables.mapping import advise
from recsparse.tables.packed import PackedTable
from recsparse.tables.sharded import ShardedTable
from recsparse.tables.table import Table
from recsparse.tensors import save_tensors

FORMAT = "recsparse-table"
FORMAT_VERSION = 1

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
        path: of the file, which is replaced only when the new one is complete, or of the directory.
        shard_bytes: cut the table by rows into files of about so many bytes.
        overwrite: whether a directory may replace another.

    Example:
        >>> import tempfile
        >>> from recsparse.tables import pack
        >>> path = Path(tempfile.mkdtemp()) / "items.safetensors"
        >>> save_table(pack(np.eye(3)), path)
        >>> load_table(path).lookup([1])
        array([[0., 1., 0.]], dtype=float32)
    """
    if shard_bytes is not None:
        n_shards = min(max(1, -(-table.nbytes // shard_bytes)), max(1, table.shape[0]))
        bounds = [table.shape[0] * number // n_shards for number in range(n_shards + 1)]
        table = ShardedTable(tuple(table[a:b] for a, b in pairwise(bounds)))
    if not isinstance(table, ShardedTable):
        with atomic_file(Path(path)) as partial:
            _write(table, partial)
        return
    with atomic_directory(Path(path), overwrite=overwrite) as directory:
        for number, shard in enumerate(table.shards):
            _write(shard, directory / shard_name(number, len(table.shards)))
        write_index(directory, table.starts.tolist(), table.shape[1], table.nbytes)


def shard_name(number: int, n: int) -> str:
    """The file of shard ``number`` (from 0) of ``n``."""
    return f"table-{number + 1:05}-of-{n:05}.safetensors"


def write_index(directory: Path, starts: list[int], dim: int, total_size: int) -> None:
    """Say which rows are in which shard, so that the files there are one table, whoever wrote them.

    Args:
        directory: where the shards are, named by :func:`shard_name`.
        starts: the first row of each shard, and R.
        dim: D.
        total_size: bytes of all shards' tensors.
    """
    ranges = [f"{a}-{b}" for a, b in pairwise(starts)]
    files = [shard_name(number, len(ranges)) for number in range(len(ranges))]
    metadata = {
        "format": FORMAT, "format_version": FORMAT_VERSION, "shape": (starts[-1], dim), "total_size": total_size,
    }  # fmt: skip
    index = {"metadata": metadata, "weight_map": dict(zip(ranges, files, strict=True))}
    (directory / INDEX).write_text(json.dumps(index, indent=2))


def load_table(path: str | Path, *, rows: tuple[int, int] | None = None, verify: bool | None = None) -> Table:
    """Open what :func:`save_table` wrote, by memory mapping: in milliseconds, however large it is.

    Lookups then read the pages their rows are on and no others, until :meth:`~recsparse.tables.Table.read_ahead` or a
    pass over the table, which calls it.

    Args:
        path: the file, or the directory of shards.
        rows: only rows ``rows[0]`` to ``rows[1]``, numbered from 0, for one rank of several, say.
            Other rows are not read.
        verify: check every byte against the checksums; by default of tables up to 64 MB, all shards together. Lookups
            in a damaged table that was not verified raise, or return wrong numbers, but never read outside of it.

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
        return _cut(_open(path, verify), rows, path)
    index = _read_index(path / INDEX)
    if verify is None:  # many small shards may make a table that takes seconds to read
        verify = index["metadata"]["total_size"] <= VERIFY_UP_TO
    parts: list[tuple[int, Table]] = []
    first = 0
    for name, file in index["weight_map"].items():
        start, stop = (int(part) for part in name.split("-"))
        if start != first or Path(file).name != file:
            raise FormatError(f"{path / INDEX} is damaged: rows {name} are in {file!r}, after row {first}.")
        first = stop
        if rows is not None and parts and (stop <= rows[0] or start >= rows[1]):
            continue
        if rows is not None and not parts and stop <= rows[0]:
            continue
        part = _open(path / file, verify)
        if part.shape[0] != stop - start:
            raise FormatError(f"{path / file} has {part.shape[0]} rows; the index says {name}.")
        parts.append((start, part))
    if first != index["metadata"]["shape"][0]:
        raise FormatError(f"{path / INDEX} is damaged: its shards end at row {first}.")
    if rows is None:
        return ShardedTable(tuple(part for _, part in parts))
    check_rows(*rows, first, path)
    if not parts:
        return _open(path / file, verify)[0:0]
    offset = parts[0][0]
    return ShardedTable(tuple(part for _, part in parts))[rows[0] - offset : rows[1] - offset]


def _write(table: Table, path: Path) -> None:
    tensors = table.tensors()
    checksums = {name: zlib.crc32(np.ascontiguousarray(tensor).view(np.uint8).data) for name, tensor in tensors.items()}
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, "crc32": checksums, **table.header}
    save_tensors(tensors, path, {"recsparse": json.dumps(header)})


def _open(path: Path, verify: bool | None) -> Table:
    metadata, tensors = read_tensors(path)
    try:
        header = json.loads(metadata["recsparse"])
        if header["format"] != FORMAT:
            raise KeyError(header["format"])
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path} is a safetensors file, but not a recsparse table.") from error
    check_version(path, header)
    try:
        table: Table = KINDS[header["kind"]](header, tensors)
        if set(table.tensors()) != set(tensors):
            raise ValueError(f"tensors {sorted(set(tensors) ^ set(table.tensors()))}")
        if verify or (verify is None and path.stat().st_size <= VERIFY_UP_TO):
            for name, tensor in tensors.items():
                if zlib.crc32(tensor.view(np.uint8).data) != header["crc32"][name]:
                    raise ValueError(f"the checksum of {name}")
    except (AttributeError, KeyError, ValueError, TypeError, OverflowError) as error:
        raise FormatError(f"{path} is damaged: its header and its tensors do not fit ({error!r}).") from error
    return table


def _cut(table: Table, rows: tuple[int, int] | None, path: Path) -> Table:
    if rows is None:
        return table
    check_rows(*rows, table.shape[0], path)
    return table[rows[0] : rows[1]]


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads(path.read_text())
        if index["metadata"]["format"] != FORMAT or not index["weight_map"]:
            raise KeyError("format")
        check_version(path, index["metadata"])
        if not isinstance(index["metadata"]["total_size"], int):
            raise TypeError("total_size")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} is not the index of a sharded table ({error!r}).") from error
    return index


def check_version(path: Path, header: dict[str, Any]) -> None:
    """Refuse a version this release does not read."""
    if header.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {header.get('format_version')}; this release reads {FORMAT_VERSION}. "
            "Upgrade recsparse, or save the table again."
        )


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
            header = json.loads(file.read(length))
            memory = np.memmap(file, dtype=np.uint8, mode="r") if size else np.zeros(0, dtype=np.uint8)
        data = memory[8 + length :]
        metadata = header.pop("__metadata__", {})
        tensors = {name: _tensor(data, entry) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise FormatError(f"{path} cannot be read as a safetensors file ({error}).") from error
    if sum(tensor.nbytes for tensor in tensors.values()) != len(data):
        raise FormatError(f"{path} is damaged: its tensors do not fill it; it was cut short or has bytes added.")
    return metadata, tensors


def _tensor(data: npt.NDArray[np.uint8], entry: dict[str, Any]) -> npt.NDArray[Any]:
    start, stop = entry["data_offsets"]
    dtype = np.dtype(DTYPES[entry["dtype"]])
    if not 0 <= start <= stop <= len(data) or (stop - start) != dtype.itemsize * int(np.prod(entry["shape"])):
        raise ValueError(f"a tensor from byte {start} to {stop} in {len(data)} bytes of data")
    tensor = np.asarray(data[start:stop]).view(dtype).reshape(entry["shape"])
    return frozen(tensor if tensor.flags.aligned else tensor.copy())
