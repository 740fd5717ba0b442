"""Task files of EvalScope and VLMEvalKit, as options of a run."""

from __future__ import annotations

from pytest_vlmeval.tasks.loading import load_task
from pytest_vlmeval.tasks.record import Task

__all__ = ["Task", "load_task"]
