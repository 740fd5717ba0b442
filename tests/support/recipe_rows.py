"""Rows in the schemas of the recipes' repositories, scripted answers, and their scores.

The columns are those that the benchmarks' own code reads, whose places the recipes
name. The scores were computed by hand, by the authors' rules as recipes describe them.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from tests.support.run_fixtures import image_bytes

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TEXTS = pa.list_(pa.string())
SHARD = "00000-of-00001.parquet"


def image(seed: int) -> dict[str, object]:
    """Draw an image as Hugging Face's feature stores it."""
    return {"bytes": image_bytes(seed), "path": f"{seed}.png"}


def table(rows: Sequence[Mapping[str, Any]], **types: pa.DataType) -> bytes:
    """Write rows as a Parquet file, with the types of these columns."""
    columns = {
        name: pa.array([row[name] for row in rows], types.get(name)) for name in rows[0]
    }
    out = io.BytesIO()
    parquet.write_table(pa.table(columns), out)
    return out.getvalue()


def baby_vision() -> bytes:
    """Make rows as those of UnipatAI/BabyVision."""
    choices = ["red", "blue", "(1,2)"]
    rows = [
        ("blank", "Which row and column <b1>?", [], None, "(4,7)", "Tracking"),
        ("blank", "How many <b2>?", [], None, "12", "Tracking"),
        ("choice", "Which colour <b3>?", choices, 1, None, "Spatial"),
        ("choice", "Which colour <b4>?", choices, 1, None, "Spatial"),
        ("choice", "Which colour <b5>?", choices, 0, None, "Spatial"),
        ("blank", "How many <b6>?", [], None, "3", "Spatial"),
    ]
    return table(
        [
            {
                "taskId": 400 + number,
                "type": kind,
                "subtype": "Maze",
                "image": image(number),
                "question": question,
                "ansType": answered,
                "options": options,
                "choiceAns": choice,
                "blankAns": blank,
                "coT": "",
            }
            for number, (answered, question, options, choice, blank, kind) in enumerate(
                rows
            )
        ],
        image=IMAGE,
        options=TEXTS,
        choiceAns=pa.int64(),
        blankAns=pa.string(),
    )


BABY_VISION = {
    # The last of the boxes; blanks make no difference.
    "<b1>": r"Not \boxed{(1,1)}. So \boxed{(4, 7)}",
    "<b2>": r"\boxed{\text{13}}",
    "<b3>": r"The answer is \boxed{(B) blue}.",
    "<b4>": r"\boxed{\text{Blue}}",
    "<b5>": r"\boxed{D}",
    "<b6>": "It is 3.",  # without a box
}


def count_qa() -> bytes:
    """Make rows as those of Jayant-Sravan/CountQA."""
    rows = [
        (["How many cups <c1>?", "How many plates <c2>?"], ["100", "0"], True),
        (["How many nails <c3>?"], ["12"], False),
        (["How many books <c4>?"], ["40"], False),
        (["How many eggs <c5>?"], ["7"], False),
    ]
    return table(
        [
            {
                "image": image(10 + number),
                "questions": questions,
                "answers": answers,
                "objects": ["thing"] * len(questions),
                "is_focused": focused,
                "categories": ["Kitchen"],
            }
            for number, (questions, answers, focused) in enumerate(rows)
        ],
        image=IMAGE,
        questions=TEXTS,
        answers=TEXTS,
        objects=TEXTS,
        categories=TEXTS,
    )


COUNT_QA = {
    "<c1>": "104",  # within 5 %
    "<c2>": "0",
    "<c3>": "There are **12** nails.",
    "<c4>": "About forty.",
    "<c5>": "Row 1 has 3, row 2 has 4. In all 7.",  # by its first integer
}


def measure_bench(rows: Sequence[tuple[str, str, object, Sequence[str]]]) -> bytes:
    """Make rows as those of FlagEval/MeasureBench."""
    return table(
        [
            {
                "question_id": f"{kind}_{number}",
                "question": question,
                "image": image(20 + number),
                "image_type": kind,
                "design": "dial",
                "evaluator": f"{'multi_' * (given == 'intervals')}interval_matching",
                "evaluator_kwargs": json.dumps({given: value, "units": list(units)}),
            }
            for number, (kind, question, value, units) in enumerate(rows)
            for given in [
                "intervals"
                if isinstance(value, list) and isinstance(value[0], list)
                else "interval"
            ]
        ],
        image=IMAGE,
    )


REAL: list[tuple[str, str, object, list[str]]] = [
    ("ammeter", "What is the reading <m1>?", [9.5, 9.7], ["A", "Ampere"]),
    ("ammeter", "What is the reading <m2>?", [9.5, 9.7], ["A", "Ampere"]),
    (
        "clock",
        "What time is it <m3>?",
        [["11:15:59", "11:16:01"], ["23:15:59", "23:16:01"]],
        [],
    ),
    ("thermometer", "读数是多少 <m4>", [36.4, 36.6], ["℃", "°C"]),
    ("pressure_gauge", "What is the reading <m5>?", [1, 2], ["bar"]),
    ("pressure_gauge", "What is the reading <m6>?", [0.7, 0.8], ["bar"]),
]
DRAWN: list[tuple[str, str, object, list[str]]] = [
    ("clock", "What time is it <m7>?", ["10:00:00", "10:05:00"], []),
    ("compass", "What is the reading <m8>?", [10, 12], []),
    ("compass", "What is the reading <m9>?", [10, 12], []),
]
MEASURE_BENCH = {
    "<m1>": "It is near 9. Final Answer: 9.6 A",
    "<m2>": "Final Answer: 9.6 V",
    "<m3>": "One hand is at 9:15. Final Answer: 23:16",
    "<m4>": "最终答案：36.5 °C",  # noqa: RUF001
    "<m5>": "I do not see it.",
    "<m6>": "Final Answer: 3/4 bar",
    "<m7>": r"\boxed{10:02}",
    "<m8>": "Between 5 and 11",  # by its last number
    "<m9>": "Final Answer: −11",
}


def jmmmu_pro() -> bytes:
    """Make rows as those of JMMMU/JMMMU-Pro, config vision."""
    rows = [
        ("test_Japanese_History_1", "B"),
        ("test_Math_3", "C"),
        ("test_Math_7", "A"),
        ("test_Japanese_Art_2", "D"),
        ("test_Math_12", "B"),
    ]
    return table(
        [
            {
                "id": name,
                "image": image(40 + number),
                "options": "['東京', '大阪', '京都', '奈良']",
                "answer": answer,
                "question_type": "multiple-choice",
            }
            for number, (name, answer) in enumerate(rows)
        ],
        image=IMAGE,
    )


# All have one prompt, so that their answers are known by their images.
JMMMU_PRO = {
    hashlib.sha256(image_bytes(40 + number)).hexdigest(): text
    for number, text in enumerate(
        [
            "答え：Ｂ",  # noqa: RUF001
            "C. 京都",
            "Aではなく、Dです。",
            "わかりません。",
            "A. 東京\nB. 大阪\nしたがって B です。",
        ]
    )
}


def tir_bench() -> dict[str, bytes]:
    """Make the files of Agents-X/TIR-Bench."""
    rows = [
        ("ocr", "What is written <t1>?", "m0bi", ["60.jpg"]),
        ("jigsaw", "In what order <t2>?", "[4, 1, 3, 2]", ["1.jpg"]),
        ("spot_difference", "Which differ <t3>?", "7, 11, 12", ["l.png", "r.png"]),
        ("spot_difference", "How many <t4>?", 6, ["2.png"]),
        ("word_search", "Which row and column <t5>?", "[3, 6]", ["3.png"]),
        ("word_search", "How many times <t6>?", "2", ["3.png"]),
        ("refcoco", "Which proportion <t7>?\nA: 65%\nC: 81%", "A", ["4.png"]),
        ("visual_search", "Is there <t8>? (A) no (B) yes", "B", ["5.png"]),
        ("math", "Which are parallel <t9>?", "CD", ["6.png"]),
        ("instrument", "What is the reading <t10>?", 2.39, ["7.png"]),
        ("maze", "Which path <t11>?", "D", ["8.png"]),
    ]
    listed = []
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for number, (task, prompt, answer, names) in enumerate(rows):
            paths = [f"data/{task}/{name}" for name in names]
            for place, path in enumerate(paths):
                if path not in packed.namelist():
                    packed.writestr(path, image_bytes(60 + 20 * place + number))
            listed.append(
                {
                    "meta_data": {"difficulty": 2} if task == "jigsaw" else {},
                    "task": task,
                    "answer": answer,
                    "prompt": prompt,
                    "image_1": paths[0],
                    "image_2": paths[1] if len(paths) > 1 else None,
                    "id": number,
                }
            )
    return {
        "TIR-Bench.json": json.dumps(listed).encode(),
        "data.zip": archive.getvalue(),
    }


TIR_BENCH = {
    "<t1>": "It says mobi.",
    "<t2>": "In this order: **4, 1, 2, 3**",
    "<t3>": "The answer is 7, 11, 13.",
    "<t4>": "I see 6 differences.",
    "<t5>": r"\boxed{[3, 6]}",
    "<t6>": "2 or 3",
    "<t7>": "C: 81%",
    "<t8>": "A brown one is there. (B)",
    "<t9>": "C and D",
    "<t10>": "**Answer:** 2.390 cm",
    "<t11>": "I cannot tell.",
}
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "UnipatAI/BabyVision": {f"data/train-{SHARD}": baby_vision()},
    "Jayant-Sravan/CountQA": {f"data/test-{SHARD}": count_qa()},
    "FlagEval/MeasureBench": {
        f"data/real_world-{SHARD}": measure_bench(REAL),
        f"data/synthetic_test-{SHARD}": measure_bench(DRAWN),
    },
    "JMMMU/JMMMU-Pro": {f"vision/test-{SHARD}": jmmmu_pro()},
    "Agents-X/TIR-Bench": tir_bench(),
}
ANSWERS = BABY_VISION | COUNT_QA | MEASURE_BENCH | JMMMU_PRO | TIR_BENCH
# The metrics of each dataset, the main one first.
EXPECTED: dict[str, dict[str, float]] = {
    "BabyVision": {"Overall": 3 / 6, "Tracking": 1 / 2, "Spatial": 2 / 4},
    "CountQA-test": {
        "Exact Match": 2 / 5,
        "Relaxed Accuracy": 3 / 5,
        "focused": 1 / 2,
        "cluttered": 1 / 3,
    },
    "MeasureBench-real_world": {
        "Overall": 4 / 6,
        "number": 5 / 6,
        "unit": 3 / 5,
        "ammeter": 1 / 2,
        "clock": 1,
        "pressure_gauge": 1 / 2,
        "thermometer": 1,
    },
    "MeasureBench-synthetic_test": {
        "Overall": 2 / 3,
        "number": 2 / 3,
        "clock": 1,
        "compass": 1 / 2,
    },
    "JMMMU-Pro-vision-test": {
        "Overall": 3 / 5,
        "culture-agnostic": 2 / 3,
        "culture-specific": 1 / 2,
        "Japanese_Art": 0,
        "Japanese_History": 1,
        "Math": 2 / 3,
    },
    "TIR-Bench": {
        "Overall": 7 / 11,
        "ocr": 1,
        "jigsaw": 1 / 2,
        "spot_difference": 3 / 4,
        "word_search": 1 / 2,
        "refcoco": 0,
        "visual_search": 1,
        "math": 1,
        "instrument": 1,
        "maze": 0,
    },
}
