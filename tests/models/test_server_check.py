"""What is found out about an endpoint before a run: its URL, its models, its media."""

from __future__ import annotations

import asyncio
import base64
import socket
import time
from collections.abc import Callable, Collection

import pytest
from PIL import Image

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.addresses import is_public, nearby_bases, swap_scheme
from pytest_vlmeval.models.check import PROBES, Capability, Finding, try_media
from pytest_vlmeval.models.client import is_loopback, normalize_api_base
from pytest_vlmeval.models.endpoint import EndpointClient
from pytest_vlmeval.models.pool import Learned
from pytest_vlmeval.settings.groups import AS_IT_IS, Prompting
from tests.support.endpoint_calls import client_of
from tests.support.run_fixtures import Project, image_bytes, write_table
from tests.support.server_fixtures import ServerProcess

KEY = "sk-secret-0123456789"


def check(
    url: str,
    model: str = "tiny-vlm",
    api_key: str | None = None,
    learned: Learned | None = None,
) -> list[str]:
    """Check an endpoint; return what users are told."""
    told: list[str] = []

    async def run() -> None:
        client = EndpointClient(
            learned=learned or Learned(None, told.append),
            model=model,
            api_base=url,
            api_key=api_key,
            max_tokens=32,
            temperature=0.0,
            timeout_s=60,
            concurrency=2,
        )
        try:
            await client.check()
        finally:
            await client.close()

    asyncio.run(run())
    return told


def complaint(url: str, model: str = "tiny-vlm", api_key: str | None = None) -> str:
    with pytest.raises(VlmEvalError) as caught:
        check(url, model, api_key)
    return str(caught.value)


def test_passes_with_a_served_model(server: ServerProcess) -> None:
    check(server.url)
    check(f"{server.url}/chat/completions")
    assert [record["path"] for record in server.requests(None)] == ["/models"] * 2


def test_no_server() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        text = complaint(f"http://127.0.0.1:{port}", "qwen-vl-chat")
    assert text == (
        f"No server answers at http://127.0.0.1:{port}/v1 (Connection refused). "
        "Start one there:\n"
        "    swift deploy --model CHECKPOINT_OR_MODEL_ID "
        f"--served_model_name qwen-vl-chat --port {port}\n"
        "or give the URL of another with --vlm-api-base, or run without a server with "
        "--vlm-model=demo."
    )


@pytest.mark.slow
def test_server_that_never_answers(server: ServerProcess) -> None:
    server.control(rules=[{"path": "/models", "fault": "hang"}, {"fault": "hang"}])
    started = time.monotonic()
    text = complaint(server.url)
    assert time.monotonic() - started < 30  # a request may take 60
    assert text.startswith(f"No server answers at {server.url} (no answer within 5 s).")


def test_model_that_is_not_served(server: ServerProcess) -> None:
    server.control(models=["qwen2-vl-7b", "qwen-vl-chat"])
    assert complaint(server.url, "qwen-vl-chta") == (
        f"The server at {server.url} does not serve 'qwen-vl-chta'. Did you mean "
        "qwen-vl-chat? It serves: qwen2-vl-7b, qwen-vl-chat. Give one of these with "
        f"--vlm-model. It was asked all the same, and refused: {server.url} answered "
        "400: `qwen-vl-chta` is not in the model_list: `['qwen2-vl-7b', "
        "'qwen-vl-chat']`."
    )


def test_server_with_many_models(server: ServerProcess) -> None:
    server.control(models=[f"m{number:02}" for number in range(25)])
    text = complaint(server.url, "llava")
    assert "does not serve 'llava'. It serves: m00, m01," in text
    assert "m18, m19 and 5 more. Give one" in text


def test_server_without_models(server: ServerProcess) -> None:
    server.control(models=[])
    assert "does not serve 'llava'. It serves: none." in complaint(server.url, "llava")


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, f"invalid key {KEY}"), (403, "forbidden"), (400, "API key error")],
)
@pytest.mark.parametrize("api_key", [None, KEY])
def test_a_key_is_missing_or_refused(
    server: ServerProcess, status: int, message: str, api_key: str | None
) -> None:
    rule = {"status": status, "message": message}
    server.control(rules=[{**rule, "path": "/models"}, rule])
    said = message.replace(KEY, "***") if api_key else message
    wrong = "refuses the API key" if api_key else "requires an API key"
    assert complaint(server.url, api_key=api_key) == (
        f"The server at {server.url} {wrong}: it answered {status} ({said}). Set "
        "VLM_API_KEY, or give a file that holds the key with --vlm-api-key-file."
    )


@pytest.mark.parametrize(("status", "asked"), [(401, 0), (403, 1)])
def test_only_a_403_may_be_of_the_list_alone(
    server: ServerProcess, status: int, asked: int
) -> None:
    """A key may be restricted to chat, and then has no scope for the list."""
    said = "Missing scopes: api.model.read"
    server.control(
        rules=[{"path": "/models", "status": status, "message": said}],
    )
    if asked:
        assert check(server.url) == [
            f"{server.url}/models answered 403 ({said}). A request for 'tiny-vlm' was "
            "answered, so that the run goes on."
        ]
    else:
        assert "requires an API key" in complaint(server.url)
    assert len(server.requests()) == asked


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"fault": "hang"}, "no answer within 5 s"),
        ({"fault": "reset"}, "Connection reset by peer"),
        ({"fault": "broken_body"}, "broken off in the middle of an answer"),
        (
            {"status": 302, "location": "https://login.invalid/?next=x"},
            "{url}/models answered 302: {host} redirects to https://login.invalid, and "
            "requests with their key go only to the server that was named. If "
            "https://login.invalid is the right one, give its URL with --vlm-api-base",
        ),
        (
            {"status": 302, "location": "/v1/models"},
            "{url}/models redirects again and again, last to {url}/models. Give the "
            "URL that answers with --vlm-api-base",
        ),
    ],
)
def test_a_list_that_cannot_be_had_is_no_proof_against_a_server(
    server: ServerProcess, rule: dict[str, object], said: str
) -> None:
    server.control(rules=[{**rule, "path": "/models"}])
    host = server.url.removesuffix("/v1")
    assert check(server.url) == [
        f"{server.url}/models cannot be read ({said.format(url=server.url, host=host)})"
        ". A request for 'tiny-vlm' was answered, so that the run goes on."
    ]
    assert len(server.requests()) == 1


def test_right_key(server: ServerProcess) -> None:
    server.control(api_key=KEY)
    check(server.url, api_key=KEY)
    assert "refuses the API key" in complaint(server.url, api_key="another")


LISTS: list[tuple[dict[str, object], str]] = [
    ({"status": 404, "shape": "plain", "message": "no"}, "answered 404 (no)"),
    ({"status": 405, "shape": "empty"}, "answered 405"),
    ({"status": 501, "shape": "openai", "message": "none"}, "answered 501 (none)"),
    ({"status": 500, "shape": "plain", "message": "oh no"}, "answered 500 (oh no)"),
    ({"status": 400, "message": ""}, "answered 400"),
    (
        {"fault": "not_json"},
        "answered with what is not a list of models: HTML page 'It works!'",
    ),
    (
        {"body": {"object": "list", "data": None}},
        'answered with what is not a list of models: {"object": "list", "data": null}',
    ),
    ({"body": None}, "answered with what is not a list of models: null"),
    (
        {"body": [{"object": "model"}, 3, None]},
        'answered with what is not a list of models: [{"object": "model"}, 3, null]',
    ),
]


@pytest.mark.parametrize(("rule", "said"), LISTS)
def test_without_a_list_one_request_decides(
    server: ServerProcess, rule: dict[str, object], said: str
) -> None:
    server.control(rules=[{**rule, "path": "/models"}])
    assert check(server.url) == [
        f"{server.url}/models {said}. A request for 'tiny-vlm' was answered, so that "
        "the run goes on."
    ]
    assert [each["path"] for each in server.requests(None)] == [
        "/models",
        "/chat/completions",
    ]
    # As small as a request can be, and what the options leave out is left out.
    (asked,) = server.requests()
    assert (asked["text"], asked["params"]) == (
        "Hi",
        {"max_tokens": 16, "temperature": 0.0},
    )


@pytest.mark.parametrize(
    "body",
    [
        [{"id": "tiny-vlm", "object": "model"}],
        ["tiny-vlm"],
        {"models": [{"name": "tiny-vlm"}]},
        {"models": [{"name": "models/tiny-vlm", "version": "1"}]},
        {"data": [{"id": "other"}, {"id": "tiny-vlm", "root": "/w"}]},
        {"data": [{"name": "Tiny", "model": "tiny-vlm"}]},
    ],
)
def test_a_list_of_any_shape_is_read(server: ServerProcess, body: object) -> None:
    server.control(rules=[{"path": "/models", "body": body}])
    assert check(server.url) == []
    assert not server.requests()


def test_what_a_list_of_any_shape_says_of_the_model_is_evidence(
    server: ServerProcess,
) -> None:
    entry = {"name": "tiny-vlm", "created": 17, "root": "/weights/a"}
    server.control(rules=[{"path": "/models", "body": {"models": [entry]}}])

    async def describe() -> dict[str, str]:
        client = client_of(server.url)
        await client.check()
        return dict(await client.describe())

    assert asyncio.run(describe()) == {"created": "17", "root": "/weights/a"}


@pytest.mark.parametrize("listed", [["gpt-4o"], []])
def test_a_name_that_is_not_listed_is_asked_once(
    server: ServerProcess, listed: list[str]
) -> None:
    rule = {"path": "/models", "body": {"data": [{"id": name} for name in listed]}}
    server.control(models=["tiny-vlm:nitro"], rules=[rule])
    assert check(server.url, "tiny-vlm:nitro") == [
        f"The server at {server.url} does not list 'tiny-vlm:nitro', but: "
        f"{', '.join(listed) or 'none'}. A request for 'tiny-vlm:nitro' was answered, "
        "so that the run goes on."
    ]
    assert len(server.requests()) == 1


def test_a_refusal_of_the_small_request_alone_stops_nothing(
    server: ServerProcess,
) -> None:
    """A model that takes no text without an image is a model all the same."""
    said = "at least one image is required"
    server.control(
        rules=[
            {"path": "/models", "status": 404, "shape": "empty"},
            {"status": 400, "message": said},
        ]
    )
    assert check(server.url) == [
        f"{server.url}/models answered 404. A request for 'tiny-vlm' was refused "
        f"({server.url} answered 400: {said}), so that the run goes on."
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (
            {"status": 404, "shape": "detail", "message": "Not Found"},
            "{url}/models answered 404 (body: Not Found), and {url}/chat/completions "
            "answered 404: body: Not Found. Either this is not the base URL of an "
            "OpenAI-compatible API, which mostly ends in /v1: give it with "
            "--vlm-api-base. Or the server does not serve 'tiny-vlm': give the name "
            "with --vlm-model.",
        ),
        (
            {"status": 503, "shape": "plain", "message": "loading"},
            "The server at {url} cannot be asked: its list of models answered 503 "
            "(loading), and a request for 'tiny-vlm' has no answer: {url} answered "
            "503: loading. See its log, give the URL of another with --vlm-api-base, "
            "or the name that it serves with --vlm-model.",
        ),
        (
            {"fault": "not_json"},
            "{url}/models answered with what is not a list of models: "
            "HTML page 'It works!', and a request for 'tiny-vlm' has no "
            "answer: {url} answered 200 with what is not JSON: "
            "HTML page 'It works!'. Is this the base URL of an "
            "OpenAI-compatible API? Such URLs mostly end in /v1. Give it with "
            "--vlm-api-base.",
        ),
    ],
)
def test_a_wrong_place_is_told(
    server: ServerProcess, rule: dict[str, object], said: str
) -> None:
    server.control(rules=[{**rule, "path": "/models"}, rule])
    assert complaint(server.url) == said.format(url=server.url)


def test_a_key_that_only_the_request_needs(server: ServerProcess) -> None:
    server.control(
        rules=[
            {"path": "/models", "status": 404, "shape": "empty"},
            {"status": 401, "shape": "openai", "message": "no key"},
        ]
    )
    assert complaint(server.url) == (
        f"The server at {server.url} requires an API key: it answered 401 (no key). "
        "Set VLM_API_KEY, or give a file that holds the key with --vlm-api-key-file."
    )


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1/", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1//", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1/chat/completions", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1/chat/completions/", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/v1//chat/completions", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8000/v1"),
        ("http://host/chat/completions", "http://host/v1"),
        ("https://host/api/v3", "https://host/api/v3"),
        (" HTTP://Host:80/V1 ", "http://host:80/V1"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_api_base(given: str, base: str) -> None:
    assert normalize_api_base(given) == base


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            "127.0.0.1:8000/v1",
            "The API base '127.0.0.1:8000/v1' has no scheme. Write it with http:// or "
            "https:// in front, such as http://127.0.0.1:8000/v1.",
        ),
        (
            "ftp://host/v1",
            "The API base 'ftp://host/v1' is not an http or https URL. Give one such "
            "as http://127.0.0.1:8000/v1.",
        ),
        (
            "http://host:port/v1",
            "The API base 'http://host:port/v1' has no valid host and port. Give a "
            "URL such as http://127.0.0.1:8000/v1.",
        ),
        (
            "http:///v1",
            "The API base 'http:///v1' has no valid host and port. Give a URL such as "
            "http://127.0.0.1:8000/v1.",
        ),
        *(
            (
                given,
                "The API base that was given is not an address. It is not shown, as it "
                "may be a key. Give a URL such as http://127.0.0.1:8000/v1, and a key "
                "with VLM_API_KEY or --vlm-api-key-file.",
            )
            for given in (KEY, f"id.{KEY}", f"a.b.{KEY}", f"{KEY}/x+y==")
        ),
        *(
            (
                given,
                "The API base for host:81 carries a user, a query or a fragment, which "
                "are not accepted. Give a URL such as http://127.0.0.1:8000/v1, and "
                "the key with VLM_API_KEY or --vlm-api-key-file.",
            )
            for given in (
                f"http://user:{KEY}@host:81/v1",
                f"http://user:{KEY}@host:81/v1?key={KEY}",
                f"http://host:81/v1#{KEY}",
            )
        ),
        (
            f"http://host:81/openai/deployments/x?key={KEY}",
            "The API base for host:81 carries a query. Give the URL without the ? and "
            "what follows it, and that with --vlm-api-query, such as "
            "--vlm-api-query=api-version=2024-10-21: what it holds is never shown.",
        ),
    ],
)
def test_api_base_that_is_not_accepted(given: str, text: str) -> None:
    with pytest.raises(VlmEvalError) as caught:
        normalize_api_base(given)
    assert str(caught.value) == text


@pytest.mark.parametrize("given", [f"user:{KEY}@host", f"ftp://u:{KEY}@h?k={KEY}"])
def test_api_base_never_shows_a_password(given: str) -> None:
    with pytest.raises(VlmEvalError) as caught:
        normalize_api_base(given)
    assert KEY not in str(caught.value)


def test_loopback() -> None:
    local = ["127.0.0.1:8000", "127.8.0.1", "localhost:8000", "[::1]:8000"]
    assert all(is_loopback(f"http://{host}/v1") for host in local)
    remote = ["10.0.0.1:8000", "localhost.example", "[2001:db8::1]"]
    assert not any(is_loopback(f"http://{host}/v1") for host in remote)


NO_IMAGES = {"images": 1, "status": 400, "message": "no eyes"}
ONE_IMAGE = {"images": 2, "status": 400, "message": "At most 1 image(s)"}
NO_VIDEO = {"videos": 1, "status": 422, "shape": "detail", "message": "no video_url"}
ALL: tuple[Capability, ...] = ("image", "images", "video")
BENCHMARK = """
from pytest_vlmeval import Benchmark

class TestMine(Benchmark):
    datasets = ["one.tsv", "several.tsv", "words.tsv"]
"""


def find_out(
    server: ServerProcess,
    wanted: Collection[Capability] = ALL,
    prompting: Prompting = AS_IT_IS,
) -> dict[Capability, Finding]:
    async def run() -> list[Finding]:
        client = client_of(server.url)
        try:
            return await try_media(client, wanted, prompting)
        finally:
            await client.close()

    return {finding.capability: finding for finding in asyncio.run(run())}


def states(found: dict[Capability, Finding]) -> list[str]:
    return [found[capability].state for capability in ALL]


def orders(server: ServerProcess) -> list[object]:
    return [request["order"] for request in server.requests()]


IMAGE, VIDEO, TEXT = "image_url", "video_url", "text"


@pytest.mark.parametrize(
    ("rules", "expected", "requests"),
    [
        ([], ["accepted"] * 3, [[IMAGE, IMAGE, TEXT], [VIDEO, TEXT]]),
        (
            [ONE_IMAGE],
            ["accepted", "refused", "accepted"],
            [[IMAGE, IMAGE, TEXT], [IMAGE, TEXT], [VIDEO, TEXT], [TEXT]],
        ),
        (
            [NO_IMAGES],
            ["refused", "refused", "accepted"],
            [[IMAGE, IMAGE, TEXT], [IMAGE, TEXT], [VIDEO, TEXT], [TEXT]],
        ),
        (
            [NO_VIDEO],
            ["accepted", "accepted", "refused"],
            [[IMAGE, IMAGE, TEXT], [VIDEO, TEXT], [TEXT]],
        ),
    ],
    ids=["all", "one image", "no images", "no video"],
)
def test_what_is_refused_is_found_with_a_request_for_each(
    server: ServerProcess,
    rules: list[dict[str, object]],
    expected: list[str],
    requests: list[object],
) -> None:
    server.control(rules=rules)
    assert states(find_out(server)) == expected
    assert orders(server) == requests


def test_only_what_is_needed_is_tried(server: ServerProcess) -> None:
    assert find_out(server, ["image"])["image"].state == "accepted"
    assert orders(server) == [[IMAGE, TEXT]]
    server.control()
    assert find_out(server, []) == {}
    assert orders(server) == []


def test_the_words_of_the_server_are_kept(server: ServerProcess) -> None:
    server.control(rules=[NO_VIDEO])
    assert find_out(server, ["video"])["video"] == Finding(
        capability="video",
        state="refused",
        words=f"{server.url} answered 422: body: no video_url",
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"status": 500, "message": "oh no"}, "answered 500: oh no"),
        ({"status": 503, "images": 1, "message": "busy"}, "answered 503: busy"),
        ({"fault": "reset"}, "failed: "),
        ({"fault": "not_json"}, "answered 200 with what is not JSON"),
        # Whatever it does not like, it is not the image.
        ({"status": 400, "message": "temperature is odd"}, "temperature is odd"),
    ],
)
def test_a_broken_server_refuses_nothing(
    server: ServerProcess, rule: dict[str, object], words: str
) -> None:
    server.control(rules=[rule])
    found = find_out(server)
    assert "refused" not in states(found)
    assert found["images"].state == "unknown"
    assert words in found["images"].words
    refuses = rule.get("status") == 400
    # What is out of order is asked once.
    assert len(server.requests()) == (4 if refuses else 1)


def test_requests_are_sent_as_those_of_the_run(server: ServerProcess) -> None:
    prompting = Prompting(
        system_prompt="Be brief.", extra_body='{"top_k": 1}', image_detail="low"
    )
    find_out(server, ["image"], prompting)
    (request,) = server.requests()
    assert request["system"] == "Be brief."
    assert request["params"] == {"max_tokens": 8, "temperature": 0.5, "top_k": 1}


def test_the_probes_are_what_they_are_sent_as() -> None:
    with Image.open(PROBES / "image.png") as image:
        assert (image.format, image.size) == ("PNG", (64, 64))
    video = (PROBES / "video.mp4").read_bytes()
    assert video[4:8] == b"ftyp"
    assert b"avc1" in video  # H.264, which every server decodes
    assert len(video) < 4_000


def encoded(*seeds: int) -> str:
    texts = [base64.b64encode(image_bytes(seed)).decode() for seed in seeds]
    return str(texts) if len(texts) > 1 else texts[0]


@pytest.fixture
def checking(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Give a project whose datasets need one image, several, and none."""
    monkeypatch.delenv("VLM_MEDIA_CHECK")
    folder = project.pytester.path
    project.pytester.makepyfile(test_mine=BENCHMARK)
    for name, seeds in {"one": (1,), "several": (2, 3), "words": ()}.items():
        rows = [
            {"question": f"Which <{name} {number}>?", "answer": "A"}
            | ({"image": encoded(*seeds)} if seeds else {})
            for number in (1, 2)
        ]
        write_table(folder / f"{name}.tsv", rows)
    return project


def probes(server: ServerProcess) -> int:
    return sum("<" not in str(request["text"]) for request in server.requests())


@pytest.mark.slow
def test_a_run_asks_once_for_all_its_processes_and_runs(
    checking: Project, server: ServerProcess
) -> None:
    checking.ask(server.url, "-n", "2").assert_outcomes(passed=9)
    # Two images are taken, so one is.
    assert probes(server) == 1
    assert len(server.requests()) == 7
    server.control()
    # Nothing is missing, nothing is asked.
    checking.ask(server.url)
    assert server.requests() == []
    # What is remembered of the run is not asked again for more of its samples.
    checking.pytester.path.joinpath("one.tsv").unlink()
    write_table(
        checking.pytester.path / "one.tsv",
        [{"question": "Which <new>?", "answer": "A", "image": encoded(9)}],
    )
    checking.ask(server.url, "-k", "one and not regression")
    assert [request["text"] for request in server.requests()] != []
    assert probes(server) == 0


@pytest.mark.slow
def test_what_is_lacking_stops_the_run_before_it(
    checking: Project,
    server: ServerProcess,
    vlm_server: Callable[..., ServerProcess],
) -> None:
    server.control(rules=[ONE_IMAGE])
    result = checking.ask(server.url, "-n", "2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            f"*The endpoint {server.url} answers a prompt of text alone, but refuses:",
            "    several images in one prompt, which several needs "
            f"({server.url} answered 400: At most 1 image(s))",
            "vLLM takes more with --limit-mm-per-prompt. Give another with "
            "--vlm-api-base, leave these datasets out, or ask all the same with "
            "--vlm-media-check=warn.",
        ]
    )
    assert probes(server) == len(server.requests()) == 3
    # What the other datasets need is there; that is known by now.
    checking.ask(server.url, "-k", "not several and not regression").assert_outcomes(
        passed=6
    )
    assert probes(server) == 3
    # Another server takes them; of another run, so that this one still misses some.
    other = vlm_server()
    arguments = ("-k", "several and not regression", "--vlm-max-tokens=99")
    assert checking.ask(server.url, *arguments).ret == pytest.ExitCode.USAGE_ERROR
    checking.ask(other.url, *arguments).assert_outcomes(passed=3)
    assert probes(other) == 1
    # The server may be another one by now: it is tried again.
    server.control()
    checking.ask(server.url).assert_outcomes(passed=9)
    assert probes(server) == 1


@pytest.mark.slow
def test_a_model_without_eyes_is_told_with_all_that_need_them(
    checking: Project, server: ServerProcess
) -> None:
    server.control(rules=[NO_IMAGES])
    result = checking.ask(server.url, "--vlm-media-check=warn")
    result.stdout.fnmatch_lines(
        [
            f"vlmeval: The endpoint {server.url} answers a prompt of text alone, but "
            "refuses:",
            f"    images, which one, several need ({server.url} answered 400: no eyes)",
            "Serve a vision-language model. *",
        ]
    )
    # The words are answered, the images are asked for all the same.
    result.assert_outcomes(passed=3, failed=6)
    server.control(rules=[NO_IMAGES])
    checking.ask(
        server.url, "--vlm-fresh", "-k", "words and not regression"
    ).assert_outcomes(passed=3)
    assert probes(server) == 0


def test_a_broken_server_is_named_and_asked_all_the_same(
    checking: Project, server: ServerProcess
) -> None:
    server.control(rules=[{"first": 1, "status": 500, "message": "oh no"}])
    result = checking.ask(server.url, "-k", "one and not regression")
    result.assert_outcomes(passed=3)
    result.stdout.fnmatch_lines(
        [
            f"vlmeval: whether {server.url} takes images could not be found out "
            f"({server.url} answered 500: oh no); the run goes on."
        ]
    )


def test_answers_in_the_cache_need_no_try(
    checking: Project, server: ServerProcess
) -> None:
    checking.ask(server.url, "-k", "one and not regression").assert_outcomes(passed=3)
    table = checking.pytester.path / "one.tsv"
    # The same questions and images under another name: another dataset.
    table.rename(table.with_name("several.tsv"))
    server.control()
    checking.ask(server.url, "-k", "several and not regression").assert_outcomes(
        passed=3
    )
    assert server.requests() == []


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("http://h:8000/v1", ["http://h:8000/v1/v1"]),
        ("http://h:8000/api", ["http://h:8000/v1", "http://h:8000/api/v1"]),
        (
            "http://h/gateway/v1/models",
            ["http://h/gateway/v1", "http://h/v1", "http://h/gateway/v1/models/v1"],
        ),
        ("https://[::1]:80/v2", ["https://[::1]:80/v1", "https://[::1]:80/v2/v1"]),
    ],
)
def test_nearby_bases(given: str, near: list[str]) -> None:
    assert nearby_bases(given) == near


def test_the_other_scheme_of_an_address() -> None:
    assert swap_scheme("http://h:80/v1") == "https://h:80/v1"
    assert swap_scheme("https://h/http:/v1") == "http://h/http:/v1"


def test_which_addresses_are_on_the_internet() -> None:
    for host in ("api.openai.com", "1.1.1.1", "[2606:4700::1111]:8443"):
        assert is_public(f"https://{host}/v1"), host
    for host in (
        *("127.0.0.1:8000", "localhost:8000", "gpu7", "10.0.0.3", "[::1]", "[fd00::1]"),
        *("gpu7.local", "vllm.svc.internal", "api.localhost"),
    ):
        assert not is_public(f"http://{host}/v1"), host
