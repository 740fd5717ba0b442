"""The run of a pytest session: made at the first benchmark, closed at the end.

Under xdist every worker has one; the controller has none and reads the store.
"""

from __future__ import annotations

import secrets
import shlex
import threading
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_vlmeval import suite
from pytest_vlmeval.datasets.unscored import (
    explain_gated,
    explain_left_out,
    explain_refusal,
)
from pytest_vlmeval.errors import VlmEvalError, log_error
from pytest_vlmeval.reports.screen import Relay, Screen
from pytest_vlmeval.settings import Settings, load_from
from pytest_vlmeval.settings.option import hide_keys
from pytest_vlmeval.settings.sources import Sources, pytest_sources
from pytest_vlmeval.settings.table import BY_NAME, COMMANDS
from pytest_vlmeval.suite.attachments import register_attachments
from pytest_vlmeval.suite.selection import (
    Forecast,
    LeftOut,
    drop_placeholders,
    explain_no_match,
    gate_folders,
    needed_datasets,
    take_unscored,
    wants_judge,
)

if TYPE_CHECKING:
    from pytest_vlmeval.models.server import ServerKeeper
    from pytest_vlmeval.run import Run
    from pytest_vlmeval.run.queue import ProcessShare

SCREEN_KEY = pytest.StashKey[Screen | Relay]()
RUN_KEY = pytest.StashKey["Run"]()
FORECAST_KEY = pytest.StashKey[Forecast]()
SOURCES_KEY = pytest.StashKey[Sources]()
SETTINGS_KEY = pytest.StashKey[Settings]()
KEEPER_KEY: pytest.StashKey[ServerKeeper] = pytest.StashKey()
SESSION_ID_KEY = pytest.StashKey[str]()
# Why the settings are refused, if that shows only when a test needs them.
REFUSAL_KEY = pytest.StashKey[str]()
# Thresholds that no test was held against, by their datasets.
UNHELD_KEY = pytest.StashKey[dict[str, str]]()
# The key under which a worker tells its controller which thresholds it held nothing
# against.
UNHELD = "vlmeval_unheld"
# The keys under which the controller gives its workers the session's name, and a
# channel for the lines that they announce, and for why nothing can be run.
SESSION_ID = "vlmeval_session_id"
LINES = "vlmeval_lines"
# What the controller says on that channel where it was interrupted.
INTERRUPTED = "interrupted"


def is_worker(config: pytest.Config) -> bool:
    """Return whether this process is one of xdist's workers."""
    return hasattr(config, "workerinput")


def _worker(config: pytest.Config) -> Any:
    """Return a worker's config with what xdist adds to it."""
    return config


def is_controller(config: pytest.Config) -> bool:
    """Return whether this process hands its tests to xdist's workers."""
    return not is_worker(config) and bool(config.getoption("dist", "no") != "no")


def get_sources(config: pytest.Config) -> Sources:
    """Return where the options of the session may be given."""
    if SOURCES_KEY not in config.stash:
        config.stash[SOURCES_KEY] = pytest_sources(config)
    return config.stash[SOURCES_KEY]


def is_given(name: str, config: pytest.Config) -> bool:
    """Return whether the option `name` was given anywhere, whatever its value."""
    return get_sources(config).find(BY_NAME[name]) is not None


def names_paths(config: pytest.Config) -> bool:
    """Return whether the command line names paths of tests."""
    return config.args_source is pytest.Config.ArgsSource.ARGS


def selects_tests(config: pytest.Config) -> bool:
    """Return whether the command line says which tests are meant: paths, -k or -m.

    Those of the ini file's addopts are of every session, and mean no tests.
    """
    given = config.invocation_params.args
    return names_paths(config) or any(each.startswith(("-k", "-m")) for each in given)


def is_command(config: pytest.Config) -> bool:
    """Return whether something runs instead of tests, as `--vlm-list`."""
    if any(config.getoption(each) not in (None, False) for each in COMMANDS):
        return True
    try:
        # The first look at any option is what reads a task file.
        return is_given("mode", config) and get_settings(config).mode == "report"
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None


def name_command(config: pytest.Config) -> str:
    """Return the option that runs something instead of tests."""
    found = (each for each in COMMANDS if config.getoption(each) not in (None, False))
    return next(found, "--vlm-mode=report")


def get_settings(config: pytest.Config) -> Settings:
    """Return the settings of the session; a bad one is a usage error."""
    if SETTINGS_KEY not in config.stash:
        try:
            config.stash[SETTINGS_KEY] = load_from(get_sources(config))
        except VlmEvalError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[SETTINGS_KEY]


def get_session_id(config: pytest.Config) -> str:
    """Return what names this session in the store, the same in all its processes."""
    if SESSION_ID_KEY not in config.stash:
        if is_worker(config):
            config.stash[SESSION_ID_KEY] = _worker(config).workerinput[SESSION_ID]
        else:
            config.stash[SESSION_ID_KEY] = secrets.token_hex(16)
    return config.stash[SESSION_ID_KEY]


def get_run(config: pytest.Config) -> Run:
    """Return the run of this process."""
    if RUN_KEY not in config.stash:
        from pytest_vlmeval.run import Run

        config.stash[RUN_KEY] = run = Run(
            get_settings(config),
            session_id=get_session_id(config),
            command=shlex.join(hide_keys(arguments_of(config))),
            share=_share(config),
            announce=config.stash[SCREEN_KEY].announce,
        )
        config.pluginmanager.register(Interruption(run), "vlmeval-interruption")
    return config.stash[RUN_KEY]


def arguments_of(config: pytest.Config) -> list[str]:
    """Return the command line of the session, of whatever process of it."""
    # A worker of xdist is told what its controller was called with.
    called = getattr(config, "workerinput", {}).get("mainargv")
    return ["pytest", *(called[1:] if called else config.invocation_params.args)]


def _share(config: pytest.Config) -> ProcessShare:
    from pytest_vlmeval.run.queue import ProcessShare

    if not is_worker(config):
        return ProcessShare(0, 1)
    given = _worker(config).workerinput
    number = given["workerid"].removeprefix("gw")
    return ProcessShare(int(number), int(given["workercount"]))


def parametrize(metafunc: pytest.Metafunc, fixture: str) -> None:
    """Expand a test over its datasets, once what the session downloads is known."""
    config = metafunc.config
    try:
        get_settings(config)
    except pytest.UsageError as error:
        # Raised here, it would be an error of the module, with a traceback.
        config.stash[REFUSAL_KEY] = str(error)
        nothing = [suite.UnselectedParameter()]
        metafunc.parametrize(fixture, nothing, indirect=True)
        return
    try:
        run = get_run(config)
        if FORECAST_KEY not in config.stash:
            _register_forecast(config, Forecast())
        config.stash[FORECAST_KEY].parametrize(metafunc, fixture, run)
    except (VlmEvalError, pytest.UsageError, pytest.Collector.CollectError):
        raise
    except Exception as error:
        what = f"Collecting {metafunc.definition.nodeid}"
        line = log_error(get_settings(config), error, what)
        raise pytest.Collector.CollectError(line) from None


def _register_forecast(config: pytest.Config, forecast: Forecast) -> None:
    config.stash[FORECAST_KEY] = forecast
    config.pluginmanager.register(forecast, "vlmeval-forecast")


def defer(collector: pytest.Collector, test: str, obj: object, made: object) -> object:
    """Return what stands for a test until it is known what all tests need."""
    forecast = collector.config.stash.get(FORECAST_KEY, None)
    if forecast is None or not forecast.noting:
        return made
    return forecast.defer(collector, test, obj, made)


def expand_tests(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Parametrize the tests over datasets, once what they need is there."""
    config = session.config
    forecast = config.stash.get(FORECAST_KEY, None)
    if forecast is None:
        return
    run = get_run(config)
    forecast.end_noting(run)
    if forecast.names_only:
        items.clear()
        return
    # One of several processes speaks.
    first = _share(config).number == 0
    forecast.check(
        run,
        config.stash[SCREEN_KEY].announce if first else lambda line: None,
        keyword=config.option.keyword,
        only_collects=config.option.collectonly,
    )
    if forecast.refusal is None:
        forecast.expand(session, items)


def begin_run(session: pytest.Session) -> None:
    """Start to ask what the collected items need; does nothing without benchmarks."""
    config = session.config
    if REFUSAL_KEY in config.stash:
        _refuse(session, config.stash[REFUSAL_KEY])
        return
    forecast = config.stash.get(FORECAST_KEY, None)
    if forecast is not None and forecast.refusal is not None:
        _refuse(session, forecast.refusal)
    try:
        asks = not config.option.collectonly
        # Tests of the user's own may ask judges.
        if (
            asks
            and any(map(wants_judge, session.items))
            and get_settings(config).judges
        ):
            get_run(config).judges.check()
        dropped = drop_placeholders(session.items)
        if dropped:
            config.hook.pytest_deselected(items=dropped)
        if not any(map(suite.parameter_of, session.items)):
            if dropped:
                get_run(config).check_names()
            _note_no_match(session)
            return
        if _ends_before_tests(session):
            config.stash[SCREEN_KEY].announce(
                "nothing is asked, as no test runs after an error of the collection; "
                "--continue-on-collection-errors runs those that were collected"
            )
            return
        run = get_run(config)
        run.check_names()
        if asks and run.settings.mode != "infer":
            folders = gate_folders(session.items)
            _refuse_gated(run, config.stash[FORECAST_KEY].left_out, folders)
            _refuse_unscored(session, run)
        needed = needed_datasets(session.items)
        if needed and asks:
            run.begin(needed, gate_folders(session.items))
            if session.shouldstop:
                # It was interrupted while this worker got ready.
                run.halt()
    except VlmEvalError as error:
        _refuse(session, str(error))
    except Exception as error:
        _refuse(session, log_error(get_settings(config), error, "Beginning the run"))


def _note_no_match(session: pytest.Session) -> None:
    """Report that `-k` or `-m` selects nothing where there are tests over datasets."""
    config = session.config
    keyword, mark = config.option.keyword, config.option.markexpr
    if (
        (keyword or mark)
        and not session.items
        and FORECAST_KEY in config.stash
        and not config.stash[FORECAST_KEY].names_only
        and _share(config).number == 0
    ):
        run = get_run(config)
        config.stash[SCREEN_KEY].announce(
            explain_no_match(keyword, mark, run.settings.data, run.choice.declared)
        )


def _ends_before_tests(session: pytest.Session) -> bool:
    """Return whether pytest runs no test, as it could not collect a module."""
    option = session.config.option
    return bool(
        session.testsfailed
        and not option.collectonly
        and not option.continue_on_collection_errors
        # xdist runs what was collected.
        and not is_worker(session.config)
    )


def _refuse_unscored(session: pytest.Session, run: Run) -> None:
    """Take out what benchmarks leave out; VlmEvalError for what else has no score.

    Most of it was foreseen; what has no references may only show in its file.
    """
    config = session.config
    needed = needed_datasets(session.items)
    reasons = {name: why for name in needed if (why := run.why_unscored(name))}
    if not reasons:
        return
    folders = gate_folders(session.items)
    dropped = take_unscored(session.items, reasons, run)
    rest = [name for name in reasons if name in needed_datasets(session.items)]
    if rest or not any(map(suite.parameter_of, session.items)):
        raise VlmEvalError(
            explain_refusal({name: reasons[name] for name in rest or reasons})
        )
    left_out = {
        name: LeftOut(
            reasons[name],
            gated={
                item.path.parent
                for item in dropped
                if (need.gated or need.expected) and suite.dataset_of(item) == name
            },
            compared=set(need.compared),
        )
        for name, need in needed_datasets(dropped).items()
    }
    _refuse_gated(run, left_out, folders)
    config.hook.pytest_deselected(items=dropped)
    if _share(config).number == 0:
        config.stash[SCREEN_KEY].announce(explain_left_out(reasons))


def _refuse_gated(
    run: Run, left_out: Mapping[str, LeftOut], folders: Sequence[Path]
) -> None:
    """Raise VlmEvalError where what is left out has a threshold or a baseline.

    `folders` are those of the benchmarks that stay: their thresholds count, too.
    """
    from pytest_vlmeval.gates.baseline_file import place_baseline
    from pytest_vlmeval.gates.thresholds import load_thresholds

    settings = run.settings
    model = settings.model or ""
    told: list[str] = []
    for name, left in left_out.items():
        gates: dict[str, None] = {}
        places = [[folder] for folder in sorted(left.gated)]
        for place in [folders, *places] if places else []:
            thresholds = load_thresholds(settings.gates.thresholds, place)
            if found := thresholds.of(model, name):
                gates[f"a threshold ({thresholds.describe(found)})"] = None
        for folder in sorted(left.compared):
            project = settings.baselines.project
            file = place_baseline(folder, project, model, name).found
            if file.is_file():
                gates[f"a baseline ({file})"] = None
        if gates:
            told.append(explain_gated(name, left.why, " and ".join(gates)))
    if told:
        raise VlmEvalError("\n".join(told))


def _refuse(session: pytest.Session, message: str) -> None:
    """End the session with a usage error; a worker leaves it to its controller."""
    if not is_worker(session.config):
        raise pytest.UsageError(message)
    # At once, so that it is there before xdist compares what workers collected.
    _worker(session.config).workerinput[LINES].send([message])
    session.items[:] = []


def note_unheld(session: pytest.Session) -> None:
    """Fail a session where a dataset's thresholds were held against nothing.

    A worker tells its controller, which fails the session if none of them did.
    """
    config = session.config
    run = config.stash.get(RUN_KEY, None)
    unheld = dict(run.unheld) if run is not None else {}
    if is_worker(config):
        _worker(config).workeroutput[UNHELD] = unheld
        return
    found = config.stash.setdefault(UNHELD_KEY, {})
    found |= unheld
    stopped = session.shouldstop or session.shouldfail
    if stopped or config.option.setuponly or config.option.setupplan:
        found.clear()
    if found and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def guard(config: pytest.Config, doing: str, act: Callable[[], None]) -> None:
    """Do something outside of any item; what nobody expects of it is one line."""
    try:
        act()
    except VlmEvalError as error:
        config.stash[SCREEN_KEY].announce(str(error))
    except Exception as error:
        line = log_error(get_settings(config), error, doing)
        config.stash[SCREEN_KEY].announce(line)


def close_run(config: pytest.Config) -> None:
    """End the engine and the helpers of this process."""
    if (run := config.stash.get(RUN_KEY, None)) is not None:
        guard(config, "Ending the run", run.close)
    if (keeper := config.stash.get(KEEPER_KEY, None)) is not None:
        guard(config, "Ending the servers", keeper.close)
    screen = config.stash.get(SCREEN_KEY, None)
    if screen is not None:
        screen.close()
        del config.stash[SCREEN_KEY]


class Interruption:
    """Ends the asking when the session is interrupted, before anything else."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Keep what is in flight, unless Ctrl-C is pressed once more."""
        self._run.halt()
        with suppress(KeyboardInterrupt):
            self._run.drain()


def _end_with_controller(session: pytest.Session) -> None:
    """Let a worker ask nothing more as soon as its controller says so, or is gone."""
    channel = _worker(session.config).workerinput[LINES]

    def end(message: object) -> None:
        # Whichever comes first, this or the run: either sees the other.
        session.shouldstop = "the session was interrupted"
        run = session.config.stash.get(RUN_KEY, None)
        if run is not None:
            run.halt()
        if message is not None:
            # This thread reads the connection, and must not wait.
            threading.Thread(target=tell_end, args=[run], daemon=True).start()

    def tell_end(run: Run | None) -> None:
        if run is not None:
            run.drain()
        with suppress(OSError):
            channel.send(None)

    channel.setcallback(end, endmarker=None)


class Controller:
    """What xdist's controller does for its workers, which have no terminal."""

    def __init__(self, session_id: str, announce: Callable[[str], None]) -> None:
        # Thresholds that no worker held anything against, by their datasets.
        self.unheld: dict[str, str] = {}
        self._session_id = session_id
        self._told = False
        self._announce = announce
        self._announced: set[str] = set()
        # Each worker's lines come in a thread of their own.
        self._announcing = threading.Lock()
        self._usage_errors: list[str] = []
        # Of each worker its channel, and whether it asks no more.
        self._workers: list[tuple[Any, threading.Event]] = []
        self._interrupted = False

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Send all workers one name in the store, and each a way to announce."""
        node.workerinput[SESSION_ID] = self._session_id
        node.workerinput[LINES] = channel = node.gateway.newchannel()
        ended = threading.Event()

        def hear(line: str | list[str] | None) -> None:
            if line is None:
                ended.set()
            elif isinstance(line, list):
                self._usage_errors += line
            else:
                self.say_once(line)

        # None also comes from a worker that is gone.
        channel.setcallback(hear, endmarker=None)
        self._workers.append((channel, ended))

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Let the workers keep what is in flight, unless Ctrl-C is pressed again."""
        self._interrupted = True
        for channel, _ in self._workers:
            with suppress(OSError):
                channel.send(INTERRUPTED)
        with suppress(KeyboardInterrupt):
            for _, ended in self._workers:
                ended.wait()

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self) -> Generator[None, None, None]:
        """Keep the exit code of an interruption where warnings are errors.

        syrupy warns of the workers that were interrupted, too.
        """
        with warnings.catch_warnings():
            if self._interrupted:
                warnings.filterwarnings("ignore", "syrupy: received")
            return (yield)

    def say_once(self, line: str) -> None:
        """Describe what one process found out, or all of them, in the one terminal."""
        with self._announcing:
            if line not in self._announced:
                self._announced.add(line)
                self._announce(line)

    @pytest.hookimpl(tryfirst=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Explain by the refusal of a worker why it has no tests and others have."""
        differs = "Different tests were collected" in str(report.longrepr)
        if self._usage_errors and report.failed and differs:
            report.longrepr = self._usage_errors[0]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object | None) -> None:
        """Take up which thresholds a worker did not hold."""
        output = getattr(node, "workeroutput", {})
        left = {} if error else output.get(UNHELD, {})
        # What one of them held is held; of one that died it is not known.
        shared = self.unheld.keys() & left.keys() if self._told else left.keys()
        self._told = True
        for name in [*self.unheld]:
            if name not in shared:
                del self.unheld[name]
        self.unheld.update({name: left[name] for name in shared})

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        """Make a session that its workers refused a usage error."""
        result = yield
        if self._usage_errors:
            raise pytest.UsageError(self._usage_errors[0])
        return result


def register_reports(session: pytest.Session) -> None:
    """Open the screen; register what only the process with the terminal does."""
    config = session.config
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    register_attachments(config, lambda: get_run(config))
    if is_worker(config):
        _end_with_controller(session)
        config.stash[SCREEN_KEY] = Relay(_worker(config).workerinput[LINES].send)
        return
    config.stash[SCREEN_KEY] = screen = Screen(terminal)
    announce = screen.announce
    if is_controller(config):
        controller = Controller(get_session_id(config), screen.announce)
        announce = controller.say_once
        config.stash[UNHELD_KEY] = controller.unheld
        config.pluginmanager.register(controller, "vlmeval-controller")
        if is_given("model", config):
            _build_environment(config, screen)
    if is_given("serve", config) or is_given("judge-serve", config):
        from pytest_vlmeval.models.server import ServerKeeper

        config.stash[KEEPER_KEY] = keeper = ServerKeeper(
            get_settings(config), get_session_id(config), screen.announce
        )
        keeper.start()
    if is_given("download-only", config) and get_settings(config).download_only:
        if is_controller(config):
            raise pytest.UsageError(
                "--vlm-download-only works in one process: leave -n out, or give -n 0."
            )
        _register_forecast(config, Forecast(names_only=True))
    if config.getoption("--vlm-setup"):
        _register_forecast(config, Forecast(names_only=True))
    elif is_given("model", config):
        from pytest_vlmeval.reports.folding import FoldedFailures
        from pytest_vlmeval.reports.terminal import SessionReport

        failures = FoldedFailures(terminal)
        config.pluginmanager.register(failures, "vlmeval-failures")
        unheld = config.stash.setdefault(UNHELD_KEY, {})
        report = SessionReport(
            terminal,
            screen,
            get_settings(config),
            get_session_id(config),
            announce=announce,
            failures=failures,
            unheld=unheld,
        )
        config.pluginmanager.register(report, "vlmeval-reports")
        if terminal is not None and config.get_verbosity() >= 0:
            config.pluginmanager.register(report.line, "vlmeval-progress")
            report.line.start()


def _build_environment(config: pytest.Config, screen: Screen) -> None:
    """Build the sandbox ahead of the workers, all but one of which would wait."""
    from pytest_vlmeval.datasets.library import Library

    try:
        _ = Library(get_settings(config), screen.announce).environment
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
