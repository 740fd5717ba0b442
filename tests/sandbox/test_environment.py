"""The sandbox's environment: its pins, one that is there already, and its builds."""

from __future__ import annotations

import os
import shutil
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
from pytest_vlmeval.sandbox.environment import (
    ADDONS,
    LIGHT,
    VIDEO,
    SandboxEnvironment,
    ensure_built,
    ensure_environment,
    read_requirements,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ENVIRONMENTS: set[frozenset[str]] = {LIGHT, VIDEO, *ADDONS.values()}


# Sorted, as every process of xdist has to collect the same names.
@pytest.mark.parametrize(
    "names", sorted("-".join(sorted(names)) for names in ENVIRONMENTS)
)
def test_every_pin_is_one_exact_version(names: str) -> None:
    addons = frozenset(filter(None, names.split("-")))
    pins = [
        line.partition(";")[0]
        for line in read_requirements(addons).splitlines()
        if not line.startswith("#")
    ]

    assert "ms-vlmeval==0.0.20" in pins
    assert all(pin.count("==") == 1 and " " not in pin for pin in pins)
    packages = [pin.partition("==")[0].lower() for pin in pins]
    assert len(set(packages)) == len(packages)
    assert not {"torch", "pip"} & set(packages)
    # What the sandbox hands over is Parquet, as are tables of hubs.
    assert "pyarrow" in packages


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


# That of the project's own environment, which is not on PATH.
SCRIPTS = sysconfig.get_path("scripts")
PINS = "tiny-wheel==1.0\n"


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


# What this sets holds until the end of the module: the tests of builds stand last.
@pytest.fixture(scope="module")
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


@pytest.mark.usefixtures("index")
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


@pytest.mark.usefixtures("index")
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


@pytest.mark.usefixtures("index")
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


@pytest.mark.usefixtures("index")
def test_a_killed_build_is_built_again(tmp_path: Path) -> None:
    interrupt_build(tmp_path, signal.SIGKILL)
    (leftover,) = content(tmp_path)
    assert leftover.startswith("building-")

    environment, lines = build(tmp_path)

    assert len(lines) == 2
    assert imported_version(environment) == "1.0"
    assert content(tmp_path) == [environment.fingerprint]


@pytest.mark.usefixtures("index")
def test_ctrl_c_leaves_nothing(tmp_path: Path) -> None:
    interrupt_build(tmp_path, signal.SIGINT)

    assert content(tmp_path) == []


@pytest.mark.usefixtures("index")
def test_an_environment_whose_python_is_gone_is_built_again(
    built: tuple[Path, SandboxEnvironment, list[str]],
) -> None:
    root, environment, _ = built
    environment.python.unlink()

    assert build(root)[0] == environment
    assert imported_version(environment) == "1.0"


@pytest.mark.usefixtures("index")
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


@pytest.mark.usefixtures("index")
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


@pytest.mark.usefixtures("index")
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
