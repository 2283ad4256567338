"""Single-precision BLAS and LAPACK from inside compiled loops, through the routines SciPy carries.

A compiled function that holds a routine's address as a constant cannot be cached on disk, for the address changes
from process to process. So the address travels as an argument: :data:`ROUTINES` goes into each kernel that needs it.
"""

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import get_cython_function_address, intrinsic, register_jitable

ROUTINES: npt.NDArray[np.int64] = np.array(
    [
        get_cython_function_address("scipy.linalg.cython_blas", "ssyrk"),
        get_cython_function_address("scipy.linalg.cython_lapack", "sposv"),
    ],
    dtype=np.int64,
)
"""Addresses of ssyrk and sposv in this process."""

_LOWER = np.array([ord("L")], dtype=np.uint8)
_PLAIN = np.array([ord("N")], dtype=np.uint8)


@intrinsic
def _call(typingctx, address, arguments):  # type: ignore[no-untyped-def]
    """Call the Fortran routine at ``address`` with a tuple of addresses as its arguments."""

    def generate(context, builder, signature, values):  # type: ignore[no-untyped-def]
        pointers = cgutils.unpack_tuple(builder, values[1])
        word = ir.IntType(64)
        routine = builder.inttoptr(values[0], ir.FunctionType(ir.VoidType(), [word] * len(pointers)).as_pointer())
        builder.call(routine, pointers)
        return context.get_dummy_value()

    return types.void(address, arguments), generate


@register_jitable
def add_gram(routines, B, n, A, scalars, integers):  # type: ignore[no-untyped-def]
    """A += B[:n]ᵀ B[:n], upper triangle of a row-major (d, d) ``A``; ``B`` is a row-major buffer (≥ n, d).

    ``scalars`` (≥ 1,) float32 and ``integers`` (≥ 3,) int32 are scratch that the caller allocates once.
    """
    scalars[0] = 1.0
    integers[0] = A.shape[0]
    integers[1] = n
    integers[2] = B.shape[1]
    d = integers[0:1].ctypes.data
    one = scalars.ctypes.data
    lda = integers[2:3].ctypes.data
    _call(
        routines[0],
        (
            _LOWER.ctypes.data,
            _PLAIN.ctypes.data,
            d,
            integers[1:2].ctypes.data,
            one,
            B.ctypes.data,
            lda,
            one,
            A.ctypes.data,
            d,
        ),
    )


@register_jitable
def solve_positive(routines, A, x, integers):  # type: ignore[no-untyped-def]
    """Solve A x = b in place, ``x`` holding b, for a positive definite row-major upper triangle ``A``.

    Returns LAPACK's info: 0, or the order of the leading minor that is not positive definite.
    """
    integers[0] = A.shape[0]
    integers[1] = 1
    integers[2] = 0
    d = integers[0:1].ctypes.data
    _call(
        routines[1],
        (
            _LOWER.ctypes.data,
            d,
            integers[1:2].ctypes.data,
            A.ctypes.data,
            d,
            x.ctypes.data,
            d,
            integers[2:3].ctypes.data,
        ),
    )
    return integers[2]
