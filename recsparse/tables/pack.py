"""Dense or sparse numbers -> a packed table."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError
from recsparse.tables.arrays import as_array, as_csr
from recsparse.tables.bits import BitRank
from recsparse.tables.choose import choose_layout, layout_sizes
from recsparse.tables.fallback import Fallback, Zero, mean_of, returns_zeros
from recsparse.tables.mask import Counts, Mask
from recsparse.tables.packed import PackedTable
from recsparse.tables.supports import Full, Support, build_support
from recsparse.tables.values import Floats, Scales, check_finite, check_value_type, encode, to_float32

LAYOUTS = ("dense", "rows", "bitmap", "block", "ell", "csr", "combination")
"""How a support can be stored; see :mod:`recsparse.tables.supports`."""


def pack(
    values: Any, mask: Mask | npt.ArrayLike | None = None, *, layout: str = "auto", value_type: str = "fp32",
    scales: Scales = "row", remap: bool | None = None, fallback: str | Fallback = "zero", n_jobs: int | None = None,
) -> PackedTable:  # fmt: skip
    """Store a table's kept entries in as few bytes as its layout and value type allow.

    Args:
        values: (R, D) floats: NumPy, torch, or a SciPy sparse matrix, whose stored entries are the kept ones. Or (N,),
            the numbers of a :class:`Mask`'s N entries, row after row.
        mask: which entries are kept; by default those that are not zero. Booleans (R, D) do as well.
        layout: one of :data:`LAYOUTS`, or "auto" for the smallest (:func:`~recsparse.tables.choose_layout`).
        value_type: fp32, fp16, bf16, int8, int6, int5, int4, int3 or int2.
        scales: integers have one scale a "row" or a "column".
        remap: leave out rows without any entry, at 1.06 bits a row of the table; by default where that is smaller
            (always for layout rows, never for dense).
        fallback: what rows without an entry, and unknown ids, return: "zero", "mean" (of the rows that have one), or
            an object of :mod:`recsparse.tables.fallback`.
        n_jobs: threads.

    Raises:
        DataError: a number is NaN or infinite, of the fallback too, shapes differ, or the layout cannot hold the mask.
        ConfigError: an unknown layout, value type or fallback.

    Example:
        >>> table = pack(np.array([[0, 2.0, 0], [0, 0, 0], [1, 0, 3]]), layout="csr", remap=False)
        >>> table.lookup([2, 1, -1])
        array([[1., 0., 3.],
               [0., 0., 0.],
               [0., 0., 0.]], dtype=float32)
        >>> table.breakdown()  # each bit buffer ends in 8 bytes of padding
        {'indices': 9, 'counts': 13, 'values': 12}
    """
    check_value_type(value_type)
    kept, data = _kept(values, mask)
    options: Any = {"value_type": value_type, "scales": scales, "fallback": fallback}
    layout, remap = settle(kept, layout, remap, **options)
    return assemble(kept, data, layout=layout, remap=remap, n_jobs=n_jobs, **options)


def settle(
    mask: Mask, layout: str, remap: bool | None, *, value_type: str, scales: Scales, fallback: str | Fallback
) -> tuple[str, bool]:
    """The layout, and whether it has a remap, that :func:`pack` is asked for."""
    if layout == "auto":
        choice = choose_layout(mask, value_type=value_type, scales=scales, fallback=fallback)
        return choice.layout, choice.remap
    if layout not in LAYOUTS:
        raise ConfigError(f"The layout is {layout!r}; it must be 'auto' or one of {list(LAYOUTS)}.")
    if layout in ("dense", "rows"):
        if remap == (layout == "dense"):
            raise ConfigError(
                f"Layout {layout!r} with remap {remap}: dense stores every row, rows those with an entry."
            )
        return layout, layout == "rows"
    if remap is None:
        sizes = layout_sizes(mask, value_type=value_type, scales=scales)
        remap = next((choice.remap for choice in sizes if choice.layout == layout), False)
    return layout, remap


def assemble(
    mask: Mask, data: Floats, *, layout: str, value_type: str, scales: Scales, remap: bool,
    fallback: str | Fallback, n_jobs: int | None = None,
) -> PackedTable:  # fmt: skip
    """Store ``data``, the numbers of the mask's entries row after row."""
    dim = mask.shape[1]
    ranked, support, rows, data = lay_out(mask, data, layout=layout, remap=remap, fallback=fallback)
    starts = np.concatenate([[0], np.cumsum(support.row_counts(len(rows), dim))])

    def columns() -> npt.NDArray[Any]:
        return np.tile(np.arange(dim), len(rows)) if isinstance(support, Full) else mask.columns()

    stored = encode(data, starts, columns, dim, value_type=value_type, scales=scales, n_jobs=n_jobs)
    return PackedTable(
        mask.shape, ranked, support, stored, _fallback(fallback, data, columns, mask.row_counts, mask.shape)
    )


def lay_out(
    mask: Mask, data: Floats, *, layout: str, remap: bool, fallback: str | Fallback
) -> tuple[BitRank | None, Support, Counts, Floats]:
    """Remap, support, stored rows and their numbers, of ``data`` as of :func:`assemble`.

    Raises:
        DataError: the layout cannot hold the mask, or cannot tell a row that has the fallback.
    """
    empty = mask.row_counts == 0
    rows = np.arange(mask.shape[0], dtype=np.int64)
    ranked = None
    if remap:
        rows = np.flatnonzero(~empty)  # rows of a block share their entries, so they stay together
        ranked = BitRank.build(Mask.from_rows(~empty, 1).bits, mask.shape[0])
    support = build_support(layout, mask, rows)
    if isinstance(support, Full):
        data = _fill_rows(mask, data, rows)
        if not returns_zeros(fallback) and empty[rows].any():
            raise DataError("A dense layout cannot tell pruned rows from rows of zeros; use layout 'rows'.")
    return ranked, support, rows, data


def _kept(values: Any, mask: Any) -> tuple[Mask, Floats]:
    """The mask, and the numbers of its entries row after row."""
    if sp.issparse(values):
        matrix = as_csr(values, copy=True)
        matrix.sum_duplicates()
        matrix.data = to_float32(matrix.data)
        if mask is None:
            return Mask.from_csr(matrix), matrix.data
        values = matrix.toarray()
    dense = as_array(values)
    if isinstance(mask, Mask) and dense.shape == (mask.kept,) and dense.dtype.kind == "f":
        return mask, to_float32(dense)
    if dense.ndim != 2 or dense.dtype.kind not in "fiu":
        raise DataError(f"The values are a {dense.ndim}-D array of {dense.dtype}; a table is 2-D and of floats.")
    dense = to_float32(dense)
    if mask is None:
        mask = Mask.from_dense(dense != 0)
    elif not isinstance(mask, Mask):
        mask = Mask.from_dense(mask)
    if mask.shape != dense.shape:
        raise DataError(f"The mask has shape {mask.shape}, the values {dense.shape}.")
    if mask.kept == dense.size:
        return mask, np.ascontiguousarray(dense).reshape(-1)
    data = [dense[start:stop][mask.dense_rows(start, stop)] for start, stop in mask.chunks()]
    return mask, np.concatenate(data) if data else np.zeros(0, dtype=np.float32)


def _fill_rows(mask: Mask, data: Floats, rows: Counts) -> Floats:
    """The numbers of whole rows, zeros where the mask has none."""
    if len(data) == len(rows) * mask.shape[1]:
        return data
    dense = np.zeros(mask.shape, dtype=np.float32)
    done = 0
    for start, stop in mask.chunks():
        kept = mask.dense_rows(start, stop)
        n = int(kept.sum())
        dense[start:stop][kept] = data[done : done + n]
        done += n
    return dense[rows].reshape(-1)


def _fallback(fallback: str | Fallback, data: Floats, columns: Any, counts: Counts, shape: tuple[int, int]) -> Fallback:
    if isinstance(fallback, Fallback):
        try:
            tensors = {name: as_array(tensor) for name, tensor in fallback.tensors().items()}
            fallback = fallback.from_tensors(fallback.header, tensors, *shape)
        except ValueError as error:
            raise DataError(f"The {fallback.kind} fallback does not fit a table of {shape}: {error}.") from error
        for name, tensor in tensors.items():
            if tensor.dtype.kind == "f":
                check_finite(tensor, f"number of {name}")
        return fallback
    if fallback == "zero":
        return Zero()
    if fallback == "mean":
        return mean_of(data, columns(), int((counts > 0).sum()), shape[1])
    raise ConfigError(f"The fallback is {fallback!r}; it must be 'zero', 'mean' or an object of tables.fallback.")
