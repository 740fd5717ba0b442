"""When a dataset's baseline is known to be kept, or lost, before all is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pytest_vlmeval.gates.baselines import RULE
from pytest_vlmeval.gates.early_stop import (
    FIRST_LOOK,
    Decision,
    Whole,
    in_order,
    look_sizes,
)
from pytest_vlmeval.gates.outcome import is_failure
from pytest_vlmeval.gates.paired_bounds import (
    find_paired_bounds,
    paired_decided_after,
)
from pytest_vlmeval.records import Verdict

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.gates.baseline_file import Baseline
    from pytest_vlmeval.gates.baselines import BaselineGate
    from pytest_vlmeval.gates.sequences import Side
    from pytest_vlmeval.gates.units import Unit
    from pytest_vlmeval.records import PlanEntry, Score


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyBaseline:
    """The gate of a baseline; `make_gate` gives that of a score of first samples."""

    library: Library
    entry: PlanEntry
    baseline: Baseline
    make_gate: Callable[[Score], BaselineGate]

    def why_whole(self) -> str | None:
        """Say why it cannot be decided early; None if it may be."""
        if not look_sizes(self.library, self.entry):
            return f"it has no more than {FIRST_LOOK} samples"
        return None

    def decide(self, score: Score) -> Decision | Whole | None:
        """Return what the paired test of all samples would find; None if unknown."""
        gate, dataset = self.make_gate(score), self.entry.dataset
        if gate.differences(self.baseline):
            return Whole(dataset=dataset, why="its baseline is of another kind of run")
        pair = gate.pair(self.baseline)
        every = gate.find_units(replace(score, verdicts=self._kept_verdicts()))
        if pair is None or every is None:
            return Whole(dataset=dataset, why="its samples have no verdicts")
        before, now = (in_order(self.entry, units) for units in pair)
        sizes = _cluster_sizes(every.all)
        kept = np.array([unit.value for unit in every.all])
        strict = is_failure("inconclusive", RULE, gate.inconclusive)
        bounds = find_paired_bounds(
            np.array([sizes[unit.index] for unit in every.all], float),
            right_or_wrong=bool(np.isin(np.concatenate([kept, now]), (0, 1)).all()),
            margin=gate.settings.margin / 100,
            level=gate.settings.level,
            strict=strict,
        )
        asked = {unit.index for unit in pair[1].all}
        order = [sizes[index] for index in self.entry.indexes if index in asked]
        decided = paired_decided_after(
            now - before,
            np.array(order, float),
            len(every.all),
            bounds,
            gate.settings.level,
        )
        return None if decided is None else _say(gate, decided[1], strict=strict)

    def _kept_verdicts(self) -> tuple[Verdict, ...]:
        values = self.baseline.values
        return tuple(
            Verdict(index=index, value=values[index]) for index in self.entry.indexes
        )


def _cluster_sizes(units: Sequence[Unit]) -> Mapping[str, int]:
    """Return of how many units the cluster of each is."""
    counts = Counter(unit.cluster for unit in units)
    return {unit.index: counts[unit.cluster] for unit in units}


def _say(gate: BaselineGate, side: Side, *, strict: bool) -> Decision:
    if side == "above":
        found = "would find it worse than its baseline"
    elif strict:
        found = "would not be below its baseline by more than is tolerated"
    else:
        found = "would not find it worse than its baseline"
    what = "the share of right answers of all" if strict and side == "below" else ""
    return Decision(
        gate="baseline",
        outcome="failed" if side == "above" else "passed",
        claim=(
            f"{what or 'the paired test of all'} {found}, with an error of at most "
            f"{gate.settings.level:g}"
        ),
    )
