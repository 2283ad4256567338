"""A directory of recommendations: what it was made from, its parts, and who is writing which of them.

``_manifest.json`` says of what model, users and settings every part is; ``part-00000.parquet``, ... appear whole;
``_SUCCESS`` when the last one has. Names that begin with ``_`` or ``.`` are passed over by those who read a directory
of Parquet.
"""

import errno
import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from recsparse.errors import DataError, FormatError, RecsparseError
from recsparse.files import atomic_file

FORMAT_VERSION = 1
_MADE_BY = b"recsparse.manifest"


@dataclass(frozen=True)
class Output:
    """A directory being written by one job, perhaps by several processes."""

    directory: Path
    manifest: dict[str, Any]

    @property
    def digest(self) -> str:
        """Identify what is being made; every part carries it."""
        return hashlib.sha256(json.dumps(self.manifest, sort_keys=True).encode()).hexdigest()

    def part(self, number: int) -> Path:
        """The file of a part."""
        return self.directory / f"part-{number:05d}.parquet"

    @contextmanager
    def claim(self, numbers: Iterable[int]) -> Iterator[None]:
        """Hold these parts against every other process, and agree on the manifest.

        The hold ends with the process, however it ends.

        Raises:
            DataError: another process holds one of them, or the directory is of another job.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / "_lock").open("a+b") as lock:
            fcntl.lockf(lock, fcntl.LOCK_EX, 1, 0)
            try:
                self._agree()
                for number in numbers:
                    self._hold(lock.fileno(), number)
            finally:
                fcntl.lockf(lock, fcntl.LOCK_UN, 1, 0)
            for number in numbers:
                for partial in self.directory.glob(f".{self.part(number).name}.partial-*"):
                    partial.unlink(missing_ok=True)  # of a process that was killed: nobody else holds the part
            yield

    def _agree(self) -> None:
        file = self.directory / "_manifest.json"
        if not file.exists():
            if any(self.directory.glob("part-*.parquet")):
                raise DataError(f"{self.directory} holds parts but no {file.name}; choose another directory.")
            with atomic_file(file) as partial:
                partial.write_text(json.dumps(self.manifest, indent=2) + "\n", encoding="utf-8")
            return
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FormatError(f"{file} is damaged ({error}); delete the directory and run again.") from error
        if not isinstance(found, dict) or found.get("format") != self.manifest["format"]:
            raise DataError(f"{file} is not a manifest of recommendations; choose another directory.")
        differing = sorted(
            key for key in found.keys() | self.manifest.keys() if found.get(key) != self.manifest.get(key)
        )
        if differing:
            was = "; ".join(
                f"{key} was {_short(found.get(key))}, is {_short(self.manifest.get(key))}" for key in differing
            )
            raise DataError(f"{self.directory} holds recommendations made otherwise ({was}); choose another directory.")

    def _hold(self, lock: int, number: int) -> None:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number + 1)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise
            raise DataError(
                f"Another process is writing part {number} in {self.directory}; wait for it, or give each process "
                "its own shard."
            ) from error

    def is_done(self, number: int) -> bool:
        """Whether a part is there, read through with its checksums.

        Raises:
            FormatError: it is damaged.
            DataError: it is of another job.
        """
        file = self.part(number)
        if not file.exists():
            return False
        try:
            with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
                made_by = (parquet.schema_arrow.metadata or {}).get(_MADE_BY, b"").decode()
                for group in range(parquet.num_row_groups):
                    parquet.read_row_group(group)
        except (OSError, pa.ArrowException) as error:
            raise FormatError(f"{file} is damaged ({error}); delete it and run again: the others stay.") from error
        if made_by != self.digest:
            raise DataError(f"{file} was not made by the job of {self.directory / '_manifest.json'}; delete it.")
        return True

    def write(self, number: int, tables: Iterator[pa.Table]) -> tuple[int, int]:
        """Write a part; it appears when it is whole. Gives its lines and bytes.

        Raises:
            RecsparseError: the disk is full, or cannot be written.
        """
        file, lines = self.part(number), 0
        first = next(tables)
        schema = first.schema.with_metadata({_MADE_BY: self.digest.encode()})
        try:
            with atomic_file(file) as partial:
                # Scores hardly compress; ids, ranks and statuses do through their dictionaries.
                with pq.ParquetWriter(
                    partial, schema, compression="zstd", use_dictionary=["user_id", "item_id", "rank", "status"],
                    write_page_checksum=True,
                ) as writer:  # fmt: skip
                    for table in _chain(first, tables):
                        writer.write_table(table.replace_schema_metadata(schema.metadata))
                        lines += table.num_rows
                size = partial.stat().st_size
        except OSError as error:
            raise RecsparseError(
                f"Part {number} cannot be written to {self.directory} ({os.strerror(error.errno or 0)}); the finished "
                "parts stay. Make room and run again."
            ) from error
        return lines, size

    def finish(self, n_parts: int) -> bool:
        """Leave ``_SUCCESS`` if all parts are there."""
        whole = all(self.part(number).exists() for number in range(n_parts))
        if whole:
            for leftover in self.directory.glob(".part-*.partial-*"):  # every part is there: a killed writer's
                leftover.unlink(missing_ok=True)
            with atomic_file(self.directory / "_SUCCESS") as partial:
                partial.touch()
        return whole


def digest_files(path: Path) -> str:
    """SHA-256 over the names and bytes of a file, or of all files of a directory.

    Raises:
        DataError: there is nothing.
    """
    path = Path(path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    digest = hashlib.sha256()
    try:
        for file in files:
            digest.update(f"{file.relative_to(path)}\n{file.stat().st_size}\n".encode())
            with file.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    except FileNotFoundError as error:
        raise DataError(f"There is no {path}.") from error
    return digest.hexdigest()


def _chain(first: pa.Table, rest: Iterator[pa.Table]) -> Iterator[pa.Table]:
    yield first
    yield from rest


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
