"""A corpus of answers with what VLMEvalKit itself makes of them, and the script for it.

    python -m tests.support.vlmevalkit_corpus SNAPSHOT SANDBOX_PYTHON

SNAPSHOT is a checkout of open-compass/VLMEvalKit, SANDBOX_PYTHON the interpreter of a
sandbox, which has ms-vlmeval. It runs VLMEvalKit's own functions from the snapshot and
writes `vlmevalkit_corpus.json`: the functions that differ from ms-vlmeval's, the option
read in each of the `readings`, and the metrics of each table of `upstream_tables`.
"""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_vlmeval.records import VLMEVALKIT_COMMIT
from tests.support.sandbox_tables import CLASSES, write_table
from tests.support.upstream_tables import (
    CASES,
    CHOICE_ANSWERS,
    IMAGE,
    MATH_ANSWERS,
    answer_all,
    math_rows,
)

FILE = Path(__file__).with_name("vlmevalkit_corpus.json")
SCRIPT = Path(__file__).with_name("upstream_scoring.py")
SEED = 16
PER_SET = 150
OPTION_SETS: list[dict[str, str]] = [
    {"A": "red", "B": "green", "C": "blue", "D": "dark red"},
    {"A": "a cat", "B": "a dog", "C": "a bird", "D": "a fish", "E": "none of them"},
    {"A": "3", "B": "5", "C": "12", "D": "30"},
    {"A": "Yes", "B": "No"},
]
FRAMES = [
    "{}",
    "The correct answer is **{}**. Here's why: the light is warm and the sky is dark",
    "The answer is {} because that is what the lamp in the left corner looks like",
    "Looking at A and B, the correct answer is {}, I think, though it is hard to tell",
    "the ANSWER  is **{}",
    "answer is {}. The answer is B",
    "The answer is not {}, as far as anybody can see from this image of a street",
    "I think the answer is\n{}\nfor the reasons that A and C name above in the text",
    "The correct option is {}. Here's why: there are A, B and C to choose from here",
    "Failed to obtain answer via API. The answer is {}",
    "Cannot determine the answer. The answer is {}",
    "It is {}",
    "{}. The others are wrong for reasons that would take long to explain in this text",
]
FILLINGS = ["A", "B", "C", "D", "E", "Z", "b", "a cat", "because", "TEXT", "(C)", "**D"]
# MMVet's verdicts are the judge's; only what it is asked with differs.
ALL_KINDS = "rec,ocr,know,gen,spat,math"
GRADED = ("MMVet", [{"question": "?", "answer": "red", "category": ALL_KINDS}])
KIT_ANSWERS = [frame.format("LETTER") for frame in FRAMES]
MME_CATEGORIES = (
    "OCR artwork celebrity color count existence landmark position posters scene "
    "code_reasoning commonsense_reasoning numerical_calculation text_translation"
).split()
MODULES = [
    *(
        f"dataset/{name}.py"
        for name in (
            "image_base image_mcq image_yorn image_vqa image_caption image_mt vcr "
            "videomme mmbench_video mmlongbench"
        ).split()
    ),
    *(
        f"dataset/utils/{name}.py"
        for name in (
            "multiple_choice yorn vqa_eval ocrbench mathv mathvista mmvet llavabench "
            "mmdu videomme mmbench_video judge_util"
        ).split()
    ),
    "utils/matching_util.py",
    "smp/file.py",
    "smp/misc.py",
]
# VLMEvalKit gave a name of ms-vlmeval's to another benchmark.
RENAMED = {"dataset/mmlongbench.py": ("dataset/mmlongbenchdoc.py", "MMLongBenchDoc")}


def read_corpus() -> dict[str, Any]:
    """Read what VLMEvalKit gave."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def readings() -> list[tuple[int, str]]:
    """Give answers to questions with the options of OPTION_SETS, by its place."""
    chance = random.Random(SEED)
    found: dict[tuple[int, str], None] = {}
    for number, options in enumerate(OPTION_SETS):
        for _ in range(PER_SET):
            frame = chance.choice([*FRAMES, *FRAMES, *CHOICE_ANSWERS])
            filling = chance.choice(FILLINGS)
            text = chance.choice(list(options.values()))
            said = frame.replace("{}", filling).replace("LETTER", filling)
            found[number, said.replace("TEXT", text)] = None
    return list(found)


def tables() -> Mapping[str, tuple[str, Sequence[Mapping[str, object]], list[str]]]:
    """Give the tables of all families; with sentences where there are options.

    MME has all its categories, as VLMEvalKit has no number for some of them.
    """
    return {
        name: (
            class_name,
            rows if name != "MME" else _in_all_categories(rows),
            [*styles, *KIT_ANSWERS] if class_name not in PLAIN else styles,
        )
        for name, (class_name, rows, styles) in {**CASES, "MathVision": MATHS}.items()
    }


MATHS = ("MathVision", math_rows(), MATH_ANSWERS)


def _in_all_categories(
    rows: Sequence[Mapping[str, object]],
) -> list[Mapping[str, object]]:
    pairs = len(MME_CATEGORIES)
    return [
        {**row, "category": MME_CATEGORIES[place // 2 % pairs]}
        for place, row in enumerate(rows)
    ]


# Classes whose answers are not options.
PLAIN = {"ImageYORNDataset", "ImageVQADataset", "OCRBench", "MTVQADataset"}


def definitions(path: Path, rename: str = "") -> dict[str, str]:
    """Give what a module defines: functions, methods and assigned names."""
    text = path.read_text(encoding="utf-8")
    if rename:
        text = text.replace(rename, "MMLongBench")
    found: dict[str, str] = {}

    def walk(node: ast.Module | ast.ClassDef, prefix: str) -> None:
        for each in node.body:
            if isinstance(each, ast.ClassDef):
                walk(each, f"{prefix}{each.name}.")
            elif isinstance(each, ast.FunctionDef):
                found[prefix + each.name] = ast.dump(each)
            elif isinstance(each, ast.Assign):
                (name,) = map(ast.unparse, each.targets)
                found[prefix + name] = ast.dump(each)

    walk(ast.parse(text), "")
    return found


def differences(theirs: Path, ours: Path) -> list[str]:
    """Name all that the modules which score define in another way, in order."""
    found = []
    for module in MODULES:
        path, rename = RENAMED.get(module, (module, ""))
        new, old = definitions(theirs / path, rename), definitions(ours / module)
        found += [
            f"{path}:{name}"
            for name in sorted(new.keys() | old.keys())
            if new.get(name) != old.get(name)
        ]
    return found


def run(python: str, arguments: Sequence[str], folder: Path) -> str:
    """Run Python in the sandbox's environment."""
    return subprocess.run(
        [python, "-I", "-X", "utf8", *arguments],
        cwd=folder,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={"HOME": str(folder), "LANG": "C.UTF-8"},
    ).stdout


# Run in the sandbox's Python, which has what this package needs not.
READ = """
import importlib.util, json, logging, sys
from types import ModuleType
log = ModuleType("vlmeval.smp.log")
log.get_logger = logging.getLogger
sys.modules |= {"vlmeval": ModuleType("vlmeval"), "vlmeval.smp": ModuleType("smp")}
sys.modules["vlmeval.smp.log"] = log
spec = importlib.util.spec_from_file_location("matching_util", sys.argv[1])
rules = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rules)
cases = json.load(open(sys.argv[2]))
print(json.dumps([rules.can_infer(said, options) for options, said in cases]))
"""


def record(snapshot: Path, python: str) -> dict[str, Any]:
    """Run VLMEvalKit's own functions on the corpus."""
    theirs = snapshot / "vlmeval"
    located = "import importlib.util as i; print(i.find_spec('vlmeval').origin)"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        ours = Path(run(python, ["-c", located], folder).strip()).parent
        cases = [(OPTION_SETS[number], said) for number, said in readings()]
        (folder / "cases.json").write_text(json.dumps(cases))
        rules = str(theirs / "utils" / "matching_util.py")
        read = json.loads(run(python, ["-c", READ, rules, "cases.json"], folder))
        found = {}
        judged, graded = GRADED
        rows = [{"index": 0, **row, "image": IMAGE} for row in graded]
        every = {**tables(), judged: (judged, rows, ["red"])}
        for name, (class_name, lines, styles) in every.items():
            found[name] = score_by_kit(
                snapshot, python, name, class_name, lines, answer_all(lines, styles)
            )
    return {
        "commit": VLMEVALKIT_COMMIT,
        "differences": differences(theirs, ours),
        "readings": [
            [number, said, each or None]
            for (number, said), each in zip(readings(), read, strict=True)
        ],
        "tables": found,
    }


def score_by_kit(
    snapshot: Path,
    python: str,
    name: str,
    class_name: str,
    rows: Sequence[Mapping[str, object]],
    answers: Sequence[tuple[object, str]],
) -> dict[str, Any]:
    """Score a table with VLMEvalKit as it is."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = {
            "name": name,
            "module": CLASSES[class_name][0],
            "class_name": class_name,
            "tsv": str(write_table(folder / f"{name}.tsv", rows)),
            "answers": [(str(index), said) for index, said in answers],
            "package": str(snapshot),
        }
        (folder / "job.json").write_text(json.dumps(job))
        run(python, [str(SCRIPT), "job.json", "found.json"], folder)
        found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return found


def as_text(corpus: Mapping[str, Any]) -> str:
    """Write a corpus with a line for each reading and each table."""
    parts = []
    for name, value in corpus.items():
        if isinstance(value, str):
            shown = json.dumps(value)
        elif isinstance(value, dict):
            lines = (f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in value.items())
            shown = "{\n" + ",\n".join(lines) + "\n }"
        else:
            lines = (f"  {json.dumps(each)}" for each in value)
            shown = "[\n" + ",\n".join(lines) + "\n ]"
        parts.append(f" {json.dumps(name)}: {shown}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    FILE.write_text(as_text(record(Path(sys.argv[1]), sys.argv[2])), encoding="utf-8")
