"""The scores that ms-vlmeval itself gives, in a process without containment."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.sandbox.inside.scoring import flatten

SCRIPT = Path(__file__).parents[1] / "support" / "upstream_scoring.py"


def score_upstream(
    environment: SandboxEnvironment,
    info: DatasetInfo,
    answers: Sequence[tuple[object, str | list[str]]],
    folder: Path,
) -> tuple[dict[str, float], Mapping[str, float]]:
    """Give ms-vlmeval's own metrics, and its verdicts where it tells them."""
    job = {
        "name": info.name,
        "module": info.module,
        "class_name": info.class_name,
        "tsv": str(info.path),
        "answers": [(str(index), said) for index, said in answers],
    }
    (folder / "job.json").write_text(json.dumps(job))
    done = subprocess.run(
        [environment.python, "-I", "-X", "utf8", SCRIPT, "job.json", "found.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"HOME": str(folder), "LANG": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return flatten(pd.DataFrame(**found["result"])), found["verdicts"]
