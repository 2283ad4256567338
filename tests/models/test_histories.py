"""Histories given later are held to what fitting asks."""

import numpy as np
import pytest

from recsparse.errors import DataError
from recsparse.models import IALS, MF, LowRankIALS
from tests.models.known import checkerboard_matrix


@pytest.mark.parametrize("model", [IALS(dim=4, epochs=1), LowRankIALS(dim=4, epochs=2), MF(dim=4, epochs=1)])
def test_a_negative_value_in_a_history_is_refused(model: IALS | MF) -> None:
    fitted = model.fit(checkerboard_matrix())
    disliked = checkerboard_matrix()[:3]
    disliked.data[-1] = -1.5
    message = rf"value -1\.5 of item row {disliked.indices[-1]} in history 2 is negative, and (iALS|MF) takes"
    with pytest.raises(DataError, match=message):
        fitted.fold_in(disliked)
    disliked.data[-1] = 1
    assert np.isfinite(fitted.fold_in(disliked)).all()
