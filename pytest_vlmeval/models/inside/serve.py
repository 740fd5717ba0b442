"""Loads one model and answers batches: one JSON object per line, in and out.

Run by path, as `PYTHON -I -X utf8 serve.py`. The first line says what to load, the
answer is `{"ready": ...}`; each further line is a batch of prompts. What libraries
print goes to the standard error. Ends with its standard input.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))


def load(order: dict[str, Any]) -> Any:
    """Load what the order names: a class of ms-vlmeval, or a checkpoint's folder."""
    if order["class_name"]:
        return import_module("vlmeval_model").VlmevalModel(order)
    return import_module("checkpoint").Checkpoint(order)


def explain(error: BaseException) -> str:
    """Return an error in one line; its traceback goes to the log."""
    traceback.print_exc(file=sys.stderr)
    return " ".join(f"{type(error).__name__}: {error}".split())[:600]


def main() -> None:
    """Answer until the input ends."""
    # Libraries print what they like; only we write to the pipe.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # What was printed before the process is killed is to be in the log.
    assert isinstance(sys.stdout, io.TextIOWrapper)
    sys.stdout.reconfigure(line_buffering=True)

    def send(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    model = None
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if model is None:
                model = load(order)
                send({"ready": model.describe()})
            else:
                send({"replies": model.answer(order["prompts"])})
        except Exception as error:
            send({"error": explain(error)})


if __name__ == "__main__":
    main()
