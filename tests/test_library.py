"""The sandboxes of a library: one for most datasets, others with add-ons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.library import Library
from pytest_vlmeval.options import load_settings
from pytest_vlmeval.sandbox.addons import digest_of_all
from pytest_vlmeval.sandbox.calls import describe_sandbox
from tests.run_fixtures import CACHE_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

    Open = Callable[[str], Library]


@pytest.fixture
def open_library(pytester: pytest.Pytester) -> Iterator[Open]:
    """Give what opens a library with one more argument, closed after the test."""
    opened: list[Library] = []

    def open_library(argument: str) -> Library:
        settings = load_settings(pytester.parseconfig(argument), {})
        opened.append(Library(settings, lambda line: None))
        return opened[-1]

    yield open_library
    for library in opened:
        library.close()


def test_ones_own_python_serves_every_dataset(
    open_library: Open, sandbox_environment: SandboxEnvironment
) -> None:
    library = open_library(f"--vlm-sandbox-python={sandbox_environment.python}")
    assert library.sandbox_for("COCO_VAL") is library.sandbox_for("MMStar")
    assert digest_of_all() in library.scorer


@pytest.mark.addons
def test_a_dataset_with_an_add_on_has_a_sandbox_of_its_own(
    open_library: Open,
) -> None:
    library = open_library(f"--vlm-cache-dir={CACHE_DIR}")
    light, captions = library.sandbox_for("MMStar"), library.sandbox_for("COCO_VAL")
    assert light is library.sandbox_for("DemoChoice")
    assert captions is not light
    assert describe_sandbox(captions) == describe_sandbox(light)
