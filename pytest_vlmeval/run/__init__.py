"""One session's run: its datasets, and from `begin` on its answers and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.datasets.unscored import (
    NO_REFERENCES,
    foresee,
    needs_none,
    why_no_adapter,
)
from pytest_vlmeval.errors import AnswerlessError, VlmEvalError
from pytest_vlmeval.models.server import Servers
from pytest_vlmeval.records import Answer, PlanEntry, Score, Verdict
from pytest_vlmeval.run.own_scoring import OwnScoring, Scorings, make_scoring
from pytest_vlmeval.run.plan import Choice, Need, plan_entry
from pytest_vlmeval.settings import NO_MODEL
from pytest_vlmeval.settings.option import is_table

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.datasets.own_questions import OwnQuestions
    from pytest_vlmeval.datasets.prepare import IndexRow
    from pytest_vlmeval.run.execution import Execution
    from pytest_vlmeval.run.gating import Gatekeeper
    from pytest_vlmeval.run.judge import JudgePanel
    from pytest_vlmeval.run.queue import ProcessShare
    from pytest_vlmeval.run.store import Store
    from pytest_vlmeval.sandbox.calls import Submission
    from pytest_vlmeval.settings import Settings

ONLY_ASKS = (
    "--vlm-mode=infer only asks: there are no scores, and no threshold and no baseline "
    "is checked. --vlm-mode=score does that with the stored answers"
)


class Run:
    """What the tests of a session share.

    Until `begin` only datasets can be asked for; from then on answers and scores.
    `command` is the command line without keys, "" where Python code started it.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        session_id: str,
        share: ProcessShare,
        announce: Callable[[str], None],
        command: str = "",
    ) -> None:
        self.settings = settings
        self.choice = Choice(settings.data, lambda: self.library, settings.data_root)
        self.scorings = Scorings(self._bundled_scoring)
        self._rows: dict[str, Sequence[IndexRow]] = {}
        self._with_references: dict[str, bool] = {}
        self._session_id = session_id
        self._command = command
        self._share = share
        self._announce = announce
        self._servers = Servers(settings, session_id, announce)
        self._execution: Execution | None = None
        self._gating: Gatekeeper | None = None
        self._judge_store: Store | None = None

    @cached_property
    def library(self) -> Library:
        """Every dataset, prepared when first asked for."""
        from pytest_vlmeval.datasets.library import Library

        return Library(self.settings, self._announce)

    def has_references(self, dataset: str) -> bool:
        """Return whether there is anything to compare the answers with."""
        if dataset not in self._with_references:
            info = self.library.prepared(dataset).info
            self._with_references[dataset] = needs_none(info) or any(
                row.reference is not None for row in self.rows(dataset)
            )
        return self._with_references[dataset]

    def why_unscored(self, dataset: str) -> str | None:
        """Explain why a prepared dataset cannot be scored; None if it can."""
        if self.scorings.of(dataset) is not None:
            return None
        why = why_no_adapter(self.library.prepared(dataset).info)
        if why is None and not self.has_references(dataset):
            return NO_REFERENCES
        return why

    def foresee_unscored(self, dataset: str) -> str | None:
        """Explain why a dataset cannot be scored, where that is known before its file.

        None also for one that cannot be had: preparing it says why.
        """
        if self.scorings.of(dataset) is not None:
            return None
        try:
            return foresee(self.library.find(dataset))
        except VlmEvalError:
            return None

    def foresee_unusable(self, dataset: str) -> str | None:
        """Explain that a dataset's table has no column of answers; None if it has one.

        Unlike empty answers that may be a mistake, so no benchmark leaves it out.
        """
        try:
            self.library.find(dataset)
        except AnswerlessError as error:
            return str(error).removesuffix(".")
        except VlmEvalError:
            return None
        return None

    def _bundled_scoring(self, dataset: str) -> OwnScoring | None:
        """Return what the package that adds a dataset scores it by; None for others.

        Raises VlmEvalError for functions that cannot be called.
        """
        try:
            found = self.library.added(dataset)
        except VlmEvalError:
            return None  # Its items say why it cannot be had.
        if found is None or (found.score is None and found.aggregate is None):
            return None
        return make_scoring(
            dataset, found.score, found.aggregate, revision=found.scoring
        )

    def check_names(self) -> None:
        """Raise `VlmEvalError` for a bad name in `--vlm-data`, or one of two files."""
        self.choice.check()
        self.library.check_own()
        self.library.check_classes(self.settings.classes)

    def take(
        self,
        dataset: str,
        columns: Mapping[str, str] | None = None,
        questions: OwnQuestions | None = None,
    ) -> str:
        """Return the name of a dataset that may be given as the place of a table.

        `columns` says what those of a table are for, where a benchmark does, and
        `questions` makes what is asked of its rows.
        """
        if is_table(dataset):
            return self.library.add_own(dataset, columns, questions)
        return dataset

    def rows(self, dataset: str) -> Sequence[IndexRow]:
        """Return what names the samples that may be asked: the chosen subset."""
        if dataset not in self._rows:
            from pytest_vlmeval.datasets.prepare import draw, take_first

            rows = self.library.rows(dataset)
            if self.settings.sample is not None:
                rows = draw(rows, self.settings.sample, self.settings.seed)
            if self.settings.limit is not None:
                rows = take_first(rows, self.settings.limit)
            self._rows[dataset] = rows
        return self._rows[dataset]

    @cached_property
    def judges(self) -> JudgePanel:
        """The judges for tests of the user's own; replies go to the run store."""
        from pytest_vlmeval.run.judge import JudgePanel, create_judges
        from pytest_vlmeval.run.store import Store

        self._judge_store = Store(
            self.settings.work_dir, self.settings.store, self._announce
        )
        concurrency = self._share.concurrency(self.settings.concurrency)
        return JudgePanel(
            create_judges(self.settings, self._judge_store, concurrency, self._servers)
        )

    # Beginning and ending

    def begin(self, needed: Mapping[str, Need], folders: Sequence[Path] = ()) -> None:
        """Open the store, start to ask what has no answer; `VlmEvalError` if it can't.

        `needed` maps the names of prepared datasets to what the items need of them;
        `folders` are those of the benchmarks.
        """
        from pytest_vlmeval.run.execution import Execution
        from pytest_vlmeval.run.gating import Gatekeeper

        if self.settings.model is None:
            raise VlmEvalError(NO_MODEL)
        number, processes = self._share.number, self._share.processes
        # Which copy of a local model this process has.
        local = replace(self.settings.local, replica=number, replicas=processes)
        entries = [self._entry(name, need) for name, need in needed.items()]
        self._execution = execution = Execution(
            replace(self.settings, local=local),
            self.library,
            session_id=self._session_id,
            command=self._command,
            entries=entries,
            share=self._share,
            servers=self._servers,
            announce=self._announce,
            own={
                name: own
                for name in needed
                if (own := self.scorings.of(name)) is not None
            },
        )
        only_asks = self.settings.mode == "infer"
        scored = [
            entry
            for entry in entries
            if needed[entry.dataset].whole and self.why_unscored(entry.dataset) is None
        ]
        expected = [name for name, need in needed.items() if need.expected]
        self._gating = Gatekeeper(
            execution,
            needed={entry.dataset: needed[entry.dataset] for entry in scored},
            expected=[] if only_asks else expected,
            folders=folders,
        )
        lines = execution.unlike
        if not only_asks:
            lines += self._gating.unapplied
        if self.settings.gates.stop_early:
            lines += self._gating.watch_stops(scored)
        if only_asks and any(need.gated or need.compared for need in needed.values()):
            lines.append(ONLY_ASKS)
        for line in lines if number == 0 else ():
            self._announce(line)
        execution.start()

    def _entry(self, dataset: str, need: Need) -> PlanEntry:
        prepared, rows = self.library.prepared(dataset), self.rows(dataset)
        unscored = self.why_unscored(dataset) or ""
        own = self.scorings.of(dataset)
        return plan_entry(
            self.settings, prepared, rows, need, unscored=unscored, own=own
        )

    def abandon(self, reason: str) -> None:
        """Tell who waits for an answer that none will come, and why."""
        if self._execution is not None:
            self._execution.board.fail(VlmEvalError(reason))

    def halt(self) -> None:
        """Ask nothing more, as the session ends; from any thread."""
        execution = self._execution  # Another thread may end it meanwhile.
        if execution is not None:
            execution.halt()
        if self._judge_store is not None:
            self.judges.halt()

    def drain(self) -> None:
        """Wait for the answers that were in flight when it was halted."""
        execution = self._execution
        if execution is not None:
            execution.drain()

    def close(self, *, finish: bool = False) -> None:
        """End everything that runs, or `finish` what is asked; answers stay."""
        if self._execution is not None:
            self._execution.close(finish=finish)
            self._execution = None
        if self._judge_store is not None:
            self.judges.close()
            self._judge_store.close()
        if "library" in self.__dict__:
            self.library.close()

    # What items show

    @property
    def _begun(self) -> Execution:
        if self._execution is None:
            raise RuntimeError("answers and scores are there once tests run")
        return self._execution

    @property
    def gating(self) -> Gatekeeper:
        """The gates of the session's scores."""
        if self._gating is None:
            raise RuntimeError("gates are there once tests run")
        return self._gating

    @property
    def unheld(self) -> Mapping[str, str]:
        """The datasets whose thresholds no test has been held against, and which."""
        return {} if self._gating is None else self._gating.unheld

    @property
    def outage(self) -> str:
        """Explain why nothing more is asked; "" as long as endpoints answer."""
        return self._execution.outage if self._execution is not None else ""

    def answer(self, dataset: str, index: str) -> Answer:
        """Wait for the answer of a sample; `VlmEvalError` if none will come."""
        return self._begun.answer(dataset, index)

    def answers(self, dataset: str, index: str) -> tuple[Answer, ...]:
        """Wait for the answers of a sample, one for each time it is asked."""
        return self._begun.answers(dataset, index)

    def score(self, dataset: str) -> Score:
        """Wait for the score of what was selected of a dataset."""
        return self._begun.score(dataset)

    def submission(self, dataset: str) -> Submission | None:
        """Write the answers to a dataset without references for its server."""
        return self._begun.submission(dataset)

    def scores_by_judge(self, dataset: str) -> tuple[Score, ...]:
        """Return the score of each judge, where there are several."""
        return self._begun.scores_by_judge(dataset)

    def verdict(self, dataset: str, index: str) -> Verdict:
        """Wait for the verdict of a sample."""
        return self._begun.verdict(dataset, index)
