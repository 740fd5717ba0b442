"""Stored answers: which are served again, and whether they still are the model's."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest

from pytest_vlmeval.records import Answer, Said
from pytest_vlmeval.run.reuse import (
    GREEDY,
    MOST_BLOCKS,
    SAMPLED,
    Rates,
    decide,
    is_same,
    shuffled,
    tail,
    take_turns,
)
from tests.support.run_fixtures import Project, endpoint, math_rows, properties
from tests.support.running import asked
from tests.support.server_fixtures import ServerProcess

FROM_CACHE = "SELECT sample_index FROM answers WHERE from_cache ORDER BY seq"


def test_a_changed_file_asks_only_its_changed_rows(
    project: Project, server: ServerProcess
) -> None:
    rows = math_rows(6)
    project.write_math(6, rows)
    server.control(default="B")
    first = project.ask(server.url)
    rows[3]["question"] = "Another question?"
    rows[4]["image"] = rows[0]["image"]
    project.write_math(6, rows)
    server.control(default="B")
    result, cases = project.junit(*endpoint(server.url))
    assert sorted(map(str, asked(server))) == ["Another question?", "Question <5>?"]
    assert result.parseoutcomes() == first.parseoutcomes()
    assert project.stored(FROM_CACHE) == [("1",), ("2",), ("3",), ("6",)]
    served = properties(cases["test_sample[MathVision_MINI-2]"])
    assert served["from_cache"] == "true"
    assert served["answer"] == "B"
    assert "from_cache" not in properties(cases["test_sample[MathVision_MINI-4]"])


def test_the_same_image_and_question_in_two_datasets_is_asked_once(
    project: Project, server: ServerProcess
) -> None:
    rows = [
        {
            "index": str(n),
            "question": f"What is {n}?",
            "answer": "a thing",
            "image": row["image"],
        }
        for n, row in enumerate(math_rows(3))
    ]
    for name in ("one", "two"):
        lines = ["\t".join(rows[0]), *("\t".join(row.values()) for row in rows)]
        (project.pytester.path / f"{name}.tsv").write_text("\n".join(lines) + "\n")
    project.pytester.makepyfile(
        test_own="""
        from pytest_vlmeval import Benchmark

        class TestOne(Benchmark):
            datasets = ["one.tsv"]

        class TestTwo(Benchmark):
            datasets = ["two.tsv"]
        """
    )
    server.control(default="a thing")
    project.ask(server.url, "-k", "TestOne").assert_outcomes(passed=5, deselected=3)
    project.ask(server.url).assert_outcomes(passed=8)
    assert sorted(asked(server).values()) == [1, 1, 1]


@pytest.mark.slow
def test_another_address_is_served_other_parameters_are_not(
    project: Project, server: ServerProcess, vlm_server: object
) -> None:
    project.write_math(3)
    project.ask(server.url)
    rows = math_rows(4)
    project.write_math(4, rows)
    other = server.url.replace("127.0.0.1", "localhost")
    project.ask(other, "--vlm-timeout=77", "--vlm-concurrency=2")
    assert len(server.requests()) == 4
    project.ask(server.url, "--vlm-max-tokens=100")
    project.ask(server.url, "--vlm-temperature=0.5")
    assert len(server.requests()) == 12


@pytest.mark.slow
def test_fresh_uses_no_cache_nor_does_what_resumes_it(
    project: Project, server: ServerProcess
) -> None:
    project.write_math(4)
    project.ask(server.url)
    # Half of the samples are asked afresh; the rest by the command that goes on.
    project.ask(server.url, "--vlm-fresh", "--vlm-mode=infer", "--vlm-limit=2")
    assert len(server.requests()) == 6
    project.ask(server.url)
    assert len(server.requests()) == 8
    assert project.stored(FROM_CACHE) == []


@pytest.mark.parametrize(
    "rule",
    [
        {"status": 400, "message": "no"},
        {"answer": ""},
        {"answer": "", "finish_reason": "length"},
    ],
    ids=["failed", "empty", "cut off before any text"],
)
def test_what_is_no_answer_is_never_served(
    project: Project, server: ServerProcess, rule: dict[str, object]
) -> None:
    rows = math_rows(3)
    project.write_math(3, rows)
    server.control(default="B", rules=[{"contains": "<2>", **rule}])
    project.ask(server.url).assert_outcomes(failed=2, xfailed=2)
    rows[2]["question"] = "Another question?"
    project.write_math(3, rows)
    server.control(default="B")
    project.ask(server.url).assert_outcomes(passed=2, xfailed=2)
    assert sorted(map(str, asked(server))) == ["Another question?", "Question <2>?"]


def test_what_was_cut_off_is_served(project: Project, server: ServerProcess) -> None:
    rows = math_rows(3)
    project.write_math(3, rows)
    rule = {"contains": "<2>", "answer": "half of", "finish_reason": "length"}
    server.control(default="B", rules=[rule])
    project.ask(server.url).assert_outcomes(failed=1, xfailed=3)
    rows[2]["question"] = "Another question?"
    project.write_math(3, rows)
    server.control(default="B")
    project.ask(server.url).assert_outcomes(failed=1, xfailed=3)
    assert list(map(str, asked(server))) == ["Another question?"]


def test_a_served_answer_costs_no_request_and_no_token(
    project: Project, server: ServerProcess
) -> None:
    rows = math_rows(2)
    project.write_math(2, rows)
    project.ask(server.url)
    rows[1]["question"] = "Another question?"
    project.write_math(2, rows)
    project.ask(server.url)
    costs = project.stored(
        "SELECT attempts, prompt_tokens, completion_tokens, latency_ms "
        "FROM answers WHERE from_cache"
    )
    assert costs == [(0, 0, 0, 0.0)]


def test_equal_prompts_of_one_session_are_its_own_answers(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are asked once; no other command is held responsible for them."""
    monkeypatch.chdir(project.pytester.path)
    rows = [f"{n}\tthe same?\tA\tx\ty" for n in range(40)]
    text = "\n".join(["index\tquestion\tanswer\tA\tB", *rows])
    Path("equal.tsv").write_text(text + "\n")
    project.pytester.makepyfile(
        test_own="""
        from pytest_vlmeval import Benchmark

        class TestEqual(Benchmark):
            datasets = ["equal.tsv"]
        """
    )
    server.control(default="A")
    result, cases = project.junit(
        *endpoint(server.url),
        *("--vlm-concurrency=2", "--vlm-export=out", "--vlm-report=r.html"),
    )
    assert result.ret == 0
    sent = len(server.requests())
    assert 0 < sent < 40
    line = f"{sent} asked now, {40 - sent} by the answer to an equal prompt among them"
    result.stdout.fnmatch_lines([f"40 answers: {line}", f"asked: {sent} requests, *"])
    items = [properties(cases[f"test_sample[equal-{n}]"]) for n in range(40)]
    assert [each["answer_from"] for each in items] == ["this session"] * 40
    assert sum("from_cache" in each for each in items) == 40 - sent
    account = json.loads(Path("out/results.json").read_text("utf-8"))["account"]
    origins = account["origins"]
    counts = origins["asked"], origins["equal"], origins["stored"]
    assert counts == (sent, 40 - sent, 0)
    assert account["now"]["requests"] == sent
    assert line in Path("r.html").read_text("utf-8")
    # The next command has them from the store, and asks nothing.
    result = project.ask(server.url)
    result.stdout.fnmatch_lines(["40 answers: 0 asked now, 40 from the store (*"])
    assert len(server.requests()) == sent


BLOCK = 16


def stops(rate: float, rates: Rates, *, most: int = 10_000, tests: int = 1) -> float:
    """Compute how probable a stop is where each sample changes at a rate.

    Exactly, over all paths; `most` is how many stored answers there are.
    """
    alive, stopped, asked = {0: 1.0}, 0.0, 0
    while alive:
        size = min(BLOCK, most - asked)
        asked += size
        after: dict[int, float] = {}
        for changed, weight in alive.items():
            for more in range(size + 1):
                part = math.comb(size, more) * rate**more * (1 - rate) ** (size - more)
                after[changed + more] = after.get(changed + more, 0) + weight * part
        alive = {}
        for changed, weight in after.items():
            is_all = asked == most
            found = decide(
                asked, changed, rates, block=BLOCK, is_all=is_all, tests=tests
            )
            if found == "more":
                alive[changed] = weight
            elif found == "changed":
                stopped += weight
    assert asked <= MOST_BLOCKS * BLOCK
    return stopped


def test_the_exact_rates_of_error() -> None:
    for rate in (0.0, 0.02, 0.05, 0.10):
        assert stops(rate, GREEDY) < 0.001
    assert stops(0.40, GREEDY) >= 0.99
    assert stops(0.60, GREEDY) > 0.9999
    # What no temperature exceeds.
    assert stops(0.25, SAMPLED) < 0.001
    assert stops(0.60, SAMPLED) >= 0.99


@pytest.mark.parametrize("stored", [1, 3, 4, 8, 16, 17, 24, 40, 96, 97])
def test_few_stored_answers_stop_as_rarely(stored: int) -> None:
    assert stops(0.10, GREEDY, most=stored) < 0.001
    # All of them changed: a stop from 4 on, where chance is 1 in 10,000.
    found = stops(1.0, GREEDY, most=stored)
    assert found == (1.0 if stored >= 4 else 0.0)


@pytest.mark.parametrize("tests", [2, 10, 100])
def test_all_tests_of_a_command_together_stop_as_rarely(tests: int) -> None:
    """One for each source of stored answers, and for each endpoint."""
    for stored in (4, 8, 16, 24, 40, 10_000):
        alone = stops(0.10, GREEDY, most=stored, tests=tests)
        assert 1 - (1 - alone) ** tests < 0.001
    alone = stops(0.25, SAMPLED, tests=tests)
    assert 1 - (1 - alone) ** tests < 0.001
    # And another model behind one source of them is still found.
    assert stops(0.40, GREEDY, tests=tests) >= 0.99


def test_what_is_decided() -> None:
    def after(changed: int, same: int, *, is_all: bool = False) -> str:
        return decide(same + changed, changed, GREEDY, block=BLOCK, is_all=is_all)

    assert after(0, 16) == after(1, 15) == "same"
    assert after(2, 14) == after(6, 10) == "more"
    assert after(8, 8) == "changed"
    # All that there are: nothing speaks against them, or too little for either.
    assert after(0, 3, is_all=True) == "same"
    assert after(1, 2, is_all=True) == after(3, 0, is_all=True) == "few"
    assert after(4, 0, is_all=True) == "changed"
    # At the most that are asked, noise explains as many.
    assert after(14, 82) == "same"
    assert after(22, 74) == "changed"
    assert tail(96, 22, 0.1) < 0.0005 < tail(96, 14, 0.1)


class Server:
    """A simulated server: answers A, but `other` of its samples in another way.

    Those are drawn once, as other weights or another batch size have it; at the rate
    `flips` an answer is B, anew each time.
    """

    def __init__(self, seed: str, *, other: float = 0.0, flips: float = 0.0) -> None:
        self._rng = random.Random(seed)
        self._others = [self._rng.random() < other for _ in range(MOST_BLOCKS * BLOCK)]
        self._flips = flips

    def answer(self, number: int) -> str:
        """Answer a sample."""
        if self._rng.random() < self._flips:
            return "B"
        return "C" if self._others[number] else "A"


def is_stopped(before: Server, now: Server, rates: Rates) -> bool:
    """Ask as the spot check does: twice where the first answer is another one."""
    same = changed = unsteady = 0
    for number in range(MOST_BLOCKS * BLOCK):
        stored, first = before.answer(number), now.answer(number)
        if first == stored:
            same += 1
        elif now.answer(number) == first:
            changed += 1
        else:
            unsteady += 1
        if (number + 1) % BLOCK == 0:
            asked = same + changed + unsteady
            found = decide(asked, changed, rates, block=BLOCK, is_all=False)
            if found != "more":
                return found == "changed"
    raise AssertionError("never decided")


RUNS = 4_000


def count_stops(
    before: dict[str, float], now: dict[str, float], rates: Rates = GREEDY
) -> int:
    return sum(
        is_stopped(Server(f"then {n}", **before), Server(f"now {n}", **now), rates)
        for n in range(RUNS)
    )


def test_simulated_servers_that_flip_are_not_stopped() -> None:
    """At 10 % of the samples: the same ones each time, or others each time."""
    # 1 in 1,000 would be 4; 12 or more then have a probability below 0.001.
    assert count_stops({}, {"other": 0.1}) < 12
    assert count_stops({"flips": 0.1}, {"flips": 0.1}) < 12
    assert count_stops({"flips": 0.05}, {"other": 0.05, "flips": 0.05}) < 12


def test_simulated_models_that_differ_are_found() -> None:
    """In 40 % of the answers, or in half of them on a server that flips."""
    assert count_stops({}, {"other": 0.4}) > 0.987 * RUNS
    assert count_stops({"flips": 0.1}, {"other": 0.5, "flips": 0.1}) > 0.987 * RUNS


def test_no_temperature_is_taken_for_another_model() -> None:
    """Where two answers are equally probable most change."""
    assert count_stops({"flips": 0.5}, {"flips": 0.5}, SAMPLED) < 12
    assert count_stops({"flips": 0.2}, {"flips": 0.2}, SAMPLED) == 0


def answer(text: str, state: str = "answered", earlier: tuple[str, ...] = ()) -> Answer:
    return Answer(
        fingerprint="f",
        index="1",
        state=state,  # type: ignore[arg-type]
        text=text,
        earlier=tuple(Said(each) for each in earlier),
        turns=1 + len(earlier),
    )


@pytest.mark.parametrize(
    ("one", "other", "greedy", "sampled"),
    [
        (answer("A"), answer(" A\n"), True, True),
        (answer("A cat"), answer("A  cat"), True, True),
        (answer("A"), answer("B"), False, False),
        (answer("A. red"), answer("(A) It is red."), False, True),
        (answer("A red car"), answer("A blue car"), False, False),
        (answer("B"), answer("b"), False, True),
        (answer("Answer"), answer("answer"), False, True),
        (answer("I'd say B"), answer("I would say B"), False, False),
        (answer("A"), answer("", "empty"), False, False),
        (answer("A", "cut_off"), answer("A"), False, False),
        (answer("A", earlier=("x",)), answer("A", earlier=("y",)), False, False),
        (answer("A", earlier=("x",)), answer("A"), False, False),
    ],
)
def test_what_counts_as_the_same(
    one: Answer, other: Answer, greedy: bool, sampled: bool
) -> None:
    assert is_same(one, other, sampled=False) is greedy
    assert is_same(one, other, sampled=True) is sampled


def test_samples_are_drawn_of_all_datasets_in_turn() -> None:
    order = list(take_turns([iter("abc"), iter(""), iter("x")]))
    assert order == ["a", "x", "b", "c"]
    names = [str(number) for number in range(50)]
    assert shuffled(names, 1) == shuffled(list(reversed(names)), 1)
    assert shuffled(names, 1) != shuffled(names, 2)
    assert sorted(shuffled(names, 1)) == sorted(names)
