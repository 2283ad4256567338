"""Arrays as callers hand them over, NumPy, torch, SciPy or lists, and the checks that kernels rely on."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import DataError


def is_torch(given: Any) -> bool:
    """Whether it is a torch tensor; torch is not imported for it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(given, torch.Tensor)


def as_array(given: Any) -> npt.NDArray[Any]:
    """The numbers as NumPy, sharing memory where that is possible.

    Torch tensors may need a gradient and be on any device; floats that NumPy does not have, bfloat16 say, become
    float32.
    """
    if not is_torch(given):
        return np.asarray(given)
    tensor = given.detach().cpu()
    if tensor.is_floating_point() and tensor.itemsize < 4:
        tensor = tensor.float()
    array: npt.NDArray[Any] = tensor.numpy()
    return array


def like(given: Any, result: npt.NDArray[Any]) -> Any:
    """The result as torch, on the same device, if torch was given (memory is shared on a CPU); else as it is."""
    if is_torch(given):
        import torch  # noqa: PLC0415

        return torch.from_numpy(result).to(given.device)
    return result


def row_ids(ids: Any) -> npt.NDArray[np.int64]:
    """Ids as int64 (B,), refusing what is not a vector of integers."""
    array = as_array(ids)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
        raise DataError(f"The ids are a {array.ndim}-D array of {array.dtype}; they must be 1-D and of integers.")
    return array.astype(np.int64, copy=False)


def as_csr(matrix: Any, *, copy: bool = False) -> sp.csr_array:
    """A SciPy CSR of it, refusing one whose row starts or columns lie outside of it: kernels trust both."""
    try:
        csr = sp.csr_array(matrix, copy=copy)
        csr.check_format()
    except ValueError as error:
        raise DataError(f"The sparse matrix is malformed ({error}); build it anew.") from error
    return csr


def check_rows(start: int, stop: int, rows: int, what: Any) -> None:
    """Refuse a range of rows that ``what``, which has so many, does not have."""
    if not 0 <= start <= stop <= rows:
        raise DataError(f"Rows {start} to {stop} were asked for; {what} has {rows}.")
