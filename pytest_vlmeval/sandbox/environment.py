"""Finds or builds the Python environment of its own in which ms-vlmeval runs.

Each add-on is a file `requirements-NAME.txt` of pins. The environment of a set of
add-ons holds the light one's packages too.

A temporary file or folder is locked by its process as long as that lives; the system
takes the lock away however it ends. So what is locked is in use, and what is not may
go. A name is given only to what is locked already.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.families import FAMILIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vlmeval.records import DatasetInfo

LIGHT = frozenset[str]()
VIDEO = frozenset({"video"})
HUB = frozenset({"hub"})
# By ms-vlmeval's class: what its prompts (documents, words), its data (hub) or its
# scores (texts) need, of classes that can be scored what their families name; all
# videos have one in common.
ADDONS = {
    **{name: family.addons for name, family in FAMILIES.items() if family.addons},
    "MEGABench": VIDEO | HUB | {"cv2"},
    **dict.fromkeys(
        (
            "MMHELIX",
            "QSpatial",
            "RefSpatialBench",
            "SCAM",
            "SGI_Bench_Deep_Research",
            "SGI_Bench_Dry_Experiment",
            "SGI_Bench_Idea_Generation",
            "SGI_Bench_Wet_Experiment",
        ),
        HUB,
    ),
}


def addons_for(info: DatasetInfo) -> frozenset[str]:
    """Name the add-ons that a dataset needs, most often none."""
    own = ADDONS.get(info.class_name, LIGHT)
    return VIDEO | own if info.modality == "video" else own


def read_requirements(addons: frozenset[str]) -> str:
    """Return the pins of the light environment followed by those of the add-ons.

    What several of them need is named once.
    """
    names = ["", *(f"-{name}" for name in sorted(addons))]
    files = [Path(__file__).with_name(f"requirements{name}.txt") for name in names]
    texts = [file.read_text(encoding="utf-8") for file in files]
    return "".join(dict.fromkeys("".join(texts).splitlines(keepends=True)))


def digest_of_all() -> str:
    """Return a short hash that changes with the pins of any add-on."""
    pins = read_requirements(VIDEO.union(*ADDONS.values()))
    return hashlib.sha256(pins.encode()).hexdigest()[:12]


if TYPE_CHECKING:
    Announce = Callable[[str], None]

OLDEST_PYTHON = (3, 11)
SHOWN_LINES = 12
OWN_ENVIRONMENT = (
    "--vlm-sandbox-python=PATH takes a Python 3.11 or newer in whose environment "
    "ms-vlmeval is installed"
)
# Prints the version of Python, then that of ms-vlmeval if it is there; importing
# ms-vlmeval to ask it would take ten seconds.
PROBE = (
    "import sys, importlib.metadata as metadata\n"
    "found = [d.version for d in metadata.distributions(name='ms-vlmeval')]\n"
    "print('python %d.%d' % sys.version_info[:2], *found[:1])"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxEnvironment:
    """An interpreter that can import ms-vlmeval, and a short hash of what it holds."""

    python: Path
    fingerprint: str


class Installer(NamedTuple):
    """One way to make an environment, and its settings for where packages are."""

    name: str
    commands: list[list[str]]
    index_settings: str


def ensure_environment(
    cache_dir: Path,
    *,
    python: Path | None,
    offline: bool,
    announce: Announce,
    addons: frozenset[str] = LIGHT,
) -> SandboxEnvironment:
    """Return the sandbox's environment, building it in `cache_dir` when first needed.

    `python` is the user's own interpreter (`--vlm-sandbox-python`). Without one, the
    running interpreter is used if ms-vlmeval is installed in its environment. Both
    are taken as they are; `addons` names what an environment is built with beyond
    the light one. `announce` gets one line before and one after a build. Raises
    VlmEvalError.
    """
    if python is not None:
        return _probe(python.expanduser().absolute())
    running_version = f"{sys.version_info.major}.{sys.version_info.minor}"
    for distribution in metadata.distributions(name="ms-vlmeval"):
        return SandboxEnvironment(
            python=Path(sys.executable),
            fingerprint=_hash(running_version, distribution.version),
        )
    return ensure_built(
        cache_dir / "sandbox",
        read_requirements(addons),
        offline=offline,
        announce=announce,
    )


def ensure_built(
    root: Path, requirements: str, *, offline: bool, announce: Announce
) -> SandboxEnvironment:
    """Return the environment of these requirements below `root`, building it if absent.

    An environment is there as a whole or not at all; of several processes one
    builds it and the others wait. Raises VlmEvalError.
    """
    platform = f"{sysconfig.get_platform()} {sysconfig.get_config_var('EXT_SUFFIX')}"
    fingerprint = _hash(requirements, platform)
    folder = root / fingerprint
    environment = SandboxEnvironment(
        python=folder / "bin" / "python", fingerprint=fingerprint
    )
    if environment.python.exists():
        return environment
    if offline:
        raise VlmEvalError(
            f"The sandbox environment for ms-vlmeval is not built yet ({folder}), and "
            "--vlm-offline forbids downloading it. Build it once while online by the "
            "same command with --vlm-setup and without --vlm-offline, or give your "
            f"own: {OWN_ENVIRONMENT}."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        waiting = f"Waiting for another process that builds a sandbox in {root}"
        with waiting_lock(root / ".lock", lambda: announce(waiting)):
            if not environment.python.exists():
                _build(folder, requirements, announce)
    except OSError as error:
        raise VlmEvalError(
            f"The sandbox environment for ms-vlmeval could not be built in {root}: "
            f"{error}. That folder must be writable and have 1 GB free. Fix that, or "
            f"give an environment of your own: {OWN_ENVIRONMENT}."
        ) from error
    return environment


def _probe(python: Path) -> SandboxEnvironment:
    option = f"--vlm-sandbox-python={python}"
    advice = f"{OWN_ENVIRONMENT}. Give such a path, or leave the option out"
    try:
        result = subprocess.run(
            [python, "-I", "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
    except OSError as error:
        message = f"{option} cannot be run: {error.strerror}. {advice}."
        raise VlmEvalError(message) from error
    answer = re.fullmatch(r"python (\d+)\.(\d+) ?(\S*)\n", result.stdout)
    if answer is None:
        raise VlmEvalError(
            f"{option} is not a working Python (exit status "
            f"{result.returncode}). {advice}."
        )
    major, minor, version = answer.groups()
    if (int(major), int(minor)) < OLDEST_PYTHON:
        raise VlmEvalError(f"{option} is Python {major}.{minor}. {advice}.")
    if not version:
        raise VlmEvalError(
            f"{option}: ms-vlmeval is not installed there. {advice}, or install it: "
            f"{shlex.quote(str(python))} -m pip install ms-vlmeval"
        )
    return SandboxEnvironment(
        python=python, fingerprint=_hash(f"{major}.{minor}", version)
    )


@contextmanager
def waiting_lock(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold a lock file; `on_wait` is called if another process has it for a second."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        on_wait()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(folder: Path, requirements: str, announce: Announce) -> None:
    """Build the environment beside `folder`, then give it that name."""
    # A build killed at once leaves its folder, and perhaps an installer that still
    # writes into it: so each build has a folder of its own, and sweeps up others'.
    for leftover in (*folder.parent.glob("building-*"), folder):
        shutil.rmtree(leftover, ignore_errors=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(
        prefix="building-", dir=folder.parent, ignore_cleanup_errors=True
    ) as workplace:
        # Only its interpreter is ever called, by its path; that survives the renaming.
        building = Path(workplace, "environment")
        pins = Path(workplace, "requirements.txt")
        pins.write_text(requirements, encoding="utf-8")
        installer = _find_installer(building, pins)
        announce(
            f"Building the sandbox environment for ms-vlmeval in {folder} with "
            f"{installer.name}: once, about a minute"
        )
        for command in installer.commands:
            _run(command, installer)
        building.rename(folder)
    size_mb = sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6
    announce(
        f"Built the sandbox environment in {time.monotonic() - started:.0f} s "
        f"({size_mb:.0f} MB)"
    )


def _find_installer(building: Path, pins: Path) -> Installer:
    python = str(building / "bin" / "python")
    install = ["install", "--no-deps", "--requirement", str(pins)]
    if uv := shutil.which("uv"):
        commands = [
            [uv, "venv", "--no-project", "--python", sys.executable, str(building)],
            [uv, "pip", *install, "--python", python, "--compile-bytecode"],
        ]
        return Installer("uv", commands, "UV_DEFAULT_INDEX or UV_FIND_LINKS")
    # Isolated (-I), because a PYTHONPATH would make pip take foreign packages for
    # installed ones; the user's settings of pip itself still hold.
    commands = [
        [sys.executable, "-I", "-m", "venv", str(building)],
        [python, "-I", "-m", "pip", *install, "--no-input", "--progress-bar=off"],
    ]
    return Installer("pip", commands, "PIP_INDEX_URL or PIP_FIND_LINKS")


def _run(command: list[str], installer: Installer) -> None:
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    ) as process:
        try:
            output, _ = process.communicate()
        except BaseException:
            # Installers start further processes; none may write after the clean-up.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode == 0:
        return
    # An index may be set with a password in its address.
    output = re.sub(r"://[^/\s]+@", "://***@", output)
    last_lines = "".join(f"\n  {line}" for line in output.splitlines()[-SHOWN_LINES:])
    raise VlmEvalError(
        "The sandbox environment for ms-vlmeval could not be built. This command "
        f"failed (exit status {process.returncode}):\n  {shlex.join(command)}\n"
        f"Its last lines:{last_lines}\n"
        "Nothing of it is left. While online, run the same again, or the same with "
        "--vlm-setup, which builds it alone. While offline, set "
        f"{installer.index_settings} to where the packages are, or give an environment "
        f"of your own: {OWN_ENVIRONMENT}."
    )


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


# What is on its way to its name; empty, and there for less than a millisecond.
UNNAMED = ".vlmeval-new-"


class HeldFolder:
    """A temporary folder of this process, removed when it is closed."""

    def __init__(self, prefix: str, parent: Path | None = None) -> None:
        """Make the folder below `parent`, after removing those that nobody holds."""
        parent = parent or Path(tempfile.gettempdir())
        sweep(parent, f"{glob.escape(prefix)}*")
        unnamed = Path(tempfile.mkdtemp(prefix=UNNAMED, dir=parent))
        self._lock: int | None = _lock(unnamed)
        self.path = parent / f"{prefix}{secrets.token_hex(6)}"
        unnamed.rename(self.path)

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Path:
        """Return its path."""
        return self.path

    def __exit__(self, *_failure: object) -> None:
        self.close()


def write_held(path: Path, content: bytes, *, mode: int | None = None) -> None:
    """Write a file so that a reader sees the one before or all of the new one.

    What killed processes left of theirs is removed. Raises OSError.
    """
    prefix = f".{path.name}."
    sweep(path.parent, f"{glob.escape(prefix)}*.new")
    number, name = tempfile.mkstemp(prefix=UNNAMED, dir=path.parent)
    part = Path(name)
    try:
        with os.fdopen(number, "wb") as file:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part = part.rename(path.with_name(f"{prefix}{secrets.token_hex(4)}.new"))
            file.write(content)
            file.flush()
            if mode is not None:
                os.fchmod(number, mode)
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sweep(folder: Path, pattern: str) -> None:
    """Remove the files and folders of this pattern that no living process holds."""
    with suppress(OSError):
        for path in list(folder.glob(pattern)):
            remove_abandoned(path)


def remove_abandoned(path: Path) -> bool:
    """Remove a file or folder that no living process holds; whether it is gone."""
    if path.is_symlink() or not path.exists() or path.stat().st_uid != os.getuid():
        return False
    lock = _lock(path)
    if lock is None:
        return False
    try:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    finally:
        os.close(lock)
    return not path.exists()


def _lock(path: Path) -> int | None:
    """Lock a file or folder for this process; None if another one has it."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number
