"""What a server refuses: its fix, and when a dataset is asked no further."""

from __future__ import annotations

import random
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pytest_vlmeval.models.client import RequestError
from pytest_vlmeval.models.refusals import TEXT_CAUSES, Refusals, explain
from tests.support.engine_calls import CONCURRENCY, Asking
from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess

SAMPLES = [str(number) for number in range(1, 201)]


def refused(words: str, status: int = 400) -> RequestError:
    return RequestError(
        f"http://h/v1 answered {status}: {words}",
        kind="status",
        retryable=False,
        status=status,
    )


@pytest.mark.parametrize(
    ("status", "words", "fix"),
    [
        (
            400,
            "This model's maximum context length is 4096 tokens. However, you "
            "requested 5044 tokens (2996 in the messages, 2048 in the completion).",
            "--vlm-max-pixels=PIXELS or --vlm-image-size=PIXELS",
        ),
        (400, "input length 9000 exceeds max_model_len 8192", "--max_model_len"),
        (
            400,
            "The decoder prompt (length 5000) is longer than the maximum model length",
            "--max-model-len",
        ),
        (413, "Request Entity Too Large", "--vlm-image-size=PIXELS"),
        (413, "no message", "--vlm-max-pixels=PIXELS"),
        (400, "Prompt is too long", "--vlm-max-pixels=PIXELS"),
        (400, "the tokenizer does not define a chat template", "--chat-template"),
        (
            422,
            "Input validation error: `temperature` must be strictly positive",
            "--vlm-temperature=T",
        ),
        (400, "Unknown parameter: 'top_k'.", "--vlm-extra-body sends 'top_k'"),
        (422, "body.top_k: Extra inputs are not permitted", "--vlm-extra-body"),
        (400, "got an unexpected keyword argument 'min_new'", "sends 'min_new'"),
        (
            400,
            "max_tokens is too large: 2048. This model supports at most 1024 "
            "completion tokens.",
            ". Allow fewer tokens with --vlm-max-tokens=N.",
        ),
        (
            400,
            "'max_tokens' is too large: 2048. This model's maximum context length is "
            "1024 tokens.",
            "--max_model_len). Allow fewer tokens with --vlm-max-tokens=N.",
        ),
        (400, "Invalid input: image_url must be a string", None),
        (400, "Unsupported parameter", None),
        (404, "no such route", None),
    ],
)
def test_an_error_names_what_fixes_it(status: int, words: str, fix: str | None) -> None:
    error = refused(words, status)
    text = explain(error)
    assert text.startswith(str(error).rstrip("."))
    if fix is None:
        assert text == str(error)
    else:
        assert fix in text.removeprefix(str(error).rstrip("."))


def give_up_after(errors: list[RequestError | None]) -> int | None:
    """Return after how many samples a dataset is given up; None: an answer."""
    refusals = Refusals({"Data-1": "Data"}, lambda line: None)
    for number, error in enumerate(errors, start=1):
        if error is None:
            refusals.note_answer("Data-1")
        else:
            refusals.note_refusal("Data-1", str(number), error)
        if refusals.why_given_up("Data-1"):
            return number
    return None


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (413, "too large"),
        (400, "This model's maximum context length is 4096 tokens."),
    ],
)
def test_of_a_text_alone_no_image_is_the_cause(status: int, words: str) -> None:
    error = refused(words, status)
    told = explain(error, has_images=False).removeprefix(str(error).rstrip("."))
    assert told.startswith(". Let the server take longer requests")
    assert "image" not in told


@pytest.mark.parametrize(
    "words",
    [
        "bad request (request id: {uuid})",
        "{uuid}: bad request",
        "{uuid} is not a valid prompt",
        "Invalid prompt: {question}",
        "the prompt '{question}' was not taken by the model",
        "请求无效 (编号 {uuid})",
        "{uuid}",
    ],
)
def test_words_that_repeat_the_prompt_or_name_the_request_are_alike(words: str) -> None:
    drawn = random.Random(7)
    questions = ["Which colour is the sky", "How many birds", "Name the river", "Why"]
    ids = [uuid.UUID(int=drawn.getrandbits(128), version=4) for _ in range(9)]
    # Some have parts of letters alone.
    ids += [
        uuid.UUID(f"{part * 4}-{part * 2}-4abc-{part * 2}-{part * 6}")
        for part in ("ab", "cd", "ef")
    ]
    errors = [
        refused(
            words.format(
                uuid=id_,
                question=f"{drawn.choice(questions)} {drawn.choice(questions)}?",
            )
        )
        for id_ in ids
    ]
    assert give_up_after([*errors]) == 10
    others = [refused("no such image"), refused("cannot decode the audio")]
    assert give_up_after([*errors[:9], *others, *errors[:9]]) is None


def test_ten_alike_in_a_row_and_no_answer_between() -> None:
    alike = [refused(f"you requested {5000 + n} tokens, req-{n}f") for n in range(30)]
    assert give_up_after([*alike]) == 10
    assert give_up_after([*alike[:9], None, *alike[:9], None]) is None
    other = [refused("no such image"), refused("bad request")]
    assert give_up_after([*alike[:9], *other, *alike[:9]]) is None
    assert give_up_after([*alike[:9], *other, *alike[:10]]) == 21


def test_what_is_no_refusal_neither_counts_nor_ends_a_row() -> None:
    alike = [refused("no") for _ in range(10)]
    passing = RequestError("gone", kind="connection", retryable=True)
    unreadable = RequestError("no image", kind="input", retryable=False)
    filtered = RequestError("stopped", kind="filtered", status=400, retryable=False)
    for error in (passing, unreadable, filtered):
        assert give_up_after([error] * 30) is None
        assert give_up_after([*alike[:5], error, *alike[5:]]) == 11


def test_one_sample_that_is_asked_again_and_again_is_one() -> None:
    refusals = Refusals({"Data-1": "Data"}, lambda line: None)
    for _ in range(30):
        refusals.note_refusal("Data-1", "7", refused("no"))
    assert not refusals.why_given_up("Data-1")


def ask_all(asking: Asking, *datasets: str) -> None:
    asking.engine.start()
    end = time.monotonic() + 60
    while any(asking.board.missing(name) for name in datasets):
        assert time.monotonic() < end
        time.sleep(0.02)


def states(asking: Asking, name: str) -> Counter[Any]:
    found = [asking.board.get(name, index) for index in SAMPLES]
    return Counter(each.answer.state for each in found if each is not None)


@pytest.mark.parametrize("concurrency", [1, CONCURRENCY, 32])
def test_a_refusal_of_all_costs_few_requests_and_stops_one_dataset_alone(
    tmp_path: Path, server: ServerProcess, concurrency: int
) -> None:
    rule = {"contains": "Bad-1", "status": 400, "message": "Unsupported parameter"}
    server.control(default="B", latency_s=0.01, rules=[rule])
    names = ("Bad-1", "Good-1")
    asking = Asking(
        server.url, tmp_path, SAMPLES, datasets=names, concurrency=concurrency
    )
    ask_all(asking, *names)
    sent = Counter(str(each["text"])[:5] for each in server.requests())
    assert 10 <= sent["Bad-1"] <= concurrency + 15
    assert sent["Good-"] == len(SAMPLES)
    counted = states(asking, "Bad-1")
    assert 10 <= counted["failed"] <= concurrency + 10
    assert counted["failed"] + counted["not_asked"] == len(SAMPLES)
    assert states(asking, "Good-1") == {"answered": len(SAMPLES)}
    said = f"http://127.0.0.1:{server.port}/v1 answered 400: Unsupported parameter"
    assert asking.said == [
        "asks no more of Bad, as the server refused 10 of its samples in a row alike: "
        f"{said}. {TEXT_CAUSES}"
    ]
    last = asking.board.get("Bad-1", SAMPLES[-1])
    assert last is not None
    assert last.answer.attempts == 0
    assert last.answer.error == (
        "not asked, as the server refused 10 samples of Bad in a row alike: "
        f"{said}. {TEXT_CAUSES} The next command asks this sample again."
    )
    asking.close()
    # And so it is, once the server takes them.
    server.control(default="B")
    again = Asking(server.url, tmp_path, SAMPLES, datasets=names)
    ask_all(again, *names)
    assert len(server.requests()) == len(SAMPLES)
    assert states(again, "Bad-1") == {"answered": len(SAMPLES)}
    again.close()


def test_refusals_here_and_there_stop_nothing(
    tmp_path: Path, server: ServerProcess
) -> None:
    rules = [{"contains": "5>", "status": 400, "message": "bad image"}]
    server.control(default="B", latency_s=0.01, rules=rules)
    asking = Asking(server.url, tmp_path, SAMPLES)
    ask_all(asking, "Data-1")
    assert states(asking, "Data-1") == {"failed": 20, "answered": 180}
    assert asking.said == []
    asking.close()


@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["one", "xdist"])
@pytest.mark.slow
def test_the_command_says_it_once_and_the_next_one_asks_again(
    project: Project, server: ServerProcess, workers: list[str]
) -> None:
    project.write_math(60)
    server.control(
        latency_s=0.05,
        rules=[{"status": 400, "message": "input length 9000 exceeds max_model_len"}],
    )
    result = project.ask(server.url, "--vlm-concurrency=4", *workers)
    assert result.ret == 1
    found = result.parseoutcomes()
    # 60 samples and the score: what each process saw refused fails, the rest, which
    # was not asked, is skipped.
    processes = 2 if workers else 1
    assert 10 < found["failed"] <= processes * (10 + 4) + 1
    assert found["failed"] + found["skipped"] == 61
    text = result.stdout.str()
    said = "vlmeval: asks no more of MathVision_MINI, as the server refused 10 of its "
    assert text.count(said) == 1
    assert "or --vlm-image-size=PIXELS" in text
    assert 10 <= len(server.requests()) <= 2 * (4 + 15)
    if not workers:
        server.control(default="B")
        assert project.ask(server.url).ret == 0
        assert len(server.requests()) == 60
