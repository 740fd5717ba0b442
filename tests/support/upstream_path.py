"""Evaluates a served model with ms-vlmeval as it is; run by the sandbox's interpreter.

`upstream_path.py JOB RESULT`: ms-vlmeval's client asks, its loop infers, its evaluation
scores, as its run.py puts them together for EvalScope's `CustomAPIModel`. JOB has the
address of the model and of the judge, and the datasets, each with its class; RESULT
gets for each what it was scored, or how it crashed. Nothing there is changed but
the published checksums and what the light environment lacks: torch and torchvision,
which nothing here calls, and the models that VCR downloads.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
import shutil
import sys
import traceback
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pandas as pd

# As ms-vlmeval's config.py:637 has it, but for the tries of what cannot be answered.
CUSTOM = {"temperature": 0, "img_size": -1, "img_detail": "high", "key": "EMPTY"}
TRIES = 2
# What run.py gives as the judge's name; LOCAL_LLM stands for it.
JUDGE = "gpt-4o-mini"


def enter() -> None:
    """Make the modules importable without running the package files, and torch."""
    spec = find_spec("vlmeval")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or []
    for name in ("vlmeval", "vlmeval.dataset", "vlmeval.api"):
        module = ModuleType(name)
        module.__path__ = [str(Path(folder, *name.split(".")[1:]))]
        sys.modules[name] = module
    for name in ("torch", "torch.distributed", "vlmeval.config"):
        sys.modules[name] = ModuleType(name)
    for name in ("torchvision", "torchvision.transforms"):
        sys.modules[name] = ModuleType(name)
    sys.modules["torch"].distributed = sys.modules["torch.distributed"]  # type: ignore[attr-defined]
    sys.modules["vlmeval.config"].supported_VLM = {}  # type: ignore[attr-defined]
    gpt: Any = importlib.import_module("vlmeval.api.gpt")
    api: Any = sys.modules["vlmeval.api"]
    # What dataset/utils/judge_util.py imports beside the class it makes.
    api.OpenAIWrapper, api.HFChatModel, api.SiliconFlowAPI = gpt.OpenAIWrapper, 0, 0


def build(each: dict[str, Any], model_name: str) -> Any:
    """Build the dataset as dataset/__init__.py:386 does."""
    module: Any = importlib.import_module(f"vlmeval.dataset.{each['module']}")
    cls = getattr(module, each["class_name"])
    file: Any = importlib.import_module("vlmeval.smp.file")
    if each["class_name"] == "VCRDataset":
        _without_downloads(module)
    digest = file.md5(each["table"])
    cls.DATASET_MD5, cls.MD5 = {each["name"]: digest}, digest
    settings = {"nframe": each["nframe"], "model": model_name}
    known = inspect.signature(cls.__init__).parameters
    settings = {name: value for name, value in settings.items() if name in known}
    return cls(dataset=each["name"], **settings)


def _without_downloads(module: Any) -> None:
    spacy: Any = importlib.import_module("spacy")

    def initialize() -> None:
        module.nlp = {"en": spacy.blank("en"), "zh": spacy.blank("zh")}
        compute = SimpleNamespace(compute=lambda **_texts: {"rouge1": 0.0})
        module.rouge = compute

    module.initialize = initialize


def infer(each: dict[str, Any], job: dict[str, Any], work: Path) -> tuple[Any, str]:
    """Ask the model as run.py does; give the dataset and the file of its answers."""
    gpt: Any = importlib.import_module("vlmeval.api.gpt")
    file: Any = importlib.import_module("vlmeval.smp.file")
    name = job["model"]
    base = f"{job['url']}/chat/completions"
    model = gpt.CustomAPIModel(
        model=name, api_base=base, retry=TRIES, verbose=False, **CUSTOM
    )
    dataset = build(each, name)
    result = file.get_pred_file_path(str(work), name, each["name"], use_env_format=True)
    Path(result).parent.mkdir(parents=True, exist_ok=True)
    shared = {"work_dir": str(work), "model_name": name, "dataset": dataset}
    shared["api_nproc"] = job["nproc"]
    if dataset.MODALITY == "VIDEO":
        video: Any = importlib.import_module("vlmeval.inference_video")
        video.infer_data_job_video(model, result_file=result, **shared)
    else:
        image: Any = importlib.import_module("vlmeval.inference")
        image.infer_data_job(model, **shared)
    return dataset, result


def evaluate(dataset: Any, answers: str, folder: Path, judge: str) -> Any:
    """Score a copy of the answers; give what the evaluation does."""
    folder.mkdir(parents=True)
    # In the file of the answers rows are known by the dataset's data.
    copy = str(folder / Path(answers).name)
    shutil.copyfile(answers, copy)
    before = set(folder.iterdir())
    found = dataset.evaluate(copy, model=judge, nproc=4, retry=TRIES, verbose=False)
    if isinstance(found, pd.DataFrame):
        return {"table": json.loads(found.to_json(orient="split", double_precision=15))}
    if isinstance(found, dict):
        return {"dict": found}
    made = sorted(set(folder.iterdir()) - before)
    scores = [path for path in made if path.name.endswith("_score.json")]
    told = json.loads(scores[0].read_text())
    del told["Predictions"]
    return {"dict": told}


def run(each: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """Evaluate one dataset."""
    work = Path(job["work"]) / each["name"]
    work.mkdir(parents=True)
    try:
        dataset, answers = infer(each, job, work)
    except (Exception, SystemExit):
        return {"crash": traceback.format_exc(limit=-3)}
    found: dict[str, Any] = {}
    for mode, judge in each["judges"].items():
        # `evaluate` changes its dataset.
        try:
            scored = evaluate(dataset, answers, work / mode, judge)
        except (Exception, SystemExit):
            scored = {"crash": traceback.format_exc(limit=-3)}
        found[mode] = scored
    return found


def main() -> None:
    """Evaluate all that the job names."""
    job = json.loads(Path(sys.argv[1]).read_text())
    os.environ |= job["environ"]
    enter()
    found = {each["name"]: run(each, job) for each in job["datasets"]}
    Path(sys.argv[2]).write_text(json.dumps(found, default=str))


if __name__ == "__main__":
    main()
