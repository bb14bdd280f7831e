"""The store of paid answers: never unpickles, never evicts, never serves what it cannot vouch for."""

from __future__ import annotations

import io
import os
import pickle
import sqlite3
import stat
import threading

import pytest
import zstandard

from annotator.errors import BadInput
from annotator.judges.cache import (
    Answer,
    AnswerCache,
    cache_stats,
    decode,
    encode,
    export_cache,
    import_cache,
    prune_cache,
)
from annotator.judges.claims import Claims

KEYS = [f"{number:064x}" for number in range(300)]
ANSWER = Answer({"task_type": "calculate"}, "served-model", "json_schema", [1, 900, 800, 60], None)


def filled(folder, count=3, model="served-model"):
    cache = AnswerCache(folder)
    cache.put_many((key, Answer({"n": n}, model, "json_schema", [1, 2, 3, 4])) for n, key in enumerate(KEYS[:count]))
    cache.close()
    return folder


def database(folder):
    return sqlite3.connect(folder / "answers" / "cache.db", isolation_level=None)


class Exploit:
    """Unpickling one of these would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_an_answer_comes_back_as_it_was_kept(tmp_path):
    """Also in another process's eyes, and after hundreds of others."""
    cache = AnswerCache(tmp_path)
    cache.put_many((key, ANSWER) for key in KEYS)
    cache.close()

    again = AnswerCache(tmp_path)
    assert again.get_many([KEYS[7], "f" * 64]) == [ANSWER, None]
    assert cache_stats(tmp_path)["answers"] == 300
    again.close()


def test_only_the_owner_can_look_into_the_folder(tmp_path):
    """Prompts and answers may be confidential."""
    filled(tmp_path / "cache")
    assert stat.S_IMODE((tmp_path / "cache" / "answers").stat().st_mode) == 0o700


def test_rows_are_plain_json_bound_to_their_key():
    """A row under another key, or with one changed byte, is no answer."""
    row = encode(KEYS[1], ANSWER)
    assert (row[:2], row[-1:]) == (b'["', b"]")
    assert decode(KEYS[1], row) == ANSWER
    assert decode(KEYS[2], row) is None
    for place in range(len(row)):
        assert decode(KEYS[1], row[:place] + bytes([row[place] ^ 1]) + row[place + 1 :]) in (None, ANSWER)
    assert decode(KEYS[1], b"") is None
    assert decode(KEYS[1], b'["0123456789abcdef",]') is None


@pytest.mark.parametrize("mode", [1, 2, 3, 4])
@pytest.mark.parametrize("as_file", [False, True])
def test_a_planted_row_cannot_run_code(tmp_path, mode, as_file):
    """Pickles, and rows that point to files, are misses, are counted, and are overwritten by the next answer."""
    filled(tmp_path / "cache")
    loot = tmp_path / "loot"
    (tmp_path / "planted.val").write_bytes(pickle.dumps(Exploit(loot)))
    value = None if as_file else pickle.dumps(Exploit(loot))
    filename = "../../planted.val" if as_file else None
    with database(tmp_path / "cache") as connection:
        connection.execute("UPDATE Cache SET mode = ?, value = ?, filename = ? WHERE key = ?",
                           (mode, value, filename, KEYS[0]))  # fmt: skip

    cache = AnswerCache(tmp_path / "cache")
    assert cache.get_many(KEYS[:2])[0] is None
    assert cache.rejected == 1
    cache.put_many([(KEYS[0], ANSWER)])
    assert cache.get_many(KEYS[:1]) == [ANSWER]
    cache.close()
    export_cache(tmp_path / "cache", tmp_path / "out.jsonl.zst")
    assert not loot.exists()
    assert (tmp_path / "planted.val").exists()


@pytest.mark.parametrize(
    "harm",
    [
        lambda connection: connection.execute("INSERT INTO Settings VALUES ('get', 'x')"),
        lambda connection: connection.execute("CREATE VIEW trap AS SELECT 1"),
        lambda connection: connection.execute("CREATE TRIGGER trap AFTER INSERT ON Cache BEGIN DELETE FROM Cache; END"),
    ],
    ids=["setting", "view", "trigger"],
)
def test_a_database_with_foreign_things_is_set_aside(tmp_path, harm):
    """Nothing of it is used; the user is told where it is."""
    filled(tmp_path)
    with database(tmp_path) as connection:
        harm(connection)
    cache = AnswerCache(tmp_path)
    assert cache.get_many(KEYS[:1]) == [None]
    assert "set aside" in cache.notes[0]
    assert (tmp_path / "answers.damaged-1" / "cache.db").exists()
    cache.close()


@pytest.mark.parametrize("harm", ["not a database", "cut", "zeros in the middle"])
def test_a_damaged_database_is_reported_set_aside_and_rebuilt(tmp_path, harm):
    """What cannot be read is never served; the new one works at once."""
    filled(tmp_path, 300)
    path = tmp_path / "answers" / "cache.db"
    content = path.read_bytes()
    for extra in ("cache.db-wal", "cache.db-shm"):
        (tmp_path / "answers" / extra).unlink(missing_ok=True)
    if harm == "not a database":
        path.write_bytes(b"hello" * 1000)
    elif harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(content[:4096] + b"\0" * 20_000 + content[24_096:])

    cache = AnswerCache(tmp_path)
    answers = cache.get_many(KEYS)
    cache.put_many([(KEYS[0], ANSWER)])
    assert cache.get_many(KEYS[:1]) == [ANSWER]
    assert all(answer is None for answer in answers)
    assert any("set aside" in note for note in cache.notes)
    cache.close()


def test_a_carried_cache_holds_the_same_answers(tmp_path):
    """Export and import; answers that are there already are not counted."""
    filled(tmp_path / "here", 5)
    assert export_cache(tmp_path / "here", tmp_path / "answers.jsonl.zst") == 5
    assert import_cache(tmp_path / "there", tmp_path / "answers.jsonl.zst") == 5
    assert import_cache(tmp_path / "there", tmp_path / "answers.jsonl.zst") == 0
    here, there = AnswerCache(tmp_path / "here"), AnswerCache(tmp_path / "there")
    assert here.get_many(KEYS[:6]) == there.get_many(KEYS[:6])
    here.close()
    there.close()


def test_an_import_names_the_line_that_is_no_answer(tmp_path):
    """A changed label does not get in."""
    filled(tmp_path / "here", 2)
    export_cache(tmp_path / "here", tmp_path / "a.jsonl.zst")
    packed = io.BytesIO((tmp_path / "a.jsonl.zst").read_bytes())
    lines = zstandard.ZstdDecompressor().stream_reader(packed).read().splitlines(keepends=True)
    forged = lines[0] + lines[1].replace(b'"n":1', b'"n":2')
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.ZstdCompressor().compress(forged))
    with pytest.raises(BadInput, match=r"b\.jsonl\.zst:2: not an exported answer"):
        import_cache(tmp_path / "there", tmp_path / "b.jsonl.zst")


def test_answers_are_pruned_by_model_and_age_only(tmp_path):
    """All conditions must hold; without one nothing is deleted."""
    filled(tmp_path, 4, "old-model")
    assert prune_cache(tmp_path, model="other") == 0
    assert prune_cache(tmp_path, model="old-model", older_than_days=1) == 0
    assert prune_cache(tmp_path, model="old-model") == 4
    assert cache_stats(tmp_path)["answers"] == 0
    with pytest.raises(BadInput, match="no condition"):
        prune_cache(tmp_path)
    with pytest.raises(BadInput, match="no answer cache"):
        cache_stats(tmp_path / "nowhere")


def test_a_claim_holds_while_its_owner_lives(tmp_path):
    """Another process gets the rest at once, and the claimed keys when the owner gives up or dies."""
    first, second = Claims(tmp_path), Claims(tmp_path)
    assert first.take(KEYS[:3]) == set()
    assert second.take(KEYS[2:5]) == {KEYS[2]}
    first.release([KEYS[2]])
    assert second.take([KEYS[2]]) == set()
    assert second.take([KEYS[0]]) == {KEYS[0]}
    first._alive.close()  # what the kernel does when a process dies
    assert second.take([KEYS[0], KEYS[1]]) == set()
    second.close()


def test_threads_of_two_caches_share_a_folder(tmp_path):
    """Writers wait for each other; nothing is lost."""

    def write(part):
        cache = AnswerCache(tmp_path)
        for key in KEYS[part::3]:
            cache.put_many([(key, ANSWER)])
        cache.close()

    threads = [threading.Thread(target=write, args=(part,)) for part in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache_stats(tmp_path)["answers"] == 300


def test_an_exported_cache_that_is_cut_short_is_refused(tmp_path):
    """Part of a compressed file must not look like an export without news."""
    path = tmp_path / "answers.jsonl.zst"
    path.write_bytes(zstandard.compress(b"x" * 100_000)[:-4])
    with pytest.raises(BadInput, match="cut short"):
        import_cache(tmp_path / "cache", path)
