"""The reader of answers: a table of what it reads and of what it leaves unread."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest

from pytest_vlmeval.sandbox.inside.reading import (
    bare_text,
    read_option,
    read_yes_no,
    same_text,
)
from tests.support.reading_cases import (
    COLOURS,
    LETTERS,
    NEITHER,
    NO,
    OTHERS,
    TEXTS,
    UNREAD,
    YES,
)


def texts(table: Sequence[tuple[str, Sequence[str]]]) -> Iterator[str]:
    """Give the texts of all rows."""
    for _, row in table:
        yield from row


def test_letters_and_texts_are_read() -> None:
    found = {each: read_option(each, COLOURS) for each in texts(LETTERS)}
    assert found == dict.fromkeys(found, "A")


def test_what_can_be_mistaken_is_left_unread() -> None:
    found = {each: read_option(each, COLOURS) for each in texts(UNREAD)}
    assert found == dict.fromkeys(found)


@pytest.mark.parametrize("letter", "BCDI")
def test_any_letter_is_read(letter: str) -> None:
    options = {each: f"text {each}{each}" for each in "ABCDEFGHI"}
    forms = "# (#) #. #) **#** \\boxed{#} 选# 答案是# 【#】".split()
    forms += ["The answer is #.", "# is correct.", "#. text ##", "I'd say so: #"]
    said = [form.replace("#", letter) for form in forms]
    said += [each.lower() for each in said[:6]]
    found = {each: read_option(each, options) for each in said}
    assert found == dict.fromkeys(found, letter)


def test_with_other_options() -> None:
    found = [(options, text, read_option(text, options)) for options, text, _ in OTHERS]
    assert found == OTHERS


def test_yes_and_no_are_read() -> None:
    for table, word in ((YES, "Yes"), (NO, "No"), (NEITHER, None)):
        found = {each: read_yes_no(each) for each in texts(table)}
        assert found == dict.fromkeys(found, word)


def test_a_text_is_a_reference() -> None:
    assert [(said, known, same_text(said, known)) for said, known, _ in TEXTS] == TEXTS


def test_what_stands_around_an_answer_is_left_out() -> None:
    assert bare_text("It is\n<answer> dark **red** </answer><|im_end|>") == "dark red"
    assert bare_text("<answer>a</answer><answer>b</answer>") == "a b"


@pytest.mark.parametrize(
    "piece",
    [
        *("A", "A ", "(", '"', "{", "*", "\\boxed{", "<answer>", "answer is ", "选"),
        *("no ", "\n", "answer:\n", "- ", "the correct ", "a, an, ", "red ", "\\text{"),
    ],
)
def test_a_text_of_megabytes_is_read_at_once(piece: str) -> None:
    text = piece * (2_000_000 // len(piece))
    began = time.process_time()
    read_option(text, COLOURS)
    read_yes_no(text)
    same_text(text, "red")
    assert time.process_time() - began < 5
