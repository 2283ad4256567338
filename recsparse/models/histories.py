"""Histories that a fitted model is given."""

import numpy as np
import scipy.sparse as sp

from recsparse.errors import DataError


def check_not_negative(histories: sp.csr_array, why: str) -> None:
    """Refuse a negative value, as fitting does; ``why`` says what a model takes values as, and what to do.

    Raises:
        DataError: there is one.
    """
    if (histories.data < 0).any():
        where = int(np.argmax(histories.data < 0))
        row = int(np.searchsorted(histories.indptr, where, side="right")) - 1
        item = histories.indices[where]
        raise DataError(
            f"The value {histories.data[where]} of item row {item} in history {row} is negative, and {why}."
        )
