"""Before stored answers are used: whether the model at hand is the one that gave them.

One process of a session finds out, the others wait for what it finds. What is asked
again is kept beside the stored answers and replaces none of them, unless they are too
few to tell.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, tee
from typing import TYPE_CHECKING

from pytest_vlmeval.accounts import SpotCheck
from pytest_vlmeval.asked import write_request
from pytest_vlmeval.asking import Asker, Journal
from pytest_vlmeval.errors import VlmEvalError, printable
from pytest_vlmeval.evidence import HINTS, IDENTIFYING, Evidence, differences
from pytest_vlmeval.models.api_base import normalize_api_base
from pytest_vlmeval.queue import LOOK_UP
from pytest_vlmeval.records import UNANSWERED, Answer, Ask
from pytest_vlmeval.spot_check import (
    GREEDY,
    SAMPLED,
    Decision,
    Tally,
    decide,
    is_same,
    shuffled,
    take_turns,
)

if TYPE_CHECKING:
    from pytest_vlmeval.models.pool import Pool
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.queue import Queue
    from pytest_vlmeval.run_state import RunState
    from pytest_vlmeval.store.answers import StoredAnswer

POLL_S = 0.2
# Characters of an answer in a message.
SHOWN = 60

REMEDY = (
    "Nothing was scored. --vlm-fresh asks everything again; --vlm-reuse=always uses "
    "the stored answers as they are. If the wrong server was asked, give the right one "
    "by --vlm-api-base."
)
REMEDY_HERE = (
    "Nothing was scored. --vlm-fresh asks everything again; --vlm-reuse=always uses "
    "the stored answers as they are."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A stored answer that the session would use for an ask of its own."""

    dataset: str
    fingerprint: str
    ask: Ask
    stored: StoredAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Again:
    """A candidate with what came when it was asked again, once or twice."""

    candidate: _Candidate
    answers: tuple[Answer, ...]
    outcome: str  # same, changed, unsteady, failed


class _Round:
    """What one endpoint was asked again."""

    def __init__(self) -> None:
        self.again: list[_Again] = []

    def count(self, outcome: str) -> int:
        """Return how many samples came out so."""
        return sum(each.outcome == outcome for each in self.again)

    @property
    def tally(self) -> Tally:
        """Return what the test counts."""
        return Tally(
            same=self.count("same"),
            changed=self.count("changed"),
            unsteady=self.count("unsteady"),
        )


class ReuseCheck:
    """The check of one session, in one of its processes.

    `settle` gives the settings with the addresses of servers that are started for the
    run, and `make_pool` opens the endpoints of settings.
    """

    def __init__(
        self,
        state: RunState,
        queue: Queue,
        *,
        settle: Callable[[], Settings],
        make_pool: Callable[[Settings, Journal], Pool],
    ) -> None:
        self._state = state
        self._queue = queue
        self._settle = settle
        self._make_pool = make_pool
        self._store = state.store.reuse
        self._entries = {entry.fingerprint: entry for entry in state.plan.entries}
        self._rounds: list[_Round] = []

    def check(self) -> None:
        """Find out, or wait for the process that does; `VlmEvalError` if refused."""
        state = self._state
        run_id, session_id = state.plan.run_id, state.session_id
        while found := self._store.begin(run_id, session_id, state.owner):
            if found.state == "refused":
                raise VlmEvalError(found.words)
            if found.state == "settled":
                # New answers may count by now.
                state.board.refresh()
                return
            time.sleep(POLL_S)
            state.store.leases.release_dead()
        try:
            result = self._find_out()
        except VlmEvalError as error:
            self._store.end(session_id, None, str(error))
            raise
        self._store.end(session_id, result)

    def _find_out(self) -> SpotCheck | None:
        """Return what was found out, None where no stored answer would be used."""
        candidates = self._candidates()
        first = next(candidates, None)
        if first is None:
            return None
        settings = self._state.settings
        if settings.mode == "score":
            return SpotCheck(state="unchecked", why="--vlm-mode=score asks nothing")
        if settings.reuse == "always":
            return SpotCheck(state="unchecked", why="--vlm-reuse=always")
        settings = self._settle()
        return asyncio.run(self._ask_again(settings, chain([first], candidates)))

    # Which answers

    def _candidates(self) -> Iterator[_Candidate]:
        """Give the stored answers that would be used, of each dataset in turn."""
        served = self._queue.may_serve()
        order = shuffled(self._entries, self._state.settings.seed)
        return take_turns([self._of_dataset(each, served=served) for each in order])

    def _of_dataset(self, fingerprint: str, *, served: bool) -> Iterator[_Candidate]:
        entry = self._entries[fingerprint]
        make = partial(_Candidate, dataset=entry.dataset, fingerprint=fingerprint)
        missing = []
        for index in shuffled(entry.indexes, self._state.settings.seed):
            for repeat in range(self._state.plan.repeats):
                stored = self._state.board.get(fingerprint, index, repeat)
                if stored is None:
                    missing.append(Ask(index, repeat))
                elif stored.answer.from_store:
                    yield make(ask=Ask(index, repeat), stored=stored)
        for start in range(0, len(missing) if served else 0, LOOK_UP):
            some = missing[start : start + LOOK_UP]
            for ask, stored in self._queue.find_cached(fingerprint, some).items():
                yield make(ask=ask, stored=stored)

    # What the model says of itself, and answers

    async def _ask_again(
        self, settings: Settings, candidates: Iterator[_Candidate]
    ) -> SpotCheck:
        journal = Journal(str(settings.model))
        aside, now = await self._look(self._make_pool(settings, journal))
        state = self._state
        self._store.record_evidence(state.plan.run_id, state.session_id, now)
        then = self._evidence_then()
        if new := differences(then, now, IDENTIFYING):
            raise VlmEvalError(self._explain_evidence(new, then, now))
        if self._has_same_weights(now):
            return SpotCheck(state="weights")
        states = set()
        every = _one_by_one(settings, aside)
        try:
            # Each is asked the same: one of them may have another model.
            for one, some in zip(every, tee(candidates, len(every)), strict=True):
                pool = self._make_pool(one, journal)
                try:
                    asker = Asker(pool, one.retries, journal)
                    states.add(await self._compare(one, asker, some, then, now))
                finally:
                    await pool.close()
        finally:
            self._keep(journal)
        if "few" in states:
            self._replace_stored()
        return self._result(states)

    async def _look(self, pool: Pool) -> tuple[Collection[str], Sequence[Evidence]]:
        """Return which endpoints cannot be asked, and what the others say."""
        try:
            return await self._reach(pool), await pool.describe()
        finally:
            await pool.close()

    async def _reach(self, pool: Pool) -> Collection[str]:
        try:
            return await pool.check()
        except VlmEvalError as error:
            if self._is_wanting():
                raise
            raise VlmEvalError(
                f"{error}\nAll answers are stored, but whether they are this model's "
                "can only be found out by asking it. --vlm-mode=score or "
                "--vlm-reuse=always uses them unchecked."
            ) from None

    def _is_wanting(self) -> bool:
        return any(map(self._state.board.is_wanting, self._entries))

    def _keep(self, journal: Journal) -> None:
        """Write down what was asked again, and which requests failed."""
        state = self._state
        ids = state.plan.run_id, state.session_id
        asked = [
            (each.candidate.stored.seq, answer)
            for each in self._all
            for answer in each.answers
        ]
        self._store.record_answers(*ids, asked)
        attempts, changes = journal.take()
        if attempts or changes:
            state.store.accounting.record(*ids, attempts, changes)

    def _sessions(self) -> set[str]:
        """Return the sessions that gave the stored answers."""
        found = set()
        for fingerprint, entry in self._entries.items():
            for index in entry.indexes:
                for repeat in range(self._state.plan.repeats):
                    stored = self._state.board.get(fingerprint, index, repeat)
                    if stored is not None and stored.answer.from_store:
                        found.add(stored.session_id)
        return found

    def _evidence_then(self) -> list[Evidence]:
        found = self._store.evidence_of(self._sessions())
        return [each for evidence in found.values() for each in evidence]

    def _has_same_weights(self, now: Sequence[Evidence]) -> bool:
        """Whether checksums tell that every stored answer is this model's."""
        sessions = self._sessions()
        found = self._store.evidence_of(sessions)
        if not sessions or found.keys() != sessions or self._queue.may_serve():
            return False
        every = [*now, *(each for evidence in found.values() for each in evidence)]
        weights = {each.found.get("weights") for each in every}
        return bool(now) and len(weights) == 1 and None not in weights

    async def _compare(
        self,
        settings: Settings,
        asker: Asker,
        candidates: Iterator[_Candidate],
        then: Sequence[Evidence],
        now: Sequence[Evidence],
    ) -> Decision:
        """Ask one endpoint block after block until the answers tell."""
        this = _Round()
        self._rounds.append(this)
        block = target = settings.spot_check
        rates = SAMPLED if settings.temperature else GREEDY
        following = next(candidates, None)
        while True:
            part: list[_Candidate] = []
            while following is not None and len(part) < target - this.tally.asked:
                part.append(following)
                following = next(candidates, None)
            ask = partial(self._ask_twice, settings, asker)
            this.again += await asyncio.gather(*map(ask, part))
            _check_failures(this, block, is_all=following is None)
            tally = this.tally
            if tally.asked < target and following is not None:
                continue
            state = decide(tally, rates, block=block, is_all=following is None)
            if state == "changed":
                raise VlmEvalError(self._explain_answers(this, then, now))
            if state != "more":
                return state
            target += block

    async def _ask_twice(
        self, settings: Settings, asker: Asker, candidate: _Candidate
    ) -> _Again:
        """Ask again, and once more if the answer is another one."""
        fingerprint, ask = candidate.fingerprint, candidate.ask
        answers: list[Answer] = []
        make = partial(_Again, candidate=candidate)
        same = partial(is_same, sampled=settings.temperature != 0)
        library = self._state.library
        try:
            request = write_request(library, settings, candidate.dataset, ask.sample)
        except VlmEvalError:
            return make(answers=(), outcome="failed")
        before = candidate.stored.answer
        for _ in range(2):
            answer = await asker.ask(fingerprint, ask.sample, request)
            answers.append(replace(answer, repeat=ask.repeat))
            if answer.state in UNANSWERED:
                return make(answers=tuple(answers), outcome="failed")
            if same(answer, before):
                break
        if same(answers[0], before):
            return make(answers=tuple(answers), outcome="same")
        steady = same(answers[0], answers[1])
        return make(answers=tuple(answers), outcome="changed" if steady else "unsteady")

    # What came of it

    @property
    def _all(self) -> list[_Again]:
        return [each for this in self._rounds for each in this.again]

    def _result(self, states: set[Decision]) -> SpotCheck:
        count = Counter(each.outcome for each in self._all)
        return SpotCheck(
            state="few" if "few" in states else "same",
            asked=count.total(),
            same=count["same"],
            changed=count["changed"],
            unsteady=count["unsteady"],
            failed=count["failed"],
            requests=sum(
                answer.attempts for each in self._all for answer in each.answers
            ),
        )

    def _replace_stored(self) -> None:
        """Let the new answers count, where all stored ones were asked again."""
        new = {
            (each.candidate.fingerprint, each.candidate.ask): each.answers[-1]
            for each in self._all
            if each.outcome in ("changed", "unsteady")
        }
        state = self._state
        state.board.add(
            state.store.answers.record(
                state.plan.run_id, state.session_id, list(new.values())
            )
        )

    def _explain_evidence(
        self, new: Sequence[str], then: Sequence[Evidence], now: Sequence[Evidence]
    ) -> str:
        return "\n".join(
            [
                f"{self._stored_ones()} of another model than the one at hand:",
                *(f"    {line}" for line in (*new, *differences(then, now, HINTS))),
                self._remedy,
            ]
        )

    def _explain_answers(
        self, this: _Round, then: Sequence[Evidence], now: Sequence[Evidence]
    ) -> str:
        tally = this.tally
        changed = [each for each in this.again if each.outcome == "changed"]
        example = changed[0]
        unsteady = f", {tally.unsteady} differently each time" if tally.unsteady else ""
        where = {answer.endpoint for each in this.again for answer in each.answers}
        systems = _system_fingerprints(this.again)
        return "\n".join(
            [
                f"{self._stored_ones()} not of the model at hand: of {tally.asked} "
                f"samples that were asked again {tally.changed} got another answer, "
                f"twice the same{unsteady}, which is more than run-to-run noise "
                "explains.",
                f"    asked now: {', '.join(sorted(where - {''}))}",
                *(f"    {line}" for line in (*differences(then, now, HINTS), *systems)),
                f"    for example {example.candidate.dataset}-"
                f"{example.candidate.ask.sample}: stored "
                f"{_brief(example.candidate.stored.answer)}, now "
                f"{_brief(example.answers[-1])}",
                self._remedy,
            ]
        )

    @property
    def _remedy(self) -> str:
        return REMEDY if self._state.settings.backend == "endpoint" else REMEDY_HERE

    def _stored_ones(self) -> str:
        origins = self._state.board.origins()
        count = origins.stored or len(self._rounds[-1].again)
        origin = f" ({origins.described})" if origins.described else ""
        return f"{count} stored answer{'' if count == 1 else 's'}{origin} " + (
            "is" if count == 1 else "are"
        )


def _one_by_one(settings: Settings, aside: Collection[str]) -> list[Settings]:
    """Return the settings with each of several endpoints alone, but for those aside."""
    if settings.backend != "endpoint" or settings.cluster is not None:
        return [settings]
    names = dict.fromkeys(map(normalize_api_base, settings.api_bases))
    return [replace(settings, api_bases=(name,)) for name in names if name not in aside]


def _check_failures(this: _Round, block: int, *, is_all: bool) -> None:
    """Give up where many requests fail, or all that there are."""
    failed = this.count("failed")
    if failed <= block // 2 and (this.tally.asked or not is_all):
        return
    answers = [answer for each in this.again for answer in each.answers]
    errors = [answer.error for answer in answers if answer.error]
    words = f": {errors[0]}" if errors else ""
    raise VlmEvalError(
        "Whether the stored answers are this model's cannot be found out: of "
        f"{len(this.again)} samples that were asked again {failed} got no "
        f"answer{words.rstrip('.')}. Nothing was scored. Run the same command again "
        "once the model answers, or give --vlm-reuse=always to use the stored answers "
        "unchecked."
    )


def _system_fingerprints(again: Sequence[_Again]) -> list[str]:
    then = {each.candidate.stored.answer.system_fingerprint for each in again} - {""}
    now = {answer.system_fingerprint for each in again for answer in each.answers}
    new = sorted(now - then - {""})
    if not (then and new):
        return []
    return [f"system_fingerprint was {_or(then)} and is {_or(new)}"]


def _or(values: Sequence[str] | set[str]) -> str:
    return " or ".join(sorted(values))


def _brief(answer: Answer) -> str:
    """Show the beginning of an answer, or that it is none."""
    if answer.state != "answered":
        return answer.state.replace("_", " ")
    words = " ".join(printable(answer.text).split())
    return repr(words if len(words) <= SHOWN else words[: SHOWN - 1] + "…")
