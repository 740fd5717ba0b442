"""Writes the reports that were asked for, at the end of a session or later."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.errors import VlmEvalError, printable
from pytest_vlmeval.store import Store
from pytest_vlmeval.store.location import Location

if TYPE_CHECKING:
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.reports.record import RunReport


def write_reports(report: RunReport, settings: Settings) -> list[str]:
    """Write what the settings ask for; return a line about each.

    Raises `VlmEvalError` where a file cannot be written.
    """
    lines = []
    if settings.report is not None:
        from pytest_vlmeval.reports.html import write_html

        write_html(report, settings.report, max_mb=settings.report_max_mb)
        lines.append(f"report: {settings.report} ({_size(settings.report)})")
    if settings.export is not None:
        from pytest_vlmeval.reports.export import write_export

        notes = write_export(report, settings.export, settings.predictions)
        lines += [f"results: {settings.export}", *notes]
    return lines


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"


class ReportWriter:
    """Writes the reports of a session when it ends, however it ends.

    Lives in the process with the terminal, which under xdist is the controller.
    """

    def __init__(self, settings: Settings, session_id: str) -> None:
        self._settings = settings
        self._session_id = session_id
        self._lines: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int | pytest.ExitCode
    ) -> None:
        """Write; a report that cannot be written fails the session."""
        if exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        try:
            self._lines = self._write()
        except VlmEvalError as error:
            self._lines = [str(error)]
            if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def _write(self) -> list[str]:
        from pytest_vlmeval.reports.loading import load_session

        if not Location(self._settings.work_dir, self._settings.store).may_exist:
            return []
        store = Store(self._settings.work_dir, self._settings.store)
        try:
            if store.reuse.refusal(self._session_id):
                return ["no report is written, as nothing was scored"]
            report = load_session(store, self._settings.cache_dir, self._session_id)
        finally:
            store.close()
        return [] if report is None else write_reports(report, self._settings)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        """Say what was written, or why it was not."""
        for line in self._lines:
            terminalreporter.write_line(f"vlmeval: {printable(line)}")
