"""Item features as a matrix: for diversity, calibration and what a dimension stands for."""

import numpy as np
import pyarrow as pa
import scipy.sparse as sp

from recsparse.interactions.interactions import ITEM


def feature_matrix(items: pa.Table) -> tuple[sp.csr_array, list[str]]:
    """The categorical features of items, (I, F) float32 of zeros and ones, and their names ``column=value``.

    Columns of strings and of lists of strings are categorical, but for strings with over half as many values as items
    (a title identifies, it does not describe). Numbers and the id are left out; an item may have no feature.

    Example:
        >>> items = pa.table({"item_id": [1, 2], "genres": [["Comedy", "War"], ["War"]]})
        >>> matrix, names = feature_matrix(items)
        >>> matrix.toarray().tolist(), names
        ([[1.0, 1.0], [0.0, 1.0]], ['genres=Comedy', 'genres=War'])
    """
    blocks, names = [], []
    for column in items.column_names:
        values = items[column].combine_chunks()
        listed = pa.types.is_list(values.type) or pa.types.is_large_list(values.type)
        kind = values.type.value_type if listed else values.type
        if column == ITEM or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            continue
        if listed:
            rows = np.repeat(np.arange(len(values)), values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
            flat = values.flatten()
        else:
            rows, flat = np.arange(len(values)), values
        there = np.asarray(flat.is_valid())
        codes = flat.filter(pa.array(there)).dictionary_encode()
        if len(codes.dictionary) == 0 or (not listed and 2 * len(codes.dictionary) > len(values)):
            continue
        shape = (len(values), len(codes.dictionary))
        block = sp.csr_array((np.ones(len(codes), np.float32), (rows[there], codes.indices.to_numpy())), shape=shape)
        block.sum_duplicates()
        block.data[:] = 1.0
        order = np.argsort(codes.dictionary.to_pylist())
        blocks.append(block[:, order])
        names += [f"{column}={codes.dictionary[int(at)].as_py()}" for at in order]
    if not blocks:
        return sp.csr_array((items.num_rows, 0), dtype=np.float32), []
    return sp.csr_array(sp.hstack(blocks)), names
