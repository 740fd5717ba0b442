"""The gates of a session: which there are, what feeds them, what they find together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError, did_you_mean
from pytest_vlmeval.gates.baseline import Baselines
from pytest_vlmeval.gates.completeness import check_completeness
from pytest_vlmeval.gates.early import Stop, Whole, as_gate
from pytest_vlmeval.gates.measures import find_units
from pytest_vlmeval.gates.statistics import Adjusted, Key, adjust
from pytest_vlmeval.gates.thresholds import (
    DEFAULT_LEVEL,
    Threshold,
    Thresholds,
    load_thresholds,
)
from pytest_vlmeval.models.endings import is_cut_off
from pytest_vlmeval.records import GateResult
from pytest_vlmeval.run.plan import Needed, generation_of

if TYPE_CHECKING:
    from pytest_vlmeval.gates.baseline import BaselineGate
    from pytest_vlmeval.gates.early import EarlyGate
    from pytest_vlmeval.gates.measures import Units
    from pytest_vlmeval.gates.thresholds import Assessment
    from pytest_vlmeval.records import PlanEntry, Score
    from pytest_vlmeval.run.execution import Execution
    from pytest_vlmeval.run.queue import RunState
    from pytest_vlmeval.settings.groups import GateSettings


class Gatekeeper:
    """Decides the gates of each dataset.

    `read_score` waits for a score, or raises `VlmEvalError`; `find_units` and
    `count_cut_off` and `count_unreadable` tell what a score is made of, `find_stop`
    whether it stopped early, `compare` the p-values of its baselines. `datasets` are
    those whose gates the session has, `gated` those among them whose thresholds count:
    with `false_discoveries` no gate is decided before all their scores are there. Every
    process of a session decides alike.
    """

    def __init__(
        self,
        settings: GateSettings,
        model: str,
        thresholds: Thresholds,
        datasets: Sequence[str],
        *,
        gated: Collection[str],
        read_score: Callable[[str], Score],
        find_units: Callable[[Score], Units | None],
        count_cut_off: Callable[[str], int],
        count_unreadable: Callable[[str], int] = lambda dataset: 0,
        compare: Callable[[Score], Mapping[Key, float]],
        find_stop: Callable[[str], Stop | Whole | None] = lambda dataset: None,
    ) -> None:
        self._settings = settings
        self._model = model
        self._thresholds = thresholds
        self._datasets = datasets
        self._gated = gated
        self._read_score = read_score
        self._find_units = find_units
        self._count_cut_off = count_cut_off
        self._count_unreadable = count_unreadable
        self._compare_baselines = compare
        self._find_stop = find_stop
        self._assessed: dict[str, Sequence[Assessment]] = {}
        self._adjusted: Mapping[Key, Adjusted] | None = None
        self._lock = threading.RLock()

    def results(self, dataset: str) -> tuple[GateResult, ...]:
        """Return what the gates of a dataset found.

        Raises `VlmEvalError` where there is no score, or none of a threshold's metric.
        """
        from pytest_vlmeval.gates.early import Stop, as_gate
        from pytest_vlmeval.gates.thresholds import decide

        score = self._read_score(dataset)
        stop = self._find_stop(dataset)
        whole = self.completeness(score)
        adjusted = self.adjusted()
        decided = [
            decide(
                each,
                inconclusive=self._settings.inconclusive,
                adjusted=adjusted.get(_key(each)),
                stop=stop if isinstance(stop, Stop) else None,
            )
            for each in self._assess(score)
        ]
        early = [as_gate(stop)] if stop else []
        return (*whole, *(decided or [self._without_threshold(score)]), *early)

    def completeness(self, score: Score) -> list[GateResult]:
        """Return whether a score is about all its samples."""
        cut_off = self._count_cut_off(score.dataset)
        missing = score.answered < score.samples
        unreadable = self._count_unreadable(score.dataset) if missing else 0
        return check_completeness(score, cut_off, self._settings, unreadable=unreadable)

    def adjusted(self) -> Mapping[Key, Adjusted]:
        """Return the p-values of all gates, each adjusted to the others.

        Empty where each gate counts by itself; else waits for every score.
        """
        accepted = self._settings.false_discoveries
        if accepted is None:
            return {}
        with self._lock:
            if self._adjusted is None:
                self._adjusted = adjust(self._all_p_values(), accepted)
            return self._adjusted

    def _all_p_values(self) -> Mapping[Key, float]:
        """Return those by which a false alarm may fail a gate."""
        found: dict[Key, float] = {}
        for dataset in self._datasets:
            # Where there is no score, or none of a metric, its own item says why.
            with suppress(VlmEvalError):
                score = self._read_score(dataset)
                found.update(self._compare_baselines(score))
                for each in self._assess(score) if dataset in self._gated else ():
                    if each.raises_alarm and each.p_value is not None:
                        found[_key(each)] = each.p_value
        return found

    def _assess(self, score: Score) -> Sequence[Assessment]:
        with self._lock:
            if score.dataset not in self._assessed:
                thresholds = self._thresholds.of(self._model, score.dataset)
                units = self._find_units(score) if thresholds else None
                self._assessed[score.dataset] = [
                    self._compare(score, units, each) for each in thresholds
                ]
            return self._assessed[score.dataset]

    def _compare(
        self, score: Score, units: Units | None, threshold: Threshold
    ) -> Assessment:
        from pytest_vlmeval.gates.completeness import without_defects
        from pytest_vlmeval.gates.measures import estimate, find_metric
        from pytest_vlmeval.gates.thresholds import Assessment

        self._check(score, threshold)
        metric = find_metric(score, threshold.metric)
        found = None
        if units is not None:
            found = estimate(score, units, metric, threshold.level)
        sound = None
        if score.sound is not None and not threshold.accept_defects:
            left = without_defects(score)
            sound = self._compare(left, self._find_units(left), threshold)
        return Assessment(
            score=score,
            threshold=threshold,
            metric=metric,
            estimate=found,
            worst=() if units is None else units.worst_categories(),
            sound=sound,
        )

    def _check(self, score: Score, threshold: Threshold) -> None:
        """Raise `VlmEvalError` for a threshold that no score can be held against."""
        if threshold.metric:
            check_metric(self._thresholds, threshold, score.metrics)
        elif threshold.minimum > score.scale:
            raise VlmEvalError(
                f"{self._thresholds.path}: min = {threshold.minimum:g} for "
                f"{threshold.dataset} can never be reached: {score.main_metric} goes "
                f"from 0 to {score.scale:g}."
            )

    def _without_threshold(self, score: Score) -> GateResult:
        """Return the result of a score that has no threshold, with its interval."""
        from pytest_vlmeval.gates.completeness import describe_defects
        from pytest_vlmeval.gates.measures import estimate, find_metric

        units = self._find_units(score)
        metric = find_metric(score, "")
        found = units and estimate(score, units, metric, DEFAULT_LEVEL)
        value = f"{score.dataset}: {score.main_metric} = {score.value:.2f}"
        where = self._thresholds.path or "there is no thresholds.toml"
        defects = describe_defects(score)
        missed = self._thresholds.explain_missed(self._model, score.dataset)
        message = (
            f"{value} is held against nothing: {missed}"
            if missed
            else f"{value} passes whatever it is: no threshold is for {self._model} "
            f"({where})."
        ) + (f" {defects}." if defects else "")
        return GateResult(
            dataset=score.dataset,
            gate="threshold",
            metric=score.main_metric,
            outcome="failed" if missed else "passed",
            rule="none",
            value=score.value,
            interval=found.interval if found else None,
            samples=found.samples if found else score.samples,
            clusters=found.clusters if found else 0,
            worst=units.worst_categories() if units else (),
            message=message,
            fails=bool(missed),
        )


def check_metric(
    thresholds: Thresholds,
    threshold: Threshold,
    known: Sequence[str] | Mapping[str, float],
) -> None:
    """Raise `VlmEvalError` for a metric that a dataset's score does not have."""
    if threshold.metric and threshold.metric not in known:
        raise VlmEvalError(
            f"{thresholds.path}: {threshold.dataset} has no metric "
            f"{threshold.metric!r}.{did_you_mean(threshold.metric, known)} It has: "
            f"{', '.join(known)}."
        )


def _key(it: Assessment) -> Key:
    return (it.score.dataset, "threshold", it.threshold.metric)


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
            adjusted=self._keeper.adjusted().get(_key_of(score, folder)),
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
            _key_of(score, folder): self._baselines.gate(score, folder).p_value(
                baseline
            )
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


def _key_of(score: Score, folder: Path) -> Key:
    return score.dataset, "baseline", str(folder)


class Gating:
    """What the scores of a session have to reach.

    `needed` names the datasets that are scored, `expected` those whose thresholds some
    test has to hold; `folders` are those of the benchmarks.
    Raises `VlmEvalError` for what is wrong with the thresholds, before a sample is
    asked.
    """

    def __init__(
        self,
        execution: Execution,
        *,
        needed: Mapping[str, Needed],
        expected: Sequence[str] = (),
        folders: Sequence[Path],
    ) -> None:
        state = execution.state
        self._settings = settings = state.settings
        self._library = library = state.library
        self._execution = execution
        self._needed = needed
        # Else each gate reads its own when it is its turn.
        ahead = settings.gates.stop_early or settings.gates.false_discoveries
        self._baselines = Baselines(
            settings,
            library,
            generation_of(settings),
            partial(find_units, library),
            {name: need.compared for name, need in needed.items()} if ahead else {},
        )
        self._gates = SessionGates(
            state,
            needed=needed,
            expected=expected,
            folders=folders,
            baselines=self._baselines,
            read_score=execution.score,
            find_stop=execution.early.find,
            narrowed=execution.early.narrowed,
        )

    def watch_stops(self, entries: Sequence[PlanEntry]) -> list[str]:
        """Let the scored datasets stop early that may; say which may not, and why."""
        early = self._execution.early
        for entry in entries:
            gates = self._early_gates(entry)
            early.watch(entry, gates, self._why_whole(entry.dataset, gates))
        return early.asked_whole

    def _early_gates(self, entry: PlanEntry) -> list[EarlyGate]:
        """Return the gates of a dataset that its first samples may decide."""
        # They need scipy, which a session without them does not.
        from pytest_vlmeval.gates.early import EarlyBaseline, EarlyThreshold

        name, baselines = entry.dataset, self._baselines
        found: list[EarlyGate] = [
            EarlyBaseline(
                library=self._library,
                entry=entry,
                baseline=baseline,
                make_gate=partial(baselines.gate, folder=folder, planned=entry),
            )
            for folder, baseline in baselines.kept(name).items()
            if baseline is not None
        ]
        thresholds = self._gates.thresholds(name) if self._needed[name].gated else ()
        if thresholds or not found:
            found.insert(
                0,
                EarlyThreshold(
                    library=self._library, entry=entry, thresholds=thresholds
                ),
            )
        return found

    def _why_whole(self, dataset: str, gates: Sequence[EarlyGate]) -> str | None:
        """Say why all samples of a dataset are asked; None if it may stop early."""
        settings = self._settings.baselines
        if settings.gate_samples != "none":
            return f"--vlm-gate-samples={settings.gate_samples} looks at every sample"
        compared = self._needed[dataset].compared
        if compared and settings.updating == "all":
            return "its score becomes the baseline, which is of all samples"
        if None in self._baselines.kept(dataset).values() and (
            settings.updating == "new" or not settings.allow_missing
        ):
            return "there is no baseline of it, which is made of all samples"
        reasons = (gate.why_whole() for gate in gates)
        return next((why for why in reasons if why is not None), None)

    def why_gated(self, dataset: str, index: str, folder: Path) -> str | None:
        """Say why a wrong sample of benchmarks in `folder` fails; None if it need not.

        Raises `VlmEvalError` for a baseline that cannot be read.
        """
        which = self._settings.baselines.gate_samples
        if which == "all":
            return "is wrong (--vlm-gate-samples=all)"
        if which == "none":
            return None
        score = self._execution.score(dataset)
        if index in self._baselines.regressed(score, folder):
            return (
                "was right in the baseline and is wrong now "
                "(--vlm-gate-samples=regressed)"
            )
        return None

    def baseline_gate(self, score: Score, folder: Path) -> BaselineGate:
        """Return what holds a score of benchmarks in `folder` against its baseline."""
        return self._gates.baseline_gate(score, folder)

    def record_baseline(self, result: GateResult) -> None:
        """Keep what the gate of a baseline found for the reports."""
        self._gates.record_baseline(result)

    def results(self, dataset: str) -> tuple[GateResult, ...]:
        """Return what the gates of a dataset's score found."""
        return self._gates.results(dataset)

    def results_without_score(self, dataset: str, why: str) -> Sequence[GateResult]:
        """Return what becomes of a dataset's thresholds where it has no score."""
        return self._gates.results_without_score(dataset, why)

    def baseline_without_score(
        self, dataset: str, folder: Path, why: str
    ) -> GateResult | None:
        """Return what becomes of the baseline of a dataset without a score.

        None where there is no baseline.
        """
        return self._gates.baseline_without_score(dataset, folder, why)

    @property
    def unheld(self) -> Mapping[str, str]:
        """The datasets whose thresholds no test has been held against, and which."""
        return self._gates.unheld
