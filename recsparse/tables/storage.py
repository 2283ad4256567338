"""Packed tables in safetensors files: written whole or not at all, opened by mapping them into memory.

The file's metadata holds one JSON header under ``recsparse``: format, version, and what
:attr:`~recsparse.tables.packed.PackedTable.header` says. Opening reads the header only; a lookup touches the pages its
rows are on.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from recsparse.errors import FormatError
from recsparse.files import atomic_file
from recsparse.tables.bits import frozen
from recsparse.tables.packed import PackedTable
from recsparse.tables.table import Table

FORMAT = "recsparse-table"
FORMAT_VERSION = 1

DTYPES: dict[str, Any] = {
    "U8": np.uint8, "I16": np.int16, "U16": np.uint16, "F16": np.float16, "U32": np.uint32, "F32": np.float32,
    "U64": np.uint64,
}  # fmt: skip
LARGEST_HEADER = 100_000_000


def save_table(table: Table, path: str | Path) -> None:
    """Write a table to one file; an older file there is replaced only when the new one is complete.

    Example:
        >>> import tempfile
        >>> from recsparse.tables import pack
        >>> path = Path(tempfile.mkdtemp()) / "items.safetensors"
        >>> save_table(pack(np.eye(3)), path)
        >>> load_table(path).lookup([1])
        array([[0., 1., 0.]], dtype=float32)
    """
    header = {"format": FORMAT, "format_version": FORMAT_VERSION, **table.header}
    with atomic_file(Path(path)) as partial:
        save_file(dict(table.tensors()), partial, metadata={"recsparse": json.dumps(header)})


def load_table(path: str | Path) -> Table:
    """Open what :func:`save_table` wrote, by memory mapping.

    Raises:
        FormatError: the file is missing, truncated, corrupt, not a table, or of a newer version.
    """
    path = Path(path)
    metadata, tensors = read_tensors(path)
    try:
        header = json.loads(metadata["recsparse"])
        if header["format"] != FORMAT:
            raise KeyError(header["format"])
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path} is a safetensors file, but not a recsparse table.") from error
    if header.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {header.get('format_version')}; this release reads {FORMAT_VERSION}. "
            "Upgrade recsparse, or save the table again."
        )
    try:
        return PackedTable.from_tensors(header, tensors)
    except (KeyError, ValueError, TypeError) as error:
        raise FormatError(f"{path} is damaged: its header and its tensors do not fit ({error!r}).") from error


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
