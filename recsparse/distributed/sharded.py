"""The only file that imports torchrec: embedding tables spread over ranks, their shards, and the planner.

torchrec's ``EmbeddingCollection`` under ``DistributedModelParallel``: ids go out by all-to-all, vectors come back, and
in the backward pass gradients go out and are applied where the rows live by an optimiser fused into FBGEMM's kernel.
"""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

# torchrec tells of its deprecations and of our explicit topology on import and on use; none is for the user.
for _name in ("torchrec", "torch.fx._symbolic_trace"):
    logging.getLogger(_name).setLevel(logging.ERROR)

from torch.distributed.optim.apply_optimizer_in_backward import _apply_optimizer_in_backward  # noqa: E402
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor  # noqa: E402
from torchrec.distributed.embedding import EmbeddingCollectionSharder  # noqa: E402
from torchrec.distributed.model_parallel import DistributedModelParallel  # noqa: E402
from torchrec.distributed.planner import EmbeddingShardingPlanner, Topology  # noqa: E402
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation  # noqa: E402
from torchrec.distributed.planner.types import ParameterConstraints, PlannerError  # noqa: E402
from torchrec.distributed.types import (  # noqa: E402
    EmbeddingModuleShardingPlan,
    ParameterSharding,
    ShardingEnv,
    ShardingPlan,
)
from torchrec.optim import RowWiseAdagrad  # noqa: E402

from recsparse.distributed.config import COLUMN_WIDTH, Sharding  # noqa: E402
from recsparse.distributed.process import device  # noqa: E402

KINDS: dict[str, str] = {
    "row-wise": "row_wise", "table-wise": "table_wise", "column-wise": "column_wise", "data-parallel": "data_parallel",
}  # fmt: skip
OPTIMISERS = {"sgd": torch.optim.SGD, "adagrad": RowWiseAdagrad}
EPSILON = 1e-8
"""Added to the root of Adagrad's sums, as FBGEMM and :mod:`recsparse.kernels.sgd` do."""


@dataclass(frozen=True)
class TableSpec:
    """A table to shard: physical rows, columns and how. ``batch`` lookups a step are expected, for the planner."""

    name: str
    rows: int
    dim: int
    sharding: Sharding
    pooling: float = 1.0


@dataclass(frozen=True)
class Place:
    """Where a shard is: its first row and column, its size, and its rank (-1: a copy on every rank)."""

    row: int
    column: int
    rows: int
    columns: int
    rank: int


@dataclass
class Shard:
    """A shard of this rank.

    Attributes:
        table: its table's name.
        place: where it is in the table.
        weights: (rows, columns) float32; writing to it changes the table.
        state: (rows,) float32, row-wise Adagrad's sums; None for SGD.
        touched: rows (from 0, with repeats) that the last lookup asked of it.
    """

    table: str
    place: Place
    weights: Tensor
    state: Tensor | None
    touched: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))


class ShardedTables:
    """Embedding tables, each looked up by a feature of its own name.

    Attributes:
        places: all shards of all ranks, by table.
        shards: this rank's shards, by table.
        sharding: what was chosen, by table.
    """

    def __init__(self, specs: list[TableSpec], *, optimiser: str, learning_rate: float, batch_size: int) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self.world = dist.get_world_size()
        self._optimiser, self._learning_rate = optimiser, learning_rate
        chosen = _choose(specs, optimiser, learning_rate, batch_size, self.world)
        self.sharding: dict[str, str] = chosen
        self.places: dict[str, list[Place]] = {}
        self.shards: dict[str, list[Shard]] = {spec.name: [] for spec in specs}
        self._copies: list[tuple[Shard, torch.nn.Parameter]] = []
        together = [spec for spec in specs if chosen[spec.name] != "data-parallel"]
        groups = [group for group in (together, *([spec] for spec in specs if spec not in together)) if group]
        self._modules = [(group, self._shard(group, batch_size)) for group in groups]

    def lookup(self, ids: dict[str, Tensor]) -> dict[str, Tensor]:
        """Vectors (N, D) of physical rows (N,) of each table, for autograd; every rank must call it together."""
        found: dict[str, Tensor] = {}
        for group, module in self._modules:
            values = [ids[spec.name].to(device()) for spec in group]
            found.update(
                self._look_up_copy(group[0], module, values[0])
                if self.sharding[group[0].name] == "data-parallel"
                else self._look_up(group, module, values)
            )
        return found

    def _look_up(
        self, group: list[TableSpec], module: DistributedModelParallel, values: list[Tensor]
    ) -> dict[str, Tensor]:
        lengths = torch.tensor([len(each) for each in values], dtype=torch.int64, device=device())
        features = KeyedJaggedTensor([spec.name for spec in group], torch.cat(values), lengths=lengths)
        out = module(features)
        return {spec.name: out[spec.name].values() for spec in group}

    def _look_up_copy(self, spec: TableSpec, module: DistributedModelParallel, ids: Tensor) -> dict[str, Tensor]:
        # FBGEMM's dense kernel for CPU adds up the vectors of a bag even where none is asked for, so each id is a bag;
        # and there must be one.
        n = len(ids)
        ids = ids if n else ids.new_zeros(1)
        lengths = torch.ones(len(ids), dtype=torch.int64, device=device())
        out = module(KeyedJaggedTensor([spec.name], ids, lengths=lengths))
        return {spec.name: out[spec.name].values()[:n]}

    def descend(self, loss: Tensor) -> None:
        """Step all tables down the sum over ranks of ``loss``, by the optimiser fused into the backward pass."""
        with warnings.catch_warnings():
            # FBGEMM's dense kernel has its derivative, but not where torch now looks for it first.
            warnings.filterwarnings("ignore", "fbgemm::dense_embedding_codegen", UserWarning)
            (loss * self.world).backward()  # type: ignore[no-untyped-call]  # torchrec and DDP both divide by the number of ranks
        for shard, parameter in self._copies:
            if parameter.grad is None:
                continue
            gradient = parameter.grad.view_as(shard.weights)
            if shard.state is not None:
                shard.state += gradient.square().mean(dim=1)
                gradient = gradient / (shard.state.sqrt() + EPSILON)[:, None]
            shard.weights.sub_(gradient, alpha=self._learning_rate)
            parameter.grad = None

    def _shard(self, group: list[TableSpec], batch_size: int) -> DistributedModelParallel:
        collection = _collection(group, self.sharding, self._optimiser, self._learning_rate)
        if self.sharding[group[0].name] == "data-parallel":
            copy = ParameterSharding("data_parallel", "dense", list(range(self.world)))
            plan = ShardingPlan({"": EmbeddingModuleShardingPlan({group[0].name: copy})})
        else:
            plan = _planner(group, self.sharding, batch_size, self.world).collective_plan(
                collection, [EmbeddingCollectionSharder()], dist.GroupMember.WORLD
            )
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # torchrec's use of torch, not ours
            module = DistributedModelParallel(
                collection,
                env=ShardingEnv.from_process_group(dist.GroupMember.WORLD),
                device=device(),
                plan=plan,
                sharders=[EmbeddingCollectionSharder()],
            )
        self.places.update(_places(group, plan))
        self._find_shards(module)
        return module

    def _find_shards(self, module: DistributedModelParallel) -> None:
        rank = dist.get_rank()
        for kernel in _kernels(module):
            mine = []
            fused = hasattr(kernel.emb_module, "split_optimizer_states")
            states = kernel.emb_module.split_optimizer_states() if fused and self._optimiser == "adagrad" else None
            for number, (table, weights) in enumerate(
                zip(kernel.config.embedding_tables, kernel.emb_module.split_embedding_weights(), strict=True)
            ):
                start = [0, 0] if table.local_metadata is None else table.local_metadata.shard_offsets
                place = next(
                    place for place in self.places[table.name]
                    if [place.row, place.column] == list(start) and place.rank in (rank, -1)
                )  # fmt: skip
                state = None if states is None else states[number][0]
                mine.append(Shard(table.name, place, weights.detach(), state))
                self.shards[table.name].append(mine[-1])
                if not fused:
                    mine[-1].state = torch.zeros(place.rows) if self._optimiser == "adagrad" else None
                    self._copies.append((mine[-1], kernel.emb_module.weights))
            kernel.emb_module.register_forward_pre_hook(_note_touched(mine), with_kwargs=True)


def _extra(optimiser: str) -> dict[str, Any]:
    return {"eps": EPSILON} if optimiser == "adagrad" else {}


def _collection(
    specs: list[TableSpec], chosen: dict[str, str], optimiser: str, learning_rate: float
) -> EmbeddingCollection:
    collection = EmbeddingCollection(
        tables=[
            EmbeddingConfig(name=spec.name, num_embeddings=spec.rows, embedding_dim=spec.dim, feature_names=[spec.name])
            for spec in specs
        ],
        device=torch.device("meta"),
    )
    fused = [
        parameter
        for name, parameter in collection.named_parameters()
        if chosen.get(name.split(".")[1]) != "data-parallel"
    ]
    _apply_optimizer_in_backward(OPTIMISERS[optimiser], fused, {"lr": learning_rate, **_extra(optimiser)})
    return collection


def _planner(
    specs: list[TableSpec], chosen: dict[str, str], batch_size: int, world: int, topology: Topology | None = None
) -> EmbeddingShardingPlanner:
    constraints = {
        spec.name: ParameterConstraints(
            sharding_types=[KINDS[chosen[spec.name]]] if chosen[spec.name] in KINDS else ["row_wise", "table_wise"],
            compute_kernels=["dense" if chosen[spec.name] == "data-parallel" else "fused"],
            min_partition=COLUMN_WIDTH,
            pooling_factors=[spec.pooling],
        )
        for spec in specs
    }
    return EmbeddingShardingPlanner(
        topology=topology or Topology(world_size=world, compute_device=device().type),
        batch_size=max(1, batch_size // world),
        constraints=constraints,
        storage_reservation=FixedPercentageStorageReservation(0.0 if topology else 0.15),
        stats=[],
    )


def _choose(
    specs: list[TableSpec], optimiser: str, learning_rate: float, batch_size: int, world: int
) -> dict[str, str]:
    """Let the planner decide where nobody has."""
    chosen: dict[str, str] = {spec.name: spec.sharding for spec in specs}
    open_ = [spec for spec in specs if spec.sharding == "auto"]
    if open_:
        collection = _collection(open_, chosen, optimiser, learning_rate)
        plan = _planner(open_, chosen, batch_size, world).collective_plan(
            collection, [EmbeddingCollectionSharder()], dist.GroupMember.WORLD
        )
        names = {there: here for here, there in KINDS.items()}
        for module in plan.plan.values():
            chosen.update({name: names[sharding.sharding_type] for name, sharding in module.items()})
    return chosen


def _places(specs: list[TableSpec], plan: ShardingPlan) -> dict[str, list[Place]]:
    """All shards by table, in order of columns, then rows."""
    places = {}
    for module in plan.plan.values():
        for spec in specs:
            sharding = module[spec.name]
            if sharding.sharding_type == "data_parallel":
                places[spec.name] = [Place(0, 0, spec.rows, spec.dim, -1)]
            else:
                shards = sharding.sharding_spec.shards
                found = [_place(shard) for shard in shards]
                places[spec.name] = sorted(found, key=lambda place: (place.column, place.row))
    return places


def _place(shard: Any) -> Place:
    (row, column), (rows, columns) = shard.shard_offsets, shard.shard_sizes
    return Place(row, column, rows, columns, shard.placement.rank())


def _kernels(module: DistributedModelParallel) -> Iterator[Any]:
    for lookup in module.module._lookups:
        while isinstance(lookup, torch.nn.parallel.DistributedDataParallel):
            lookup = lookup.module  # noqa: PLW2901
        yield from lookup._emb_modules


def _note_touched(shards: list[Shard]) -> Any:
    """A hook that remembers which rows a kernel was asked for; a kernel's features are its tables, in order."""

    def hook(module: Any, args: Any, kwargs: dict[str, Tensor]) -> None:
        indices, offsets = kwargs["indices"].detach(), kwargs["offsets"]
        bags = (len(offsets) - 1) // len(shards)
        ends = offsets[:: max(1, bags)].tolist() if bags else [0] * (len(shards) + 1)
        for number, shard in enumerate(shards):
            shard.touched = indices[ends[number] : ends[number + 1]]

    return hook


@dataclass(frozen=True)
class Estimate:
    """What torchrec's planner expects of one shard: bytes of device memory and milliseconds a step."""

    table: str
    sharding: str
    place: Place
    nbytes: int
    milliseconds: float


def estimate(
    specs: list[TableSpec], *, world: int, device_kind: str, memory: int, optimiser: str, batch_size: int
) -> list[Estimate] | str:
    """Plan on paper: no process group, no memory, no device; or the planner's reason why it cannot.

    Args:
        specs: the tables.
        world: ranks.
        device_kind: "cuda" or "cpu".
        memory: bytes a device.
        optimiser: "sgd" or "adagrad".
        batch_size: samples a step over all ranks.
    """
    named = {f"table_{number}": spec.name for number, spec in enumerate(specs)}  # torch refuses names such as "items"
    specs = [replace(spec, name=name) for name, spec in zip(named, specs, strict=True)]
    chosen: dict[str, str] = {spec.name: spec.sharding for spec in specs}
    capacity = {"hbm_cap": memory} if device_kind == "cuda" else {"ddr_cap": memory}
    topology = Topology(world_size=world, compute_device=device_kind, **capacity)
    planner = _planner(specs, chosen, batch_size, world, topology)
    try:
        planner.plan(_collection(specs, chosen, optimiser, 0.1), [EmbeddingCollectionSharder()])
    except PlannerError as error:
        return str(error).splitlines()[0]
    names = {there: here for here, there in KINDS.items()}
    found = []
    for option in planner._best_plan:
        for shard in option.shards:
            (row, column), (rows, columns) = shard.offset, shard.size
            nbytes = shard.storage.hbm if device_kind == "cuda" else shard.storage.ddr
            place = Place(row, column, rows, columns, shard.rank)
            found.append(Estimate(named[option.name], names[option.sharding_type], place, nbytes, shard.perf.total))
    return found
