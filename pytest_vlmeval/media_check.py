"""Before a run: whether its endpoint takes the media of what is to be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from filelock import FileLock

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.models.capability import (
    NAMES,
    REMEDIES,
    Finding,
    needed_for,
    try_media,
)

if TYPE_CHECKING:
    from pytest_vlmeval.board import Board
    from pytest_vlmeval.datasets.prepared import Prompts
    from pytest_vlmeval.models.capability import Capability
    from pytest_vlmeval.models.pooled import Endpoint
    from pytest_vlmeval.queue import Queue
    from pytest_vlmeval.records import Ask, Plan
    from pytest_vlmeval.run_state import RunState

# The datasets that need something of the endpoint.
Needs = Mapping["Capability", Sequence[str]]


def find_needs(
    plan: Plan, board: Board, queue: Queue, prompts_of: Callable[[str], Prompts]
) -> Needs:
    """Return what the samples need that will be sent, by the names of datasets."""
    needs: dict[Capability, list[str]] = {}
    for entry in plan.entries:
        by_need: dict[Capability, list[Ask]] = {}
        for ask in board.missing(entry.fingerprint):
            counts = prompts_of(entry.dataset).count_media(ask.sample)
            for capability in needed_for(*counts):
                by_need.setdefault(capability, []).append(ask)
        for capability, asks in by_need.items():
            if queue.sends_any(entry.fingerprint, asks):
                needs.setdefault(capability, []).append(entry.dataset)
    return needs


class MediaCheck:
    """Tries what is needed and not yet known, once for all processes of a session.

    `announce` is told what could not be found out.
    """

    def __init__(self, state: RunState, announce: Callable[[str], None]) -> None:
        self._settings = state.settings
        self._store = state.store
        self._run_id = state.plan.run_id
        self._session_id = state.session_id
        self._announce = announce

    async def check(self, endpoint: Endpoint, needs: Needs) -> None:
        """Raise `VlmEvalError` where the endpoint refuses what is needed."""
        known = {each.capability: each for each in self._load()}
        if needs.keys() - known.keys():
            known |= await self._find_out(endpoint, needs)
        lacking = [
            known[capability]
            for capability in NAMES
            if capability in needs and known[capability].state == "refused"
        ]
        if lacking:
            text = explain_lack(endpoint.name, lacking, needs)
            if self._settings.media_check == "stop":
                raise VlmEvalError(text)
            self._announce(text)

    async def _find_out(
        self, endpoint: Endpoint, needs: Needs
    ) -> dict[Capability, Finding]:
        folder = self._settings.work_dir
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".media-check.lock"):
            # While this process waited, another one may have found it out.
            known = {each.capability: each for each in self._load()}
            wanted = needs.keys() - known.keys()
            if wanted:
                prompting = self._settings.prompting
                findings = await try_media(endpoint.client, wanted, prompting)
                record = self._store.capabilities.record
                record(self._run_id, self._session_id, findings)
                known |= {each.capability: each for each in findings}
                self._tell_unknown(endpoint.name, findings)
        return known

    def _load(self) -> list[Finding]:
        return self._store.capabilities.load(self._run_id, self._session_id)

    def _tell_unknown(self, name: str, findings: Sequence[Finding]) -> None:
        for finding in findings:
            if finding.state == "unknown":
                self._announce(
                    f"whether {name} takes {NAMES[finding.capability]} could not be "
                    f"found out ({finding.words}); the run goes on."
                )


def explain_lack(name: str, lacking: Sequence[Finding], needs: Needs) -> str:
    """Say what an endpoint refuses, which datasets need it, and what to do."""
    shown = list(lacking)
    if any(finding.capability == "image" for finding in lacking):
        # What takes no picture takes no several ones.
        shown = [finding for finding in lacking if finding.capability != "images"]
    lines = [
        f"    {NAMES[f.capability]}, which {', '.join(needs[f.capability])} "
        f"{'needs' if len(needs[f.capability]) == 1 else 'need'} ({f.words})"
        for f in shown
    ]
    remedies = " ".join(REMEDIES[finding.capability] for finding in shown)
    return "\n".join(
        [
            f"The endpoint {name} answers a prompt of text alone, but refuses:",
            *lines,
            f"{remedies} Give another by --vlm-api-base, leave these datasets out, or "
            "ask all the same by --vlm-media-check=warn.",
        ]
    )
