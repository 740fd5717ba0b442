"""Baselines as syrupy's snapshots: `assert vlm_score == snapshot`."""

from __future__ import annotations

import shlex
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from syrupy.data import SnapshotCollections
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.baseline_file import read_baseline, unusable, write_baseline
from pytest_vlmeval.suite.session import arguments_of

if TYPE_CHECKING:
    from syrupy.assertion import SnapshotAssertion
    from syrupy.location import PyTestLocation
    from syrupy.types import SnapshotIndex

    from pytest_vlmeval.gates.baseline import BaselineGate
    from pytest_vlmeval.records import GateResult


class HeldScore:
    """A score that syrupy holds against its baseline; `result` is what came of it.

    While a baseline is `updating`, only the very same one matches, and `result` says
    what changes if another is overwritten. `command` began the session.
    """

    def __init__(self, gate: BaselineGate, *, updating: bool, command: str) -> None:
        self._gate = gate
        self._command = command
        self._updating = updating
        self.text = write_baseline(gate.current)
        self.result: GateResult | None = None

    def matches(self, text: str) -> bool:
        """Return whether the baseline in `text` does not fail the score."""
        if self._updating:
            # One that cannot be read or compared is overwritten all the same.
            with suppress(VlmEvalError):
                baseline = read_baseline(self._gate.place.own, text)
                if not self._gate.differences(baseline):
                    self.result = self._gate.compare(baseline)
            return text == self.text
        try:
            baseline = read_baseline(self._gate.place.found, text)
        except VlmEvalError as error:
            self.result = self._gate.unreadable(str(error), self._command)
        else:
            self.result = self._gate.compare(baseline)
        return not self.result.fails


class BaselineExtension(SingleFileSnapshotExtension):
    """Keeps each baseline in a file of its own, by model and dataset."""

    _write_mode = WriteMode.TEXT
    file_extension = "json"

    def serialize(self, data: Any, **_: Any) -> str:
        """Return the text of the score's baseline."""
        assert isinstance(data, HeldScore)
        self._comparison = data
        return data.text

    def matches(self, *, serialized_data: Any, snapshot_data: Any) -> bool:
        """Return whether the score passes its baseline."""
        return self._comparison.matches(snapshot_data)

    @classmethod
    def get_file_basename(
        cls, *, test_location: PyTestLocation, index: SnapshotIndex
    ) -> str:
        """Return the name of the assertion: the whole path, without the suffix."""
        return str(index)

    @classmethod
    def matches_test_location(
        cls, *, test_location: PyTestLocation, snapshot_location: str
    ) -> bool:
        """Return whether the test may have this baseline: any that it names."""
        return True

    def discover_snapshots(self, **_: Any) -> SnapshotCollections:
        """Find none, so that what this session does not use is never removed."""
        return SnapshotCollections()


def hold_against(gate: BaselineGate, snapshot: SnapshotAssertion) -> GateResult:
    """Compare a score with its baseline, or make it the baseline where told to.

    `snapshot` is what syrupy's fixture of that name gives.
    """
    config = snapshot.test_location.item.config
    there = gate.place.found.is_file()
    updating = snapshot.update_snapshots or (
        snapshot.update_new_snapshots_only and not there
    )
    if gate.lacking:
        return gate.incomplete(updating=updating)
    command = shlex.join(arguments_of(config))
    if not there and not updating and not gate.is_needed:
        return gate.missing(command)
    comparison = HeldScore(gate, updating=updating, command=command)
    path = gate.place.own if updating else gate.place.found
    name = str(path.with_suffix(""))
    held = snapshot.use_extension(BaselineExtension)(name=name)
    if held == comparison and updating:
        return gate.updated(comparison.result)
    for execution in held.executions.values():
        if isinstance(execution.exception, OSError | UnicodeDecodeError):
            return gate.unreadable(unusable(path, execution.exception))
        if execution.exception is not None:
            raise execution.exception
    return comparison.result or gate.missing(command)
