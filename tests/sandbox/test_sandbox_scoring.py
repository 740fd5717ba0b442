"""Scores and verdicts: references, hostile and odd answers, parts, sizes, errors."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.catalog import demo_datasets
from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from tests.support.sandbox_tables import (
    cell,
    describe,
    draw,
    prepare,
    score,
    shared_file,
    values,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vlmeval.records import PreparedDataset
    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.sandbox_tables import Row

IMAGE = cell(draw(1))
HOSTILE = [
    "__import__('pathlib').Path('/tmp/{marker}').touch()",
    "().__class__.__bases__[0].__subclasses__()",
    r"\text{{__import__('os').system('touch /tmp/{marker}')}}",
    "[__import__('pathlib').Path('/tmp/{marker}').touch()]",
    "9**9**9**9",
    r"9^{{9^{{9^{{9}}}}}}",
    r"\binom{{10^9}}{{10^8}}",
    "1000000000!",
]


def own_rows(references: list[str]) -> list[Row]:
    """Give one open question for each reference."""
    return [
        {"index": i, "question": "?", "answer": text, "image": IMAGE}
        for i, text in enumerate(references)
    ]


def math_rows(references: list[str]) -> list[Row]:
    """Give one open question of MathVision for each reference."""
    return [
        {**row, "choices": "[]", "category": "algebra"} for row in own_rows(references)
    ]


def prepare_rows(
    rows: Sequence[Row],
    class_name: str,
    sandbox: Sandbox,
    folder: Path,
    name: str = "Own",
) -> PreparedDataset:
    """Write rows to a table and prepare it."""
    info = describe(write_table(folder / f"{name}.tsv", rows), class_name)
    return prepare(info, sandbox, folder)


@pytest.mark.parametrize("name", ["DemoChoice", "DemoYesNo", "DemoOpen"])
def test_references_and_nonsense_as_answers(
    sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    prepared = prepare(demo_datasets()[name], sandbox, tmp_path)
    samples = read_samples(prepared)
    right = score(sandbox, prepared, [(s.index, str(s.reference)) for s in samples])
    assert right.value == 100
    assert [v.index for v in right.verdicts] == [s.index for s in samples]
    wrong = score(sandbox, prepared, [(s.index, "no idea") for s in samples])
    assert wrong.value < 100
    none = score(sandbox, prepared, [(s.index, "") for s in samples])
    assert none.value == 0
    assert {verdict.value for verdict in none.verdicts} == {0.0}


def test_the_real_math_vision(sandbox: Sandbox, tmp_path: Path) -> None:
    table = shared_file("LMUData", "MathVision_MINI.tsv")
    prepared = prepare(describe(table, "MathVision"), sandbox, tmp_path)
    samples = read_samples(prepared)
    found = score(sandbox, prepared, [(s.index, str(s.reference)) for s in samples])
    assert found.value == 100
    assert found.metrics["Overall/tot"] == 304
    chance = random.Random(1)
    letters = [(s.index, chance.choice("ABCDE")) for s in samples]
    found = score(sandbox, prepared, letters)
    correct = sum(value or 0 for value in values(found.verdicts).values())
    assert found.value == pytest.approx(correct * 100 / 304)


def test_a_bare_letter_counts_as_in_ms_vlmeval(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    # mathv.is_equal evaluates "a" where its local variable a is the reference.
    rows = math_rows(["42", "1/2", r"\frac{1}{2}", "x+1"])
    prepared = prepare_rows(rows, "MathVision", sandbox, tmp_path)
    found = score(sandbox, prepared, [(i, "A") for i in range(4)])
    assert values(found.verdicts) == {"0": 1, "1": 1, "2": 1, "3": 0}
    found = score(sandbox, prepared, [(i, "C") for i in range(4)])
    assert set(values(found.verdicts).values()) == {0}


def test_an_unread_answer_is_not_option_a(sandbox: Sandbox, tmp_path: Path) -> None:
    # Through a file the empty result is read back as 'nan', in which 'a' is found.
    rows = [
        {**row, "choices": "['A', 'B', 'C', 'D', 'E']"} for row in math_rows(["A", "B"])
    ]
    prepared = prepare_rows(rows, "MathVision", sandbox, tmp_path)
    found = score(sandbox, prepared, [(0, "I do not know"), (1, "B")])
    assert values(found.verdicts) == {"0": 0, "1": 1}
    assert [verdict.extracted for verdict in found.verdicts] == [None, "B"]


def test_hostile_answers_run_nothing_and_harm_no_others(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    marker = Path("/tmp") / f"{tmp_path.name}-{random.randrange(10**9)}"
    texts = [text.format(marker=marker.name) for text in HOSTILE]
    references = ["7"] * len(texts) + ["1/2"]
    answers = list(enumerate([*texts, "0.5"]))
    start = time.monotonic()
    for class_name, right in (("MathVision", 1), ("ImageVQADataset", 0)):
        rows = math_rows(references)
        prepared = prepare_rows(rows, class_name, sandbox, tmp_path, class_name)
        *hostile, good = score(sandbox, prepared, answers).verdicts
        assert {verdict.value for verdict in hostile} == {0}
        assert good.value == right
    assert not marker.exists()
    assert time.monotonic() - start < 300


def test_odd_answers_keep_every_character(sandbox: Sandbox, tmp_path: Path) -> None:
    odd = [
        "=B",
        "{=1+1}",
        "007",
        "x" * 40_000,
        "a\r\nb",
        "1e5",
        "Null",
        " 7",
        "+1",
        "#",
    ]
    rows = own_rows([*odd, "NA", "None", ""])
    prepared = prepare_rows(rows, "ImageVQADataset", sandbox, tmp_path, "GQA_own")
    # As published, some come back changed from a file: test_prediction_files.py.
    found = score(sandbox, prepared, enumerate(odd), scoring="corrected")
    assert set(values(found.verdicts).values()) == {1}
    assert [verdict.extracted for verdict in found.verdicts] == [t.strip() for t in odd]


def test_an_open_dataset_of_ones_own_is_matched_exactly(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = own_rows(["Two dogs", "['cat', 'a cat!', 'tom']", "5", "blue"])
    prepared = prepare_rows(rows, "ImageVQADataset", sandbox, tmp_path)
    answers = ["two dogs.", "Tom", "five", "light blue"]
    found = score(sandbox, prepared, enumerate(answers))
    assert values(found.verdicts) == {"0": 1, "1": 1, "2": 1, "3": 0}
    assert found.value == 75
    assert score(sandbox, prepared, [(0, "three dogs")]).value == 0


def test_splits_of_ones_own_are_ranked_together(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows: list[Row] = [
        {**row, "A": "x", "B": "y", "split": split}
        for row, split in zip(
            own_rows(list("AAB")), ("mine", "mine", "yours"), strict=True
        )
    ]
    prepared = prepare_rows(rows, "ImageMCQDataset", sandbox, tmp_path)
    found = score(sandbox, prepared, [(0, "A"), (1, "A"), (2, "A")])
    assert found.metrics == {
        "mine/Overall": 1,
        "yours/Overall": 0,
        "Overall": pytest.approx(2 / 3),
    }
    assert found.main_metric == "Overall"


def test_a_part_of_a_circular_dataset(sandbox: Sandbox, tmp_path: Path) -> None:
    rows: list[Row] = [
        {**row, "index": index, "A": "x", "B": "y"}
        for row, index in zip(
            own_rows(list("ABAB")), (1, 1_000_001, 2, 1_000_002), strict=True
        )
    ]
    prepared = prepare_rows(rows, "ImageMCQDataset", sandbox, tmp_path, "Own_circular")
    found = score(sandbox, prepared, [(1, "A"), (1_000_001, "A"), (1_000_002, "B")])
    assert values(found.verdicts) == {"1": 0, "1000001": 0, "1000002": None}
    assert found.verdicts[0].reason.startswith("Failed in Prefetching Rolling 1")
    assert found.verdicts[2].reason == "its group was not scored: rotation 2 is missing"


@pytest.mark.slow
def test_ten_thousand_long_answers(sandbox: Sandbox, tmp_path: Path) -> None:
    rows: list[Row] = [
        {
            "index": i,
            "question": "?",
            "answer": "Yes",
            "image": IMAGE if not i else "0",
        }
        for i in range(10_000)
    ]
    prepared = prepare_rows(rows, "ImageYORNDataset", sandbox, tmp_path)
    answers = [(i, "yes " + "so " * 330) for i in range(10_000)]
    start = time.monotonic()
    found = score(sandbox, prepared, answers)
    assert time.monotonic() - start < 300
    assert len(found.verdicts) == 10_000
    assert found.value == 100


def test_without_references(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "answer"} for row in own_rows(["x"])]
    prepared = prepare_rows(rows, "ImageVQADataset", sandbox, tmp_path)
    with pytest.raises(VlmEvalError) as caught:
        score(sandbox, prepared, [(0, "x")])
    assert str(caught.value) == (
        "Own has no reference answers, so its answers cannot be scored here. "
        "--vlm-mode=infer collects them."
    )


def test_a_class_without_an_adapter(sandbox: Sandbox, tmp_path: Path) -> None:
    info = DatasetInfo(
        name="TallyQA",
        class_name="TallyQA",
        module="image_vqa",
        kind="vqa",
        path=write_table(tmp_path / "TallyQA.tsv", own_rows(["x"])),
    )
    prepared = prepare(info, sandbox, tmp_path)
    with pytest.raises(VlmEvalError) as caught:
        score(sandbox, prepared, [(0, "x")])
    assert str(caught.value) == (
        "TallyQA cannot be scored: ms-vlmeval's TallyQA is not among the classes that "
        "can (ImageMCQDataset, MMMUDataset, ImageYORNDataset, ImageVQADataset, "
        "OCRBench, MTVQADataset, MathVision, MathVista, MMVet, LLaVABench, "
        "MMDUDataset, MMLongBench, ImageCaptionDataset, VCRDataset, VideoMME, "
        "MMBenchVideo). --vlm-mode=infer collects its answers."
    )


def test_a_missed_deadline_names_the_dataset_and_the_option(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = math_rows(["7"] * 3)
    prepared = prepare_rows(rows, "MathVision", sandbox, tmp_path)
    with pytest.raises(VlmEvalError) as caught:
        score_in_sandbox(sandbox, prepared, [("0", "(" * 10_000)], deadline_s=0.5)
    assert str(caught.value).startswith(
        "Scoring Own took longer than 0.5 s and was stopped (--vlm-score-timeout gives "
        "it more time). Run the same command to try again, with all answers kept."
    )
    assert score(sandbox, prepared, [(0, "7")]).value == 100
