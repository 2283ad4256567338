"""A packed table's entries when others come to live."""

import numba as nb

from recsparse.kernels.bits import read_bits


@nb.njit(nogil=True, cache=True)
def regroup(values, old, new, n_bits, out):  # type: ignore[no-untyped-def]
    """Lay the numbers of a mask's ones out as those of another mask, a bit buffer each of ``n_bits``; new ones are 0.

    First what stays moves to the front of ``values``, then, from the end, to its place in ``out``, which may be
    ``values`` itself.
    """
    at = staying = 0
    for bit in range(n_bits):
        if read_bits(old, bit, 1):
            if read_bits(new, bit, 1):
                values[staying] = values[at]
                staying += 1
            at += 1
    at = len(out)
    for bit in range(n_bits - 1, -1, -1):
        if read_bits(new, bit, 1):
            at -= 1
            if read_bits(old, bit, 1):
                staying -= 1
                out[at] = values[staying]
            else:
                out[at] = 0
