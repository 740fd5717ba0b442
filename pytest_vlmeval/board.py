"""The answers this process knows of, and where a pytest item waits for its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import Plan
from pytest_vlmeval.store import Store
from pytest_vlmeval.store.answers import StoredAnswer, counts

# Answers of other processes are read from the store this often while one waits.
REFRESH_S = 0.2


class Board:
    """A view on the store's answers for one session's plan, kept up to date.

    Answers of this process arrive through `add`; those of others are read from the
    store while somebody waits. Thread-safe.
    """

    def __init__(self, store: Store, plan: Plan, session_id: str) -> None:
        self._store = store
        self._run_id = plan.run_id
        self._session_id = session_id
        self._wanted = {entry.fingerprint: set(entry.indexes) for entry in plan.entries}
        self._known: dict[str, dict[str, StoredAnswer]] = {
            fingerprint: {} for fingerprint in self._wanted
        }
        self._last_seq = 0
        self._refreshed_at = 0.0
        self._failure: VlmEvalError | None = None
        self._changed = threading.Condition()

    def add(self, new: Iterable[StoredAnswer]) -> None:
        """Take in answers; the newest for a sample counts."""
        with self._changed:
            for stored in new:
                answer = stored.answer
                if not counts(stored, self._session_id):
                    continue
                if answer.index not in self._wanted.get(answer.fingerprint, ()):
                    continue
                known = self._known[answer.fingerprint]
                before = known.get(answer.index)
                if before is None or before.seq < stored.seq:
                    known[answer.index] = stored
            self._changed.notify_all()

    def fail(self, error: VlmEvalError) -> None:
        """Tell everybody who waits that nothing more will come."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def refresh(self) -> None:
        """Read what other processes recorded since the last time."""
        new = self._store.answers.after(
            self._run_id, list(self._wanted), self._last_seq
        )
        if new:
            self._last_seq = new[-1].seq
            self.add(new)
        self._refreshed_at = time.monotonic()

    def get(self, fingerprint: str, index: str) -> StoredAnswer | None:
        """Return the answer of a sample if it is known here."""
        with self._changed:
            return self._known[fingerprint].get(index)

    def wait(self, fingerprint: str, index: str) -> StoredAnswer:
        """Block until the sample has an answer; raise what ended the engine."""
        while True:
            with self._changed:
                stored = self._known[fingerprint].get(index)
                if stored is not None:
                    return stored
                if self._failure is not None:
                    raise self._failure
                self._changed.wait(REFRESH_S)
            if time.monotonic() - self._refreshed_at >= REFRESH_S:
                self.refresh()

    def missing(self, fingerprint: str) -> list[str]:
        """Return the wanted samples of a dataset that have no answer yet."""
        with self._changed:
            return [
                index
                for index in self._wanted[fingerprint]
                if index not in self._known[fingerprint]
            ]

    def progress(self) -> Mapping[str, int]:
        """Return how many wanted samples have an answer, by fingerprint."""
        with self._changed:
            return {name: len(known) for name, known in self._known.items()}
