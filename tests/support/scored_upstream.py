"""The scores that ms-vlmeval itself gives, in a process without containment."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.sandbox.inside.job import EXACT, JUDGED
from pytest_vlmeval.sandbox.inside.metrics import flatten
from tests.support.sandbox_tables import Row
from tests.support.schemas import Schema

SCRIPT = Path(__file__).parents[1] / "support" / "upstream_scoring.py"
CLASSES_SCRIPT = SCRIPT.with_name("upstream_classes.py")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What a class's own `evaluate` did: `error` is the traceback if it raised.

    `written` are the tables and JSON files beside the answers, by what their names
    have behind that of the answers; `asked` counts the judge's replies.
    """

    error: str = ""
    returned: Any = None
    written: Mapping[str, Any]
    asked: int = 0

    def result_of(self, schema: Schema) -> object:
        """Give what was returned, or the file that a schema names."""
        return self.written[schema.written] if schema.written else self.returned


def evaluate_upstream(
    environment: SandboxEnvironment,
    cases: Sequence[tuple[Schema, DatasetInfo, bool]],
    folder: Path,
) -> list[Evaluated]:
    """Let each class evaluate the answers of its schema, with its judge or without.

    What is in the folder already is what another process of tests evaluated.
    """
    evaluated = folder / "evaluated.json"
    if not evaluated.exists():
        _evaluate_cases(environment, cases, folder)
    return [
        Evaluated(
            error=each.get("error", ""),
            returned=_restored(each.get("returned")),
            written=_restored(each.get("written", {})),
            asked=each.get("asked", 0),
        )
        for each in json.loads(evaluated.read_text())
    ]


def _evaluate_cases(
    environment: SandboxEnvironment,
    cases: Sequence[tuple[Schema, DatasetInfo, bool]],
    folder: Path,
) -> None:
    jobs = [
        {
            "dataset": info.name,
            "rules": info.rules or info.name,
            "module": info.module,
            "class_name": info.class_name,
            "modality": info.modality,
            "published": bool(info.url),
            "settings": dict(info.settings),
            "table": _as_text(schema.table),
            "files": {name: data.hex() for name, data in schema.files.items()},
            "answers": [(str(index), said) for index, said in schema.answers.items()],
            "judge": list(schema.judge) if judged else None,
            "model": schema.model or (JUDGED if judged else EXACT),
            "arguments": schema.judged_by if judged else schema.exact_by,
            "opened": schema.opened,
            "unnamed": schema.unnamed,
        }
        for schema, info, judged in cases
    ]
    (folder / "cases.json").write_text(json.dumps(jobs))
    options = ["-I", "-X", "utf8"]
    done = subprocess.run(
        [environment.python, *options, CLASSES_SCRIPT, "cases.json", "evaluated.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        # A reader of videos looks for its programs when it is imported.
        env={"HOME": str(folder), "LANG": "C.UTF-8", "PATH": os.environ["PATH"]},
    )
    assert done.returncode == 0, done.stderr[-5_000:]


def _as_text(rows: Sequence[Row]) -> str:
    """Write rows as `write_table` does."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), delimiter="\t", restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _restored(value: Any) -> Any:
    if isinstance(value, list):
        return [_restored(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "__table__" in value:
        columns, index, data = value["__table__"]
        return pd.DataFrame(data, columns=columns, index=index)
    if "__tuple__" in value:
        return tuple(_restored(value["__tuple__"]))
    return {name: _restored(each) for name, each in value.items()}
