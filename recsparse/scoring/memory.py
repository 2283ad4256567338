"""A limit on memory: how many users fit at a time, and whether the promise is kept."""

import os
import re
import resource
import sys
from pathlib import Path

import pyarrow as pa

from recsparse.errors import ConfigError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}
FEWEST, MOST = 256, 1 << 14
"""Users at a time: below, a tile is mostly overhead; above, nothing is won."""


def parse_bytes(text: str | int) -> int:
    """Read a size: a number of bytes, or a number and a unit.

    >>> parse_bytes("2GiB")
    2147483648

    Raises:
        ConfigError: it is not a size.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*", str(text))
    if match is None or match[2].upper() not in _UNITS or float(match[1]) == 0:
        raise ConfigError(f"The memory limit {text!r} is not a size; write for example 2GiB or 500MB.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def resident_bytes() -> int:
    """Memory of this process now (on Linux; elsewhere the most it has had)."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Allowance:
    """How many users to score at a time under a limit; learns from what the blocks so far have taken.

    Args:
        limit: bytes this process may hold; None for no limit.
        k: items a user.
        history: interactions a user, on average.
    """

    def __init__(self, limit: int | None, k: int, history: float) -> None:
        self.limit = limit
        self.users = MOST
        # Vectors and their solving; the candidates of a list and its lines, twice; the history, its copy and pattern.
        self.bytes_a_user = int(4096 + 160 * k + 48 * history)
        if limit is not None:
            self._fit()

    def _fit(self) -> None:
        assert self.limit is not None  # noqa: S101
        held = resident_bytes()
        self.users = min(self.users, int((0.9 * self.limit - held) / self.bytes_a_user))
        if self.users < FEWEST:
            needed = held + FEWEST * self.bytes_a_user
            raise ConfigError(
                f"The memory limit of {self.limit >> 20} MiB cannot be kept: the model and the process take "
                f"{held >> 20} MiB already. Give at least {int(needed / 0.9) >> 20} MiB."
            )

    def after_block(self) -> None:
        """Give back what is free, and take smaller blocks if memory has grown."""
        pa.default_memory_pool().release_unused()
        if self.limit is not None and resident_bytes() > 0.9 * self.limit:
            self.users = max(FEWEST, self.users // 2)
