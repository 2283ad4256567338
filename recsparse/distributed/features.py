"""What features say of ids: sums of the rows of a feature table, of which a rank asks for each one once a step."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from recsparse.errors import ConfigError
from recsparse.models.features import Encoding


@dataclass(frozen=True)
class Features:
    """The features of the ids of one table, the same on every rank.

    Attributes:
        table: name of the feature table, which has a row a feature, (F, D).
        encoding: what the features are.
        matrix: (N, F) float32, the features of each id, each row of length 1 or, where nothing is known, 0. So an id of
            many features has a vector no longer than an id of few. 8 bytes a feature of an id.
    """

    table: str
    encoding: Encoding
    matrix: sp.csr_array

    @classmethod
    def of(cls, table: str, ids: pa.Table) -> Self:
        """Encode the feature columns of users or items.

        Raises:
            ConfigError: there are none that say anything.

        Example:
            >>> features = Features.of("item_feature_table", pa.table({"item_id": [1, 2, 3], "kind": ["a", "b", "a"],
            ...                                                        "tags": [["x"], [], ["w", "x", "y", "z"]]}))
            >>> features.encoding.names
            ['tags=w', 'tags=x', 'tags=y', 'tags=z']
            >>> features.matrix.toarray().tolist()
            [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5]]
        """
        encoding = Encoding.of(ids)
        if not encoding.columns:
            raise ConfigError(
                f"{table} has nothing to learn from: the columns are {', '.join(ids.column_names)}, of which none is a "
                f"feature; build the dataset with features, or leave out {table.removesuffix('_table')}s."
            )
        matrix = encoding.encode(ids)
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1))).ravel()
        matrix.data /= np.repeat(np.maximum(lengths, 1e-12), np.diff(matrix.indptr)).astype(np.float32)
        return cls(table, encoding, matrix)

    def counts(self, interactions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Interactions of the ids that have each feature, (F,)."""
        return np.bincount(
            self.matrix.indices, np.repeat(interactions, np.diff(self.matrix.indptr)), self.matrix.shape[1]
        ).astype(np.int64)

    def ask(self, ids: Tensor) -> "Asked":
        """Which features some ids have, each once."""
        part = self.matrix[ids.numpy()]
        used = np.zeros(self.matrix.shape[1], dtype=np.bool_)
        used[part.indices] = True
        place = np.cumsum(used) - 1
        return Asked(
            torch.from_numpy(np.flatnonzero(used)),
            torch.from_numpy(place[part.indices]),
            torch.from_numpy(part.indptr[:-1].astype(np.int64)),
            torch.from_numpy(part.data),
        )


@dataclass(frozen=True)
class Asked:
    """The features of some ids (B,).

    Attributes:
        rows: of the feature table, ascending, each once.
        places: of each feature of each id in ``rows``.
        starts: where each id's begin, (B,).
        weights: of each feature of each id.
    """

    rows: Tensor
    places: Tensor
    starts: Tensor
    weights: Tensor

    def sums(self, vectors: Tensor) -> Tensor:
        """What the features say, (B, D), given the vectors of ``rows``."""
        if not len(self.rows):
            return vectors.new_zeros((len(self.starts), vectors.shape[1])) + vectors.sum()
        places, starts, weights = (each.to(vectors.device) for each in (self.places, self.starts, self.weights))
        return embedding_bag(places, vectors, starts, mode="sum", per_sample_weights=weights)
