"""Looks at the first samples' scores while others are asked, and ends the asking."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import NotAskedError, VlmEvalError, log_error
from pytest_vlmeval.gates.completeness import check_completeness
from pytest_vlmeval.gates.early import look_sizes
from pytest_vlmeval.records import Decision, Stop, Whole

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.gates.early import EarlyGate
    from pytest_vlmeval.records import PlanEntry
    from pytest_vlmeval.run.queue import Board
    from pytest_vlmeval.run.scoring import Scorer
    from pytest_vlmeval.settings import Settings

# How long the end of a session waits for a look that is being scored.
LONGEST_LOOK_S = 60


@dataclass(slots=True, kw_only=True)
class _Watched:
    """A dataset whose looks are at the first `sizes` samples of its order."""

    entry: PlanEntry
    gates: Sequence[EarlyGate]
    sizes: list[int]
    decided: dict[int, Decision] = field(default_factory=dict)
    settled: threading.Event = field(default_factory=threading.Event)
    looked: list[PlanEntry] = field(default_factory=list)


class EarlyStops:
    """Which datasets of a plan stop early, and when.

    The looks are at the same samples in every process of a session, and their scores
    are shared through the store, so that all find the same.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        board: Board,
        scorer: Scorer,
    ) -> None:
        self._settings = settings
        self._library = library
        self._board = board
        self._scorer = scorer
        self._watched: dict[str, _Watched] = {}
        self._found: dict[str, Stop | Whole] = {}
        self._thread = threading.Thread(
            target=self._run, name="vlmeval-stops", daemon=True
        )

    def watch(
        self, entry: PlanEntry, gates: Sequence[EarlyGate], why_whole: str | None
    ) -> None:
        """Stop a dataset as soon as all its gates are decided.

        Unless `why_whole` says why that cannot be. What is answered as a whole already
        stays whole.
        """
        if why_whole is not None:
            self._found[entry.dataset] = Whole(dataset=entry.dataset, why=why_whole)
        elif self._board.missing(entry.fingerprint):
            sizes = look_sizes(self._library, entry)
            watched = _Watched(entry=entry, gates=gates, sizes=sizes)
            self._watched[entry.dataset] = watched
            self._let_ask(watched, 1)

    @property
    def asked_whole(self) -> list[str]:
        """Describe which datasets cannot stop early, and why."""
        return [each.reason for each in self._found.values() if isinstance(each, Whole)]

    def start(self) -> None:
        """Examine what is answered already, then in a thread at what comes."""
        for watched in self._watched.values():
            self._settle(watched, waiting=False)
        if any(not each.settled.is_set() for each in self._watched.values()):
            self._thread.start()

    def stop(self) -> None:
        """Wait for the end of the thread, once nothing more is answered.

        Of the looks only the one that decided stays: it is the dataset's score.
        """
        if self._thread.is_alive():
            self._thread.join(LONGEST_LOOK_S)
        for watched in self._watched.values():
            stopped = isinstance(self._found.get(watched.entry.dataset), Stop)
            for look in watched.looked[: -1 if stopped else None]:
                self._scorer.forget(look)

    def find(self, dataset: str) -> Stop | Whole | None:
        """Return what became of a dataset, once that is known; None if it is off."""
        if dataset in self._watched:
            self._watched[dataset].settled.wait()
        return self._found.get(dataset)

    def narrowed(self, entry: PlanEntry) -> PlanEntry:
        """Return what is needed of a dataset, once that is known."""
        found = self.find(entry.dataset)
        if isinstance(found, Stop):
            return replace(entry, indexes=entry.indexes[: found.asked])
        return entry

    def check_asked(self, entry: PlanEntry, index: str) -> PlanEntry:
        """Return what is needed of a dataset; `NotAskedError` without this sample."""
        narrowed = self.narrowed(entry)
        found = self._found.get(entry.dataset)
        if isinstance(found, Stop) and index not in narrowed.indexes:
            raise NotAskedError(f"not asked: {found.reason}")
        return narrowed

    def _run(self) -> None:
        for watched in self._watched.values():
            self._settle(watched, waiting=True)

    def _settle(self, watched: _Watched, *, waiting: bool) -> None:
        """Take the looks that are due; whatever happens, nobody waits for ever."""
        if watched.settled.is_set():
            return
        done = True
        try:
            done = self._look(watched, waiting=waiting)
        except VlmEvalError:
            # The items that wait for the same answers and scores say so.
            pass
        except Exception as error:
            name = watched.entry.dataset
            line = log_error(self._settings, error, "Looking at first samples of", name)
            # Its gates may be decided of all samples yet.
            self._found[name] = Whole(dataset=name, why=line)
        finally:
            if done:
                # All is asked of what did not stop.
                if not isinstance(self._found.get(watched.entry.dataset), Stop):
                    self._let_ask(watched, len(watched.sizes))
                watched.settled.set()

    def _look(self, watched: _Watched, *, waiting: bool) -> bool:
        """Return whether all is said: it stops, it cannot stop, or no look is left."""
        entry = watched.entry
        for number, size in enumerate(watched.sizes):
            first = replace(entry, indexes=entry.indexes[:size])
            known = (self._board.get(entry.fingerprint, i) for i in first.indexes)
            if not waiting and None in known:
                return False
            self._let_ask(watched, number + 1)
            for index in first.indexes:
                self._board.wait(entry.fingerprint, index)
            found = self._decide(watched, first)
            if found is not None:
                self._found[entry.dataset] = found
                if isinstance(found, Stop):
                    self._board.hold(entry.fingerprint, size, more=False)
                    self._board.store.narrow_plan(self._board.session_id, first)
                return True
        return True

    def _decide(self, watched: _Watched, first: PlanEntry) -> Stop | Whole | None:
        """Return what a look tells; nothing where its score is incomplete."""
        watched.looked.append(first)
        score = self._scorer.look(first)
        if any(
            each.fails for each in check_completeness(score, 0, self._settings.gates)
        ):
            return None
        for number, gate in enumerate(watched.gates):
            if number not in watched.decided:
                found = gate.decide(score)
                if isinstance(found, Whole):
                    return found
                if found is not None:
                    watched.decided[number] = found
        if len(watched.decided) < len(watched.gates):
            return None
        return Stop(
            dataset=watched.entry.dataset,
            asked=len(first.indexes),
            total=len(watched.entry.indexes),
            decisions=tuple(found for _, found in sorted(watched.decided.items())),
        )

    def _let_ask(self, watched: _Watched, number: int) -> None:
        """Let the samples of a look be asked, or all after the last.

        While a look is scored, the samples of the next one are asked.
        """
        entry, sizes = watched.entry, watched.sizes
        last = number >= len(sizes)
        count = len(entry.indexes) if last else sizes[number]
        self._board.hold(entry.fingerprint, count, more=not last)
