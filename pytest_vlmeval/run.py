"""One session's run: opens the parts in the order they are needed, and closes them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import Answer, Plan, PlanEntry, Score, Verdict

if TYPE_CHECKING:
    from pytest_vlmeval.board import Board
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.datasets.prepare import IndexRow
    from pytest_vlmeval.engine import Engine
    from pytest_vlmeval.models.client import ModelClient
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.scoring import Scorer
    from pytest_vlmeval.store import Store
    from pytest_vlmeval.store.leases import Heartbeat


NO_MODEL = (
    "No model was named. Give --vlm-model=NAME, the name an OpenAI-compatible endpoint "
    "serves it under (see --vlm-api-base), or --vlm-model=demo for the tiny model that "
    "ships with the plugin."
)
NOT_STORED = (
    "No answer is stored for this sample, and --vlm-mode=score never asks. "
    "Run once with --vlm-mode=infer or all."
)


class Needed(NamedTuple):
    """What the selected items need of a dataset: all of it, or these samples."""

    whole: bool
    indexes: frozenset[str]


class Share(NamedTuple):
    """Which of how many processes of the session this one is."""

    number: int
    processes: int

    def of(self, total: int) -> int:
        """Return this process's part of `total`, at least 1."""
        part, rest = divmod(total, self.processes)
        return max(1, part + (self.number < rest))


class Run:
    """Datasets, store, engine and scorer of one session, each opened when needed.

    Until `begin` only datasets can be asked for; from then on answers and scores.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        session_id: str,
        share: Share,
        announce: Callable[[str], None],
    ) -> None:
        self.settings = settings
        self.declared: set[str] = set()
        self._with_references: dict[str, bool] = {}
        self._session_id = session_id
        self._share = share
        self._announce = announce
        self._store: Store | None = None
        self._board: Board | None = None
        self._engine: Engine | None = None
        self._scorer: Scorer | None = None
        self._heartbeat: Heartbeat | None = None
        self._plan: Plan | None = None

    @cached_property
    def library(self) -> Library:
        """Every dataset, prepared when first asked for."""
        from pytest_vlmeval.datasets.library import Library

        return Library(self.settings, self._announce)

    def has_references(self, dataset: str) -> bool:
        """Whether there is anything to compare the answers with."""
        if dataset not in self._with_references:
            self._with_references[dataset] = any(
                row.reference is not None for row in self.rows(dataset)
            )
        return self._with_references[dataset]

    def check_names(self) -> None:
        """Raise `VlmEvalError` for a name in `--vlm-data` that no benchmark has."""
        declared = sorted(self.declared)
        for name in self.settings.data:
            if name in declared:
                continue
            near = difflib.get_close_matches(name, declared, n=3, cutoff=0.6)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise VlmEvalError(
                f"--vlm-data={name}: no selected benchmark has this dataset.{hint} "
                f"The selected benchmarks have: {', '.join(declared)}."
            )

    def rows(self, dataset: str) -> Sequence[IndexRow]:
        """Return the heads of the samples the run may ask, `--vlm-limit` applied."""
        return self.library.rows(dataset)[: self.settings.limit]

    # Beginning and ending

    def begin(self, needed: Mapping[str, Needed]) -> None:
        """Open the store, start to ask what has no answer; `VlmEvalError` if it can't.

        `needed` maps the names of prepared datasets to what the items need of them.
        """
        from pytest_vlmeval.board import Board
        from pytest_vlmeval.scoring import Scorer
        from pytest_vlmeval.store import Store
        from pytest_vlmeval.store.leases import Heartbeat, make_owner

        identity = self._identity()
        self._store = Store(self.settings.work_dir)
        self._store.leases.release_dead()
        run_id = self._store.runs.open(
            identity, self._session_id, fresh=self.settings.fresh
        )
        entries = [self._entry(name, need) for name, need in needed.items()]
        self._plan = Plan(
            run_id=run_id, scorer=self.library.scorer, entries=tuple(entries)
        )
        self._store.runs.save_plan(self._session_id, self._plan)
        self._board = Board(self._store, self._plan, self._session_id)
        self._board.refresh()
        owner = make_owner()
        self._heartbeat = Heartbeat(self._store.leases, owner)
        self._heartbeat.start()
        self._scorer = Scorer(
            self._plan,
            self._store,
            self._board,
            self.library,
            session_id=self._session_id,
            owner=owner,
            deadline_s=self.settings.score_timeout_s,
            only_stored=self.settings.mode == "score",
        )
        self._start_engine(owner)

    def _identity(self) -> dict[str, object]:
        """Return what tells runs apart; the endpoint's address is not in it."""
        settings = self.settings
        if settings.model is None:
            raise VlmEvalError(NO_MODEL)
        return {
            "model": settings.model,
            "backend": settings.backend,
            "max_tokens": settings.max_tokens,
            "temperature": settings.temperature,
        }

    def _entry(self, dataset: str, need: Needed) -> PlanEntry:
        prepared = self.library.prepared(dataset)
        rows = self.rows(dataset)
        groups = {row.group for row in rows if row.index in need.indexes and row.group}
        indexes = tuple(
            row.index
            for row in rows
            if need.whole or row.index in need.indexes or row.group in groups
        )
        return PlanEntry(
            dataset=dataset,
            fingerprint=prepared.fingerprint,
            modified=prepared.modified,
            indexes=indexes,
        )

    def _start_engine(self, owner: str) -> None:
        assert self._plan
        assert self._board
        assert self._store
        if self.settings.mode == "score":
            self._board.fail(VlmEvalError(NOT_STORED))
            return
        names = {entry.fingerprint: entry.dataset for entry in self._plan.entries}
        if not any(self._board.missing(fingerprint) for fingerprint in names):
            return
        self._check_model()
        from pytest_vlmeval.engine import Engine, Work

        work = Work(
            plan=self._plan,
            session_id=self._session_id,
            owner=owner,
            request=lambda fingerprint, index: self.library.request(
                names[fingerprint], index
            ),
            concurrency=self._share.of(self.settings.concurrency),
            retries=self.settings.retries,
        )
        self._engine = Engine(work, self._store, self._board, self._make_client)
        self._engine.start()
        if self.settings.mode == "all":
            # It is up by the time the last answer arrives.
            self.library.sandbox.start()

    def _make_client(self) -> ModelClient:
        from pytest_vlmeval.models.factory import create_client

        return create_client(
            self.settings, concurrency=self._share.of(self.settings.concurrency)
        )

    def _check_model(self) -> None:
        import asyncio

        async def check() -> None:
            client = self._make_client()
            try:
                await client.check()
            finally:
                await client.close()

        asyncio.run(check())

    def close(self) -> None:
        """End everything that runs; what was recorded stays."""
        if self._engine is not None:
            self._engine.stop()
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._store is not None:
            self._store.close()
        if "library" in self.__dict__:
            self.library.close()

    # What items show

    def answer(self, dataset: str, index: str) -> Answer:
        """Wait for the answer of a sample; `VlmEvalError` if none will come."""
        assert self._board
        fingerprint = self.library.prepared(dataset).fingerprint
        return self._board.wait(fingerprint, index).answer

    def score(self, dataset: str) -> Score:
        """Wait for the score of what was selected of a dataset."""
        assert self._scorer
        return self._scorer.score(self._entries[dataset])

    def verdict(self, dataset: str, index: str) -> Verdict:
        """Wait for the verdict of a sample."""
        assert self._scorer
        return self._scorer.verdict(self._entries[dataset], index)

    @cached_property
    def _entries(self) -> Mapping[str, PlanEntry]:
        assert self._plan
        return {entry.dataset: entry for entry in self._plan.entries}

    @property
    def plan(self) -> Plan | None:
        """What the session needs of the run, once it has begun."""
        return self._plan
