"""What a model thought is kept apart from what it answered."""

from __future__ import annotations

import gc
import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vlmeval.models.chat import THINK_TAGS, ReplyReader, split_thoughts
from pytest_vlmeval.models.client import RequestError
from pytest_vlmeval.models.endings import UNCLOSED_THOUGHT
from pytest_vlmeval.models.local import read_reply
from pytest_vlmeval.models.refusals import is_filtered, read_refusal
from pytest_vlmeval.run.judge import Form
from pytest_vlmeval.run.judge import read_reply as read_form
from pytest_vlmeval.settings.groups import TagPair, pair_tags, parse_think_tags
from tests.support.endpoint_calls import ask, text_request
from tests.support.server_fixtures import ServerProcess

CHANNELS = (
    "<|channel|>analysis<|message|>B? C?<|end|>"
    "<|start|>assistant<|channel|>final<|message|>A"
)


@pytest.mark.parametrize(
    ("text", "reasoning", "answer", "closed"),
    [
        ("B", "", "B", True),
        ("<think>It is red.</think>B", "It is red.", "B", True),
        ("\n<think>\nIt is red.\n</think>\n\nB\n", "It is red.", "B", True),
        ("It is red.\n</think>\n\nB", "It is red.", "B", True),
        ("<think></think>B", "", "B", True),
        ("◁think▷Hm.◁/think▷B", "Hm.", "B", True),
        ("<think>It may be", "It may be", "", False),
        ("<think>a</think><think>b", "ab", "", False),
        ("Tags such as <think> are", "", "Tags such as <think> are", True),
        ("<thinking>B? C?</thinking>A", "B? C?", "A", True),
        ("<thought>B? C?</thought>A", "B? C?", "A", True),
        ("<reasoning>B? C?</reasoning>A", "B? C?", "A", True),
        ("<seed:think>B? C?</seed:think>A", "B? C?", "A", True),
        ("[THINK]B? C?[/THINK]A", "B? C?", "A", True),
        ("<THINK>B? C?</Think>A", "B? C?", "A", True),
        ("<think >B? C?</think  >A", "B? C?", "A", True),
        ("a <thinking cap> A", "", "a <thinking cap> A", True),
        ("Sure. <think>B? C?</think>A", "B? C?", "Sure. A", True),
        ("<think>x</think>A<think>y</think>", "xy", "A", True),
        ("<think>A</think>", "A", "", True),
        (
            "<think>Then </think> comes</think>B",
            "Then </think> comes",
            "B",
            True,
        ),
        ("<think>a<think>b</think>c</think>A", "a<think>b</think>c", "A", True),
        ("<think>a</thought>b</think>A", "a</thought>b", "A", True),
        ("<thought>a</think>b", "a</think>b", "", False),
        (CHANNELS, "B? C?", "A", True),
        (CHANNELS + "<|return|>", "B? C?", "A", True),
        ("<|channel|>final<|message|>A", "", "A", True),
        ("<|channel|>analysis<|message|>B? C", "B? C", "", False),
        ("analysisB? C?assistantfinalA", "B? C?", "A", True),
        # What only mentions the words is an answer.
        ("`<think>` opens it, `</think>` ends it: A", "", None, True),
        ('It says "<reasoning>" and "</reasoning>".', "", None, True),
        ("The analysis is mine, reasoning by thought: A", "", None, True),
        ("The token <|channel|> comes first", "", None, True),
        ("A <thinking> cap, [think] and so on", "", None, True),
    ],
)
def test_tags(text: str, reasoning: str, answer: str | None, closed: bool) -> None:
    expected = (reasoning, text if answer is None else answer, closed)
    assert split_thoughts(text) == expected


def test_tags_of_ones_own() -> None:
    more = pair_tags("mull, <|plan|>,<|/plan|>")
    assert parse_think_tags("mull") == parse_think_tags("<mull>,</mull>")
    assert more == (("<mull>", "</mull>"), ("<|plan|>", "<|/plan|>"))
    assert split_thoughts("<Mull>B?</mull>A") == ("", "<Mull>B?</mull>A", True)
    assert split_thoughts("<Mull>B?</mull>A", more) == ("B?", "A", True)
    assert split_thoughts("<|plan|>B?<|/plan|>A", more) == ("B?", "A", True)
    assert split_thoughts("<think>B?</think>A", more) == ("B?", "A", True)
    assert parse_think_tags(" none ") == "none"
    assert split_thoughts("<think>B?", None) == ("", "<think>B?", True)


@pytest.mark.parametrize("text", ["", " , ", "<mull>", "<mull>,<mull>", "<mull>,mull"])
def test_what_is_no_pair_of_tags(text: str) -> None:
    with pytest.raises(ValueError, match=r"\ATags come in pairs\Z"):
        parse_think_tags(text)


ALL_TAGS = [tag for pair in THINK_TAGS for tag in pair]
PIECES = st.sampled_from([*ALL_TAGS, "A", " ", "B? ", "`", "<|channel|>", "<|end|>"])


@pytest.mark.once
@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES, max_size=12).map("".join))
def test_nothing_is_lost_and_an_answer_has_no_thoughts(text: str) -> None:
    found = split_thoughts(text)
    letters = sorted(sign for sign in text if sign in "AB")
    kept = sorted(s for s in found.reasoning + found.answer if s in "AB")
    assert kept == letters or "|>" in text
    if not found.closed:
        assert found.answer == ""


@pytest.mark.once
@pytest.mark.parametrize("pair", [THINK_TAGS[0], THINK_TAGS[6]])
def test_a_long_text_full_of_tags_takes_no_time(pair: TagPair) -> None:
    opening, closing = pair
    started = time.process_time()
    for unit in (opening, f"x{opening}", closing, f"{closing}</thought>", opening * 2):
        split_thoughts(f"x {unit * 50_000}")
        split_thoughts(f"x {unit * 50_000}{closing}")
        split_thoughts(f"{opening}x{closing}y" * 50_000)
    assert time.process_time() - started < 10


# What stands before a long text, and what that repeats.
LONG = [
    ("<|channel|>", "a"),
    ("<|channel|>", " "),
    ("<|channel|>a", "<|constrain|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>a"),
    ("<|start|>", " "),
    ("<|start|>assistant", " "),
    ("analysis", "assistantfina"),
    ("<think></think>", "<thought>"),
    ("", "<think></thought>"),
    ("", "<think><thinking></thinking>"),
    ("", "</think>a<thought>"),
    ("", "`<think>"),
    ("<think", " "),
    ("", "<think "),
    ("", "data:a/b;base64,"),
    ("", "A" * 119 + " "),
    ("```", "\n"),
    ("```\n", "\n "),
    ("", "max_a"),
]


@pytest.mark.once
@pytest.mark.parametrize(("opening", "unit"), LONG)
def test_four_times_the_text_takes_about_four_times_the_time(
    opening: str, unit: str
) -> None:
    """Texts of servers are read on the event loop: one may not stop all others."""
    reader = ReplyReader("http://h/v1", "sk-secret")

    class Opinion(Form):
        value: int

    def seconds(characters: int) -> float:
        text = opening + unit * (characters // len(unit))
        message = {"content": text, "reasoning": text}
        error = {"message": text, "code": text}
        choices = [{"message": message, "finish_reason": text}]
        broken = [{"message": message, "finish_reason": "error", "error": error}]
        refusal = json.dumps({"error": error}).encode()
        # Collecting the garbage of the tests before this one is not part of it.
        gc.collect()
        gc.disable()
        try:
            began = time.process_time()
            reader.read(json.dumps({"choices": choices}).encode())
            with pytest.raises(RequestError):
                reader.read(json.dumps({"choices": broken}).encode())
            reader.words(refusal)
            is_filtered(refusal)
            read_refusal(refusal)
            with pytest.raises(ValueError, match="JSON"):
                read_form(Opinion, text)
            return time.process_time() - began
        finally:
            gc.enable()

    short = min(seconds(100_000) for _ in range(3))
    long = min(seconds(400_000) for _ in range(3))
    assert long <= 8 * max(short, 0.05)
    assert long < 5  # about 0.5 s; what is linear may be slow all the same


@pytest.mark.once
def test_a_text_of_a_million_characters_holds_nobody_up() -> None:
    started = time.process_time()
    split_thoughts("<|channel|>" + "a" * 1_000_000)
    assert time.process_time() - started < 3  # about 0.1 s


def test_thoughts_in_a_field_of_their_own(server: ServerProcess) -> None:
    server.control(rules=[{"answer": "B", "reasoning": "It is red."}])
    reply = ask(server.url, text_request("Which?"))
    assert (reply.text, reply.reasoning) == ("B", "It is red.")


def test_thoughts_of_a_model_that_runs_here() -> None:
    reply = read_reply({"text": "<think>B?</think>A", "finish_reason": "stop"})
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("A", "B?", "stop")
    reply = read_reply({"text": "<mull>B?", "finish_reason": "stop"}, pair_tags("mull"))
    assert (reply.text, reply.reasoning) == ("", "B?")
    assert reply.finish_reason == UNCLOSED_THOUGHT
    reply = read_reply({"text": "<think>B?", "finish_reason": "length"})
    assert (reply.text, reply.finish_reason) == ("", "length")


def test_an_unclosed_tag_is_a_cut_off(server: ServerProcess) -> None:
    server.control(rules=[{"answer": "<think>It may be"}])
    reply = ask(server.url, text_request("Which?"))
    assert (reply.text, reply.reasoning) == ("", "It may be")
    assert (reply.finish_reason, reply.ending) == (UNCLOSED_THOUGHT, "cut_off")
