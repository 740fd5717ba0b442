"""The engine of a run without pytest around it, and a drill that kills it.

`python -m tests.support.engine_calls URL FOLDER KILLS SEED` starts it again and again,
kills each at a moment that chance chooses, and prints what that cost as JSON.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from pytest_vlmeval.models.pool import Concurrency
from pytest_vlmeval.records import Plan, PlanEntry
from pytest_vlmeval.run.engine import Engine
from pytest_vlmeval.run.queue import Board, Queue
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.database import make_owner
from tests.support.endpoint_calls import text_request
from tests.support.pool_calls import asking_settings, make_pool

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.models.client import Request
    from pytest_vlmeval.run.engine import Model

MakeRequest = Callable[[str, str], "Request"]

CONCURRENCY = 8
SAMPLES = 400
START_LIMIT_S = 20


def ask_for(fingerprint: str, index: str) -> Request:
    """Return the prompt of a sample."""
    return text_request(f"{fingerprint}: question <{index}>?")


class PlainLibrary:
    """Datasets of the names Data and the like, whose prompts are made when asked."""

    def __init__(self, request: MakeRequest) -> None:
        self._request = request

    def request(self, dataset: str, index: str) -> Request:
        return self._request(f"{dataset}-1", index)

    def prompts(self, dataset: str) -> SimpleNamespace:
        return SimpleNamespace(text=lambda index: "")

    def release_prompts(self) -> None:
        """Hold none."""


class Asking:
    """An engine at one endpoint, with a store; as a run makes them."""

    def __init__(
        self,
        url: str,
        folder: Path,
        indexes: Sequence[str],
        *,
        datasets: Sequence[str] = ("Data-1",),
        concurrency: int = CONCURRENCY,
        request: MakeRequest = ask_for,
    ) -> None:
        self.said: list[str] = []
        self.store = Store(folder)
        entries = [
            PlanEntry(
                dataset=name.partition("-")[0],
                fingerprint=name,
                modified=False,
                indexes=tuple(indexes),
            )
            for name in datasets
        ]
        plan = Plan(run_id="r", scorer="x", entries=tuple(entries), repeats=1)
        owner = make_owner()
        self.store.release_dead()
        self.store.join(owner, owner, "r", 0)
        self.board = Board(self.store, plan, owner, owner=owner)
        settings = asking_settings(folder)
        library = cast("Library", PlainLibrary(request))
        queue = Queue(settings, library, self.board)
        fixed = Concurrency(concurrency, adaptive=False)
        model = SimpleNamespace(
            settings=settings, open=lambda aside: make_pool(url, concurrency=fixed)
        )
        self.engine = Engine(cast("Model", model), library, queue, self.said.append)

    def close(self) -> None:
        """End it and close its store."""
        self.engine.stop()
        self.store.close()


def count_answers(folder: Path) -> int:
    """Return how many answers a store has, if it is one yet."""
    if not (folder / "store.sqlite").exists():
        return 0
    connection = sqlite3.connect(folder / "store.sqlite")
    try:
        tables = "SELECT count(*) FROM sqlite_master WHERE name = 'answers'"
        if not connection.execute(tables).fetchone()[0]:
            return 0
        return int(connection.execute("SELECT count(*) FROM answers").fetchone()[0])
    finally:
        connection.close()


def _count_requests(url: str, *, done: bool = True) -> int:
    """Return how many requests there were, once the server is `done` with all."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    control = url.removesuffix("/v1") + "/control"
    while True:
        with opener.open(urllib.request.Request(control, b"{}")) as response:
            counters = json.load(response)
        if not counters["in_flight"] or not done:
            return int(counters["requests"].get("/chat/completions", 0))
        time.sleep(0.01)


def _run_for(limit_s: float, url: str, folder: Path) -> None:
    """Run an engine in a process of its own; kill it so long after it first asks."""
    before = _count_requests(url)
    child = os.fork()
    if not child:
        asking = Asking(url, folder, [str(number) for number in range(SAMPLES)])
        asking.engine.start()
        while asking.board.missing("Data-1"):
            time.sleep(0.05)
        os._exit(0)
    end = time.monotonic() + START_LIMIT_S
    while _count_requests(url, done=False) == before and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(limit_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def drill(url: str, root: Path, kills: int, seed: int) -> list[int]:
    """Return how many samples were lost, so asked again, by each kill."""
    chance = random.Random(seed)
    lost = []
    folder, round_number = root, 0
    for _ in range(kills):
        before = _count_requests(url)
        folder = root / str(round_number)
        stored = count_answers(folder)
        _run_for(chance.uniform(0, 0.3), url, folder)
        sent = _count_requests(url) - before
        now = count_answers(folder)
        lost.append(sent - (now - stored))
        round_number += now >= SAMPLES - CONCURRENCY
    return lost


if __name__ == "__main__":
    url, folder, kills, seed = sys.argv[1:]
    sys.stdout.write(json.dumps(drill(url, Path(folder), int(kills), int(seed))))
