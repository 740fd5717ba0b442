"""Every field of a task file has an effect, is named without one, or is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.sources import BY_NAME
from pytest_vlmeval.settings.task_fields import (
    NATIVE,
    ApiModel,
    Becomes,
    DatasetFields,
    EvalConfig,
    EvalScopeTask,
    Idle,
    LocalModel,
    Refused,
    VlmevalkitConfig,
)
from pytest_vlmeval.settings.task_file import fates_of
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
