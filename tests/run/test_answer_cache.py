"""The cache of answers: what was asked before, of whatever run or dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.run_fixtures import Project, endpoint, math_rows, properties
from tests.support.running import asked
from tests.support.server_fixtures import ServerProcess

FROM_CACHE = "SELECT sample_index FROM answers WHERE from_cache ORDER BY seq"


def test_a_changed_file_asks_only_its_changed_rows(
    project: Project, server: ServerProcess
) -> None:
    rows = math_rows(6)
    project.write_math(6, rows)
    server.control(default="B")
    first = project.ask(server.url)
    rows[3]["question"] = "Another question?"
    rows[4]["image"] = rows[0]["image"]
    project.write_math(6, rows)
    server.control(default="B")
    result, cases = project.junit(*endpoint(server.url))
    assert sorted(map(str, asked(server))) == ["Another question?", "Question <5>?"]
    assert result.parseoutcomes() == first.parseoutcomes()
    assert project.stored(FROM_CACHE) == [("1",), ("2",), ("3",), ("6",)]
    served = properties(cases["test_sample[MathVision_MINI-2]"])
    assert served["from_cache"] == "true"
    assert served["answer"] == "B"
    assert "from_cache" not in properties(cases["test_sample[MathVision_MINI-4]"])


def test_the_same_image_and_question_in_two_datasets_is_asked_once(
    project: Project, server: ServerProcess
) -> None:
    rows = [
        {
            "index": str(n),
            "question": f"What is {n}?",
            "answer": "a thing",
            "image": row["image"],
        }
        for n, row in enumerate(math_rows(3))
    ]
    for name in ("one", "two"):
        lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
        (project.pytester.path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    project.pytester.makepyfile(
        test_own="""
        from pytest_vlmeval import Benchmark

        class TestOne(Benchmark):
            datasets = ["one.tsv"]

        class TestTwo(Benchmark):
            datasets = ["two.tsv"]
        """
    )
    server.control(default="a thing")
    project.ask(server.url, "-k", "TestOne").assert_outcomes(passed=5, deselected=3)
    project.ask(server.url).assert_outcomes(passed=8)
    assert sorted(asked(server).values()) == [1, 1, 1]


@pytest.mark.slow
def test_another_address_is_served_other_parameters_are_not(
    project: Project, server: ServerProcess, vlm_server: object
) -> None:
    project.write_math(3)
    project.ask(server.url)
    rows = math_rows(4)
    project.write_math(4, rows)
    other = server.url.replace("127.0.0.1", "localhost")
    project.ask(other, "--vlm-timeout=77", "--vlm-concurrency=2")
    assert len(server.requests()) == 4
    project.ask(server.url, "--vlm-max-tokens=100")
    project.ask(server.url, "--vlm-temperature=0.5")
    assert len(server.requests()) == 12


@pytest.mark.slow
def test_fresh_uses_no_cache_nor_does_what_resumes_it(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(4)
    project.ask(server.url)
    # Half of the samples are asked afresh; the rest by the command that goes on.
    project.ask(server.url, "--vlm-fresh", "--vlm-mode=infer", "--vlm-limit=2")
    assert len(server.requests()) == 6
    project.ask(server.url)
    assert len(server.requests()) == 8
    assert project.stored(FROM_CACHE) == []


@pytest.mark.parametrize(
    "rule",
    [
        {"status": 400, "message": "no"},
        {"answer": ""},
        {"answer": "", "finish_reason": "length"},
    ],
    ids=["failed", "empty", "cut off before any text"],
)
def test_what_is_no_answer_is_never_served(
    project: Project, server: ServerProcess, rule: dict[str, object]
) -> None:
    rows = math_rows(3)
    project.write_math(3, rows)
    server.control(default="B", rules=[{"contains": "<2>", **rule}])
    project.ask(server.url).assert_outcomes(failed=2, xfailed=2)
    rows[2]["question"] = "Another question?"
    project.write_math(3, rows)
    server.control(default="B")
    project.ask(server.url).assert_outcomes(passed=2, xfailed=2)
    assert sorted(map(str, asked(server))) == ["Another question?", "Question <2>?"]


def test_what_was_cut_off_is_served(project: Project, server: ServerProcess) -> None:
    rows = math_rows(3)
    project.write_math(3, rows)
    rule = {"contains": "<2>", "answer": "half of", "finish_reason": "length"}
    server.control(default="B", rules=[rule])
    project.ask(server.url).assert_outcomes(failed=1, xfailed=3)
    rows[2]["question"] = "Another question?"
    project.write_math(3, rows)
    server.control(default="B")
    project.ask(server.url).assert_outcomes(failed=1, xfailed=3)
    assert list(map(str, asked(server))) == ["Another question?"]


def test_a_served_answer_costs_no_request_and_no_token(
    project: Project, server: ServerProcess
) -> None:
    rows = math_rows(2)
    project.write_math(2, rows)
    project.ask(server.url)
    rows[1]["question"] = "Another question?"
    project.write_math(2, rows)
    project.ask(server.url)
    costs = project.stored(
        "SELECT attempts, prompt_tokens, completion_tokens, latency_ms "
        "FROM answers WHERE from_cache"
    )
    assert costs == [(0, 0, 0, 0.0)]


def test_equal_prompts_of_one_session_are_its_own_answers(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked once; no other command is held responsible for them."""
    monkeypatch.chdir(project.pytester.path)
    rows = [f"{n}\tthe same?\tA\tx\ty" for n in range(40)]
    text = "\n".join(["index\tquestion\tanswer\tA\tB", *rows])
    Path("equal.tsv").write_text(text + "\n")
    project.pytester.makepyfile(
        test_own="""
        from pytest_vlmeval import Benchmark

        class TestEqual(Benchmark):
            datasets = ["equal.tsv"]
        """
    )
    server.control(default="A")
    result, cases = project.junit(
        *endpoint(server.url),
        *("--vlm-concurrency=2", "--vlm-export=out", "--vlm-report=r.html"),
    )
    assert result.ret == 0
    sent = len(server.requests())
    assert 0 < sent < 40
    line = f"{sent} asked now, {40 - sent} by the answer to an equal prompt among them"
    result.stdout.fnmatch_lines([f"40 answers: {line}", f"asked: {sent} requests, *"])
    items = [properties(cases[f"test_sample[equal-{n}]"]) for n in range(40)]
    assert [each["answer_from"] for each in items] == ["this session"] * 40
    assert sum("from_cache" in each for each in items) == 40 - sent
    account = json.loads(Path("out/results.json").read_text("utf-8"))["account"]
    origins = account["origins"]
    counts = origins["asked"], origins["equal"], origins["stored"]
    assert counts == (sent, 40 - sent, 0)
    assert account["now"]["requests"] == sent
    assert line in Path("r.html").read_text("utf-8")
    # The next command has them from the store, and asks nothing.
    result = project.ask(server.url)
    result.stdout.fnmatch_lines(["40 answers: 0 asked now, 40 from the store (*"])
    assert len(server.requests()) == sent
