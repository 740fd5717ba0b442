"""What is read of a server's log, and which GPU each replica gets."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.local import choose_devices, find_devices
from pytest_vlmeval.models.server import Server, find_address
from pytest_vlmeval.settings import Settings
from tests.support.option_calls import load as load
from tests.support.server_fixtures import SERVER

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
