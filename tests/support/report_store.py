"""A run store of any size, filled by a seeded script instead of by a model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from pytest_vlmeval.records import (
    Answer,
    AnswerState,
    JudgeQuestion,
    Plan,
    PlanEntry,
    Score,
    Start,
    Verdict,
)
from pytest_vlmeval.run.queue import Board
from pytest_vlmeval.run.scoring import name_score
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.sandbox.rows import COLUMNS

DATASET = "Artificial"
FINGERPRINT = "Artificial-0123456789abcdef"
SESSION = "session-of-the-script"
CATEGORIES = ("charts", "maps & plans", "people", "street signs")
# What an answer must never become part of the page as.
HOSTILE = (
    "</script><script>document.title='owned'</script>"
    "<img src=x onerror=\"document.title='owned'\">"
    "\ufffe \x00\x1b[31m \u202eabc {{ 7*7 }} <!-- ]]>"
)
QUESTION = "What is written on the {} sign in image {}, and who put it there?"


def fill_store(
    work_dir: Path, cache_dir: Path, count: int, *, images: int = 40, seed: int = 7
) -> str:
    """Fill a store with one run of `count` samples and return the run's id.

    Of the samples most are right or wrong, some cut off, empty, failed or undecided by
    the judge; sample 3 is hostile in everything that a model, a judge or a dataset
    writes.
    """
    draw = random.Random(seed)
    folder = cache_dir / "prepared" / DATASET / FINGERPRINT.removeprefix("Artificial-")
    names = _draw_images(folder / "media", images, draw)
    _write_samples(folder, count, names)
    store = Store(work_dir)
    run_id = store.open_run({"model": "artificial", "seed": seed}, SESSION, fresh=True)
    indexes = tuple(str(number) for number in range(count))
    entry = PlanEntry(
        dataset=DATASET,
        fingerprint=FINGERPRINT,
        modified=True,
        indexes=indexes,
        judges=("judge",),
    )
    plan = Plan(run_id=run_id, scorer="script", entries=(entry,))
    start = Start(
        revision="0123456789-dirty",
        command="pytest --vlm-model=artificial",
        versions={"Python": "3.11.7", "ms-vlmeval": "0.0.20"},
    )
    store.save_plan(SESSION, plan, start)
    answers = [_answer(number, draw) for number in range(count)]
    store.record(run_id, SESSION, answers)
    question = JudgeQuestion(prompt=f"Is it right? {HOSTILE!r}", unit="2")
    reply = Answer(fingerprint="", index="", state="answered", text="Yes, because …")
    number = store.record_reply("judge", question, reply).number
    _record_score(store, plan, answers, number)
    store.close()
    return run_id


def _draw_images(folder: Path, count: int, draw: random.Random) -> list[str]:
    folder.mkdir(parents=True)
    names = []
    for number in range(count):
        image = Image.new("RGB", (448, 336), tuple(draw.randbytes(3)))
        pen = ImageDraw.Draw(image)
        for _ in range(12):
            x, y = draw.randrange(400), draw.randrange(300)
            pen.ellipse((x, y, x + 60, y + 40), fill=tuple(draw.randbytes(3)))
        pen.text((10, 10), f"image {number}", fill="white")
        names.append(f"{number:064x}.jpg")
        image.save(folder / names[-1], quality=80)
    return names


def _write_samples(folder: Path, count: int, names: list[str]) -> None:
    columns: dict[str, list[str | None]] = {name: [] for name in COLUMNS}
    for number in range(count):
        text = QUESTION.format(number % 97, number)
        if number == 3:
            text = HOSTILE
        image = ["image", names[number % len(names)], "image/jpeg"]
        frames = [["image", name, "image/jpeg"] for name in names[:8]]
        images = frames if number == 5 else [image]
        columns["index"].append(str(number))
        columns["category"].append(CATEGORIES[number % len(CATEGORIES)])
        columns["group"].append(None)
        columns["reference"].append("ABCD"[number % 4])
        columns["error"].append(None)
        columns["prompt"].append(json.dumps([[*images, ["text", text]]]))
    schema = pa.schema([(name, pa.string()) for name in COLUMNS])
    pq.write_table(pa.table(columns, schema=schema), folder / "samples.parquet")


def _answer(number: int, draw: random.Random) -> Answer:
    state: AnswerState = "answered"
    text = draw.choices(("ABCD"[number % 4], draw.choice("ABCD")), (2, 1))[0]
    error = reasoning = ""
    if number == 3:
        text = reasoning = HOSTILE
    elif number % 101 == 50:
        state, text, error = "failed", "", "HTTP 500: the server is on fire"
    elif number % 103 == 51:
        state, text = "cut_off", "It goes on and on " * 20
    elif number % 211 == 52:
        state, text = "empty", ""
    elif number % 29 == 7:
        text += ", as I have thought about it for long. " * (number % 13)
    return Answer(
        fingerprint=FINGERPRINT,
        index=str(number),
        state=state,
        text=text,
        reasoning=reasoning,
        error=error,
        finish_reason="length" if state == "cut_off" else "stop",
        attempts=1 + (number % 50 == 0),
        latency_ms=draw.lognormvariate(6, 0.6),
        prompt_tokens=180,
        completion_tokens=len(text) // 4,
    )


def _verdict(answer: Answer, exchange: int) -> Verdict:
    number = int(answer.index)
    if not answer.is_usable:
        return Verdict(index=answer.index, value=None, reason="no usable answer")
    if number % 307 == 11:
        reason = "no usable reply in 3 attempts"
        return Verdict(
            index=answer.index, value=None, state="judge_unclear", reason=reason
        )
    right = answer.text[:1] == "ABCD"[number % 4]
    judged = number % 5 == 2
    return Verdict(
        index=answer.index,
        value=float(right),
        extracted=answer.text if number == 3 else answer.text[:1],
        state="judged" if judged else "matched",
        exchanges=(exchange,) if judged else (),
    )


def _record_score(
    store: Store, plan: Plan, answers: list[Answer], exchange: int
) -> None:
    (entry,) = plan.entries
    board = Board(store, plan, SESSION)
    board.refresh()
    stored = {index: board.get(FINGERPRINT, index) for index in entry.indexes}
    score_id = name_score(plan, entry, stored, entry.judge)
    verdicts = tuple(_verdict(each, exchange) for each in answers)
    correct = sum((each.value or 0) >= 0.5 for each in verdicts)
    value = 100 * correct / len(verdicts)
    undecided = sum(each.state == "judge_unclear" for each in verdicts)
    store.claim_score(score_id, plan.run_id, FINGERPRINT, SESSION, "owner")
    score = Score(
        dataset=DATASET,
        metrics={"Overall": value},
        main_metric="Overall",
        value=value,
        best=100 * (correct + undecided) / len(verdicts),
        samples=len(verdicts),
        answered=sum(each.state == "answered" for each in answers),
        correct=correct,
        undecided=undecided,
        modified=True,
        scorer="script:judge",
        judge="judge",
        verdicts=verdicts,
    )
    store.finish_score(score_id, score)
