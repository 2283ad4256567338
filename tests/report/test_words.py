import pytest

from recsparse.report import choose
from recsparse.report.html import to_html
from recsparse.report.markdown import to_markdown
from recsparse.report.words import human_bytes, metric_name, signed, verdict


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (6, "6 B"),
        (26.41, "26.4 B"),
        (999.4, "999 B"),
        (999.9, "1 kB"),
        (50_500, "50.5 kB"),
        (3.2e12, "3.2 TB"),
    ],
)
def test_bytes(count, text):
    assert human_bytes(count) == text


def test_names_and_signs():
    assert metric_name("recall_capped@20") == "Recall (capped)@20"
    assert metric_name("r_precision") == "R-PRECISION"
    assert (signed(-0.01234), signed(float("nan"))) == ("−0.0123", "–")


def test_the_verdict_says_size_cost_rival_and_basis(results):
    title, sentences = verdict(results, choose(results))
    assert title == "Ship sparse d128, 12 kept, int8"
    assert "30 B an item, 50.5 kB in all: 17.1 times smaller than dense d128 (512 B an item)" in sentences[0]
    assert "from 0.406 to 0.401 (−1.4 %); user by user −0.0055 [" in sentences[1]
    assert "dense d16 int8" in sentences[2]
    assert "is better" in sentences[2]
    assert sentences[3] == "Besides: NDCG@20 of rare items 0.040 against 0.041; trained in 400 ms against 400 ms."
    assert sentences[4] == "EASE, which has an item-by-item matrix and no table, reaches 0.411 [0.395, 0.427]."
    assert "chosen on 100 validation users; all figures are of 300 test users" in sentences[-1]


def test_the_verdict_admits_that_sparsity_does_not_pay(results):
    def said(rows):
        title, sentences = verdict(only := results.model_copy(update={"rows": rows}), choose(only))
        assert title.startswith("Ship dense")
        return " ".join(sentences)

    dense = [row for row in results.rows if row.family in ("dense", "quantised")]
    sparse = results.row("rows 25% of d64")
    assert "This run has no sparse table to compare it with." in said(dense)
    assert "fewer bits are the better way" in said([*dense, sparse])
    assert "a smaller dense table is the better way" in said(
        [results.row("dense d128"), results.row("dense d64"), sparse]
    )


def test_a_run_without_a_dense_table_is_not_said_to_have_one(results):
    rows = [row for row in results.rows if row.family == "element"]
    said = verdict(only := results.model_copy(update={"rows": rows}), choose(only))[1]
    assert "of the best one's (the run has no dense fp32 table) NDCG@20" in said[-1]
    assert "smaller than dense fp32" not in to_html(only)


def test_a_loss_on_the_test_users_above_the_accepted_is_said(results):
    strict = results.model_copy(update={"max_loss": 0.01})
    assert "(−1.4 %, more than the 1 % accepted);" in verdict(strict, choose(results))[1][1]
    assert "accepted" not in verdict(results, choose(results))[1][1]


def test_the_verdict_when_nothing_smaller_is_good_enough(results):
    strict = results.model_copy(update={"rows": [results.row("dense d128"), results.row("dense d8 int4")]})
    title, sentences = verdict(strict, choose(strict))
    assert title == "Ship dense d128"
    assert "No smaller table is within 2 %" in sentences[0]


def test_the_verdict_warns_of_a_choice_made_on_test(results):
    rows = [row.model_copy(update={"validation": {}}) for row in results.rows]
    blind = results.model_copy(update={"rows": rows})
    assert "optimistic" in verdict(blind, choose(blind))[1][-1]


def test_markdown_has_every_row_and_claim(results):
    text = to_markdown(results)
    assert text.count("\n| ") == len(results.rows) + 1 + len(results.claims) + 1
    assert "**sparse d128, 12 kept, int8**" in text
    assert "| **does not hold** |" in text
    assert "| popularity | – | – |" in text
    assert all(claim.experiment in text for claim in results.claims)


def test_popularity_above_the_choice_is_said(results):
    rows = list(results.rows)
    best = rows[0].metrics | {"ndcg@20": rows[0].metrics["ndcg@20"].model_copy(update={"mean": 0.5})}
    rows[0] = rows[0].model_copy(update={"metrics": best})
    changed = results.model_copy(update={"rows": rows})
    said = verdict(changed, choose(changed))[1]
    assert any("popularity, which has no table, reaches 0.500" in one and "earns its bytes" in one for one in said)
