"""Judges: the majority of several, their agreement, tests of one's own, connections."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.pool import Concurrency, Pool
from pytest_vlmeval.records import JudgeQuestion, Score, Verdict, VerdictState
from pytest_vlmeval.run.judge import (
    Judge,
    JudgePanel,
    choose_by_majority,
    cohen_kappa,
    compare_judges,
    describe_agreement,
)
from pytest_vlmeval.run.store import Store
from tests.support.judge_calls import OpenJudge, make_judge
from tests.support.judged_sessions import judged_by, write_choices
from tests.support.pool_calls import asking_settings, make_pool
from tests.support.run_fixtures import Project, endpoint, properties
from tests.support.sandbox_tables import draw
from tests.support.server_fixtures import ServerProcess

StartServer = Callable[..., ServerProcess]


def score(judge: str, *values: float | None, first: int = 1) -> Score:
    """Give the score of a judge with these verdicts, the first one matched."""
    states: list[VerdictState] = [
        "matched" if number < first else "judge_unclear" if value is None else "judged"
        for number, value in enumerate(values)
    ]
    verdicts = tuple(
        Verdict(index=str(number), value=value, state=state, exchanges=(number,))
        for number, (value, state) in enumerate(zip(values, states, strict=True))
    )
    return Score(
        dataset="Data",
        metrics={"Overall": 0.0},
        main_metric="Overall",
        value=0,
        best=0,
        samples=len(values),
        answered=len(values),
        correct=0,
        undecided=0,
        modified=False,
        scorer="x",
        judge=judge,
        verdicts=verdicts,
    )


def test_kappa_of_a_known_table() -> None:
    # Two readers of 50 applications: 20 both yes, 15 both no, 5 and 10 apart.
    pairs = [(True, True)] * 20 + [(False, False)] * 15
    pairs += [(True, False)] * 5 + [(False, True)] * 10
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    assert cohen_kappa([(True, True)] * 3) is None
    assert cohen_kappa([(True, False), (False, True)]) == -1
    assert cohen_kappa([]) is None


def test_judges_are_compared_on_what_both_judged() -> None:
    scores = [score("a", 1, 1, 0, 0.7, None), score("b", 0, 1, 0, 0.2, 1)]
    (agreement,) = compare_judges(scores)
    assert (agreement.samples, agreement.agreed) == (3, 2)
    assert agreement.kappa == pytest.approx(0.4)
    assert describe_agreement(agreement) == "2 of 3 judged alike, Cohen's kappa 0.40"
    alike = compare_judges([score("a", 1, 1), score("b", 1, 1)])
    assert (
        describe_agreement(alike[0]) == "1 of 1 judged alike, Cohen's kappa undefined"
    )


def test_the_majority_is_the_middle_of_those_who_agree() -> None:
    scores = [
        score("a", 1, 0, 0.6, 1, None),
        score("b", 1, 1, 0.9, 0, None),
        score("c", 1, 0, 0.8, None, None),
    ]
    assert choose_by_majority(scores) == {
        "0": "b",
        "1": "a",
        "2": "c",
        "3": None,
        "4": None,
    }


def test_two_judges_and_their_majority(
    project: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    write_choices(project)
    server.control(default="pick number 1")
    good = vlm_server(judge="good", models=["good"])
    other = vlm_server(
        judge="good",
        models=["other"],
        rules=[{"contains": "<2>", "answer": "B"}],
    )
    arguments = [
        *endpoint(server.url),
        f"--vlm-judge-api-base={good.url},{other.url}",
        "--vlm-judge=good",
        "--vlm-judge=other",
    ]
    result, cases = project.junit(*arguments, "-n", "2", "--vlm-export=out")
    result.assert_outcomes(passed=3, failed=2)
    results = json.loads((project.pytester.path / "out/results.json").read_text())
    (dataset,) = results["datasets"]
    assert dataset["by_judge"] == {"good": 100.0, "other": 75.0}
    result.stdout.fnmatch_lines_random(
        [
            "MMStar-2 was not scored: the judges have no majority (good: right, other: "
            "wrong). Its prompt and all replies are in the store; *",
            "MMStar: the judge (majority of good, other) did not decide 1 of 4 "
            "samples, which counts as wrong in Overall = 75.00; at best it is 100.00*",
            "MMStar, by judge: good 100.00, other 75.00",
            "MMStar, good and other: 3 of 4 judged alike, Cohen's kappa 0.00",
        ]
    )
    found = properties(cases["test_score[MMStar]"])
    assert found["judge"] == "majority of good, other"
    assert found["score by other"] == "75.0"
    assert found["agreement of good and other"].startswith("3 of 4 judged alike")
    assert len(good.requests()) == len(other.requests()) == 4
    # One judge alone has its score already.
    result = project.ask(server.url, *judged_by(good, "good"))
    result.assert_outcomes(passed=5)
    assert len(good.requests()) == 4


def test_three_judges_outvote_one(
    project: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    write_choices(project)
    server.control(default="pick number 1")
    judges = vlm_server(judge="good", models=["a", "b"])
    wrong = vlm_server(judge="wrong", models=["c"])
    bases = f"--vlm-judge-api-base={judges.url},{judges.url},{wrong.url}"
    result = project.ask(server.url, "--vlm-judge=a,b,c", bases)
    result.assert_outcomes(passed=5)
    result.stdout.fnmatch_lines(
        [
            "MMStar * 4 * 4 * 4  Overall 100.00 *",
            "MMStar, by judge: a 100.00, b 100.00, c 0.00",
            "MMStar, a and b: 4 of 4 judged alike, Cohen's kappa undefined",
            "MMStar, a and c: 0 of 4 judged alike, Cohen's kappa 0.00",
        ]
    )


# What a test may ask

FENCED = '```json\n{"choice": "B", "why": "it says so"}\n```'


@pytest.mark.parametrize(
    ("reply", "value", "state"),
    [
        ('{"choice": "B"}', "blue", "judged"),
        (FENCED, "blue", "judged"),
        ('{"choice": "none"}', "none", "judged"),
        ('{"choice": "C"}', None, "judge_unclear"),
        ("B", None, "judge_unclear"),
        ('I think {"choice": "B"}', None, "judge_unclear"),
        ("我认为是 B", None, "judge_unclear"),
        ("", None, "judge_unclear"),
    ],
)
def test_a_choice(
    open_judge: OpenJudge, reply: str, value: str | None, state: str
) -> None:
    panel = JudgePanel({"j": open_judge(default=reply)})
    found = panel.choice("Which colour?", "sort of blue", ["red", "blue"])
    assert (found.value, found.state, found.reply) == (value, state, reply)
    assert bool(found.error) == (state == "judge_unclear")


def test_what_a_judge_is_told(open_judge: OpenJudge, server: ServerProcess) -> None:
    panel = JudgePanel({"j": open_judge(default='{"score": 4}')})
    found = panel.score("Why?", "So.", scale=(1, 5), rubric="5 is polite, 1 is not")
    assert (found.value, found.state) == (4, "judged")
    assert panel.score("Why?", "So.", scale=(1, 5), rubric="5 is polite, 1 is not")
    (request,) = server.requests()
    assert request["text"] == (
        "Score the answer from 1 to 5.\n\nRubric: 5 is polite, 1 is not\n\n"
        "Question: Why?\nAnswer: So.\n\n"
        "Reply with one JSON object of this schema and nothing else:\n"
        '{"properties": {"score": {"description": "the score by the rubric", '
        '"maximum": 5, "minimum": 1, "title": "Score", "type": "integer"}}, '
        '"required": ["score"], "type": "object"}'
    )
    assert str(request["system"]).startswith("You judge answers to questions.")
    assert request["params"] == {"max_tokens": 512, "temperature": 0}


@pytest.mark.parametrize("reply", ['{"score": 6}', '{"score": "4"}', '{"score": 4.5}'])
def test_a_score_off_its_scale_is_unclear(open_judge: OpenJudge, reply: str) -> None:
    panel = JudgePanel({"j": open_judge(default=reply)})
    found = panel.score("Why?", "So.", scale=(1, 5), rubric="politeness")
    assert (found.value, found.state) == (None, "judge_unclear")
    assert found.error.startswith("score: Input should be")


def test_yes_or_no_and_a_judge_that_fails(open_judge: OpenJudge) -> None:
    rules = [{"contains": "rude", "status": 503, "message": "busy"}]
    panel = JudgePanel({"j": open_judge(default='{"verdict": "no"}', rules=rules)})
    assert panel.yes_no("Is it polite?", "Go away!").value is False
    failed = panel.yes_no("Is it rude?", "Go away!")
    assert (failed.value, failed.state) == (None, "judge_failed")
    assert failed.error.endswith("answered 503: busy")


def test_several_judges_of_a_question(
    vlm_server: StartServer, judge_store: Store
) -> None:
    scores = {"a": 2, "b": 5, "c": 3}
    panel = JudgePanel(
        {
            name: make_judge(
                vlm_server(
                    models=[name],
                    default=f'{{"score": {points}}}',
                    answers={"polite": f'{{"verdict": "{["no", "yes"][points > 2]}"}}'},
                ).url,
                judge_store,
                name,
            )
            for name, points in scores.items()
        }
    )
    found = panel.score("Why?", "So.", scale=(1, 5), rubric="good")
    assert (found.value, found.state) == (3, "judged")
    assert found.each is not None
    assert {name: said.value for name, said in found.each.items()} == scores
    assert panel.yes_no("Is it polite?", "So.").value is True
    panel.close()


def test_wrong_use_of_the_forms(open_judge: OpenJudge) -> None:
    panel = JudgePanel({"j": open_judge()})
    with pytest.raises(VlmEvalError) as caught:
        panel.choice("Which?", "red", ["red", "red"])
    assert str(caught.value) == (
        "vlm_judge.choice takes 2 to 26 different options; given: ['red', 'red']."
    )
    with pytest.raises(VlmEvalError) as caught:
        panel.score("Which?", "red", scale=(5, 1), rubric="good")
    assert str(caught.value) == (
        "vlm_judge.score takes a scale (low, high) with low below high; given: (5, 1)."
    )


OWN_TEST = """
def test_polite(vlm_judge):
    assert vlm_judge.yes_no("Is it polite?", "Thank you!").value
"""


def test_the_fixture(project: Project, vlm_server: StartServer) -> None:
    project.pytester.makepyfile(OWN_TEST)
    judge = vlm_server(models=["judge"], default='{"verdict": "yes"}')
    result = project.run(*judged_by(judge))
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines([f"vlmeval: judge judge at {judge.url}, store *"])
    project.run(*judged_by(judge), "-n", "1").assert_outcomes(passed=1)
    assert len(judge.requests()) == 1
    result = project.run(*judged_by(judge, "nobody"))
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: * does not serve 'nobody'. *"])
    result = project.run("-rs")
    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(
        [
            "SKIPPED * vlm_judge needs a judge, and there is none: name one with "
            "--vlm-judge=NAME --vlm-judge-api-base=URL."
        ]
    )


def test_a_judge_keeps_what_it_found_out_about_its_server(
    judge_store: Store, server: ServerProcess
) -> None:
    # Slow enough that the first slots are all used on a busy machine, too.
    server.control(default="yes", latency_s=0.2)
    opened: list[Pool] = []

    def open_pool(aside: Collection[str]) -> Pool:
        adaptive = Concurrency(64, adaptive=True)
        opened.append(make_pool(server.url, concurrency=adaptive, role="judge"))
        return opened[-1]

    def ask(batch: int) -> None:
        questions = [JudgeQuestion(prompt=f"{batch}: {n}?") for n in range(40)]
        assert {reply.text for reply in judge.ask(questions)} == {"yes"}

    judge = Judge("tiny-vlm", asking_settings(retries=0), judge_store, open_pool)
    ask(1)
    found = opened[0].endpoints[0].limiter.limit
    assert found > 8
    ask(2)
    judge.close()
    (pool,) = opened
    assert pool.endpoints[0].limiter.limit >= found
    # What broke is opened anew: ten failures in a row end only what was asked then.
    server.control(rules=[{"status": 400}])
    failed = judge.ask([JudgeQuestion(prompt=f"no {n}") for n in range(20)])
    assert {reply.text for reply in failed} == {None}
    server.control(default="yes")
    ask(3)
    assert len(opened) == 3
    judge.close()


def test_a_judge_is_shown_images(
    server: ServerProcess, open_judge: OpenJudge, tmp_path: Path
) -> None:
    image = tmp_path / f"{'0' * 64}.png"
    image.write_bytes(draw(1))
    judge = open_judge(rules=[{"images": 1, "answer": "seen"}], default="not seen")
    shown = JudgeQuestion(prompt="Is it a cat?", images=(image,))
    questions = [shown, replace(shown, first=True), JudgeQuestion(prompt=shown.prompt)]
    replies = judge.ask(questions)
    assert [reply.text for reply in replies] == ["seen", "seen", "not seen"]
    assert len({reply.number for reply in replies}) == 3
    orders = [request["order"] for request in server.requests()]
    assert sorted(map(str, orders)) == sorted(
        map(str, [["text", "image_url"], ["image_url", "text"], ["text"]])
    )
