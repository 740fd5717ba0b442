"""Lets classes of ms-vlmeval evaluate answers, run by the sandbox's Python in tests.

Takes a JSON file with a list of cases and writes one with what each class's own
`evaluate` returned and wrote, or how it failed. There is no containment. Nothing of
ms-vlmeval is changed but where tables come from, and the judge, which replies as
scripted, or not at all.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import runpy
import signal
import sys
import tempfile
import traceback
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

HERE = Path(__file__).parent
SCRIPTED = runpy.run_path(str(HERE / "server" / "judge.py"))["scripted"]
ENTER = runpy.run_path(str(HERE / "upstream_scoring.py"))["enter"]
NO_REPLY = "Failed to obtain answer via API."
MOST_S = 60
# What packages that are not there only offer, and nothing here uses.
UNUSED = {"dotenv": "load_dotenv", "json_repair": "repair_json"}


def mend() -> None:
    """Answer what ends ms-vlmeval in an error whatever the answers are.

    utils/bmmr.py:8 and others import from a package that `enter` leaves empty,
    utils/llavabench.py:6 from one that does not exist; utils/mme_reasoning.py:1190
    imports too little; utils/wemath.py:196 uses what pandas 3 no longer has;
    utils/physics_eval_utils.py:5 and utils/vgrpbench/score.py:15 import packages that
    they do not need.
    """
    package: Any = sys.modules["vlmeval"]
    package.__getattr__ = lambda name: getattr(
        importlib.import_module("vlmeval.utils" if "track" in name else "vlmeval.smp"),
        name,
    )
    for name in ("smp", "smp.log"):
        found = importlib.import_module(f"vlmeval.{name}")
        sys.modules[f"vlmeval.dataset.{name}"] = found
    frame: Any = pd.DataFrame
    frame._append = lambda self, row, ignore_index: pd.concat(
        [self, pd.DataFrame([row])], ignore_index=ignore_index
    )
    reasoning: Any = importlib.import_module("vlmeval.dataset.utils.mme_reasoning")
    reasoning.defaultdict, reasoning.np = defaultdict, np
    for name, function in UNUSED.items():
        if find_spec(name) is None:
            module: Any = ModuleType(name)
            setattr(module, function, lambda *_given: None)
            sys.modules[name] = module


class ScriptedJudge:
    """Replies as scripted; without a script as an API that cannot be reached."""

    fail_msg = NO_REPLY
    script: list[list[str]] | None = None
    asked = 0

    def __init__(self, *_given: object, **_settings: object) -> None:
        pass

    def working(self) -> bool:
        """Claim to work."""
        return True

    def generate(self, message: Any = None, *_given: object, **settings: object) -> str:
        """Reply to a prompt, a text or parts with texts."""
        message = settings.get("prompt", message)
        text = message if isinstance(message, str) else _text_of(message)
        ScriptedJudge.asked += 1
        return NO_REPLY if self.script is None else SCRIPTED(text, self.script)


def _text_of(parts: Any) -> str:
    texts = [part if isinstance(part, str) else part.get("value") for part in parts]
    return "\n".join(map(str, texts))


def plain(value: Any) -> Any:
    """Give what JSON can hold; tables and tuples are marked."""
    if isinstance(value, pd.DataFrame):
        return {
            "__table__": [
                [str(name) for name in value.columns],
                [str(label) for label in value.index],
                [
                    [plain(cell) for cell in row]
                    for row in value.itertuples(index=False)
                ],
            ]
        }
    if isinstance(value, pd.Series):
        return plain(value.to_dict())
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, tuple):
        return {"__tuple__": [plain(each) for each in value]}
    if isinstance(value, list | set):
        return [plain(each) for each in value]
    if hasattr(value, "tolist"):  # of numpy
        return plain(value.tolist())
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def read_written(folder: Path, name: str) -> dict[str, Any]:
    """Give the tables and JSON files of a folder, the answers' name left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        key = path.relative_to(folder).as_posix().removeprefix(f"answers_{name}")
        if path.suffix in {".xlsx", ".csv", ".tsv"}:
            tabs = {".csv": ",", ".tsv": "\t"}
            sep = tabs.get(path.suffix)
            with contextlib.suppress(pd.errors.EmptyDataError):
                table = pd.read_csv(path, sep=sep) if sep else pd.read_excel(path)
                found[key] = plain(table)
        elif path.suffix == ".json":
            found[key] = json.loads(path.read_text())
    return found


def build(case: dict[str, Any], folder: Path) -> Any:
    """Give the dataset over its table."""
    os.environ["LMUData"] = str(folder)  # noqa: SIM112
    name, table = case["dataset"], folder / f"{case['dataset']}.tsv"
    table.write_text(case["table"])
    for path, text in case["files"].items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(bytes.fromhex(text))
    judge_util: Any = importlib.import_module("vlmeval.dataset.utils.judge_util")
    judge_util.build_judge = ScriptedJudge
    module: Any = importlib.import_module(f"vlmeval.dataset.{case['module']}")
    for loaded in list(sys.modules.values()):
        if loaded.__name__.startswith("vlmeval.") and hasattr(loaded, "build_judge"):
            loaded.build_judge = ScriptedJudge  # type: ignore[attr-defined]
    cls = getattr(module, case["class_name"])
    if case["modality"] == "video":
        dataset = cls.__new__(cls)
        dataset.dataset_name = case["settings"].get("dataset", name)
        dataset.pack = bool(case["settings"].get("pack"))
        dataset.data_file = str(table)
        dataset.data_root = str(folder)
        dataset.data = pd.read_csv(table, sep="\t")
        return dataset
    file: Any = importlib.import_module("vlmeval.smp.file")
    cls.DATASET_MD5 = {name: file.md5(str(table))}
    cls.__abstractmethods__ = frozenset()
    options = {"model": "GPT4"} if hasattr(cls, "SUPPORTED_MODELS") else {}
    own = {} if case["published"] else {"load_data": _load(table)}
    return type(cls.__name__, (cls,), own)(dataset=case["rules"], **options)


def _load(table: Path) -> Any:
    return lambda _dataset, _name: pd.read_csv(table, sep="\t")


def evaluate(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Build the dataset, write the answers as ms-vlmeval does, evaluate."""
    data = folder / "data"
    answered = folder / "answered"
    data.mkdir()
    answered.mkdir()
    dataset = build(case, data)
    file: Any = importlib.import_module("vlmeval.smp.file")
    answers = dict(case["answers"])
    rows = dataset.data[[str(i) in answers for i in dataset.data["index"]]].copy()
    rows["prediction"] = [answers[str(index)] for index in rows["index"]]
    if case["opened"]:
        for _, row in dataset.data.iterrows():
            dataset.dump_image(row)
    if "image" in rows:
        rows.pop("image")
    path = str(answered / f"answers_{case['rules']}.xlsx")
    file.dump(rows, path)
    ScriptedJudge.script, ScriptedJudge.asked = case["judge"], 0
    random.seed(0)
    result = dataset.evaluate(path, model=case["model"], nproc=2, **case["arguments"])
    return {
        "returned": plain(result),
        "written": read_written(answered, case["rules"]),
        "asked": ScriptedJudge.asked,
    }


def attempt(case: dict[str, Any]) -> dict[str, Any]:
    """Evaluate a case in a folder of its own; give what it raised as `error`."""
    signal.alarm(MOST_S)
    with tempfile.TemporaryDirectory() as scratch:
        try:
            return evaluate(case, Path(scratch))
        except (Exception, SystemExit):
            return {"error": traceback.format_exc()}
        finally:
            signal.alarm(0)


def _late(_number: int, _frame: object) -> None:
    message = f"longer than {MOST_S} s"
    raise RuntimeError(message)


if __name__ == "__main__":
    signal.signal(signal.SIGALRM, _late)
    ENTER(None)
    mend()
    cases = json.loads(Path(sys.argv[1]).read_text())
    Path(sys.argv[2]).write_text(json.dumps([attempt(case) for case in cases]))
