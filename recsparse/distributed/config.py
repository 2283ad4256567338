"""What a sharded training is told: data, loss, optimiser and, a table, how it is sharded and pruned."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from recsparse.sparsity import Recipe
from recsparse.validation import validate

Sharding = Literal["auto", "row-wise", "table-wise", "column-wise", "data-parallel"]
COLUMN_WIDTH = 4
"""Columns of a column-wise shard: FBGEMM's least. Fixed, so that a checkpoint fits any number of ranks."""


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Budget(_Settings):
    """A table of many ids in few rows: ids earn a row by utility and lose it when others deserve it more.

    Attributes:
        rows: physical rows R; ids without one take the fallback.
        utility: what an occurrence of an id adds to its utility: 1 (``frequency``), the norm of the loss's gradient by
            its vector (``gradient``) or the norm of its vector (``norm``).
        decay: what is left of a utility at the next update, in [0, 1].
        every: steps between updates of who owns a row.
        fallback: what ids without a row, and new owners, start from: a row of zeros or the mean of the stored rows.
    """

    rows: PositiveInt
    utility: Literal["frequency", "gradient", "norm"] = "frequency"
    decay: Annotated[float, Field(ge=0, le=1)] = 0.9
    every: PositiveInt = 100
    fallback: Literal["zero", "mean"] = "mean"


class TableSettings(_Settings):
    """One table.

    Attributes:
        sharding: how its rows are spread over ranks; ``auto`` leaves it to torchrec's planner.
        placement: which physical row an id has: its own number (``as-is``), or popular ids dealt evenly over the
            table (``balanced``), so that contiguous shards of any number of ranks are asked for equally often.
        recipe: how it is pruned while it trains.
        budget: rows it must fit in.
    """

    sharding: Sharding = "row-wise"
    placement: Literal["as-is", "balanced"] = "as-is"
    recipe: Recipe | None = None
    budget: Budget | None = None

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.budget is not None and self.placement == "balanced":
            raise ValueError("a row budget decides itself which row an id has; leave placement as-is")
        if self.recipe is not None and self.recipe.granularity.kind == "row" and self.sharding == "column-wise":
            raise ValueError("a column-wise shard has only part of a row; prune rows with another sharding or a budget")
        if self.recipe is not None and self.recipe.allocation.kind == "uniform" and self.sharding == "column-wise":
            raise ValueError("a column-wise shard has only part of a row; use allocation global or another sharding")
        if self.recipe is not None and self.budget is not None:
            raise ValueError("a table has a recipe or a row budget, not both")
        for part, known in (("schedule", ("oneshot", "gradual", "dynamic")), ("allocation", ("global", "uniform"))):
            if self.recipe is not None and (kind := getattr(self.recipe, part).kind) not in known:
                raise ValueError(f"{part} {kind} works on one machine; a sharded table knows {', '.join(known)}")
        if self.recipe is not None and self.recipe.criterion.kind == "loss-increase":
            raise ValueError("SGD has no least-squares curvature; use another criterion than loss-increase")
        return self

    @model_validator(mode="after")
    def _bytes_are_its_own(self) -> Self:
        if self.recipe is None or self.recipe.bytes is None:
            return self
        if self.sharding not in ("row-wise", "data-parallel") or self.placement != "as-is":
            raise ValueError(
                "a rank can tell what a budget in bytes buys only of the rows that it packs; use sharding row-wise or "
                "data-parallel with placement as-is, or give density"
            )
        if self.recipe.schedule.kind == "dynamic":
            raise ValueError("a dynamic schedule keeps a number of entries and exchanges them; give density, not bytes")
        return self


class TrainConfig(_Settings):
    """A sharded matrix factorisation.

    Attributes:
        data: a dataset directory, or a split directory, whose training part is learned from.
        output: the run's directory: checkpoints, metrics, packed tables.
        dim: columns of both tables; a multiple of 4, as FBGEMM demands.
        loss: ``bpr`` Σ log(1 + exp(s_j - s_i)); ``softmax`` (sampled) log Σ exp(s) - s_i; ``squared``
            ((1 - s_i)² + negative_weight Σ s_j²) / 2, over known pairs (u, i) and drawn items j. Each has
            reg / 2 (||u||² + ||i||² + Σ ||j||²) added a sample, and is summed, not averaged, over the batch:
            ``learning_rate`` is a sample's, whatever the batch.
        n_negatives: items drawn a known pair, uniformly among those the user does not have.
        negative_weight: of the squared loss.
        learning_rate: of the optimiser.
        reg: strength of the regularisation.
        optimiser: fused into the backward pass: ``sgd``, or ``adagrad`` with one sum of squares a row.
        epochs: passes over the interactions.
        batch_size: known pairs a step over all ranks.
        random_state: seed of everything random.
        init_std: initial standard deviation times sqrt(dim).
        streams: into how many equal parts the users are cut; ranks share them, so there must not be fewer. The same
            number gives the same batches at any number of ranks.
        users, items: the two tables of a row an id.
        user_features, item_features: tables of a row a feature. With one, the vector of an id is its row plus the sum
            of its features' rows, weighted to length 1 (:class:`recsparse.distributed.features.Features`); an id
            without interactions has no row and is what its features say. Such items are not drawn as negatives.
        checkpoint_every: steps between checkpoints; 0 for none but the last.
        keep: checkpoints kept.
        prune_every: steps between decisions of a recipe.
        metrics: measured on the split's validation users after each epoch; those not trained on are folded in.
        patience: stop after so many epochs without a better first metric and keep the best; None never stops.
        value_type: of the packed tables.
        threads: of each rank.
        timeout: seconds after which a rank that does not answer is given up.
    """

    data: Path
    output: Path
    dim: Annotated[int, Field(gt=0, multiple_of=COLUMN_WIDTH)] = 64
    loss: Literal["bpr", "softmax", "squared"] = "bpr"
    n_negatives: PositiveInt = 1
    negative_weight: PositiveFloat = 1.0
    learning_rate: PositiveFloat = 0.05
    reg: NonNegativeFloat = 0.01
    optimiser: Literal["sgd", "adagrad"] = "sgd"
    epochs: PositiveInt = 10
    batch_size: PositiveInt = 4096
    random_state: NonNegativeInt = 0
    init_std: PositiveFloat = 0.1
    streams: PositiveInt = 24
    users: TableSettings = TableSettings()
    items: TableSettings = TableSettings()
    user_features: TableSettings | None = None
    item_features: TableSettings | None = None
    checkpoint_every: NonNegativeInt = 0
    keep: PositiveInt = 2
    prune_every: PositiveInt = 50
    metrics: Annotated[tuple[str, ...], Field(min_length=1)] = ("ndcg@20", "recall@20")
    patience: PositiveInt | None = None
    value_type: str = "fp32"
    threads: PositiveInt = 1
    timeout: PositiveFloat = 300.0

    @model_validator(mode="after")
    def _recipes_end(self) -> Self:
        tables = (self.users, self.items, self.user_features, self.item_features)
        if self.patience is not None and any(table and table.recipe for table in tables):
            raise ValueError("a recipe has its budget at the last step; leave out patience or the recipe")
        return self

    @model_validator(mode="after")
    def _features_can_be_learned(self) -> Self:
        for name in ("user_features", "item_features"):
            table: TableSettings | None = getattr(self, name)
            if table is None:
                continue
            if self.optimiser != "adagrad":
                raise ValueError(
                    f"{name} need optimiser adagrad: a feature is in many samples of a batch, and sgd adds all up"
                )
            ids: TableSettings = getattr(self, name.replace("_features", "s"))
            if ids.recipe is not None and ids.recipe.bytes is not None:
                raise ValueError(
                    f"the packed table of {name.replace('_features', 's')} holds sums with {name}, so a recipe for it "
                    "cannot promise bytes; give density"
                )
            if table.budget is not None:
                raise ValueError(f"{name} have no ids that come and go; prune them by a recipe instead of a budget")
        return self

    @classmethod
    def parse(cls, settings: dict[str, Any], where: str = "train") -> Self:
        """Check plain data.

        Raises:
            ConfigError: a key is unknown or a value impossible; the message names it.
        """
        return validate(cls, settings, where)

    def digest(self) -> str:
        """Identify all settings but those that ranks may have each their own way; data has a digest of its own."""
        return _digest(self._told())

    def identity(self) -> str:
        """What makes a run's tables these tables: what :meth:`digest` tells apart, but for how they are sharded."""
        told = self._told()
        for table in ("users", "items", "user_features", "item_features"):
            if told[table] is not None:
                del told[table]["sharding"]
        return _digest(told)

    def _told(self) -> dict[str, Any]:
        return self.model_dump(
            mode="json", exclude={"data", "output", "keep", "checkpoint_every", "threads", "timeout"}
        )


def _digest(told: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
