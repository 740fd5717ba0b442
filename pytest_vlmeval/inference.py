"""Asking the model, in this process, what a session needs and nobody answered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import TYPE_CHECKING

from pytest_vlmeval.asked import write_request
from pytest_vlmeval.asking import Journal
from pytest_vlmeval.engine import Engine, Work
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.identity import identify
from pytest_vlmeval.media_check import MediaCheck, find_needs
from pytest_vlmeval.models.factory import create_pool
from pytest_vlmeval.models.limiter import AUTO_CEILING
from pytest_vlmeval.queue import Queue
from pytest_vlmeval.refusals import Refusals
from pytest_vlmeval.reuse import ReuseCheck
from pytest_vlmeval.sharing import part_of

if TYPE_CHECKING:
    from pytest_vlmeval.media_check import Needs
    from pytest_vlmeval.models.factory import NoteLimit
    from pytest_vlmeval.models.pool import Pool
    from pytest_vlmeval.models.server_keeper import Servers
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.run_state import RunState
    from pytest_vlmeval.sharing import Share

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


class Inference:
    """This process's part of the asking: its engine, and its part of the requests.

    Nothing is asked before `start`. The answers go to the store and the board.
    """

    def __init__(
        self,
        state: RunState,
        *,
        share: Share,
        servers: Servers,
        announce: Callable[[str], None],
    ) -> None:
        self._state = state
        # Those of the state, but for servers that are started for the run.
        self._settings = state.settings
        self._share = share
        self._servers = servers
        self._announce = announce
        self._concurrency = share.concurrency(state.settings.concurrency)
        self._engine: Engine | None = None
        self._part = 0
        self._halted = False
        self._dividing = threading.Lock()

    def check_reuse(self) -> None:
        """Raise `VlmEvalError` unless stored answers are those of the model at hand."""
        ReuseCheck(
            self._state,
            self._make_queue(),
            settle=self._settle,
            make_pool=self._make_pool_of,
        ).check()

    def _settle(self) -> Settings:
        """Return the settings with the servers that are started for the run."""
        if self._settings.cluster is not None and self._share.processes > 1:
            raise VlmEvalError(ONE_PROCESS)
        self._settings = self._servers.settle(self._settings)
        return self._settings

    def start(self) -> None:
        """Begin to ask; `VlmEvalError` if the model cannot be asked."""
        self._settle()
        names, queue = self._names, self._make_queue()
        aside = asyncio.run(self._check_model(self._find_needs(queue)))
        self._engine = Engine(self._work(names, aside), queue, self._state.board)
        self.divide()

    def divide(self) -> None:
        """Take this process's part of the requests, as others come and go.

        One without any part claims nothing yet: the engine starts with the first.
        """
        members = self._state.store.leases.members(self._state.session_id)
        if any(member.state == "stopped" for member in members):
            self._break_off()
            return
        total = self._settings.concurrency or AUTO_CEILING
        part = part_of(total, self._state.owner, members, self._share.processes)
        with self._dividing:
            if self._engine is None or self._halted or part in (0, self._part):
                return
            before, self._part = self._part, part
            self._concurrency = self._concurrency._replace(ceiling=part)
            if before:
                self._engine.set_ceiling(part)
            else:
                self._engine.start()

    def _break_off(self) -> None:
        with self._dividing:
            if self._engine is not None and not self._engine.outage:
                self._engine.break_off(STOPPED)

    def _work(self, names: Mapping[str, str], aside: Collection[str]) -> Work:
        state, journal = self._state, Journal(str(self._settings.model))
        return Work(
            request=lambda name, index: write_request(
                state.library, self._settings, names[name], index
            ),
            retries=self._settings.retries,
            journal=journal,
            make_pool=lambda: self._make_pool(journal.note_limit, aside),
            refusals=Refusals(names, self._announce),
            release=state.library.release_prompts,
            keep=partial(
                state.store.accounting.record, state.plan.run_id, state.session_id
            ),
        )

    @property
    def _names(self) -> Mapping[str, str]:
        """The names of datasets by their fingerprints."""
        return {entry.fingerprint: entry.dataset for entry in self._state.plan.entries}

    def _make_queue(self) -> Queue:
        prompts, names = self._state.library.prompts, self._names
        return Queue(
            self._state,
            read_prompt=lambda name, index: prompts(names[name]).text(index),
            identity=identify(self._settings),
            cached=not self._settings.fresh,
        )

    def _make_pool(self, note: NoteLimit, aside: Collection[str] = ()) -> Pool:
        watched = partial(self._servers.watched, role="model")
        return create_pool(
            self._settings,
            self._concurrency,
            note,
            watched,
            aside,
            self._servers.learned,
        )

    def _make_pool_of(self, settings: Settings, journal: Journal) -> Pool:
        watched = partial(self._servers.watched, role="model")
        return create_pool(settings, self._concurrency, journal.note_limit, watched)

    def _find_needs(self, queue: Queue) -> Needs:
        """Return what has to be tried of an endpoint; nothing of other models."""
        if self._settings.backend != "endpoint" or self._settings.media_check == "off":
            return {}
        state = self._state
        return find_needs(state.plan, state.board, queue, state.library.prompts)

    async def _check_model(self, needs: Needs) -> Collection[str]:
        """Return the endpoints that cannot be asked now, where others can."""
        pool = self._make_pool(lambda *change: None)
        try:
            troubles = await pool.check()
            name_troubles(troubles, self._announce)
            ids = self._state.plan.run_id, self._state.session_id
            found = await pool.describe()
            self._state.store.reuse.record_evidence(*ids, found)
            if needs:
                media = MediaCheck(self._state, self._announce)
                usable = [each for each in pool.endpoints if each.name not in troubles]
                await media.check(usable[0], needs)
        finally:
            await pool.close()
        return troubles

    @property
    def outage(self) -> str:
        """Say why nothing more is asked; "" as long as endpoints answer."""
        return self._engine.outage if self._engine is not None else ""

    def halt(self, reason: str) -> None:
        """Ask nothing more, as the session ends; what is in flight is still kept."""
        self._halted = True
        engine = self._engine
        if engine is not None:
            engine.halt(reason)

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
        engine.join(self._settings.timeout_s)

    def close(self, *, finish: bool) -> None:
        """End the engine, or let it `finish` what is asked."""
        with self._dividing:
            engine, self._engine = self._engine, None
        if engine is not None:
            try:
                if finish:
                    engine.finish(self._settings.timeout_s)
            finally:
                engine.stop()


def name_troubles(troubles: Mapping[str, str], announce: Callable[[str], None]) -> None:
    """Name the endpoints that are not used for the time being, and why."""
    for trouble in troubles.values():
        announce(f"goes on without an endpoint. {trouble}")
