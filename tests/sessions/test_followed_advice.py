"""What messages advise is done in their situation, by calls of `evaluate`."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_vlmeval import Results, evaluate
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.refusals import (
    CAUSES,
    FEWER_TOKENS,
    OTHER_TEMPERATURE,
    SMALLER,
)
from pytest_vlmeval.reports.wording import (
    NO_THINKING,
    describe_cut_off,
    why_undecided,
    why_unusable,
)
from tests.support.run_fixtures import Project
from tests.support.sandbox_tables import cell, draw, write_table
from tests.support.server_fixtures import SERVER, ServerProcess
from tests.support.task_files import read_task, swift_task

StartServer = Callable[..., ServerProcess]

# `pytester` forgets what a test imports, and these cannot be imported twice.
for name in ("onnxruntime", "openai", "pandas", "pyarrow.parquet", "scipy.stats"):
    importlib.import_module(name)

# Of noise, so that it has many bytes as long as it is large.
LARGE = cell(draw(1, size=(256, 256)))
LARGEST = 60_000


@pytest.fixture
def own(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a user's folder as the current one, with a table of twelve rows."""
    monkeypatch.chdir(project.pytester.path)
    rows = [
        {
            "index": index,
            "question": f"Which <{index}>?",
            "A": "red",
            "B": "blue",
            "answer": "A",
            "image": LARGE,
        }
        for index in range(1, 13)
    ]
    write_table(project.pytester.path / "own.tsv", rows)
    return project


def ask(url: str | None = None, model: str = "tiny-vlm", **options: Any) -> Results:
    given: dict[str, Any] = {"retries": 0, "progress": str, "limit": 2, **options}
    datasets = given.pop("datasets", ["own.tsv"])
    return evaluate(model, datasets, api_base=url, **given)


def refuse(url: str | None = None, **options: Any) -> str:
    with pytest.raises(VlmEvalError) as raised:
        ask(url, **options)
    return str(raised.value)


def unusable(results: Results) -> str:
    """Return what is said of the first sample's answer; "" where it is usable."""
    answer = results.report.datasets[0].samples[0].answer
    assert answer is not None
    return "" if answer.is_usable else why_unusable(answer)


def all_answered(results: Results) -> bool:
    (row,) = results.scores.to_dict("records")
    return bool(row["answered"] == row["samples"])


TOO_LARGE = {"images_over": LARGEST, "status": 413, "message": "too large"}
ODD_REFUSAL = {"images_over": LARGEST, "status": 400, "message": "internal"}
CUT_OFF = {"tokens_below": 900, "finish_reason": "length", "answer": ""}
THINKS = {"tokens_below": 900, "finish_reason": "length", "answer": "<think>30, or"}
SMALLER_BY: list[dict[str, object]] = [{"max_pixels": 4096}, {"image_size": 64}]
REASONS: dict[str, object] = {"answer": "", "reasoning": "It is A"}
CALLS_A_TOOL: dict[str, object] = {
    "choice": {"message": {"content": None}, "finish_reason": "tool_calls"},
}
# What the server does, what the item then says, and what that advises.
ANSWERS: list[tuple[list[dict[str, object]], str, list[dict[str, object]]]] = [
    ([TOO_LARGE], SMALLER, SMALLER_BY),
    ([ODD_REFUSAL], CAUSES, SMALLER_BY[:1]),
    ([CUT_OFF], "at the token limit after 0 tokens, before any", [{"max_tokens": 900}]),
    ([THINKS], "had finished to think", [{"max_tokens": 900}]),
    (
        # A template that knows the argument does not think then.
        [{"sends": "chat_template_kwargs", "answer": "A"}, REASONS],
        f"switch thinking off, as with --vlm-extra-body='{NO_THINKING}'",
        [{"extra_body": NO_THINKING}],
    ),
    ([CALLS_A_TOOL], "without --tool-call-parser), so that the text stays", []),
]


def test_an_answer_that_was_cut_off(own: Project, server: ServerProcess) -> None:
    """Its text is scored; with a larger limit all is asked again."""
    rule = {"tokens_below": 900, "finish_reason": "length", "answer": "So it is"}
    server.control(default="A", rules=[rule])
    cut = ask(server.url, max_tokens=64)
    last = cut.report.datasets[0].samples[-1].answer
    assert last is not None
    assert describe_cut_off(last) == (
        "cut off at the token limit after 3 tokens: raise --vlm-max-tokens"
    )
    assert all_answered(cut)
    assert list(cut.scores["cut_off"]) == [2]
    assert list(cut.scores["value"]) == [0]
    whole = ask(server.url, max_tokens=900)
    assert list(whole.scores["cut_off"]) == [0]
    assert list(whole.scores["value"]) == [100]


@pytest.mark.parametrize(("rules", "said", "advised"), ANSWERS)
def test_an_answer_that_cannot_be_used(
    own: Project,
    server: ServerProcess,
    rules: list[dict[str, object]],
    said: str,
    advised: list[dict[str, object]],
) -> None:
    server.control(default="A", rules=rules)
    limit = 12 if said is CAUSES else 2
    given: dict[str, Any] = {"max_tokens": 64, "limit": limit}
    results = [ask(server.url, **given)]
    last = results[0].report.datasets[0].samples[-1].answer
    assert last is not None
    told = why_unusable(last) if said is CAUSES else unusable(results[0])
    assert said in told
    for options in advised:
        assert all_answered(ask(server.url, **{**given, **options})), options
    # What else is advised is to start the server otherwise; the same command then.
    server.control(default="A")
    assert all_answered(ask(server.url, **given))


# What the server takes, what it says of anything else, what is sent, what the item then
# says, and what is sent by that.
MEMBERS: list[tuple[list[dict[str, object]], dict[str, Any], str, dict[str, Any]]] = [
    (
        [
            {"tokens_below": 32, "answer": "A"},
            {"status": 400, "message": "max_tokens is too large: 64."},
        ],
        {"max_tokens": 64},
        FEWER_TOKENS,
        {"max_tokens": 31},
    ),
    (
        [
            {
                "sends": "temperature",
                "status": 422,
                "message": "`temperature` must be strictly positive",
            }
        ],
        {},
        OTHER_TEMPERATURE,
        {"temperature": "none"},
    ),
    (
        [
            {
                "sends": "top_k",
                "status": 400,
                "message": "Unknown parameter: 'top_k'.",
            }
        ],
        {"extra_body": '{"top_k": 1}'},
        "If --vlm-extra-body sends 'top_k', leave it out there",
        {},
    ),
]


@pytest.mark.parametrize(("rules", "sent", "said", "advised"), MEMBERS)
def test_a_member_that_a_server_does_not_take(
    own: Project,
    server: ServerProcess,
    rules: list[dict[str, object]],
    sent: dict[str, Any],
    said: str,
    advised: dict[str, Any],
) -> None:
    server.control(default="A", rules=rules)
    assert said in unusable(ask(server.url, limit=2, **sent))
    assert all_answered(ask(server.url, limit=2, **advised))


def test_a_key_is_given_in_either_way(
    own: Project,
    server: ServerProcess,
    vlm_server: StartServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keyed = vlm_server(default="A", api_key="sk-one", models=["tiny-vlm", "judge"])
    Path("key").write_text("sk-one\n")
    assert (
        "Set VLM_API_KEY, or give a file that holds the key with --vlm-api-key-file."
        in (refuse(keyed.url))
    )
    assert all_answered(ask(keyed.url, api_key_file="key"))
    monkeypatch.setenv("VLM_API_KEY", "sk-one")
    assert all_answered(ask(keyed.url, fresh=True))
    monkeypatch.delenv("VLM_API_KEY")
    # What no rule can read is what a judge is asked about.
    server.control(default="pick number 1")
    judged: dict[str, Any] = {"judge": "judge", "judge_api_base": keyed.url}
    assert (
        "Set VLM_JUDGE_API_KEY, or give a file that holds the key with "
        "--vlm-judge-api-key-file."
    ) in refuse(server.url, **judged)
    by_file = ask(server.url, **judged, judge_api_key_file="key")
    assert by_file.score("own").value == 100
    monkeypatch.setenv("VLM_JUDGE_API_KEY", "sk-one")
    assert ask(server.url, **judged).score("own").value == 100


@pytest.fixture
def swift(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], None]]:
    """Give what runs a line that begins with `swift deploy`, by a stand-in for swift.

    `tests/sessions/test_real_models.py` has the real one.
    """
    folder = own.pytester.mkdir("bin")
    program = folder / "swift"
    program.write_text(
        f"#!{sys.executable}\n"
        "import argparse, json, os, sys\n"
        "parser = argparse.ArgumentParser(allow_abbrev=False)\n"
        "parser.add_argument('command', choices=['deploy'])\n"
        "for name in ('model', 'served_model_name', 'port'):\n"
        "    parser.add_argument(f'--{name}', required=True)\n"
        "given = parser.parse_args()\n"
        "script = {'models': [given.served_model_name], 'default': 'A'}\n"
        f"file = {str(folder)!r} + given.port\n"
        "open(file, 'w').write(json.dumps(script))\n"
        f"os.execv(sys.executable, [sys.executable, {str(SERVER)!r}, '--port', "
        "given.port, '--script', file])\n"
    )
    program.chmod(0o755)
    path = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
    started: list[subprocess.Popen[str]] = []

    def run(line: str) -> None:
        process = subprocess.Popen(
            ["/bin/sh", "-c", f"exec {line}"],
            env=path,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("http://")

    yield run
    for process in started:
        process.kill()
        process.communicate()


def free_url() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def command_in(message: str) -> str:
    (line,) = [each for each in message.splitlines() if each.startswith("    swift")]
    return line.strip()


def test_a_server_that_is_not_there(
    own: Project, server: ServerProcess, swift: Callable[[str], None]
) -> None:
    server.control(default="pick number 1", models=["tiny-vlm", "my vlm"])
    url, judge_url = free_url(), free_url()
    told = refuse(url, model="my vlm")
    assert "or give the URL of another with --vlm-api-base, or run" in told
    assert told.endswith("a server with --vlm-model=demo.")
    assert all_answered(ask(server.url, "my vlm"))
    assert len(ask(None, "demo").samples) == 2
    swift(command_in(told))
    assert all_answered(ask(url, "my vlm", fresh=True))
    judge: dict[str, Any] = {"judge": "judge", "judge_api_base": judge_url}
    told = refuse(server.url, **judge)
    assert "or give the URL of another with --vlm-judge-api-base, or run" in told
    assert told.endswith("a judge with --vlm-judge=exact_matching.")
    assert ask(server.url, judge="exact_matching").score("own").value == 0
    swift(command_in(told))
    assert ask(server.url, **judge).score("own").value == 100


def test_another_judge_decides_what_one_did_not(
    own: Project, server: ServerProcess, vlm_server: StartServer
) -> None:
    server.control(default="pick number 1")
    rule = {"answer": "I cannot tell", "times": 6}
    judge = vlm_server(models=["judge", "other"], judge="good", rules=[rule])
    given: dict[str, Any] = {"judge": "judge", "judge_api_base": judge.url, "limit": 1}
    first = ask(server.url, **given).report.datasets[0].samples[0].verdict
    assert first is not None
    assert why_undecided(first).endswith("another judge (--vlm-judge) may do better.")
    judge.control(models=["judge", "other"], judge="good")
    assert ask(server.url, **{**given, "judge": "other"}).score("own").value == 100


def test_what_cannot_be_scored_is_collected(
    own: Project, server: ServerProcess
) -> None:
    """What `--vlm-mode=infer` is advised for: a class that is refused."""
    server.control(default="3")
    row = {"index": 1, "question": "How many?", "answer": "3", "image": LARGE}
    write_table(own.data_root / "MME_CoT_TEST.tsv", [row])
    given: dict[str, Any] = {"datasets": ["MME_CoT_TEST"], "allow_modified_data": True}
    assert "MME_CoT_TEST cannot be scored" in refuse(server.url, **given)
    results = ask(server.url, **given, mode="infer")
    assert all_answered(results)


def test_several_models_are_run_by_the_loop_of_the_message(
    own: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.control(default="A", models=["tiny-vlm", "my vlm"])
    own.pytester.makepyfile(
        test_own="from pytest_vlmeval import Benchmark\n"
        "class TestOwn(Benchmark):\n    datasets = ['own.tsv']\n"
    )
    models = [
        {"name": "CustomAPIModel", "type": name, "api_base": server.url}
        for name in ("tiny-vlm", "my vlm")
    ]
    config = {"model": models, "data": ["own.tsv"], "limit": 2}
    task = {"eval_backend": "VLMEvalKit", "eval_config": config}
    with pytest.raises(VlmEvalError) as raised:
        evaluate(config=task, progress=str)
    assert "Choose it: model='tiny-vlm'." in str(raised.value)
    results = evaluate("tiny-vlm", config=task, progress=str)
    assert (results.model, all_answered(results)) == ("tiny-vlm", True)
    Path("task.json").write_text(json.dumps(task))
    with pytest.raises(VlmEvalError) as raised:
        evaluate(config="task.json", progress=str)
    told = str(raised.value)
    loop = told[told.index("for model in ") :]
    assert loop.startswith("for model in tiny-vlm 'my vlm'; do pytest --vlm-config=")
    before = len(server.requests())
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", programs)
    ran = subprocess.run(["/bin/sh", "-c", loop], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    # The first was asked by the call, and the same command asks nothing twice.
    asked = server.requests()[before:]
    assert [each["model"] for each in asked] == ["my vlm"] * 2
    chosen = re.findall(r"--vlm-model=(\S+)\.", told)
    assert chosen == [shlex.quote("tiny-vlm")]


def test_reports_are_written_as_refusals_say(
    own: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = own.run("--vlm-runs")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    assert (
        "Run a benchmark first, or name the folder of another store with "
        "--vlm-work-dir."
    ) in refused.stderr.str()
    Path("in the way").touch()
    demo: dict[str, Any] = {"datasets": ["DemoChoice"], "work_dir": "other"}
    told = refuse(model="demo", **demo, report="in the way/a.html")
    assert told.endswith(
        "Name another file; --vlm-mode=report writes it from the store at any time."
    )
    other = "--vlm-work-dir=other"
    assert "demo" in own.run("--vlm-runs", other).stdout.str()
    report = ("--vlm-mode=report", other)
    refused = own.run(*report)
    assert "give --vlm-report=FILE.html, --vlm-export=DIR, or both." in (
        refused.stderr.str()
    )
    assert own.run(*report, "--vlm-report=a.html").ret == 0
    assert "DemoChoice" in Path("a.html").read_text("utf-8")
    hidden = own.pytester.mkdir("hidden")
    (hidden / "openpyxl.py").write_text("raise ImportError('hidden')\n")
    monkeypatch.setenv("PYTHONPATH", str(hidden))
    export = (*report, "--vlm-export=out")
    refused = own.run(*export, "--vlm-predictions=xlsx")
    assert refused.ret == pytest.ExitCode.USAGE_ERROR
    assert "needs openpyxl, which is not installed: pip install" in (
        refused.stderr.str()
    )
    assert own.run(*export, "--vlm-predictions=tsv").ret == 0
    assert Path("out/demo/demo_DemoChoice.tsv").is_file()
    # Once it is installed.
    monkeypatch.delenv("PYTHONPATH")
    assert own.run(*export, "--vlm-predictions=xlsx").ret == 0
    assert Path("out/demo/demo_DemoChoice.xlsx").is_file()


def test_names_in_a_task_are_those_of_the_lists(own: Project) -> None:
    listed = own.run("--vlm-list").stdout.str().split()
    models = own.run("--vlm-list-models").stdout.str().split()
    assert {"MMStar", "MathVision_MINI"} <= set(listed)
    assert "qwen_chat" in models
    with pytest.raises(VlmEvalError, match="`pytest --vlm-list` shows them all"):
        read_task(own.pytester.path, swift_task(data=[3]))
    with pytest.raises(VlmEvalError, match="a name of `pytest --vlm-list-models` for"):
        read_task(own.pytester.path, swift_task(model={"name": None}))
    config = {"model": [{"name": "qwen_chat"}], "data": ["MMStar"]}
    task = {"eval_backend": "VLMEvalKit", "eval_config": config}
    values = read_task(own.pytester.path, task).values
    assert (values["model"].text, values["data"].text) == ("qwen_chat", "MMStar")
