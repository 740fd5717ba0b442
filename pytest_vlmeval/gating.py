"""The gates of a session: thresholds, baselines, and what stops early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.gates.baseline_source import Baselines
from pytest_vlmeval.gates.session_gates import SessionGates
from pytest_vlmeval.gates.units import find_units
from pytest_vlmeval.identity import generation_of
from pytest_vlmeval.planning import Needed, may_stop

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.execution import Execution
    from pytest_vlmeval.gates.outcome import GateResult
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.records import PlanEntry


class Gating:
    """What the scores of a session's `datasets` have to reach.

    `folders` are those of the benchmarks. Raises `VlmEvalError` for what is wrong with
    the thresholds, before a sample is asked.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        execution: Execution,
        *,
        session_id: str,
        datasets: Sequence[str],
        folders: Sequence[Path],
    ) -> None:
        self._settings = settings
        self._library = library
        self._execution = execution
        self._gates = SessionGates(
            settings,
            library,
            *execution.parts,
            session_id=session_id,
            datasets=datasets,
            folders=folders,
            read_score=execution.score,
            find_stop=execution.early.find,
            narrowed=execution.early.narrowed,
        )

    def watch_stops(
        self, needed: Mapping[str, Needed], entries: Sequence[PlanEntry]
    ) -> list[str]:
        """Let the scored datasets stop early that may; say which may not, and why."""
        early = self._execution.early
        for entry in entries:
            thresholds = self._gates.thresholds(entry.dataset)
            may = may_stop(self._settings, needed[entry.dataset])
            early.watch(entry, thresholds, may_stop=may)
        return early.asked_whole

    @cached_property
    def baselines(self) -> Baselines:
        """What the scores of this run are compared with."""
        return Baselines(
            self._settings,
            self._library,
            generation_of(self._settings),
            partial(find_units, self._library),
        )

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
        if index in self.baselines.regressed(score, folder):
            return (
                "was right in the baseline and is wrong now "
                "(--vlm-gate-samples=regressed)"
            )
        return None

    def record(self, result: GateResult) -> None:
        """Keep what a gate found for the reports."""
        self._gates.record([result])

    def results(self, dataset: str) -> tuple[GateResult, ...]:
        """Return what the gates of a dataset's score found."""
        return self._gates.results(dataset)
