"""The gates of a session that has begun: fed from its library, board and store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.gates.early_stop import Stop, Whole, as_gate
from pytest_vlmeval.gates.keeper import Gatekeeper, check_metric
from pytest_vlmeval.gates.outcome import GateResult
from pytest_vlmeval.gates.thresholds import load_thresholds
from pytest_vlmeval.gates.units import find_units
from pytest_vlmeval.models.endings import is_cut_off

if TYPE_CHECKING:
    from pytest_vlmeval.gates.baseline_source import Baselines
    from pytest_vlmeval.gates.baselines import BaselineGate
    from pytest_vlmeval.gates.false_discoveries import Key
    from pytest_vlmeval.gates.thresholds import Threshold
    from pytest_vlmeval.planning import Needed
    from pytest_vlmeval.records import PlanEntry, Score
    from pytest_vlmeval.run_state import RunState


class SessionGates:
    """Decides the gates of a session's scores, and records what they found.

    `needed` names the datasets that are scored, `expected` those whose thresholds some
    test has to hold. `read_score` waits for the score of
    one, `find_stop` until it is known whether it stopped early, `narrowed` for what is
    needed of it then. Raises `VlmEvalError` for what is wrong with the thresholds,
    before a sample is asked.
    """

    def __init__(
        self,
        state: RunState,
        *,
        needed: Mapping[str, Needed],
        expected: Sequence[str],
        folders: Sequence[Path],
        baselines: Baselines,
        read_score: Callable[[str], Score],
        find_stop: Callable[[str], Stop | Whole | None],
        narrowed: Callable[[PlanEntry], PlanEntry],
    ) -> None:
        settings = state.settings
        self._library = state.library
        self._store = state.store
        self._board = state.board
        self._plan = state.plan
        self._session_id = state.session_id
        self._entries = {entry.dataset: entry for entry in state.plan.entries}
        self._find_stop = find_stop
        self._narrowed = narrowed
        self._model = settings.model or ""
        self._thresholds = load_thresholds(settings.gates.thresholds, folders)
        self._check(list(needed))
        self._held: set[str] = set()
        self._expected = [name for name in expected if self.thresholds(name)]
        self._baselines = baselines
        self._keeper = Gatekeeper(
            settings.gates,
            self._model,
            self._thresholds,
            list(needed),
            gated={name for name, need in needed.items() if need.gated},
            read_score=read_score,
            find_units=partial(find_units, state.library),
            count_cut_off=self._count_cut_off,
            count_unreadable=self._count_unreadable,
            compare=self._compare,
            find_stop=find_stop,
        )

    def thresholds(self, dataset: str) -> Sequence[Threshold]:
        """Return what a dataset has to reach."""
        return self._thresholds.of(self._model, dataset)

    def results(self, dataset: str) -> tuple[GateResult, ...]:
        """Return what the gates of a dataset's score found, and record it."""
        self._held.add(dataset)
        results = self._keeper.results(dataset)
        self._record(results)
        return results

    def results_without_score(self, dataset: str, why: str) -> tuple[GateResult, ...]:
        """Return the failures of a dataset's thresholds, as `why` it has no score."""
        self._held.add(dataset)
        results = tuple(
            self._thresholds.without_score(each, why)
            for each in self.thresholds(dataset)
        )
        self._record(results)
        return results

    def baseline_without_score(
        self, dataset: str, folder: Path, why: str
    ) -> GateResult | None:
        """Return the failure of a dataset's baseline; None where it has none."""
        file = self._baselines.find(dataset, folder)
        if file is None:
            return None
        result = GateResult(
            dataset=dataset,
            gate="baseline",
            outcome="failed",
            file=str(file),
            message=f"{dataset} is not compared with its baseline {file}. {why}",
            fails=True,
        )
        self._record([result])
        return result

    @property
    def unheld(self) -> Mapping[str, str]:
        """Datasets with thresholds that nothing was held against, and these."""
        return {
            name: self._thresholds.describe(self.thresholds(name))
            for name in self._expected
            if name not in self._held
        }

    def baseline_gate(self, score: Score, folder: Path) -> BaselineGate:
        """Return the gate of a score among benchmarks in `folder`."""
        stop = self._find_stop(score.dataset)
        stopped = stop if isinstance(stop, Stop) else None
        return self._baselines.gate(
            score,
            folder,
            lacking=self._lacking(score),
            planned=self._entries[score.dataset] if stopped else None,
            stop=stopped,
            adjusted=self._keeper.adjusted().get(_key(score, folder)),
        )

    def record_baseline(self, result: GateResult) -> None:
        """Keep what the gate of a baseline found for the reports."""
        stop = self._find_stop(result.dataset)
        self._record([result, *([as_gate(stop)] if stop else [])])

    def _record(self, results: Sequence[GateResult]) -> None:
        self._store.gates.save(self._session_id, self._plan.run_id, results)

    def _lacking(self, score: Score) -> list[str]:
        found = self._keeper.completeness(score)
        return [each.message for each in found if each.fails]

    def _compare(self, score: Score) -> Mapping[Key, float]:
        """Return the p-values of a score's baselines, of those it is compared with."""
        if self._lacking(score):
            return {}
        found = {
            _key(score, folder): self._baselines.gate(score, folder).p_value(baseline)
            for folder, baseline in self._baselines.kept(score.dataset).items()
            if baseline is not None
        }
        return {key: p_value for key, p_value in found.items() if p_value is not None}

    def _check(self, datasets: Sequence[str]) -> None:
        thresholds, model = self._thresholds, self._model
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
                and is_cut_off(stored.answer.finish_reason)
                for repeat in range(self._plan.repeats)
            )
            for index in entry.indexes
        )

    def _count_unreadable(self, dataset: str) -> int:
        """Count the samples that cannot be asked, for what is in the dataset's file."""
        entry = self._narrowed(self._entries[dataset])
        prompts = self._library.prompts(dataset)
        return sum(not prompts.text(index) for index in entry.indexes)


def _key(score: Score, folder: Path) -> Key:
    return score.dataset, "baseline", str(folder)
