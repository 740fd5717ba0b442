"""What an endpoint takes beside text: tried before a run, told, remembered."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Collection

import pytest
from PIL import Image

from pytest_vlmeval.models.check import PROBES, Capability, Finding, try_media
from pytest_vlmeval.settings.groups import AS_IT_IS, Prompting
from tests.support.endpoint_calls import client_of
from tests.support.run_fixtures import Project, image_bytes, write_table
from tests.support.server_fixtures import ServerProcess

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
