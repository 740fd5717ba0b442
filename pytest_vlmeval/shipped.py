"""The suite that comes with the plugin, where a task file is given and no path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.options import is_given

# Part of the wheel; a checkout has it beside the package, and takes its path.
SUITE = Path(__file__).parent / "benchmarks"


def take_suite(config: pytest.Config, write: Callable[[str], None]) -> None:
    """Let a task file without a path run in the suite, as its datasets are there.

    What lies in the current folder then is not looked at, which is said.
    """
    try:
        given = is_given("config", config) and is_given("data", config)
    except VlmEvalError as error:
        raise pytest.UsageError(str(error)) from None
    if (
        given
        and SUITE.is_dir()
        and config.args_source is pytest.Config.ArgsSource.INVOCATION_DIR
    ):
        config.args = [str(SUITE)]
        write(
            f"vlmeval: no path is given, so the datasets of the task run in {SUITE}; "
            "name a path for tests of your own"
        )
