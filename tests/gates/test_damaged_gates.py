"""Thresholds and baselines that were damaged: reported, and left as they are."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.baseline_file import (
    find_differences,
    find_flips,
    load_baseline,
    write_baseline,
)
from pytest_vlmeval.gates.thresholds import load_thresholds
from tests.support.baseline_files import make, make_verdicts
from tests.support.damage import Damage, damages, few, refusal

THRESHOLDS = b"""
[tiny.MMStar]
min = 34.5
rule = "confident-above"
level = 0.99
source = "a paper"

["qwen2.5-vl-*".MME.metrics.perception]
min = 1_400
"""
# What may stand in place of a value.
TOML_VALUES = [
    *("nan", "inf", "-1", "1e400", "9" * 400, "true", '"x"', "[]", "[[1]]", "{a = 1}"),
    *("1979-05-27", "07:32:00", "'''\\u0000'''", '"\\uD800"', "", "0x_1", "{}"),
]
BASELINE = json.loads(write_baseline(make(make_verdicts(60))))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(
        ["1-99999999999999", "5-1", "+" * 99, "\ud800", "1-", "9" * 5_000]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner)
    ),
    max_leaves=6,
)


def check_thresholds(data: bytes) -> None:
    """Read thresholds and use them; what is said of them names the file."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "thresholds.toml"
        file.write_bytes(data)

        def use() -> None:
            thresholds = load_thresholds(file, ())
            thresholds.check("tiny", ["MMStar", "MME"])
            thresholds.of("tiny", "MMStar")

        told = refusal(use)
        assert not told or str(file) in told
        assert file.read_bytes() == data


@pytest.mark.once
@few
@given(damages)
def test_any_bytes_as_thresholds(damage: Damage) -> None:
    check_thresholds(damage(THRESHOLDS))


@pytest.mark.parametrize("value", TOML_VALUES)
def test_any_value_as_a_threshold_s(value: str) -> None:
    text = THRESHOLDS.decode()
    for was in ("34.5", '"confident-above"', "0.99", '"a paper"', "1_400"):
        check_thresholds(text.replace(was, value).encode())
    check_thresholds(f"tiny = {value}".encode())
    check_thresholds(f"[tiny]\nMMStar = {value}".encode())


def check_baseline(data: bytes) -> None:
    """Read a baseline and compare with it; what is said of it names the file."""
    current = make(make_verdicts(60, seed=1))
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "Table.json"
        file.write_bytes(data)

        def use() -> None:
            baseline = load_baseline(file)
            find_differences(baseline, current)
            find_flips(baseline, current)
            write_baseline(baseline)

        told = refusal(use)
        assert not told or str(file) in told
        # It can be printed, whatever stood in the file.
        told.encode()
        assert file.read_bytes() == data


@pytest.mark.once
@few
@given(damages)
def test_any_bytes_as_a_baseline(damage: Damage) -> None:
    check_baseline(damage(json.dumps(BASELINE, indent=1).encode()))


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the keys that lead to each value of a JSON document."""
    found = [path]
    items = value.items() if isinstance(value, dict) else []
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


PLACES = places(BASELINE)[1:]


@pytest.mark.once
@few
@given(st.sampled_from(PLACES), values)
@example(("verdicts", "category 1"), {"1": []})
@example(("verdicts", "category 1", "1"), "right by a defect by a defect")
@example(("verdicts", "category 1"), {"1": "nan"})
@example(("value",), float("nan"))
@example(("generation",), {"temperature": []})
def test_any_value_in_a_baseline(place: tuple[str, ...], value: object) -> None:
    record = copy.deepcopy(BASELINE)
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    check_baseline(json.dumps(record).encode())


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda it: it.update(value="x"), "value: Input should be a valid number"),
        (lambda it: it.update(scale=float("nan")), "scale: Input should be a finite"),
        (
            lambda it: it["verdicts"].update({"category 1": {"1": "+"}}),
            "1 has the verdict '+', and takes right, wrong, none or a number from 0 ",
        ),
        (
            lambda it: it["verdicts"].update({"category 1": {"1": "7.5"}}),
            "1 has the verdict '7.5', and takes right, wrong, none or a number from 0 ",
        ),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], why: str
) -> None:
    record = copy.deepcopy(BASELINE)
    damage(record)
    file = tmp_path / "Table.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(VlmEvalError) as raised:
        load_baseline(file)
    start = f"{file} is not a baseline that this version can read ({why}"
    assert str(raised.value).startswith(start)


def test_deep_nesting_is_said(tmp_path: Path) -> None:
    file = tmp_path / "Table.json"
    file.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(VlmEvalError, match=r"\(it is nested too deeply\)"):
        load_baseline(file)
