"""`--vlm-repeat`: each sample asked several times; means and their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from pytest_vlmeval.records import Score, SoundScore, Verdict
from pytest_vlmeval.run.scoring import average
from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.running import asked
from tests.support.server_fixtures import ServerProcess

REPEATS = ["--vlm-repeat=3", "--vlm-temperature=0.7"]


def score(value: float, verdicts: Sequence[Verdict], **more: object) -> Score:
    fields: dict[str, object] = {
        "dataset": "Data",
        "metrics": {"Overall": value},
        "main_metric": "Overall",
        "value": value,
        "best": value,
        "samples": len(verdicts),
        "answered": len(verdicts),
        "correct": 0,
        "undecided": 0,
        "modified": False,
        "scorer": "x",
        "judge": "j",
        "verdicts": tuple(verdicts),
    }
    return Score(**{**fields, **more})  # type: ignore[arg-type]


def test_the_mean_and_its_spread() -> None:
    found = average(
        [
            score(value, [Verdict(index="1", value=verdict, extracted=said)])
            for value, verdict, said in ((50, 1.0, "A"), (62, 0.0, "B"), (56, 1.0, "A"))
        ]
    )
    assert found.value == pytest.approx(56)
    assert found.metrics == {"Overall": pytest.approx(56)}
    assert found.repeats == (50, 62, 56)
    assert found.standard_deviation == pytest.approx(6)
    assert found.standard_error == pytest.approx(6 / math.sqrt(3))
    assert found.correct == 1
    [verdict] = found.verdicts
    assert verdict.value == pytest.approx(2 / 3)
    assert (verdict.extracted, verdict.right) == ("A", 2)
    assert verdict.repeats == (1.0, 0.0, 1.0)


def test_one_score_is_left_as_it_is() -> None:
    only = score(50, [Verdict(index="1", value=1.0)])
    assert average([only]) is only
    assert only.standard_deviation is only.standard_error is None


def test_a_sample_without_a_verdict_in_one_repeat_has_none() -> None:
    unclear = Verdict(index="1", value=None, state="judge_unclear", reason="what?")
    none = Verdict(index="2", value=None, reason="no usable answer")
    right = [Verdict(index=index, value=1.0) for index in "12"]
    found = average([score(100, right), score(0, [unclear, none])])
    first, second = found.verdicts
    assert (first.value, first.state, first.reason) == (None, "judge_unclear", "what?")
    assert first.repeats == (1.0, None)
    assert (second.value, second.reason) == (None, "no usable answer")
    assert (found.answered, found.undecided, found.correct) == (1, 1, 0)


def test_defects_of_single_repeats_are_averaged() -> None:
    right = Verdict(index="1", value=1.0)
    by_defect = Verdict(index="1", value=1.0, corrected=0.0, rests_on_defect=True)
    sound = SoundScore(defects=1, value=0, metrics={"Overall": 0})
    found = average(
        [
            score(100, [by_defect], sound=sound, differing=1),
            score(100, [right]),
            score(0, [replace(right, value=0.0)]),
        ]
    )
    [verdict] = found.verdicts
    assert verdict.value == pytest.approx(2 / 3)
    assert verdict.corrected == pytest.approx(1 / 3)
    assert found.differing == 1
    assert found.sound is not None
    assert found.sound.defects == 1
    assert found.sound.value == pytest.approx(100 / 3)
    assert found.sound.metrics == {"Overall": pytest.approx(100 / 3)}
    assert average([score(100, [right]), score(100, [right])]).sound is None


@pytest.mark.parametrize(
    "workers",
    [[], pytest.param(["-n2"], marks=pytest.mark.slow)],
    ids=["one", "xdist"],
)
def test_repeats_are_asked_scored_and_shown(
    project: Project, server: ServerProcess, workers: list[str]
) -> None:
    project.write_math(4)
    # Of the third question two of three answers are right, of the first one.
    server.control(
        default="B",
        rules=[
            {"contains": "<1>", "answer": "10", "times": 1},
            {"contains": "<3>", "answer": "30", "times": 2},
        ],
    )
    # In one process the order of the answers is known.
    result, cases = project.junit(
        *endpoint(server.url),
        *REPEATS,
        "--vlm-concurrency=1",
        "--vlm-properties=all",
        "-rx",
        *workers,
    )
    assert set(asked(server).values()) == {3}
    assert result.ret == 0
    result.assert_outcomes(passed=4, xfailed=1)
    third = properties(cases["test_sample[MathVision_MINI-3]"])
    assert third["right"] == "2 of 3 times"
    assert third["verdict"] == "0.667"
    result.stdout.fnmatch_lines(["XFAIL *reference 10 (right 1 of 3 times)"])
    shown = properties(cases["test_score[MathVision_MINI]"])
    values = [float(shown[f"repeat {n}"]) for n in (1, 2, 3)]
    assert sum(values) == pytest.approx(100 + 75 + 50)
    assert float(shown["score"]) == pytest.approx(75)
    assert shown["repeats"] == "3"
    mean = sum(values) / 3
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    assert float(shown["standard_deviation"]) == pytest.approx(deviation)
    assert float(shown["standard_error"]) == pytest.approx(deviation / math.sqrt(3))
    result.stdout.fnmatch_lines(
        [
            "MathVision_MINI * 4 * 4 * 3 * 75.00 of 100, mean of 3 repeats (standard "
            f"deviation {deviation:.2f}, error {deviation / math.sqrt(3):.2f}) *"
        ]
    )
    assert len(project.stored("SELECT 1 FROM scores WHERE state = 'done'")) == 3


def test_more_repeats_later_ask_only_what_is_new(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    project.ask(server.url, "--vlm-temperature=0.7")
    project.ask(server.url, *REPEATS).assert_outcomes(passed=2, xfailed=1, deselected=1)
    assert len(server.requests()) == 6
    repeats = project.stored("SELECT repeat, count(*) FROM answers GROUP BY repeat")
    assert repeats == [(0, 2), (1, 2), (2, 2)]


def test_a_repeat_without_an_answer_fails_its_item(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    server.control(
        default="B",
        rules=[{"contains": "<2>", "after": 4, "status": 400, "message": "no"}],
    )
    result = project.ask(server.url, *REPEATS, "--vlm-concurrency=1")
    result.assert_outcomes(failed=2, xfailed=1)
    result.stdout.fnmatch_lines(
        ["MathVision_MINI-2 has no usable answer in repeat 2 of 3: *"]
    )


def usage_error(result: pytest.RunResult) -> str:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    return result.stderr.str()


def test_repeats_without_a_temperature_are_refused(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(2)
    assert (
        "--vlm-repeat=3 asks each sample 3 times, but at --vlm-temperature=0 a model "
        "answers alike each time. Give a temperature above 0, for example "
        "--vlm-temperature=0.7, or leave --vlm-repeat out."
    ) in usage_error(project.ask(server.url, "--vlm-repeat=3"))
    assert server.requests() == []


def test_repeats_of_the_demo_model_are_refused(project: Project) -> None:
    project.write_math(2)
    assert (
        "--vlm-repeat=3 asks each sample 3 times, but the demo model answers a prompt "
        "always alike. Leave --vlm-repeat out."
    ) in usage_error(project.run("--vlm-model=demo", *REPEATS))
