"""Least-squares vectors of users brought close to learned ones, for users who are folded in."""

from typing import Any

import numpy as np
import numpy.typing as npt

_USERS = 2048
_RIDGE = 0.1


def aligned_users(counts: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """The 2,048 users at most, of those with interactions, that the map of :func:`closest_map` is fitted to."""
    with_history = np.flatnonzero(counts)
    return with_history[:: max(1, len(with_history) // _USERS)][:_USERS]


def closest_map(moment: npt.NDArray[np.float64], cross: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The linear map M (D, D) for which ``R M`` is closest to L, given ``RᵀR`` and ``RᵀL``.

    A little ridge pulls it to a multiple of the identity, for directions in which those users do not differ.
    """
    ridge = _RIDGE * np.trace(moment) / len(moment) + 1e-12
    towards = np.eye(len(moment)) * np.trace(cross) / max(np.trace(moment), 1e-12)
    return np.linalg.solve(moment + ridge * np.eye(len(moment)), cross + ridge * towards).astype(np.float32)
