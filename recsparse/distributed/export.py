"""Sharded tables -> packed tables, each rank writing its range of ids, under one index."""

import shutil
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from recsparse.distributed.process import agreed, gather
from recsparse.distributed.rows import LogicalTables, shares
from recsparse.files import atomic_directory
from recsparse.tables import Mask, pack, save_table
from recsparse.tables.fallback import Mean
from recsparse.tables.storage import shard_name, write_index

BLOCK = 1 << 16
"""Ids fetched at a time."""


def export(
    tables: LogicalTables, name: str, path: Path, *, value_type: str = "fp32", block: int = BLOCK
) -> dict[str, int]:
    """Write one table as a directory that :func:`recsparse.tables.load_table` reads; every rank calls it together.

    A rank fetches its own range of ids, which in a row-wise table are its own rows, packs them and writes one file.
    No rank holds more than its range. Where ids have features, what is written are the sums, so that whoever reads the
    table needs neither. The directory appears when all files are in it.

    Returns:
        ``nbytes`` of the packed shards and ``dense`` bytes of the same rows in float32.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    rows = tables.rows[name]
    dim = tables.sharded.specs[name].dim
    starts = shares(rows.n_ids, world)
    first, last = starts[rank], starts[rank + 1]
    values = np.empty((last - first, dim), dtype=np.float32)
    for start in range(0, starts[1], block):
        ids = torch.arange(min(first + start, last), min(first + start + block, last))
        values[start : start + len(ids)] = tables.fetch(name, ids).cpu().numpy()
    partial = path.with_name(f".{path.name}.shards")
    with agreed():
        partial.mkdir(parents=True, exist_ok=True)
        stored = rows.present()[first:last].numpy() | (name in tables.features)  # features say something of every id
        vector = np.array(rows.fallback.cpu())
        if vector.any():  # what is not stored is not zero, so rows are stored whole
            table = pack(
                values, Mask.from_rows(stored, dim), layout="rows", value_type=value_type, fallback=Mean(vector)
            )
        else:
            table = pack(values, Mask.from_dense((values != 0) & stored[:, None]), value_type=value_type)
        save_table(table, partial / shard_name(rank, world))
    sizes = gather(table.nbytes)
    with agreed():
        if rank == 0:
            with atomic_directory(path, overwrite=True) as whole:
                for number in range(world):
                    (partial / shard_name(number, world)).rename(whole / shard_name(number, world))
                write_index(whole, world)
            shutil.rmtree(partial)
    return {"nbytes": sum(sizes), "dense": rows.n_ids * dim * 4}
