"""Two runs side by side, sample by sample, as lines for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.prompts import parts_of
from pytest_vlmeval.reports.record import DatasetReport, RunReport, SampleReport

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from pytest_vlmeval.gates.paired import Comparison

SHOWN = 10


def format_comparison(report: RunReport) -> list[str]:
    """Return what changed in each dataset since the run it is compared with."""
    lines = [f"{report.model} ({report.run_id}) against {report.compared_with}"]
    for dataset in report.datasets:
        lines += ["", *_dataset(dataset)]
    return lines


def compare_samples(samples: Sequence[SampleReport]) -> Comparison | None:
    """Compare the samples that both runs have; None where there is none.

    Those that share a group, or all their pictures, are not independent.
    """
    from pytest_vlmeval.gates.paired import compare

    pairs = [
        (each.before.value, each.value, _cluster(each))
        for each in samples
        if each.before is not None
    ]
    if not pairs:
        return None
    before, after, clusters = zip(*pairs, strict=True)
    return compare(before, after, clusters=clusters)


def _cluster(sample: SampleReport) -> Hashable:
    media = tuple(part.media for part in parts_of(sample.prompt) if part.media)
    return sample.group or media or sample.index


def _dataset(dataset: DatasetReport) -> list[str]:
    found = compare_samples(dataset.samples)
    if found is None:
        return [f"{dataset.dataset}: the other run has none of its samples"]
    points = [100 * each for each in (found.change, found.low, found.high)]
    lines = [
        f"{dataset.dataset}: {100 * found.before:.2f} % before, "
        f"{100 * found.after:.2f} % now, of {found.samples} samples that both have",
        f"  change {points[0]:+.2f} points, {100 - 200 * found.level:g} % interval "
        f"[{points[1]:+.2f}, {points[2]:+.2f}] ({found.interval_method})",
        f"  p = {found.two_sided_p:.3g}, two-sided ({found.method})",
    ]
    if found.smallest is not None:
        lines.append(
            f"  so many samples show a drop of {100 * found.smallest:.1f} points with "
            f"a power of 80 %, one of 2 points with {100 * found.power(0.02):.0f} %"
        )
    for flip, word in (("regressed", "lost"), ("fixed", "gained")):
        indexes = [each.index for each in dataset.samples if each.flip == flip]
        if indexes:
            more = f" and {len(indexes) - SHOWN} more" if len(indexes) > SHOWN else ""
            shown = ", ".join(indexes[:SHOWN])
            lines.append(f"  {len(indexes)} {word}: {shown}{more}")
    return lines
