"""What ranks datasets whose classes give several numbers and no whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytest_vlmeval.sandbox.inside.families.common import Info, Verdict

AVERAGE = "Average"


def _add_average(
    metrics: dict[str, float], names: Sequence[str], factor: float = 1
) -> tuple[str, float]:
    """Add the mean of these metrics to them."""
    metrics[AVERAGE] = sum(metrics[name] for name in names) / len(names)
    return AVERAGE, metrics[AVERAGE] * factor


def main_of_shares(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank by the mean of all, which are shares of the answers to a task each."""
    return _add_average(metrics, [name for name in metrics if name != AVERAGE], 100)


def main_of_versions(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank MathVerse by the mean of the versions of its questions, or the only one."""
    names = [name for name in metrics if name.endswith("/Overall")]
    if len(names) == 1:
        return names[0], metrics[names[0]]
    return _add_average(metrics, names)


def main_of_domains(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank TableVQABench by the mean of its parts, each by what is named first."""
    names = [name for name in metrics if name.endswith("/average_scores/1")]
    return _add_average(metrics, names)


def main_of_puzzles(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank VGRPBench by the mean share of solved puzzles of each kind."""
    names = [name for name in metrics if name.endswith("/Answer Score")]
    return _add_average(metrics, names)


def main_of_phyx(
    _info: Info, metrics: dict[str, float], _verdicts: list[Verdict]
) -> tuple[str, float]:
    """Rank PhyX by its whole, which has another name with a judge."""
    name = "Overall" if "Overall" in metrics else "Overall Acc"
    return name, metrics[name] * 100
