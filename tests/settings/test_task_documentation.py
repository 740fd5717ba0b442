"""docs/task-files.md: its tables are those of the code, and its example is a task."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from pytest_vlmeval.settings import task_fields as fields
from pytest_vlmeval.settings.sources import BY_NAME
from pytest_vlmeval.settings.task_fields import Becomes, Fate, Idle, Refused
from pytest_vlmeval.settings.task_file import fates_of, load_task

PAGE = Path(__file__).parents[2] / "docs" / "task-files.md"
BLOCK = re.compile(r"(?<=<!-- fields -->\n).*(?=<!-- end of fields -->)", re.DOTALL)
TABLES: dict[str, type[BaseModel]] = {
    "The top level of a task of EvalScope": fields.EvalScopeTask,
    "`eval_config`": fields.EvalConfig,
    "A model that is served (`name` or `class` is `CustomAPIModel`, `GPT4V`, "
    "`OpenAIWrapper` or `LMDeployAPI`); further fields go into the body of "
    "each request": fields.ApiModel,
    "A model that is loaded here; further fields are arguments of its class, `class` "
    "is `--vlm-model-class`": fields.LocalModel,
    "The top level of a configuration of VLMEvalKit": fields.VlmevalkitConfig,
    "A dataset there; `class` has to be that of ms-vlmeval": fields.DatasetFields,
}


def describe(fate: Fate) -> str:
    """Say what becomes of a field."""
    if isinstance(fate, Becomes):
        note = f"; {fate.note}" if fate.note else ""
        return f"`{BY_NAME[fate.option].flag}`{note}"
    if isinstance(fate, Idle):
        return f"no effect, named: {fate.reason}"
    if isinstance(fate, Refused):
        return f"an error, unless it is off: {fate.reason}"
    return fate.note


def tables() -> str:
    """Write all tables."""
    parts = []
    for title, table in TABLES.items():
        rows = [
            f"| `{name}` | {describe(fate).replace('|', chr(92) + '|')} |"
            for name, fate in fates_of(table).items()
        ]
        parts.append("\n".join([f"{title}:\n", "| field | here |", "|---|---|", *rows]))
    native = ", ".join(f"`{name}`" for name in sorted(fields.NATIVE))
    parts.append(
        "No effect, named, as EvalScope reads them for its native backend only: "
        f"{native}.\n"
    )
    return "\n" + "\n\n".join(parts) + "\n"


def test_the_tables_are_those_of_the_code(request: pytest.FixtureRequest) -> None:
    page = PAGE.read_text(encoding="utf-8")
    if request.config.getoption("--write-docs"):
        page = BLOCK.sub(lambda found: tables(), page)
        PAGE.write_text(page, encoding="utf-8")
    found = BLOCK.search(page)
    assert found is not None
    assert found[0] == tables()


def test_the_example_is_a_task(tmp_path: Path) -> None:
    page = PAGE.read_text(encoding="utf-8")
    example = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert example is not None
    path = tmp_path / "task.yaml"
    path.write_text(example[1], encoding="utf-8")
    task = load_task(path, None, tmp_path)
    assert task.remarks == ()
    assert task.values["judge"].text == "qwen2-7b-instruct"
