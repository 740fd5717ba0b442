"""Asks models as EvalScope does through ms-vlmeval; run by the sandbox's interpreter.

`upstream_requests.py JOB`: JOB is a JSON object with the fields of `CustomAPIModel` for
each of `models`, and the `message` that all are asked. The server keeps the requests.
"""

from __future__ import annotations

import copy
import importlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

# As ms-vlmeval's config.py:637 has it.
CUSTOM = {"temperature": 0, "img_size": -1, "img_detail": "high", "key": "EMPTY"}


def enter() -> None:
    """Make the modules importable without running the package files."""
    spec = find_spec("vlmeval")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or []
    for name in ("vlmeval", "vlmeval.api"):
        module = ModuleType(name)
        module.__path__ = [str(Path(folder, *name.split(".")[1:]))]
        sys.modules[name] = module


if __name__ == "__main__":
    enter()
    gpt: Any = importlib.import_module("vlmeval.api.gpt")
    job = json.loads(Path(sys.argv[1]).read_text())
    for fields in job["models"]:
        model = gpt.CustomAPIModel(**(CUSTOM | {"retry": 1} | fields))
        model.generate(copy.deepcopy(job["message"]))
