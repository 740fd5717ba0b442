"""The run store: the single source of truth of a run."""

from __future__ import annotations

from pytest_vlmeval.run.store.accounts import Accounts
from pytest_vlmeval.run.store.asking import Asking
from pytest_vlmeval.run.store.database import Leases
from pytest_vlmeval.run.store.results import Results
from pytest_vlmeval.run.store.runs import Runs


class Store(Runs, Leases, Asking, Results, Accounts):
    """One open store; each of its methods is one transaction and thread-safe.

    Its bases are groups of queries, which share the open `Database`.
    """
