import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from sklearn.base import clone

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import Holdout
from recsparse.kernels import sgd as kernels
from recsparse.kernels.negatives import CANDIDATES, below, draw_rows, known_items, mix
from recsparse.kernels.packed_sgd import step_packed_groups
from recsparse.models import MF, FeatureMF
from recsparse.models.bpr import bpr_gradient
from recsparse.models.lightgcn import propagate
from recsparse.models.sgd_state import LOSSES, OPTIMISERS, Sampler, run_epoch
from recsparse.models.side import FEW, Drawn, confine, living, whole
from recsparse.tables import Mask
from tests.models.contract import ModelContract
from tests.models.known import checkerboard, checkerboard_matrix
from tests.models.test_ials_training import StopError


class TestBPR(ModelContract):
    model = MF(dim=8, epochs=300, learning_rate=0.1, n_jobs=1)


class TestSoftmaxWithAdagrad(ModelContract):
    model = MF(dim=8, loss="softmax", negatives="popularity", n_negatives=4, optimiser="adagrad", epochs=150, n_jobs=1)


class TestSquaredWithAdam(ModelContract):
    model = MF(
        dim=8, loss="squared", negatives="in-batch", n_negatives=3, optimiser="adam", learning_rate=0.01, epochs=150,
        n_jobs=1,
    )  # fmt: skip


class TestSparse(ModelContract):
    model = MF(
        dim=16, epochs=300, learning_rate=0.1, recipe={"density": 0.75, "schedule": "dynamic"},
        user_recipe={"density": 0.75}, n_jobs=1,
    )  # fmt: skip


class TestPropagated(ModelContract):
    model = MF(dim=8, epochs=300, learning_rate=0.1, layers=2, n_jobs=1)


def test_propagation_is_a_power_series_of_the_normalised_graph() -> None:
    X = blocks(30, 20)
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 4)).astype(np.float32) for n in X.shape)
    A = np.block([[np.zeros((30, 30)), X.toarray()], [X.toarray().T, np.zeros((20, 20))]])
    degree = np.maximum(A.sum(axis=1), 1)
    A = A / np.sqrt(degree[:, None] * degree[None, :])
    E = np.concatenate([users, items])
    expected = (E + A @ E + A @ A @ E) / 3
    got = np.concatenate(propagate(X, users, items, 2))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def blocks(n_users: int = 200, n_items: int = 60, rng_seed: int = 0) -> sp.csr_array:
    """Users of three tastes, 12 of their 20 items each, and some noise."""
    rng = np.random.default_rng(rng_seed)
    taste = rng.integers(0, 3, n_users)
    inside = rng.random((n_users, n_items)) < 0.6
    outside = rng.random((n_users, n_items)) < 0.03
    own = taste[:, None] == np.arange(n_items)[None, :] // 20
    return sp.csr_array(np.where(own, inside, outside).astype(np.float32))


def holdout() -> tuple[Interactions, Holdout]:
    full = Interactions.from_csr(blocks())
    keep = np.random.default_rng(1).random(full.nnz) < 0.8
    return full.select_entries(keep), Holdout(full.select_entries(keep), full.select_entries(~keep))


@pytest.mark.parametrize("negatives", ["uniform", "popularity", "in-batch"])
def test_no_negative_is_a_known_positive(negatives: str) -> None:
    X = blocks()
    sampler = Sampler.of(X, negatives, 0)
    epoch = sampler.epoch(0)
    n = len(epoch.users)
    drawn = np.empty(16 * 3 + CANDIDATES, dtype=np.int32)
    pool = epoch.positives if epoch.in_batch else epoch.pool
    rows = np.empty(X.nnz * 4, dtype=np.int64)
    ends = np.empty(n, dtype=np.int64)
    draw_rows(0, n, epoch.users, epoch.ptr, epoch.positives, sampler.known, pool, 0, len(pool), 3, epoch.seed,
                      drawn, rows, ends)  # fmt: skip
    samples = rows[: ends[-1]].reshape(-1, 4)
    users = np.repeat(epoch.users, np.diff(np.concatenate([[0], ends])) // 4)
    dense = X.toarray()
    assert len(samples) > 0.99 * X.nnz
    assert (dense[users[:, None], samples[:, 1:]] == 0).all()
    assert (dense[users, samples[:, 0]] == 1).all()


def test_an_epoch_is_every_known_pair_once() -> None:
    X = blocks()
    epoch = Sampler.of(X, "uniform", 3).epoch(5)
    pairs = np.repeat(epoch.users, np.diff(epoch.ptr)) * X.shape[1] + epoch.positives
    users, items = X.nonzero()
    assert sorted(pairs) == sorted(users * X.shape[1] + items)


def test_popular_items_are_drawn_in_proportion() -> None:
    counts = np.array([300, 100, 50, 0])
    X = np.zeros((500, 4), dtype=np.float32)
    for item, count in enumerate(counts):
        X[:count, item] = 1
    X[450:, 3] = 1
    X = sp.csr_array(X)
    sampler = Sampler.of(X, "popularity", 0)
    epoch = sampler.epoch(0)
    n = len(epoch.users)
    rows, ends = np.empty(X.nnz * 65, dtype=np.int64), np.empty(n, dtype=np.int64)
    draw_rows(0, n, epoch.users, epoch.ptr, epoch.positives, sampler.known, epoch.pool, 0, len(epoch.pool), 64,
                      epoch.seed, np.empty(16 * 64 + CANDIDATES, dtype=np.int32), rows, ends)  # fmt: skip
    users = np.repeat(epoch.users, np.diff(np.concatenate([[0], ends])) // 65)
    drawn = rows[: ends[-1]].reshape(-1, 65)[users >= 450][:, 1:]
    share = np.bincount(drawn.ravel(), minlength=4)[:3] / drawn.size
    np.testing.assert_allclose(share, counts[:3] / 450, atol=0.03)


@pytest.mark.parametrize("n_items", [5, 63, 2000])
def test_the_filter_is_exact(n_items: int) -> None:
    X = sp.csr_array(sp.random_array((50, n_items), density=0.1, rng=np.random.default_rng(n_items)))
    X.sort_indices()
    known = known_items(X.indptr, X.indices, n_items)
    dense = X.toarray() != 0
    for user in range(50):
        start, low, end = known.filter_ptr[user], known.ptr[user], known.ptr[user + 1]
        size = known.filter_ptr[user + 1] - start
        got = [
            bool(_is_known(item, known.items, low, end, known.bits, start, size, n_items)) for item in range(n_items)
        ]
        assert got == dense[user].tolist()


def _is_known(*arguments: object) -> bool:
    from recsparse.kernels.negatives import is_known

    with np.errstate(over="ignore"):
        return is_known.py_func(*arguments)


@pytest.mark.parametrize("loss", ["bpr", "softmax", "squared"])
@pytest.mark.parametrize(
    ("negatives", "with_priors", "temperature"), [(1, False, 1), (3, False, 1), (1, True, 1), (3, False, 0.5)]
)
def test_a_step_follows_the_gradient_of_the_loss(
    loss: str, negatives: int, with_priors: bool, temperature: float
) -> None:
    rng = np.random.default_rng(0)
    u, V = rng.standard_normal(16), rng.standard_normal((negatives + 1, 16))
    log_share = np.log(rng.dirichlet(np.ones(negatives + 1)))
    weight, reg, rate = 0.3, 0.1, 1e-3
    priors = [with_priors * rng.standard_normal(table.shape) for table in (u[None], V)]

    def objective(u: np.ndarray, V: np.ndarray) -> float:
        s = V @ u / temperature
        if loss == "bpr":
            value = np.log1p(np.exp(s[1:] - s[0])).sum()
        elif loss == "softmax":
            z = s - log_share
            value = np.log(np.exp(z - z.max()).sum()) + z.max() - z[0]
        else:
            value = 0.5 * (1 - s[0]) ** 2 + 0.5 * weight * (s[1:] ** 2).sum()
        return value + 0.5 * reg * (np.square(u - priors[0]).sum() + np.square(V - priors[1]).sum())

    def slope(x: np.ndarray, f: object) -> np.ndarray:
        out = np.empty_like(x)
        for at in np.ndindex(x.shape):
            for sign in (1, -1):
                y = x.copy()
                y[at] += sign * 1e-5
                out[at] = f(y) if sign > 0 else (out[at] - f(y)) / 2e-5  # type: ignore[operator]
        return out

    du, dV = slope(u, lambda x: objective(x, V)), slope(V, lambda x: objective(u, x))
    empty, steps = np.zeros((0, 16), dtype=np.float32), np.zeros(0, dtype=np.int64)
    users, items = (
        kernels.Side(table.astype(np.float32), empty, empty, steps, empty)._replace(
            **({"prior": prior.astype(np.float32)} if with_priors else {})
        )
        for table, prior in zip((u[None], V), priors, strict=True)
    )
    code = {"bpr": kernels.BPR, "softmax": kernels.SOFTMAX, "squared": kernels.SQUARED}[loss]
    settings = kernels.Settings(code, kernels.SGD, np.float32(rate), np.float32(reg), negatives, np.float32(weight),
                                np.float32(1 / temperature))  # fmt: skip
    rows, ends = np.arange(negatives + 1), np.array([negatives + 1])
    scratch = [np.zeros(n, dtype=np.float32) for n in (negatives + 1, 16, 16)]
    kernels.step_groups(0, 1, np.zeros(1, dtype=np.int64), rows, ends, users, items, settings,
                        log_share.astype(np.float32), *scratch)  # fmt: skip
    np.testing.assert_allclose((users.values[0] - u) / -rate, du, atol=5e-3)
    np.testing.assert_allclose((items.values - V) / -rate, dV, atol=5e-3)


@pytest.mark.parametrize("dim", [5, 16, 64, 101, 160])
def test_strips_take_the_steps_of_a_row_by_row_loop(dim: int) -> None:
    rng = np.random.default_rng(dim)
    settings = kernels.Settings(kernels.BPR, kernels.SGD, np.float32(0.05), np.float32(0.01), 1, np.float32(1))
    results = []
    for by_row in (False, True):  # a prior of zeros changes nothing, and is not for strips
        rng = np.random.default_rng(dim)
        users, items = (Drawn((n, dim), 0.5, rng).side(0) for n in (3, 60))
        rows = rng.integers(0, 60, 64)  # some more than once
        if by_row:
            items = items._replace(prior=np.zeros_like(items.values))
        scratch = [np.zeros(n, dtype=np.float32) for n in (32, dim, dim)]
        kernels.step_groups(0, 3, np.array([2, 0, 2]), rows, np.array([32, 44, 64]), users, items, settings,
                            np.zeros(0, dtype=np.float32), *scratch)  # fmt: skip
        results.append((users.values, items.values))
    for strips, loop in zip(*results, strict=True):
        np.testing.assert_allclose(strips, loop, atol=1e-5)


def test_a_user_who_has_nearly_everything_loses_the_samples_that_found_no_negative() -> None:
    X = sp.csr_array(np.ones((40, 50), dtype=np.float32))
    X[1:, 0] = 0
    X.eliminate_zeros()
    sampler = Sampler.of(X, "uniform", 0)
    epoch = sampler.epoch(0)
    n = len(epoch.users)
    rows, ends = np.empty(X.nnz * 2, dtype=np.int64), np.empty(n, dtype=np.int64)
    draw_rows(0, n, epoch.users, epoch.ptr, epoch.positives, sampler.known, epoch.pool, 0, len(epoch.pool), 1,
              epoch.seed, np.empty(16 + CANDIDATES, dtype=np.int32), rows, ends)  # fmt: skip
    samples = rows[: ends[-1]].reshape(-1, 2)
    users = np.repeat(epoch.users, np.diff(np.concatenate([[0], ends])) // 2)
    assert not (users == 0).any(), "this one has all there is"
    assert (samples[:, 1] == 0).all()
    assert 0 < len(samples) < X.nnz


@pytest.mark.parametrize("loss", ["bpr", "softmax", "squared"])
@pytest.mark.parametrize("optimiser", ["sgd", "adagrad", "adam"])
@pytest.mark.parametrize("packed", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("density", [0.05, 0.3])
def test_packed_tables_take_the_steps_of_whole_ones_where_they_live(
    loss: str, optimiser: str, packed: tuple[bool, bool], density: float
) -> None:
    rng = np.random.default_rng(0)
    settings = kernels.Settings(LOSSES[loss], OPTIMISERS[optimiser], np.float32(0.05), np.float32(0.1), 2,
                                np.float32(0.5))  # fmt: skip
    sides, supports = [], []
    for rows, is_packed in zip(blocks().shape, packed, strict=True):
        side = Drawn((rows, 24), 0.3, rng).side(settings.optimiser)
        prior = rng.standard_normal((rows, 24)).astype(np.float32)
        kept = rng.random((rows, 24)) < (density if is_packed else 2)
        kept[3] = not is_packed
        sides.append(side._replace(prior=prior))
        supports.append(kept)
    packs = [confine(side._replace(values=side.values.copy(), first=side.first.copy(), second=side.second.copy(),
                                   steps=side.steps.copy()), Mask.from_dense(kept) if is_packed else None)
             for side, kept, is_packed in zip(sides, supports, packed, strict=True)]  # fmt: skip
    for side, kept in zip(sides, supports, strict=True):
        side.values[:] *= kept
    assert all(bool(len(pack.bits)) == (density > FEW) for pack in packs if pack.dim)
    ends, log_share = np.array([9]), np.zeros(60, dtype=np.float32)
    for _ in range(40):
        user, rows = rng.integers(0, 200, 1), rng.permutation(60)[:9]
        for users, items in (packs, sides):
            is_packed = users.dim or items.dim
            scratch = [np.zeros(n, dtype=np.float32) for n in ((9, 40, 40, 40, 40) if is_packed else (9, 24, 24))]
            step = step_packed_groups if is_packed else kernels.step_groups
            step(0, 1, user, rows, ends, users, items, settings, log_share, *scratch)
        for side, kept in zip(sides, supports, strict=True):
            for table in side[:3]:
                if len(table):
                    np.multiply(table, kept, out=table)
    for pack, side in zip(packs, sides, strict=True):
        np.testing.assert_allclose(whole(pack), side.values, atol=2e-4)
        np.testing.assert_allclose(whole(pack, pack.first), side.first, atol=2e-4)
        np.testing.assert_allclose(whole(pack, pack.second), side.second, atol=2e-4)


@pytest.mark.parametrize("table", [0, 1])
@pytest.mark.parametrize("density", [0.05, 0.4, 1.0])
def test_the_gradient_that_grows_entries_is_the_losses(table: int, density: float) -> None:
    rng = np.random.default_rng(0)
    X = blocks(20, 30)
    sides = [Drawn((n, 37), 1.0, rng).side(kernels.SGD) for n in X.shape]
    if density < 1:
        sides = [confine(side, Mask.from_dense(rng.random(side.values.shape) < density)) for side in sides]
    tables = [whole(side) for side in sides]
    n = X.shape[table]
    got = np.concatenate([bpr_gradient(X, *sides, table, 3, 2, *rows) for rows in ((0, 7), (7, 8), (8, n))])
    drawn = np.uint64(np.random.default_rng([3, 2, 1]).integers(0, 2**63))
    with np.errstate(over="ignore"):
        others = [below.py_func(mix.py_func(drawn + np.uint64(entry)), 30) for entry in range(X.nnz)]
    of = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in tables]
    users, items = X.nonzero()
    gaps = (of[0][users] * (of[1][items] - of[1][others])).sum(1)
    torch.nn.functional.softplus(-gaps).sum().backward()
    np.testing.assert_allclose(got, of[table].grad, atol=1e-4)


def test_numbers_drawn_by_pieces_are_those_of_one_call() -> None:
    shape, rng, again = (3000, 24), np.random.default_rng(3), np.random.default_rng(3)
    drawn = Drawn(shape, 0.5, rng)
    numbers = (0.5 * again.standard_normal(shape, dtype=np.float32)).astype(np.float32)
    assert rng.random() == again.random()
    for start, stop in ((0, 3000), (0, 1), (600, 2999), (2999, 3000)):
        np.testing.assert_array_equal(drawn.rows(start, stop), numbers[start:stop])
    kept = Mask.from_dense(np.random.default_rng(0).random(shape) < 0.1)
    np.testing.assert_array_equal(whole(drawn.side(kernels.SGD, kept)), numbers * kept.to_dense())


@pytest.mark.parametrize("densities", [(0.3, 0.3), (0.3, 0.05), (0.05, 0.3), (0.05, 0.05)])
def test_entries_that_stay_keep_their_values_and_state_and_new_ones_have_none(densities: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    before, after = (Mask.from_dense(rng.permutation(40 * 21).reshape(40, 21) < n * 840) for n in densities)
    side = Drawn((40, 21), 1.0, rng).side(kernels.ADAM, before)
    side.first[:], side.second[:] = rng.random(side.first.shape), rng.random(side.second.shape)
    held = [whole(side, table).copy() for table in side[:3]]
    values = side.values
    moved = confine(side, after)
    for table, old in zip(moved[:3], held, strict=True):
        np.testing.assert_array_equal(whole(moved, table), old * after.to_dense())
        assert table.size == after.kept
    assert living(moved) == after
    assert (moved.values is values) == (before.kept == after.kept)


LEAN = """
import tracemalloc
import numpy as np
import scipy.sparse as sp
from recsparse.models import MF, mf
from recsparse.models.sgd_state import Sampler, run_epoch

peaks, of = [], Sampler.of.__func__

def note():
    peaks.append(tracemalloc.get_traced_memory()[1] - base)
    tracemalloc.reset_peak()

def sampler(cls, *arguments):  # what belongs to interactions
    global base
    made = of(cls, *arguments)
    made._groups
    base = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    return made

def epoch(*arguments):  # in it, the order of samples
    note()
    run_epoch(*arguments)
    tracemalloc.reset_peak()

def align(self):
    note()
    return np.eye(128, dtype=np.float32)

recipe = {{"density": 0.1, "schedule": "dynamic"}}
X = sp.csr_array(sp.random_array((6000, 3700), density=0.002, rng=np.random.default_rng(0), dtype=np.float32))
model = MF(128, optimiser="{optimiser}", epochs=8, recipe=recipe, user_recipe={users}, n_jobs=1)
model.fit(X[:9])  # compiles
Sampler.of, mf.run_epoch, MF._align = classmethod(sampler), epoch, align
tracemalloc.start()
model.fit(X)
print(len(peaks), max(peaks) / (4 * 128 * sum(X.shape)))
"""


@pytest.mark.parametrize(
    ("optimiser", "tables", "users", "most"),
    [("adagrad", 2, "recipe", 0.25), ("adam", 3, "recipe", 0.25), ("adagrad", 2, "'shared'", 0.3)],
)
def test_a_dynamic_recipe_never_takes_a_quarter_of_the_dense_tables_and_state_nor_a_shared_one_three_tenths(
    optimiser: str, tables: int, users: str, most: float
) -> None:
    command = [sys.executable, "-c", LEAN.format(optimiser=optimiser, users=users)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert int(printed[0]) == 9
    assert float(printed[1]) <= most * tables


def test_each_table_has_a_recipe_and_a_budget_of_its_own() -> None:
    train, held = holdout()
    recipes: dict[str, Any] = {
        "recipe": {"density": 0.5, "schedule": "dynamic"},
        "user_recipe": {"density": 0.25, "schedule": "dynamic", "allocation": "uniform"},
    }
    model = MF(dim=16, epochs=60, learning_rate=0.1, n_jobs=1, **recipes).fit(train, validation=held)
    users, items = model.user_table_.to_dense(), model.item_table_.to_dense()
    assert np.count_nonzero(users) == round(0.25 * users.size)
    assert np.count_nonzero(items) == round(0.5 * items.size)
    assert model.validation_[-1] > 0.4
    assert MF(dim=16, epochs=5, user_recipe={"bytes": 3000}).fit(train).user_table_.nbytes <= 3000


@pytest.mark.parametrize(
    ("schedule", "allocation", "budget"),
    [*((schedule, "global", budget) for schedule in ("oneshot", "gradual", "dynamic", "tickets", "soft-threshold")
       for budget in ({"density": 0.25}, {"bytes": 3000})),
     *((schedule, "sensitivity", {"density": 0.25}) for schedule in ("oneshot", "gradual", "dynamic", "tickets")),
     *((schedule, "sensitivity", {"bytes": 3000}) for schedule in ("oneshot", "dynamic"))],
)  # fmt: skip
def test_tables_may_share_one_budget(schedule: str, allocation: str, budget: dict[str, float], tmp_path: Path) -> None:
    recipe = budget | {"schedule": schedule, "allocation": allocation}
    model = MF(dim=16, epochs=6, learning_rate=0.1, n_jobs=1, recipe=recipe, user_recipe="shared", value_type="fp16")
    whole = model.fit(blocks())
    tables = [whole.user_table_.to_dense(), whole.item_table_.to_dense()]
    if "bytes" in budget:
        assert 2900 < whole.user_table_.nbytes + whole.item_table_.nbytes <= 3000
    else:
        kept = [int(each.row_counts().sum()) for each in (whole.user_table_, whole.item_table_)]
        assert sum(kept) == round(0.25 * (200 + 60) * 16)
        assert kept[1] != round(0.25 * 60 * 16)

    def stop(epoch: int, metric: float | None) -> None:
        if epoch == 3:
            raise StopError

    with pytest.raises(StopError):
        model.fit(blocks(), checkpoint=tmp_path / "checkpoint", on_epoch=stop)
    model.fit(blocks(), checkpoint=tmp_path / "checkpoint")
    np.testing.assert_array_equal(model.user_table_.to_dense(), tables[0])
    np.testing.assert_array_equal(model.item_table_.to_dense(), tables[1])
    model.save(tmp_path / "model")
    assert MF.load(tmp_path / "model").user_recipe == "shared"


@pytest.mark.parametrize("criterion", ["magnitude", "saliency"])
@pytest.mark.parametrize("granularity", ["element", {"kind": "block", "rows": 4, "columns": 2}, "row"])
def test_pieces_that_reach_over_both_tables_are_pruned_as_the_whole(
    criterion: str, granularity: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {"density": 0.2, "schedule": "dynamic", "criterion": criterion, "granularity": granularity}
    model = MF(dim=16, epochs=4, n_jobs=1, recipe=recipe, user_recipe="shared")
    found = []
    for least in (1 << 13, 16 * 12):  # 260 rows at once, or 12: users end inside a piece
        monkeypatch.setattr("recsparse.models.side._LEAST", least)
        model.fit(blocks())
        found.append((model.user_table_.to_dense(), model.item_table_.to_dense()))
    for whole_table, by_pieces in zip(*found, strict=True):
        np.testing.assert_array_equal(whole_table, by_pieces)


def test_where_rows_get_equal_shares_sharing_changes_nothing() -> None:
    recipe = {"density": 0.25, "schedule": "oneshot", "allocation": "uniform"}
    shared, own = (
        MF(dim=16, epochs=6, n_jobs=1, recipe=recipe, user_recipe=users).fit(blocks()) for users in ("shared", recipe)
    )
    np.testing.assert_array_equal(shared.user_table_.to_dense(), own.user_table_.to_dense())
    np.testing.assert_array_equal(shared.item_table_.to_dense(), own.item_table_.to_dense())


def test_a_budget_cannot_be_shared_without_a_recipe_or_by_blocks_over_both() -> None:
    with pytest.raises(ConfigError, match="no recipe to share"):
        MF(user_recipe="shared").fit(blocks())
    recipe = {"density": 0.5, "granularity": {"kind": "block", "rows": 3, "columns": 1}}
    with pytest.raises(ConfigError, match="do not divide the 200 users"):
        MF(dim=4, recipe=recipe, user_recipe="shared").fit(blocks())


@pytest.mark.parametrize("optimiser", ["sgd", "adagrad", "adam"])
def test_a_dynamic_recipe_holds_its_budget_from_the_first_step_in_values_and_state(
    optimiser: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[int] = []

    def count(sampler: Sampler, number: int, users: kernels.Side, items: kernels.Side, *rest: Any) -> int:
        for side in (users, items):
            assert side.values.size == round(0.1 * (len(side.ptr) - 1) * 20)
            assert side.first.size == (0 if optimiser == "sgd" else side.values.size)
        held.append(sum(array.nbytes for side in (users, items) for array in side[:8]))
        return run_epoch(sampler, number, users, items, *rest)

    monkeypatch.setattr("recsparse.models.mf.run_epoch", count)
    recipe = {"density": 0.1, "schedule": "dynamic"}
    MF(dim=20, epochs=6, optimiser=optimiser, recipe=recipe, user_recipe=recipe).fit(blocks())
    assert len(held) == 6
    assert len(set(held)) == 1


def test_a_restart_brings_every_entry_back() -> None:
    recipe = {"density": 0.1, "schedule": {"kind": "gradual", "start": 0.0, "end": 0.8, "restarts": 1}}
    model = MF(dim=16, epochs=10, recipe=recipe, n_jobs=1)
    alive: list[int] = []
    run = model.fit(
        blocks(), validation=holdout()[1],
        on_epoch=lambda *_: alive.append(np.count_nonzero(model.item_table_.to_dense())),
    )  # fmt: skip
    assert alive[2] < 0.3 * 60 * 16
    assert alive[4] > 0.5 * 60 * 16
    assert np.count_nonzero(run.item_table_.to_dense()) == round(0.1 * 60 * 16)


def test_users_without_an_entry_are_folded_in() -> None:
    train = holdout()[0]
    model = MF(dim=16, epochs=20, n_jobs=1, user_recipe={"density": 0.5, "granularity": "row"}).fit(train)
    gone = ~model.user_table_.to_dense().any(axis=1)
    assert gone.sum() == round(0.5 * len(gone))
    queries = model.queries(train)
    np.testing.assert_array_equal(queries[~gone], model.user_table_.to_dense()[~gone])
    np.testing.assert_allclose(queries[gone], model.fold_in(train)[gone], atol=1e-5)
    assert queries[gone].any(axis=1).all()


def test_exp_is_within_its_stated_error() -> None:
    x = np.linspace(-50, 50, 20_001).astype(np.float32)
    scores = np.stack([np.zeros_like(x), x], axis=1).ravel()
    kernels.weigh_bpr(scores, len(scores), 2)
    np.testing.assert_allclose(scores[::2], 1 / (1 + np.exp(-x.astype(np.float64))), rtol=1e-5, atol=1e-20)


def test_one_thread_gives_the_same_bytes() -> None:
    model = MF(dim=16, epochs=3, n_jobs=1, random_state=7)
    first, second = clone(model).fit(blocks()), clone(model).fit(blocks())
    np.testing.assert_array_equal(first.user_table_.to_dense(), second.user_table_.to_dense())
    np.testing.assert_array_equal(first.item_table_.to_dense(), second.item_table_.to_dense())
    other = clone(model).set_params(random_state=8).fit(blocks())
    assert (first.user_table_.to_dense() != other.user_table_.to_dense()).any()


def test_threads_learn_as_well() -> None:
    train, held = holdout()
    one = MF(dim=16, epochs=30, n_jobs=1, patience=None).fit(train, validation=held)
    two = MF(dim=16, epochs=30, n_jobs=2, patience=None).fit(train, validation=held)
    assert abs(max(one.validation_) - max(two.validation_)) < 0.05


def test_validation_keeps_the_best_epoch_and_stops() -> None:
    train, held = holdout()
    model = MF(dim=16, epochs=400, patience=3, learning_rate=0.2, reg=0.0, n_jobs=1).fit(train, validation=held)
    best = int(np.argmax(model.validation_)) + 1
    assert model.best_epoch_ == best
    assert model.epochs_ == best + 3 < 400
    again = MF(dim=16, epochs=best, learning_rate=0.2, reg=0.0, n_jobs=1).fit(train)
    np.testing.assert_array_equal(model.user_table_.to_dense(), again.user_table_.to_dense())
    np.testing.assert_array_equal(model.item_table_.to_dense(), again.item_table_.to_dense())


def test_folding_in_a_training_user_comes_close_to_the_learned_vector() -> None:
    train = holdout()[0]
    model = MF(dim=8, epochs=100, n_jobs=1).fit(train)
    learned = model.scores(model.queries(train))
    folded = model.scores(model.fold_in(train))
    close = [np.corrcoef(a, b)[0, 1] for a, b in zip(learned, folded, strict=True)]
    assert np.mean(close) > 0.9
    history = sp.csr_array(train.matrix[[5]])
    np.testing.assert_allclose(model.fold_in(history)[0], model.fold_in(train)[5], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", [None, {"density": 0.2, "schedule": "dynamic"}])
def test_divergence_names_the_epoch_and_keeps_the_last_good_state(recipe: dict[str, Any] | None) -> None:
    model = MF(dim=16, loss="squared", learning_rate=50.0, epochs=50, recipe=recipe, user_recipe=recipe, n_jobs=1)
    with pytest.raises(DataError, match=r"diverged in epoch \d+ .*learning_rate 50"):
        model.fit(blocks())
    assert np.isfinite(model.item_table_.to_dense()).all()
    assert len(model.recommend([0], k=3)) == 3
    if recipe is not None:
        assert model.item_table_.row_counts().sum() == round(0.2 * 60 * 16)


@pytest.mark.parametrize("optimiser", ["sgd", "adagrad", "adam"])
@pytest.mark.parametrize("recipe", [None, {"density": 0.25, "schedule": {"kind": "gradual", "end": 0.6}}])
def test_cosine_rows_have_length_one_and_learn(optimiser: str, recipe: dict[str, object] | None) -> None:
    train, held = holdout()
    model = MF(dim=16, epochs=40, loss="softmax", n_negatives=8, similarity="cosine", temperature=0.2, reg=0.0,
               optimiser=optimiser, learning_rate=0.2 if optimiser == "adagrad" else 0.02, recipe=recipe,
               user_recipe=recipe, n_jobs=1)  # fmt: skip
    model.fit(train, validation=held)
    for table in (model.user_table_, model.item_table_):
        lengths = np.linalg.norm(table.to_dense(), axis=1)
        np.testing.assert_allclose(lengths[lengths > 0], 1, atol=1e-5)
    assert max(model.validation_) > 0.4


@pytest.mark.parametrize("optimiser", ["sgd", "adagrad", "adam"])
def test_dead_entries_stay_zero_and_the_budget_is_met(optimiser: str) -> None:
    recipe = {"density": 0.25, "schedule": {"kind": "gradual", "start": 0.1, "end": 0.6}}
    train, held = holdout()
    rate = 0.02 if optimiser == "adam" else 0.1
    model = MF(dim=16, epochs=60, optimiser=optimiser, learning_rate=rate, recipe=recipe, n_jobs=1)
    model.fit(train, validation=held)
    values = model.item_table_.to_dense()
    assert np.count_nonzero(values) <= round(0.25 * values.size)
    assert np.count_nonzero(values) > 0.2 * values.size
    assert model.validation_[-1] > 0.4


def _train(path: str) -> None:
    MF(dim=16, epochs=40, optimiser="adam", learning_rate=0.01, n_jobs=1).fit(
        blocks(), checkpoint=path, on_epoch=lambda epoch, metric: time.sleep(600 if epoch == 30 else 0.02)
    )


def test_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    child = multiprocessing.get_context("spawn").Process(target=_train, args=(str(path),))
    child.start()
    while not path.exists():
        time.sleep(0.01)
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    model = MF(dim=16, epochs=40, optimiser="adam", learning_rate=0.01, n_jobs=1)
    epochs: list[int] = []
    resumed = clone(model).fit(blocks(), checkpoint=path, on_epoch=lambda epoch, metric: epochs.append(epoch))
    assert 1 < epochs[0] <= 30
    whole = clone(model).fit(blocks())
    np.testing.assert_array_equal(resumed.user_table_.to_dense(), whole.user_table_.to_dense())
    np.testing.assert_array_equal(resumed.item_table_.to_dense(), whole.item_table_.to_dense())


def test_resumed_early_stopping_equals_an_uninterrupted_run(tmp_path: Path) -> None:
    train, held = holdout()
    model = MF(dim=16, epochs=400, patience=3, learning_rate=0.2, reg=0.0, n_jobs=1)
    whole = clone(model).fit(train, validation=held)

    def stop(epoch: int, metric: float | None) -> None:
        if epoch == whole.best_epoch_ + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        clone(model).fit(train, validation=held, checkpoint=tmp_path / "run", on_epoch=stop)
    resumed = clone(model).fit(train, validation=held, checkpoint=tmp_path / "run")
    assert (resumed.epochs_, resumed.best_epoch_) == (whole.epochs_, whole.best_epoch_)
    assert resumed.validation_ == whole.validation_
    np.testing.assert_array_equal(resumed.user_table_.to_dense(), whole.user_table_.to_dense())
    np.testing.assert_array_equal(resumed.item_table_.to_dense(), whole.item_table_.to_dense())


@pytest.mark.parametrize(
    ("schedule", "allocation"),
    [*((schedule, "global") for schedule in ("gradual", "dynamic", "tickets", "soft-threshold")),
     *((schedule, "sensitivity") for schedule in ("oneshot", "dynamic"))],
)  # fmt: skip
def test_a_recipe_resumes_where_it_was(schedule: str, allocation: str, tmp_path: Path) -> None:
    recipe = {"density": 0.25, "schedule": schedule, "allocation": allocation}
    epochs = 30 if allocation == "global" else 9  # the other takes seconds a choice
    model = MF(dim=16, epochs=epochs, recipe=recipe, user_recipe=recipe, optimiser="adagrad", n_jobs=1)
    for stopped in (2, epochs // 3 + 1, 2 * epochs // 3 - 1):

        def stop(epoch: int, metric: float | None, stopped: int = stopped) -> None:
            if epoch == stopped:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            clone(model).fit(blocks(), checkpoint=tmp_path / "run", on_epoch=stop)
    resumed = clone(model).fit(blocks(), checkpoint=tmp_path / "run")
    whole = clone(model).fit(blocks())
    np.testing.assert_array_equal(resumed.user_table_.to_dense(), whole.user_table_.to_dense())
    assert resumed.item_table_.nbytes == whole.item_table_.nbytes
    np.testing.assert_array_equal(resumed.item_table_.to_dense(), whole.item_table_.to_dense())


def test_checkpoint_of_other_settings_or_damaged_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    MF(dim=16, epochs=1, n_jobs=1).fit(blocks(), checkpoint=path)
    with pytest.raises(ConfigError, match="other settings"):
        MF(dim=16, epochs=2, n_jobs=1).fit(blocks(), checkpoint=path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FormatError, match="damaged"):
        MF(dim=16, epochs=1, n_jobs=1).fit(blocks(), checkpoint=path)


@pytest.mark.parametrize("model", [MF(), MF(loss="softmax"), MF(loss="squared"), FeatureMF()])
def test_negative_values_are_refused_and_others_do_not_matter(model: MF) -> None:
    model.set_params(dim=4, epochs=2, n_jobs=1)
    likes = blocks()
    rated, disliked = likes.copy(), likes.copy()
    rated.data[:] = np.arange(likes.nnz) % 5
    disliked.data[3] = -1.0
    expected = clone(model).fit(likes).item_table_.to_dense()
    np.testing.assert_array_equal(clone(model).fit(rated).item_table_.to_dense(), expected)
    with pytest.raises(DataError, match=r"-1\.0 of user 0 and item \d+ is negative, and MF takes .* drop such"):
        model.fit(disliked)


def test_a_user_with_everything_is_left_out_of_training() -> None:
    X = checkerboard_matrix().toarray()
    X[0] = 1
    model = MF(dim=8, epochs=3, n_jobs=1).fit(sp.csr_array(X))
    assert np.isfinite(model.user_table_.to_dense()).all()


@pytest.mark.parametrize(
    "setting", [{"layers": -1}, {"loss": "mse"}, {"negatives": "all"}, {"optimiser": "lion"}, {"dim": 0}, {"epochs": 0},
                {"learning_rate": 0.0}, {"reg": -1.0}, {"similarity": "angle"}, {"temperature": 0.0},
                {"n_negatives": 0}, {"patience": 0}],
)  # fmt: skip
def test_impossible_settings_are_refused(setting: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(setting))} is"):
        MF(**setting).fit(checkerboard())  # type: ignore[arg-type]


ONESHOT = {"density": 0.5, "schedule": "oneshot"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"value_type": "float16"}, "The value type is 'float16'"),
        ({"recipe": ONESHOT | {"criterion": "loss-increase"}}, "MF has no least-squares curvature"),
        ({"recipe": ONESHOT | {"granularity": {"kind": "block", "columns": 3}}}, "Blocks of 1 x 3 do not tile"),
        ({"user_recipe": ONESHOT | {"granularity": {"kind": "block", "rows": 7}}}, "Blocks of 7 x 4 do not tile"),
        ({"recipe": ONESHOT | {"schedule": "tickets"}, "user_recipe": "shared"}, "Tickets of 3 rounds in 2 epochs"),
    ],
)
def test_what_cannot_be_stored_or_pruned_is_refused_before_the_first_epoch(
    settings: dict[str, Any], message: str
) -> None:
    epochs: list[int] = []
    with pytest.raises(ConfigError, match=message):
        MF(dim=8, epochs=2, **settings).fit(checkerboard(), on_epoch=lambda epoch, _: epochs.append(epoch))
    assert epochs == []
