"""The size of every layout by arithmetic, before anything is built, and the smallest of them."""

from dataclasses import dataclass

import numpy as np

from recsparse.errors import BudgetError, DataError
from recsparse.kernels import number
from recsparse.kernels.bits import PADDING
from recsparse.kernels.locate import GROUP
from recsparse.tables.bits import bits_for, counters_for
from recsparse.tables.combinations import chunking, numbering
from recsparse.tables.counted import is_uniform
from recsparse.tables.fallback import Fallback, returns_zeros
from recsparse.tables.mask import Mask
from recsparse.tables.values import Scales, check_value_type, code_bytes, is_integer


@dataclass(frozen=True)
class Part:
    """Bytes for one purpose, with the arithmetic that gives them."""

    nbytes: int
    arithmetic: str


@dataclass(frozen=True)
class Choice:
    """A layout and what it takes.

    Attributes:
        layout: see :data:`recsparse.tables.LAYOUTS`.
        remap: whether rows without an entry are left out.
        value_type: of the numbers.
        parts: bytes by purpose, as :meth:`~recsparse.tables.Table.breakdown` of the table will say (without the
            fallback).
    """

    layout: str
    remap: bool
    value_type: str
    parts: dict[str, Part]

    @property
    def nbytes(self) -> int:
        """Bytes in all."""
        return sum(part.nbytes for part in self.parts.values())

    def __str__(self) -> str:
        """The arithmetic, a line a purpose."""
        lines = [f"{name:8} {part.nbytes:>14,}  = {part.arithmetic}" for name, part in self.parts.items()]
        return "\n".join([f"{self.layout}, {self.value_type}: {self.nbytes:,} bytes", *lines])


def layout_sizes(
    mask: Mask, *, value_type: str = "fp32", scales: Scales = "row", fallback: str | Fallback = "zero"
) -> list[Choice]:
    """Every layout that can hold the mask, with and without a remap, smallest first.

    With another fallback than zero these are the ones that tell rows without an entry from rows of zeros.

    The cost is a pass over the mask's bits; nothing is built.

    Example:
        >>> sizes = layout_sizes(Mask.from_dense(np.eye(64, dtype=bool)), value_type="int8")
        >>> [(choice.layout, choice.nbytes) for choice in sizes if not choice.remap][:2]
        [('ell', 194), ('combination', 194)]
    """
    check_value_type(value_type)
    sizes = []
    full_rows = np.arange(mask.shape[0], dtype=np.int64)
    stored_rows = np.flatnonzero(mask.row_counts)
    for remap, rows in ((False, full_rows), (True, stored_rows)):
        if remap and len(rows) == len(full_rows):
            continue
        start = {"remap": _bitmap(mask.shape[0], len(rows), "row")} if remap else {}
        for layout, parts in _supports(mask, rows).items():
            if layout == "dense" and len(rows) > len(stored_rows) and not returns_zeros(fallback):
                continue
            n = len(rows) * mask.shape[1] if layout == "dense" else mask.kept
            numbers = {"values": _codes(value_type, n)} | _scales(value_type, scales, len(rows), mask.shape[1])
            name = "rows" if layout == "dense" and remap else layout
            sizes.append(Choice(name, remap, value_type, {**start, **parts, **numbers}))
    return sorted(sizes, key=lambda choice: choice.nbytes)


def choose_layout(
    mask: Mask, *, value_type: str | tuple[str, ...] = "fp32", scales: Scales = "row", budget: int | None = None,
    fallback: str | Fallback = "zero",
) -> Choice:  # fmt: skip
    """The smallest layout for a mask; print it to see the arithmetic.

    Args:
        mask: the kept entries.
        value_type: one, or several from the most to the least precise, of which the first that fits is taken.
        scales: "row" or "column" scales for integers.
        budget: bytes that must not be passed (without a fallback's).
        fallback: what rows without an entry will return, which the layout has to tell from rows of zeros.

    Raises:
        BudgetError: nothing fits; the message names the nearest sizes.
    """
    types = (value_type,) if isinstance(value_type, str) else value_type
    best = [layout_sizes(mask, value_type=each, scales=scales, fallback=fallback)[0] for each in types]
    if budget is None:
        return best[0]
    for choice in best:
        if choice.nbytes <= budget:
            return choice
    nearest = ", ".join(f"{choice.nbytes:,} ({choice.value_type}, {choice.layout})" for choice in best[::-1])
    raise BudgetError(
        f"{mask.kept:,} entries do not fit {budget:,} bytes; the nearest sizes are {nearest}. "
        "Keep fewer entries, or allow fewer bits."
    )


def ideal_bytes(mask: Mask, value_type: str) -> float:
    """The entropy bound: the least that tells the kept entries apart from all others, plus the bare codes.

    ``log2 C(D, k)`` bits for each row of ``k`` of ``D`` entries (as if the ``k`` were known), tiles counted as entries.
    """
    from scipy.special import gammaln  # noqa: PLC0415

    tiles = mask.tiles_per_row
    counts = mask.row_counts[:: mask.block[0]] / mask.block[1]
    nats = gammaln(tiles + 1) - gammaln(counts + 1) - gammaln(tiles - counts + 1)
    code_bits = (code_bytes(value_type, 1000) - (PADDING if is_integer(value_type) else 0)) * 8 / 1000
    return float(nats.sum() / np.log(2) / 8 + mask.kept * code_bits / 8)


def _supports(mask: Mask, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> dict[str, dict[str, Part]]:
    """The parts of each support over these rows."""
    dim, n = mask.shape[1], mask.kept
    counts = mask.row_counts[rows]
    sizes: dict[str, dict[str, Part]] = {"dense": {}, "bitmap": {"bitmap": _bitmap(len(rows) * dim, n, "entry")}}
    if mask.block != (1, 1):
        tiles = -(-len(rows) // mask.block[0]) * mask.tiles_per_row
        sizes["block"] = {"bitmap": _bitmap(tiles, n, f"tile of {mask.block[0]} x {mask.block[1]}")}
    width = bits_for(dim - 1)
    columns = {"indices": _packed(n, width, "entry")}
    if is_uniform(counts[:, None]):
        sizes["ell"] = columns
    sizes["csr"] = columns | {"counts": _counts(counts[:, None], n)}
    chunks, chunk = chunking(dim)
    per_chunk = np.empty((len(rows), chunks), dtype=np.int64)
    number.chunk_counts(mask.to_elements().bits, dim, rows, chunk, per_chunk)
    bits = int(numbering(chunk).bits[per_chunk].sum())
    indices = Part(-(-bits // 8) + PADDING, f"{bits:,} bits of subset numbers + {PADDING}")
    if is_uniform(per_chunk):
        sizes["combination"] = {"indices": indices}
    else:
        starts = Part(_starts(len(rows), bits), f"a start every {GROUP} of {len(rows):,} rows")
        both = Part(indices.nbytes + starts.nbytes, f"{indices.arithmetic} + {starts.arithmetic}")
        sizes["combination"] = {"indices": both, "counts": _counts(per_chunk, n)}
    return sizes


def _bitmap(n_bits: int, ones: int, unit: str) -> Part:
    width = 4 if ones < 2**32 else 8
    counters = counters_for(n_bits)
    return Part(
        -(-n_bits // 8) + PADDING + width * counters,
        f"{n_bits:,} bits, one a {unit}, + {PADDING} + {counters:,} counters x {width}",
    )


def _packed(n: int, width: int, unit: str) -> Part:
    return Part(-(-n * width // 8) + PADDING, f"{n:,} x {width} bits, one number a {unit}, + {PADDING}")


def _starts(rows: int, total: int) -> int:
    return -(-rows // GROUP) * (4 if total < 2**32 else 8)


def _counts(counts: np.ndarray[tuple[int, int], np.dtype[np.int64]], total: int) -> Part:
    width = max(1, bits_for(int(counts.max(initial=0))))
    packed = _packed(counts.size, width, "count")
    return Part(
        packed.nbytes + _starts(len(counts), total),
        f"{packed.arithmetic} + a start every {GROUP} of {len(counts):,} rows",
    )


def _codes(value_type: str, n: int) -> Part:
    return Part(code_bytes(value_type, n), f"{n:,} numbers of {value_type}")


def _scales(value_type: str, scales: Scales, rows: int, dim: int) -> dict[str, Part]:
    if not is_integer(value_type):
        return {}
    if scales == "row":
        return {"scales": Part(rows + 2, f"{rows:,} row scales of 1 byte + 2")}
    if scales == "column":
        return {"scales": Part(4 * dim, f"{dim} column scales of 4 bytes")}
    raise DataError(f"scales is {scales!r}; it must be 'row' or 'column'.")
