"""What image and text classes bring beside a table, small and in its own layout."""

from __future__ import annotations

from tests.support.hub_files import json_lines, lines, parquet, tape
from tests.support.sandbox_tables import cell, draw
from tests.support.video_sets import archive, as_json

IMAGES = [draw(seed) for seed in range(2)]
CHOICES = ["(A) red", "(B) blue", "(C) green", "(D) grey", "(E) white"]
QUESTION = {
    "question": "Which?",
    "answer": "A",
    "multi-choice options": "(A) red (B) blue",
    "category": "colour",
    "A": "red",
    "B": "blue",
}
ROWS = [{"index": n, **QUESTION, "image": cell(IMAGES[n])} for n in range(2)]


def stored(number: int) -> dict[str, object]:
    """Give an image as Parquet of Hugging Face holds it."""
    return {"bytes": IMAGES[number], "path": f"{number}.png"}


def split(name: str, content: bytes) -> dict[str, bytes]:
    """Give the file of a split."""
    return {f"data/{name}-00000-of-00001.parquet": content}


def zipped(folder: str = "") -> dict[str, bytes]:
    """Give a repository with the images in a zip."""
    files = {f"{folder}{n}.png": IMAGES[n] for n in range(2)}
    return {"images.zip": archive(files)}


LOOSE = {f"{n}.png": IMAGES[n] for n in range(2)}
REAL_WORLD = [
    {**ROWS[n], "multi-choice options": CHOICES, "l2-category": "x"} for n in (0, 1)
]
NEEDLES = [
    {
        **row,
        "question": "['Read.', '<image>Which?']",
        "multi-choice options": "[['red', 'blue'], []]",
        "context": "",
    }
    for row in ROWS
]
MEDQ = lines(ROWS)
MEDQ_PAIR = lines(
    [{**row, "image_a": row["image"], "image_b": row["image"]} for row in ROWS], "image"
)
SGI = {
    "idx": "0",
    "question": "Which?",
    "answer": "A",
    "steps": ["a"],
    "discipline": "x",
    "direction": "y",
    "type": "z",
}
IDEA = dict.fromkeys(
    """idx question discipline core_idea related_work related_work_test keywords
    existing_solutions implementation_steps implementation_order data
    evaluation_metrics expected_outcome""".split(),
    "x",
)
UNIT_TESTS = {
    f"unit_test_{n}_{what}": "x" for n in range(5) for what in ("data", "output")
}
DRY = {
    **SGI,
    "data_code": "",
    "main_code": "",
    "incomplete_main_code": "",
    "incomplete_functions": "f",
    **UNIT_TESTS,
    "function_type": "x",
    "runtime": "1",
}
REASONING = {
    **SGI,
    "options": ["red", "blue"],
    "images": [stored(0)],
    "step_images": [stored(1)],
    "image_type": "x",
}
POINTED = [
    {
        "image": stored(n),
        "mask": stored(n),
        "object": "box",
        "prompt": "Where?",
        "step": 1,
    }
    for n in range(2)
]
OLYMPIADS = """IPhO_2024 IPhO_2025 EuPhO_2024 EuPhO_2025 APhO_2025 PanPhO_2024
PanPhO_2025 NBPhO_2024 NBPhO_2025 F_MA_2024 F_MA_2025 PanMechanics_2024
PanMechanics_2025""".split()


def olympiad(name: str) -> bytes:
    """Give the questions of one, in a split of its name."""
    row = {"context": "", "question": "Which?", "information": "", "answer": "A"}
    return parquet(
        [
            {"index": f"{name}-{n}", **row, "image_question": cell(IMAGES[n])}
            for n in (0, 1)
        ]
    )


REPOSITORIES: dict[str, dict[str, bytes]] = {
    "yifanzhang114/MME-RealWorld-Base64": {
        "MME-RealWorld/a.json": as_json(REAL_WORLD),
        "MME-RealWorld-CN/a.json": as_json(REAL_WORLD),
    },
    "jiyaoliufd/MedQ-Bench": {
        "medqbench_QA_dev.tsv": MEDQ,
        "medqbench_QA_test.tsv": MEDQ,
        "medqbench_description_dev.tsv": MEDQ,
        "medqbench_description_test.tsv": MEDQ,
        "medqbench_paired_description_dev.tsv": MEDQ_PAIR,
        "medqbench_paired_description_test.tsv": MEDQ_PAIR,
    },
    "jiyaoliufd/MedQ-DEG-Bench": {
        f"MedQ-Robust-{kind}-{part}.tsv": MEDQ
        for kind in ("simulate", "good")
        for part in ("dev", "test")
    },
    "KineMind/ERIQ": {f"images/{name}": data for name, data in LOOSE.items()},
    "MLL-Lab/MindCube": zipped(),
    "qizekun/OmniSpatial": {
        "OmniSpatial-test.zip": archive(
            {f"OmniSpatial-test/{name}": data for name, data in LOOSE.items()}
        )
    },
    "BAAI/RefSpatial-Bench": {
        **LOOSE,
        **split("location", parquet(POINTED, "image", "mask")),
        **split("placement", parquet(POINTED, "image", "mask")),
        **split("unseen", parquet(POINTED, "image", "mask")),
    },
    "hongxingli/SPBench": zipped(),
    "franky-veteran/SITE-Bench": zipped(),
    "kuvvi/STARE": split(
        "test", parquet([{"qid": str(n), "images": [stored(n)]} for n in range(2)])
    ),
    "lidingm/ViewSpatial-Bench": zipped(),
    "depth2world/VLADBench": {
        "/".join(["images"] * 8 + [name]): data for name, data in LOOSE.items()
    },
    "depth-anything/DA-2K": {
        "DA-2K.zip": archive(
            {
                "DA-2K/annotations.json": as_json(
                    {
                        f"images/indoor/{n}.png": [
                            {
                                "point1": [1, 2],
                                "point2": [3, 4],
                                "closer_point": "point1",
                            }
                        ]
                        for n in range(2)
                    }
                ),
                **{f"DA-2K/images/indoor/{n}.png": IMAGES[n] for n in range(2)},
            }
        )
    },
    "MLLM-CL/VTCBench": {
        name: data
        for task in ("Retrieval", "Reasoning", "Memory")
        for name, data in split(
            task,
            parquet([{"problem": "Which?", "answers": ["A"], "images": [stored(0)]}]),
        ).items()
    },
    "andrewliao11/Q-Spatial-Bench": split(
        "QSpatial_plus",
        parquet(
            [
                {
                    "question": "How far?",
                    "answer_value": 1.0,
                    "answer_unit": "m",
                    "image": stored(n),
                }
                for n in range(2)
            ]
        ),
    ),
    "BLISS-e-V/SCAM": split(
        "train",
        parquet(
            [
                {
                    "image": stored(n),
                    "object_label": "cup",
                    "attack_word": "car",
                    "type": "SCAM",
                }
                for n in range(2)
            ],
            "image",
        ),
    ),
    "tianhao2k/MM-HELIX": split(
        "test",
        parquet(
            [
                {
                    "id": n,
                    "question": "Which?",
                    "question_text": "Which?",
                    "answer": "A",
                    "category": "graphs",
                    "images": [stored(n)],
                }
                for n in range(2)
            ]
        ),
    ),
    "HY-Wan/HiPhO": {
        path: data
        for name in OLYMPIADS
        for path, data in split(name, olympiad(name)).items()
    },
    "InternScience/SGI-DeepResearch": split("test", parquet([SGI])),
    "InternScience/SGI-DryExperiment": split("test", parquet([DRY])),
    "InternScience/SGI-WetExperiment": split("test", parquet([SGI])),
    "InternScience/SGI-IdeaGeneration": split("test", parquet([IDEA])),
    "InternScience/SGI-Reasoning": split(
        "test", parquet([REASONING], "images", "step_images")
    ),
}
PROMPTS = """system_prompt spatial_prompt_single spatial_prompt_steps standard_prompt
zero_shot_prompt""".split()
CHARTS = {
    f"{folder}/{n}.png": IMAGES[n]
    for n in range(2)
    for folder in ("customized_500", "ori_500")
}
# Files of addresses, by the last part of those.
FILES: dict[str, bytes] = {
    "SIUO_GEN.tsv": lines(ROWS),
    "SIUO_MCQ.tsv": lines(ROWS),
    "MOAT_images.zip": archive(LOOSE),
    "mme_realworld_lite.tsv": lines(
        [{**row, "multi-choice options": str(CHOICES)} for row in ROWS]
    ),
    **{
        f"GMAI_mm_bench_TEST_part_{n}.tsv": lines(
            [{**row, "index": 2 * n + at} for at, row in enumerate(ROWS)]
        )
        for n in range(1, 12)
    },
    **{
        f"part_{n}.tsv": lines(
            [{**row, "index": 2 * n + at} for at, row in enumerate(ROWS)]
        )
        for n in range(1, 15)
    },
    **{
        f"{name}_part{n}.jsonl": json_lines(
            [{**row, "index": 2 * n + at} for at, row in enumerate(ROWS)]
        )
        for name in ("XLRS-Bench-lite", "OmniEarth-Bench_MCQ")
        for n in range(15)
    },
    **{f"{name}.txt": b"Ask: {{ question }}" for name in PROMPTS},
    # Parts of one table, cut anywhere.
    "part-aa": lines(NEEDLES)[:40],
    "part-ab": lines(NEEDLES)[40:50],
    "part-ac": lines(NEEDLES)[50:60],
    "part-ad": lines(NEEDLES)[60:70],
    "part-ae": lines(NEEDLES)[70:],
    "dataset-old.tar.gz": tape(CHARTS, "gz"),
    "dataset-iclr.tar.gz": tape({"direct_600/0.png": IMAGES[0]}, "gz"),
}
