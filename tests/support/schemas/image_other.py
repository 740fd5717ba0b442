"""Classes of vlmeval.dataset.GUI and image_ccocr."""

from __future__ import annotations

import json

from tests.support.sandbox_tables import Row, cell, draw
from tests.support.schemas import Schema, by_number, several

SCREEN = cell(draw(1, size=(100, 50)))
TABLE = "<table><tr><td>a</td><td>b</td></tr></table>"
KINDS = ["text", "icon", "text", "icon", "text"]
APPLICATIONS = ["mail", "mail", "maps", "maps", "maps"]


def screens(*box: int, **columns: object) -> list[Row]:
    """Give rows with a box of ten pixels at (10, 20), in a screen of its own each."""
    return [
        {**row, "image": SCREEN, "image_path": f"{row['index']}.png"}
        for row in several([""] * 5, bbox=str([*box]), category=APPLICATIONS, **columns)
    ]


# Two in the box, two beside it, and one without a point, which is the corner.
CLICKS = by_number(
    "pyautogui.click(x=0.15, y=0.5)",
    "click(x=12, y=22)",
    "click(x=0.5, y=0.5)",
    "click(x=0.15, y=0.9)",
    "I would click on it",
)
# Whatever the index is, these classes number the rows from 1.
NUMBERED = [
    {**row, "index": number}
    for number, row in enumerate(
        screens(10, 20, 20, 30, ui_type=KINDS, application=APPLICATIONS), start=1
    )
]


def readings(split: str, kind: str, operation: str, answers: list[str]) -> list[Row]:
    """Give rows of CC-OCR."""
    return several(
        answers,
        image_name=[f"{number}.jpg" for number in range(len(answers))],
        category=kind,
        split=split,
        **{"l2-category": operation},
    )


RECEIPT = json.dumps({"total": "12", "items": [{"name": "tea"}, {"name": "cake"}]})


SCHEMAS = (
    Schema(
        class_name="ScreenSpot",
        dataset="ScreenSpot_Mobile",
        rows=screens(10, 20, 10, 10, data_type=KINDS, data_source="ios"),
        answers=CLICKS,
        opened=True,
        expects={"Overall_Accuracy": 40.0, "mail_Accuracy": 100.0},
    ),
    *(
        Schema(
            class_name=class_name,
            dataset=dataset,
            rows=NUMBERED,
            answers={str(at): said for at, said in enumerate(CLICKS.values(), 1)},
            opened=True,
            expects={"Overall_Accuracy": 40.0, "mail_Accuracy": 100.0},
        )
        for class_name, dataset in (
            ("ScreenSpot_Pro", "ScreenSpot_Pro_CAD"),
            ("VBGD", "VBGD"),
        )
    ),
    Schema(
        class_name="OSWorld_G",
        dataset="OSWorld_G",
        rows=[{**row, "bbox": str([10, 20, 10, 10])} for row in NUMBERED],
        answers={
            "1": "click(x=150, y=500)",
            "2": "click(x=120, y=440)",
            "3": "click(x=0.15, y=0.5)",
            "4": "click(x=150, y=900)",
            "5": "I would click on it",
        },
        opened=True,
        expects={"Overall_Accuracy": 40.0, "mail_Accuracy": 100.0},
    ),
    Schema(
        class_name="CCOCRDataset",
        dataset="CCOCR_MultiLanOcr_French",
        rows=readings(
            "French", "multi_lan_ocr", "French", ["le chat noir", "la mer", "12 euros"]
        ),
        answers=by_number("Le chat", "la mer", "je ne sais pas"),
        expects={"lan_ocr": (0.8 + 1 + 0) / 3},
    ),
    Schema(
        class_name="CCOCRDataset",
        dataset="CCOCR_MultiSceneOcr_ZhScene",
        rows=readings(
            "zh_scene", "multi_scene_ocr", "scene_text", ["红色的猫", "大海", "十二"]
        ),
        answers=by_number("红色 猫", "大海", "不知道"),
        expects={"scene_ocr": (6 / 7 + 1 + 0) / 3},
    ),
    Schema(
        class_name="CCOCRDataset",
        dataset="CCOCR_Kie_Cord",
        rows=readings("CORD", "kie", "constrained_category", [RECEIPT] * 4),
        answers=by_number(
            f"```json\n{RECEIPT}\n```",
            json.dumps({"total": "12"}),
            "The total is 12.",
            json.dumps({"total": "13", "items": [{"name": "tea"}]}),
        ),
        expects={"kie": (1 + 3 / 15 + 0 + 8 / 15) / 4},
    ),
    Schema(
        class_name="CCOCRDataset",
        dataset="CCOCR_DocParsing_TableScanEng",
        rows=readings("table_scan_eng", "doc_parsing", "table", [TABLE] * 4),
        answers=by_number(
            f"```html\n{TABLE}\n```",
            "<table><tr><td>a</td></tr></table>",
            "a | b",
            TABLE.replace(">b<", ">bc<"),
        ),
        expects={"doc_parsing": (1 + 2 / 3 + 0 + 2.5 / 3) / 4},
    ),
    Schema(
        class_name="CCOCRDataset",
        dataset="CCOCR_DocParsing_FormulaHandwriting",
        rows=readings(
            "formula", "doc_parsing", "formula", [r"\frac{1}{2}", "x + y", "z^2"]
        ),
        answers=by_number("```latex\n\\frac{1}{2}\n```", "x+z", "It is unreadable"),
        expects={"doc_parsing": (1 + 2 / 3 + 0) / 3},
    ),
)  # fmt: skip
