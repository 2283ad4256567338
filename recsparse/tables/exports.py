"""Tables for other libraries, and back: SciPy, torch and FBGEMM. NumPy is ``table.to_dense()`` and ``pack(array)``."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.tables.arrays import as_array
from recsparse.tables.bits import DAMAGED, frozen
from recsparse.tables.convert import convert
from recsparse.tables.factored import FactoredTable
from recsparse.tables.fallback import Mean, Zero, returns_zeros
from recsparse.tables.listed import Listed
from recsparse.tables.pack import pack
from recsparse.tables.packed import PackedTable
from recsparse.tables.sharded import ShardedTable
from recsparse.tables.table import Table
from recsparse.tables.values import decode_codes, is_integer, to_float32

FBGEMM_TYPES = {
    "fp32": "FP32", "bf16": "FP32", "fp16": "FP16", "int8": "INT8", "int6": "INT8", "int5": "INT8", "int4": "INT4",
    "int3": "INT4", "int2": "INT2",
}  # fmt: skip
LISTED = ("starts", "columns", "codes", "row_scales", "column_scales", "fallback")
FBGEMM_BITS = {"INT8": 8, "INT4": 4, "INT2": 2}


def to_scipy(table: Table) -> sp.csr_array:
    """The stored entries as a SciPy CSR, float32 (R, D); ``pack`` takes it back. Fallbacks are not entries."""
    if isinstance(table, PackedTable):
        matrix = sp.csr_array(table.mask.to_csr(), dtype=np.float32)
        if matrix.nnz != table.values.n:
            raise FormatError(DAMAGED)
        matrix.data = table.numbers()
        return matrix
    if isinstance(table, ShardedTable):
        return sp.csr_array(sp.vstack([to_scipy(shard) for shard in table.shards]))
    if isinstance(table, FactoredTable):
        return sp.csr_array(to_scipy(table.sparse) @ sp.csr_array(table.basis.to_dense()))
    return sp.csr_array(table.to_dense())


def to_torch(table: Table) -> Any:
    """An ``nn.Module`` in plain torch operations, for ``torch.export`` or ``torch.jit.script``: ids -> float32 (B, D).

    Codes stay 8-bit integers or 16-bit floats, columns 1 or 2 bytes, starts take 4 or 8 bytes a row. Of fallbacks
    it knows zero and mean. Shards are joined; a low-rank table becomes a module of two.

    Raises:
        DataError: the table has another fallback, or shards that differ in more than their rows.
    """
    from recsparse.tables.torch_module import FactoredEmbedding, SparseEmbedding  # noqa: PLC0415 (slow to import)

    if isinstance(table, FactoredTable):
        return FactoredEmbedding(SparseEmbedding.from_table(table.sparse), SparseEmbedding.from_table(table.basis))
    return SparseEmbedding.from_table(table)


def from_torch(module: Any, **options: Any) -> PackedTable | FactoredTable:
    """Pack a module of :func:`to_torch`, scripted or not, or anything with a 2-D ``weight``, an ``nn.Embedding`` say.

    Options go to :func:`~recsparse.tables.convert` for the former, whose codes and scales stay as they are, to
    :func:`~recsparse.tables.pack` for the latter.
    """
    if hasattr(module, "sparse") and hasattr(module, "basis"):
        sparse, basis = (from_torch(part, **options) for part in (module.sparse, module.basis))
        return FactoredTable(sparse, basis)  # type: ignore[arg-type]
    if hasattr(module, "starts") and hasattr(module, "value_type"):
        arrays = {name: np.array(as_array(getattr(module, name))) for name in LISTED}  # copies: tables do not change
        starts, columns = arrays.pop("starts").astype(np.int64), arrays.pop("columns").astype(np.int32)
        codes, row_scales, column_scales, vector = (frozen(to_float32(arrays[name])) for name in LISTED[2:])
        fallback = Mean(vector) if vector.any() else Zero()
        listed = Listed(starts, columns, codes, row_scales, column_scales, module.value_type, fallback)
        return convert(listed.to_table(), **{"layout": "auto", **options})
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2:
        raise DataError(f"A {type(module).__name__} has no two-dimensional weight to pack.")
    return pack(weight, **options)


def to_fbgemm(table: Table) -> Any:
    """FBGEMM's inference table (``IntNBitTableBatchedEmbeddingBagsCodegen``), pruned rows remapped, one id a bag.

    FBGEMM prunes rows only, so stored rows become whole rows, and keeps scale and bias as float16: an integer value
    differs from ours by at most ``2 ** -10 * 2 ** (b - 1)`` steps. Call it as ``module(ids int32, offsets int32)``.

    Raises:
        DataError: the fallback is not zero, scales are by column, a scale does not fit float16, 4 does not divide D,
            shards differ in more than their rows, or the table is low-rank.
        ConfigError: FBGEMM is not installed.
    """
    try:
        import torch  # noqa: PLC0415
        from fbgemm_gpu.split_embedding_configs import SparseType  # noqa: PLC0415
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import (  # noqa: PLC0415
            EmbeddingLocation,
            PoolingMode,
        )
        from fbgemm_gpu.split_table_batched_embeddings_ops_inference import (  # noqa: PLC0415
            IntNBitTableBatchedEmbeddingBagsCodegen,
        )
    except ImportError as error:
        raise ConfigError(f"FBGEMM cannot be imported ({error}); install recsparse[torchrec] on Linux.") from error
    if not isinstance(table, PackedTable):
        table = Listed.of(table).to_table()
    rows, dim = table.shape
    if table.fallback.kind != "zero" or len(table.values.column_scales) or dim % 4:
        raise DataError(
            f"FBGEMM returns zeros for pruned rows, scales by row and needs D divisible by 4; this table has fallback "
            f"{table.fallback.kind!r}, {'column' if len(table.values.column_scales) else 'row'} scales and D = {dim}."
        )
    kind = FBGEMM_TYPES[table.value_type]
    stored = np.flatnonzero(table.row_counts())
    weights, scales = _fbgemm_rows(table, stored, kind)
    remap = np.full(rows, -1, dtype=np.int32)
    remap[stored] = np.arange(len(stored), dtype=np.int32)
    pruned = len(stored) < rows
    module = IntNBitTableBatchedEmbeddingBagsCodegen(
        [("table", max(1, len(stored)), dim, getattr(SparseType, kind), EmbeddingLocation.HOST)],
        pooling_mode=PoolingMode.SUM, device="cpu", output_dtype=SparseType.FP32, row_alignment=1,
        index_remapping=[torch.from_numpy(remap)] if pruned else None,
        use_array_for_index_remapping=True,
    )  # fmt: skip
    module.initialize_weights()
    parts = module.split_embedding_weights(split_scale_shifts=True)
    if len(stored):
        parts[0][0][: len(stored)].copy_(torch.from_numpy(weights))
        if scales is not None:
            parts[0][1][: len(stored)].copy_(torch.from_numpy(scales))
    return module


def from_fbgemm(module: Any, rows: int, **options: Any) -> PackedTable:
    """Pack the numbers of a one-table FBGEMM inference module that are not zero; ``rows`` is R, options go to ``pack``.

    Of a row of zeros that FBGEMM has not pruned one is kept where another fallback than zero is asked for.

    Raises:
        DataError: it holds several tables.
    """
    if len(module.embedding_specs) != 1:
        raise DataError(f"The module holds {len(module.embedding_specs)} tables; export them one at a time.")
    import torch  # noqa: PLC0415

    ids = torch.arange(rows, dtype=torch.int32)
    dense = module(ids, torch.arange(rows + 1, dtype=torch.int32)).numpy()
    kept = np.ones(rows, dtype=np.bool_)
    if module.index_remappings_array.numel():
        kept = module.index_remappings_array.numpy()[:rows] >= 0
    entries = dense != 0
    if not returns_zeros(options.get("fallback", "zero")):
        entries[kept & ~entries.any(axis=1), 0] = True
    return pack(dense, entries, **options)


def _fbgemm_rows(
    table: PackedTable, stored: npt.NDArray[np.int64], kind: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Bytes of each stored row, and of its scale and bias."""
    if kind in ("FP32", "FP16"):
        dense = table.lookup(stored).astype(np.float32 if kind == "FP32" else np.float16)
        return dense.view(np.uint8), None
    bits = FBGEMM_BITS[kind]
    middle = 1 << (bits - 1)
    if not is_integer(table.value_type):
        raise AssertionError(kind)
    codes = np.zeros(table.shape, dtype=np.int16)
    codes[table.mask.to_dense()] = decode_codes(table.values)
    unsigned = (codes[stored] + middle).astype(np.uint8)
    per_byte = 8 // bits
    grouped = unsigned.reshape(len(stored), table.shape[1] // per_byte, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    weights = np.bitwise_or.reduce(grouped << shifts, axis=2).astype(np.uint8)
    every = np.zeros(table.shape[0], dtype=np.float32)
    every[np.arange(table.shape[0]) if table.remap is None else table.remap.positions()] = table.values.scales
    scales = every[stored]
    if (np.abs(scales) * middle > 65504).any() or ((scales != 0) & (np.abs(scales) < 2**-24)).any():
        raise DataError("A row scale does not fit FBGEMM's float16; export the table as bf16 or fp32 (convert).")
    pairs = np.stack([scales, -middle * scales], axis=1).astype(np.float16)
    return weights, pairs.view(np.uint8).reshape(len(stored), 4)
