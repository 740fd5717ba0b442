"""The work in progress in the sandbox: what the mends read instead of the outside."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_vlmeval.records import Scoring
    from pytest_vlmeval.sandbox.inside.hubs import HubShelf
    from pytest_vlmeval.sandbox.inside.pictures import PictureStore

    Progress = Callable[[int, int], None]

EXACT = "exact_matching"
JUDGED = "judge"
NO_REPLY = "Failed to obtain answer via API."


class ContainedError(RuntimeError):
    """Something in the process tried what the sandbox does not allow."""


class Judge(Protocol):
    """What ms-vlmeval asks to read an answer."""

    def working(self) -> bool: ...

    def generate(self, prompt: object, **settings: object) -> str: ...


class MuteJudge:
    """The judge of a run without one: never has a reply, and says so at once.

    ms-vlmeval then falls back on what exact matching found, without a network call
    and, as its own retries do not wait, without delay.
    """

    def working(self) -> bool:
        """Claim to work; some datasets refuse to score otherwise."""
        return True

    def generate(self, prompt: object, **settings: object) -> str:
        """Give the reply by which ms-vlmeval knows a failed request."""
        return NO_REPLY


@dataclass(slots=True, kw_only=True)
class Job:
    """One call's data: the dataset's rows, a fresh folder, the tables dumped so far.

    `url` is where the rows are published. `scoring` says whether verdicts that
    ms-vlmeval publishes wrongly are corrected, `shelf` which repositories of hubs a
    video dataset may read.
    """

    rows: pd.DataFrame
    folder: Path
    on_progress: Progress
    url: str = ""
    pictures: PictureStore | None = None
    shelf: HubShelf | None = None
    judge: Judge = field(default_factory=MuteJudge)
    scoring: Scoring = "published"
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)

    @property
    def method(self) -> str:
        """What ms-vlmeval is told of the judge; its files have it in their names."""
        return EXACT if isinstance(self.judge, MuteJudge) else JUDGED

    def add_table(self, name: str) -> None:
        """Let ms-vlmeval find the rows where it keeps a dataset's file."""
        path = self.folder / name
        path.touch()
        self.tables[str(path)] = self.rows

    def dump_table(self, table: pd.DataFrame, path: str) -> None:
        """Keep a table as a file would, without losing a value."""
        table = table.reset_index(drop=True)
        for name in table.columns:
            if table[name].dtype == object:
                table[name] = [_as_cell(value) for value in table[name]]
        self.tables[path] = table
        # ms-vlmeval asks whether its files are there.
        if Path(path).is_relative_to(self.folder):
            Path(path).touch()


_running: list[Job] = []


@contextmanager
def running(job: Job) -> Iterator[None]:
    """Make `job` the current one."""
    _running.append(job)
    try:
        yield
    finally:
        _running.pop()


def current_job() -> Job:
    """Give the job of the call that is being served."""
    return _running[-1]


def _as_cell(value: Any) -> Any:
    """Give what comes back for a value written to a table cell."""
    if value is None:
        return float("nan")
    if isinstance(value, list | tuple | dict | set):
        return str(value)
    return value
