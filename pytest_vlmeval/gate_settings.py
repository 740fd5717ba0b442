"""What the gates are told: their options and the settings these make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.option import Option, make_option
from pytest_vlmeval.option_values import (
    parse_flag,
    parse_one_of,
    parse_percent,
    parse_share,
)

if TYPE_CHECKING:
    from pytest_vlmeval.gates.outcome import Inconclusive

GATE_OPTIONS: tuple[Option, ...] = (
    make_option(
        "thresholds",
        Path,
        "a TOML file",
        "file of the thresholds that scores have to reach (default: thresholds.toml "
        "beside the benchmarks)",
        metavar="FILE",
    ),
    make_option(
        "inconclusive",
        parse_one_of("pass", "fail"),
        "pass or fail",
        "whether a score passes that is too close to its threshold to tell (default: "
        "only under the rule confident-below)",
        metavar="HOW",
    ),
    make_option(
        "fdr",
        parse_share,
        "a number above 0 and below 1",
        "accepted share of false alarms among all failed gates of the run, thresholds "
        "and baselines, by Benjamini-Hochberg; without it each gate counts by itself",
        metavar="SHARE",
    ),
    make_option(
        "stop-early",
        parse_flag,
        "1, true, yes, on, 0, false, no or off",
        "ask samples in random order (--vlm-seed), and of a dataset no more once its "
        "gates, threshold and baseline, are decided at their levels",
        default="no",
    ),
    make_option(
        "min-answered",
        parse_percent,
        "a number from 0 to 100 (percent)",
        "a score fails where less of its samples has a usable answer, in percent",
        default="100",
        metavar="PERCENT",
    ),
    make_option(
        "min-judged",
        parse_percent,
        "a number from 0 to 100 (percent)",
        "a score fails where the judge decided less of what it was asked, in percent",
        default="99",
        metavar="PERCENT",
    ),
    make_option(
        "max-cut-off",
        parse_percent,
        "a number from 0 to 100 (percent)",
        "a score fails where more of its answers were cut off at --vlm-max-tokens, in "
        "percent",
        default="1",
        metavar="PERCENT",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """What decides whether a score passes.

    `thresholds` is a file, None for the one beside the benchmarks. `min_answered` of
    all samples, `min_judged` of those that a judge was asked about and at most
    `max_cut_off` of all samples are percent. `false_discoveries` is the share of
    false alarms among all alarms that is accepted; None where each gate counts by
    itself. With `stop_early` no more is asked of a dataset whose gates are decided.
    `step_summary` is the file to which a table of all gates is added.
    """

    thresholds: Path | None = None
    inconclusive: Inconclusive = "rule"
    false_discoveries: float | None = None
    stop_early: bool = False
    min_answered: float = 100.0
    min_judged: float = 99.0
    max_cut_off: float = 1.0
    step_summary: Path | None = None


def choose_gates(
    values: Mapping[str, Any], folder: Path, variables: Mapping[str, str]
) -> GateSettings:
    """Make the settings of the options' values; a file is relative to `folder`.

    GitHub Actions names the file of a job's summary in its environment.
    """
    summary = variables.get("GITHUB_STEP_SUMMARY")
    file: Path | None = values["thresholds"]
    return GateSettings(
        thresholds=None if file is None else folder / file.expanduser(),
        inconclusive=values["inconclusive"] or "rule",
        false_discoveries=values["fdr"],
        stop_early=values["stop-early"],
        min_answered=values["min-answered"],
        min_judged=values["min-judged"],
        max_cut_off=values["max-cut-off"],
        step_summary=Path(summary) if summary else None,
    )
