import json
import math

import pytest

from recsparse.errors import DataError, FormatError
from recsparse.report import choose, read_results, write_report
from recsparse.report.choice import equal_bytes_rival
from recsparse.report.results import Measured, Results, check_results


def test_a_round_trip_keeps_every_figure(results, tmp_path):
    results.write(tmp_path / "results.json")
    again = read_results(tmp_path / "results.json")
    assert again.model_dump_json() == results.model_dump_json()
    assert again.rows[3].metadata_share == results.rows[3].metadata_share


def test_nan_is_null_in_json_and_comes_back(results, tmp_path):
    row = results.rows[0].model_copy(
        update={"metrics": {**results.rows[0].metrics, "auc": Measured(mean=math.nan, users=0)}}
    )
    results.model_copy(update={"rows": [row, *results.rows[1:]]}).write(tmp_path / "results.json")
    document = json.loads((tmp_path / "results.json").read_text())
    assert document["rows"][0]["metrics"]["auc"]["mean"] is None
    assert math.isnan(read_results(tmp_path / "results.json").rows[0].metrics["auc"].mean)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(colour="red"), "colour"),
        (lambda d: d["rows"][2].update(density=1.5), "rows.2.density"),
        (lambda d: d["rows"][2].update(bytes_total=1), "adds up to"),
        (lambda d: d["rows"][2].update(bytes_per_item=None), "only one of"),
        (lambda d: d["rows"][1].update(label=d["rows"][0]["label"]), "two rows are called 'popularity'"),
        (lambda d: d.update(headline="ndcg@7"), "lacks the headline metric 'ndcg@7'"),
        (lambda d: d.update(format_version=2), "version 2"),
        (lambda d: d.update(rows=[]), "rows"),
    ],
)
def test_impossible_documents_are_refused_by_key(results, change, says):
    document = json.loads(results.model_dump_json())
    change(document)
    with pytest.raises(FormatError, match=says):
        check_results(document)


def test_a_damaged_file_says_so_and_nothing_is_written(tmp_path):
    (tmp_path / "results.json").write_text('{"run": ')
    with pytest.raises(FormatError, match="cannot be read as results"):
        read_results(tmp_path / "results.json")
    with pytest.raises(FormatError):
        write_report({"run": "x"}, tmp_path / "report.html")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json"]


def test_the_choice_is_the_smallest_good_enough_and_its_rival_the_best_dense_one_no_larger(results):
    choice = choose(results)
    assert (choice.row.label, choice.reference.label) == ("sparse d128, 12 kept, int8", "dense d128")
    assert choice.role == "validation"
    allowed = 0.98 * choice.reference.validation["ndcg@20"].mean
    for row in results.rows:
        if row.bytes_total and row.validation["ndcg@20"].mean >= allowed:
            assert row.bytes_total >= choice.row.bytes_total
    assert choice.rival.family in ("dense", "quantised")
    assert choice.rival.bytes_total <= choice.row.bytes_total
    assert choice.times_smaller == pytest.approx(512 / 30, rel=0.01)


def test_the_choice_rests_on_validation_not_on_test(results):
    """A table that shines on test only is not chosen."""
    lucky = results.row("dense d8 int4").model_copy(
        update={"metrics": {m: Measured(mean=0.9, users=9) for m in results.metrics}}
    )
    rows = [lucky if row.label == lucky.label else row for row in results.rows]
    assert choose(results.model_copy(update={"rows": rows})).row.label == "sparse d128, 12 kept, int8"
    blind = [row.model_copy(update={"validation": {}}) for row in rows]
    choice = choose(results.model_copy(update={"rows": blind}))
    assert (choice.row.label, choice.role) == ("dense d8 int4", "test")


def test_no_table_no_choice(results):
    bare = [row for row in results.rows if not row.bytes_total]
    with pytest.raises(DataError, match="nothing to choose from"):
        choose(results.model_copy(update={"rows": bare}))
    assert equal_bytes_rival(bare, results.row("dense d8"), "ndcg@20") is None
    assert isinstance(results, Results)
