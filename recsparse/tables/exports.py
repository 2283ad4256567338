"""Tables for other libraries, and back: SciPy, torch and FBGEMM. NumPy is ``table.to_dense()`` and ``pack(array)``."""

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError
from recsparse.tables.arrays import as_array
from recsparse.tables.bits import frozen
from recsparse.tables.fallback import Mean
from recsparse.tables.mask import Mask
from recsparse.tables.pack import pack
from recsparse.tables.packed import PackedTable
from recsparse.tables.table import Table
from recsparse.tables.values import decode_codes, is_integer

FBGEMM_TYPES = {
    "fp32": "FP32", "bf16": "FP32", "fp16": "FP16", "int8": "INT8", "int6": "INT8", "int5": "INT8", "int4": "INT4",
    "int3": "INT4", "int2": "INT2",
}  # fmt: skip
FBGEMM_BITS = {"INT8": 8, "INT4": 4, "INT2": 2}


def to_scipy(table: Table) -> sp.csr_array:
    """The stored entries as a SciPy CSR, float32 (R, D); ``pack`` takes it back. Fallbacks are not entries."""
    if isinstance(table, PackedTable):
        matrix = sp.csr_array(table.mask.to_csr(), dtype=np.float32)
        matrix.data = table.numbers()
        return matrix
    return sp.csr_array(table.to_dense())


def to_torch(table: PackedTable) -> Any:
    """An ``nn.Module`` in plain torch operations, for ``torch.export`` or ``torch.jit.script``: ids -> float32 (B, D).

    Codes stay 8-bit integers or 16-bit floats, columns 1 or 2 bytes, starts take 4 or 8 bytes a row. Of fallbacks
    it knows zero and mean.

    Raises:
        DataError: the table has another fallback.
    """
    from recsparse.tables.torch_module import SparseEmbedding  # noqa: PLC0415 (torch is slow to import)

    return SparseEmbedding.from_table(table)


def from_torch(module: Any, **options: Any) -> PackedTable:
    """Pack a module of :func:`to_torch`, or anything with a 2-D ``weight``, an ``nn.Embedding`` say."""
    if hasattr(module, "to_csr"):
        vector = as_array(module.fallback).astype(np.float32)
        fallback = Mean(frozen(vector)) if vector.any() else "zero"
        return pack(module.to_csr(), **{"value_type": module.value_type, "fallback": fallback, **options})
    weight = getattr(module, "weight", None)
    if weight is None or weight.ndim != 2:
        raise DataError(f"A {type(module).__name__} has no two-dimensional weight to pack.")
    return pack(weight, **options)


def to_fbgemm(table: PackedTable) -> Any:
    """FBGEMM's inference table (``IntNBitTableBatchedEmbeddingBagsCodegen``), pruned rows remapped, one id a bag.

    FBGEMM prunes rows only, so stored rows become whole rows, and keeps scale and bias as float16: an integer value
    differs from ours by at most ``2 ** -10 * 2 ** (b - 1)`` steps. Call it as ``module(ids int32, offsets int32)``.

    Raises:
        DataError: the fallback is not zero, scales are by column, a scale does not fit float16, or 4 does not divide D.
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
    """Pack the rows of a one-table FBGEMM inference module; ``rows`` is R, options go to ``pack``.

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
    return pack(dense, Mask.from_rows(kept, dense.shape[1]), **{"layout": "rows", **options})


def _fbgemm_rows(
    table: PackedTable, stored: npt.NDArray[np.int64], kind: str
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8] | None]:
    """Bytes of each stored row, and of its scale and bias."""
    if kind in ("FP32", "FP16"):
        dense = table.lookup(stored).astype(np.float32 if kind == "FP32" else np.float16)
        return dense.view(np.uint8).reshape(len(stored), -1), None
    bits = FBGEMM_BITS[kind]
    middle = 1 << (bits - 1)
    if not is_integer(table.value_type):
        raise AssertionError(kind)
    codes = np.zeros(table.shape, dtype=np.int16)
    codes[table.mask.to_dense()] = decode_codes(table.values)
    unsigned = (codes[stored] + middle).astype(np.uint8)
    per_byte = 8 // bits
    grouped = unsigned.reshape(len(stored), -1, per_byte)
    shifts = np.arange(per_byte, dtype=np.uint8) * np.uint8(bits)
    weights = np.bitwise_or.reduce(grouped << shifts, axis=2).astype(np.uint8)
    every = np.zeros(table.shape[0], dtype=np.float32)
    every[np.arange(table.shape[0]) if table.remap is None else table.remap.positions()] = table.values.scales
    scales = every[stored]
    if (np.abs(scales) * middle > 65504).any() or ((scales != 0) & (np.abs(scales) < 2**-24)).any():
        raise DataError("A row scale does not fit FBGEMM's float16; export the table as bf16 or fp32 (convert).")
    pairs = np.stack([scales, -middle * scales], axis=1).astype(np.float16)
    return weights, pairs.view(np.uint8).reshape(len(stored), 4)
