"""Cuts a video dataset's frames with ms-vlmeval as it is, run by the sandbox's Python.

Takes a JSON file with module, class_name, settings and video_llm, and writes one with
the prompt of each row: texts, and the hex digests of the files of the other parts.
Nothing of ms-vlmeval is changed; the repository is in the cache of the hub's client.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import runpy
import sys
from pathlib import Path
from typing import Any


def read(part: dict[str, Any]) -> tuple[str, str]:
    """Give a part as text, or the digest of its file."""
    if part["type"] == "text":
        return "text", part["value"]
    digest = hashlib.sha256(Path(part["value"]).read_bytes()).hexdigest()
    return part["type"], digest


if __name__ == "__main__":
    task = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    enter = runpy.run_path(str(Path(__file__).with_name("upstream_scoring.py")))
    enter["enter"](None)
    module: Any = importlib.import_module(f"vlmeval.dataset.{task['module']}")
    dataset = getattr(module, task["class_name"])(**task["settings"])
    prompts = [
        [read(part) for part in dataset.build_prompt(row, task["video_llm"])]
        for row in range(len(dataset.data))
    ]
    Path(sys.argv[2]).write_text(json.dumps(prompts), encoding="utf-8")
