"""What a session still has to ask, who asks it, and where an item waits for it."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.pool import AUTO_CEILING, Concurrency
from pytest_vlmeval.records import (
    Answer,
    AnswerState,
    Ask,
    Origins,
    Plan,
)
from pytest_vlmeval.run.plan import identify
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.asking import StoredAnswer, counts
from pytest_vlmeval.run.store.database import Member

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.settings import Settings

# How many answers are looked up in the cache at once.
LOOK_UP = 256


class Queue:
    """The asks of a plan that have no answer; every method waits for the store.

    With --vlm-fresh nothing is served from the cache.
    """

    def __init__(self, settings: Settings, library: Library, board: Board) -> None:
        self.board = board
        # The names of the datasets by their fingerprints.
        self.datasets = {
            entry.fingerprint: entry.dataset for entry in board.plan.entries
        }
        self._library = library
        self._plan = board.plan
        self._store = board.store
        # What an answer depends on beside the prompt.
        self._identity = json.dumps(identify(settings), sort_keys=True).encode()
        self._cached = not settings.fresh
        self._cache_after = board.store.cache_after(board.plan.run_id)
        # Of what this process has claimed and not yet recorded.
        self._keys: dict[tuple[str, Ask], str] = {}

    def missing(self) -> Mapping[str, list[Ask]]:
        """Return what has no answer, by fingerprint, in the plan's order.

        Of a dataset that is held nothing may have to be asked now, but maybe later.
        """
        self.board.refresh()
        found = {
            entry.fingerprint: self.board.missing(entry.fingerprint)
            for entry in self._plan.entries
        }
        wanting = self.board.is_wanting
        return {name: asks for name, asks in found.items() if asks or wanting(name)}

    def claim(self, fingerprint: str, asks: Sequence[Ask]) -> list[Ask]:
        """Claim of `asks` what no other process holds; return what is to be sent.

        What the cache has an answer to is recorded with it at once.
        """
        board = self.board
        mine = self._store.claim(
            self._plan.run_id, board.session_id, board.owner, fingerprint, asks
        )
        keys = {ask: self._cache_key(fingerprint, ask) for ask in mine}
        self._keys.update({(fingerprint, ask): key for ask, key in keys.items()})
        if not self._cached:
            return mine
        found = self._find_cached(keys)
        served = [_serve(stored, fingerprint, ask) for ask, stored in found.items()]
        if served:
            self.record(served)
        return [ask for ask in mine if ask not in found]

    def _find_cached(self, keys: Mapping[Ask, str]) -> dict[Ask, StoredAnswer]:
        wanted = [key for key in keys.values() if key]
        found = self._store.find_cached(wanted, self._cache_after)
        return {ask: found[key] for ask, key in keys.items() if key in found}

    def look_up(
        self, fingerprint: str, asks: Sequence[Ask]
    ) -> Iterator[tuple[Sequence[Ask], Mapping[Ask, StoredAnswer]]]:
        """Yield `asks` in parts, each with what the cache would serve of it."""
        for start in range(0, len(asks), LOOK_UP):
            part = asks[start : start + LOOK_UP]
            keys = {ask: self._cache_key(fingerprint, ask) for ask in part}
            yield part, self._find_cached(keys) if self._cached else {}

    def may_serve(self) -> bool:
        """Return whether the run has more usable answers than the plan wants."""
        known = sum(self.board.progress().values())
        return self._cached and self._store.count_usable(self._plan.run_id) > known

    def record(self, new: Sequence[Answer]) -> None:
        """Keep answers in the store, and show them to who waits for them."""
        asked = [(each.fingerprint, Ask(each.index, each.repeat)) for each in new]
        keys = {each: self._keys.get(each, "") for each in asked}
        run_id, session_id = self._plan.run_id, self.board.session_id
        self.board.add(self._store.record(run_id, session_id, new, keys))
        for each in asked:
            self._keys.pop(each, None)

    def _cache_key(self, fingerprint: str, ask: Ask) -> str:
        """Name all that an answer depends on, of whatever run and dataset it is."""
        prompts = self._library.prompts(self.datasets[fingerprint])
        prompt = prompts.text(ask.sample)
        if not prompt:
            return ""
        parts = (self._identity, prompt.encode(), str(ask.repeat).encode())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _serve(stored: StoredAnswer, fingerprint: str, ask: Ask) -> Answer:
    return replace(
        stored.answer,
        fingerprint=fingerprint,
        index=ask.sample,
        repeat=ask.repeat,
        from_cache=True,
        asked_in=stored.answer.asked_in or stored.session_id,
        attempts=0,
        latency_ms=0.0,
        prompt_tokens=0,
        completion_tokens=0,
    )


class ProcessShare(NamedTuple):
    """Which of how many processes of the session this one is."""

    number: int
    processes: int

    def of(self, total: int) -> int:
        """Return this process's part of `total` at the start, at least 1."""
        part, rest = divmod(total, self.processes)
        return max(1, part + (self.number < rest))

    def concurrency(self, wanted: int | None) -> Concurrency:
        """Return this process's part of the requests in flight; None: found out."""
        if wanted is None:
            return Concurrency(self.of(AUTO_CEILING), adaptive=True)
        return Concurrency(self.of(wanted), adaptive=False)


def part_of(total: int, owner: str, members: Sequence[Member], processes: int) -> int:
    """Return how many of `total` requests at once are the part of `owner`.

    `members` are all that ever took part, in the order of their numbers, and
    `processes` as many as the session starts. One that has left gives its part back;
    that of a dead one is kept for the one that xdist starts in its place. The parts
    never sum up to more than `total`, so one may be 0.
    """
    live = [member.owner for member in members if member.state == "live"]
    left = sum(member.state == "left" for member in members)
    count = max(len(live), processes - left)
    if owner not in live:
        return 0
    part, rest = divmod(total, count)
    # A place among the live that no other process gives itself: while some have yet to
    # begin it is the process's own number, which no other has.
    numbers = {member.owner: member.number for member in members}
    place = numbers[owner] if len(members) < processes else live.index(owner)
    return part + (place < rest)


# Answers of other processes are read from the store this often while one waits.
REFRESH_S = 0.2
DAY_S = 86_400.0


class Board:
    """A view on the `store`'s answers for one session's `plan`, kept up to date.

    `session_id` names the session in the store, `owner` this process.
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
        owner: str = "",
        brief: bool = False,
        on_new: Callable[[StoredAnswer], None] = lambda stored: None,
    ) -> None:
        self._brief = brief
        self._asks = plan.asks
        self._on_new = on_new
        # Of a brief one: the same answer for all of a dataset that have the same state
        # and origin.
        self._states: dict[tuple[object, ...], Answer] = {}
        self.store = store
        self.plan = plan
        self.session_id = session_id
        self.owner = owner
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
            for stored in new:
                # What follows what is known without a gap need not be read again.
                self._last_seq += stored.seq == self._last_seq + 1
                answer = stored.answer
                if (answer.asked_in or stored.session_id) != self.session_id:
                    # This session has not asked it itself, for this or an equal prompt.
                    answer = replace(answer, from_store=True)
                    stored = replace(stored, answer=answer)
                if self._asks and not counts(stored, self.session_id):
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

    def origins(self) -> Origins:
        """Return how many of the plan's answers were asked now, and of the others."""
        with self._changed:
            answers = [
                stored.answer
                for known in self._known.values()
                for each in known
                for stored in each.values()
            ]
        others = [each for each in answers if each.from_store]
        equal = sum(each.from_cache and not each.from_store for each in answers)
        asked = len(answers) - len(others) - equal
        return replace(origins_of(others), asked=asked, equal=equal)

    def fail(self, error: VlmEvalError) -> None:
        """Tell everybody who waits that nothing more will come."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def refresh(self) -> None:
        """Read what other processes recorded since the last time."""
        new = self.store.answers_after(self.plan.run_id, self._wanted, self._last_seq)
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
        """Return whether anything has to be asked of a dataset, now or maybe later."""
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


def origins_of(stored: Sequence[Answer]) -> Origins:
    """Return where stored answers are from."""
    return Origins(
        stored=len(stored),
        oldest=min((each.answered_at for each in stored), default=0.0),
        newest=max((each.answered_at for each in stored), default=0.0),
        endpoints=tuple(sorted({each.endpoint for each in stored} - {""})),
    )
