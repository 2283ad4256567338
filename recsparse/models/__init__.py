"""Estimators: fit on interactions, fold in any history, recommend, save."""

from recsparse.models.base import COLD, FOLDED_IN, WARM, Recommender, items_digest
from recsparse.models.biased_mf import BiasedMF
from recsparse.models.ease import EASE
from recsparse.models.feature_ials import FeatureIALS
from recsparse.models.feature_mf import FeatureMF
from recsparse.models.ials import IALS
from recsparse.models.item_knn import ItemKNN
from recsparse.models.low_rank_ials import LowRankIALS
from recsparse.models.mf import MF
from recsparse.models.popularity import Popularity
from recsparse.models.slim import SLIM
from recsparse.models.sparse_ease import SparseEASE

__all__ = [
    "COLD",
    "EASE",
    "FOLDED_IN",
    "IALS",
    "MF",
    "SLIM",
    "WARM",
    "BiasedMF",
    "FeatureIALS",
    "FeatureMF",
    "ItemKNN",
    "LowRankIALS",
    "Popularity",
    "Recommender",
    "SparseEASE",
    "items_digest",
]
