"""The confined eval: Python's values for what scorers mean, nothing for the rest."""

from __future__ import annotations

import time

import pytest

from pytest_vlmeval.sandbox.inside.expressions import (
    MAX_LENGTH,
    RefusedExpressionError,
    calculate,
    confined_eval,
    evaluate,
    refuse_code,
)

ALLOWED = """
    1  -1  +2.5  1e3  0x10  1_000  1j  .5  007.5  True  None  ...  'text'  "a"  b'x'
    1/2  2**10  2^3  7//2  7%4  1-2*3  (1+2)*3  ~3  1<<4  6&3  6|3  -(2)**2  2**-1
    1<2  2<3<5  3==3.0  4!=4  not(0)  [1,2]  [1,'a',[2.5]]  (1,)  {1,2}  {'a':1}  []
    ['x','y']  {}  ()  'a''b'
""".split()
SENTENCES = ["3 or 4", "5 and 7", "0 or 2", " 12", "3, 4", "1\n", "not 1", "1 #note"]
REFUSED = [
    "__import__('os')",
    "().__class__",
    "abs(-3)",
    "[1, 2][0]",
    "[x for x in (1, 2)]",
    "lambda: 1",
    "f'{1}'",
    "1 if 1 else 2",
    "(y := 1)",
    "[*(1, 2)]",
    "{**{}}",
    "'a' * 3",
    "[1] * 3",
    "'%s' % 1",
    "1 in (1, 2)",
    "1 is 1",
    "1 @ 2",
    "await 1",
    "9**9**9",
    "10**-99999999",
    "1 << 99999999",
    "+".join(["1"] * 300),
    "[" * 150 + "]" * 150 + "+0",
]


@pytest.mark.parametrize("source", [*ALLOWED, *SENTENCES])
def test_it_gives_what_python_gives(source: str) -> None:
    expected = eval(source)
    found = evaluate(source)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("source", REFUSED)
def test_it_refuses_what_is_more_than_arithmetic(source: str) -> None:
    with pytest.raises(RefusedExpressionError):
        evaluate(source)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("", SyntaxError),
        ("2^{3}x", SyntaxError),
        ("The answer is 3", SyntaxError),
        ("pi", NameError),
        ("abs", NameError),
        ("1/0", ZeroDivisionError),
        ("10.0**999", OverflowError),
        ("1\0", SyntaxError),
        ("(" * 5_000, SyntaxError),
        ("9" * 5_000, SyntaxError),
    ],
)
def test_it_fails_as_python_does(source: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        evaluate(source)


@pytest.mark.parametrize("source", [1, 1.5, None, ["1"]])
def test_what_is_no_text_is_a_type_error_as_in_python(source: object) -> None:
    with pytest.raises(TypeError, match=r"^eval\(\) arg 1 must be a string"):
        evaluate(source)


def test_a_name_is_a_local_variable_of_the_caller() -> None:
    # In mathv.is_equal an answer "a" is the reference, which it therefore equals.
    a = 42
    text = "words"
    assert confined_eval("a") == a
    assert confined_eval("2*a + 1") == 85
    assert confined_eval("text") == text
    assert confined_eval("b", {"b": 7}) == 7


@pytest.mark.parametrize("value", [object(), print, [1], type])
def test_other_locals_are_not_seen(value: object) -> None:
    with pytest.raises(NameError, match="name 'value' is not defined"):
        confined_eval("value")


def test_a_cell_with_many_images_is_read() -> None:
    images = ["A" * 2_000_000, "B" * 1_000_000, ""]
    start = time.process_time()
    assert evaluate(str(images)) == images
    assert time.process_time() - start < 2


@pytest.mark.parametrize("text", ["1+" * MAX_LENGTH + "1", "['a'," + "1," * MAX_LENGTH])
def test_other_long_texts_are_refused_unread(text: str) -> None:
    with pytest.raises(RefusedExpressionError, match="characters, 100000 are allowed"):
        evaluate(text)


@pytest.mark.parametrize(
    "source",
    ["2**19999*" * 900 + "1", "((((9**99)**99)**99)**99)", "1<<(1<<(1<<30))"],
)
def test_sizes_and_so_time_are_bounded(source: str) -> None:
    start = time.process_time()
    with pytest.raises((RefusedExpressionError, RecursionError)):
        evaluate(source)
    assert time.process_time() - start < 2


def test_code_is_refused() -> None:
    with pytest.raises(RefusedExpressionError, match="runs no code from data"):
        refuse_code("import os")


def test_a_long_list_of_any_texts_is_a_literal() -> None:
    texts = ["a 'quote'\n" * MAX_LENGTH, "both ' and \"\\", "夜\x00", ""]
    assert evaluate(str(texts)) == texts
    with pytest.raises(RefusedExpressionError):
        evaluate(str([*texts, 1]))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("42", 42),
        (" -1.5e3 ", -1500),
        ("2^3", 8),
        ("2**3", 8),
        ("(1 + 2) * 3 / 4", 2.25),
        ("+7", 7),
    ],
)
def test_a_number_is_calculated(text: str, value: float) -> None:
    assert calculate(text) == value


NAMES_AND_WORDS = ["a", "+a", "(a)", "a or b", "3 or 4", "5 and 7", "not 1"]
NAMES_AND_WORDS += ["1 if 1 else 2", "len", "asw", "True", "None", "...", "'5'"]
OTHER_OPERATORS = ["1 < 2", "[5]", "(5,)", "{5}", "~5", "6 & 3", "6 | 3", "5 << 1"]
OTHER_OPERATORS += ["7 // 2", "7 % 4", "abs(-3)", "9^9^9", "1+" * MAX_LENGTH]


@pytest.mark.parametrize(
    "text",
    [*NAMES_AND_WORDS, *OTHER_OPERATORS],
)
def test_what_is_more_than_a_number_is_not_calculated(text: str) -> None:
    with pytest.raises((RefusedExpressionError, SyntaxError)):
        calculate(text)


@pytest.mark.parametrize("text", ["", "1 2", "the answer is 3", "2x"])
def test_what_is_no_expression_is_not_calculated(text: str) -> None:
    with pytest.raises(SyntaxError):
        calculate(text)
