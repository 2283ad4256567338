"""The least squares of alternating minimisation: one small symmetric system a row, solved exactly.

For each row r of the side being solved, with the interactions (weights w, rows f of the fixed side's factors F):

    (Σ w f fᵀ + G + reg_r I) x = Σ w f

where G (D, D) is what all rows share. On a support S the same holds for the columns S alone. Systems are built in
tiles of gathered rows by ssyrk and factorised by sposv, so that nearly all arithmetic runs in BLAS. A row that is
pulled towards a prior p instead of zero has reg_r p added on the right; the output holds that on entry, or zero.
"""

import numba as nb
import numpy as np

from recsparse.kernels.lapack import add_gram, solve_positive

TILE = 128
"""Gathered rows that go into one ssyrk call: 64 KiB at 128 columns, which stays in the level-2 cache."""

SOLVED = np.float32(1e-30)
"""Where what a step of conjugate gradients could gain is below this, its quotients are no float32 any more."""


@nb.njit(nogil=True, cache=True)
def solve_dense(routines, indptr, indices, weights, F, G, reg, out, start, stop):  # type: ignore[no-untyped-def]
    """Solve rows [start, stop) of ``out`` (R, D), which holds their pulls; without interactions a row becomes zero."""
    d = F.shape[1]
    A = np.empty((d, d), dtype=np.float32)
    B = np.empty((TILE, d), dtype=np.float32)
    scalars = np.empty(1, dtype=np.float32)
    integers = np.empty(3, dtype=np.int32)
    for row in range(start, stop):
        x = out[row]
        begin, end = indptr[row], indptr[row + 1]
        if begin == end:
            x[:] = 0
            continue
        A[:] = G
        for j in range(d):
            A[j, j] += reg[row]
        for tile in range(begin, end, TILE):
            n = min(TILE, end - tile)
            for r in range(n):
                f = F[indices[tile + r]]
                w = weights[tile + r]
                root = np.sqrt(w)
                for j in range(d):
                    B[r, j] = root * f[j]
                    x[j] += w * f[j]
            add_gram(routines, B, n, A, scalars, integers)
        if solve_positive(routines, A, x, integers) != 0:
            x[:] = np.nan


@nb.njit(nogil=True, cache=True)
def solve_dense_from_sparse(routines, indptr, indices, weights, Fp, Fi, Fx, G, reg, longer, out, start, stop):  # type: ignore[no-untyped-def]
    """The same with the fixed side in CSR form (``Fp``, ``Fi``, ``Fx``): K² instead of D² work an interaction.

    Rows of up to ``longer`` interactions are left as they are; -1 leaves none.
    """
    d = G.shape[0]
    A = np.empty((d, d), dtype=np.float32)
    integers = np.empty(3, dtype=np.int32)
    for row in range(start, stop):
        x = out[row]
        begin, end = indptr[row], indptr[row + 1]
        if end - begin <= longer:
            continue
        if begin == end:
            x[:] = 0
            continue
        A[:] = G
        for j in range(d):
            A[j, j] += reg[row]
        for position in range(begin, end):
            f = indices[position]
            w = weights[position]
            for a in range(Fp[f], Fp[f + 1]):
                c = w * Fx[a]
                x[Fi[a]] += c
                for b in range(a, Fp[f + 1]):
                    A[Fi[a], Fi[b]] += c * Fx[b]
        if solve_positive(routines, A, x, integers) != 0:
            x[:] = np.nan


@nb.njit(nogil=True, cache=True)
def solve_short(routines, indptr, indices, weights, Fp, Fi, Fx, basis, diagonal, reg, longest, out, start, stop):  # type: ignore[no-untyped-def]
    """The same for rows of up to ``longest`` interactions, by a system of as many unknowns instead of D; not the rest.

    With G = Q diag(λ) Qᵀ (``basis``, ``diagonal``), a row's factors times Q as Z, its weights on the diagonal of W and
    M = diag(λ) + reg_r I (the push-through identity):

        x = Q M⁻¹ Zᵀ (W⁻¹ + Z M⁻¹ Zᵀ)⁻¹ 1

    ``out`` (R, D), zero on entry, gets x without its Q. Interactions of weight 0 say nothing and are left out.
    """
    d = len(diagonal)
    Z = np.empty((longest, d), dtype=np.float32)
    buffer = np.empty(d * longest, dtype=np.float32)
    square = np.empty(longest * longest, dtype=np.float32)
    ones = np.empty(longest, dtype=np.float32)
    scale = np.empty(d, dtype=np.float32)
    scalars = np.empty(1, dtype=np.float32)
    integers = np.empty(3, dtype=np.int32)
    for row in range(start, stop):
        begin, end = indptr[row], indptr[row + 1]
        n = 0
        for position in range(begin, end):
            n += weights[position] > 0
        if n == 0 or end - begin > longest:
            continue
        for j in range(d):
            scale[j] = 1 / np.sqrt(diagonal[j] + reg[row])
        A = square[: n * n].reshape(n, n)
        B = buffer[: d * n].reshape(d, n)
        shares = ones[:n]
        A[:] = 0
        shares[:] = 1
        r = 0
        for position in range(begin, end):
            if not weights[position] > 0:
                continue
            f = indices[position]
            z = Z[r]
            z[:] = 0
            for a in range(Fp[f], Fp[f + 1]):
                for j in range(d):
                    z[j] += Fx[a] * basis[Fi[a], j]
            for j in range(d):
                B[j, r] = scale[j] * z[j]
            A[r, r] = 1 / weights[position]
            r += 1
        add_gram(routines, B, d, A, scalars, integers)
        if solve_positive(routines, A, shares, integers) != 0:
            shares[:] = np.nan
        x = out[row]
        for r in range(n):
            for j in range(d):
                x[j] += shares[r] * Z[r, j]
        for j in range(d):
            x[j] *= scale[j] * scale[j]


@nb.njit(nogil=True, cache=True)
def solve_on_support(  # type: ignore[no-untyped-def]
    routines, indptr, indices, weights, F, G, reg, Sp, Si, values, curvature, bits, start, stop
):
    """Solve rows [start, stop) each on its support, columns ``Si[Sp[row]:Sp[row + 1]]``, into ``values`` (nnz of S,).

    ``values`` holds the rows' pulls on entry. Where ``curvature`` has the length of ``values``, it is given
    1 / (A⁻¹)_jj, the curvature of the row's loss by one entry when all others adapt; else it is left alone. With
    ``bits`` above 0 the row is rounded to integers of so many bits times one scale (:func:`_round_row`).
    """
    widest = 0
    for row in range(start, stop):
        widest = max(widest, Sp[row + 1] - Sp[row])
    matrix = np.empty(widest * widest, dtype=np.float32)
    buffer = np.empty(TILE * widest, dtype=np.float32)
    tried = np.empty(widest, dtype=np.float32)
    best = np.empty(widest, dtype=np.float32)
    scalars = np.empty(1, dtype=np.float32)
    integers = np.empty(3, dtype=np.int32)
    for row in range(start, stop):
        begin, end = indptr[row], indptr[row + 1]
        support = Si[Sp[row] : Sp[row + 1]]
        k = len(support)
        x = values[Sp[row] : Sp[row + 1]]
        if k == 0 or begin == end:
            x[:] = 0
            continue
        A = matrix[: k * k].reshape(k, k)
        B = buffer[: TILE * k].reshape(TILE, k)
        for i in range(k):
            for j in range(i, k):
                A[i, j] = G[support[i], support[j]]
            A[i, i] += reg[row]
        for tile in range(begin, end, TILE):
            n = min(TILE, end - tile)
            for r in range(n):
                f = F[indices[tile + r]]
                w = weights[tile + r]
                root = np.sqrt(w)
                for j in range(k):
                    value = f[support[j]]
                    B[r, j] = root * value
                    x[j] += w * value
            add_gram(routines, B, n, A, scalars, integers)
        if solve_positive(routines, A, x, integers) != 0:
            x[:] = np.nan
            continue
        if len(curvature) > 0:
            _inverse_curvature(A, curvature[Sp[row] : Sp[row + 1]])
        if bits > 0:
            _round_row(A, x, bits, tried, best)


@nb.njit(nogil=True, cache=True)
def _round_row(R, x, bits, tried, best):  # type: ignore[no-untyped-def]
    """Round ``x``, the minimum of ||R (x - y)||², to integers times a scale, each entry making up for those before it.

    Entries are rounded from the last to the first; the rest is solved again around what is fixed already (Babai's
    nearest plane; on weights of a network: GPTQ, Frantar et al. 2023). Of scales 2^(e/8) of either sign, from the one
    that spans the row to a third of it, the one of least loss is taken.
    """
    k = len(x)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    span = np.float32(0.0)
    for j in range(k):
        span = max(span, abs(x[j]))
    if span == 0:
        return
    top = int(np.ceil(8 * np.log2(span / max(high, 1))))
    least = np.inf
    for place in range(top - 13, top + 1):
        for sign in (-1, 1):
            scale = np.float32(sign * 2.0 ** (place / 8))
            loss = 0.0
            for j in range(k - 1, -1, -1):
                shift = np.float32(0.0)
                for i in range(j + 1, k):
                    shift += R[j, i] * (x[i] - tried[i])
                wanted = x[j] + shift / R[j, j]
                tried[j] = min(max(np.rint(wanted / scale), low), high) * scale
                loss += (R[j, j] * (wanted - tried[j])) ** 2
                if loss >= least:
                    break
            if loss < least:
                least = loss
                for j in range(k):
                    best[j] = tried[j]
    for j in range(k):
        x[j] = best[j]


@nb.njit(nogil=True, cache=True)
def _inverse_curvature(R, out):  # type: ignore[no-untyped-def]
    """1 / diag(A⁻¹) for A = RᵀR, R an upper triangle: (A⁻¹)_jj is the squared norm of row j of R⁻¹."""
    k = len(out)
    row = np.empty(k, dtype=np.float32)
    for j in range(k):
        row[j] = 1 / R[j, j]
        total = row[j] * row[j]
        for c in range(j + 1, k):
            s = np.float32(0.0)
            for m in range(j, c):
                s -= row[m] * R[m, c]
            row[c] = s / R[c, c]
            total += row[c] * row[c]
        out[j] = 1 / total


@nb.njit(nogil=True, cache=True)
def gradient(indptr, indices, weights, F, G, reg, V, out, start, stop):  # type: ignore[no-untyped-def]
    """Half the loss's derivative by each row: Σ w (f·x - 1) f + (G + reg I) x, without building the matrix.

    ``V`` (R, D) holds the rows x and ``out`` G x on entry (one matrix product for all rows); ``out`` is overwritten.
    """
    d = F.shape[1]
    for row in range(start, stop):
        x = V[row]
        g = out[row]
        for j in range(d):
            g[j] += reg[row] * x[j]
        for position in range(indptr[row], indptr[row + 1]):
            f = F[indices[position]]
            w = weights[position]
            error = np.float32(-1.0)
            for j in range(d):
                error += f[j] * x[j]
            for j in range(d):
                g[j] += w * error * f[j]


@nb.njit(nogil=True, cache=True, fastmath={"contract", "reassoc", "arcp", "nsz"})
def refine(indptr, indices, weights, F, shared, reg, pull, X, steps, start, stop):  # type: ignore[no-untyped-def]
    """Improve rows [start, stop) of ``X`` (R, D) by steps of conjugate gradients, preconditioned by the diagonal.

    ``pull`` (R, D) is reg times the rows' priors, or has no rows where they are zero.
    ``shared`` (D,) is the diagonal of G in a basis where G is diagonal; so a step costs 2 D an interaction, and what is
    off the diagonal is only what a row's own interactions put there.
    """
    d = F.shape[1]
    diagonal = np.empty(d, dtype=np.float32)
    residual = np.empty(d, dtype=np.float32)
    direction = np.empty(d, dtype=np.float32)
    image = np.empty(d, dtype=np.float32)
    for row in range(start, stop):
        x = X[row]
        begin, end = indptr[row], indptr[row + 1]
        if begin == end:
            x[:] = 0
            continue
        for j in range(d):
            diagonal[j] = shared[j] + reg[row]
            residual[j] = -diagonal[j] * x[j]
        if len(pull) > 0:
            for j in range(d):
                residual[j] += pull[row, j]
        for position in range(begin, end):
            f = F[indices[position]]
            w = weights[position]
            error = np.float32(1.0)
            for j in range(d):
                error -= f[j] * x[j]
            error *= w
            for j in range(d):
                residual[j] += error * f[j]
                diagonal[j] += w * f[j] * f[j]
        norm = np.float32(0.0)
        for j in range(d):
            direction[j] = residual[j] / diagonal[j]
            norm += residual[j] * direction[j]
        for _ in range(steps):
            for j in range(d):
                image[j] = (shared[j] + reg[row]) * direction[j]
            for position in range(begin, end):
                f = F[indices[position]]
                along = np.float32(0.0)
                for j in range(d):
                    along += f[j] * direction[j]
                along *= weights[position]
                for j in range(d):
                    image[j] += along * f[j]
            curvature = np.float32(0.0)
            for j in range(d):
                curvature += direction[j] * image[j]
            if not (curvature > 0 and norm > SOLVED):
                break
            length = norm / curvature
            previous = norm
            norm = np.float32(0.0)
            for j in range(d):
                x[j] += length * direction[j]
                residual[j] -= length * image[j]
                norm += residual[j] * residual[j] / diagonal[j]
            for j in range(d):
                direction[j] = residual[j] / diagonal[j] + norm / previous * direction[j]
