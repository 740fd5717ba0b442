"""Task files for tests: a served model, a local one, a configuration of VLMEvalKit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from pytest_vlmeval.settings.task_file import Task, load_task

SERVED = {
    "type": "qwen-vl-chat",
    "name": "CustomAPIModel",
    "api_base": "http://127.0.0.1:8000/v1/chat/completions",
    "key": "EMPTY",
    "temperature": 0.0,
    "img_size": 224,
    "img_detail": "low",
    "video_llm": False,
    "system_prompt": "Answer in one word.",
    "max_tokens": 512,
}
LOCAL = {"name": "qwen_chat", "model_path": "models/Qwen-VL-Chat"}


def swift_task(
    *, model: Mapping[str, Any] | None = None, top: Any = None, **config: Any
) -> dict[str, Any]:
    """Give a task that asks a served model, with further fields of its parts."""
    fields = {
        "model": [{**SERVED, **(model or {})}],
        "data": ["MathVision_MINI"],
        "mode": "all",
        "limit": 2,
        "reuse": True,
        "nproc": 4,
    }
    task = {"eval_backend": "VLMEvalKit", "eval_config": {**fields, **config}}
    return {**task, **(top or {})}


def write_task(path: Path, task: object) -> Path:
    """Write a task as the file's suffix says."""
    text = json.dumps(task) if path.suffix == ".json" else yaml.safe_dump(task)
    path.write_text(text, encoding="utf-8")
    return path


def read_task(folder: Path, task: object, name: str = "task.yaml") -> Task:
    """Write a task and read it as the plugin does."""
    return load_task(write_task(folder / name, task), None, folder)
