"""How far a session is, drawn by rich: a bar for each dataset and a line for all."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from pytest_vlmeval.reports.summary import Share
    from pytest_vlmeval.reports.watch import DatasetProgress, Progress

# Rows of the terminal that are left to pytest.
LEFT_ROWS = 4
MOST_BARS = 12


def draw_progress(
    progress: Progress, rate: float, width: int, height: int
) -> list[str]:
    """Return the lines of the drawing, each with its colours.

    `rate` is in answers per second over all datasets, `width` and `height` are those
    of the terminal, in columns and rows.
    """
    from rich.console import Console

    most = max(1, min(MOST_BARS, height - LEFT_ROWS - 2))
    shown = _choose(progress.datasets, most)
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        color_system="standard",
        legacy_windows=False,
        highlight=False,
    )
    with console.capture() as capture:
        console.print(_bars(shown, width))
        console.print(
            _describe(progress, rate, len(shown)), overflow="ellipsis", no_wrap=True
        )
    return capture.get().splitlines()


def _choose(
    datasets: Sequence[DatasetProgress], most: int
) -> Sequence[DatasetProgress]:
    """Choose what is shown: what goes on before what is done, in the plan's order."""
    if len(datasets) <= most:
        return datasets
    ordered = sorted(datasets, key=lambda each: each.settled == each.total)
    chosen = {each.dataset for each in ordered[:most]}
    return [each for each in datasets if each.dataset in chosen]


def _bars(datasets: Sequence[DatasetProgress], width: int) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, max_width=max(8, width // 3))
    table.add_column(width=max(8, width // 4))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for each in datasets:
        table.add_row(
            Text(each.dataset),
            ProgressBar(total=max(each.total, 1), completed=each.settled),
            f"{each.settled}/{each.total}",
            Text(_right(each.right), style="cyan"),
        )
    return table


def _right(share: Share | None) -> str:
    """Say how many answers look right, and between what the truth may lie."""
    if share is None:
        return ""
    low, high = 100 * share.low, 100 * share.high
    return f"about {100 * share.value:.0f} % right [{low:.0f}, {high:.0f}]"


def _describe(progress: Progress, rate: float, shown: int) -> str:
    parts = [describe_progress(progress, rate)]
    more = len(progress.datasets) - shown
    if more:
        parts.append(f"{more} more datasets")
    if progress.settled < progress.total:
        parts.append(f"{progress.in_flight} in flight")
    if progress.retries:
        parts.append(f"{progress.retries} retries")
    if progress.tokens:
        parts.append(f"{progress.tokens:,} tokens")
    return ", ".join(parts)


def describe_progress(progress: Progress, rate: float) -> str:
    """Say in a line how far all datasets are; also for where there is no terminal."""
    settled, total = progress.settled, progress.total
    waiting = [each for each in progress.datasets if each.settled < each.total]
    if not waiting:
        return f"all {total} samples answered, scoring"
    line = f"{waiting[0].dataset} {waiting[0].settled}/{waiting[0].total}"
    if len(progress.datasets) > 1:
        line += f", in all {settled}/{total}"
    line += f", {rate:.1f}/s"
    if rate > 0:
        left = round((total - settled) / rate)
        line += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
    return line
