"""The published versions of files that changed under their address (versions.toml)."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.records import DataVersion

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSIONS = Path(__file__).with_name("versions.toml")


@lru_cache(maxsize=1)
def load_versions() -> Mapping[str, tuple[DataVersion, ...]]:
    """Return those that are known of each dataset, the oldest first."""
    tables = tomllib.loads(VERSIONS.read_text(encoding="utf-8"))
    return {
        name: tuple(
            DataVersion(**{**entry, "date": entry["date"].isoformat()})
            for entry in entries
        )
        for name, entries in tables.items()
    }
