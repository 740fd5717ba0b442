"""Datasets whose references are secret: only asked, their answers written down."""

from __future__ import annotations

import base64
import json
import zipfile
from pathlib import Path

import pandas as pd

from tests.support.run_fixtures import Project, endpoint, image_bytes, write_table
from tests.support.server_fixtures import ServerProcess

# As a spreadsheet would read and change them.
ODD = {"<1>": "007", "<2>": "NA", "<3>": '=B "x"\tand\nmore'}
OPTIONS = {"A": "red", "B": "blue", "C": "green", "D": "grey"}


def write_secret(project: Project, dataset: str, **columns: str) -> None:
    """Put three questions without references, and their benchmark, in place."""
    rows = [
        {
            "index": str(40 + number),
            "question": f"Question <{number}>?",
            "image": base64.b64encode(image_bytes(number)).decode(),
            **columns,
            "id": f"test_Art_{number}",
        }
        for number in (1, 2, 3)
    ]
    write_table(project.data_root / f"{dataset}.tsv", rows)
    project.pytester.makepyfile(
        test_secret=f"""
        from pytest_vlmeval import Benchmark

        class TestSecret(Benchmark):
            datasets = ["{dataset}"]
        """
    )


def submitted(project: Project, dataset: str, url: str) -> Path:
    """Ask everything; give the file that the skipped score item names."""
    asking = ["--vlm-model=a/b", "--vlm-mode=infer"]
    result, cases = project.junit(*endpoint(url), *asking)
    result.assert_outcomes(passed=3, skipped=1)
    skipped = cases[f"test_score[{dataset}]"].find("skipped")
    assert skipped is not None
    start = f"{dataset} cannot be scored: no reference answers; its answers are in "
    message = skipped.attrib["message"]
    assert message.startswith(start)
    file = Path(message.removeprefix(start).split(" (")[0])
    assert file.parent == project.store.parent / "submissions" / "a%2Fb"
    assert list(file.parent.iterdir()) == [file]
    return file


def test_reading_competition(project: Project, server: ServerProcess) -> None:
    write_secret(project, "DocVQA_TEST")
    server.control(answers=ODD, models=["a/b"])
    file = submitted(project, "DocVQA_TEST", server.url)
    assert json.loads(file.read_text("utf-8")) == [
        {"questionId": 40 + number, "answer": ODD[f"<{number}>"]}
        for number in (1, 2, 3)
    ]


def test_mmmu_gets_letters_where_there_are_options(
    project: Project, server: ServerProcess
) -> None:
    write_secret(project, "MMMU_TEST", **OPTIONS, answer="?", split="test")
    answers = {"<1>": "The answer is B.", "<2>": "blue", "<3>": "I cannot say"}
    server.control(answers=answers, models=["a/b"])
    file = submitted(project, "MMMU_TEST", server.url)
    assert json.loads(file.read_text("utf-8")) == {
        "test_Art_1": "B",
        "test_Art_2": "B",
        "test_Art_3": "I cannot say",
    }


def test_any_other_gets_a_table(project: Project, server: ServerProcess) -> None:
    write_secret(project, "MLLMGuard_DS", category="Privacy")
    server.control(answers=ODD, models=["a/b"])
    file = submitted(project, "MLLMGuard_DS", server.url)
    assert file.read_text("utf-8") == (
        "index\tquestion\tcategory\tid\tprediction\n"
        "41\tQuestion <1>?\tPrivacy\ttest_Art_1\t007\n"
        "42\tQuestion <2>?\tPrivacy\ttest_Art_2\tNA\n"
        '43\tQuestion <3>?\tPrivacy\ttest_Art_3\t"=B ""x""\tand\nmore"\n'
    )


def test_a_lone_carriage_return_ends_no_row_of_a_table(
    project: Project, server: ServerProcess
) -> None:
    write_secret(project, "MLLMGuard_DS", category="Privacy")
    answers = {"<1>": "Ag $\rightarrow$ Zn", "<2>": "x\r\ny", "<3>": 'a "b"'}
    server.control(answers=answers, models=["a/b"])
    table = pd.read_csv(submitted(project, "MLLMGuard_DS", server.url), sep="\t")
    assert list(table["prediction"]) == list(answers.values())


def test_mmbench_gets_a_workbook(project: Project, server: ServerProcess) -> None:
    write_secret(project, "MMBench_TEST_EN", **OPTIONS, category="x")
    server.control(answers=ODD, models=["a/b"])
    file = submitted(project, "MMBench_TEST_EN", server.url)
    assert file.name == "MMBench_TEST_EN.xlsx"
    with zipfile.ZipFile(file) as parts:
        texts = parts.read("xl/sharedStrings.xml").decode()
        sheet = parts.read("xl/worksheets/sheet1.xml").decode()
    for text in ("prediction", "007", "NA", '=B "x"'):
        assert text in texts
    assert "<f>" not in sheet  # no formula


def test_samples_without_an_answer_are_left_out(
    project: Project, server: ServerProcess
) -> None:
    write_secret(project, "DocVQA_TEST")
    rules = [{"contains": "<2>", "status": 400, "message": "image is broken"}]
    server.control(answers=ODD, rules=rules)
    result = project.ask(server.url, "--vlm-mode=infer")
    result.assert_outcomes(passed=2, skipped=1, failed=1)
    file = project.store.parent / "submissions" / "tiny-vlm" / "DocVQA_TEST.json"
    assert [each["questionId"] for each in json.loads(file.read_text())] == [41, 43]
    # The next command asks what is missing and writes the file anew.
    server.control(answers=ODD, rules=[])
    project.ask(server.url, "--vlm-mode=infer").assert_outcomes(passed=3, skipped=1)
    assert [each["questionId"] for each in json.loads(file.read_text())] == [41, 42, 43]


def test_nothing_answered(project: Project, server: ServerProcess) -> None:
    write_secret(project, "DocVQA_TEST")
    server.control(rules=[{"status": 400, "message": "image is broken"}])
    result, cases = project.junit(*endpoint(server.url), "--vlm-mode=infer")
    result.assert_outcomes(skipped=1, failed=3)
    skipped = cases["test_score[DocVQA_TEST]"].find("skipped")
    assert skipped is not None
    assert skipped.attrib["message"] == (
        "DocVQA_TEST cannot be scored: no reference answers, and none was answered"
    )


def test_a_folder_that_cannot_be_written(
    project: Project, server: ServerProcess
) -> None:
    write_secret(project, "DocVQA_TEST")
    server.control(answers=ODD)
    folder = project.store.parent / "submissions"
    folder.parent.mkdir()
    folder.write_text("in the way")
    result = project.ask(server.url, "--vlm-mode=infer")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            f"The submission of DocVQA_TEST cannot be written to {folder}/tiny-vlm: "
            "Not a directory. Make that a folder that can be written, then run the "
            "same command again: it uses the answers in the store."
        ]
    )
    folder.unlink()
    project.ask(server.url, "--vlm-mode=infer").assert_outcomes(passed=3, skipped=1)
    assert len(server.requests()) == 3
    assert (folder / "tiny-vlm" / "DocVQA_TEST.json").is_file()
