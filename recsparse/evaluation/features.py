"""Item features as a matrix: for diversity, calibration and what a dimension stands for."""

import pyarrow as pa
import scipy.sparse as sp

from recsparse.models.features import Encoding


def feature_matrix(items: pa.Table) -> tuple[sp.csr_array, list[str]]:
    """The categorical features of items, (I, F) float32 of zeros and ones, and their names ``column=value``.

    Which columns those are, :class:`recsparse.models.features.Encoding` says; an item may have no feature.

    Example:
        >>> items = pa.table({"item_id": [1, 2], "genres": [["Comedy", "War"], ["War"]]})
        >>> matrix, names = feature_matrix(items)
        >>> matrix.toarray().tolist(), names
        ([[1.0, 1.0], [0.0, 1.0]], ['genres=Comedy', 'genres=War'])
    """
    encoding = Encoding.of(items, numbers=False)
    return encoding.encode(items), encoding.names
