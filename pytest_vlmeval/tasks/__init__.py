"""Task files of EvalScope and VLMEvalKit, as options of a run."""

from __future__ import annotations

from pytest_vlmeval.tasks.loading import load_mapping, load_task
from pytest_vlmeval.tasks.record import Task
from pytest_vlmeval.tasks.tree import write_mapping

__all__ = ["Task", "load_mapping", "load_task", "write_mapping"]
