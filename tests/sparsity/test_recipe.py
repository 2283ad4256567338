import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from recsparse.errors import ConfigError
from recsparse.sparsity import (
    Block,
    Evidence,
    Gradual,
    OneShot,
    Piecewise,
    PopularityGroups,
    Pruner,
    Recipe,
    Sensitivity,
    Uniform,
)
from recsparse.sparsity.allocation import LEVELS
from recsparse.sparsity.best import Leaders, best
from recsparse.tables import Mask, choose_layout


def evidence(values: np.ndarray) -> Evidence:
    rng = np.random.default_rng(1)
    return Evidence(
        values=values,
        counts=np.arange(len(values)),
        gradients=lambda: rng.standard_normal(values.shape),
        curvature=lambda: rng.random(values.shape) + 0.1,
        loss=lambda rows, kept: float(np.square(values[rows][~kept]).sum()),
    )


GRANULARITIES = ["element", "row", {"kind": "block", "rows": 2, "columns": 3}]
CRITERIA = ["magnitude", "frequency", "gradient", "saliency", "loss-increase"]


@given(
    granularity=st.sampled_from(GRANULARITIES),
    criterion=st.sampled_from(CRITERIA),
    allocation=st.sampled_from(
        [
            "global",
            "uniform",
            "best-rows",
            "popularity-groups",
            {"kind": "popularity-groups", "power": None},
            "sensitivity",
            {"kind": "sensitivity", "groups": 2},
        ]
    ),
    density=st.floats(0.01, 1.0),
    rows=st.integers(1, 6).map(lambda n: 2 * n),
    columns=st.integers(1, 4).map(lambda n: 3 * n),
)
def test_a_recipe_keeps_exactly_its_budget_in_whole_groups(
    granularity: object, criterion: str, allocation: object, density: float, rows: int, columns: int
) -> None:
    recipe = Recipe(density=density, granularity=granularity, criterion=criterion, allocation=allocation)
    values = np.random.default_rng(rows * columns).standard_normal((rows, columns))
    kept = recipe.keep(evidence(values), density).to_dense()
    r, c = recipe.granularity.group_shape(values.shape)
    blocks = kept.reshape(rows // r, r, columns // c, c)
    assert (blocks.all(axis=(1, 3)) == blocks.any(axis=(1, 3))).all()
    assert kept.sum() == max(1, round(density * (rows // r) * (columns // c))) * r * c
    smaller = recipe.keep(evidence(values), density / 2, Mask.from_dense(kept, (r, c))).to_dense()
    assert not (smaller & ~kept).any()


def test_global_magnitude_keeps_the_largest() -> None:
    values = np.array([[3.0, -4.0, 0.1], [0.2, 0.3, -5.0]])
    assert Recipe(density=0.5).keep(evidence(values), 0.5).to_dense().tolist() == [
        [True, True, False],
        [False, False, True],
    ]


def test_blocks_are_ranked_by_their_sum_of_squares() -> None:
    values = np.array([[3.0, 0.0, 2.5, 2.5]])
    kept = Recipe(density=0.5, granularity=Block(columns=2)).keep(evidence(values), 0.5).to_dense()
    assert kept.tolist() == [[False, False, True, True]]


def test_frequent_rows_stay() -> None:
    kept = Recipe(density=0.5, granularity="row", criterion="frequency").keep(evidence(np.ones((4, 2))), 0.5).to_dense()
    assert kept[:, 0].tolist() == [False, False, True, True]


def test_uniform_gives_each_row_its_share() -> None:
    values = np.array([[9.0, 8.0, 7.0], [3.0, 2.0, 1.0]])
    kept = Uniform().keep(values, 3, np.ones(2))
    assert kept.tolist() == [[True, True, False], [True, False, False]]


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, -np.inf]), min_size=1, max_size=30), st.integers(0, 30))
def test_best_equals_a_stable_sort(scores: list[float], budget: int) -> None:
    array = np.array(scores)
    expected = np.sort(np.argsort(-array, kind="stable")[:budget])
    expected = expected[array[expected] > -np.inf]
    assert np.sort(best(array, budget)).tolist() == expected.tolist()


@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.5, -np.inf]), min_size=1, max_size=60),
    st.integers(0, 30),
    st.integers(1, 20),
)
def test_leaders_of_pieces_are_the_best_of_all(scores: list[float], budget: int, step: int) -> None:
    array = np.array(scores, dtype=np.float32)
    leaders = Leaders(budget)
    for start in range(0, len(array), step):
        leaders.add(array[start : start + step], start)
    assert leaders.places().tolist() == np.sort(best(array, budget)).tolist()


@given(
    granularity=st.sampled_from(GRANULARITIES),
    criterion=st.sampled_from(CRITERIA[:-1]),
    allocation=st.sampled_from(["global", "uniform", "best-rows", "popularity-groups", "sensitivity"]),
    rows=st.sampled_from([2, 4, 6, 40]),
    seed=st.integers(0, 99),
)
def test_a_table_seen_by_pieces_is_pruned_as_the_whole(
    granularity: object, criterion: str, allocation: str, rows: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    values, gradients = (np.round(rng.standard_normal((40, 6)), 1).astype(np.float32) for _ in range(2))
    counts = rng.integers(0, 9, 40)

    def piece(start: int, stop: int) -> Evidence:
        own = gradients[start:stop]
        return Evidence(
            values[start:stop], counts[start:stop], lambda: own, lambda: own,
            lambda rows, kept: float(np.square(values[rows][~kept]).sum()),
        )  # fmt: skip

    recipe = Recipe(density=0.3, granularity=granularity, criterion=criterion, allocation=allocation)
    pieces, whole = Piecewise((40, 6), counts, piece, rows), piece(0, 40)
    kept = recipe.keep(whole, 0.3)
    assert recipe.keep(pieces, 0.3) == kept
    exchanged = recipe.exchange(whole, 0.4, kept)
    assert recipe.exchange(pieces, 0.4, kept) == exchanged
    assert exchanged.kept == kept.kept


@given(
    shape=st.sampled_from(["linear", "cubic", "exponential"]),
    target=st.floats(0.001, 1.0),
    start=st.floats(0.0, 0.4),
    end=st.floats(0.5, 1.0),
)
def test_gradual_falls_from_one_to_the_target(shape: str, target: float, start: float, end: float) -> None:
    schedule = Gradual(shape=shape, start=start, end=end)
    densities = [schedule.density(progress, target) for progress in np.linspace(0, 1, 41)]
    assert densities[0] == pytest.approx(1.0)
    assert densities[-1] == pytest.approx(target)
    assert (np.diff(densities) <= 1e-12).all()
    assert schedule.density(start, target) == pytest.approx(1.0)
    assert schedule.density(end, target) == pytest.approx(target)


def test_restarts_open_the_table_again() -> None:
    schedule = Gradual(start=0.0, end=0.8, restarts=1)
    assert schedule.density(0.39, 0.01) == pytest.approx(0.01, rel=0.2)
    assert schedule.density(0.4, 0.01) == 1.0
    assert schedule.density(0.8, 0.01) == pytest.approx(0.01)


def test_best_rows_drop_whole_rows_first() -> None:
    values = np.array([[9.0, 1.0], [5.0, 5.0], [0.1, 0.2], [0.3, 0.1]])
    recipe = Recipe(density=0.25, allocation={"kind": "best-rows", "share": 0.5})
    assert recipe.keep(evidence(values), 0.5).to_dense().tolist() == [
        [True, True],
        [True, True],
        [False] * 2,
        [False] * 2,
    ]
    assert recipe.keep(evidence(values), 0.25).to_dense().tolist() == [
        [True, False],
        [True, False],
        [False] * 2,
        [False] * 2,
    ]


def test_popular_groups_get_more() -> None:
    values = np.random.default_rng(3).standard_normal((40, 8))
    allocation = {"kind": "popularity-groups", "groups": 4, "power": 1.0}
    kept = Recipe(density=0.2, allocation=allocation).keep(evidence(values), 0.2).to_dense()
    by_group = kept.reshape(4, -1).sum(axis=1)
    assert (np.diff(by_group) > 0).all()
    assert by_group.sum() == 64


def test_what_the_loss_needs_stays_whatever_its_size() -> None:
    values = np.random.default_rng(3).standard_normal((40, 8)) * np.repeat([10.0, 1.0], 20)[:, None]
    worth = np.repeat([0.0, 1.0], 20)
    known = replace(evidence(values), loss=lambda rows, kept: float(worth[rows] @ (~kept).sum(axis=1)))
    recipe = Recipe(density=0.25, allocation={"kind": "sensitivity", "groups": 2})
    kept = recipe.keep(known, 0.25).to_dense()
    assert kept[:20].sum() == 0
    assert kept[20:].sum() == 80
    assert np.abs(values[20:][kept[20:]]).min() > np.abs(values[20:][~kept[20:]]).max()
    assert Recipe(density=0.25).keep(known, 0.25).to_dense()[:20].sum() == 80


@given(
    worth=st.lists(st.floats(0.0, 100.0), min_size=1, max_size=6),
    level=st.sampled_from(LEVELS[:-1]),
    seed=st.integers(0, 99),
)
def test_measured_densities_lose_no_more_than_equal_ones(worth: list[float], level: float, seed: int) -> None:
    rows = 12
    scores = np.square(np.random.default_rng(seed).standard_normal((rows * len(worth), 8)))
    prices = scores * np.repeat(worth, rows)[:, None]
    counts = np.arange(len(scores))
    allocation, equal = Sensitivity(groups=len(worth)), PopularityGroups(groups=len(worth), power=0.0)
    budget = len(worth) * round(rows * 8 * level)
    weighed = allocation.weigh(scores, counts, lambda rows, kept: float(prices[rows][~kept].sum()))
    kept = allocation.keep(weighed, budget, counts)
    assert kept.sum() == budget
    assert prices[~kept].sum() <= prices[~equal.keep(scores, budget, counts)].sum() * (1 + 1e-9)


def test_a_loss_that_is_not_measured_is_refused() -> None:
    values = np.ones((4, 2))
    known = Evidence(values, np.ones(4), lambda: values, lambda: values)
    with pytest.raises(ConfigError, match="use another allocation than sensitivity"):
        Recipe(density=0.5, allocation="sensitivity").keep(known, 0.5)


def test_exchange_keeps_the_budget_and_follows_the_gradient() -> None:
    values = np.array([[4.0, 3.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0]])
    gradients = np.array([[0.0, 0.0, 9.0, 1.0], [0.0, 0.0, 2.0, 3.0]])
    known = Evidence(values, np.ones(2), lambda: gradients, lambda: gradients)
    kept = Recipe(density=0.5).exchange(known, 0.25, Mask.from_dense(values != 0)).to_dense()
    assert kept.tolist() == [[True, True, True, False], [True, False, False, False]]


def exchanged(allocation: object, density: float, granularity: str = "element") -> tuple[np.ndarray, np.ndarray]:
    """A first choice and what it is after some exchanges, both (24, 8): most pulled are the least popular rows."""
    rng = np.random.default_rng(0)
    pruner = Pruner(Recipe(density=density, schedule="dynamic", allocation=allocation, granularity=granularity))
    masks: list[np.ndarray] = []
    for step in range(7):
        values = rng.standard_normal((24, 8)) * (masks[-1] if masks else 1)
        pulls = rng.standard_normal((24, 8)) * np.linspace(9, 1, 24)[:, None]
        assert pruner.step(Evidence(values, np.arange(24), partial(np.copy, pulls), partial(np.copy, pulls)), step / 10)
        masks.append(pruner.kept.to_dense())
        assert masks[-1].sum() == masks[0].sum()
    assert (masks[0] & ~masks[-1]).any()
    return masks[0], masks[-1]


def test_exchanges_leave_equal_rows_equal() -> None:
    for n in range(1, 8):
        first, kept = exchanged("uniform", n / 8)
        assert first.sum(axis=1).tolist() == kept.sum(axis=1).tolist() == [n] * 24


def test_exchanges_leave_each_popularity_group_its_budget() -> None:
    for power in (0.0, 1.0, None):
        first, kept = exchanged({"kind": "popularity-groups", "groups": 4, "power": power}, 0.3)
        assert first.reshape(4, -1).sum(axis=1).tolist() == kept.reshape(4, -1).sum(axis=1).tolist()


def test_exchanges_take_no_more_rows_than_the_best_had() -> None:
    best_rows = {"kind": "best-rows", "share": 0.25}
    first, kept = exchanged(best_rows, 0.125)
    assert kept.any(axis=1).sum() <= first.any(axis=1).sum() == 6
    first, kept = exchanged(best_rows, 0.125, "row")
    assert kept.all(axis=1).sum() == kept.any(axis=1).sum() == 3
    assert (first & ~kept).any()


def test_an_exchange_drops_and_grows_within_the_row() -> None:
    values = np.array([[4.0, 3.0, 0.0, 0.0], [2.0, 1.0, 0.0, 0.0]])
    gradients = np.array([[0.0, 0.0, 9.0, 1.0], [0.0, 0.0, 2.0, 3.0]])
    known = Evidence(values, np.ones(2), lambda: gradients, lambda: gradients)
    recipe = Recipe(density=0.5, allocation="uniform")
    kept = recipe.exchange(known, 0.5, Mask.from_dense(values != 0)).to_dense()
    assert kept.tolist() == [[True, False, True, False], [True, False, False, True]]
    full = Recipe(density=0.75, allocation="uniform").exchange(
        known, 0.5, Mask.from_dense(np.array([[True, True, True, True], [True, True, False, False]]))
    )
    assert full.to_dense().sum() == 6


def test_dynamic_holds_its_budget_at_every_step() -> None:
    pruner = Pruner(Recipe(density=0.25, schedule="dynamic"))
    rng = np.random.default_rng(0)
    masks = []
    for epoch in range(10):
        values = rng.standard_normal((20, 8)) * (1 if pruner.kept is None else pruner.kept.to_dense())
        pruner.step(evidence(values), (epoch + 1) / 10)
        assert pruner.kept.kept == 40
        masks.append(pruner.kept.to_dense())
    assert (masks[0] != masks[5]).any()
    assert (masks[-1] == masks[-2]).all()


def test_tickets_rewind_to_the_stored_values() -> None:
    pruner = Pruner(Recipe(density=0.25, schedule={"kind": "tickets", "rounds": 2, "rewind": 0.5}))
    early = None
    for epoch in range(12):
        values = np.random.default_rng(epoch).standard_normal((10, 8)) + epoch
        decided = pruner.step(evidence(values), (epoch + 1) / 12)
        if epoch == 1:
            early = values
        if epoch in (3, 7):
            np.testing.assert_array_equal(pruner.values, early * pruner.kept.to_dense())
            assert pruner.kept.kept == (40 if epoch == 3 else 20)
        else:
            assert not decided


def test_soft_threshold_shrinks_by_what_goes_and_then_stays() -> None:
    pruner = Pruner(Recipe(density=0.25, schedule={"kind": "soft-threshold", "start": 0.0, "end": 0.5}))
    values = np.array([[4.0, -3.0, 2.0, 1.0]])
    pruner.step(evidence(values), 0.25)
    np.testing.assert_allclose(pruner.values, [[2.0, -1.0, 0.0, 0.0]])
    assert pruner.support is None
    pruner.step(evidence(values), 0.5)
    np.testing.assert_allclose(pruner.values, [[1.0, 0.0, 0.0, 0.0]])
    assert not pruner.step(evidence(values), 0.75)
    assert pruner.support.to_dense().tolist() == [[True, False, False, False]]


@pytest.mark.parametrize(
    ("allocation", "density", "shrunk"),
    [
        ("global", 0.25, [[3.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]]),
        ("uniform", 1 / 3, [[2.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.5, 0.0, 0.0], [0.0, 0.0, 2.0]]),
        ({"kind": "best-rows", "share": 0.25}, 1 / 6, [[4.0, 2.0, 0.0], [0.0] * 3, [0.0] * 3, [0.0] * 3]),
        ({"kind": "popularity-groups", "groups": 2, "power": 0.0}, 1 / 6, [
            [2.0, 0.0, 0.0], [0.0] * 3, [0.0] * 3, [0.0, 0.0, 2.0]]),
        ({"kind": "sensitivity", "groups": 2}, 1 / 4, [[3.0, 1.0, 0.0], [0.0] * 3, [0.0] * 3, [0.0, 0.0, 2.0]]),
    ],
)  # fmt: skip
def test_a_soft_threshold_is_the_largest_that_goes_of_its_part(
    allocation: object, density: float, shrunk: list[list[float]]
) -> None:
    recipe = Recipe(density=density, schedule="soft-threshold", allocation=allocation)
    known = evidence(np.array([[6.0, 4.0, 2.0], [1.0, -3.0, 2.0], [1.5, 1.0, 1.0], [0.5, 3.0, 5.0]]))
    np.testing.assert_allclose(recipe.shrink(known, recipe.keep(known, density)), shrunk)


@given(
    allocation=st.sampled_from(["global", "uniform", "best-rows", "popularity-groups", "sensitivity"]),
    density=st.floats(0.02, 1.0),
    seed=st.integers(0, 99),
)
def test_what_a_soft_threshold_keeps_is_not_zero(allocation: str, density: float, seed: int) -> None:
    recipe = Recipe(density=density, schedule="soft-threshold", allocation=allocation)
    known = evidence(np.random.default_rng(seed).standard_normal((20, 6)))
    kept = recipe.keep(known, density)
    assert ((recipe.shrink(known, kept) != 0) == kept.to_dense()).all()


def test_a_group_lasso_shrinks_rows() -> None:
    recipe = Recipe(density=0.5, granularity="row", schedule="soft-threshold")
    known = evidence(np.array([[3.0, 4.0], [0.6, 0.8]]))
    kept = recipe.keep(known, 0.5)
    np.testing.assert_allclose(recipe.shrink(known, kept), [[3.0 * 0.8, 4.0 * 0.8], [0.0, 0.0]])


@given(
    allocation=st.sampled_from(["uniform", "global"]),
    granularity=st.sampled_from(GRANULARITIES),
    value_type=st.sampled_from(["fp32", "int8", "int4", "int2"]),
    spent=st.floats(0.1, 1.0),
    shape=st.sampled_from([(24, 9), (12, 6), (10, 66)]),
)
def test_bytes_buy_the_largest_density_that_fits(
    allocation: str, granularity: object, value_type: str, spent: float, shape: tuple[int, int]
) -> None:
    def size(kept: Mask) -> int:
        return choose_layout(kept.to_elements(), value_type=value_type).nbytes

    known = evidence(np.random.default_rng(0).standard_normal(shape))
    recipe = Recipe(density=1, granularity=granularity, allocation=allocation)
    groups = known.values.size // math.prod(recipe.granularity.group_shape(shape))
    sizes = [size(recipe.keep(known, n / groups)) for n in range(1, groups + 1)]
    budget = round(sizes[0] + spent * (max(sizes) - sizes[0]))
    bought = Recipe(bytes=budget, granularity=granularity, allocation=allocation).affordable(known, size)
    assert bought == max(n for n, taken in enumerate(sizes, start=1) if taken <= budget) / groups


def test_oneshot_waits_for_the_end() -> None:
    assert [OneShot().density(progress, 0.1) for progress in (0.0, 0.99, 1.0)] == [1.0, 1.0, 0.1]


def test_blocks_that_do_not_tile_are_refused() -> None:
    with pytest.raises(ConfigError, match="Blocks of 1 x 3 do not tile a table of 2 x 4"):
        Recipe(density=0.5, granularity=Block(columns=3)).keep(evidence(np.ones((2, 4))), 0.5)


def test_tickets_need_an_epoch_after_the_last_rewinding() -> None:
    values = np.random.default_rng(0).standard_normal((6, 4))
    for rounds in range(1, 12):
        recipe = Recipe(density=0.3, schedule={"kind": "tickets", "rounds": rounds})
        for epochs in range(1, 15):
            pruner = Pruner(recipe)
            for epoch in range(1, epochs + 1):
                pruner.step(evidence(values), epoch / epochs)
            if pruner.values is None:
                recipe.check(values.shape, epochs)
            else:  # rewound in the last epoch
                with pytest.raises(ConfigError, match=f"Tickets of {rounds} rounds in {epochs} epochs .* {rounds + 1}"):
                    recipe.check(values.shape, epochs)


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"density": 0.5, "schedule": "soft-threshold", "criterion": "frequency"},
        {"density": 0.5, "bytes": 100},
        {"density": 0.0},
        {"density": 1.1},
        {"density": 0.5, "granularity": "columns"},
        {"density": 0.5, "schedule": {"kind": "gradual", "start": 0.8, "end": 0.2}},
        {"density": 0.5, "colour": "red"},
    ],
)
def test_impossible_recipes_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Recipe.model_validate(wrong)


def test_a_recipe_survives_json() -> None:
    recipe = Recipe(density=0.1, granularity=Block(rows=2, columns=2), schedule=Gradual(shape="cubic", end=0.9))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
