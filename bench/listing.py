"""How soon `pytest --vlm-list` has its table, beside pytest's own start.

`python bench/listing.py` runs both in turn, in an empty folder, and prints the median
of each in seconds, from shell to shell. The first listing after an installation reads
ms-vlmeval's sources, which takes some seconds, and is not counted.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time


def seconds(argument: str, folder: str) -> float:
    """Run pytest with an argument; give how long it took."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "pytest", argument]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure in turn, so that other work on the machine slows both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=7, help="how often (default: 7)")
    times = parser.parse_args().times
    measured: dict[str, list[float]] = {"--version": [], "--vlm-list": []}
    with tempfile.TemporaryDirectory() as folder:
        seconds("--vlm-list", folder)
        for _ in range(times):
            for argument, each in measured.items():
                each.append(seconds(argument, folder))
    for argument, each in measured.items():
        print(f"pytest {argument:<11} {statistics.median(each):.2f} s")


if __name__ == "__main__":
    main()
