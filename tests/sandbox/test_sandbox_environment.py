"""Builds of the sandbox's environment, by the real pip and uv, from a wheel on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.environment import SandboxEnvironment, ensure_built

if TYPE_CHECKING:
    from collections.abc import Iterator

# That of the project's own environment, which is not on PATH.
SCRIPTS = sysconfig.get_path("scripts")
PINS = "tiny-wheel==1.0\n"
OWN = (
    "--vlm-sandbox-python=PATH takes a Python 3.11 or newer in whose environment "
    "ms-vlmeval is installed"
)


def write_wheel(folder: Path) -> None:
    """Write tiny-wheel 1.0, one module that says its version."""
    information = "tiny_wheel-1.0.dist-info"
    with ZipFile(folder / "tiny_wheel-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_wheel.py", "version = '1.0'\n")
        wheel.writestr(
            f"{information}/METADATA",
            "Metadata-Version: 2.1\nName: tiny-wheel\nVersion: 1.0\n",
        )
        wheel.writestr(
            f"{information}/WHEEL",
            "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{information}/RECORD", "")


@pytest.fixture(scope="module", autouse=True)
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let the installers find one wheel on disk and nothing else, and hide uv."""
    folder = tmp_path_factory.mktemp("index")
    write_wheel(folder)
    path = os.environ["PATH"].split(os.pathsep)
    settings = {
        "PATH": os.pathsep.join(part for part in path if not Path(part, "uv").exists()),
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_FIND_LINKS": str(folder),
        "PIP_NO_INDEX": "1",
        "UV_FIND_LINKS": str(folder),
        "UV_NO_CONFIG": "1",
        "UV_NO_INDEX": "1",
    }
    with pytest.MonkeyPatch.context() as monkeypatch:
        for variable in list(os.environ):
            if variable.startswith(("PIP_", "UV_")):
                monkeypatch.delenv(variable)
        for variable, value in settings.items():
            monkeypatch.setenv(variable, value)
        yield


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, index: None
) -> tuple[Path, SandboxEnvironment, list[str]]:
    root = tmp_path_factory.mktemp("built") / "cache" / "sandbox"
    return root, *build(root)


def build(
    root: Path, pins: str = PINS, *, offline: bool = False
) -> tuple[SandboxEnvironment, list[str]]:
    lines: list[str] = []
    environment = ensure_built(root, pins, offline=offline, announce=lines.append)
    return environment, lines


def start_build(root: Path, pins: str = PINS) -> subprocess.Popen[str]:
    """Build in a process of its own, which prints what it announces."""
    script = (
        "import sys, pathlib\n"
        "from pytest_vlmeval.sandbox.environment import ensure_built\n"
        "root, pins = sys.argv[1:]\n"
        "ensure_built(pathlib.Path(root), pins, offline=False, announce=print)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, root, pins],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def interrupt_build(root: Path, how: signal.Signals) -> None:
    """Start a build and stop it in the middle."""
    builder = start_build(root)
    deadline = time.monotonic() + 60
    while not list(root.glob("building-*/environment/bin/python")):
        assert time.monotonic() < deadline
        assert builder.poll() is None
        time.sleep(0.01)
    builder.send_signal(how)
    builder.communicate(timeout=60)
    assert builder.returncode != 0


def imported_version(environment: SandboxEnvironment) -> str:
    return subprocess.check_output(
        [
            environment.python,
            "-I",
            "-c",
            "import tiny_wheel; print(tiny_wheel.version)",
        ],
        text=True,
    ).strip()


def content(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name != ".lock")


def check_text(text: str, pattern: str) -> None:
    """Compare line by line, `*` standing for paths and an installer's own wording."""
    lines, patterns = text.splitlines(), pattern.splitlines()
    assert len(lines) == len(patterns), text
    for line, line_pattern in zip(lines, patterns, strict=True):
        assert fnmatchcase(line, line_pattern), f"{line}\nis not\n{line_pattern}"


def test_builds_once_then_starts_at_once(
    built: tuple[Path, SandboxEnvironment, list[str]],
) -> None:
    root, environment, lines = built

    assert imported_version(environment) == "1.0"
    assert environment.python == root / environment.fingerprint / "bin" / "python"
    assert content(root) == [environment.fingerprint]
    check_text(
        "\n".join(lines),
        f"Building the sandbox environment for ms-vlmeval in "
        f"{root / environment.fingerprint} with pip: once, about a minute\n"
        "Built the sandbox environment in * s (* MB)",
    )

    assert build(root, offline=True) == (environment, [])
    with pytest.raises(VlmEvalError, match="is not built yet"):
        build(root, "tiny-wheel==1.1\n", offline=True)


def test_uv_builds_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = os.pathsep.join([os.environ["PATH"], SCRIPTS])
    monkeypatch.setenv("PATH", path)
    environment, lines = build(tmp_path)

    assert "with uv: once, about a minute" in lines[0]
    assert imported_version(environment) == "1.0"
    assert list(environment.python.parent.parent.rglob("tiny_wheel.*.pyc"))
    assert content(tmp_path) == [environment.fingerprint]
    with pytest.raises(VlmEvalError, match="set UV_DEFAULT_INDEX or UV_FIND_LINKS to"):
        build(tmp_path, "no-such-wheel==3.0\n")
    assert content(tmp_path) == [environment.fingerprint]


def test_of_two_processes_one_builds_and_one_waits(tmp_path: Path) -> None:
    builders = [start_build(tmp_path) for _ in range(2)]
    outputs = [builder.communicate(timeout=120)[0] for builder in builders]

    assert [builder.returncode for builder in builders] == [0, 0]
    built, waited = sorted(outputs, key=len, reverse=True)
    assert built.startswith("Building the sandbox environment")
    assert waited in (
        "",  # the other one was done within the second
        f"Waiting for another process that builds a sandbox in {tmp_path}\n",
    )
    assert len(content(tmp_path)) == 1


def test_a_killed_build_is_built_again(tmp_path: Path) -> None:
    interrupt_build(tmp_path, signal.SIGKILL)
    (leftover,) = content(tmp_path)
    assert leftover.startswith("building-")

    environment, lines = build(tmp_path)

    assert len(lines) == 2
    assert imported_version(environment) == "1.0"
    assert content(tmp_path) == [environment.fingerprint]


def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    interrupt_build(tmp_path, signal.SIGINT)

    assert content(tmp_path) == []


def test_an_environment_whose_python_is_gone_is_built_again(
    built: tuple[Path, SandboxEnvironment, list[str]],
) -> None:
    root, environment, _ = built
    environment.python.unlink()

    assert build(root)[0] == environment
    assert imported_version(environment) == "1.0"


def test_a_failing_pin_leaves_nothing_and_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(VlmEvalError) as caught:
        build(tmp_path, "tiny-wheel==1.0\nno-such-wheel==3.0\n")

    text = str(caught.value)
    head, tail = text.split("Its last lines:\n")
    check_text(
        head,
        "The sandbox environment for ms-vlmeval could not be built. This command "
        "failed (exit status 1):\n"
        f"  {tmp_path}/building-*/environment/bin/python -I -m pip install --no-deps "
        f"--requirement {tmp_path}/building-*/requirements.txt --no-input "
        "--progress-bar=off",
    )
    assert "ERROR: No matching distribution found for no-such-wheel==3.0" in tail
    assert "secret" not in text
    assert tail.splitlines()[-1] == (
        "Nothing of it is left. While online, run the same again, or the same with "
        "--vlm-setup, which builds it alone. While offline, set PIP_INDEX_URL or "
        "PIP_FIND_LINKS to where the packages are, or give an environment of your own: "
        f"{OWN}."
    )
    assert content(tmp_path) == []


def test_offline_nothing_is_tried(tmp_path: Path) -> None:
    with pytest.raises(VlmEvalError) as caught:
        build(tmp_path / "sandbox", offline=True)

    check_text(
        str(caught.value),
        f"The sandbox environment for ms-vlmeval is not built yet "
        f"({tmp_path}/sandbox/*), and --vlm-offline forbids downloading it. Build it "
        "once while online by the same command with --vlm-setup and without "
        f"--vlm-offline, or give your own: {OWN}.",
    )
    assert content(tmp_path) == []


def test_a_cache_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "sandbox").write_text("a file where a folder belongs")
    with pytest.raises(VlmEvalError) as caught:
        build(tmp_path / "sandbox")

    check_text(
        str(caught.value),
        f"The sandbox environment for ms-vlmeval could not be built in {tmp_path}"
        "/sandbox: *File exists*. That folder must be writable and have 1 GB free. "
        f"Fix that, or give an environment of your own: {OWN}.",
    )
