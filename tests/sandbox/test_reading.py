"""The reader of answers: what each scoring reads, from a text to the reports."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.records import JudgeReply, Score
from pytest_vlmeval.reports.summary import describe_score
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
from tests.support.run_fixtures import endpoint, properties, write_table
from tests.support.sandbox_tables import (
    cell,
    draw,
    prepare_rows,
    rows_of,
    score,
    values,
)

if TYPE_CHECKING:
    from pytest_vlmeval.records import JudgeQuestion, PreparedDataset, Scoring
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.run_fixtures import Project
    from tests.support.server_fixtures import ServerProcess


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


OPTION_CELLS = {"A": "red", "B": "green", "C": "blue", "D": "black"}
# Answers to a question whose right option is A: what each scoring reads in them.
READINGS: list[tuple[str, str | None, str | None]] = [
    ("A", "A", "A"),
    ("The answer is A.", "A", "A"),
    ("red", "A", "A"),
    ("Nothing is rendered", "A", None),
    ("not red", "A", None),
    ("A cat is shown", "A", None),
    ("The sky-coloured one", "A", None),
    ("the warm one", None, None),
    ("A or B", None, None),
    ("a", None, "A"),
    ("选A", None, "A"),
    ("\\boxed{\\text{A}}", "A", "A"),
    ("<answer>A</answer>", None, "A"),
    ("A<|im_end|>", None, "A"),
    ("B", "B", "B"),
]
YES_NO: list[tuple[str, str | None, str | None]] = [
    ("Yes", "Yes", "Yes"),
    ("Yes, there is no cat", None, "Yes"),
    ("是", None, "Yes"),
    ("**No**", None, "No"),
    ("no.", "No", "No"),
    ("Not at all", None, "No"),
    ("maybe", None, None),
]


def prepare_choices(
    sandbox: Sandbox, folder: Path, answers: Sequence[str], **options: str
) -> PreparedDataset:
    """Prepare questions with the same options as MMStar."""
    columns = {name: [text] * len(answers) for name, text in options.items()}
    rows = rows_of(answers, **columns)
    return prepare_rows(sandbox, folder, "ImageMCQDataset", "MMStar", rows)


@pytest.mark.parametrize("scoring", ["published", "corrected"])
def test_options_are_read_by_the_rules_of_each_scoring(
    sandbox: Sandbox, tmp_path: Path, scoring: Scoring
) -> None:
    prepared = prepare_choices(sandbox, tmp_path, ["A"] * len(READINGS), **OPTION_CELLS)
    answers = [(n, text) for n, (text, _, _) in enumerate(READINGS)]
    found = score(sandbox, prepared, answers, scoring=scoring)
    column = 1 if scoring == "published" else 2
    read = [row[column] for row in READINGS]
    assert [each.extracted for each in found.verdicts] == read
    assert [each.value for each in found.verdicts] == [each == "A" for each in read]
    assert [each.unread for each in found.verdicts] == [each is None for each in read]
    differing = [row[0] for row in READINGS if row[1] != row[2]]
    marked = [
        text
        for (_, text), each in zip(answers, found.verdicts, strict=True)
        if each.corrected is not None
    ]
    assert marked == (differing if scoring == "published" else [])


@pytest.mark.parametrize("scoring", ["published", "corrected"])
def test_yes_and_no_are_read_by_the_rules_of_each_scoring(
    sandbox: Sandbox, tmp_path: Path, scoring: Scoring
) -> None:
    rows = rows_of(["Yes"] * len(YES_NO), category=["x"] * len(YES_NO))
    prepared = prepare_rows(sandbox, tmp_path, "ImageYORNDataset", "POPE", rows)
    answers = [(n, text) for n, (text, _, _) in enumerate(YES_NO)]
    found = score(sandbox, prepared, answers, scoring=scoring)
    read = [row[1 if scoring == "published" else 2] for row in YES_NO]
    assert [each.extracted for each in found.verdicts] == [
        each or "Unknown" for each in read
    ]
    assert [each.unread for each in found.verdicts] == [each is None for each in read]
    assert [each.value for each in found.verdicts] == [each == "Yes" for each in read]


class Saying:
    """A judge that says the same to everything."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.asked: list[JudgeQuestion] = []

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """Reply to all questions."""
        self.asked += questions
        return [JudgeReply(number=len(self.asked), text=self.text) for _ in questions]


@pytest.mark.parametrize(
    ("reply", "published", "corrected"),
    [
        ("A", 1, 1),
        ("选A", None, 1),
        ("**Option a**", None, 1),
        ("Z", 0, 0),
        ("It is rendered", 1, None),
    ],
)
def test_the_judges_replies_go_through_the_same_reader(
    sandbox: Sandbox,
    tmp_path: Path,
    reply: str,
    published: int | None,
    corrected: int | None,
) -> None:
    prepared = prepare_choices(sandbox, tmp_path, ["A"], **OPTION_CELLS)
    for scoring, value in (("published", published), ("corrected", corrected)):
        judge = Saying(reply)
        found = score(sandbox, prepared, [(0, "the warm one")], judge, scoring)  # type: ignore[arg-type]
        (verdict,) = found.verdicts
        assert judge.asked
        assert verdict.value == value, scoring
        assert verdict.state == ("judge_unclear" if value is None else "judged")
        assert not verdict.unread


def test_options_that_pandas_reads_as_missing(sandbox: Sandbox, tmp_path: Path) -> None:
    texts = ["None", "NA", "null", "nan", "N/A", ""]
    columns = {"A": ["red"] * 6, "B": texts}
    rows = rows_of(["B"] * 6, **columns)
    prepared = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", "MMStar", rows)
    answers = [(n, "B") for n in range(6)]
    published = score(sandbox, prepared, answers)
    assert set(values(published.verdicts).values()) == {0}
    assert [each.why_lost for each in published.verdicts] == [
        f"ms-vlmeval reads the option text {text!r} as missing" for text in texts[:5]
    ] + [""]
    assert [each.corrected for each in published.verdicts] == [1] * 5 + [None]
    corrected = score(sandbox, prepared, answers, scoring="corrected")
    assert list(values(corrected.verdicts).values()) == [1] * 5 + [0]
    assert {each.why_lost for each in corrected.verdicts} == {""}
    by_text = [(n, text or "x") for n, text in enumerate(texts)]
    corrected = score(sandbox, prepared, by_text, scoring="corrected")
    assert list(values(corrected.verdicts).values()) == [1] * 5 + [0]


def test_references_that_pandas_reads_as_missing(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = rows_of(["None", "Exit"], category=["JA", "DE"])
    prepared = prepare_rows(sandbox, tmp_path, "MTVQADataset", "MTVQA_TEST", rows)
    answers = [(0, "None"), (1, "Exit")]
    published = score(sandbox, prepared, answers)
    (first, second) = published.verdicts
    assert (second.value, second.why_lost) == (1, "")
    if not first.value:
        assert first.why_lost == "ms-vlmeval reads the reference 'None' as missing"
    corrected = score(sandbox, prepared, answers, scoring="corrected")
    assert corrected.scoring == "corrected"
    assert list(values(corrected.verdicts).values()) == [1, 1]


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (
            "exact_matching",
            "21 of 40 answers named no option (counted as wrong; a judge would read "
            "them)",
        ),
        ("gpt", "21 of 40 answers named no option (counted as wrong)"),
    ],
)
def test_unread_answers_are_counted_in_words(judge: str, said: str) -> None:
    score = Score(
        dataset="D",
        metrics={},
        main_metric="m",
        value=0,
        best=0,
        samples=41,
        answered=40,
        correct=0,
        undecided=0,
        modified=False,
        scorer="",
        judge=judge,
        unread=21,
    )
    assert describe_score(score) == [said]


def test_own_tables_and_the_reports(project: Project, server: ServerProcess) -> None:
    """One session: own tables are corrected, a published one says what it lost."""
    asked = [*READINGS, ("None", None, "B")]
    options = {"A": "red", "B": "None", "C": "blue", "D": "black"}
    write_table(
        project.pytester.path / "mine.tsv",
        [
            {"index": str(n), "question": f"<m{n}>?", "answer": "A", **OPTION_CELLS}
            for n in range(len(READINGS))
        ]
        + [{"index": "none", "question": "<none>?", "answer": "B", **options}],
    )
    open_answers = [
        ("红色。", "红色"),
        ("\uff11\uff12\uff13", "123"),
        ("Red.", "red"),
        ("No", "red"),
        ("5", "-5"),
        ("-0.5", "0.5"),
        ("x>y", "x<y"),
        ("C++", "['C', 'c']"),
    ]
    write_table(
        project.pytester.path / "open.tsv",
        [
            {"index": str(n), "question": f"<o{n}>?", "answer": known}
            for n, (_, known) in enumerate(open_answers)
        ],
    )
    image = cell(draw(1))
    write_table(
        project.data_root / "MMStar.tsv",
        [
            {
                "index": "1",
                "question": "<p1>?",
                "image": image,
                "answer": "B",
                **options,
            },
            {
                "index": "2",
                "question": "<p2>?",
                "image": image,
                "answer": "A",
                **options,
            },
        ],
    )
    project.pytester.makepyfile(
        test_all="""
        from pytest_vlmeval import Benchmark

        class TestAll(Benchmark):
            datasets = ["mine.tsv", "open.tsv", "MMStar"]
        """
    )
    answers = {f"<m{n}>": text for n, (text, _, _) in enumerate(READINGS)}
    answers |= {f"<o{n}>": said for n, (said, _) in enumerate(open_answers)}
    answers |= {"<none>": "None", "<p1>": "B", "<p2>": "rendered"}
    server.control(answers=answers, default="A")
    result, cases = project.junit(
        *endpoint(server.url),
        "--vlm-export=out",
        "--vlm-report=report.html",
        "-rx",
    )
    told = {
        name: properties(cases[f"test_score[{name}]"])
        for name in ("mine", "open", "MMStar")
    }
    right = sum(read == "A" for _, _, read in READINGS) + 1
    assert told["mine"]["scoring"] == told["open"]["scoring"] == "corrected"
    assert told["MMStar"]["scoring"] == "published"
    assert float(told["mine"]["score"]) == pytest.approx(100 * right / len(asked))
    assert told["open"]["score"] == "37.5"
    assert [told[name]["unread"] for name in told] == ["6", "0", "1"]
    line = "6 of 16 answers named no option (counted as wrong; a judge would read them)"
    result.stdout.fnmatch_lines([f"mine: {line}"])
    result.stdout.fnmatch_lines(
        [
            "XFAIL *MMStar-1* - answered B, reference B: wrong, because ms-vlmeval "
            "reads the option text 'None' as missing (--vlm-scoring=corrected: correct)"
        ]
    )
    assert properties(cases["test_sample[mine-6]"])["unread"] == "true"
    assert "unread" not in properties(cases["test_sample[mine-0]"])
    folder = project.pytester.path / "out"
    results = json.loads((folder / "results.json").read_text())
    scores = {each["name"]: each["score"] for each in results["datasets"]}
    assert {name: each["unread"] for name, each in scores.items()} == {
        "mine": 6,
        "open": 0,
        "MMStar": 1,
    }
    assert scores["MMStar"]["differing"] == 2
    assert f"mine: {line}" in (folder / "summary.md").read_text()
    page = html.unescape((project.pytester.path / "report.html").read_text())
    assert line in page
    # Given explicitly, published holds for own tables, too.
    _, cases = project.junit(
        *endpoint(server.url), "--vlm-scoring=published", "--vlm-mode=score"
    )
    told["mine"] = properties(cases["test_score[mine]"])
    right = sum(read == "A" for _, read, _ in READINGS) + 1
    assert told["mine"]["scoring"] == "published"
    assert float(told["mine"]["score"]) == pytest.approx(100 * right / len(asked))


PAGE = Path(__file__).parents[2] / "docs" / "reading.md"
PARTS = {
    "the options": ("options", [("A", LETTERS), (None, UNREAD)]),
    "yes and no": ("yes and no", [("Yes", YES), ("No", NO), (None, NEITHER)]),
}


# What Markdown or HTML would take for its own.
SIGNS = "\\`*_{}[]<>|#$~&-+"


def shown(text: str) -> str:
    """Give a text as a cell of a table shows it, whatever is in it."""
    signs = (
        f"&#{ord(sign)};" if sign in SIGNS or not sign.isprintable() else sign
        for sign in text.replace("\n", "⏎")
    )
    return f"<code>{''.join(signs)}</code>" if text.strip() else "(nothing)"


def read_all(
    sandbox: Sandbox, folder: Path, title: str, scoring: Scoring
) -> dict[str, str | None]:
    """Give what a scoring reads in each text of a part of the page."""
    texts = [text for _, table in PARTS[title][1] for _, row in table for text in row]
    if title == "the options":
        columns = {name: [option] * len(texts) for name, option in COLOURS.items()}
        rows = rows_of(["A"] * len(texts), **columns)
        prepared = prepare_rows(sandbox, folder, "ImageMCQDataset", "MMStar", rows)
    else:
        rows = rows_of(["Yes"] * len(texts), category=["x"] * len(texts))
        prepared = prepare_rows(sandbox, folder, "ImageYORNDataset", "POPE", rows)
    found = score(sandbox, prepared, list(enumerate(texts)), scoring=scoring)
    return {
        text: None if each.unread else each.extracted
        for text, each in zip(texts, found.verdicts, strict=True)
    }


def test_the_page_shows_what_each_scoring_reads(
    sandbox: Sandbox, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for title, (end, tables) in PARTS.items():
        published = read_all(sandbox, tmp_path, title, "published")
        corrected = read_all(sandbox, tmp_path, title, "corrected")
        lines = ["| answers | published reads | corrected reads |", "|---|---|---|"]
        for expected, table in tables:
            for kind, row in table:
                assert {corrected[text] for text in row} == {expected}, kind
                by_reading: dict[str | None, list[str]] = {}
                for text in row:
                    by_reading.setdefault(published[text], []).append(shown(text))
                for reading, cells in by_reading.items():
                    said = f"{kind}: {' '.join(cells)}"
                    lines.append(f"| {said} | {reading or '-'} | {expected or '-'} |")
        before, begin, rest = page.partition(f"writes {title}. -->\n")
        _, until, after = rest.partition(f"<!-- Until here: {end}. -->")
        assert begin, title
        assert until, end
        page = "\n".join([before + begin.rstrip(), *lines, until + after])
    if request.config.getoption("--write-docs"):
        PAGE.write_text(page, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page, (
        "docs/reading.md is not what the scorings read: write it anew by "
        "pytest tests/sandbox/test_reading.py --write-docs"
    )
