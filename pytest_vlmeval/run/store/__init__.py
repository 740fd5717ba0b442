"""The run store: the single source of truth of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_vlmeval.run.store.asking import (
    Accounting,
    Answers,
    Capabilities,
    Exchanges,
    Reuse,
)
from pytest_vlmeval.run.store.database import Database, Leases, Location
from pytest_vlmeval.run.store.results import Gates, Scores
from pytest_vlmeval.run.store.runs import History, Runs


class Store:
    """One store; every method of its parts is one transaction and thread-safe.

    It lies in a file of `work_dir`, or in the PostgreSQL database of `url`, whose
    server is waited for where it is restarted; `announce` is told so.
    """

    def __init__(
        self,
        work_dir: Path,
        url: str | None = None,
        announce: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._database = Database(Location(work_dir, url), announce)
        self.runs = Runs(self._database)
        self.answers = Answers(self._database)
        self.capabilities = Capabilities(self._database)
        self.accounting = Accounting(self._database)
        self.exchanges = Exchanges(self._database)
        self.gates = Gates(self._database)
        self.history = History(self._database)
        self.leases = Leases(self._database)
        self.reuse = Reuse(self._database)
        self.scores = Scores(self._database)

    def close(self) -> None:
        """Close the database."""
        self._database.close()
