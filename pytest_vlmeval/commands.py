"""What runs instead of tests: a set-up, a listing, a report of a stored run."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.option_values import parse_names
from pytest_vlmeval.options import is_given
from pytest_vlmeval.report_commands import run_compare, run_report, run_runs
from pytest_vlmeval.session import build_environment, get_settings

Command = Callable[[pytest.Config, Callable[[str], None]], int]


def find_command(config: pytest.Config) -> Command | None:
    """Return what to run instead of tests, if anything."""
    if config.getoption("--vlm-setup"):
        return run_setup
    if config.getoption("--vlm-list") is not None:
        return run_list
    if config.getoption("--vlm-list-models"):
        return run_list_models
    if config.getoption("--vlm-runs"):
        return run_runs
    if config.getoption("--vlm-compare") is not None:
        return run_compare
    if is_given("mode", config) and get_settings(config).mode == "report":
        return run_report
    return None


def run_setup(config: pytest.Config, write: Callable[[str], None]) -> int:
    """Build the sandbox environment and say where it is; the `--vlm-setup` command."""
    write(f"sandbox environment ready: {build_environment(config, write)}")
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
    sys.stderr.write(f"{line}\n")
