"""Classes that nobody looked at: their own `evaluate` is run, and read."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import (
    DatasetInfo,
    JudgeQuestion,
    JudgeReply,
    PreparedDataset,
)
from pytest_vlmeval.sandbox.calls import ScoredDataset, score_in_sandbox
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.sandbox.process import Sandbox
from tests.support.sandbox_tables import extended_environment, write_rows_file

CLASSES = """
import concurrent.futures
import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor, as_completed

import pandas as pd

from vlmeval.dataset.image_base import ImageBaseDataset
from vlmeval.dataset.utils import build_judge
from vlmeval.smp import dump, load


class Base(ImageBaseDataset):
    @classmethod
    def supported_datasets(cls):
        return [cls.__name__]

    def load_data(self, dataset):
        return load(os.path.join(os.environ["LMUData"], f"{dataset}.tsv"))


class WithColumn(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        data = load(eval_file)
        data["hit"] = [int(p == a) for p, a in zip(data["prediction"], data["answer"])]
        dump(data, eval_file.replace(".xlsx", "_result.xlsx"))
        return {"acc": data["hit"].mean(), "note": "fine", "by": {"n": [len(data)]}}


class Rounded(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        data = load(eval_file)
        data["hit"] = [int(p == a) for p, a in zip(data["prediction"], data["answer"])]
        data.to_csv(eval_file.replace(".xlsx", "_result.csv"), index=False)
        return {"acc": f"{data['hit'].mean() * 100:.2f}%"}


class Together(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        return pd.DataFrame({"metric": ["bleu"], "score": [12.5]})


class Files(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        with open(eval_file.replace(".xlsx", "_score.json"), "w") as file:
            json.dump({"acc": 0.5, "parts": [{"name": "a", "acc": 1.0}]}, file)


class Nothing(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        return None


class Words(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        return {"verdict": "good"}


class Raises(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        return 1 / 0


class Exits(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        raise SystemExit(3)


class Network(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        try:
            socket.create_connection(("127.0.0.1", 9), timeout=1)
        except Exception:
            pass
        return {"acc": 1.0}


class Shell(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        subprocess.run(["true"])


class Outside(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        with open(os.path.join(OUTSIDE, "kept"), "w") as file:
            file.write("mine")
        return {"acc": 1.0}


class Evaluates(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        found = []
        for said in load(eval_file)["prediction"]:
            try:
                found.append(eval(said))
            except Exception:
                found.append(0)
        return {"acc": sum(found) / len(found)}


class Waits(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        while True:
            time.sleep(0.1)


class Loop(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        judge = build_judge(**judge_kwargs)
        data, points = load(eval_file), []
        for _, row in data.iterrows():
            for attempt in range(3):
                said = judge.generate(f"Rate {row['prediction']}", temperature=attempt)
                if said.isdigit():
                    break
            again = judge.generate(f"Really {said}?")
            points.append(int(again) if again.isdigit() else 0)
        data["score"] = points
        dump(data, eval_file.replace(".xlsx", "_judged.xlsx"))
        return {"acc": data["score"].mean()}


class Threads(Base):
    def evaluate(self, eval_file, **judge_kwargs):
        judge = build_judge(**judge_kwargs)
        data = load(eval_file)

        def rate(place, row):
            parts = [{"type": "text", "value": row["prediction"]}]
            return place, int(judge.generate(parts))

        with ThreadPoolExecutor(max_workers=8) as pool:
            tasks = [pool.submit(rate, n, row) for n, row in data.iterrows()]
            found = dict(task.result() for task in as_completed(tasks))
        data["score"] = [found[n] for n in range(len(data))]
        dump(data, eval_file.replace(".xlsx", "_judged.xlsx"))
        return {"acc": data["score"].mean()}
"""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outside")


@pytest.fixture(scope="module")
def invented(
    sandbox_environment: SandboxEnvironment,
    tmp_path_factory: pytest.TempPathFactory,
    outside: Path,
) -> Iterator[Sandbox]:
    """Give a sandbox whose ms-vlmeval has a module of invented classes."""
    folder = tmp_path_factory.mktemp("invented") / "environment"
    environment = extended_environment(sandbox_environment, folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    (theirs,) = sandbox_environment.python.parents[1].glob(
        "lib/python*/site-packages/vlmeval"
    )
    shutil.copytree(theirs, packages / "vlmeval")
    module = packages / "vlmeval" / "dataset" / "invented.py"
    module.write_text(f"OUTSIDE = {str(outside)!r}\n{CLASSES}")
    sandbox = Sandbox(environment.python)
    yield sandbox
    sandbox.close()


class Judge:
    """Replies by a function of the prompt; keeps what was asked each time."""

    def __init__(self, **replies: str | None) -> None:
        self.replies = replies
        self.asked: list[list[str]] = []

    def ask(self, questions: Sequence[JudgeQuestion]) -> list[JudgeReply]:
        """Give a reply to each question."""
        self.asked.append([question.prompt for question in questions])
        replies = []
        for number, each in enumerate(questions):
            known = [word for word in self.replies if word in each.prompt]
            text = self.replies[known[0]] if known else "1"
            replies.append(JudgeReply(number=number, text=text))
        return replies


def score_invented(
    sandbox: Sandbox,
    folder: Path,
    class_name: str,
    answers: Sequence[str] = ("red", "blue", "green"),
    judge: Judge | None = None,
    deadline_s: float | None = None,
) -> ScoredDataset:
    """Score answers to questions whose references are all red."""
    rows = [
        {"index": number, "question": "Which?", "answer": "red"}
        for number in range(len(answers))
    ]
    write_rows_file(folder, rows)
    prepared = PreparedDataset(
        info=DatasetInfo(
            name=class_name, class_name=class_name, module="invented", kind="vqa"
        ),
        folder=folder,
        fingerprint="",
        checksum="",
        modified=False,
        sample_count=len(rows),
    )
    return score_in_sandbox(
        sandbox,
        prepared,
        [(str(number), [said]) for number, said in enumerate(answers)],
        judge=None if judge is None else judge.ask,
        deadline_s=deadline_s,
    )


def test_verdicts_come_from_a_column_whose_mean_is_the_metric(
    invented: Sandbox, tmp_path: Path
) -> None:
    found = score_invented(invented, tmp_path, "WithColumn")
    assert found.metrics == {"acc": 1 / 3, "by/n_1": 3}
    assert found.main_metric == "acc"
    assert found.value == pytest.approx(100 / 3)
    assert [each.value for each in found.verdicts] == [1, 0, 0]
    assert found.notes == (
        "it was not checked how this version's WithColumn scores; the metrics are what "
        "its own evaluate gave",
    )


def test_a_metric_may_be_a_rounded_text(invented: Sandbox, tmp_path: Path) -> None:
    found = score_invented(invented, tmp_path, "Rounded")
    assert found.metrics == {"acc": 33.33}
    assert [each.value for each in found.verdicts] == [1, 0, 0]


def test_without_such_a_column_no_answer_has_a_verdict(
    invented: Sandbox, tmp_path: Path
) -> None:
    found = score_invented(invented, tmp_path, "Together")
    assert (found.metrics, found.value) == ({"bleu/score": 12.5}, 12.5)
    reason = (
        "answers are scored all together: ms-vlmeval writes no column with the points "
        "of each answer whose mean is bleu/score"
    )
    assert {(each.value, each.reason) for each in found.verdicts} == {(None, reason)}
    assert all(each.is_part_of_whole for each in found.verdicts)
    assert found.notes[0] == reason


def test_what_returns_nothing_may_have_written_it(
    invented: Sandbox, tmp_path: Path
) -> None:
    found = score_invented(invented, tmp_path, "Files")
    assert found.metrics == {"acc": 0.5, "parts_1/acc": 1.0}


@pytest.mark.parametrize(
    ("class_name", "message"),
    [
        (
            "Nothing",
            "the evaluate of ms-vlmeval's Nothing gave no number: it returned nothing, "
            "and wrote nothing.",
        ),
        (
            "Words",
            "the evaluate of ms-vlmeval's Words gave no number: it returned dict "
            "\"{'verdict': 'good'}\", and wrote nothing.",
        ),
        (
            "Raises",
            "the evaluate of ms-vlmeval's Raises failed on 3 answers: "
            "ZeroDivisionError: division by zero (dataset/invented.py:LINE). Its "
            "answers are kept. Some classes need all rows of their dataset: leave out "
            "--vlm-limit and --vlm-sample.",
        ),
        (
            "Exits",
            "the evaluate of ms-vlmeval's Exits failed on 3 answers: SystemExit: 3 "
            "(dataset/invented.py:LINE). Its answers are kept. Some classes need all "
            "rows of their dataset: leave out --vlm-limit and --vlm-sample.",
        ),
        (
            "Network",
            "the evaluate of ms-vlmeval's Network tried what the sandbox does not "
            "allow: the sandbox allows no socket.getaddrinfo(0,) "
            "(dataset/invented.py:LINE). Its numbers may lack what that gave, so there "
            "is no score.",
        ),
        (
            "Shell",
            "the evaluate of ms-vlmeval's Shell tried what the sandbox does not allow "
            "(dataset/invented.py:LINE): the sandbox allows no subprocess.Popen(None,)"
            ". Its answers are kept.",
        ),
        (
            "Outside",
            "the evaluate of ms-vlmeval's Outside tried what the sandbox does not "
            "allow (dataset/invented.py:LINE): OUTSIDE/kept: it lies outside of the "
            "dataset's own folders. Its answers are kept.",
        ),
    ],
    ids=lambda value: value if value.isalpha() else "",
)
def test_what_an_evaluate_does_is_named_with_its_place(
    invented: Sandbox, outside: Path, tmp_path: Path, class_name: str, message: str
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        score_invented(invented, tmp_path, class_name)
    text = str(caught.value).replace(str(outside), "OUTSIDE")
    assert re.sub(r"py:\d+", "py:LINE", text) == message
    assert list(outside.iterdir()) == []
    # Others go on.
    assert score_invented(invented, tmp_path, "WithColumn").metrics["acc"] == 1 / 3


def test_no_answer_executes(invented: Sandbox, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    answers = ["1", f"open({str(mark)!r}, 'w')", f"__import__('os').mkdir({mark!r})"]
    found = score_invented(invented, tmp_path, "Evaluates", answers)
    assert found.metrics == {"acc": 1 / 3}
    assert not mark.exists()


def test_one_that_does_not_end_is_stopped(invented: Sandbox, tmp_path: Path) -> None:
    with pytest.raises(VlmEvalError, match="Scoring Waits took longer than 3 s and"):
        score_invented(invented, tmp_path, "Waits", deadline_s=3)


def test_what_a_loop_asks_goes_out_together(invented: Sandbox, tmp_path: Path) -> None:
    judge = Judge(red="7", blue="?", green="0", **{"Really 7": "1", "Really 0": "0"})
    found = score_invented(invented, tmp_path, "Loop", judge=judge)
    assert judge.asked[0] == ["Rate red", "Rate blue", "Rate green"]
    assert sum(map(len, judge.asked)) == 3 + 2 + 3
    assert [each.value for each in found.verdicts] == [1, 1, 0]
    assert {each.state for each in found.verdicts} == {"judged"}


def test_what_threads_ask_goes_out_together(invented: Sandbox, tmp_path: Path) -> None:
    judge = Judge(red="1", blue="0", green="1")
    found = score_invented(invented, tmp_path, "Threads", judge=judge)
    assert judge.asked == [["red", "blue", "green"]]
    assert [each.value for each in found.verdicts] == [1, 0, 1]


def test_what_the_judge_does_not_reply_to_is_undecided(
    invented: Sandbox, tmp_path: Path
) -> None:
    judge = Judge(red="1", blue=None, green="1")
    found = score_invented(invented, tmp_path, "Loop", judge=judge)
    assert [each.state for each in found.verdicts][1] == "judge_failed"
    assert found.verdicts[1].value is None
    assert found.best >= found.value
