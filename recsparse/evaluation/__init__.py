"""How good a model is, for whom, and how certain that is: full ranking, a value a user, paired comparisons."""

from recsparse.evaluation.baselines import ContentKNN, Random
from recsparse.evaluation.evaluate import DEFAULT_METRICS, Evaluation, evaluate, split_digest
from recsparse.evaluation.few_shot import few_shot_curve, first_items
from recsparse.evaluation.intervals import Summary, summarise
from recsparse.evaluation.metrics import per_user
from recsparse.evaluation.ranking import Ranking, rank_targets
from recsparse.evaluation.significance import Difference, holm, paired

__all__ = [
    "DEFAULT_METRICS",
    "ContentKNN",
    "Difference",
    "Evaluation",
    "Random",
    "Ranking",
    "Summary",
    "evaluate",
    "few_shot_curve",
    "first_items",
    "holm",
    "paired",
    "per_user",
    "rank_targets",
    "split_digest",
    "summarise",
]
