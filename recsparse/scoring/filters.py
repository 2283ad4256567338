"""Which items may be recommended, and to whom not."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError
from recsparse.interactions.interactions import ITEM, USER, Interactions, Rows
from recsparse.interactions.store import read, read_table
from recsparse.models.base import Recommender, take_rows
from recsparse.scoring.users import Block, Ids, read_ids


@dataclass(frozen=True)
class Filters:
    """What is left out. What remains is ranked exactly.

    Attributes:
        exclude_seen: leave out the items of the user's own history.
        seen: dataset directories whose interactions are left out as well, by user and item id.
        allow: item ids to choose from (a list, or a Parquet file with item_id); None allows all.
        deny: item ids nobody gets.
        denials: Parquet file of user_id, item_id: items that user does not get.
        where: SQL expression over the columns of the model's items; where it is true the item stays.
        per_category: (column of the items, most items of one value in a list); an item without a value is not counted.
    """

    exclude_seen: bool = True
    seen: Sequence[Path] = ()
    allow: Ids | None = None
    deny: Ids | None = None
    denials: Path | None = None
    where: str | None = None
    per_category: tuple[str, int] | None = None


@dataclass(frozen=True)
class Rules:
    """Filters resolved against a model's items.

    Attributes:
        candidates: ascending item rows; None for all.
        exclude_seen: leave out the history.
        others: further interactions to leave out.
        categories: (I,) category of each item row, -1 for none; None without a cap.
        cap: most items of a category.
    """

    candidates: Rows | None = None
    exclude_seen: bool = True
    others: list[Interactions] = field(default_factory=list)
    categories: npt.NDArray[np.int64] | None = None
    cap: int = 0

    def excluded(self, block: Block) -> sp.csr_array:
        """(B, I): what each user of the block is not to get."""
        shape = block.histories.shape
        patterns = [_pattern(block.histories)] if self.exclude_seen else []
        ids = block.table[USER].to_pylist() if self.others else []
        patterns += [_pattern(take_rows(other.matrix, other.user_rows(ids))) for other in self.others]
        return sum(patterns[1:], start=patterns[0]) if patterns else sp.csr_array(shape, dtype=np.int8)


def resolve(filters: Filters, model: Recommender) -> Rules:
    """Resolve filters against the model's items.

    Raises:
        ConfigError: the expression, the column or the cap is impossible.
        DataError: an id list cannot be used, or nothing remains.
    """
    catalogue = Interactions(model.history_, model.users_, model.items_)
    keep = np.ones(model.items_.num_rows, dtype=np.bool_)
    if filters.allow is not None:
        keep &= _listed(filters.allow, catalogue)
    if filters.deny is not None:
        keep &= ~_listed(filters.deny, catalogue)
    if filters.where is not None:
        keep &= _where(filters.where, model.items_)
    if not keep.any():
        raise DataError("The filters leave no item of the model's catalogue; loosen allow, deny or where.")
    others = [read(Path(directory)).with_items(model.items_) for directory in filters.seen]
    if filters.denials is not None:
        others.append(_denials(filters.denials).with_items(model.items_))
    categories, cap = None, 0
    if filters.per_category is not None:
        column, cap = filters.per_category
        categories = _categories(column, cap, model.items_)
    candidates = None if keep.all() else np.flatnonzero(keep)
    return Rules(candidates, filters.exclude_seen, others, categories, cap)


def _pattern(matrix: sp.csr_array) -> sp.csr_array:
    # Ones: a sum must never cancel an entry, whatever the values were.
    return sp.csr_array((np.ones(matrix.nnz, dtype=np.int16), matrix.indices, matrix.indptr), shape=matrix.shape)


def _listed(ids: Ids, catalogue: Interactions) -> npt.NDArray[np.bool_]:
    rows = catalogue.item_rows(read_ids(ids, ITEM)[ITEM].to_pylist())
    listed = np.zeros(catalogue.shape[1], dtype=np.bool_)
    listed[rows[rows >= 0]] = True
    return listed


def _where(expression: str, items: pa.Table) -> npt.NDArray[np.bool_]:
    with duckdb.connect(config={"enable_external_access": False, "threads": 1}) as connection:
        connection.register("items", items.append_column("_row", pa.array(np.arange(items.num_rows))))
        try:
            parsed = connection.extract_statements(f"SELECT ({expression}\n) FROM items")  # noqa: S608
            if len(parsed) != 1:
                raise ConfigError(f"The item filter {expression!r} must be one SQL expression.")
            query = f"SELECT _row, coalesce(CAST(({expression}\n) AS BOOLEAN), false) AS kept FROM items"  # noqa: S608
            answer: dict[str, Any] = connection.execute(query).fetchnumpy()
        except duckdb.Error as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(
                f"The item filter {expression!r} does not work: {reason} The items have {items.column_names}."
            ) from error
    keep = np.zeros(items.num_rows, dtype=np.bool_)
    keep[answer["_row"]] = answer["kept"]
    return keep


def _denials(file: Path) -> Interactions:
    table = read_table(file)
    if not {USER, ITEM} <= set(table.column_names):
        raise DataError(f"{file} must have the columns {USER} and {ITEM}; it has {table.column_names}.")
    frame: pd.DataFrame = table.select([USER, ITEM]).to_pandas()
    return Interactions.from_frame(frame)


def _categories(column: str, cap: int, items: pa.Table) -> npt.NDArray[np.int64]:
    if column not in items.column_names:
        raise ConfigError(f"The items have no column {column!r} to cap; they have {items.column_names}.")
    if cap < 1:
        raise ConfigError(f"The cap per {column!r} is {cap}; it must be at least 1.")
    try:
        codes = items[column].combine_chunks().dictionary_encode().indices
    except pa.ArrowNotImplementedError as error:
        raise ConfigError(
            f"The column {column!r} of the items holds {items[column].type}; cap a plain value."
        ) from error
    return np.asarray(codes.fill_null(-1)).astype(np.int64)
