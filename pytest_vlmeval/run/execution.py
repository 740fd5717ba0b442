"""A run that has begun: its store, engine and scorer, and what it asks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.errors import VlmEvalError, log_error
from pytest_vlmeval.models.check import MediaCheck, find_needs
from pytest_vlmeval.models.open import backend_of, create_pool
from pytest_vlmeval.models.pool import AUTO_CEILING
from pytest_vlmeval.models.refusals import Refusals
from pytest_vlmeval.records import Answer, Plan, PlanEntry, Score, Verdict
from pytest_vlmeval.run.engine import Engine, Journal, Work
from pytest_vlmeval.run.judge import create_judges
from pytest_vlmeval.run.plan import find_revision, identify, tell_apart, write_request
from pytest_vlmeval.run.queue import Board, Queue, part_of
from pytest_vlmeval.run.reuse import ReuseCheck
from pytest_vlmeval.run.scoring import Scorer, StoredScores, write_submission
from pytest_vlmeval.run.stopping import EarlyStops
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.database import Heartbeat, make_owner

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.models.check import Needs
    from pytest_vlmeval.models.pool import Pool
    from pytest_vlmeval.models.server import Servers
    from pytest_vlmeval.run.queue import ProcessShare
    from pytest_vlmeval.sandbox.calls import Submission
    from pytest_vlmeval.settings import Settings

ONE_PROCESS = (
    "--vlm-engine=ray and -n exclude each other: one process hands the samples to all "
    "replicas. Leave -n out, or give -n 0; --vlm-replicas says how many there are."
)

# How long an interrupted session waits without a word.
DRAIN_QUIETLY_S = 1.0

STOPPED = (
    "Another process of this session found that no endpoint answers, so that nothing "
    "more is asked."
)


def announce_errors(errors: Mapping[str, str], announce: Callable[[str], None]) -> None:
    """Name the endpoints that are not used for the time being, and why."""
    for error in errors.values():
        announce(f"goes on without an endpoint. {error}")


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
        share: ProcessShare,
        servers: Servers,
        announce: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.library = library
        self._announce = announce
        self._entries = {entry.dataset: entry for entry in entries}
        self._share = share
        self._servers = servers
        # With the addresses of servers that are started for the run.
        self._placed = settings
        self._concurrency = share.concurrency(settings.concurrency)
        self._engine: Engine | None = None
        self._part = 0
        self._halted = False
        self._dividing = threading.Lock()
        self.board = board = self._begin(session_id, share.number)
        self._judges = create_judges(
            settings,
            board.store,
            self._concurrency,
            servers,
            asked_in=(board.plan.run_id, session_id),
        )
        self._heartbeat = Heartbeat(board.store.leases, board.owner, self.divide)
        self._scorer = Scorer(settings, library, board, self._judges)
        self._stored = StoredScores(board)
        self.early = EarlyStops(settings, library, board, self._scorer)

    def _begin(self, session_id: str, number: int) -> Board:
        """Open the store, find the run or make it, and join it."""
        owner = make_owner()
        settings = self.settings
        scorer = self.library.scorer
        store = Store(settings.work_dir, settings.store, self._announce)
        plan = self._open_run(store, scorer, session_id)
        store.leases.join(owner, session_id, plan.run_id, number)
        board = Board(store, plan, session_id, owner=owner)
        board.refresh()
        return board

    def _open_run(self, store: Store, scorer: str, session_id: str) -> Plan:
        settings = self.settings
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
        name = self.settings.baselines.compare_with
        if name is None:
            return
        own = None
        if not self.settings.fresh:
            own = store.runs.find(identify(self.settings))
        try:
            store.history.find_other(own, name)
        except VlmEvalError:
            store.close()
            raise

    @property
    def unlike(self) -> list[str]:
        """How other runs of this model, going on in the store, differ from this."""
        others = self.board.store.runs.others(self.board.plan.run_id)
        return tell_apart(identify(self.settings), others)

    def start(self) -> None:
        """Begin to ask what has no answer.

        Raises `VlmEvalError` if the model cannot be asked, or a judge that is needed,
        or if stored answers are not those of the model.
        """
        self._heartbeat.start()
        self._check_judges()
        ReuseCheck(
            self._placed,
            self.library,
            self.board,
            self._make_queue(),
            settle=self._settle,
            make_pool=self._make_pool,
        ).check()
        if self.settings.mode == "score":
            self.board.fail(VlmEvalError(NOT_STORED))
            return
        self.early.start()
        board, entries = self.board, self._entries.values()
        if not any(board.is_wanting(entry.fingerprint) for entry in entries):
            return
        self._settle()
        names, queue = self._names, self._make_queue()
        aside = asyncio.run(self._check_model(self._find_needs(queue)))
        self._engine = Engine(self._work(names, aside), queue, board)
        self.divide()
        # One is enough: others start one where they are the first to score.
        if self.settings.mode == "all" and self._share.number == 0:
            self._start_sandboxes()

    def _start_sandboxes(self) -> None:
        """Start what will score, so that it is up when the last answer arrives."""
        for name in self._entries:
            # The score that needs one reports that it cannot be had.
            with suppress(VlmEvalError):
                self.library.sandbox_for(name).start()

    def _check_judges(self) -> None:
        """Check every judge of a dataset that has no complete score by it yet."""
        if self.settings.mode == "infer":
            return
        for name, judge in self._judges.items():
            if any(self._awaits(entry, name) for entry in self._entries.values()):
                announce_errors(judge.check(), self._announce)

    def _awaits(self, entry: PlanEntry, judge: str) -> bool:
        if judge not in entry.judges:
            return False
        score = self._stored.find(entry, judge)
        return score is None or any(
            verdict.state == "judge_failed" for verdict in score.verdicts
        )

    # Asking

    def _settle(self) -> Settings:
        """Return the settings with the servers that are started for the run."""
        if self._placed.cluster is not None and self._share.processes > 1:
            raise VlmEvalError(ONE_PROCESS)
        self._placed = self._servers.settle(self._placed)
        return self._placed

    def divide(self) -> None:
        """Take this process's part of the requests, as others come and go.

        One without any part claims nothing yet: the engine starts with the first.
        """
        try:
            self._divide()
        except VlmEvalError:
            raise
        except Exception as error:
            line = log_error(self._placed, error, "Sharing the requests")
            self.board.fail(VlmEvalError(line))

    def _divide(self) -> None:
        members = self.board.store.leases.members(self.board.session_id)
        if any(member.state == "stopped" for member in members):
            with self._dividing:
                if self._engine is not None and not self._engine.outage:
                    self._engine.break_off(STOPPED)
            return
        total = self._placed.concurrency or AUTO_CEILING
        part = part_of(total, self.board.owner, members, self._share.processes)
        with self._dividing:
            if self._engine is None or self._halted or part in (0, self._part):
                return
            before, self._part = self._part, part
            self._concurrency = self._concurrency._replace(ceiling=part)
            if before:
                self._engine.set_ceiling(part)
            else:
                self._engine.start()

    def _work(self, names: Mapping[str, str], aside: Collection[str]) -> Work:
        journal = Journal(str(self._placed.model))
        return Work(
            request=lambda name, index: write_request(
                self.library, self._placed, names[name], index
            ),
            retries=self._placed.retries,
            log=lambda error, name, index: log_error(
                self._placed, error, "Asking", names.get(name, ""), index
            ),
            journal=journal,
            make_pool=lambda: self._make_pool(self._placed, aside),
            refusals=Refusals(names, self._announce),
            release=self.library.release_prompts,
        )

    def _make_queue(self) -> Queue:
        prompts, names = self.library.prompts, self._names
        return Queue(
            self.board,
            read_prompt=lambda name, index: prompts(names[name]).text(index),
            identity=identify(self._placed),
            cached=not self._placed.fresh,
        )

    def _make_pool(self, settings: Settings, aside: Collection[str] = ()) -> Pool:
        return create_pool(settings, self._concurrency, aside, self._servers.learned)

    def _find_needs(self, queue: Queue) -> Needs:
        """Return what has to be tried of an endpoint; nothing of other models."""
        if not backend_of(self._placed).is_served or self._placed.media_check == "off":
            return {}
        board = self.board
        return find_needs(board.plan, board, queue, self.library.prompts)

    async def _check_model(self, needs: Needs) -> Collection[str]:
        """Return the endpoints that cannot be asked now, where others can."""
        pool = self._make_pool(self._placed)
        try:
            errors = await pool.check()
            announce_errors(errors, self._announce)
            ids = self.board.plan.run_id, self.board.session_id
            found = await pool.describe()
            self.board.store.reuse.record_evidence(*ids, found)
            if needs:
                media = MediaCheck(self._placed, self.board, self._announce)
                usable = [each for each in pool.endpoints if each.name not in errors]
                await media.check(usable[0], needs)
        finally:
            await pool.close()
        return errors

    @property
    def _names(self) -> Mapping[str, str]:
        """The names of datasets by their fingerprints."""
        return {entry.fingerprint: entry.dataset for entry in self.board.plan.entries}

    @property
    def outage(self) -> str:
        """Explain why nothing more is asked; "" as long as endpoints answer."""
        return self._engine.outage if self._engine is not None else ""

    def halt(self) -> None:
        """Ask nothing more, as the session ends; from any thread."""
        self._halted = True
        engine = self._engine
        if engine is not None:
            engine.halt(INTERRUPTED)
        for judge in self._judges.values():
            judge.halt()

    def drain(self) -> None:
        """Wait for what was in flight when it was halted, as long as that may take."""
        engine = self._engine
        if engine is None:
            return
        engine.join(DRAIN_QUIETLY_S)
        count = engine.in_flight
        if count:
            self._announce(
                f"interrupted: waits for {count} answer{'s'[: count > 1]} in flight. "
                "Ctrl-C again drops them."
            )
        engine.join(self.settings.timeout_s)

    def close(self, *, finish: bool = False) -> None:
        """End the asking, or let it `finish` what is asked; close the store."""
        stopped = bool(self.outage)
        with self._dividing:
            engine, self._engine = self._engine, None
        if engine is not None:
            try:
                if finish:
                    engine.finish(self.settings.timeout_s)
            finally:
                engine.stop()
        self.early.stop()
        for judge in self._judges.values():
            judge.close()
        self._heartbeat.stop(stopped=stopped)
        self.board.store.close()

    def answer(self, dataset: str, index: str) -> Answer:
        """Wait for the answer of a sample; `VlmEvalError` if none will come."""
        entry = self._asked(dataset, index)
        return self.board.wait(entry.fingerprint, index).answer

    def answers(self, dataset: str, index: str) -> tuple[Answer, ...]:
        """Wait for the answers of a sample, one for each time it is asked."""
        entry = self._asked(dataset, index)
        stored = self.board.wait_all(entry.fingerprint, index)
        return tuple(each.answer for each in stored)

    def score(self, dataset: str) -> Score:
        """Wait for the score of what was selected of a dataset."""
        return self._scorer.score(self.early.narrowed(self._entries[dataset]))

    def submission(self, dataset: str) -> Submission | None:
        """Wait for all answers and write them down; None if none is usable."""
        entry = self._entries[dataset]
        answers = {index: self.answer(dataset, index) for index in entry.indexes}
        usable = {
            index: answer.predicted(ours=backend_of(self.settings).is_ours)
            for index, answer in answers.items()
            if answer.is_usable
        }
        if not usable:
            return None
        return write_submission(self.settings, self.library, dataset, usable)

    def scores_by_judge(self, dataset: str) -> tuple[Score, ...]:
        """Return the score of each judge, where there are several."""
        return self._stored.by_judge(self.early.narrowed(self._entries[dataset]))

    def verdict(self, dataset: str, index: str) -> Verdict:
        """Wait for the verdict of a sample."""
        return self._scorer.verdict(self._asked(dataset, index), index)

    def _asked(self, dataset: str, index: str) -> PlanEntry:
        """Return what is needed of a dataset, where that includes a sample."""
        return self.early.check_asked(self._entries[dataset], index)
