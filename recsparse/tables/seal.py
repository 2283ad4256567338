"""JSON that says what it is and carries a checksum of itself: a table's header, and the index of its shards."""

import json
import zlib
from pathlib import Path
from typing import Any, NoReturn

from recsparse.errors import FormatError

FORMAT = "recsparse-table"
FORMAT_VERSION = 2


def seal(document: dict[str, Any]) -> dict[str, Any]:
    """The document with its format and version, and the CRC-32 of all of that under ``checksum``.

    Example:
        >>> seal({"shape": [2, 3]})["checksum"]
        2923150148
    """
    whole = {"format": FORMAT, "format_version": FORMAT_VERSION, **document}
    return {**whole, "checksum": _checksum(whole)}


def unseal(text: Any, path: Path, what: str) -> dict[str, Any]:
    """Read what :func:`seal` gave.

    Args:
        text: JSON.
        path: of the file it is from, for messages.
        what: the kind of file that should be, for messages.

    Raises:
        FormatError: it is no such document, of another version, or changed since it was written.
    """
    try:
        document: dict[str, Any] = json.loads(text, parse_float=_refuse, parse_constant=_refuse)
        if document["format"] != FORMAT:
            raise KeyError(document["format"])
        version = document["format_version"]
        checksum = _checksum({name: part for name, part in document.items() if name != "checksum"})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is not {what} ({error!r}).") from error
    if version != FORMAT_VERSION:
        raise FormatError(
            f"{path} has format version {version}; this release reads {FORMAT_VERSION}. "
            "Upgrade recsparse, or save the table again."
        )
    if document.get("checksum") != checksum:
        raise FormatError(f"{path} is damaged: its header is not what was written. Save the table again.")
    return document


def _checksum(document: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(document).encode())


def _refuse(number: str) -> NoReturn:
    """Whole numbers only: they count rows, columns, bits and bytes."""
    raise ValueError(f"{number} is not a whole number")
