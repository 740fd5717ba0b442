"""Projects whose scores are held against a baseline."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.run_fixtures import Project
from tests.support.server_fixtures import ServerProcess

COUNT = 40
RIGHT = {f"<{index}>": str(10 * index) for index in range(1, COUNT + 1, 2)}
BASELINE = Path("__baselines__/tiny-vlm/MathVision_MINI.json")
SCORES = ("-k", "not test_sample")


@pytest.fixture
def gated(
    project: Project, server: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> Project:
    """Give a project of 40 samples, all answered right, in which baselines count."""
    monkeypatch.delenv("PYTEST_ADDOPTS")
    monkeypatch.delenv("VLM_ALLOW_MISSING_BASELINE")
    project.write_math(COUNT)
    server.control(answers=RIGHT, default="B")
    return project


def worsen(server: ServerProcess, lost: int) -> None:
    """Let the server answer so many of the odd samples wrong."""
    wrong = dict.fromkeys(list(RIGHT)[:lost], "0")
    server.control(answers={**RIGHT, **wrong}, default="B")


def baseline_of(project: Project) -> Path:
    """Return where the project's baseline lies."""
    return project.pytester.path / BASELINE
