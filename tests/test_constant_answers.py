"""What a model scores that says the same to everything, and what that rests on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.records import JudgeReply
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from tests.judged_rows import rows_only
from tests.sandbox_tables import score, values

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pytest_vlmeval.records import JudgeQuestion, PreparedDataset
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.sandbox_tables import Row

# A reference of MathVision and an answer; whether ms-vlmeval takes it for right, and
# whether it is.
FORMULAS = [
    ("5", "5", 1, 1),
    ("5", "A", 1, 0),
    ("5", "a", 1, 0),
    ("5", "+a", 1, 0),
    ("5", "(a)", 1, 0),
    ("5", "a or b", 1, 0),
    ("5", "a and a", 1, 0),
    ("5", "1*a", 1, 0),
    ("5", "0 or 5", 1, 0),
    ("5", "5 or 7", 1, 0),
    ("5", "7 and 5", 1, 0),
    ("5", "7^2", 1, 0),
    ("5", "4|1", 1, 0),
    ("5", "10>>1", 1, 0),
    ("5", "asw", 0, 0),
    ("5", "gt_asw", 0, 0),
    ("5", "b", 0, 0),
    ("5", "len", 0, 0),
    ("5", "pi", 0, 0),
    ("5", "", 0, 0),
    ("5", "the answer is 5", 0, 0),
    ("5", "5.0", 1, 1),
    ("5", "2+3", 1, 1),
    ("8", "2^3", 1, 1),
    ("5", r"\frac{10}{2}", 1, 1),
    ("0.5", "1/2", 1, 1),
    ("2a", "2a", 1, 1),
    (r"\sqrt{2}", "a", 0, 0),
    (r"\frac{\sqrt{8}}{2}", r"\sqrt{2}", 0, 1),
    ("yes", "a", 0, 0),
]


def formula_rows(folder: Path) -> PreparedDataset:
    """Give an open question of MathVision for each of them."""
    more = {"question": "?", "choices": "[]", "category": "algebra"}
    rows: list[Row] = [
        {"index": number, "answer": reference, **more}
        for number, (reference, *_) in enumerate(FORMULAS)
    ]
    return rows_only(folder, "MathVision", rows)


def test_an_answer_is_no_name_of_a_variable_in_corrected_scoring(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    prepared = formula_rows(tmp_path)
    answers = [(number, said) for number, (_, said, _, _) in enumerate(FORMULAS)]
    published = score(sandbox, prepared, answers)
    corrected = score(sandbox, prepared, answers, None, "corrected")
    for number, (reference, said, as_published, right) in enumerate(FORMULAS):
        found = published.verdicts[number], corrected.verdicts[number]
        told = [verdict.value for verdict in found]
        assert told == [as_published, right], (reference, said)
        assert found[0].rests_on_defect == (as_published > right)
        assert found[0].corrected == (None if as_published == right else right)
        assert found[1].corrected is None
    defects = sum(as_published > right for *_, as_published, right in FORMULAS)
    sound = sum(as_published and right for *_, as_published, right in FORMULAS)
    assert published.sound is not None
    assert published.sound.defects == defects == 13
    assert published.sound.value == pytest.approx(100 * sound / len(FORMULAS))
    assert published.sound.metrics["algebra/acc"] == published.sound.value
    assert corrected.sound is None


def test_a_score_without_defects_says_so(sandbox: Sandbox, tmp_path: Path) -> None:
    prepared = formula_rows(tmp_path)
    found = score(sandbox, prepared, [(0, "5"), (14, "b")])
    assert (found.value, found.sound) == (50, None)
    assert [verdict.corrected for verdict in found.verdicts] == [None, None]


class Scripted:
    """A judge whose replies to ms-vlmeval's prompts are by the answers in them."""

    def __init__(self, replies: dict[str, str]) -> None:
        self._replies = replies
        self.asked: list[JudgeQuestion] = []

    def __call__(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """Reply to each question, with a number of its own."""
        found = []
        for question in questions:
            self.asked.append(question)
            text = next(
                said for word, said in self._replies.items() if word in question.prompt
            )
            found.append(JudgeReply(number=len(self.asked), text=text))
        return found


def test_a_judges_reply_may_rest_on_a_defect_and_it_is_not_asked_again(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    more = {"question": "?", "answer": "5", "choices": "[]", "category": "algebra"}
    rows: list[Row] = [{"index": number, **more} for number in range(4)]
    prepared = rows_only(tmp_path, "MathVision", rows)
    judge = Scripted({"it is five": "5", "the first": "A", "no idea": "?"})
    answers = ["it is five", "the first", "no idea", "A"]
    found = score_in_sandbox(
        sandbox,
        prepared,
        [(str(number), [said]) for number, said in enumerate(answers)],
        judge=judge,
    )
    # What matched as published the judge was not asked about: it counts as wrong.
    assert [verdict.value for verdict in found.verdicts] == [1, 1, 0, 1]
    assert [verdict.corrected for verdict in found.verdicts] == [None, 0, None, 0]
    assert [verdict.exchanges for verdict in found.verdicts] == [(1,), (2,), (3,), ()]
    assert len(judge.asked) == 3
    assert found.sound is not None
    assert (found.sound.defects, found.sound.value) == (2, 25)
    assert values(found.verdicts)["3"] == 1
