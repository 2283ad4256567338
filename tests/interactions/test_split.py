"""Invariants of every protocol, on data made by hypothesis; and the exact numbers of the published ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.interactions import (
    Holdout,
    Interactions,
    Split,
    mult_vae,
    predefined,
    read_split,
    split,
    split_directory,
    write,
    write_split,
)
from recsparse.interactions.protocols import PROTOCOLS
from tests.interactions.known import as_dict, frame, tree

few = settings(max_examples=12)
Pairs = dict[tuple[object, object], tuple[float, int]]


@st.composite
def datasets(draw: Callable[..., object], *, coarse: bool = True) -> Interactions:
    lines = frame(
        draw(st.integers(300, 700)), draw(st.integers(20, 50)), draw(st.integers(15, 40)),
        seed=draw(st.integers(0, 10_000)), repeats=False,
    )  # fmt: skip
    if coarse and draw(st.booleans()):
        lines["timestamp"] = lines["timestamp"] // 200  # many equal times
    return Interactions.from_frame(lines, value="rating", time="timestamp")


def targets(parts: Split) -> tuple[Pairs, Pairs, Pairs]:
    return as_dict(parts.train), as_dict(parts.validation.target), as_dict(parts.test.target)


def all_parts(parts: Split) -> list[Pairs]:
    """The disjoint parts: training, both targets, and the histories of users that training does not have."""
    train, validation, test = targets(parts)
    known = set(parts.train.user_ids)
    given = [
        {pair: value for pair, value in as_dict(holdout.history).items() if pair[0] not in known and pair not in other}
        for holdout, other in ((parts.validation, {}), (parts.test, validation))
    ]
    return [train, validation, test, *given]


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
@few
@given(data=datasets(coarse=False), seed=st.integers(0, 5))
def test_the_parts_are_disjoint_and_their_union_is_the_input(protocol: str, data: Interactions, seed: int) -> None:
    options = {"validation": 0.3, "test": 0.3} if protocol == "random" else {}
    parts = split(data, protocol, seed=seed, **options)
    pieces = all_parts(parts)
    if protocol not in {"cold-users", "strong", "few-shot"}:
        # in weak protocols a user may be in the holdouts only: its history is then counted once, with the test
        pieces = [
            *pieces[:3],
            {p: v for piece in pieces[3:] for p, v in piece.items() if all(p not in x for x in pieces[:3])},
        ]
    together = [pair for piece in pieces for pair in piece]
    assert len(together) == len(set(together))
    assert {pair: value for piece in pieces for pair, value in piece.items()} == as_dict(data)
    for holdout in (parts.validation, parts.test):
        assert holdout.history.user_ids.tolist() == holdout.target.user_ids.tolist()
        assert holdout.history.items.equals(data.items)
        assert np.diff(holdout.target.matrix.indptr).min() >= 1
        assert not set(as_dict(holdout.history)) & set(as_dict(holdout.target))
    assert parts.report["test"]["repeated_pairs"] == parts.report["validation"]["repeated_pairs"] == 0


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_equal_seeds_give_equal_splits_and_other_seeds_others(protocol: str, timed: Interactions) -> None:
    assert targets(split(timed, protocol, seed=4)) == targets(split(timed, protocol, seed=4))
    if protocol not in {"time", "leave-last"}:
        assert targets(split(timed, protocol, seed=4)) != targets(split(timed, protocol, seed=5))


@few
@given(data=datasets(), seed=st.integers(0, 5))
def test_strong_generalisation_holds_out_users(data: Interactions, seed: int) -> None:
    parts = split(data, "strong", seed=seed, validation=3, test=0.2, target=0.3)
    train, validation, test = (set(each.user_ids) for each in (parts.train, parts.validation.target, parts.test.target))
    assert not train & validation
    assert not train & test
    assert not validation & test
    assert len(validation) == 3
    assert len(test) == int(0.2 * data.shape[0])
    for holdout in (parts.validation, parts.test):
        n_history, n_target = (np.diff(each.matrix.indptr) for each in (holdout.history, holdout.target))
        assert (n_target == np.maximum(np.floor(0.3 * (n_history + n_target) + 1e-9), 1)).all()
        assert n_history.min() >= 1
    assert parts.report["test"]["users_unseen"] == len(test)


@few
@given(data=datasets(), seed=st.integers(0, 5))
def test_the_cold_are_really_cold(data: Interactions, seed: int) -> None:
    users = split(data, "cold-users", seed=seed)
    assert users.validation.history.nnz == users.test.history.nnz == 0
    assert not set(users.train.user_ids) & (set(users.test.target.user_ids) | set(users.validation.target.user_ids))
    items = split(data, "cold-items", seed=seed, test=0.2)
    seen = set(items.train.matrix.indices)
    cold = set(items.test.target.matrix.indices)
    assert cold
    assert not cold & seen
    assert not cold & set(items.validation.target.matrix.indices)
    assert items.report["test"]["items_unseen"] == items.report["test"]["items"] == len(cold)
    assert not cold & set(items.test.history.matrix.indices)


@few
@given(data=datasets(), seed=st.integers(0, 5), shots=st.integers(1, 4))
def test_few_shot_gives_the_first_interactions(data: Interactions, seed: int, shots: int) -> None:
    parts = split(data, "few-shot", seed=seed, shots=shots, validation=2, test=3)
    for holdout in (parts.validation, parts.test):
        assert (np.diff(holdout.history.matrix.indptr) == shots).all()
        _time_order(holdout, strictly=False)


@few
@given(data=datasets(), seed=st.integers(0, 5), n=st.integers(1, 3))
def test_leave_last_keeps_the_order_of_time(data: Interactions, seed: int, n: int) -> None:
    parts = split(data, "leave-last", seed=seed, n=n)
    for holdout in (parts.validation, parts.test):
        assert (np.diff(holdout.target.matrix.indptr) == n).all()
        _time_order(holdout, strictly=False)
    assert parts.report["test"]["history_from_future"] == 0
    assert parts.validation.target.user_ids.tolist() == parts.test.target.user_ids.tolist()


@few
@given(data=datasets(coarse=False))
def test_a_moment_for_all_lets_nothing_of_the_future_through(data: Interactions) -> None:
    parts = split(data, "time", validation=0.2, test=0.2)
    assert parts.train.times is not None
    train, validation, test = (each.times for each in (parts.train, parts.validation.target, parts.test.target))
    assert train.max() < validation.min()
    assert validation.max() < test.min()
    for holdout in (parts.validation, parts.test):
        _time_order(holdout, strictly=True)
    assert parts.report["test"]["train_from_future"] == 0


def _time_order(holdout: Holdout, *, strictly: bool) -> None:
    history = holdout.history.to_frame().groupby("user_id")["time"].max()
    target = holdout.target.to_frame().groupby("user_id")["time"].min()
    both = history.index.intersection(target.index)
    gap = target[both] - history[both]
    assert (gap > 0).all() if strictly else (gap >= 0).all()


@few
@given(data=datasets(), seed=st.integers(0, 5))
def test_random_shares_are_exact_for_each_user(data: Interactions, seed: int) -> None:
    parts = split(data, "50-25-25", seed=seed)
    counts = pd.Series(np.diff(data.matrix.indptr), index=data.user_ids)
    held = parts.test.target.to_frame().groupby("user_id").size().reindex(counts.index, fill_value=0)
    both = held + parts.validation.target.to_frame().groupby("user_id").size().reindex(counts.index, fill_value=0)
    assert (held == counts // 4).all()
    assert (both == counts // 2).all()


def test_random_over_all_is_near_its_shares() -> None:
    data = Interactions.from_frame(frame(30_000, 400, 300, seed=2, repeats=False))
    parts = split(data, "random", validation=0.1, test=0.3, per="global")
    assert parts.test.target.nnz / data.nnz == pytest.approx(0.3, abs=0.01)
    assert parts.validation.target.nnz / data.nnz == pytest.approx(0.1, abs=0.01)


def test_a_user_keeps_its_fate_when_others_join(timed: Interactions) -> None:
    """Draws depend on the seed and the user, not on how many there are; only the quota moves the border."""
    few = timed.select_users(np.arange(40))
    order = [split(each, "strong", seed=1, validation=5, test=5) for each in (few, timed)]
    small = set(order[0].test.target.user_ids)
    large = set(order[1].test.target.user_ids) | set(order[1].validation.target.user_ids)
    assert len(large & set(few.user_ids)) > 0
    assert large & set(few.user_ids) <= small | set(order[0].validation.target.user_ids)


def test_the_draws_are_pinned() -> None:
    """The same on every machine and for ever: a changed number here changes everybody's splits."""
    data = Interactions.from_frame(frame(300, 20, 30, seed=1, repeats=False))
    parts = split(data, "strong", seed=0, validation=2, test=3)
    assert sorted(parts.test.target.user_ids.tolist()) == [59, 66, 101]
    assert sorted(parts.validation.target.user_ids.tolist()) == [10, 31]
    target = parts.test.target
    assert sorted(target.item_ids[target.matrix.indices].tolist()) == [27, 148, 148, 170, 236, 324]


def test_the_leakage_report_counts_what_is_there() -> None:
    def data(rows: list[tuple[int, int, int]]) -> Interactions:
        lines = pd.DataFrame(rows, columns=["user_id", "item_id", "time"])
        return Interactions.from_frame(lines, time="time")

    train = data([(1, 10, 5), (1, 11, 50), (2, 10, 7)])
    parts = predefined(train, data([(1, 12, 40)]), data([(3, 10, 9), (2, 13, 6), (2, 12, 60)]))
    assert parts.report["train"] == {"users": 2, "items": 4, "interactions": 3, "items_unseen": 2}
    assert parts.report["validation"] == {
        "users": 1, "history": 2, "target": 1, "users_unseen": 0, "items": 1, "items_unseen": 1, "target_unseen": 1,
        "repeated_pairs": 0, "train_from_future": 1, "history_from_future": 1,
    }  # fmt: skip
    assert parts.report["test"] == {
        "users": 2, "history": 1, "target": 3, "users_unseen": 1, "items": 3, "items_unseen": 2, "target_unseen": 2,
        "repeated_pairs": 0, "train_from_future": 2, "history_from_future": 1,
    }  # fmt: skip
    with pytest.raises(DataError, match="The pair user 1, item 10 is in 2 parts"):
        predefined(train, data([(1, 10, 40)]), data([(3, 10, 9)]))


def published_mult_vae(lines: pd.DataFrame, heldout: int) -> tuple[set[object], set[object], set[object]]:
    """The protocol once more, on a table, as the paper's data section tells it; gives the three disjoint targets."""
    lines = lines.sort_values(["user_id", "item_id"])
    users = np.sort(lines["user_id"].unique())
    np_random = np.random.RandomState(98765)
    users = users[np_random.permutation(len(users))]
    train = lines[lines["user_id"].isin(users[: len(users) - 2 * heldout])]
    found = [set(zip(train["user_id"], train["item_id"], strict=True))]
    for chosen in (users[len(users) - 2 * heldout : len(users) - heldout], users[len(users) - heldout :]):
        own = lines[lines["user_id"].isin(chosen) & lines["item_id"].isin(train["item_id"])]
        np_random = np.random.RandomState(98765)
        target = set()
        for user, items in own.groupby("user_id")["item_id"]:
            if len(items) >= 5:
                drawn = np_random.choice(len(items), size=int(0.2 * len(items)), replace=False)
                target |= {(user, item) for item in items.to_numpy()[drawn]}
        found.append(target)
    return found[0], found[1], found[2]


def test_mult_vae_draws_as_published() -> None:
    lines = frame(2000, 120, 90, seed=9, repeats=False).sample(frac=1, random_state=1)
    parts = mult_vae(Interactions.from_frame(lines), heldout=20)
    expected = published_mult_vae(lines, 20)
    assert tuple(set(each) for each in targets(parts)) == expected
    assert parts.train.shape[1] == len({item for _, item in expected[0]})
    with pytest.raises(DataError, match="cannot be held out"):
        mult_vae(Interactions.from_frame(lines), heldout=60)


def test_predefined_parts_join_by_id() -> None:
    lines = frame(400, 30, 25, seed=3, repeats=False)
    pieces = [Interactions.from_frame(lines[a:b], value="rating") for a, b in ((0, 200), (200, 260), (260, None))]
    parts = predefined(*pieces)
    assert [set(each) for each in targets(parts)] == [set(as_dict(each)) for each in pieces]
    assert as_dict(parts.test.target) == as_dict(pieces[2])


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
def test_streaming_gives_the_same_bytes(
    protocol: str, timed: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsparse.interactions.store.PART_ENTRIES", 300)
    monkeypatch.setattr("recsparse.interactions.store.GROUP_ENTRIES", 70)
    monkeypatch.setattr("recsparse.interactions.split_stream.BINS", 7)
    options = {"validation": 0.25, "test": 0.25} if protocol in {"random", "time"} else {}
    write_split(split(timed, protocol, seed=3, **options), tmp_path / "memory" / "s")
    write(timed, tmp_path / "d")
    told: list[int] = []
    split_directory(
        tmp_path / "d",
        tmp_path / "stream" / "s",
        protocol,
        seed=3,
        progress=lambda *each: told.append(each[1]),
        **options,
    )
    assert tree(tmp_path / "stream") == tree(tmp_path / "memory")
    assert len(tree(tmp_path / "stream")) > 21  # more than one part in some
    assert len(told) > 5
    assert told[-1] == timed.nnz


def test_a_failed_streamed_split_leaves_nothing(timed: Interactions, tmp_path: Path) -> None:
    write(timed, tmp_path / "d")
    with pytest.raises(DataError, match="part would be empty"):
        split_directory(tmp_path / "d", tmp_path / "s", "leave-last", n=1000)
    assert [file.name for file in tmp_path.iterdir()] == ["d"]


@pytest.mark.parametrize("protocol", ["strong", "time", "cold-users"])
def test_a_split_comes_back_from_disk_byte_for_byte(protocol: str, timed: Interactions, tmp_path: Path) -> None:
    parts = split(timed, protocol, seed=1)
    write_split(parts, tmp_path / "s")
    again = read_split(tmp_path / "s")
    assert again.about == parts.about
    assert again.report == parts.report
    assert targets(again) == targets(parts)
    assert as_dict(again.test.history) == as_dict(parts.test.history)
    assert again.test.target.items.equals(parts.test.target.items)
    (tmp_path / "again").mkdir()
    write_split(again, tmp_path / "again" / "s")
    assert tree(tmp_path / "s") == tree(tmp_path / "again" / "s")
    assert {str(p.relative_to(tmp_path / "s").parent) for p in (tmp_path / "s").rglob("dataset.json")} == {
        "train", "validation/history", "validation/target", "test/history", "test/target",
    }  # fmt: skip


def test_what_cannot_be_is_refused(timed: Interactions, tmp_path: Path) -> None:
    untimed = Interactions(timed.matrix, timed.users, timed.items)
    for error, says, data, protocol, options in (
        (ConfigError, "no protocol 'weak'; there are: 50-25-25, cold-items", timed, "weak", {}),
        (ConfigError, "has no option 'taget'; it has: validation, test, target, order", timed, "strong", {"taget": 1}),
        (ConfigError, r"target is 1\.5; it must be between 0 and 1", timed, "strong", {"target": 1.5}),
        (ConfigError, "must be a share below 1 or a whole number of users", timed, "strong", {"test": 2.5}),
        (ConfigError, r"validation \+ test is 1.2", timed, "random", {"validation": 0.6, "test": 0.6}),
        (ConfigError, "shots is 0", timed, "few-shot", {"shots": 0}),
        (ConfigError, "after the test", timed, "time", {"validation_from": 9, "test_from": 8}),
        (DataError, "cannot be held out", timed, "strong", {"test": 59}),
        (DataError, "have no times|have none", untimed, "time", {}),
        (DataError, "have no times|have none", untimed, "leave-last", {}),
        (DataError, "have no times|have none", untimed, "strong", {"order": "time"}),
        (DataError, "part would be empty", timed, "leave-last", {"n": 1000}),
    ):
        with pytest.raises(error, match=says):
            split(data, protocol, **options)
    with pytest.raises(FormatError, match=r"no split\.json"):
        read_split(tmp_path)
    write_split(split(timed, "strong"), tmp_path / "s")
    (tmp_path / "s" / "split.json").write_text('{"format_version": 7}')
    with pytest.raises(FormatError, match="version 7; this release reads 1"):
        read_split(tmp_path / "s")
