"""How far a session is, read from the store and shown while items wait."""

from __future__ import annotations

import io
import math
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_vlmeval.datasets.prepare import find_prepared, read_references
from pytest_vlmeval.errors import NeedsJudgeError, VlmEvalError
from pytest_vlmeval.records import AnswerState, Plan, PlanEntry, RunAccount, Score
from pytest_vlmeval.reports.screen import Screen
from pytest_vlmeval.reports.summary import Share, find_share
from pytest_vlmeval.run.queue import Board
from pytest_vlmeval.run.scoring import find_score, find_scores_by_judge
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.asking import StoredAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

_OPTION = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")
_WORD = re.compile(r"\w+")


def looks_right(reference: str, text: str) -> bool | None:
    """Tell at a glance whether an answer is right; None if a glance cannot.

    Only for references that are a letter or yes and no: the first letter that stands
    alone, or the first word. ms-vlmeval scores all answers together in the end, by
    rules of its own, and its score alone counts.
    """
    if len(reference) == 1 and reference.isupper():
        found = _OPTION.search(text)
        return found is not None and found[0] == reference
    if reference.lower() in ("yes", "no"):
        word = _WORD.search(text.lower())
        return word is not None and word[0] == reference.lower()
    return None


class Tally:
    """Counts the answers of one dataset as they arrive, each once.

    `references` gives each sample's index with what its answer is compared with.
    """

    def __init__(
        self, session_id: str, references: Iterable[tuple[str, str | None]]
    ) -> None:
        self._session_id = session_id
        # Only those that a glance can tell: other references may be long.
        self._references = {
            index: sys.intern(reference)
            for index, reference in references
            if reference and looks_right(reference, "") is not None
        }
        self._right: dict[tuple[str, int], bool] = {}
        self.retries = 0
        self.tokens = 0

    def add(self, stored: StoredAnswer) -> None:
        """Take in an answer, the newest for its sample."""
        answer = stored.answer
        if stored.session_id == self._session_id:
            self.retries += answer.retries
            self.tokens += answer.prompt_tokens + answer.completion_tokens
        reference = self._references.get(answer.index)
        if answer.is_usable and reference:
            right = looks_right(reference, answer.text)
            if right is not None:
                self._right[answer.index, answer.repeat] = right

    @property
    def right(self) -> Share | None:
        """How many answers look right, with the interval; None if none can tell."""
        if not self._right:
            return None
        return find_share(sum(self._right.values()), len(self._right))


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetProgress:
    """How many of a dataset's samples are settled: answered, or given up.

    `right` is the share of answers that look right, where a glance tells.
    """

    dataset: str
    settled: int
    total: int
    right: Share | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a session is: its datasets, and what it is at.

    `in_flight` counts what the run asks now, `retries` and `tokens` are those of the
    answers that the session got.
    """

    datasets: tuple[DatasetProgress, ...] = ()
    in_flight: int = 0
    retries: int = 0
    tokens: int = 0

    @property
    def settled(self) -> int:
        """The settled samples of all datasets."""
        return sum(each.settled for each in self.datasets)

    @property
    def total(self) -> int:
        """The samples of all datasets."""
        return sum(each.total for each in self.datasets)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetResult:
    """What became of a dataset; `score` is None where there is none.

    `version` names its data where there are several. `no_score` then says why, where
    that is known. `by_judge` are the scores of each of several judges, whose majority
    is `score`. `endings` counts what was asked by the state of its answer and the
    server's finish_reason.
    """

    dataset: str
    samples: int
    answered: int
    modified: bool
    score: Score | None
    version: str = ""
    no_score: str = ""
    by_judge: tuple[Score, ...] = ()
    endings: Mapping[tuple[AnswerState, str], int] = field(default_factory=dict)


class Watch:
    """Follows one session's plan in the store."""

    def __init__(
        self, store: Store, plan: Plan, session_id: str, cache_dir: Path
    ) -> None:
        self._store = store
        self._plan = plan
        self._session_id = session_id
        self._board = Board(store, plan, session_id, brief=True, on_new=self._count)
        self._tallies = {
            entry.fingerprint: Tally(session_id, _references(cache_dir, entry))
            for entry in plan.entries
        }

    @property
    def run_id(self) -> str:
        """The run of the session."""
        return self._plan.run_id

    def progress(self) -> Progress:
        """Return how far each dataset is, in the plan's order."""
        self._board.refresh()
        settled = self._board.progress()
        tallies = self._tallies
        return Progress(
            datasets=tuple(
                DatasetProgress(
                    dataset=entry.dataset,
                    settled=settled[entry.fingerprint],
                    total=len(entry.indexes) * self._plan.repeats,
                    right=tallies[entry.fingerprint].right,
                )
                for entry in self._plan.entries
            ),
            in_flight=self._store.in_flight(self._plan.run_id),
            retries=sum(each.retries for each in tallies.values()),
            tokens=sum(each.tokens for each in tallies.values()),
        )

    def _count(self, stored: StoredAnswer) -> None:
        self._tallies[stored.answer.fingerprint].add(stored)

    def account(self) -> RunAccount:
        """Return what the run has asked for these datasets, and this session alone."""
        self._board.refresh()
        return replace(
            self._store.account(self._plan, self._session_id),
            origins=self._board.origins(),
            spot_check=self._store.spot_check(self._session_id),
        )

    def results(self) -> list[DatasetResult]:
        """Return what became of each dataset."""
        self._board.refresh()
        results = []
        for entry in self._plan.entries:
            found = find_score(self._board, entry, brief=True)
            score = found if isinstance(found, Score) else None
            results.append(
                DatasetResult(
                    dataset=entry.dataset,
                    samples=len(entry.indexes),
                    answered=self._board.answered(entry.fingerprint),
                    modified=entry.modified,
                    version=entry.version,
                    score=score,
                    no_score="" if score else self._why_no_score(entry, found),
                    by_judge=find_scores_by_judge(self._board, entry),
                    endings=self._board.endings(entry.fingerprint),
                )
            )
        return results

    def _why_no_score(self, entry: PlanEntry, found: object) -> str:
        """Say in a few words why a dataset has no score, "" while answers lack."""
        if entry.unscored:
            return entry.unscored
        if isinstance(found, NeedsJudgeError):
            return "only a judge scores it (--vlm-judge)"
        answered = self._board.answered(entry.fingerprint)
        if isinstance(found, VlmEvalError):
            return "its scoring failed" if answered else "no sample was answered"
        return "only asked so far" if answered == len(entry.indexes) else ""


def _references(cache_dir: Path, entry: PlanEntry) -> Iterable[tuple[str, str | None]]:
    folder = find_prepared(cache_dir, entry.dataset, entry.fingerprint)
    return () if folder is None else read_references(folder)


# Rows of the terminal that are left to pytest.
LEFT_ROWS = 4
MOST_BARS = 12


def draw_progress(
    progress: Progress, rate: float, width: int, height: int
) -> list[str]:
    """Return the lines of the drawing, each with its colours.

    `rate` is in answers per second over all datasets, `width` and `height` are those
    of the terminal, in columns and rows.
    """
    from rich.console import Console

    most = max(1, min(MOST_BARS, height - LEFT_ROWS - 2))
    shown = _choose(progress.datasets, most)
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        color_system="standard",
        legacy_windows=False,
        highlight=False,
    )
    with console.capture() as capture:
        console.print(_bars(shown, width))
        console.print(
            _describe(progress, rate, len(shown)), overflow="ellipsis", no_wrap=True
        )
    return capture.get().splitlines()


def _choose(
    datasets: Sequence[DatasetProgress], most: int
) -> Sequence[DatasetProgress]:
    """Choose what is shown: what goes on before what is done, in the plan's order."""
    if len(datasets) <= most:
        return datasets
    ordered = sorted(datasets, key=lambda each: each.settled == each.total)
    chosen = {each.dataset for each in ordered[:most]}
    return [each for each in datasets if each.dataset in chosen]


def _bars(datasets: Sequence[DatasetProgress], width: int) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    table.add_column(no_wrap=True, max_width=max(8, width // 3))
    table.add_column(width=max(8, width // 4))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for each in datasets:
        table.add_row(
            Text(each.dataset),
            ProgressBar(total=max(each.total, 1), completed=each.settled),
            f"{each.settled}/{each.total}",
            Text(_right(each.right), style="cyan"),
        )
    return table


def _right(share: Share | None) -> str:
    """Describe how many answers look right, and between what the truth may lie."""
    if share is None:
        return ""
    low, high = 100 * share.low, 100 * share.high
    return f"about {100 * share.value:.0f} % right [{low:.0f}, {high:.0f}]"


def _describe(progress: Progress, rate: float, shown: int) -> str:
    parts = [describe_progress(progress, rate)]
    more = len(progress.datasets) - shown
    if more:
        parts.append(f"{more} more datasets")
    if progress.settled < progress.total:
        parts.append(f"{progress.in_flight} in flight")
    if progress.retries:
        parts.append(f"{progress.retries} retries")
    if progress.tokens:
        parts.append(f"{progress.tokens:,} tokens")
    return ", ".join(parts)


def describe_progress(progress: Progress, rate: float) -> str:
    """Say in a line how far all datasets are; also for where there is no terminal."""
    settled, total = progress.settled, progress.total
    waiting = [each for each in progress.datasets if each.settled < each.total]
    if not waiting:
        return f"all {total} samples answered, scoring"
    line = f"{waiting[0].dataset} {waiting[0].settled}/{waiting[0].total}"
    if len(progress.datasets) > 1:
        line += f", in all {settled}/{total}"
    line += f", {rate:.1f}/s"
    if rate > 0:
        left = round((total - settled) / rate)
        line += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
    return line


REDRAW_S = 0.5
# The bars show once pytest has been silent for as long.
SILENCE_S = 1.0
# Where there is no terminal, a plain line is printed this often.
PLAIN_S = 30.0
# The rate is that of this long a past.
RATE_WINDOW_S = 20.0

Source = Callable[[], Progress]


class Rate:
    """Answers per second over the last seconds."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def update(self, settled: int, now: float) -> float:
        """Take in the count at `now` (seconds) and return the rate."""
        self._seen.append((now, settled))
        while now - self._seen[0][0] > RATE_WINDOW_S:
            self._seen.popleft()
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start) if end > start else 0.0


class LiveProgress:
    """Shows bars while tests wait, and takes them away before pytest writes."""

    def __init__(self, screen: Screen, source: Source) -> None:
        self._screen = screen
        self._source = source
        self._rate = Rate()
        # Nothing is shown before the first test: pytest still reports the collection.
        self._spoke_at = math.inf
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, name="vlmeval-progress", daemon=True
        )

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Take the bars away for good."""
        self._stopped.set()
        self._thread.join()
        self._screen.erase()

    def _watch(self) -> None:
        silence_s = SILENCE_S if self._screen.live else PLAIN_S
        while not self._stopped.wait(REDRAW_S):
            try:
                progress = self._source()
            except Exception:
                continue  # The items that wait say what is wrong with the store.
            rate = self._rate.update(progress.settled, time.monotonic())
            silent_s = time.monotonic() - self._spoke_at
            if silent_s < silence_s or not progress.datasets:
                continue
            if self._screen.live:
                self._screen.draw(draw_progress(progress, rate, *self._screen.size))
            else:
                self._screen.announce(describe_progress(progress, rate))
                self._spoke_at = time.monotonic()

    def _give_way(self) -> None:
        self._spoke_at = time.monotonic()
        self._screen.erase()

    # pytest is about to write.

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        """Clear the line for the name of a test."""
        self._give_way()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self) -> None:
        """Clear the line for the outcome of a test."""
        self._give_way()

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self) -> None:
        """Clear the line for the message of an interruption."""
        self._give_way()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Clear the line for the summary."""
        self.stop()
