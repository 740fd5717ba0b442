"""All gates of a session: which there are, and what they find together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.completeness import check_completeness
from pytest_vlmeval.gates.false_discoveries import Adjusted, Key, adjust
from pytest_vlmeval.gates.outcome import GateResult
from pytest_vlmeval.gates.thresholds import (
    DEFAULT_LEVEL,
    Threshold,
    Thresholds,
    suggest,
)

if TYPE_CHECKING:
    from pytest_vlmeval.gate_settings import GateSettings
    from pytest_vlmeval.gates.decision import Assessment
    from pytest_vlmeval.gates.early_stop import Stop, Whole
    from pytest_vlmeval.gates.units import Units
    from pytest_vlmeval.records import Score


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
        from pytest_vlmeval.gates.decision import decide
        from pytest_vlmeval.gates.early_stop import Stop, as_gate

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
        from pytest_vlmeval.gates.decision import Assessment
        from pytest_vlmeval.gates.defects import without_defects
        from pytest_vlmeval.gates.measures import estimate, find_metric

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
        from pytest_vlmeval.gates.defects import describe_defects
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
            f"{threshold.metric!r}.{suggest(threshold.metric, known)} It has: "
            f"{', '.join(known)}."
        )


def _key(it: Assessment) -> Key:
    return (it.score.dataset, "threshold", it.threshold.metric)
