"""Leases: what a process holds, and how it is freed when the process is gone."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.store.database import Database
from pytest_vlmeval.store.schema import claims, scores

LEASE_S = 30.0


def make_owner() -> str:
    """Name this process among all that may share a store: host, pid, start."""
    return f"{socket.gethostname()}:{os.getpid()}:{time.time_ns():x}"


def _is_dead(owner: str) -> bool:
    """Whether `owner` was a process of this machine that is gone."""
    host, pid, _ = owner.rsplit(":", 2)
    if host != socket.gethostname():
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


class Leases:
    """The leases on claims and on scores being computed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def renew(self, owner: str) -> None:
        """Prolong every lease of `owner`."""
        until = time.time() + LEASE_S
        with self._database.transaction() as connection:
            for table in (claims, scores):
                connection.execute(
                    sa.update(table)
                    .where(table.c.owner == owner)
                    .values(lease_until=until)
                )

    def release(self, owner: str) -> None:
        """End every lease of `owner`, so that others may go on at once."""
        self._end_leases([owner])

    def release_dead(self) -> None:
        """End the leases of processes of this machine that are gone."""
        with self._database.transaction(reading=True) as connection:
            owners = set(connection.scalars(sa.select(claims.c.owner).distinct()))
            owners |= set(
                connection.scalars(
                    sa.select(scores.c.owner).where(scores.c.state == "scoring")
                )
            )
        dead = [owner for owner in owners if _is_dead(owner)]
        if dead:
            self._end_leases(dead)

    def _end_leases(self, owners: Sequence[str]) -> None:
        with self._database.transaction() as connection:
            connection.execute(sa.delete(claims).where(claims.c.owner.in_(owners)))
            connection.execute(
                sa.delete(scores).where(
                    scores.c.owner.in_(owners), scores.c.state == "scoring"
                )
            )


class Heartbeat:
    """Prolongs the leases of an owner for as long as its process lives."""

    def __init__(self, leases: Leases, owner: str) -> None:
        self._leases = leases
        self._owner = owner
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._beat, name="vlmeval-heartbeat", daemon=True
        )

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    def stop(self) -> None:
        """Stop, and free what is still held."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()
        # A store that cannot be written any more frees its leases by their end.
        with contextlib.suppress(VlmEvalError):
            self._leases.release(self._owner)

    def _beat(self) -> None:
        while not self._stopped.wait(LEASE_S / 3):
            # A store that is full or locked for a while is tried again.
            with contextlib.suppress(VlmEvalError):
                self._leases.renew(self._owner)
