"""Who of a session's processes sends how many of its requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pytest_vlmeval.models.limiter import AUTO_CEILING, Concurrency
from pytest_vlmeval.store.leases import Member


class Share(NamedTuple):
    """Which of how many processes of the session this one is."""

    number: int
    processes: int

    def of(self, total: int) -> int:
        """Return this process's part of `total` at the start, at least 1."""
        part, rest = divmod(total, self.processes)
        return max(1, part + (self.number < rest))

    def concurrency(self, wanted: int | None) -> Concurrency:
        """Return this process's part of the requests in flight; None: found out."""
        if wanted is None:
            return Concurrency(self.of(AUTO_CEILING), adaptive=True)
        return Concurrency(self.of(wanted), adaptive=False)


def part_of(total: int, owner: str, members: Sequence[Member], processes: int) -> int:
    """Return how many of `total` requests at once are the part of `owner`.

    `members` are all that ever took part, in the order of their numbers, and
    `processes` as many as the session starts. One that has left gives its part back;
    that of a dead one is kept for the one that xdist starts in its place. The parts
    never sum up to more than `total`, so one may be 0.
    """
    live = [member.owner for member in members if member.state == "live"]
    left = sum(member.state == "left" for member in members)
    count = max(len(live), processes - left)
    if owner not in live:
        return 0
    part, rest = divmod(total, count)
    return part + (_place(owner, members, live, processes) < rest)


def _place(
    owner: str, members: Sequence[Member], live: Sequence[str], processes: int
) -> int:
    """Return a place among the live that no other process gives itself.

    While some have yet to begin it is the process's own number, which no other has.
    """
    if len(members) < processes:
        return next(each.number for each in members if each.owner == owner)
    return live.index(owner)
