"""Arrays in safetensors files, with errors as everywhere else."""

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recsparse.errors import FormatError

Arrays = dict[str, npt.NDArray[Any]]


def save_tensors(tensors: Mapping[str, npt.NDArray[Any]], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write arrays to a file.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        code = errno.ENOSPC if os.strerror(errno.ENOSPC) in str(error) else errno.EIO
        raise OSError(code, os.strerror(code), str(path)) from error


def load_tensors(path: Path, *names: str) -> Arrays:
    """Read a file's arrays, which must have these names among them.

    Raises:
        FormatError: the file is missing, damaged, or lacks an array.
    """
    try:
        tensors: Arrays = load_file(path)
        return {name: tensors[name] for name in names} if names else tensors
    except (OSError, SafetensorError, KeyError) as error:
        raise FormatError(f"{path} is damaged ({error!r}); save it again.") from error
