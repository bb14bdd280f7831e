"""Agreement of label tables: what is compared, what is refused, and which confusions are named."""

import orjson
import polars as pl
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from annotator.agreement import agree
from annotator.cli import application
from annotator.errors import BadInput

TASKS = ("calculate", "prove", "decide")


def labels(tasks, **columns):
    """A table of labels with these task types; all other axes agree."""
    operations = columns.pop("solving_operation", [["deduction"]] * len(tasks))
    table = {
        "record_id": [f"r{number:02d}" for number in range(len(tasks))],
        "kind": "item",
        "background_condition": "formal.logic",
        "task_type": list(tasks),
        "solving_operation": operations,
        "output_constraint": "number",
    }
    return pl.DataFrame(table | columns, schema_overrides={"task_type": pl.String})


def test_strict_agreement_kappa_and_values_of_two_tables():
    """Cohen's example, 200 records: agreement .70, kappa .492, and precision and recall from the same table."""
    table = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
    pairs = [(a, b) for a in range(3) for b in range(3) for _ in range(table[a][b])]

    found = agree({"ours": labels([TASKS[a] for a, _ in pairs]), "gold": labels([TASKS[b] for _, b in pairs])})
    axis = found["axes"]["task_type"]

    assert axis["records"] == 200
    assert axis["agreement"] == 0.7
    assert axis["kappa"]["estimate"] == pytest.approx(0.491525, abs=1e-6)
    assert axis["kappa"]["low"] < 0.491525 < axis["kappa"]["high"]
    assert axis["alpha_distance"] == "nominal"
    calculate = axis["values"][0]
    assert calculate["value"] == "calculate"
    assert (calculate["support"], calculate["predicted"]) == (100, 120)
    assert (calculate["recall"], calculate["precision"]) == (0.88, pytest.approx(88 / 120, abs=1e-6))
    assert axis["confusions"][0]["label"] == "calculate"
    assert axis["confusions"][0]["reference"] == "decide"
    assert axis["confusions"][0]["records"] == 18
    assert len(axis["confusions"][0]["record_ids"]) == 5


def test_an_axis_on_which_everybody_says_the_same_has_no_kappa():
    """Agreement is 1, but chance would give as much: undefined, not perfect."""
    axis = agree({"a": labels(TASKS), "b": labels(TASKS)})["axes"]["output_constraint"]

    assert axis["agreement"] == 1
    assert axis["kappa"] == {"estimate": None, "low": None, "high": None}
    assert axis["alpha"] is None


def test_operations_are_compared_as_primary_as_set_and_by_overlap():
    """Primary values agree on half of the records, sets nearly, and every first pair overlaps."""
    ours = labels(["prove"] * 4, solving_operation=[["a", "b"], ["b"], ["c", "a"], ["d", "b"]])
    gold = labels(["prove"] * 4, solving_operation=[["b", "a"], ["b"], ["c"], ["b", "d"]])

    axis = agree({"ours": ours, "gold": gold})["axes"]["solving_operation"]

    assert axis["agreement"] == 0.5
    assert axis["alpha_distance"] == "masi"
    assert axis["alpha"] > axis["kappa"]["estimate"]
    assert axis["overlap_kappa"]["estimate"] == 1
    by_value = {value["value"]: value for value in axis["values"]}
    assert (by_value["a"]["support"], by_value["a"]["predicted"], by_value["a"]["precision"]) == (1, 2, 0.5)
    assert by_value["b"]["f1"] == 1


def test_grades_are_compared_in_their_order():
    """One step apart counts less than three steps apart; text and numbers are the same grade."""
    gold = labels(["prove"] * 6, quality=[1, 2, 3, 4, 5, 5])
    near = labels(["prove"] * 6, quality=[2, 2, 3, 4, 5, 4])
    far = labels(["prove"] * 6, quality=[5, 2, 3, 4, 5, 1])

    found = {
        name: agree({name: table, "gold": gold})["axes"]["quality"] for name, table in (("near", near), ("far", far))
    }

    assert found["near"]["alpha_distance"] == "ordinal"
    assert found["near"]["agreement"] == found["far"]["agreement"]
    assert found["near"]["alpha"] > 0.8 > found["far"]["alpha"]


def test_failed_rows_and_records_of_one_table_alone_do_not_count():
    """Four records in common, one of them without a label on one side."""
    ours = labels([*TASKS, "prove", "prove"], status=["ok", "ok", "ok", "failed", "ok"])
    gold = labels([*TASKS, "prove"])

    found = agree({"ours": ours, "gold": gold})

    assert found["records"] == 3
    assert found["tables"] == {"ours": 4, "gold": 4}
    assert found["axes"]["task_type"]["agreement"] == 1


def test_the_share_of_other_is_told_for_each_table():
    """A judge that hides behind "other" shows."""
    found = agree({"ours": labels(["other", "other", "prove", "decide"]), "gold": labels(["other", *TASKS])})

    assert found["axes"]["task_type"]["other_share"] == {"ours": 0.5, "gold": 0.25}


def test_agreement_is_told_by_kind_and_by_the_groups_that_are_given():
    """Perfect on one benchmark, none on the other."""
    kinds = ["item", "item", "document", "document"]
    ours = labels(["prove", "decide", "prove", "decide"], kind=kinds)
    gold = labels(["prove", "decide", "decide", "prove"], kind=kinds)
    groups = pl.DataFrame({"record_id": ["r00", "r01", "r02"], "benchmark": ["easy", "easy", "hard"]})

    found = agree({"ours": ours, "gold": gold}, groups=groups)["by"]

    assert found["kind"]["item"]["task_type"]["kappa"] == 1
    assert found["kind"]["document"]["task_type"]["kappa"] == -1
    assert found["benchmark"]["easy"]["task_type"]["agreement"] == 1
    assert found["benchmark"]["hard"]["task_type"] == {"records": 1, "agreement": 0, "kappa": 0, "alpha": 0}


def test_more_than_two_tables_give_means_over_pairs_and_each_pair():
    """Three annotators who label different parts: alpha uses all, kappa is the mean of the pairs."""
    tables = {
        "one": labels(["prove", "decide", "prove", "decide"]),
        "two": labels(["prove", "decide", "prove", "prove"]),
        "gold": labels(["prove", "decide", "prove", None]),
    }

    found = agree(tables)

    pairs = {tuple(pair["tables"]): pair["axes"]["task_type"]["kappa"] for pair in found["pairs"]}
    assert pairs == {("one", "two"): 0.5, ("one", "gold"): 1, ("two", "gold"): 1}
    assert found["axes"]["task_type"]["kappa"]["estimate"] == pytest.approx(2.5 / 3, abs=1e-6)
    assert found["reference"] == "gold"


def test_gold_files_need_neither_status_nor_version():
    """Only the id and the four axes are asked for."""
    gold = labels(TASKS).drop("kind")

    assert agree({"ours": labels(TASKS, taxonomy_version="1"), "gold": gold})["taxonomy_version"] == "1"


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"a": labels(TASKS)}, "only one table"),
        (
            {"a": labels(TASKS, taxonomy_version="1"), "b": labels(TASKS, taxonomy_version="2")},
            "taxonomy version '2', but a has '1'",
        ),
        ({"a": labels(TASKS), "b": pl.concat([labels(TASKS)] * 2)}, "b: two labels for 'r00'"),
        ({"a": labels(TASKS), "b": labels(TASKS).with_columns(pl.col("record_id") + "x")}, "no record"),
        ({"a": labels(TASKS), "b": labels(TASKS).drop("task_type")}, "b: no column 'task_type'"),
    ],
)
def test_tables_that_cannot_be_compared_are_refused(tables, message):
    """One line that names the table and what to do."""
    with pytest.raises(BadInput, match=message):
        agree(tables)


@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(TASKS), st.sampled_from(TASKS)), min_size=1, max_size=25), st.randoms())
def test_the_order_of_rows_changes_nothing(pairs, random):
    """Coefficients, intervals, examples: the same to the last digit."""
    ours, gold = labels([a for a, _ in pairs]), labels([b for _, b in pairs])
    mixed = list(range(len(pairs)))
    random.shuffle(mixed)

    assert agree({"a": ours[mixed], "b": gold}, bootstraps=50) == agree({"a": ours, "b": gold}, bootstraps=50)


def test_the_command_prints_tables_and_writes_json(tmp_path):
    """Gold as jsonl without status, labels as parquet; the JSON holds what the library gives."""
    labels(TASKS * 4).write_parquet(tmp_path / "labels.parquet")
    labels(["prove", *(TASKS * 4)[1:]]).drop("kind").write_ndjson(tmp_path / "gold.jsonl")
    paths = [str(tmp_path / "labels.parquet"), str(tmp_path / "gold.jsonl")]

    shown = CliRunner().invoke(application, ["agree", *paths, "-o", str(tmp_path / "agreement.json")])
    as_json = CliRunner().invoke(application, ["agree", *paths, "--json"])

    assert shown.exit_code == 0
    assert "12 records with labels in two tables or more" in shown.output
    assert "confusions that cost most" in shown.output
    assert "undefined" in shown.output
    written = orjson.loads((tmp_path / "agreement.json").read_bytes())
    assert written == orjson.loads(as_json.output)
    assert written["axes"]["task_type"]["confusions"][0]["record_ids"] == ["r00"]


def test_the_command_refuses_a_table_compared_with_itself(tmp_path):
    """The same path twice is a slip, not a perfect judge."""
    labels(TASKS).write_parquet(tmp_path / "labels.parquet")

    result = CliRunner().invoke(application, ["agree", *[str(tmp_path / "labels.parquet")] * 2])

    assert isinstance(result.exception, BadInput)
    assert "is given twice" in str(result.exception)
