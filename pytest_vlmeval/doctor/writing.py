"""The doctor's findings as lines for a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_vlmeval.doctor.finding import Finding

STYLES = {"ok": "green", "note": "yellow", "trouble": "bold red"}


def write_findings(
    findings: Sequence[Finding], width: int, *, colour: bool
) -> list[str]:
    """Return the lines of a table, `width` columns wide, and what it comes to."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        text = Text(finding.text)
        if finding.remedy:
            text.append(f"\n{finding.remedy}", style="bold")
        state = Text(finding.state, style=STYLES[finding.state])
        table.add_row(state, Text(finding.about), text)
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
        legacy_windows=False,
    )
    console.print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return [*lines, "", _sum_up(findings)]


def _sum_up(findings: Sequence[Finding]) -> str:
    count = sum(finding.state == "trouble" for finding in findings)
    if not count:
        return "All is well."
    return f"{count} {'thing is' if count == 1 else 'things are'} to be mended."
