"""A table for any image or text class of ms-vlmeval, with the columns that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pytest_vlmeval.records import DatasetInfo
from tests.support.sandbox_tables import cell, draw, write_table

IMAGES = [cell(draw(seed)) for seed in range(2)]
COLUMNS = {
    "A": "red",
    "B": "blue",
    "C": "green",
    "D": "grey",
    "E": "white",
    "F": "",
    "additional": "",
    "answer_type": "free_form",
    "bbox": "[1, 2, 3, 4]",
    "category": "colour",
    "context": "",
    "format": "a number",
    "hint": "Look.",
    "is_multiple_answer": "False",
    "l2-category": "shade",
    "language": "English",
    "multi-choice options": "['(A) red','(B) blue','(C) green','(D) grey','(E) white']",
    "option1": "red",
    "option2": "blue",
    "option3": "green",
    "option4": "grey",
    "options": "['red', 'blue', 'green', 'grey']",
    "paragraph": "",
    "prompt": "Which?",
    "query": "Which?",
    "query_cot": "Which?",
    "question_type": "multi_choice",
    "requirement": "Answer.",
    "response": "['red', 'blue']",
    "source": "OE_TO_maths_en_COMP",
    "split": "test",
    "type": "multiple_choice",
    "unit": "",
}
# ms-vlmeval takes a shorter text for the index of a row (dataset/image_base.py:166).
FAR = "/".join(["images"] * 8)
# The image comes from where the path says.
LINKED = {"image": "", "image_path": "{number}.png"}
PDF = b"""%PDF-1.4
1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj
2 0 obj <</Type /Pages /Kids [3 0 R] /Count 1>> endobj
3 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 72 72]>> endobj
trailer <</Root 1 0 R>>
%%EOF
"""
DOCUMENT = {"doc_id": "d", "image": cell(PDF), "image_path": "['d{number}_1.png']"}
OF_CLASS: Mapping[str, Mapping[str, str]] = {
    "ChartQAPro": {
        "question": "['Which?']",
        "answer": "['red']",
        "question_type": "Factoid",
    },
    "ChartMimic": {"input_figure": "v1/ori_500/0.png"},
    **dict.fromkeys(("DUDE", "MMLongBench"), DOCUMENT),
    "ERIQBench": {"question_raw": "<image>Which?", **LINKED},
    "MindCubeBench": {"input_prompt": "<image>Which?", **LINKED},
    "OmniSpatialBench": LINKED,
    "RefSpatialBench": {**LINKED, "mask_path": "0.png"},
    "SparBench": {"task": "position_matching"},
    "SPBench": {**LINKED, "candidates": "['A. x']", "question_type": "object_counting"},
    "SiteBenchImage": LINKED,
    "StareBench": {
        "image_path": "images/data/test-00000-of-00001/{number}/0.png",
        "image": "",
    },
    "ViewSpatialBench": {**LINKED, "candidates": "A. x"},
    "VLADBench": {"image": "['" + FAR + "/{number}.png']"},
    "MOAT": {
        "choices": "['red', 'blue']",
        "images": "['{number}.png']",
        "outside_knowledge_text": "",
        "outside_knowledge_images": "[]",
    },
    "M4Bench": {
        "image1": IMAGES[0],
        "image2": IMAGES[1],
        "image1_path": "1.png",
        "image2_path": "2.png",
    },
    "MMNIAH": {
        "question": "['Read.', '<image>Which?']",
        "multi-choice options": "[['red', 'blue'], []]",
    },
    "OlympiadBench": {"answer_type": "Numerical"},
    "MathCanvas": {"question": "<image>Which?"},
    "SFE": {"question": "<image>Which?", "question_type": "mcq"},
    "WildDocBenchmark": {"index": "DocVQA-1"},
}


def invented_table(info: DatasetInfo, folder: Path) -> Path:
    """Write a table of two rows."""
    given = OF_CLASS.get(info.class_name, {})
    rows = [
        {
            "index": str(number),
            "question": "Which?",
            "answer": "AB"[number],
            **COLUMNS,
            "image_path": f"{number}.png",
            "image": IMAGES[number],
            **{
                name: text.replace("{number}", str(number))
                for name, text in given.items()
            },
        }
        for number in range(2)
    ][: 1 if info.class_name == "WildDocBenchmark" else 2]
    drop = [name for name in ("image",) if not rows[0][name]]
    rows = [{k: v for k, v in row.items() if k not in drop} for row in rows]
    return write_table(folder / f"{info.name}.tsv", rows)
