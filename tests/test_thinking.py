"""What a model thought is kept apart from what it answered."""

from __future__ import annotations

import pytest

from pytest_vlmeval.models.thinking import split_thoughts
from tests.endpoint_calls import ask, text_request
from tests.server_fixtures import ServerProcess


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
    ],
)
def test_tags(text: str, reasoning: str, answer: str, closed: bool) -> None:
    assert split_thoughts(text) == (reasoning, answer, closed)


def test_thoughts_in_a_field_of_their_own(server: ServerProcess) -> None:
    server.control(rules=[{"answer": "B", "reasoning": "It is red."}])
    reply = ask(server.url, text_request("Which?"))
    assert (reply.text, reply.reasoning) == ("B", "It is red.")


def test_an_unclosed_tag_is_a_cut_off(server: ServerProcess) -> None:
    server.control(rules=[{"answer": "<think>It may be"}])
    reply = ask(server.url, text_request("Which?"))
    assert (reply.text, reply.reasoning) == ("", "It may be")
    assert reply.finish_reason == "length"
