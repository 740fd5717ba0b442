"""What the process with the terminal shows at the end, and the reports it writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from pytest_vlmeval.errors import VlmEvalError, log_error, printable
from pytest_vlmeval.models.client import find_ending, is_cut_off
from pytest_vlmeval.records import (
    FIRST,
    NO_GATE,
    USABLE,
    WRITTEN,
    AnswerState,
    GateResult,
    Origins,
    RunAccount,
    SpotCheck,
    describe_interval,
)
from pytest_vlmeval.reports.flips import MOST_LINES as MOST_FLIPS
from pytest_vlmeval.reports.flips import flips_of_gates, format_flips, write_flips
from pytest_vlmeval.reports.folding import MOST_LINES, About, fold, name_some
from pytest_vlmeval.reports.progress import DatasetResult, LiveProgress, Progress, Watch
from pytest_vlmeval.reports.summary import describe_score, describe_unknown_endings
from pytest_vlmeval.reports.wording import (
    align,
    describe_account,
    describe_check,
    escape_markdown,
    write_markdown,
)
from pytest_vlmeval.run.judge import compare_judges, describe_agreement
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.database import Location

if TYPE_CHECKING:
    from pytest_vlmeval.reports.folding import FoldedFailures
    from pytest_vlmeval.reports.record import RunReport
    from pytest_vlmeval.reports.screen import Screen
    from pytest_vlmeval.settings import Settings

LEAST_FLIPS = 3
# Where what has no place in the terminal is.
MORE = "--vlm-report=FILE.html shows all"
SCORES = "--vlm-export=DIR writes the scores of each"
HEADINGS = ("dataset", "samples", "answered", "correct", "main metric", "")


def format_table(results: Sequence[DatasetResult]) -> list[str]:
    """Return the lines of the table, numbers right-aligned, and the scores' notes."""
    about: dict[str, list[str]] = {}
    for result in results:
        for note in describe_score(result.score) if result.score else ():
            about.setdefault(note, []).append(result.dataset)
    reasons: Counter[str] = Counter()
    for result in results:
        for (state, reason), count in result.endings.items():
            if state == "answered" and find_ending(reason) == "unknown":
                reasons[reason] += count
    return [
        *align([HEADINGS, *map(_row, results)], right=(1, 2, 3)),
        # Each note once, with the datasets it is about.
        *fold(
            [
                About(", ".join(names), f"{name_some(names)}: {note}")
                for note, names in about.items()
            ],
            MORE,
        ),
        *_judges(results),
        *describe_unknown_endings(reasons),
    ]


def _judges(results: Sequence[DatasetResult]) -> list[str]:
    """Return what several judges make of each dataset, and how far they agree.

    That is of the first datasets, where there are many.
    """
    lines: list[str] = []
    for result in results:
        scores = result.by_judge
        if scores:
            values = ", ".join(f"{each.judge} {each.value:.2f}" for each in scores)
            lines.append(f"{result.dataset}, by judge: {values}")
        lines += [
            f"{result.dataset}, {each.first} and {each.second}: "
            f"{describe_agreement(each)}"
            for each in compare_judges(scores)
        ]
    if len(lines) > MOST_LINES:
        rest = len(lines) - MOST_LINES
        return [*lines[:MOST_LINES], f"and {rest:,} more lines by judge: {SCORES}"]
    return lines


def _states(result: DatasetResult) -> str:
    """Say in brackets what became of what has no usable answer."""
    states: Counter[AnswerState] = Counter()
    for (state, _), count in result.endings.items():
        states[state] += count
    counted = [
        f"{states[state]} {state.replace('_', ' ')}"
        for state in get_args(AnswerState)
        if states[state] and state not in USABLE
    ]
    return f" ({', '.join(counted)})" if counted else ""


def _row(result: DatasetResult) -> tuple[str, ...]:
    notes = []
    if result.answered < result.samples:
        missing = result.samples - result.answered
        notes.append(f"{missing} without a usable answer{_states(result)}")
    endings = result.endings.items()
    if cut_off := sum(count for (_, why), count in endings if is_cut_off(why)):
        notes.append(f"{cut_off} cut off at the token limit")
    if result.score is not None and result.score.undecided:
        undecided, best = result.score.undecided, result.score.best
        notes.append(f"{undecided} not decided by the judge, at best {best:.2f}")
    if result.version:
        notes.append(f"data of {result.version}")
    if result.modified:
        notes.append("modified data")
    if result.score is not None and result.score.scoring != "published":
        notes.append(f"{result.score.scoring} scoring")
    score = result.score
    metric = f"no score: {result.no_score}" if result.no_score else "no score"
    if score is not None:
        metric = f"{score.main_metric} {score.value:.2f} of {score.scale:g}"
        if score.repeats:
            metric += (
                f", mean of {len(score.repeats)} repeats (standard deviation "
                f"{score.standard_deviation:.2f}, error {score.standard_error:.2f})"
            )
    return (
        result.dataset,
        str(result.samples),
        str(result.answered),
        "-" if score is None else str(score.correct),
        metric,
        ", ".join(notes),
    )


def format_account(account: RunAccount) -> list[str]:
    """Return the lines of the terminal: stored answers, and totals of what was asked.

    Those of each dataset are in the report.
    """
    lines = []
    origins, check = account.origins, account.spot_check
    if origins and (origins.equal or origins.stored or check):
        lines.append(describe_origins(origins, check))
    if account.now is not None and account.now.requests:
        lines.append(f"asked: {describe_account(account.now)}")
    lines += [
        f"judge {judge.asked}: {describe_account(judge)}"
        for judge in account.judges_now
    ]
    return lines


def describe_origins(origins: Origins, check: SpotCheck | None) -> str:
    """Count the answers from the store, and report how their check ended."""
    total = origins.asked + origins.equal + origins.stored
    words = [f"{origins.asked} asked now"]
    if origins.equal:
        words.append(f"{origins.equal} by the answer to an equal prompt among them")
    if origins.stored or check:
        where = f" ({origins.described})" if origins.described else ""
        words.append(f"{origins.stored} from the store{where}")
        words.append(describe_check(check))
    return f"{total} {'answer' if total == 1 else 'answers'}: {', '.join(words)}"


GATE_HEADINGS = (
    "dataset",
    "gate",
    "outcome",
    "value",
    "interval",
    "expected",
    "reason",
)


def format_gates(results: Sequence[GateResult]) -> list[str]:
    """Return one line that counts, and one for each gate that did not pass.

    Those that say the same share one, if there are many. What failed its test is told
    at length by its item.
    """
    notes = fold(
        [
            About(each.dataset, f"gates: {each.message}")
            for each in results
            if each.is_note
        ],
        MORE,
    )
    results = [each for each in results if not each.is_note]
    if not results:
        return notes
    is_set = any(result.is_set for result in results)
    counts = Counter(
        result.outcome
        for result in results
        if result.counts and (is_set or result.outcome != "passed")
    )
    counted = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    if not is_set:
        counted = f"{NO_GATE}; {counted}" if counted else NO_GATE
    written = sum(result.rule == WRITTEN for result in results)
    if written:
        counted += f"; {written} baseline{'s' if written > 1 else ''} written"
    for gate in ("threshold", "baseline") if is_set else ():
        without = {
            each.dataset
            for each in results
            if each.gate == gate and each.finding == "not set"
        }
        if without:
            counted += f"; without a {gate}: {name_some(sorted(without))}"
    lines = [f"gates: {counted}"]
    if any(result.rule == FIRST for result in results):
        lines.append(
            "gates: no baselines yet: --snapshot-update makes today's scores the "
            "baseline"
        )
    told = [
        About(result.dataset, f"gates: {result.headline}")
        for result in results
        if result.outcome != "passed"
        or (result.rule == WRITTEN and result.expected is not None)
    ]
    return [*lines, *fold(told, MORE), *notes]


def format_unheld(thresholds: Mapping[str, str]) -> list[str]:
    """Return a line for each dataset whose thresholds no test was held against.

    Of many datasets they share one.
    """
    if len(thresholds) > MOST_LINES:
        first = next(iter(thresholds.values()))
        return [
            f"gates: {name_some([*thresholds])} failed: no test held their scores "
            f"against their thresholds (the first: {first}). Their test_score was "
            "skipped or is not there: run one, or a test that calls "
            "vlm_score.check(), or take the thresholds out."
        ]
    return [
        f"gates: {name} failed: no test held its score against its threshold ({told}). "
        "Its test_score was skipped or is not there: run one, or a test that calls "
        "vlm_score.check(), or take the threshold out."
        for name, told in thresholds.items()
    ]


def format_markdown(model: str, results: Sequence[GateResult]) -> str:
    """Return a table of all gates, those that fail first, and one of what flipped."""
    failed = sum(result.fails for result in results)
    count = sum(not result.is_note for result in results)
    said = f"{failed} of {count} gates fail" if failed else "every gate passes"
    open_ones = sum(result.outcome == "inconclusive" for result in results)
    if not failed and open_ones:
        said = f"no gate fails, {open_ones} inconclusive"
    elif not failed and not any(result.is_set for result in results):
        said = NO_GATE
    ordered = sorted(results, key=lambda each: not each.fails)
    rows = [GATE_HEADINGS, *map(_gate_cells, ordered)]
    heading = f"## vlmeval: {escape_markdown(model)}, {said}"
    lines = [heading, "", *write_markdown(rows), ""]
    if flips := write_flips(flips_of_gates(ordered), "the baseline"):
        lines += [*flips, ""]
    return "\n".join([*lines, ""])


def _gate_cells(result: GateResult) -> tuple[str, ...]:
    outcome = result.finding
    if outcome == "inconclusive":
        outcome += ", fails" if result.fails else ", passes"
    return (
        result.dataset,
        f"{result.gate}: {result.metric}" if result.metric else result.gate,
        outcome,
        "" if result.value is None else f"{result.value:.2f}",
        "" if result.interval is None else describe_interval(result.interval),
        "" if result.expected is None else f"{result.expected:.2f}",
        result.message,
    )


class SessionReport:
    """Shows a session's progress and results, and writes its reports when it ends.

    Lives in the process with the terminal, whatever processes do the work. `unheld` are
    the thresholds that no test was held against, by their datasets.
    """

    def __init__(
        self,
        terminal: pytest.TerminalReporter | None,
        screen: Screen,
        settings: Settings,
        session_id: str,
        *,
        failures: FoldedFailures,
        announce: Callable[[str], None],
        unheld: Mapping[str, str],
    ) -> None:
        self._announce = announce
        self._terminal = terminal
        self._unheld = unheld
        self._failures = failures
        self._settings = settings
        self._session_id = session_id
        self._store: Store | None = None
        self._watch: Watch | None = None
        self._session: pytest.Session | None = None
        self._written: list[str] = []
        self.line = LiveProgress(screen, self._progress)

    def _find_watch(self) -> Watch | None:
        """Open the store once some process of the session has written its plan."""
        place = Location(self._settings.work_dir, self._settings.store)
        if self._watch is None and place.may_exist:
            if self._store is None:
                self._store = Store(
                    self._settings.work_dir, self._settings.store, self._announce
                )
            plan = self._store.load_plan(self._session_id)
            if plan is not None:
                self._watch = Watch(
                    self._store, plan, self._session_id, self._settings.cache_dir
                )
        return self._watch

    def _progress(self) -> Progress:
        watch = self._find_watch()
        return Progress() if watch is None else watch.progress()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self) -> None:
        """Let go of the reports of set-ups and tear-downs that went well.

        pytest keeps them to the end, 3 kB an item, for --durations alone.
        """
        terminal = self._terminal
        if terminal and terminal.config.getoption("durations", None) is None:
            terminal.stats.pop("", None)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int | pytest.ExitCode
    ) -> None:
        """Write the reports, however it ends; one that cannot be fails the session."""
        # Its exit status is not final before the summary.
        self._session = session
        if exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        if self._settings.report is None and self._settings.export is None:
            return
        try:
            self._written = self._write()
        except Exception as error:
            self._written = self._explain(error, exitstatus, "Writing the reports")

    def _write(self) -> list[str]:
        from pytest_vlmeval.reports.record import load_session

        if not Location(self._settings.work_dir, self._settings.store).may_exist:
            return []
        store = Store(self._settings.work_dir, self._settings.store)
        try:
            if store.refusal(self._session_id):
                return ["no report is written, as nothing was scored"]
            report = load_session(store, self._settings.cache_dir, self._session_id)
        finally:
            store.close()
        return [] if report is None else write_reports(report, self._settings)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode
    ) -> None:
        """Print the table of datasets, unless nothing was run, and what was written."""
        lines: list[str] | None = None
        if exitstatus != pytest.ExitCode.USAGE_ERROR:
            try:
                lines = self._summarize(exitstatus)
            except Exception as error:
                lines = self._explain(error, exitstatus, "The summary")
        if lines is not None:
            terminalreporter.write_sep("=", "vlmeval")
        for line in [*(lines or ()), *(f"vlmeval: {each}" for each in self._written)]:
            terminalreporter.write_line(printable(line))
        self._failures.fold_list()

    def _summarize(self, exitstatus: int) -> list[str] | None:
        """Return the lines of the summary; None if there is none."""
        if self._settings.gates.stop_early:
            # The plan may have become smaller since.
            self._watch = None
        watch = self._find_watch()
        if watch is None:
            return None
        assert self._store is not None
        # A score of answers that may be another model's is none of this session.
        if refusal := self._store.refusal(self._session_id):
            return [refusal]
        parts: tuple[tuple[str, Callable[[], Sequence[str]]], ...] = (
            ("The summary", lambda: format_table(watch.results())),
            ("The summary", self._gates),
            ("The summary", lambda: format_unheld(self._unheld)),
            ("The summary", lambda: format_account(watch.account())),
            ("The summary", self._compare),
            ("Writing the result tables", lambda: self._tables(watch)),
        )
        lines: list[str] = []
        for what, part in parts:
            # One that fails does not take the others with it.
            try:
                lines += part()
            except Exception as error:
                lines += self._explain(error, exitstatus, what)
        return lines

    def _tables(self, watch: Watch) -> list[str]:
        """Write the result tables that users of task files expect."""
        settings = self._settings
        if not settings.has_task:
            return []
        from pytest_vlmeval.reports.outputs import write_result_tables

        return write_result_tables(
            [each.score for each in watch.results() if each.score],
            settings.work_dir,
            model=settings.model or "",
            run_id=watch.run_id,
        )

    def _explain(self, error: Exception, exitstatus: int, what: str) -> list[str]:
        """Return the lines of what failed; what is unexpected fails the session."""
        is_expected = isinstance(error, VlmEvalError)
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) and not (
            is_expected and what == "The summary"
        ):
            assert self._session is not None
            self._session.exitstatus = pytest.ExitCode.USAGE_ERROR
        if is_expected:
            return str(error).splitlines()
        return [log_error(self._settings, error, what)]

    def _compare(self) -> list[str]:
        """Compare with the run that `--vlm-compare-with` names."""
        name = self._settings.baselines.compare_with
        if name is None or self._store is None:
            return []
        from pytest_vlmeval.reports.comparison import compare_session_with

        return compare_session_with(
            self._store, self._settings.cache_dir, self._session_id, name
        )

    def _gates(self) -> list[str]:
        """Return the lines about gates; add them to the summary of a CI's job."""
        assert self._store is not None
        found = self._store.load_gates(self._session_id)
        lines = format_gates(found)
        # All of it is to fit a screen.
        most = max(LEAST_FLIPS, MOST_FLIPS - 2 * len(lines))
        lines += format_flips(flips_of_gates(found), most)
        summary = self._settings.gates.step_summary
        if found and summary is not None:
            text = format_markdown(self._settings.model or "", found)
            try:
                # Other steps may have begun the file.
                with summary.open("a", encoding="utf-8") as file:
                    file.write(text)
            except OSError as error:
                lines.append(
                    f"GITHUB_STEP_SUMMARY={summary} cannot be written "
                    f"({error.strerror}). Point it at a writable file, or unset it."
                )
        return lines

    def pytest_unconfigure(self) -> None:
        """Close the store."""
        if self._store is not None:
            self._store.close()


def write_reports(report: RunReport, settings: Settings) -> list[str]:
    """Write what the settings ask for; return a line about each.

    Raises `VlmEvalError` for what cannot be written, once all else is.
    """
    lines: list[str] = []
    failures: list[str] = []
    for path, write in (
        (settings.report, _write_page),
        (settings.export, _write_results),
    ):
        if path is None:
            continue
        try:
            lines += write(report, path, settings)
        except VlmEvalError as error:
            failures.append(str(error))
        except Exception as error:
            failures.append(log_error(settings, error, f"Writing {path}"))
    if failures:
        raise VlmEvalError("\n".join([*failures, *lines]))
    return lines


def _write_page(report: RunReport, path: Path, settings: Settings) -> list[str]:
    from pytest_vlmeval.reports.html import write_html

    write_html(report, path, max_mb=settings.report_max_mb)
    return [f"report: {path} ({path.stat().st_size / 1e6:.1f} MB)"]


def _write_results(report: RunReport, path: Path, settings: Settings) -> list[str]:
    from pytest_vlmeval.reports.export import write_export

    return [
        f"results: {path}",
        *write_export(report, path, settings.predictions),
    ]
