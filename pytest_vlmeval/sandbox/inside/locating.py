"""What a dataset's class wants beside its table, found out by building it."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.inside.hubs import own_folders
from pytest_vlmeval.sandbox.inside.job import (
    Job,
    NoTableError,
    running,
)
from pytest_vlmeval.sandbox.inside.media import BASE64, STAND_IN, ImageStore
from pytest_vlmeval.sandbox.inside.preparation import build_dataset, find_class
from pytest_vlmeval.sandbox.inside.tables import is_own, take_own, take_table
from pytest_vlmeval.sandbox.inside.videos import build_video, describe_table
from pytest_vlmeval.sandbox.own_files import SHORTEST_IMAGE
from pytest_vlmeval.sandbox.shelf import Needed, Shelf

if TYPE_CHECKING:
    from collections.abc import Callable

    Info = dict[str, Any]


def locate(
    info: Info,
    shelf: dict[str, Any],
    on_progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Return the dataset's `tables`, or what it `needs` first: a repository or a file.

    Its class is built, which unpacks what it unpacks. Each table has path, checksum,
    which one is `published`, and whether the class `made` it just now. Of other classes
    than those of videos only what they need is found out; `no_table` says that one
    cannot do without. Raises VlmEvalError.
    """
    is_video = info["modality"] == "video"
    build = build_video if is_video else build_dataset
    known = Shelf(**shelf)
    began_ns = time.time_ns()
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as scratch:
        within = own_folders(info, shelf["table"], known)
        store = _NoStore(Path(scratch), Path(scratch), linked=False, within=within)
        try:
            job = Job(
                rows=pd.DataFrame()
                if is_video
                else _read_rows(info, shelf["table"], store),
                folder=Path(scratch),
                url="" if is_video else info["url"],
                on_progress=on_progress,
                images=None if is_video else store,
                within=within,
                shelf=known,
            )
            with running(job):
                dataset = build(info, job)
        except Needed as need:
            wanted = need.request
            return {"needs": wanted if is_video else _with_checksum(info, wanted)}
        except NoTableError:
            return {"no_table": True}
        except VlmEvalError:
            # What is wrong is told when it is prepared, with the images at hand.
            if is_video or shelf["table"] is None:
                raise
            return {"tables": []}
    if not is_video:
        return {"tables": []}
    parts = getattr(dataset, "dataset_map", {"": dataset}).values()
    return {"tables": [describe_table(part, job, began_ns) for part in parts]}


class _NoStore(ImageStore):
    """Stands for images without keeping them: they are not looked at here."""

    def stand_in(self, text: str) -> str:
        if len(text) < SHORTEST_IMAGE or not BASE64.fullmatch(text):
            return text
        return STAND_IN + hashlib.sha256(text.encode()).hexdigest()


def _read_rows(info: Info, table: str | None, store: ImageStore) -> pd.DataFrame:
    if table is None:
        return pd.DataFrame()
    if is_own(info):
        return take_own(Path(table), info, store.stand_in).frame
    return take_table(Path(table), store.stand_in, lambda *_: None).frame


def _with_checksum(info: Info, request: dict[str, Any]) -> dict[str, Any]:
    """Add to a wanted file the checksum that its class publishes, if it does."""
    if "url" not in request or request["md5"]:
        return request
    cls = find_class(info)
    addresses = getattr(cls, "DATASET_URL", {})
    sums = getattr(cls, "DATASET_MD5", {})
    names = [name for name, url in addresses.items() if url == request["url"]]
    published = next((sums[name] for name in names if sums.get(name)), None)
    return {**request, "md5": published}
