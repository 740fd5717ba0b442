"""Benchmarks that score their datasets themselves, from their verdicts to the gates."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval import Benchmark, Verdict, evaluate
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import Answer, Sample
from tests.support.birds import PAGE, write_birds
from tests.support.documentation import block, read
from tests.support.failed_sessions import error_of, message_of
from tests.support.judged_sessions import judged_by
from tests.support.run_fixtures import (
    Project,
    endpoint,
    image_bytes,
    properties,
    write_table,
)
from tests.support.server_fixtures import ServerProcess

StartServer = Callable[..., ServerProcess]

SCORED = """
from pytest_vlmeval import Benchmark, Verdict


class TestCount(Benchmark):
    datasets = ["count.tsv"]

    def score(self, sample, answer):
        said = int(answer.text)
        off = abs(said - int(sample.reference))
        if off > int(sample.row["tolerance"]):
            return False
        value = 1 - off / 10
        return Verdict(index=sample.index, value=value, extracted=str(said))
"""
# Right, near enough, too far off, and exactly right again.
ANSWERS = {"<1>": "10", "<2>": "18", "<3>": "5", "<4>": "40"}


@pytest.fixture
def counting(project: Project, server: ServerProcess) -> Project:
    """Give a table with a column of its own, and a benchmark that reads that."""
    rows = [
        {
            "question": f"How many <{number}>?",
            "answer": str(10 * number),
            "tolerance": "5",
            "category": "dots" if number < 3 else "lines",
        }
        for number in range(1, 5)
    ]
    write_table(project.pytester.path / "count.tsv", rows)
    project.pytester.makepyfile(test_count=SCORED)
    server.control(answers=ANSWERS)
    return project


def rewrite(project: Project, before: str, after: str) -> None:
    """Change the benchmark."""
    path = project.pytester.path / "test_count.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "n2"])
def test_verdicts_score_interval_reports_and_resuming(
    counting: Project, server: ServerProcess, workers: list[str]
) -> None:
    arguments = [*endpoint(server.url), *workers]
    reports = ["--vlm-report=run.html", "--vlm-export=out"]
    result, cases = counting.junit(*arguments, *reports)
    result.assert_outcomes(passed=4, xfailed=1)
    result.stdout.fnmatch_lines(
        ["count * 4 * 4 * 3 * Overall 70.00 of 100 * own scoring"]
    )
    score = properties(cases["test_score[count]"])
    assert (score["score"], score["scoring"]) == ("70.0", "own")
    assert (score["judge"], score["correct"]) == ("TestCount.score", "3")
    assert "interval" in " ".join(score)
    near = properties(cases["test_sample[count-2]"])
    assert near["verdict"].startswith("0.8")
    out = counting.pytester.path / "out"
    written = json.loads((out / "results.json").read_text())
    (dataset,) = written["datasets"]
    assert dataset["score"]["metrics"] == {"Overall": 0.7, "dots": 0.9, "lines": 0.5}
    assert dataset["score"]["scoring"] == "own"
    assert "own scoring" in (out / "summary.md").read_text()
    page = (counting.pytester.path / "run.html").read_text()
    assert '<span class="tag">own scoring</span>' in page
    asked = len(server.requests())
    again = counting.run(*arguments)
    again.assert_outcomes(passed=4, xfailed=1)
    assert len(server.requests()) == asked
    assert counting.stored("SELECT count(*) FROM scores") == [(1,)]


def test_a_changed_score_judges_the_stored_answers_anew(
    counting: Project, server: ServerProcess
) -> None:
    counting.ask(server.url)
    asked = len(server.requests())
    rewrite(counting, "off / 10", "off / 20")
    result = counting.ask(server.url)
    result.stdout.fnmatch_lines(["count * Overall 72.50 of 100 *"])
    assert len(server.requests()) == asked
    # What it reads from elsewhere does not show in its code; its revision does.
    rewrite(counting, "    datasets = ", '    scoring = "data of May"\n    datasets = ')
    counting.ask(server.url)
    assert counting.stored("SELECT count(*) FROM scores") == [(3,)]


def test_runs_that_other_code_scored_are_not_compared(
    counting: Project, server: ServerProcess
) -> None:
    counting.ask(server.url)
    counting.ask(server.url, "--vlm-temperature=0.5")
    first, other = (
        str(run_id) for (run_id,) in counting.stored("SELECT run_id FROM runs")
    )
    compared = counting.run("--vlm-compare", first, other)
    assert "not compared" not in compared.stdout.str()
    listed = counting.run("--vlm-runs").stdout.str()
    assert listed.count("Overall 70.00 of 100 (4 samples") == 2
    rewrite(counting, "off / 10", "off / 20")
    counting.ask(server.url, "--vlm-temperature=0.5")
    changed = counting.run("--vlm-compare", first, other)
    changed.stdout.fnmatch_lines(
        ["*count: not compared, the code of TestCount.score was another then"]
    )
    assert "72.50" in counting.run("--vlm-runs").stdout.str()


def test_thresholds_and_baselines_are_held_against_an_own_score(
    counting: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "")
    path = counting.pytester.path / "thresholds.toml"
    path.write_text('["*".count]\nmin = 90\nrule = "point"\n')
    result = counting.ask(server.url, "--snapshot-update")
    assert message_of(result, "count: Overall is below its threshold.")
    result.stdout.fnmatch_lines(["  value      70.00 of 100 *"])
    assert result.parseoutcomes()["failed"] == 1
    path.write_text('["*".count]\nmin = 60\nrule = "point"\n')
    again = counting.ask(server.url)
    again.assert_outcomes(passed=5, xfailed=1)
    kept = json.loads(
        next(counting.pytester.path.glob("__baselines__/*/count.json")).read_text()
    )
    assert kept["scoring"]["method"] == "own"
    assert kept["scoring"]["scorer"].startswith("TestCount.score ")
    # Numbers of other code are not compared with these.
    rewrite(counting, "off / 10", "off / 20")
    changed = counting.ask(server.url)
    assert message_of(changed, "  scoring: scorer: TestCount.score ")


def test_the_metrics_of_aggregate(counting: Project, server: ServerProcess) -> None:
    text = (
        "\n    def aggregate(self, verdicts):\n"
        "        values = [each.value or 0 for each in verdicts]\n"
        '        return {"best half": sum(sorted(values)[2:]) / 2, "n": len(values)}\n'
    )
    path = counting.pytester.path / "test_count.py"
    path.write_text(path.read_text() + text)
    result, cases = counting.junit(*endpoint(server.url), "--vlm-properties=all")
    result.stdout.fnmatch_lines(["count * best half 100.00 of 100 *"])
    score = properties(cases["test_score[count]"])
    assert score["metric: n"] == "4.0"


def test_a_score_that_fails_fails_its_items_and_no_others(
    counting: Project, server: ServerProcess
) -> None:
    server.control(answers={**ANSWERS, "<3>": "five"})
    rewrite(counting, '["count.tsv"]', '["count.tsv", "other.tsv"]')
    rows = [{"question": "Other <1>?", "answer": "10", "tolerance": "1"}]
    write_table(counting.pytester.path / "other.tsv", rows)
    result = counting.ask(server.url)
    result.assert_outcomes(passed=5, failed=2)
    log = counting.pytester.path / ".vlmeval" / "errors.log"
    failure = (
        "TestCount.score (test_count.py:8) for count-3 failed unexpectedly: "
        "ValueError: invalid literal for int() with base 10: 'five'. The traceback is "
        f"in {log}."
    )
    assert message_of(result, "TestCount.score ") == failure
    assert message_of(result, "count has no score: ") == (
        f"count has no score: {failure} Correct it and run the same command again: the "
        "answers are stored, and only the scoring is repeated."
    )
    assert "int(answer.text)" in log.read_text()
    asked = len(server.requests())
    rewrite(counting, "int(answer.text)", "int(answer.text.replace('five', '5'))")
    counting.ask(server.url).assert_outcomes(passed=6, xfailed=1)
    assert len(server.requests()) == asked


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("1.5", "1.5"),
        ("float('nan')", "nan"),
        ("'right'", "'right'"),
        ("None", "None"),
        ("Verdict(index='1', value=None)", "Verdict(index='1', value=None, "),
    ],
)
def test_what_is_no_verdict(
    counting: Project, server: ServerProcess, said: str, shown: str
) -> None:
    rewrite(
        counting, "        said = int", f"        return {said}\n        said = int"
    )
    result = counting.ask(server.url, "--vlm-limit=1")
    result.assert_outcomes(failed=2)
    text = message_of(result, "TestCount.score ")
    assert text.startswith(f"TestCount.score (test_count.py:7) returned {shown}")
    assert text.endswith(
        "for count-1. It has to return a number from 0 to 1, a bool or a Verdict."
    )


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (
            "{'f1': 83}",
            "returned 83 as f1, the main metric. The first metric has to be a number "
            "from 0 to 1, as verdicts are; others may be any.",
        ),
        (
            "0.5",
            "returned 0.5. It has to return metrics by name, at least one: "
            "{'mean': 0.5}.",
        ),
        (
            "{'f1': 'high'}",
            "returned 'high' as 'f1'. It has to return metrics by name, at least one: "
            "{'mean': 0.5}. Names are texts, and values finite numbers.",
        ),
        ("{}[1]", "failed unexpectedly: KeyError: 1. The traceback is in "),
    ],
)
def test_what_are_no_metrics(
    counting: Project, server: ServerProcess, made: str, text: str
) -> None:
    path = counting.pytester.path / "test_count.py"
    code = f"\n    def aggregate(self, verdicts):\n        return {made}\n"
    path.write_text(path.read_text() + code)
    result = counting.ask(server.url)
    result.assert_outcomes(passed=3, xfailed=1, failed=1)
    found = message_of(result, "count has no score: TestCount.aggregate (")
    assert text in found


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (
            "def score(self, sample):\n        return 1",
            "TestIt.score (test_it.py:4) has to take (sample, answer), or (sample, "
            "answer, judge); it takes (sample).",
        ),
        (
            "async def score(self, sample, answer):\n        return 1",
            "TestIt.score (test_it.py:4) is asynchronous. Scoring calls plain "
            "functions: write def without async.",
        ),
        (
            "def aggregate(self, verdicts):\n        return {}",
            "TestIt has aggregate and no score: aggregate makes metrics of the "
            "verdicts that score gives. Add def score(self, sample, answer).",
        ),
        ("score = 1", "TestIt.score is a int and cannot be called. It has to be a "),
        (
            "scoring = 2\n    def score(self, sample, answer):\n        return 1",
            "TestIt.scoring is a int. It has to be a text, which names the state of "
            'the scoring: scoring = "2".',
        ),
    ],
)
@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "n2"])
def test_functions_that_cannot_be_called_end_the_session(
    project: Project, server: ServerProcess, code: str, text: str, workers: list[str]
) -> None:
    project.pytester.makepyfile(
        test_it="from pytest_vlmeval import Benchmark\n"
        "class TestIt(Benchmark):\n"
        f'    datasets = ["DemoOpen"]\n    {code}\n'
    )
    assert error_of(project.ask(server.url, *workers)).startswith(text)
    assert not server.requests()


def test_two_scorings_of_one_dataset_are_refused(
    counting: Project, server: ServerProcess
) -> None:
    path = counting.pytester.path / "test_count.py"
    plain = '\n\nclass TestPlain(Benchmark):\n    datasets = ["count.tsv"]\n'
    path.write_text(path.read_text() + plain)
    assert error_of(counting.ask(server.url)) == (
        "count would be scored in 2 ways in one session: TestCount by "
        "TestCount.score, TestPlain by the usual scoring. A dataset has one score. "
        "Select one of the classes (-k, or the path of its file), or give one of them "
        "a copy of the table under another name. Nothing was asked."
    )
    assert not server.requests()
    counting.ask(server.url, "-k", "TestCount").assert_outcomes(
        passed=5, xfailed=1, deselected=3
    )
    # A class that inherits the score is the same scoring.
    path.write_text(SCORED + "\n\nclass TestAgain(TestCount):\n    pass\n")
    assert counting.ask(server.url).ret == 0


def test_a_dataset_without_references_is_scored(
    project: Project, server: ServerProcess
) -> None:
    write_table(
        project.pytester.path / "free.tsv",
        [{"question": f"Say <{n}>.", "answer": ""} for n in range(2)],
    )
    project.pytester.makepyfile(
        test_free="from pytest_vlmeval import Benchmark\n"
        "class TestFree(Benchmark):\n"
        '    datasets = ["free.tsv"]\n'
        "    def score(self, sample, answer):\n"
        "        return sample.reference is None and len(answer.text) < 4\n"
    )
    server.control(answers={"<0>": "yes", "<1>": "maybe"})
    result = project.ask(server.url)
    result.assert_outcomes(passed=2, xfailed=1)
    result.stdout.fnmatch_lines(["free * Overall 50.00 of 100 *"])


def test_an_answer_that_is_not_usable_is_not_scored(
    counting: Project, server: ServerProcess
) -> None:
    server.control(answers={**ANSWERS, "<4>": ""})
    result = counting.ask(server.url)
    result.assert_outcomes(passed=2, xfailed=1, failed=2)
    result.stdout.fnmatch_lines(["count * Overall 45.00 of 100 *"])


def test_stopping_early(counting: Project, server: ServerProcess) -> None:
    rows = [
        {"question": f"How many <{n}>?", "answer": "10", "tolerance": "5"}
        for n in range(400)
    ]
    write_table(counting.pytester.path / "count.tsv", rows)
    server.control(answers={}, default="10")
    (counting.pytester.path / "thresholds.toml").write_text('["*".count]\nmin = 50\n')
    result = counting.ask(server.url, "--vlm-stop-early", "-k", "test_score")
    result.assert_outcomes(passed=1, deselected=2)
    result.stdout.fnmatch_lines(["gates: count stopped after 50 of 400 samples: *"])
    assert len(server.requests()) < 400


JUDGED = """
from pytest_vlmeval import Benchmark


class TestCount(Benchmark):
    datasets = ["count.tsv"]

    def score(self, sample, answer, judge):
        if answer.text == sample.reference:
            return True
        return judge.yes_no(f"Is it near {sample.reference}?", answer.text)
"""


def test_a_score_may_ask_the_judge(
    counting: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    counting.pytester.makepyfile(test_count=JUDGED)
    without = counting.ask(server.url)
    without.assert_outcomes(passed=4, skipped=1)
    assert "count has no score: TestCount.score asks a judge" in str(
        counting.stored("SELECT error FROM scores")
    )
    judge = vlm_server(
        models=["judge"],
        answers={"near 20": '{"verdict": "yes"}', "near 30": '{"verdict": "no"}'},
    )
    result = counting.ask(server.url, *judged_by(judge))
    result.assert_outcomes(passed=4, xfailed=1)
    states = counting.stored("SELECT state FROM verdicts ORDER BY sample_index")
    assert [state for (state,) in states] == ["matched", "judged", "judged", "matched"]
    asked = len(judge.requests())
    counting.ask(server.url, *judged_by(judge)).assert_outcomes(passed=4, xfailed=1)
    assert len(judge.requests()) == asked
    # A reply that is none leaves the sample undecided, and another run asks again.
    judge.control(models=["judge"], answers={}, default="perhaps")
    rewrite(counting, "Is it near", "Is this near")
    unclear = counting.ask(server.url, *judged_by(judge))
    unclear.assert_outcomes(passed=2, failed=3)
    unclear.stdout.fnmatch_lines(["count * 2 not decided by the judge, at best 100*"])


class Near(Benchmark):
    """Scores by how near a number is."""

    def score(self, sample: Sample, answer: Answer) -> Verdict:
        near = abs(int(answer.text) - int(sample.reference or 0)) <= 2
        return Verdict(index=sample.index, value=float(near), extracted=answer.text)


def exactly(sample: Sample, answer: Answer) -> bool:
    """Compare texts."""
    return answer.text == sample.reference


def test_evaluate_takes_a_score(
    counting: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(counting.pytester.path)
    by_function = evaluate(
        "tiny-vlm", ["count.tsv"], api_base=server.url, score=exactly
    )
    assert by_function.score("count").value == 50
    assert by_function.score("count").judge == "exactly"
    asked = len(server.requests())
    by_class = evaluate("tiny-vlm", ["count.tsv"], api_base=server.url, score=Near)
    assert by_class.score("count").value == 75
    interval = by_class.interval("count")
    assert interval is not None
    assert interval.low < 75 < interval.high
    assert len(server.requests()) == asked
    with pytest.raises(
        VlmEvalError,
        match=re.escape(
            "score is a int. It takes a function of a sample and an answer, or a "
            "Benchmark class that has one."
        ),
    ):
        evaluate("tiny-vlm", ["count.tsv"], api_base=server.url, score=1)  # type: ignore[arg-type]
    with pytest.raises(VlmEvalError, match=r"score=Benchmark defines no score\. Add "):
        evaluate("tiny-vlm", ["count.tsv"], api_base=server.url, score=Benchmark)


def test_the_example_of_the_page(
    project: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    folder = project.pytester.path
    write_birds(folder)
    server.control(answers={"gulls": "I see 13.", "geese": "48"})
    text = read(PAGE)
    (folder / "test_birds.py").write_text(
        block(text, "A benchmark that scores", "python")
    )
    result, cases = project.junit(*endpoint(server.url))
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(["birds * Overall 75.00 of 100 * own scoring"])
    assert properties(cases["test_sample[birds-2]"])["verdict"].startswith("0.5")
    asked = [each for each in server.requests() if "How many" in str(each["text"])]
    assert [len(list(each["images"])) for each in asked] == [1, 1]  # type: ignore[call-overload]
    (folder / "test_birds.py").write_text(
        block(text, "Metrics of all verdicts", "python")
    )
    project.ask(server.url).stdout.fnmatch_lines(["birds * exact 0.00 of 100 *"])
    judge = vlm_server(models=["judge"], default='{"verdict": "yes"}')
    (folder / "test_birds.py").write_text(block(text, "Ask a judge", "python"))
    judged = project.ask(server.url, *judged_by(judge))
    judged.stdout.fnmatch_lines(["birds * Overall 100.00 of 100 *"])
    call = block(text, "From Python", "python")
    call = call.replace('"qwen2-vl"', '"tiny-vlm"')
    call = call.replace("score=exact", f"score=exact, api_base={server.url!r}")
    (folder / "call.py").write_text(f"{call}print(results.score('birds').value)\n")
    done = project.pytester.runpython(Path("call.py"))
    assert done.outlines == ["0.0"]


OVER = """
from pytest_vlmeval import Benchmark


class TestOver(Benchmark):
    datasets = ["CountBenchQA", "MMBench_DEV_EN", "POPE", "COCO_VAL"]

    def score(self, sample, answer):
        return len(answer.text) > 1
"""


def test_datasets_of_ms_vlmeval(project: Project, server: ServerProcess) -> None:
    """Of each class, scored in its own way or not at all: a verdict for each sample."""
    project.pytester.makepyfile(test_over=OVER)
    image = base64.b64encode(image_bytes(1)).decode()
    plain = {"image": image, "category": "x"}
    letters = {"A": "red", "B": "blue"}
    rows: dict[str, list[dict[str, str]]] = {
        "CountBenchQA": [{"index": "1", "question": "<1>?", "answer": "2", **plain}],
        # Two rotations of a question have one verdict of ms-vlmeval's.
        "MMBench_DEV_EN": [
            {
                "index": index,
                "question": f"<{mark}>?",
                "answer": "A",
                **letters,
                **plain,
            }
            for index, mark in (("7", "7a"), ("1000007", "7b"))
        ],
        "POPE": [
            {"index": str(n), "question": f"<p{n}>?", "answer": "Yes", **plain}
            for n in range(2)
        ],
        "COCO_VAL": [
            {"index": str(n), "answer": "['a cat']", "image": image} for n in range(2)
        ],
    }
    for name, each in rows.items():
        write_table(project.data_root / f"{name}.tsv", each)
    answers = {"<1>": "12", "<7a>": "AA", "<7b>": "B", "<p0>": "Yes", "<p1>": "N"}
    server.control(answers=answers, default="A cat.")
    result, cases = project.junit(*endpoint(server.url))
    scores = {
        name: float(properties(cases[f"test_score[{name}]"])["score"]) for name in rows
    }
    assert scores == {
        "CountBenchQA": 100,
        "MMBench_DEV_EN": 50,
        "POPE": 50,
        "COCO_VAL": 100,
    }
    result.assert_outcomes(passed=9, xfailed=2)
    # The score's interval is that of its own verdicts.
    assert all(
        "interval" in " ".join(properties(cases[f"test_score[{name}]"]))
        for name in rows
    )


def test_repeats_are_each_scored(counting: Project, server: ServerProcess) -> None:
    arguments = ["--vlm-repeat=2", "--vlm-temperature=1"]
    result = counting.ask(server.url, *arguments)
    result.assert_outcomes(passed=4, xfailed=1)
    result.stdout.fnmatch_lines(["count * Overall 70.00 of 100, mean of 2 repeats *"])
    assert counting.stored("SELECT count(*) FROM scores") == [(2,)]
    # It fails at one sample each time: that item fails, the others have their means.
    rewrite(counting, "int(answer.text)", "int(answer.text.replace('5', 'five'))")
    failed = counting.ask(server.url, *arguments)
    failed.assert_outcomes(passed=3, failed=2)
    assert message_of(failed, "count has no score: TestCount.score (")


def test_several_judges_decide_by_majority(
    counting: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    counting.pytester.makepyfile(test_count=JUDGED)
    judge = vlm_server(
        models=["one", "two", "three"],
        answers={"near 20": '{"verdict": "yes"}', "near 30": '{"verdict": "no"}'},
    )
    names = ("one", "two", "three")
    result, cases = counting.junit(*endpoint(server.url), *judged_by(judge, *names))
    result.assert_outcomes(passed=4, xfailed=1)
    score = properties(cases["test_score[count]"])
    assert score["judge"] == "majority of one, two, three"
    assert score["score"] == "75.0"
    by_judge = {score[f"score by {name}"] for name in names}
    assert by_judge == {"75.0"}
    linked = counting.stored(
        "SELECT count(*) FROM verdicts WHERE json_array_length(exchanges) = 3"
    )
    assert linked == [(2,)]
