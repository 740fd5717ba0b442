"""Scores and verdicts: references, odd answers, and what each family is ranked by."""

from __future__ import annotations

import base64
import io
import random
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pytest_vlmeval.datasets.catalog import demo_datasets
from pytest_vlmeval.datasets.prepare import read_index, read_samples
from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.records import DatasetInfo, JudgeReply, parts_of
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from tests.support.sandbox_tables import (
    cell,
    describe,
    draw,
    media_of,
    prepare,
    prepare_rows,
    rows_of,
    score,
    shared_file,
    values,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
    prepared = prepare_rows(sandbox, tmp_path, "MathVision", "Own", rows)
    found = score(sandbox, prepared, [(i, "A") for i in range(4)])
    assert values(found.verdicts) == {"0": 1, "1": 1, "2": 1, "3": 0}
    found = score(sandbox, prepared, [(i, "C") for i in range(4)])
    assert set(values(found.verdicts).values()) == {0}


def test_an_unread_answer_is_not_option_a(sandbox: Sandbox, tmp_path: Path) -> None:
    # Through a file the empty result is read back as 'nan', in which 'a' is found.
    rows = [
        {**row, "choices": "['A', 'B', 'C', 'D', 'E']"} for row in math_rows(["A", "B"])
    ]
    prepared = prepare_rows(sandbox, tmp_path, "MathVision", "Own", rows)
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
        prepared = prepare_rows(sandbox, tmp_path, class_name, class_name, rows)
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
    prepared = prepare_rows(sandbox, tmp_path, "ImageVQADataset", "GQA_own", rows)
    # As published, some come back changed from a file: tests/upstream/test_scores.py.
    found = score(sandbox, prepared, enumerate(odd), scoring="corrected")
    assert set(values(found.verdicts).values()) == {1}
    assert [verdict.extracted for verdict in found.verdicts] == [t.strip() for t in odd]


def test_an_open_dataset_of_ones_own_is_matched_exactly(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = own_rows(["Two dogs", "['cat', 'a cat!', 'tom']", "5", "blue"])
    prepared = prepare_rows(sandbox, tmp_path, "ImageVQADataset", "Own", rows)
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
    prepared = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", "Own", rows)
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
    prepared = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", "Own_circular", rows)
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
    prepared = prepare_rows(sandbox, tmp_path, "ImageYORNDataset", "Own", rows)
    answers = [(i, "yes " + "so " * 330) for i in range(10_000)]
    start = time.monotonic()
    found = score(sandbox, prepared, answers)
    assert time.monotonic() - start < 300
    assert len(found.verdicts) == 10_000
    assert found.value == 100


def test_without_references(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = [{k: v for k, v in row.items() if k != "answer"} for row in own_rows(["x"])]
    prepared = prepare_rows(sandbox, tmp_path, "ImageVQADataset", "Own", rows)
    with pytest.raises(VlmEvalError) as caught:
        score(sandbox, prepared, [(0, "x")])
    assert str(caught.value) == (
        "Own has no reference answers, so its answers cannot be scored here. "
        "--vlm-mode=infer collects them."
    )


def own_class(folder: Path, name: str, class_name: str) -> DatasetInfo:
    """Describe a dataset of a class that is run as it is."""
    rows = own_rows(["x"])
    path = write_table(folder / f"{name}.tsv", rows)
    return DatasetInfo(
        name=name, class_name=class_name, module="image_vqa", kind="vqa", path=path
    )


def test_a_class_without_an_adapter_whose_evaluate_raises(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    prepared = prepare(own_class(tmp_path, "TallyQA", "TallyQA"), sandbox, tmp_path)
    with pytest.raises(VlmEvalError) as caught:
        score(sandbox, prepared, [(0, "x")])
    text = re.sub(r"py:\d+", "py:LINE", str(caught.value))
    assert text == (
        "the evaluate of ms-vlmeval's TallyQA failed on 1 answers: ValueError: invalid "
        "literal for int() with base 10: 'x' (dataset/image_vqa.py:LINE). Its answers "
        "are kept. Some classes need all rows of their dataset: leave out --vlm-limit "
        "and --vlm-sample."
    )


def test_a_missed_deadline_names_the_dataset_and_the_option(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = math_rows(["7"] * 3)
    prepared = prepare_rows(sandbox, tmp_path, "MathVision", "Own", rows)
    with pytest.raises(VlmEvalError) as caught:
        score_in_sandbox(sandbox, prepared, [("0", "(" * 10_000)], deadline_s=0.5)
    assert str(caught.value).startswith(
        "Scoring Own took longer than 0.5 s and was stopped (--vlm-score-timeout gives "
        "it more time). Run the same command to try again, with all answers kept."
    )
    assert score(sandbox, prepared, [(0, "7")]).value == 100


def test_ocr_bench_gives_a_point_for_each_answer(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    kinds = [
        "Regular Text Recognition",
        "Doc-oriented VQA",
        "Handwritten Mathematical Expression Recognition",
    ]
    rows = rows_of(["['Exit', 'way out']", "['12']", "['x ^ 2']"], category=kinds)
    prepared = prepare_rows(sandbox, tmp_path, "OCRBench", "OCRBench", rows)
    found = score(sandbox, prepared, [(0, "The WAY OUT."), (1, "13"), (2, "x^2=4")])
    assert values(found.verdicts) == {"0": 1, "1": 0, "2": 1}
    assert found.main_metric == "Final Score"
    assert found.metrics["Final Score"] == 2
    assert found.metrics["Text Recognition"] == 1
    assert found.value == pytest.approx(200 / 3)
    assert score(sandbox, prepared, [(2, "x^2")]).value == 100


def test_mtvqa_averages_over_languages(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = rows_of(["五月", "sortie", "Ausgang"], category=["JA", "FR", "DE"])
    prepared = prepare_rows(sandbox, tmp_path, "MTVQADataset", "MTVQA_TEST", rows)
    assert read_samples(prepared)[0].prompt[0][-1].text.endswith("of the question.")
    found = score(sandbox, prepared, [(0, "五月。"), (1, "la Sortie"), (2, "Eingang")])
    assert values(found.verdicts) == {"0": 1, "1": 1, "2": 0}
    assert found.metrics == pytest.approx(
        {"JA": 100, "FR": 100, "DE": 0, "Average": 200 / 3}
    )
    assert found.value == pytest.approx(200 / 3)


def mmmu_rows(answers: Sequence[str]) -> list[Row]:
    """Give questions with options, the last without."""
    options = ["red"] * (len(answers) - 1) + [""]
    return rows_of(
        answers,
        A=options,
        B=["blue" if option else "" for option in options],
        split=["dev", *["validation"] * (len(answers) - 1)],
    )


def test_mmmu_is_ranked_by_its_validation_split(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = mmmu_rows(["A", "B", "B", "24"])
    prepared = prepare_rows(sandbox, tmp_path, "MMMUDataset", "MMMU_DEV_VAL", rows)
    answers = [(0, "A"), (1, "blue"), (2, "A"), (3, "it is 24")]
    found = score(sandbox, prepared, answers)
    assert values(found.verdicts) == {"0": 1, "1": 1, "2": 0, "3": 1}
    assert found.main_metric == "validation/Overall"
    assert found.value == pytest.approx(200 / 3)


def test_a_question_mark_is_no_reference(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = mmmu_rows(["?", "?"])
    prepared = prepare_rows(sandbox, tmp_path, "MMMUDataset", "MMMU_TEST", rows)
    assert [row.reference for row in read_index(prepared)] == [None, None]
    with pytest.raises(VlmEvalError, match=r"^MMMU_TEST has no reference "):
        score(sandbox, prepared, [(0, "A"), (1, "B")])


def test_mmt_bench_with_few_of_its_categories(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = rows_of(
        ["A", "B"],
        A=["x", "x"],
        B=["y", "y"],
        category=["weather", "scene"],
        split=["val", "val"],
        **{"l2-category": ["visual_recognition", "visual_recognition"]},
    )
    prepared = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", "MMT-Bench_VAL", rows)
    found = score(sandbox, prepared, [(0, "A"), (1, "A")])
    assert (found.main_metric, found.value) == ("ALL/Overall", 50)
    assert found.metrics["ALL/VR"] == 0.5
    assert score(sandbox, prepared, [(0, "A")]).value == 100


@pytest.mark.parametrize("name", ["MMT-Bench_VAL", "MMStar"])
def test_rows_without_a_category_or_a_split(
    sandbox: Sandbox, tmp_path: Path, name: str
) -> None:
    rows = rows_of(
        ["A", "B", "A"],
        A=["x"] * 3,
        B=["y"] * 3,
        category=["colour", "", "colour"],
        split=[""] * 3,
    )
    prepared = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", name, rows)
    found = score(sandbox, prepared, [(0, "A"), (1, "B"), (2, "B")])
    assert found.value == pytest.approx(200 / 3)
    assert {key.rpartition("/")[2] for key in found.metrics} == {
        "Overall",
        "colour",
        "unnamed",
    }


def test_rotations_without_the_first_have_no_score(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows: list[Row] = [
        {**row, "index": index}
        for row, index in zip(
            rows_of(["A", "B"], A=["x", "y"], B=["y", "x"]), (1, 1_000_001), strict=True
        )
    ]
    prepared = prepare_rows(sandbox, tmp_path, "ImageMCQDataset", "CCBench", rows)
    with pytest.raises(VlmEvalError) as caught:
        score(sandbox, prepared, [(1_000_001, "B")])
    assert str(caught.value) == (
        "CCBench has no score: it asks each question once per rotation of its options, "
        "and of none the first rotation was asked. Select all rotations of a question."
    )


def test_mme_with_half_of_a_pair(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = rows_of(
        ["Yes", "No", "Yes"],
        category=["color", "color", "color"],
        image_path=["a.png", "a.png", "b.png"],
    )
    prepared = prepare_rows(sandbox, tmp_path, "ImageYORNDataset", "MME", rows)
    found = score(sandbox, prepared, [(0, "Yes"), (1, "Yes"), (2, "Yes")])
    assert values(found.verdicts) == {"0": 1, "1": 0, "2": 1}
    # Three of four answers, one of two images.
    assert found.metrics["color"] == 75 + 50
    assert found.metrics["perception"] == 125
    assert score(sandbox, prepared, [(2, "Yes")]).metrics["Overall"] == 200


def test_hallusion_bench_with_a_part_of_a_figure(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows: list[Row] = [
        {**row, "index": f"VD_chart_1_0_{number}_0", "l2-category": "chart"}
        for number, row in enumerate(rows_of(["Yes", "No"]))
    ]
    prepared = prepare_rows(
        sandbox, tmp_path, "ImageYORNDataset", "HallusionBench", rows
    )
    found = score(sandbox, prepared, [("VD_chart_1_0_1_0", "No")])
    assert (found.main_metric, found.value) == ("Overall/average", 100)


def math_vista_rows() -> list[Row]:
    """Give a question of each kind: options, a number, a text, a list."""
    return rows_of(
        ["5", "12", "north", "[1, 2]"],
        question_type=["multi_choice", "free_form", "free_form", "free_form"],
        answer_type=["text", "integer", "text", "list"],
        answer_option=["B", "", "", ""],
        choices=["['3', '5']", "", "", ""],
        task=["geometry", "counting", "reading", "reading"],
        skills=["['shapes']", "['numbers']", "['maps']", "['maps']"],
    )


@pytest.mark.parametrize(
    ("scoring", "right"), [("published", [1, 1, 0, 0]), ("corrected", [1, 1, 1, 1])]
)
def test_math_vista_as_published_and_corrected(
    sandbox: Sandbox, tmp_path: Path, scoring: str, right: list[int]
) -> None:
    rows = math_vista_rows()
    prepared = prepare_rows(sandbox, tmp_path, "MathVista", "MathVista_MINI", rows)
    answers = [("0", ["B"]), ("1", ["12"]), ("2", ["north"]), ("3", ["[1, 2]"])]
    assert scoring in ("published", "corrected")
    found = score_in_sandbox(
        sandbox,
        prepared,
        answers,
        scoring="corrected" if scoring == "corrected" else "published",
    )
    assert found.scoring == scoring
    assert list(values(found.verdicts).values()) == right
    assert found.main_metric == "Overall/acc (exact matching)"
    assert found.value == sum(right) * 25
    wrong = score(sandbox, prepared, [(0, "A"), (1, ""), (2, "None"), (3, "[1]")])
    assert wrong.value == 0


def test_corrected_scoring_where_nothing_is_to_correct(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = rows_of(["May"], category=["ocr,math"])
    prepared = prepare_rows(sandbox, tmp_path, "MMVet", "MMVet", rows)
    found = score_in_sandbox(
        sandbox,
        prepared,
        [("0", ["May"])],
        judge=lambda _asked: [JudgeReply(number=1, text="1.0")],
        scoring="corrected",
    )
    assert (found.scoring, found.value) == ("published", 100)


def test_without_the_judge_that_a_dataset_needs(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = rows_of(["-1<AND>-5"], category=["ocr,math"])
    prepared = prepare_rows(sandbox, tmp_path, "MMVet", "MMVet", rows)
    with pytest.raises(NeedsJudgeError) as caught:
        score(sandbox, prepared, [(0, "-1 and -5")])
    assert str(caught.value) == (
        "MMVet is scored by a judge only, and there is none. Its answers are kept: "
        "run the same command with --vlm-judge=NAME --vlm-judge-api-base=URL to score "
        "them."
    )


def test_an_environment_without_the_add_on(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = rows_of(["['a dog']"])
    prepared = prepare_rows(sandbox, tmp_path, "ImageCaptionDataset", "COCO_VAL", rows)
    with pytest.raises(VlmEvalError) as caught:
        score(sandbox, prepared, [(0, "a dog")])
    assert str(caught.value) == (
        "COCO_VAL needs the package pycocoevalcap, which is not in the sandbox's "
        "environment (No module named 'pycocoevalcap'). Install it there, or leave out "
        "--vlm-sandbox-python: the environment that is built then has it."
    )


def test_pages_need_an_add_on_too(sandbox: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(VlmEvalError, match=r"^MMLongBench_DOC needs the package pymu"):
        prepare_rows(
            sandbox, tmp_path, "MMLongBench", "MMLongBench_DOC", rows_of(["3"])
        )


@pytest.mark.addons
def test_captions_are_scored_together(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path
) -> None:
    sandbox = sandbox_of("ImageCaptionDataset")
    rows: list[Row] = [
        {key: value for key, value in row.items() if key != "question"}
        for row in rows_of(["['a red box on a page', 'one box']", "['two dogs run']"])
    ]
    prepared = prepare_rows(sandbox, tmp_path, "ImageCaptionDataset", "COCO_VAL", rows)
    answers = [(0, "a red box on a page"), (1, "two dogs run")]
    found = score(sandbox, prepared, answers)
    assert values(found.verdicts) == {"0": None, "1": None}
    assert found.verdicts[0].reason == "captions are scored all together"
    assert found.metrics["Bleu_1"] == pytest.approx(100)
    assert found.metrics["ROUGE_L"] == pytest.approx(100)
    assert (found.main_metric, found.value) == ("CIDEr", found.metrics["CIDEr"])
    assert score(sandbox, prepared, [(0, ""), (1, "")]).metrics["Bleu_1"] < 1


@pytest.mark.addons
def test_covered_texts_are_found_word_for_word(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path
) -> None:
    sandbox = sandbox_of("VCRDataset")
    rows = rows_of(["['a big river', 'the old town']", "['the sea']", "['two dogs']"])
    prepared = prepare_rows(sandbox, tmp_path, "VCRDataset", "VCR_EN_EASY_100", rows)
    answers = [(0, "a big river, an old town"), (1, ""), (2, "Sorry: two dogs")]
    found = score(sandbox, prepared, answers)
    assert values(found.verdicts) == {"0": 0.5, "1": 0, "2": 0}
    assert found.verdicts[0].extracted == "a big river | an old town"
    assert found.metrics["Exact_Match"] == 0.25
    assert found.metrics["Jaccard"] == pytest.approx((1 + 2 / 4) / 4)
    assert (found.main_metric, found.value, found.notes) == ("Exact_Match", 25, ())


@pytest.mark.addons
def test_chinese_is_split_by_character_and_the_score_says_so(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path
) -> None:
    sandbox = sandbox_of("VCRDataset")
    rows = rows_of(["['一条大河']"])
    prepared = prepare_rows(sandbox, tmp_path, "VCRDataset", "VCR_ZH_HARD_100", rows)
    found = score(sandbox, prepared, [(0, "北方的一条大河")])
    assert found.value == 100
    assert found.notes == (
        "Chinese is split by character (spacy.blank('zh')), not by zh_core_web_sm's "
        "words, so both numbers can differ from ms-vlmeval's",
    )


def document(pages: int) -> str:
    """Draw a PDF as a table cell holds it."""
    first, *others = (Image.new("RGB", (60, 80), (40 * i, 0, 0)) for i in range(pages))
    out = io.BytesIO()
    first.save(out, "PDF", save_all=True, append_images=others)
    return base64.b64encode(out.getvalue()).decode()


@pytest.mark.addons
def test_each_page_of_a_document_is_a_image(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path
) -> None:
    sandbox = sandbox_of("MMLongBench")
    rows: list[Row] = [
        {
            **row,
            "doc_id": "a.pdf",
            "answer_format": "Int",
            "evidence_pages": "[1]",
            "evidence_sources": "['Figure']",
            "image_path": "['a_1.jpg', 'a_2.jpg', 'a_3.jpg']",
            "image": [document(3), "0"][number],
        }
        for number, row in enumerate(rows_of(["3", "4"]))
    ]
    prepared = prepare_rows(sandbox, tmp_path, "MMLongBench", "MMLongBench_DOC", rows)
    first, second = read_samples(prepared)
    assert [part.kind for part in parts_of(first.prompt)] == ["image"] * 3 + ["text"]
    assert first.prompt == second.prompt
    assert len(media_of(prepared)) == 3
