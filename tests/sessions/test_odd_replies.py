"""Replies that are no plain answers, or hostile, in whole runs."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval.records import USABLE, JudgeQuestion
from pytest_vlmeval.reports.wording import NO_THINKING
from pytest_vlmeval.run.plan import generation_of, identify
from pytest_vlmeval.settings.groups import Prompting
from tests.support.endpoint_calls import ask, text_request
from tests.support.hostile import Hostile, corpus
from tests.support.judge_calls import OpenJudge
from tests.support.option_calls import Load
from tests.support.option_calls import load as load
from tests.support.run_fixtures import (
    Project,
    endpoint,
    math_rows,
    properties,
    write_table,
)
from tests.support.server_fixtures import ServerProcess

DEEP = "[" * 100_000
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHANNELS = "<|channel|>analysis<|message|>B<|end|><|start|>assistant<|channel|>final"


DETAIL = {"type": "reasoning.text", "text": "B it is"}


def nest(depth: int) -> object:
    """Return objects and lists in each other."""
    inner: object = "A"
    for number in range(depth):
        inner = [inner] if number % 2 else {"a": inner}
    return inner


def choice(finish_reason: object, **message: object) -> dict[str, object]:
    return {"choice": {"message": message, "finish_reason": finish_reason}}


# What the server answers to a question of that name, and the state it then has.
REPLIES: dict[str, tuple[str, dict[str, object]]] = {
    "max_tokens": ("cut_off", choice("max_tokens", content="A")),
    "gemini_max": ("cut_off", choice("MAX_TOKENS", content="A")),
    "mistral_max": ("cut_off", choice("model_length", content="A")),
    "filter_text": ("filtered", choice("content_filter", content="A")),
    "filter_null": ("filtered", choice("SAFETY", content=None)),
    "filter_400": (
        "filtered",
        {
            "status": 400,
            "raw": '{"error": {"code": "content_filter", "message": "Violence."}}',
        },
    ),
    "refusal": ("refused", choice("stop", content=None, refusal="I can't.")),
    "abort": ("aborted", choice("abort", content="A")),
    "abort_thought": ("aborted", choice("abort", content="<think>B")),
    "filter_thought": ("filtered", choice("content_filter", content="<think>B")),
    "stop_thought": ("empty", choice("stop", content="<think>B")),
    "function": (
        "empty",
        choice("stop", content=None, function_call=CALL["function"]),
    ),
    "details": ("empty", choice("stop", content="", reasoning_details=[DETAIL])),
    # A wait that only a retry could keep: all others go on.
    "wait_400": (
        "failed",
        {
            "status": 400,
            "message": "no",
            "retry_after": "Fri, 31 Dec 9999 23:59:59 -2359",
        },
    ),
    "deep_usage": ("answered", {"answer": "A", "usage": nest(900)}),
    "deep_content": ("empty", choice("stop", content=nest(900))),
    "only_reasoning": ("empty", choice("stop", content=None, reasoning="A it is")),
    "only_thoughts": ("empty", choice("stop", content="<think>A</think>")),
    "tool": ("empty", choice("tool_calls", content=None, tool_calls=[CALL])),
    "unknown_1": ("answered", choice("foo", content="A")),
    "unknown_2": ("answered", choice("foo", content="A")),
    "null_reason": ("answered", choice(None, content="A")),
    "eos": ("answered", choice("eos_token", content="A")),
    "middle": ("answered", choice("stop", content="Well: <think>B? C?</think>A")),
    "channels": ("answered", choice("stop", content=f"{CHANNELS}<|message|>A")),
    "parts": (
        "answered",
        choice(
            "stop",
            content=[{"type": "reasoning", "text": "B"}, {"type": "text", "text": "A"}],
        ),
    ),
    "deep": ("failed", {"raw": DEEP}),
    "deep_500": ("failed", {"raw": DEEP, "status": 500}),
    "list_reason": ("failed", choice(["stop"], content=None)),
    "null_message": ("failed", {"choice": {"message": None}}),
    "large_count": (
        "answered",
        {"answer": "A", "usage": {"prompt_tokens": 10**23, "completion_tokens": -1}},
    ),
    "odd_text": ("answered", choice("stop", content="A", reasoning="\ud800\0B")),
    "plain": ("answered", {"answer": "A"}),
}
LOST = [name for name, (state, _) in REPLIES.items() if state not in USABLE]
# What the items of those say, after "odd-NAME has no usable answer: ".
SAID = {
    "filter_text": "a filter of the server stopped the answer (finish_reason "
    "'content_filter'): A",
    "filter_null": "a filter of the server stopped the answer (finish_reason "
    "'SAFETY').",
    "filter_400": "a filter of * stopped the prompt (400): Violence.",
    "refusal": "the reply is marked as a refusal: I can't.",
    "abort": "http://*/v1 broke the answer off (finish_reason 'abort'); it began: A "
    "(asked 2 times)",
    "only_reasoning": "the model returned reasoning and no answer after it. If the "
    "answer stands in the reasoning, the server took it for thoughts: start the server "
    "without its reasoning parser (vLLM and SGLang: without --reasoning-parser). If "
    "the model only thought, switch thinking off, as with "
    f"--vlm-extra-body='{NO_THINKING}'. The reasoning ends: A it is",
    "stop_thought": "it ended after 3 tokens in the middle of its thoughts, though the "
    "server says that it is whole. If it ended at a token limit of the server's own, "
    "raise that and --vlm-max-tokens; if the model ended it, switch thinking off, as "
    f"with --vlm-extra-body='{NO_THINKING}'. It thought: B",
    "filter_thought": "a filter of the server stopped the answer (finish_reason "
    "'content_filter').",
    "tool": "the model called a tool and returned no text, though no request offers "
    "one. Start the server without a parser of tool calls (vLLM and SGLang: without "
    "--tool-call-parser), so that the text stays in the answer.",
    "deep": "http://*/v1 answered 200 with JSON that is nested too deep to be read "
    "(asked 2 times)",
    "deep_500": "http://*/v1 answered 500: * (asked 2 times)",
    "list_reason": "http://*/v1 answered 200 with a finish_reason that is no text but "
    "of the type list (asked 2 times)",
}
USAGE = {"prompt_tokens": 2, "completion_tokens": 3}


def write_odd(project: Project) -> None:
    options = {"A": "red", "B": "green", "C": "blue"}
    rows = [
        {"index": name, "question": f"Which <{name}>?", "answer": "A", **options}
        for name in REPLIES
    ]
    write_table(project.pytester.path / "odd.tsv", rows)
    project.pytester.makepyfile(
        test_odd="from pytest_vlmeval import Benchmark\n"
        "class TestOdd(Benchmark):\n    datasets = ['odd.tsv']\n"
    )


def rules() -> list[dict[str, object]]:
    return [
        {"contains": f"<{name}>", "usage": USAGE, **rule}
        for name, (_, rule) in REPLIES.items()
    ]


def states(project: Project) -> dict[object, object]:
    """Return the newest state of each sample."""
    query = "SELECT sample_index, state FROM answers ORDER BY seq"
    return {row[0]: row[1] for row in project.stored(query)}


@pytest.mark.slow
def test_each_kind_of_reply_has_its_state_and_ends_no_other_sample(
    project: Project, server: ServerProcess, figure: Callable[[str], None]
) -> None:
    """The run goes to its end, says each thing once, and a rerun asks only the rest."""
    write_odd(project)
    server.control(rules=rules())
    out = project.pytester.path / "out"
    arguments = (*endpoint(server.url), f"--vlm-export={out}", "-rfx")
    result, cases = project.junit(*arguments)
    assert states(project) == {name: state for name, (state, _) in REPLIES.items()}
    answered = len(REPLIES) - len(LOST)
    figure(f"{len(REPLIES)} kinds of reply: {answered} answered, {len(LOST)} lost")
    result.assert_outcomes(passed=answered, failed=len(LOST) + 1)
    text = result.stdout.str()
    assert "ended by a bug" not in text
    for name, words in SAID.items():
        result.stdout.fnmatch_lines([f"*odd-{name} has no usable answer: {words}"])
        assert (
            properties(cases[f"test_sample[odd-{name}]"])["state"] == (REPLIES[name][0])
        )
    assert "the model returned reasoning" in text.split("odd-only_thoughts has no")[1]
    marked = [name for name in cases if "finish_reason" in properties(cases[name])]
    assert marked == ["test_sample[odd-unknown_1]", "test_sample[odd-unknown_2]"]
    counts = "7 empty, 4 filtered, 1 refused, 2 aborted, 5 failed"
    result.stdout.fnmatch_lines(
        [
            f"odd * {len(LOST)} without a usable answer ({counts}), 4 cut off at the "
            "token limit*",
            "the endpoint ended 2 answers with finish_reason 'foo', which is not "
            "known: their text is scored",
            f"gates: odd: {len(LOST)} of {len(REPLIES)} samples have no usable *",
        ]
    )
    assert text.count("which is not known") == 1
    (dataset,) = json.loads((out / "results.json").read_text())["datasets"]
    outcomes = {
        "correct": answered,
        "empty": 7,
        "filtered": 4,
        "refused": 1,
        "aborted": 2,
        "failed": 5,
    }
    assert dataset["outcomes"] == outcomes
    assert dataset["cut_off"] == 4
    assert dataset["unknown_finish_reasons"] == {"foo": 2}
    assert dataset["score"]["value"] == pytest.approx(100 * answered / len(REPLIES))
    query = "SELECT sample_index, reasoning FROM answers WHERE reasoning > ''"
    assert {row[0]: row[1] for row in project.stored(query)} == {
        "only_reasoning": "A it is",
        "only_thoughts": "A",
        "filter_thought": "B",
        "stop_thought": "B",
        "details": "B it is",
        "middle": "B? C?",
        "channels": "B",
        "parts": "B",
        "odd_text": "\ufffd\ufffdB",
    }
    server.control(default="A")
    # What was cut off is scored: it is not asked again.
    again = project.ask(server.url, "--vlm-max-cut-off=10")
    again.assert_outcomes(passed=len(REPLIES) + 1)
    assert len(server.requests()) == len(LOST)


def test_a_judge_s_odd_reply_fails_alone(open_judge: OpenJudge) -> None:
    odd = {name: REPLIES[name][1] for name in ("deep", "list_reason", "filter_text")}
    judge = open_judge(
        default="yes",
        rules=[{"contains": f"<{name}>", **rule} for name, rule in odd.items()]
        + [{"contains": "<count>", "answer": "no", "usage": {"prompt_tokens": 10**30}}],
    )
    names = ["deep", "x", "list_reason", "filter_text", "count", "y"]
    replies = judge.ask([JudgeQuestion(prompt=f"<{name}>?") for name in names])
    assert [reply.text for reply in replies] == [None, "yes", None, None, "no", "yes"]
    errors = [reply.error for reply in replies if reply.text is None]
    assert "nested too deep" in errors[0]
    assert "type list" in errors[1]
    assert "filter of the server" in errors[2]


def test_think_tags_are_part_of_the_run_and_reach_replies(
    load: Load, server: ServerProcess
) -> None:
    plain = load("--vlm-model=m")
    tagged = load("--vlm-model=m", "--vlm-think-tags=<mull>,</mull>")
    named = load("--vlm-model=m", "--vlm-think-tags=mull")
    assert identify(tagged) == identify(named) != identify(plain)
    assert generation_of(tagged) != generation_of(plain)
    assert plain.prompting == Prompting()
    assert tagged.prompting.tag_pairs == (("<mull>", "</mull>"),)
    server.control(default="<Mull>B?</Mull>A")
    request = replace(text_request("?"), prompting=tagged.prompting)
    assert ask(server.url, text_request("?")).text == "<Mull>B?</Mull>A"
    reply = ask(server.url, request)
    assert (reply.text, reply.reasoning) == ("A", "B?")
    whole = load("--vlm-model=m", "--vlm-think-tags=none")
    assert identify(whole) != identify(plain)
    server.control(default="<think>B?</think>A")
    assert ask(server.url, text_request("?")).text == "A"
    reply = ask(server.url, replace(text_request("?"), prompting=whole.prompting))
    assert (reply.text, reply.reasoning) == ("<think>B?</think>A", "")
    # What the message about reasoning without an answer advises.
    body = load("--vlm-model=m", f"--vlm-extra-body={NO_THINKING}").prompting.extra_body
    assert json.loads(body) == json.loads(NO_THINKING)


@pytest.mark.parametrize("given", ["<mull>", "mull,<plan>", ""])
def test_think_tags_that_are_no_pairs(load: Load, given: str) -> None:
    with pytest.raises(Exception, match="names of tags, or pairs of them"):
        load("--vlm-model=m", f"--vlm-think-tags={given}")


# One of each kind and all of those that terminals, files and databases mind.
MINDED = {"control character", "terminal escape", "lone surrogate", "direction mark"}
MINDED |= {"format string", "import", "dunder chain"}


OBEYED = "\x1b\x07\x08\x7f\x9b\x9d\u202e\u2066"


@pytest.mark.slow
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


@pytest.mark.slow
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
