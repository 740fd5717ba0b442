"""Families that need an add-on: captions, covered texts, documents."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import parts_of
from tests.support.sandbox_tables import (
    media_of,
    prepare_rows,
    rows_of,
    score,
    values,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vlmeval.sandbox.process import Sandbox
    from tests.support.sandbox_tables import Row


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
