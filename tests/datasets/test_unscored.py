"""Datasets that cannot be scored: refused or left out before anything is asked."""

from __future__ import annotations

import base64
import re

import pytest

from pytest_vlmeval import evaluate
from pytest_vlmeval.datasets import unscored
from pytest_vlmeval.datasets.unscored import explain_left_out, explain_refusal
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo
from tests.support.run_fixtures import Project, image_bytes, math_rows, write_table
from tests.support.server_fixtures import ServerProcess

NO_SCORING = (
    "MME_CoT_TEST cannot be scored: ms-vlmeval's class has no scoring of its own and "
    "gives a number that means nothing (dataset/image_vqa.py:1883)."
)
NO_REFERENCES = "DocVQA_TEST cannot be scored: no reference answers."
NO_OWN = "own cannot be scored: no reference answers."
WHOLE = """
import pytest
from pytest_vlmeval import Benchmark

class TestRefusing(Benchmark):
    datasets = ["MathVision_MINI", "MME_CoT_TEST"]

class TestLeaving(Benchmark):
    datasets = ["DocVQA_VAL", "DocVQA_TEST"]
    unscored = "leave out"

class TestMath(Benchmark):
    datasets = ["MathVision"]

@pytest.mark.vlm("DocVQA_TEST")
def test_marked(vlm_sample):
    assert vlm_sample.answer.text

class TestOther(Benchmark):
    datasets = ["*"]

def test_plain():
    pass
"""


def write_all(project: Project) -> None:
    """Put two tables that can be scored, two that cannot, and benchmarks in place."""
    image = base64.b64encode(image_bytes(1)).decode()
    open_row = {"index": "1", "question": "What <1>?", "image": image}
    choice = {"index": "3", "question": "Which <3>?", "answer": "A", "image": image}
    root = project.data_root
    write_table(root / "DocVQA_TEST.tsv", [{**open_row, "question": "Where <2>?"}])
    write_table(root / "DocVQA_VAL.tsv", [{**open_row, "answer": "['red']"}])
    write_table(root / "MME_CoT_TEST.tsv", [{**choice, "A": "1", "B": "2"}])
    write_table(root / "MathVision_MINI.tsv", math_rows(2))
    write_table(root / "MathVision.tsv", math_rows(2))
    write_table(project.pytester.path / "own.tsv", [{**open_row, "answer": ""}])
    project.pytester.makepyfile(test_all=WHOLE)


REFUSED = [
    # More than is asked for: a dataset of a class, of the command line, of a mark.
    (["-k", "not TestLeaving"], [NO_REFERENCES, NO_SCORING]),
    (["test_all.py::TestRefusing::test_score[MME_CoT_TEST]"], [NO_SCORING]),
    (["--vlm-data=DocVQA_VAL,DocVQA_TEST,own.tsv"], [NO_REFERENCES, NO_OWN]),
    (["test_all.py::TestLeaving::test_sample[DocVQA_TEST-1]"], [NO_REFERENCES]),
    # Nothing else is selected.
    (["-k", "TestLeaving and DocVQA_TEST"], [NO_REFERENCES]),
    (["-n", "2", "-k", "test_marked or TestMath"], [NO_REFERENCES]),
]


@pytest.mark.parametrize(("selection", "reasons"), REFUSED)
def test_what_is_asked_for_is_refused_before_the_first_request(
    project: Project, server: ServerProcess, selection: list[str], reasons: list[str]
) -> None:
    write_all(project)
    result = project.ask(server.url, *selection)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [f"*{each}" for each in reasons]
    result.stderr.fnmatch_lines_random([*lines, "Nothing was asked. Leave *"])
    assert server.requests(None) == []
    assert not project.store.exists()


@pytest.mark.slow
def test_the_advice_of_the_refusal_works(
    project: Project, server: ServerProcess
) -> None:
    """The `-k` of the message leaves out what it names, `infer` asks it."""
    write_all(project)
    server.control(default="red")
    project.pytester.makepyfile(test_all=WHOLE.partition("class TestMath")[0])
    refused = project.ask(server.url).stderr.str()
    terms = re.search(r"\(-k '(.*)', or from --vlm-data\)", refused)
    assert terms is not None
    terms_given = f"{terms[1]} and not test_no_regression"
    result = project.ask(server.url, "-k", terms_given, "-n", "2")
    assert result.ret == pytest.ExitCode.OK
    left = "left out, as no score is possible: DocVQA_TEST (no reference answers)"
    # MME_CoT_TEST is named by its class, DocVQA_TEST left out by its own.
    assert terms[1] == "not MME_CoT_TEST"
    said = f"vlmeval: {left}. --vlm-mode=infer asks them too"
    assert result.stdout.str().count(said) == 1
    asked = [each["text"] for each in server.requests()]
    assert len(asked) == 3
    asking = project.ask(server.url, "--vlm-mode=infer")
    assert asking.ret == pytest.ExitCode.OK
    assert left not in asking.stdout.str()
    assert len(server.requests()) == 5


def test_missing_references_may_only_show_in_the_file(
    project: Project, server: ServerProcess
) -> None:
    """The catalog says of MMBench's test splits that they may be scored."""
    image = base64.b64encode(image_bytes(1)).decode()
    row = {"index": "3", "question": "Which <3>?", "A": "1", "B": "2", "image": image}
    write_table(project.data_root / "MMBench_TEST_EN.tsv", [row])
    write_table(project.data_root / "MMBench_DEV_EN.tsv", [{**row, "answer": "A"}])
    project.pytester.makepyfile(
        test_two="""
        from pytest_vlmeval import Benchmark

        class TestTwo(Benchmark):
            datasets = ["MMBench_DEV_EN", "MMBench_TEST_EN"]
            unscored = "leave out"
        """
    )
    server.control(default="A")
    result = project.ask(server.url)
    result.assert_outcomes(passed=2, deselected=3)
    result.stdout.fnmatch_lines(
        [
            "vlmeval: left out, as no score is possible: MMBench_TEST_EN (no reference "
            "answers). --vlm-mode=infer asks them too"
        ]
    )
    assert len(server.requests()) == 1
    alone = project.ask(server.url, "--vlm-data=MMBench_TEST_EN")
    assert alone.ret == pytest.ExitCode.USAGE_ERROR
    alone.stderr.fnmatch_lines(
        ["ERROR: MMBench_TEST_EN cannot be scored: no reference answers."]
    )
    listed = project.ask(server.url, "--collect-only", "--vlm-data=MMBench_TEST_EN")
    assert listed.ret == pytest.ExitCode.OK
    assert len(server.requests()) == 1


LEAVING = """
from pytest_vlmeval import Benchmark

class TestLeaving(Benchmark):
    datasets = ["given.tsv", "empty.tsv", "MMBench_DEV_EN", "MMBench_TEST_EN"]
    unscored = "leave out"
"""


@pytest.mark.slow
def test_what_is_left_out_has_no_threshold_and_no_baseline(
    project: Project, server: ServerProcess
) -> None:
    """Whether missing references are known before the file is read, or not."""
    image = base64.b64encode(image_bytes(1)).decode()
    row = {"index": "3", "question": "Which <3>?", "A": "1", "B": "2", "image": image}
    folder = project.pytester.path
    write_table(folder / "given.tsv", [{**row, "answer": "A"}])
    write_table(folder / "empty.tsv", [{**row, "answer": ""}])
    write_table(project.data_root / "MMBench_TEST_EN.tsv", [row])
    write_table(project.data_root / "MMBench_DEV_EN.tsv", [{**row, "answer": "A"}])
    project.pytester.makepyfile(test_leaving=LEAVING)
    server.control(default="A")
    thresholds = folder / "thresholds.toml"
    late = "[tiny-vlm.MMBench_TEST_EN]\nmin = 5\n"
    thresholds.write_text(f"[tiny-vlm.'empty.tsv']\nmin = 10\n{late}")
    baseline = folder / "__baselines__" / "tiny-vlm" / "MMBench_TEST_EN.json"
    baseline.parent.mkdir(parents=True)
    baseline.write_text("{}")

    def told(name: str, gates: str) -> str:
        return (
            f"ERROR: {name} is left out, as it cannot be scored (no reference "
            f"answers), but it has {gates}. Nothing was asked. Remove what it has, "
            f"deselect it (-k 'not {name}'), or ask it without a score with "
            "--vlm-mode=infer, which checks no gate."
        )

    refused = project.ask(server.url, "-k", "")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    wanted = told("empty", f"a threshold (min = 10 of [tiny-vlm] in {thresholds})")
    assert wanted in refused.errlines
    # As it says: deselected. What shows in the file is refused likewise.
    refused = project.ask(server.url, "-k", "not empty", "-n", "2")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    gates = (
        f"a threshold (min = 5 of [tiny-vlm] in {thresholds}) and a baseline "
        f"({baseline})"
    )
    assert told("MMBench_TEST_EN", gates) in refused.errlines
    assert server.requests(None) == []
    # As it says: one is deselected, of the other everything is removed.
    baseline.unlink()
    thresholds.write_text(thresholds.read_text().replace(late, ""))
    assert project.ask(server.url, "-k", "not empty").ret == pytest.ExitCode.OK
    assert len(server.requests()) == 2
    asking = project.ask(server.url, "-k", "", "--vlm-mode=infer")
    assert asking.ret == pytest.ExitCode.OK


def test_a_table_without_a_column_of_answers_is_refused_before_the_first_request(
    project: Project, server: ServerProcess
) -> None:
    """By the command line, and by a benchmark that leaves out what has none."""
    write_all(project)
    image = base64.b64encode(image_bytes(1)).decode()
    row = {"index": "1", "question": "What <1>?", "image": image}
    folder = project.pytester.path
    path = folder / "bare.tsv"
    write_table(path, [row])
    write_table(folder / "given.tsv", [{**row, "answer": "red"}])
    names = LEAVING.replace("empty.tsv", "bare.tsv")
    project.pytester.makepyfile(
        test_leaving=names.partition(', "MM')[0] + ']\n    unscored = "leave out"\n'
    )
    server.control(default="red")
    refused = [
        project.ask(server.url, "--vlm-data=bare.tsv,given.tsv", "test_all.py"),
        project.ask(server.url, "-k", "", "test_leaving.py"),
    ]
    for result in refused:
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        assert result.errlines[0] == (
            f"ERROR: bare cannot be scored: {path} has no column answer. It has the "
            "columns index, question, image. Its name is answer, answers, label, "
            "target, solution, gt_answer, ground_truth or response; "
            "--vlm-columns=answer=NAME takes any other. Leave its cells empty, and "
            "give --vlm-mode=infer, to collect answers without a score."
        )
        assert "-k 'not bare'" in result.errlines[1]
    assert server.requests(None) == []
    # As it says: with the column, and empty cells.
    write_table(path, [{**row, "answer": ""}])
    asking = project.ask(server.url, "test_leaving.py", "--vlm-mode=infer", "-k", "")
    assert asking.ret == pytest.ExitCode.OK
    assert len(server.requests()) == 2


def test_evaluate_refuses_likewise(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(project)
    monkeypatch.chdir(project.pytester.path)
    monkeypatch.setenv("VLM_ALLOW_MODIFIED_DATA", "yes")
    server.control(default="red")
    with pytest.raises(VlmEvalError) as caught:
        evaluate("tiny-vlm", ["DocVQA_VAL", "DocVQA_TEST"], api_base=server.url)
    assert str(caught.value) == (
        f"{NO_REFERENCES}\nNothing was asked. Leave it out, or ask it without a score "
        "by mode='infer', which writes the answers to a file. A benchmark may score it "
        "by a function of its own (docs/own-scoring.md)."
    )
    assert server.requests(None) == []
    results = evaluate(
        "tiny-vlm", ["DocVQA_TEST", "own.tsv"], api_base=server.url, mode="infer"
    )
    assert results.unscored == {
        "DocVQA_TEST": "no reference answers",
        "own": "no reference answers",
    }


def test_names_that_k_does_not_take_are_not_put_into_one() -> None:
    told = explain_refusal({"my table": "no reference answers"})
    assert told.splitlines()[1].startswith("Nothing was asked. Leave it out, or ask it")
    assert explain_left_out({"a": "x", "b": "y", "c": "x"}) == (
        "left out, as no score is possible: a, c (x); b (y). --vlm-mode=infer asks "
        "them too"
    )


def of_class(class_name: str) -> DatasetInfo:
    """Describe a dataset of a class."""
    return DatasetInfo(name="Some", class_name=class_name, module="some", kind="vqa")


def test_a_class_is_refused_for_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unscored, "REFUSED", {"MUIRDataset": "it hears sounds"})
    info = of_class("MUIRDataset")
    assert unscored.is_refused(info)
    assert not unscored.is_scored(info)
    assert unscored.why_no_adapter(info) == "it hears sounds"


def test_a_class_without_a_row_is_not_scored_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for table in ("FAMILIES", "REFUSED"):
        monkeypatch.setattr(unscored, table, {})
    info = of_class("MUIRDataset")
    assert not unscored.is_refused(info)
    assert unscored.why_no_adapter(info) == (
        "the scoring of ms-vlmeval's MUIRDataset cannot be used here yet"
    )


def test_a_class_of_another_version_is_scored_unchecked() -> None:
    info = of_class("FromAnotherVersion")
    assert unscored.why_no_adapter(info) is None
    assert unscored.needs_none(info)
    assert not unscored.needs_none(of_class("ImageMCQDataset"))
