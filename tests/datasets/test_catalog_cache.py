"""Where ms-vlmeval's sources are found, and what is remembered of reading them."""

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

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.catalog import VlmevalPackage
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment


@pytest.fixture(scope="module")
def package(sandbox_environment: SandboxEnvironment) -> VlmevalPackage:
    """Give the place of ms-vlmeval in the sandbox's environment."""
    return locate_package(sandbox_environment.python)


def test_a_second_reading_comes_from_the_cache(
    package: VlmevalPackage, tmp_path: Path
) -> None:
    start = time.process_time()
    first = load_catalog(package.folder, tmp_path)
    reading_s = time.process_time() - start
    start = time.process_time()
    assert load_catalog(package.folder, tmp_path) == first
    assert time.process_time() - start < reading_s / 3
    (memory,) = (tmp_path / "catalog").iterdir()
    memory.write_text("{broken")
    assert load_catalog(package.folder, tmp_path) == first
    assert json.loads(memory.read_text())


def test_another_version_is_read_anew(package: VlmevalPackage, tmp_path: Path) -> None:
    folder = tmp_path / "vlmeval"
    shutil.copytree(
        package.folder / "dataset",
        folder / "dataset",
        ignore=lambda _, names: [n for n in names if not n.endswith(".py")],
    )
    names = load_catalog(folder, tmp_path)
    module = folder / "dataset" / "image_yorn.py"
    module.write_text(module.read_text().replace("'POPE':", "'POPE2':"))
    listing = folder / "dataset" / "__init__.py"
    os.utime(listing, ns=(1, 1))
    assert "POPE2" not in names
    assert "POPE2" in load_catalog(folder, tmp_path)


def test_a_cache_that_cannot_be_written_does_no_harm(
    package: VlmevalPackage, tmp_path: Path
) -> None:
    not_a_folder = tmp_path / "file"
    not_a_folder.touch()
    assert "MMStar" in load_catalog(package.folder, not_a_folder)


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
