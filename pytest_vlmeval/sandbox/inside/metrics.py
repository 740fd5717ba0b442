"""The numbers of what a class of ms-vlmeval returns or writes, each with a name."""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

# Columns that say what a row of a result is about.
LABELS = (
    *("split", "set", "Subject", "Category", "Task&Skill", "category"),
    *("Split", "Setting", "Metric", "metric", "Task"),
)
# "45.5%", "0.61" and "1,234" are numbers, "nan" and "3/7" are none.
_NUMBER = re.compile(
    r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:e[-+]?\d+)?\s*%?", re.I
)


def flatten(result: object) -> dict[str, float]:
    """Name every number of a result: "Overall", or "label/column" in a table.

    The scale is ms-vlmeval's; "45.5%" is 45.5. A table of one unnamed row is as plain
    as a dict; numbers that are not a number (a category without rows) are left out, as
    is what is no number. Of several results that stand side by side, the first has its
    plain names, and what has the same name in another is numbered.
    """
    kept: dict[str, float] = {}
    for name, value in _flatten_any(result):
        number = _read_number(value)
        if number is None or not math.isfinite(number):
            continue
        known, count = name, 1
        while known in kept:
            count += 1
            known = f"{name} ({count})"
        kept[known] = number
    return kept


def _read_number(value: object) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        if not re.search(r"\d", text) or not _NUMBER.fullmatch(text):
            return None
        return float(text.rstrip("% ").replace(",", ""))
    if isinstance(value, numbers.Number) and not isinstance(value, complex):
        return float(value)  # type: ignore[arg-type]
    if hasattr(value, "item") and getattr(value, "size", 0) == 1:  # of numpy
        return _read_number(value.item())
    return None


def _flatten_any(result: object, prefix: str = "") -> list[tuple[str, object]]:
    if isinstance(result, pd.DataFrame):
        found = _flatten_table(result)
    elif isinstance(result, pd.Series):
        found = _flatten_named(result.to_dict())
    elif isinstance(result, Mapping):
        found = _flatten_named(result)
    elif isinstance(result, tuple):
        # Several results side by side.
        found = [pair for each in result for pair in _flatten_any(each)]
    elif isinstance(result, list):
        found = [
            (f"{number}{f'/{name}' if name else ''}", value)
            for number, each in enumerate(result, start=1)
            for name, value in _flatten_any(each)
        ]
    else:
        return [(prefix, result)]
    return [(_join(prefix, name), value) for name, value in found]


def _join(prefix: str, name: str) -> str:
    return f"{prefix}/{name}" if prefix and name else prefix or name


def _flatten_table(table: pd.DataFrame) -> list[tuple[str, object]]:
    if [*map(str, table.columns)] == ["0", "1"]:
        # What a dict's items make.
        return [(_text(name), value) for name, value in table.itertuples(index=False)]
    labels = _labels_of(table)
    rows = []
    for key, row in table.iterrows():
        name = "" if len(table) == 1 else _text(key)
        rows.append(("/".join(str(row[each]) for each in labels) or name, row))
    if labels:
        # ms-vlmeval takes the order from a set.
        rows.sort(key=lambda named: (named[0] != "Overall", named[0]))
    found: list[tuple[str, object]] = []
    for name, row in rows:
        prefix = "" if name in {"", "none"} else name
        for column, value in row.items():
            if column not in labels:
                found += _flatten_any(value, _join(prefix, _text(column)))
    return found


def _labels_of(table: pd.DataFrame) -> list[Any]:
    """Name the columns that say what a row is about.

    If none is known, or two rows have the same there, those with texts are, if no two
    of several rows have the same.
    """
    known = [name for name in LABELS if name in table][:1]
    if known and not table.duplicated(known).any():
        return known
    texts = [
        name
        for name in table
        if all(isinstance(cell, str | int) for cell in table[name])
        and any(
            isinstance(cell, str) and _read_number(cell) is None for cell in table[name]
        )
    ]
    alone = len(table) == 1 or not texts or table.duplicated(texts).any()
    return known if alone else texts


def _text(key: object) -> str:
    """Return the name of a row or column; one of several levels has them all."""
    return "/".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _flatten_named(result: Mapping[Any, Any]) -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for name, value in result.items():
        if isinstance(value, list):
            for number, each in enumerate(value, start=1):
                found += _flatten_any(each, f"{_text(name)}_{number}")
        else:
            found += _flatten_any(value, _text(name))
    return found
