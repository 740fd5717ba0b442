"""Scores answers with ms-vlmeval as it is, run by the sandbox's Python in tests.

Takes a JSON file with name, module, class_name, tsv and answers, and writes one with
the result table, the tokens that its judge was given and, for MathVision, the verdict
on each row. Nothing of ms-vlmeval is changed but the judge, which has only useless
replies, or those of the test server in conversations, and the published checksum.
With a folder as `package`, its `vlmeval` takes the place of the installed one.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd


class UselessJudge:
    """Answers, but nothing that can be read."""

    def working(self) -> bool:
        """Claim to work."""
        return True

    def generate(self, *_prompt: object, **_settings: object) -> str:
        """Give a reply that is no answer to any question."""
        return "?"


class GradingJudge(UselessJudge):
    """Grades each turn of a conversation as the test server does."""

    def generate(self, *prompt: object, **_settings: object) -> str:
        """Give its reply to a prompt."""
        path = str(Path(__file__).parent / "server" / "judge.py")
        return str(runpy.run_path(path)["reply"](prompt[0], "good"))


def enter(package: str | None) -> None:
    """Make the modules importable without running the package files."""
    if package is None:
        spec = find_spec("vlmeval")
        assert spec is not None
        (folder,) = spec.submodule_search_locations or []
    else:
        folder = str(Path(package) / "vlmeval")
    for name, path in (
        ("vlmeval", folder),
        ("vlmeval.dataset", str(Path(folder) / "dataset")),
    ):
        module = ModuleType(name)
        module.__path__ = [path]
        sys.modules[name] = module


def evaluate(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Build the dataset, write the answers as ms-vlmeval does, evaluate."""
    os.environ["LMUData"] = str(folder)  # noqa: SIM112
    name, table = job["name"], folder / f"{job['name']}.tsv"
    table.write_bytes(Path(job["tsv"]).read_bytes())
    module: Any = importlib.import_module(f"vlmeval.dataset.{job['module']}")
    file: Any = importlib.import_module("vlmeval.smp.file")
    cls = getattr(module, job["class_name"])
    cls.DATASET_MD5 = {name: file.md5(str(table))}
    judge = GradingJudge() if job["class_name"] == "MMDUDataset" else UselessJudge()
    tokens = []

    def build_judge(**settings: Any) -> UselessJudge:
        tokens.append(settings.get("max_tokens"))
        return judge

    module.build_judge = build_judge
    dataset = cls(dataset=name)
    answers = dict(job["answers"])
    rows = dataset.data[[str(i) in answers for i in dataset.data["index"]]].copy()
    rows["prediction"] = [answers[str(index)] for index in rows["index"]]
    rows.pop("image")
    path = str(folder / f"answers_{name}.xlsx")
    file.dump(rows, path)
    result = dataset.evaluate(path, model="exact_matching", nproc=2)
    if isinstance(result, tuple):
        result = result[0]  # MMVet gives two tables
    if isinstance(result, dict):
        result = pd.DataFrame([result])
    verdicts = {}
    if job["class_name"] == "MathVision":
        mathv: Any = importlib.import_module("vlmeval.dataset.utils.mathv")
        judged = file.load(file.get_intermediate_file_path(path, "_exact_matching"))
        for _, row in judged.iterrows():
            verdicts[str(row["index"])] = float(mathv.post_check(row))
    return {
        "result": json.loads(result.to_json(orient="split", double_precision=15)),
        "verdicts": verdicts,
        "judge_tokens": tokens,
    }


if __name__ == "__main__":
    job = json.loads(Path(sys.argv[1]).read_text())
    enter(job.get("package"))
    with tempfile.TemporaryDirectory() as scratch:
        found = evaluate(job, Path(scratch))
    Path(sys.argv[2]).write_text(json.dumps(found))
