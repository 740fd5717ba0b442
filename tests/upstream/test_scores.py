"""Our scores and verdicts are ms-vlmeval's: the same answers, scored by both."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from pytest_vlmeval.datasets.own import OWN
from pytest_vlmeval.datasets.prepare import read_index
from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.sandbox.environment import ADDONS
from tests.support.sandbox_tables import (
    describe,
    prepare,
    rows_of,
    score,
    seed_rows,
    shared_file,
    values,
    write_table,
)
from tests.support.scored_upstream import score_upstream
from tests.support.upstream_tables import CASES, MATH_ANSWERS, answer_all, math_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vlmeval.records import DatasetInfo, PreparedDataset, Scoring
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.judge_calls import OpenJudge
    from tests.support.sandbox_tables import Row
    from tests.support.server_fixtures import ServerProcess


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_every_metric_is_the_same(
    sandbox: Sandbox,
    sandbox_environment: SandboxEnvironment,
    tmp_path: Path,
    name: str,
) -> None:
    class_name, rows, styles = CASES[name]
    answers = answer_all(rows, styles)
    info = describe(write_table(tmp_path / f"{name}.tsv", rows), class_name)
    ours = score(sandbox, prepare(info, sandbox, tmp_path), answers)
    expected, _ = score_upstream(sandbox_environment, info, answers, tmp_path)
    if class_name == "MathVista":
        expected[ours.main_metric] = expected.pop("Overall/acc")
    assert {key: ours.metrics[key] for key in expected} == pytest.approx(expected)
    # Only the sum that MME is ranked by is ours.
    assert set(ours.metrics) - set(expected) <= {"Overall"}
    assert 0 < ours.value < 100


def compare_math(
    sandbox: Sandbox,
    environment: SandboxEnvironment,
    info: DatasetInfo,
    answers: Sequence[tuple[object, str]],
    folder: Path,
) -> None:
    """Compare MathVision's metrics and its verdict on every row."""
    ours = score(sandbox, prepare(info, sandbox, folder), answers)
    expected, verdicts = score_upstream(environment, info, answers, folder)
    texts = {str(index): text for index, text in answers}
    found = values(ours.verdicts)
    different = {
        index: (texts[index], found[index], value)
        for index, value in verdicts.items()
        if found[index] != value
    }
    assert different == {}
    expected[ours.main_metric] = expected.pop("Overall/acc")
    assert ours.main_metric == "Overall/acc (exact matching)"
    assert ours.metrics == pytest.approx(expected)
    assert len(set(verdicts.values())) == 2


@pytest.mark.slow
def test_every_verdict_of_math_vision_is_the_same(
    sandbox: Sandbox, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    rows = math_rows()
    filled = [
        (row["index"], style.replace("TEXT", str(row["answer"])))
        for row, style in zip(rows, MATH_ANSWERS, strict=True)
    ]
    table = write_table(tmp_path / "MathVision.tsv", rows)
    info = describe(table, "MathVision")
    compare_math(sandbox, sandbox_environment, info, filled, tmp_path)


@pytest.mark.slow
def test_every_verdict_on_real_questions_is_the_same(
    sandbox: Sandbox, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    table = shared_file("LMUData", "MathVision_MINI.tsv")
    info = describe(table, "MathVision")
    data = pd.read_csv(table, sep="\t").head(40)
    rows: list[Row] = [
        {str(name): value for name, value in row.items()} for _, row in data.iterrows()
    ]
    answers = answer_all(rows, MATH_ANSWERS)
    compare_math(sandbox, sandbox_environment, info, answers, tmp_path)


SEEDS = {
    "ImageMCQDataset": """
        MMBench_DEV_EN MMBench_TEST_EN MMBench_DEV_CN MMBench_TEST_CN MMBench MMBench_CN
        MMBench_DEV_EN_V11 MMBench_TEST_EN_V11 MMBench_DEV_CN_V11 MMBench_TEST_CN_V11
        MMBench_V11 MMBench_CN_V11 SEEDBench_IMG SEEDBench2 SEEDBench2_Plus
        ScienceQA_VAL ScienceQA_TEST MMT-Bench_ALL_MI MMT-Bench_ALL MMT-Bench_VAL_MI
        MMT-Bench_VAL AesBench_VAL AesBench_TEST CCBench AI2D_TEST MMStar RealWorldQA
        BLINK""",
    "MMMUDataset": "MMMU_DEV_VAL",
    "ImageYORNDataset": "MME HallusionBench POPE",
    "ImageVQADataset": """
        OCRVQA_TEST OCRVQA_TESTCORE TextVQA_VAL DocVQA_VAL InfoVQA_VAL ChartQA_TEST""",
    "OCRBench": "OCRBench",
    "MTVQADataset": "MTVQA_TEST",
    "MathVision": "MathVision MathVision_MINI",
    "MathVista": "MathVista_MINI",
    "ImageCaptionDataset": "COCO_VAL",
    "VCRDataset": """
        VCR_EN_EASY_500 VCR_EN_EASY_100 VCR_EN_EASY_ALL VCR_EN_HARD_500 VCR_EN_HARD_100
        VCR_EN_HARD_ALL VCR_ZH_EASY_500 VCR_ZH_EASY_100 VCR_ZH_EASY_ALL VCR_ZH_HARD_500
        VCR_ZH_HARD_100 VCR_ZH_HARD_ALL""",
}
JUDGED = {
    "MMVet": "MMVet",
    "LLaVABench": "LLaVABench",
    "MMLongBench": "MMLongBench_DOC",
}
# Their classes ask a judge about what does not match.
READ_BY_JUDGE = {
    class_name: SEEDS[class_name]
    for class_name in (
        "ImageMCQDataset",
        "MMMUDataset",
        "ImageYORNDataset",
        "MathVision",
        "MathVista",
    )
}
SECRET = {
    "MMMUDataset": "MMMU_TEST",
    "ImageMCQDataset": "MLLMGuard_DS",
    "ImageVQADataset": "DocVQA_TEST InfoVQA_TEST",
}
MAIN = {
    "MMBench_DEV_EN": ("dev/Overall", 50),
    "MMT-Bench_ALL": ("ALL/Overall", 50),
    "MMStar": ("Overall", 50),
    "MMMU_DEV_VAL": ("validation/Overall", 100 / 3),
    "POPE": ("Overall/Overall", 50),
    "MME": ("Overall", 300 * 100 / 2800),
    "HallusionBench": ("Overall/average", 160 / 3),
    "ChartQA_TEST": ("Overall", 50),
    "OCRBench": ("Final Score", 50),
    "MTVQA_TEST": ("Average", 50),
    "MathVision": ("Overall/acc (exact matching)", 50),
    "MathVista_MINI": ("Overall/acc (exact matching)", 100 / 3),
    "VCR_EN_EASY_500": ("Exact_Match", 60),
}


def cases(table: dict[str, str]) -> list[object]:
    """Give class and name of every dataset; those with add-ons are marked."""
    return [
        pytest.param(
            class_name, name, marks=[pytest.mark.addons] if class_name in ADDONS else []
        )
        for class_name, names in table.items()
        for name in names.split()
    ]


def prepare_seed(
    sandbox: Sandbox, folder: Path, class_name: str, name: str
) -> tuple[PreparedDataset, list[tuple[object, str]], dict[str, float | None]]:
    """Prepare a fixture; give its answers and the verdict each must get."""
    rows = seed_rows(name)
    table = shared_file("seed_fixtures", "LMUData", f"{name}.tsv")
    prepared = prepare(describe(table, class_name), sandbox, folder)
    asked = {row.index for row in read_index(prepared)}
    rows = [row for row in rows if row["index"] in asked]
    answers: list[tuple[object, str]] = [(r["index"], r["prediction"]) for r in rows]
    return prepared, answers, {row["index"]: row["exact"] for row in rows}


@pytest.mark.parametrize(("class_name", "name"), cases(SEEDS))
def test_every_verdict_of_a_seed_fixture(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path, class_name: str, name: str
) -> None:
    sandbox = sandbox_of(class_name)
    prepared, answers, expected = prepare_seed(sandbox, tmp_path, class_name, name)
    found = score(sandbox, prepared, answers)
    assert values(found.verdicts) == expected
    assert found.metrics[found.main_metric] >= 0
    assert found.scoring == "published"
    assert bool(found.notes) == name.startswith("VCR_ZH")
    if name in MAIN:
        assert (found.main_metric, found.value) == pytest.approx(MAIN[name])


@pytest.mark.parametrize(("class_name", "name"), cases(SEEDS))
def test_one_answer_of_a_seed_fixture_scores(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path, class_name: str, name: str
) -> None:
    sandbox = sandbox_of(class_name)
    prepared, answers, expected = prepare_seed(sandbox, tmp_path, class_name, name)
    found = score(sandbox, prepared, answers[:1])
    (verdict,) = found.verdicts
    assert verdict.value == expected[verdict.index]
    assert 0 <= found.value <= found.scale


@pytest.mark.parametrize(("class_name", "name"), cases({**READ_BY_JUDGE, **JUDGED}))
def test_every_verdict_of_a_seed_fixture_with_a_judge(
    sandbox_of: Callable[[str], Sandbox],
    tmp_path: Path,
    open_judge: OpenJudge,
    server: ServerProcess,
    class_name: str,
    name: str,
) -> None:
    sandbox = sandbox_of(class_name)
    prepared, answers, matched = prepare_seed(sandbox, tmp_path, class_name, name)
    expected = {row["index"]: row["judge"] for row in seed_rows(name)}
    judge = open_judge(judge="good")
    # Lists as MathVista's answers are right only with its defect corrected; an answer
    # like "Affirmative." is read without a judge then.
    scoring: Scoring = "corrected"
    if class_name == "ImageYORNDataset":
        alone = score(sandbox, prepared, answers, scoring="corrected")
        # Rows without an image are not asked.
        assert values(alone.verdicts) == {index: expected[index] for index in matched}
        scoring = "published"
    found = score(sandbox, prepared, answers, judge, scoring)
    verdicts = values(found.verdicts)
    assert verdicts == {index: expected[index] for index in verdicts}
    asked = {v.index for v in found.verdicts if v.state == "judged"}
    assert {v.index for v in found.verdicts if v.exchanges} == asked
    assert not any(matched[index] for index in asked)
    assert found.best == found.value
    sent = len(server.requests())
    assert score(sandbox, prepared, answers, judge, scoring) == found
    assert len(server.requests()) == sent > 0


@pytest.mark.parametrize(("class_name", "name"), cases(JUDGED))
def test_a_dataset_that_needs_a_judge(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path, class_name: str, name: str
) -> None:
    sandbox = sandbox_of(class_name)
    prepared, answers, expected = prepare_seed(sandbox, tmp_path, class_name, name)
    assert set(expected.values()) == {None}
    assert all(row.reference for row in read_index(prepared))
    with pytest.raises(NeedsJudgeError, match=f"^{name} is scored by a judge only"):
        score(sandbox, prepared, answers)


@pytest.mark.parametrize(("class_name", "name"), cases(SECRET))
def test_a_dataset_whose_references_are_secret(
    sandbox: Sandbox, tmp_path: Path, class_name: str, name: str
) -> None:
    prepared, answers, expected = prepare_seed(sandbox, tmp_path, class_name, name)
    assert set(expected.values()) == {None}
    assert {row.reference for row in read_index(prepared)} == {None}
    with pytest.raises(VlmEvalError, match=f"^{name} has no reference answers, "):
        score(sandbox, prepared, answers)


ROOT = Path(__file__).parents[2]
# Both sides in one process of the sandbox's interpreter.
SCRIPT = """
import json, runpy, sys, tempfile
from pathlib import Path
root, columns = Path(sys.argv[1]), json.loads(sys.argv[2])
runpy.run_path(str(root / "pytest_vlmeval/sandbox/bootstrap.py"))["enter_packages"]()
import pandas as pd
from vlmeval.smp import file
from pytest_vlmeval.sandbox.inside.prediction_files import through_a_file
found = []
for texts in columns:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "theirs.xlsx"))
        table = pd.DataFrame({"index": range(len(texts)), "prediction": texts})
        file.dump(table, path)
        theirs = [str(each) for each in file.load(path)["prediction"]]
        ours = through_a_file(texts, Path(folder, "ours.xlsx"), formulas=True)
        files = sorted(each.name for each in Path(folder).iterdir())
        found.append([theirs, ours, files])
print(json.dumps(found))
"""
TEXTS = [
    *("=B", "{=1+1}", "007", "a\r\nb", "1e5", "Null", "null", " 7", "+1", "#", "-1"),
    *("None", "none", "NONE", "NA", "N/A", "n/a", "nan", "NaN", "-nan", "<NA>"),
    *("#N/A", "#NA", "1.#IND", "-1.#QNAN", "None.", " NA", "Nathan", "A = B", "@A"),
    *("http://127.0.0.1/a", "see https://a.example", "mailto:a@b.example", "file:x"),
    *("\x0bA", "_x0041_", "B\tC", "B\nC", "  B  ", "True", "x" * 40_000, "Ä, 五月"),
]
COLUMNS = [
    TEXTS,
    ["12", "7", "007"],
    ["12", "7.50", "1e3"],
    ["12", "nan"],
    ["True", "false"],
    ["12", "A"],
    ["A", "B. red", "no"],
]


def test_answers_come_back_as_from_ms_vlmeval(
    sandbox_environment: SandboxEnvironment,
) -> None:
    # One by one, so that none hides another, and in columns, whose kind counts.
    columns = [*COLUMNS, *([text, "A word"] for text in TEXTS)]
    command = [str(sandbox_environment.python), "-c", SCRIPT, str(ROOT)]
    done = subprocess.run(
        [*command, json.dumps(columns)], check=True, capture_output=True, text=True
    )
    changed = 0
    for texts, (theirs, ours, files) in zip(
        columns, json.loads(done.stdout), strict=True
    ):
        assert ours == theirs, texts
        assert files == ["theirs.xlsx"]
        changed += theirs != texts
    # The rest has nothing in it that a file changes.
    assert 20 < changed < len(columns) - 10


@pytest.mark.parametrize("name", ["OCRVQA_TEST", "my_table"])
def test_only_published_scores_of_benchmarks_have_it(
    sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    rows = rows_of(["=7", "blue", "red", "two"])
    info = describe(write_table(tmp_path / f"{name}.tsv", rows), "ImageVQADataset")
    own = name == "my_table"
    prepared = prepare(replace(info, rules=OWN) if own else info, sandbox, tmp_path)
    answers = [(0, "=7"), (1, "blue"), (2, "")]
    found = score(sandbox, prepared, answers)
    assert list(values(found.verdicts).values()) == [float(own), 1, 0]
    found = score(sandbox, prepared, answers, scoring="corrected")
    assert list(values(found.verdicts).values()) == [1, 1, 0]
