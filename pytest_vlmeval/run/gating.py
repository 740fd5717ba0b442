"""The gates of a session: which there are, what feeds them, what they find together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError, did_you_mean, log_error
from pytest_vlmeval.gates.baseline import Baselines
from pytest_vlmeval.gates.completeness import (
    check_completeness,
    describe_defects,
    without_defects,
)
from pytest_vlmeval.gates.early import as_gate
from pytest_vlmeval.gates.measures import estimate, find_metric, find_units
from pytest_vlmeval.gates.statistics import Adjusted, Key, adjust
from pytest_vlmeval.gates.thresholds import (
    DEFAULT_LEVEL,
    Assessment,
    Threshold,
    decide,
    load_thresholds,
)
from pytest_vlmeval.models.client import is_cut_off
from pytest_vlmeval.records import NO_RULE, Gate, GateResult, Stop
from pytest_vlmeval.run.plan import Need, generation_of

if TYPE_CHECKING:
    from pytest_vlmeval.gates.baseline import BaselineGate
    from pytest_vlmeval.gates.early import EarlyGate
    from pytest_vlmeval.records import PlanEntry, Score
    from pytest_vlmeval.run.execution import Execution


class Gatekeeper:
    """Decides the gates of a session's scores, and stores what they found.

    `needed` names the datasets that are scored, `expected` those whose thresholds some
    test has to hold; `folders` are those of the benchmarks. With a false discovery
    rate no gate is decided before the scores of all are there. Every process of a
    session decides alike. Raises `VlmEvalError` for what is wrong with the thresholds,
    before a sample is asked.
    """

    def __init__(
        self,
        execution: Execution,
        *,
        needed: Mapping[str, Need],
        expected: Sequence[str],
        folders: Sequence[Path],
    ) -> None:
        board = execution.board
        self._execution = execution
        self._settings = settings = execution.settings
        self._library = execution.library
        self._board = board
        self._store = board.store
        self._plan = board.plan
        self._session_id = board.session_id
        self._needed = needed
        self._entries = {entry.dataset: entry for entry in board.plan.entries}
        self._model = settings.model or ""
        self._thresholds = load_thresholds(settings.gates.thresholds, folders)
        # Why published thresholds do not apply, by the datasets that have some.
        self._unapplied = {
            name: why
            for name in needed
            if any(each.published for each in self._thresholds.of(self._model, name))
            and (why := self._why_unpublished(name))
        }
        self._check_thresholds()
        self._held: set[str] = set()
        self._expected = [name for name in expected if self.thresholds(name)]
        # Else each gate reads its own when it is its turn.
        ahead = settings.gates.stop_early or settings.gates.false_discoveries
        self._baselines = Baselines(
            settings,
            self._library,
            generation_of(settings),
            {name: need.compared for name, need in needed.items()} if ahead else {},
        )
        self._assessed: dict[str, Sequence[Assessment]] = {}
        self._adjusted: Mapping[Key, Adjusted] | None = None
        self._lock = threading.RLock()

    def thresholds(self, dataset: str) -> Sequence[Threshold]:
        """Return what a dataset has to reach: what is published only where it applies.

        That is where all samples of the published data are asked.
        """
        found = self._thresholds.of(self._model, dataset)
        if dataset not in self._unapplied:
            return found
        return [each for each in found if not each.published]

    @property
    def unapplied(self) -> list[str]:
        """Explain which published thresholds do not apply; one line, or none."""
        reasons: dict[str, list[str]] = {}
        for name, why in self._unapplied.items():
            if self._needed[name].gated:
                reasons.setdefault(why, []).append(name)
        if not reasons:
            return []
        told = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
        return [
            f"the published thresholds in {self._thresholds.path} do not apply ({told})"
        ]

    def _why_unpublished(self, dataset: str) -> str:
        """Explain why a score is not one of the published data, "" if it is."""
        entry, settings = self._entries[dataset], self._settings
        info = self._library.prepared(dataset).info
        if info.family == "own":
            return "a table of your own"
        if len(entry.indexes) < len(self._library.rows(dataset)):
            given = {"limit": settings.limit, "sample": settings.sample}
            shown = [f"--vlm-{name}={n}" for name, n in given.items() if n is not None]
            return f"only some samples are asked, by {' and '.join(shown)}"
        if entry.modified:
            return "modified data"
        if entry.version and info.md5 not in (None, entry.checksum):
            return f"another version of the data, {entry.version}"
        return ""

    @property
    def unheld(self) -> Mapping[str, str]:
        """Datasets with thresholds that nothing was held against, and these."""
        return {
            name: self._thresholds.describe(self.thresholds(name))
            for name in self._expected
            if name not in self._held
        }

    # What gates found

    def results(self, dataset: str) -> tuple[GateResult, ...]:
        """Return what the gates of a dataset's score found.

        Raises `VlmEvalError` where there is no score, or none of a threshold's metric.
        """
        self._held.add(dataset)
        score = self._execution.score(dataset)
        found = self.guard(dataset, "completeness", lambda: self._completeness(score))
        found += self.guard(dataset, "threshold", lambda: self._held_against(score))
        return self._keep(dataset, found)

    def results_without_score(self, dataset: str, why: str) -> tuple[GateResult, ...]:
        """Return the failures of a dataset's thresholds, as `why` it has no score."""
        self._held.add(dataset)
        found = [
            self._thresholds.without_score(each, why)
            for each in self.thresholds(dataset)
        ]
        self._record(found)
        return tuple(found)

    def baseline_without_score(
        self, dataset: str, folder: Path, why: str
    ) -> GateResult | None:
        """Return the failure of a dataset's baseline; None if it has none."""
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

    def against_baseline(
        self, score: Score, folder: Path, compare: Callable[[BaselineGate], GateResult]
    ) -> GateResult:
        """Return what the baseline of benchmarks in `folder` says of a score.

        `compare` finds the baseline that the gate is to be held against.
        """
        name = score.dataset
        found = self.guard(
            name, "baseline", lambda: [compare(self._baseline_gate(score, folder))]
        )
        return self._keep(name, found)[0]

    def guard(
        self, dataset: str, gate: Gate, find: Callable[[], Sequence[GateResult]]
    ) -> list[GateResult]:
        """Return what a gate found, or its failure after a bug: the others go on."""
        try:
            return [*find()]
        except VlmEvalError:
            raise
        except Exception as error:
            doing = f"The {gate} gate of"
            message = log_error(self._settings, error, doing, dataset)
        return [
            GateResult(
                dataset=dataset,
                gate=gate,
                outcome="failed",
                message=message,
                fails=True,
            )
        ]

    def _keep(
        self, dataset: str, found: Sequence[GateResult]
    ) -> tuple[GateResult, ...]:
        """Store results, with why there are fewer samples than the dataset has."""
        stop = self._execution.early.find(dataset)
        results = (*found, *([as_gate(stop)] if stop else []))
        self._record(results)
        return results

    def _record(self, results: Sequence[GateResult]) -> None:
        self._store.save_gates(self._session_id, self._plan.run_id, results)

    # Completeness

    def _completeness(self, score: Score) -> list[GateResult]:
        """Return whether a score is about all its samples."""
        entry = self._execution.early.narrowed(self._entries[score.dataset])
        # Of several answers to a sample one may have ended at the token limit.
        cut_off = sum(
            any(
                (stored := self._board.get(entry.fingerprint, index, repeat))
                and is_cut_off(stored.answer.finish_reason)
                for repeat in range(self._plan.repeats)
            )
            for index in entry.indexes
        )
        unreadable = 0
        if score.answered < score.samples:
            # What cannot be asked, for what is in the dataset's file.
            prompts = self._library.prompts(score.dataset)
            unreadable = sum(not prompts.text(index) for index in entry.indexes)
        return check_completeness(
            score, cut_off, self._settings.gates, unreadable=unreadable
        )

    def _lacking(self, score: Score) -> list[str]:
        return [each.message for each in self._completeness(score) if each.fails]

    # Thresholds

    def _held_against(self, score: Score) -> list[GateResult]:
        stop = self._execution.early.find(score.dataset)
        adjusted = self._all_adjusted()
        decided = [
            decide(
                each,
                inconclusive=self._settings.gates.inconclusive,
                adjusted=adjusted.get(_key(each)),
                stop=stop if isinstance(stop, Stop) else None,
            )
            for each in self._assess(score)
        ]
        return decided or [self._without_threshold(score)]

    def _assess(self, score: Score) -> Sequence[Assessment]:
        with self._lock:
            if score.dataset not in self._assessed:
                self._assessed[score.dataset] = [
                    self._compare(score, each)
                    for each in self.thresholds(score.dataset)
                ]
            return self._assessed[score.dataset]

    def _compare(self, score: Score, threshold: Threshold) -> Assessment:
        if threshold.metric:
            self._check_metric(threshold, score.metrics)
        elif threshold.minimum > score.scale:
            raise VlmEvalError(
                f"{self._thresholds.path}: min = {threshold.minimum:g} for "
                f"{threshold.dataset} can never be reached: {score.main_metric} goes "
                f"from 0 to {score.scale:g}."
            )
        units = find_units(self._library, score)
        metric = find_metric(score, threshold.metric)
        sound = None
        if score.sound is not None and not threshold.accept_defects:
            sound = self._compare(without_defects(score), threshold)
        return Assessment(
            score=score,
            threshold=threshold,
            metric=metric,
            estimate=None
            if units is None
            else estimate(score, units, metric, threshold.level),
            worst=() if units is None else units.worst_categories(),
            sound=sound,
        )

    def _without_threshold(self, score: Score) -> GateResult:
        """Return the result of a score that has no threshold, with its interval."""
        units = find_units(self._library, score)
        metric = find_metric(score, "")
        found = units and estimate(score, units, metric, DEFAULT_LEVEL)
        value = f"{score.dataset}: {score.main_metric} = {score.value:.2f}"
        defects = describe_defects(score)
        missed = self._thresholds.explain_missed(self._model, score.dataset)
        if missed:
            message = f"{value} is held against nothing: {missed}"
        else:
            message = f"{value}. {self._why_any_passes(score.dataset)}"
        message += f" {defects}." if defects else ""
        return GateResult(
            dataset=score.dataset,
            gate="threshold",
            metric=score.main_metric,
            outcome="failed" if missed else "passed",
            rule=NO_RULE,
            value=score.value,
            interval=found.interval if found else None,
            samples=found.samples if found else score.samples,
            clusters=found.clusters if found else 0,
            worst=units.worst_categories() if units else (),
            message=message,
            fails=bool(missed),
        )

    def _why_any_passes(self, dataset: str) -> str:
        path = self._thresholds.path
        if why := self._unapplied.get(dataset):
            published = self._thresholds.of(self._model, dataset)
            said = self._thresholds.describe(published)
            return f"The published threshold {said} does not apply ({why})."
        where = f"in {path}" if path else "(there is no thresholds.toml)"
        return f"No threshold for {self._model} {where}: any score passes."

    def _check_metric(
        self, threshold: Threshold, known: Sequence[str] | Mapping[str, float]
    ) -> None:
        """Raise `VlmEvalError` for a metric that a dataset's score does not have."""
        if threshold.metric and threshold.metric not in known:
            raise VlmEvalError(
                f"{self._thresholds.path}: {threshold.dataset} has no metric "
                f"{threshold.metric!r}.{did_you_mean(threshold.metric, known)} It has: "
                f"{', '.join(known)}."
            )

    def _check_thresholds(self) -> None:
        if self._thresholds.path is None:
            return
        self._thresholds.check(self._model, self._library.names())
        for name in self._needed:
            entry = self._entries[name]
            known = self._store.metric_names(
                entry.fingerprint, len(entry.indexes), entry.scorer
            )
            for each in self.thresholds(name) if known else ():
                self._check_metric(each, known)

    # Baselines

    def _baseline_gate(self, score: Score, folder: Path) -> BaselineGate:
        stop = self._execution.early.find(score.dataset)
        stopped = stop if isinstance(stop, Stop) else None
        return self._baselines.gate(
            score,
            folder,
            lacking=self._lacking(score),
            planned=self._entries[score.dataset] if stopped else None,
            stop=stopped,
            adjusted=self._all_adjusted().get(_key_of(score, folder)),
        )

    def why_gated(self, dataset: str, index: str, folder: Path) -> str | None:
        """Explain why a wrong sample in `folder` fails; None if it does not.

        Raises `VlmEvalError` for a baseline that cannot be read.
        """
        if self._settings.wrong == "fail":
            return "is wrong (--vlm-wrong=fail)"
        if self._settings.baselines.gate_samples == "none":
            return None
        score = self._execution.score(dataset)
        if index in self._baselines.regressed(score, folder):
            return (
                "was right in the baseline and is wrong now "
                "(--vlm-gate-samples=regressed)"
            )
        return None

    # All gates together

    def _all_adjusted(self) -> Mapping[Key, Adjusted]:
        """Return the p-values of all gates, each adjusted to the others.

        Empty if each gate counts by itself; else waits for every score.
        """
        accepted = self._settings.gates.false_discoveries
        if accepted is None:
            return {}
        with self._lock:
            if self._adjusted is None:
                p_values: dict[Key, float] = {}
                for dataset, need in self._needed.items():
                    # Without a score, or a metric, or after a bug its own item says so.
                    with suppress(Exception):
                        for key, p_value in self._p_values(dataset, need):
                            if p_value is not None:
                                p_values[key] = p_value
                self._adjusted = adjust(p_values, accepted)
            return self._adjusted

    def _p_values(self, dataset: str, need: Need) -> Iterator[tuple[Key, float | None]]:
        """Yield those by which a false alarm may fail a gate of a dataset."""
        score = self._execution.score(dataset)
        if not self._lacking(score):
            for folder, baseline in self._baselines.kept(dataset).items():
                if baseline is not None:
                    gate = self._baselines.gate(score, folder)
                    yield _key_of(score, folder), gate.p_value(baseline)
        for each in self._assess(score) if need.gated else ():
            if each.rule.may_alarm:
                yield _key(each), each.p_value

    # Stopping early

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
        thresholds = self.thresholds(name) if self._needed[name].gated else ()
        if thresholds or not found:
            found.insert(
                0,
                EarlyThreshold(
                    library=self._library, entry=entry, thresholds=thresholds
                ),
            )
        return found

    def _why_whole(self, dataset: str, gates: Sequence[EarlyGate]) -> str | None:
        """Explain why all samples of a dataset are asked; None if it may stop early."""
        settings = self._settings.baselines
        if settings.gate_samples != "none":
            return f"--vlm-gate-samples={settings.gate_samples} looks at every sample"
        if self._settings.wrong == "fail":
            return "--vlm-wrong=fail looks at every sample"
        compared = self._needed[dataset].compared
        if compared and settings.updating == "all":
            return "its score becomes the baseline, which is of all samples"
        if None in self._baselines.kept(dataset).values() and (
            settings.updating == "new" or not settings.allow_missing
        ):
            return "there is no baseline of it, which is made of all samples"
        reasons = (gate.why_whole() for gate in gates)
        return next((why for why in reasons if why is not None), None)


def _key(it: Assessment) -> Key:
    return (it.score.dataset, "threshold", it.threshold.metric)


def _key_of(score: Score, folder: Path) -> Key:
    return score.dataset, "baseline", str(folder)
