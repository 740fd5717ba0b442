"""What tables, paths and servers say reaches no terminal as it is."""

from __future__ import annotations

import pytest

from pytest_vlmeval.errors import (
    NeedsJudgeError,
    NotAskedError,
    VlmEvalError,
    printable,
    shorten_words,
)

# Colours, a title, a bell, NUL, C1 controls, and marks that turn the writing around.
OBEYED = "\x1b\x07\x00\x08\x0d\x7f\x9b\x9d\u202e\u2066\u200f"


@pytest.mark.parametrize("kind", [VlmEvalError, NeedsJudgeError, NotAskedError])
def test_no_error_says_what_a_terminal_obeys(kind: type[VlmEvalError]) -> None:
    said = str(kind(f"row 1: {OBEYED}.png\n\tnext"))
    assert said == f"row 1: {printable(OBEYED)}.png\n\tnext"
    assert not [sign for sign in OBEYED if sign in said]
    assert "\\x1b\\x07\\x00" in said


def test_letters_and_blanks_of_any_script_stay() -> None:
    text = "全角\u3000空 naïve\u00a0ünï \u0645\u0646 👩\u200d🔬"
    assert printable(text) == text


def test_a_very_long_path_is_shortened() -> None:
    path = "/start/" + "x" * 5_000 + "/end.png"
    said = str(VlmEvalError(f"row 1: {path} is none. Write it anew."))
    assert said == (
        f"row 1: {path[:200]}...{path[-100:]} (5015 characters) is none. Write it anew."
    )
    assert shorten_words(path[:500]) == path[:500]
