"""What the plugin adds to every pytest session: the time of its imports.

`python bench/start_up.py` imports, in processes of their own and in turn, what a
session without benchmarks imports of the plugin after pytest, and what `import pytest`
itself costs, and prints the smallest and the middle of all runs: wall and processor
time, in ms. The plugin stays under 50 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

PLUGIN = (
    "pytest_vlmeval.plugin, pytest_vlmeval.suite.fixtures, "
    "pytest_vlmeval.settings, pytest_vlmeval.suite.session"
)
TIMED = """
import json, time
{before}
wall, processor = time.perf_counter(), time.process_time()
import {modules}
print(json.dumps([time.perf_counter() - wall, time.process_time() - processor]))
"""
COST = {
    "import pytest": TIMED.format(before="", modules="pytest"),
    "the plugin, after pytest": TIMED.format(before="import pytest", modules=PLUGIN),
}


def _measure(script: str) -> tuple[float, float]:
    """Return wall and processor time of one process's import, in ms."""
    out = subprocess.check_output([sys.executable, "-c", script])
    wall_s, processor_s = json.loads(out)
    return 1000 * wall_s, 1000 * processor_s


def main() -> None:
    """Run all in turn and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="processes of each kind")
    runs: int = parser.parse_args().runs
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in COST}
    for _ in range(runs):
        for name, script in COST.items():
            found[name].append(_measure(script))
    head = ("ms, of all runs", "wall min", "median", "CPU min", "median")
    print("{:26} {:>9} {:>9} {:>9} {:>9}".format(*head))
    for name, times in found.items():
        wall, processor = zip(*times, strict=True)
        figures = [
            figure
            for each in (wall, processor)
            for figure in (min(each), statistics.median(each))
        ]
        print(f"{name:26} " + " ".join(f"{figure:9.1f}" for figure in figures))


if __name__ == "__main__":
    main()
