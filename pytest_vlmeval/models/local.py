"""A model that runs here: what it needs, and the client of its process."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytest_vlmeval.errors import VlmEvalError, describe, did_you_mean
from pytest_vlmeval.models.chat import input_error, split_thoughts
from pytest_vlmeval.models.client import UNCLOSED_THOUGHT, Reply, RequestError
from pytest_vlmeval.models.evidence import describe_checkpoint

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import Request
    from pytest_vlmeval.settings.groups import LocalModel, TagPair


class ModelClass(NamedTuple):
    """A model of `vlmeval/config.py`: its class, and the module of `vlmeval.vlm`.

    `arguments` are those of the configuration that are plain values.
    """

    class_name: str
    module: str
    arguments: Mapping[str, Any]


def read_models(package: Path) -> dict[str, ModelClass]:
    """Read every local model by its name in the order of the file.

    `package` is the folder of ms-vlmeval. Models behind an API are left out.
    """
    modules = _modules(package)
    tree = ast.parse((package / "config.py").read_text(encoding="utf-8"))
    found = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Dict):
            continue
        for entry in zip(node.keys, node.values, strict=True):
            match entry:
                case (
                    ast.Constant(value=name),
                    ast.Call(
                        func=ast.Name(id="partial"),
                        args=[ast.Attribute(ast.Name(id="vlm"), class_name), *_],
                        keywords=keywords,
                    ),
                ) if class_name in modules:
                    values = {each.arg: _plain(each.value) for each in keywords}
                    arguments = {
                        key: value
                        for key, value in values.items()
                        if key is not None and value is not None
                    }
                    found[str(name)] = ModelClass(
                        class_name, modules[class_name], arguments
                    )
    return found


def find_model(name: str, package: Path) -> ModelClass:
    """Return a model by its name; `VlmEvalError` where there is none."""
    models = read_models(package)
    if name in models:
        return models[name]
    question = did_you_mean(name, models, cutoff=0.5)
    raise VlmEvalError(
        f"ms-vlmeval has no local model {name!r}.{question} `pytest --vlm-list-models` "
        "names them all. A checkpoint that transformers loads by itself needs only its "
        "folder: --vlm-model-path=DIR."
    )


def find_class(name: str, package: Path) -> ModelClass:
    """Return a class by its name, without arguments; `VlmEvalError` for none."""
    modules = _modules(package)
    if name in modules:
        return ModelClass(name, modules[name], {})
    question = did_you_mean(name, modules)
    raise VlmEvalError(
        f"ms-vlmeval has no class {name!r} that loads a model.{question} A model "
        "behind an API is asked by the address of an OpenAI-compatible endpoint: "
        "--vlm-api-base, in a task file name: CustomAPIModel with type and api_base."
    )


def _modules(package: Path) -> dict[str, str]:
    """Return which module of `vlmeval.vlm` has each class."""
    text = (package / "vlm" / "__init__.py").read_text(encoding="utf-8")
    return {
        alias.asname or alias.name: str(node.module)
        for node in ast.parse(text).body
        if isinstance(node, ast.ImportFrom) and node.level == 1
        for alias in node.names
    }


def _plain(node: ast.expr) -> Any:
    """Return the value of an expression of constants, None for another."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        factors = _plain(node.left), _plain(node.right)
        if all(isinstance(factor, int | float) for factor in factors):
            return factors[0] * factors[1]
        return None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return None


QUERY_LIMIT_S = 30.0


def find_devices(visible: str | None) -> tuple[str, ...]:
    """Return what CUDA_VISIBLE_DEVICES calls each GPU; none without a driver.

    `visible` is that variable's own value, None if it is unset.
    """
    if visible is not None:
        return tuple(name.strip() for name in visible.split(",") if name.strip())
    return tuple(_ask_driver("index"))


def _ask_driver(query: str, *options: str) -> list[str]:
    """Return the words that nvidia-smi answers; none where it is not, or fails."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        listed = subprocess.run(
            [
                *(program, f"--query-gpu={query}", *options),
                "--format=csv,noheader,nounits",
            ],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=QUERY_LIMIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.split()


def choose_devices(
    copies: int, visible: str | None, given: str
) -> Sequence[str | None]:
    """Return the GPU of each copy of a model, None for what it finds by itself.

    One copy alone takes all there is. Without any GPU each runs on the processor.
    Raises `VlmEvalError` for more copies than GPUs, which names what was `given`.
    """
    if copies == 1:
        return [None]
    devices = find_devices(visible)
    if not devices:
        return [None] * copies
    if copies > len(devices):
        raise VlmEvalError(
            f"{given} makes {copies} copies of the model, each on a GPU of its own, "
            f"and there are {len(devices)} GPUs here ({', '.join(devices)}). Give at "
            f"most {len(devices)}, or more devices with CUDA_VISIBLE_DEVICES."
        )
    return devices[:copies]


PROBE = (
    "import importlib.util as u\n"
    "print(*(n for n in ('torch', 'transformers', 'PIL') if u.find_spec(n) is None))"
)
PROBE_LIMIT_S = 60
# Weights on disk, and what computing with them takes at the least.
ROOM = 1.1


def check_model(model: str, local: LocalModel) -> None:
    """Raise `VlmEvalError` for what would only show after minutes of loading."""
    python = _python(local)
    try:
        probe = subprocess.run(
            [python, "-I", "-c", PROBE],
            capture_output=True,
            text=True,
            timeout=PROBE_LIMIT_S,
            check=True,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise VlmEvalError(
            f"--vlm-local-python={python} is not a working Python: {error}"
        ) from None
    missing = probe.stdout.split()
    if missing:
        raise VlmEvalError(
            f"--vlm-backend=local needs {', '.join(missing)}, not installed in the "
            f"environment of {python}. Install it there: "
            f"{shlex.quote(str(python))} -m pip install 'pytest-vlmeval[vlmeval]', or "
            "give the Python of another environment with --vlm-local-python."
        )
    _, _, device = order_of(model, local)
    _check_memory(local, device)


def order_of(model: str, local: LocalModel) -> tuple[dict[str, Any], Path, str | None]:
    """Return what the helper is to load, its interpreter, and its device.

    A name that ms-vlmeval has a class for takes that class, any other is the checkpoint
    in the folder that is given. Raises `VlmEvalError` where there is neither.
    """
    python = _python(local)
    configurations = python.parent.parent.glob(
        "lib/python3*/site-packages/vlmeval/config.py"
    )
    package = next((path.parent for path in configurations), None)
    given = f"-n {local.replicas}"
    devices = choose_devices(local.replicas, local.visible_devices, given)
    device = devices[local.replica]
    path = None if local.path is None else Path(local.path).expanduser()
    known = None
    if package is not None:
        known = read_models(package).get(model)
        if local.class_name and (known is None or known.class_name != local.class_name):
            known = find_class(local.class_name, package)
    if known is not None:
        arguments = {**known.arguments, **local.arguments}
        if path is not None:
            arguments["model_path"] = str(path)
        return {**known._asdict(), "arguments": arguments}, python, device
    if path is None or local.class_name:
        if package is not None:
            find_model(model, package)
        raise VlmEvalError(
            f"--vlm-model={model}: give the folder of its checkpoint with "
            "--vlm-model-path=DIR, or a name of `pytest --vlm-list-models`, for which "
            "ms-vlmeval has to be installed in the same environment."
        )
    folder = path.absolute()
    if not (folder / "config.json").is_file():
        raise VlmEvalError(
            f"--vlm-model-path={local.path} is not the folder of a checkpoint: there "
            "is no config.json in it. Give one that transformers can load."
        )
    arguments = dict(local.arguments)
    order = {"class_name": "", "path": str(folder), "arguments": arguments}
    return order, python, device


def _python(local: LocalModel) -> Path:
    return Path(sys.executable) if local.python is None else local.python.expanduser()


def _check_memory(local: LocalModel, device: str | None) -> None:
    """Raise where the weights alone are more than there is room for."""
    folder = Path(local.path or "").expanduser()
    if not local.path or not folder.is_dir():
        return
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    devices = find_devices(local.visible_devices)
    copies = 1 if devices else local.replicas
    free, where = None, "this machine"
    meminfo = Path("/proc/meminfo")
    if devices and shutil.which("nvidia-smi"):
        chosen = ",".join(devices if device is None else (device,))
        words = _ask_driver("memory.free", "-i", chosen)
        # nvidia-smi counts MiB.
        numbers = [float(word) * 2**20 for word in words if word.isdigit()]
        free, where = sum(numbers) if numbers else None, f"GPU {chosen}"
    elif meminfo.exists():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                free = float(line.split()[1]) * 1024
    if free is not None and weights * ROOM * copies > free:
        raise VlmEvalError(
            f"The weights in {folder} are {weights / 1e9:.1f} GB"
            f"{f', and -n {copies} loads them {copies} times' if copies > 1 else ''}; "
            f"{where} has {free / 1e9:.1f} GB free. Free some, use fewer workers, or "
            "a smaller model."
        )


HELPER = Path(__file__).parent / "inside" / "serve.py"
# How long a batch waits for more prompts than the first.
GATHER_S = 0.02
LOAD_LIMIT_S = 1800.0
TAIL_BYTES = 16_000
TAIL_LINES = 15
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
LONGEST_LINE = 1 << 30  # bytes of the answers to a batch
# A helper that dies is started anew so often, in one run.
MOST_STARTS = 3


def last_lines(log: Path) -> str:
    """Return the last lines of a process's log, each below the one before."""
    with log.open("rb") as file:
        file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
        text = COLOURS.sub("", file.read().decode("utf-8", errors="replace"))
    lines = [line for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return "".join(f"\n    {line}" for line in lines[-TAIL_LINES:])


class HelperDied(Exception):
    """The helper process is gone, or did not answer in time."""


class LocalClient:
    """Asks a model in a helper process; the weights load with the first prompt.

    Prompts that wait at the same time are answered together, `batch_size` at most.
    `timeout_s` is the deadline of a batch. `log` gets what the model's libraries print.
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
        self._waiting: asyncio.Queue[tuple[Request, asyncio.Future[Reply]]]
        self._waiting = asyncio.Queue()
        self._gathering: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._starts = 0

    async def check(self) -> None:
        """Raise `VlmEvalError` for what stands against it, before anything loads."""
        await asyncio.to_thread(check_model, self._model, self._local)

    async def describe(self) -> Mapping[str, str]:
        """Return the checksum of the weights, or the commit of their repository."""
        local = self._local
        order, _, _ = await asyncio.to_thread(order_of, self._model, local)
        path = order.get("path") or order["arguments"].get("model_path")
        path = path if isinstance(path, str) else None
        caches = local.checksums, local.hub_cache
        return await asyncio.to_thread(describe_checkpoint, path, *caches)

    async def ask(self, request: Request) -> Reply:
        """Answer one prompt, in a batch with others that wait."""
        if self._gathering is None:
            self._gathering = asyncio.create_task(self._gather())
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((request, future))
        return await future

    async def close(self) -> None:
        """End the helper process; a batch under way is dropped."""
        if self._gathering is not None:
            self._gathering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._gathering
        await self._stop()

    async def _gather(self) -> None:
        """Answer batch after batch, each of what waits when the one before is done."""
        while True:
            batch = [await self._waiting.get()]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(GATHER_S):
                    while len(batch) < self._local.batch_size:
                        batch.append(await self._waiting.get())
            try:
                answers = await self._answer([write_prompt(each) for each, _ in batch])
            except (RequestError, VlmEvalError) as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (request, future), answer in zip(batch, answers, strict=True):
                if future.done():
                    continue
                try:
                    reply = read_reply(answer, request.prompting.tag_pairs)
                except RequestError as error:
                    future.set_exception(error)
                else:
                    future.set_result(reply)

    async def _answer(self, prompts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        process = self._process or await self._start()
        try:
            answer = await self._exchange(
                process, {"prompts": prompts}, self._timeout_s
            )
        except HelperDied as died:
            raise RequestError(
                f"the process of the local model {died}; its last lines:"
                f"{last_lines(self._log)}",
                kind="connection",
            ) from None
        if "error" in answer:
            raise RequestError(answer["error"], kind="protocol", retryable=False)
        replies: list[dict[str, Any]] = answer["replies"]
        return replies

    async def _start(self) -> asyncio.subprocess.Process:
        """Start the process and load the model."""
        if self._starts == MOST_STARTS:
            raise VlmEvalError(
                f"The process of the local model died {MOST_STARTS} times; its log is "
                f"{self._log}. Where memory ran out, give a smaller --vlm-batch-size."
            )
        self._starts += 1
        order, python, device = await asyncio.to_thread(
            order_of, self._model, self._local
        )
        chosen = [] if device is None else ["env", f"CUDA_VISIBLE_DEVICES={device}"]
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as errors:
            # It ends with its standard input, so it does not outlive this process.
            process = self._process = await asyncio.create_subprocess_exec(
                *chosen,
                *(str(python), "-I", "-X", "utf8", str(HELPER)),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                limit=LONGEST_LINE,
            )
        try:
            answer = await self._exchange(
                process, {**order, **self._sampling}, LOAD_LIMIT_S
            )
        except HelperDied as died:
            answer = {"error": f"its process {died}"}
        if "error" in answer:
            await self._stop()
            raise VlmEvalError(
                f"The local model {self._model} could not be loaded: {answer['error']}."
                f" The last lines of its log, {self._log}:{last_lines(self._log)}"
            )
        return process

    async def _exchange(
        self,
        process: asyncio.subprocess.Process,
        message: Mapping[str, Any],
        limit_s: float,
    ) -> dict[str, Any]:
        """Send one message and return the answer; `HelperDied` without one."""
        assert process.stdin is not None
        assert process.stdout is not None
        line = b""
        try:
            async with asyncio.timeout(limit_s):
                process.stdin.write(json.dumps(message).encode() + b"\n")
                with contextlib.suppress(ConnectionError):
                    await process.stdin.drain()
                    line = await process.stdout.readline()
        except TimeoutError:
            reason = f"gave no answer within {limit_s:g} s"
        else:
            if line.endswith(b"\n"):
                answer: dict[str, Any] = json.loads(line)
                return answer
            reason = f"ended with exit status {await process.wait()}"
        await self._stop()
        raise HelperDied(reason)

    async def _stop(self) -> None:
        """End the process at once."""
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


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
    """Return what the process with the model answered, without its thoughts.

    Raises `RequestError` of kind "input" for a prompt that it could not answer, and
    "bug" for an answer that cannot be read.
    """
    if "error" in answer:
        raise input_error(f"the local model failed: {answer['error']}")
    try:
        reply = Reply(**answer)
        thoughts = split_thoughts(reply.text, more_tags)
    except Exception as error:
        why = f"the local model's answer cannot be read: {describe(error)}"
        raise RequestError(why, kind="bug") from None
    ends_in_thought = not thoughts.closed and reply.ending == "complete"
    return replace(
        reply,
        text=thoughts.answer,
        reasoning=thoughts.reasoning,
        finish_reason=UNCLOSED_THOUGHT if ends_in_thought else reply.finish_reason,
    )
