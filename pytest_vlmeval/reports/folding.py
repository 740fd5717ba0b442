"""What many items or datasets have in common is told once, so that an end is read."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Sequence
from typing import NamedTuple

import pytest

# So many lines are told as they are; of more, so many groups that say the same.
MOST_LINES = 5
# So many names stand in a line, and below a message of many items.
NAMED, NAMED_BELOW = 3, 20
# The attribute of the report of a failed item of ours: its dataset.
FAILED = "vlmeval_failed"
DEFAULT_LISTS = "fE"


class About(NamedTuple):
    """A text and the dataset that it is about."""

    dataset: str
    text: str


def name_some(names: Sequence[str], most: int = NAMED) -> str:
    """Return the first names, and how many more there are."""
    rest = len(names) - most
    shown = ", ".join(names[:most])
    return f"{shown} and {rest:,} more" if rest > 0 else shown


def fold(told: Sequence[About], more: str) -> list[str]:
    """Return texts of a line each: of many, one for all that say the same.

    That is the first sentence, whatever its numbers, and it names the datasets that it
    is also about. `more` says where those are that have no place.
    """
    if len(told) <= MOST_LINES:
        return [each.text for each in told]
    groups: dict[str, list[About]] = {}
    for each in told:
        sentence = _sentence(each.text).replace(each.dataset, "\0")
        groups.setdefault(re.sub(r"\d+(\.\d+)?", "0", sentence), []).append(each)
    # What comes first stays first among as many.
    ordered = sorted(groups.values(), key=len, reverse=True)
    lines = []
    for group in ordered[:MOST_LINES]:
        text = group[0].text
        if len(group) > 1:
            names = [each.dataset for each in group[1:]]
            text = f"{_sentence(text).rstrip('.')} (also {name_some(names, 1)})"
        lines.append(text)
    if rest := sum(map(len, ordered[MOST_LINES:])):
        lines.append(f"and {rest:,} more: {more}")
    return lines


def _sentence(text: str) -> str:
    """Return the first sentence of a text."""
    return text.partition(". ")[0]


class FoldedFailures:
    """Lets pytest tell the failures of many items once, where they are the same.

    Nothing is folded with `-v`, and no list that `-r` asks for.
    """

    def __init__(self, terminal: pytest.TerminalReporter | None) -> None:
        self._terminal = terminal
        self._whole: list[pytest.TestReport] = []

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_terminal_summary(self) -> Generator[None]:
        """Fold the failures for as long as pytest shows them; its counts are of all."""
        stats = {} if self._terminal is None else self._terminal.stats
        self._whole = stats.get("failed", [])
        if not self._whole or self._shows_all:
            return (yield)
        stats["failed"] = fold_messages(self._whole)
        try:
            return (yield)
        finally:
            stats["failed"] = self._whole

    @property
    def _shows_all(self) -> bool:
        terminal = self._terminal
        return terminal is None or terminal.config.get_verbosity() > 0

    def fold_list(self) -> None:
        """Fold the list of failures, which pytest shows at the very end."""
        terminal = self._terminal
        if terminal is None or not self._whole or self._shows_all:
            return
        asked = terminal.config.getoption("reportchars", DEFAULT_LISTS)
        stats = terminal.stats
        stats["failed"] = (
            fold_list(self._whole) if asked == DEFAULT_LISTS else self._whole
        )


def fold_messages(reports: Sequence[pytest.TestReport]) -> list[pytest.TestReport]:
    """Return reports with one for those whose message is the same but for a name."""
    groups: dict[str, list[pytest.TestReport]] = {}
    for report in reports:
        groups.setdefault(_key(report), []).append(report)
    folded = []
    for group in groups.values():
        if len(group) <= NAMED:
            folded += group
            continue
        first, *others = group
        names = name_some([_parameter(each) for each in others], NAMED_BELOW)
        path, line, domain = first.location
        folded.append(
            pytest.TestReport(
                nodeid=first.nodeid,
                location=(path, line, f"{domain} and {len(others):,} more"),
                keywords={},
                outcome="failed",
                longrepr=f"{_message(first)}\n\nThe same: {names}.",
                when="call",
            )
        )
    return folded


def _key(report: pytest.TestReport) -> str:
    """Return what reports have in common whose messages are the same."""
    dataset = vars(report).get(FAILED)
    if dataset is None:
        return report.nodeid
    text = _message(report).replace(_parameter(report), "\0")
    return f"{_function(report)}\n{text.replace(dataset, chr(0))}"


def fold_list(reports: Sequence[pytest.TestReport]) -> list[pytest.TestReport]:
    """Return reports with one for each test of ours whose items fail, if many do."""
    ours = [each for each in reports if FAILED in vars(each)]
    if len(ours) <= MOST_LINES:
        return [*reports]
    functions: dict[str, list[pytest.TestReport]] = {}
    for each in ours:
        functions.setdefault(_function(each), []).append(each)
    return [
        *(
            _line(name, group, hint=" (-v names all)" if number == 0 else "")
            for number, (name, group) in enumerate(functions.items())
        ),
        *(each for each in reports if FAILED not in vars(each)),
    ]


def _line(
    function: str, group: Sequence[pytest.TestReport], *, hint: str
) -> pytest.TestReport:
    """Return a report whose line counts the failed items of a test."""
    datasets = dict.fromkeys(vars(each)[FAILED] for each in group)
    text = f"{len(datasets):,} dataset{'s' * (len(datasets) > 1)}{hint}"
    samples = [each for each in group if _parameter(each) != vars(each)[FAILED]]
    if samples:
        # What a gate found is told above; why a sample has no answer is not.
        first = _message(samples[0]).partition("\n")[0]
        text = f"{len(samples):,} sample{'s' * (len(samples) > 1)} of {text}: {first}"
    return pytest.TestReport(
        nodeid=f"{_place(group)}::{function}",
        location=("", None, function),
        keywords={},
        outcome="failed",
        longrepr=text,
        when="call",
    )


def _place(group: Iterable[pytest.TestReport]) -> str:
    """Return the class of a test, its module, or the folder of several."""
    classes = {each.nodeid.partition("[")[0].rpartition("::")[0] for each in group}
    if len(classes) == 1:
        return classes.pop()
    modules = {each.partition("::")[0] for each in classes}
    return os.path.commonpath(modules) or "."


def _message(report: pytest.TestReport) -> str:
    """Return what a report says, whatever process it is from."""
    return str(report.longrepr).rstrip()


def _function(report: pytest.TestReport) -> str:
    """Return the name of a report's test."""
    return report.nodeid.partition("[")[0].rpartition("::")[2]


def _parameter(report: pytest.TestReport) -> str:
    """Return what stands in brackets in a report's id."""
    return report.nodeid.partition("[")[2].removesuffix("]")
