"""What the command line takes instead of tests, beside the options of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.option_table import COMMANDS

if TYPE_CHECKING:
    import pytest


def add_commands(group: pytest.OptionGroup) -> None:
    """Declare what runs instead of tests."""
    group.addoption("--vlm-setup", action="store_true", help=COMMANDS["--vlm-setup"])
    group.addoption(
        "--vlm-list",
        nargs="?",
        const="",
        default=None,
        metavar="WORDS",
        help=COMMANDS["--vlm-list"],
    )
    group.addoption("--vlm-runs", action="store_true", help=COMMANDS["--vlm-runs"])
    group.addoption(
        "--vlm-compare", nargs=2, metavar=("A", "B"), help=COMMANDS["--vlm-compare"]
    )
