"""What is written comes back, in memory, streamed, as torch and as Arrow."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse as sp
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from recsparse.errors import ConfigError, FormatError
from recsparse.interactions import Interactions, read, row_groups, stream, to_arrow, to_torch, write
from recsparse.interactions.store import cut
from recsparse.interactions.torch_data import UserBatches
from tests.interactions.known import as_dict, tree


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut parts and row groups as large data would be cut."""
    monkeypatch.setattr("recsparse.interactions.store.PART_ENTRIES", 400)
    monkeypatch.setattr("recsparse.interactions.store.GROUP_ENTRIES", 100)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(0, 30), st.integers(1, 20)), seed=st.integers(0, 99), density=st.floats(0, 1),
    timed=st.booleans(), size=st.integers(1, 50),
)  # fmt: skip
def test_any_matrix_comes_back(
    shape: tuple[int, int], seed: int, density: float, timed: bool, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.random(shape) * (rng.random(shape) < density)
    data = Interactions.from_csr(sp.csr_array(dense))
    times = rng.integers(0, 2**40, data.nnz) if timed else None
    data = Interactions(data.matrix, data.users, data.items, times)
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("recsparse.interactions.store.PART_ENTRIES", 3 * size)
        patch.setattr("recsparse.interactions.store.GROUP_ENTRIES", size)
        write(data, folder / "d")
    again = read(folder / "d")
    assert again.shape == data.shape
    assert (again.matrix != data.matrix).nnz == 0
    assert (again.times is None) == (times is None)
    assert times is None or (again.times == times).all()
    assert sum(len(block) for block in stream(folder / "d")) == shape[0]


def test_users_without_interactions_and_stored_zeros_stay(tmp_path: Path) -> None:
    matrix = sp.csr_array((np.array([0.0, 2.0], dtype=np.float32), [1, 0], [0, 0, 2, 2]), shape=(3, 2))
    data = Interactions(matrix, pa.table({"user_id": ["a", "b", "c"]}), pa.table({"item_id": [1, 2]}))
    again = read(write(data, tmp_path / "d"))
    assert np.diff(again.matrix.indptr).tolist() == [0, 2, 0]
    assert again.matrix.data.tolist() == [0.0, 2.0]


def test_the_files_are_what_the_design_says(timed: Interactions, tmp_path: Path, small_groups: None) -> None:
    directory = write(timed, tmp_path / "d")
    part = pq.read_table(directory / "interactions" / "part-00000.parquet")
    assert str(part.schema.field("user").type) == "int64"
    assert [str(part.schema.field(name).type.value_type) for name in ("items", "values", "times")] == [
        "int32", "float", "int64",
    ]  # fmt: skip
    assert len(list((directory / "interactions").iterdir())) > 2
    assert [group.first for group in row_groups(directory)] == sorted(group.first for group in row_groups(directory))
    assert sum(group.users for group in row_groups(directory)) == timed.shape[0]
    assert tree(write(read(directory), tmp_path / "again" / "d")) == tree(directory)


def test_cuts_hold_beyond_two_to_the_31() -> None:
    indptr = np.arange(0, 6 * 2**30, 2**30, dtype=np.int64)
    assert list(cut(indptr, 2**31)) == [(0, 2), (2, 4), (4, 5)]


def test_arrow_and_torch_share_the_arrays(timed: Interactions) -> None:
    table = to_arrow(timed)
    assert table["items"].chunk(0).values.buffers()[1].address == timed.matrix.indices.ctypes.data
    assert table["values"].chunk(0).values.buffers()[1].address == timed.matrix.data.ctypes.data
    assert table["times"][3].as_py() == timed.times[timed.matrix.indptr[3] : timed.matrix.indptr[4]].tolist()
    tensor = to_torch(timed)
    assert tensor.values().data_ptr() == timed.matrix.data.ctypes.data
    assert tensor.col_indices().data_ptr() == timed.matrix.indices.ctypes.data
    assert (tensor.to_dense().numpy() == timed.matrix.toarray()).all()


def collected(batches: object) -> tuple[list[int], dict[tuple[int, int], float]]:
    users, pairs = [], {}
    for batch in batches:
        users += batch["users"].tolist()
        for place, user in enumerate(batch["users"].tolist()):
            own = slice(int(batch["offsets"][place]), int(batch["offsets"][place + 1]))
            pairs |= {
                (user, i): v for i, v in zip(batch["items"][own].tolist(), batch["values"][own].tolist(), strict=True)
            }
            assert len(batch["times"][own]) == own.stop - own.start
    return users, pairs


@pytest.mark.parametrize("world_size", [1, 2, 3, 7])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_share_the_users_out(
    world_size: int, shuffle: bool, timed: Interactions, tmp_path: Path, small_groups: None
) -> None:
    directory = write(timed, tmp_path / "d")
    shards = [
        collected(UserBatches(directory, batch_users=8, shuffle=shuffle, seed=1, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    users = Counter(user for shard, _ in shards for user in shard)
    assert users == Counter(range(timed.shape[0]))
    assert max(len(shard) for shard, _ in shards) - min(len(shard) for shard, _ in shards) <= 1
    together = {(timed.user_ids[u], timed.item_ids[i]): v for _, pairs in shards for (u, i), v in pairs.items()}
    assert together == {pair: value for pair, (value, _) in as_dict(timed).items()}


def test_the_order_follows_seed_and_epoch(timed: Interactions, tmp_path: Path, small_groups: None) -> None:
    directory = write(timed, tmp_path / "d")

    def order(seed: int, epoch: int) -> list[int]:
        batches = UserBatches(directory, shuffle=True, seed=seed)
        batches.set_epoch(epoch)
        return collected(batches)[0]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(1, 0)), tuple(order(1, 1)), tuple(order(2, 0)), tuple(range(timed.shape[0]))}) == 4


def test_workers_of_a_loader_share_the_users_out(timed: Interactions, tmp_path: Path, small_groups: None) -> None:
    directory = write(timed, tmp_path / "d")
    loader = DataLoader(UserBatches(directory, batch_users=5), batch_size=None, num_workers=2)
    users = torch.cat([batch["users"] for batch in loader])
    assert sorted(users.tolist()) == list(range(timed.shape[0]))


def test_only_the_row_groups_of_a_rank_are_read(
    timed: Interactions, tmp_path: Path, small_groups: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = write(timed, tmp_path / "d")
    opened: list[int] = []
    from recsparse.interactions import torch_data

    read_group = torch_data.read_group
    monkeypatch.setattr(torch_data, "read_group", lambda group: opened.append(group.first) or read_group(group))
    list(UserBatches(directory, rank=0, world_size=4))
    assert 0 < len(opened) < len(row_groups(directory)) / 2


def test_impossible_readers_are_refused(timed: Interactions, tmp_path: Path) -> None:
    directory = write(timed, tmp_path / "d")
    with pytest.raises(ConfigError, match="rank is 2 of 2"):
        UserBatches(directory, rank=2, world_size=2)
    with pytest.raises(ConfigError, match="batch_users is 0"):
        UserBatches(directory, batch_users=0)
    (directory / "interactions" / "part-00000.parquet").unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        list(stream(directory))
