"""Media on their way to a node: by the name of their content, each once."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import ray

from pytest_vlmeval.models.chat import read_media
from pytest_vlmeval.prompts import parts_of

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import Request

# In a list, Ray hands on the reference and not what it stands for.
Media = Mapping[str, list[ray.ObjectRef]]

# What stays at hand for further questions about the same picture, in bytes.
SHELF_BYTES = 500_000_000
COPIES_BYTES = 4_000_000_000


class Shelf:
    """What the process with the questions has put into Ray's object store.

    Of each file there is one object, shared by all actors; the oldest are let go where
    they are more than `limit` bytes. Thread-safe.
    """

    def __init__(self, limit: int = SHELF_BYTES) -> None:
        self._limit = limit
        self._objects: OrderedDict[str, tuple[ray.ObjectRef, int]] = OrderedDict()
        self._tables: dict[str, str] = {}
        self._lock = threading.Lock()
        self.puts = 0

    def pack(self, request: Request) -> tuple[Request, Media]:
        """Return a request without any path of this machine, and its media.

        Raises `RequestError` for a file that cannot be read.
        """
        media: dict[str, list[ray.ObjectRef]] = {}
        with self._lock:
            for part in parts_of(request.turns):
                if part.kind != "text" and part.media not in media:
                    folder = request.media_folder
                    media[part.media] = [
                        self._find(part.media)
                        or self._put(part.media, read_media(folder, part))
                    ]
            origin = request.origin
            if origin is not None:
                name = self._table(origin["rows"])
                found = self._find(name)
                if found is None:
                    found = self._put(name, Path(origin["rows"]).read_bytes())
                media[name] = [found]
                origin = {**origin, "rows": name}
            self._tidy(media)
        return replace(request, media_folder=Path(), origin=origin), media

    def _table(self, path: str) -> str:
        """Name a dataset's rows by their content."""
        if path not in self._tables:
            digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            self._tables[path] = f"{digest}.tsv"
        return self._tables[path]

    def _find(self, name: str) -> ray.ObjectRef | None:
        if name not in self._objects:
            return None
        self._objects.move_to_end(name)
        return self._objects[name][0]

    def _put(self, name: str, data: bytes) -> ray.ObjectRef:
        self.puts += 1
        reference = ray.put(data)
        self._objects[name] = (reference, len(data))
        return reference

    def _tidy(self, needed: Media) -> None:
        size = sum(size for _, size in self._objects.values())
        for name in list(self._objects):
            if size <= self._limit:
                break
            if name not in needed:
                size -= self._objects.pop(name)[1]


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
        """Say that a request is done with its files."""
        self._used.subtract(media.keys())
