"""What is asked and what is kept, whatever befalls the store or the process."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.models.client import Request
from pytest_vlmeval.records import PromptPart
from tests.support.engine_calls import CONCURRENCY, Asking, ask_for, count_answers
from tests.support.running import wait_for
from tests.support.server_fixtures import ServerProcess

ROOT = Path(__file__).parents[2]


def test_whatever_befalls_one_sample_the_others_are_asked(
    tmp_path: Path, server: ServerProcess
) -> None:
    """A prompt that cannot be made, a file of an odd name, a reply of odd counts."""
    server.control(
        default="B",
        rules=[{"contains": "<5>", "answer": "B", "usage": {"prompt_tokens": 10**30}}],
    )

    def request(fingerprint: str, index: str) -> Request:
        if index == "2":
            raise KeyError(index)
        if index == "3":
            odd = PromptPart(kind="image", media="a\0.png", media_type="image/png")
            return Request(turns=((odd,),), media_folder=tmp_path)
        return ask_for(fingerprint, index)

    indexes = [str(number) for number in range(20)]
    asking = Asking(server.url, tmp_path, indexes, request=request)
    asking.engine.start()
    answers = {each: asking.board.wait("Data-1", each).answer for each in indexes}
    asking.close()
    failed = {name: it.error for name, it in answers.items() if it.state == "failed"}
    where = f"The traceback is in {tmp_path / 'errors.log'}."
    assert failed == {
        "2": f"Asking Data-2 failed unexpectedly: KeyError: '2'. {where}",
        "3": f"Asking Data-3 failed unexpectedly: ValueError: embedded null byte. "
        f"{where}",
    }
    log = (tmp_path / "errors.log").read_text()
    assert "Asking Data-3: dataset Data, sample 3\nTraceback (most recent" in log
    assert "KeyError: '2'" in log
    assert {it.text for it in answers.values() if it.state == "answered"} == {"B"}
    assert answers["5"].prompt_tokens == 0


def test_what_waits_for_the_store_keeps_its_place(
    tmp_path: Path, server: ServerProcess
) -> None:
    """So that a kill at this moment loses no more than may be in flight."""
    server.control(default="B", latency_s=0.02)
    asking = Asking(server.url, tmp_path, [str(number) for number in range(60)])
    other = sqlite3.connect(tmp_path / "store.sqlite", isolation_level=None)
    asking.engine.start()
    wait_for(lambda: count_answers(tmp_path) >= 10)
    other.execute("BEGIN IMMEDIATE")
    kept = count_answers(tmp_path)
    sent = -1
    # Until nothing is sent any more of what was claimed ahead.
    while sent != (sent := len(server.requests())):
        time.sleep(1)
    other.rollback()
    other.close()
    wait_for(lambda: not asking.board.missing("Data-1"))
    asking.close()
    # Fewer where some slots were about to claim at that moment.
    assert kept < sent <= kept + CONCURRENCY
    assert set(Counter(each["text"] for each in server.requests()).values()) == {1}


@pytest.mark.slow
def test_a_kill_at_any_moment_costs_no_more_than_what_was_in_flight(
    tmp_path: Path, server: ServerProcess, figure: Callable[[str], None]
) -> None:
    server.control(default="B", latency_s=0.005)
    command = [
        sys.executable,
        "-m",
        "tests.support.engine_calls",
        server.url,
        str(tmp_path),
    ]
    found = subprocess.run(
        [*command, "200", "4711"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lost = json.loads(found.stdout)
    busy = [each for each in lost if each]
    figure(
        f"{len(lost)} kills at concurrency {CONCURRENCY}: {len(busy)} lost answers, "
        f"{max(lost)} at most, {sum(lost) / len(lost):.1f} on average; "
        f"{len(server.requests())} requests"
    )
    assert len(lost) == 200
    assert min(lost) >= 0
    assert max(lost) <= CONCURRENCY
    assert len(busy) > 50
