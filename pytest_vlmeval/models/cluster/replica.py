"""A model whose replicas are Ray actors, on as many nodes as a cluster has."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.chat import read_media
from pytest_vlmeval.models.client import Reply, RequestError
from pytest_vlmeval.models.pool import Learned
from pytest_vlmeval.records import parts_of
from pytest_vlmeval.sandbox.environment import HeldFolder

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import Request
    from pytest_vlmeval.models.open import Recipe

# In a list, Ray hands on the reference and not what it stands for.
Media = Mapping[str, list[ray.ObjectRef]]

# What stays at hand for further questions about the same image, in bytes.
SHELF_BYTES = 500_000_000
COPIES_BYTES = 4_000_000_000


class SharedMedia:
    """What the process with the questions has put into Ray's object store.

    Of each file there is one object, shared by all actors; the oldest are let go where
    they are more than `limit` bytes. Thread-safe.
    """

    def __init__(self, limit: int = SHELF_BYTES) -> None:
        self._limit = limit
        self._objects: OrderedDict[str, tuple[ray.ObjectRef, int]] = OrderedDict()
        self._tables: dict[Path, str] = {}  # the rows of datasets, by content
        self._lock = threading.Lock()
        self.puts = 0

    def pack(self, request: Request) -> tuple[Request, Media]:
        """Return a request without any path of this machine, and its media.

        Raises `RequestError` for a file that cannot be read.
        """
        media: dict[str, list[ray.ObjectRef]] = {}
        with self._lock:
            for part in parts_of(request.turns):
                if part.kind != "text":
                    read = partial(read_media, request.media_folder, part)
                    media[part.media] = [self._share(part.media, read)]
            origin = request.origin
            if origin is not None:
                rows = Path(origin["rows"])
                if rows not in self._tables:
                    digest = hashlib.sha256(rows.read_bytes()).hexdigest()
                    self._tables[rows] = f"{digest}.parquet"
                name = self._tables[rows]
                media[name] = [self._share(name, rows.read_bytes)]
                origin = {**origin, "rows": name}
            size = sum(size for _, size in self._objects.values())
            for name in [name for name in self._objects if name not in media]:
                if size <= self._limit:
                    break
                size -= self._objects.pop(name)[1]
        return replace(request, media_folder=Path(), origin=origin), media

    def _share(self, name: str, read: Callable[[], bytes]) -> ray.ObjectRef:
        if name not in self._objects:
            data = read()
            self._objects[name] = (ray.put(data), len(data))
            self.puts += 1
        self._objects.move_to_end(name)
        return self._objects[name][0]


class Copies:
    """The files of an actor, fetched when first needed, as many as `limit` bytes."""

    def __init__(self, folder: Path, limit: int = COPIES_BYTES) -> None:
        self.folder = folder
        self._limit = limit
        self._sizes: OrderedDict[str, int] = OrderedDict()
        self._used: Counter[str] = Counter()

    async def bring(self, media: Media) -> None:
        """Have these files in the folder, until `leave`."""
        self._used.update(media.keys())
        for name, (reference,) in media.items():
            if name not in self._sizes:
                data = await reference
                writing = self.folder / f".{name}"
                writing.write_bytes(data)
                writing.rename(self.folder / name)
                self._sizes[name] = len(data)
            self._sizes.move_to_end(name)
        for name in [name for name in self._sizes if not self._used[name]]:
            if sum(self._sizes.values()) <= self._limit:
                break
            del self._sizes[name]
            (self.folder / name).unlink()

    def leave(self, media: Media) -> None:
        """Let go of the files of a request that is done."""
        self._used.subtract(media.keys())


# What looking at a node finds: why the model cannot be asked there, or which it is.
Found = VlmEvalError | Mapping[str, str] | None


class Host:
    """Makes a model by its recipe and answers; what it needs on disk goes with it.

    Errors are returned: raised ones would come with Ray's traceback.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._held = HeldFolder("vlmeval-replica-")
        folder = self._held.path
        devices = ",".join(map(str, ray.get_gpu_ids()))
        self._client = recipe(folder, devices or None, Learned())
        self._copies = Copies(folder)

    async def check(self) -> VlmEvalError | None:
        """Return why the model cannot be asked on this node, None if it can."""
        try:
            await self._client.check()
        except VlmEvalError as error:
            return error
        return None

    async def describe(self) -> Mapping[str, str]:
        """Return what tells which model is on this node."""
        return dict(await self._client.describe())

    async def ask(
        self, request: Request, media: Media
    ) -> Reply | RequestError | VlmEvalError:
        """Answer one prompt, whose media are fetched where they are not there yet."""
        folder, origin = self._copies.folder, request.origin
        if origin is not None:
            origin = {**origin, "rows": str(folder / origin["rows"])}
        placed = replace(request, media_folder=folder, origin=origin)
        try:
            await self._copies.bring(media)
            return await self._client.ask(placed)
        except (VlmEvalError, RequestError) as error:
            return error
        finally:
            self._copies.leave(media)

    async def close(self) -> None:
        """End what the client has started, and remove the files."""
        await self._client.close()
        self._held.close()


# How long Ray may take to find a place for an actor and to start its process.
PLACE_LIMIT_S = 60.0
CLOSE_LIMIT_S = 5.0


class Crew:
    """What the replicas of one model share: the media, and that one has answered."""

    def __init__(self) -> None:
        self.shelf = SharedMedia()
        self.answered = False


def _try_out(recipe: Recipe) -> Found:
    """Make the model on some node, without an actor, and see whether it is usable."""

    async def look() -> Found:
        host = Host(recipe)
        try:
            return await host.check() or await host.describe()
        finally:
            await host.close()

    return asyncio.run(look())


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
        if isinstance(found, VlmEvalError):
            raise VlmEvalError(f"{self._name}: {found}")
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
            made = ray.remote(Host).options(
                max_restarts=-1, scheduling_strategy="SPREAD", **self._needs
            )
            actor = self._actor = made.remote(self._recipe)
        if not self._is_up:
            await self._wait_up(actor)
        packed, media = await asyncio.to_thread(self._crew.shelf.pack, request)
        try:
            outcome: Reply | RequestError | VlmEvalError = await actor.ask.remote(
                packed, media
            )
        except RayTaskError:
            raise  # a bug there, not the end of the actor
        except RayError as error:
            self._note_end(error)
            raise _lost(self._name, _reason(error)) from None
        if isinstance(outcome, RequestError):
            raise outcome
        if isinstance(outcome, VlmEvalError):
            raise self._refused(outcome)
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

    async def _wait_up(self, actor: Any) -> None:
        try:
            refusal = await self._placed(actor.check.remote())
        except VlmEvalError as error:
            raise _lost(self._name, str(error)) from None
        if isinstance(refusal, VlmEvalError):
            raise self._refused(refusal)
        self._is_up = True

    def _refused(self, refusal: VlmEvalError) -> Exception:
        """Return what a refusal means: once any replica answered, this one is lost."""
        return _lost(self._name, str(refusal)) if self._crew.answered else refusal

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
    return RequestError(f"{name} is lost: {reason}", kind="replica")


def _reason(error: RayError) -> str:
    """Return the first and the last line of what Ray says, often a whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else repr(error)
