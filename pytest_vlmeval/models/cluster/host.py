"""The actor: a process on some node that holds a client and asks it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import ray

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.leftovers import HeldFolder
from pytest_vlmeval.models.client import ErrorKind, Reply, RequestError
from pytest_vlmeval.models.cluster.media import Copies

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytest_vlmeval.models.client import Request
    from pytest_vlmeval.models.cluster.media import Media
    from pytest_vlmeval.models.cluster.recipes import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A `RequestError` as plain data: an exception would come with Ray's traceback."""

    message: str
    kind: ErrorKind
    retryable: bool
    status: int | None
    retry_after_s: float | None

    def as_error(self) -> RequestError:
        """Return the error."""
        return RequestError(
            self.message,
            kind=self.kind,
            retryable=self.retryable,
            status=self.status,
            retry_after_s=self.retry_after_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the model cannot be asked here at all."""

    message: str


class Host:
    """Makes a model by its recipe and answers; what it needs on disk goes with it."""

    def __init__(self, recipe: Recipe) -> None:
        self._held = HeldFolder("vlmeval-replica-")
        folder = self._held.path
        devices = ",".join(map(str, ray.get_gpu_ids()))
        self._client = recipe.make(folder, devices or None)
        self._copies = Copies(folder)

    async def check(self) -> Refusal | None:
        """Say why the model cannot be asked on this node, None if it can."""
        try:
            await self._client.check()
        except VlmEvalError as error:
            return Refusal(message=str(error))
        return None

    async def describe(self) -> Mapping[str, str]:
        """Return what tells which model is on this node."""
        return dict(await self._client.describe())

    async def ask(self, request: Request, media: Media) -> Reply | Failure | Refusal:
        """Answer one prompt, whose media are fetched where they are not there yet."""
        try:
            await self._copies.bring(media)
            return await self._client.ask(self._placed(request))
        except VlmEvalError as error:
            return Refusal(message=str(error))
        except RequestError as error:
            return Failure(
                message=str(error),
                kind=error.kind,
                retryable=error.retryable,
                status=error.status,
                retry_after_s=error.retry_after_s,
            )
        finally:
            self._copies.leave(media)

    def _placed(self, request: Request) -> Request:
        """Return a request whose paths are those of this node."""
        folder, origin = self._copies.folder, request.origin
        if origin is not None:
            origin = {**origin, "rows": str(folder / origin["rows"])}
        return replace(request, media_folder=folder, origin=origin)

    async def close(self) -> None:
        """End what the client has started, and remove the files."""
        await self._client.close()
        self._held.close()
