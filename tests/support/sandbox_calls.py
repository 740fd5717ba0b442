"""A sandbox that a test may break, and a call of it that takes a while."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import pytest_vlmeval.sandbox
from pytest_vlmeval.sandbox.environment import SandboxEnvironment
from pytest_vlmeval.sandbox.process import Sandbox
from tests.support.sandbox_tables import cell, describe, draw, write_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vlmeval.sandbox.environment import SandboxEnvironment


@pytest.fixture
def own_sandbox(sandbox_environment: SandboxEnvironment) -> Iterator[Sandbox]:
    """Give a sandbox that the test may break."""
    sandbox = Sandbox(sandbox_environment.python)
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def large_table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a table that takes about a second to prepare."""
    rows = [
        {"index": i, "question": "?", "image": cell(draw(i, "BMP", (500, 500)))}
        for i in range(40)
    ]
    return write_table(tmp_path_factory.mktemp("large") / "Large.tsv", rows)


def call_prepare(
    sandbox: Sandbox,
    table: Path,
    folder: Path,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    deadline_s: float = 60.0,
) -> None:
    """Prepare a table of open questions, which tells its progress."""
    info = describe(table, "ImageVQADataset")
    plain = {
        "name": info.name,
        "class_name": info.class_name,
        "module": info.module,
        "modality": info.modality,
        "rules": info.name,
        "confined": True,
        "url": "",
        "shards": [],
        "folder": None,
    }
    sandbox.call(
        "prepare",
        {"info": plain, "tsv": str(table), "folder": str(folder), "shelf": None},
        task=f"Preparing {info.name}",
        deadline_s=deadline_s,
        longer="--vlm-patience",
        on_progress=on_progress,
    )


BOOTSTRAP = Path(pytest_vlmeval.sandbox.__file__).with_name("bootstrap.py")


def run_inside(environment: SandboxEnvironment, code: str, folder: Path) -> Any:
    """Run code after containment in the sandbox's Python; it prints JSON last."""
    done = subprocess.run(
        [environment.python, "-I", "-X", "utf8", "-c", ENTER + code],
        capture_output=True,
        cwd=folder,
        env={"HOME": str(folder), "OPENAI_API_KEY": "sk-test", "LANG": "C.UTF-8"},
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


ENTER = f"""
import json, runpy, sys
runpy.run_path({str(BOOTSTRAP)!r})["enter_packages"]()
from pytest_vlmeval.sandbox.inside import containment
containment.install()

def attempt(action):
    try:
        action()
    except BaseException as error:
        return f"{{type(error).__name__}}: {{error}}"
    return "nothing"
"""
