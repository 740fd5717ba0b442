"""What several test modules share: one sandbox of a kind for the whole session."""

from __future__ import annotations

import functools
import importlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.sandbox.environment import ADDONS
from pytest_vlmeval.sandbox.process import Sandbox
from tests.support.run_fixtures import environment_with

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

# pytester forgets what a test imported, and pyarrow refuses to have these registered by
# a second import: a worker's first use must not be in one of its tests.
importlib.import_module("pandas.core.arrays.arrow.extension_types")

# Fixtures of sessions of pytest, of servers and of sandboxes.
STARTING = {"pytester", "sandbox_environment", "vlm_server", "_vlm_server_process"}


def pytest_configure() -> None:
    """Let what tests start keep its bytecode, buffer its output, and hear Ctrl-C.

    They start hundreds of processes, each of which would compile all it imports. The
    order of lines shall not depend on a variable of who runs the tests. A shell's
    background job ignores Ctrl-C.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ.pop("PYTHONUNBUFFERED", None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let tests write the parts of the documentation that they find out."""
    parser.addoption(
        "--units", action="store_true", help="only tests that start no process"
    )
    parser.addoption("--write-docs", action="store_true", help="write them anew")
    parser.addoption(
        "--screenshots",
        default="build/screenshots",
        metavar="DIR",
        help="where the tests of reports keep what the browser showed",
    )


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Leave out what starts processes, where only the others are asked for."""
    if not config.getoption("--units"):
        return
    left = [item for item in items if STARTING & set(getattr(item, "fixturenames", ()))]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in set(left)]


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Give what adds a measured figure to the end of the output, also with xdist."""
    return functools.partial(record_property, "figure")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured, each figure below its test."""
    figures = [
        (report.nodeid, value)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call"
        for name, value in report.user_properties
        if name == "figure"
    ]
    if not figures:
        return
    terminalreporter.section("figures")
    for nodeid, value in sorted(figures):
        terminalreporter.write_line(f"{nodeid}\n    {value}")


@pytest.fixture(scope="session")
def sandbox(sandbox_environment: SandboxEnvironment) -> Iterator[Sandbox]:
    """Give a sandbox with the real ms-vlmeval, ended after the last test."""
    sandbox = Sandbox(sandbox_environment.python)
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="session")
def sandbox_of(sandbox: Sandbox) -> Iterator[Callable[[str], Sandbox]]:
    """Give what finds the sandbox for a class of ms-vlmeval, with its add-ons."""
    own: dict[str, Sandbox] = {}

    def find(class_name: str) -> Sandbox:
        if class_name not in ADDONS:
            return sandbox
        if class_name not in own:
            environment = environment_with(ADDONS[class_name])
            own[class_name] = Sandbox(environment.python)
        return own[class_name]

    yield find
    for each in own.values():
        each.close()
