"""Conversations."""

from __future__ import annotations

BENCHMARK = """
from pytest_vlmeval import Benchmark

class TestDialogues(Benchmark):
    datasets = ["MMDU"]
"""
