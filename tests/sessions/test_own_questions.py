"""Benchmarks that make the questions of a table's rows themselves."""

from __future__ import annotations

import base64
import io
import json
import os
import zipfile
from pathlib import Path

import pytest

from pytest_vlmeval import Benchmark, evaluate
from pytest_vlmeval.records import Answer, Sample
from tests.support.birds import PAGE
from tests.support.documentation import block, read
from tests.support.hub_server import HubServer
from tests.support.run_fixtures import Project, endpoint, image_bytes, write_table
from tests.support.server_fixtures import ServerProcess

CLASS = """
from pytest_vlmeval import Benchmark


class TestPairs(Benchmark):
    datasets = ["pairs.jsonl"]

    def questions(self, row):
        for question, answer in zip(row["asked"], row["known"]):
            yield {
                **row,
                "question": f"{question} In one word.",
                "answer": answer,
                "image_path": row["picture"],
                "category": row["group"],
            }

    def score(self, sample, answer):
        return answer.text.lower() == sample.reference

    def aggregate(self, verdicts, samples):
        first, second = samples["1"], samples["3"]
        assert first.row["known"] == '["red", "blue"]'
        values = [each.value for each in verdicts]
        return {"exact": sum(values) / len(values), second.category: values[2]}
"""
ROWS: list[dict[str, object]] = [
    {
        "asked": ["Which <1>?", "Which <2>?"],
        "known": ["red", "blue"],
        "picture": "1.png",
        "group": "left",
    },
    {"asked": ["Which <3>?"], "known": ["green"], "picture": "2.png", "group": "right"},
]


@pytest.fixture
def pairs(project: Project, server: ServerProcess) -> Project:
    """Give a table with several questions in a row, and a benchmark that asks them."""
    folder = project.pytester.path
    write(folder / "pairs.jsonl", ROWS)
    for number in (1, 2):
        (folder / f"{number}.png").write_bytes(image_bytes(number))
    (folder / "test_pairs.py").write_text(CLASS)
    server.control(answers={"<1>": "Red", "<2>": "red", "<3>": "green"})
    return project


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Write a table of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change(project: Project, before: str, after: str) -> None:
    """Change the benchmark."""
    path = project.pytester.path / "test_pairs.py"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "n2"])
def test_rows_become_questions(
    pairs: Project, server: ServerProcess, workers: list[str]
) -> None:
    arguments = [*endpoint(server.url), *workers, "--vlm-export=out"]
    result = pairs.run(*arguments)
    result.assert_outcomes(passed=3, xfailed=1)
    result.stdout.fnmatch_lines(["pairs * 3 * 3 * 2 * exact 66.67 of 100 * own *"])
    out = json.loads((pairs.pytester.path / "out" / "results.json").read_text())
    (dataset,) = out["datasets"]
    assert dataset["score"]["metrics"] == {"exact": pytest.approx(2 / 3), "right": 1}
    asked = {str(each["text"]): each["images"] for each in server.requests()}
    # As it is written, without what ms-vlmeval adds.
    assert set(asked) >= {f"Which <{n}>? In one word." for n in (1, 2, 3)}
    assert all(len(list(each)) == 1 for each in asked.values())  # type: ignore[call-overload]
    count = len(server.requests())
    pairs.run(*arguments).assert_outcomes(passed=3, xfailed=1)
    assert len(server.requests()) == count


def test_what_changed_is_asked_again(pairs: Project, server: ServerProcess) -> None:
    pairs.ask(server.url)
    count = len(server.requests())
    # Other code that makes the same questions.
    change(pairs, "    def questions", "    limit = 3\n\n    def questions")
    change(pairs, 'row["group"],', 'str(row["group"]),')
    pairs.ask(server.url).assert_outcomes(passed=3, xfailed=1)
    assert len(server.requests()) == count
    change(pairs, "In one word.", "Say it.")
    pairs.ask(server.url)
    assert len(server.requests()) == count + 3
    # An image beside the table is part of it.
    image = pairs.pytester.path / "2.png"
    image.write_bytes(image_bytes(9))
    os.utime(image, (1, 1))
    pairs.ask(server.url)
    assert len(server.requests()) == count + 4


class Pairs(Benchmark):
    """Asks the questions of a row, and scores them."""

    def questions(self, row: dict[str, list[str]]) -> list[dict[str, str]]:
        return [
            {"question": question, "answer": answer}
            for question, answer in zip(row["asked"], row["known"], strict=True)
        ]

    def score(self, sample: Sample, answer: Answer) -> bool:
        return answer.text.lower() == sample.reference


def test_evaluate_takes_them_from_a_class(
    pairs: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pairs.pytester.path)
    found = evaluate("tiny-vlm", ["pairs.jsonl"], api_base=server.url, score=Pairs)
    assert found.score("pairs").value == pytest.approx(200 / 3)
    assert "Which <1>?" in [each["text"] for each in server.requests()]


def test_without_a_score_it_is_scored_as_a_table_is(
    pairs: Project, server: ServerProcess
) -> None:
    change(pairs, CLASS[CLASS.index("    def score") :], "")
    result = pairs.ask(server.url)
    result.assert_outcomes(passed=3, xfailed=1)
    result.stdout.fnmatch_lines(["pairs * Overall 66.67 of 100*"])


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (
            'row["asked"]',
            'row["ask"]',
            "pairs.jsonl: TestPairs.questions (test_pairs.py:8) fails at row 1 (line "
            "1): KeyError: 'ask'. The row has the columns asked, known, picture, "
            "group.",
        ),
        (
            "yield {",
            "yield question, {",
            "pairs.jsonl: TestPairs.questions (test_pairs.py:8) gave a list with "
            "others for row 1 (line 1). It has to give a dict, by column, for each "
            'question of the row: {"question": "What?", "answer": "A cat"}.',
        ),
        (
            "        for question",
            "        return 3\n        for question",
            None,
        ),
        (
            '"question": f',
            '"query": f',
            "pairs.jsonl: what TestPairs.questions (test_pairs.py:8) makes of row 1 "
            "(line 1) cannot be used: it has no question, only asked, known, picture, "
            "group, query, answer, image_path, category.",
        ),
        (
            'row["picture"]',
            '"3.png"',
            "pairs.jsonl: what TestPairs.questions (test_pairs.py:8) makes of row 1 "
            "(line 1) cannot be used: its image 3.png: No such file or directory.",
        ),
        (
            '"category": row["group"]',
            '"category": b"x"',
            "pairs.jsonl: what TestPairs.questions (test_pairs.py:8) makes of row 1 "
            "(line 1) cannot be used: its category is bytes; only image takes these.",
        ),
        (
            'row["asked"], row["known"]',
            "[], []",
            "pairs.jsonl: TestPairs.questions (test_pairs.py:8) makes no question of "
            "its 2 rows. It has to give a dict for each question.",
        ),
    ],
)
def test_rows_of_which_no_questions_can_be_made(
    pairs: Project, server: ServerProcess, before: str, after: str, text: str | None
) -> None:
    change(pairs, before, after)
    result = pairs.ask(server.url)
    said = str(result.stdout) + str(result.stderr)
    text = text or "makes no question of its 2 rows."
    folder = pairs.pytester.path
    assert text.replace("pairs.jsonl:", f"{folder}/pairs.jsonl:") in said
    assert not server.requests()


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (
            "def questions(self, row)",
            "def questions(self, row, number)",
            "TestPairs.questions (test_pairs.py:8) has to take (row); it takes (row, "
            "number).",
        ),
        (
            "    def questions",
            "    async def questions",
            "TestPairs.questions (test_pairs.py:8) is asynchronous. Preparing calls "
            "plain functions: write def without async.",
        ),
        (
            "    def score",
            "    questions = 3\n\n    def score",
            "TestPairs.questions is a int and cannot be called. It has to be a "
            "function.",
        ),
        (
            "    def questions",
            '    columns = {"question": "asked"}\n\n    def questions',
            "TestPairs has columns, and TestPairs.questions (test_pairs.py:10): that "
            "gets the rows with the columns of the file. Leave columns out.",
        ),
        (
            '"pairs.jsonl"',
            '"DemoOpen"',
            "TestPairs.questions (test_pairs.py:8) makes questions of a table's rows, "
            "and DemoOpen is a dataset with questions of its own. Name the place of a "
            "table, or leave questions out.",
        ),
        (
            "self, verdicts, samples",
            "self, verdicts, samples, more",
            "TestPairs.aggregate (test_pairs.py:21) has to take (verdicts), or "
            "(verdicts, samples); it takes (verdicts, samples, more).",
        ),
    ],
)
def test_functions_that_cannot_be_called_end_the_session(
    pairs: Project, server: ServerProcess, before: str, after: str, text: str
) -> None:
    change(pairs, before, after)
    result = pairs.ask(server.url)
    assert text in str(result.stdout) + str(result.stderr)
    assert result.ret != 0
    assert not server.requests()


def test_two_benchmarks_of_one_table(pairs: Project, server: ServerProcess) -> None:
    path = pairs.pytester.path / "test_pairs.py"
    other = CLASS.replace("TestPairs", "TestOther").replace("one word", "two")
    path.write_text(CLASS + other)
    said = str(pairs.ask(server.url).stdout)
    assert (
        f"{pairs.pytester.path}/pairs.jsonl: two benchmarks make other questions of "
        "its rows, TestPairs.questions and TestOther.questions. Let one have a copy of "
        "the table, or inherit from the other."
    ) in said
    assert "selection.py" not in said


def test_images_outside_of_the_folder(
    pairs: Project, server: ServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "other.png").write_bytes(image_bytes(3))
    change(pairs, 'row["picture"]', repr(str(tmp_path / "other.png")))
    change(pairs, CLASS[CLASS.index("    def aggregate") :], "")
    for _ in range(2):
        outside = pairs.ask(server.url, "--vlm-limit=1")
        outside.assert_outcomes(passed=2)
        outside.stdout.fnmatch_lines(
            [f"*pairs.jsonl names images outside of its folder, in {tmp_path}"]
        )
    inside = pairs.ask(server.url, "--vlm-data-paths=inside")
    assert (
        "other.png: it lies outside of the table's folder, and --vlm-data-paths=inside "
        "is given."
    ) in str(inside.stdout)


HUB = """
from pytest_vlmeval import Benchmark


class TestPacked(Benchmark):
    datasets = ["hf:org/packed"]

    def questions(self, row):
        return {**row, "question": row["ask"], "image_path": row["file"]}

    def score(self, sample, answer):
        return answer.text == sample.reference
"""


def archive(**files: bytes) -> bytes:
    """Pack files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, data in files.items():
            packed.writestr(name.replace("__", "/"), data)
    return out.getvalue()


@pytest.mark.slow
def test_images_in_archives_of_a_repository(
    project: Project,
    server: ServerProcess,
    hub_environment: HubServer,
    run_cache: Path,
    tmp_path: Path,
) -> None:
    (project.pytester.path / "test_packed.py").write_text(HUB)
    rows = [
        {"ask": "Which <1>?", "answer": "red", "file": "images/1.png"},
        {"ask": "Which <2>?", "answer": "red", "file": "2.png"},
    ]
    files = {
        "rows.json": json.dumps(rows).encode(),
        "2.png": image_bytes(2),
        "other.zip": archive(images__9=b"no image"),
        "images.zip": archive(**{"images__1.png": image_bytes(1)}),
    }
    hub_environment.repositories["org/packed"] = files
    server.control(default="red")
    result = project.ask(server.url)
    result.assert_outcomes(passed=3)
    # That which is called as the image's folder is opened first, the other not at all.
    assert set(hub_environment.downloads()) == {"rows.json", "2.png", "images.zip"}
    sent = [list(each["images"]) for each in server.requests()]  # type: ignore[call-overload]
    assert [len(each) for each in sent if each] == [1, 1]
    # What is no longer there is downloaded where that is allowed.
    for name, why in (
        (
            "images.zip",
            "its images are in images.zip, which is not on disk, and --vlm-",
        ),
        ("2.png", "its image 2.png is not on disk, and --vlm-"),
    ):
        for made in run_cache.glob("questions/*.json*"):
            made.unlink()
        for file in (tmp_path / "hf").rglob(name):
            file.resolve().unlink()
            file.unlink()
        offline = str(project.ask(server.url, "--vlm-offline").stdout)
        assert f"{why}offline is set. Run the same command once without it." in offline
        project.ask(server.url).assert_outcomes(passed=3)
    # Of what the repository does not have, each message names what it has.
    rows[0]["file"] = "../1.png"
    files["rows.json"] = json.dumps(rows).encode()
    hub_environment.repositories["org/none"] = files
    path = project.pytester.path / "test_packed.py"
    path.write_text(HUB.replace("org/packed", "org/none"))
    missing = project.ask(server.url)
    assert (
        "its image ../1.png is neither a file of the repository nor in an archive of "
        "it (other.zip, images.zip)."
    ) in str(missing.stdout)
    hub_environment.repositories["org/bad"] = {
        "rows.json": json.dumps(rows[:1]).encode(),
        "images.zip": b"PK no archive",
    }
    path.write_text(HUB.replace("org/packed", "org/bad"))
    damaged = str(project.ask(server.url).stdout)
    assert "images.zip cannot be read (BadZipFile: File is not a zip file)." in damaged


def test_a_text_file_has_texts(project: Project, server: ServerProcess) -> None:
    """Cells are as the file has them, and base64 is an image there too."""
    data = base64.b64encode(image_bytes(1)).decode()
    rows = [{"q": "Which <1>?", "a": "7", "img": data}]
    write_table(project.pytester.path / "plain.tsv", rows)
    project.pytester.makepyfile(
        test_plain="from pytest_vlmeval import Benchmark\n"
        "class TestPlain(Benchmark):\n"
        '    datasets = ["plain.tsv"]\n'
        "    def questions(self, row):\n"
        '        assert row["a"] == "7"\n'
        '        return {"question": row["q"], "answer": 7, "image": row["img"]}\n'
        "    def score(self, sample, answer):\n"
        "        return answer.text == sample.reference\n"
    )
    server.control(answers={"<1>": "7"})
    project.ask(server.url).assert_outcomes(passed=2)
    (asked,) = [each for each in server.requests() if "Which" in str(each["text"])]
    assert asked["text"] == "Which <1>?"
    assert asked["images"]


def test_the_example_of_the_page(project: Project, server: ServerProcess) -> None:
    folder = project.pytester.path
    title = "Make the questions of a row"
    (folder / "scenes.jsonl").write_text(block(read(PAGE), title, "json"))
    (folder / "test_scenes.py").write_text(block(read(PAGE), title, "python"))
    for number, name in enumerate(("port.png", "lake.png")):
        (folder / name).write_bytes(image_bytes(number))
    server.control(answers={"gulls": "12", "ships": "4", "geese": "40"})
    result = project.ask(server.url, "--vlm-export=out")
    result.assert_outcomes(passed=3, xfailed=1)
    (dataset,) = json.loads((folder / "out" / "results.json").read_text())["datasets"]
    assert dataset["score"]["metrics"] == pytest.approx(
        {"Overall": 2 / 3, "port": 1 / 2, "lake": 1}
    )
    asked = [each for each in server.requests() if "How many" in str(each["text"])]
    assert [len(list(each["images"])) for each in asked] == [1, 1, 1]  # type: ignore[call-overload]
