"""The gates of a session that has begun: fed from its library, board and store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.gates.keeper import Gatekeeper, check_metric
from pytest_vlmeval.gates.thresholds import Thresholds, load_thresholds
from pytest_vlmeval.gates.units import find_units

if TYPE_CHECKING:
    from pytest_vlmeval.board import Board
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.gates.early_stop import Stop, Whole
    from pytest_vlmeval.gates.outcome import GateResult
    from pytest_vlmeval.gates.thresholds import Threshold
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.records import Plan, PlanEntry, Score
    from pytest_vlmeval.store import Store


class SessionGates:
    """Decides the gates of a session's scores, and records what they found.

    `read_score` waits for the score of a dataset, `find_stop` until it is known whether
    it stopped early, `narrowed` for what is needed of it then. Raises `VlmEvalError`
    for what is wrong with the thresholds, before a sample is asked.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        store: Store,
        board: Board,
        plan: Plan,
        *,
        session_id: str,
        datasets: Sequence[str],
        folders: Sequence[Path],
        read_score: Callable[[str], Score],
        find_stop: Callable[[str], Stop | Whole | None],
        narrowed: Callable[[PlanEntry], PlanEntry],
    ) -> None:
        self._library = library
        self._store = store
        self._board = board
        self._plan = plan
        self._session_id = session_id
        self._entries: Mapping[str, PlanEntry] = {
            entry.dataset: entry for entry in plan.entries
        }
        self._narrowed = narrowed
        self._model = model = settings.model or ""
        self._thresholds = thresholds = load_thresholds(
            settings.gates.thresholds, folders
        )
        self._check(thresholds, model, datasets)
        self.keeper = Gatekeeper(
            settings.gates,
            model,
            thresholds,
            datasets,
            read_score=read_score,
            find_units=lambda score: find_units(library, score),
            count_cut_off=self._count_cut_off,
            find_stop=find_stop,
        )

    def thresholds(self, dataset: str) -> Sequence[Threshold]:
        """Return what a dataset has to reach."""
        return self._thresholds.of(self._model, dataset)

    def results(self, dataset: str) -> tuple[GateResult, ...]:
        """Return what the gates of a dataset's score found, and record it."""
        results = self.keeper.results(dataset)
        self.record(results)
        return results

    def record(self, results: Sequence[GateResult]) -> None:
        """Keep what gates found for the reports."""
        self._store.gates.save(self._session_id, self._plan.run_id, results)

    def _check(
        self, thresholds: Thresholds, model: str, datasets: Sequence[str]
    ) -> None:
        if thresholds.path is None:
            return
        thresholds.check(model, self._library.names())
        for name in datasets:
            entry = self._entries[name]
            known = self._store.scores.metric_names(
                entry.fingerprint, len(entry.indexes)
            )
            for each in thresholds.of(model, name) if known else ():
                check_metric(thresholds, each, known)

    def _count_cut_off(self, dataset: str) -> int:
        """Count the samples one of whose answers ended at the token limit."""
        entry = self._narrowed(self._entries[dataset])
        return sum(
            any(
                (stored := self._board.get(entry.fingerprint, index, repeat))
                and stored.answer.state == "cut_off"
                for repeat in range(self._plan.repeats)
            )
            for index in entry.indexes
        )
