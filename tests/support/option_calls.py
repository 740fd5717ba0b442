"""What loads settings from arguments, ini text and environment."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_vlmeval.settings import Settings, load_from
from pytest_vlmeval.settings.sources import pytest_sources

Load = Callable[..., Settings]


@pytest.fixture
def load(pytester: pytest.Pytester) -> Load:
    """Return what loads settings from arguments, ini text and environment."""

    def load(
        *arguments: str, ini: str = "", environ: dict[str, str] | None = None
    ) -> Settings:
        pytester.makepyprojecttoml(f"[tool.pytest.ini_options]\n{ini}")
        config = pytester.parseconfig(*arguments)
        return load_from(
            pytest_sources(config, {"HOME": "/nowhere", **(environ or {})})
        )

    return load
