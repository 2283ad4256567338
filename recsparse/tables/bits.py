"""Bit buffers and their rank structure, as plain arrays."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from recsparse.errors import FormatError
from recsparse.kernels import bits as kernels

Bytes = npt.NDArray[np.uint8]
DAMAGED = "The table is damaged: a row's place is outside of what is stored. Save it again."
"""What is said where a file that was opened without checking its tensors leads outside of them."""


Array = TypeVar("Array", bound=npt.NDArray[Any])


def frozen(array: Array) -> Array:
    """The same memory, read-only: tables never change, and kernels are compiled once for both files and arrays."""
    view = array.view()
    view.flags.writeable = False
    return view


def stored(tensors: dict[str, npt.NDArray[Any]], name: str, dtype: Any, length: int) -> npt.NDArray[Any]:
    """Take a tensor read from a file, of exactly this type and length: kernels trust both.

    Raises:
        ValueError: it is another.
    """
    tensor = tensors[name]
    if not np.issubdtype(tensor.dtype, dtype) or tensor.shape != (length,):
        raise ValueError(f"{name} is {tensor.dtype} {tensor.shape}, expected {np.dtype(dtype).name} ({length},)")
    return tensor


def buffer_bytes(n_bits: int) -> int:
    """Bytes of a bit buffer."""
    return (n_bits + 7) // 8 + kernels.PADDING


def bit_buffer(n_bits: int) -> Bytes:
    """A zeroed bit buffer of ``n_bits`` and its padding."""
    return np.zeros(buffer_bytes(n_bits), dtype=np.uint8)


def from_bools(values: npt.NDArray[np.bool_]) -> Bytes:
    """Pack booleans, in C order, into a bit buffer."""
    packed = np.packbits(values.reshape(-1), bitorder="little")
    return np.concatenate([packed, np.zeros(kernels.PADDING, dtype=np.uint8)])


def to_bools(buffer: Bytes, start: int, stop: int) -> npt.NDArray[np.bool_]:
    """Bits ``start`` to ``stop`` of a bit buffer as booleans."""
    first = start >> 3
    unpacked = np.unpackbits(buffer[first : (stop + 7) >> 3], bitorder="little")
    return unpacked[start - first * 8 : stop - first * 8].view(np.bool_)


def pack_integers(values: npt.NDArray[np.integer], width: int) -> Bytes:
    """Pack integers of ``width`` <= 57 bits each (two's complement if negative) into a bit buffer."""
    buffer = bit_buffer(len(values) * width)
    kernels.write_bits(buffer, values.astype(np.int64, copy=False), width)
    return buffer


def unpack_integers(buffer: Bytes, width: int, n: int) -> npt.NDArray[np.int64]:
    """The inverse of :func:`pack_integers` for non-negative integers."""
    out = np.empty(n, dtype=np.int64)
    kernels.unpack_bits(buffer, width, out)
    return out


def copy_bits(buffer: Bytes, start: int, n_bits: int) -> Bytes:
    """Bits ``start`` to ``start + n_bits`` as a bit buffer of their own."""
    out = bit_buffer(n_bits)
    kernels.move_bits(buffer, start, n_bits, out)
    return frozen(out)


def bits_for(largest: int) -> int:
    """The width that holds 0 to ``largest``; 0 bits hold only 0."""
    return int(largest).bit_length()


def counters_for(n_bits: int) -> int:
    """How many counters a rank structure over ``n_bits`` has."""
    return (n_bits + kernels.RANK_BITS - 1) // kernels.RANK_BITS + 1


@dataclass(frozen=True, eq=False)
class BitRank:
    """A bitmap that also answers "how many ones before bit i" at once: 1.0625 bits a bit.

    Attributes:
        bits: the bit buffer.
        n_bits: how many bits.
        counters: ones before every 512th bit, uint32 (uint64 from 2^32 ones on).
    """

    bits: Bytes
    n_bits: int
    counters: npt.NDArray[np.unsignedinteger]

    @classmethod
    def build(cls, bits: Bytes, n_bits: int) -> "BitRank":
        """Count the ones of a bit buffer."""
        counters = np.zeros(counters_for(n_bits), dtype=np.int64)
        ones = kernels.count_blocks(bits, n_bits, counters)
        dtype = np.uint32 if ones < 2**32 else np.uint64
        return cls(frozen(bits), n_bits, frozen(counters.astype(dtype)))

    @classmethod
    def from_tensors(cls, tensors: dict[str, npt.NDArray[Any]], name: str, n_bits: int) -> "BitRank":
        """Wrap what a file holds under ``name``."""
        bits = stored(tensors, f"{name}.bits", np.uint8, buffer_bytes(n_bits))
        counters = stored(tensors, f"{name}.counters", np.unsignedinteger, counters_for(n_bits))
        return cls(bits, n_bits, counters)

    def tensors(self, name: str) -> dict[str, npt.NDArray[Any]]:
        """What a file holds under ``name``."""
        return {f"{name}.bits": self.bits, f"{name}.counters": self.counters}

    @cached_property
    def ones(self) -> int:
        """How many bits are set."""
        return int(self.counters[-1])

    def rank(self, at: int) -> int:
        """The ones before bit ``at``."""
        return int(kernels.rank_at(self.bits, self.counters, at))

    def slice_bits(self, start: int, stop: int) -> "BitRank":
        """Bits ``start`` to ``stop``, counted anew."""
        return BitRank.build(copy_bits(self.bits, start, stop - start), stop - start)

    def positions(self) -> npt.NDArray[np.int64]:
        """Where the ones are, ascending."""
        out = np.empty(self.ones, dtype=np.int64)
        if kernels.positions(self.bits, self.n_bits, 0, out) != len(out):
            raise FormatError(DAMAGED)
        return out
