"""Tables of questions with gates: their files, their answers, what the store has."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.support.run_fixtures import Project, image_bytes, write_table
from tests.support.server_fixtures import ServerProcess

OWN = """
from pytest_vlmeval import Benchmark

class TestOwn(Benchmark):
    datasets = [{datasets}]
"""


def write_own(
    project: Project, *names: str, samples: int = 20, shared: int = 1
) -> None:
    """Write tables of open questions `NAME <n>?`, `shared` of them to an image."""
    shown = [
        base64.b64encode(image_bytes(n)).decode() for n in range(-(-samples // shared))
    ]
    for name in names:
        rows = [
            {
                "index": str(n),
                "question": f"{name} <{n}>?",
                "answer": "red",
                "category": "even" if n % 2 == 0 else "odd",
                "image": shown[n // shared],
            }
            for n in range(samples)
        ]
        write_table(project.pytester.path / f"{name}.tsv", rows)
    datasets = ", ".join(f"'{name}.tsv'" for name in names)
    project.pytester.makepyfile(test_own=OWN.format(datasets=datasets))


def answers(server: ServerProcess, *further: dict[str, object], **wrong: int) -> None:
    """Answer `red`, but for the first `wrong` questions of each dataset.

    Further rules are for what none of these is about.
    """
    rules: list[dict[str, object]] = [
        {"contains": f"{name} <{n}>", "answer": "blue"}
        for name, count in wrong.items()
        for n in range(count)
    ]
    server.control(default="red", rules=[*rules, *further])


def thresholds_of(project: Project) -> Path:
    """Return where a project has its thresholds."""
    return project.pytester.path / "thresholds.toml"


def gates(project: Project) -> list[dict[str, object]]:
    """Return what the store has of gates, in the order of datasets."""
    rows = project.stored("SELECT result FROM gates ORDER BY dataset, gate, metric")
    return [json.loads(str(result)) for (result,) in rows]


def newest_gates(project: Project) -> dict[tuple[str, str], dict[str, object]]:
    """Return what the newest of a dataset's gates found, by dataset and kind."""
    rows = project.stored("SELECT result FROM gates ORDER BY decided_at")
    found = [json.loads(str(result)) for (result,) in rows]
    return {(gate["dataset"], gate["gate"]): gate for gate in found}


def block(text: str) -> list[str]:
    """Make what a block says lines for `fnmatch_lines`, brackets taken literally."""
    lines = text.strip("\n").splitlines()
    return [line.replace("[", "[[]") for line in lines]
