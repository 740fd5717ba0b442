"""Where ms-vlmeval is found, and what is remembered of its datasets."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.catalog import load_catalog, locate_package
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.environment import ensure_environment
from tests.support.sandbox_tables import extended_environment

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.catalog import VlmevalPackage
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment


@pytest.fixture(scope="module")
def package(sandbox_environment: SandboxEnvironment) -> VlmevalPackage:
    """Give the place of ms-vlmeval in the sandbox's environment."""
    return locate_package(sandbox_environment.python)


@pytest.fixture(scope="module")
def other(
    package: VlmevalPackage,
    sandbox_environment: SandboxEnvironment,
    tmp_path_factory: pytest.TempPathFactory,
) -> SandboxEnvironment:
    """Give an environment of the user's own with another version of ms-vlmeval."""
    folder = tmp_path_factory.mktemp("other")
    extended_environment(sandbox_environment, folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    shutil.copytree(
        package.folder,
        packages / "vlmeval",
        ignore=lambda place, names: [
            name
            for name in names
            if not name.endswith(".py") and not Path(place, name).is_dir()
        ],
    )
    module = packages / "vlmeval" / "dataset" / "image_yorn.py"
    module.write_text(module.read_text().replace("'POPE':", "'POPE2':"))
    information = packages / "ms_vlmeval-0.0.21.dist-info" / "METADATA"
    information.parent.mkdir()
    information.write_text("Metadata-Version: 2.1\nName: ms-vlmeval\nVersion: 0.0.21\n")
    return ensure_environment(
        folder, python=folder / "bin" / "python", offline=True, announce=print
    )


def test_the_pinned_version_is_not_asked(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    start = time.process_time()
    catalog = load_catalog(sandbox_environment, tmp_path)
    assert time.process_time() - start < 0.5
    assert {"POPE", "MMStar", "Video-MME"} <= set(catalog)
    assert not list(tmp_path.iterdir())


def test_another_version_is_asked_once(
    other: SandboxEnvironment, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    pinned = load_catalog(sandbox_environment, tmp_path)
    start = time.monotonic()
    first = load_catalog(other, tmp_path)
    reading_s = time.monotonic() - start
    assert set(first) - set(pinned) == {"POPE2"}
    assert set(pinned) - set(first) == {"POPE"}
    assert all(first[name] == pinned[name] for name in set(first) - {"POPE2"})
    start = time.monotonic()
    assert load_catalog(other, tmp_path) == first
    assert time.monotonic() - start < reading_s / 3
    (memory,) = (tmp_path / "catalog").iterdir()
    memory.write_text("{broken")
    assert load_catalog(other, tmp_path) == first
    assert json.loads(memory.read_text())
    # As an editable one is changed, whose version stays the same.
    listing = locate_package(other.python).folder / "dataset" / "__init__.py"
    os.utime(listing, ns=(1, 1))
    assert load_catalog(other, tmp_path) == first
    assert len(list((tmp_path / "catalog").iterdir())) == 2


def test_a_cache_that_cannot_be_written_does_no_harm(
    other: SandboxEnvironment, tmp_path: Path
) -> None:
    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    assert "MMStar" in load_catalog(other, not_a_folder)


def test_another_version_that_cannot_be_listed_is_an_error(
    other: SandboxEnvironment, tmp_path: Path
) -> None:
    listing = locate_package(other.python).folder / "dataset" / "__init__.py"
    text = listing.read_text()
    listing.write_text(f"raise ValueError('too new')\n{text}")
    try:
        with pytest.raises(VlmEvalError, match="ValueError: too new"):
            load_catalog(other, tmp_path)
    finally:
        listing.write_text(text)
    assert not (tmp_path / "catalog").exists()


def test_the_package_is_found_without_starting_python(
    package: VlmevalPackage, sandbox_environment: SandboxEnvironment
) -> None:
    assert (package.folder / "dataset" / "__init__.py").is_file()
    assert package.folder.is_relative_to(sandbox_environment.python.parent.parent)
    assert package.version[0].isdigit()


def test_a_python_elsewhere_is_asked_once(
    package: VlmevalPackage, sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    count = tmp_path / "starts"
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\necho >> {count}\nexec {sandbox_environment.python} "$@"\n'
    )
    python.chmod(0o755)
    assert locate_package(python, tmp_path) == package
    assert locate_package(python, tmp_path) == package
    assert len(count.read_text().splitlines()) == 1


def test_an_environment_without_ms_vlmeval(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        locate_package(Path(sys.executable), tmp_path)
    text = str(caught.value)
    assert text.startswith(
        f"ms-vlmeval is not in the environment of {sys.executable}: "
        "importlib.metadata.PackageNotFoundError"
    )
    assert text.endswith(
        "--vlm-setup builds an environment that has it, --vlm-sandbox-python takes "
        "another one."
    )
    # The one that --vlm-setup builds; and nothing of the failure is remembered.
    assert locate_package(sandbox_environment.python, tmp_path).version
