"""Leases: what a process holds for as long as it lives, and how its death shows.

No clock is compared with another: a process counts its own beats in the store, and is
dead once it has missed many of those of another. So clocks that jump, and those of
several machines that differ, do no harm; nor does a store that nobody can write to.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.store.database import Database, waits_out_restarts
from pytest_vlmeval.store.schema import claims, processes, scores

BEAT_S = 2.0
# As many beats of one process without any of another: half a minute.
MISSED_BEATS = 15


def make_owner() -> str:
    """Name this process among all that may ever share a store: host, pid, chance."""
    return f"{_machine()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"


def _machine() -> str:
    """Name this machine since its start, of which process ids are valid."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}/{boot.strip()[:8]}/{space}"


def _is_dead(owner: str) -> bool:
    """Whether `owner` was a process of this machine that is gone."""
    machine, pid, _ = owner.rsplit(":", 2)
    if machine != _machine():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _is_zombie(int(pid))


def _is_zombie(pid: int) -> bool:
    """Whether a process has ended and only waits for its parent to notice."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return stat.rpartition(") ")[2].startswith("Z")


class Member(NamedTuple):
    """A process of a session.

    `state` is "live", "left" (by itself), "stopped" (as nothing answers) or "dead".
    """

    owner: str
    number: int
    state: str


@waits_out_restarts
class Leases:
    """The processes that share a store, and what they hold: claims and scorings."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def join(self, owner: str, session_id: str, run_id: str, number: int) -> None:
        """Take part; `number` tells the processes of a session apart."""
        with self._database.transaction() as connection:
            connection.execute(
                sa.insert(processes).values(
                    owner=owner,
                    session_id=session_id,
                    run_id=run_id,
                    number=number,
                    state="live",
                    beats=0,
                    joined_at=time.time(),
                )
            )

    def beat(self, owner: str) -> dict[str, int]:
        """Show that `owner` lives; return the beats of all other live processes."""
        with self._database.transaction() as connection:
            connection.execute(
                sa.update(processes)
                .where(processes.c.owner == owner)
                .values(beats=processes.c.beats + 1, state="live")
            )
            rows = connection.execute(
                sa.select(processes.c.owner, processes.c.beats).where(
                    processes.c.state == "live", processes.c.owner != owner
                )
            )
            return {row.owner: row.beats for row in rows}

    def members(self, session_id: str) -> list[Member]:
        """Return the processes of a session, in the order of their numbers."""
        columns = processes.c.owner, processes.c.number, processes.c.state
        with self._database.transaction(reading=True) as connection:
            rows = connection.execute(
                sa.select(*columns)
                .where(processes.c.session_id == session_id)
                .order_by(processes.c.number, processes.c.owner)
            )
            return [Member(*row) for row in rows]

    def leave(self, owner: str, *, stopped: bool = False) -> None:
        """End every lease of `owner`, so that others may go on at once.

        Or stop, too, where it has `stopped` because nothing answers.
        """
        self._end([owner], "stopped" if stopped else "left")

    def bury(self, owners: Sequence[str]) -> None:
        """End the leases of processes that are gone."""
        self._end(owners, "dead")

    def release_dead(self) -> None:
        """End the leases of processes of this machine that are gone."""
        with self._database.transaction(reading=True) as connection:
            owners = set(
                connection.scalars(
                    sa.select(processes.c.owner).where(processes.c.state == "live")
                )
            )
        dead = [owner for owner in owners if _is_dead(owner)]
        if dead:
            self.bury(dead)

    def _end(self, owners: Sequence[str], state: str) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                sa.update(processes)
                .where(processes.c.owner.in_(owners))
                .values(state=state)
            )
            connection.execute(sa.delete(claims).where(claims.c.owner.in_(owners)))
            connection.execute(
                sa.delete(scores).where(
                    scores.c.owner.in_(owners), scores.c.state == "scoring"
                )
            )


class Heartbeat:
    """Keeps the leases of a process for as long as it lives, and ends those of others.

    `on_beat` is called after each beat, in the heartbeat's thread.
    """

    def __init__(
        self, leases: Leases, owner: str, on_beat: Callable[[], None] = lambda: None
    ) -> None:
        self._leases = leases
        self._owner = owner
        self._on_beat = on_beat
        # Of each other process its beats, and how many of ours found them so.
        self._seen: dict[str, tuple[int, int]] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="vlmeval-heartbeat", daemon=True
        )

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self, *, stopped: bool = False) -> None:
        """Stop, and free what is still held; see `Leases.leave`."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        # A store that cannot be written any more is left to the others to tidy.
        with contextlib.suppress(VlmEvalError):
            self._leases.leave(self._owner, stopped=stopped)

    def _run(self) -> None:
        while not self._stopped.wait(BEAT_S):
            # A store that is full or locked for a while is tried again.
            with contextlib.suppress(VlmEvalError):
                self.beat()
                self._on_beat()

    def beat(self) -> None:
        """Beat once; bury who has missed too many beats."""
        others = self._leases.beat(self._owner)
        self._seen = {
            owner: (beats, self._missed(owner, beats))
            for owner, beats in others.items()
        }
        gone = [owner for owner, (_, n) in self._seen.items() if n >= MISSED_BEATS]
        if gone:
            self._leases.bury(gone)

    def _missed(self, owner: str, beats: int) -> int:
        before, missed = self._seen.get(owner, (beats, -1))
        return missed + 1 if beats == before else 0
