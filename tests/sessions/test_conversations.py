"""Prompts of several turns: MMDU, from its table to verdicts, exports and reports."""

from __future__ import annotations

import ast
import base64
import csv
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from pytest_vlmeval.reports.html import embed_images, pack_report
from pytest_vlmeval.reports.record import load_run
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from tests.support.conversations import BENCHMARK
from tests.support.run_fixtures import (
    Project,
    endpoint,
    image_bytes,
    properties,
    write_table,
)
from tests.support.sandbox_tables import describe
from tests.support.scored_upstream import score_upstream
from tests.support.server_fixtures import ServerProcess

# By conversation, each turn: the question, the reference, what the model replies.
DIALOGUES = {
    "1": [
        ("<ImageHere>Who is <a1>?", "a red fox", "It is a fox."),
        ("And <ImageHere>who is <a2>?", "blue 'bird', or so", 'a blue "bird"\n'),
        ("Which of <a3> runs?", "the fox runs", "the fox runs"),
    ],
    "2": [
        ("<ImageHere><ImageHere>Compare <b1>.", "the first is darker", "no idea"),
        ("Why <b2>?", "it was night", "it was night, 夜"),
    ],
    "3": [("<ImageHere>What is <c1>?", "a boat", "a boat")],
}
ANSWERS = {
    re.search("<[abc].>", question)[0]: reply  # type: ignore[index]
    for turns in DIALOGUES.values()
    for question, _, reply in turns
}
STORED = "SELECT sample_index, state, earlier, text FROM answers ORDER BY seq"
TURN_COUNT = sum(map(len, DIALOGUES.values()))


def images_of(index: str) -> list[bytes]:
    """Draw as many images as a conversation shows."""
    count = sum(question.count("<ImageHere>") for question, _, _ in DIALOGUES[index])
    return [image_bytes(10 * int(index) + number) for number in range(count)]


def table_rows(references: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """Give the conversations in the layout of ms-vlmeval's MMDU."""
    return [
        {
            "index": index,
            "image": str([base64.b64encode(each).decode() for each in images]),
            "image_path": str([f"{index}_{n}.png" for n, _ in enumerate(images)]),
            "question": str([question for question, _, _ in turns]),
            "answer": str([(references or {}).get(said, said) for _, said, _ in turns]),
        }
        for index, turns in DIALOGUES.items()
        for images in [images_of(index)]
    ]


@pytest.fixture
def dialogues(project: Project, server: ServerProcess) -> Project:
    """Put the conversations and a model's replies to them in place."""
    write_table(project.data_root / "MMDU.tsv", table_rows())
    project.pytester.makepyfile(test_dialogues=BENCHMARK)
    server.control(answers=ANSWERS)
    return project


@pytest.fixture
def judge(vlm_server: Callable[..., ServerProcess]) -> list[str]:
    """Start a judge; give the arguments that name it."""
    server = vlm_server(judge="good", models=["judge"])
    return ["--vlm-judge=judge", f"--vlm-judge-api-base={server.url}"]


def said(record: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Give a message's text, and its images by their content."""
    return record["text"], [each["sha256"] for each in record["images"]]


def expected_messages(index: str, turn: int) -> list[tuple[str, list[str]]]:
    """Give what a model must be sent for a turn (from 0 on), alternately theirs."""
    digests = [hashlib.sha256(each).hexdigest() for each in images_of(index)]
    messages: list[tuple[str, list[str]]] = []
    for question, _, reply in DIALOGUES[index][: turn + 1]:
        count = question.count("<ImageHere>")
        texts = [text for text in question.split("<ImageHere>") if text]
        # As ms-vlmeval's client has them.
        messages += [("\n".join(texts), digests[:count]), (reply.strip(), [])]
        digests = digests[count:]
    return messages[:-1]


def replies_of(project: Project) -> dict[str, list[str]]:
    """Give the stored replies of each conversation."""
    return {
        str(index): [*(text for text, _ in json.loads(str(earlier))), str(last)]
        for index, _, earlier, last in project.stored(STORED)
    }


def test_each_turn_is_asked_with_the_model_s_own_replies(
    dialogues: Project,
    server: ServerProcess,
    judge: Sequence[str],
    sandbox_environment: SandboxEnvironment,
    tmp_path: Path,
) -> None:
    arguments = [*endpoint(server.url), *judge, "--vlm-export=out"]
    result, cases = dialogues.junit(*arguments)
    result.assert_outcomes(passed=4)
    requests: list[Any] = server.requests()
    assert len(requests) == TURN_COUNT
    for index, turns in DIALOGUES.items():
        for turn, (question, _, _) in enumerate(turns):
            last = question.rpartition("<ImageHere>")[2]
            (record,) = (each for each in requests if each["text"].endswith(last))
            sent = [*map(said, record["earlier"]), said(record)]
            assert sent == expected_messages(index, turn)
            roles = [each["role"] for each in record["earlier"]]
            assert roles == ["user", "assistant"] * turn
    wanted = {index: [r for *_, r in turns] for index, turns in DIALOGUES.items()}
    assert replies_of(dialogues) == wanted
    first = properties(cases["test_sample[MMDU-1]"])
    assert ast.literal_eval(first["answer"]) == wanted["1"]
    check_scores(dialogues, wanted, sandbox_environment, tmp_path)
    check_exports(dialogues, wanted)
    check_page(dialogues, wanted)
    # Nothing is asked again, of the model or the judge.
    dialogues.run(*arguments).assert_outcomes(passed=4)
    assert len(server.requests()) == TURN_COUNT
    (account,) = (line for line in result.outlines if line.startswith("asked: "))
    assert f"asked: {TURN_COUNT} requests, " in account
    assert "again" not in account


def check_scores(
    project: Project,
    replies: Mapping[str, list[str]],
    environment: SandboxEnvironment,
    folder: Path,
) -> None:
    """Compare with ms-vlmeval's own scores of the same replies by the same judge."""
    ((score,),) = project.stored("SELECT score FROM scores WHERE state = 'done'")
    found = json.loads(str(score))
    info = describe(project.data_root / "MMDU.tsv", "MMDUDataset")
    stripped = [(key, [*map(str.strip, said)]) for key, said in replies.items()]
    metrics, _ = score_upstream(environment, info, stripped, folder)
    assert len(metrics) == 14
    assert found["metrics"] == pytest.approx(metrics)
    assert found["main_metric"] == "all/Overall Score"
    assert found["value"] == metrics["all/Overall Score"]
    assert 0 < found["value"] < 100
    verdicts = project.stored("SELECT value FROM verdicts ORDER BY sample_index")
    assert verdicts[1:] == [(0.5,), (1,)]


def check_exports(project: Project, replies: Mapping[str, list[str]]) -> None:
    """See that tables have all replies as ms-vlmeval's have them."""
    out = project.pytester.path / "out"
    table = pd.read_csv(out / "tiny-vlm" / "tiny-vlm_MMDU.tsv", sep="\t", dtype=str)
    predictions = dict(zip(table["index"], table["prediction"], strict=True))
    with (out / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = {row["index"]: row["answer"] for row in csv.DictReader(file)}
    for index in ("1", "2"):
        stripped = [reply.strip() for reply in replies[index]]
        assert ast.literal_eval(predictions[index]) == stripped
        assert ast.literal_eval(rows[index]) == replies[index]
    assert rows["3"] == replies["3"][0]


def check_page(project: Project, replies: Mapping[str, list[str]]) -> None:
    """See that the report has each turn with its images and the reply to it."""
    store = Store(project.store.parent)
    run = store.runs()[0]
    report = load_run(store, Path(os.environ["VLM_CACHE_DIR"]), run.run_id)
    store.close()
    (part,) = pack_report(report, embed_images(report, 30)).parts
    details: list[dict[str, Any]] = json.loads(zlib.decompress(base64.b64decode(part)))
    for detail, (index, turns) in zip(details, DIALOGUES.items(), strict=True):
        shown = [
            "".join("<ImageHere>" if isinstance(each, dict) else each for each in turn)
            for turn in detail["prompt"]
        ]
        assert shown == [question for question, _, _ in turns]
        earlier = [reply for reply, _ in detail.get("earlier", [])]
        assert [*earlier, detail["answer"]] == replies[index]


@pytest.mark.parametrize(
    ("rule", "state", "why"),
    [
        ({"status": 400, "message": "too long"}, "failed", "answered 400: too long"),
        ({"answer": " "}, "empty", "the model returned an empty text."),
        (
            {"finish_reason": "length", "answer": ""},
            "empty",
            "it was cut off at the token limit, before any text. Raise "
            "--vlm-max-tokens.",
        ),
    ],
)
def test_a_turn_without_a_usable_reply_is_the_last(
    dialogues: Project,
    server: ServerProcess,
    judge: Sequence[str],
    rule: dict[str, object],
    state: str,
    why: str,
) -> None:
    server.control(answers=ANSWERS, rules=[{**rule, "contains": "<a2>"}])
    arguments = [*endpoint(server.url), *judge, "--vlm-export=out"]
    result, cases = dialogues.junit(*arguments)
    # The score has to be complete.
    result.assert_outcomes(passed=2, failed=2)
    (failure,) = cases["test_sample[MMDU-1]"].iter("failure")
    assert failure.attrib["message"].startswith(
        "Failed: MMDU-1 has no usable answer: turn 2 of 3: "
    )
    assert why in failure.attrib["message"]
    # The third turn is not asked: there is nothing to go on from.
    assert not [each for each in server.requests() if "<a3>" in str(each["text"])]
    stored = {row[0]: row[1:] for row in dialogues.stored(STORED)}
    assert stored["1"][0] == state
    assert json.loads(str(stored["1"][1])) == [["It is a fox.", ""]]
    # The judge is not shown it; each of its turns counts as wrong.
    ((value,),) = dialogues.stored("SELECT value FROM verdicts WHERE sample_index='1'")
    assert value is None
    check_incomplete_prediction(dialogues)
    server.control(answers=ANSWERS)
    dialogues.run(*arguments).assert_outcomes(passed=4)
    # The conversation is asked from its beginning, the others not at all.
    assert len(server.requests()) == len(DIALOGUES["1"])


def check_incomplete_prediction(project: Project) -> None:
    """See that there is something for each turn, as ms-vlmeval needs it."""
    path = project.pytester.path / "out" / "tiny-vlm" / "tiny-vlm_MMDU.tsv"
    table = pd.read_csv(path, sep="\t", dtype=str)
    (cell,) = table["prediction"][table["index"] == "1"]
    missing = "Failed to obtain answer via API."
    assert ast.literal_eval(cell) == ["It is a fox.", missing, missing]


def test_a_conversation_goes_on_from_a_reply_that_was_cut_off(
    dialogues: Project, server: ServerProcess, judge: Sequence[str]
) -> None:
    """As in ms-vlmeval; all of it is then marked, and its judge sees what there is."""
    rule = {"finish_reason": "length", "answer": "It is", "contains": "<a2>"}
    server.control(answers=ANSWERS, rules=[rule])
    result, cases = dialogues.junit(*endpoint(server.url), *judge)
    # The gate of what may be cut off.
    result.assert_outcomes(passed=3, failed=1)
    assert properties(cases["test_sample[MMDU-1]"])["state"] == "cut_off"
    (third,) = [r for r in server.requests() if "<a3>" in str(r["text"])]
    assert [said["text"] for said in third["earlier"]][1::2] == [  # type: ignore[attr-defined]
        "It is a fox.",
        "It is",
    ]
    query = "SELECT state, finish_reason, text FROM answers WHERE sample_index='1'"
    assert dialogues.stored(query) == [("cut_off", "length", "the fox runs")]
    prompts = dialogues.stored("SELECT prompt FROM exchanges")
    assert any("It is\n" in str(prompt) for (prompt,) in prompts)


def test_a_conversation_is_served_from_the_cache_as_a_whole(
    dialogues: Project, server: ServerProcess
) -> None:
    # Without a judge it is asked, and its items pass.
    dialogues.ask(server.url).assert_outcomes(passed=3, skipped=1)
    before = replies_of(dialogues)
    other = table_rows({"a boat": "a ship"})
    write_table(dialogues.data_root / "MMDU.tsv", other)
    dialogues.ask(server.url, "--vlm-repeat=1").assert_outcomes(passed=3, skipped=1)
    assert len(server.requests()) == TURN_COUNT
    assert dialogues.stored("SELECT count(*) FROM answers WHERE from_cache") == [(3,)]
    assert replies_of(dialogues) == before
    # Another question in one turn is another conversation.
    changed = [{**other[0], "question": other[0]["question"].replace("Which", "Who")}]
    write_table(dialogues.data_root / "MMDU.tsv", [*changed, *other[1:]])
    dialogues.ask(server.url)
    assert len(server.requests()) == TURN_COUNT + len(DIALOGUES["1"])
