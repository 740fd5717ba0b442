"""A judge of a real server and a real store, for the tests of what it decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.server_fixtures import ServerProcess

if TYPE_CHECKING:
    from pytest_vlmeval.models.pool import Pool
    from pytest_vlmeval.run.judge import Judge
    from pytest_vlmeval.run.store import Store

OpenJudge = Callable[..., "Judge"]


def make_judge(
    url: str, store: Store, name: str = "tiny-vlm", *, retries: int = 0
) -> Judge:
    """Give a judge that a server has under this name."""
    # Here, as every session of this checkout reads this module.
    from pytest_vlmeval.run.judge import Judge
    from tests.support.pool_calls import asking_settings, make_pool

    def open_pool(aside: Collection[str]) -> Pool:
        return make_pool(
            url, model=name, timeout_s=5, role="judge", outage_s=2, aside=tuple(aside)
        )

    return Judge(name, asking_settings(retries=retries), store, open_pool)


@pytest.fixture
def judge_store(tmp_path: Path) -> Iterator[Store]:
    """Give a store of one's own."""
    from pytest_vlmeval.run.store import Store

    store = Store(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def open_judge(server: ServerProcess, judge_store: Store) -> Iterator[OpenJudge]:
    """Give what opens the judge of the test server with its script."""
    opened: list[Judge] = []

    def open_judge(*, retries: int = 0, **script: object) -> Judge:
        server.control(**script)
        opened.append(make_judge(server.url, judge_store, retries=retries))
        return opened[-1]

    yield open_judge
    for judge in opened:
        judge.close()
