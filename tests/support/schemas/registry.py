"""The schemas of all groups."""

from __future__ import annotations

import pkgutil
from importlib import import_module

import tests.support.schemas as package
from tests.support.schemas import Schema


def all_schemas() -> list[Schema]:
    """Give the schemas of every module of this package that has some."""
    found: list[Schema] = []
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        found += getattr(import_module(module.name), "SCHEMAS", ())
    return found
