"""Before stored answers are used: whether the model at hand is the one that gave them.

A sample counts as changed when the model gives another answer than the stored one twice
in a row, both times the same. A server whose answers flip in up to a tenth of the
samples is told from a model that answers four tenths of them in another way by Wald's
sequential probability ratio test, looked at after each block of samples. A. Wald,
Sequential Tests of Statistical Hypotheses, 1945, doi 10.1214/aoms/1177731118.

Answers are judged by their source, the session that got them: what the model says of
itself is compared with what it said then, and samples of each source are asked again.
So one checkpoint's answers never hide among another's.

One process of a session finds out, the others wait for what it finds. What is asked
again is kept beside the stored answers and replaces none of them, unless they are too
few to tell.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar

from pytest_vlmeval.errors import VlmEvalError, printable
from pytest_vlmeval.models.client import normalize_api_base
from pytest_vlmeval.models.evidence import (
    HINTS,
    IDENTIFYING,
    PLACES,
    Evidence,
    checksums,
    differences,
)
from pytest_vlmeval.models.open import backend_of
from pytest_vlmeval.records import UNANSWERED, Answer, Ask, Origins, SpotCheck
from pytest_vlmeval.run.engine import Asker, Journal
from pytest_vlmeval.run.plan import write_request
from pytest_vlmeval.run.queue import LOOK_UP
from pytest_vlmeval.run.store.asking import INTERRUPTED

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.models.pool import Pool
    from pytest_vlmeval.run.queue import Board, Queue
    from pytest_vlmeval.run.store.asking import StoredAnswer
    from pytest_vlmeval.settings import Settings

T = TypeVar("T")
SpotDecision = Literal["same", "changed", "few", "more"]

# A likelihood ratio of 1,000 is reached by chance with a probability of at most 0.001,
# whenever one looks (Ville's inequality). The last look, where no more can be asked,
# adds LAST_LOOK; `tests/run/test_spot_check.py` computes both together. Where a command
# makes several tests each gets an equal part of both: they hold for all (Bonferroni).
FALSE_STOP = 1 / 1_000
MISSED = 1 / 100
LAST_LOOK = 1 / 2_000
# As many blocks are asked at most.
MOST_BLOCKS = 6

# A letter alone, or one that a text of its option follows: "(A) red", "A. red".
_LETTER = re.compile(r"\W*([A-Za-z])(?:\W*$|[.):])")


class Rates(NamedTuple):
    """The parts of the samples that change: by `noise` at most, by `another` model."""

    noise: float
    another: float


GREEDY = Rates(noise=0.10, another=0.40)
# Of three answers of one model at whatever temperature the last two are the same and
# differ from the first with a probability of sum p^2 (1 - p) <= 1/4.
SAMPLED = Rates(noise=0.25, another=0.55)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """How many samples were answered as before, changed, and differently each time."""

    same: int = 0
    changed: int = 0
    unsteady: int = 0

    @property
    def asked(self) -> int:
        """All of them."""
        return self.same + self.changed + self.unsteady


def decide(
    tally: Tally, rates: Rates, *, block: int, is_all: bool, tests: int = 1
) -> SpotDecision:
    """Return what the answers so far show.

    `is_all`: there are no more stored answers. "few" says that they are too few to
    tell. `tests` is how many such tests the command makes.
    """
    unchanged = tally.asked - tally.changed
    ratio = tally.changed * math.log(rates.another / rates.noise)
    ratio += unchanged * math.log((1 - rates.another) / (1 - rates.noise))
    if ratio >= -math.log(FALSE_STOP / tests):
        return "changed"
    if ratio <= math.log(MISSED) or not tally.changed:
        return "same"
    is_last = tally.asked >= MOST_BLOCKS * block
    if not (is_last or is_all):
        return "more"
    if tail(tally.asked, tally.changed, rates.noise) < LAST_LOOK / tests:
        return "changed"
    return "few" if is_all else "same"


def tail(count: int, least: int, rate: float) -> float:
    """Return the probability of at least so many of `count`, each of that `rate`."""
    return math.fsum(
        math.comb(count, k) * rate**k * (1 - rate) ** (count - k)
        for k in range(least, count + 1)
    )


def is_same(one: Answer, other: Answer, *, sampled: bool) -> bool:
    """Return whether two answers say the same, of all turns.

    But for white space they are equal; where they are `sampled`, a text that begins
    with the letter of an option counts as that letter. One that was cut off and one
    that was not are different.
    """
    if one.state != other.state or len(one.replies) != len(other.replies):
        return False
    pairs = zip(one.replies, other.replies, strict=True)
    return all(_plain(a, sampled) == _plain(b, sampled) for a, b in pairs)


def _plain(text: str, sampled: bool) -> str:
    words = " ".join(text.split())
    if not sampled:
        return words
    letter = _LETTER.match(words)
    return letter[1].upper() if letter else words.casefold()


def take_turns(parts: Iterable[Iterator[T]]) -> Iterator[T]:
    """Yield one item of each part in turn, until all are at their end."""
    left = list(parts)
    while left:
        still = []
        for part in left:
            for each in part:
                yield each
                still.append(part)
                break
        left = still


def shuffled(values: Mapping[str, T] | Sequence[str], seed: int) -> list[str]:
    """Return names in an order that only they and the seed determine."""
    return sorted(
        values, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()
    )


POLL_S = 0.2
# Characters of an answer in a message, and names of datasets.
SHOWN = 60
NAMED = 3

REMEDY = (
    "Nothing was scored. --vlm-fresh asks everything again; --vlm-reuse=always uses "
    "the stored answers as they are. If the wrong server was asked, give the right one "
    "with --vlm-api-base."
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


class _Source:
    """The stored answers of one session, or of several that asked the same weights.

    Of each dataset it keeps the `most` that may be asked again, and counts the rest.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._parts: dict[str, list[_Candidate]] = {}
        self._count = 0
        self._times: list[float] = []
        self._endpoints: set[str] = set()
        self.sessions: set[str] = set()
        self.is_from_cache = False
        # What was said of the model then, or is accepted since.
        self.evidence: list[Evidence] = []

    def add(self, candidate: _Candidate) -> None:
        """Count one in, and keep it where it may be needed."""
        part = self._parts.setdefault(candidate.dataset, [])
        if len(part) < self._most:
            part.append(candidate)
        answer = candidate.stored.answer
        self._count += 1
        at = answer.answered_at
        self._times = [min([*self._times, at]), max([*self._times, at])]
        self._endpoints.add(answer.endpoint)
        self.sessions.add(candidate.stored.session_id)
        self.is_from_cache |= answer.from_cache

    def candidates(self) -> Iterator[_Candidate]:
        """Return its answers, of each dataset in turn."""
        return take_turns(map(iter, self._parts.values()))

    def describe(self, *, named: bool) -> str:
        """Describe how many answers these are, from when and where, and of what."""
        oldest, newest = self._times
        origins = Origins(
            asked=0,
            stored=self._count,
            oldest=oldest,
            newest=newest,
            endpoints=tuple(sorted(self._endpoints - {""})),
        )
        some = list(self._parts)[:NAMED]
        more = len(self._parts) - len(some)
        of = f" of {', '.join(some)}{f' and {more} more' if more else ''}"
        return (
            f"{self._count} stored answer{'' if self._count == 1 else 's'}"
            f"{of if named else ''} ({origins.described}) "
            f"{'is' if self._count == 1 else 'are'}"
        )


class _Round:
    """What one endpoint was asked again of one source."""

    def __init__(self, source: _Source) -> None:
        self.source = source
        self.again: list[_Again] = []
        self.state: SpotDecision = "more"

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
        settings: Settings,
        library: Library,
        board: Board,
        queue: Queue,
        *,
        settle: Callable[[], Settings],
        make_pool: Callable[[Settings], Pool],
    ) -> None:
        self._settings = settings
        self._library = library
        self._board = board
        self._queue = queue
        self._settle = settle
        self._make_pool = make_pool
        self._store = board.store.reuse
        self._entries = {entry.fingerprint: entry for entry in board.plan.entries}
        self._rounds: list[_Round] = []
        self._sources: list[_Source] = []

    def check(self) -> None:
        """Find out, or wait for the process that does; `VlmEvalError` if refused."""
        board = self._board
        run_id, session_id = board.plan.run_id, board.session_id
        while found := self._store.begin(run_id, session_id, board.owner):
            if found.state == "refused":
                raise VlmEvalError(found.words)
            if found.state == "settled":
                # New answers may count by now.
                board.refresh()
                return
            time.sleep(POLL_S)
            board.store.leases.release_dead()
        try:
            result = self._find_out()
        except VlmEvalError as error:
            self._store.end(session_id, None, str(error))
            raise
        except KeyboardInterrupt:
            # Other processes must not take it for a check that was passed.
            unchecked = SpotCheck(state="unchecked", why="interrupted")
            self._store.end(session_id, unchecked, INTERRUPTED)
            raise
        self._store.end(session_id, result)

    def _find_out(self) -> SpotCheck | None:
        """Return what was found out, None if no stored answer would be used."""
        if next(self._candidates(), None) is None:
            return None
        settings = self._settings
        if settings.mode == "score":
            return SpotCheck(state="unchecked", why="--vlm-mode=score asks nothing")
        if settings.reuse == "always":
            if backend_of(settings).is_served and settings.api_bases:
                self._sources = self._find_sources()
                asyncio.run(self._accept_places(settings))
            return SpotCheck(state="unchecked", why="--vlm-reuse=always")
        self._sources = self._find_sources()
        return asyncio.run(self._ask_again(self._settle()))

    # Which answers

    def _candidates(self) -> Iterator[_Candidate]:
        """Yield the stored answers that would be used, dataset by dataset."""
        served = self._queue.may_serve()
        for each in shuffled(self._entries, self._settings.seed):
            yield from self._of_dataset(each, served=served)

    def _find_sources(self) -> list[_Source]:
        """Return the stored answers by where they are from.

        What a session took from the cache is a source of its own: what its endpoint
        said then is not evidence of those answers.
        """
        most = (MOST_BLOCKS + 1) * self._settings.spot_check
        found: dict[tuple[str, bool], _Source] = {}
        candidates = list(self._candidates())
        evidence = self._store.evidence_of(
            {candidate.stored.session_id for candidate in candidates}
        )
        merged: dict[object, _Source] = {}
        for candidate in candidates:
            stored = candidate.stored
            key = stored.session_id, stored.answer.from_cache
            if key not in found:
                said = evidence.get(stored.session_id, ())
                same = checksums(said)
                which = same if same and not stored.answer.from_cache else key
                found[key] = merged.setdefault(which, _Source(most))
                found[key].evidence += said
            found[key].add(candidate)
        return list(merged.values())

    def _of_dataset(self, fingerprint: str, *, served: bool) -> Iterator[_Candidate]:
        entry = self._entries[fingerprint]
        make = partial(_Candidate, dataset=entry.dataset, fingerprint=fingerprint)
        missing = []
        for index in shuffled(entry.indexes, self._settings.seed):
            for repeat in range(self._board.plan.repeats):
                stored = self._board.get(fingerprint, index, repeat)
                if stored is None:
                    missing.append(Ask(index, repeat))
                elif stored.answer.from_store:
                    yield make(ask=Ask(index, repeat), stored=stored)
        for start in range(0, len(missing) if served else 0, LOOK_UP):
            some = missing[start : start + LOOK_UP]
            for ask, stored in self._queue.find_cached(fingerprint, some).items():
                yield make(ask=ask, stored=stored)

    # What the model says of itself, and answers

    async def _ask_again(self, settings: Settings) -> SpotCheck:
        journal = Journal(str(settings.model))
        aside, now = await self._look(self._make_pool(settings))
        board = self._board
        self._store.record_evidence(board.plan.run_id, board.session_id, now)
        for source in self._sources:
            if new := differences(source.evidence, now, IDENTIFYING):
                raise VlmEvalError(self._explain_evidence(source, new, now))
        unsure = [each for each in self._sources if not _has_same_weights(each, now)]
        if not unsure:
            return SpotCheck(state="weights")
        every = _one_by_one(settings, aside)
        tests = len(every) * len(unsure)
        try:
            # Each is asked the same: one of them may have another model.
            for one in every:
                pool = self._make_pool(one)
                try:
                    asker = Asker(pool, one.retries, journal)
                    for source in unsure:
                        this = _Round(source)
                        self._rounds.append(this)
                        await self._compare(one, asker, this, now, tests=tests)
                finally:
                    await pool.close()
        finally:
            self._keep(journal)
        self._replace_stored()
        return self._result()

    async def _accept_places(self, settings: Settings) -> None:
        """Keep in mind where the model lies now, if nothing else tells it from then."""
        if not any(each.found.get(n) for n in PLACES for each in self._said):
            return
        pool = self._make_pool(settings)
        try:
            await pool.check()
            now = await pool.describe()
        except VlmEvalError:
            # Nothing is learnt of what cannot be reached, and nothing need be.
            return
        finally:
            await pool.close()
        others = [name for name in IDENTIFYING if name not in PLACES]
        moved = {
            session_id
            for source in self._sources
            if differences(source.evidence, now, PLACES)
            and not differences(source.evidence, now, others)
            for session_id in source.sessions
        }
        board = self._board
        self._store.record_evidence(board.plan.run_id, board.session_id, now)
        self._store.accept_evidence(moved, board.session_id)

    @property
    def _said(self) -> list[Evidence]:
        return [said for source in self._sources for said in source.evidence]

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
            if any(map(self._board.is_wanting, self._entries)):
                raise
            raise VlmEvalError(
                f"{error}\nAll answers are stored, but whether they are this model's "
                "can only be found out by asking it. --vlm-mode=score or "
                "--vlm-reuse=always uses them unchecked."
            ) from None

    def _keep(self, journal: Journal) -> None:
        """Write down what was asked again, and which requests failed."""
        board = self._board
        ids = board.plan.run_id, board.session_id
        asked = [
            (each.candidate.stored.seq, answer)
            for each in self._all
            for answer in each.answers
        ]
        self._store.record_answers(*ids, asked)
        board.store.accounting.record(*ids, journal.take())

    async def _compare(
        self,
        settings: Settings,
        asker: Asker,
        this: _Round,
        now: Sequence[Evidence],
        *,
        tests: int,
    ) -> None:
        """Ask one endpoint block after block until the answers tell."""
        candidates = this.source.candidates()
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
            is_all = following is None
            this.state = decide(tally, rates, block=block, is_all=is_all, tests=tests)
            if this.state == "changed":
                raise VlmEvalError(self._explain_answers(this, now))
            if this.state != "more":
                return
            target += block

    async def _ask_twice(
        self, settings: Settings, asker: Asker, candidate: _Candidate
    ) -> _Again:
        """Ask again, and once more if the answer is another one."""
        fingerprint, ask = candidate.fingerprint, candidate.ask
        answers: list[Answer] = []
        make = partial(_Again, candidate=candidate)
        same = partial(is_same, sampled=settings.temperature != 0)
        library = self._library
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

    def _result(self) -> SpotCheck:
        count = Counter(each.outcome for each in self._all)
        few = sum(each.tally.asked for each in self._rounds if each.state == "few")
        return SpotCheck(
            state="few" if few else "same",
            few=few,
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
        """Let new answers count where all of a source were asked and did not tell."""
        new = {
            (each.candidate.fingerprint, each.candidate.ask): each.answers[-1]
            for this in self._rounds
            if this.state == "few"
            for each in this.again
            if each.outcome in ("changed", "unsteady")
        }
        if not new:
            return
        board = self._board
        board.add(
            board.store.answers.record(
                board.plan.run_id, board.session_id, list(new.values())
            )
        )

    def _explain_evidence(
        self, source: _Source, new: Sequence[str], now: Sequence[Evidence]
    ) -> str:
        hints = differences(source.evidence, now, HINTS)
        return "\n".join(
            [
                f"{self._describe(source)} of another model than the one at hand:",
                *(f"    {line}" for line in (*new, *hints)),
                self._remedy,
            ]
        )

    def _explain_answers(self, this: _Round, now: Sequence[Evidence]) -> str:
        tally = this.tally
        changed = [each for each in this.again if each.outcome == "changed"]
        example = changed[0]
        unsteady = f", {tally.unsteady} differently each time" if tally.unsteady else ""
        where = {answer.endpoint for each in this.again for answer in each.answers}
        systems = _system_fingerprints(this.again)
        hints = differences(this.source.evidence, now, HINTS)
        return "\n".join(
            [
                f"{self._describe(this.source)} not of the model at hand: of "
                f"{tally.asked} samples that were asked again {tally.changed} got "
                f"another answer, twice the same{unsteady}, which is more than "
                "run-to-run noise explains.",
                f"    asked now: {', '.join(sorted(where - {''}))}",
                *(f"    {line}" for line in (*hints, *systems)),
                f"    for example {example.candidate.dataset}-"
                f"{example.candidate.ask.sample}: stored "
                f"{_brief(example.candidate.stored.answer)}, now "
                f"{_brief(example.answers[-1])}",
                self._remedy,
            ]
        )

    @property
    def _remedy(self) -> str:
        is_served = backend_of(self._settings).is_served
        return REMEDY if is_served else REMEDY_HERE

    def _describe(self, source: _Source) -> str:
        return source.describe(named=len(self._sources) > 1)


def _has_same_weights(source: _Source, now: Sequence[Evidence]) -> bool:
    """Return whether checksums tell that the answers of a source are this model's."""
    if source.is_from_cache or not (now and source.evidence):
        return False
    weights = {each.found.get("weights") for each in (*now, *source.evidence)}
    return len(weights) == 1 and None not in weights


def _one_by_one(settings: Settings, aside: Collection[str]) -> list[Settings]:
    """Return the settings with each of several endpoints alone, but for those aside."""
    if not backend_of(settings).is_served or settings.cluster is not None:
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
    if not answer.is_usable:
        return answer.state.replace("_", " ")
    words = " ".join(printable(answer.text).split())
    return repr(words if len(words) <= SHOWN else words[: SHOWN - 1] + "…")
