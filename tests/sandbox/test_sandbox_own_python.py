"""An interpreter with ms-vlmeval that is there already, and what will not do."""

from __future__ import annotations

import shutil
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path
from zipfile import ZipFile

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.environment import ensure_environment

OWN = (
    "--vlm-sandbox-python=PATH takes a Python 3.11 or newer in whose environment "
    "ms-vlmeval is installed"
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an environment in which a package named ms-vlmeval is installed."""
    folder = tmp_path_factory.mktemp("own")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    information = packages / "ms_vlmeval-0.0.20.dist-info" / "METADATA"
    information.parent.mkdir()
    information.write_text("Metadata-Version: 2.1\nName: ms-vlmeval\nVersion: 0.0.20\n")
    return folder / "bin" / "python"


def test_the_users_own_python_is_used_as_it_is(tmp_path: Path, own: Path) -> None:
    lines: list[str] = []
    environment = ensure_environment(
        tmp_path / "cache", python=own, offline=True, announce=lines.append
    )

    assert environment.python == own
    assert len(environment.fingerprint) == 12
    assert lines == []
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("python", "pattern"),
    [
        (
            sys.executable,
            f"--vlm-sandbox-python={sys.executable}: ms-vlmeval is not installed "
            f"there. {OWN}. Give such a path, or leave the option out, or install it: "
            f"{sys.executable} -m pip install ms-vlmeval",
        ),
        (
            "/nowhere/python",
            "--vlm-sandbox-python=/nowhere/python cannot be run: No such file or "
            f"directory. {OWN}. Give such a path, or leave the option out.",
        ),
        (
            shutil.which("false"),
            "--vlm-sandbox-python=/*/false is not a working Python (exit "
            f"status 1). {OWN}. Give such a path, or leave the option out.",
        ),
    ],
)
def test_an_own_python_that_will_not_do(
    tmp_path: Path, python: str, pattern: str
) -> None:
    with pytest.raises(VlmEvalError) as caught:
        ensure_environment(tmp_path, python=Path(python), offline=False, announce=print)

    assert fnmatchcase(str(caught.value), pattern)


def test_an_own_python_that_is_too_old(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho python 3.9 0.0.20\n")
    python.chmod(0o755)
    with pytest.raises(VlmEvalError) as caught:
        ensure_environment(tmp_path, python=python, offline=False, announce=print)

    assert str(caught.value) == (
        f"--vlm-sandbox-python={python} is Python 3.9. {OWN}. Give such a path, or "
        "leave the option out."
    )


def test_an_own_python_is_given_ms_vlmeval_as_the_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real pip, from a wheel on disk that has nothing but the name."""
    name = "ms_vlmeval-0.0.20"
    with ZipFile(tmp_path / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(
            f"{name}.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: ms-vlmeval\nVersion: 0.0.20\n",
        )
        wheel.writestr(
            f"{name}.dist-info/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    folder = tmp_path / "my environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    with pytest.raises(VlmEvalError) as caught:
        ensure_environment(tmp_path, python=python, offline=False, announce=print)
    command = str(caught.value).partition(", or install it: ")[2]
    assert command.endswith(" -m pip install ms-vlmeval")
    subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True)
    environment = ensure_environment(
        tmp_path, python=python, offline=False, announce=print
    )
    assert environment.python == python


def test_the_running_python_is_used_if_it_has_ms_vlmeval(own: Path) -> None:
    script = (
        "import pathlib, sys\n"
        f"sys.path[:0] = {sys.path!r}\n"
        "from pytest_vlmeval.sandbox.environment import ensure_environment\n"
        "print(ensure_environment(\n"
        "    pathlib.Path('/nowhere'), python=None, offline=True, announce=print\n"
        ").python)\n"
    )
    used = subprocess.check_output(
        [own, "-c", script], text=True, cwd=Path(__file__).parents[2]
    )

    assert used == f"{own}\n"
