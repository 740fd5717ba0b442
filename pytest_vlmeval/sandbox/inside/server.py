"""The loop of the sandbox process: takes calls, answers with results or errors."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.sandbox.inside import containment

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Method = Callable[..., dict[str, Any]]

PR_SET_PDEATHSIG = 1
PROGRESS_EVERY_S = 0.2
# What a user can fix about a file: space, rights, a file system that is read-only.
FIXABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


class Channel:
    """The two pipes to the parent, one JSON object per line.

    Takes the place of stdin and stdout: what ms-vlmeval prints goes to stderr, and
    it can read nothing. Ends this process and all it started when the parent's end
    closes.
    """

    def __init__(self) -> None:
        """Move the pipes away from the standard descriptors and start to read."""
        self._input = os.fdopen(os.dup(0), "rb")
        self._output = os.fdopen(os.dup(1), "wb")
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        self._messages: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._next_progress = 0.0
        threading.Thread(target=self._read, daemon=True).start()

    def receive(self) -> dict[str, Any]:
        """Wait for the parent's next message."""
        return self._messages.get()

    def send(self, message: dict[str, Any]) -> None:
        """Write one message."""
        self._output.write(json.dumps(message, allow_nan=False).encode() + b"\n")
        self._output.flush()

    def progress(self, done: int, total: int) -> None:
        """Tell how many rows are done, at most a few times a second."""
        now = time.monotonic()
        if now >= self._next_progress:
            self._next_progress = now + PROGRESS_EVERY_S
            self.send({"progress": [done, total]})

    def ask(self, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Put questions to the parent, in the middle of a call, and wait for all."""
        self.send({"ask": questions})
        replies: list[dict[str, Any]] = self.receive()["replies"]
        return replies

    def _read(self) -> None:
        with suppress(OSError):
            for line in self._input:
                self._messages.put(json.loads(line))
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)


def main(parent_pid: int) -> None:
    """Serve the process `parent_pid` until it closes the pipe or dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)
    channel = Channel()
    methods = _load_methods(channel)
    while True:
        message = channel.receive()
        # Said before anything is done: a call not taken can be sent to another process.
        channel.send({"taken": message["call"]})
        if isinstance(methods, dict):
            channel.send(_answer(methods[message["method"]], message["params"]))
        else:
            channel.send({"fixable": methods})


def _load_methods(channel: Channel) -> dict[str, Method] | str:
    """Return the methods by name, or why this environment has none."""
    containment.install()
    try:
        from pytest_vlmeval.sandbox.inside import (
            listing,
            locating,
            preparation,
            scoring,
            tables,
            videos,
        )

        scoring.describe()
        # What is handed over is Parquet; an environment of the user's may not have it.
        import_module("pyarrow.parquet")
        # What most datasets need, loaded while the parent still does other things.
        import_module("vlmeval.dataset.image_vqa")
    except ImportError as error:
        return (
            f"ms-vlmeval cannot be used in the environment of {sys.executable}: "
            f"{error}. --vlm-setup builds the sandbox anew; --vlm-sandbox-python takes "
            "an environment in which ms-vlmeval is installed."
        )

    def score(judged: bool = False, **params: Any) -> dict[str, Any]:
        ask = channel.ask if judged else None
        return scoring.score(**params, ask=ask, on_progress=channel.progress)

    return {
        "describe": scoring.describe,
        "prepare": partial(preparation.prepare, on_progress=channel.progress),
        "locate": partial(locating.locate, on_progress=channel.progress),
        "prepare_videos": partial(videos.prepare_videos, on_progress=channel.progress),
        "score": score,
        "submit": scoring.write_submission,
        "digest": tables.digest_files,
        "list": listing.list_datasets,
    }


def _answer(method: Method, params: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"result": method(**params)}
    except NeedsJudgeError as error:
        return {"needs_judge": str(error)}
    except VlmEvalError as error:
        return {"fixable": str(error)}
    except OSError as error:
        if error.errno not in FIXABLE:
            return {"fault": traceback.format_exc()}
        # pyarrow gives its own words and no name.
        place = error.filename or params.get("folder")
        return {"fixable": f"Cannot write {place}: {os.strerror(error.errno)}."}
    except Exception:
        return {"fault": traceback.format_exc()}
