"""Evaluate vision-language models with pytest, on the datasets of ms-vlmeval."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from pytest_vlmeval.suite import Benchmark

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.packages import Dataset
    from pytest_vlmeval.evaluation import Results, evaluate
    from pytest_vlmeval.records import Answer, Sample, Verdict

__all__ = [
    "Answer",
    "Benchmark",
    "Dataset",
    "Results",
    "Sample",
    "Verdict",
    "evaluate",
]

# What is loaded when it is asked for: a notebook's parts cost half a second.
_LATE = {
    "Answer": "records",
    "Dataset": "datasets.packages",
    "Results": "evaluation",
    "Sample": "records",
    "Verdict": "records",
    "evaluate": "evaluation",
}


def __getattr__(name: str) -> object:
    """Load what is not needed to collect tests."""
    if name == "__version__":
        from importlib.metadata import version

        return version("pytest-vlmeval")
    if name in _LATE:
        return getattr(import_module(f"pytest_vlmeval.{_LATE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
