"""Baselines as records."""

from __future__ import annotations

import random

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
