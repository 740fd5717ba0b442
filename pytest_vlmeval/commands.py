"""What runs instead of tests: a set-up, a listing, a report of a stored run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable

import pytest

from pytest_vlmeval.errors import VlmEvalError, printable
from pytest_vlmeval.option_values import parse_names
from pytest_vlmeval.options import is_given
from pytest_vlmeval.report_commands import run_compare, run_report, run_runs
from pytest_vlmeval.session import (
    get_settings,
    run_without_workers,
    selects_for_setup,
)

Command = Callable[[pytest.Config, Callable[[str], None]], int]


def find_command(config: pytest.Config) -> Command | None:
    """Return what to run instead of tests, if anything."""
    if config.getoption("--vlm-doctor"):
        return run_doctor
    if config.getoption("--vlm-setup"):
        if not selects_for_setup(config):
            return run_setup
        run_without_workers(config)
        return None
    if config.getoption("--vlm-list") is not None:
        return run_list
    if config.getoption("--vlm-list-models"):
        return run_list_models
    if config.getoption("--vlm-runs"):
        return run_runs
    if config.getoption("--vlm-compare") is not None:
        return run_compare
    if _is_mode_given(config) and get_settings(config).mode == "report":
        return run_report
    return None


def _is_mode_given(config: pytest.Config) -> bool:
    """Look for the mode; the first look at any option is what reads a task file."""
    try:
        return is_given("mode", config)
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None


def run_doctor(config: pytest.Config, write: Callable[[str], None]) -> int:
    """Look at all that a run needs; the `--vlm-doctor` command."""
    from pytest_vlmeval.doctor import examine, from_error, write_findings

    try:
        settings = get_settings(config)
    except pytest.UsageError as error:
        findings = [from_error("options", error)]
    else:
        for remark in settings.remarks:
            write(f"vlmeval: {remark}")
        findings = list(examine(settings))
    colour = sys.stdout.isatty()
    # What goes to a file is not wrapped, so that it can be searched and copied.
    width = shutil.get_terminal_size().columns if colour else 1_000
    for line in write_findings(findings, width, colour=colour):
        write(line)
    troubled = any(finding.state == "trouble" for finding in findings)
    return int(pytest.ExitCode.TESTS_FAILED if troubled else pytest.ExitCode.OK)


def run_setup(config: pytest.Config, write: Callable[[str], None]) -> int:
    """Build the sandbox environment and say where it is; the `--vlm-setup` command.

    Where datasets are selected, a session does, with what they need.
    """
    from pytest_vlmeval.datasets.library import Library

    try:
        (python,) = Library(get_settings(config), write).set_up([])
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
    write(f"sandbox environment ready: {python}")
    return int(pytest.ExitCode.OK)


def run_list(config: pytest.Config, write: Callable[[str], None]) -> int:
    """List the datasets; the `--vlm-list` command."""
    from pytest_vlmeval.datasets.catalog import demo_datasets
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.datasets.listing import Places, list_datasets

    settings = get_settings(config)
    words = parse_names(config.getoption("--vlm-list"))
    try:
        # What is written may be JSON, so anything else goes elsewhere.
        library = Library(settings, _write_aside)
        infos = [*library.catalog.values(), *demo_datasets().values()]
        write(list_datasets(infos, words, Places(settings.data_root, settings.hubs)))
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
    return int(pytest.ExitCode.OK)


def run_list_models(config: pytest.Config, write: Callable[[str], None]) -> int:
    """List the local models; the `--vlm-list-models` command."""
    from pytest_vlmeval.datasets.catalog import locate_package
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.models.local_names import read_models

    settings = get_settings(config)
    try:
        python = Library(settings, _write_aside).environment.python
        models = read_models(locate_package(python, settings.cache_dir).folder)
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
    for name, model in models.items():
        path = model.arguments.get("model_path", "")
        write(f"{name:40} {model.class_name:24} {path}".rstrip())
    return int(pytest.ExitCode.OK)


def _write_aside(line: str) -> None:
    sys.stderr.write(f"{printable(line)}\n")
