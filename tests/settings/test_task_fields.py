"""Each field of a task file has an effect or a reason, and is in the documentation."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings import task_fields as fields
from pytest_vlmeval.settings.sources import BY_NAME
from pytest_vlmeval.settings.task_fields import (
    NATIVE,
    ApiModel,
    Becomes,
    DatasetFields,
    EvalConfig,
    EvalScopeTask,
    Fate,
    Idle,
    LocalModel,
    Refused,
    VlmevalkitConfig,
)
from pytest_vlmeval.settings.task_file import fates_of, load_task
from tests.support.task_files import read_task as read
from tests.support.task_files import swift_task


def local(fields: dict[str, Any]) -> dict[str, Any]:
    return {"model": [{"name": "q", **fields}], "data": ["MME"]}


TABLES: list[tuple[type[BaseModel], Callable[[dict[str, Any]], dict[str, Any]]]] = [
    (EvalScopeTask, lambda fields: swift_task(top=fields)),
    (EvalConfig, lambda fields: swift_task(**fields)),
    (ApiModel, lambda fields: swift_task(model=fields)),
    (LocalModel, lambda fields: {**swift_task(), "eval_config": local(fields)}),
    (DatasetFields, lambda fields: {"model": {"q": {}}, "data": {"MME": fields}}),
    (VlmevalkitConfig, lambda fields: {"model": {"q": {}}, "data": {"MME": {}}}),
]
FIELDS = [
    (table, make, name, fate)
    for table, make in TABLES
    for name, fate in fates_of(table).items()
]


@pytest.mark.parametrize(
    ("make", "name", "fate"),
    [each[1:] for each in FIELDS],
    ids=[f"{each[0].__name__}-{each[2]}" for each in FIELDS],
)
def test_no_field_is_passed_over(
    tmp_path: Path, make: Callable[..., Any], name: str, fate: object
) -> None:
    """A field without effect is named with the reason, and one with effect sets it."""
    if isinstance(fate, Idle):
        value: object = False if name == "video_llm" else "x"
        (remark,) = read(tmp_path, make({name: value})).remarks
        assert f"{name} has no effect here: {fate.reason}" in remark
        for value in fate.unless:
            assert not read(tmp_path, make({name: value})).remarks
    elif isinstance(fate, Refused):
        flag = False in fate.unless
        with pytest.raises(VlmEvalError, match=r"task\.yaml: .*is not supported") as it:
            read(tmp_path, make({name: True if flag else "7"}))
        assert fate.reason in str(it.value)
        for value in fate.unless:
            read(tmp_path, make({name: value}))
    elif isinstance(fate, Becomes):
        assert fate.option in BY_NAME
        values = {"data": ["x"], "reuse": True, "rerun": True, "video_llm": True}
        task = read(tmp_path, make({name: values.get(name, "3")}))
        assert task.values[fate.option].field.endswith(name) or task.remarks


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_fields_of_evalscope_s_own_backend_are_named(tmp_path: Path, name: str) -> None:
    (remark,) = read(tmp_path, swift_task(top={name: "x"})).remarks
    assert f"task.yaml: {name} has no effect here: EvalScope reads it for its" in remark


PAGE = Path(__file__).parents[2] / "docs" / "task-files.md"
BLOCK = re.compile(r"(?<=<!-- fields -->\n).*(?=<!-- end of fields -->)", re.DOTALL)
SHOWN_TABLES: dict[str, type[BaseModel]] = {
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
        return f"no effect, reported: {fate.reason}"
    if isinstance(fate, Refused):
        return f"an error unless it is off: {fate.reason}"
    return fate.note


def tables() -> str:
    """Write all tables."""
    parts = []
    for title, table in SHOWN_TABLES.items():
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
