from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import BudgetError, ConfigError, DataError
from recsparse.models import IALS, Recommender
from recsparse.models.least_squares import ImplicitLoss, Sides, gram
from recsparse.models.support import prune_items
from recsparse.sparsity import Pruner, Recipe
from tests.models.contract import ModelContract

GRADUAL = {"density": 0.25, "schedule": {"kind": "gradual", "start": 0.1, "end": 0.9}}


class TestDense(ModelContract):
    model = IALS(dim=4, epochs=10)


class TestConjugateGradients(ModelContract):
    model = IALS(dim=4, epochs=10, solver="cg")


class TestBlocks(ModelContract):
    model = IALS(dim=4, epochs=10, solver="block", block=3)


class TestByDegree(ModelContract):
    model = IALS(dim=4, epochs=10, degree_power=0.25)


class TestElementPruned(ModelContract):
    model = IALS(dim=8, epochs=10, recipe=GRADUAL)


class TestBlockPrunedInt8(ModelContract):
    model = IALS(
        dim=8, epochs=10, recipe={**GRADUAL, "granularity": {"kind": "block", "columns": 2}}, value_type="int8"
    )


def ratings(n_users: int = 120, n_items: int = 90, seed: int = 0) -> sp.csr_array:
    rng = np.random.default_rng(seed)
    matrix = sp.csr_array(sp.random_array((n_users, n_items), density=0.12, rng=rng), dtype=np.float32)
    matrix.data[:] = rng.choice([1.0, 2.5], matrix.nnz)
    return matrix


LOSS = ImplicitLoss(alpha0=0.2, reg=0.05, nu=0.8)


def explicit_gradient(side: sp.csr_array, factors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Half the derivative of the loss by each row, from its definition in dense float64 arithmetic."""
    X, F, V = side.toarray().astype(np.float64), factors.astype(np.float64), rows.astype(np.float64)
    observed = X * (V @ F.T - 1.0)
    ridge = LOSS.reg * (X.sum(axis=1) + LOSS.alpha0 * X.shape[1]) ** LOSS.nu
    return (observed + LOSS.alpha0 * (V @ F.T)) @ F + ridge[:, None] * V


@pytest.mark.parametrize("dim", [1, 3, 16, 130])
def test_dense_solution_has_zero_gradient(dim: int) -> None:
    X = ratings()
    F = np.random.default_rng(1).standard_normal((X.shape[1], dim)).astype(np.float32)
    rows = LOSS.solve(X, F)
    assert np.abs(explicit_gradient(X, F, rows)).max() < 2e-4
    np.testing.assert_allclose(LOSS.gradient(X, F, rows), explicit_gradient(X, F, rows), atol=2e-4)


@pytest.mark.parametrize("with_prior", [False, True])
def test_the_loss_of_rows_is_the_loss_less_that_of_zeros(with_prior: bool) -> None:
    X, rng = ratings(), np.random.default_rng(1)
    F, V = (rng.standard_normal((rows, 5)).astype(np.float32) for rows in X.shape[::-1])
    prior = with_prior * rng.standard_normal(V.shape)
    ridge = LOSS.reg * (X.sum(axis=1) + LOSS.alpha0 * X.shape[1]) ** LOSS.nu

    def loss(V: np.ndarray) -> float:
        scores = V.astype(np.float64) @ F.T
        decay = (ridge * np.square(V - prior).sum(axis=1)).sum()
        return (X.toarray() * np.square(scores - 1) + LOSS.alpha0 * np.square(scores)).sum() + decay

    found = LOSS.of_rows(X, F, V, prior=prior.astype(np.float32) if with_prior else None)
    assert found == pytest.approx(loss(V) - loss(np.zeros_like(V)), rel=1e-5)


def test_measured_densities_lose_less_of_the_training_loss_than_equal_ones() -> None:
    rng = np.random.default_rng(0)
    taste = (rng.random((300, 4)) < 0.4).astype(float) @ (rng.random((4, 120)) < 0.3)
    popular = np.repeat([0.9, 0.2, 0.1], 40)
    X = sp.csr_array((rng.random((300, 120)) < popular * np.minimum(taste, 1) + 0.01).astype(np.float32))
    sides = Sides.of(X, LOSS)
    users, items = (rng.standard_normal((rows, 12)).astype(np.float32) for rows in X.shape)
    for _ in range(5):
        users, items = LOSS.solve(sides.by_user, items), LOSS.solve(sides.by_item, users)

    def lost(allocation: dict[str, Any]) -> float:
        pruner = Pruner(Recipe(density=0.2, schedule="oneshot", allocation=allocation))
        pruned = prune_items(sides, users, items, pruner, 1.0)
        assert pruned.nnz == round(0.2 * items.size)
        return LOSS.of_rows(sides.by_item, users, pruned.toarray())

    assert lost({"kind": "sensitivity", "groups": 3}) < lost({"kind": "popularity-groups", "groups": 3, "power": 0.0})


def test_solution_on_a_support_has_zero_gradient_there_and_only_there() -> None:
    X, rng = ratings(), np.random.default_rng(2)
    F = rng.standard_normal((X.shape[1], 16)).astype(np.float32)
    kept = rng.random((X.shape[0], 16)) < 0.3
    kept[0], kept[1] = False, True
    solved, curvature = LOSS.solve_on_support(X, F, sp.csr_array(kept, dtype=np.float32), curvature=True)
    gradient = explicit_gradient(X, F, solved.toarray())
    assert np.abs(gradient[kept]).max() < 2e-4
    assert np.abs(gradient[~kept]).mean() > 0.1
    # What the curvature says is the loss added when one entry goes and the rest of the row is solved again.
    row = int(np.flatnonzero(kept.sum(axis=1) == 5)[0])
    entry = 2
    fewer = kept.copy()
    fewer[row, np.flatnonzero(kept[row])[entry]] = False
    again = LOSS.solve_on_support(X, F, sp.csr_array(fewer, dtype=np.float32))[0].toarray()
    before, after = (row_loss(X[[row]], F, values[row]) for values in (solved.toarray(), again))
    place = solved.indptr[row] + entry
    assert after - before == pytest.approx(solved.data[place] ** 2 * curvature[place], rel=1e-3)


def row_loss(history: sp.csr_array, factors: np.ndarray, row: np.ndarray) -> float:
    x = history.toarray().astype(np.float64).ravel()
    predictions = factors.astype(np.float64) @ row.astype(np.float64)
    ridge = LOSS.reg * (x.sum() + LOSS.alpha0 * len(x)) ** LOSS.nu
    return float(
        (x * (predictions - 1) ** 2).sum()
        + LOSS.alpha0 * (predictions**2).sum()
        + ridge * (row.astype(float) ** 2).sum()
    )


def test_conjugate_gradients_reach_the_exact_solution_in_a_rotated_basis() -> None:
    X = ratings()
    F = np.random.default_rng(5).standard_normal((X.shape[1], 16)).astype(np.float32)
    rotated, rows = LOSS.refine(X, F, np.zeros((X.shape[0], 16), dtype=np.float32), steps=60)
    np.testing.assert_allclose(rows @ rotated.T, LOSS.solve(X, F) @ F.T, atol=1e-4)
    np.testing.assert_allclose(rotated @ rotated.T, F @ F.T, atol=1e-4)


def whole_loss(X: sp.csr_array, model: IALS) -> float:
    V, U = model.item_table_.to_dense(), model.fold_in(X)
    item_ridge = LOSS.ridge(sp.csr_array(X.T)) @ np.square(V).sum(axis=1)
    return sum(row_loss(X[[row]], V, U[row]) for row in range(X.shape[0])) + item_ridge


def test_two_steps_an_epoch_converge_to_the_same_loss() -> None:
    X = ratings()
    losses = []
    for solver in ("cholesky", "cg", "block"):
        model = IALS(dim=8, epochs=25, solver=solver, block=3, alpha0=LOSS.alpha0, reg=LOSS.reg, nu=LOSS.nu).fit(X)
        losses.append(whole_loss(X, model))
    assert losses[1:] == pytest.approx(losses[:1] * 2, rel=0.01)


def test_refined_rows_can_stay_in_the_basis_they_came_in() -> None:
    X, F = ratings(200, 60), np.random.default_rng(0).standard_normal((60, 16)).astype(np.float32)
    F[np.abs(F) < 1] = 0
    start = np.zeros((X.shape[0], 16), dtype=np.float32)
    rotated, turned = LOSS.refine(X, F, start, steps=2)
    same, rows = LOSS.refine(X, F, start, steps=2, rotate=False)
    assert same is F
    np.testing.assert_allclose(rows @ F.T, turned @ rotated.T, atol=1e-4)
    assert np.abs(rows - turned).max() > 0.01


def test_conjugate_gradients_train_a_sparse_table_as_well_as_exact_solves() -> None:
    X, losses = ratings(300, 80), []
    for solver in ("cholesky", "cg"):
        model = IALS(
            dim=16, epochs=25, solver=solver, recipe=GRADUAL, alpha0=LOSS.alpha0, reg=LOSS.reg, nu=LOSS.nu
        ).fit(X)
        losses.append(whole_loss(X, model))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


@pytest.mark.parametrize("density", [0.05, 0.5])
def test_a_sparse_fixed_side_gives_the_same_solution(density: float) -> None:
    X, rng = ratings(), np.random.default_rng(3)
    F = np.where(rng.random((X.shape[1], 24)) < density, rng.standard_normal((X.shape[1], 24)), 0).astype(np.float32)
    np.testing.assert_allclose(LOSS.solve(X, sp.csr_array(F)), LOSS.solve(X, F), atol=1e-4)


def test_short_rows_solve_a_system_of_their_interactions() -> None:
    rng = np.random.default_rng(5)
    X = sp.random_array((200, 300), density=0.06, format="csr", dtype=np.float32, rng=rng)
    X.data[::7] = 0
    X.data[X.indptr[4] : X.indptr[5]] = 0  # weights of nothing at all
    F = np.where(rng.random((300, 32)) < 0.08, rng.standard_normal((300, 32)), 0).astype(np.float32)
    lengths = np.diff(X.indptr)
    assert (lengths <= 16).sum() > 50 < (lengths > 16).sum()
    rows = LOSS.solve(X, sp.csr_array(F))
    np.testing.assert_allclose(rows, LOSS.solve(X, F), atol=1e-5)
    np.testing.assert_array_equal(rows, replace(LOSS, n_jobs=3).solve(X, sp.csr_array(F)))
    assert not rows[4].any()
    few = sp.csr_array(X[:9])  # fewer rows than columns: not worth the eigenvectors
    np.testing.assert_allclose(LOSS.solve(few, sp.csr_array(F)), rows[:9], atol=1e-5)


def test_gram_is_the_same_at_any_number_of_threads_and_right() -> None:
    F = np.random.default_rng(4).standard_normal((20_000, 9)).astype(np.float32)
    one = gram(F, 1)
    np.testing.assert_array_equal(one, gram(F, 3))
    np.testing.assert_allclose(one, F.T.astype(np.float64) @ F, rtol=1e-4, atol=0.05)


@pytest.mark.parametrize("recipe", [None, {**GRADUAL, "criterion": "loss-increase", "allocation": "sensitivity"}])
@pytest.mark.parametrize("solver", ["cholesky", "cg", "block"])
def test_threads_do_not_change_the_bytes(recipe: dict[str, Any] | None, solver: Any) -> None:
    models = [IALS(dim=16, epochs=6, recipe=recipe, solver=solver, n_jobs=jobs) for jobs in (1, 2, 5)]
    tables = [model.fit(ratings(n_users=3000)).item_table_ for model in models]
    for table in tables[1:]:
        np.testing.assert_array_equal(table.to_dense(), tables[0].to_dense())


def test_seeds_differ() -> None:
    first, second = (IALS(dim=4, random_state=seed).fit(ratings()).item_table_.to_dense() for seed in (0, 1))
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize("granularity", ["element", {"kind": "block", "columns": 4}, "row"])
@pytest.mark.parametrize(
    ("criterion", "schedule"),
    [
        *((criterion, "gradual") for criterion in ("magnitude", "frequency", "loss-increase")),
        *(("magnitude", schedule) for schedule in ("oneshot", "dynamic", "tickets", "soft-threshold")),
        ("magnitude", {"kind": "gradual", "restarts": 1}),
    ],
)
def test_recipes_end_at_their_density_and_solved_on_their_support(
    granularity: Any, criterion: str, schedule: Any
) -> None:
    X = ratings()
    recipe = Recipe(density=0.2, granularity=granularity, criterion=criterion, schedule=schedule)
    model = IALS(dim=8, epochs=6, recipe=recipe, alpha0=LOSS.alpha0, reg=LOSS.reg, nu=LOSS.nu).fit(X)
    values = model.item_table_.to_dense()
    assert np.count_nonzero(values) <= round(0.2 * values.size) + 8
    assert np.count_nonzero(values) >= round(0.2 * values.size) - 8 * 5
    if granularity == "row":
        assert set(np.count_nonzero(values, axis=1)) == {0, 8}


@pytest.mark.parametrize("value_type", ["fp32", "int4"])
@pytest.mark.parametrize("granularity", ["element", "row"])
@pytest.mark.parametrize("schedule", ["oneshot", "gradual", "dynamic"])
def test_a_budget_in_bytes_is_met_and_used(value_type: str, granularity: Any, schedule: str) -> None:
    budget = 250 if value_type == "int4" else 700
    recipe = Recipe(bytes=budget, granularity=granularity, schedule=schedule)
    table = IALS(dim=8, epochs=6, recipe=recipe, value_type=value_type).fit(ratings()).item_table_
    assert table.nbytes <= budget
    assert table.nbytes > budget - (8 * 4 + 1 if granularity == "row" else 8) - 8


def test_a_budget_too_small_for_anything_is_refused() -> None:
    with pytest.raises(BudgetError, match=r"2 bytes is too small .* bytes with one element"):
        IALS(dim=8, epochs=2, recipe={"bytes": 2}).fit(ratings())


@pytest.mark.parametrize("recipe", [None, {**GRADUAL, "density": 0.5}])
@pytest.mark.parametrize("bits", [2, 4])
def test_rounding_that_is_solved_for_loses_less_of_the_training_loss(recipe: Any, bits: int) -> None:
    X, losses = ratings(), {}
    for rounding in ("nearest", "aware"):
        model = IALS(dim=8, epochs=12, recipe=recipe, value_type=f"int{bits}", rounding=rounding).fit(X)
        V = model.item_table_.to_dense()
        values = [len(np.unique(np.abs(row))) for row in V]
        assert max(values) <= 2 ** (bits - 1) + 1
        U = model.fold_in(X)
        ridge = ImplicitLoss(model.alpha0, model.reg, model.nu).ridge(sp.csr_array(X.T)) @ np.square(V).sum(axis=1)
        dense, observed = U.astype(np.float64) @ V.T, X.toarray()
        users = ImplicitLoss(model.alpha0, model.reg, model.nu).ridge(X) @ np.square(U).sum(axis=1)
        losses[rounding] = (observed * (dense - 1) ** 2).sum() + model.alpha0 * (dense**2).sum() + ridge + users
    assert losses["aware"] < losses["nearest"]


def test_repacking_rounds_the_trained_values() -> None:
    model = IALS(dim=8, epochs=4).fit(ratings())
    packed = model.repack("int8")
    assert packed.item_table_.value_type == "int8"
    assert model.item_table_.value_type == "fp32"
    np.testing.assert_allclose(packed.item_table_.to_dense(), model.item_table_.to_dense(), atol=0.02)


def test_folding_in_training_users_reproduces_training() -> None:
    X = ratings()
    model = IALS(dim=8, epochs=30, recipe={"density": 0.5, "schedule": "gradual"}).fit(X)
    queries = model.fold_in(X)
    loss = ImplicitLoss(model.alpha0, model.reg, model.nu)
    by_item = sp.csr_array(X.T)
    values = model.item_table_.to_dense()
    gradient = loss.gradient(by_item, queries, values)[values != 0]
    assert np.abs(gradient).max() < 0.02 * np.abs(loss.gradient(by_item, queries, np.zeros_like(values))).max()


def test_a_planted_low_rank_matrix_is_recovered() -> None:
    groups = np.arange(200) % 5
    X = sp.csr_array((groups[:, None] == groups[None, :100] % 5).astype(np.float32))
    model = IALS(dim=5, epochs=20, reg=1e-3).fit(X)
    scores = model.scores(model.fold_in(X))
    assert ((scores > 0.5) == (X.toarray() > 0)).all()


def test_recipe_object_and_its_data_are_saved_alike(tmp_path: Any) -> None:
    model = IALS(dim=8, epochs=3, recipe=Recipe(density=0.5, schedule="oneshot")).fit(ratings())
    model.save(tmp_path / "model")
    loaded = Recommender.load(tmp_path / "model")
    assert Recipe.model_validate(loaded.get_params()["recipe"]) == model.recipe


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"dim": 0}, "dim is 0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"alpha0": -1.0}, "alpha0 is -1.0"),
        ({"reg": 0.0}, "reg is 0.0"),
        ({"nu": float("nan")}, "nu is nan"),
        ({"init_std": 0.0}, "init_std is 0.0"),
        ({"patience": 0}, "patience is 0"),
        ({"crowd": -1.0}, "crowd"),
        ({"recipe": {"density": 1.5}}, r"recipe.*density.*1\.5"),
        ({"recipe": {"density": 0.5, "granularity": "column"}}, "recipe.*granularity.*column"),
        ({"recipe": {"density": 0.5, "criterion": "gradient"}}, "gradient is zero .* take magnitude or loss-increase"),
        ({"recipe": {"density": 0.5, "criterion": "saliency", "schedule": "dynamic"}}, "criterion is saliency"),
        ({"value_type": "int9"}, "int9"),
        ({"recipe": {"density": 0.5, "schedule": "tickets"}}, "Tickets of 3 rounds in 3 epochs"),
        (
            {"recipe": {"density": 0.5, "schedule": "oneshot", "granularity": {"kind": "block", "columns": 3}}},
            "Blocks of 1 x 3 do not tile a table of 90 x 4",
        ),
        ({"recipe": {"density": 0.5, "granularity": {"kind": "block", "rows": 7}}}, "Blocks of 7 x 4 do not tile"),
    ],
)
def test_impossible_settings_are_refused_before_the_first_epoch(params: dict[str, Any], message: str) -> None:
    epochs: list[int] = []
    with pytest.raises(ConfigError, match=message):
        IALS(**{"dim": 4, "epochs": 3, **params}).fit(ratings(), on_epoch=lambda epoch, _: epochs.append(epoch))
    assert epochs == []


def test_negative_values_are_refused() -> None:
    X = ratings()
    X.data[3] = -2.0
    with pytest.raises(
        DataError, match=r"value -2\.0 of user 0 and item \d+ is negative, and iALS takes values as weights"
    ):
        IALS(dim=4).fit(X)


@pytest.mark.parametrize(("dim", "width"), [(1, 1), (16, 16), (130, 130), (16, 64)])
def test_a_block_of_all_columns_is_the_exact_solution(dim: int, width: int) -> None:
    X, rng = ratings(), np.random.default_rng(6)
    F, start = (rng.standard_normal((rows, dim)).astype(np.float32) for rows in X.shape[::-1])
    np.testing.assert_allclose(LOSS.solve_blocks(X, F, start, width), LOSS.solve(X, F), atol=2e-3)


@pytest.mark.parametrize("width", [1, 5, 16])
def test_every_pass_over_blocks_lowers_the_loss_until_the_gradient_is_zero(width: int) -> None:
    X, rng = ratings(), np.random.default_rng(7)
    F = rng.standard_normal((X.shape[1], 16)).astype(np.float32)
    rows = np.zeros((X.shape[0], 16), dtype=np.float32)
    losses = []
    for _ in range(40):
        losses.append(sum(row_loss(X[[row]], F, rows[row]) for row in range(0, X.shape[0], 10)))
        rows = LOSS.solve_blocks(X, F, rows, width)
    assert (np.diff(losses) <= 1e-4 * losses[0]).all()
    assert (
        np.abs(explicit_gradient(X, F, rows)).max() < 0.02 * np.abs(explicit_gradient(X, F, np.zeros_like(rows))).max()
    )


@pytest.mark.parametrize("solver", ["cholesky", "cg", "block"])
def test_many_columns(solver: Any) -> None:
    X = ratings(40, 30)
    model = IALS(dim=1024, epochs=2, solver=solver, alpha0=0.2, reg=0.05).fit(X)
    scores = model.scores(model.fold_in(X))
    seen = X.toarray() > 0
    assert scores[seen].min() > 2 * np.abs(scores[~seen]).mean()


@pytest.mark.parametrize("solver", ["cholesky", "cg", "block"])
@pytest.mark.parametrize("recipe", [None, GRADUAL])
def test_degrees_weigh_pairs_in_training_and_in_folding_in(solver: Any, recipe: Any, tmp_path: Path) -> None:
    X = ratings()
    users, items = X.count_nonzero(axis=1), X.count_nonzero(axis=0)

    def weighted(seen: sp.csr_array) -> sp.csr_array:
        row, column = seen.nonzero()
        factor = (seen.count_nonzero(axis=1)[row] * np.maximum(items[column], 1)) ** -0.3
        return sp.csr_array((seen.data * factor / mean, (row, column)), shape=seen.shape, dtype=np.float32)

    mean = np.mean((users[X.nonzero()[0]] * items[X.nonzero()[1]]) ** -0.3)
    settings = {"dim": 8, "epochs": 6, "solver": solver, "recipe": recipe, "random_state": 3}
    model, plain = IALS(degree_power=0.3, **settings).fit(X), IALS(**settings).fit(weighted(X))
    np.testing.assert_allclose(model.item_table_.to_dense(), plain.item_table_.to_dense(), atol=1e-4)
    new = ratings(20, X.shape[1], seed=9)
    folded = model.fold_in(new)
    np.testing.assert_allclose(folded, plain.fold_in(weighted(new)), atol=1e-3)
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(Recommender.load(tmp_path / "model").fold_in(new), folded)


@pytest.mark.parametrize("recipe", [None, {"density": 0.1}])
def test_users_are_pulled_to_the_crowd_when_they_are_folded_in(recipe: Any, tmp_path: Path) -> None:
    X, new = ratings(), ratings(20, seed=9)
    settings = {"dim": 8, "epochs": 6, "alpha0": 0.2, "reg": 0.05, "recipe": recipe}
    model, plain = IALS(crowd=2.0, **settings).fit(X), IALS(**settings).fit(X)
    V = model.item_table_.to_dense().astype(np.float64)
    np.testing.assert_array_equal(V, plain.item_table_.to_dense())

    def solved(weights: Any, pull: Any) -> Any:
        ridge = 0.05 * (weights.sum() + 0.2 * len(V))
        normal = (V.T * weights) @ V + 0.2 * V.T @ V + ridge * np.eye(8)
        return np.linalg.solve(normal, V.T @ weights + ridge * pull)

    crowd = solved(X.toarray().mean(axis=0), np.zeros(8))
    expected = [solved(row, 2 * crowd) for row in new.toarray()]
    np.testing.assert_allclose(model.fold_in(new), expected, atol=1e-4)
    np.testing.assert_allclose(model.fold_in(sp.csr_array((1, 90)))[0], 2 * crowd, atol=1e-4)
    plain.fold_in(new)  # a fitted model may be asked to
    np.testing.assert_array_equal(plain.set_params(crowd=2.0).fold_in(new), model.fold_in(new))
    model.save(tmp_path / "model")
    np.testing.assert_array_equal(Recommender.load(tmp_path / "model").fold_in(new), model.fold_in(new))


def test_an_item_that_training_never_saw_weighs_as_one_seen_once() -> None:
    X = ratings().tolil()
    X[:, 5] = 0
    X[1:, 6] = 0
    X[0, 6] = 1
    model = IALS(dim=4, degree_power=0.5).fit(sp.csr_array(X))
    one, other = (model._weighted(sp.csr_array(np.eye(1, X.shape[1], at, dtype=np.float32))) for at in (5, 6))
    assert one.data == other.data


def test_conjugate_gradients_leave_rows_that_are_nothing_as_they_are() -> None:
    """Users of pruned items alone shrink epoch by epoch, until the squares of their residuals are no float32."""
    rows = np.logspace(-25, -15, 2000)[:, None] * np.random.default_rng(0).standard_normal((2000, 16))
    side = sp.csr_array(np.ones((len(rows), 1), dtype=np.float32))
    shared = np.diag(np.linspace(6, 24, 16)).astype(np.float32)
    _, found = LOSS.refine(side, np.zeros((1, 16), dtype=np.float32), rows.astype(np.float32), 2, shared)
    assert (np.abs(found) <= np.abs(rows).max(axis=1, keepdims=True) * 1.001).all()
