"""What the store tells of runs that are over."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_vlmeval.records import Plan, PlanEntry, Score, Start, Verdict
from pytest_vlmeval.run.plan import find_revision
from pytest_vlmeval.run.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path)
    yield store
    store.close()


def plan(run_id: str, *indexes: str) -> Plan:
    entry = PlanEntry(
        dataset="Data", fingerprint="Data-1", modified=False, indexes=indexes
    )
    return Plan(run_id=run_id, scorer="sandbox", entries=(entry,))


def add_score(store: Store, score_id: str, run_id: str, value: float) -> None:
    store.claim_score(score_id, run_id, "Data-1", "session", "owner")
    score = Score(
        dataset="Data",
        metrics={"Overall": value},
        main_metric="Overall",
        value=value,
        best=value,
        samples=2,
        answered=2,
        correct=1,
        undecided=0,
        modified=False,
        scorer="sandbox",
        judge="exact_matching",
        verdicts=(Verdict(index="1", value=1.0),),
    )
    store.finish_score(score_id, score)


def test_runs_and_their_sessions_newest_first(store: Store) -> None:
    first = store.open_run({"model": "one"}, "s1", fresh=False)
    second = store.open_run({"model": "two"}, "s2", fresh=False)
    start = Start(
        revision="abd-dirty", command="pytest", versions={"Python": "3"}, fails="wrong"
    )
    store.save_plan("s1", plan(first, "1"))
    store.save_plan("s3", plan(first, "1", "2"), start)
    assert [(run.run_id, run.model) for run in store.runs()] == [
        (second, "two"),
        (first, "one"),
    ]
    sessions = store.sessions(first)
    assert [(each.session_id, each.start) for each in sessions] == [
        ("s3", start),
        ("s1", Start()),
    ]
    assert sessions[0].plan == plan(first, "1", "2")
    assert sessions[0].created_at >= sessions[1].created_at > 1.7e9
    assert store.sessions(second) == []


def test_scores_of_all_runs_but_not_those_in_the_making(store: Store) -> None:
    first = store.open_run({"model": "one"}, "s1", fresh=False)
    second = store.open_run({"model": "two"}, "s2", fresh=False)
    add_score(store, "a", first, 40)
    add_score(store, "b", second, 60)
    store.claim_score("c", second, "Data-1", "session", "owner")
    found = [(each.model, each.dataset, each.value) for each in store.past_scores()]
    assert found == [("two", "Data", 60), ("one", "Data", 40)]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(
        command, cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_revision_is_the_commit_and_says_if_it_is_changed(tmp_path: Path) -> None:
    assert find_revision(tmp_path) == ""
    git(tmp_path, "init")
    (tmp_path / "file").write_text("one", encoding="utf-8")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "-m", "one")
    commit = git(tmp_path, "rev-parse", "--short=10", "HEAD")
    assert find_revision(tmp_path) == commit
    (tmp_path / "file").write_text("two", encoding="utf-8")
    assert find_revision(tmp_path) == f"{commit}-dirty"


def test_a_folder_that_is_gone_has_no_revision(tmp_path: Path) -> None:
    assert find_revision(tmp_path / "gone") == ""
