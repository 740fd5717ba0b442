"""Two runs side by side, sample by sample, as lines for a terminal."""

from __future__ import annotations

from math import comb

from pytest_vlmeval.reports.record import DatasetReport, RunReport

SHOWN = 10


def format_comparison(report: RunReport) -> list[str]:
    """Return what changed in each dataset since the run it is compared with."""
    lines = [f"{report.model} ({report.run_id}) against {report.compared_with}"]
    for dataset in report.datasets:
        lines += ["", *_dataset(dataset)]
    return lines


def _dataset(dataset: DatasetReport) -> list[str]:
    both = [each for each in dataset.samples if each.before is not None]
    if not both:
        return [f"{dataset.dataset}: the other run has none of its samples"]
    was = sum(
        each.before is not None and each.before.outcome == "correct" for each in both
    )
    now = sum(each.outcome == "correct" for each in both)
    lost = [each.index for each in both if each.flip == "regressed"]
    won = [each.index for each in both if each.flip == "fixed"]
    change = 100 * (now - was) / len(both)
    lines = [
        f"{dataset.dataset}: {was} of {len(both)} right before, {now} now "
        f"({change:+.2f} points); {len(lost)} lost, {len(won)} won, "
        f"p = {mcnemar(len(lost), len(won)):.3g} (exact McNemar, two-sided)"
    ]
    for word, indexes in (("lost", lost), ("won", won)):
        if indexes:
            more = f" and {len(indexes) - SHOWN} more" if len(indexes) > SHOWN else ""
            lines.append(f"  {word}: {', '.join(indexes[:SHOWN])}{more}")
    return lines


def mcnemar(lost: int, won: int) -> float:
    """Return the two-sided p-value of the exact test: both flips are equally likely.

    Q. McNemar, Note on the sampling error of the difference between correlated
    proportions, 1947, doi 10.1007/BF02295996, with the binomial distribution.
    """
    changed = lost + won
    tail: int = sum(comb(changed, number) for number in range(min(lost, won) + 1))
    return float(min(1, 2 * tail / 2**changed))
