"""Scores of given user-item pairs, from Parquet to Parquet."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsparse.errors import DataError
from recsparse.files import atomic_file
from recsparse.interactions.interactions import ITEM, USER
from recsparse.models.base import Recommender
from recsparse.scoring.scorer import SCORE
from recsparse.scoring.users import RowReader


def score_pairs_to_parquet(model: Recommender | str | Path, pairs: str | Path, output: str | Path) -> int:
    """Add a column ``score`` (float32) to a Parquet file of pairs, row group by row group; give how many have one.

    Null where the model knows the user or the item not. The file appears when it is whole.

    Args:
        model: fitted, or the directory it was saved to.
        pairs: Parquet with user_id and item_id; other columns are kept.
        output: the file to write.

    Raises:
        DataError: a column is missing, or ``score`` is there already.
        FormatError: the file is damaged.
    """
    reader = RowReader([Path(pairs)])
    names = reader.schema.names
    if not {USER, ITEM} <= set(names) or SCORE in names:
        raise DataError(f"{pairs} must have the columns {USER} and {ITEM} and no {SCORE}; it has {names}.")
    if not isinstance(model, Recommender):
        model = Recommender.load(model)
    known = 0
    schema = reader.schema.append(pa.field(SCORE, pa.float32()))
    with atomic_file(Path(output)) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for table in reader.blocks():
            scores = model.score_pairs(table[USER].to_pylist(), table[ITEM].to_pylist())
            column = pa.array(scores, mask=np.isnan(scores))
            writer.write_table(table.append_column(schema.field(SCORE), column).cast(schema))
            known += len(column) - column.null_count
    return known
