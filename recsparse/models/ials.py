"""iALS: matrix factorisation of implicit feedback by alternating least squares, dense or on a sparse item table."""

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
from sklearn.utils.validation import check_is_fitted

from recsparse.errors import ConfigError, DivergenceError
from recsparse.interactions.interactions import Interactions, check_not_negative
from recsparse.interactions.split import Holdout
from recsparse.models.alternation import Alternation, Learned
from recsparse.models.checkpoint import training_digest
from recsparse.models.factors import FactorModel
from recsparse.models.least_squares import SPARSE_ENOUGH, Dense, Factors, ImplicitLoss, Sides, rotated
from recsparse.models.settings import check_choice, check_epochs, check_number, check_whole
from recsparse.models.sparse_start import first_users, varimax
from recsparse.models.support import pattern, prune_items
from recsparse.sparsity import Pruner, Recipe
from recsparse.tables import Mask, choose_layout, pack
from recsparse.tables.values import check_value_type

OnEpoch = Callable[[int, float | None], None]
"""Called after each epoch with its number from 1 and the validation metric, None where there is no validation."""

CG_STEPS = 2
VALUES = "iALS takes values as weights; drop such interactions or map them to weights"
_ROUNDS = 3


class IALS(FactorModel):
    """Implicit alternating least squares, its item table dense or sparse by a recipe.

    The loss is that of :class:`recsparse.models.least_squares.ImplicitLoss`, with regularisation scaled by frequency
    (Hu, Koren and Volinsky 2008; Rendle et al., "Revisiting the performance of iALS on item recommendation
    benchmarks", 2021). Each half-step solves every row exactly. With a recipe, the item table is pruned on its
    schedule, and from then on each item is solved exactly on its support. Before elements or blocks go for the first
    time, but for tickets, both sides are rotated, which changes no score, to where few entries an item say most
    (:func:`recsparse.models.sparse_start.varimax`); a dynamic recipe starts there. Users are never stored: they are
    folded in, by one exact solve on the packed table.

    The result is the same, byte for byte, at any ``n_jobs`` on one machine.

    Args:
        dim: columns of the item table, D.
        epochs: alternations of a user and an item half-step.
        alpha0: weight of unobserved pairs (an observed one weighs its value, usually 1).
        reg: strength of the regularisation.
        nu: its dependence on frequency, from 0 (none) to 1 (proportional).
        degree_power: p, at least 0. An observed pair weighs its value times (n_u n_i)^-p, over the mean of that among
            the training pairs; n_u and n_i count the interactions of its user and its item. So busy users and much-seen
            items say less. On Gowalla 128 columns with 1/4 reach the NDCG@20 of 256 with 0.
        crowd: when users are folded in, ``reg`` pulls them to so many times the crowd's vector instead of to zero, so
            that who has few interactions gets more of what is popular. The crowd is one user who has each item with its
            mean weight over the training users. Users of a sparse table then take O(D³) each.
        solver: "cholesky" solves each half-step exactly; "cg" takes two steps of conjugate gradients towards it from
            the last epoch's factors (:meth:`ImplicitLoss.refine`), which reaches the same quality in as many epochs, in
            a fraction of the time; "block" solves some columns at a time given the others (iALS++,
            :meth:`ImplicitLoss.solve_blocks`). Once a recipe has pruned the table, items are solved exactly on what
            they keep, and users exactly too, but for "cg": it goes on with its two steps for them, and holds two dense
            copies of the item table meanwhile.
        block: columns that the block solver takes at a time.
        recipe: how the item table becomes sparse, a :class:`recsparse.sparsity.Recipe` or the data of one; None keeps
            it dense.
        value_type: how the item table's values are stored: fp32, fp16, int8, int4, ...
        rounding: how values become integers, see :meth:`repack`. On ML-1M "aware" was better than "nearest" for dense
            tables of few columns at 2 or 3 bits and no better otherwise.
        init_std: standard deviation of the initial factors times sqrt(dim).
        patience: with validation, stop after so many epochs without a better metric; None never stops.
        metric: of validation.
        random_state: seed of the initial factors.
        n_jobs: threads; None and -1 mean all cores.

    Attributes:
        item_table_: the packed item table, (I, D).
        epochs_: epochs trained; ``best_epoch_`` is the one kept and ``validation_`` all metrics.

    Cost of an epoch: O(nnz D² + (U + I) D³) dense; with K entries an item O(nnz K² + U D³ + I K³).

    Example:
        >>> import scipy.sparse as sp
        >>> model = IALS(dim=2, epochs=5).fit(sp.csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
        >>> model.recommend([0], k=1, exclude_seen=False)["item_id"].isin([0, 1]).all()
        np.True_
    """

    kind = "ials"
    search_space: ClassVar[dict[str, Any]] = {
        "alpha0": {"low": 0.003, "high": 1.0, "log": True},
        "reg": {"low": 0.0003, "high": 0.1, "log": True},
        "nu": {"low": 0.0, "high": 1.0},
        "degree_power": {"low": 0.0, "high": 0.5},
    }

    epochs_: int
    best_epoch_: int
    validation_: list[float]

    def __init__(
        self,
        dim: int = 64,
        *,
        epochs: int = 10,
        alpha0: float = 0.1,
        reg: float = 0.01,
        nu: float = 1.0,
        degree_power: float = 0.0,
        crowd: float = 0.0,
        solver: Literal["cholesky", "cg", "block"] = "cholesky",
        block: int = 64,
        recipe: Recipe | dict[str, Any] | None = None,
        value_type: str = "fp32",
        rounding: Literal["nearest", "aware"] = "nearest",
        init_std: float = 0.1,
        patience: int | None = 5,
        metric: str = "ndcg@20",
        random_state: int = 0,
        n_jobs: int | None = None,
    ) -> None:
        self.dim = dim
        self.epochs = epochs
        self.alpha0 = alpha0
        self.reg = reg
        self.nu = nu
        self.degree_power = degree_power
        self.crowd = crowd
        self.solver = solver
        self.block = block
        self.recipe = recipe
        self.value_type = value_type
        self.rounding = rounding
        self.init_std = init_std
        self.patience = patience
        self.metric = metric
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(
        self,
        interactions: Interactions | sp.csr_array,
        *,
        validation: Holdout | None = None,
        checkpoint: str | Path | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> Self:
        """Learn.

        Args:
            interactions: the training data.
            validation: stop by its metric, and keep the best epoch; with a recipe every epoch is trained and the last
                one kept.
            checkpoint: a file written after each epoch and gone on from if it is there; the result of a killed and
                resumed run equals an uninterrupted one's, byte for byte.
            on_epoch: called with each epoch's number and metric.

        Raises:
            DataError: validation has no targets, or a value is negative.
            DivergenceError: the factors became infinite or NaN. The model keeps the best epoch before and works.
            ConfigError: an impossible setting.
        """
        if validation is not None:
            validation.check_targets()
        self._validation, self._on_epoch = validation, on_epoch
        self._checkpoint = None if checkpoint is None else Path(checkpoint)
        try:
            return super().fit(interactions)
        finally:
            del self._validation, self._checkpoint, self._on_epoch

    def _learned_from(self, interactions: Interactions) -> tuple[sp.csr_array, ...]:
        """What a checkpoint must belong to."""
        return (interactions.matrix,)

    def _fit(self, interactions: Interactions) -> None:
        self._check(interactions)
        sides = self._sides(interactions)
        pruner = None
        if self.recipe is not None:
            pruner = Pruner(Recipe.parse(self.recipe), self._size_of)
            pruner.recipe.check((interactions.shape[1], self._columns), self.epochs)
        digest = training_digest(self.get_params(), *self._learned_from(interactions))
        state = None if self._checkpoint is None else Alternation.read(self._checkpoint, digest, pruner)
        if state is None:
            state = Alternation(self._begin(sides, pruner), pruner)
        while state.epochs < self.epochs and not state.is_stale(self.patience):
            kept = None if pruner is None else pruner.kept
            learned = self._epoch(sides, state.now, pruner, state.epochs)
            if not learned.is_finite():
                self._end(sides, state, kept)
                raise DivergenceError(
                    f"iALS diverged in epoch {state.epochs + 1} (reg {self.reg}, alpha0 {self.alpha0}, weights "
                    f"{sides.by_user.data.min():g} to {sides.by_user.data.max():g}); the model keeps epoch "
                    f"{state.best_epoch}. Raise reg, or scale the weights."
                )
            state.now, metric = learned, None
            if self._validation is not None:
                self._finish(sides, state.now, None if pruner is None else pruner.kept)
                metric = self._measure(self._validation)
            state.judge(metric)
            if self._checkpoint is not None:
                state.write(self._checkpoint, digest)
            if self._on_epoch is not None:
                self._on_epoch(state.epochs, metric)
        self._end(sides, state, None if pruner is None else pruner.kept)

    def _end(self, sides: Sides, state: Alternation, kept: Mask | None) -> None:
        """Be what the best epoch learned, or what training began with where none has ended."""
        self.epochs_, self.best_epoch_, self.validation_ = state.epochs, state.best_epoch, state.validation
        self._finish(sides, state.best or state.now, kept)

    @property
    def _columns(self) -> int:
        """Of the table that a recipe prunes."""
        return self.dim

    def _measure(self, validation: Holdout) -> float:
        from recsparse.evaluation import per_user, rank_targets  # noqa: PLC0415 (evaluation needs models)

        ranking = rank_targets(self, validation.history, validation.target, n_jobs=self.n_jobs)
        return float(np.nanmean(per_user(ranking, self.metric)))

    def _sides(self, interactions: Interactions) -> Sides:
        return Sides.of(self._weighted(interactions.matrix), self._loss())

    def _finish(self, sides: Sides, learned: Learned, kept: Mask | None) -> None:
        """Make of factors in training what is evaluated, served and saved."""
        self._pack(sides, learned.items, kept)

    def _begin(self, sides: Sides, pruner: Pruner | None) -> Learned:
        """What the first epoch starts from: random items, or where they are never dense, those of the largest."""
        rng = np.random.default_rng(self.random_state)
        if pruner is None or pruner.recipe.schedule.density(0.0, 0.0) == 1.0:
            users = np.zeros((sides.by_user.shape[0], self.dim), dtype=np.float32)
            return Learned(users, self._initial(rng, sides.by_item.shape[0]))
        users = first_users(sides.by_user, self.dim, rng)
        items = sides.loss.solve(sides.by_item, users, sides.shared_of_users(users))
        return Learned(users, prune_items(sides, users, items, pruner, 0.0))

    def _initial(self, rng: np.random.Generator, n_items: int) -> Dense:
        scale = np.float32(self.init_std / np.sqrt(self.dim))
        return scale * rng.standard_normal((n_items, self.dim), dtype=np.float32)

    def _epoch(self, sides: Sides, learned: Learned, pruner: Pruner | None, number: int) -> Learned:
        """Improve both sides once, and let the recipe choose; ``number`` epochs are done already."""
        users, items = self._alternate(sides, learned.users, learned.items, None if pruner is None else pruner.support)
        if pruner is not None and Learned(users, items).is_finite():
            progress = (number + 1) / self.epochs
            if isinstance(items, np.ndarray) and pruner.begins(progress):
                turn = varimax(items.astype(np.float64), np.random.default_rng(self.random_state)).astype(np.float32)
                users, items = rotated(users, turn, self.n_jobs), rotated(items, turn, self.n_jobs)
            items = prune_items(sides, users, items, pruner, progress)
        return Learned(users, items)

    def _alternate(self, sides: Sides, users: Dense, items: Factors, support: Mask | None) -> tuple[Dense, Factors]:
        """One epoch: a user half-step and an item half-step."""
        loss, by_user, by_item = sides.loss, sides.by_user, sides.by_item
        shared, prior = sides.shared_of_items(items), sides.user_prior(users)
        sparse = support is not None or not isinstance(items, np.ndarray)
        exact = self.solver == "cholesky" or sparse
        if self.solver == "cg":
            values = items if isinstance(items, np.ndarray) else items.toarray()
            values, users = loss.refine(by_user, values, users, CG_STEPS, shared, prior, rotate=not sparse)
            if not sparse:
                shared, prior = sides.shared_of_users(users), sides.item_prior(values)
                return loss.refine(by_item, users, values, CG_STEPS, shared, prior)
        elif exact:
            users = loss.solve(by_user, items, shared, prior)
        else:
            users = loss.solve_blocks(by_user, items, users, self.block, shared, prior)
        shared, prior = sides.shared_of_users(users), sides.item_prior(items)
        if support is not None:
            return users, loss.solve_on_support(by_item, users, pattern(support), shared=shared, prior=prior)[0]
        if exact:
            return users, loss.solve(by_item, users, shared, prior)
        return users, loss.solve_blocks(by_item, users, items, self.block, shared, prior)

    def repack(self, value_type: str) -> Self:
        """A fitted copy whose item table is stored in another value type.

        With ``rounding="nearest"`` the trained values are rounded. With ``"aware"`` integers are found by solving:
        users against the rounded table and items against their own rounding, in turns, on the training data.
        """
        check_is_fitted(self, "item_table_")
        other = copy(self)
        other.set_params(value_type=value_type)
        values = self.item_table_.to_dense()
        kept = None if values.all() else Mask.from_dense(values != 0)
        other._pack(Sides.of(self._weighted(self.history_), self._loss()), values, kept)
        return other

    def _pack(self, sides: Sides, items: Factors, kept: Mask | None) -> None:
        """Store the item table, rounded as the settings say."""
        if self.rounding == "aware" and self.value_type.startswith("int"):
            support = pattern(kept or Mask.full(items.shape))
            for _ in range(_ROUNDS):
                users = sides.loss.solve(sides.by_user, items)
                bits = int(self.value_type.removeprefix("int"))
                items = sides.loss.solve_on_support(sides.by_item, users, support, bits=bits)[0]
        values = items if isinstance(items, np.ndarray) else items.toarray()
        self.item_table_ = pack(values, kept and kept.to_elements(), value_type=self.value_type)

    def _size_of(self, kept: Mask) -> int:
        return choose_layout(kept.to_elements(), value_type=self.value_type).nbytes

    def _fold_in(self, histories: sp.csr_array) -> Dense:
        factors, shared, prior = self._prepared_folding()
        if prior is not None:
            prior = np.broadcast_to(prior, (histories.shape[0], self.dim))
        return self._loss().solve(self._weighted(histories), factors, shared, prior)

    def _prepared_folding(self) -> tuple[Factors, Dense, Dense | None]:
        """The packed table's values as the solver takes them, what all users share, and their prior; made once."""
        table, crowd, *found = getattr(self, "_folding", (None, 0.0))
        if table is not self.item_table_ or crowd != self.crowd:
            values = self.item_table_.to_dense()
            factors: Factors = (
                sp.csr_array(values) if np.count_nonzero(values) < SPARSE_ENOUGH * values.size else values
            )
            shared = self._shared_of(factors)
            found = [factors, shared, self._crowd_of(factors, shared) if self.crowd else None]
            self._folding = self.item_table_, self.crowd, *found
        return found[0], found[1], found[2]

    def _crowd_of(self, factors: Factors, shared: Dense) -> Dense:
        """``crowd`` times the vector (D,) of a user whose weights are the means of the training users'."""
        weights = sp.csr_array(self._weighted(self.history_).mean(axis=0, dtype=np.float64)[None, :], dtype=np.float32)
        vector: Dense = np.float32(self.crowd) * self._loss().solve(weights, factors, shared)[0]
        return vector

    def _weighted(self, histories: sp.csr_array) -> sp.csr_array:
        """The weights of observed pairs (B, I): their values by the degrees of user and item; none may be negative."""
        check_not_negative(histories, VALUES)
        if self.degree_power == 0:
            return histories
        if getattr(self, "_degrees", (None,))[0] is not self.history_:
            self._degrees = self.history_, float(self._by_degree(self.history_).mean())
        weights = histories.data * self._by_degree(histories) / self._degrees[1]
        return sp.csr_array((weights.astype(np.float32), histories.indices, histories.indptr), shape=histories.shape)

    def _by_degree(self, histories: sp.csr_array) -> npt.NDArray[np.float64]:
        """(n_u n_i)^-p of each stored pair; an item that training never saw counts as seen once."""
        counts = np.diff(histories.indptr)
        items = np.maximum(self.popularity_[histories.indices], 1).astype(np.float64)
        return np.asarray((np.repeat(counts, counts) * items) ** -self.degree_power)

    def _shared_of(self, factors: Factors) -> Dense:
        return self._loss().shared(factors)

    def _loss(self) -> ImplicitLoss:
        return ImplicitLoss(self.alpha0, self.reg, self.nu, self.n_jobs)

    def _check(self, interactions: Interactions) -> None:
        check_epochs(self)
        check_whole(self, "block")
        check_number(self, "reg", "init_std")
        check_number(self, "alpha0", "nu", "degree_power", "crowd", zero=True)
        check_choice(self, "rounding", ("nearest", "aware"))
        check_choice(self, "solver", ("cholesky", "cg", "block"))
        check_value_type(self.value_type)
        if self.recipe is not None and (kind := Recipe.parse(self.recipe).criterion.kind) in ("gradient", "saliency"):
            raise ConfigError(
                f"The recipe's criterion is {kind}, but the gradient is zero where iALS has solved for its items, and "
                "rounding would decide; take magnitude or loss-increase."
            )
        interactions.check_not_negative(VALUES)
