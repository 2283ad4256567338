"""When compiled kernels that numba kept are out of date: as soon as any file of this package has changed.

Numba asks only the file a kernel is in, but kernels have those of other files compiled into them. After an upgrade, or
a change of a helper, it would go on running the old ones.
"""

import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba.core.caching import CacheImpl

_HERE = Path(__file__).parent


@cache
def source_stamp() -> bytes:
    """A digest of all files of kernels."""
    digest = sha256()
    for path in sorted(_HERE.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.digest()


class KernelLocator:
    """Where numba would keep a kernel's code by itself, and the stamp of all kernels to keep it by."""

    @classmethod
    def from_function(cls, function: Any, path: str) -> Any:
        """The place for the code of a function in ``path``, as numba asks for it; None for others' functions."""
        if Path(path).parent != _HERE or not _HERE.is_dir() or getattr(sys, "frozen", False):
            return None
        for locator in CacheImpl._locator_classes:
            if locator is not cls and (place := locator.from_function(function, path)) is not None:
                place.get_source_stamp = source_stamp
                return place
        return None


if hasattr(CacheImpl, "_locator_classes"):  # not numba's public interface
    CacheImpl._locator_classes.insert(0, KernelLocator)
