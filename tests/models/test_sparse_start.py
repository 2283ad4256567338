import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import linear_sum_assignment

from recsparse.models import IALS, FeatureIALS
from recsparse.models.least_squares import Dense, Factors, Sides
from recsparse.models.lightgcn import normalised
from recsparse.models.sparse_start import first_users
from recsparse.models.support import prune_items
from recsparse.sparsity import Pruner
from tests.models.test_ials_training import blocks


def test_users_span_the_leading_singular_vectors() -> None:
    groups = np.random.default_rng(0).random((90, 40)) < np.kron(np.eye(3), np.full((30, 14), 0.8))[:, :40] + 0.02
    X = sp.csr_array(groups.astype(np.float32))
    users = first_users(X, 3, np.random.default_rng(1))
    found = np.linalg.qr(users.astype(np.float64))[0]
    wanted = np.linalg.svd(normalised(X).toarray().astype(np.float64))[0][:, :3]
    assert np.linalg.svd(found.T @ wanted)[1].min() > 0.999
    assert np.square(users).sum(axis=1).mean() == pytest.approx(1, rel=1e-5)


def test_disjoint_tastes_come_to_have_a_column_each() -> None:
    taste = np.arange(60) % 4
    X = sp.csr_array((taste[:, None] == taste[None, :40]).astype(np.float32))
    users = np.abs(first_users(X, 4, np.random.default_rng(0)))
    assert (users.argmax(axis=1)[:, None] == users.argmax(axis=1)[None, :]).tolist() == (
        taste[:, None] == taste[None, :]
    ).tolist()
    assert np.sort(users, axis=1)[:, -2].max() < 1e-3 * users.max(axis=1).min()


@pytest.mark.parametrize("shape", [(5, 30), (30, 5), (3, 3)])
def test_more_columns_than_rank_are_all_alive(shape: tuple[int, int]) -> None:
    X = sp.csr_array((np.random.default_rng(0).random(shape) < 0.6).astype(np.float32))
    users = first_users(X, 16, np.random.default_rng(0))
    assert users.shape == (shape[0], 16)
    assert np.isfinite(users).all()
    assert users.any(axis=0).all()


@pytest.mark.parametrize("model_class", [IALS, FeatureIALS])
@pytest.mark.parametrize("solver", ["cholesky", "cg", "block"])
@pytest.mark.parametrize("budget", [{"density": 0.1}, {"bytes": 900}])
def test_a_dynamic_table_holds_its_budget_from_the_first_step(
    model_class: type[IALS], solver: str, budget: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []
    alternate = IALS._alternate

    def watched(self, sides, users, items, support):  # type: ignore[no-untyped-def]
        found = alternate(self, sides, users, items, support)
        assert items.nnz == support.kept == found[1].nnz
        held.append(self._size_of(support) if "bytes" in budget else items.nnz)
        return found

    monkeypatch.setattr(IALS, "_alternate", watched)
    recipe = budget | {"schedule": "dynamic", "granularity": "element"}
    model_class(dim=16, epochs=5, solver=solver, recipe=recipe, n_jobs=1).fit(blocks())
    assert len(held) == 5
    if "bytes" in budget:
        assert 800 < min(held) <= max(held) <= 900
    else:
        assert set(held) == {round(0.1 * 60 * 16)}


@pytest.mark.parametrize("schedule", ["oneshot", "gradual", "soft-threshold"])
def test_both_sides_turn_together_before_entries_go(schedule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[tuple[float, float]] = []

    def watched(sides: Sides, users: Dense, items: Factors, pruner: Pruner, progress: float) -> Factors:
        if pruner.begins(progress):
            before, after = scores[-1], users @ items.T
            turns.append((np.abs(before - after).max(), np.abs(before).max()))
            assert kurtosis(items) > kurtosis(dense[-1])
        return prune_items(sides, users, items, pruner, progress)

    def alternated(self, *arguments):  # type: ignore[no-untyped-def]
        users, items = alternate(self, *arguments)
        if isinstance(items, np.ndarray):
            dense.append(items)
            scores.append(users @ items.T)
        return users, items

    dense: list[Dense] = []
    scores: list[Dense] = []
    alternate = IALS._alternate
    monkeypatch.setattr(IALS, "_alternate", alternated)
    monkeypatch.setattr("recsparse.models.ials.prune_items", watched)
    IALS(dim=8, epochs=8, recipe={"density": 0.25, "schedule": schedule}).fit(blocks())
    assert len(turns) == 1
    assert turns[0][0] < 1e-5 * turns[0][1]


def kurtosis(values: Dense) -> float:
    return float(np.mean(values**4) / np.mean(values**2) ** 2)


@pytest.mark.parametrize(("schedule", "share"), [("dynamic", 0.9), ("gradual", 0.85)])
def test_a_planted_sparse_model_is_recovered(schedule: str, share: float) -> None:
    rng = np.random.default_rng(0)
    planted = np.zeros((60, 6))
    for row in planted:
        row[rng.choice(6, 2, replace=False)] = rng.uniform(0.5, 1, 2)
    likes = (rng.random((400, 6)) < 0.3) * rng.uniform(0.5, 1, (400, 6))
    X = sp.csr_array((rng.random((400, 60)) < np.minimum(likes @ planted.T, 1)).astype(np.float32))
    recipe = {"density": 1 / 3, "schedule": schedule, "allocation": "uniform"}
    found = IALS(dim=6, epochs=30, alpha0=0.3, reg=0.003, recipe=recipe).fit(X).item_table_.to_dense() != 0
    shared = (planted != 0).T.astype(int) @ found.astype(int)
    matched = shared[linear_sum_assignment(-shared)].sum()
    assert matched >= share * 120  # any support matches half, and did without the turn
