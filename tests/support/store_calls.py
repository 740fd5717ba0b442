"""A store in either database, and short calls of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from pytest_vlmeval.records import Answer, Ask
from pytest_vlmeval.run.store import Store

DATA = "Data-1"


@pytest.fixture(
    params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)]
)
def store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    url: str | None = None
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    store = Store(tmp_path, url)
    yield store
    store.close()


def answer(index: str, text: str = "A", **more: object) -> Answer:
    fields = {"state": "answered", "text": text, **more}
    return Answer(fingerprint=DATA, index=index, **fields)  # type: ignore[arg-type]


def claim(
    store: Store, session_id: str, owner: str, indexes: Sequence[str]
) -> list[str]:
    """Claim samples of the run r and return their indexes."""
    asks = [Ask(index) for index in indexes]
    found = store.claim("r", session_id, owner, DATA, asks)
    return [ask.sample for ask in found]
