import numpy as np
import scipy.sparse as sp

from recsparse.evaluation import evaluate
from recsparse.evaluation.robustness import noise_curve, recalled
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import split
from recsparse.models.ease import EASE
from recsparse.models.popularity import Popularity


def communities(n_users=120, n_items=40):
    """Two kinds of users, two halves of the catalogue: noise must hurt who learns the halves."""
    rng = np.random.default_rng(0)
    own = (np.arange(n_users) % 2)[:, None] == (np.arange(n_items) // (n_items // 2))[None, :]
    return Interactions.from_csr(
        sp.csr_array((rng.random((n_users, n_items)) < np.where(own, 0.5, 0.02)).astype(np.float32))
    )


def test_noise_hurts_who_learns_and_the_models_stay_as_they_were():
    parts = split(communities(), "strong", validation=20, test=40, target=0.3, seed=0)
    models = {"EASE": EASE(reg=1.0), "popularity": Popularity()}
    curves = noise_curve(models, parts, ["ndcg@10"], shares=(0.0, 0.6, 2.5), seeds=(0, 1))
    ease = [curves["EASE"][share].summaries["ndcg@10"].mean for share in (0.0, 0.6, 2.5)]
    assert ease[0] > ease[1] > ease[2]
    assert not hasattr(models["EASE"], "items_")
    clean = evaluate(EASE(reg=1.0).fit(parts.train), parts.test, ["ndcg@10"]).summaries["ndcg@10"].mean
    assert ease[0] == clean


def test_what_was_learned_by_heart_is_recalled_better_than_what_is_new():
    parts = split(communities(), "strong", validation=20, test=40, target=0.3, seed=0)
    by_heart, careful = EASE(reg=0.01).fit(parts.train), EASE(reg=300.0).fit(parts.train)
    gaps = []
    for model in (by_heart, careful):
        seen = recalled(model, parts.train, ["ndcg@10"], target=0.3).summaries["ndcg@10"].mean
        gaps.append(seen - evaluate(model, parts.test, ["ndcg@10"]).summaries["ndcg@10"].mean)
    assert gaps[0] > gaps[1] + 0.05


def test_recalled_asks_for_the_share_of_each_user():
    data = communities()
    evaluation = recalled(Popularity().fit(data), data, target=0.25, users=50, seed=1)
    assert evaluation.role == "train"
    asked = np.array([len(targets) for targets in evaluation.per_user["targets"].to_pylist()])
    known = evaluation.per_user["history"].to_numpy()
    np.testing.assert_array_equal(asked, np.maximum(1, ((asked + known) * 0.25).astype(int)))
    assert len(asked) == 50
