"""Preparing a dataset: time and memory, beside ms-vlmeval's own loop.

`python bench/preparation.py` writes tables of multiple-choice rows with a JPEG of
448x336 each (about 31 kB, drawn from a seed), prepares each with this project's
sandbox and with ms-vlmeval itself in the same environment (its data set built, its
prompt built for every row, which saves the images), in turn, and prints both. The
large table is left to ms-vlmeval only with `--all`: it takes half an hour there.
"""

from __future__ import annotations

import argparse
import base64
import csv
import io
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.records import DatasetInfo
from pytest_vlmeval.sandbox.calls import describe_sandbox, prepare_in_sandbox
from pytest_vlmeval.sandbox.environment import ensure_environment
from pytest_vlmeval.sandbox.process import Sandbox

SIZE = (448, 336)
DRAWN = 64
JPEG_QUALITY = 44
# What ms-vlmeval's inference does before its first request.
UPSTREAM = """
import json, os, resource, sys, time, types
folder, table_folder = sys.argv[1:]
os.environ["LMUData"] = table_folder
for name, path in (("vlmeval", folder), ("vlmeval.dataset", folder + "/dataset")):
    sys.modules[name] = module = types.ModuleType(name)
    module.__path__ = [path]
from vlmeval.dataset.image_mcq import ImageMCQDataset
ImageMCQDataset.DATASET_MD5["MMStar"] = None
started = time.perf_counter()
dataset = ImageMCQDataset("MMStar")
for position in range(len(dataset.data)):
    dataset.build_prompt(dataset.data.iloc[position])
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"seconds": seconds, "peak_mb": peak / 1024}))
"""


def write_table(path: Path, megabytes: float | None, rows: int | None) -> int:
    """Write a table of so many rows, or so large; return the number of rows."""
    generator = random.Random(0)
    images = [_image(generator) for _ in range(DRAWN)]
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        names = ["index", "question", "A", "B", "C", "D", "answer", "category"]
        writer = csv.writer(file, delimiter="\t")
        writer.writerow([*names, "image"])
        while file.tell() < megabytes * 1e6 if megabytes else count < (rows or 0):
            text = [f"What is in image {count}?", "a", "b", "c", "d", "A", "any"]
            # A comment behind the image makes each content its own.
            image = images[count % DRAWN] + count.to_bytes(4, "big")
            writer.writerow([count, *text, base64.b64encode(image).decode()])
            count += 1
    return count


def _image(generator: random.Random) -> bytes:
    noise = Image.frombytes("RGB", (112, 84), generator.randbytes(112 * 84 * 3))
    out = io.BytesIO()
    noise.resize(SIZE, Image.Resampling.BICUBIC).save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def measure_ours(table: Path, python: Path) -> dict[str, float]:
    """Prepare in a sandbox that is up; its peak memory counts, not this process's."""
    info = DatasetInfo(
        name="MMStar",
        class_name="ImageMCQDataset",
        module="image_mcq",
        kind="multiple_choice",
        path=table,
    )
    sandbox = Sandbox(python)
    describe_sandbox(sandbox)
    with tempfile.TemporaryDirectory(dir=table.parent) as folder:
        started = time.perf_counter()
        prepare_in_sandbox(sandbox, info, table, Path(folder))
        seconds = time.perf_counter() - started
    sandbox.close()
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {"seconds": seconds, "peak_mb": peak / 1024}


def _run(command: list[str | Path]) -> dict[str, float]:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
    )
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000, help="of the small table")
    parser.add_argument("--megabytes", type=float, default=1_000, help="of the large")
    parser.add_argument("--all", action="store_true", help="the large one upstream too")
    parser.add_argument("--one", nargs=2, metavar=("TABLE", "PYTHON"))
    options = parser.parse_args()
    if options.one:
        table, python = map(Path, options.one)
        print(json.dumps(measure_ours(table, python)))
        return
    python = ensure_environment(
        Path.home() / ".cache" / "pytest-vlmeval",
        python=None,
        offline=False,
        announce=print,
    ).python
    package = locate_package(python).folder
    header = ("table", "rows", "MB", "seconds", "rows/s", "peak MB")
    print("{:28} {:>7} {:>7} {:>9} {:>8} {:>8}".format(*header))
    for rows, megabytes in ((options.rows, None), (None, options.megabytes)):
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            table = Path(folder, "MMStar.tsv")
            count = write_table(table, megabytes, rows)
            ours: list[str | Path] = [sys.executable, __file__, "--one", table, python]
            theirs: list[str | Path] = [python, "-c", UPSTREAM, package, folder]
            runs = {"pytest-vlmeval": ours}
            if rows or options.all:
                runs["ms-vlmeval"] = theirs
            size_mb = table.stat().st_size / 1e6
            for name, command in runs.items():
                found = _run(command)
                seconds, peak = found["seconds"], found["peak_mb"]
                print(
                    f"{name:28} {count:7} {size_mb:7.0f} {seconds:9.1f} "
                    f"{count / seconds:8.0f} {peak:8.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
