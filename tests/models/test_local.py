"""Local models: their names, what the options take, what is told before loading."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models import local as local_check
from pytest_vlmeval.models.local import check_model, find_model, order_of, read_models
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.settings import Settings
from pytest_vlmeval.settings.groups import LocalModel, parse_arguments
from tests.support.option_calls import load as load
from tests.support.run_fixtures import Project


def test_names_are_read_from_the_real_configuration(
    sandbox_environment: SandboxEnvironment,
) -> None:
    package = locate_package(sandbox_environment.python).folder
    models = read_models(package)
    assert len(models) > 300
    assert models["qwen_chat"].class_name == "QwenVLChat"
    assert models["qwen_chat"].module == "qwen_vl"
    qwen2 = models["Qwen2-VL-2B-Instruct"]
    assert qwen2.arguments["model_path"] == "Qwen/Qwen2-VL-2B-Instruct"
    assert qwen2.arguments["min_pixels"] == 1280 * 28 * 28
    assert "GPT4o" not in models
    with pytest.raises(VlmEvalError, match=r"Did you mean .*qwen_chat"):
        find_model("qwen_chatt", package)
    assert find_model("qwen_chat", package) == models["qwen_chat"]


def test_arguments_are_literals_or_texts() -> None:
    given = parse_arguments("a=1 b=None,c=False d=0.5 e=text f=[1]")
    assert given == {
        "a": 1,
        "b": None,
        "c": False,
        "d": 0.5,
        "e": "text",
        "f": "[1]",
    }


def test_options_about_requests_are_refused(load: Callable[..., Settings]) -> None:
    with pytest.raises(VlmEvalError) as raised:
        load("--vlm-backend=local", "--vlm-model=x", "--vlm-image-size=10")
    assert str(raised.value) == (
        "--vlm-image-size is for --vlm-backend=endpoint, and the model is of "
        "--vlm-backend=local. Leave it out: parameters of a local model go with "
        "--vlm-model-args, for example max_pixels=1003520."
    )
    with pytest.raises(VlmEvalError) as raised:
        load("--vlm-model=x", "--vlm-model-path=y")
    assert str(raised.value) == (
        "--vlm-model-path is for --vlm-backend=local, and the model is of "
        "--vlm-backend=endpoint. Give --vlm-backend=local too, or leave it out."
    )


def test_an_environment_without_torch_is_told(
    sandbox_environment: SandboxEnvironment,
) -> None:
    with pytest.raises(VlmEvalError) as raised:
        check_model("x", LocalModel(path="y"))
    assert str(raised.value) == (
        "--vlm-backend=local needs torch, transformers, not installed in the "
        f"environment of {sys.executable}. Install it there: {sys.executable} -m pip "
        "install 'pytest-vlmeval[vlmeval]', or give the Python of another environment "
        "with --vlm-local-python."
    )
    # The extra is ms-vlmeval, which declares both.
    package = locate_package(sandbox_environment.python).folder
    (found,) = package.parent.glob("ms_vlmeval-*.dist-info/METADATA")
    required = re.findall(r"^Requires-Dist: ([\w-]+)", found.read_text("utf-8"), re.M)
    assert {"torch", "transformers"} <= set(required)


def test_a_folder_without_a_checkpoint_is_told(tmp_path: Path) -> None:
    with pytest.raises(VlmEvalError, match=r"there is no config\.json in it"):
        order_of("x", LocalModel(path=str(tmp_path)))
    with pytest.raises(VlmEvalError, match="give the folder of its checkpoint"):
        order_of("x", LocalModel())
    (tmp_path / "config.json").write_text("{}")
    order, *_ = order_of("x", LocalModel(path=str(tmp_path)))
    assert order == {"class_name": "", "path": str(tmp_path), "arguments": {}}


def test_a_name_that_ms_vlmeval_has_not_is_told(
    tmp_path: Path, sandbox_environment: SandboxEnvironment
) -> None:
    """A name of the list is taken, and so is any name with a checkpoint's folder."""
    python = sandbox_environment.python
    with pytest.raises(VlmEvalError) as raised:
        order_of("Qwen2-VL-2B-Instructt", LocalModel(python=python))
    assert str(raised.value) == (
        "ms-vlmeval has no local model 'Qwen2-VL-2B-Instructt'. Did you mean "
        "Qwen2-VL-2B-Instruct or Qwen2-VL-72B-Instruct or Qwen3-VL-2B-Instruct? "
        "`pytest --vlm-list-models` names them all. A checkpoint that transformers "
        "loads by itself needs only its folder: --vlm-model-path=DIR."
    )
    order, *_ = order_of("Qwen2-VL-2B-Instruct", LocalModel(python=python))
    assert order["class_name"] == "Qwen2VLChat"
    (tmp_path / "config.json").write_text("{}")
    local = LocalModel(python=python, path=str(tmp_path))
    order, *_ = order_of("Qwen2-VL-2B-Instructt", local)
    assert order["path"] == str(tmp_path)


def test_more_workers_than_gpus_are_told(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    local = LocalModel(path=str(tmp_path), visible_devices="2,3", replica=2, replicas=3)
    with pytest.raises(VlmEvalError) as raised:
        order_of("x", local)
    assert str(raised.value) == (
        "-n 3 makes 3 copies of the model, each on a GPU of its own, and there are 2 "
        "GPUs here (2, 3). Give at most 2, or more devices with CUDA_VISIBLE_DEVICES."
    )


def test_each_worker_has_a_gpu_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    found = [
        order_of(
            "x",
            LocalModel(
                path=str(tmp_path), visible_devices="2,3", replica=each, replicas=2
            ),
        )[2]
        for each in range(2)
    ]
    assert found == ["2", "3"]


def test_too_little_memory_is_told(tmp_path: Path) -> None:
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(10**13)  # takes no space
    local = LocalModel(path=str(tmp_path), visible_devices="")
    with pytest.raises(VlmEvalError, match=r"are 10000\.0 GB; this machine has "):
        local_check._check_memory(local, None)


def test_the_names_are_listed_without_torch(
    project: Project, sandbox_environment: SandboxEnvironment
) -> None:
    for python in (sys.executable, sandbox_environment.python):
        found = subprocess.run(
            [str(python), "-c", "import torch"], capture_output=True, check=False
        )
        assert found.returncode == 1
    result = project.run("--vlm-list-models")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        [
            "qwen_chat * QwenVLChat * Qwen/Qwen-VL-Chat",
            "Qwen2-VL-2B-Instruct * Qwen2VLChat * Qwen/Qwen2-VL-2B-Instruct",
        ]
    )
