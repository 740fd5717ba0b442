"""The client of one replica: hands prompts to its actor, wherever that is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.client import Reply, RequestError
from pytest_vlmeval.models.cluster.host import Failure, Host, Refusal
from pytest_vlmeval.models.cluster.media import Shelf

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import Request
    from pytest_vlmeval.models.cluster.recipes import Recipe

# How long Ray may take to find a place for an actor and to start its process.
PLACE_LIMIT_S = 60.0
# What a look at a node finds: why the model cannot be asked there, or which it is.
Found = Refusal | Mapping[str, str] | None
CLOSE_LIMIT_S = 5.0


class Crew:
    """What the replicas of one model share: the media, and that one has answered."""

    def __init__(self) -> None:
        self.shelf = Shelf()
        self.answered = False


def _try_out(recipe: Recipe) -> Refusal | Mapping[str, str]:
    """Make the model on some node, without an actor, and look whether it is usable.

    Return why it is not, or what tells which model it is.
    """
    return asyncio.run(_check(recipe))


async def _check(recipe: Recipe) -> Refusal | Mapping[str, str]:
    host = Host(recipe)
    try:
        return await host.check() or await host.describe()
    finally:
        await host.close()


class Replica:
    """One actor; Ray starts it again, on whatever node, when it or its node dies.

    Its samples are then another replica's, and it is set aside until it is back.
    `on_gpu`: whether it takes a GPU, or else a processor.
    """

    def __init__(self, name: str, recipe: Recipe, crew: Crew, *, on_gpu: bool) -> None:
        self._name = name
        self._recipe = recipe
        self._crew = crew
        self._needs = {"num_gpus": 1} if on_gpu else {"num_cpus": 1}
        self._actor: Any = None
        self._is_up = False
        self._evidence: Mapping[str, str] = {}

    async def check(self) -> None:
        """Raise `VlmEvalError` while the model cannot be asked where it is placed."""
        if self._actor is None:
            task = ray.remote(_try_out).options(
                max_retries=0, scheduling_strategy="SPREAD", **self._needs
            )
            found = await self._placed(task.remote(self._recipe))
        else:
            found = await self._placed(self._actor.check.remote())
        if isinstance(found, Refusal):
            raise VlmEvalError(f"{self._name}: {found.message}")
        self._evidence = found or {}

    async def describe(self) -> Mapping[str, str]:
        """Return what tells which model was found on the node of the last check."""
        return self._evidence

    async def ask(self, request: Request) -> Reply:
        """Answer one prompt, or raise `RequestError`, of kind "replica" without one.

        `VlmEvalError` where no replica can load the model.
        """
        actor = self._actor
        if actor is None:
            actor = self._actor = self._start()
        if not self._is_up:
            await self._wait_up(actor)
        packed, media = await asyncio.to_thread(self._crew.shelf.pack, request)
        try:
            outcome: Reply | Failure | Refusal = await actor.ask.remote(packed, media)
        except RayTaskError:
            raise  # a bug there, not the end of the actor
        except RayError as error:
            self._note_end(error)
            raise _lost(self._name, _reason(error)) from None
        if isinstance(outcome, Failure):
            raise outcome.as_error()
        if isinstance(outcome, Refusal):
            if not self._crew.answered:
                raise VlmEvalError(outcome.message)
            raise _lost(self._name, outcome.message)
        self._crew.answered = True
        return outcome

    async def close(self) -> None:
        """End the actor, with what it has started; Ray ends with this process."""
        if self._actor is not None:
            actor, self._actor = self._actor, None
            with contextlib.suppress(TimeoutError, RayError):
                async with asyncio.timeout(CLOSE_LIMIT_S if self._is_up else 0):
                    await actor.close.remote()
            ray.kill(actor)

    def _start(self) -> Any:
        actor = ray.remote(Host).options(
            max_restarts=-1, scheduling_strategy="SPREAD", **self._needs
        )
        return actor.remote(self._recipe)

    async def _wait_up(self, actor: Any) -> None:
        try:
            refusal = await self._placed(actor.check.remote())
        except VlmEvalError as error:
            raise _lost(self._name, str(error)) from None
        if isinstance(refusal, Refusal) and not self._crew.answered:
            raise VlmEvalError(refusal.message)
        if isinstance(refusal, Refusal):
            raise _lost(self._name, refusal.message)
        self._is_up = True

    async def _placed(self, result: Awaitable[Found]) -> Found:
        """Wait for an answer of a process that Ray may still have to start."""
        try:
            async with asyncio.timeout(PLACE_LIMIT_S):
                return await result
        except TimeoutError:
            (what,) = self._needs
            raise VlmEvalError(
                f"{self._name} has no place in the Ray cluster: no node has had a free "
                f"{'GPU' if what == 'num_gpus' else 'processor'} for "
                f"{PLACE_LIMIT_S:g} s (see `ray status`)."
            ) from None
        except RayTaskError:
            raise
        except RayError as error:
            self._note_end(error)
            raise VlmEvalError(
                f"{self._name} could not be started: {_reason(error)}"
            ) from None

    def _note_end(self, error: RayError) -> None:
        """Take note that the actor is gone; one that Ray gave up is started anew."""
        self._is_up = False
        if isinstance(error, ActorDiedError):
            self._actor = None


def _lost(name: str, reason: str) -> RequestError:
    return RequestError(f"{name} is lost: {reason}", kind="replica", retryable=True)


def _reason(error: RayError) -> str:
    """Give the first and the last line of what Ray says, often a whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else repr(error)
