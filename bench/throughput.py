"""The whole command on a fixed piece of work, from shell to shell.

`python bench/throughput.py` starts an endpoint in a process of its own that answers
after 100 ms, writes a table of 2,000 samples with a JPEG of about 31 kB each (448x336),
and evaluates it with 128 connections; then once more, with every answer stored.
`--evalscope` and `--ms-vlmeval` take the interpreters of environments in which these
are installed, and run their commands on the same samples in turn.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import peers
from PIL import Image

HERE = Path(__file__).parent
MODEL = "tiny-vlm"
SIZE = (448, 336)
IMAGE_BYTES = 31_000
NAME = "Throughput"
# What a user's environment has of pytest's plugins, and Python's usual caching.
USERS = {"PYTHONDONTWRITEBYTECODE": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
PLUGINS = ("-p", "vlmeval", "-p", "xdist", "-p", "syrupy")
BENCHMARK = """
from pytest_vlmeval import Benchmark

class TestThroughput(Benchmark):
    datasets = ["{table}"]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One command: its seconds, those of its inference, and its processor time."""

    name: str
    whole_s: float
    inference_s: float
    requests: int
    cpu_s: float
    memory_mb: float
    status: int


def draw_image(seed: int) -> bytes:
    """Draw a JPEG of about `IMAGE_BYTES`: a coarse pattern under fine noise."""
    noise = random.Random(seed)
    coarse = Image.frombytes("RGB", (56, 42), noise.randbytes(56 * 42 * 3))
    out = io.BytesIO()
    coarse.resize(SIZE, Image.Resampling.BICUBIC).save(out, "JPEG", quality=75)
    return out.getvalue()


def write_table(path: Path, samples: int, images: int = 200) -> int:
    """Write a multiple-choice table; return the mean size of its images in bytes."""
    drawn = [draw_image(seed) for seed in range(min(samples, images))]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(("index", "image", "question", *"ABCD", "answer", "category"))
        for index in range(samples):
            # A comment segment of its own makes every image another one.
            data = drawn[index % len(drawn)]
            own = f"{index:08}".encode()
            data = data[:2] + b"\xff\xfe\x00\x0a" + own + data[2:]
            image = base64.b64encode(data).decode()
            question = f"What is in image {index}?"
            options = ("a cat", "a dog", "a bird", "a fish")
            answer = "ABCD"[index % 4]
            writer.writerow((index, image, question, *options, answer, "animals"))
    return sum(map(len, drawn)) // len(drawn)


@contextmanager
def endpoint(latency_s: float) -> Iterator[str]:
    """Run the endpoint; give its base URL."""
    command = [sys.executable, str(HERE / "endpoint.py"), "--latency", str(latency_s)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def stats(url: str) -> dict[str, float]:
    """Read what the endpoint counted since the last time."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"{url}/stats?clear") as response:
        counted: dict[str, float] = json.load(response)
        return counted


def measure(
    name: str,
    url: str,
    command: Sequence[str],
    folder: Path,
    environment: dict[str, str],
) -> Result:
    """Run a command from shell to shell."""
    stats(url)
    log = folder / f"{name.replace(' ', '-')}.log"
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("w") as output:
        status = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | USERS | environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode
    whole_s = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    counted = stats(url)
    return Result(
        name=name,
        whole_s=whole_s,
        inference_s=counted["span_s"],
        requests=int(counted.get("requests", 0)),
        cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        memory_mb=after.ru_maxrss / 1024,
        status=status,
    )


def ours(url: str, folder: Path, arguments: argparse.Namespace) -> Iterator[Result]:
    """Run this project's command: prepared ahead, then again with all stored."""
    (folder / "test_throughput.py").write_text(
        BENCHMARK.format(table=folder / f"{NAME}.tsv")
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [*PLUGINS, "--vlm-allow-missing-baseline"]
    command += [f"--vlm-model={MODEL}", f"--vlm-api-base={url}"]
    command += [f"--vlm-concurrency={arguments.concurrency}", *arguments.pytest]
    environment = {"VLM_WORK_DIR": str(folder / "work")}
    if arguments.cache is None:
        environment["VLM_CACHE_DIR"] = str(folder / "cache")
    prepare = [*command, "--collect-only"]
    yield measure("preparing", url, prepare, folder, environment)
    yield measure("pytest-vlmeval", url, command, folder, environment)
    yield measure("all stored", url, command, folder, environment)


def others(url: str, folder: Path, arguments: argparse.Namespace) -> Iterator[Result]:
    """Run the commands of other programs, where they are installed."""
    known = {
        peers.evalscope: arguments.evalscope,
        peers.ms_vlmeval: arguments.ms_vlmeval,
    }
    for make, python in known.items():
        if python is not None:
            table = folder / f"{NAME}.tsv"
            peer = make(python, table, url, MODEL, arguments.concurrency)
            yield measure(peer.name, url, peer.command, folder, peer.environment)


def show(results: Sequence[Result], reference: Result) -> None:
    """Print the table."""
    print(
        f"{'command':24}{'whole':>9}{'ratio':>7}{'inference':>11}{'requests/s':>12}"
        f"{'CPU':>8}{'memory':>9}"
    )
    for each in results:
        rate = each.requests / each.inference_s if each.inference_s else 0
        note = "" if each.status == 0 else f"  exit code {each.status}"
        print(
            f"{each.name:24}{each.whole_s:7.2f} s"
            f"{each.whole_s / reference.whole_s:7.1f}"
            f"{each.inference_s:9.2f} s{rate:12.0f}{each.cpu_s:6.1f} s"
            f"{each.memory_mb:6.0f} MB{note}"
        )


def main() -> None:
    """Run every command in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--concurrency", default="128")
    parser.add_argument("--latency", type=float, default=0.1, help="seconds")
    parser.add_argument("--folder", type=Path, help="keep table, logs and store here")
    parser.add_argument("--evalscope", type=Path, metavar="PYTHON")
    parser.add_argument("--ms-vlmeval", type=Path, metavar="PYTHON")
    parser.add_argument("--cache", help="'shared': the cache of the user's own runs")
    parser.add_argument("pytest", nargs="*", help="further arguments of pytest")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, endpoint(arguments.latency) as url:
        folder = arguments.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        size = write_table(folder / f"{NAME}.tsv", arguments.samples)
        print(f"{arguments.samples} samples, one JPEG of {size / 1000:.0f} kB each")
        results = [*ours(url, folder, arguments), *others(url, folder, arguments)]
        show(results, results[1])


if __name__ == "__main__":
    main()
