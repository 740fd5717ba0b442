"""What the command line takes instead of tests, beside the options of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# What runs instead of tests: on the command line only, and not a setting of a run.
COMMANDS: dict[str, str] = {
    "--vlm-list-models": "list ms-vlmeval's models for --vlm-backend=local, then stop",
    "--vlm-doctor": "look at all that a run with these options needs (endpoint, judge, "
    "folders, GPU, sandbox, store), say what to mend, then stop",
    "--vlm-setup": "build the sandbox environment ahead of the first run, anew where "
    "it does not work, with what the datasets of the given paths or of --vlm-data "
    "need, then stop",
    "--vlm-list": "list the datasets, then stop; only those that all the WORDS "
    "(separated by commas) are part of the name, family, kind or modality of; "
    "the word json prints JSON",
    "--vlm-runs": "list the runs in the store, newest first, then stop",
    "--vlm-compare": "compare run B with run A, sample by sample, then stop; with "
    "--vlm-report or --vlm-export also write it",
}


def add_commands(group: pytest.OptionGroup) -> None:
    """Declare what runs instead of tests."""
    group.addoption("--vlm-doctor", action="store_true", help=COMMANDS["--vlm-doctor"])
    group.addoption("--vlm-setup", action="store_true", help=COMMANDS["--vlm-setup"])
    group.addoption(
        "--vlm-list",
        nargs="?",
        const="",
        default=None,
        metavar="WORDS",
        help=COMMANDS["--vlm-list"],
    )
    group.addoption(
        "--vlm-list-models",
        action="store_true",
        help=COMMANDS["--vlm-list-models"],
    )
    group.addoption("--vlm-runs", action="store_true", help=COMMANDS["--vlm-runs"])
    group.addoption(
        "--vlm-compare", nargs=2, metavar=("A", "B"), help=COMMANDS["--vlm-compare"]
    )
