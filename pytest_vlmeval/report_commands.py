"""What is said of stored runs instead of running tests: a list, a report."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.session import get_settings

if TYPE_CHECKING:
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.store import Store

Write = Callable[[str], None]


def run_runs(config: pytest.Config, write: Write) -> int:
    """List the runs of the store; the `--vlm-runs` command."""
    from pytest_vlmeval.reports.runs import list_runs

    return _with_store(
        get_settings(config), lambda store: write(list_runs(store.history))
    )


def run_report(config: pytest.Config, write: Write) -> int:
    """Write the reports of a stored run; the `--vlm-mode=report` command."""
    from pytest_vlmeval.reports.loading import load_run
    from pytest_vlmeval.reports.writing import write_reports

    settings = get_settings(config)
    if settings.report is None and settings.export is None:
        raise pytest.UsageError(
            "--vlm-mode=report writes the reports of a stored run, and none is named: "
            "give --vlm-report=FILE.html, --vlm-export=DIR, or both."
        )

    def report(store: Store) -> None:
        run = store.history.find(settings.run, settings.model)
        found = load_run(store, settings.cache_dir, run.run_id)
        for line in write_reports(found, settings):
            write(line)

    return _with_store(settings, report)


def run_compare(config: pytest.Config, write: Write) -> int:
    """Compare two runs of the store; the `--vlm-compare` command."""
    from pytest_vlmeval.reports.loading import load_run
    from pytest_vlmeval.reports.paired_runs import compare_alike
    from pytest_vlmeval.reports.writing import write_reports

    settings = get_settings(config)
    names = config.getoption("--vlm-compare")

    def report(store: Store) -> None:
        old, new = (
            load_run(store, settings.cache_dir, store.history.find(name).run_id)
            for name in names
        )
        found, lines = compare_alike(new, old)
        for line in [*lines, *write_reports(found, settings)]:
            write(line)

    return _with_store(settings, report)


def _with_store(settings: Settings, use: Callable[[Store], None]) -> int:
    """Use the store, which has to be there."""
    from pytest_vlmeval.store import Store
    from pytest_vlmeval.store.location import Location

    if not Location(settings.work_dir, settings.store).may_exist:
        raise pytest.UsageError(
            f"There is no run store in {settings.store_name}. Run a benchmark first, "
            "or name the folder of another store with --vlm-work-dir."
        )
    try:
        store = Store(settings.work_dir, settings.store)
        try:
            use(store)
        finally:
            store.close()
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
    return int(pytest.ExitCode.OK)
