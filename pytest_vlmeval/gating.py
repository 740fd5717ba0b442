"""The gates of a session: thresholds, baselines, and what stops early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.gates.baseline_source import Baselines
from pytest_vlmeval.gates.session_gates import SessionGates
from pytest_vlmeval.gates.units import find_units
from pytest_vlmeval.identity import generation_of
from pytest_vlmeval.planning import Needed

if TYPE_CHECKING:
    from pytest_vlmeval.execution import Execution
    from pytest_vlmeval.gates.baselines import BaselineGate
    from pytest_vlmeval.gates.early_stop import EarlyGate
    from pytest_vlmeval.gates.outcome import GateResult
    from pytest_vlmeval.records import PlanEntry, Score


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
        from pytest_vlmeval.gates.early_baseline import EarlyBaseline
        from pytest_vlmeval.gates.early_threshold import EarlyThreshold

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
