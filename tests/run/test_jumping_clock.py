"""A wall clock that jumps while a run is under way, in one of two processes."""

from __future__ import annotations

import pytest

from tests.sessions.test_runs import answers, asked, finish, wait_for
from tests.sessions.test_store_faults import SCRIPT, SUMMARY, Check, undisturbed
from tests.support.run_fixtures import Project, endpoint
from tests.support.server_fixtures import ServerProcess

__all__ = ["undisturbed"]

pytestmark = pytest.mark.slow

DAY_S = 86_400
# What sets the clock of a machine is seen by every process on it, so the test sets that
# of one process instead: all that reads the time there gets it from here.
CLOCK = """
import time
from pathlib import Path

file, real = Path(__file__).with_name("offset"), time.time
time.time = lambda: real() + float(file.read_text())
"""


@pytest.mark.parametrize("jump_s", [2 * DAY_S, -2 * DAY_S])
def test_a_clock_that_jumps(
    project: Project, server: ServerProcess, undisturbed: Check, jump_s: int
) -> None:
    offset = project.pytester.path / "offset"
    offset.write_text("0")
    project.pytester.makepyfile(jumping_clock=CLOCK)
    server.control(**SCRIPT, latency_s=0.5)
    arguments = [*endpoint(server.url), "--vlm-concurrency=2"]
    steady = project.start(*arguments)
    jumping = project.start(*arguments, "-p", "jumping_clock")
    both = "SELECT count(DISTINCT session_id) FROM answers"
    wait_for(lambda: answers(project) > 0 and project.stored(both) == [(2,)])
    new = offset.with_suffix(".new")
    new.write_text(str(jump_s))
    new.replace(offset)
    for process in (steady, jumping):
        assert SUMMARY in finish(process)
    assert set(asked(server).values()) == {1}
    undisturbed(project)
    times = project.stored("SELECT max(answered_at) - min(answered_at) FROM answers")
    [(span_s,)] = times
    assert isinstance(span_s, float)
    assert span_s > DAY_S  # It did jump.
