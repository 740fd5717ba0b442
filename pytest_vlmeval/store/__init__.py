"""The run store: the single source of truth of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytest_vlmeval.store.accounting import Accounting
from pytest_vlmeval.store.answers import Answers
from pytest_vlmeval.store.capabilities import Capabilities
from pytest_vlmeval.store.database import Database
from pytest_vlmeval.store.exchanges import Exchanges
from pytest_vlmeval.store.gates import Gates
from pytest_vlmeval.store.history import History
from pytest_vlmeval.store.leases import Leases
from pytest_vlmeval.store.location import Location
from pytest_vlmeval.store.reuse import Reuse
from pytest_vlmeval.store.runs import Runs
from pytest_vlmeval.store.scores import Scores


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
