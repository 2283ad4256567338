"""Plain, gz and zst files, read alike."""

import gzip
import io
import secrets
import shutil
from pathlib import Path
from typing import IO, TextIO, cast

import pyarrow as pa

COMPRESSED = (".gz", ".zst")


def open_bytes(file: Path) -> IO[bytes]:
    """Open a plain, gz or zst file for reading."""
    if file.suffix == ".gz":
        return cast(IO[bytes], gzip.open(file, "rb"))
    if file.suffix == ".zst":
        return cast(IO[bytes], pa.input_stream(str(file), compression="zstd"))
    return file.open("rb")


def open_lines(file: Path, encoding: str = "utf-8") -> TextIO:
    """Open a plain, gz or zst file as text."""
    return io.TextIOWrapper(open_bytes(file), encoding=encoding)


def plain(file: Path, work: Path) -> Path:
    """Give a zst file unpacked below ``work``, for an engine that cannot read it, and any other file as it is."""
    if file.suffix != ".zst":
        return file
    target = work / f"{secrets.token_hex(4)}-{file.stem}"
    with open_bytes(file) as packed, target.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, 1 << 20)
    return target
