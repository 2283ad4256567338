"""Files as a failing disk leaves them."""

import json
from pathlib import Path

import numpy as np


def damage(path: Path, name: str, rng: np.random.Generator) -> None:
    """Fill the first half of a file's tensor with random bytes; what opening looks at, the end, stays as it is."""
    whole = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(whole[:8], "little")
    first, last = json.loads(whole[8:start])[name]["data_offsets"]
    half = (last - first + 1) // 2
    whole[start + first : start + first + half] = rng.bytes(half)
    path.write_bytes(whole)
