"""Any file is a task or one error that names it, and never a traceback."""

from __future__ import annotations

import hashlib
import json
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.settings.sources import BY_NAME
from pytest_vlmeval.settings.task_fields import (
    ApiModel,
    EvalConfig,
    EvalScopeTask,
    LocalModel,
)
from pytest_vlmeval.settings.task_file import Task, load_task
from tests.support.task_files import swift_task

NAMES = st.sampled_from(
    sorted({*EvalScopeTask.model_fields, *EvalConfig.model_fields})
    + sorted({*ApiModel.model_fields, *LocalModel.model_fields, "class", "dataset"})
) | st.text(string.printable, max_size=8)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["CustomAPIModel", "VLMEvalKit", "MME", "http://h/v1", "EMPTY"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4)
    ),
    max_leaves=12,
)
TASKS = st.one_of(
    VALUES,
    st.builds(
        lambda config: {"eval_backend": "VLMEvalKit", "eval_config": config},
        st.dictionaries(NAMES, VALUES, max_size=6) | VALUES,
    ),
    st.builds(
        lambda model, more: swift_task(model=model, **more),
        st.dictionaries(NAMES, VALUES, max_size=3),
        st.dictionaries(NAMES.filter(lambda n: n not in ("model", "top")), VALUES),
    ),
    st.fixed_dictionaries(
        {
            "model": st.dictionaries(st.text(max_size=5), VALUES, max_size=2),
            "data": st.dictionaries(st.text(max_size=5), VALUES, max_size=2),
        }
    ),
)


def check_task(folder: Path, name: str, content: bytes) -> None:
    """Read a file: what comes of it is a task or one error that names the file."""
    # A name of its own, as files may change within the resolution of the clock.
    path = folder / hashlib.sha256(content).hexdigest() / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    try:
        task = load_task(path, None, folder)
    except VlmEvalError as error:
        said = str(error)
        if name not in said or len(said) > 3_000:
            raise AssertionError(said) from None
    else:
        assert isinstance(task, Task)
        assert set(task.values) <= set(BY_NAME)
        assert all(isinstance(value.text, str) for value in task.values.values())


@settings(max_examples=120, deadline=None)
@given(task=TASKS)
def test_any_values_are_a_task_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, task: object
) -> None:
    folder = tmp_path_factory.getbasetemp()
    text = json.dumps(task, allow_nan=True).encode()
    check_task(folder, "fuzz.json", text)
    check_task(
        folder,
        "fuzz.yaml",
        yaml.dump(task, allow_unicode=True).encode("utf-8", "surrogatepass"),
    )


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_any_bytes_are_a_task_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = yaml.safe_dump(swift_task()).encode()
    at = data.draw(st.integers(0, len(whole)))
    middle = data.draw(st.binary(max_size=30))
    rest = data.draw(st.sampled_from([whole[at:], b"", whole[: at // 2]]))
    check_task(folder, "fuzz.yaml", whole[:at] + middle + rest)
    check_task(folder, "fuzz.json", json.dumps(swift_task()).encode()[:at] + middle)
