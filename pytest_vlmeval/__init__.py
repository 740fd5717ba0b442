"""Evaluate vision-language models with pytest, on the datasets of ms-vlmeval."""

from __future__ import annotations

from pytest_vlmeval.suite import Benchmark

__all__ = ["Benchmark"]
