"""Who works on a run: heartbeats, and what becomes of the claims of the dead."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pytest_vlmeval.run.store import Store
from pytest_vlmeval.run.store import database as leases
from pytest_vlmeval.run.store.database import make_owner
from tests.support.store_calls import DATA, claim
from tests.support.store_calls import store as store


def owner_of(pid: int) -> str:
    """Name a process of this machine."""
    machine, _, _ = make_owner().rsplit(":", 2)
    return f"{machine}:{pid}:0"


def dead_owner() -> str:
    """Name a process of this machine that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return owner_of(process.pid)


def test_who_misses_many_beats_of_another_is_dead(store: Store) -> None:
    store.join("gone", "s", "r", 0)
    store.join("slow", "s", "r", 1)
    store.join("me", "s", "r", 2)
    for owner, index in (("gone", "1"), ("slow", "2")):
        claim(store, "s", owner, [index])
    assert store.claim_score("score", "r", DATA, "s", "gone") == "mine"
    mine = leases.Heartbeat(store, "me")
    for number in range(leases.MISSED_BEATS):
        if number % 10 == 0:
            store.beat("slow")
        mine.beat()
    assert claim(store, "s", "me", ["1", "2"]) == []
    mine.beat()
    assert claim(store, "s", "me", ["1", "2"]) == ["1"]
    assert store.claim_score("score", "r", DATA, "s", "me") == "mine"
    states = {each.owner: each.state for each in store.members("s")}
    assert states == {"gone": "dead", "slow": "live", "me": "live"}


def test_who_was_held_up_and_beats_again_is_back(store: Store) -> None:
    store.join("me", "s", "r", 0)
    store.bury(["me"])
    leases.Heartbeat(store, "me").beat()
    assert [each.state for each in store.members("s")] == ["live"]


def test_leases_of_a_dead_process_end_at_once(store: Store) -> None:
    gone, here, there = dead_owner(), make_owner(), f"elsewhere:{os.getpid()}:0"
    for number, owner in enumerate((gone, here, there), 1):
        store.join(owner, "s", "r", number)
        claim(store, "s", owner, [str(number)])
    assert store.claim_score("score", "r", DATA, "s", gone) == "mine"
    store.release_dead()
    assert claim(store, "s", "me", ["1", "2", "3"]) == ["1"]
    assert store.claim_score("score", "r", DATA, "s", "me") == "mine"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_zombie_is_dead(store: Store) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read()  # It has ended, and nobody has asked for its status.
    owner = owner_of(process.pid)
    store.join(owner, "s", "r", 0)
    claim(store, "s", owner, ["1"])
    end = time.monotonic() + 10
    while not claim(store, "s", "me", ["1"]):
        assert time.monotonic() < end
        store.release_dead()
    process.wait()
    process.stdout.close()


def test_heartbeat_keeps_and_then_frees(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.05)
    beaten = threading.Event()
    store.join("me", "s", "r", 0)
    store.join("you", "s", "r", 1)
    claim(store, "s", "me", ["1"])
    heartbeat = leases.Heartbeat(store, "me", beaten.set)
    watching = leases.Heartbeat(store, "you")
    heartbeat.start()
    for _ in range(leases.MISSED_BEATS + 2):
        beaten.clear()
        assert beaten.wait(30)
        watching.beat()
    assert claim(store, "s", "you", ["1"]) == []
    heartbeat.stop()
    assert claim(store, "s", "you", ["1"]) == ["1"]
    assert [each.state for each in store.members("s")] == ["left", "live"]
