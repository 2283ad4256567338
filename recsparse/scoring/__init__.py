"""Batch scoring: the exact best K items of every user, in bounded memory, into Parquet."""

from recsparse.scoring.filters import Filters
from recsparse.scoring.job import Job, Progress, Summary, recommend_to_parquet
from recsparse.scoring.scorer import Scorer

__all__ = ["Filters", "Job", "Progress", "Scorer", "Summary", "recommend_to_parquet"]
