"""What a process knows of the answers in the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_vlmeval.records import Answer, Ask, Plan, PlanEntry
from pytest_vlmeval.run.queue import Board
from pytest_vlmeval.run.store import Store

DATA = "Data-1"
ENTRY = PlanEntry(
    dataset="Data", fingerprint=DATA, modified=False, indexes=("3", "1", "2")
)
PLAN = Plan(run_id="r", scorer="x", entries=(ENTRY,), repeats=2)


def answer(index: str, repeat: int = 0, state: str = "answered") -> Answer:
    return Answer(
        fingerprint=DATA,
        index=index,
        repeat=repeat,
        state=state,  # type: ignore[arg-type]
        text="A",
    )


@pytest.mark.parametrize("brief", [False, True])
def test_what_is_missing_in_the_order_of_the_samples(
    tmp_path: Path, brief: bool
) -> None:
    store = Store(tmp_path)
    board = Board(store, PLAN, "s", brief=brief)
    new = [answer("1"), answer("3"), answer("3", 1), answer("2", 1, "failed")]
    kept = store.record("r", "s", new)
    board.refresh()
    assert board.missing(DATA) == [Ask("1", 1), Ask("2", 0)]
    assert board.progress() == {DATA: 4}
    assert board.answered(DATA) == 1
    found = board.get(DATA, "3", 1)
    assert found is not None
    assert found.seq == kept[2].seq
    assert found.answer.state == "answered"
    assert found.answer.text == ("" if brief else "A")
    store.close()


def test_an_answer_of_another_process_is_not_skipped(tmp_path: Path) -> None:
    store = Store(tmp_path)
    board = Board(store, PLAN, "s")
    store.record("r", "other", [answer("1")])
    board.add(store.record("r", "s", [answer("2")]))
    store.record("r", "other", [answer("3")])
    board.refresh()
    assert all(board.get(DATA, index) is not None for index in "123")
    store.close()
