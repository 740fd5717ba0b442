"""Whole runs of a model or a judge that answers with hostile texts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile import Hostile, corpus
from tests.run_fixtures import Project, endpoint, math_rows, properties
from tests.server_fixtures import ServerProcess

pytestmark = pytest.mark.slow

# One of each kind and all of those that terminals, files and databases mind.
MINDED = {"control character", "terminal escape", "lone surrogate", "direction mark"}
MINDED |= {"format string", "import", "dunder chain"}


def short_texts(marker: Path) -> list[Hostile]:
    """Give the texts that are not about time."""
    texts = corpus(marker, long_bytes=9)
    return [it for it in texts if it.kind in MINDED and it.text.strip()]


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_run_with_hostile_answers(
    project: Project, vlm_server: Callable[..., ServerProcess], processes: str
) -> None:
    marker = project.pytester.path / "marker"
    texts = short_texts(marker)
    rows = math_rows(len(texts))
    for row in rows:
        row |= {"answer": "73179", "choices": "[]"}
    answers = {f"<{n}>": it.text for n, it in enumerate(texts, start=1)}
    server = vlm_server(answers=answers)
    project.write_math(0, rows)
    report = project.pytester.path / "junit.xml"
    result = project.run(
        *endpoint(server.url),
        *("-rA", "-vv", "-n", processes, f"--junitxml={report}"),
        timeout_s=300,
    )
    assert result.ret in (0, 1)
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()
    assert not marker.exists()
    told = [properties(case) for case in ET.parse(report).getroot().iter("testcase")]
    verdicts = [each["verdict"] for each in told if each.get("state") == "answered"]
    assert set(verdicts) == {"wrong"}
    assert len(verdicts) >= len(texts) - 2
    # Nothing that a terminal obeys comes out of an answer.
    said = result.stdout.str()
    obeyed = [sign for sign in "\x1b\x07\x08\x9b\x9d\x7f\u202e\u2066" if sign in said]
    assert not obeyed
