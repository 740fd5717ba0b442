"""What several test modules share: one sandbox for the whole session."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.sandbox.process import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pytest_vlmeval.sandbox.environment import SandboxEnvironment


@pytest.fixture(scope="session")
def sandbox(sandbox_environment: SandboxEnvironment) -> Iterator[Sandbox]:
    """Give a sandbox with the real ms-vlmeval, ended after the last test."""
    sandbox = Sandbox(sandbox_environment.python)
    yield sandbox
    sandbox.close()
