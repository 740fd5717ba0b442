"""What a request holds and where it goes: members, headers, prompts, images."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.chat import BodyWriter, fit_image, target_size
from pytest_vlmeval.models.client import OutageError, Request, RequestError
from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.models.pool import Learned
from pytest_vlmeval.models.refusals import MemberRefusal, read_refusal
from pytest_vlmeval.records import PromptPart
from pytest_vlmeval.settings import Settings
from pytest_vlmeval.settings.groups import PLAIN, Prompting, RequestForm, parse_query
from tests.support.endpoint_calls import text_request
from tests.support.option_calls import load as load
from tests.support.refusing import ONLY_1, RENAME, openai_error, refuse
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess

SECRET = "canary-7d41c0"
LIMIT = MemberRefusal(member="max_tokens", instead="max_completion_tokens")
TEMPERATURE = MemberRefusal(member="temperature")


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        (openai_error(RENAME, "max_tokens"), LIMIT),
        (openai_error(RENAME), LIMIT),
        # Azure, of o1
        (
            openai_error(
                "this model is not supported MaxTokens, please use MaxCompletionTokens"
            ),
            LIMIT,
        ),
        (
            {"message": "max_tokens is deprecated in favor of max_completion_tokens"},
            LIMIT,
        ),
        ("Please use max_completion_tokens instead of max_tokens", LIMIT),
        (
            {
                "detail": [
                    {
                        "loc": ["body", "max_tokens"],
                        "msg": "Extra inputs are not permitted",
                        "input": 9,
                    }
                ]
            },
            LIMIT,
        ),
        (
            openai_error(
                "Unsupported parameter: 'max_tokens'. This parameter has moved to "
                "'max_output_tokens'.",
                "max_tokens",
            ),
            MemberRefusal(member="max_tokens", instead="max_output_tokens"),
        ),
        (openai_error(ONLY_1, "temperature"), TEMPERATURE),
        (openai_error(ONLY_1), TEMPERATURE),
        (
            openai_error("invalid temperature: only 1 is allowed for this model"),
            TEMPERATURE,
        ),
        (
            openai_error(
                "`temperature` may only be set to 1 when thinking is enabled."
            ),
            TEMPERATURE,
        ),
        (openai_error("`temperature` is deprecated for this model."), TEMPERATURE),
        # Refused for its value, which no other name changes.
        (
            openai_error(
                "'max_tokens' or 'max_completion_tokens' is too large: 32768. This "
                "model's maximum context length is 8192 tokens",
                "max_tokens",
            ),
            None,
        ),
        (openai_error("max_tokens must be at least 1, got 0.", "max_tokens"), None),
        (
            openai_error(
                "This model's maximum context length is 4096 tokens, you requested "
                "5000 (900 in max_tokens). Unsupported."
            ),
            None,
        ),
        # About something else, which may be in the prompt.
        ("the temperature of the soup in the image is not known", None),
        (openai_error("Unsupported parameter: 'top_k'", "top_k"), None),
        ("`m` is not in the model_list: `['tiny']`.", None),
        ([], None),
        (None, None),
        ({"error": {"param": 3, "message": [1]}}, None),
        ({"error": None, "detail": []}, None),
    ],
)
def test_what_a_refusal_says(body: object, refusal: MemberRefusal | None) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    assert read_refusal(text.encode()) == refusal


def test_nested_brackets_are_no_refusal() -> None:
    assert read_refusal(b"[" * 100_000) is None
    assert read_refusal(b"\xff\xfe max_tokens") is None


def client(
    server: ServerProcess,
    form: RequestForm = PLAIN,
    learned: Learned | None = None,
    temperature: float | None = 0,
    **more: Any,
) -> EndpointClient:
    return EndpointClient(
        model="tiny-vlm",
        api_base=server.url,
        api_key=None,
        max_tokens=32,
        temperature=temperature,
        timeout_s=20,
        concurrency=8,
        form=form,
        learned=learned,
        **more,
    )


def ask(asked: EndpointClient, times: int = 1, at_once: int = 0) -> list[str]:
    """Ask one after the other, or several `at_once`; return the answers."""

    async def run() -> list[str]:
        try:
            said = [(await asked.ask(text_request("?"))).text for _ in range(times)]
            calls = (asked.ask(text_request("?")) for _ in range(at_once))
            said += [reply.text for reply in await asyncio.gather(*calls)]
            return said
        finally:
            await asked.close()

    return asyncio.run(run())


def sent(server: ServerProcess) -> list[list[str]]:
    """Return the members of each request, but for the prompt."""
    return [sorted(dict(each["params"])) for each in server.requests()]  # type: ignore[call-overload]


def test_the_name_of_the_token_limit_is_found_out_once(
    server: ServerProcess, tmp_path: Path
) -> None:
    server.control(rules=[refuse("max_tokens", RENAME)])
    told: list[str] = []
    learned = Learned(tmp_path / "session", told.append)
    assert ask(client(server, learned=learned), times=5) == ["A"] * 5
    renamed = ["max_completion_tokens", "temperature"]
    assert sent(server) == [["max_tokens", "temperature"], *[renamed] * 5]
    assert told == [
        f"{server.url} requires max_completion_tokens instead of max_tokens. Using "
        "max_completion_tokens; with --vlm-max-tokens-name=max_completion_tokens no "
        "request is refused first."
    ]
    # Another client of the process, and another process of the session, know it.
    ask(client(server, learned=learned))
    ask(client(server, learned=Learned(tmp_path / "session", told.append)))
    assert sent(server)[6:] == [renamed] * 2
    assert len(told) == 1
    # Another session finds it out anew: the server may be another one.
    ask(client(server, learned=Learned(tmp_path / "another")))
    assert len(sent(server)) == 10


def test_requests_in_flight_find_it_out_together(server: ServerProcess) -> None:
    server.control(rules=[refuse("max_tokens", RENAME)], latency_s=0.05)
    assert ask(client(server), times=0, at_once=6) == ["A"] * 6
    assert len(server.requests()) <= 12
    server.control(rules=[refuse("max_tokens", RENAME)])
    assert ask(client(server), times=1, at_once=6) == ["A"] * 7
    assert len(server.requests()) == 8


def test_the_options_say_it_at_once(server: ServerProcess) -> None:
    server.control(rules=[refuse("max_tokens", RENAME)])
    form = RequestForm(max_tokens_name="max_completion_tokens")
    assert ask(client(server, form)) == ["A"]
    form = RequestForm(left_out=frozenset({"max_tokens", "temperature"}))
    assert ask(client(server, form)) == ["A"]
    assert sent(server) == [["max_completion_tokens", "temperature"], []]


def test_a_limit_that_no_name_fixes_stops_everything(server: ServerProcess) -> None:
    rules = [
        refuse("max_tokens", RENAME),
        refuse("max_completion_tokens", RENAME.replace("_completion", ""), times=1),
    ]
    server.control(rules=rules)
    asked = client(server)
    with pytest.raises(OutageError) as caught:
        ask(asked)
    assert str(caught.value) == (
        f"{server.url} refuses max_tokens: {RENAME} Set --vlm-max-tokens-name=NAME to "
        "send it under another name, or --vlm-max-tokens=none to leave it out."
    )
    with pytest.raises(OutageError):
        ask(asked)
    assert len(server.requests()) == 2
    # A name that the user gave is the user's.
    form = RequestForm(max_tokens_name="max_tokens")
    with pytest.raises(OutageError, match="--vlm-max-tokens-name=NAME"):
        ask(client(server, form))
    assert len(server.requests()) == 3


@pytest.mark.parametrize(("role", "prefix"), [("model", ""), ("judge", "judge-")])
def test_a_temperature_is_never_left_out_by_itself(
    server: ServerProcess, role: Any, prefix: str
) -> None:
    server.control(rules=[refuse("temperature", ONLY_1), refuse("max_tokens", RENAME)])
    asked = client(server, role=role)
    with pytest.raises(OutageError) as caught:
        ask(asked)
    assert str(caught.value) == (
        f"{server.url} refuses temperature=0: {ONLY_1} Set "
        f"--vlm-{prefix}temperature=none to leave it out, or "
        f"--vlm-{prefix}temperature=T to send another. Both change the answers."
    )
    # What else is asked of this client is not sent at all.
    with pytest.raises(OutageError):
        ask(asked)
    assert len(server.requests()) == 1
    # The advice works.
    assert ask(client(server, temperature=None, role=role)) == ["A"]


def test_a_refusal_of_what_was_not_sent_is_the_sample_s(server: ServerProcess) -> None:
    server.control(rules=[{"status": 400, "body": openai_error(ONLY_1)}])
    with pytest.raises(RequestError, match="Only the default"):
        ask(client(server, temperature=None))


def test_query_and_headers_go_with_every_request(server: ServerProcess) -> None:
    form = RequestForm(
        query=parse_query("api-version=2024-10-21&x=a%20b"),
        headers=(("api-key", SECRET), ("Authorization", f"Bearer {SECRET}")),
    )
    server.control(rules=[{"path": "/models", "status": 404, "shape": "empty"}])
    asyncio.run(client(server, form).check())
    ask(client(server, form))
    assert len(server.requests(None)) == 3
    for each in server.requests(None):
        assert each["query"] == "api-version=2024-10-21&x=a+b"
        assert dict(each["headers"])["api-key"] == SECRET  # type: ignore[call-overload]
        assert each["with_key"]


def test_a_server_that_repeats_them_shows_them_to_nobody(
    server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = f"bad key {SECRET} in Bearer%20{SECRET} of ?sig={SECRET}-b"
    server.control(rules=[{"status": 400, "shape": "plain", "message": said}])
    form = RequestForm(
        query=parse_query(f"sig={SECRET}-b"),
        headers=(("Authorization", f"Bearer {SECRET}"),),
    )
    with pytest.raises(RequestError) as caught:
        ask(client(server, form))
    assert str(caught.value) == (
        f"{server.url} answered 400: bad key *** in *** of ?sig=***"
    )
    assert SECRET not in repr(form)
    assert "HTTP Request: POST" in caplog.text
    assert SECRET not in caplog.text


def moved(server: ServerProcess, target: str, **more: object) -> dict[str, object]:
    """Give the rule of a server that has moved."""
    return {"status": 307, "location": target, "shape": "empty", **more}


@pytest.mark.parametrize("path", ["/models", "/chat/completions"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_refused(
    server: ServerProcess, path: str, status: int
) -> None:
    """Nothing arrives there, and both hosts are named."""
    asyncio.run(_redirected(server, path, status))


async def _redirected(server: ServerProcess, path: str, status: int) -> None:
    """Answer with a redirect to a server that says what arrives."""
    arrived: list[str] = []

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        arrived.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.close()

    listening = await asyncio.start_server(other, "127.0.0.1", 0)
    there = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    target = f"{there.replace('://', f'://u:{SECRET}@')}/v1{path}?k={SECRET}"
    rule = {**moved(server, target, path=path), "status": status}
    # Of a list alone that is elsewhere, one request decides.
    chat = moved(server, target, path="/chat/completions")
    server.control(rules=[rule, chat] if path == "/models" else [rule])
    form = RequestForm(headers=(("api-key", SECRET),))
    asked = client(server, form)
    here = server.url.removesuffix("/v1")
    call = asked.check() if path == "/models" else asked.ask(text_request("?"))
    with pytest.raises((VlmEvalError, RequestError)) as caught:
        await call
    assert str(caught.value) == (
        f"{server.url}{path} answered {status}: {here} redirects to {there}, and "
        "requests with their key go only to the server that was named. If "
        f"{there} is the right one, give its URL with --vlm-api-base."
    )
    await asked.close()
    listening.close()
    assert not arrived


def test_a_redirect_within_a_server_is_followed_once(server: ServerProcess) -> None:
    """As FastAPI does for a slash that is left out; only the first request pays."""
    place = "/chat/completions"
    server.control(rules=[moved(server, "/chat/completions", path=place, times=1)])
    assert ask(client(server), times=3) == ["A"] * 3
    assert len(server.requests(None)) == 4


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            {"status": 302, "location": "/login?next=x", "shape": "empty"},
            "{url}/chat/completions answered 302, a redirect to {host}/login that "
            "would make the request one without a prompt. Give the URL that answers "
            "with --vlm-api-base.",
        ),
        (
            {"status": 307, "shape": "empty"},
            "{url}/chat/completions answered 307, a redirect without a valid address. "
            "See the server's log, or give the URL of another with --vlm-api-base.",
        ),
        (
            {"status": 308, "location": "ftp://x/y", "shape": "empty"},
            "{url}/chat/completions answered 308, a redirect without a valid address. "
            "See the server's log, or give the URL of another with --vlm-api-base.",
        ),
        (
            {"status": 307, "location": "/v1/chat/completions", "shape": "empty"},
            "{url}/chat/completions redirects again and again, last to "
            "{url}/chat/completions. Give the URL that answers with --vlm-api-base.",
        ),
    ],
)
def test_redirects_that_lead_nowhere(
    server: ServerProcess, rule: dict[str, object], said: str
) -> None:
    server.control(rules=[rule])
    with pytest.raises(RequestError) as caught:
        ask(client(server))
    host = server.url.removesuffix("/v1")
    assert str(caught.value) == said.format(url=server.url, host=host)
    assert (caught.value.kind, caught.value.retryable) == ("status", False)


def draw(width: int, height: int, kind: str, mode: str = "RGB") -> bytes:
    """Draw an image that has that size."""
    out = io.BytesIO()
    Image.new(mode, (width, height), 128 if mode == "L" else None).save(out, kind)
    return out.getvalue()


@pytest.mark.parametrize(
    ("bounds", "size"),
    [
        (Prompting(image_size=100), (100, 50)),
        (Prompting(image_size=400), (400, 200)),
        (Prompting(image_size=500), (400, 200)),
        (Prompting(max_pixels=20_000), (200, 100)),
        (Prompting(max_pixels=20_000, image_size=50), (50, 25)),
        (Prompting(max_pixels=1), (1, 1)),
    ],
)
def test_both_bounds_hold(bounds: Prompting, size: tuple[int, int]) -> None:
    assert target_size(400, 200, bounds) == size


@pytest.mark.parametrize(
    ("kind", "media_type", "mode", "becomes"),
    [
        ("PNG", "image/png", "RGBA", "PNG"),
        ("PNG", "image/png", "P", "PNG"),
        ("JPEG", "image/jpeg", "L", "JPEG"),
        ("JPEG", "image/jpeg", "CMYK", "JPEG"),
        ("WEBP", "image/webp", "RGB", "WEBP"),
        ("BMP", "image/bmp", "RGB", "PNG"),
    ],
)
def test_a_image_keeps_its_format(
    kind: str, media_type: str, mode: str, becomes: str
) -> None:
    data, given = fit_image(
        draw(60, 40, kind, mode), media_type, Prompting(image_size=30)
    )
    with Image.open(io.BytesIO(data)) as image:
        assert (image.size, image.format) == ((30, 20), becomes)
    assert given == f"image/{becomes.lower()}"


def test_a_small_image_stays_byte_by_byte() -> None:
    data = draw(60, 40, "JPEG")
    assert fit_image(data, "image/jpeg", Prompting(image_size=60))[0] is data


def test_a_turned_image_is_turned_before() -> None:
    out = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40)).save(out, "JPEG", exif=exif)
    data, _ = fit_image(out.getvalue(), "image/jpeg", Prompting(image_size=30))
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (20, 30)


def test_what_is_no_image_cannot_be_asked(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    part = PromptPart(kind="image", media="a.png", media_type="image/png")
    request = Request(
        turns=((part,),), media_folder=tmp_path, prompting=Prompting(image_size=30)
    )
    with pytest.raises(RequestError, match=r"image a\.png cannot be made smaller"):
        BodyWriter("model", 10, 0.0).write(request)


OPTIONS = [
    "--vlm-image-size=32",
    "--vlm-image-detail=high",
    "--vlm-system-prompt=Be brief.",
    '--vlm-extra-body={"top_k": 1, "repetition_penalty": 1.5}',
]


def write_bodies(tmp_path: Path, prompting: Prompting) -> dict[str, Any]:
    """Write the body of a prompt with an image."""
    (tmp_path / "a.png").write_bytes(draw(64, 48, "PNG"))
    part = PromptPart(kind="image", media="a.png", media_type="image/png")
    text = PromptPart(kind="text", text="What?")
    request = Request(
        turns=((part, text),),
        media_folder=tmp_path,
        system=prompting.system_prompt,
        prompting=prompting,
    )
    body: dict[str, Any] = json.loads(BodyWriter("model", 10, 0.0).write(request))
    return body


def test_all_of_it_stands_in_the_body(
    load: Callable[..., Settings], tmp_path: Path
) -> None:
    body = write_bodies(tmp_path, load(*OPTIONS).prompting)
    assert (body["top_k"], body["repetition_penalty"]) == (1, 1.5)
    assert (body["max_tokens"], body["temperature"]) == (10, 0)
    system, user = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    image = user["content"][0]["image_url"]
    assert image["detail"] == "high"
    data = base64.b64decode(image["url"].partition(",")[2])
    with Image.open(io.BytesIO(data)) as seen:
        assert seen.size == (32, 24)


@pytest.mark.slow
def test_other_prompts_are_another_run(project: Project, server: ServerProcess) -> None:
    project.write_math(4)
    server.control(default="B")
    project.ask(server.url)
    for number, option in enumerate(OPTIONS, 2):
        project.ask(server.url, option)
        assert len(server.requests()) == 4 * number
        assert len(project.stored("SELECT 1 FROM runs")) == number
    project.ask(server.url)
    assert len(server.requests()) == 4 * (1 + len(OPTIONS))


def test_the_demo_model_takes_prompts_as_they_are(
    load: Callable[..., Settings],
) -> None:
    with pytest.raises(VlmEvalError) as raised:
        load("--vlm-model=demo", *OPTIONS[:2])
    assert str(raised.value) == (
        "--vlm-image-size is for --vlm-backend=endpoint, and the model is of "
        "--vlm-backend=demo. Leave it out, or name another model."
    )


@pytest.mark.parametrize("given", ["[1]", "{", "{}", '{"model": "x"}', '{"n": 2}'])
def test_a_body_that_cannot_be_added(load: Callable[..., Settings], given: str) -> None:
    with pytest.raises(VlmEvalError) as raised:
        load(f"--vlm-extra-body={given}")
    assert str(raised.value) == (
        "--vlm-extra-body=*** is not accepted: --vlm-extra-body takes the text of a "
        "JSON object without keys or passwords, without messages, stream and n, and "
        "with model, max_tokens and temperature only as null, which leaves them out."
    )
