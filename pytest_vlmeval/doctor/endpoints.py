"""What the doctor asks of servers: whether they answer, serve, and take pictures."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_vlmeval.doctor.finding import Finding, from_error
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.capability import NAMES, REMEDIES, try_media
from pytest_vlmeval.models.factory import NO_MODEL, create_judge_pool, create_pool
from pytest_vlmeval.models.learned import Learned
from pytest_vlmeval.models.limiter import Concurrency

if TYPE_CHECKING:
    from pytest_vlmeval.doctor.finding import State
    from pytest_vlmeval.models.capability import Capability
    from pytest_vlmeval.models.capability import Finding as Tried
    from pytest_vlmeval.models.pool import Pool
    from pytest_vlmeval.models.pooled import Endpoint
    from pytest_vlmeval.options import Settings

ONE = Concurrency(1, adaptive=False)


async def find_model(settings: Settings) -> list[Finding]:
    """Look at the model: each endpoint by itself, then what it takes."""
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
            lambda *change: None,
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
        if finding.state == "ok" and settings.backend == "endpoint":
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
    state: State = "trouble"
    text = f"{name} refuses {what}: {it.words}"
    if it.state == "unknown":
        text = f"{name} gave no answer to {what}: {it.words}"
        remedy = "See the server's log; a run may end there too."
    elif it.capability == "images":
        state = "note"
        remedy += " Datasets with one picture in a question run all the same."
    return Finding(about="media", state=state, text=text, remedy=remedy)


async def find_judges(settings: Settings) -> list[Finding]:
    """Look whether each judge is served."""
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
                lambda *change: None,
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
        state="trouble",
        text=f"{words[0]} is to be started for the run, and is not found",
        remedy="Install it, or give its path.",
    )
