"""Would it fit on N devices, how, and at what cost: torchrec's planner with the sizes after sparsity, on paper.

While a table trains, pruned *rows* free memory and traffic; pruned *elements and blocks* do not, as the optimiser works
on dense rows: they cost a mask of one bit an entry more, and pay when the table is served. The plan says both.
"""

from dataclasses import MISSING, dataclass, field, fields, replace
from math import ceil, log2
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

from recsparse.distributed.config import Budget, Sharding, TrainConfig
from recsparse.distributed.require import require_torchrec
from recsparse.errors import BudgetError, ConfigError
from recsparse.sparsity import Recipe
from recsparse.validation import validate

LARGEST = 1 << 14
"""Devices up to which the smallest cluster is searched."""


@dataclass(frozen=True)
class PlannedTable:
    """A table before anything exists.

    Attributes:
        name: of the table.
        rows: ids, N.
        dim: D.
        sharding: "auto" lets the planner choose between row- and table-wise.
        lookups: rows a sample asks for.
        recipe: how it is pruned, by a density.
        budget: rows it must fit in, instead.
        hit: share of lookups that are of ids with a row; 1 claims no saving. (Popular ids keep their rows, so it is far
            above the share of rows kept.)
    """

    name: str
    rows: int
    dim: int
    sharding: Sharding = "auto"
    lookups: float = 1.0
    recipe: Recipe | None = None
    budget: Budget | None = None
    hit: float = 1.0

    @property
    def row_share(self) -> float:
        """Physical rows over ids."""
        if self.budget is not None:
            return min(1.0, self.budget.rows / self.rows)
        if self.recipe is not None and self.recipe.granularity.kind == "row":
            return self._density
        return 1.0

    @property
    def physical_rows(self) -> int:
        """Rows that are stored while it trains."""
        return max(1, round(self.rows * self.row_share))

    @property
    def remap_bytes(self) -> int:
        """Bytes of the remap, on every rank; 2 or 4 an id."""
        return 0 if self.row_share == 1.0 else self.rows * (2 if self.physical_rows < 1 << 15 else 4)

    @property
    def extra_bytes(self) -> int:
        """Bytes beside weights and optimiser, spread over ranks: masks, and pulls where a recipe goes by them."""
        if self.recipe is None or self.recipe.granularity.kind == "row":
            return 0
        pulled = self.recipe.schedule.kind == "dynamic" or self.recipe.criterion.kind in ("gradient", "saliency")
        return self.rows * self.dim * (5 if pulled else 1)  # a mask is a byte an entry in memory, a pull four

    @property
    def served_bytes(self) -> int:
        """Bytes of the packed table in float32: remap bitmap and rows, or the smaller of a bitmap and a CSR."""
        if self.row_share < 1.0:
            return ceil(self.rows * 1.0625 / 8) + self.physical_rows * self.dim * 4
        if self.recipe is None:
            return self.rows * self.dim * 4
        entries = self.rows * self.dim
        kept = round(entries * self._density)
        groups = self.recipe.granularity.group_shape((self.rows, self.dim))
        tiles = entries // (groups[0] * groups[1])
        columns = ceil(log2(max(2, self.dim)))
        return kept * 4 + min(ceil(tiles * 1.0625 / 8), ceil(kept * columns / 8) + self.rows)

    @property
    def _density(self) -> float:
        if self.recipe is None or self.recipe.density is None:
            raise ConfigError(f"The recipe of {self.name} has no density; a plan needs one.")
        return self.recipe.density


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
    sides = [("user_table", users, config.users, 1.0), ("item_table", items, config.items, 1.0 + config.n_negatives)]
    for name, rows, side in (
        ("user_feature_table", user_features, config.user_features),
        ("item_feature_table", item_features, config.item_features),
    ):
        if side is None:
            continue
        if not rows:
            raise ConfigError(f"{name} has no rows; say how many features there are, or leave them out.")
        sides.append((name, rows, side, rows / config.batch_size))  # each is asked for once a step, at most
    return [
        PlannedTable(name, rows, config.dim, side.sharding, lookups, side.recipe, side.budget)
        for name, rows, side, lookups in sides
    ]


@dataclass(frozen=True)
class Layout:
    """How tables lie on devices, or why they cannot.

    Attributes:
        fits: whether they do.
        reason: what does not fit.
        sharding: chosen, by table.
        bytes_per_device: of the fullest device, by the planner: weights, optimiser, buffers; and masks and remaps.
        weight_bytes: of all tables.
        milliseconds: of a step on the slowest device, by the planner's estimate.
        traffic: bytes a device sends a step.
        smallest: the fewest devices that fit, None if none up to 16,384 do.
        shards: (table, rank, first row, first column, rows, columns).
    """

    fits: bool
    reason: str = ""
    sharding: dict[str, str] = field(default_factory=dict)
    bytes_per_device: int = 0
    weight_bytes: int = 0
    milliseconds: float = 0.0
    traffic: float = 0.0
    smallest: int | None = None
    shards: tuple[tuple[str, int, int, int, int, int], ...] = ()


@dataclass(frozen=True)
class Plan:
    """Dense against sparse.

    Attributes:
        dense: the tables as they are.
        sparse: the tables after sparsity.
        served: bytes of the packed tables after sparsity, float32, by table.
        served_dense: the same of the tables as they are.
        remap_bytes: on every rank.
    """

    dense: Layout
    sparse: Layout
    served: dict[str, int]
    served_dense: dict[str, int]
    remap_bytes: int


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
    """
    require_torchrec()
    names = [table.name for table in tables]
    if not tables or len(set(names)) != len(names):
        raise ConfigError(f"The tables are {names}; a plan needs at least one, each of another name.")
    for table in tables:
        if table.dim % 4 or table.rows < 1:
            raise ConfigError(f"{table.name} is {table.rows} x {table.dim}; it needs rows and a dim in fours.")
    dense = [PlannedTable(t.name, t.rows, t.dim, t.sharding, t.lookups) for t in tables]
    settings = (device_memory, device, optimiser, batch_size)
    return Plan(
        _lay_out(dense, world_size, settings, search),
        _lay_out(tables, world_size, settings, search),
        {table.name: table.served_bytes for table in tables},
        {table.name: table.served_bytes for table in dense},
        sum(table.remap_bytes for table in tables),
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
    beside = sum(t.extra_bytes for t in tables) // world + sum(t.remap_bytes for t in tables)
    need = {t.name: t.physical_rows * (t.dim * 4 + (4 if optimiser == "adagrad" else 0)) for t in tables}
    if beside >= memory:
        return Layout(False, f"Masks and remaps alone take {beside:,} bytes of {memory:,} on each device.")
    specs = [TableSpec(t.name, t.physical_rows, t.dim, t.sharding, t.lookups) for t in tables]
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
    by_rank: dict[int, list[float]] = {}
    for each in found:
        total = by_rank.setdefault(each.place.rank, [0.0, 0.0])
        total[0] += each.nbytes
        total[1] += each.milliseconds
    sent = sum(t.lookups * t.hit * (8 + 2 * 4 * t.dim) for t in tables) * batch_size / world * (world - 1) / world
    return Layout(
        True,
        sharding={each.table: each.sharding for each in found},
        bytes_per_device=int(max(total[0] for total in by_rank.values())) + beside,
        weight_bytes=weights,
        milliseconds=max(total[1] for total in by_rank.values()),
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
