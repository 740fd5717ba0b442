"""Baselines as records."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from pytest_vlmeval.gates.baseline_file import Baseline, BaselineVerdict


def make_verdicts(count: int, seed: int = 0) -> tuple[BaselineVerdict, ...]:
    """Make right and wrong verdicts in six categories, and some that are missing."""
    rng = random.Random(seed)
    return tuple(
        BaselineVerdict(
            index=str(index),
            category=f"category {index % 6}",
            value=rng.choice([1.0, 1.0, 0.0, 0.0, None]),
        )
        for index in range(1, count + 1)
    )


def make(verdicts: tuple[BaselineVerdict, ...]) -> Baseline:
    """Make a baseline of these verdicts."""
    return Baseline(
        model="tiny",
        dataset="Table",
        main_metric="Overall",
        value=50.0,
        scale=100,
        metrics={"Overall": 50.0, "category 1": 40.0},
        samples=len(verdicts),
        answered=len(verdicts),
        correct=3,
        data={"checksum": "0f", "prompts": "1e"},
        generation={"max_tokens": 2048, "temperature": 0.0},
        scoring={"method": "published", "judge": "exact_matching"},
        versions={"pytest-vlmeval": "0.1.0"},
        verdicts=verdicts,
    )


def git_diff(folder: Path, before: str, after: str) -> list[str]:
    """Return the changed lines that git shows of a baseline's file, without context."""
    file = folder / "Table.json"

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        done = subprocess.run(
            ["git", *identity, *arguments],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    git("init", "-q")
    file.write_text(before)
    git("add", file.name)
    git("commit", "-q", "-m", "baseline")
    file.write_text(after)
    shown = git("diff", "--no-ext-diff", "--no-color", "-U0", file.name)
    return [
        line
        for line in shown.splitlines()
        if line[:1] in "+-" and line[:3] not in ("+++", "---")
    ]
