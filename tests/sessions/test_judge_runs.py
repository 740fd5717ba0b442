"""Runs with a judge: configuration, check, outcomes, and what is asked of it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.run.judge import MOST_FAILURES
from pytest_vlmeval.sandbox.calls import describe_sandbox, score_in_sandbox
from tests.support.judge_calls import make_judge
from tests.support.judged_rows import FAILURE, FAMILIES, choice_rows, one_row, rows_only
from tests.support.judged_sessions import GRADED, benchmark, judged_by, write_choices
from tests.support.run_fixtures import Project, endpoint, properties, write_table
from tests.support.sandbox_tables import score, values
from tests.support.server_fixtures import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_vlmeval.records import JudgeQuestion, JudgeReply
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.judge_calls import OpenJudge

StartServer = Callable[..., ServerProcess]

# The model's answers to questions 1 to 4: two match, and a judge reads the others.
ANSWERS = {"<1>": "A", "<2>": "B", "<3>": "pick number 1", "<4>": "pick number 2"}


@pytest.fixture
def model(server: ServerProcess) -> ServerProcess:
    """Give the server of the model."""
    server.control(answers=ANSWERS)
    return server


@pytest.fixture
def judge(vlm_server: StartServer) -> ServerProcess:
    """Give the server of the judge."""
    return vlm_server(judge="good", models=["judge", "other"])


def test_a_judge_reads_what_does_not_match_and_a_second_run_asks_nothing(
    project: Project, model: ServerProcess, judge: ServerProcess
) -> None:
    write_choices(project)
    arguments = [*endpoint(model.url), *judged_by(judge)]
    result, cases = project.junit(*arguments)
    result.assert_outcomes(passed=3, xfailed=2)
    result.stdout.fnmatch_lines(
        [
            "vlmeval: model tiny-vlm at http://127.0.0.1:*, judge judge at "
            f"{judge.url}, store *",
            "MMStar * 4 * 4 * 2  Overall 50.00 *",
        ]
    )
    asked = [str(request["text"]) for request in judge.requests()]
    assert sorted(text.count("pick number") for text in asked) == [1, 1]
    score = properties(cases["test_score[MMStar]"])
    assert (score["judge"], score["undecided"], score["best_case"]) == (
        "judge",
        "0",
        "50.0",
    )
    assert project.run(*arguments, "-n", "2").ret == 0
    assert len(judge.requests()) == 2
    states = project.stored("SELECT sample_index, state FROM verdicts ORDER BY 1")
    assert [state for _, state in states] == ["matched", "matched", "judged", "judged"]


def test_every_prompt_and_reply_is_linked_to_its_verdict(
    project: Project, model: ServerProcess, judge: ServerProcess
) -> None:
    write_choices(project)
    project.run(*endpoint(model.url), *judged_by(judge))
    ((prompt, text, who, tokens),) = project.stored(
        "SELECT prompt, text, judge, prompt_tokens FROM exchanges, verdicts "
        "WHERE sample_index = '3' AND exchanges = '[' || number || ']'"
    )
    assert "pick number 1" in str(prompt)
    assert (text, who) == ("A", "judge")
    assert int(str(tokens)) > 10


@pytest.mark.parametrize("suffix", ["", "/chat/completions"])
def test_the_environment_of_ms_vlmevals_users(
    project: Project,
    model: ServerProcess,
    judge: ServerProcess,
    monkeypatch: pytest.MonkeyPatch,
    suffix: str,
) -> None:
    write_choices(project)
    judge.control(judge="good", models=["judge"], api_key="sk-123456")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123456")
    monkeypatch.setenv("OPENAI_API_BASE", judge.url + suffix)
    monkeypatch.setenv("LOCAL_LLM", "judge")
    # ms-vlmeval sends its judge's requests there, whatever no_proxy says.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    result = project.ask(model.url)
    result.assert_outcomes(passed=3, xfailed=2)
    result.stdout.fnmatch_lines([f"vlmeval: * judge judge at {judge.url}{suffix}, *"])
    assert "sk-123456" not in result.stdout.str()
    result = project.ask(model.url, "--vlm-judge=exact_matching")
    result.assert_outcomes(passed=2, xfailed=3)
    result.stdout.fnmatch_lines(["vlmeval: * exact matching (no judge), store *"])


def test_a_key_alone_is_no_judge(
    project: Project, model: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_choices(project)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-123456")
    result = project.ask(model.url)
    result.assert_outcomes(passed=2, xfailed=3)
    result.stdout.fnmatch_lines(
        [
            "vlmeval: * exact matching (no judge: OPENAI_API_KEY names none, "
            "--vlm-judge=NAME does), store *"
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_judge_that_cannot_be_asked_stops_the_run(
    project: Project, model: ServerProcess, judge: ServerProcess, workers: list[str]
) -> None:
    write_choices(project)
    result = project.ask(model.url, *judged_by(judge, "jugde"), *workers)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"ERROR: The server at {judge.url} does not serve 'jugde'. Did you mean "
            "judge? It serves: judge, other. Give one of these with --vlm-judge. It "
            "was asked all the same, and refused: *jugde*"
        ]
    )
    assert model.requests() == []
    # Also when only the scores are missing.
    project.ask(model.url, "--vlm-mode=infer").assert_outcomes(passed=4, skipped=1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        arguments = ["--vlm-judge=judge", f"--vlm-judge-api-base={url}", *workers]
        result = project.ask(model.url, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"ERROR: No judge's server answers at {url} (Connection refused). Start "
            "one there:",
            "    swift deploy * --served_model_name judge *",
            "or give the URL of another with --vlm-judge-api-base, or run without a "
            "judge with --vlm-judge=exact_matching.",
        ]
    )


def test_a_judge_that_is_not_needed_is_not_asked(
    project: Project, model: ServerProcess, judge: ServerProcess
) -> None:
    write_choices(project)
    arguments = [*endpoint(model.url), *judged_by(judge)]
    assert project.run(*arguments).ret == 0
    judge.kill()
    project.run(*arguments).assert_outcomes(passed=3, xfailed=2)


@pytest.mark.slow
def test_another_judge_reads_the_same_answers_and_both_scores_stay(
    project: Project, model: ServerProcess, judge: ServerProcess
) -> None:
    write_choices(project)
    project.ask(model.url, *judged_by(judge))
    judge.control(judge="wrong", models=["judge", "other"])
    result = project.ask(model.url, *judged_by(judge, "other"))
    result.assert_outcomes(passed=3, xfailed=2)
    project.ask(model.url)
    assert len(model.requests()) == 4
    scores = project.stored(
        "SELECT json_extract(score, '$.judge'), json_extract(score, '$.correct') "
        "FROM scores ORDER BY 1"
    )
    assert scores == [("exact_matching", 1), ("judge", 2), ("other", 2)]


def test_what_the_judge_did_not_decide(
    project: Project, model: ServerProcess, judge: ServerProcess
) -> None:
    write_choices(project)
    judge.control(
        models=["judge"],
        rules=[
            {"contains": "pick number 1", "answer": "I cannot tell"},
            {"contains": "pick number 2", "status": 500, "message": "out of memory"},
        ],
    )
    arguments = [*endpoint(model.url), *judged_by(judge)]
    result, cases = project.junit(*arguments)
    result.assert_outcomes(passed=1, xfailed=1, failed=3)
    result.stdout.fnmatch_lines(
        [
            "MMStar-3 was not scored: the judge's reply cannot be used: I cannot tell. "
            "Its prompt and all replies are in the store; another judge (--vlm-judge) "
            "may do better.",
            "MMStar-4 was not scored: the judge gave no reply: http*500*out of memory. "
            "The same command asks the judge again.",
            "MMStar: the judge (judge) did not decide 2 of 4 samples, which count as "
            "wrong in Overall = 25.00; at best it is 75.00. At least 99 % of what "
            "it is asked have to be decided. The items of these samples say why.",
            "MMStar * 4 * 4 * 1  Overall 25.00 * 2 not decided by the judge, at best "
            "75.00, modified data",
        ]
    )
    verdict = properties(cases["test_sample[MMStar-4]"])["verdict"]
    assert verdict == "judge_failed"
    # Three times, as ms-vlmeval asks, and once more after an error.
    assert len(judge.requests()) == 3 + 2
    judge.control(models=["judge"], judge="good")
    result = project.run(*arguments)
    result.assert_outcomes(passed=1, xfailed=2, failed=2)
    (request,) = judge.requests()
    assert "pick number 2" in str(request["text"])


def test_a_dataset_that_needs_a_judge(
    project: Project, model: ServerProcess, judge: ServerProcess
) -> None:
    write_table(project.data_root / "MMVet.tsv", GRADED)
    project.pytester.makepyfile(test_vet=benchmark("MMVet"))
    model.control(answers={"<1>": "red"}, default="blue")
    result = project.ask(model.url, "-rs")
    result.assert_outcomes(passed=4, skipped=1)
    result.stdout.fnmatch_lines_random(
        [
            "SKIPPED * MMVet is scored by a judge only, and there is none. Its answers "
            "are kept: run the same command with --vlm-judge=NAME "
            "--vlm-judge-api-base=URL to score them.",
            "MMVet * 4 * 4 * - *no score: only a judge scores it (--vlm-judge) *",
        ]
    )
    result = project.ask(model.url, *judged_by(judge), "-n", "2")
    result.assert_outcomes(passed=2, xfailed=3)
    result.stdout.fnmatch_lines(["MMVet * 4 * 4 * 1  Overall/acc 25.00 *"])
    assert len(model.requests()) == 4
    settings = {"max_tokens": 3, "temperature": 0}
    assert [each["params"] for each in judge.requests()] == [settings] * 4


def test_the_settings_that_ms_vlmeval_gives_its_judge(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, server: ServerProcess
) -> None:
    prepared, answer = one_row("LLaVABench", tmp_path)
    score(sandbox, prepared, [(0, answer)], open_judge(judge="good"))
    (request,) = server.requests()
    assert request["system"] == (
        "You are a helpful and precise assistant for checking the quality of the "
        "answer."
    )
    assert request["params"] == {"max_tokens": 2048, "temperature": 0.2}
    prepared, answer = one_row("MMVet", tmp_path)
    score(sandbox, prepared, [(0, answer)], open_judge(default="?"))
    assert [each["params"] for each in server.requests()] == [
        {"max_tokens": 3, "temperature": 0.5 * attempt} for attempt in range(5)
    ]


def test_what_matches_or_has_no_answer_is_not_sent(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, server: ServerProcess
) -> None:
    prepared = rows_only(tmp_path, "ImageMCQDataset", choice_rows(4))
    answers = [(0, "B"), (1, "A"), (2, None), (3, "pick number 2")]
    found = score(sandbox, prepared, answers, open_judge(judge="good"))
    assert values(found.verdicts) == {"0": 1, "1": 0, "2": 0, "3": 1}
    (request,) = server.requests()
    assert "<3>" in str(request["text"])


@pytest.mark.parametrize("class_name", FAMILIES)
def test_no_answer_is_never_judged(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    server: ServerProcess,
    class_name: str,
) -> None:
    prepared, _ = one_row(class_name, tmp_path)
    found = score(sandbox, prepared, [(0, None)], open_judge(judge="good"))
    assert server.requests() == []
    assert found.best == found.value < 11


def test_a_dead_judge_is_given_up_and_asked_again_later(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, server: ServerProcess
) -> None:
    count = 60
    prepared = rows_only(tmp_path, "ImageMCQDataset", choice_rows(count))
    answers = [(n, f"pick number 2 ({n})") for n in range(count)]
    judge = open_judge(judge="good", rules=[{"after": 20, **FAILURE}])
    found = score(sandbox, prepared, answers, judge)
    states = [verdict.state for verdict in found.verdicts]
    assert (states.count("judged"), states.count("judge_failed")) == (20, 40)
    assert 20 + MOST_FAILURES <= len(server.requests()) < count
    assert any(
        verdict.reason.startswith(
            f"the judge gave no reply: not asked, as {MOST_FAILURES} in a row failed: "
        )
        for verdict in found.verdicts
    )
    assert found.best == 100
    server.control(judge="good")
    found = score(sandbox, prepared, answers, judge)
    assert found.value == 100
    assert len(server.requests()) == 40


def test_a_slow_judge_is_asked_about_many_at_once(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge, server: ServerProcess
) -> None:
    prepared = rows_only(tmp_path, "ImageMCQDataset", choice_rows(24))
    answers = [(str(n), [f"pick number 2 ({n})"]) for n in range(24)]
    judge = open_judge(judge="good", latency_s=0.3)
    # The wait for it is no part of the time that a scoring may take.
    found = score_in_sandbox(
        sandbox, prepared, answers, judge=judge.ask, deadline_s=0.5
    )
    assert found.value == 100
    assert server.counters()["max_in_flight"] == 8


def test_a_judge_past_its_deadline_has_failed(
    sandbox: Sandbox, tmp_path: Path, open_judge: OpenJudge
) -> None:
    prepared, answer = one_row("MMVet", tmp_path)
    judge = open_judge(rules=[{"fault": "hang"}])
    (verdict,) = score(sandbox, prepared, [(0, answer)], judge).verdicts
    assert verdict.state == "judge_failed"
    assert "no answer within 5 s" in verdict.reason


def test_the_same_question_is_sent_once(
    sandbox: Sandbox,
    tmp_path: Path,
    open_judge: OpenJudge,
    server: ServerProcess,
    judge_store: Store,
) -> None:
    row, answer = FAMILIES["ImageMCQDataset"]
    rows = [{"index": n, **row} for n in range(9)]
    prepared = rows_only(tmp_path, "ImageMCQDataset", rows)
    answers = [(n, answer) for n in range(9)]
    judge = open_judge(judge="good")
    found = score(sandbox, prepared, answers, judge)
    assert found.value == 100
    # In another order, after a restart: the same replies.
    again = make_judge(server.url, judge_store)
    assert score(sandbox, prepared, answers[::-1], again) == found
    assert len(server.requests()) == 1
    # To a judge of another name it is another question.
    server.control(judge="wrong", models=["another"])
    another = make_judge(server.url, judge_store, "another")
    assert score(sandbox, prepared, answers, another).value == 0
    assert len(server.requests()) == 1
    another.close()


def test_what_goes_wrong_while_asking_ends_the_call(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    prepared, answer = one_row("MMVet", tmp_path)

    def ask(questions: Sequence[JudgeQuestion]) -> Sequence[JudgeReply]:
        raise VlmEvalError(f"no store for {len(questions)}")

    with pytest.raises(VlmEvalError, match=r"^no store for 1$"):
        score_in_sandbox(sandbox, prepared, [("0", [answer])], judge=ask)
    assert describe_sandbox(sandbox).ms_vlmeval
