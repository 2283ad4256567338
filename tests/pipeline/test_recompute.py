"""Every accuracy figure, interval, group, comparison and size of a report, again from the files beside it.

Only pandas, NumPy, SciPy and safetensors: of recsparse nothing but what makes the runs is imported.
"""

import json

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from scipy import stats

from recsparse.config import RunConfig
from recsparse.pipeline import Run

USER, ITEM = "user_id", "item_id"


def values_of(frame, metric, keep=None):
    """A value a user: the mean over the places that a target shares with its ties; NaN where there is no target."""
    name, k = metric.split("@")
    discounts = np.where(np.arange(1, 10_000) <= int(k), 1 / np.log2(np.arange(1, 10_000) + 1), 0)
    found = []
    for every, tied, items in zip(frame["ranks"], frame["ties"], frame["targets"], strict=True):
        kept = [(r, n) for r, n, item in zip(every, tied, items, strict=True) if keep is None or item in keep]
        if not kept:
            found.append(np.nan)
        elif name == "recall":
            found.append(np.mean([np.mean([place <= int(k) for place in range(r, r + n)]) for r, n in kept]))
        else:
            reached = sum(discounts[r - 1 : r - 1 + n].mean() for r, n in kept)
            found.append(reached / discounts[: min(len(kept), int(k))].sum())
    return np.array(found)


def interval(values, draws=1000):
    """Percentile bootstrap over users, seed 0."""
    drawn = values[np.random.default_rng(0).integers(0, len(values), size=(draws, len(values)))]
    with np.errstate(invalid="ignore"):
        means = np.nanmean(drawn, axis=1)
    return np.nanquantile(means, [0.025, 0.975])


def check(measured, values, where):
    assert measured["mean"] == pytest.approx(np.nanmean(values), abs=1e-12), where
    assert [measured["low"], measured["high"]] == pytest.approx(interval(values), abs=1e-12), where
    assert measured["users"] == (~np.isnan(values)).sum(), where
    assert measured["without"] == np.isnan(values).sum(), where


def slug(row):
    return row["label"].lower().replace(" ", "-").replace("%", "")


@pytest.fixture(scope="module")
def per_user(finished, results):
    """Label -> file -> the lines of its users."""
    return {
        row["label"]: {
            file.stem: pd.read_parquet(file)
            for folder in ("evaluations", "models")
            for file in (finished / folder / slug(row)).glob("*.parquet")
            if "ranks" in pd.read_parquet(file).columns
        }
        for row in results["rows"]
    }


def test_accuracy_on_test_and_validation_users_and_by_history_length(results, per_user):
    for row in results["rows"]:
        files = per_user[row["label"]]
        for metric in row["metrics"]:
            check(row["metrics"][metric], values_of(files["test"], metric), (row["label"], metric))
            check(row["validation"][metric], values_of(files["validation"], metric), (row["label"], metric))
        assert {point["history"] for point in row["few_shot"]} == {1, 2, 3, 5, 10}
        for point in row["few_shot"]:
            frame = files[f"history-{point['history']}"]
            for metric, measured in point["metrics"].items():
                check(measured, values_of(frame, metric), (row["label"], point["history"]))


def test_popularity_groups_of_items_and_activity_groups_of_users(finished, results, per_user):
    items = pd.read_parquet(finished / "data/items.parquet")[ITEM]
    counts = pd.read_parquet(finished / "audit/train.parquet").groupby(ITEM).size().reindex(items, fill_value=0)
    falling = counts.sort_values(ascending=False, kind="stable")
    before = falling.cumsum() - falling
    third = counts.sum() / 3
    groups = {
        "head": falling.index[before < third],
        "torso": falling.index[(before >= third) & (before < 2 * third)],
        "tail": falling.index[(before >= 2 * third) & (falling > 0)],
    }
    for row in results["rows"]:
        frame = per_user[row["label"]]["test"]
        assert set(row["item_groups"]) - {"unseen"} == set(groups)
        for name, members in groups.items():
            for metric, measured in row["item_groups"][name].items():
                check(measured, values_of(frame, metric, set(members)), (row["label"], name, metric))
        low, high = frame["history"].quantile([1 / 3, 2 / 3])
        length = frame["history"]
        users = {"light": length <= low, "medium": (length > low) & (length <= high), "heavy": length > high}
        for name, measured in row["user_groups"].items():
            for metric, figure in measured.items():
                check(figure, values_of(frame, metric)[users[name].to_numpy()], (row["label"], name, metric))


def test_comparisons_user_by_user(results, per_user):
    headline = results["headline"]
    p = []
    for one in results["comparisons"]:
        a, b = (values_of(per_user[label]["test"], headline) for label in (one["a"], one["b"]))
        gap = a - b
        assert [one["mean_a"], one["mean_b"]] == pytest.approx([a.mean(), b.mean()], abs=1e-12)
        assert one["difference"] == pytest.approx(gap.mean(), abs=1e-12)
        assert [one["low"], one["high"]] == pytest.approx(interval(gap), abs=1e-12)
        assert (one["wins"], one["losses"]) == ((gap > 1e-15).sum(), (gap < -1e-15).sum())
        p.append(stats.ttest_rel(a, b).pvalue if gap.any() else 1.0)
        assert one["p_t"] == pytest.approx(p[-1], rel=1e-6)
        ranked = np.where(abs(gap) > 1e-15, gap, 0)
        assert one["p_wilcoxon"] == pytest.approx(stats.wilcoxon(ranked).pvalue if gap.any() else 1.0, rel=1e-6)
    order, worst = np.argsort(p), 0.0
    for place, at in enumerate(order):
        worst = max(worst, min(1.0, p[at] * (len(p) - place)))
        assert results["comparisons"][at]["p_holm"] == pytest.approx(worst, rel=1e-6)


def _sums(sizes):
    """What one or several of the tensors take together."""
    found = {0}
    for size in sizes:
        found |= {size + other for other in found}
    return found


def test_bytes_and_what_is_kept(finished, results):
    for row in results["rows"]:
        file = finished / "models" / slug(row) / "item_table.safetensors"
        if not file.exists():
            assert row["bytes_total"] is None
            continue
        tensors = load_file(file)
        assert row["bytes_total"] == sum(tensor.nbytes for tensor in tensors.values())
        assert row["bytes_total"] == sum(row["breakdown"].values())
        assert set(row["breakdown"].values()) <= _sums(tensor.nbytes for tensor in tensors.values())
        assert row["cost"]["file_bytes"] == file.stat().st_size
        assert row["bytes_per_item"] == row["bytes_total"] / results["dataset"]["items"]


def test_lists_of_the_shipped_row(finished, results, shipped):
    lists = pd.read_parquet(finished / "audit/recommendations.parquet")
    lists = lists[lists["rank"] <= 20]
    n_items = results["dataset"]["items"]
    shown = lists.groupby(ITEM).size()
    share = shown / shown.sum()
    assert shipped["beyond"]["coverage@20"] == len(shown) / n_items
    assert shipped["beyond"]["entropy@20"] == pytest.approx(-(share * np.log(share)).sum() / np.log(n_items))
    train = pd.read_parquet(finished / "audit/train.parquet")
    counts = train.groupby(ITEM).size()
    surprise = -np.log2((lists[ITEM].map(counts).fillna(0) + 1) / (train[USER].nunique() + 1))
    assert shipped["beyond"]["novelty@20"] == pytest.approx(surprise.groupby(lists[USER]).mean().mean())


def test_counts(finished, results):
    data, split = results["dataset"], results["split"]
    parts = {part: pd.read_parquet(finished / f"audit/{part}.parquet") for part in ("train", "history", "target")}
    assert data["items"] == len(pd.read_parquet(finished / "data/items.parquet"))
    assert data["users"] == len(pd.read_parquet(finished / "data/users.parquet"))
    assert split["train_users"] == parts["train"][USER].nunique()
    assert split["test_users"] == parts["target"][USER].nunique()
    info = json.loads((finished / "data/dataset.json").read_text())
    assert data["interactions"] == info["counts"]["interactions"]


USERS, ITEMS = 100, 60
METRIC = "ndcg@10"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Files with features of users and items."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    likes = np.arange(USERS)[:, None] % 3 == np.arange(ITEMS)[None, :] % 3
    often = np.linspace(1.6, 0.4, ITEMS)
    user, item = np.nonzero(rng.random(likes.shape) < np.where(likes, 0.5, 0.1) * often)
    pd.DataFrame({USER: user, ITEM: item}).to_csv(folder / "ratings.csv", index=False)
    pd.DataFrame({USER: range(USERS), "town": [f"t{u % 3}" for u in range(USERS)]}).to_csv(
        folder / "users.csv", index=False
    )
    genres = pd.DataFrame({ITEM: range(ITEMS), "genre": [f"g{i % 3}" for i in range(ITEMS)]})
    genres["mood"] = np.where(np.arange(ITEMS) % 2, "glad", "sad")
    genres.to_csv(folder / "items.csv", index=False)
    return {
        "ratings": {"path": str(folder / "ratings.csv")},
        "users": {"path": str(folder / "users.csv"), "id": USER, "columns": {"town": "town"}},
        "items": {"path": str(folder / "items.csv"), "id": ITEM, "columns": {"genre": "genre", "mood": "mood"}},
    }


def run_of(source, directory, split, evaluation, models):
    document = {"name": "rich", "data": {"source": source}, "split": split, "models": models}
    document["evaluation"] = {"metrics": [METRIC, "recall@10"], "headline": METRIC, **evaluation}
    Run(RunConfig.model_validate(document), directory=directory)()
    return directory, json.loads((directory / "results.json").read_text())


@pytest.fixture(scope="module")
def rich(source, tmp_path_factory):
    """A run with features, pruned rows and noise: its directory and its results."""
    split = {"protocol": "strong", "seed": 1, "options": {"validation": 0.2, "test": 0.4}}
    models = [
        {"kind": "ials", "params": {"dim": 6, "epochs": 4}},
        {"kind": "ials", "params": {"dim": 6, "epochs": 4, "recipe": {"granularity": "row", "density": 0.7}}},
        {"kind": "feature-ials", "params": {"dim": 4, "epochs": 3}},
    ]
    evaluation = {"few_shot": [0, 2], "noise": [0.3], "max_loss": 0.5}
    return run_of(source, tmp_path_factory.mktemp("rich") / "run", split, evaluation, models)


@pytest.fixture(scope="module")
def warm(source, tmp_path_factory):
    """A run with new items."""
    split = {"protocol": "cold-items", "seed": 1, "options": {"validation": 0.15, "test": 0.3}}
    models = [{"kind": "popularity"}, {"kind": "feature-ials", "params": {"dim": 4, "epochs": 3}}]
    evaluation = {"few_shot": [], "warm_up": [0, 2], "effects": False}
    return run_of(source, tmp_path_factory.mktemp("warm") / "run", split, evaluation, models)


def kept(run, row, name):
    return pd.read_parquet(run / "effects" / slug(row) / f"{name}.parquet")


def claim(results, name):
    return next(each for each in results["claims"] if each["name"] == name)


def shown(values):
    """As a claim says it: the mean and its interval (2,000 draws), with signs."""
    return f"{signed(np.nanmean(values))} [{', '.join(map(signed, interval(values, 2000)))}]"


def signed(value, digits=4):
    return f"{value:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def verdict(low, high):
    return "holds" if low > 0 else "does not hold" if high < 0 else "undecided"


def test_new_users_by_history_by_features_and_by_both(rich):
    run, results = rich
    by_features = 0
    for row in results["rows"]:
        for point in row["few_shot"]:
            for role, name in (("metrics", "history"), ("fold_in", "fold-in")):
                for metric, measured in point[role].items():
                    frame = pd.read_parquet(run / "evaluations" / slug(row) / f"{name}-{point['history']}.parquet")
                    check(measured, values_of(frame, metric), (row["label"], name, point["history"]))
            by_features += bool(point["fold_in"])
    assert by_features == 2, "the model that knows features, at both lengths"


def test_new_items_and_how_they_warm_up(warm):
    run, results = warm
    for row in results["rows"]:
        folder = run / "evaluations" / slug(row)
        for metric, measured in row["cold_items"].items():
            check(measured, values_of(pd.read_parquet(folder / "cold-items.parquet"), metric), row["label"])
        assert [point["gathered"] for point in row["warm_up"]] == [0, 2]
        for point in row["warm_up"]:
            frame = pd.read_parquet(folder / f"warm-up-{point['gathered']}.parquet")
            for metric, measured in point["metrics"].items():
                check(measured, values_of(frame, metric), (row["label"], point["gathered"]))


def test_pruned_items_and_users(rich):
    run, results = rich
    items = users = 0
    for row in results["rows"]:
        for fallback, measured in row["pruned_items"].items():
            pruned = set(kept(run, row, "pruned-items")[ITEM])
            values = values_of(kept(run, row, f"pruned-items/{fallback}"), METRIC, pruned)
            check(measured[METRIC], values, (row["label"], fallback))
            items += 1
        for fallback, measured in row["pruned_users"].items():
            frame = kept(run, row, f"pruned-users/{fallback}")
            lost = np.zeros(len(frame), dtype=bool)
            lost[np.argsort(frame["history"], kind="stable")[: len(frame) // 2]] = True
            check(measured[METRIC], values_of(frame, METRIC)[lost], (row["label"], fallback))
            users += 1
    assert items >= 4
    assert users >= 4


def test_latencies_and_what_making_took(rich):
    run, results = rich
    for row in results["rows"]:
        times = kept(run, row, "timings").groupby("what")["milliseconds"]
        for name, what in (("lookup", "lookup"), ("top_k", "top-k")):
            cost, taken = row["cost"][name], times.get_group(what)
            assert [cost["p50_ms"], cost["p99_ms"]] == pytest.approx(list(taken.quantile([0.5, 0.99])))
            assert cost["calls"] == len(taken)
        assert row["cost"]["load_seconds"] == pytest.approx(times.get_group("load").item() / 1000)
        told = json.loads((run / "models" / slug(row) / "training.json").read_text())
        for name in ("fit_seconds", "convert_seconds", "peak_memory_bytes"):
            assert row["cost"][name] == told[name]


def best_dense(results):
    dense = [row for row in results["rows"] if row["family"] == "dense"]
    return max(dense, key=lambda row: row["validation"][results["headline"]]["mean"])


def features_of(run):
    """Items x features, a column ``column=value`` each."""
    about = pd.read_parquet(run / "data/items.parquet").set_index(ITEM)
    return about if about.columns.empty else pd.get_dummies(about, prefix_sep="=", dtype=float)


def vectors_of(run, row):
    """Item -> its vector in a packed table of fp32 values, dense or with rows left out (which are zero)."""
    items = pd.read_parquet(run / "data/items.parquet")[ITEM].to_numpy()
    values = load_file(run / "models" / slug(row) / "item_table.safetensors")["values.codes"].reshape(-1, row["dim"])
    lost = run / "effects" / slug(row) / "pruned-items.parquet"
    stays = ~np.isin(items, pd.read_parquet(lost)[ITEM] if lost.exists() else [])
    vectors = np.zeros((len(items), row["dim"]))
    vectors[stays] = values
    return pd.DataFrame(vectors, index=items)


def distance(vectors):
    """Mean cosine distance of two different items of a list; those without a vector are left out."""
    unit = vectors[vectors.any(axis=1)]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    return 1 - (unit @ unit.T)[np.triu_indices(len(unit), 1)].mean() if len(unit) > 1 else np.nan


def biased_overlap(a, b, p=0.9):
    """Webber, Moffat and Zobel 2010, eq. 30."""
    shared = np.array([len({*a[:depth]} & {*b[:depth]}) for depth in range(1, len(a) + 1)])
    depth = np.arange(1, len(a) + 1)
    return shared[-1] / len(a) * p ** len(a) + (1 - p) / p * (shared / depth * p**depth).sum()


def miscalibration(items, history, features):
    """Steck 2018, eqs. 2, 3 and 6: an item's features share one unit."""
    shares = features.div(features.sum(axis=1), axis=0)
    p, q = (shares.loc[each].mean().to_numpy() for each in (history, items))
    return sum(a * np.log(a / (0.99 * b + 0.01 * a)) for a, b in zip(p, q, strict=True) if a > 0)


@pytest.mark.parametrize("which", ["finished", "rich"])
def test_what_is_said_of_every_row_s_lists(which, request):
    run = request.getfixturevalue(which)
    run, results = run if which == "rich" else (run, request.getfixturevalue("results"))
    train = pd.read_parquet(run / "audit/train.parquet")
    history = pd.read_parquet(run / "audit/history.parquet").groupby(USER)[ITEM].agg(list)
    features, n_users = features_of(run), train[USER].nunique()
    counts = train.groupby(ITEM).size().reindex(features.index, fill_value=0)
    dense = best_dense(results)
    theirs, vectors = kept(run, dense, "lists").set_index(USER)["items"], vectors_of(run, dense)
    for row in results["rows"]:
        lists = kept(run, row, "lists").set_index(USER)["items"].map(list)
        assert sorted(lists.index) == sorted(history.index)
        assert not any({*items} & {*history[user]} for user, items in lists.items())
        shown = lists.explode().value_counts().reindex(features.index, fill_value=0).sort_values().to_numpy()
        share = shown[shown > 0] / shown.sum()
        size = len(shown)
        expected = {
            "coverage": (shown > 0).mean(),
            "gini": ((2 * np.arange(1, size + 1) - size - 1) * shown).sum() / (size * shown.sum()),
            "entropy": -(share * np.log(share)).sum() / np.log(size),
        }
        each = {
            "novelty": lambda user, items: -np.log2((counts[items] + 1) / (n_users + 1)).mean(),
            "popularity lift": lambda user, items: counts[items].mean() / counts[history[user]].mean() - 1,
            "distance by embeddings": lambda user, items: distance(vectors.loc[items].to_numpy()),
            "overlap with dense": lambda user, items: len({*items} & {*theirs[user]}) / 20,
            "RBO with dense": lambda user, items: biased_overlap(items, list(theirs[user])),
        }
        if len(features.columns):
            each["calibration error"] = lambda user, items: miscalibration(items, history[user], features)
            each["distance by features"] = lambda user, items: distance(features.loc[items].to_numpy())
        expected |= {name: np.nanmean([of(*line) for line in lists.items()]) for name, of in each.items()}
        assert set(row["beyond"]) == {f"{name}@20" for name in expected}
        for name, value in expected.items():
            exact = 1e-5 if "embeddings" in name else 1e-12  # embeddings are float32
            assert row["beyond"][f"{name}@20"] == pytest.approx(value, abs=exact), (row["label"], name)


def test_claims_that_experiments_decide(rich):
    run, results = rich
    frames = {file.stem: pd.read_parquet(file) for file in (run / "effects/claims").glob("*.parquet")}
    noise = frames["robustness"]
    found = claim(results, "Robustness")
    for label in ("sparse", "dense"):
        for at, figure in found["figures"][label].items():
            assert figure == pytest.approx(noise[f"{label} {float(at):g}"].mean())
    gap = (noise["sparse 0.3"] - noise["sparse 0"] - noise["dense 0.3"] + noise["dense 0"]).to_numpy()
    assert found["evidence"].endswith(f"{shown(gap)}.")
    assert found["verdict"] == verdict(*interval(gap, 2000))

    found = claim(results, "Over-fitting")
    parts = {part: frames[f"over-fitting-{part}"] for part in ("train", "test")}
    for part, frame in parts.items():
        for label in ("sparse", "dense"):
            assert found["figures"][f"{label} {part}"] == pytest.approx(frame[label].mean())
    gaps = {part: (frame["sparse"] - frame["dense"]).dropna() for part, frame in parts.items()}
    low, high = stats.ttest_ind(gaps["test"], gaps["train"], equal_var=False).confidence_interval(0.95)
    assert found["verdict"] == verdict(low, high)
    assert f"{signed(gaps['test'].mean() - gaps['train'].mean())} [{signed(low)}, {signed(high)}]" in found["evidence"]

    found, short = claim(results, "Cold start"), frames["cold-start"]
    for label in ("sparse", "dense"):
        for length, figure in found["figures"][label].items():
            assert figure == pytest.approx(short[f"{label} {length}"].mean())
    gap = np.mean([short[f"sparse {k}"] - short[f"dense {k}"] for k in (1, 2, 3)], axis=0)
    assert found["evidence"].endswith(f"{shown(gap)}.")
    assert found["verdict"] == verdict(*interval(gap, 2000))

    found, lists = claim(results, "Diversity"), frames["diversity"]
    gap = (lists["sparse"] - lists["dense"]).to_numpy()
    assert shown(gap) in found["evidence"]
    assert found["verdict"] == verdict(*interval(gap, 2000))
    features = features_of(run)
    for label in ("sparse", "dense"):
        there = np.concatenate(lists[f"{label} items"].to_numpy())
        times = np.sort(np.bincount(there, minlength=ITEMS))
        gini = ((2 * np.arange(1, ITEMS + 1) - ITEMS - 1) * times).sum() / (ITEMS * times.sum())
        assert found["figures"][label] == pytest.approx({"coverage": (times > 0).mean(), "gini": gini})
        varied = [distance(features.loc[items].to_numpy()) for items in lists[f"{label} items"]]
        assert lists[label].to_numpy() == pytest.approx(varied, abs=1e-12)


def purest(features, poles):
    """Of every pole the purity of each feature among its items, (poles, features)."""
    share, base = np.array([features[items].mean(axis=0) for items in poles]), features.mean(axis=0)
    return (share - base) / (1 - base)


def test_what_a_dimension_stands_for_against_shuffled_features(rich):
    run, results = rich
    found, features = claim(results, "Interpretability"), features_of(run)
    told = pd.read_parquet(run / "effects/claims/interpretability.parquet")
    labels = pd.read_parquet(run / "effects/claims/pair.parquet").iloc[0]
    row_of = {item: row for row, item in enumerate(features.index)}
    assert set(found["figures"]) == {"sparse", "dense"}
    excess = {}
    for name, figures in found["figures"].items():
        vectors = vectors_of(run, next(row for row in results["rows"] if row["label"] == labels[name])).to_numpy()
        poles = {}
        for dim, sign in [(dim, sign) for dim in range(vectors.shape[1]) for sign in (1, -1)]:
            strength = sign * vectors[:, dim]
            strongest = np.argsort(-strength, kind="stable")[:20]
            if strength[strongest[-1]] > 0:
                poles[dim, sign] = strongest
        purity = dict(zip(poles, purest(features.to_numpy(), poles.values()), strict=True))
        lines = {(line.dim, line.sign): line for line in told[told["table"] == name].itertuples()}
        assert set(lines) == set(poles)
        for at, line in lines.items():
            assert [row_of[item] for item in line.items] == list(poles[at])
            assert line.purity == pytest.approx(purity[at].max())
            assert line.purity == pytest.approx(purity[at][features.columns.get_loc(line.feature)])
        rng = np.random.default_rng(0)
        dealt = [features.to_numpy()[rng.permutation(len(features))] for _ in range(200)]
        control = np.array([purest(each, poles.values()).max(axis=1).mean() for each in dealt])
        true = np.mean([each.max() for each in purity.values()])
        assert figures["purity"] == pytest.approx(true)
        assert figures["control"] == pytest.approx(control.mean())
        assert figures["p"] == pytest.approx((1 + (control >= true - 1e-12).sum()) / 201)
        excess[name] = np.array([each.max() for each in purity.values()]) - control.mean()
    test = stats.ttest_ind(excess["sparse"], excess["dense"], equal_var=False)
    gap, (low, high) = excess["sparse"].mean() - excess["dense"].mean(), test.confidence_interval(0.95)
    assert f"{signed(gap)} [{signed(low)}, {signed(high)}]" in found["evidence"]
    assert found["verdict"] == verdict(low, high), "the sparse table is above its control"


def test_claims_that_rows_decide(rich):
    _, results = rich
    rows = {row["label"]: row for row in results["rows"]}
    sparse, dense = rows["iALS 6 rows 70%"], rows["iALS 6"]
    assert claim(results, "Computation")["figures"] == {
        "sparse_p50_ms": sparse["cost"]["top_k"]["p50_ms"], "dense_p50_ms": dense["cost"]["top_k"]["p50_ms"]
    }  # fmt: skip
    assert claim(results, "Storage")["figures"]["sparse"] == sparse["bytes_total"]
    other = sum(size for part, size in sparse["breakdown"].items() if part != "values")
    assert claim(results, "Metadata")["figures"]["share"] == pytest.approx(other / sparse["bytes_total"])
    conversion = claim(results, "Conversion")["figures"]
    assert conversion == {name: sparse["cost"][name] for name in ("convert_seconds", "fit_seconds")}
