"""A packed table as a torch module of plain operations."""

from typing import Self

import numpy as np
import torch

from recsparse.errors import DataError
from recsparse.tables.fallback import Mean
from recsparse.tables.listed import Listed
from recsparse.tables.table import Table
from recsparse.tables.values import is_integer


class SparseEmbedding(torch.nn.Module):
    """Looks up rows of a CSR of codes: a gather of up to K numbers a row, and one scatter.

    Attributes:
        starts: int32 or int64 (R + 1,).
        columns: uint8 or int16 (n,).
        codes: float32, float16, bfloat16 or int8 (n,).
        row_scales, column_scales: float32 (R,) and (D,), ones where the codes are floats.
        fallback: float32 (D,), what ids without a row return.
    """

    starts: torch.Tensor
    columns: torch.Tensor
    codes: torch.Tensor
    row_scales: torch.Tensor
    column_scales: torch.Tensor
    fallback: torch.Tensor
    places: torch.Tensor

    def __init__(
        self, starts: torch.Tensor, columns: torch.Tensor, codes: torch.Tensor, row_scales: torch.Tensor,
        column_scales: torch.Tensor, fallback: torch.Tensor, longest: int, value_type: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.register_buffer("starts", starts)
        self.register_buffer("columns", columns)
        self.register_buffer("codes", codes)
        self.register_buffer("row_scales", row_scales)
        self.register_buffer("column_scales", column_scales)
        self.register_buffer("fallback", fallback)
        self.register_buffer("places", torch.arange(longest))
        self.value_type = value_type

    @classmethod
    def from_table(cls, table: Table) -> Self:
        """Unpack counts, columns and codes."""
        listed = Listed.of(table)
        if listed.fallback.kind not in ("zero", "mean"):
            raise DataError(
                f"A torch module knows fallbacks zero and mean, not {listed.fallback.kind!r}; pack the table with one."
            )
        dim, starts = len(listed.column_scales), listed.starts
        codes = torch.from_numpy(listed.codes)
        if is_integer(listed.value_type):
            codes = codes.to(torch.int8)
        elif listed.value_type != "fp32":
            codes = codes.to(torch.float16 if listed.value_type == "fp16" else torch.bfloat16)
        fallback = listed.fallback.vector if isinstance(listed.fallback, Mean) else np.zeros(dim, np.float32)
        columns = listed.columns.astype(np.uint8 if dim <= 256 else np.int16 if dim <= 2**15 else np.int32)
        return cls(
            torch.from_numpy(starts.astype(np.int32 if starts[-1] < 2**31 else np.int64)), torch.from_numpy(columns),
            codes, torch.from_numpy(listed.row_scales), torch.from_numpy(listed.column_scales),
            torch.from_numpy(np.array(fallback)), int(np.diff(starts).max(initial=0)), listed.value_type,
        )  # fmt: skip

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows by id, float32 (B, D); unknown and pruned ids return the fallback."""
        rows = self.starts.size(0) - 1
        known = (ids >= 0) & (ids < rows)
        row = torch.where(known, ids, torch.zeros_like(ids)).long()
        out = torch.zeros(ids.size(0), self.fallback.size(0), dtype=torch.float32, device=ids.device)
        if rows == 0 or self.codes.size(0) == 0:
            return out + self.fallback
        start = self.starts[row].long()
        count = torch.where(known, self.starts[row + 1].long() - start, torch.zeros_like(start))
        inside = self.places.unsqueeze(0) < count.unsqueeze(1)
        at = torch.where(inside, start.unsqueeze(1) + self.places.unsqueeze(0), torch.zeros_like(inside).long())
        numbers = self.codes[at].float() * self.row_scales[row].unsqueeze(1) * inside.float()
        out = out.scatter_add(1, self.columns[at].long(), numbers) * self.column_scales
        return torch.where((count > 0).unsqueeze(1), out, self.fallback.unsqueeze(0))


class FactoredEmbedding(torch.nn.Module):
    """A low-rank table by parts: the rows of S times the dense B."""

    places: torch.Tensor

    def __init__(self, sparse: SparseEmbedding, basis: SparseEmbedding) -> None:
        super().__init__()
        self.sparse = sparse
        self.basis = basis
        self.register_buffer("places", torch.arange(basis.starts.size(0) - 1))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Rows by id, float32 (B, D)."""
        return torch.matmul(self.sparse(ids), self.basis(self.places))
