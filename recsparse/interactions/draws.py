"""Random numbers that depend on a seed and on what they are for, not on how many were drawn before.

A user's draw is the same on any machine, in any block, under any engine and after more users were added.
"""

import numpy as np
import numpy.typing as npt

_STEP = np.uint64(0x9E3779B97F4A7C15)


def draw(seed: int, stream: str, *keys: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """Give 64 random bits for each key (or pair of keys): SplitMix64 (Steele et al., OOPSLA 2014) folded over the keys.

    Args:
        seed: any integer.
        stream: what the draw is for; draws of different streams are independent.
        keys: integer arrays of one shape.

    >>> bool((draw(1, "users", np.arange(3)) == draw(1, "users", np.arange(5))[:3]).all())
    True
    """
    state = _mix(np.asarray(seed % 2**64, dtype=np.uint64))
    for byte in stream.encode():
        state = _mix(state ^ np.uint64(byte))
    for key in keys:
        state = _mix(state ^ np.asarray(key).astype(np.uint64))
    return state


def _mix(state: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    with np.errstate(over="ignore"):
        state = state + _STEP
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return state ^ (state >> np.uint64(31))
