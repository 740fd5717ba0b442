"""The sandboxes of a library: one for most datasets, others with add-ons."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.library import Library
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import VLMEVALKIT_COMMIT
from pytest_vlmeval.sandbox.calls import describe_sandbox
from pytest_vlmeval.sandbox.environment import digest_of_all
from pytest_vlmeval.settings import load_from
from pytest_vlmeval.settings.sources import pytest_sources
from tests.support.run_fixtures import CACHE_DIR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pytest_vlmeval.sandbox.environment import SandboxEnvironment

    Open = Callable[..., Library]


@pytest.fixture
def open_library(pytester: pytest.Pytester) -> Iterator[Open]:
    """Give what opens a library with more arguments, closed after the test."""
    opened: list[Library] = []

    def open_library(*arguments: str) -> Library:
        settings = load_from(pytest_sources(pytester.parseconfig(*arguments), {}))
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


def test_vlmevalkits_scoring_wants_the_ms_vlmeval_that_it_is_made_of(
    open_library: Open, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    python = sandbox_environment.python
    library = open_library_of(open_library, python)
    assert library.scorer.endswith(f":vlmevalkit@{VLMEVALKIT_COMMIT[:12]}")
    # An environment in which ms-vlmeval is of another version.
    folder = tmp_path / "other"
    command = [str(python), "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "vlmeval" / "dataset").mkdir(parents=True)
    for name in ("__init__.py", "dataset/__init__.py"):
        (packages / "vlmeval" / name).touch()
    metadata = packages / "ms_vlmeval-0.0.21.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text("Metadata-Version: 2.1\nName: ms-vlmeval\nVersion: 0.0.21\n")
    other = folder / "bin" / "python"
    with pytest.raises(VlmEvalError) as caught:
        _ = open_library_of(open_library, other).scorer
    assert str(caught.value) == (
        "--vlm-scoring=vlmevalkit is known for ms-vlmeval 0.0.20 only, and "
        f"{other} has 0.0.21. Leave out --vlm-sandbox-python, install that version "
        "there, or give --vlm-scoring=published."
    )
    published = open_library(f"--vlm-sandbox-python={other}")
    assert published.scorer.endswith(":default")


def open_library_of(open_library: Open, python: Path) -> Library:
    """Open a library that scores as VLMEvalKit does, in an environment."""
    return open_library(f"--vlm-sandbox-python={python}", "--vlm-scoring=vlmevalkit")


@pytest.mark.addons
def test_a_dataset_with_an_add_on_has_a_sandbox_of_its_own(
    open_library: Open,
) -> None:
    library = open_library(f"--vlm-cache-dir={CACHE_DIR}")
    light, captions = library.sandbox_for("MMStar"), library.sandbox_for("COCO_VAL")
    assert light is library.sandbox_for("DemoChoice")
    assert captions is not light
    assert describe_sandbox(captions) == describe_sandbox(light)
