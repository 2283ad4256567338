import numpy as np
import pytest
import scipy.sparse as sp

from recsparse.errors import ConfigError, DataError, FormatError
from recsparse.evaluation import evaluate
from recsparse.interactions.interactions import Interactions
from recsparse.interactions.split import split
from recsparse.models.ease import EASE
from recsparse.models.popularity import Popularity
from recsparse.report.compare import compare_runs


@pytest.fixture
def run(tmp_path, results):
    """Write a run directory as the pipeline does, with EASE of some strength behind the chosen row."""
    rng = np.random.default_rng(0)
    likes = rng.random((120, 30)) < np.where((np.arange(120) % 2)[:, None] == np.arange(30) % 2, 0.5, 0.1)
    data = Interactions.from_csr(sp.csr_array(likes.astype(np.float32)))

    def write(name, reg, split_seed=0, headline="ndcg@20"):
        parts = split(data, "strong", validation=20, test=40, target=0.3, seed=split_seed)
        directory = tmp_path / name
        models = {
            "sparse d128, 12 kept, int8": EASE(reg=reg) if reg < 1e6 else Popularity(),
            "popularity": Popularity(),
        }
        for number, (label, model) in enumerate(models.items()):
            evaluation = evaluate(model.fit(parts.train), parts.test, ["ndcg@10", "ndcg@20"], name=label)
            evaluation.save(directory / "evaluations" / str(number) / "test.parquet")
        results.model_copy(update={"run": name, "headline": headline}).write(directory / "results.json")
        return directory

    return write


def test_the_chosen_rows_are_compared_and_corrected_together(run):
    good, bad, same = run("good", 5.0), run("bad", 1e6), run("same", 5.0)
    found = compare_runs([good, bad, same], n_permutations=999)
    assert [(one.a.split(":")[0], one.b.split(":")[0]) for one in found] == [
        ("good", "bad"), ("good", "same"), ("bad", "same"),
    ]  # fmt: skip
    assert found[0].difference > 0 > found[2].difference
    assert found[1].difference == 0.0
    assert found[0].metric == "ndcg@20"
    assert found[0].p_holm == pytest.approx(min(1.0, 3 * found[0].p_t))
    assert found[0].p_permutation <= 1.0


def test_seeds_are_pooled_by_user(run):
    seeds = [run(f"seed-{seed}", reg) for seed, reg in enumerate((4.0, 5.0, 6.0))]
    bad = run("bad", 1e6)
    [pooled] = compare_runs([seeds, bad], n_permutations=0)
    singles = [compare_runs([one, bad], n_permutations=0)[0] for one in seeds]
    assert pooled.difference == pytest.approx(np.mean([one.difference for one in singles]))
    assert pooled.users == singles[0].users
    assert pooled.a.startswith("seed-0 (3 seeds)")


def test_another_row_and_metric(run):
    a, b = run("a", 5.0), run("b", 1e6)
    [found] = compare_runs([a, b], label="popularity", metric="ndcg@10", n_permutations=0)
    assert (found.metric, found.difference) == ("ndcg@10", 0.0)
    [found] = compare_runs([a, b], metric="mrr", n_permutations=0)  # not measured, but the ranks are there
    assert (found.metric, found.users) == ("mrr", 40)


def test_what_cannot_be_compared_is_refused(run, tmp_path):
    a = run("a", 5.0)
    with pytest.raises(DataError, match="different splits"):
        compare_runs([a, run("elsewhere", 5.0, split_seed=1)])
    with pytest.raises(DataError, match=r"different headline metrics \(ndcg@10, ndcg@20\)"):
        compare_runs([a, run("other", 5.0, headline="ndcg@10")])
    with pytest.raises(ConfigError, match="at least two"):
        compare_runs([a])
    with pytest.raises(DataError, match="no row 'iALS'; it has popularity, sparse"):
        compare_runs([a, a], label="iALS")
    with pytest.raises(FormatError, match="cannot be read as results"):
        compare_runs([a, tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="no metric 'accuracy'"):
        compare_runs([a, a], metric="accuracy")
