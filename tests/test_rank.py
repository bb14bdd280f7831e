"""The ranked list: what is chosen under a budget, and why the rest is not."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_rows import documents, items, label, labels, slice_row, slices

from annotator.errors import BadInput
from annotator.mapping import load_rules
from annotator.match import match
from annotator.rank import REASONS, rank
from annotator.tables import DROPPED, UPSAMPLE, write_table
from annotator.taxonomy import load_taxonomy

TAXONOMY = load_taxonomy()
RULES = load_rules()
SUMS = slice_row("sums", "arithmetic", "math.arithmetic", recoverable_points=3.0)
LOGIC = slice_row("logic", "deduction", "formal.logic", recoverable_points=1.0)
NOVEL = "the old clock on the wall had stopped again and nobody in the long grey hall seemed to notice or to mind "


def ranked(label_rows, corpus, *, wanted=(SUMS, LOGIC), budget_tokens=1000, items=None, **options):
    """Match and rank small tables; without items and near duplicates unless asked for."""
    table = labels(*label_rows)
    matches = match(slices(*wanted), table, rules=RULES, taxonomy=TAXONOMY).table
    options = {"near_duplicates": False, **options}
    return rank(matches, table, corpus, items, rules=RULES, budget_tokens=budget_tokens, **options)


def sums(doc_id, **more):
    """A document that works out sums."""
    return label(doc_id, "arithmetic", "math.arithmetic", "calculate", **more)


def logic(doc_id, **more):
    """A document that deduces."""
    return label(doc_id, "deduction", "formal.logic", "prove", **more)


def sized(**tokens):
    """Documents without texts."""
    return pl.DataFrame({"doc_id": list(tokens), "tokens": list(tokens.values())})


def reasons(ranking):
    """doc_id -> reason."""
    return dict(ranking.dropped.select("doc_id", "reason").iter_rows())


def test_the_tables_have_the_columns_of_the_contract():
    """Names and types, with nulls for a place that was not asked for."""
    found = ranked([sums("a")], sized(a=100))

    assert dict(found.chosen.schema) == UPSAMPLE
    assert dict(found.dropped.schema) == DROPPED
    assert found.chosen.select("rank", "doc_id", "shard", "category_id", "slice_ids", "rule_ids", "repeats").rows() == [
        (1, "a", None, "op=arithmetic&bg=math.arithmetic&task=calculate", ["sums"], ["arithmetic"], 4)
    ]


def test_gain_is_share_times_affinity_times_exercise_times_quality_times_confidence():
    """Worked out by hand: 0.75 * 1 * 0.8 * 0.9 * 0.5."""
    rows = [sums("a", exercise="substantial", quality=4, confidence=0.5), logic("b")]

    found = ranked(rows, sized(a=10, b=10)).chosen

    assert dict(found.select("doc_id", "score").iter_rows()) == pytest.approx({"a": 0.27, "b": 0.25})


def test_text_that_states_facts_need_not_exercise_them():
    """`recall` documents have exercise none by definition; the rule says that they teach."""
    chemistry = slice_row("chem", "recall", "science.chemistry")
    rows = [label("a", "recall", "science.chemistry", "explain", exercise="none")]

    found = ranked(rows, sized(a=10), wanted=[chemistry])

    assert found.chosen["score"].to_list() == [1.0]


def test_every_dropped_document_says_why():
    """Reasons and details in words."""
    rows = [
        sums("poor", quality=2),
        sums("test", output_constraint="option"),
        label("novel", "composition", "culture.arts_media", "narrate"),
        sums("french"),
        sums("failed", status="failed"),
        sums("good"),
        sums("late", quality=4),
    ]
    corpus = sized(poor=10, test=10, novel=10, french=10, failed=10, none=10, good=100, late=100)
    corpus = corpus.with_columns(pl.Series("lang", [None, None, None, "fr", None, None, "en", "en"]))

    found = ranked(rows, corpus, budget_tokens=150, max_repeats=1, languages=["en"])

    assert found.chosen["doc_id"].to_list() == ["good"]
    assert found.dropped.rows() == [
        ("failed", "off_slice", "no usable label"),
        ("french", "off_slice", "language fr"),
        ("late", "over_budget", "score 0.9"),
        ("none", "off_slice", "no usable label"),
        ("novel", "off_slice", "no matched slice"),
        ("poor", "low_quality", "quality 2"),
        ("test", "off_slice", "guard option-lists"),
    ]


def test_a_second_pass_over_the_best_ties_with_a_first_over_half_as_good():
    """Worth is divided by the number of the pass."""
    rows = [sums("best"), sums("half", confidence=0.45)]

    def repeats(budget_tokens):
        found = ranked(rows, sized(best=100, half=100), wanted=[SUMS], budget_tokens=budget_tokens).chosen
        return dict(found.select("doc_id", "repeats").iter_rows())

    assert repeats(100) == {"best": 1}
    assert repeats(200) == {"best": 2}
    assert repeats(300) == {"best": 2, "half": 1}
    assert repeats(10_000) == {"best": 4, "half": 4}


def test_quotas_follow_the_square_root_of_recoverable_points():
    """9 : 1 points give 3 : 1 tokens."""
    wanted = [SUMS | {"recoverable_points": 9.0}, LOGIC]
    rows = [sums(f"s{k}") for k in range(20)] + [logic(f"l{k}") for k in range(20)]
    corpus = sized(**{row["record_id"]: 10 for row in rows})

    found = ranked(rows, corpus, wanted=wanted, budget_tokens=120, max_repeats=1)

    assert {name: one["tokens"] for name, one in found.summary["slices"].items()} == {"logic": 30, "sums": 90}


def test_a_slice_with_too_little_text_leaves_its_quota_to_others():
    """The budget is spent all the same."""
    rows = [sums("s0"), *(logic(f"l{k}") for k in range(20))]
    corpus = sized(**{row["record_id"]: 10 for row in rows})

    assert ranked(rows, corpus, budget_tokens=100, max_repeats=1).summary["tokens"] == 100


def test_no_source_gets_more_than_its_share():
    """Half of the budget by default, where there are several sources."""
    rows = [sums(f"s{k}") for k in range(20)] + [sums("other", quality=3)]
    corpus = sized(**{row["record_id"]: 10 for row in rows})
    corpus = corpus.with_columns(pl.Series("source", ["web"] * 20 + ["books"]))

    found = ranked(rows, corpus, budget_tokens=100, max_repeats=1)

    assert found.summary["sources"] == {"books": 10, "web": 50}
    assert found.summary["dropped"]["source_cap"] == 15
    assert ranked(rows, corpus.drop("source"), budget_tokens=100, max_repeats=1).summary["tokens"] == 100


def test_tokens_are_estimated_from_bytes_where_no_column_gives_them():
    """Four bytes a token; the summary says so."""
    found = ranked([sums("a")], documents({"a": NOVEL * 4}))

    assert found.chosen["tokens"].to_list() == [len(NOVEL)]
    assert found.summary["tokens_estimated"] == 1
    assert "estimated at 4 bytes a token" in found.summary["note"]


def test_a_document_that_quotes_an_item_never_reaches_the_list():
    """Even from the top of the ranking; the dropped table names item and span."""
    question = "Natalia sold clips to forty eight of her friends in April and then she sold half as many clips in May."
    corpus = documents({"quotes": NOVEL + question.upper() + NOVEL, "other": NOVEL[::-1]})
    rows = [sums("quotes"), sums("other", quality=3)]

    found = ranked(rows, corpus, items=items(("quiz/7", question)))

    assert found.chosen["doc_id"].to_list() == ["other"]
    (row,) = found.dropped.rows()
    assert row[:2] == ("quotes", "contaminated")
    assert row[2].startswith("quiz/7 question (exact, coverage 1.00): NATALIA SOLD CLIPS")
    assert found.summary["decontamination"]["flagged_documents"] == 1
    assert "n-gram-clean" in found.summary["decontamination"]["statement"]


def test_the_slices_own_benchmark_is_held_to_a_stricter_threshold():
    """The same partial quotation passes for a foreign benchmark."""
    question = (
        "A painter mixes crimson, ochre, indigo, umber, teal, sienna, magenta, cyan, violet pigments daily while "
        "someone patiently counts empty buckets beside several broken wooden ladders outside"
    )
    part = "crimson ochre indigo umber teal sienna magenta cyan violet pigments"
    corpus = documents({"part": f"{NOVEL} {part} {NOVEL}"})
    quiz = items(("quiz/1", question), ("quiz/2", "Something else"))

    kept = ranked([sums("part")], corpus, items=quiz)
    held = ranked([sums("part")], corpus, items=quiz, slices=slices(SUMS | {"item_ids": ["quiz/2"]}))

    assert kept.chosen["doc_id"].to_list() == ["part"]
    assert reasons(held) == {"part": "contaminated"}


def test_of_near_duplicates_the_best_stays():
    """One per cluster; the others name it."""
    text = " ".join(f"word{k}" for k in range(300))
    corpus = documents({"a": text, "b": text + " and more", "c": text.replace("word150", "changed"), "d": text[::-1]})
    rows = [sums("a", quality=4), sums("b"), sums("c", quality=4), sums("d", quality=4)]

    found = ranked(rows, corpus, near_duplicates=True, budget_tokens=100_000)

    assert sorted(found.chosen["doc_id"]) == ["b", "d"]
    assert reasons(found) == {"a": "near_duplicate", "c": "near_duplicate"}
    assert found.dropped["detail"][0].startswith("of b (similarity ")


def test_without_items_the_summary_says_that_nothing_was_decontaminated():
    """Silence would be read as clean."""
    assert "nothing was decontaminated" in ranked([sums("a")], sized(a=10)).summary["note"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_tokens": 0}, "--budget-tokens: a budget of 0 tokens"),
        ({"max_repeats": 0}, "--max-repeats"),
        ({"max_source_share": 1.5}, "--max-source-share"),
        ({"max_host_share": 0.0}, "--max-host-share"),
        ({"replay_share": 1.0}, "--replay-share"),
    ],
)
def test_limits_out_of_range_are_refused(options, message):
    """Exit 2."""
    with pytest.raises(BadInput, match=message):
        ranked([sums("a")], sized(a=10), **options)


def test_labels_of_other_documents_are_refused():
    """The likely cause is a wrong id column."""
    with pytest.raises(BadInput, match="none of 1 labels belongs to one of 1 documents"):
        ranked([sums("a")], sized(b=10))


def test_a_document_longer_than_the_budget_leaves_it_to_those_behind():
    """It stands at the head of its queue, and is put off: a small budget goes to shorter documents."""
    rows = [sums("long"), *(sums(f"s{k}", quality=4) for k in range(8))]
    corpus = sized(long=5000, **{f"s{k}": 100 for k in range(8)})

    found = ranked(rows, corpus, wanted=[SUMS], budget_tokens=800, max_repeats=1)

    assert found.summary["tokens"] == 800
    assert reasons(found) == {"long": "over_budget"}
    assert "long" in ranked(rows, corpus, wanted=[SUMS], budget_tokens=6000, max_repeats=1).chosen["doc_id"]


def test_no_web_host_gets_more_than_its_share():
    """A twentieth of the budget by default, where there are several hosts; the www in front does not count."""
    rows = [sums(f"s{k}") for k in range(40)] + [sums(f"t{k}", quality=3) for k in range(40)]
    corpus = sized(**{row["record_id"]: 10 for row in rows})
    urls = [f"https://{'www.' if k % 2 else ''}big.example/{k}" for k in range(40)]
    urls += [f"http://small{k}.example:8080/" for k in range(40)]

    found = ranked(rows, corpus.with_columns(pl.Series("url", urls)), budget_tokens=400, max_repeats=1)

    assert found.chosen["doc_id"].str.starts_with("s").sum() == 2
    assert found.dropped.filter(pl.col("detail") == "host big.example").height == 38


def test_background_text_is_drawn_from_what_serves_no_slice():
    """Its share of the budget is kept for it; it comes last, once each, with the rule "replay" and no slice."""
    rows = [sums(f"s{k}") for k in range(20)]
    rows += [label(f"n{k}", "composition", "culture.arts_media", "narrate", quality=1 + k % 5) for k in range(40)]
    corpus = sized(**{row["record_id"]: 10 for row in rows})

    found = ranked(rows, corpus, wanted=[SUMS], budget_tokens=200, max_repeats=1, replay_share=0.25)

    background = found.chosen.filter(pl.col("rule_ids").list.contains("replay"))
    assert background.select("score", "repeats").unique().rows() == [(0.0, 1)]
    assert background["rank"].to_list() == [16, 17, 18, 19, 20]
    assert {int(doc_id[1:]) % 5 for doc_id in background["doc_id"]} <= {2, 3, 4}
    assert found.summary["replay_tokens"] == 50


def test_background_text_is_held_to_the_items_too():
    """A document that quotes an item is never background."""
    question = "Natalia sold clips to forty eight of her friends in April and then she sold half as many clips in May."
    rows = [label(name, "composition", "culture.arts_media", "narrate") for name in ("quotes", "other")]
    corpus = documents({"quotes": NOVEL + question, "other": NOVEL * 2})

    found = ranked(rows, corpus, items=items(("quiz/7", question)), replay_share=0.9)

    assert found.chosen["doc_id"].to_list() == ["other"]
    assert reasons(found) == {"quotes": "contaminated"}


def test_tokens_may_be_counted_by_a_function(tmp_path):
    """In place of the corpus's own counts and of an estimate."""
    documents({"a": "one two three", "b": "one"}, tokens=[70, 80]).write_parquet(tmp_path / "part.parquet")

    found = ranked([sums("a"), sums("b")], [tmp_path / "part.parquet"],
                   count_tokens=lambda texts: [len(text.split()) for text in texts])  # fmt: skip

    assert dict(found.chosen.select("doc_id", "tokens").iter_rows()) == {"a": 3, "b": 1}
    assert found.summary["tokens_estimated"] == 0


def test_the_inputs_are_fingerprinted_by_content():
    """Shuffled rows give the same fingerprints; one token more gives others."""
    rows, corpus = [sums("a"), logic("b")], sized(a=10, b=20)

    first = ranked(rows, corpus).summary["inputs"]
    again = ranked(rows[::-1], corpus[::-1]).summary["inputs"]
    other = ranked(rows, sized(a=11, b=20)).summary["inputs"]

    assert first == again
    assert first["corpus"] != other["corpus"]
    assert first["matches"] == other["matches"]


# Laws -----------------------------------------------------------------------------------------------------------------

DOCUMENT = st.fixed_dictionaries(
    {
        "operation": st.sampled_from(["arithmetic", "quantity_modelling", "deduction+arithmetic", "composition"]),
        "background": st.sampled_from(["math.arithmetic", "formal.logic", "culture.arts_media"]),
        "quality": st.integers(1, 5),
        "confidence": st.none() | st.sampled_from([0.3, 0.9]),
        "tokens": st.integers(1, 60) | st.sampled_from([150, 600, 5000]),
        "source": st.none() | st.sampled_from(["x", "y", "z"]),
        "text": st.sampled_from([NOVEL * 3, NOVEL * 3 + "at all", "quite another text about sums and remainders " * 5]),
    }
)
LAWS = settings(max_examples=60, deadline=None)
CORPORA = st.lists(DOCUMENT, max_size=14)
LIMITS = st.fixed_dictionaries({"max_repeats": st.integers(1, 4), "near_duplicates": st.booleans()})
REPLAY = st.sampled_from([0.0, 0.3])


def built(corpus, prefix="d"):
    """Label rows and a frame of documents."""
    rows = [
        label(f"{prefix}{k}", one["operation"], one["background"], "calculate", quality=one["quality"],
              confidence=one["confidence"])
        for k, one in enumerate(corpus)
    ]  # fmt: skip
    columns = {"doc_id": pl.String, "text": pl.String, "tokens": pl.Int64, "source": pl.String}
    cells = [(f"{prefix}{k}", one["text"], one["tokens"], one["source"]) for k, one in enumerate(corpus)]
    return rows, pl.DataFrame(cells, schema=columns, orient="row")


@LAWS
@given(CORPORA, st.integers(1, 400), LIMITS, REPLAY)
def test_chosen_and_dropped_are_all_documents_and_keep_the_limits(corpus, budget_tokens, limits, replay_share):
    """Nothing vanishes, nothing exceeds budget, source share or number of passes."""
    rows, frame = built(corpus)

    found = ranked(rows, frame, budget_tokens=budget_tokens, replay_share=replay_share, **limits)

    assert sorted([*found.chosen["doc_id"], *found.dropped["doc_id"]]) == sorted(frame["doc_id"])
    assert set(found.dropped["reason"]) <= set(REASONS)
    read = found.chosen["tokens"] * found.chosen["repeats"]
    assert read.sum() <= budget_tokens
    assert found.chosen["repeats"].is_between(1, limits["max_repeats"]).all()
    assert found.chosen["score"].is_sorted(descending=True)
    reasons = dict(found.dropped.select("doc_id", "reason").iter_rows())
    background = found.chosen.filter(pl.col("slice_ids").list.len() == 0)["doc_id"]
    relevant = frame.filter(
        ~pl.col("doc_id").replace_strict(reasons, default="").is_in(["off_slice", "low_quality"]),
        ~pl.col("doc_id").is_in(background.implode()),
    )
    several = relevant["source"].drop_nulls().n_unique() > 1
    targeted = found.chosen.with_columns(read.alias("read")).filter(pl.col("slice_ids").list.len() > 0)
    for source, total in targeted.group_by("source").agg(pl.sum("read")).iter_rows():
        assert source is None or not several or total <= budget_tokens / 2


@LAWS
@given(CORPORA, st.integers(1, 300), st.integers(0, 300) | st.sampled_from([5000, 50_000]), LIMITS, REPLAY)
def test_a_larger_budget_never_drops_a_document_chosen_before(corpus, budget_tokens, more, limits, replay_share):
    """At equal caps: every document stays, with as many passes or more."""
    rows, frame = built(corpus)
    limits = {**limits, "max_source_share": None, "replay_share": replay_share}

    small = ranked(rows, frame, budget_tokens=budget_tokens, **limits).chosen
    large = ranked(rows, frame, budget_tokens=budget_tokens + more, **limits).chosen

    after = dict(large.select("doc_id", "repeats").iter_rows())
    for doc_id, repeats in small.select("doc_id", "repeats").iter_rows():
        assert after.get(doc_id, 0) >= repeats


@LAWS
@given(CORPORA, st.sampled_from([0.001, 0.37, 7.0, 1e6]), LIMITS)
def test_scaling_all_slice_weights_changes_nothing(corpus, factor, limits):
    """Points are shares in the end."""
    rows, frame = built(corpus)
    scaled = [one | {"recoverable_points": one["recoverable_points"] * factor} for one in (SUMS, LOGIC)]

    first = ranked(rows, frame, budget_tokens=200, **limits)
    second = ranked(rows, frame, budget_tokens=200, wanted=scaled, **limits)

    assert first.chosen.equals(second.chosen)
    assert first.dropped.equals(second.dropped)


@LAWS
@given(CORPORA, st.integers(1, 5), st.sampled_from(["x", "new"]), LIMITS)
def test_an_irrelevant_document_changes_no_others_rank(corpus, quality, source, limits):
    """Whatever its size, source or text."""
    rows, frame = built(corpus)
    novel = label("novel", "composition", "culture.arts_media", "narrate", quality=quality)
    more = pl.DataFrame([("novel", NOVEL * 3, 50, source)], schema=frame.schema, orient="row")

    first = ranked(rows, frame, budget_tokens=200, **limits)
    second = ranked([*rows, novel], pl.concat([frame, more]), budget_tokens=200, **limits)

    assert first.chosen.equals(second.chosen)


@settings(max_examples=15, deadline=None)
@given(CORPORA, st.randoms(), LIMITS)
def test_order_and_shards_change_no_byte(tmp_path_factory, corpus, random, limits):
    """Shuffled rows in one file or two give the same two files."""
    folder = tmp_path_factory.mktemp("bytes")
    rows, frame = built(corpus)
    frame.write_parquet(folder / "whole.parquet")
    order = random.sample(range(frame.height), frame.height)
    cut = random.randint(0, frame.height)
    frame[order[:cut]].write_parquet(folder / "part-0.parquet")
    frame[order[cut:]].write_parquet(folder / "part-1.parquet")

    written = []
    for name, some_rows, paths in (
        ("first", rows, ["whole.parquet"]),
        ("second", [rows[k] for k in order], ["part-0.parquet", "part-1.parquet"]),
    ):
        if not corpus:
            return
        inputs = [folder / path for path in paths]
        found = ranked(some_rows, inputs, budget_tokens=200, items=items(("quiz/1", NOVEL)), **limits)
        write_table(found.chosen, folder / f"{name}.parquet")
        write_table(found.dropped, folder / f"{name}.dropped.parquet")
        written.append([(folder / f"{name}{end}").read_bytes() for end in (".parquet", ".dropped.parquet")])

    assert written[0] == written[1]


def test_a_located_list_says_where_each_document_lies(tmp_path):
    """Shard name and row, when asked for."""
    frame = documents({"x": NOVEL, "a": NOVEL})
    frame.write_parquet(tmp_path / "part-0.parquet")

    found = ranked([sums("a")], [tmp_path / "part-0.parquet"], locate=True)

    assert found.chosen.select("doc_id", "row").rows() == [("a", 1)]
    assert "part-0" in found.chosen["shard"][0]
