"""xdist: with any number of workers and any `--dist`, the results of one process."""

from __future__ import annotations

import re
import threading
import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from tests.support.run_fixtures import (
    Project,
    endpoint,
    math_rows,
    properties,
    write_table,
)
from tests.support.running import asked, most_at_once
from tests.support.server_fixtures import ServerProcess

pytestmark = pytest.mark.slow

LATENCY_S = 0.1
SAMPLES = 12
SCRIPT: dict[str, object] = {
    "answers": {"<3>": "30"},
    "default": "B",
    "latency_s": LATENCY_S,
    "rules": [
        {"contains": "<5>", "status": 400, "message": "no"},
        {"contains": "<7>", "answer": ""},
    ],
}
BENCHMARKS = """
import pytest
from pytest_vlmeval import Benchmark

class TestMath(Benchmark):
    datasets = ["MathVision_MINI"]

@pytest.mark.xdist_group("own")
class TestOwn(Benchmark):
    datasets = ["own.tsv"]

@pytest.mark.vlm("MathVision_MINI")
def test_score_is_known(vlm_score):
    assert vlm_score.value > 0
"""
MODES = ["load", "loadscope", "loadfile", "loadgroup", "worksteal"]


def write(project: Project) -> None:
    """Write two datasets and their benchmarks."""
    project.write_math(SAMPLES)
    rows = [
        {"index": row["index"], "question": f"Own {row['index']}?", "answer": "B"}
        for row in math_rows(6)
    ]
    write_table(project.pytester.path / "own.tsv", rows)
    project.pytester.makepyfile(test_math=BENCHMARKS)


def describe(case: ET.Element) -> tuple[object, ...]:
    """Return all that a JUnit case tells, but how long things took."""
    told = properties(case)
    told.pop("latency_ms", None)
    outcomes = [
        (each.tag, each.attrib.get("message"), each.text)
        for each in case
        if each.tag != "properties"
    ]
    return case.attrib["classname"], case.attrib["name"], outcomes, sorted(told.items())


def cases(found: dict[str, ET.Element]) -> Counter[str]:
    """Return the cases as texts that can be compared.

    A 400 is confirmed, unless the sample was the only one in flight, which is a matter
    of time.
    """
    return Counter(
        re.sub(r"@own\b| \(asked 2 times\)", "", repr(describe(each)))
        for each in found.values()
    )


@pytest.mark.parametrize("workers", ["2", "4"])
def test_the_results_of_one_process(
    project: Project, server: ServerProcess, workers: str
) -> None:
    write(project)
    arguments = [*endpoint(server.url), "--vlm-concurrency=5", "--vlm-retries=0"]
    server.control(**SCRIPT)
    result, alone = project.junit(*arguments)
    expected_asks = asked(server)
    # The 400 of one question was confirmed, unless it was in flight alone.
    twice = {text for text in expected_asks if "<5>" in str(text)}
    assert {text for text, count in expected_asks.items() if count > 1} <= twice
    for mode in MODES if workers == "2" else MODES[:1]:
        project.store.unlink()
        server.control(**SCRIPT)
        shared, distributed = project.junit(
            *arguments, f"-n{workers}", f"--dist={mode}"
        )
        assert shared.ret == result.ret == 1
        # xdist does not tell what was deselected.
        outcomes = result.parseoutcomes()
        outcomes.pop("deselected", None)
        assert shared.parseoutcomes() == outcomes
        assert cases(distributed) == cases(alone)
        # Only the 400 may be confirmed, or not.
        again = asked(server)
        assert again.keys() == expected_asks.keys()
        assert {text for text, count in again.items() if count > 1} <= twice
        assert most_at_once(server, LATENCY_S) <= 5
        assert len(project.stored("SELECT 1 FROM scores")) == 2


def test_every_dataset_is_prepared_once(
    project: Project,
    server: ServerProcess,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path_factory.mktemp("own-cache")
    monkeypatch.setenv("VLM_CACHE_DIR", str(cache))
    write(project)
    server.control(**SCRIPT)
    ended = threading.Event()
    # A dataset is filled in a folder of another name each time, which is then renamed.
    filled: set[str] = set()

    def watch() -> None:
        while not ended.wait(0.002):
            for each in (cache / "prepared").glob("*/.*.*"):
                if each.suffix != ".lock":
                    filled.add(f"{each.parent.name} {each.name}")

    watcher = threading.Thread(target=watch)
    watcher.start()
    project.ask(server.url, "-n2")
    ended.set()
    watcher.join()
    datasets = Counter(re.split("[ @]", name)[0] for name in filled)
    assert datasets == {"MathVision_MINI": 1, "own": 1}


@pytest.mark.parametrize("concurrency", [1, 3])
def test_less_requests_than_workers(
    project: Project, server: ServerProcess, concurrency: int
) -> None:
    project.write_math(SAMPLES)
    server.control(default="B", latency_s=LATENCY_S)
    result = project.ask(server.url, f"--vlm-concurrency={concurrency}", "-n2")
    assert result.ret == 0
    assert most_at_once(server, LATENCY_S) <= concurrency
    assert set(asked(server).values()) == {1}


def test_what_idle_workers_leave_the_busy_one_takes(
    project: Project, server: ServerProcess
) -> None:
    # One group of tests: all other workers have nothing to run, and end.
    project.write_math(40)
    server.control(default="B", latency_s=1)
    result = project.ask(
        server.url, "--vlm-concurrency=4", "-n2", "--dist=loadfile", "-v"
    )
    assert result.ret == 0
    # While both worked each had a part of two; nobody else can have asked the rest.
    starts = sorted(float(str(request["time"])) for request in server.requests())[-8:]
    assert max(sum(0 <= s - start < 0.9 for s in starts) for start in starts) == 4
    most = server.counters()["max_in_flight"]
    assert isinstance(most, int)
    assert most <= 4
