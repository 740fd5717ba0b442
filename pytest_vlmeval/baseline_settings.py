"""What comparisons with earlier runs are told: their options and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytest_vlmeval.option import Option, make_option
from pytest_vlmeval.option_values import YES_NO, parse_flag, parse_number, parse_one_of

GateSamples = Literal["none", "regressed", "all"]
# Which baselines a session writes, as syrupy's options say.
Updating = Literal["none", "new", "all"]


def parse_level(text: str) -> float:
    """Read an error level: above 0, at most one half."""
    level = parse_number(0, above=True)(text)
    if level > 0.5:
        raise ValueError
    return level


def parse_margin(text: str) -> float:
    """Read a tolerated drop in points: from 0 to below 100."""
    margin = parse_number(0)(text)
    if margin >= 100:
        raise ValueError
    return margin


BASELINE_OPTIONS: tuple[Option, ...] = (
    make_option(
        "level",
        parse_level,
        "a number above 0 and up to 0.5",
        "error level of comparisons with a baseline or another run: how often a model "
        "that is no worse may fail",
        default="0.05",
        metavar="LEVEL",
    ),
    make_option(
        "margin",
        parse_margin,
        "a number from 0 to below 100 (points)",
        "drop below the baseline that is tolerated, in points (hundredths of the "
        "samples)",
        default="0",
        metavar="POINTS",
    ),
    make_option(
        "allow-missing-baseline",
        parse_flag,
        YES_NO,
        "a score that has no baseline to be compared with passes, and says so",
        default="no",
    ),
    make_option(
        "gate-samples",
        parse_one_of("none", "regressed", "all"),
        "none, regressed or all",
        "wrong samples whose items fail: none of them, those that were right in the "
        "baseline, or all",
        default="none",
        metavar="WHICH",
    ),
    make_option(
        "compare-with",
        str,
        "a run's id, the beginning of it, or a model's name",
        "another run of the store, compared with this one sample by sample at the end",
        metavar="RUN",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineSettings:
    """How runs are compared: `level` from 0 to 0.5, `margin` in points of 100.

    `compare_with` names another run of the store, None for none. `project` is the
    folder that keeps the baselines of benchmarks which an installed package brings.
    `updating` says which baselines are written instead of compared with.
    """

    level: float = 0.05
    margin: float = 0.0
    allow_missing: bool = False
    gate_samples: GateSamples = "none"
    compare_with: str | None = None
    project: Path = Path()
    updating: Updating = "none"


def choose_baselines(
    values: Mapping[str, Any], project: Path, *, write_all: bool, write_new: bool
) -> BaselineSettings:
    """Make the settings of the options' values; `project` is pytest's rootdir.

    The others are syrupy's options to write all snapshots, or those that are missing.
    """
    return BaselineSettings(
        level=values["level"],
        margin=values["margin"],
        allow_missing=values["allow-missing-baseline"],
        gate_samples=values["gate-samples"],
        compare_with=values["compare-with"],
        project=project,
        updating="all" if write_all else "new" if write_new else "none",
    )
