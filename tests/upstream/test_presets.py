"""--vlm-preset=evalscope sends what EvalScope sends through ms-vlmeval."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import Request
from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.records import PromptPart
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.settings import Settings
from tests.support.option_calls import load as load
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess

SCRIPT = Path(__file__).parents[1] / "support" / "upstream_requests.py"
PRESET = "--vlm-preset=evalscope"
# A path in which ms-vlmeval finds OpenAI's host.
OPENAI = "/openai.com/v1"
MODELS = [
    "qwen-vl-chat",
    "o1-mini",
    "o3",
    "o4-mini",
    "gpt-5-nano",
    "gpt-4o",
    "gemini-2.5-pro",
    "my-o1-like-model",
]


def compared(record: Mapping[str, object]) -> dict[str, object]:
    """Return what a server received, but for how it came."""
    names = ("path", "model", "params", "content", "system", "order", "images", "text")
    return {name: record[name] for name in names}


def ask_upstream(
    environment: SandboxEnvironment, folder: Path, message: object, models: object
) -> None:
    """Ask as EvalScope does."""
    job = folder / "job.json"
    job.write_text(json.dumps({"message": message, "models": models}))
    command = [str(environment.python), str(SCRIPT), str(job)]
    subprocess.run(command, check=True, capture_output=True, cwd=folder)


def ask_here(settings: Settings, request: Request) -> None:
    """Ask as a run with these settings does."""

    async def ask() -> None:
        client = EndpointClient(
            model=str(settings.model),
            api_base=settings.api_bases[0],
            api_key="EMPTY",
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            timeout_s=30,
            concurrency=1,
            form=settings.form,
        )
        await client.ask(request)
        await client.close()

    asyncio.run(ask())


def requests_for(folder: Path) -> tuple[list[dict[str, str]], Request]:
    """Give a message of ms-vlmeval's, and the same prompt as it is asked here."""
    Image.new("RGBA", (64, 20), (9, 8, 7, 120)).save(folder / "a.png")
    message = [
        {"type": "image", "value": str(folder / "a.png")},
        {"type": "text", "value": 'What is "it"?\n\tÄ'},
        {"type": "image", "value": str(folder / "a.png")},
    ]
    image = PromptPart(kind="image", media="a.png", media_type="image/png")
    text = PromptPart(kind="text", text=message[1]["value"])
    return message, Request(turns=((image, text, image),), media_folder=folder)


def test_each_name_is_asked_as_by_evalscope(
    server: ServerProcess,
    sandbox_environment: SandboxEnvironment,
    load: Callable[..., Settings],
    tmp_path: Path,
) -> None:
    message, request = requests_for(tmp_path)
    server.control(models=MODELS)
    bases = [server.url, server.url.replace("/v1", OPENAI)]
    asked = [(model, base) for base in bases for model in MODELS]
    ask_upstream(
        sandbox_environment,
        tmp_path,
        message,
        [{"model": m, "api_base": f"{base}/chat/completions"} for m, base in asked],
    )
    expected = [compared(each) for each in server.requests(None)]
    assert len(expected) == len(asked)
    server.control(models=MODELS)
    for model, base in asked:
        settings = load(f"--vlm-model={model}", f"--vlm-api-base={base}", PRESET)
        ask_here(settings, Request(**_fields(request), prompting=settings.prompting))
    received = [compared(each) for each in server.requests(None)]
    assert received == expected
    # What there is to reproduce, so that it is known to have been there.
    plain: dict[str, object] = {"max_tokens": 2048, "temperature": 0}
    reasons: dict[str, object] = {"max_completion_tokens": 2048}
    gemini: dict[str, object] = {"temperature": 0, "reasoning_effort": "high"}
    first: list[dict[str, object]] = [plain, *[reasons] * 4, plain, gemini, reasons]
    second = [each | ({} if each is gemini else {"n": 1}) for each in first]
    assert [each["params"] for each in received] == first + second


def test_judges_are_asked_by_the_same_rule(load: Callable[..., Settings]) -> None:
    def asked(*judges: str) -> tuple[dict[str, Any], str | None, str]:
        base = [f"--vlm-judge={each}" for each in judges]
        place = "--vlm-judge-api-base=http://h/v1"
        asking = load("--vlm-model=m", *base, place, PRESET).judges[0].asking
        return dict(asking.changes), asking.form.max_tokens_name, asking.extra_body

    plain = asked("judge")
    assert plain == ({}, None, "")
    reasons = ({"temperature": None}, "max_completion_tokens", "")
    for name in ("o1-mini", "o3", "o4-mini", "my-gpt-5-x"):
        assert asked(name) == reasons
    assert asked("gemini-2") == (
        {"max_tokens": None},
        plain[1],
        '{"reasoning_effort": "high"}',
    )
    assert asked("o1-mini", "o3") == reasons
    with pytest.raises(VlmEvalError) as raised:
        asked("o1-mini", "judge")
    assert str(raised.value) == (
        "--vlm-preset=evalscope: ms-vlmeval asks the judges o1-mini, judge in "
        "different ways, by their names, and here all are asked alike. Give "
        "--vlm-preset=none, or one of them."
    )
    at_openai = load(
        *("--vlm-model=m", "--vlm-judge=gpt-4o", PRESET),
        "--vlm-judge-api-base=https://api.openai.com/v1",
        environ={"OPENAI_API_KEY": "sk-0"},
    ).judges[0]
    assert at_openai.asking.extra_body == '{"n": 1}'
    # LOCAL_LLM names a judge, too; what is given wins, and the advice works.
    given = load(
        *("--vlm-model=m", PRESET, "--vlm-judge-temperature=0.5"),
        environ={"LOCAL_LLM": "gpt-5", "OPENAI_API_BASE": "http://h/v1"},
    ).judges[0]
    assert given.asking.changes == {"temperature": 0.5}
    assert given.asking.form.max_tokens_name == "max_completion_tokens"
    two = (
        "--vlm-judge=o1-mini",
        "--vlm-judge=judge",
        "--vlm-judge-api-base=http://h/v1",
    )
    assert len(load("--vlm-model=m", *two, "--vlm-preset=none").judges) == 2


def _fields(request: Request) -> dict[str, Any]:
    return {"turns": request.turns, "media_folder": request.media_folder}


def sent(settings: Settings) -> dict[str, object]:
    """Return what the settings say of a request."""
    return {
        "temperature": settings.temperature,
        "max_tokens": settings.max_tokens,
        "name": settings.form.max_tokens_name,
        "detail": settings.prompting.image_detail,
        "images": settings.prompting.images,
        "body": settings.prompting.extra_body,
    }


PLAIN = {
    "temperature": 0,
    "max_tokens": 2048,
    "name": None,
    "detail": "high",
    "images": "as-ms-vlmeval",
    "body": "",
}


@pytest.mark.parametrize(
    ("model", "given", "changed"),
    [
        ("m", "--vlm-temperature=0.7", {"temperature": 0.7}),
        ("m", "--vlm-max-tokens=9", {"max_tokens": 9}),
        ("m", "--vlm-image-detail=low", {"detail": "low"}),
        ("m", "--vlm-images=original", {"images": "original"}),
        ("m", "--vlm-max-pixels=900", {"images": "original"}),
        ("m", '--vlm-extra-body={"top_k": 1}', {"body": '{"top_k": 1}'}),
        (
            "o1",
            "--vlm-temperature=1",
            {"temperature": 1, "name": "max_completion_tokens"},
        ),
        (
            "o1",
            "--vlm-max-tokens-name=max_tokens",
            {"temperature": None, "name": "max_tokens"},
        ),
        (
            "gemini-2",
            "--vlm-max-tokens=7",
            {"max_tokens": 7, "body": '{"reasoning_effort": "high"}'},
        ),
        (
            "gemini-2",
            '--vlm-extra-body={"reasoning_effort": "low"}',
            {"max_tokens": None, "body": '{"reasoning_effort": "low"}'},
        ),
        (
            "gemini-2",
            '--vlm-extra-body={"reasoning_effort": null}',
            {"max_tokens": None, "body": ""},
        ),
    ],
)
def test_what_is_given_wins(
    load: Callable[..., Settings], model: str, given: str, changed: dict[str, object]
) -> None:
    assert sent(load(f"--vlm-model={model}", PRESET, given)) == PLAIN | changed
    name, _, value = given.removeprefix("--vlm-").partition("=")
    ini = f"vlm_{name.replace('-', '_')} = '{value}'\nvlm_preset = 'evalscope'"
    assert sent(load(f"--vlm-model={model}", ini=ini)) == PLAIN | changed


def write_task(folder: Path, **model: object) -> None:
    """Write a task of EvalScope's."""
    fields = {"name": "CustomAPIModel", "api_base": "http://h/v1", **model}
    config = {"model": [fields], "data": ["MME"]}
    task = {"eval_backend": "VLMEvalKit", "eval_config": config}
    (folder / "task.json").write_text(json.dumps(task))


def test_a_task_of_evalscope_has_it(
    load: Callable[..., Settings], pytester: pytest.Pytester
) -> None:
    task = "--vlm-config=task.json"
    write_task(pytester.path, type="m", img_detail="low")
    settings = load(task)
    assert sent(settings) == PLAIN | {"detail": "low"}
    assert (settings.preset, settings.remarks) == ("evalscope", ())
    assert load(task, environ={"VLM_PRESET": "none"}).prompting.images == "original"
    # ms-vlmeval drops what its task says where the name is a special case.
    write_task(pytester.path, type="o1", temperature=0.5, max_tokens=9)
    reasons = {"temperature": None, "max_tokens": 9, "name": "max_completion_tokens"}
    assert sent(load(task)) == PLAIN | reasons
    assert sent(load(task, "--vlm-temperature=1"))["temperature"] == 1
    write_task(pytester.path, type="gemini", temperature=0.5, max_tokens=9)
    gemini = {"temperature": 0.5, "max_tokens": None}
    body = {"body": '{"reasoning_effort": "high"}'}
    assert sent(load(task)) == PLAIN | gemini | body
    # The demo model is no matter of the file.
    demo = load(task, "--vlm-backend=demo")
    assert demo.preset == "none"


def test_where_it_has_no_use(load: Callable[..., Settings]) -> None:
    with pytest.raises(VlmEvalError) as raised:
        load("--vlm-model=demo", PRESET)
    assert str(raised.value) == (
        "--vlm-preset is for --vlm-backend=endpoint, and the model is of "
        "--vlm-backend=demo. Leave it out, or name another model."
    )
    with pytest.raises(VlmEvalError) as raised:
        load("--vlm-model=gemini-pro1", PRESET)
    assert str(raised.value) == (
        "--vlm-preset=evalscope: ms-vlmeval sends no request for the model "
        "gemini-pro1, whose name has both 'o1' and 'gemini' in it. Give "
        "--vlm-preset=none, and --vlm-images=as-ms-vlmeval --vlm-image-detail=high "
        "for its images."
    )
    advised = load(
        "--vlm-model=gemini-pro1",
        "--vlm-preset=none",
        "--vlm-images=as-ms-vlmeval",
        "--vlm-image-detail=high",
    )
    assert sent(advised) == PLAIN


def test_ms_vlmeval_sends_nothing_for_both(
    server: ServerProcess, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    model = {"model": "gemini-pro1", "api_base": f"{server.url}/chat/completions"}
    message, _ = requests_for(tmp_path)
    ask_upstream(sandbox_environment, tmp_path, message, [model])
    assert server.requests(None) == []


@pytest.mark.slow
def test_header_and_report_name_it(project: Project, server: ServerProcess) -> None:
    project.write_math(2)
    server.control(default="B")
    result = project.ask(server.url, PRESET, "--vlm-export=out")
    result.stdout.fnmatch_lines(
        [f"vlmeval: model tiny-vlm at {server.url}, preset evalscope, exact matching*"]
    )
    results = json.loads((project.pytester.path / "out" / "results.json").read_text())
    assert results["run"]["settings"] == {
        "model": "tiny-vlm",
        "backend": "endpoint",
        "preset": "evalscope",
        "max_tokens": 2048,
        "temperature": 0,
        "images": "as-ms-vlmeval",
        "image_detail": "high",
    }
