"""Asks and scores with ms-vlmeval as it is: its client, its files, its rules.

`upstream_answers.py JOB FOUND`, run by the sandbox's interpreter. JOB has the `url` of
a server and for each of `datasets` what `upstream_scoring.py` takes, but that its
client asks for the answers by `questions`, each an index and a text. FOUND has for each
dataset its `predictions` and its `result`.
"""

from __future__ import annotations

import importlib
import json
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

# Run as a script, which has its own folder on the path.
upstream: Any = importlib.import_module("upstream_scoring")

# As ms-vlmeval's config.py:637 has it, but that it does not wait before it gives up.
CUSTOM = {
    "temperature": 0,
    "img_size": -1,
    "key": "EMPTY",
    "retry": 2,
    "wait": 0,
    "verbose": False,
}

if __name__ == "__main__":
    upstream.enter(None)
    package = ModuleType("vlmeval.api")
    package.__path__ = [str(Path(sys.modules["vlmeval"].__path__[0], "api"))]
    sys.modules["vlmeval.api"] = package
    gpt: Any = importlib.import_module("vlmeval.api.gpt")
    # It waits up to half a second before each request.
    base: Any = importlib.import_module("vlmeval.api.base")
    base.time.sleep = lambda _seconds: None
    job = json.loads(Path(sys.argv[1]).read_text())
    model = gpt.CustomAPIModel(model="tiny-vlm", api_base=job["url"], **CUSTOM)
    found = {}
    for each in job["datasets"]:
        asked = each.pop("questions")
        answers = [(index, model.generate(text)) for index, text in asked]
        with tempfile.TemporaryDirectory() as scratch:
            result = upstream.evaluate({**each, "answers": answers}, Path(scratch))
        found[each["name"]] = {**result, "predictions": dict(answers)}
    Path(sys.argv[2]).write_text(json.dumps(found))
