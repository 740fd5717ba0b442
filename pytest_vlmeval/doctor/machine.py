"""What the doctor looks at on this machine: versions, folders, GPU, sandbox, store."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.doctor.finding import Finding, from_error
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.devices import find_devices
from pytest_vlmeval.sandbox.calls import describe_sandbox
from pytest_vlmeval.sandbox.environment import ensure_environment
from pytest_vlmeval.sandbox.process import Sandbox, SandboxFault
from pytest_vlmeval.store import Store
from pytest_vlmeval.store.location import Location

if TYPE_CHECKING:
    from pytest_vlmeval.options import Settings

# What a first run takes: the sandbox 0.4 GB, its download as much, and a dataset.
LEAST_BYTES = 1_000_000_000
SETUP = "pytest --vlm-setup"


def find_versions() -> Finding:
    """Name the versions that matter in a report of a fault."""
    names = ("pytest-vlmeval", "pytest", "openai", "pandas")
    found = ", ".join(f"{name} {version(name)}" for name in names)
    text = f"Python {platform.python_version()}, {found}"
    return Finding(about="versions", state="ok", text=text)


def find_folders(settings: Settings) -> Iterator[Finding]:
    """Look whether each folder can be written, and has room."""
    folders = {
        "data root": settings.data_root,
        "cache": settings.cache_dir,
        "work dir": settings.work_dir,
    }
    remedies = {
        "data root": "point LMUData at another folder",
        "cache": "give another by --vlm-cache-dir",
        "work dir": "give another by --vlm-work-dir",
    }
    for about, folder in folders.items():
        yield _look_at_folder(about, folder, remedies[about])


def _look_at_folder(about: str, folder: Path, remedy: str) -> Finding:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            about=about,
            state="trouble",
            text=f"{folder} cannot be written",
            remedy=f"Make {there} a folder that you may write to, or {remedy}.",
        )
    free = shutil.disk_usage(there).free
    made = "" if folder.exists() else ", made when first needed"
    text = f"{folder}{made}, {free / 1e9:.1f} GB free"
    if free < LEAST_BYTES:
        return Finding(
            about=about,
            state="trouble",
            text=text,
            remedy=f"A first run takes {LEAST_BYTES / 1e9:.0f} GB: free some, or "
            f"{remedy}.",
        )
    return Finding(about=about, state="ok", text=text)


def find_gpus(settings: Settings) -> Finding:
    """Name the GPUs; they matter only to models that run on this machine."""
    devices = find_devices(settings.local.visible_devices)
    if devices:
        text = f"{len(devices)} ({', '.join(devices)})"
        return Finding(about="GPU", state="ok", text=text)
    if settings.backend == "local" or settings.serving.model:
        return Finding(
            about="GPU",
            state="note",
            text="none was found, so that the model runs on the processor",
            remedy="Is nvidia-smi there, and CUDA_VISIBLE_DEVICES not empty?",
        )
    text = "none here, and this model needs none here"
    return Finding(about="GPU", state="ok", text=text)


def find_sandbox(settings: Settings) -> Finding:
    """Start ms-vlmeval's environment, if it is built."""
    try:
        environment = ensure_environment(
            settings.cache_dir,
            python=settings.sandbox_python,
            offline=True,
            announce=lambda line: None,
        )
    except VlmEvalError as error:
        if settings.sandbox_python is not None or settings.offline:
            return from_error("sandbox", error)
        return Finding(
            about="sandbox",
            state="note",
            text="not built yet; the first run does, in about a minute",
            remedy=f"Build it ahead: {SETUP}",
        )
    sandbox = Sandbox(environment.python)
    try:
        found = describe_sandbox(sandbox)
    except (VlmEvalError, SandboxFault) as error:
        return Finding(
            about="sandbox",
            state="trouble",
            text=str(error),
            remedy=f"Remove {environment.python.parent.parent} and run {SETUP}.",
        )
    finally:
        sandbox.close()
    text = (
        f"ms-vlmeval {found.ms_vlmeval}, Python {found.python}, pandas {found.pandas}"
    )
    return Finding(about="sandbox", state="ok", text=text)


def find_store(settings: Settings) -> Finding:
    """Open the run store, if there is one; none is made."""
    location = Location(settings.work_dir, settings.store)
    if not location.may_exist:
        text = f"none yet; the first run makes {location.file}"
        return Finding(about="store", state="ok", text=text)
    try:
        store = Store(settings.work_dir, settings.store)
        try:
            count = len(store.history.runs())
        finally:
            store.close()
    except VlmEvalError as error:
        return from_error("store", error)
    text = f"{location.file or location}, {count} {'run' if count == 1 else 'runs'}"
    return Finding(about="store", state="ok", text=text)
