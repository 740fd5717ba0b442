"""`pytest --vlm-doctor`: looks at everything that a run needs, and asks no sample."""

from __future__ import annotations

import asyncio
import io
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.check import NAMES, REMEDIES, try_media
from pytest_vlmeval.models.local import find_devices
from pytest_vlmeval.models.open import (
    NO_MODEL,
    backend_of,
    create_judge_pool,
    create_pool,
)
from pytest_vlmeval.models.pool import Concurrency, Learned
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.database import Location
from pytest_vlmeval.sandbox.calls import describe_sandbox
from pytest_vlmeval.sandbox.environment import ensure_environment
from pytest_vlmeval.sandbox.process import Sandbox, SandboxFault

if TYPE_CHECKING:
    from pytest_vlmeval.models.check import Capability
    from pytest_vlmeval.models.check import Finding as Tried
    from pytest_vlmeval.models.pool import Endpoint, Pool
    from pytest_vlmeval.settings import Settings

State = Literal["ok", "note", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that was looked at: how it is, and what to do about it.

    A `note` is no error, but worth to know; `remedy` is "" where nothing is to do.
    """

    about: str
    state: State
    text: str
    remedy: str = ""


def from_error(about: str, error: BaseException) -> Finding:
    """Make a finding of an error, whose text says what to do."""
    return Finding(about=about, state="error", text=str(error))


ONE = Concurrency(1, adaptive=False)


async def find_model(settings: Settings) -> list[Finding]:
    """Examine the model: each endpoint by itself, then what it takes."""
    if settings.model is None:
        return [Finding(about="model", state="note", text=NO_MODEL)]
    if settings.serving.model:
        return [_find_command("model", settings.serving.model)]
    # From here; what the nodes of a cluster have is seen when replicas start there.
    settings = replace(settings, cluster=None)
    notes: list[str] = []
    try:
        pool = create_pool(
            settings,
            ONE,
            lambda client: client,
            learned=Learned(None, notes.append),
        )
    except VlmEvalError as error:
        return [from_error("model", error)]
    try:
        found = await _look_at(pool, settings)
        found += [Finding(about="model", state="note", text=note) for note in notes]
        return found
    finally:
        await pool.close()


async def _look_at(pool: Pool, settings: Settings) -> list[Finding]:
    found = []
    for endpoint in pool.endpoints:
        finding = await _check(endpoint, "model", str(settings.model))
        found.append(finding)
        if finding.state == "ok" and backend_of(settings).is_served:
            found += await _media_of(endpoint, settings)
    return found


async def _check(endpoint: Endpoint, about: str, name: str) -> Finding:
    try:
        await endpoint.client.check()
    except VlmEvalError as error:
        return from_error(about, error)
    where = endpoint.name
    text = f"{name} is served at {where}" if "://" in where else f"{name}, here"
    return Finding(about=about, state="ok", text=text)


async def _media_of(endpoint: Endpoint, settings: Settings) -> list[Finding]:
    wanted: set[Capability] = {"image", "images"}
    if settings.video_url:
        wanted.add("video")
    try:
        tried = await try_media(endpoint.client, wanted, settings.prompting)
    except VlmEvalError as error:
        return [from_error("media", error)]
    return [_describe(endpoint.name, each) for each in tried]


def _describe(name: str, it: Tried) -> Finding:
    what, remedy = NAMES[it.capability], REMEDIES[it.capability]
    if it.state == "accepted":
        return Finding(about="media", state="ok", text=f"{name} takes {what}")
    state: State = "error"
    text = f"{name} refuses {what}: {it.words}"
    if it.state == "unknown":
        text = f"{name} gave no answer to {what}: {it.words}"
        remedy = "See the server's log; a run may end there too."
    elif it.capability == "images":
        state = "note"
        remedy += " Datasets with one image in a question run all the same."
    return Finding(about="media", state=state, text=text, remedy=remedy)


async def find_judges(settings: Settings) -> list[Finding]:
    """Check whether each judge is served."""
    if settings.serving.judge:
        return [_find_command("judge", settings.serving.judge)]
    if not settings.judges:
        return [Finding(about="judge", state="ok", text=settings.judging)]
    found = []
    notes: list[str] = []
    learned = Learned(None, notes.append)
    for judge in settings.judges:
        try:
            pool = create_judge_pool(
                settings,
                judge,
                ONE,
                lambda client: client,
                learned=learned,
            )
        except VlmEvalError as error:
            found.append(from_error("judge", error))
            continue
        try:
            checks = (_check(each, "judge", judge.name) for each in pool.endpoints)
            found += await asyncio.gather(*checks)
        finally:
            await pool.close()
    return found + [Finding(about="judge", state="note", text=note) for note in notes]


def _find_command(about: str, words: Sequence[str]) -> Finding:
    """Look for the program that the run is to start a server with."""
    program = shutil.which(words[0])
    if program is not None:
        text = f"{program} is started for the run"
        return Finding(about=about, state="ok", text=text)
    return Finding(
        about=about,
        state="error",
        text=f"{words[0]} is to be started for the run, and is not found",
        remedy="Install it, or give its path.",
    )


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
    """Check whether each folder can be written, and has room."""
    folders = {
        "data root": settings.data_root,
        "cache": settings.cache_dir,
        "work dir": settings.work_dir,
    }
    remedies = {
        "data root": "point LMUData at another folder",
        "cache": "give another with --vlm-cache-dir",
        "work dir": "give another with --vlm-work-dir",
    }
    for about, folder in folders.items():
        yield _look_at_folder(about, folder, remedies[about])


def _look_at_folder(about: str, folder: Path, remedy: str) -> Finding:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            about=about,
            state="error",
            text=f"{folder} cannot be written",
            remedy=f"Make {there} a folder that you may write to, or {remedy}.",
        )
    free = shutil.disk_usage(there).free
    made = "" if folder.exists() else ", made when first needed"
    text = f"{folder}{made}, {free / 1e9:.1f} GB free"
    if free < LEAST_BYTES:
        return Finding(
            about=about,
            state="error",
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
    if backend_of(settings).is_ours or settings.serving.model:
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
            state="error",
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


def examine(settings: Settings) -> Iterator[Finding]:
    """Yield the findings; nothing is changed, and no sample asked."""
    yield find_versions()
    yield from asyncio.run(find_model(settings))
    yield from asyncio.run(find_judges(settings))
    yield from find_folders(settings)
    yield find_gpus(settings)
    yield find_sandbox(settings)
    yield find_store(settings)


STYLES = {"ok": "green", "note": "yellow", "error": "bold red"}


def write_findings(
    findings: Sequence[Finding], width: int, *, colour: bool
) -> list[str]:
    """Return the lines of a table, `width` columns wide, and what it comes to."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        text = Text(finding.text)
        if finding.remedy:
            text.append(f"\n{finding.remedy}", style="bold")
        state = Text(finding.state, style=STYLES[finding.state])
        table.add_row(state, Text(finding.about), text)
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=colour,
        no_color=not colour,
        highlight=False,
        legacy_windows=False,
    )
    console.print(table)
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    return [*lines, "", _sum_up(findings)]


def _sum_up(findings: Sequence[Finding]) -> str:
    count = sum(finding.state == "error" for finding in findings)
    if not count:
        return "All is well."
    return f"{count} {'error' if count == 1 else 'errors'} to fix."


__all__ = ["examine", "from_error", "write_findings"]
