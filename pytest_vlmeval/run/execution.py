"""A run that has begun: its store, engine and scorer, and what it asks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from filelock import FileLock

from pytest_vlmeval.errors import VlmEvalError, log_error
from pytest_vlmeval.models.check import NAMES, explain_lack, needed_for, try_media
from pytest_vlmeval.models.open import backend_of
from pytest_vlmeval.models.pool import AUTO_CEILING
from pytest_vlmeval.records import Answer, Ask, Plan, PlanEntry, Score, Verdict
from pytest_vlmeval.run.engine import Engine, Model
from pytest_vlmeval.run.judge import create_judges
from pytest_vlmeval.run.plan import describe_start, identify, tell_apart
from pytest_vlmeval.run.queue import Board, Queue, part_of
from pytest_vlmeval.run.reuse import ReuseCheck
from pytest_vlmeval.run.scoring import (
    Scorer,
    find_score,
    find_scores_by_judge,
    write_submission,
)
from pytest_vlmeval.run.stopping import EarlyStops
from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store.database import Heartbeat, make_owner

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.models.check import Capability, Needs
    from pytest_vlmeval.models.pool import Endpoint
    from pytest_vlmeval.models.server import Servers
    from pytest_vlmeval.run.own_scoring import OwnScoring
    from pytest_vlmeval.run.queue import ProcessShare
    from pytest_vlmeval.sandbox.calls import Submission
    from pytest_vlmeval.settings import Settings

# How long an interrupted session waits without a word.
DRAIN_QUIETLY_S = 1.0

STOPPED = (
    "Another process of this session found that no endpoint answers, so that nothing "
    "more is asked."
)
NOT_STORED = (
    "No answer is stored for this sample, and --vlm-mode=score never asks. "
    "Run once with --vlm-mode=infer or all."
)

INTERRUPTED = (
    "The session was interrupted before this sample was answered. Run the same command "
    "again: what was answered is stored."
)


def find_needs(queue: Queue, library: Library) -> Needs:
    """Return what the samples need that will be sent, by the names of datasets."""
    needs: dict[Capability, list[str]] = {}
    for fingerprint, dataset in queue.datasets.items():
        by_need: dict[Capability, list[Ask]] = {}
        for ask in queue.board.missing(fingerprint):
            counts = library.prompts(dataset).count_media(ask.sample)
            for capability in needed_for(*counts):
                by_need.setdefault(capability, []).append(ask)
        for capability, asks in by_need.items():
            parts = queue.look_up(fingerprint, asks)
            if any(len(found) < len(part) for part, found in parts):
                needs.setdefault(capability, []).append(dataset)
    return needs


class Execution:
    """Asks and scores what one session needs of a run.

    `own` has the scoring of datasets that functions of the user's own score. Raises
    `VlmEvalError` where the store cannot be opened, or has no run of the name that this
    one is to be compared with.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        *,
        session_id: str,
        command: str,
        entries: Sequence[PlanEntry],
        share: ProcessShare,
        servers: Servers,
        announce: Callable[[str], None],
        own: Mapping[str, OwnScoring],
    ) -> None:
        self.settings = settings
        self.library = library
        self._announce = announce
        self._entries = {entry.dataset: entry for entry in entries}
        self._share = share
        self._model = Model(settings, share, servers)
        self._engine: Engine | None = None
        self._part = 0
        self._halted = False
        self._dividing = threading.Lock()
        scorer = library.scorer
        store = Store(settings.work_dir, settings.store, announce)
        plan = self._open_run(store, scorer, session_id, command)
        owner = make_owner()
        store.join(owner, session_id, plan.run_id, share.number)
        self.board = board = Board(store, plan, session_id, owner=owner)
        board.refresh()
        self._judges = create_judges(
            settings,
            store,
            self._model.concurrency,
            servers,
            asked_in=(plan.run_id, session_id),
        )
        self._heartbeat = Heartbeat(store, owner, self.divide)
        self._scorer = Scorer(settings, library, board, self._judges, own)
        self.early = EarlyStops(settings, library, board, self._scorer)

    def _open_run(
        self, store: Store, scorer: str, session_id: str, command: str
    ) -> Plan:
        """Find the run or make it, and record what the session needs of it."""
        settings = self.settings
        store.release_dead()
        if (name := settings.baselines.compare_with) is not None:
            # That it cannot be compared with is known now, not when all is asked.
            own = None if settings.fresh else store.same_run(identify(settings))
            try:
                store.find_other_run(own, name)
            except VlmEvalError:
                store.close()
                raise
        plan = Plan(
            run_id=store.open_run(identify(settings), session_id, fresh=settings.fresh),
            scorer=scorer,
            entries=tuple(self._entries.values()),
            repeats=settings.repeat,
            asks=settings.mode != "score",
        )
        start = describe_start(settings, self.library, command)
        store.save_plan(session_id, plan, start)
        return plan

    @property
    def unlike(self) -> list[str]:
        """How other runs of this model, going on in the store, differ from this."""
        others = self.board.store.other_runs(self.board.plan.run_id)
        return tell_apart(identify(self.settings), others)

    def start(self) -> None:
        """Begin to ask what has no answer.

        Raises `VlmEvalError` if the model cannot be asked, or a judge that is needed,
        or if stored answers are not those of the model.
        """
        self._heartbeat.start()
        self._check_judges()
        queue = Queue(self.settings, self.library, self.board)
        ReuseCheck(self._model, self.library, queue).check()
        if self.settings.mode == "score":
            self.board.fail(VlmEvalError(NOT_STORED))
            return
        self.early.start()
        board, entries = self.board, self._entries.values()
        if not any(board.is_wanting(entry.fingerprint) for entry in entries):
            return
        self._model.settle()
        aside = asyncio.run(self._check_model(queue))
        self._engine = Engine(
            self._model, self.library, queue, self._announce, aside=aside
        )
        self.divide()
        # One is enough: others start one where they are the first to score.
        if self.settings.mode == "all" and self._share.number == 0:
            for name, entry in self._entries.items():
                if entry.scorer:
                    continue
                # Up when the last answer arrives. The score that needs it reports that
                # it cannot be had.
                with suppress(VlmEvalError):
                    self.library.sandbox_for(name).start()

    def _check_judges(self) -> None:
        """Check every judge of a dataset that has no complete score by it yet."""
        if self.settings.mode == "infer":
            return
        for name, judge in self._judges.items():
            scores = [
                find_score(self.board, entry, name)
                for entry in self._entries.values()
                if name in entry.judges
            ]
            if any(
                not isinstance(score, Score)
                or any(each.state == "judge_failed" for each in score.verdicts)
                for score in scores
            ):
                self._announce_errors(judge.check())

    # Asking

    def _announce_errors(self, errors: Mapping[str, str]) -> None:
        """Name the endpoints that are not used for the time being, and why."""
        for error in errors.values():
            self._announce(f"goes on without an endpoint. {error}")

    def divide(self) -> None:
        """Take this process's part of the requests, as others come and go.

        One without any part claims nothing yet: the engine starts with the first.
        """
        try:
            self._divide()
        except VlmEvalError:
            raise
        except Exception as error:
            line = log_error(self.settings, error, "Sharing the requests")
            self.board.fail(VlmEvalError(line))

    def _divide(self) -> None:
        members = self.board.store.members(self.board.session_id)
        if any(member.state == "stopped" for member in members):
            with self._dividing:
                if self._engine is not None and not self._engine.outage:
                    self._engine.break_off(STOPPED)
            return
        total = self.settings.concurrency or AUTO_CEILING
        part = part_of(total, self.board.owner, members, self._share.processes)
        with self._dividing:
            if self._engine is None or self._halted or part in (0, self._part):
                return
            before, self._part = self._part, part
            concurrency = self._model.concurrency
            self._model.concurrency = concurrency._replace(ceiling=part)
            if before:
                self._engine.set_ceiling(part)
            else:
                self._engine.start()

    async def _check_model(self, queue: Queue) -> Collection[str]:
        """Return the endpoints that cannot be asked now, where others can.

        What is asked of a server beside text is tried, once for all processes.
        """
        settings, plan = self._model.settings, self.board.plan
        tried = backend_of(settings).is_served and settings.media_check != "off"
        needs = find_needs(queue, self.library) if tried else {}
        pool = self._model.open()
        try:
            errors = await pool.check()
            self._announce_errors(errors)
            found = await pool.describe()
            self.board.store.record_evidence(plan.run_id, self.board.session_id, found)
            if needs:
                usable = [each for each in pool.endpoints if each.name not in errors]
                await self._check_media(usable[0], needs)
        finally:
            await pool.close()
        return errors

    async def _check_media(self, endpoint: Endpoint, needs: Needs) -> None:
        """Raise `VlmEvalError` where the endpoint refuses what is needed."""
        store, ids = self.board.store, (self.board.plan.run_id, self.board.session_id)
        known = {each.capability: each for each in store.findings(*ids)}
        if needs.keys() - known.keys():
            folder = self.settings.work_dir
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".media-check.lock"):
                # While this process waited, another one may have found it out.
                known |= {each.capability: each for each in store.findings(*ids)}
                if wanted := needs.keys() - known.keys():
                    prompting = self.settings.prompting
                    new = await try_media(endpoint.client, wanted, prompting)
                    store.record_findings(*ids, new)
                    known |= {each.capability: each for each in new}
                    for each in new:
                        if each.state == "unknown":
                            self._announce(
                                f"whether {endpoint.name} takes "
                                f"{NAMES[each.capability]} could not be found out "
                                f"({each.words}); the run goes on."
                            )
        lacking = [
            known[capability]
            for capability in NAMES
            if capability in needs and known[capability].state == "refused"
        ]
        if lacking:
            text = explain_lack(endpoint.name, lacking, needs)
            if self.settings.media_check == "stop":
                raise VlmEvalError(text)
            self._announce(text)

    @property
    def outage(self) -> str:
        """Explain why nothing more is asked; "" as long as endpoints answer."""
        return self._engine.outage if self._engine is not None else ""

    def halt(self) -> None:
        """Ask nothing more, as the session ends; from any thread."""
        self._halted = True
        engine = self._engine  # Another thread may end it meanwhile.
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
        entry = self.early.narrowed(self._entries[dataset])
        return find_scores_by_judge(self.board, entry)

    def verdict(self, dataset: str, index: str) -> Verdict:
        """Wait for the verdict of a sample."""
        return self._scorer.verdict(self._asked(dataset, index), index)

    def _asked(self, dataset: str, index: str) -> PlanEntry:
        """Return what is needed of a dataset, where that includes a sample."""
        return self.early.check_asked(self._entries[dataset], index)
