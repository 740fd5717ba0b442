"""The answers this process knows of, and where a pytest item waits for its own."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from pytest_vlmeval.accounts import Origins
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import Answer, AnswerState, Ask, Plan
from pytest_vlmeval.store import Store
from pytest_vlmeval.store.answers import StoredAnswer, counts

# Answers of other processes are read from the store this often while one waits.
REFRESH_S = 0.2
DAY_S = 86_400.0


class Board:
    """A view on the store's answers for one session's plan, kept up to date.

    Answers of this process arrive through `add`; those of others are read from the
    store while somebody waits. Thread-safe. A `brief` one keeps of each answer only
    its place in the store, its state and its origin, for those that only count.
    A session that asks nothing takes what others got, usable or not. `on_new` is given
    each answer that is taken in.
    """

    def __init__(
        self,
        store: Store,
        plan: Plan,
        session_id: str,
        *,
        brief: bool = False,
        on_new: Callable[[StoredAnswer], None] = lambda stored: None,
    ) -> None:
        self._brief = brief
        self._asks = plan.asks
        self._on_new = on_new
        # Of a brief one: the same answer for all of a dataset that have the same state
        # and origin.
        self._states: dict[tuple[object, ...], Answer] = {}
        self._store = store
        self._run_id = plan.run_id
        self._session_id = session_id
        self._repeats = plan.repeats
        self._wanted = {
            entry.fingerprint: frozenset(entry.indexes) for entry in plan.entries
        }
        self._in_order = {entry.fingerprint: entry.indexes for entry in plan.entries}
        # By fingerprint, then by repeat and index.
        self._known: dict[str, list[dict[str, StoredAnswer]]] = {
            fingerprint: [{} for _ in range(plan.repeats)]
            for fingerprint in self._wanted
        }
        # How many of a dataset's samples may be asked, and whether more will be.
        self._open: dict[str, tuple[int, bool]] = {}
        self._last_seq = 0
        self._refreshed_at = 0.0
        self._failure: VlmEvalError | None = None
        self._changed = threading.Condition()

    def add(self, new: Iterable[StoredAnswer]) -> None:
        """Take in answers; the newest for an ask counts."""
        with self._changed:
            for each in new:
                stored = self._with_origin(each)
                # What follows what is known without a gap need not be read again.
                self._last_seq += stored.seq == self._last_seq + 1
                answer = stored.answer
                if self._asks and not counts(stored, self._session_id):
                    continue
                if answer.index not in self._wanted.get(answer.fingerprint, ()):
                    continue
                if answer.repeat >= self._repeats:
                    continue
                known = self._known[answer.fingerprint][answer.repeat]
                before = known.get(answer.index)
                if before is None or before.seq < stored.seq:
                    known[answer.index] = self._kept(stored)
                    self._on_new(stored)
            self._changed.notify_all()

    def _kept(self, stored: StoredAnswer) -> StoredAnswer:
        if not self._brief:
            return stored
        answer = stored.answer
        day = answer.answered_at // DAY_S * DAY_S
        origin = answer.endpoint, answer.from_store, answer.from_cache, day
        key = (answer.fingerprint, answer.state, answer.finish_reason, *origin)
        kept = self._states.get(key)
        if kept is None:
            kept = self._states[key] = Answer(
                fingerprint=answer.fingerprint,
                index="",
                state=answer.state,
                finish_reason=answer.finish_reason,
                endpoint=answer.endpoint,
                from_cache=answer.from_cache,
                from_store=answer.from_store,
                answered_at=day,
            )
        return replace(stored, answer=kept)

    def _with_origin(self, stored: StoredAnswer) -> StoredAnswer:
        """Mark what this session has not asked itself, for this or an equal prompt."""
        answer = stored.answer
        if (answer.asked_in or stored.session_id) == self._session_id:
            return stored
        return replace(stored, answer=replace(answer, from_store=True))

    def origins(self) -> Origins:
        """Return how many of the plan's answers were asked now, and of the others."""
        answers = [stored.answer for stored in self._all()]
        others = [each for each in answers if each.from_store]
        equal = sum(each.from_cache and not each.from_store for each in answers)
        return Origins(
            asked=len(answers) - len(others) - equal,
            equal=equal,
            stored=len(others),
            oldest=min((each.answered_at for each in others), default=0.0),
            newest=max((each.answered_at for each in others), default=0.0),
            endpoints=tuple(sorted({each.endpoint for each in others} - {""})),
        )

    def _all(self) -> list[StoredAnswer]:
        with self._changed:
            return [
                stored
                for known in self._known.values()
                for each in known
                for stored in each.values()
            ]

    def fail(self, error: VlmEvalError) -> None:
        """Tell everybody who waits that nothing more will come."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def refresh(self) -> None:
        """Read what other processes recorded since the last time."""
        new = self._store.answers.after(self._run_id, self._wanted, self._last_seq)
        for part in new:
            self.add(part)
            with self._changed:
                self._last_seq = max(self._last_seq, part[-1].seq)
        self._refreshed_at = time.monotonic()

    def get(self, fingerprint: str, index: str, repeat: int = 0) -> StoredAnswer | None:
        """Return an answer to a sample if it is known here."""
        with self._changed:
            return self._known[fingerprint][repeat].get(index)

    def wait(self, fingerprint: str, index: str, repeat: int = 0) -> StoredAnswer:
        """Block until an ask has its answer; raise what ended the engine."""
        known = self._known[fingerprint][repeat]
        while True:
            with self._changed:
                stored = known.get(index)
                if stored is not None:
                    return stored
                if self._failure is not None:
                    raise self._failure
                self._changed.wait(REFRESH_S)
            if time.monotonic() - self._refreshed_at >= REFRESH_S:
                self.refresh()

    def wait_all(self, fingerprint: str, index: str) -> list[StoredAnswer]:
        """Wait for the answer of each time that a sample is asked."""
        return [
            self.wait(fingerprint, index, repeat) for repeat in range(self._repeats)
        ]

    def hold(self, fingerprint: str, count: int, *, more: bool) -> None:
        """Let only the first samples of a dataset be asked; `more` may follow later."""
        with self._changed:
            self._open[fingerprint] = (count, more)

    def is_wanting(self, fingerprint: str) -> bool:
        """Whether anything has to be asked of a dataset, now or maybe later."""
        with self._changed:
            held = self._open.get(fingerprint, (0, False))[1]
        return held or bool(self.missing(fingerprint))

    def missing(self, fingerprint: str) -> list[Ask]:
        """Return what may be asked of a dataset now, sample by sample in its order."""
        known = self._known[fingerprint]
        with self._changed:
            order = self._in_order[fingerprint]
            count, _ = self._open.get(fingerprint, (len(order), False))
            return [
                Ask(index, repeat)
                for index in order[:count]
                for repeat in range(self._repeats)
                if index not in known[repeat]
            ]

    def answered(self, fingerprint: str) -> int:
        """Return how many samples have a usable answer, every time they are asked."""
        known = self._known[fingerprint]
        with self._changed:
            return sum(
                all(index in each and each[index].answer.is_usable for each in known)
                for index in self._in_order[fingerprint]
            )

    def endings(self, fingerprint: str) -> Counter[tuple[AnswerState, str]]:
        """Count the answers to a dataset's asks by state and finish_reason."""
        with self._changed:
            return Counter(
                (stored.answer.state, stored.answer.finish_reason)
                for known in self._known[fingerprint]
                for stored in known.values()
            )

    def progress(self) -> Mapping[str, int]:
        """Return how many wanted asks have an answer, by fingerprint."""
        with self._changed:
            return {name: sum(map(len, known)) for name, known in self._known.items()}
