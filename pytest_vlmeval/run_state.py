"""What the parts of a run that has begun have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vlmeval.board import Board
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.records import Plan
    from pytest_vlmeval.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """One session's part in a run, in this process.

    `plan` is what the session, `session_id`, needs of the run, `board` what is known
    here of the answers in the `store`, where `owner` names this process.
    """

    settings: Settings
    library: Library
    store: Store
    board: Board
    plan: Plan
    session_id: str
    owner: str
