"""Which model the options lead to, and what is known before it is loaded or served."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models import local as local_check
from pytest_vlmeval.models.client import ModelClient
from pytest_vlmeval.models.cluster import connect
from pytest_vlmeval.models.demo import DemoClient
from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.models.evidence import describe_checkpoint
from pytest_vlmeval.models.local import (
    check_model,
    choose_devices,
    find_devices,
    find_model,
    order_of,
    read_models,
)
from pytest_vlmeval.models.open import create_pool
from pytest_vlmeval.models.pool import Concurrency
from pytest_vlmeval.models.server import Server, find_address
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.settings import Settings, load_from
from pytest_vlmeval.settings.groups import ClusterSettings, LocalModel, parse_arguments
from pytest_vlmeval.settings.sources import pytest_sources
from tests.support.option_calls import Load
from tests.support.option_calls import load as load
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import SERVER


def client_for(pytester: pytest.Pytester, *arguments: str) -> ModelClient:
    settings = load_from(pytest_sources(pytester.parseconfig(*arguments), {}))
    two = Concurrency(2, adaptive=False)
    pool = create_pool(settings, two)
    asyncio.run(pool.close())
    (endpoint,) = pool.endpoints
    return endpoint.client


def test_demo(pytester: pytest.Pytester) -> None:
    client = client_for(pytester, "--vlm-model=demo")
    assert isinstance(client, DemoClient)


def test_endpoint(pytester: pytest.Pytester) -> None:
    base = "--vlm-api-base=http://host:81/v1/chat/completions"
    client = client_for(pytester, "--vlm-model=qwen-vl-chat", base)
    assert isinstance(client, EndpointClient)
    assert client.api_base == "http://host:81/v1"


def test_model_named_demo_at_an_endpoint(pytester: pytest.Pytester) -> None:
    client = client_for(pytester, "--vlm-model=demo", "--vlm-backend=endpoint")
    assert isinstance(client, EndpointClient)


def test_no_model(pytester: pytest.Pytester) -> None:
    with pytest.raises(VlmEvalError) as caught:
        client_for(pytester)
    assert str(caught.value) == (
        "No model was named. Give --vlm-model=NAME, the name an OpenAI-compatible "
        "endpoint serves it under (see --vlm-api-base), or --vlm-model=demo for the "
        "tiny model that ships with the plugin."
    )
    base = "--vlm-api-base=http://host:81/v1"
    named = client_for(pytester, "--vlm-model=NAME", base)
    assert isinstance(named, EndpointClient)
    assert isinstance(client_for(pytester, "--vlm-model=demo"), DemoClient)


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


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    (folder / ".git").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "README.md").write_text("read me")
    (folder / ".git" / "config.json").write_text("{}")
    return folder


def test_weights_configuration_and_names_count_and_notes_do_not(
    checkpoint: Path, tmp_path: Path
) -> None:
    def weights(folder: Path = checkpoint) -> str:
        return describe_checkpoint(str(folder), None, None)["weights"]

    before = weights()
    assert before.startswith("sha256:")
    assert len(before) == len("sha256:") + 32
    (checkpoint / "README.md").write_text("changed")
    (checkpoint / ".git" / "config.json").write_text("changed")
    assert weights() == before
    moved = checkpoint.rename(tmp_path / "moved")
    assert weights(moved) == before
    (moved / "config.json").write_text("{ }")
    other = weights(moved)
    assert other != before
    (moved / "model.safetensors").rename(moved / "other.safetensors")
    assert weights(moved) not in (before, other)


def test_a_file_is_read_once_for_each_size_and_time_of_change(
    checkpoint: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache" / "checksums.json"

    def weights() -> str:
        return describe_checkpoint(str(checkpoint), cache, None)["weights"]

    before = weights()
    file = checkpoint / "model.safetensors"
    times = file.stat().st_atime_ns, file.stat().st_mtime_ns
    # The same size and time: what is known of it holds, without reading it.
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=times)
    assert weights() == before
    os.utime(file, ns=(times[0], times[1] + 1_000_000))
    after = weights()
    assert after != before
    assert len(json.loads(cache.read_text())) == 3
    # A damaged cache only costs time.
    cache.write_text("[not json")
    assert weights() == after
    cache.write_text("[]")
    assert weights() == after


def test_a_name_on_a_hub_is_its_commit(tmp_path: Path) -> None:
    name = "Owner/Model"
    assert describe_checkpoint(name, None, tmp_path) == {}
    references = tmp_path / "models--Owner--Model" / "refs"
    references.mkdir(parents=True)
    (references / "main").write_text("abc123\n")
    assert describe_checkpoint(name, None, tmp_path) == {"revision": "abc123"}
    assert describe_checkpoint(name, None, None) == {}
    assert describe_checkpoint(None, None, tmp_path) == {}


UVICORN = "INFO:     Uvicorn running on {} (Press CTRL+C to quit)"


@pytest.mark.parametrize(
    ("log", "address"),
    [
        ("INFO:     Started server process [12]", None),
        (UVICORN.format("http://127.0.0.1:8001"), "http://127.0.0.1:8001/v1"),
        (UVICORN.format("http://0.0.0.0:23333"), "http://127.0.0.1:23333/v1"),
        (UVICORN.format("http://[::]:80"), "http://[::1]:80/v1"),
        (UVICORN.format("\x1b[1mhttp://a-b.c:7\x1b[0m"), "http://a-b.c:7/v1"),
        (UVICORN.format("socket ('0.0.0.0', 9000)"), "http://127.0.0.1:9000/v1"),
        (UVICORN.format("socket ('::', 9000, 0, 0)"), "http://[::1]:9000/v1"),
        ("Starting vLLM API server 0 on http://0.0.0.0:81", "http://127.0.0.1:81/v1"),
    ],
)
def test_the_address_is_the_logs(log: str, address: str | None) -> None:
    assert find_address(f"loading\n{log}\n") == address


def test_one_that_is_slow_is_given_more_time(tmp_path: Path) -> None:
    """What --vlm-serve-timeout gives, which the message names."""
    serve = shlex.join([sys.executable, str(SERVER), "--log"])
    command = ["sh", "-c", f"sleep 2; exec {serve} --port $0", "{port}"]
    for timeout_s in (1, 60):
        server = Server(command, tmp_path / "log", role="model", device=None)
        try:
            if timeout_s == 60:
                assert server.wait_ready(60, Event()).startswith("http://127.0.0.1:")
                continue
            with pytest.raises(VlmEvalError) as raised:
                server.wait_ready(1, Event())
            assert "within 1 s (--vlm-serve-timeout gives it more): no address" in (
                str(raised.value)
            )
        finally:
            server.stop()


def test_devices_are_those_that_are_visible() -> None:
    assert find_devices("3, 5") == ("3", "5")
    assert find_devices("") == ()
    assert choose_devices(2, "3,5,7", "") == ("3", "5")
    assert choose_devices(1, "3,5,7", "") == [None]
    assert choose_devices(2, "", "") == [None, None]


def test_more_replicas_than_devices() -> None:
    with pytest.raises(VlmEvalError) as raised:
        choose_devices(3, "3,5", "--vlm-serve-replicas=3")
    assert str(raised.value) == (
        "--vlm-serve-replicas=3 makes 3 copies of the model, each on a GPU of its own, "
        "and there are 2 GPUs here (3, 5). Give at most 2, or more devices with "
        "CUDA_VISIBLE_DEVICES."
    )
    assert choose_devices(2, "3,5", "") == ("3", "5")
    assert choose_devices(3, "3,5,7", "") == ("3", "5", "7")


def test_devices_are_asked_of_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0\necho 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert find_devices(None) == ("0", "1")


SERVE = "--vlm-serve=swift deploy --model X --port {port}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--vlm-serve=swift deploy --port 8000"],
            "--vlm-serve=swift deploy --port 8000 is not accepted: --vlm-serve takes a "
            "command with {port} in it, such as 'vllm serve MODEL --port {port}'.",
        ),
        (
            [SERVE, "--vlm-api-base=http://127.0.0.1:8000"],
            "--vlm-serve and --vlm-api-base exclude each other: a server that the run "
            "starts says its address itself. Leave one of them out.",
        ),
        (
            [
                "--vlm-judge-serve=a {port}",
                "--vlm-judge-api-base=http://127.0.0.1:8000",
                "--vlm-judge=j",
            ],
            "--vlm-judge-serve and --vlm-judge-api-base exclude each other: a server "
            "that the run starts says its address itself. Leave one of them out.",
        ),
        (
            ["--vlm-judge-serve=a {port}"],
            "--vlm-judge-serve starts a judge's server, and no judge is named. Give "
            "--vlm-judge=NAME too, the name that server serves it under.",
        ),
        (
            ["--vlm-serve-replicas=2"],
            "--vlm-serve-replicas=2 says how many servers --vlm-serve starts, which is "
            "not given.",
        ),
    ],
)
def test_what_does_not_go_together(
    load: Callable[..., Settings], arguments: list[str], message: str
) -> None:
    with pytest.raises(VlmEvalError) as raised:
        load(*arguments)
    assert str(raised.value) == message


def test_the_words_of_a_command(load: Callable[..., Settings]) -> None:
    serving = load(
        "--vlm-serve=env A='b c' swift deploy --port {port}",
        environ={"CUDA_VISIBLE_DEVICES": "1,2"},
    ).serving
    assert serving.model == ("env", "A=b c", "swift", "deploy", "--port", "{port}")
    assert serving.visible_devices == "1,2"
    assert (serving.replicas, serving.timeout_s) == (1, 1800)


def test_the_cluster_is_that_of_the_environment(load: Load) -> None:
    assert load().cluster is None
    there = load("--vlm-engine=ray", environ={"RAY_ADDRESS": "head:6379"}).cluster
    assert there == ClusterSettings(address="head:6379", replicas=None)
    started = load("--vlm-engine=ray", "--vlm-replicas=3").cluster
    assert started == ClusterSettings(address=None, replicas=3)
    auto = load("--vlm-engine=ray", "--vlm-replicas=auto").cluster
    assert auto == ClusterSettings(address=None, replicas=None)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            ["--vlm-replicas=3"],
            "--vlm-replicas=3 is about the processes of a Ray cluster. Give "
            "--vlm-engine=ray too, or leave it out: without Ray each of xdist's "
            "workers (-n) has a replica.",
        ),
        (
            ["--vlm-engine=ray", "--vlm-serve=vllm serve x --port {port}"],
            "--vlm-serve and --vlm-engine=ray exclude each other: a server of this run "
            "is reached from this machine alone. Start it beforehand and give its URL "
            "with --vlm-api-base, or leave --vlm-engine out.",
        ),
        (
            ["--vlm-replicas=0"],
            "--vlm-replicas=0 is not accepted: --vlm-replicas takes a whole number of "
            "at least 1 (replicas), or auto.",
        ),
    ],
)
def test_options_that_exclude_each_other(
    load: Load, given: list[str], text: str
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        load(*given)
    assert str(caught.value) == text


@pytest.mark.skipif(
    importlib.util.find_spec("ray") is not None, reason="Ray is installed here"
)
def test_what_to_install_is_told() -> None:
    with pytest.raises(VlmEvalError) as caught:
        connect(None)
    assert str(caught.value) == (
        "--vlm-engine=ray needs Ray, which is not installed. Run pip install "
        "'pytest-vlmeval[ray]', on every node of the cluster."
    )


@pytest.mark.slow
def test_workers_of_xdist_are_refused(project: Project) -> None:
    project.write_math(2)
    arguments = ["--vlm-model=demo", "--vlm-engine=ray", "--vlm-allow-modified-data"]
    result = project.run(*arguments, "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "ERROR: --vlm-engine=ray and -n exclude each other: one process hands the "
            "samples to all replicas. Leave -n out, or give -n 0; --vlm-replicas says "
            "how many there are."
        ]
    )
    if importlib.util.find_spec("ray") is None:
        for alone in ([], ["-n", "0"]):
            result = project.run(*arguments, *alone)
            result.stderr.fnmatch_lines(["ERROR: --vlm-engine=ray needs Ray, which *"])
