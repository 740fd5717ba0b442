"""A run that has begun: its store, engine and scorer, opened in order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.board import Board
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.identity import identify, tell_apart
from pytest_vlmeval.inference import Inference, name_troubles
from pytest_vlmeval.judge import create_judges
from pytest_vlmeval.records import Answer, Plan, PlanEntry, Score, Verdict
from pytest_vlmeval.revision import find_revision
from pytest_vlmeval.run_state import RunState
from pytest_vlmeval.scoring import Scorer
from pytest_vlmeval.stopping import EarlyStops
from pytest_vlmeval.store import Store
from pytest_vlmeval.store.leases import Heartbeat, make_owner
from pytest_vlmeval.stored_scores import StoredScores
from pytest_vlmeval.submission import write_submission

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.models.server_keeper import Servers
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.sandbox.calls import Submission
    from pytest_vlmeval.sharing import Share

NOT_STORED = (
    "No answer is stored for this sample, and --vlm-mode=score never asks. "
    "Run once with --vlm-mode=infer or all."
)

INTERRUPTED = (
    "The session was interrupted before this sample was answered. Run the same command "
    "again: what was answered is stored."
)


class Execution:
    """Asks and scores what one session needs of a run.

    Raises `VlmEvalError` where the store cannot be opened, or has no run of the name
    that this one is to be compared with.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        *,
        session_id: str,
        entries: Sequence[PlanEntry],
        share: Share,
        servers: Servers,
        announce: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._announce = announce
        self._entries = {entry.dataset: entry for entry in entries}
        self._is_first = share.number == 0
        self.state = state = self._begin(library, session_id, share.number)
        self._judges = create_judges(
            settings,
            state.store,
            share.concurrency(settings.concurrency),
            servers,
            asked_in=(state.plan.run_id, session_id),
        )
        self._inference = Inference(
            state, share=share, servers=servers, announce=announce
        )
        self._heartbeat = Heartbeat(
            state.store.leases, state.owner, self._inference.divide
        )
        self._scorer = Scorer(state, self._judges)
        self._stored = StoredScores(state.store, state.board, state.plan)
        narrow = partial(state.store.runs.narrow_plan, session_id)
        self.early = EarlyStops(
            settings.gates, library, state.board, self._scorer, narrow
        )

    def _begin(self, library: Library, session_id: str, number: int) -> RunState:
        """Open the store, find the run or make it, and join it."""
        owner = make_owner()
        settings = self._settings
        scorer = library.scorer
        store = Store(settings.work_dir, settings.store, self._announce)
        plan = self._open_run(store, scorer, session_id)
        store.leases.join(owner, session_id, plan.run_id, number)
        board = Board(store, plan, session_id)
        board.refresh()
        return RunState(
            settings=self._settings,
            library=library,
            store=store,
            board=board,
            plan=plan,
            session_id=session_id,
            owner=owner,
        )

    def _open_run(self, store: Store, scorer: str, session_id: str) -> Plan:
        settings = self._settings
        store.leases.release_dead()
        self._check_other(store)
        run_id = store.runs.open(identify(settings), session_id, fresh=settings.fresh)
        plan = Plan(
            run_id=run_id,
            scorer=scorer,
            entries=tuple(self._entries.values()),
            repeats=settings.repeat,
            asks=settings.mode != "score",
        )
        store.runs.save_plan(session_id, plan, find_revision(Path.cwd()))
        return plan

    def _check_other(self, store: Store) -> None:
        """Tell a wrong run to be compared with now, not when all is asked."""
        name = self._settings.baselines.compare_with
        if name is None:
            return
        own = None
        if not self._settings.fresh:
            own = store.runs.find(identify(self._settings))
        try:
            store.history.find_other(own, name)
        except VlmEvalError:
            store.close()
            raise

    @property
    def unlike(self) -> list[str]:
        """How other runs of this model, going on in the store, differ from this."""
        others = self.state.store.runs.others(self.state.plan.run_id)
        return tell_apart(identify(self._settings), others)

    def start(self) -> None:
        """Begin to ask what has no answer.

        Raises `VlmEvalError` if the model cannot be asked, or a judge that is needed,
        or if stored answers are not those of the model.
        """
        self._heartbeat.start()
        self._check_judges()
        self._inference.check_reuse()
        if self._settings.mode == "score":
            self.state.board.fail(VlmEvalError(NOT_STORED))
            return
        self.early.start()
        board, entries = self.state.board, self._entries.values()
        if not any(board.is_wanting(entry.fingerprint) for entry in entries):
            return
        self._inference.start()
        # One is enough: others start one where they are the first to score.
        if self._settings.mode == "all" and self._is_first:
            self._start_sandboxes()

    def _start_sandboxes(self) -> None:
        """Start what will score, so that it is up when the last answer arrives."""
        for name in self._entries:
            # One that cannot be had is told by the score that needs it.
            with suppress(VlmEvalError):
                self.state.library.sandbox_for(name).start()

    def _check_judges(self) -> None:
        """Check every judge of a dataset that has no complete score by it yet."""
        if self._settings.mode == "infer":
            return
        for name, judge in self._judges.items():
            if any(self._awaits(entry, name) for entry in self._entries.values()):
                name_troubles(judge.check(), self._announce)

    def _awaits(self, entry: PlanEntry, judge: str) -> bool:
        if judge not in entry.judges:
            return False
        score = self._stored.find(entry, judge)
        return score is None or any(
            verdict.state == "judge_failed" for verdict in score.verdicts
        )

    @property
    def outage(self) -> str:
        """Say why nothing more is asked; "" as long as endpoints answer."""
        return self._inference.outage

    def halt(self) -> None:
        """Ask nothing more, as the session ends; from any thread."""
        self._inference.halt(INTERRUPTED)
        for judge in self._judges.values():
            judge.halt()

    def drain(self) -> None:
        """Wait for the answers that were in flight when it was halted."""
        self._inference.drain()

    def close(self, *, finish: bool = False) -> None:
        """End the asking, or let it `finish` what is asked; close the store."""
        stopped = bool(self.outage)
        self._inference.close(finish=finish)
        self.early.stop()
        for judge in self._judges.values():
            judge.close()
        self._heartbeat.stop(stopped=stopped)
        self.state.store.close()

    def answer(self, dataset: str, index: str) -> Answer:
        """Wait for the answer of a sample; `VlmEvalError` if none will come."""
        entry = self._asked(dataset, index)
        return self.state.board.wait(entry.fingerprint, index).answer

    def answers(self, dataset: str, index: str) -> tuple[Answer, ...]:
        """Wait for the answers of a sample, one for each time it is asked."""
        entry = self._asked(dataset, index)
        stored = self.state.board.wait_all(entry.fingerprint, index)
        return tuple(each.answer for each in stored)

    def score(self, dataset: str) -> Score:
        """Wait for the score of what was selected of a dataset."""
        return self._scorer.score(self.early.narrowed(self._entries[dataset]))

    def submission(self, dataset: str) -> Submission | None:
        """Wait for all answers and write them down; None where none is usable."""
        entry = self._entries[dataset]
        answers = {index: self.answer(dataset, index) for index in entry.indexes}
        usable = {
            index: answer.predicted(self._settings.backend)
            for index, answer in answers.items()
            if answer.is_usable
        }
        if not usable:
            return None
        return write_submission(self._settings, self.state.library, dataset, usable)

    def scores_by_judge(self, dataset: str) -> tuple[Score, ...]:
        """Return the score of each judge, where there are several."""
        return self._stored.by_judge(self.early.narrowed(self._entries[dataset]))

    def verdict(self, dataset: str, index: str) -> Verdict:
        """Wait for the verdict of a sample."""
        return self._scorer.verdict(self._asked(dataset, index), index)

    def _asked(self, dataset: str, index: str) -> PlanEntry:
        """Return what is needed of a dataset, where that includes a sample."""
        return self.early.check_asked(self._entries[dataset], index)
