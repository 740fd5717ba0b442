"""The store: runs, claims, answers and scores, and the processes that work on them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.records import (
    Answer,
    Ask,
    Plan,
    PlanEntry,
    Said,
    Score,
    SoundScore,
    Verdict,
)
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store import database as leases
from pytest_vlmeval.run.store.database import make_owner
from tests.support.store_calls import DATA, answer, claim
from tests.support.store_calls import store as store


def test_same_settings_are_one_run_others_another(store: Store) -> None:
    run = store.open_run({"model": "m", "t": 0}, "s1", fresh=False)
    assert store.open_run({"t": 0, "model": "m"}, "s2", fresh=False) == run
    assert store.open_run({"model": "m", "t": 1}, "s2", fresh=False) != run


def test_fresh_starts_once_in_a_session(store: Store) -> None:
    old = store.open_run({"model": "m"}, "s1", fresh=False)
    new = store.open_run({"model": "m"}, "s2", fresh=True)
    assert new != old
    assert store.open_run({"model": "m"}, "s2", fresh=True) == new
    assert store.open_run({"model": "m"}, "s3", fresh=False) == new


def test_plan_of_the_first_process_is_kept(store: Store) -> None:
    entry = PlanEntry(
        dataset="Data", fingerprint=DATA, modified=True, indexes=("1", "007")
    )
    plan = Plan(run_id="r", scorer="x", entries=(entry,))
    assert store.load_plan("s") is None
    store.save_plan("s", plan)
    store.save_plan("s", Plan(run_id="r", scorer="x", entries=()))
    assert store.load_plan("s") == plan


def test_a_sample_is_claimed_once(store: Store) -> None:
    assert claim(store, "s", "me", ["2", "1"]) == ["2", "1"]
    assert claim(store, "s", "you", ["1", "2", "3"]) == ["3"]


def test_answers_survive_as_they_are(store: Store) -> None:
    texts = ["NA", "007", "=B", "", "x" * 40_000, "line\r\nend\t\0\1"]
    texts += ["答案 B 🙂", "half a pair: \ud800", "\\frac{1}{2} \1d800"]
    new = [
        answer(str(n), text, reasoning=text[::-1], latency_ms=1.5)
        for n, text in enumerate(texts)
    ]
    earlier = tuple(Said(text, reasoning=text[::-1]) for text in texts)
    new.append(answer("all", "end", turns=len(texts) + 1, earlier=earlier))
    store.record("r", "s", new)
    (found,) = store.answers_after("r", [DATA], 0)
    assert [each.answer for each in found] == new
    assert list(store.answers_after("r", [DATA], found[2].seq)) == [found[3:]]
    assert list(store.answers_after("other", [DATA], 0)) == []


def test_an_answer_ends_its_claim_and_is_not_asked_again(store: Store) -> None:
    claim(store, "s", "me", ["1"])
    store.record("r", "s", [answer("1")])
    assert claim(store, "s2", "you", ["1"]) == []


@pytest.mark.parametrize(
    "odd",
    [{"prompt_tokens": 10**23}, {"earlier": (Said("A\ud800", object()),)}],  # type: ignore[arg-type]
)
def test_an_answer_that_no_database_takes_fails_alone(
    store: Store, odd: dict[str, object]
) -> None:
    claim(store, "s", "me", ["1", "2", "3"])
    odd_one = answer("2", "B", attempts=3, turns=2, **odd)
    kept = store.record("r", "s", [answer("1"), odd_one, answer("3")])
    (found,) = store.answers_after("r", [DATA], 0)
    assert found == kept
    first, lost, last = (each.answer for each in found)
    assert (first, last) == (answer("1"), answer("3"))
    assert (lost.state, lost.text, lost.attempts, lost.turns) == ("failed", "", 3, 2)
    assert lost.error.startswith("the answer cannot be stored: ")
    assert claim(store, "s", "me", ["1", "2", "3"]) == []
    assert claim(store, "s2", "me", ["1", "2", "3"]) == ["2"]


@pytest.mark.parametrize("state", ["failed", "empty", "filtered", "refused", "aborted"])
def test_an_unusable_answer_is_asked_again_by_the_next_session(
    store: Store, state: str
) -> None:
    store.record("r", "s", [answer("1", state=state)])
    assert claim(store, "s", "me", ["1"]) == []
    assert claim(store, "s2", "me", ["1"]) == ["1"]


def test_an_answer_that_was_cut_off_is_kept(store: Store) -> None:
    """Its text scores: to ask again for it would give the same once more."""
    new = [answer("1", state="cut_off"), answer("2", state="empty")]
    keys = {(DATA, Ask(each.index)): f"key {each.index}" for each in new}
    store.record("r", "s", new, keys)
    assert claim(store, "s2", "me", ["1", "2"]) == ["2"]
    assert store.count_usable("r") == 1
    assert list(store.find_cached(["key 1", "key 2"], 0)) == ["key 1"]


def test_answers_are_read_in_parts(store: Store) -> None:
    new = [
        Answer(fingerprint=name, index=str(number), state="answered")
        for number in range(1_250)
        for name in (DATA, "Other")
    ]
    kept = store.record("r", "s", new)
    parts = list(store.answers_after("r", [DATA], kept[9].seq))
    assert [len(part) for part in parts] == [500, 500, 245]
    assert [each for part in parts for each in part] == kept[10::2]


def score(**more: object) -> Score:
    fields: dict[str, object] = {
        "dataset": "Data",
        "metrics": {"Overall": 0.5, "a b": 1.0},
        "main_metric": "Overall",
        "value": 50.0,
        "best": 100.0,
        "samples": 2,
        "answered": 2,
        "correct": 1,
        "undecided": 1,
        "modified": True,
        "scorer": "x",
        "judge": "j",
        "scoring": "corrected",
        "notes": ("split by character",),
        "verdicts": (
            Verdict(index="1", value=1.0, extracted="A", reason="r"),
            Verdict(index="2", value=None, state="judge_unclear", exchanges=(3, 4)),
            Verdict(index="3", value=1.0, corrected=0.0, rests_on_defect=True),
        ),
        "differing": 1,
        "sound": SoundScore(defects=1, value=25.0, metrics={"Overall": 0.25}),
    }
    return Score(**{**fields, **more})  # type: ignore[arg-type]


def test_a_score_is_computed_once(store: Store) -> None:
    assert store.claim_score("id", "r", DATA, "s", "me") == "mine"
    assert store.claim_score("id", "r", DATA, "s", "you") == "taken"
    assert store.load_score("id") is None
    store.finish_score("id", score())
    assert store.claim_score("id", "r", DATA, "s2", "you") == "done"
    assert store.load_score("id") == score()
    assert store.load_score("id", brief=True) == score(verdicts=())


def test_a_failed_scoring_is_tried_again_by_the_next_session(store: Store) -> None:
    store.claim_score("id", "r", DATA, "s", "me")
    store.fail_score("id", VlmEvalError("it hung"))
    assert store.claim_score("id", "r", DATA, "s", "you") == "failed"
    assert str(store.load_score("id")) == "it hung"
    assert store.claim_score("id", "r", DATA, "s2", "you") == "mine"


def test_a_score_that_needs_a_judge_says_so_to_other_processes(store: Store) -> None:
    store.claim_score("id", "r", DATA, "s", "me")
    store.fail_score("id", NeedsJudgeError("judge wanted"))
    assert store.claim_score("id", "r", DATA, "s", "you") == "failed"
    found = store.load_score("id")
    assert isinstance(found, NeedsJudgeError)
    assert str(found) == "judge wanted"


def test_a_score_whose_judge_failed_is_tried_again_by_the_next_session(
    store: Store,
) -> None:
    failed = score(verdicts=(Verdict(index="1", value=None, state="judge_failed"),))
    store.claim_score("id", "r", DATA, "s", "me")
    store.finish_score("id", failed)
    assert store.claim_score("id", "r", DATA, "s", "you") == "done"
    assert store.load_score("id") == failed
    assert store.claim_score("id", "r", DATA, "s2", "you") == "mine"


CLAIM_ALL = """
import sys
from pathlib import Path
from pytest_vlmeval.records import Answer, Ask
from pytest_vlmeval.run.store import Store
store = Store(Path(sys.argv[1]))
for start in range(0, 300, 7):
    indexes = [str(n) for n in range(start, start + 7)]
    asks = [Ask(index) for index in indexes]
    mine = store.claim("r", "s", sys.argv[2], "Data-1", asks)
    store.record("r", "s", [
        Answer(fingerprint="Data-1", index=i, state="answered", text=sys.argv[2])
        for i, _ in mine
    ])
store.close()
"""


def test_processes_share_the_work_without_asking_twice(tmp_path: Path) -> None:
    workers = [
        subprocess.Popen([sys.executable, "-c", CLAIM_ALL, str(tmp_path), name])
        for name in ("one", "two", "three")
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    store = Store(tmp_path)
    (found,) = store.answers_after("r", [DATA], 0)
    store.close()
    assert sorted(int(each.answer.index) for each in found) == list(range(301))


def test_a_new_store_waits_for_another_process_that_writes_to_it(
    tmp_path: Path,
) -> None:
    file = tmp_path / "store.sqlite"
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE theirs (number INTEGER)")
    # SQLite itself does not wait for such a lock when it switches to its log.
    other.execute("BEGIN IMMEDIATE")
    end = threading.Timer(0.3, other.execute, ("COMMIT",))
    end.start()
    Store(tmp_path).close()
    end.join()
    assert other.execute("SELECT count(*) FROM theirs").fetchone() == (0,)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.close()


def test_a_foreign_file_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "store.sqlite"
    file.write_bytes(b"This is not a database, but somebody's notes." * 100)
    before = file.read_bytes()
    with pytest.raises(VlmEvalError) as error:
        Store(tmp_path)
    assert str(error.value) == (
        f"The run store in {tmp_path} cannot be used: file is not a database. Move the "
        "damaged file away (it is never overwritten), or choose another folder with "
        "--vlm-work-dir, then run the same command again: answers that were recorded "
        "are kept."
    )
    assert file.read_bytes() == before
    # Either of what the message advises.
    Store(tmp_path / "other").close()
    file.rename(tmp_path / "notes")
    Store(tmp_path).close()
    assert (tmp_path / "notes").read_bytes() == before


def test_another_schema_version_is_named(tmp_path: Path) -> None:
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / "store.sqlite") as connection:
        connection.execute("UPDATE meta SET schema_version = 99")
    connection.close()
    with pytest.raises(VlmEvalError) as error:
        Store(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'store.sqlite'} has the schema version 99, this version of "
        "pytest-vlmeval uses 7. Choose another folder with --vlm-work-dir, or go on "
        "with the version that wrote it."
    )
    Store(tmp_path / "other").close()


def test_a_work_dir_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VlmEvalError) as error:
        Store(tmp_path / "file" / "below")
    assert str(error.value) == (
        f"The run store in {tmp_path / 'file' / 'below'} cannot be used: [Errno 20] "
        f"Not a directory: '{tmp_path / 'file' / 'below'}'. Make it writable, or "
        "choose another folder with --vlm-work-dir, then run the same command again: "
        "answers that were recorded are kept."
    )


def owner_of(pid: int) -> str:
    """Name a process of this machine."""
    machine, _, _ = make_owner().rsplit(":", 2)
    return f"{machine}:{pid}:0"


def dead_owner() -> str:
    """Name a process of this machine that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return owner_of(process.pid)


def test_who_misses_many_beats_of_another_is_dead(store: Store) -> None:
    store.join("gone", "s", "r", 0)
    store.join("slow", "s", "r", 1)
    store.join("me", "s", "r", 2)
    for owner, index in (("gone", "1"), ("slow", "2")):
        claim(store, "s", owner, [index])
    assert store.claim_score("score", "r", DATA, "s", "gone") == "mine"
    mine = leases.Heartbeat(store, "me")
    for number in range(leases.MISSED_BEATS):
        if number % 10 == 0:
            store.beat("slow")
        mine.beat()
    assert claim(store, "s", "me", ["1", "2"]) == []
    mine.beat()
    assert claim(store, "s", "me", ["1", "2"]) == ["1"]
    assert store.claim_score("score", "r", DATA, "s", "me") == "mine"
    states = {each.owner: each.state for each in store.members("s")}
    assert states == {"gone": "dead", "slow": "live", "me": "live"}


def test_who_was_held_up_and_beats_again_is_back(store: Store) -> None:
    store.join("me", "s", "r", 0)
    store.bury(["me"])
    leases.Heartbeat(store, "me").beat()
    assert [each.state for each in store.members("s")] == ["live"]


def test_leases_of_a_dead_process_end_at_once(store: Store) -> None:
    gone, here, there = dead_owner(), make_owner(), f"elsewhere:{os.getpid()}:0"
    for number, owner in enumerate((gone, here, there), 1):
        store.join(owner, "s", "r", number)
        claim(store, "s", owner, [str(number)])
    assert store.claim_score("score", "r", DATA, "s", gone) == "mine"
    store.release_dead()
    assert claim(store, "s", "me", ["1", "2", "3"]) == ["1"]
    assert store.claim_score("score", "r", DATA, "s", "me") == "mine"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_zombie_is_dead(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # It has ended, and nobody has asked for its status.
    owner = owner_of(process.pid)
    store.join(owner, "s", "r", 0)
    claim(store, "s", owner, ["1"])
    end = time.monotonic() + 10
    while not claim(store, "s", "me", ["1"]):
        assert time.monotonic() < end
        store.release_dead()
    process.wait()
    process.stdout.close()


def test_heartbeat_keeps_and_then_frees(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    beaten = threading.Event()
    store.join("me", "s", "r", 0)
    store.join("you", "s", "r", 1)
    claim(store, "s", "me", ["1"])
    heartbeat = leases.Heartbeat(store, "me", beaten.set)
    watching = leases.Heartbeat(store, "you")
    heartbeat.start()
    for _ in range(leases.MISSED_BEATS + 2):
        beaten.clear()
        assert beaten.wait(30)
        watching.beat()
    assert claim(store, "s", "you", ["1"]) == []
    heartbeat.stop()
    assert claim(store, "s", "you", ["1"]) == ["1"]
    assert [each.state for each in store.members("s")] == ["left", "live"]
