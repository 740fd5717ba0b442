"""Which datasets' checksums changed in VLMEvalKit's history, and when.

    python bench/data_versions.py VLMEVALKIT

VLMEVALKIT is a clone of https://github.com/open-compass/VLMEvalKit with its history.
Prints every dataset that had several checksums there: each with the first commit that
names it, and whether `versions.toml` lists it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from pytest_vlmeval.datasets.download import load_versions

ENTRY = re.compile(r"""^\+.*["']([\w.-]+)["']: *["']([0-9a-f]{32})["']""")


def git(clone: Path, *arguments: str) -> str:
    """Return what git prints."""
    done = subprocess.run(
        ["git", "-C", clone, *arguments], capture_output=True, check=True, text=True
    )
    return done.stdout


def read_history(clone: Path) -> Iterator[tuple[str, str, str, str]]:
    """Give name, checksum, date and commit of each that is named, oldest first."""
    log = git(
        clone, "log", "--reverse", "--no-merges", "--format=commit %h %cs", "-p",
        "-U0", "-G[0-9a-f]{32}", "--", "vlmeval",
    )  # fmt: skip
    commit = date = ""
    for line in log.splitlines():
        if line.startswith("commit "):
            _, commit, date = line.split()
        elif found := ENTRY.match(line):
            yield found[1], found[2], date, commit


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clone", type=Path, metavar="VLMEVALKIT")
    clone = parser.parse_args().clone
    first: dict[str, dict[str, str]] = {}
    for name, checksum, date, commit in read_history(clone):
        first.setdefault(name, {}).setdefault(checksum, f"{date} {commit}")
    known = load_versions()
    for name, sums in sorted(first.items()):
        listed = {each.md5 for each in known.get(name, ())}
        if len(sums) > 1:
            for checksum, when in sums.items():
                mark = "listed" if checksum in listed else "-"
                print(f"{name:32} {checksum} {when} {mark}")


if __name__ == "__main__":
    main()
