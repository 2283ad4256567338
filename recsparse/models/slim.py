"""SLIM: a sparse item-item regression with the elastic net."""

from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp

from recsparse.interactions.interactions import Interactions
from recsparse.kernels.slim import solve_columns
from recsparse.models.ease import gram
from recsparse.models.item_item import ItemItem
from recsparse.models.settings import check_number, check_whole
from recsparse.parallel import for_ranges

_BLOCK = 256


class SLIM(ItemItem):
    """Sparse linear method: for each item i, ``min_b ½ ||x_i - X b||² + ½ l2 ||b||² + l1 |b|₁`` with ``b_i = 0``.

    Column i of the weights is b (Ning and Karypis, "SLIM: Sparse Linear Methods for Top-N Recommender Systems", ICDM
    2011, eq. 5), by coordinate descent on X'X until no weight moves more than ``tolerance``. Memory: 4 I² bytes for
    X'X, then 8 bytes a weight. The same at any ``n_jobs``.

    Args:
        l1: makes weights zero; more gives a sparser model.
        l2: ridge.
        positive: allow only weights of at least 0, as in the paper.
        tolerance: largest change of a weight in the last round.
        rounds: at most so many rounds an item.
        n_jobs: threads; None and -1 mean all cores.

    Attributes:
        item_weights_: (I, I) CSR.

    Example:
        >>> model = SLIM(l1=0.1, l2=0.1).fit(sp.csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
        >>> int(model.scores(model.fold_in(sp.csr_array([[1, 0, 0, 0]]))).argmax())
        1
    """

    kind = "slim"
    search_space: ClassVar[dict[str, Any]] = {
        "l1": {"low": 0.1, "high": 100.0, "log": True},
        "l2": {"low": 1.0, "high": 10000.0, "log": True},
    }

    def __init__(
        self,
        l1: float = 5.0,
        l2: float = 100.0,
        *,
        positive: bool = True,
        tolerance: float = 1e-4,
        rounds: int = 1000,
        n_jobs: int | None = None,
    ) -> None:
        self.l1 = l1
        self.l2 = l2
        self.positive = positive
        self.tolerance = tolerance
        self.rounds = rounds
        self.n_jobs = n_jobs

    def _fit(self, interactions: Interactions) -> None:
        check_number(self, "l1", "l2", "tolerance", zero=True)
        check_whole(self, "rounds")
        lower = gram(interactions.matrix, self.n_jobs)
        whole = lower + np.tril(lower, -1).T
        del lower
        settings = (np.float32(self.l1), np.float32(self.l2), self.positive, np.float32(self.tolerance), self.rounds)
        n_items = len(whole)
        blocks = []
        for first in range(0, n_items, _BLOCK):
            rows = np.zeros((min(_BLOCK, n_items - first), n_items), dtype=np.float32)
            _solve(rows, first, whole, settings, self.n_jobs)
            blocks.append(sp.csr_array(rows))
        self.item_weights_ = sp.csr_array(sp.vstack(blocks).T)


def _solve(rows: np.ndarray, first: int, whole: np.ndarray, settings: tuple[object, ...], n_jobs: int | None) -> None:
    """Solve for targets ``first``, ``first`` + 1, ... into ``rows``."""

    def work(start: int, stop: int) -> None:
        solve_columns(start + first, stop + first, whole, *settings, rows, first)

    for_ranges(work, len(rows), step=8, n_jobs=n_jobs)
