"""From the store and the prepared datasets to the record of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.accounts import Origins
from pytest_vlmeval.board import Board
from pytest_vlmeval.datasets.prepare import find_prepared
from pytest_vlmeval.datasets.prepared import read_samples_of
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.prompts import Sample
from pytest_vlmeval.records import PlanEntry, Score, Verdict
from pytest_vlmeval.reports.flips import with_baseline
from pytest_vlmeval.reports.record import (
    DatasetReport,
    Exchange,
    RunReport,
    SampleReport,
)
from pytest_vlmeval.stored_scores import StoredScores

if TYPE_CHECKING:
    from pytest_vlmeval.accounts import RunAccount
    from pytest_vlmeval.store import Store
    from pytest_vlmeval.store.history import PastScore, StoredSession


def load_session(store: Store, cache_dir: Path, session_id: str) -> RunReport | None:
    """Return what a session selected and what came of it; None before its plan."""
    plan = store.runs.load_plan(session_id)
    if plan is None:
        return None
    sessions = store.history.sessions(plan.run_id)
    chosen = [each for each in sessions if each.session_id == session_id]
    return _Loader(store, cache_dir).load(plan.run_id, chosen)


def load_run(store: Store, cache_dir: Path, run_id: str) -> RunReport:
    """Return a run of the store, of each dataset the session that took most of it."""
    return _Loader(store, cache_dir).load(run_id, store.history.sessions(run_id))


class _Loader:
    """Reads one run."""

    def __init__(self, store: Store, cache_dir: Path) -> None:
        self._store = store
        self._cache_dir = cache_dir

    def load(self, run_id: str, sessions: Sequence[StoredSession]) -> RunReport:
        run = next(run for run in self._store.history.runs() if run.run_id == run_id)
        past = self._store.history.scores()
        datasets = tuple(
            self._dataset(session, entry, past)
            for session, entry in _widest(sessions).values()
        )
        datasets = tuple(map(with_baseline, datasets))
        compared = any(each.before for set_ in datasets for each in set_.samples)
        newest = sessions[0] if sessions else None
        return RunReport(
            version=version("pytest-vlmeval"),
            run_id=run_id,
            model=run.model,
            settings=run.settings,
            began_at=newest.created_at if newest else run.created_at,
            revision=newest.revision if newest else "",
            scorer=newest.plan.scorer if newest else "",
            datasets=datasets,
            exchanges=self._exchanges(datasets),
            account=self._account(sessions, datasets),
            compared_with="the baseline" if compared else "",
        )

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
        account = self._store.accounting.read(replace(plan, entries=chosen), session_id)
        return replace(
            account,
            origins=sum((each.origins for each in datasets), Origins()),
            spot_check=self._store.reuse.load(session_id),
        )

    def _dataset(
        self, session: StoredSession, entry: PlanEntry, past: Sequence[PastScore]
    ) -> DatasetReport:
        plan = replace(session.plan, entries=(entry,))
        board = Board(self._store, plan, session.session_id)
        board.refresh()
        stored = StoredScores(self._store, board, plan)
        found = stored.outcome(entry)
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
            by_judge=stored.by_judge(entry),
            origins=board.origins(),
            past=tuple(each for each in past if each.fingerprint == entry.fingerprint),
            gates=tuple(
                each
                for each in self._store.gates.load(session.session_id)
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
        return {each.number: each for each in map(_exchange, self._rows(numbers))}

    def _rows(self, numbers: Sequence[int]) -> Iterable[Mapping[str, object]]:
        # A query takes so many values at most.
        for start in range(0, len(numbers), 500):
            yield from self._store.exchanges.load(numbers[start : start + 500])


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
