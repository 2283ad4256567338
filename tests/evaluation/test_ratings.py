import math

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from recsparse.errors import DataError
from recsparse.evaluation.ratings import rating_errors


def test_errors_are_scikit_learns(by_table, holdout_of):
    weights = np.array([[0, 3.5, 4.0, 1.0], [2.0, 0, 5.0, 2.5], [0] * 4, [0] * 4])
    model = by_table(weights).fit(sp.csr_array(np.ones((1, 4))))
    holdout = holdout_of([[1, 0, 0, 0], [0, 1, 0, 0]], [[0, 4, 0, 1], [1, 0, 3, 0]])
    found = rating_errors(model, holdout)
    predicted, actual = [3.5, 1.0, 2.0, 5.0], [4, 1, 1, 3]
    assert found.rmse == pytest.approx(root_mean_squared_error(actual, predicted))
    assert found.rmse == pytest.approx(math.sqrt((0.25 + 0 + 1 + 4) / 4))
    assert found.mae == pytest.approx(mean_absolute_error(actual, predicted))
    assert (found.ratings, found.users) == (4, 2)


def test_a_model_that_saw_the_ratings_is_refused(by_table, holdout_of):
    holdout = holdout_of([[1, 0, 0, 0]], [[0, 4, 0, 1]])
    with pytest.raises(DataError, match="fitted on 2 of these targets"):
        rating_errors(by_table(np.eye(4)).fit(holdout.target), holdout)
