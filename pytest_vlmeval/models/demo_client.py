"""The client of the bundled demo model: answers in threads of this process."""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.chat import input_error, read_media
from pytest_vlmeval.models.client import Reply
from pytest_vlmeval.models.demo import FOLDER, DemoModel
from pytest_vlmeval.models.weights import checksum_files

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from pytest_vlmeval.models.client import Request

MODEL_FILES = ("vision.onnx", "language.onnx", "embeddings.npy", "tokenizer.json")


def count_threads(concurrency: int) -> int:
    """Return how many answers are worth to be made at once."""
    return max(1, min(os.cpu_count() or 1, concurrency))


class DemoClient:
    """Asks the demo model, on at most `concurrency` threads and one per processor.

    The model is loaded with the first question. `folder` holds its files.
    """

    def __init__(
        self, *, max_tokens: int, concurrency: int, folder: Path = FOLDER
    ) -> None:
        self._max_tokens = max_tokens
        self._folder = folder
        self._threads = ThreadPoolExecutor(
            max_workers=count_threads(concurrency),
            thread_name_prefix="vlm-demo",
        )
        self._model: DemoModel | None = None
        self._model_lock = threading.Lock()

    async def check(self) -> None:
        """Raise `VlmEvalError` if files of the model are missing."""
        missing = [name for name in MODEL_FILES if not (self._folder / name).is_file()]
        if missing:
            raise VlmEvalError(
                f"The demo model lacks {', '.join(missing)} in {self._folder}. "
                "Install pytest-vlmeval again: the files come with the package."
            )

    async def describe(self) -> Mapping[str, str]:
        """Return the checksum of the model's files."""
        return {"weights": await asyncio.to_thread(self._checksum)}

    def _checksum(self) -> str:
        files = [self._folder / name for name in MODEL_FILES]
        return checksum_files(files, self._folder, None)

    async def ask(self, request: Request) -> Reply:
        """Answer one prompt; `RequestError` of kind "input" if it cannot be read."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._generate, request)

    async def close(self) -> None:
        """Drop what waits, and end the threads when their present answers are done."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _generate(self, request: Request) -> Reply:
        if request.replies:
            raise input_error(
                "the demo model answers single questions and goes on with none: "
                "another model holds a conversation"
            )
        (turn,) = request.turns
        if any(part.kind == "video" for part in turn):
            raise input_error(
                "the demo model sees pictures and no videos: leave out --vlm-video-url"
            )
        parts: list[tuple[Literal["text", "image"], str | bytes]] = [
            ("text", part.text)
            if part.kind == "text"
            else ("image", read_media(request.media_folder, part))
            for part in turn
        ]
        try:
            made = self._loaded().generate(parts, self._max_tokens)
        except ValueError as error:
            raise input_error(f"the demo model cannot answer: {error}") from None
        return Reply(
            text=made.text,
            finish_reason=made.finish_reason,
            prompt_tokens=made.prompt_tokens,
            completion_tokens=made.completion_tokens,
        )

    def _loaded(self) -> DemoModel:
        with self._model_lock:
            if self._model is None:
                self._model = DemoModel(threads=1, folder=self._folder)
            return self._model
