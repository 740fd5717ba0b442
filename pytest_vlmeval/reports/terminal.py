"""What the process with the terminal shows at the end, and the reports it writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from pytest_vlmeval.errors import VlmEvalError, log_error, printable
from pytest_vlmeval.gates.completeness import describe_defects
from pytest_vlmeval.models.endings import find_ending, is_cut_off
from pytest_vlmeval.records import (
    USABLE,
    AnswerState,
    GateResult,
    Origins,
    RunAccount,
    Score,
    SpotCheck,
    describe_interval,
)
from pytest_vlmeval.reports.progress import DatasetResult, LiveProgress, Progress, Watch
from pytest_vlmeval.reports.summary import describe_unknown_endings, describe_unread
from pytest_vlmeval.reports.wording import describe_account, describe_check
from pytest_vlmeval.run.judge import compare_judges, describe_agreement
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.database import Location

if TYPE_CHECKING:
    from pytest_vlmeval.reports.record import RunReport
    from pytest_vlmeval.reports.screen import Screen
    from pytest_vlmeval.settings import Settings

HEADINGS = ("dataset", "samples", "answered", "correct", "main metric", "")


def format_table(results: Sequence[DatasetResult]) -> list[str]:
    """Return the lines of the table, numbers right-aligned, and the scores' notes."""
    rows = [HEADINGS, *map(_row, results)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if 1 <= column <= 3 else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths[:-1]))
    lines += [
        *_notes(results),
        *_unread(results),
        *_defects(results),
        *_judges(results),
    ]
    return lines + _unknown_endings(results)


def _judges(results: Sequence[DatasetResult]) -> list[str]:
    """Return what several judges make of each dataset, and how far they agree."""
    lines = []
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
    return lines


def _metric(score: Score) -> str:
    shown = f"{score.main_metric} {score.value:.2f} of {score.scale:g}"
    if score.repeats:
        shown += (
            f", mean of {len(score.repeats)} repeats (standard deviation "
            f"{score.standard_deviation:.2f}, error {score.standard_error:.2f})"
        )
    return shown


def _no_score(result: DatasetResult) -> str:
    return f"no score: {result.no_score}" if result.no_score else "no score"


def _notes(results: Sequence[DatasetResult]) -> list[str]:
    """Return each note once, with the datasets it is about."""
    about: dict[str, list[str]] = {}
    for result in results:
        for note in result.score.notes if result.score else ():
            about.setdefault(note, []).append(result.dataset)
    return [f"{', '.join(names)}: {note}" for note, names in about.items()]


def _unread(results: Sequence[DatasetResult]) -> list[str]:
    """Return how many answers named no option, by dataset."""
    said = {each.dataset: describe_unread(each.score) for each in results if each.score}
    return [f"{dataset}: {text}" for dataset, text in said.items() if text is not None]


def _defects(results: Sequence[DatasetResult]) -> list[str]:
    """Return how many published verdicts rest on a known defect, by dataset."""
    said = {
        each.dataset: describe_defects(each.score) for each in results if each.score
    }
    return [f"{dataset}: {text}" for dataset, text in said.items() if text is not None]


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


def _unknown_endings(results: Sequence[DatasetResult]) -> list[str]:
    reasons: Counter[str] = Counter()
    for result in results:
        for (state, reason), count in result.endings.items():
            if state == "answered" and find_ending(reason) == "unknown":
                reasons[reason] += count
    return describe_unknown_endings(reasons)


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
    return (
        result.dataset,
        str(result.samples),
        str(result.answered),
        "-" if score is None else str(score.correct),
        _no_score(result) if score is None else _metric(score),
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

    What failed its test is told at length by its item.
    """
    notes = [f"gates: {each.message}" for each in results if each.is_note]
    results = [each for each in results if not each.is_note]
    if not results:
        return notes
    counts = Counter(result.outcome for result in results)
    counted = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    without = sorted({each.dataset for each in results if each.rule == "none"})
    lines = [f"gates: {counted}" + (_without(without) if without else "")]
    for result in results:
        if result.outcome != "passed":
            first = result.message.splitlines()[0]
            lines.append(f"gates: {first}")
    return lines + notes


def format_unheld(thresholds: Mapping[str, str]) -> list[str]:
    """Return a line for each dataset whose thresholds no test was held against."""
    return [
        f"gates: {name} failed: no test held its score against its threshold ({told}). "
        "Its test_score was skipped or is not there: run one, or a test that calls "
        "vlm_score.check(), or take the threshold out."
        for name, told in thresholds.items()
    ]


def _without(datasets: Sequence[str]) -> str:
    shown = ", ".join(datasets[:3])
    more = f" and {len(datasets) - 3} more" if len(datasets) > 3 else ""
    return f"; without a threshold: {shown}{more}"


def format_markdown(model: str, results: Sequence[GateResult]) -> str:
    """Return a table of all gates, those that fail their test first."""
    failed = sum(result.fails for result in results)
    count = sum(not result.is_note for result in results)
    said = f"{failed} of {count} gates fail" if failed else "every gate passes"
    lines = [f"## vlmeval: {_cell(model)}, {said}", "", _gate_row(GATE_HEADINGS)]
    lines.append(_gate_row(["---"] * len(GATE_HEADINGS)))
    ordered = sorted(results, key=lambda each: not each.fails)
    lines += [_gate_row([_cell(text) for text in _cells(each)]) for each in ordered]
    return "\n".join([*lines, "", ""])


def _cells(result: GateResult) -> list[str]:
    gate = f"{result.gate}: {result.metric}" if result.metric else result.gate
    verdict = "fails" if result.fails else "passes"
    outcome = result.outcome
    return [
        result.dataset,
        gate,
        f"{outcome}, {verdict}" if outcome == "inconclusive" else outcome,
        "" if result.value is None else f"{result.value:.2f}",
        "" if result.interval is None else describe_interval(result.interval),
        "" if result.expected is None else f"{result.expected:.2f}",
        result.message,
    ]


def _gate_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """Keep text in its cell, and what looks like markup as it is written."""
    for sign, written in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ("|", "\\|"),
        ("\n", "<br>"),
        ("`", "\\`"),
    ):
        text = text.replace(sign, written)
    return text


def append_summary(path: Path, text: str) -> None:
    """Add to the file of a job's summary, which other steps may have begun.

    Raises `VlmEvalError` where it cannot be written.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise VlmEvalError(
            f"GITHUB_STEP_SUMMARY={path} cannot be written ({error.strerror}). Point "
            "it at a writable file, or unset it."
        ) from None


class TerminalReport:
    """Shows a session's progress and results, whatever processes do the work."""

    def __init__(
        self,
        terminal: pytest.TerminalReporter,
        screen: Screen,
        settings: Settings,
        session_id: str,
        *,
        announce: Callable[[str], None],
        find_unheld: Callable[[], Mapping[str, str]],
    ) -> None:
        self._announce = announce
        self._terminal = terminal
        self._find_unheld = find_unheld
        self._settings = settings
        self._session_id = session_id
        self._store: Store | None = None
        self._watch: Watch | None = None
        self._session: pytest.Session | None = None
        self.line = LiveProgress(screen, self._progress)

    def _find_watch(self) -> Watch | None:
        """Open the store once some process of the session has written its plan."""
        place = Location(self._settings.work_dir, self._settings.store)
        if self._watch is None and place.may_exist:
            if self._store is None:
                self._store = Store(
                    self._settings.work_dir, self._settings.store, self._announce
                )
            plan = self._store.runs.load_plan(self._session_id)
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
        if self._terminal.config.getoption("durations", None) is None:
            self._terminal.stats.pop("", None)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Keep the session: its exit status is not final before the summary."""
        self._session = session

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode
    ) -> None:
        """Print the table of datasets, unless nothing was run."""
        if exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        if self._settings.gates.stop_early:
            # The plan may have become smaller since.
            self._watch = None
        lines: list[str] = []
        try:
            watch = self._find_watch()
            if watch is None:
                return
            # A score of answers that may be another model's is none of this session.
            lines = self._refusal()
        except Exception as error:
            lines = [self._failure(error, exitstatus)]
        else:
            parts: tuple[Callable[[], Sequence[str]], ...] = (
                lambda: format_table(watch.results()),
                self._gates,
                lambda: format_unheld(self._find_unheld()),
                lambda: format_account(watch.account()),
                self._compare,
            )
            for part in () if lines else parts:
                # One that fails does not take the others with it.
                try:
                    lines += part()
                except Exception as error:
                    lines.append(self._failure(error, exitstatus))
        terminalreporter.write_sep("=", "vlmeval")
        for line in lines:
            terminalreporter.write_line(printable(line))

    def _failure(self, error: Exception, exitstatus: int) -> str:
        """Return the line of what failed; what is unexpected fails the session."""
        if isinstance(error, VlmEvalError):
            return str(error)
        if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
            assert self._session is not None
            self._session.exitstatus = pytest.ExitCode.USAGE_ERROR
        return log_error(self._settings, error, "The summary")

    def _refusal(self) -> list[str]:
        """Explain why stored answers do not count, if their check did not pass."""
        assert self._store is not None
        refusal = self._store.reuse.refusal(self._session_id)
        return [refusal] if refusal else []

    def _compare(self) -> list[str]:
        """Compare with the run that `--vlm-compare-with` names."""
        baselines = self._settings.baselines
        if baselines.compare_with is None or self._store is None:
            return []
        from pytest_vlmeval.reports.comparison import compare_session_with

        return compare_session_with(
            self._store,
            self._settings.cache_dir,
            self._session_id,
            baselines.compare_with,
        )

    def _gates(self) -> list[str]:
        """Return the lines about gates; add them to the summary of a CI's job."""
        if self._store is None:
            return []
        found = self._store.gates.load(self._session_id)
        lines, summary = format_gates(found), self._settings.gates.step_summary
        if found and summary is not None:
            try:
                append_summary(
                    summary, format_markdown(self._settings.model or "", found)
                )
            except VlmEvalError as error:
                lines.append(str(error))
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


class ReportWriter:
    """Writes the reports of a session when it ends, however it ends.

    Lives in the process with the terminal, which under xdist is the controller.
    """

    def __init__(self, settings: Settings, session_id: str) -> None:
        self._settings = settings
        self._session_id = session_id
        self._lines: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(
        self, session: pytest.Session, exitstatus: int | pytest.ExitCode
    ) -> None:
        """Write; a report that cannot be written fails the session."""
        if exitstatus == pytest.ExitCode.USAGE_ERROR:
            return
        try:
            self._lines = self._write()
        except Exception as error:
            self._lines = (
                str(error).splitlines()
                if isinstance(error, VlmEvalError)
                else [log_error(self._settings, error, "Writing the reports")]
            )
            if exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def _write(self) -> list[str]:
        from pytest_vlmeval.reports.record import load_session

        if not Location(self._settings.work_dir, self._settings.store).may_exist:
            return []
        store = Store(self._settings.work_dir, self._settings.store)
        try:
            if store.reuse.refusal(self._session_id):
                return ["no report is written, as nothing was scored"]
            report = load_session(store, self._settings.cache_dir, self._session_id)
        finally:
            store.close()
        return [] if report is None else write_reports(report, self._settings)

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter
    ) -> None:
        """Describe what was written, or why it was not."""
        for line in self._lines:
            terminalreporter.write_line(f"vlmeval: {printable(line)}")
