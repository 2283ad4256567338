"""What files look like: found from their names and first lines, so that both engines are told and neither guesses."""

import csv
import glob
import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from recsparse.errors import ColumnError, DataError, FormatError
from recsparse.interactions.archives import extract
from recsparse.interactions.convert import FORMS, convert
from recsparse.interactions.opening import COMPRESSED, open_bytes
from recsparse.interactions.source import Column, Files

DELIMITERS = ("::", "\t", ";", "|", ",")
SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".dat": "csv", ".txt": "csv", ".data": "csv", ".inter": "csv",
    ".jsonl": "json", ".ndjson": "json", ".json": "json", ".parquet": "parquet",
}  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Files of one layout, with nothing left to guess. SQL sees their columns as ``c1``, ``c2``, ..."""

    files: tuple[Path, ...]
    format: str
    names: tuple[str, ...]
    types: tuple[str, ...]
    """Per column ``text``, ``integer``, ``number``, ``time`` or ``list``."""
    first: tuple[str | None, ...]
    """The first line's values as text, to see the form of times."""
    delimiter: str = ","
    header: bool = False
    quote: str = '"'
    encoding: str = "utf-8"
    about: int | None = None
    """Lines to expect, from the length of the first ones; exact for Parquet."""

    def position(self, column: Column) -> int | None:
        """The column's index from 0; None for an expression.

        Raises:
            ColumnError: there is no such column.
        """
        if column.sql is not None:
            return None
        if column.position is not None and column.position <= len(self.names):
            return column.position - 1
        if column.name in self.names:
            return self.names.index(column.name)
        asked = f"no column {column.name!r}" if column.name else f"no column number {column.position}"
        hint = "" if self.format != "csv" else f" when cut at {self.delimiter!r} (is that the delimiter?)"
        raise ColumnError(f"{self.files[0]} has {asked}; it has {', '.join(self.names)}{hint}.")

    def sql(self, column: Column) -> str:
        """The column as SQL over ``c1``, ``c2``, ..."""
        position = self.position(column)
        return f"({column.sql})" if position is None else f"c{position + 1}"

    def type(self, column: Column) -> str:
        """The column's type; an expression is text."""
        position = self.position(column)
        return "text" if position is None else self.types[position]


def find_layout(spec: Files, root: Path, work: Path, *columns: Column | None) -> Layout:
    """Look at the files of ``spec`` below ``root``; archives are extracted below ``work``.

    Args:
        spec: what is known of the files.
        root: where relative paths start.
        work: a directory for what has to be extracted.
        columns: the columns that will be read; a JSON file has those, a text file has a header if one goes by name.

    Raises:
        DataError: no file is there, a file is empty, or files of different formats are mixed.
        FormatError: a Parquet file is damaged.
    """
    asked = [column for column in columns if column is not None]
    layout = _look(spec, root, work, asked)
    for column in asked:
        layout.position(column)
    return layout


def _look(spec: Files, root: Path, work: Path, asked: list[Column]) -> Layout:
    files = _expand(spec, root, work)
    if spec.format in FORMS:
        table = work / f"{spec.format}.csv"
        found = convert(spec.format, files, table, spec.missing)
        first = _cut(_first_lines(table, "utf-8")[0], ",", '"')
        return Layout((table,), "csv", found, ("text",) * len(found), tuple(first))
    formats = {spec.format or _format(file) for file in files}
    if len(formats) > 1:
        raise DataError(f"{root / spec.path} has files of several formats ({', '.join(sorted(formats))}); name one.")
    form = formats.pop()
    if form == "parquet":
        return _parquet(files)
    line, second = _first_lines(files[0], spec.encoding)
    if form == "json":
        return _json(files, line, asked)
    delimiter = spec.delimiter or max(DELIMITERS, key=lambda each: len(line.split(each)))
    quote = spec.quote if spec.quote is not None else ('"' if delimiter in {",", ";"} else "")
    names = _cut(line, delimiter, quote)
    header = spec.header if spec.header is not None else any(column.name is not None for column in asked)
    first = (_cut(second, delimiter, quote) if second else []) if header else names
    if not header:
        names = [f"c{position + 1}" for position in range(len(names))]
    types = ("text",) * len(names)
    look = {"delimiter": delimiter, "quote": quote, "encoding": spec.encoding}
    return Layout(files, "csv", tuple(names), types, tuple(first), header=header, about=_expect(files), **look)


def _expand(spec: Files, root: Path, work: Path) -> tuple[Path, ...]:
    path = root / spec.path
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and _suffix(file) in {*SUFFIXES, ".zip"})
    else:
        found = [path] if path.is_file() else sorted(Path(file) for file in glob.glob(str(path)))
    files: list[Path] = []
    for file in found:
        if file.suffix == ".zip":
            target = work / f"{len(files)}-{file.stem}"
            target.mkdir(parents=True)
            files += sorted(member for member in extract(file, target) if _suffix(member) in SUFFIXES)
        else:
            files.append(file)
    if not files:
        raise DataError(f"There is no data file at {path}; give a file, a glob or a directory ({', '.join(SUFFIXES)}).")
    for file in files:
        if file.stat().st_size == 0:
            raise DataError(f"{file} is empty.")
    return tuple(files)


def _suffix(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix in COMPRESSED else file.suffix


def _format(file: Path) -> str:
    return SUFFIXES.get(_suffix(file), "csv")


def _expect(files: tuple[Path, ...]) -> int | None:
    """Estimate the lines of plain files; packed ones do not tell."""
    if any(file.suffix in COMPRESSED for file in files):
        return None
    with files[0].open("rb") as file:
        head = file.read(1 << 16)
    return int(sum(file.stat().st_size for file in files) / (len(head) / max(head.count(b"\n"), 1)))


def _first_lines(file: Path, encoding: str) -> tuple[str, str]:
    try:
        with open_bytes(file) as stream:
            head = stream.read(1 << 16)
        lines = (
            head.decode(encoding, errors="ignore" if len(head) == 1 << 16 else "strict").lstrip("\ufeff").splitlines()
        )
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} is not {encoding} text ({error.reason} at byte {error.start}); name its encoding."
        ) from error
    except (OSError, EOFError) as error:
        raise FormatError(f"{file} cannot be read: {error}.") from error
    if not lines or not lines[0].strip():
        raise DataError(f"{file} has no text in its first line.")
    return lines[0], lines[1] if len(lines) > 1 else ""


def _cut(line: str, delimiter: str, quote: str) -> list[str]:
    if len(delimiter) == 1 and quote:
        return next(csv.reader([line], delimiter=delimiter, quotechar=quote))
    return line.split(delimiter)


def _json(files: tuple[Path, ...], line: str, asked: list[Column]) -> Layout:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{files[0]}: the first line is not JSON: {error}; JSON lines have one object a line."
        ) from error
    if not isinstance(record, dict):
        raise DataError(f"{files[0]}: the first line is a JSON {type(record).__name__}, not an object.")
    names = list(dict.fromkeys([*record, *(column.name for column in asked if column.name)]))
    if missing := [name for name in names if name not in record]:
        raise ColumnError(f"{files[0]}: the first line has no {missing[0]!r}; it has {', '.join(record)}.")
    first = tuple(None if value is None else str(value) for value in record.values())
    types = tuple("list" if isinstance(value, list) else "text" for value in record.values())
    return Layout(files, "json", tuple(names), types, first, about=_expect(files))


def _parquet(files: tuple[Path, ...]) -> Layout:
    try:
        with pq.ParquetFile(files[0]) as opened:
            schema = opened.schema_arrow
            batch = next(opened.iter_batches(batch_size=1), None)
        about = sum(pq.read_metadata(file).num_rows for file in files)
    except (pa.ArrowInvalid, OSError) as error:
        raise FormatError(f"{files[0]} is not a sound Parquet file: {error}.") from error
    first = tuple(str(column[0].as_py()) for column in batch.columns) if batch else ()
    return Layout(
        files, "parquet", tuple(schema.names), tuple(_type(field.type) for field in schema), first, about=about
    )


def _type(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "integer"
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return "time"
    return "list" if pa.types.is_list(kind) or pa.types.is_large_list(kind) else "text"
