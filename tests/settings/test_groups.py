"""How a model and its judges are asked: members, queries, headers, keys, addresses."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import OutageError, RequestError
from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.models.pool import Learned
from pytest_vlmeval.models.refusals import MemberRefusal, read_refusal
from pytest_vlmeval.settings import Settings, load_from
from pytest_vlmeval.settings.groups import (
    OFFICIAL,
    PLAIN,
    RequestForm,
    parse_query,
    read_headers,
)
from pytest_vlmeval.settings.sources import pytest_sources
from tests.support.endpoint_calls import text_request
from tests.support.option_calls import Load
from tests.support.option_calls import load as load
from tests.support.refusing import ONLY_1, RENAME, openai_error, refuse
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
        f"{server.url} takes the token limit as max_completion_tokens and not as "
        "max_tokens: it is sent so from now on "
        "(--vlm-max-tokens-name=max_completion_tokens says it at once)."
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
        f"No request is taken with its token limit: {server.url} answered 400: "
        f"{RENAME} --vlm-max-tokens-name=NAME sends it under another name, and "
        "--vlm-max-tokens=none leaves it out."
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
        f"No request is taken with its temperature: {server.url} answered 400: "
        f"{ONLY_1} --vlm-{prefix}temperature=none leaves it out, so that the "
        f"server's own counts, and --vlm-{prefix}temperature=T sends another. Both "
        "change the answers, and so are never done without being asked for."
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


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            f"api-key: {SECRET}\n{SECRET}\n",
            ", line 2 is not a header: write Name: value.",
        ),
        (f"api key: {SECRET}", ", line 1 is not a header: write Name: value."),
        (
            f"# ours\n\nHost: {SECRET}",
            ", line 3 gives Host, which each request sets by itself. Leave it out.",
        ),
        (f"a: 1\nA: {SECRET}", ", line 2 gives A a second time."),
        ("a:", ", line 1 gives a a value that cannot be sent: printable ASCII can."),
        ("a: schlüssel", ", line 1 gives a a value that cannot be sent: printable ASC"),
        ("# nothing\n", " holds no header. Write one a line: Name: value."),
    ],
)
def test_a_file_of_headers_that_cannot_be_used(
    tmp_path: Path, text: str, said: str
) -> None:
    file = tmp_path / "headers"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(VlmEvalError) as caught:
        read_headers(file, "--vlm-api-header-file=headers")
    assert str(caught.value).startswith(f"--vlm-api-header-file=headers{said}")
    assert SECRET not in str(caught.value)


def test_a_file_of_headers_is_read(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("\ufeff# Azure\napi-key:  k:1 \n\nX-Y: 2\r\n", encoding="utf-8")
    assert read_headers(file, "") == (("api-key", "k:1"), ("X-Y", "2"))
    with pytest.raises(VlmEvalError) as caught:
        read_headers(tmp_path / "none", "--vlm-api-header-file=none")
    assert str(caught.value) == (
        "--vlm-api-header-file=none cannot be read (No such file or directory). Give a "
        "readable text file that holds a header a line: Name: value."
    )


def test_options_of_requests(load: Load, tmp_path: Path) -> None:
    headers = tmp_path / "h"
    headers.write_text(f"api-key: {SECRET}")
    settings = load(
        "--vlm-max-tokens=none",
        "--vlm-temperature=none",
        "--vlm-max-tokens-name=limit",
        f"--vlm-api-query=a={SECRET}&b=",
        f"--vlm-api-header-file={headers}",
        '--vlm-extra-body={"top_p": 1, "seed": null, "model": null}',
    )
    assert (settings.max_tokens, settings.temperature) == (None, None)
    form = settings.form
    assert form.max_tokens_name == "limit"
    assert form.left_out == {"max_tokens", "temperature", "seed", "model"}
    assert form.query == (("a", SECRET), ("b", ""))
    assert form.headers == (("api-key", SECRET),)
    assert settings.prompting.extra_body == '{"top_p": 1}'
    # Null in the body is the same run as the option's none.
    other = load('--vlm-extra-body={"max_tokens": null, "temperature": null}')
    assert (other.max_tokens, other.temperature) == (None, None)
    assert other.prompting.extra_body == ""


def test_options_of_a_judge_s_requests(load: Load) -> None:
    judge = ("--vlm-judge=gpt-5", "--vlm-judge-api-base=http://127.0.0.1:1/v1")
    (plain,) = load(*judge).judges
    assert plain.label == "gpt-5"
    settings = load(
        *judge,
        "--vlm-judge-temperature=none",
        "--vlm-judge-max-tokens=9000",
        "--vlm-judge-max-tokens-name=max_completion_tokens",
        f"--vlm-judge-api-query=k={SECRET}",
        '--vlm-judge-extra-body={"reasoning_effort": "low", "model": null}',
    )
    (asked,) = settings.judges
    # Asked otherwise it is another judge: its scores and replies are others.
    label = (
        'gpt-5 (max_tokens=9000, temperature=none, extra_body={"reasoning_effort": '
        '"low"})'
    )
    assert asked.label == label
    assert settings.judging == f"judge {label} at http://127.0.0.1:1/v1"
    assert asked.asking.changes == {"temperature": None, "max_tokens": 9000}
    form = asked.asking.form
    assert form.max_tokens_name == "max_completion_tokens"
    assert form.left_out == {"temperature", "model"}
    assert form.query == (("k", SECRET),)
    assert SECRET not in repr(settings.judges)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--vlm-model=demo", "--vlm-temperature=none"],
            "--vlm-temperature=none leaves it to the model's server, and "
            "--vlm-backend=demo has none. Give a number, or leave it out.",
        ),
        (
            ["--vlm-model=m", "--vlm-backend=local", f"--vlm-api-query=a={SECRET}"],
            "--vlm-api-query is for --vlm-backend=endpoint, and the model is of "
            "--vlm-backend=local. Leave it out: ",
        ),
        (
            [f"--vlm-api-query={SECRET}"],
            "--vlm-api-query=*** is not accepted: --vlm-api-query takes NAME=VALUE "
            "pairs, joined by &.",
        ),
        (
            ["--vlm-max-tokens-name=temperature"],
            "--vlm-max-tokens-name=temperature is not accepted: --vlm-max-tokens-name "
            "takes the name of a member, such as max_completion_tokens.",
        ),
        (
            [f'--vlm-extra-body={{"headers": {{"Authorization": "{SECRET}"}}}}'],
            "--vlm-extra-body=*** is not accepted: --vlm-extra-body takes the text "
            "of a JSON object without keys or passwords, in which messages, stream and "
            "n do not stand, and model, max_tokens and temperature only as null, to "
            "leave them out.",
        ),
        (
            ["--vlm-temperature=0.5", '--vlm-extra-body={"temperature": null}'],
            "--vlm-temperature=0.5 and null for temperature in --vlm-extra-body "
            "exclude each other. Leave one of them out.",
        ),
        (
            [
                *("--vlm-judge=j", "--vlm-judge-api-base=http://h/v1"),
                "--vlm-judge-max-tokens=5",
                '--vlm-judge-extra-body={"max_tokens": null}',
            ],
            "--vlm-judge-max-tokens=5 and null for max_tokens in "
            "--vlm-judge-extra-body exclude each other. Leave one of them out.",
        ),
        (
            ["--vlm-repeat=3"],
            "--vlm-repeat=3 asks each sample 3 times, but at --vlm-temperature=0 a "
            "model answers alike each time.",
        ),
        (
            [f"--vlm-api-key-file={SECRET}"],
            "--vlm-api-key-file=*** cannot be read (No such file or directory). Give a "
            "readable text file that holds only the key, or set VLM_API_KEY.",
        ),
        (
            [f"--vlm-api-base=https://{SECRET}@host/v1", "--vlm-limit=x"],
            "--vlm-limit=x is not accepted",
        ),
    ],
)
def test_options_that_cannot_be_used(
    load: Load, arguments: list[str], said: str
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        load(*arguments)
    assert str(caught.value).startswith(said)
    assert SECRET not in str(caught.value)


def test_a_header_in_the_key_s_place(load: Load, tmp_path: Path) -> None:
    headers = tmp_path / "h"
    headers.write_text(f"Authorization: Bearer {SECRET}")
    with pytest.raises(VlmEvalError) as caught:
        load(f"--vlm-api-header-file={headers}", environ={"VLM_API_KEY": "k"})
    assert str(caught.value) == (
        "--vlm-api-header-file gives Authorization, and so does the API key "
        "(VLM_API_KEY, --vlm-api-key-file). Leave one of them out."
    )
    judge = [
        *("--vlm-judge=j", "--vlm-judge-api-base=https://api.openai.com/v1"),
        f"--vlm-judge-api-header-file={headers}",
    ]
    with pytest.raises(VlmEvalError, match="VLM_JUDGE_API_KEY, --vlm-judge-api-key-f"):
        load(*judge, environ={"VLM_JUDGE_API_KEY": "k"})
    # Nobody said that this one is for there.
    (chosen,) = load(*judge, environ={"OPENAI_API_KEY": "k"}).judges
    assert chosen.api_key is None


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


LoadJudges = Callable[..., Settings]
OURS = "--vlm-judge-api-base=http://judge/v1"


@pytest.fixture
def load_judges(pytester: pytest.Pytester) -> LoadJudges:
    """Return what loads settings from arguments and environment."""

    def load_judges(*arguments: str, **environ: str) -> Settings:
        return load_from(pytest_sources(pytester.parseconfig(*arguments), environ))

    return load_judges


def judges(settings: Settings) -> list[tuple[str, str, str | None]]:
    return [
        (each.name, " ".join(each.api_bases), each.api_key) for each in settings.judges
    ]


def test_without_any_it_is_exact_matching(load_judges: LoadJudges) -> None:
    assert load_judges().judges == ()
    assert load_judges().judging == "exact matching (no judge)"


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        (
            [],
            {
                "LOCAL_LLM": "qwen",
                "OPENAI_API_BASE": "http://own:1/v1/chat/completions",
            },
            ("qwen", "http://own:1/v1/chat/completions", None),
        ),
        (
            [],
            {
                "LOCAL_LLM": "qwen",
                "OPENAI_API_BASE": "http://own",
                "OPENAI_API_KEY": "k",
            },
            ("qwen", "http://own", "k"),
        ),
        # The command line comes first.
        (
            ["--vlm-judge=other", OURS],
            {
                "LOCAL_LLM": "qwen",
                "OPENAI_API_BASE": "http://own",
                "OPENAI_API_KEY": "k",
            },
            ("other", "http://judge/v1", None),
        ),
        (
            ["--vlm-judge=other", OURS],
            {"VLM_JUDGE_API_KEY": "own", "OPENAI_API_KEY": "k"},
            ("other", "http://judge/v1", "own"),
        ),
        (
            [OURS],
            {"LOCAL_LLM": "qwen", "OPENAI_API_BASE": "http://own"},
            ("qwen", "http://judge/v1", None),
        ),
        # Named and paid for.
        (
            ["--vlm-judge=gpt-4o-mini"],
            {"OPENAI_API_KEY": "k"},
            ("gpt-4o-mini", OFFICIAL, "k"),
        ),
        (
            ["--vlm-judge=gpt-4o-mini", f"--vlm-judge-api-base={OFFICIAL}"],
            {"OPENAI_API_KEY": "k"},
            ("gpt-4o-mini", OFFICIAL, "k"),
        ),
        (
            [],
            {
                "VLM_JUDGE": "gpt-4o-mini",
                "OPENAI_API_BASE": "OFFICIAL",
                "OPENAI_API_KEY": "k",
            },
            ("gpt-4o-mini", OFFICIAL, "k"),
        ),
    ],
)
def test_one_judge(
    load_judges: LoadJudges,
    arguments: list[str],
    environ: dict[str, str],
    expected: tuple[str, str, str | None],
) -> None:
    settings = load_judges(*arguments, **environ)
    assert judges(settings) == [expected]
    assert settings.judging == f"judge {expected[0]} at {expected[1]}"


def test_a_key_is_not_shown(load_judges: LoadJudges) -> None:
    settings = load_judges("--vlm-judge=j", OURS, VLM_JUDGE_API_KEY="sk-secret")
    assert settings.judges[0].api_key == "sk-secret"
    assert "sk-secret" not in repr(settings.judges)


@pytest.mark.parametrize(
    ("arguments", "environ", "said"),
    [
        (
            [],
            {"OPENAI_API_KEY": "k"},
            "OPENAI_API_KEY names none, --vlm-judge=NAME does",
        ),
        (
            [],
            {"OPENAI_API_KEY": "k", "OPENAI_API_BASE": "http://own"},
            "OPENAI_API_KEY and OPENAI_API_BASE name none, --vlm-judge=NAME does",
        ),
    ],
)
def test_what_names_no_judge_costs_nothing(
    load_judges: LoadJudges, arguments: list[str], environ: dict[str, str], said: str
) -> None:
    settings = load_judges(*arguments, **environ)
    assert settings.judges == ()
    assert settings.judging == f"exact matching (no judge: {said})"
    # What that advises is the judge, at the address that is there.
    (named,) = load_judges("--vlm-judge=NAME", **environ).judges
    address = environ.get("OPENAI_API_BASE", "https://api.openai.com/v1")
    assert (named.name, named.api_bases) == ("NAME", (address,))


def test_exact_matching_is_forced(load_judges: LoadJudges) -> None:
    settings = load_judges(
        "--vlm-judge=exact_matching", LOCAL_LLM="q", OPENAI_API_BASE="http://own"
    )
    assert (settings.judges, settings.judging) == ((), "exact matching (no judge)")


def test_several_judges_and_where_they_are(load_judges: LoadJudges) -> None:
    names = ["--vlm-judge=a", "--vlm-judge=b"]
    assert judges(load_judges(*names, OURS)) == [
        ("a", "http://judge/v1", None),
        ("b", "http://judge/v1", None),
    ]
    settings = load_judges(
        "--vlm-judge=a,b", OURS, "--vlm-judge-api-base=http://second/v1"
    )
    assert settings.judging == "judge a at http://judge/v1, judge b at http://second/v1"


@pytest.mark.parametrize(
    ("arguments", "environ", "message"),
    [
        (
            ["--vlm-judge=qwen"],
            {},
            "--vlm-judge=qwen names a judge, and nothing says where it is. Give its "
            "URL with --vlm-judge-api-base or OPENAI_API_BASE, or set OPENAI_API_KEY "
            "for https://api.openai.com/v1.",
        ),
        (
            [],
            {"LOCAL_LLM": "qwen", "OPENAI_API_KEY": "k"},
            "LOCAL_LLM=qwen names a judge, and nothing says where it is. Give its URL "
            "with --vlm-judge-api-base or OPENAI_API_BASE, or do without with "
            "--vlm-judge=exact_matching.",
        ),
        (
            ["--vlm-judge=a,exact_matching"],
            {},
            "--vlm-judge=a,exact_matching: exact_matching means to have no judge, and "
            "stands alone.",
        ),
        (
            ["--vlm-judge=a", "--vlm-judge=a", OURS],
            {},
            "--vlm-judge=a,a names a judge twice. Several judges are different models.",
        ),
        (
            ["--vlm-judge=a,b,c", OURS, OURS],
            {},
            "--vlm-judge names 3 judges and --vlm-judge-api-base 2 URLs. Give one URL "
            "for all, or one for each in this order.",
        ),
        (
            ["--vlm-judge=a", OURS, "--vlm-judge-api-key-file=/no/such"],
            {},
            # It may be the key itself.
            "--vlm-judge-api-key-file=*** cannot be read (No such file or directory). "
            "Give a readable text file that holds only the key, or set "
            "VLM_JUDGE_API_KEY.",
        ),
    ],
)
def test_what_does_not_go_together(
    load_judges: LoadJudges, arguments: list[str], environ: dict[str, str], message: str
) -> None:
    with pytest.raises(VlmEvalError) as error:
        load_judges(*arguments, **environ)
    assert str(error.value) == message
