"""What a session still has to ask: claimed from the store, served from its cache."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pytest_vlmeval.records import Answer, Ask

if TYPE_CHECKING:
    from pytest_vlmeval.run_state import RunState
    from pytest_vlmeval.store.answers import StoredAnswer

# How many answers are looked up in the cache at once.
LOOK_UP = 256

# Gives all that an answer depends on but the model and its settings.
ReadPrompt = Callable[[str, str], str]


class Queue:
    """The asks of a plan that have no answer; every method waits for the store.

    `read_prompt` gives the prompt of a fingerprint and an index as a text that names
    its media by their content, "" where there is none. `identity` is the model and
    its generation parameters: what an answer depends on beside the prompt. Where
    `cached` is false nothing is served from the cache.
    """

    def __init__(
        self,
        state: RunState,
        *,
        read_prompt: ReadPrompt,
        identity: Mapping[str, object],
        cached: bool,
    ) -> None:
        self._plan = plan = state.plan
        self._store = state.store
        self._board = state.board
        self._session_id = state.session_id
        self._owner = state.owner
        self._read_prompt = read_prompt
        self._identity = json.dumps(identity, sort_keys=True).encode()
        self._cached = cached
        self._cache_after = state.store.runs.cache_after(plan.run_id)
        # Of what this process has claimed and not yet recorded.
        self._keys: dict[tuple[str, Ask], str] = {}

    def missing(self) -> Mapping[str, list[Ask]]:
        """Return what has no answer, by fingerprint, in the plan's order.

        Of a dataset that is held nothing may have to be asked now, but maybe later.
        """
        self._board.refresh()
        found = {
            entry.fingerprint: self._board.missing(entry.fingerprint)
            for entry in self._plan.entries
        }
        wanting = self._board.is_wanting
        return {name: asks for name, asks in found.items() if asks or wanting(name)}

    def claim(self, fingerprint: str, asks: Sequence[Ask]) -> list[Ask]:
        """Claim of `asks` what no other process holds; return what is to be sent.

        What the cache has an answer to is recorded with it at once.
        """
        mine = self._store.answers.claim(
            self._plan.run_id, self._session_id, self._owner, fingerprint, asks
        )
        keys = {ask: self._cache_key(fingerprint, ask) for ask in mine}
        self._keys.update({(fingerprint, ask): key for ask, key in keys.items()})
        if not self._cached:
            return mine
        wanted = [key for key in keys.values() if key]
        found = self._store.answers.find_cached(wanted, self._cache_after)
        served = [
            _serve(found[key], fingerprint, ask)
            for ask, key in keys.items()
            if key in found
        ]
        if served:
            self.record(served)
        return [ask for ask in mine if keys[ask] not in found]

    def sends_any(self, fingerprint: str, asks: Sequence[Ask]) -> bool:
        """Whether any of `asks` would be sent, as the cache has no answer to it."""
        if not self._cached:
            return bool(asks)
        for start in range(0, len(asks), LOOK_UP):
            some = asks[start : start + LOOK_UP]
            if len(self.find_cached(fingerprint, some)) < len(some):
                return True
        return False

    def find_cached(
        self, fingerprint: str, asks: Sequence[Ask]
    ) -> Mapping[Ask, StoredAnswer]:
        """Return what the cache would serve of `asks`."""
        keys = {ask: self._cache_key(fingerprint, ask) for ask in asks}
        found = self._store.answers.find_cached(
            [key for key in keys.values() if key], self._cache_after
        )
        return {ask: found[key] for ask, key in keys.items() if key in found}

    def may_serve(self) -> bool:
        """Whether the run has usable answers beyond those that the plan wants."""
        known = sum(self._board.progress().values())
        return self._cached and self._store.answers.count(self._plan.run_id) > known

    def record(self, new: Sequence[Answer]) -> None:
        """Keep answers in the store, and show them to who waits for them."""
        asked = [(each.fingerprint, Ask(each.index, each.repeat)) for each in new]
        keys = {each: self._keys.get(each, "") for each in asked}
        run_id, session_id = self._plan.run_id, self._session_id
        self._board.add(self._store.answers.record(run_id, session_id, new, keys))
        for each in asked:
            self._keys.pop(each, None)

    def release_dead(self) -> None:
        """Free what processes of this machine held that are gone."""
        self._store.leases.release_dead()

    def _cache_key(self, fingerprint: str, ask: Ask) -> str:
        """Name all that an answer depends on, of whatever run and dataset it is."""
        prompt = self._read_prompt(fingerprint, ask.sample)
        if not prompt:
            return ""
        parts = (self._identity, prompt.encode(), str(ask.repeat).encode())
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


def _serve(stored: StoredAnswer, fingerprint: str, ask: Ask) -> Answer:
    return replace(
        stored.answer,
        fingerprint=fingerprint,
        index=ask.sample,
        repeat=ask.repeat,
        from_cache=True,
        asked_in=stored.answer.asked_in or stored.session_id,
        attempts=0,
        latency_ms=0.0,
        prompt_tokens=0,
        completion_tokens=0,
    )
