import numpy as np
import pytest

from recsparse.errors import DataError
from recsparse.evaluation import evaluate
from recsparse.evaluation.groups import by_item_group, by_user_group, popularity_groups


def test_each_group_gathers_about_a_third():
    popularity = np.sort((np.random.default_rng(0).pareto(2.5, 500) * 100).round())[::-1]
    groups = popularity_groups(popularity)
    shares = [popularity[groups == group].sum() / popularity.sum() for group in range(3)]
    assert shares == pytest.approx([1 / 3] * 3, abs=0.08)
    assert (np.diff(groups) >= 0).all(), "falling popularity never goes back towards the head"
    assert (groups[popularity == 0] == 3).all()


def test_groups_add_up_to_the_whole(random_case):
    """Recall over all targets is the groups' recalls weighted by their numbers of targets, user by user."""
    model, holdout = random_case()
    evaluation = evaluate(model, holdout, ["recall@10"])
    groups = popularity_groups(model.popularity_)
    ranking = evaluation.ranking(model.items_)
    hits = np.zeros(ranking.n_users)
    for group in range(4):
        part = ranking.restrict(groups == group)
        hits += part.total((part.ranks <= 10).astype(float))
    there = ranking.targets > 0
    np.testing.assert_allclose(hits[there] / ranking.targets[there], evaluation.values("recall@10")[there])
    found = by_item_group(evaluation, model.items_, groups)
    for name, group in zip(("head", "torso", "tail"), range(3), strict=True):
        users = (ranking.restrict(groups == group).targets > 0).sum()
        assert found[name]["recall@10"].users == users
        assert found[name]["recall@10"].without == ranking.n_users - users
    assert "unseen" not in found
    with pytest.raises(DataError, match="3 groups for 60 items"):
        by_item_group(evaluation, model.items_, np.zeros(3, dtype=int))


def test_user_groups_part_the_users(random_case):
    model, holdout = random_case()
    evaluation = evaluate(model, holdout, ["mrr"])
    found = by_user_group(evaluation)
    assert list(found) == ["light", "medium", "heavy"]
    whole = evaluation.summaries["mrr"]
    parts = [group["mrr"] for group in found.values()]
    assert sum(part.users for part in parts) == whole.users
    assert sum(part.mean * part.users for part in parts) / whole.users == pytest.approx(whole.mean)
