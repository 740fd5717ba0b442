"""All gates of a session: which there are, and what they find together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.completeness import check_completeness
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

# Names the gate that a p-value is of.
Key = tuple[str, ...]
# Gives the p-values of a dataset's gates of another kind, by their keys.
Alarms = Callable[["Score"], Mapping[Key, float]]


class Gatekeeper:
    """Decides the gates of each dataset.

    `read_score` waits for a score, or raises `VlmEvalError`; `find_units` and
    `count_cut_off` tell what a score is made of, `find_stop` whether it stopped early.
    `datasets` are those whose gates the session has: with `false_discoveries` none is
    decided before all their scores are there. Every process of a session decides alike.
    """

    def __init__(
        self,
        settings: GateSettings,
        model: str,
        thresholds: Thresholds,
        datasets: Sequence[str],
        *,
        read_score: Callable[[str], Score],
        find_units: Callable[[Score], Units | None],
        count_cut_off: Callable[[str], int],
        find_stop: Callable[[str], Stop | Whole | None] = lambda dataset: None,
    ) -> None:
        self._settings = settings
        self._model = model
        self._thresholds = thresholds
        self._datasets = datasets
        self._read_score = read_score
        self._find_units = find_units
        self._count_cut_off = count_cut_off
        self._find_stop = find_stop
        self._assessed: dict[str, Sequence[Assessment]] = {}
        self._alarms: list[Alarms] = []
        self._adjusted: Mapping[Key, float] | None = None
        self._lock = threading.RLock()

    def add_alarms(self, alarms: Alarms) -> None:
        """Count the p-values of other gates too, before any gate is decided."""
        self._alarms.append(alarms)

    def results(self, dataset: str) -> tuple[GateResult, ...]:
        """Return what the gates of a dataset found.

        Raises `VlmEvalError` where there is no score, or none of a threshold's metric.
        """
        from pytest_vlmeval.gates.decision import decide
        from pytest_vlmeval.gates.early_stop import Stop, as_gate

        score = self._read_score(dataset)
        stop = self._find_stop(dataset)
        whole = check_completeness(score, self._count_cut_off(dataset), self._settings)
        adjusted = self.adjusted()
        decided = [
            decide(
                each,
                inconclusive=self._settings.inconclusive,
                adjusted=adjusted.get(_key(each)),
                false_discoveries=self._settings.false_discoveries,
                stop=stop if isinstance(stop, Stop) else None,
            )
            for each in self._assess(score)
        ]
        early = [as_gate(stop)] if stop else []
        return (*whole, *(decided or [self._without_threshold(score)]), *early)

    def adjusted(self) -> Mapping[Key, float]:
        """Return the p-values of all gates, each adjusted to the others.

        Empty where each gate counts by itself; else waits for every score.
        """
        if self._settings.false_discoveries is None:
            return {}
        with self._lock:
            if self._adjusted is None:
                self._adjusted = adjust(self._all_p_values())
            return self._adjusted

    def _all_p_values(self) -> Mapping[Key, float]:
        found: dict[Key, float] = {}
        for dataset in self._datasets:
            try:
                score = self._read_score(dataset)
                assessed = self._assess(score)
            except VlmEvalError:
                # The dataset's own item says why it has no score.
                continue
            for each in assessed:
                if each.raises_alarm and each.p_value is not None:
                    found[_key(each)] = each.p_value
            for alarms in self._alarms:
                found.update(alarms(score))
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
        from pytest_vlmeval.gates.measures import estimate, find_metric

        self._check(score, threshold)
        metric = find_metric(score, threshold.metric)
        found = None
        if units is not None:
            found = estimate(score, units, metric, threshold.level)
        return Assessment(
            score=score,
            threshold=threshold,
            metric=metric,
            estimate=found,
            worst=() if units is None else units.worst_categories(),
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
        from pytest_vlmeval.gates.measures import estimate, find_metric

        units = self._find_units(score)
        metric = find_metric(score, "")
        found = units and estimate(score, units, metric, DEFAULT_LEVEL)
        where = self._thresholds.path or "there is no thresholds.toml"
        return GateResult(
            dataset=score.dataset,
            gate="threshold",
            metric=score.main_metric,
            outcome="passed",
            rule="none",
            value=score.value,
            interval=found.interval if found else None,
            samples=found.samples if found else score.samples,
            clusters=found.clusters if found else 0,
            worst=units.worst_categories() if units else (),
            message=(
                f"{score.dataset}: {score.main_metric} = {score.value:.2f} passes "
                f"whatever it is: no threshold is for {self._model} ({where})."
            ),
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


def adjust(p_values: Mapping[Key, float]) -> Mapping[Key, float]:
    """Adjust p-values for the false discovery rate.

    Y. Benjamini and Y. Hochberg, Controlling the False Discovery Rate, 1995, doi
    10.1111/j.2517-6161.1995.tb02031.x: reject what is then at most the rate.
    """
    if not p_values:
        return {}
    from scipy.stats import false_discovery_control

    adjusted = false_discovery_control(list(p_values.values()), method="bh")
    return dict(zip(p_values, map(float, adjusted), strict=True))
