"""Every pytest hook of the plugin, in the order of a session; each routes to a module.

Nothing else of the package is imported before a benchmark or one of our options is
seen, so that the plugin costs next to nothing elsewhere.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest

from pytest_vlmeval.errors import VlmEvalError, log_error
from pytest_vlmeval.settings.groups import NONE, SERVED
from pytest_vlmeval.suite import (
    MARKERS,
    fixtures,
    id_of,
    mark,
    replace_bug,
    shorten,
    status_of,
)
from pytest_vlmeval.suite.selection import note_deselected
from pytest_vlmeval.suite.session import (
    FORECAST_KEY,
    RUN_KEY,
    SCREEN_KEY,
    begin_run,
    close_run,
    defer,
    expand_tests,
    get_settings,
    get_sources,
    guard,
    is_command,
    is_given,
    is_worker,
    name_command,
    note_unheld,
    parametrize,
    register_reports,
    selects_tests,
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    from pytest_vlmeval.settings.table import add_options

    add_options(parser)


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(
    parser: pytest.Parser, args: list[str]
) -> Generator[None]:
    """Refuse an option that is misspelt, once those of conftest files are known."""
    yield
    if any(argument.startswith("--vlm-") for argument in args):
        from pytest_vlmeval.settings.table import explain_unknown

        _, unknown = parser.parse_known_and_unknown_args(args)
        if message := explain_unknown(unknown):
            raise pytest.UsageError(message)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers and the fixtures."""
    for marker, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{marker}: {meaning}")
    config.pluginmanager.register(fixtures, "vlmeval-fixtures")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run a command, as `--vlm-list`, instead of tests; find tests without a path."""
    if is_command(config):
        from pytest_vlmeval.suite.commands import run_command

        try:
            return run_command(config, print)
        except pytest.UsageError:
            raise
        except VlmEvalError as error:
            raise pytest.UsageError(str(error)) from None
        except Exception as error:
            what = name_command(config)
            line = log_error(get_settings(config), error, what)
            raise pytest.UsageError(line) from None
    from pytest_vlmeval.suite.installed import take_suite

    take_suite(config, print)
    return None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Register what only the process with the terminal does."""
    register_reports(session)
    config = session.config
    if not is_worker(config):
        # What of a task file, or of the environment, has no effect or does not count.
        in_task = is_given("config", config)
        sources = get_sources(config)
        remarks = get_settings(config).remarks if in_task else sources.misspelt()
        for remark in remarks:
            config.stash[SCREEN_KEY].announce(remark)


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Describe what is evaluated; nothing where no model is named."""
    if not is_given("model", config):
        if not is_given("judge", config):
            return []
        settings = get_settings(config)
        return [f"vlmeval: {settings.judging}, store {settings.store_name}"]
    settings = get_settings(config)
    from pytest_vlmeval.models.open import backend_of

    where = backend_of(settings).place(settings)
    if settings.serving.model:
        where = f" {SERVED}"
    if settings.cluster is not None:
        where += " on Ray"
    if settings.preset != NONE:
        where += f", preset {settings.preset}"
    return [
        f"vlmeval: model {settings.model}{where}, {settings.judging}, "
        f"store {settings.store_name}"
    ]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Expand a test that asks for a sample or a score over its datasets."""
    for fixture in ("vlm_sample", "vlm_score"):
        if fixture in metafunc.fixturenames:
            parametrize(metafunc, fixture)
            return


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name the items of a benchmark."""
    if argname not in ("vlm_sample", "vlm_score"):
        return None
    return id_of(val)


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Remember which datasets are not run as a whole."""
    note_deselected(items)


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> bool | None:
    """Collect nothing where only what `--vlm-data` names is set up."""
    config = session.config
    by_name = config.getoption("--vlm-setup") and not selects_tests(config)
    return True if by_name else None


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(
    collector: pytest.Collector, name: str, obj: object
) -> Generator[None, object, object]:
    """Let a test over datasets have its items when all others are collected."""
    made = yield
    return defer(collector, name, obj, made)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(
    session: pytest.Session, items: list[pytest.Item]
) -> Generator[None]:
    """Make the items of tests over datasets, before anything selects among them."""
    expand_tests(session, items)
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the engine once it is known what is selected."""
    begin_run(session)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Set up or download what the tests need, where that is asked for instead."""
    forecast = session.config.stash.get(FORECAST_KEY, None)
    if forecast is None or not forecast.names_only:
        return None
    from pytest_vlmeval.suite import commands

    try:
        if session.config.getoption("--vlm-setup"):
            commands.set_up(session)
        else:
            commands.download(session)
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report of a wrong answer take little, and that of a bug be one line."""
    run = item.config.stash.get(RUN_KEY, None)
    if run and call.excinfo and isinstance(call.excinfo.value, Exception):
        replace_bug(item, call, run.settings)
    report = yield
    if run:
        mark(report, item, call)
    if hasattr(report, "wasxfail"):
        shorten(report, item, call)
    return report


def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    """Count wrong answers apart from right ones where their items pass."""
    return status_of(report)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail what no test held; let a worker end what it asks for the others."""
    config = session.config
    guard(config, "Looking for thresholds not held", lambda: note_unheld(session))
    run = config.stash.get(RUN_KEY, None)
    if (
        run is not None
        and is_worker(config)
        and exitstatus != pytest.ExitCode.INTERRUPTED
    ):
        guard(config, "Ending the run", lambda: run.close(finish=True))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End what was started."""
    close_run(config)
