"""What a reply's body means: its text, its thoughts, and how it ended."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vlmeval.models.chat import COUNT_LIMIT, REASON_LIMIT, ReplyReader
from pytest_vlmeval.models.client import Reply, RequestError
from pytest_vlmeval.models.endings import Ending, find_ending
from pytest_vlmeval.models.endpoint import ServerCheck
from pytest_vlmeval.models.refusals import is_filtered

READER = ReplyReader("http://server/v1", "sk-secret")
CHECK = ServerCheck("m", "http://server/v1", READER, "model")
CALLS = [{"id": "1", "type": "function", "function": {"name": "answer"}}]


def body_of(finish_reason: object = "stop", **message: object) -> bytes:
    choice = {"message": {"role": "assistant", **message}, "index": 0}
    choices = [choice | {"finish_reason": finish_reason}]
    usage = {"prompt_tokens": 7, "completion_tokens": 3}
    return json.dumps({"choices": choices, "usage": usage}).encode()


def error_of(body: bytes) -> RequestError:
    with pytest.raises(RequestError) as caught:
        READER.read(body)
    return caught.value


ENDINGS: dict[Ending, str] = {
    "complete": "stop|eos_token|end_turn|STOP|stop_sequence|tool_calls|COMPLETE||null",
    "cut_off": "length|max_tokens|MAX_TOKENS|model_length|MAX-TOKENS|token_limit",
    "filtered": "content_filter|SAFETY|RECITATION|PROHIBITED_CONTENT|sensitive",
    "refused": "refusal",
    "broken_off": "abort|error|ERROR|cancelled|FINISH_REASON_ERROR",
    "unknown": "foo|repetition|OTHER|stop it",
}


def test_each_finish_reason_has_its_meaning() -> None:
    for ending, reasons in ENDINGS.items():
        found = {reason: find_ending(reason) for reason in reasons.split("|")}
        assert found == dict.fromkeys(found, ending)


@pytest.mark.parametrize(
    ("body", "text", "reasoning", "finish_reason"),
    [
        (body_of("max_tokens", content="A is"), "A is", "", "max_tokens"),
        (body_of(None, content="A"), "A", "", "stop"),
        (body_of("", content="A"), "A", "", "stop"),
        (body_of({"type": "length"}, content="A"), "A", "", "length"),
        (body_of("foo\n\x1b" + "o" * 99, content="A"), "A", "", None),
        (body_of("content_filter", content=None), "", "", "content_filter"),
        (body_of("content_filter", content="A"), "A", "", "content_filter"),
        (body_of(content=None, refusal="I can't."), "I can't.", "", "refusal"),
        (body_of(content="A", refusal=""), "A", "", "stop"),
        (body_of(content="A", reasoning="B?"), "A", "B?", "stop"),
        (body_of(content=None, reasoning_content="A it is"), "", "A it is", "stop"),
        (body_of("tool_calls", content=None, tool_calls=CALLS), "", "", "tool_calls"),
        (body_of(content="", tool_calls=CALLS), "", "", "tool_calls"),
        (body_of("tool_calls", content="A", tool_calls=CALLS), "A", "", "tool_calls"),
        (body_of(content=[{"type": "text", "text": "A"}]), "A", "", "stop"),
        (body_of(content={"type": "text", "text": "A"}), "A", "", "stop"),
        (
            body_of(content=[{"type": "reasoning", "text": "B?"}, {"text": "A"}]),
            "A",
            "B?",
            "stop",
        ),
        (
            body_of(
                content=[
                    {"type": "thinking", "thinking": [{"type": "text", "text": "B?"}]},
                    {"type": "text", "text": "A"},
                ]
            ),
            "A",
            "B?",
            "stop",
        ),
        (
            body_of(content=[{"type": "refusal", "refusal": "No."}]),
            "No.",
            "",
            "refusal",
        ),
        (body_of(content="<think>B?</think>A"), "A", "B?", "stop"),
        (body_of(content="<think>B"), "", "B", "unclosed_thought"),
        (body_of("OTHER", content="<think>B"), "", "B", "unclosed_thought"),
        (body_of("MAX_TOKENS", content="<think>B"), "", "B", "MAX_TOKENS"),
        (body_of("content_filter", content="<think>B"), "", "B", "content_filter"),
        (body_of(content="A", refusal="No."), "No.\nA", "", "refusal"),
        (body_of(content="", thinking="B?"), "", "B?", "stop"),
        (
            body_of(content="", reasoning_details=[{"type": "x", "text": "B?"}]),
            "",
            "B?",
            "stop",
        ),
        (
            body_of(content=None, function_call={"name": "f", "arguments": "{}"}),
            "",
            "",
            "tool_calls",
        ),
        (
            body_of(content="A\0\ud800", reasoning="B\0\udfff"),
            "A\ufffd\ufffd",
            "B\ufffd\ufffd",
            "stop",
        ),
    ],
)
def test_a_reply(
    body: bytes, text: str, reasoning: str, finish_reason: str | None
) -> None:
    if finish_reason is None:
        finish_reason = "foo \\x1b" + "o" * (REASON_LIMIT - 5)
    assert READER.read(body) == Reply(
        text=text,
        reasoning=reasoning,
        finish_reason=finish_reason,
        prompt_tokens=7,
        completion_tokens=3,
    )


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (DEEP, "JSON that is nested too deep to be read"),
        (b'{"choices": ' + DEEP, "JSON that is nested too deep to be read"),
        (
            body_of(["stop"], content=None),
            "a finish_reason that is no text but of the type list",
        ),
        (body_of(content=3), "a content that is no text but of the type int"),
        (b"null", "no choices: null"),
        (b'{"choices": [null]}', 'no choices: {"choices": [null]}'),
        (b'{"choices": [{"message": null}]}', "a choice without a message"),
        (body_of(content=None), "null content"),
        (b'{"choices": ' + b"1" * 9_000, None),
    ],
)
def test_what_holds_no_answer(body: bytes, words: str | None) -> None:
    error = error_of(body)
    assert (error.kind, error.retryable) == ("protocol", True)
    assert len(str(error)) < 700
    if words is not None:
        assert str(error) == f"http://server/v1 answered 200 with {words}"


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_thought_that_is_broken_off_is_asked_again(reason: str) -> None:
    error = error_of(body_of(reason, content="<think>I was"))
    assert (error.kind, error.retryable) == ("aborted", True)


def test_an_answer_that_is_broken_off_is_an_error_that_may_pass() -> None:
    choice = {"message": {"content": "A par"}, "finish_reason": "error"}
    choice["error"] = {"message": "GPU lost, key sk-secret"}
    error = error_of(json.dumps({"choices": [choice]}).encode())
    assert (error.kind, error.retryable) == ("aborted", True)
    assert str(error) == (
        "http://server/v1 broke the answer off (finish_reason 'error'): GPU lost, "
        "key ***; it began: A par"
    )


@pytest.mark.parametrize(
    ("given_count", "read"),
    [
        (10**23, 0),
        (-1, 0),
        (True, 0),
        (None, 0),
        ([1], 0),
        (1e300, 0),
        ("1e3", 0),
        ("12", 12),
        (1.0, 1),
        (COUNT_LIMIT, COUNT_LIMIT),
        (COUNT_LIMIT + 1, 0),
    ],
)
def test_a_count_of_tokens(given_count: object, read: int) -> None:
    usage = {"prompt_tokens": given_count, "completion_tokens": 1}
    choices = [{"message": {"content": "A"}}]
    reply = READER.read(json.dumps({"choices": choices, "usage": usage}).encode())
    assert (reply.prompt_tokens, reply.completion_tokens) == (read, 1)


def test_a_prompt_that_a_filter_stopped() -> None:
    azure = {"code": "content_filter", "innererror": {"code": "x"}, "message": "No."}
    assert is_filtered(json.dumps({"error": azure}).encode())
    inner = {"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}}
    assert is_filtered(json.dumps({"error": inner}).encode())
    for body in (b"", DEEP, b"null", b'{"error": "content_filter"}', b'{"error": {}}'):
        assert not is_filtered(body)


# Names that a reply gives a meaning to, with values of every kind below them.
NAMES = st.sampled_from(
    "choices message content finish_reason usage prompt_tokens completion_tokens "
    "reasoning reasoning_content refusal tool_calls text type thinking thought error "
    "code innererror detail delta data models id name".split()
)
TEXTS = st.text(st.characters(), max_size=8) | st.sampled_from(
    ["<think>", "</think>", "reasoning", "refusal", "error", "length", "\0", "\ud800"]
)
NUMBERS = st.integers(-(10**30), 10**30) | st.floats()
TREES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES, inner, max_size=5)
        | st.fixed_dictionaries({"message": inner}).map(lambda it: {"choices": [it]})
    ),
    max_leaves=20,
)
MESSAGES = st.dictionaries(NAMES, TREES, max_size=5)


def read(body: bytes) -> Reply | RequestError:
    try:
        return READER.read(body)
    except RequestError as error:
        return error


def check(body: bytes) -> None:
    """Read a body in every way: nothing else than a reply or an error comes of it."""
    found = read(body)
    if isinstance(found, RequestError):
        assert found.kind in ("protocol", "aborted")
        assert len(str(found)) < 6_000  # 500 characters, all of them escaped
        str(found).encode()
    else:
        for text in (found.text, found.reasoning, found.finish_reason):
            text.encode()
            assert "\0" not in text
        assert 0 <= found.prompt_tokens <= COUNT_LIMIT
        assert 0 <= found.completion_tokens <= COUNT_LIMIT
        assert found.ending != "broken_off"
    READER.words(body).encode()
    is_filtered(body)
    with suppress(RequestError):
        READER.first_choice(body)
    listing = CHECK.read_models(body)
    listing.find("m")
    listing.problem.encode()


@pytest.mark.once
@settings(max_examples=300, deadline=None)
@given(TREES)
def test_any_tree(tree: Any) -> None:
    check(json.dumps(tree).encode())


@pytest.mark.once
@settings(max_examples=300, deadline=None)
@given(MESSAGES, TREES, TREES, TREES)
def test_any_message(message: Any, reason: Any, usage: Any, error: Any) -> None:
    choice = {"message": message, "finish_reason": reason, "error": error}
    check(json.dumps({"choices": [choice], "usage": usage, "error": error}).encode())


@pytest.mark.once
@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=50), st.sampled_from([1, 100, 20_000]))
def test_any_bytes(body: bytes, times: int) -> None:
    check(body * times)
