"""Each field of a task file has an effect or a reason, and is in the documentation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.table import BY_NAME
from pytest_vlmeval.settings.task_fields import (
    API_MODEL,
    BASE_URL,
    DATASET,
    EVAL_CONFIG,
    EVALSCOPE,
    FLAG,
    LOCAL_MODEL,
    NATIVE,
    VLMEVALKIT,
    Field,
)
from pytest_vlmeval.settings.task_file import load_task
from tests.support.task_files import read_task as read
from tests.support.task_files import swift_task


def local(fields: dict[str, Any]) -> dict[str, Any]:
    return {"model": [{"name": "q", **fields}], "data": ["MME"]}


Table = Mapping[str, Field]
TABLES: dict[str, tuple[Table, Callable[[dict[str, Any]], dict[str, Any]]]] = {
    "EvalScope": (EVALSCOPE, lambda fields: swift_task(top=fields)),
    "eval_config": (
        {name: row for name, row in EVAL_CONFIG.items() if name not in BASE_URL},
        lambda fields: swift_task(**fields),
    ),
    "base_url": (
        BASE_URL,
        lambda fields: {
            "eval_backend": "VLMEvalKit",
            "eval_config": {"model": ["q"], "base_url": "http://h", **fields},
        },
    ),
    "API": (API_MODEL, lambda fields: swift_task(model=fields)),
    "local": (
        LOCAL_MODEL,
        lambda fields: {**swift_task(), "eval_config": local(fields)},
    ),
    "dataset": (
        DATASET,
        lambda fields: {"model": {"q": {}}, "data": {"MME": fields}},
    ),
    "VLMEvalKit": (
        VLMEVALKIT,
        lambda fields: {"model": {"q": {}}, "data": {"MME": {}}},
    ),
}
FIELDS = [
    pytest.param(make, name, field, id=f"{title}-{name}")
    for title, (table, make) in TABLES.items()
    for name, field in table.items()
]


@pytest.mark.parametrize(("make", "name", "field"), FIELDS)
def test_no_field_is_passed_over(
    tmp_path: Path, make: Callable[..., Any], name: str, field: Field
) -> None:
    """A field without effect is named with the reason, and one with effect sets it."""
    if field.idle:
        value: object = False if name == "video_llm" else "x"
        (remark,) = read(tmp_path, make({name: value})).remarks
        assert f"{name} has no effect here: {field.idle}" in remark
        for value in field.unless:
            assert not read(tmp_path, make({name: value})).remarks
    elif field.refused:
        flag = field.kind is FLAG
        with pytest.raises(VlmEvalError, match=r"task\.yaml: .*is not supported") as it:
            read(tmp_path, make({name: True if flag else "7"}))
        assert field.refused in str(it.value)
        for value in field.unless:
            read(tmp_path, make({name: value}))
    elif field.option:
        assert field.option in BY_NAME
        values = {"data": ["x"], "reuse": True, "rerun": True, "video_llm": True}
        task = read(tmp_path, make({name: values.get(name, "3")}))
        assert task.remarks or task.values[field.option].field.endswith(name)


@pytest.mark.parametrize("name", sorted(NATIVE))
def test_fields_of_evalscope_s_own_backend_are_named(tmp_path: Path, name: str) -> None:
    (remark,) = read(tmp_path, swift_task(top={name: "x"})).remarks
    assert f"task.yaml: {name} has no effect here: EvalScope reads it for its" in remark


PAGE = Path(__file__).parents[2] / "docs" / "task-files.md"
BLOCK = re.compile(r"(?<=<!-- fields -->\n).*(?=<!-- end of fields -->)", re.DOTALL)
SHOWN_TABLES: dict[str, Table] = {
    "The top level of a task of EvalScope": EVALSCOPE,
    "`eval_config`": EVAL_CONFIG,
    "A model that is served (`name` or `class` is `CustomAPIModel`, `GPT4V`, "
    "`OpenAIWrapper` or `LMDeployAPI`); further fields go into the body of "
    "each request": API_MODEL,
    "A model that is loaded here; further fields are arguments of its class, `class` "
    "is `--vlm-model-class`": LOCAL_MODEL,
    "The top level of a configuration of VLMEvalKit": VLMEVALKIT,
    "A dataset there": DATASET,
}


def describe(field: Field) -> str:
    """Say what becomes of a field."""
    if field.option:
        note = f"; {field.note}" if field.note else ""
        return f"`{BY_NAME[field.option].flag}`{note}"
    if field.idle:
        return f"no effect, reported: {field.idle}"
    if field.refused:
        return f"an error unless it is off: {field.refused}"
    return field.note


def tables() -> str:
    """Write all tables."""
    parts = []
    for title, table in SHOWN_TABLES.items():
        rows = [
            f"| `{name}` | {describe(field).replace('|', chr(92) + '|')} |"
            for name, field in table.items()
        ]
        parts.append("\n".join([f"{title}:\n", "| field | here |", "|---|---|", *rows]))
    native = ", ".join(f"`{name}`" for name in sorted(NATIVE))
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
    assert not task.remarks
    assert task.values["judge"].text == "qwen2-7b-instruct"
