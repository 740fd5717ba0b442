"""A stored run as one plain record, read from the store: all that reports may show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.datasets.prepare import find_prepared, read_samples_of
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.baseline_file import DIGITS, read_baseline
from pytest_vlmeval.models.client import is_cut_off
from pytest_vlmeval.records import (
    Answer,
    GateResult,
    Origins,
    PlanEntry,
    Sample,
    Score,
    Setting,
    Start,
    Turn,
    Verdict,
    is_right,
)
from pytest_vlmeval.run.queue import Board
from pytest_vlmeval.run.scoring import find_score, find_scores_by_judge

if TYPE_CHECKING:
    from pytest_vlmeval.records import RunAccount
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.run.store.runs import PastScore, StoredSession

# So many runs are looked through for the answers of a baseline, the newest first.
MOST_RECALLED = 5
Outcome = Literal[
    "correct",
    "wrong",
    "unscored",
    "undecided",
    "empty",
    "filtered",
    "refused",
    "aborted",
    "failed",
    "missing",
]
Flip = Literal["regressed", "fixed", ""]
# Why a sample counts for nothing: in one word, the first that is true.
Cause = Literal[
    "failed",
    "aborted",
    "refused",
    "filtered",
    "empty",
    "missing",
    "judge_failed",
    "judge_unclear",
    "unanswerable",
    "cut_off",
    "unread",
    "wrong",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Before:
    """A sample in what the run is compared with; of a baseline without its text.

    `value` is what it counts, from 0 to 1.
    """

    outcome: Outcome
    value: float
    text: str = ""
    extracted: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReport:
    """A sample with what became of it.

    `prompt` is empty where the prepared dataset is gone. `answer` is None where
    nothing came back yet, `verdict` where there is none of its own.
    """

    index: str
    prompt: tuple[Turn, ...] = ()
    reference: str | None = None
    category: str | None = None
    group: str | None = None
    answer: Answer | None = None
    verdict: Verdict | None = None
    before: Before | None = None

    @property
    def outcome(self) -> Outcome:
        """What to say of the sample in one word."""
        return find_outcome(self.answer, self.verdict)

    @property
    def value(self) -> float:
        """What it counts, from 0 to 1: nothing without a usable answer or verdict."""
        return (self.verdict.value or 0.0) if self.verdict else 0.0

    @property
    def is_cut_off(self) -> bool:
        """Whether a limit of tokens ended its answer, or the thoughts before it."""
        return self.answer is not None and is_cut_off(self.answer.finish_reason)

    @property
    def cause(self) -> Cause | None:
        """Why it counts for nothing; None if it is right, or has no verdict."""
        outcome, verdict = self.outcome, self.verdict
        if outcome == "correct" or outcome == "unscored":
            return None
        if outcome == "undecided":
            unclear = verdict is not None and verdict.state == "judge_unclear"
            return "judge_unclear" if unclear else "judge_failed"
        if outcome != "wrong" or verdict is None:
            return None if outcome == "wrong" else outcome
        if verdict.why_lost:
            return "unanswerable"
        if self.is_cut_off:
            return "cut_off"
        return "unread" if verdict.unread else "wrong"

    @property
    def flip(self) -> Flip:
        """Whether it was right before and is not now, or the other way round."""
        if self.before is None:
            return ""
        was, now = self.before.outcome == "correct", self.outcome == "correct"
        if was == now:
            return ""
        return "regressed" if was else "fixed"


def find_outcome(answer: Answer | None, verdict: Verdict | None) -> Outcome:
    """Put answer and verdict into one word."""
    if answer is None or answer.state == "not_asked":
        return "missing"
    if not (answer.state == "answered" or answer.state == "cut_off"):
        return answer.state
    if verdict is None:
        return "unscored"
    if verdict.value is None:
        return "unscored" if verdict.state in ("matched", "judged") else "undecided"
    return "correct" if is_right(verdict.value) else "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetReport:
    """A dataset of the run.

    `checksum` is the MD5 of its file and `version` which of several published ones it
    is, "" where one is known. `folder` is that of the prepared dataset, None where it
    is gone. `no_score` says why `score` is None, and `failed_to_score` whether that is
    an error. `by_judge` are the scores of several judges, `past` all scores of this
    very data in the store, newest first. `gates` is what the gates of the session
    found, `origins` which of the answers it asked itself.
    """

    dataset: str
    fingerprint: str
    modified: bool
    checksum: str = ""
    version: str = ""
    samples: tuple[SampleReport, ...]
    folder: Path | None = None
    score: Score | None = None
    no_score: str = ""
    failed_to_score: bool = False
    by_judge: tuple[Score, ...] = ()
    origins: Origins = field(default_factory=Origins)
    past: tuple[PastScore, ...] = ()
    gates: tuple[GateResult, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """What was asked of a judge and what it replied; `text` is None without a reply."""

    number: int
    judge: str
    prompt: str
    text: str | None
    error: str
    latency_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """A run as reports show it.

    `settings` is what tells the run apart. `began_at` is that of the newest session,
    in seconds since 1970, and `start` how that was started. `exchanges` are by their
    numbers in the store, `account` is what it cost. `compared_with` names what
    `before` is of.
    """

    version: str
    run_id: str
    model: str
    settings: Mapping[str, Setting | None]
    began_at: float
    start: Start
    scorer: str
    datasets: tuple[DatasetReport, ...]
    exchanges: Mapping[int, Exchange] = field(default_factory=dict)
    account: RunAccount | None = None
    compared_with: str = ""


def compare(report: RunReport, other: RunReport) -> RunReport:
    """Return the report with each sample's outcome in another run beside it."""
    theirs = {
        (dataset.dataset, sample.index): sample
        for dataset in other.datasets
        for sample in dataset.samples
    }

    def compared(dataset: str, sample: SampleReport) -> SampleReport:
        match = theirs.get((dataset, sample.index))
        if match is None:
            return sample
        return replace(sample, before=as_before(match))

    datasets = tuple(
        replace(each, samples=tuple(compared(each.dataset, s) for s in each.samples))
        for each in report.datasets
    )
    name = f"{other.model} ({other.run_id})"
    return replace(report, datasets=datasets, compared_with=name)


def as_before(sample: SampleReport) -> Before:
    """Return a sample as what another one is compared with."""
    return Before(
        outcome=sample.outcome,
        value=sample.value,
        text=sample.answer.cell if sample.answer else "",
        extracted=sample.verdict.extracted if sample.verdict else None,
    )


def with_baseline(dataset: DatasetReport) -> DatasetReport:
    """Return a dataset with what its samples were in the baseline its gate took.

    As it is where there is none, or the file is no longer that one: the gate has told
    of it.
    """
    for gate in dataset.gates:
        if gate.gate == "baseline" and gate.lost is not None and gate.file:
            before = _read_values(gate)
            samples = tuple(
                replace(each, before=before.get(each.index)) for each in dataset.samples
            )
            return replace(dataset, samples=samples)
    return dataset


def _read_values(gate: GateResult) -> dict[str, Before]:
    path = Path(gate.file)
    try:
        baseline = read_baseline(path, path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, VlmEvalError):
        return {}
    if baseline.value != gate.expected:
        return {}
    return {
        index: Before(
            outcome="correct" if is_right(value) else "wrong",
            value=value or 0.0,
        )
        for index, value in baseline.values.items()
    }


def load_session(store: Store, cache_dir: Path, session_id: str) -> RunReport | None:
    """Return what a session selected and what came of it; None before its plan."""
    plan = store.load_plan(session_id)
    if plan is None:
        return None
    sessions = store.sessions(plan.run_id)
    chosen = [each for each in sessions if each.session_id == session_id]
    return _Loader(store, cache_dir).load(plan.run_id, chosen)


def load_run(store: Store, cache_dir: Path, run_id: str) -> RunReport:
    """Return a run of the store, of each dataset the session that took most of it."""
    return _Loader(store, cache_dir).load(run_id, store.sessions(run_id))


class _Loader:
    """Reads one run."""

    def __init__(self, store: Store, cache_dir: Path) -> None:
        self._store = store
        self._cache_dir = cache_dir

    def load(self, run_id: str, sessions: Sequence[StoredSession]) -> RunReport:
        run = next(run for run in self._store.runs() if run.run_id == run_id)
        past = self._store.past_scores()
        datasets = tuple(
            self._dataset(session, entry, past)
            for session, entry in _widest(sessions).values()
        )
        datasets = tuple(self._recall(with_baseline(each), run_id) for each in datasets)
        compared = any(each.before for set_ in datasets for each in set_.samples)
        newest = sessions[0] if sessions else None
        return RunReport(
            version=version("pytest-vlmeval"),
            run_id=run_id,
            model=run.model,
            settings=run.settings,
            began_at=newest.created_at if newest else run.created_at,
            start=newest.start if newest else Start(),
            scorer=newest.plan.scorer if newest else "",
            datasets=datasets,
            exchanges=self._exchanges(datasets),
            account=self._account(sessions, datasets),
            compared_with="the baseline" if compared else "",
        )

    def _recall(self, dataset: DatasetReport, run_id: str) -> DatasetReport:
        """Add the answers of the baseline to samples that changed, if they are stored.

        A baseline has verdicts alone. Its answers are those of another run of the very
        same data, with the very same verdicts.
        """
        if not any(each.flip for each in dataset.samples):
            return dataset
        before = {s.index: s.before for s in dataset.samples if s.before is not None}
        value = next(it.expected for it in dataset.gates if it.gate == "baseline")
        others = dict.fromkeys(
            past.run_id
            for past in dataset.past
            if value is not None and abs(past.value - value) < 1e-5
        )
        for other in [name for name in others if name != run_id][:MOST_RECALLED]:
            chosen = _widest(self._store.sessions(other)).get(dataset.dataset)
            if chosen is None or chosen[1].fingerprint != dataset.fingerprint:
                continue
            theirs = {s.index: s for s in self._dataset(*chosen, ()).samples}
            if theirs.keys() >= before.keys() and all(
                round(theirs[index].value, DIGITS) == was.value
                for index, was in before.items()
            ):
                found = {index: as_before(theirs[index]) for index in before}
                return replace(
                    dataset,
                    samples=tuple(
                        replace(each, before=found.get(each.index, each.before))
                        for each in dataset.samples
                    ),
                )
        return dataset

    def _account(
        self, sessions: Sequence[StoredSession], datasets: Sequence[DatasetReport]
    ) -> RunAccount | None:
        """Sum up what the run asked for all datasets of these sessions.

        What was asked now is what the newest of them asked.
        """
        if not sessions:
            return None
        chosen = tuple(entry for _, entry in _widest(sessions).values())
        plan, session_id = sessions[0].plan, sessions[0].session_id
        account = self._store.account(replace(plan, entries=chosen), session_id)
        return replace(
            account,
            origins=sum((each.origins for each in datasets), Origins()),
            spot_check=self._store.spot_check(session_id),
        )

    def _dataset(
        self, session: StoredSession, entry: PlanEntry, past: Sequence[PastScore]
    ) -> DatasetReport:
        plan = replace(session.plan, entries=(entry,))
        board = Board(self._store, plan, session.session_id)
        board.refresh()
        found = find_score(board, entry)
        score = found if isinstance(found, Score) else None
        folder = find_prepared(self._cache_dir, entry.dataset, entry.fingerprint)
        return DatasetReport(
            dataset=entry.dataset,
            fingerprint=entry.fingerprint,
            modified=entry.modified,
            checksum=entry.checksum,
            version=entry.version,
            folder=folder,
            samples=_samples(entry, folder, board, score),
            score=score,
            no_score=entry.unscored
            or (str(found) if isinstance(found, VlmEvalError) else ""),
            failed_to_score=not entry.unscored and isinstance(found, VlmEvalError),
            by_judge=find_scores_by_judge(board, entry),
            origins=board.origins(),
            past=tuple(each for each in past if each.fingerprint == entry.fingerprint),
            gates=tuple(
                each
                for each in self._store.load_gates(session.session_id)
                if each.dataset == entry.dataset
            ),
        )

    def _exchanges(self, datasets: Iterable[DatasetReport]) -> Mapping[int, Exchange]:
        numbers = sorted(
            {
                number
                for dataset in datasets
                for sample in dataset.samples
                if sample.verdict
                for number in sample.verdict.exchanges
            }
        )
        rows = self._store.load_exchanges(numbers)
        return {each.number: each for each in map(_exchange, rows)}


def _widest(
    sessions: Sequence[StoredSession],
) -> Mapping[str, tuple[StoredSession, PlanEntry]]:
    """Choose for each dataset the session, newest first, that took most of it."""
    chosen: dict[str, tuple[StoredSession, PlanEntry]] = {}
    for session in sessions:
        for entry in session.plan.entries:
            known = chosen.get(entry.dataset)
            if known is None or len(known[1].indexes) < len(entry.indexes):
                chosen[entry.dataset] = session, entry
    return chosen


def _samples(
    entry: PlanEntry, folder: Path | None, board: Board, score: Score | None
) -> tuple[SampleReport, ...]:
    rows: Mapping[str, Sample] = {}
    if folder is not None:
        rows = {row.index: row for row in read_samples_of(folder, entry.dataset)}
    verdicts = {each.index: each for each in score.verdicts} if score else {}
    return tuple(
        _sample(index, rows.get(index), board, entry, verdicts.get(index))
        for index in entry.indexes
    )


def _sample(
    index: str,
    row: Sample | None,
    board: Board,
    entry: PlanEntry,
    verdict: Verdict | None,
) -> SampleReport:
    stored = board.get(entry.fingerprint, index)
    return SampleReport(
        index=index,
        prompt=row.prompt if row else (),
        reference=row.reference if row else None,
        category=row.category if row else None,
        group=row.group if row else None,
        answer=stored.answer if stored else None,
        verdict=verdict,
    )


def _exchange(row: Mapping[str, object]) -> Exchange:
    text = row["text"]
    return Exchange(
        number=int(str(row["number"])),
        judge=str(row["judge"]),
        prompt=str(row["prompt"]),
        text=None if text is None else str(text),
        error=str(row["error"]),
        latency_ms=float(str(row["latency_ms"])),
    )
