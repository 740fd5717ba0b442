"""Every pytest hook of the plugin, in the order of a session; each routes to a module.

Nothing else of the package is imported before a benchmark or one of our options is
seen, so that the plugin costs next to nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    from pytest_vlmeval.options import add_options

    add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers and the fixtures."""
    from pytest_vlmeval import fixtures, suite

    for marker, meaning in suite.MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")
    config.pluginmanager.register(fixtures, "vlmeval-fixtures")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run a command, as `--vlm-list`, instead of tests."""
    from pytest_vlmeval.commands import find_command

    command = find_command(config)
    if command is None:
        from pytest_vlmeval.shipped import take_suite

        take_suite(config, print)
        return None
    return command(config, print)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Register what only the process with the terminal does."""
    from pytest_vlmeval import header
    from pytest_vlmeval import session as sessions

    sessions.register_reports(session)
    header.tell_remarks(session.config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Say what is evaluated."""
    from pytest_vlmeval.header import header

    return header(config)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Expand a test that asks for a sample or a score over its datasets."""
    from pytest_vlmeval import suite

    fixture = suite.wanted_fixture(metafunc)
    if fixture is not None:
        from pytest_vlmeval.session import parametrize

        parametrize(metafunc, fixture)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name the items of a benchmark."""
    if argname not in ("vlm_sample", "vlm_score"):
        return None
    from pytest_vlmeval.suite import id_of

    return id_of(val)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Remember which datasets are not run as a whole."""
    from pytest_vlmeval.suite import note_deselected

    note_deselected(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the engine once it is known what is selected."""
    from pytest_vlmeval.session import begin_run

    begin_run(session)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report of a wrong answer take little."""
    report = yield
    if hasattr(report, "wasxfail"):
        from pytest_vlmeval import suite

        suite.shorten(report, item, call)
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail what no test held; let a worker end what it asks for the others."""
    from pytest_vlmeval.session import RUN_KEY, is_worker, note_unheld

    note_unheld(session)
    run = session.config.stash.get(RUN_KEY, None)
    if (
        run is not None
        and is_worker(session.config)
        and exitstatus != pytest.ExitCode.INTERRUPTED
    ):
        run.close(finish=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what was started."""
    from pytest_vlmeval.session import close_run

    close_run(config)
