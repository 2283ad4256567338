"""A packed table as a torch module of plain operations."""

from typing import Self

import numpy as np
import scipy.sparse as sp
import torch

from recsparse.errors import DataError
from recsparse.tables.fallback import Mean
from recsparse.tables.packed import PackedTable
from recsparse.tables.values import decode_codes, is_integer


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
    def from_table(cls, table: PackedTable) -> Self:
        """Unpack counts, columns and codes."""
        rows, dim = table.shape
        if table.fallback.kind not in ("zero", "mean"):
            raise DataError(f"A torch module knows fallbacks zero and mean, not {table.fallback.kind!r}.")
        counts = table.row_counts()
        starts = np.concatenate([[0], np.cumsum(counts)])
        codes = torch.from_numpy(decode_codes(table.values))
        if is_integer(table.value_type):
            codes = codes.to(torch.int8)
        elif table.value_type != "fp32":
            codes = codes.to(torch.float16 if table.value_type == "fp16" else torch.bfloat16)
        row_scales = np.ones(rows, dtype=np.float32)
        if len(table.values.row_scales):
            row_scales[slice(None) if table.remap is None else table.remap.positions()] = table.values.scales
        column_scales = table.values.column_scales if len(table.values.column_scales) else np.ones(dim, np.float32)
        fallback = table.fallback.vector if isinstance(table.fallback, Mean) else np.zeros(dim, np.float32)
        columns = table.mask.columns().astype(np.uint8 if dim <= 256 else np.int16 if dim <= 2**15 else np.int32)
        return cls(
            torch.from_numpy(starts.astype(np.int32 if starts[-1] < 2**31 else np.int64)), torch.from_numpy(columns),
            codes, torch.from_numpy(row_scales), torch.from_numpy(np.array(column_scales)),
            torch.from_numpy(np.array(fallback)), int(counts.max(initial=0)), table.value_type,
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

    def to_csr(self) -> sp.csr_array:
        """The stored entries as a SciPy CSR, float32."""
        starts = self.starts.long()
        scales = torch.repeat_interleave(self.row_scales, starts[1:] - starts[:-1])
        data = self.codes.float() * scales * self.column_scales[self.columns.long()]
        shape = (self.starts.size(0) - 1, self.fallback.size(0))
        return sp.csr_array((data.numpy(), self.columns.numpy().astype(np.int32), starts.numpy()), shape=shape)
