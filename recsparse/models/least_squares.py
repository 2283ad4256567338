"""Half-steps of alternating least squares: all rows of one side, given the other side's factors."""

from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.kernels import blocks
from recsparse.kernels import ials as kernels
from recsparse.kernels.lapack import ROUTINES
from recsparse.parallel import for_ranges, single_threaded_blas

Dense = npt.NDArray[np.float32]
Factors: TypeAlias = Dense | sp.csr_array

SPARSE_ENOUGH = 0.1
"""The density up to which adding products of stored entries one by one is quicker than BLAS on all columns."""

_STEP = 32
_NOTHING: Dense = np.empty(0, dtype=np.float32)
_NO_ROWS: Dense = np.empty((0, 0), dtype=np.float32)


@dataclass(frozen=True)
class ImplicitLoss:
    """The weighted squared loss of implicit feedback with frequency-scaled regularisation (Rendle et al. 2021).

    With observed pairs S, their weights w, users' factors u and items' factors v:

        Σ_{(u,i) ∈ S} w_ui (u·v - 1)² + alpha0 Σ_{u,i} (u·v)²
        + reg [Σ_u (w_u + alpha0 I)^nu ||u||² + Σ_i (w_i + alpha0 U)^nu ||v||²]

    where w_u and w_i are sums of weights over a user's and an item's observed pairs. A row with a prior p, what its
    features predict, is regularised by ||v - p||² instead; without interactions it becomes p, else zero.

    Attributes:
        alpha0: weight of every pair, observed or not.
        reg: strength of the regularisation.
        nu: its dependence on frequency, 0 (none) to 1 (proportional).
        n_jobs: threads; the result does not depend on them.
    """

    alpha0: float
    reg: float
    nu: float
    n_jobs: int | None = None

    def shared(self, factors: Factors) -> Dense:
        """G = alpha0 Fᵀ F, (D, D): the part of the normal matrix that all rows share."""
        return np.float32(self.alpha0) * gram(factors, self.n_jobs)

    def ridge(self, side: sp.csr_array) -> Dense:
        """The regularisation of each row of ``side`` (R, N), float32 (R,)."""
        weight = np.asarray(side.sum(axis=1), dtype=np.float64).ravel()
        return np.asarray(self.reg * (weight + self.alpha0 * side.shape[1]) ** self.nu, dtype=np.float32)

    def solve(
        self, side: sp.csr_array, factors: Factors, shared: Dense | None = None, prior: Dense | None = None
    ) -> Dense:
        """Minimise over all rows of ``side`` (R, N), given the other side's factors (N, D): (R, D) float32.

        A row without interactions becomes its prior (R, D), or zero. Cost: O(nnz D² + R D³), or O(nnz K² + R D³) for a
        CSR of K a row. Where such a CSR meets at least D rows, those of n <= D / 2 interactions take
        O(n K D + n² D) each.
        """
        shared = self.shared(factors) if shared is None else shared
        ridge = self.ridge(side)
        out = np.zeros((side.shape[0], len(shared)), dtype=np.float32) if prior is None else ridge[:, None] * prior
        rows = (ROUTINES, side.indptr, side.indices, side.data)
        if not isinstance(factors, np.ndarray) and factors.nnz > SPARSE_ENOUGH * factors.shape[0] * factors.shape[1]:
            factors = factors.toarray()
        if isinstance(factors, np.ndarray):
            task: tuple[Any, ...] = (*rows, factors, shared, ridge, out)
            kernel: Any = kernels.solve_dense
        else:
            sparse, longest = (factors.indptr, factors.indices, factors.data), -1
            if prior is None and len(out) >= len(shared) and np.isfinite(shared).all():
                longest = len(shared) // 2
                self._solve_short((*rows, *sparse), shared, ridge, longest, out)
            task = (*rows, *sparse, shared, ridge, longest, out)
            kernel = kernels.solve_dense_from_sparse
        for_ranges(lambda start, stop: kernel(*task, start, stop), len(out), step=_STEP, n_jobs=self.n_jobs)
        return _or_prior(out, side, prior)

    def _solve_short(self, rows: tuple[Any, ...], shared: Dense, ridge: Dense, longest: int, out: Dense) -> None:
        diagonal, basis = _eigen(shared)
        task = (*rows, basis, np.maximum(diagonal, 0), ridge, longest, out)
        for_ranges(
            lambda start, stop: kernels.solve_short(*task, start, stop), len(out), step=_STEP, n_jobs=self.n_jobs
        )
        out[:] = rotated(out, np.ascontiguousarray(basis.T), self.n_jobs)

    def solve_blocks(
        self,
        side: sp.csr_array,
        factors: Dense,
        rows: Dense,
        width: int,
        shared: Dense | None = None,
        prior: Dense | None = None,
    ) -> Dense:
        """Improve the rows of ``side`` by solving ``width`` columns at a time, each block exactly given the others.

        One pass of iALS++ (Rendle et al. 2021b, "iALS++: speeding up matrix factorization with subspace
        optimization"). With ``width`` D it is :meth:`solve`. Cost: O(nnz D width + R (D² + D width²)).
        """
        shared = self.shared(factors) if shared is None else shared
        ridge, out = self.ridge(side), rows.copy()
        task = (
            ROUTINES, side.indptr, side.indices, side.data, factors, shared, ridge, _pull(ridge, prior), out, width,
        )  # fmt: skip
        for_ranges(
            lambda start, stop: blocks.solve_blocks(*task, start, stop), len(out), step=_STEP, n_jobs=self.n_jobs
        )
        return _or_prior(out, side, prior)

    def refine(
        self,
        side: sp.csr_array,
        factors: Dense,
        rows: Dense,
        steps: int,
        shared: Dense | None = None,
        prior: Dense | None = None,
        *,
        rotate: bool = True,
    ) -> tuple[Dense, Dense]:
        """Improve the rows of ``side`` by a few steps of conjugate gradients from where they are, instead of solving.

        The loss does not change when both sides are rotated together, so both go to the basis in which the shared
        matrix is diagonal. There its product costs nothing and the diagonal is a good preconditioner: two steps from
        the last epoch's rows do what an exact solve does. Cost: O(nnz D steps + (R + N) D² + D³).

        Returns:
            The other side's factors and the improved rows, both rotated; or with ``rotate`` False, which sparse factors
            need, as they were given and rotated back.
        """
        shared = self.shared(factors) if shared is None else shared
        if not np.isfinite(shared).all():
            return factors, np.full_like(rows, np.nan)
        diagonal, basis = _eigen(shared)
        turned, rows = (rotated(each, basis, self.n_jobs) for each in (factors, rows))
        prior = None if prior is None else rotated(prior, basis, self.n_jobs)
        ridge = self.ridge(side)
        task = (
            side.indptr, side.indices, side.data, turned, diagonal, ridge, _pull(ridge, prior),
            rows, steps,
        )  # fmt: skip
        for_ranges(lambda start, stop: kernels.refine(*task, start, stop), len(rows), step=_STEP, n_jobs=self.n_jobs)
        rows = _or_prior(rows, side, prior)
        return (turned, rows) if rotate else (factors, rotated(rows, np.ascontiguousarray(basis.T), self.n_jobs))

    def solve_on_support(
        self,
        side: sp.csr_array,
        factors: Dense,
        support: sp.csr_array,
        *,
        curvature: bool = False,
        bits: int = 0,
        shared: Dense | None = None,
        prior: Dense | None = None,
    ) -> tuple[sp.csr_array, Dense]:
        """Minimise over each row's entries on ``support``, a CSR pattern (R, D); all other entries are zero.

        With ``bits`` each row ends as integers of so many bits times a scale of the kind packed tables store, rounded
        entry by entry so that later entries make up for the rounding of earlier ones.

        Returns:
            The rows as a CSR (R, D) with the support's pattern and, if asked for, 1 / (A⁻¹)_jj of each stored entry.
            Cost: O(nnz K² + R K³) for K entries a row.
        """
        values = np.zeros(support.nnz, dtype=np.float32)
        bends = np.zeros(support.nnz, dtype=np.float32) if curvature else _NOTHING
        ridge = self.ridge(side)
        lengths = np.diff(support.indptr)
        if prior is not None:
            priors = prior[np.repeat(np.arange(len(lengths)), lengths), support.indices]
            values[:] = np.repeat(ridge, lengths) * priors
        task = (
            ROUTINES, side.indptr, side.indices, side.data, factors, self.shared(factors) if shared is None else shared,
            ridge, support.indptr, support.indices, values, bends, bits,
        )  # fmt: skip
        for_ranges(
            lambda start, stop: kernels.solve_on_support(*task, start, stop),
            side.shape[0], step=_STEP, n_jobs=self.n_jobs,
        )  # fmt: skip
        if prior is not None:
            empty = np.repeat(np.diff(side.indptr) == 0, lengths)
            values[empty] = priors[empty]
        return sp.csr_array((values, support.indices, support.indptr), shape=support.shape), bends

    def gradient(
        self,
        side: sp.csr_array,
        factors: Dense,
        rows: Dense,
        shared: Dense | None = None,
        prior: Dense | None = None,
    ) -> Dense:
        """Half the loss's derivative by every entry of ``rows`` (R, D), also where they are zero."""
        shared = self.shared(factors) if shared is None else shared
        ridge = self.ridge(side)
        out = rows @ shared if prior is None else rows @ shared - ridge[:, None] * prior
        task = (side.indptr, side.indices, side.data, factors, shared, ridge, rows, out)
        for_ranges(lambda start, stop: kernels.gradient(*task, start, stop), len(out), step=_STEP, n_jobs=self.n_jobs)
        return out

    def of_rows(
        self,
        side: sp.csr_array,
        factors: Dense,
        rows: Dense,
        shared: Dense | None = None,
        prior: Dense | None = None,
    ) -> float:
        """The loss of ``rows`` (R, D) less that of zeros: v·(A v - 2 b), the rows times the gradients at them and 0."""
        slopes = self.gradient(side, factors, rows, shared, prior)
        slopes += self.gradient(side, factors, np.zeros_like(rows), shared, prior)
        return float(np.einsum("rd,rd->", rows, slopes, dtype=np.float64))


@dataclass(frozen=True)
class Sides:
    """The interactions seen from either side, (U, I) and (I, U), and what is minimised."""

    by_user: sp.csr_array
    by_item: sp.csr_array
    loss: ImplicitLoss

    @classmethod
    def of(cls, by_user: sp.csr_array, loss: ImplicitLoss) -> Self:
        """Transpose the users' view."""
        by_item = sp.csr_array(by_user.T)
        by_item.sort_indices()
        return cls(by_user, by_item, loss)

    def shared_of_users(self, users: Dense) -> Dense:
        """G of an item half-step."""
        return self.loss.shared(users)

    def shared_of_items(self, items: Factors) -> Dense:
        """G of a user half-step."""
        return self.loss.shared(items)

    def user_prior(self, users: Dense) -> Dense | None:
        """What users (U, D) are pulled towards; None for zero."""
        return None

    def item_prior(self, items: Factors) -> Dense | None:
        """What items (I, D) are pulled towards; None for zero."""
        return None


def _pull(ridge: Dense, prior: Dense | None) -> Dense:
    return _NO_ROWS if prior is None else ridge[:, None] * prior


def _or_prior(rows: Dense, side: sp.csr_array, prior: Dense | None) -> Dense:
    if prior is not None:
        empty = np.diff(side.indptr) == 0
        rows[empty] = prior[empty]
    return rows


def _eigen(shared: Dense) -> tuple[Dense, Dense]:
    """Eigenvalues (D,) and eigenvectors (D, D) of what all rows share; the same bytes at any number of threads."""
    with single_threaded_blas():
        diagonal, basis = np.linalg.eigh(shared.astype(np.float64))
    return diagonal.astype(np.float32), basis.astype(np.float32)


def rotated(rows: Dense, basis: Dense, n_jobs: int | None = None) -> Dense:
    """``rows @ basis``, the same bytes at any number of threads."""
    out = np.empty_like(rows)

    def work(start: int, stop: int) -> None:
        np.matmul(rows[start:stop], basis, out=out[start:stop])

    for_ranges(work, len(rows), step=1024, n_jobs=n_jobs)
    return out


def gram(factors: Factors, n_jobs: int | None = None) -> Dense:
    """Fᵀ F, (D, D) float32, the same bytes at any number of threads: fixed pieces, summed in order."""
    if not isinstance(factors, np.ndarray):
        return np.asarray((factors.T @ factors).toarray(), dtype=np.float32)
    n, dim = factors.shape
    step = max(4096, -(-n // 64))
    parts = np.empty((-(-n // step), dim, dim), dtype=np.float32)

    def work(start: int, stop: int) -> None:
        for part in range(start, stop):
            piece = factors[part * step : (part + 1) * step]
            np.matmul(piece.T, piece, out=parts[part])

    for_ranges(work, len(parts), step=1, n_jobs=n_jobs)
    return np.asarray(parts.sum(axis=0), dtype=np.float32)
