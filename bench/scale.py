"""Cost per sample and memory, from 1,000 samples to 100,000.

`python bench/scale.py` starts `endpoint.py` in a process of its own, which answers at
once, and evaluates tables of growing size (an open question and one of a hundred small
images each): first the whole command with everything prepared, then the same again
with every answer stored. Seconds are from shell to shell, collection and scoring
included. Processor time is that of pytest and its helpers without the endpoint, in ms
for each sample; a machine that does other work changes it less. Memory is the most that
pytest's own process had resident.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from throughput import PLUGINS, USERS

HERE = Path(__file__).parent
IMAGES = 100
BENCHMARK = """
from pytest_vlmeval import Benchmark

class TestScale(Benchmark):
    datasets = ["{name}.tsv"]
"""


class Cost(NamedTuple):
    """What one command took; `processor_s` with that of its children."""

    seconds: float
    processor_s: float
    memory_mb: float


def write_table(path: Path, samples: int) -> None:
    """Write a table of one's own with as many questions."""
    images = []
    for seed in range(IMAGES):
        colour = random.Random(seed).randbytes(3)
        out = io.BytesIO()
        Image.new("RGB", (64, 48), tuple(colour)).save(out, "PNG")
        images.append(base64.b64encode(out.getvalue()).decode())
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "question", "answer", "image"])
        for number in range(samples):
            question = f"What is number {number} in the image?"
            answer = "a thing" if number % 2 else "something else"
            image = images[number % IMAGES]
            writer.writerow([number, question, answer, image])


def run(folder: Path, *arguments: str) -> Cost:
    """Run pytest and watch the memory of its process."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [*PLUGINS, "--vlm-allow-missing-baseline"]
    started, processor = time.perf_counter(), _processor_s()
    process = subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env=os.environ | USERS,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    most = 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.05):
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            most = max(most, int(found[1]) / 1024 if found else 0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - started
    done.set()
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(output[-3000:])
    return Cost(seconds, _processor_s() - processor, most)


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(folder: Path, samples: int, url: str, arguments: Sequence[str]) -> str:
    """Evaluate a table of this size twice; return its line of the table."""
    name = f"Scale{samples}"
    write_table(folder / f"{name}.tsv", samples)
    test = folder / f"test_scale_{samples}.py"
    test.write_text(BENCHMARK.format(name=name), encoding="utf-8")
    work_dir = f"--vlm-work-dir={folder / name}"
    collected = [test.name, work_dir, *arguments]
    run(folder, *collected, "--collect-only")  # prepares
    collection = run(folder, *collected, "--collect-only")
    asked = [*collected, "--vlm-model=tiny-vlm", f"--vlm-api-base={url}"]
    first = run(folder, *asked)
    again = run(folder, *asked)
    store_mb = (folder / name / "store.sqlite").stat().st_size / 2**20
    return (
        f"{samples:>9,} {collection.seconds:10.1f} {first.seconds:10.1f} "
        f"{1000 * first.processor_s / samples:10.2f} {again.seconds:10.1f} "
        f"{1000 * again.processor_s / samples:10.2f} {first.memory_mb:10.0f} "
        f"{again.memory_mb:10.0f} {store_mb:10.0f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--samples",
        type=int,
        nargs="+",
        default=[1_000, 3_000, 10_000, 30_000, 100_000],
    )
    parser.add_argument("arguments", nargs="*", help="further arguments for pytest")
    given = parser.parse_args()
    endpoint = subprocess.Popen(
        [sys.executable, str(HERE / "endpoint.py"), "--latency=0", "--answer=a thing"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert endpoint.stdout is not None
    url = endpoint.stdout.readline().strip()
    os.environ.setdefault("LMUData", tempfile.gettempdir())
    try:
        headings = "collect s,first s,CPU ms,again s,CPU ms,first MB,again MB,store MB"
        columns = " ".join(f"{each:>10}" for each in headings.split(","))
        print(f"{'samples':>9} {columns}")
        with tempfile.TemporaryDirectory() as name:
            for samples in given.samples:
                line = measure(Path(name), samples, url, given.arguments)
                print(line, flush=True)
    finally:
        endpoint.kill()


if __name__ == "__main__":
    main()
