"""Estimators: fit on interactions, fold in any history, recommend, save."""

from recsparse.models.base import COLD, FOLDED_IN, WARM, Recommender, items_digest
from recsparse.models.ease import EASE
from recsparse.models.ials import IALS
from recsparse.models.mf import MF
from recsparse.models.popularity import Popularity

__all__ = ["COLD", "EASE", "FOLDED_IN", "IALS", "MF", "WARM", "Popularity", "Recommender", "items_digest"]
