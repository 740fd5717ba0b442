"""Real servers of the demo model's checkpoint, and what it answers there."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo_model.checkpoint import write_checkpoint
from tests.support.model_environment import ensure_model_environment
from tests.support.run_fixtures import Project

ROOT = Path(__file__).parents[2]

BENCHMARK = (ROOT / "benchmarks" / "test_demo.py").read_text(encoding="utf-8")


# Its baseline is that of another model.
DEMO = ("test_demo.py", "-k", "not regression")


# What the demo model reaches, here too (demo_model/README.md).
REACHED = {"passed": 116, "xfailed": 7}


ANSWERS = "SELECT fingerprint, sample_index, text FROM answers ORDER BY 1, 2"


@pytest.fixture(scope="session")
def model_environment() -> Path:
    """Give the environment that has ms-swift and transformers."""
    return ensure_model_environment()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the demo model as a checkpoint; its folder's name is its served name."""
    folder = tmp_path_factory.mktemp("checkpoint") / "demo-qwen2-vl"
    write_checkpoint(folder)
    return folder


def demo_answers(project: Project) -> list[tuple[object, ...]]:
    """Run the demo benchmark with the bundled model and return its answers."""
    project.run(*DEMO, "--vlm-model=demo", "--vlm-work-dir=demo")
    given = project.store
    project.store = project.pytester.path / "demo" / "store.sqlite"
    try:
        return project.stored(ANSWERS)
    finally:
        project.store = given
