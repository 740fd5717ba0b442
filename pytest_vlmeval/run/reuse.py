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
from collections import Counter, deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from pytest_vlmeval.records import UNANSWERED, Answer, Ask, SpotCheck
from pytest_vlmeval.run.engine import Asker
from pytest_vlmeval.run.plan import write_request
from pytest_vlmeval.run.queue import origins_of
from pytest_vlmeval.run.store.asking import INTERRUPTED

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.run.engine import Model
    from pytest_vlmeval.run.queue import Queue
    from pytest_vlmeval.run.store.asking import StoredAnswer

T = TypeVar("T")
SpotDecision = Literal["same", "changed", "few", "more"]

# A likelihood ratio of 1,000 is reached by chance with a probability of at most 0.001,
# whenever one looks (Ville's inequality). The last look, where no more can be asked,
# adds LAST_LOOK; `tests/run/test_stored_answers.py` computes both together. Where a
# command makes several tests each gets an equal part of both: they hold for all
# (Bonferroni).
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


def decide(
    asked: int, changed: int, rates: Rates, *, block: int, is_all: bool, tests: int = 1
) -> SpotDecision:
    """Return what the answers so far show.

    Of the samples `asked` again, of which there was an answer, so many have `changed`.
    `is_all`: there are no more stored answers. "few" says that they are too few to
    tell. `tests` is how many such tests the command makes.
    """
    ratio = changed * math.log(rates.another / rates.noise)
    ratio += (asked - changed) * math.log((1 - rates.another) / (1 - rates.noise))
    if ratio >= -math.log(FALSE_STOP / tests):
        return "changed"
    if ratio <= math.log(MISSED) or not changed:
        return "same"
    if not (asked >= MOST_BLOCKS * block or is_all):
        return "more"
    if tail(asked, changed, rates.noise) < LAST_LOOK / tests:
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


class _Candidate(NamedTuple):
    """A stored answer that the session would use for an ask of its own."""

    dataset: str
    fingerprint: str
    ask: Ask
    stored: StoredAnswer


class _Again(NamedTuple):
    """A candidate with what came when it was asked again, once or twice."""

    candidate: _Candidate
    answers: tuple[Answer, ...]
    outcome: Literal["same", "changed", "unsteady", "failed"]


@dataclass(slots=True)
class _Source:
    """The stored answers of one session, or of several that asked the same weights.

    `evidence` is what was said of the model then, or is accepted since.
    """

    candidates: list[_Candidate] = field(default_factory=list)
    evidence: list[Evidence] = field(default_factory=list)

    @property
    def is_from_cache(self) -> bool:
        return any(each.stored.answer.from_cache for each in self.candidates)

    def by_dataset(self) -> dict[str, list[_Candidate]]:
        found: dict[str, list[_Candidate]] = {}
        for each in self.candidates:
            found.setdefault(each.dataset, []).append(each)
        return found

    def describe(self, *, named: bool) -> str:
        """Describe how many answers these are, from when and where, and of what."""
        count = len(self.candidates)
        origins = origins_of([each.stored.answer for each in self.candidates])
        names = list(self.by_dataset())
        more = len(names) - NAMED
        of = f" of {', '.join(names[:NAMED])}{f' and {more} more' if more > 0 else ''}"
        return (
            f"{count} stored answer{'' if count == 1 else 's'}"
            f"{of if named else ''} ({origins.described}) "
            f"{'is' if count == 1 else 'are'}"
        )


@dataclass(slots=True)
class _Round:
    """What one endpoint was asked again of one source."""

    source: _Source
    again: list[_Again] = field(default_factory=list)
    state: SpotDecision = "more"

    def count(self, *outcomes: str) -> int:
        """Return how many samples came out so."""
        return sum(each.outcome in outcomes for each in self.again)

    @property
    def answered(self) -> int:
        """How many of them got an answer."""
        return self.count("same", "changed", "unsteady")


class ReuseCheck:
    """The check of one session, in one of its processes."""

    def __init__(self, model: Model, library: Library, queue: Queue) -> None:
        self._model = model
        self._library = library
        self._queue = queue
        self._board = queue.board
        self._store = queue.board.store
        self._entries = {entry.fingerprint: entry for entry in self._board.plan.entries}
        self._rounds: list[_Round] = []
        self._sources: list[_Source] = []

    def check(self) -> None:
        """Find out, or wait for the process that does; `VlmEvalError` if refused."""
        board = self._board
        run_id, session_id = board.plan.run_id, board.session_id
        while found := self._store.begin_check(run_id, session_id, board.owner):
            state, words = found
            if state == "refused":
                raise VlmEvalError(words)
            if state == "settled":
                # New answers may count by now.
                board.refresh()
                return
            time.sleep(POLL_S)
            self._store.release_dead()
        try:
            result = self._find_out()
        except VlmEvalError as error:
            self._store.end_check(session_id, None, str(error))
            raise
        except KeyboardInterrupt:
            # Other processes must not take it for a check that was passed.
            unchecked = SpotCheck(state="unchecked", why="interrupted")
            self._store.end_check(session_id, unchecked, INTERRUPTED)
            raise
        self._store.end_check(session_id, result)

    def _find_out(self) -> SpotCheck | None:
        """Return what was found out, None if no stored answer would be used."""
        if next(self._candidates(), None) is None:
            return None
        settings = self._model.settings
        if settings.mode == "score":
            return SpotCheck(state="unchecked", why="--vlm-mode=score asks nothing")
        if settings.reuse == "always":
            if backend_of(settings).is_served and settings.api_bases:
                self._sources = self._find_sources()
                asyncio.run(self._accept_places())
            return SpotCheck(state="unchecked", why="--vlm-reuse=always")
        self._sources = self._find_sources()
        self._model.settle()
        return asyncio.run(self._ask_again())

    # Which answers

    def _candidates(self) -> Iterator[_Candidate]:
        """Yield the stored answers that would be used, dataset by dataset."""
        seed = self._model.settings.seed
        served = self._queue.may_serve()
        for fingerprint in shuffled(self._entries, seed):
            entry = self._entries[fingerprint]
            make = partial(_Candidate, entry.dataset, fingerprint)
            missing = []
            for index in shuffled(entry.indexes, seed):
                for repeat in range(self._board.plan.repeats):
                    stored = self._board.get(fingerprint, index, repeat)
                    if stored is None:
                        missing.append(Ask(index, repeat))
                    elif stored.answer.from_store:
                        yield make(Ask(index, repeat), stored)
            if served:
                for _, found in self._queue.look_up(fingerprint, missing):
                    for ask, stored in found.items():
                        yield make(ask, stored)

    def _find_sources(self) -> list[_Source]:
        """Return the stored answers by where they are from.

        What a session took from the cache is a source of its own: what its endpoint
        said then is not evidence of those answers.
        """
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
                found[key] = merged.setdefault(which, _Source())
                found[key].evidence += said
            found[key].candidates.append(candidate)
        return list(merged.values())

    # What the model says of itself, and answers

    async def _ask_again(self) -> SpotCheck:
        settings = self._model.settings
        aside, now = await self._look()
        for source in self._sources:
            if new := differences(source.evidence, now, IDENTIFYING):
                raise VlmEvalError(self._explain_evidence(source, new, now))
        unsure = [each for each in self._sources if not _has_same_weights(each, now)]
        if not unsure:
            return SpotCheck(state="weights")
        every: list[tuple[str, ...]] = [settings.api_bases]
        if backend_of(settings).is_served and settings.cluster is None:
            # Each is asked the same: one of them may have another model.
            names = dict.fromkeys(map(normalize_api_base, settings.api_bases))
            every = [(name,) for name in names if name not in aside]
        tests = len(every) * len(unsure)
        for api_bases in every:
            pool = self._model.open(api_bases=api_bases)
            asker = Asker(settings, pool, str(settings.model))
            rounds: list[_Round] = []
            try:
                for source in unsure:
                    rounds.append(_Round(source))
                    await self._compare(asker, rounds[-1], now, tests=tests)
            finally:
                self._rounds += rounds
                self._keep(asker, rounds)
                await pool.close()
        self._replace_stored()
        return self._result()

    async def _accept_places(self) -> None:
        """Keep in mind where the model lies now, if nothing else tells it from then."""
        said = [each for source in self._sources for each in source.evidence]
        if not any(each.found.get(name) for name in PLACES for each in said):
            return
        try:
            _, now = await self._look()
        except VlmEvalError:
            # Nothing is learnt of what cannot be reached, and nothing need be.
            return
        others = [name for name in IDENTIFYING if name not in PLACES]
        moved = {
            candidate.stored.session_id
            for source in self._sources
            if differences(source.evidence, now, PLACES)
            and not differences(source.evidence, now, others)
            for candidate in source.candidates
        }
        self._store.accept_evidence(moved, self._board.session_id)

    async def _look(self) -> tuple[Collection[str], Sequence[Evidence]]:
        """Return which endpoints cannot be asked, and what the others say."""
        pool = self._model.open()
        try:
            aside, now = await pool.check(), await pool.describe()
        except VlmEvalError as error:
            if any(map(self._board.is_wanting, self._entries)):
                raise
            raise VlmEvalError(
                f"{error}\nAll answers are stored, but whether they are this model's "
                "can only be found out by asking it. --vlm-mode=score or "
                "--vlm-reuse=always uses them unchecked."
            ) from None
        finally:
            await pool.close()
        self._store.record_evidence(
            self._board.plan.run_id, self._board.session_id, now
        )
        return aside, now

    def _keep(self, asker: Asker, rounds: Sequence[_Round]) -> None:
        """Write down what was asked again, and which requests failed."""
        ids = self._board.plan.run_id, self._board.session_id
        asked = [
            (each.candidate.stored.seq, answer)
            for this in rounds
            for each in this.again
            for answer in each.answers
        ]
        self._store.record_spot_answers(*ids, asked)
        self._store.record_failures(*ids, asker.take_failures())

    async def _compare(
        self, asker: Asker, this: _Round, now: Sequence[Evidence], *, tests: int
    ) -> None:
        """Ask one endpoint block after block until the answers tell."""
        settings = self._model.settings
        left = deque(take_turns(map(iter, this.source.by_dataset().values())))
        block = target = settings.spot_check
        rates = SAMPLED if settings.temperature else GREEDY
        while True:
            wanted = min(len(left), target - this.answered)
            part = [left.popleft() for _ in range(wanted)]
            ask = partial(self._ask_twice, asker)
            this.again += await asyncio.gather(*map(ask, part))
            _check_failures(this, block, is_all=not left)
            if this.answered < target and left:
                continue
            this.state = decide(
                this.answered,
                this.count("changed"),
                rates,
                block=block,
                is_all=not left,
                tests=tests,
            )
            if this.state == "changed":
                raise VlmEvalError(self._explain_answers(this, now))
            if this.state != "more":
                return
            target += block

    async def _ask_twice(self, asker: Asker, candidate: _Candidate) -> _Again:
        """Ask again, and once more if the answer is another one."""
        settings, ask = self._model.settings, candidate.ask
        same = partial(is_same, sampled=settings.temperature != 0)
        answers: list[Answer] = []
        try:
            request = write_request(
                self._library, settings, candidate.dataset, ask.sample
            )
        except VlmEvalError:
            return _Again(candidate, (), "failed")
        before = candidate.stored.answer
        for _ in range(2):
            answer = await asker.ask(candidate.fingerprint, ask.sample, request)
            answers.append(replace(answer, repeat=ask.repeat))
            if answer.state in UNANSWERED:
                return _Again(candidate, tuple(answers), "failed")
            if same(answer, before):
                break
        if same(answers[0], before):
            return _Again(candidate, tuple(answers), "same")
        steady = same(answers[0], answers[1])
        return _Again(candidate, tuple(answers), "changed" if steady else "unsteady")

    # What came of it

    def _result(self) -> SpotCheck:
        every = [each for this in self._rounds for each in this.again]
        count = Counter(each.outcome for each in every)
        few = sum(each.answered for each in self._rounds if each.state == "few")
        return SpotCheck(
            state="few" if few else "same",
            few=few,
            asked=count.total(),
            same=count["same"],
            changed=count["changed"],
            unsteady=count["unsteady"],
            failed=count["failed"],
            requests=sum(answer.attempts for each in every for answer in each.answers),
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
        ids = self._board.plan.run_id, self._board.session_id
        self._board.add(self._store.record(*ids, list(new.values())))

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
        changed = [each for each in this.again if each.outcome == "changed"]
        (_, _, ask, stored), answers, _ = changed[0]
        unsteady = this.count("unsteady")
        differently = f", {unsteady} differently each time" if unsteady else ""
        where = {answer.endpoint for each in this.again for answer in each.answers}
        systems = _system_fingerprints(this.again)
        hints = differences(this.source.evidence, now, HINTS)
        return "\n".join(
            [
                f"{self._describe(this.source)} not of the model at hand: of "
                f"{this.answered} samples that were asked again {len(changed)} got "
                f"another answer, twice the same{differently}, which is more than "
                "run-to-run noise explains.",
                f"    asked now: {', '.join(sorted(where - {''}))}",
                *(f"    {line}" for line in (*hints, *systems)),
                f"    for example {changed[0].candidate.dataset}-{ask.sample}: stored "
                f"{_brief(stored.answer)}, now {_brief(answers[-1])}",
                self._remedy,
            ]
        )

    @property
    def _remedy(self) -> str:
        is_served = backend_of(self._model.settings).is_served
        return REMEDY if is_served else REMEDY_HERE

    def _describe(self, source: _Source) -> str:
        return source.describe(named=len(self._sources) > 1)


def _has_same_weights(source: _Source, now: Sequence[Evidence]) -> bool:
    """Return whether checksums tell that the answers of a source are this model's."""
    if source.is_from_cache or not (now and source.evidence):
        return False
    weights = {each.found.get("weights") for each in (*now, *source.evidence)}
    return len(weights) == 1 and None not in weights


def _check_failures(this: _Round, block: int, *, is_all: bool) -> None:
    """Give up where many requests fail, or all that there are."""
    failed = this.count("failed")
    if failed <= block // 2 and (this.answered or not is_all):
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
    was, now_is = " or ".join(sorted(then)), " or ".join(new)
    return [f"system_fingerprint was {was} and is {now_is}"]


def _brief(answer: Answer) -> str:
    """Show the beginning of an answer, or that it is none."""
    if not answer.is_usable:
        return answer.state.replace("_", " ")
    words = " ".join(printable(answer.text).split())
    return repr(words if len(words) <= SHOWN else words[: SHOWN - 1] + "…")
