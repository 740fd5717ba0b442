"""Everything that the doctor looks at, in the order in which it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pytest_vlmeval.doctor.endpoints import find_judges, find_model
from pytest_vlmeval.doctor.machine import (
    find_folders,
    find_gpus,
    find_sandbox,
    find_store,
    find_versions,
)

if TYPE_CHECKING:
    from pytest_vlmeval.doctor.finding import Finding
    from pytest_vlmeval.options import Settings


def examine(settings: Settings) -> Iterator[Finding]:
    """Give a finding after the other; nothing is changed, and no sample asked."""
    yield find_versions()
    yield from asyncio.run(find_model(settings))
    yield from asyncio.run(find_judges(settings))
    yield from find_folders(settings)
    yield find_gpus(settings)
    yield find_sandbox(settings)
    yield find_store(settings)
