"""Evaluate vision-language models with pytest, on the datasets of ms-vlmeval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.suite import Benchmark

if TYPE_CHECKING:
    from pytest_vlmeval.evaluation import Results, evaluate

__all__ = ["Benchmark", "Results", "evaluate"]


def __getattr__(name: str) -> object:
    """Load what a notebook asks for when it does: it costs half a second."""
    if name == "evaluate":
        from pytest_vlmeval.evaluation import evaluate

        return evaluate
    if name == "Results":
        from pytest_vlmeval.evaluation import Results

        return Results
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
