"""The client of a model that runs here: a process with torch, asked in batches."""

from __future__ import annotations

import asyncio
import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.errors import VlmEvalError, describe
from pytest_vlmeval.models.client import Reply, RequestError
from pytest_vlmeval.models.endings import UNCLOSED_THOUGHT
from pytest_vlmeval.models.local_check import check_model, order_of
from pytest_vlmeval.models.thinking import split_thoughts
from pytest_vlmeval.models.weights import describe_checkpoint

if TYPE_CHECKING:
    from pytest_vlmeval.local_settings import LocalModel
    from pytest_vlmeval.models.client import Request
    from pytest_vlmeval.prompt_settings import TagPair

HELPER = Path(__file__).parent / "inside" / "serve.py"
# How long a batch waits for more prompts than the first.
GATHER_S = 0.02
LOAD_LIMIT_S = 1800.0
TAIL_BYTES = 2_000
# A helper that dies is started anew so often, in one run.
MOST_STARTS = 3


class HelperDied(Exception):
    """The helper process is gone, or did not answer in time."""


class LocalHelper:
    """The process that holds the weights; used by one thread.

    `log` gets what its libraries print, `device` is its CUDA_VISIBLE_DEVICES, None for
    what it finds.
    """

    def __init__(self, python: Path, log: Path, device: str | None) -> None:
        chosen = [] if device is None else ["env", f"CUDA_VISIBLE_DEVICES={device}"]
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as errors:
            # It ends with its standard input, so it does not outlive this process.
            self._process = subprocess.Popen(
                [*chosen, str(python), "-I", "-X", "utf8", str(HELPER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def exchange(self, message: Mapping[str, Any], limit_s: float) -> dict[str, Any]:
        """Send one message and return the answer to it; `HelperDied` without one."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=limit_s)
        except queue.Empty:
            raise HelperDied(f"gave no answer within {limit_s:g} s") from None
        except OSError:
            line = None
        if line is None:
            raise HelperDied(f"ended with exit status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def tail(self) -> str:
        """Return the last lines that it printed."""
        text = self.log.read_bytes()[-TAIL_BYTES:].decode("utf-8", errors="replace")
        lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
        return "".join(f"\n    {line}" for line in lines[-8:])

    def stop(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # What was written to a process that died cannot be flushed.
                with contextlib.suppress(OSError):
                    pipe.close()


class LocalClient:
    """Asks a model in a helper process; the weights load with the first prompt.

    Prompts that wait at the same time are answered together, `batch_size` at most.
    `timeout_s` is the deadline of a batch.
    """

    def __init__(
        self,
        local: LocalModel,
        *,
        model: str,
        max_tokens: int,
        temperature: float,
        timeout_s: float,
        log: Path,
    ) -> None:
        self._local = local
        self._model = model
        self._sampling = {"max_tokens": max_tokens, "temperature": temperature}
        self._timeout_s = timeout_s
        self._log = log
        self._waiting: asyncio.Queue[tuple[Request, asyncio.Future[Reply]]] | None
        self._waiting = None
        self._gathering: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "vlm-local")
        self._helper: LocalHelper | None = None
        self._starts = 0

    async def check(self) -> None:
        """Raise `VlmEvalError` for what stands against it, before anything loads."""
        await asyncio.to_thread(check_model, self._model, self._local)

    async def describe(self) -> Mapping[str, str]:
        """Return the checksum of the weights, or the commit of their repository."""
        return await asyncio.to_thread(self._describe)

    def _describe(self) -> Mapping[str, str]:
        order, _, _ = order_of(self._model, self._local)
        path = order.get("path") or order["arguments"].get("model_path")
        return describe_checkpoint(
            path if isinstance(path, str) else None,
            self._local.checksums,
            self._local.hub_cache,
        )

    async def ask(self, request: Request) -> Reply:
        """Answer one prompt, in a batch with others that wait."""
        if self._waiting is None:
            self._waiting = asyncio.Queue()
            self._gathering = asyncio.create_task(self._gather(self._waiting))
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((request, future))
        return await future

    async def close(self) -> None:
        """End the helper process; a batch under way is dropped."""
        if self._gathering is not None:
            self._gathering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._gathering
        helper = self._helper
        if helper is not None:
            helper.stop()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _gather(
        self, waiting: asyncio.Queue[tuple[Request, asyncio.Future[Reply]]]
    ) -> None:
        """Answer batch after batch, each of what waits when the one before is done."""
        while True:
            batch = [await waiting.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    while len(batch) < self._local.batch_size:
                        batch.append(await waiting.get())
            loop = asyncio.get_running_loop()
            prompts = [write_prompt(request) for request, _ in batch]
            try:
                answers = await loop.run_in_executor(
                    self._thread, self._exchange, prompts
                )
            except (RequestError, VlmEvalError) as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (request, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    _settle(future, answer, request)

    # The rest runs in the thread of the helper.

    def _exchange(self, prompts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        helper = self._running()
        try:
            answer = helper.exchange({"prompts": prompts}, self._timeout_s)
        except HelperDied as died:
            helper.stop()
            self._helper = None
            raise RequestError(
                f"the process of the local model {died}; its last lines:"
                f"{helper.tail()}",
                kind="connection",
                retryable=True,
            ) from None
        if "error" in answer:
            raise RequestError(answer["error"], kind="protocol", retryable=False)
        replies: list[dict[str, Any]] = answer["replies"]
        return replies

    def _running(self) -> LocalHelper:
        if self._helper is not None:
            return self._helper
        if self._starts == MOST_STARTS:
            raise VlmEvalError(
                f"The process of the local model died {MOST_STARTS} times; its log is "
                f"{self._log}. Where memory ran out, give a smaller --vlm-batch-size."
            )
        self._starts += 1
        order, python, device = order_of(self._model, self._local)
        helper = self._helper = LocalHelper(python, self._log, device)
        try:
            answer = helper.exchange({**order, **self._sampling}, LOAD_LIMIT_S)
        except HelperDied as died:
            answer = {"error": f"its process {died}"}
        if "error" in answer:
            helper.stop()
            self._helper = None
            raise VlmEvalError(
                f"The local model {self._model} could not be loaded: {answer['error']}."
                f" The last lines of its log, {self._log}:{helper.tail()}"
            )
        return helper


def write_prompt(request: Request) -> dict[str, Any]:
    """Return a prompt as the process with the model gets it."""
    turns = [
        [
            {"kind": "text", "text": part.text}
            if part.kind == "text"
            else {"kind": part.kind, "path": str(request.media_folder / part.media)}
            for part in turn
        ]
        for turn in request.turns
    ]
    origin = {} if request.origin is None else dict(request.origin)
    said = {"replies": request.replies, "system": request.system}
    return {"turns": turns, **said, **origin}


def read_reply(
    answer: Mapping[str, Any], more_tags: Sequence[TagPair] | None = ()
) -> Reply:
    """Return what the process with the model answered, without its thoughts."""
    reply = Reply(**answer)
    thoughts = split_thoughts(reply.text, more_tags)
    ends_in_thought = not thoughts.closed and reply.ending == "complete"
    return replace(
        reply,
        text=thoughts.answer,
        reasoning=thoughts.reasoning,
        finish_reason=UNCLOSED_THOUGHT if ends_in_thought else reply.finish_reason,
    )


def _settle(
    future: asyncio.Future[Reply], answer: dict[str, Any], request: Request
) -> None:
    if "error" in answer:
        future.set_exception(
            RequestError(
                f"the local model failed: {answer['error']}",
                kind="input",
                retryable=False,
            )
        )
        return
    try:
        future.set_result(read_reply(answer, request.prompting.tag_pairs))
    except Exception as error:
        why = f"the local model's answer cannot be read: {describe(error)}"
        future.set_exception(RequestError(why, kind="bug", retryable=False))
