"""What the process with the terminal shows: progress while waiting, the final table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.errors import VlmEvalError, printable
from pytest_vlmeval.reports.accounts import format_account
from pytest_vlmeval.reports.gate_table import (
    append_summary,
    format_gates,
    format_markdown,
    format_unheld,
)
from pytest_vlmeval.reports.progress import LiveProgress
from pytest_vlmeval.reports.table import format_table
from pytest_vlmeval.reports.watch import Progress, Watch
from pytest_vlmeval.store import Store
from pytest_vlmeval.store.location import Location

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.reports.screen import Screen


class TerminalReport:
    """Shows a session's progress and results, whatever processes do the work."""

    def __init__(
        self,
        terminal: pytest.TerminalReporter,
        screen: Screen,
        settings: Settings,
        session_id: str,
        *,
        announce: Callable[[str], None],
        find_unheld: Callable[[], Mapping[str, str]],
    ) -> None:
        self._announce = announce
        self._terminal = terminal
        self._find_unheld = find_unheld
        self._settings = settings
        self._session_id = session_id
        self._store: Store | None = None
        self._watch: Watch | None = None
        self.line = LiveProgress(screen, self._progress)

    def _find_watch(self) -> Watch | None:
        """Open the store once some process of the session has written its plan."""
        place = Location(self._settings.work_dir, self._settings.store)
        if self._watch is None and place.may_exist:
            if self._store is None:
                self._store = Store(
                    self._settings.work_dir, self._settings.store, self._announce
                )
            plan = self._store.runs.load_plan(self._session_id)
            if plan is not None:
                self._watch = Watch(
                    self._store, plan, self._session_id, self._settings.cache_dir
                )
        return self._watch

    def _progress(self) -> Progress:
        watch = self._find_watch()
        return Progress() if watch is None else watch.progress()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self) -> None:
        """Let go of the reports of set-ups and tear-downs that went well.

        pytest keeps them to the end, 3 kB an item, for --durations alone.
        """
        if self._terminal.config.getoption("durations", None) is None:
            self._terminal.stats.pop("", None)

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode
    ) -> None:
        """Print the table of datasets, unless nothing was run."""
        if exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        lines: list[str] = []
        if self._settings.gates.stop_early:
            # The plan may have become smaller since.
            self._watch = None
        try:
            watch = self._find_watch()
            if watch is None:
                return
            # A score of answers that may be another model's is none of this session.
            lines = self._refusal() or [
                *format_table(watch.results()),
                *self._gates(),
                *format_unheld(self._find_unheld()),
                *format_account(watch.account()),
                *self._compare(),
            ]
        except VlmEvalError as error:
            lines = [*lines, str(error)]
        terminalreporter.write_sep("=", "vlmeval")
        for line in lines:
            terminalreporter.write_line(printable(line))

    def _refusal(self) -> list[str]:
        """Say why the stored answers do not count, where their check has not passed."""
        assert self._store is not None
        refusal = self._store.reuse.refusal(self._session_id)
        return [refusal] if refusal else []

    def _compare(self) -> list[str]:
        """Compare with the run that `--vlm-compare-with` names."""
        baselines = self._settings.baselines
        if baselines.compare_with is None or self._store is None:
            return []
        from pytest_vlmeval.reports.paired_runs import compare_session_with

        return compare_session_with(
            self._store,
            self._settings.cache_dir,
            self._session_id,
            baselines.compare_with,
        )

    def _gates(self) -> list[str]:
        """Return the lines about gates; add them to the summary of a CI's job."""
        if self._store is None:
            return []
        found = self._store.gates.load(self._session_id)
        lines, summary = format_gates(found), self._settings.gates.step_summary
        if found and summary is not None:
            try:
                append_summary(
                    summary, format_markdown(self._settings.model or "", found)
                )
            except VlmEvalError as error:
                lines.append(str(error))
        return lines

    def pytest_unconfigure(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()
