"""How the pages of mapped files come into memory: one by one for lookups, far ahead for a pass over the rows."""

import mmap
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt


def advise(arrays: Iterable[npt.NDArray[Any]], *, ahead: bool) -> None:
    """Tell the system how the files are read that these arrays are mapped from; others are left alone.

    Args:
        arrays: views of :class:`numpy.memmap`, or any.
        ahead: whether what follows a page is wanted as well. Lookups want only the page itself; Linux would read up to
            megabytes around it.
    """
    if not hasattr(mmap, "MADV_RANDOM"):  # not on Windows
        return
    files = {id(file): file for file in map(_file, arrays) if file is not None}
    for file in files.values():
        file.madvise(mmap.MADV_NORMAL if ahead else mmap.MADV_RANDOM)


def _file(array: Any) -> mmap.mmap | None:
    while isinstance(array, np.ndarray):
        array = array.base
    return array if isinstance(array, mmap.mmap) else None
