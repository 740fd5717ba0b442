"""ms-vlmeval's results, tables or dicts, as one flat set of named numbers."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

# Columns that say what a row of a result is about.
LABELS = ("split", "set", "Subject", "Category", "Task&Skill", "category")


def flatten(result: object) -> dict[str, float]:
    """Name every number of a result: "Overall", or "label/column" in a table.

    The scale is ms-vlmeval's. A table of one unnamed row is as plain as a dict;
    numbers that are not a number (a category without rows) are left out.
    """
    if isinstance(result, pd.DataFrame):
        return _keep_numbers(_flatten_table(result))
    if isinstance(result, dict):
        return _keep_numbers(_flatten_dict(result))
    raise TypeError(f"ms-vlmeval's result is a {type(result).__name__}")


def _flatten_table(table: pd.DataFrame) -> dict[str, Any]:
    label = next((name for name in LABELS if name in table), None)
    if label is None:
        rows = [
            ("" if len(table) == 1 else str(key), row) for key, row in table.iterrows()
        ]
    else:
        rows = [(str(row[label]), row) for _, row in table.iterrows()]
        # ms-vlmeval takes the order from a set.
        rows.sort(key=lambda named: (named[0] != "Overall", named[0]))
    flat = {}
    for name, row in rows:
        prefix = "" if name in {"", "none"} else f"{name}/"
        for column, value in row.items():
            if column != label:
                flat[f"{prefix}{column}"] = value
    return flat


def _flatten_dict(result: dict[Any, Any]) -> dict[str, Any]:
    flat = {}
    for name, value in result.items():
        if isinstance(value, dict):
            inner = _flatten_dict(value)
            flat.update({f"{name}/{key}": number for key, number in inner.items()})
        elif isinstance(value, list):
            flat.update({f"{name}_{i}": each for i, each in enumerate(value, start=1)})
        else:
            flat[str(name)] = value
    return flat


def _keep_numbers(flat: dict[str, Any]) -> dict[str, float]:
    kept = {}
    for name, value in flat.items():
        try:
            number = float(value)
        except (TypeError, ValueError):
            continue
        if math.isfinite(number):
            kept[name] = number
    return kept
