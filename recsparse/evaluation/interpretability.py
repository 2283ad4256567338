"""What a dimension of an item table stands for, and whether that is more than chance."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from recsparse.errors import DataError


@dataclass(frozen=True)
class Pole:
    """One end of one dimension: the items whose values there are largest, and what they share.

    Attributes:
        dim: the column.
        sign: +1 or -1.
        feature: the name of the feature that describes the items best.
        purity: how pure they are in it: ``(s - b) / (1 - b)`` with ``s`` its share among them and ``b`` in the
            catalogue. 0 is chance for a feature picked in advance, 1 means all of them have it.
        items: rows of the items, strongest first.
    """

    dim: int
    sign: int
    feature: str
    purity: float
    items: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interpretability:
    """How pure the poles of a table are against the same table with items' features shuffled.

    Attributes:
        purity: mean over the poles.
        control: the same mean with features dealt to the items at random, averaged over the shuffles. It is above 0, as
            the best of many features is picked each time; only what exceeds it means anything.
        p: share of the shuffles (and the truth) that reach the true purity.
        poles: purest first.
    """

    purity: float
    control: float
    p: float
    poles: list[Pole]


def interpret(
    vectors: npt.NDArray[np.float32], features: sp.csr_array, names: list[str], *, top: int = 20, shuffles: int = 200,
    seed: int = 0,
) -> Interpretability:  # fmt: skip
    """Name the poles of every dimension by the features of their strongest items, and test them against a control.

    Args:
        vectors: the item table, (I, D); zeros are values not kept.
        features: (I, F) of zeros and ones, see :func:`recsparse.evaluation.features.feature_matrix`.
        names: of the features.
        top: items a pole; a pole with fewer items of that sign is left out.
        shuffles: of the control.
        seed: of the shuffles.

    Raises:
        DataError: there are no features, or no dimension has ``top`` items at an end.
    """
    if features.shape[1] == 0:
        raise DataError("The items have no categorical features, so nothing can name a dimension.")
    described = np.flatnonzero(np.diff(features.indptr) > 0)
    share = np.asarray(features.sum(axis=0), dtype=np.float64).ravel() / max(len(described), 1)
    # Undescribed items could only dilute: the question is what those with features have in common.
    dense = features[described].toarray().astype(np.float64)
    poles = []
    for dim in range(vectors.shape[1]):
        for sign in (1, -1):
            strength = sign * vectors[described, dim]
            order = np.argsort(-strength, kind="stable")[:top]
            if len(order) == top and strength[order[-1]] > 0:
                poles.append((dim, sign, order))
    if not poles:
        raise DataError(f"No dimension has {top} items at an end; ask for fewer with top=.")
    members = np.stack([order for _, _, order in poles])
    base = np.minimum(share, 1.0 - 1e-12)

    def purities(owner: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        shares = dense[owner[members]].mean(axis=1)
        pure = (shares - base) / (1.0 - base)
        return pure.max(axis=1), pure.argmax(axis=1)

    best, which = purities(np.arange(len(described)))
    rng = np.random.default_rng(seed)
    control = np.array([purities(rng.permutation(len(described)))[0].mean() for _ in range(shuffles)])
    found = [
        Pole(dim, sign, names[int(feature)], float(purity), described[order])
        for (dim, sign, order), purity, feature in zip(poles, best, which, strict=True)
    ]
    return Interpretability(
        purity=float(best.mean()),
        control=float(control.mean()) if shuffles else float("nan"),
        p=float((1 + (control >= best.mean()).sum()) / (1 + shuffles)),
        poles=sorted(found, key=lambda pole: -pole.purity),
    )
