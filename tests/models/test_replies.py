"""What a reply means: its text, its thoughts, how it ended; how much is read of it."""

from __future__ import annotations

import gc
import gzip
import json
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.bounded import ERROR_BYTES
from pytest_vlmeval.models.chat import (
    COUNT_LIMIT,
    REASON_LIMIT,
    THINK_TAGS,
    ReplyReader,
    split_thoughts,
)
from pytest_vlmeval.models.client import (
    UNCLOSED_THOUGHT,
    Ending,
    Reply,
    RequestError,
    find_ending,
)
from pytest_vlmeval.models.endpoint import ServerCheck
from pytest_vlmeval.models.local import read_reply
from pytest_vlmeval.models.refusals import is_filtered, read_refusal
from pytest_vlmeval.run.judge import Form
from pytest_vlmeval.run.judge import read_reply as read_form
from pytest_vlmeval.settings.groups import TagPair, pair_tags, parse_think_tags
from tests.support.endpoint_calls import ask, ask_error, check, facts, text_request
from tests.support.server_fixtures import ServerProcess

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


def check_body(body: bytes) -> None:
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
    check_body(json.dumps(tree).encode())


@pytest.mark.once
@settings(max_examples=300, deadline=None)
@given(MESSAGES, TREES, TREES, TREES)
def test_any_message(message: Any, reason: Any, usage: Any, error: Any) -> None:
    choice = {"message": message, "finish_reason": reason, "error": error}
    check_body(
        json.dumps({"choices": [choice], "usage": usage, "error": error}).encode()
    )


@pytest.mark.once
@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=50), st.sampled_from([1, 100, 20_000]))
def test_any_bytes(body: bytes, times: int) -> None:
    check_body(body * times)


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


@pytest.mark.parametrize("text", [",", " , ", "<mull>", "<mull>,<mull>", "<mull>,mull"])
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


MB = 1_000_000
ANSWER = json.dumps({"choices": [{"message": {"content": "A" * 50}}]}).encode()
MODELS = json.dumps({"data": [{"id": "tiny-vlm"}]}).encode()
# What a body begins with where it never ends, plain and compressed.
OPENING = b'{"choices": [{"message": {"content": "'
Body = Callable[[], Iterator[bytes]]


def endless(opening: bytes = OPENING) -> Iterator[bytes]:
    yield opening
    while True:
        yield b"A" * MB


def bomb() -> Iterator[bytes]:
    """Give a gzip body that unpacks to a thousand times its size, without an end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield packer.compress(OPENING)
    while True:
        yield packer.compress(b"A" * MB)


def empty_blocks() -> Iterator[bytes]:
    """Give a gzip body that unpacks to nothing, without an end."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield packer.compress(b"")
    while True:
        yield packer.flush(zlib.Z_FULL_FLUSH) or b"\0\0\0\xff\xff" * 10_000


class Bodies(ThreadingHTTPServer):
    """Answers each request with a body, as chunks until the client has enough."""

    daemon_threads = True
    status = 200
    encoding = ""
    answers: Body
    models: Body = staticmethod(lambda: iter([MODELS]))
    sent = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bodies

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._send(self.server.models)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._send(self.server.answers)

    def _send(self, body: Body) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        if self.server.encoding:
            self.send_header("Content-Encoding", self.server.encoding)
        self.end_headers()
        self.server.sent = 0
        try:
            for part in body():
                if part:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
                    self.server.sent += len(part)
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionError:
            self.close_connection = True


@pytest.fixture
def bodies() -> Iterator[Bodies]:
    server = Bodies(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("answers", "encoding"), [(endless, ""), (bomb, "gzip"), (empty_blocks, "gzip")]
)
def test_a_reply_without_an_end(bodies: Bodies, answers: Body, encoding: str) -> None:
    bodies.answers, bodies.encoding = answers, encoding
    error = ask_error(bodies.url, max_reply_mb=2)
    assert facts(error) == ("protocol", None, False)
    assert str(error) == (
        f"{bodies.url} sent a reply of more than 2 MB, which is not read any further "
        "(--vlm-max-reply-mb)"
    )
    # What was on its way in buffers may be as much again.
    assert bodies.sent < 30 * MB


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_an_error_without_an_end_is_cut(bodies: Bodies, encoding: str) -> None:
    bodies.answers, bodies.status = (bomb if encoding else endless), 503
    bodies.encoding = encoding
    error = ask_error(bodies.url)
    assert facts(error) == ("status", 503, True)
    assert str(error).startswith(f'{bodies.url} answered 503: {{"choices": [')
    assert len(str(error)) < 700
    assert bodies.sent < 30 * ERROR_BYTES


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_list_of_models_without_an_end(bodies: Bodies, encoding: str) -> None:
    bodies.models, bodies.encoding = (bomb if encoding else endless), encoding
    bodies.answers = endless
    with pytest.raises(VlmEvalError) as caught:
        check(bodies.url, max_reply_mb=1)
    assert len(str(caught.value)) < 3_000
    assert bodies.sent < 30 * MB


def test_a_reply_of_just_the_bound(bodies: Bodies) -> None:
    bodies.answers = lambda: iter([ANSWER])
    size = len(ANSWER) / MB
    assert ask(bodies.url, text_request("?"), max_reply_mb=size).text == "A" * 50
    error = ask_error(bodies.url, max_reply_mb=size - 1 / MB)
    assert "more than" in str(error)


MEMBERS = gzip.compress(ANSWER[:20]) + gzip.compress(ANSWER[20:])
CASES: list[tuple[str, bytes]] = [
    ("gzip", gzip.compress(ANSWER)),
    ("GZIP", gzip.compress(ANSWER)),
    ("gzip", MEMBERS),
    ("deflate", zlib.compress(ANSWER)),
    ("identity", ANSWER),
]


# The bodies hold the time at which they were packed, which is no name of a test.
@pytest.mark.parametrize(("encoding", "body"), CASES, ids=range(len(CASES)))
def test_a_compressed_reply(bodies: Bodies, encoding: str, body: bytes) -> None:
    bodies.encoding = encoding
    bodies.answers = lambda: iter([body[:15], body[15:]])
    assert ask(bodies.url, text_request("?")).text == "A" * 50


@pytest.mark.parametrize(
    ("encoding", "body", "words"),
    [
        ("gzip", b"\x1f\x8b no gzip", "its compressed body is damaged"),
        (
            "br",
            ANSWER,
            "its body is compressed by 'br', though only gzip, deflate were asked for",
        ),
    ],
)
def test_a_compressed_reply_that_cannot_be_read(
    bodies: Bodies, encoding: str, body: bytes, words: str
) -> None:
    bodies.encoding = encoding
    bodies.answers = lambda: iter([body])
    error = ask_error(bodies.url)
    assert facts(error) == ("connection", None, True)
    assert str(error) == f"the connection to {bodies.url} failed: {words}"


ASK = r"""
import pathlib, re, sys
from tests.support.endpoint_calls import ask_error

def most_kb():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1])

before = most_kb()
for _ in range(3):
    print(ask_error(sys.argv[1]))
print((most_kb() - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("answers", "encoding"), [(endless, ""), (bomb, "gzip")])
def test_memory_of_replies_without_an_end(
    bodies: Bodies,
    answers: Body,
    encoding: str,
    figure: Callable[[str], None],
) -> None:
    bodies.answers, bodies.encoding = answers, encoding
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", ASK, bodies.url],
        check=True,
        capture_output=True,
        text=True,
    )
    *errors, grown_mb = done.stdout.splitlines()
    took_s = time.monotonic() - started
    figure(f"3 endless replies: {grown_mb} MB more, {took_s:.1f} s")
    assert len(errors) == 3
    assert "more than 32 MB" in errors[0]
    assert int(grown_mb) < 150


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            b'<!DOCTYPE HTML>\n<html lang="en">\n<head><title>Error response</title>\n'
            b"</head><body><h1>Error response</h1><p>Error code: 404</p></body>",
            "HTML page 'Error response'",
        ),
        (
            b"<html>\r\n<head><title>502 Bad Gateway</title></head><body>nginx</body>",
            "HTML page '502 Bad Gateway'",
        ),
        (b"<html><title>\n a &amp;\n b </title>", "HTML page 'a & b'"),
        (
            b"<HTML><head></head><body><!-- x -->No <b>such</b> page",
            "HTML page 'No such page'",
        ),
        (b"<html><body>" + b"word " * 100, f"HTML page '{('word ' * 16)[:77]}...'"),
        (b"<html></html>", "HTML page without a text"),
        (b"<htmlx> is no page", "<htmlx> is no page"),
        (b"see <html>", "see <html>"),
    ],
)
def test_a_page_is_named(body: bytes, words: str) -> None:
    assert READER.words(body) == words


@pytest.mark.parametrize("piece", ["<script>", "<!--", "<", "<title>", "<head "])
def test_a_page_without_ends_takes_no_time(piece: str) -> None:
    started = time.process_time()
    READER.words(b"<html>" + piece.encode() * 100_000)
    assert time.process_time() - started < 1
