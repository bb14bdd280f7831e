"""Untouched logs from public repositories, where they lie beside this checkout: every sample of each is read."""

import gzip
import json
import zipfile
from pathlib import Path

import pytest

from annotator.errors import BadInput
from annotator.readers import find_shards, read_items, read_records, read_samples

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "native_logs"
pytestmark = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/native_logs is not here")


def logs(pattern: str) -> list:
    found = sorted(REAL.glob(pattern)) if REAL.is_dir() else []
    return [pytest.param(path, id=path.name[:60]) for path in found]


def samples_in(path: Path) -> int:
    """How many samples an Inspect log holds, counted without our reader."""
    if path.suffix == ".json":
        return len(json.loads(path.read_bytes())["samples"])
    with zipfile.ZipFile(path) as archive:
        return sum(name.startswith("samples/") for name in archive.namelist())


@pytest.mark.parametrize("path", logs("inspect/*"))
def test_inspect_logs_are_read_whole(path):
    samples = read_samples([path])

    assert samples.height == samples_in(path)
    assert samples["response"].null_count() == samples["prompt"].null_count() == 0
    assert samples["finish_reason"].unique().to_list() == ["stop"]
    assert read_items([path]).height == samples["item_id"].n_unique()


def inspect_samples(path: Path) -> list[dict]:
    """The samples of an Inspect log as they stand in it, read without our reader."""
    if path.suffix == ".json":
        return json.loads(path.read_bytes())["samples"]
    with zipfile.ZipFile(path) as archive:
        return [json.loads(archive.read(name)) for name in archive.namelist() if name.startswith("samples/")]


def content_of(message: dict) -> str:
    """The text of a chat message, whose content is a text or a list of parts."""
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


@pytest.mark.parametrize("path", logs("inspect/*"))
def test_inspect_samples_keep_ids_texts_verdicts_and_evidence(path):
    """Each against the file itself: id, epoch, completion, stop reason, tokens used, and the first score."""
    raw = {(str(sample["id"]), sample["epoch"]): sample for sample in inspect_samples(path)}

    samples = read_samples([path])

    assert {(row["item_id"].rsplit("/", 1)[-1], row["sample_index"] + 1) for row in samples.to_dicts()} == set(raw)
    for row in samples.to_dicts():
        sample = raw[row["item_id"].rsplit("/", 1)[-1], row["sample_index"] + 1]
        choice = sample["output"]["choices"][0]
        assert row["response"].strip() == content_of(choice["message"]).strip()
        assert row["finish_reason"] == choice["stop_reason"]
        assert row["output_tokens"] == (sample["output"].get("usage") or {}).get("output_tokens")
        verdicts = [score["value"] for score in (sample.get("scores") or {}).values()]
        if verdicts and verdicts[0] in ("C", "I"):
            assert row["score"] == float(verdicts[0] == "C")
        if not verdicts:
            assert row["score"] is None


@pytest.mark.parametrize(
    "path",
    logs("inspect/*")
    + logs("helm/**/*scenario_state.json*")
    + logs("lm_eval/samples_*")
    + logs("nemo_skills/output-rs*"),
)
@pytest.mark.parametrize("harm", ["empty", "cut in the middle", "other bytes"])
def test_a_harmed_log_gives_one_clear_line(path, harm, tmp_path):
    """No traceback and no half-read log: one line that names the file."""
    content = path.read_bytes()
    harmed = tmp_path / path.name
    harmed.write_bytes(
        {"empty": b"", "cut in the middle": content[: len(content) // 2 + 7], "other bytes": b"\x00\xff" * 99}[harm]
    )

    with pytest.raises(BadInput) as caught:
        read_samples([harmed])
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)


@pytest.mark.parametrize("path", logs("helm/**/*scenario_state.json*"))
def test_helm_logs_are_read_whole(path):
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    requests = json.loads(content)["request_states"]

    samples = read_samples([path])

    assert samples.height == len(requests)
    assert samples["prompt"].to_list() == [request["request"]["prompt"] for request in requests]
    assert samples["response"].to_list() == [request["result"]["completions"][0]["text"] for request in requests]
    assert samples["score"].null_count() == 0


@pytest.mark.parametrize("path", logs("lm_eval/samples_*.jsonl"))
def test_lm_eval_logs_are_read_whole_and_score_as_the_harness_scored(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]

    samples = read_samples([path])

    assert samples["prompt_hash"].to_list() == [row["prompt_hash"] for row in rows]
    assert samples["score"].to_list() == [row["exact_match"] for row in rows]
    assert samples["response"].to_list() == [row["resps"][0][0] for row in rows]
    assert samples["prompt"].to_list() == [row["arguments"]["gen_args_0"]["arg_0"] for row in rows]
    assert samples["stop"].to_list() == [row["arguments"]["gen_args_0"]["arg_1"]["until"] for row in rows]
    assert samples["target"].to_list() == [row["target"] for row in rows]
    assert samples["doc_hash"].to_list() == [row["doc_hash"] for row in rows]
    assert samples.select("eos_token", "eos_token_id", "eot_token_id", "context_length", "max_tokens").row(0) == (
        "<|endoftext|>",
        151643,
        151643,
        32768,
        512,
    )


@pytest.mark.parametrize("path", logs("nemo_skills/*output*"))
def test_nemo_skills_logs_are_read_whole(path):
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]

    samples = read_samples([path])

    assert samples.height == len(rows)
    for name in ("symbolic_correct", "is_correct"):
        if name in rows[0]:
            assert samples["score"].to_list() == [float(row[name]) for row in rows]
    assert samples["output_tokens"].to_list() == [row.get("num_generated_tokens") for row in rows]
    assert samples["response"].to_list() == [row.get("generation") for row in rows]
    assert samples["parsed_answer"].to_list() == [row.get("predicted_answer") for row in rows]


def test_the_seeds_of_a_nemo_skills_benchmark_are_samples_of_the_same_items():
    samples = read_samples([str(REAL / "nemo_skills" / "gpqa__output-rs*")])

    assert samples.group_by("item_id").len()["len"].to_list() == [4, 4, 4, 4]


@pytest.mark.parametrize("path", logs("opencompass/*"))
def test_the_predictions_that_opencompass_ships_are_read_whole(path):
    assert read_samples([path]).height == len(path.read_text().splitlines())


@pytest.mark.parametrize("path", logs("zeroeval_summaries/*") + logs("lm_eval/results_*") + logs("helm/*/stats.json"))
def test_summaries_are_refused_in_one_line(path):
    with pytest.raises(BadInput, match="not a table or evaluation log of a known format"):
        find_shards([path])


def test_the_folder_of_a_harness_means_its_logs_only():
    formats = {folder: {shard.format for shard in find_shards([REAL / folder])}
               for folder in ("helm", "inspect", "lm_eval", "nemo_skills")}  # fmt: skip

    assert formats == {name: {name} for name in formats}


def test_the_corpus_streams_without_a_bad_row():
    corpus = REAL.parent / "corpus"
    if not corpus.is_dir():
        pytest.skip("../shared/data/corpus is not here")
    shard = find_shards([corpus])[-1]

    batches = list(read_records(shard, kind="document"))

    assert all(not batch.bad for batch in batches)
    assert sum(batch.frame.height for batch in batches) > 0
