"""Whole runs of a model or a judge that answers with hostile texts."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.hostile import Hostile, corpus
from tests.support.run_fixtures import (
    Project,
    endpoint,
    math_rows,
    properties,
    write_table,
)
from tests.support.server_fixtures import ServerProcess

pytestmark = pytest.mark.slow

# One of each kind and all of those that terminals, files and databases mind.
MINDED = {"control character", "terminal escape", "lone surrogate", "direction mark"}
MINDED |= {"format string", "import", "dunder chain"}


OBEYED = "\x1b\x07\x08\x7f\x9b\x9d\u202e\u2066"


def test_a_run_with_hostile_ids_and_words_of_a_server(
    project: Project, vlm_server: Callable[..., ServerProcess]
) -> None:
    """Ids of a table, what a server refuses a sample with, and why it ended another."""
    rows = [
        {"index": f"{n}{OBEYED}", "question": f"Which <{n}>?{OBEYED}", "answer": "A"}
        | {"A": "red", "B": "green"}
        for n in range(3)
    ]
    write_table(project.pytester.path / "odd.tsv", rows)
    project.pytester.makepyfile(
        test_odd="from pytest_vlmeval import Benchmark\n"
        "class TestOdd(Benchmark):\n    datasets = ['odd.tsv']\n"
    )
    rules = [
        {"contains": "<1>", "status": 400, "message": f"refused{OBEYED}"},
        {"contains": "<2>", "finish_reason": f"odd{OBEYED}", "answer": f"A{OBEYED}"},
    ]
    server = vlm_server(default="A", rules=rules)
    report = project.pytester.path / "junit.xml"
    result = project.run(
        *endpoint(server.url),
        *("-rA", "-vv", f"--junitxml={report}"),
        "--vlm-report=report.html",
    )
    assert result.ret == 1
    said = result.stdout.str() + result.stderr.str()
    assert "INTERNALERROR" not in said
    assert "refused\\x1b\\x07" in said
    assert "finish_reason 'odd\\x1b" in said
    assert not [sign for sign in OBEYED if sign in said]
    assert ET.parse(report).getroot().find("testsuite") is not None


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
