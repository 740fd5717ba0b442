"""A model that runs here: the batched path against ms-vlmeval's own loop.

    python -m bench.local          on a GPU: Qwen2-VL's shapes of 2B and 7B
    python -m bench.local --cpu    on the processor: the checkpoint of the demo model

Both load the same weights and answer the same questions, greedily. On a GPU the weights
are random and each answer has 64 tokens. The environment with torch and ms-vlmeval is
that of the tests (`make model-environment`), or of `--python`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from demo_model.checkpoint import write_checkpoint
from demo_model.questions import benchmark_prompt
from demo_model.tables import TABLES, held_out_samples, png_bytes
from pytest_vlmeval.models.client import Request
from pytest_vlmeval.models.local import LocalClient, find_devices, write_prompt
from pytest_vlmeval.records import PromptPart
from pytest_vlmeval.settings.groups import LocalModel
from tests.support.model_environment import ensure_model_environment

INSIDE = Path(__file__).with_name("local_inside.py")
# From the published configurations: hidden size, layers, heads, key-value heads, width
# of the feed-forward layers; the vision tower is that of both.
SHAPES = {
    "2B": (1536, 28, 12, 2, 8960),
    "7B": (3584, 28, 28, 4, 18944),
}
VISION = {"embed_dim": 1280, "depth": 32, "num_heads": 16, "mlp_ratio": 4}
# What each image comes to on a GPU, an area in pixels.
PIXELS = 448 * 448
GPU_TOKENS = 64
CPU_TOKENS = 16
POLL_S = 0.05
NO_GPU = (
    "There is no GPU here (nvidia-smi names none), so nothing was measured. "
    "--cpu measures the demo model on the processor."
)


class Measured(NamedTuple):
    """How long all the questions took, without the loading, and the answers."""

    seconds: float
    answers: Sequence[str]


class IdleMeter:
    """The share of the time in which the GPU is idle, as its driver sees it."""

    def __init__(self) -> None:
        self._values: list[float] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        query = ["nvidia-smi", "--query-gpu=utilization.gpu"]
        query += ["--format=csv,noheader,nounits", "-i", "0"]
        while not self._ended.wait(POLL_S):
            told = subprocess.run(query, capture_output=True, text=True, check=False)
            if told.stdout.strip().isdigit():
                self._values.append(float(told.stdout))

    def __enter__(self) -> Self:
        if find_devices(None):
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def idle(self) -> float | None:
        """From 0 to 1, the loading left out; None without a GPU."""
        busy = self._values
        if not busy:
            return None
        first = next((n for n, value in enumerate(busy) if value), 0)
        return 1 - sum(busy[first:]) / (100 * max(1, len(busy) - first))


def write_questions(folder: Path, count: int) -> list[Request]:
    """Write the images of the demo's questions; return its prompts, over and over."""
    prompts: list[Request] = []
    for table in TABLES:
        for sample in held_out_samples(table):
            name = f"{len(prompts)}.png"
            (folder / name).write_bytes(png_bytes(sample.image))
            image = PromptPart(kind="image", media=name, media_type="image/png")
            text = PromptPart(kind="text", text=benchmark_prompt(sample))
            prompts.append(Request(turns=((image, text),), media_folder=folder))
    return [prompts[number % len(prompts)] for number in range(count)]


def run_loop(
    python: Path, checkpoint: Path, requests: Sequence[Request], max_tokens: int
) -> Measured:
    """Ask by ms-vlmeval's own loop and class."""
    order = {
        "class_name": "Qwen2VLChat",
        "module": "qwen2_vl",
        "arguments": {"model_path": str(checkpoint), "use_custom_prompt": False},
        "prompts": [write_prompt(request) for request in requests],
        "temperature": 0,
        "max_tokens": max_tokens,
    }
    found = run(python, "loop", order, checkpoint.parent)
    return Measured(found["seconds"], found["answers"])


async def run_batches(
    python: Path,
    checkpoint: Path,
    requests: Sequence[Request],
    max_tokens: int,
    batch_size: int,
) -> Measured:
    """Ask as a run does: through the client, twice as many in flight as a batch has."""
    client = LocalClient(
        LocalModel(path=str(checkpoint), python=python, batch_size=batch_size),
        model="random",
        max_tokens=max_tokens,
        temperature=0,
        timeout_s=600,
        log=checkpoint.parent / "local.log",
    )
    room = asyncio.Semaphore(2 * batch_size)

    async def ask(request: Request) -> str:
        async with room:
            return (await client.ask(request)).text

    try:
        await ask(requests[0])  # loads the weights
        started = time.perf_counter()
        answers = await asyncio.gather(*map(ask, requests))
        return Measured(time.perf_counter() - started, answers)
    finally:
        await client.close()


def run(python: Path, job: str, order: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one job in the environment with torch; return what it printed."""
    path = folder / "order.json"
    path.write_text(json.dumps(order), encoding="utf-8")
    done = subprocess.run(
        [str(python), "-I", "-X", "utf8", str(INSIDE), job, str(path)],
        stdout=subprocess.PIPE,
        stderr=(folder / "log").open("ab"),
        text=True,
        check=False,
    )
    if done.returncode:
        shown = (folder / "log").read_text(encoding="utf-8")[-2000:]
        raise SystemExit(f"{job} ended with exit status {done.returncode}:\n{shown}")
    lines = done.stdout.strip().splitlines()
    result: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return result


def compare(
    python: Path,
    checkpoint: Path,
    requests: Sequence[Request],
    max_tokens: int,
    sizes: Sequence[int],
) -> None:
    """Print samples per second of both, and how often their answers are the same."""
    given = python, checkpoint, requests, max_tokens
    ways: dict[str, Callable[[], Measured]] = {
        "ms-vlmeval's loop": lambda: run_loop(*given)
    }
    for size in sizes:
        ways[f"batches of {size}"] = partial(
            lambda size: asyncio.run(run_batches(*given, size)), size
        )
    reference: Measured | None = None
    for name, way in ways.items():
        with IdleMeter() as meter:
            found = way()
        reference = reference or found
        same = sum(
            mine.strip() == theirs.strip()
            for mine, theirs in zip(found.answers, reference.answers, strict=True)
        )
        idle = "" if meter.idle is None else f", the GPU idle {meter.idle:.0%}"
        print(
            f"{name:18} {len(requests) / found.seconds:8.2f} samples/s, "
            f"{reference.seconds / found.seconds:5.2f} times the loop, "
            f"{same} of {len(requests)} answers the same{idle}",
            flush=True,
        )


def shaped(folder: Path, shape: str, python: Path) -> Path:
    """Write a checkpoint of that shape with random weights."""
    checkpoint = folder / shape
    write_checkpoint(checkpoint)
    path = checkpoint / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    hidden, layers, heads, pairs, width = SHAPES[shape]
    config |= {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": pairs,
        "intermediate_size": width,
        "rope_theta": 1_000_000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "max_position_embeddings": 32_768,
        "torch_dtype": "bfloat16",
    }
    config["vision_config"] |= {**VISION, "hidden_size": hidden}
    path.write_text(json.dumps(config), encoding="utf-8")
    path = checkpoint / "preprocessor_config.json"
    images = json.loads(path.read_text(encoding="utf-8"))
    images |= {"min_pixels": PIXELS, "max_pixels": PIXELS}
    path.write_text(json.dumps(images), encoding="utf-8")
    (checkpoint / "model.safetensors").unlink()
    run(python, "write", {"path": str(checkpoint)}, folder)
    return checkpoint


def main() -> None:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="the demo's checkpoint")
    parser.add_argument("--samples", type=int, default=120)
    parser.add_argument("--python", type=Path, help="has torch and ms-vlmeval")
    given = parser.parse_args()
    if not given.cpu and not (shutil.which("nvidia-smi") and find_devices(None)):
        print(NO_GPU)
        return
    python = given.python or ensure_model_environment() / "bin" / "python"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        requests = write_questions(folder, given.samples)
        if given.cpu:
            write_checkpoint(folder / "demo")
            compare(python, folder / "demo", requests, CPU_TOKENS, (1, 8, 16))
            return
        for shape in SHAPES:
            started = time.perf_counter()
            checkpoint = shaped(folder, shape, python)
            print(f"{shape}: written in {time.perf_counter() - started:.0f} s")
            compare(python, checkpoint, requests, GPU_TOKENS, (1, 16))
            shutil.rmtree(checkpoint)


if __name__ == "__main__":
    main()
