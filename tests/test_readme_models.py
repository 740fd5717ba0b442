"""The README's blocks with real models: what swift serves, and what runs here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.documentation import ROOT, block, read, run_shell
from tests.support.model_servers import checkpoint as checkpoint
from tests.support.model_servers import model_environment as model_environment
from tests.support.run_fixtures import Project

pytestmark = pytest.mark.swift

README = read(ROOT / "README.md")


@pytest.fixture
def environ(
    project: Project, model_environment: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Give what a machine with swift has, and a dataset of a few samples."""
    shutil.copytree(ROOT / "benchmarks", project.pytester.path / "benchmarks")
    monkeypatch.delenv("PYTEST_ADDOPTS")
    programs = str(model_environment / "bin")
    return {
        "PATH": os.pathsep.join(
            [str(ROOT / ".venv/bin"), os.environ["PATH"], programs]
        ),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "VLM_DATA": "DemoYesNo",
        "VLM_LIMIT": "4",
        "VLM_LOCAL_PYTHON": str(model_environment / "bin/python"),
    }


def test_a_model_that_swift_serves(
    project: Project, checkpoint: Path, environ: dict[str, str]
) -> None:
    code = block(README, "A model that swift serves", number=2)
    kind = "--model_type qwen2_vl --template qwen2_vl"
    code = code.replace("Qwen/Qwen2-VL-2B-Instruct", f"{checkpoint} {kind}")
    done = run_shell(code, project.pytester.path, environ)
    assert done.returncode == 0, done.stdout
    assert project.stored("SELECT count(*) FROM answers WHERE state = 'answered'") == [
        (4,)
    ]


def test_a_model_that_runs_here(
    project: Project, checkpoint: Path, environ: dict[str, str]
) -> None:
    code = block(README, "A model that runs here").replace("DIR", str(checkpoint))
    done = run_shell(code, project.pytester.path, environ)
    assert done.returncode == 0, done.stdout
    assert project.stored("SELECT count(*) FROM answers WHERE state = 'answered'") == [
        (4,)
    ]
