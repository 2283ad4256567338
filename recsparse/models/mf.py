"""Matrix factorisation by stochastic gradient descent: BPR, sampled softmax or a weighted squared loss."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from recsparse.errors import ConfigError, DivergenceError
from recsparse.interactions.interactions import Interactions, Rows, check_not_negative
from recsparse.interactions.split import Holdout
from recsparse.kernels.sgd import Settings, Side
from recsparse.models.alignment import aligned_users, closest_map
from recsparse.models.checkpoint import Arrays, read_checkpoint, training_digest, write_checkpoint
from recsparse.models.factors import FactorModel
from recsparse.models.least_squares import ImplicitLoss
from recsparse.models.lightgcn import propagate
from recsparse.models.pruners import ITEMS, USERS, Pruners
from recsparse.models.settings import check_choice, check_epochs, check_number, check_whole
from recsparse.models.sgd_state import LOSSES, NEGATIVES, OPTIMISERS, Sampler, run_epoch
from recsparse.models.side import Drawn, Floats, numbers_of, pack_side, unpack_side
from recsparse.sparsity import Pruner, Recipe
from recsparse.tables import Mask, Table, choose_layout, load_table, pack, save_table
from recsparse.tables.values import check_value_type
from recsparse.tensors import load_tensors, save_tensors

USER_TABLE, FOLD_IN = "user_table.safetensors", "fold_in.safetensors"

VALUES = "MF takes every interaction as liked, whatever its value; drop such interactions"
_MOST_COLUMNS = 1 << 16

Kepts = tuple[Mask | None, Mask | None]
"""The masks of the user and the item table; None for all entries."""

OnEpoch = Callable[[int, float | None], None]
"""Called after each epoch with its number from 1 and the validation metric, None where there is no validation."""


class MF(FactorModel):
    """User and item vectors learned from known pairs and sampled unknown ones; ``score = u·v``.

    For a known pair (u, i) and negatives j, never items the user has:

    - ``bpr``: ``Σ_j -log σ(u·v_i - u·v_j)`` (Rendle et al. 2009, BPR-Opt)
    - ``softmax``: ``-log softmax`` at i over i and the j of ``u·v - log q``, with q the probability of a draw, so that
      popular negatives are not punished for being drawn often (Jean et al. 2015, eq. 8)
    - ``squared``: ``½ (1 - u·v_i)² + ½ negative_weight Σ_j (u·v_j)²``

    plus ``½ reg ||row||²`` for each row of each sample. With ``similarity="cosine"`` rows are kept at length 1, so
    that ``u·v`` is the cosine of their angle, and losses see it divided by ``temperature``: ``softmax`` with it is the
    loss of Wu et al. 2022, "On the effectiveness of sampled softmax loss for item recommendation". An epoch visits
    each known pair once, in groups of 16 pairs of one user whose gradients are taken at the same user vector. With one
    thread the result is the same byte for byte; with several it is not (lock-free). Users of the training data keep
    their learned vector. Others are folded in by least squares on the item table, then by the linear map that brings
    training users' least-squares vectors closest to their learned ones: on ML-1M, folded in that way, training users
    reach 0.201 NDCG@20 of the 0.202 that their own vectors reach (0.13 without the map).

    Every loss takes every interaction as liked: values are not used, not even zeros, and a negative one, which would
    say the opposite, is refused. :class:`IALS` weighs pairs by their values, :class:`BiasedMF` predicts them.

    Args:
        dim: columns, D.
        loss: see above.
        negatives: drawn "uniform" over items, by "popularity", or "in-batch" (positives of 256 groups together).
        n_negatives: for each known pair.
        negative_weight: of the squared loss.
        similarity: "dot", or "cosine" with rows of length 1, for which ``reg`` is best left at 0.
        temperature: what losses divide scores by.
        optimiser: "sgd", "adagrad" or "adam"; state is a value (two for Adam) an entry.
        learning_rate: of the optimiser.
        reg: decay of the rows a sample touches.
        epochs: at most.
        patience: with validation, stop after so many epochs without a better metric; None never stops.
        metric: of validation.
        recipe: how the item table becomes sparse; what is pruned takes no memory in training, its optimiser state
            neither.
        user_recipe: how the user table becomes sparse, with a budget of its own; or "shared": ``recipe`` and its
            budget are of both tables together, as if they were one, and its allocation says which of them gets how
            much. A training user without any entry left is folded in like a new one.
        value_type: how the item table's values are stored.
        fold_in_alpha0: weight of unobserved pairs when a new user is folded in.
        fold_in_reg: ridge of that fold-in.
        layers: average the learned vectors over so many steps on the user-item graph, as LightGCN does (which trains
            through them as well); 0 for none.
        init_std: standard deviation of the initial entries times sqrt(dim).
        random_state: seed.
        n_jobs: threads; None and -1 mean all cores.

    Attributes:
        item_table_: V, packed.
        user_table_: U, packed.
        fold_in_map_: (D, D) float32, from least-squares vectors to learned ones.
        epochs_: epochs trained; with validation ``best_epoch_`` is the one kept and ``validation_`` all metrics.

    Cost of an epoch: O(nnz (1 + n_negatives) D).

    Example:
        >>> model = MF(dim=4, epochs=200, n_jobs=1).fit(sp.csr_array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]]))
        >>> model.recommend([0], k=1, exclude_seen=False)["item_id"].isin([0, 1]).all()
        np.True_
    """

    kind = "mf"
    search_space: ClassVar[dict[str, Any]] = {
        "learning_rate": {"low": 0.003, "high": 0.3, "log": True},
        "reg": {"low": 0.0001, "high": 0.1, "log": True},
        "n_negatives": {"low": 1, "high": 16, "log": True},
    }

    user_table_: Table
    fold_in_map_: Floats
    epochs_: int
    best_epoch_: int
    validation_: list[float]
    _best_numbers: Arrays

    _of_an_epoch: ClassVar[tuple[str, ...]] = (
        "user_table_", "item_table_", "fold_in_map_", "best_epoch_", "_best_numbers",
    )  # fmt: skip
    """What is taken back where an earlier epoch was better."""

    def __init__(
        self,
        dim: int = 64,
        *,
        loss: Literal["bpr", "softmax", "squared"] = "bpr",
        negatives: Literal["uniform", "popularity", "in-batch"] = "uniform",
        n_negatives: int = 1,
        negative_weight: float = 1.0,
        similarity: Literal["dot", "cosine"] = "dot",
        temperature: float = 1.0,
        optimiser: Literal["sgd", "adagrad", "adam"] = "sgd",
        learning_rate: float = 0.05,
        reg: float = 0.01,
        epochs: int = 100,
        patience: int | None = 5,
        metric: str = "ndcg@20",
        recipe: Recipe | dict[str, Any] | None = None,
        user_recipe: Recipe | dict[str, Any] | Literal["shared"] | None = None,
        value_type: str = "fp32",
        fold_in_alpha0: float = 0.1,
        fold_in_reg: float = 1.0,
        layers: int = 0,
        init_std: float = 0.1,
        random_state: int = 0,
        n_jobs: int | None = None,
    ) -> None:
        self.dim = dim
        self.loss = loss
        self.negatives = negatives
        self.n_negatives = n_negatives
        self.negative_weight = negative_weight
        self.similarity = similarity
        self.temperature = temperature
        self.optimiser = optimiser
        self.learning_rate = learning_rate
        self.reg = reg
        self.epochs = epochs
        self.patience = patience
        self.metric = metric
        self.recipe = recipe
        self.user_recipe = user_recipe
        self.value_type = value_type
        self.fold_in_alpha0 = fold_in_alpha0
        self.fold_in_reg = fold_in_reg
        self.layers = layers
        self.init_std = init_std
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
            validation: stop by its metric, and keep the best epoch.
            checkpoint: a file written after each epoch and gone on from if it is there; with one thread the result of
                a killed and resumed run equals an uninterrupted one's.
            on_epoch: called with each epoch's number and metric.

        Raises:
            DataError: validation has no targets, or a value is negative.
            DivergenceError: the tables became infinite or NaN. The model keeps the last good epoch and works.
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
            self.__dict__.pop("_best_numbers", None)

    def _fit(self, interactions: Interactions) -> None:
        self._check(interactions)
        matrix = interactions.matrix
        sampler = Sampler.of(matrix, self.negatives, self.random_state, self._drawable())
        settings = Settings(
            LOSSES[self.loss], OPTIMISERS[self.optimiser], np.float32(self.learning_rate), np.float32(self.reg),
            self.n_negatives, np.float32(self.negative_weight), np.float32(1 / self.temperature),
            self.similarity == "cosine",
        )  # fmt: skip
        rng = np.random.default_rng(self.random_state)
        std = self.init_std / np.sqrt(self.dim)
        pruners = self._pruners(matrix)
        pruners.check(self.dim, self.epochs)
        self.epochs_, self.best_epoch_, self.validation_ = 0, 0, []
        digest = ""
        if self._checkpoint is not None:
            digest = training_digest(self.get_params(), *self._learned_from(interactions))
        if self._checkpoint is not None and (found := read_checkpoint(self._checkpoint, digest)):
            arrays, progress = found
            users, items = unpack_side("users", arrays), unpack_side("items", arrays)
            pruners.restore(arrays, progress["pruners"])
            self.epochs_, self.validation_ = progress["epochs"], progress["validation"]
            if pruners:
                self._keep(users, items, pruners.kept, self.epochs_)
            else:
                self._store(arrays["best.users"], arrays["best.items"], pruners.kept, progress["best"])
        else:
            drawn = (Drawn((n, self.dim), std, rng, unit=settings.unit) for n in matrix.shape)
            users, items = pruners.start((next(drawn), next(drawn)), settings.optimiser)
        while self.epochs_ < self.epochs and not self._is_stale():
            users, items = self._train(sampler, users, items, settings, pruners)
            self.epochs_ += 1
            users, items = pruners.step((users, items), self.epochs_, self.epochs_ / self.epochs)
            self._judge(users, items, pruners)
            if self._checkpoint is not None:
                arrays = pack_side("users", users) | pack_side("items", items)
                if not pruners:  # a recipe's best are its last
                    arrays |= self._best_numbers
                masks, told = pruners.state()
                progress = {"epochs": self.epochs_, "validation": self.validation_, "best": self.best_epoch_}
                write_checkpoint(self._checkpoint, arrays | masks, progress | {"pruners": told}, digest)

    def _train(
        self, sampler: Sampler, users: Side, items: Side, settings: Settings, pruners: Pruners
    ) -> tuple[Side, Side]:
        """One epoch's steps; where they end in no numbers, the last good epoch is kept."""
        last = None
        if self.best_epoch_ == 0:  # else an earlier epoch was kept
            last = users._replace(values=users.values.copy()), items._replace(values=items.values.copy())
        users, items = self._with_priors(users, items)
        run_epoch(sampler, self.epochs_, users, items, settings, self.n_jobs)
        if not (np.isfinite(users.values).all() and np.isfinite(items.values).all()):
            if last is not None:
                self._keep(*last, pruners.kept, self.epochs_)
            raise DivergenceError(
                f"MF diverged in epoch {self.epochs_ + 1} (loss {self.loss}, optimiser {self.optimiser}, "
                f"learning_rate {self.learning_rate}, reg {self.reg}); the model keeps epoch {self.best_epoch_}. "
                "Lower learning_rate."
            )
        return users, items

    def _pruners(self, matrix: sp.csr_array) -> Pruners:
        n_users, of = matrix.shape[0], dict[str, tuple[tuple[int, ...], Pruner]]()
        user_size, item_size = (partial(_size_of, value_type=each) for each in ("fp32", self.value_type))
        if self.user_recipe == "shared" and self.recipe is not None:
            recipe = Recipe.parse(self.recipe)
            if n_users % (rows := recipe.granularity.group_shape((n_users, self.dim))[0]):
                raise ConfigError(f"Blocks of {rows} rows do not divide the {n_users} users; choose a divisor of them.")

            def size(kept: Mask) -> int:
                return user_size(kept.select_rows(0, n_users)) + item_size(kept.select_rows(n_users, sum(matrix.shape)))

            pruner = Pruner(recipe, size)
            return Pruners({"both": ((USERS, ITEMS), pruner)}, matrix, self.random_state)
        if self.user_recipe is not None and self.user_recipe != "shared":
            of["users"] = (USERS,), Pruner(Recipe.parse(self.user_recipe), user_size)
        if self.recipe is not None:
            of["items"] = (ITEMS,), Pruner(Recipe.parse(self.recipe), item_size)
        return Pruners(of, matrix, self.random_state)

    def _learned_from(self, interactions: Interactions) -> tuple[sp.csr_array, ...]:
        """What a checkpoint must belong to."""
        return (interactions.matrix,)

    def _drawable(self) -> npt.NDArray[np.int32] | None:
        """The items that uniform negatives are drawn from; None for all."""
        return None

    def _with_priors(self, users: Side, items: Side) -> tuple[Side, Side]:
        """Say what rows decay towards in the next epoch: zero, unless a subclass knows better."""
        return users, items

    def _judge(self, users: Side, items: Side, pruners: Pruners) -> None:
        """Keep this epoch unless an earlier one was better on validation; a recipe always ends with its last."""
        metric: float | None = None
        best = {name: getattr(self, name) for name in self._of_an_epoch} if self.best_epoch_ else None
        if self._validation is not None or self._checkpoint is not None or self.epochs_ == self.epochs:
            self._keep(users, items, pruners.kept, self.epochs_)
        if self._validation is not None:
            from recsparse.evaluation import per_user, rank_targets  # noqa: PLC0415 (evaluation needs models)

            ranking = rank_targets(self, self._validation.history, self._validation.target, n_jobs=self.n_jobs)
            metric = float(np.nanmean(per_user(ranking, self.metric)))
            if best is not None and not pruners and metric <= self.validation_[best["best_epoch_"] - 1]:
                self.__dict__.update(best)
            self.validation_.append(metric)
        if self._on_epoch is not None:
            self._on_epoch(self.epochs_, metric)

    def _is_stale(self) -> bool:
        if self._validation is None or self.patience is None:
            return False
        if self.recipe is not None or self.user_recipe is not None:
            return False
        return self.epochs_ - self.best_epoch_ >= self.patience

    def _keep(self, users: Side, items: Side, kept: Kepts, epoch: int) -> None:
        of_users, of_items = (numbers_of(side, unit=self.similarity == "cosine") for side in (users, items))
        if self.layers:
            of_users, of_items = propagate(self.history_, of_users, of_items, self.layers)
        self._store(of_users, of_items, kept, epoch)

    def _store(self, users: Floats, items: Floats, kept: Kepts, epoch: int) -> None:
        """Pack the tables, each (R, D) or (N,), the numbers of what is kept, and fit the fold-in to them."""
        # A table keeps the array it is given, and training goes on in this one.
        users, items = users.copy(), items.copy()
        self.user_table_ = pack(users, kept[0] and kept[0].to_elements())
        self.item_table_ = pack(items, kept[1] and kept[1].to_elements(), value_type=self.value_type)
        self.fold_in_map_ = self._align()
        self.best_epoch_ = epoch
        self._best_numbers = {} if self._checkpoint is None else {"best.users": users, "best.items": items}

    def _represent(self, rows: Rows, histories: sp.csr_array, users: pa.Table | None = None) -> Floats:
        queries: Floats = self.user_table_.lookup(rows)
        strangers = np.flatnonzero((rows < 0) | ~queries.any(axis=1))
        if len(strangers):
            queries[strangers] = self._fold_in(sp.csr_array(histories[strangers]))
        return queries

    def _fold_in(self, histories: sp.csr_array) -> Floats:
        check_not_negative(histories, VALUES)
        queries: Floats = self._regress(histories) @ self.fold_in_map_
        return queries

    def _regress(self, histories: sp.csr_array) -> Floats:
        """The vector of each history by least squares on the item table, unobserved pairs weighing little."""
        known = sp.csr_array((np.ones_like(histories.data), histories.indices, histories.indptr), histories.shape)
        loss = ImplicitLoss(self.fold_in_alpha0, self.fold_in_reg, 0.0, self.n_jobs)
        return loss.solve(known, self.item_table_.to_dense())

    def _align(self) -> Floats:
        """The linear map (D, D) that brings least-squares vectors closest to learned ones."""
        sample = aligned_users(np.diff(self.history_.indptr))
        regressed = self._regress(sp.csr_array(self.history_[sample])).astype(np.float64)
        moment, cross = regressed.T @ regressed, regressed.T @ self.user_table_.lookup(sample).astype(np.float64)
        del regressed  # larger than all that follows
        return closest_map(moment, cross)

    def _save_state(self, directory: Path) -> None:
        super()._save_state(directory)
        save_table(self.user_table_, directory / USER_TABLE)
        save_tensors({"map": self.fold_in_map_}, directory / FOLD_IN)

    def _load_state(self, directory: Path) -> None:
        super()._load_state(directory)
        self.user_table_ = load_table(directory / USER_TABLE)
        self.fold_in_map_ = load_tensors(directory / FOLD_IN, "map")["map"]

    def _check(self, interactions: Interactions) -> None:
        interactions.check_not_negative(VALUES)
        for name, allowed in (
            ("loss", LOSSES),
            ("optimiser", OPTIMISERS),
            ("negatives", NEGATIVES),
            ("similarity", ("dot", "cosine")),
        ):
            check_choice(self, name, allowed)
        check_epochs(self)
        check_whole(self, "n_negatives")
        check_whole(self, "layers", least=0)
        check_number(self, "learning_rate", "init_std", "fold_in_reg", "temperature")
        check_number(self, "reg", "negative_weight", "fold_in_alpha0", zero=True)
        if self.dim > _MOST_COLUMNS:
            raise ConfigError(f"dim is {self.dim}; it must be at most {_MOST_COLUMNS}.")
        check_value_type(self.value_type)
        if self.user_recipe == "shared" and self.recipe is None:
            raise ConfigError("user_recipe is 'shared', but there is no recipe to share; give one.")
        if (self.recipe is not None or self.user_recipe is not None) and self.layers:
            raise ConfigError("Propagation would fill in what a recipe prunes; set layers to 0 or leave out recipe.")


def _size_of(kept: Mask, value_type: str) -> int:
    return choose_layout(kept.to_elements(), value_type=value_type).nbytes
