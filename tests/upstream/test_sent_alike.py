"""What is sent is what others send: EvalScope's requests, ms-vlmeval's images."""

from __future__ import annotations

import asyncio
import base64
import csv
import hashlib
import io
import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from PIL import Image

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.chat import BodyWriter, as_ms_vlmeval
from pytest_vlmeval.models.client import Request, RequestError
from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.records import PromptPart
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.settings import Settings
from pytest_vlmeval.settings.groups import Prompting
from tests.support.option_calls import load as load
from tests.support.run_fixtures import Project, math_rows
from tests.support.sandbox_tables import FIXTURES
from tests.support.server_fixtures import ServerProcess

REQUESTS_SCRIPT = Path(__file__).parents[1] / "support" / "upstream_requests.py"
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
    command = [str(environment.python), str(REQUESTS_SCRIPT), str(job)]
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


IMAGES_SCRIPT = Path(__file__).parents[1] / "support" / "upstream_images.py"
SUFFIXES = ("", ".png", ".jpg", ".jpeg", ".webp", ".nothing")
BOUNDS = (-1, 64)


def noise(mode: str, width: int, height: int, seed: int = 1) -> Image.Image:
    """Draw an image with something to lose in each pixel."""
    drawn = Image.frombytes(
        "RGB", (width, height), random.Random(seed).randbytes(3 * width * height)
    )
    if mode == "I;16":
        return Image.frombytes(
            mode, (width, height), random.Random(seed).randbytes(2 * width * height)
        )
    if mode in ("RGBA", "LA"):
        alpha = noise("L", width, height, seed + 1)
        drawn = drawn.convert("L" if mode == "LA" else "RGB")
        drawn.putalpha(alpha)
        return drawn
    return drawn.convert(mode)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Give the bytes of a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned() -> bytes:
    """Give a JPEG that its EXIF data turns."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(noise("RGB", 160, 120), "JPEG", exif=exif, comment=b"Hello")


def corpus() -> dict[str, bytes]:
    """Give images of all modes, formats and sizes that a table may hold."""
    frames = [noise("RGB", 120, 110, seed) for seed in range(3)]
    several = {"save_all": True, "append_images": frames[1:]}
    return {
        "RGB": saved(noise("RGB", 230, 150), "PNG"),
        "RGB as JPEG": saved(noise("RGB", 230, 150), "JPEG", quality=95),
        "progressive": saved(noise("RGB", 230, 150), "JPEG", progressive=True),
        "RGBA": saved(noise("RGBA", 140, 120), "PNG"),
        "LA": saved(noise("LA", 140, 120), "PNG"),
        "P": saved(noise("P", 140, 120), "PNG"),
        "P, transparent": saved(noise("P", 140, 120), "PNG", transparency=0),
        "L": saved(noise("L", 140, 120), "PNG"),
        "L as JPEG": saved(noise("L", 140, 120), "JPEG"),
        "1": saved(noise("1", 140, 120), "PNG"),
        "1, small": saved(noise("1", 64, 20), "PNG"),
        "16 bit": saved(noise("I;16", 140, 120), "PNG"),
        "CMYK": saved(noise("CMYK", 140, 120), "JPEG"),
        "TIFF": saved(noise("RGB", 140, 120), "TIFF"),
        "WebP": saved(noise("RGBA", 140, 120), "WEBP"),
        "BMP": saved(noise("RGB", 140, 120), "BMP"),
        "tiny": saved(noise("RGB", 1, 1), "PNG"),
        "wide": saved(noise("RGB", 64, 20), "PNG"),
        "wide, of four bands": saved(noise("RGBA", 20, 64), "PNG"),
        "short by a pixel": saved(noise("RGB", 99, 99), "PNG"),
        "short by a pixel, wide": saved(noise("RGB", 300, 99), "PNG"),
        "as short as may be": saved(noise("RGB", 100, 100), "PNG"),
        "too wide when enlarged": saved(noise("L", 700, 1), "PNG"),
        "animated GIF": saved(frames[0], "GIF", comment=b"Hi", **several),
        "animated PNG": saved(frames[0], "PNG", **several),
        "animated WebP": saved(frames[0], "WEBP", **several),
        "turned": turned(),
        "with a profile": saved(noise("RGB", 120, 130), "PNG", icc_profile=b"x" * 200),
    }


def upstream(
    environment: SandboxEnvironment, folder: Path, jobs: list[tuple[str, str, int]]
) -> list[str | None]:
    """Give what ms-vlmeval sends."""
    asked, answered = folder / "jobs.json", folder / "results.json"
    asked.write_text(json.dumps(jobs))
    subprocess.run(
        [environment.python, str(IMAGES_SCRIPT), str(asked), str(answered)],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    found: list[str | None] = json.loads(answered.read_text())
    return found


def ours(text: str, suffix: str, img_size: int) -> str | None:
    """Give what is sent here."""
    size = None if img_size == -1 else img_size
    try:
        data = as_ms_vlmeval(base64.b64decode(text), suffix, size)
    except (OSError, ValueError):
        return None
    return base64.b64encode(data).decode()


def test_every_byte_is_that_of_ms_vlmeval(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    cases = {
        (name, suffix, size): (base64.b64encode(data).decode(), suffix, size)
        for name, data in corpus().items()
        for suffix in SUFFIXES
        for size in BOUNDS
    }
    expected = upstream(sandbox_environment, tmp_path, list(cases.values()))
    differing = [
        case
        for (case, job), sent in zip(cases.items(), expected, strict=True)
        if ours(*job) != sent
    ]
    assert differing == []
    # It sends neither of these, however it keeps them.
    unsent = {
        case[0]
        for case, sent in zip(cases, expected, strict=True)
        if sent is None and case[1] == ".png" and case[2] == -1
    }
    assert unsent == {"16 bit", "CMYK", "too wide when enlarged"}


def fixture_images() -> list[str]:
    """Give the images of the seed fixtures' tables, as base64."""
    csv.field_size_limit(sys.maxsize)
    found = set()
    for path in (FIXTURES / "LMUData").glob("*.tsv"):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, delimiter="\t"):
                found.add(row.get("image") or "")
    # Shorter ones name another row; PDFs and lists are none.
    return sorted(
        text for text in found if len(text) > 64 and not text.startswith(("[", "JVBE"))
    )


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no seed fixtures")
def test_the_images_of_the_fixtures(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    texts = fixture_images()
    jobs = [(text, suffix, -1) for text in texts for suffix in (".png", ".jpg")]
    assert len(jobs) > 40
    expected = upstream(sandbox_environment, tmp_path, jobs)
    assert None not in expected
    assert [ours(*job) for job in jobs] == expected


def request_for(folder: Path, data: bytes) -> Request:
    """Write a prompt of one image that is sent as ms-vlmeval sends it."""
    (folder / "a.png").write_bytes(data)
    part = PromptPart(
        kind="image", media="a.png", media_type="image/png", saved_as=".png"
    )
    prompting = Prompting(images="as-ms-vlmeval")
    return Request(turns=((part,),), media_folder=folder, prompting=prompting)


def test_it_is_sent_as_jpeg(tmp_path: Path) -> None:
    data = saved(noise("RGBA", 64, 20), "PNG")
    body = json.loads(BodyWriter("m", 10, 0.0).write(request_for(tmp_path, data)))
    (part,) = body["messages"][0]["content"]
    kind, _, text = part["image_url"]["url"].partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as seen:
        assert (seen.size, seen.mode, seen.format) == ((320, 100), "RGB", "JPEG")


def test_what_ms_vlmeval_cannot_send(tmp_path: Path) -> None:
    data = saved(noise("I;16", 120, 120), "PNG")
    with pytest.raises(RequestError) as raised:
        BodyWriter("m", 10, 0.0).write(request_for(tmp_path, data))
    assert raised.value.kind == "input"
    assert str(raised.value) == (
        "image a.png cannot be sent as ms-vlmeval sends it: cannot write mode I;16 as "
        "JPEG. ms-vlmeval cannot send it either; --vlm-images=original sends the bytes "
        "that the dataset has."
    )
    original = replace(request_for(tmp_path, data), prompting=Prompting())
    body = json.loads(BodyWriter("m", 10, 0.0).write(original))
    (part,) = body["messages"][0]["content"]
    assert base64.b64decode(part["image_url"]["url"].partition(",")[2]) == data
    wide = saved(noise("L", 700, 1), "PNG")
    with pytest.raises(
        RequestError, match="it is 70000 x 100 pixels there, and no sid"
    ):
        BodyWriter("m", 10, 0.0).write(request_for(tmp_path, wide))


def test_an_area_is_not_bounded_there(load: Callable[..., Settings]) -> None:
    as_upstream = "--vlm-images=as-ms-vlmeval"
    assert load(as_upstream, "--vlm-image-size=9").prompting == Prompting(
        images="as-ms-vlmeval", image_size=9
    )
    with pytest.raises(VlmEvalError) as raised:
        load("--vlm-model=m", as_upstream, "--vlm-max-pixels=1000")
    assert str(raised.value) == (
        "--vlm-images=as-ms-vlmeval and --vlm-max-pixels exclude each other: "
        "ms-vlmeval bounds the longest side of an image and never its area. Give "
        "--vlm-image-size, which is its img_size, or leave one of them out."
    )


def test_models_without_a_server_have_no_use_for_it(
    load: Callable[..., Settings],
) -> None:
    as_upstream = "--vlm-images=as-ms-vlmeval"
    is_for_endpoints = r"^--vlm-images is for --vlm-backend=endpoint, and the model is "
    with pytest.raises(VlmEvalError, match=f"{is_for_endpoints}of --vlm-backend=demo"):
        load("--vlm-model=demo", as_upstream)
    with pytest.raises(VlmEvalError, match=f"{is_for_endpoints}of --vlm-backend=local"):
        load("--vlm-model=m", "--vlm-backend=local", as_upstream)
    assert load("--vlm-model=demo").prompting == Prompting()


@pytest.mark.slow
def test_it_is_another_run_and_stands_in_the_report(
    project: Project,
    server: ServerProcess,
    sandbox_environment: SandboxEnvironment,
    tmp_path: Path,
) -> None:
    rows = math_rows(2)
    project.write_math(2, rows)
    server.control(default="B")
    project.ask(server.url, "--vlm-export=first")
    project.ask(server.url, "--vlm-images=as-ms-vlmeval", "--vlm-export=second")
    jobs = [(row["image"], ".png", -1) for row in rows]
    sent = upstream(sandbox_environment, tmp_path, jobs)
    received = [
        (image["media_type"], image["sha256"])
        for record in server.requests()
        for image in cast("list[dict[str, str]]", record["images"])
    ]
    first = [("image/png", rows[0]["image"]), ("image/jpeg", rows[1]["image"])]
    second = [("image/jpeg", str(text)) for text in sent]
    # Requests are in flight side by side.
    assert sorted(received) == sorted(
        (kind, hashlib.sha256(base64.b64decode(text)).hexdigest())
        for kind, text in first + second
    )
    for name, images in (("first", "original"), ("second", "as-ms-vlmeval")):
        text = (project.pytester.path / name / "results.json").read_text()
        assert json.loads(text)["run"]["settings"]["images"] == images
