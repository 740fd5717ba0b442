"""When all gates of a dataset are decided before all its samples are asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from pytest_vlmeval.gates.outcome import GateResult

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.gates.outcome import Gate
    from pytest_vlmeval.gates.units import Units
    from pytest_vlmeval.records import PlanEntry, Score

# Samples at the first look, and how many times more there are at each further one.
FIRST_LOOK = 50
GROWTH = 1.5

Decided = Literal["passed", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a gate of all samples would find, known from the first ones.

    `claim` says it in a clause, with the chance at most to be wrong.
    """

    gate: Gate
    outcome: Decided
    claim: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """That a dataset's gates were decided after `asked` of `total` samples."""

    dataset: str
    asked: int
    total: int
    decisions: tuple[Decision, ...]

    @property
    def reason(self) -> str:
        """Say that it stopped, after how many samples, why and how surely."""
        claims = "; ".join(each.claim for each in self.decisions)
        return (
            f"{self.dataset} stopped after {self.asked:,} of {self.total:,} samples: "
            f"{claims} (--vlm-stop-early)"
        )

    def outcome(self, gate: Gate) -> Decided | None:
        """Return what was decided of a gate; None where nothing was asked of it."""
        found = {each.gate: each.outcome for each in self.decisions}
        return found.get(gate)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """That all samples of a dataset are asked, and why."""

    dataset: str
    why: str

    @property
    def reason(self) -> str:
        """Say so in a sentence."""
        return f"{self.dataset} is asked whole (--vlm-stop-early): {self.why}"


class EarlyGate(Protocol):
    """A gate that may be decided by the first samples of a dataset."""

    def why_whole(self) -> str | None:
        """Say why it cannot be decided early; None if it may be."""

    def decide(self, score: Score) -> Decision | Whole | None:
        """Return what the score of the first samples decides; None for nothing.

        `Whole` where the score turns out not to be of the kind that can.
        """


def as_gate(found: Stop | Whole) -> GateResult:
    """Return what reports show of it: it fails nothing by itself."""
    return GateResult(
        dataset=found.dataset,
        gate="early stop",
        outcome="passed",
        message=f"{found.reason}.",
        samples=found.asked if isinstance(found, Stop) else 0,
    )


def look_sizes(library: Library, entry: PlanEntry) -> list[int]:
    """Return after how many samples of a plan's order to look; groups stay whole."""
    groups = {row.index: row.group for row in library.rows(entry.dataset)}
    order = [groups[index] for index in entry.indexes]
    sizes: list[int] = []
    wanted = float(FIRST_LOOK)
    for place in range(1, len(order)):
        inside = order[place] is not None and order[place] == order[place - 1]
        if place >= wanted and not inside:
            sizes.append(place)
            wanted = place * GROWTH
    return sizes


def in_order(entry: PlanEntry, units: Units) -> np.ndarray:
    """Return the values of units as they were asked, shape (units,)."""
    place = {index: number for number, index in enumerate(entry.indexes)}
    ordered = sorted(units.all, key=lambda unit: place[unit.index])
    return np.array([unit.value for unit in ordered])
