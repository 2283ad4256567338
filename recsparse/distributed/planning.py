"""Would it fit on N devices, how, and at what cost: torchrec's planner with the sizes after sparsity, on paper.

While a table trains, only a *row budget* frees memory. A *recipe*, of rows too, has the optimiser work on dense rows
until the table is exported: it costs a mask of a byte an entry more, and pays when the table is served. Both are said.
"""

from bisect import bisect_right
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cached_property
from math import ceil
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, create_model

from recsparse.distributed.config import Budget, Sharding, TrainConfig
from recsparse.distributed.require import require_torchrec
from recsparse.errors import BudgetError, ConfigError
from recsparse.sparsity import Evidence, Recipe
from recsparse.tables import Mask, choose_layout
from recsparse.tables.values import check_value_type, code_bytes, is_integer
from recsparse.validation import validate

LARGEST = 1 << 14
"""Devices up to which the smallest cluster is searched."""

SAMPLE = 1 << 18
"""Entries of the rows of random numbers that a recipe is tried on, to tell what its packed table takes."""


@dataclass(frozen=True)
class PlannedTable:
    """A table before anything exists.

    Attributes:
        name: of the table.
        rows: ids, N.
        dim: D.
        sharding: "auto" lets the planner choose between row- and table-wise.
        lookups: rows a sample asks for.
        once: each rank asks for every row once a step instead, as for features; that is the most it can be.
        summed: its ids have features; what is served are the sums, which no sparsity of its own makes fewer.
        placement: "balanced" ids need a remap.
        recipe: how it is pruned.
        budget: rows it must fit in, instead.
        hit: share of lookups that are of ids with a row; 1 claims no saving. (Popular ids keep their rows, so it is far
            above the share of rows kept.)
        value_type: of the packed table.
    """

    name: str
    rows: int
    dim: int
    sharding: Sharding = "auto"
    lookups: float = 1.0
    once: bool = False
    summed: bool = False
    placement: Literal["as-is", "balanced"] = "as-is"
    recipe: Recipe | None = None
    budget: Budget | None = None
    hit: float = 1.0
    value_type: str = "fp32"

    @property
    def physical_rows(self) -> int:
        """Rows that are held while it trains: a row recipe holds all until it is exported."""
        return self.rows if self.budget is None else min(self.rows, self.budget.rows)

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry while it trains: 4, with a recipe 1 of the mask, and 4 where it goes by pulls."""
        if self.recipe is None:
            return 4
        pulled = self.recipe.schedule.kind == "dynamic" or self.recipe.criterion.kind in ("gradient", "saliency")
        return 9 if pulled else 5

    @property
    def copied_bytes(self) -> int:
        """Bytes on every rank: the remap, 2 or 4 an id, and 16 an id of the utilities of a row budget.

        A recipe needs the remap from when a row of which nothing is left is there; one that is not dynamic is counted.
        """
        pruned = self.recipe is not None and self.recipe.schedule.kind != "dynamic"
        remapped = pruned or self.budget is not None or self.placement == "balanced"
        remap = 2 if self.physical_rows < 1 << 15 else 4
        return self.rows * (remap * remapped + 16 * (self.budget is not None))

    def asked(self, batch_size: int, world: int) -> float:
        """Rows asked for a step, over all ranks."""
        return float(self.rows * world) if self.once else self.lookups * batch_size

    @property
    def served_bytes(self) -> int:
        """Bytes of the packed table, without the paddings of its files.

        Whole rows by arithmetic; entries and blocks by what the recipe leaves of rows of random numbers, which is
        spread more evenly than in a trained table.

        Raises:
            BudgetError: a recipe's bytes do not buy one group.
        """
        if self.summed:
            return self._rows_bytes(self.rows)
        if self.recipe is None or self.recipe.granularity.kind == "row":
            return self._rows_bytes(self.physical_rows if self.recipe is None else self._rows_kept(self.recipe))
        return self._sampled_bytes

    @cached_property
    def _sampled_bytes(self) -> int:
        recipe: Recipe = self.recipe  # type: ignore[assignment]
        r, c = recipe.granularity.group_shape((self.rows, self.dim))
        if self.rows % r or self.dim % c:
            raise ConfigError(f"Blocks of {r} x {c} do not tile {self.name}, {self.rows} x {self.dim}.")
        n = min(self.rows, max(1, SAMPLE // self.dim // r) * r)
        rng = np.random.default_rng(0)
        values, counts = rng.standard_normal((n, self.dim), dtype=np.float32), rng.random(n)
        evidence = Evidence(values, counts, lambda: values, lambda: values)

        def size_of(kept: Mask) -> int:
            return round(choose_layout(kept.to_elements(), value_type=self.value_type).nbytes * self.rows / n)

        density = recipe.affordable(evidence, size_of) if recipe.density is None else recipe.density
        return size_of(recipe.keep(evidence, density))

    def _rows_kept(self, recipe: Recipe) -> int:
        if recipe.density is not None:
            return recipe.budget(recipe.density, self.rows)
        most = recipe.bytes or 0
        kept = bisect_right(range(1, self.rows + 1), most, key=self._rows_bytes)
        if not kept:
            raise BudgetError(
                f"A budget of {most:,} bytes is too small for {self.name}: it takes {self._rows_bytes(1):,} "
                f"bytes with one row and {self._rows_bytes(self.rows):,} with all."
            )
        return kept

    def _rows_bytes(self, rows: int) -> int:
        """Whole rows: the numbers, their scales, and a bitmap of which are there."""
        remap = ceil(self.rows * 1.0625 / 8) if rows < self.rows else 0
        scales = rows if is_integer(self.value_type) else 0
        return remap + code_bytes(self.value_type, rows * self.dim) + scales


_FORBID = ConfigDict(extra="forbid")
_FIELDS: dict[str, Any] = {
    each.name: (each.type, ... if each.default is MISSING else each.default) for each in fields(PlannedTable)
}
_Table: type[BaseModel] = create_model("_Table", __config__=_FORBID, **_FIELDS)
_TablesFile: type[BaseModel] = create_model("_TablesFile", __config__=_FORBID, tables=(list[_Table], ...))  # type: ignore[valid-type]


def read_tables(document: dict[str, Any], where: str) -> list[PlannedTable]:
    """Check the plain data of tables: ``{"tables": [{"name": "users", "rows": 1000000, "dim": 64}, ...]}``.

    Raises:
        ConfigError: a key is unknown or missing, or a value impossible; the message names it.
    """
    found: Any = validate(_TablesFile, document, where)
    return [PlannedTable(**{name: getattr(each, name) for name in _FIELDS}) for each in found.tables]


def planned_tables(
    config: TrainConfig, users: int, items: int, user_features: int = 0, item_features: int = 0
) -> list[PlannedTable]:
    """The tables that ``config`` trains on so many users and items, and features where it learns from them.

    Raises:
        ConfigError: it learns from features and their number is not given.
    """
    tables = []
    for name, rows, side, lookups, features, feature_side in (
        ("user", users, config.users, 1.0, user_features, config.user_features),
        ("item", items, config.items, 1.0 + config.n_negatives, item_features, config.item_features),
    ):
        ids = PlannedTable(
            f"{name}_table", rows, config.dim, side.sharding, lookups, summed=feature_side is not None,
            placement=side.placement, recipe=side.recipe, budget=side.budget, value_type=config.value_type,
        )  # fmt: skip
        tables.append(ids)
        if feature_side is None:
            continue
        if not features:
            raise ConfigError(
                f"{name}_feature_table has no rows; say how many features there are, or leave {name}_features out."
            )
        tables.append(
            PlannedTable(
                f"{name}_feature_table",
                features,
                config.dim,
                feature_side.sharding,
                once=True,
                placement=feature_side.placement,
                recipe=feature_side.recipe,
                value_type=config.value_type,
            )
        )
    return tables


@dataclass(frozen=True)
class Layout:
    """How tables lie on devices, or why they cannot.

    Attributes:
        fits: whether they do.
        reason: what does not fit.
        sharding: chosen, by table.
        bytes_per_device: of the fullest device while it trains: what it holds and, by the planner, buffers.
        held: of each device: weights, optimiser, masks, pulls, remaps and utilities; empty where it does not fit.
        weight_bytes: of all tables while they train.
        milliseconds: of a step on the slowest device, by the planner's estimate.
        traffic: bytes a device sends a step.
        smallest: the fewest devices that fit, None if none up to 16,384 do.
        shards: (table, rank, first row, first column, rows, columns).
    """

    fits: bool
    reason: str = ""
    sharding: dict[str, str] = field(default_factory=dict)
    bytes_per_device: int = 0
    held: tuple[int, ...] = ()
    weight_bytes: int = 0
    milliseconds: float = 0.0
    traffic: float = 0.0
    smallest: int | None = None
    shards: tuple[tuple[str, int, int, int, int, int], ...] = ()


@dataclass(frozen=True)
class Plan:
    """Dense against sparse.

    Attributes:
        dense: the tables as they are, in training.
        sparse: the tables with their recipes and budgets, in training.
        served: bytes of the packed tables after sparsity, by table.
        served_dense: the same of the tables as they are.
        copied_bytes: of ``sparse`` on every rank: remaps and utilities.
    """

    dense: Layout
    sparse: Layout
    served: dict[str, int]
    served_dense: dict[str, int]
    copied_bytes: int


def plan(
    tables: list[PlannedTable], *, world_size: int, device_memory: int, device: Literal["cuda", "cpu"] = "cuda",
    optimiser: Literal["sgd", "adagrad"] = "adagrad", batch_size: int = 65536, search: bool = True,
) -> Plan:  # fmt: skip
    """Plan tables on devices, dense and after sparsity.

    Args:
        tables: what is to be trained.
        world_size: devices.
        device_memory: bytes of each.
        device: their kind.
        optimiser: adds 4 bytes a row for row-wise Adagrad.
        batch_size: samples a step, over all devices.
        search: look for the smallest cluster that fits each as well.

    Raises:
        ConfigError: no tables, two of one name, a dim that is not a multiple of 4, or no torchrec.
        BudgetError: a recipe's bytes do not buy one group of its table.
    """
    require_torchrec()
    names = [table.name for table in tables]
    if not tables or len(set(names)) != len(names):
        raise ConfigError(f"The tables are {names}; a plan needs at least one, each of another name.")
    for table in tables:
        if table.dim % 4 or table.rows < 1:
            raise ConfigError(f"{table.name} is {table.rows} x {table.dim}; it needs rows and a dim in fours.")
        check_value_type(table.value_type)
    dense = [replace(table, recipe=None, budget=None, hit=1.0) for table in tables]
    settings = (device_memory, device, optimiser, batch_size)
    return Plan(
        _lay_out(dense, world_size, settings, search),
        _lay_out(tables, world_size, settings, search),
        {table.name: table.served_bytes for table in tables},
        {table.name: table.served_bytes for table in dense},
        sum(table.copied_bytes for table in tables),
    )


_Settings = tuple[int, str, str, int]


def _lay_out(tables: list[PlannedTable], world: int, settings: _Settings, search: bool) -> Layout:
    layout = _try(tables, world, settings)
    if not search:
        return layout
    return replace(layout, smallest=_smallest(tables, settings))


def _try(tables: list[PlannedTable], world: int, settings: _Settings) -> Layout:
    from recsparse.distributed.sharded import TableSpec, estimate  # noqa: PLC0415 (torchrec takes seconds)

    memory, device, optimiser, batch_size = settings
    state = 4 if optimiser == "adagrad" else 0
    copied = sum(t.copied_bytes for t in tables)
    # What the planner does not know of; it has no way to count it where it puts a shard, so it is spread evenly first.
    beside = copied + sum(
        t.physical_rows * t.dim * (t.entry_bytes - 4) // (1 if t.sharding == "data-parallel" else world) for t in tables
    )
    need = {t.name: t.physical_rows * (t.dim * 4 + state) for t in tables}
    if beside >= memory:
        return Layout(False, f"Masks, remaps and utilities alone take {beside:,} bytes of {memory:,} on each device.")
    specs = [
        TableSpec(t.name, t.physical_rows, t.dim, t.sharding, t.asked(batch_size, world) / batch_size) for t in tables
    ]
    found = estimate(
        specs, world=world, device_kind=device, memory=memory - beside, optimiser=optimiser, batch_size=batch_size
    )
    weights = sum(t.physical_rows * t.dim * 4 for t in tables)
    if isinstance(found, str):
        largest = max(need, key=lambda name: need[name])
        return Layout(
            False,
            f"{sum(need.values()):,} bytes of weights and optimiser ({largest} alone {need[largest]:,}), and "
            f"{beside:,} bytes a device beside, do not fit {world} devices of {memory:,} bytes.",
            weight_bytes=weights,
        )
    if missing := {t.name for t in tables} - {each.table for each in found}:
        raise BudgetError(f"The planner left out {', '.join(sorted(missing))}; this must not happen, please report it.")
    by_name = {t.name: t for t in tables}
    held, planned, took = [copied] * world, [copied] * world, [0.0] * world
    for each in found:
        entries, entry = each.place.rows * each.place.columns, by_name[each.table].entry_bytes
        held[each.place.rank] += entries * entry + each.place.rows * state
        planned[each.place.rank] += each.nbytes + entries * (entry - 4)
        took[each.place.rank] += each.milliseconds
    if max(planned) > memory:
        return Layout(
            False,
            f"The fullest of {world} devices would hold {max(planned):,} bytes of {memory:,}, as masks are where their "
            "shards are; shard the tables with recipes row-wise.",
            weight_bytes=weights,
        )
    sent = sum(t.asked(batch_size, world) * t.hit * (8 + 2 * 4 * t.dim) for t in tables) / world * (world - 1) / world
    return Layout(
        True,
        sharding={each.table: each.sharding for each in found},
        bytes_per_device=max(planned),
        held=tuple(held),
        weight_bytes=weights,
        milliseconds=max(took),
        traffic=sent,
        shards=tuple(
            (each.table, each.place.rank, each.place.row, each.place.column, each.place.rows, each.place.columns)
            for each in found
        ),
    )


def _smallest(tables: list[PlannedTable], settings: _Settings) -> int | None:
    """The fewest devices that fit, by doubling, then halving the gap."""
    high = 1
    while high <= LARGEST and not _try(tables, high, settings).fits:
        high *= 2
    if high > LARGEST:
        return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _try(tables, middle, settings).fits else (middle, high)
    return high
