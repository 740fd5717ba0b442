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
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

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


def _mend_charts(module: Any) -> None:
    """Answer dataset/chartbench.py:104, which gets two arguments."""
    upstream = module.ChartBench_auxeval
    module.ChartBench_auxeval = lambda *given: upstream(given)


def _mend_sums(module: Any) -> None:
    """Answer dataset/reasonmap_plus.py:218: numpy 2.4 adds no generators."""
    module.np = SimpleNamespace(**{**vars(np), "sum": lambda values: np.sum([*values])})


def _mend_progress(module: Any) -> None:
    """Answer dataset/spatial457.py:56, which calls a module."""
    module.tqdm = module.tqdm.tqdm


def _mend_foresight(module: Any) -> None:
    """Answer dataset/vlrmbench.py:260: in a row of pandas 3 nothing `is True`."""
    upstream = module.VLRMBench.evaluate_foresight
    module.VLRMBench.evaluate_foresight = lambda table: upstream(
        table.assign(task_gt=table["task_gt"].map(bool).astype(object))
    )


def _mend_images(module: Any) -> None:
    """Answer dataset/moat.py:62, which brings images."""
    module.MOAT.post_build = lambda _dataset, _name: None


def _mend_client(module: Any) -> None:
    """Answer dataset/simplevqa.py:146, whose judge is a client of its own."""

    def create(messages: Any, **_settings: object) -> Any:
        text = ScriptedJudge().generate(messages[0]["content"])
        return SimpleNamespace(
            choices=[SimpleNamespace(message=SimpleNamespace(content=text))]
        )

    completions = SimpleNamespace(completions=SimpleNamespace(create=create))
    module.OpenAI = lambda **_settings: SimpleNamespace(chat=completions)


def _mend_formulas(_module: Any) -> None:
    """Answer utils/hipho_verifier.py:37: a package that finds nothing in a thread."""
    verifier: Any = importlib.import_module("vlmeval.dataset.utils.hipho_verifier")
    verifier.parse = None


def _mend_checksums(module: Any) -> None:
    """Answer dataset/siuo.py:34: it builds two datasets over tables of their own."""
    module.SIUOGenDataset.DATASET_MD5 = {}
    module.SIUOMCQDataset.DATASET_MD5 = {}


# Of what these modules need to get to an end, by their names.
MENDS: dict[str, Callable[[Any], None]] = {
    "chartbench": _mend_charts,
    "reasonmap_plus": _mend_sums,
    "spatial457": _mend_progress,
    "vlrmbench": _mend_foresight,
    "moat": _mend_images,
    "simplevqa": _mend_client,
    "siuo": _mend_checksums,
    "hipho": _mend_formulas,
    # What scores it is in a module that imports a reader of videos.
    "spbench": lambda _module: import_datasets("vsibench"),
}


class ScriptedJudge:
    """Replies as scripted; without a script as an API that cannot be reached."""

    fail_msg = NO_REPLY
    model = "judge"
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

    def generate_inner(self, message: Any) -> tuple[int, str, None]:
        """Reply as ms-vlmeval's clients do below `generate`."""
        if self.script is None:
            raise ConnectionError(NO_REPLY)
        return 0, self.generate(message), None


def _text_of(parts: Any) -> str:
    """Give the texts of parts, which have a value or, with a role, a content."""
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif part.get("type") != "image":
            content = part["value"] if "value" in part else part["content"]
            texts.append(content if isinstance(content, str) else _text_of(content))
    return "\n".join(texts)


def import_datasets(name: str) -> Any:
    """Import a module of datasets; what stands for an absent package does nothing."""
    while True:
        try:
            return importlib.import_module(f"vlmeval.dataset.{name}")
        except ModuleNotFoundError as error:
            if not error.name or error.name in sys.modules:
                raise
            sys.modules[error.name] = MagicMock(name=error.name)


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
    module = import_datasets(case["module"])
    for loaded_name, loaded in list(sys.modules.items()):
        if loaded_name.startswith("vlmeval.") and hasattr(loaded, "build_judge"):
            loaded.build_judge = ScriptedJudge  # type: ignore[attr-defined]
    if fix := MENDS.pop(case["module"], None):
        fix(module)
    cls = getattr(module, case["class_name"])
    if case["modality"] == "video":
        dataset = cls.__new__(cls)
        dataset.dataset_name = case["settings"].get("dataset", name)
        dataset.pack = bool(case["settings"].get("pack"))
        dataset.duration = ""  # of dataset/vsibench.py:637, in a default name
        dataset.data_file = str(table)
        dataset.data_root = str(folder)
        dataset.data = pd.read_csv(table, sep="\t")
        return dataset
    file: Any = importlib.import_module("vlmeval.smp.file")
    cls.DATASET_MD5 = {name: file.md5(str(table))}
    cls.__abstractmethods__ = frozenset()
    options = {"model": "GPT4"} if hasattr(cls, "SUPPORTED_MODELS") else {}
    base: Any = importlib.import_module("vlmeval.dataset.image_base")
    brings_more = cls.prepare_tsv is not base.ImageBaseDataset.prepare_tsv
    own = {"load_data": _load(table)} if brings_more or not case["published"] else {}
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
    # utils/spatial_bench/cal_scores.py:349 wants to know whether there is a judge.
    os.environ.pop("OPENAI_API_KEY", None)
    if case["judge"] is not None:
        os.environ["OPENAI_API_KEY"] = "none"
    random.seed(0)
    named = {} if case["unnamed"] else {"model": case["model"]}
    result = dataset.evaluate(path, nproc=2, **named, **case["arguments"])
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
