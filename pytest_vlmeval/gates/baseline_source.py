"""From a run's score to what is compared with its baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.gates.baseline_file import (
    Baseline,
    BaselinePlace,
    place_baseline,
    read_baseline,
)
from pytest_vlmeval.gates.baseline_record import (
    find_differences,
    lost_samples,
    make_baseline,
)
from pytest_vlmeval.gates.baselines import BaselineGate

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.gates.units import Units
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.records import Score, Setting


class Baselines:
    """The baselines of a run's model.

    `generation` are the settings that answers depend on.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        generation: Mapping[str, Setting | None],
        find_units: Callable[[Score], Units | None],
    ) -> None:
        self._settings = settings
        self._library = library
        self._generation = generation
        self._find_units = find_units
        self._regressed: dict[Path, frozenset[str]] = {}

    @property
    def model(self) -> str:
        """The model whose baselines these are."""
        return self._settings.model or ""

    def gate(self, score: Score, folder: Path, *, complete: bool) -> BaselineGate:
        """Return the gate of a score among benchmarks in `folder`.

        `complete` says whether it has the answers and verdicts that it needs.
        """
        return BaselineGate(
            score=score,
            complete=complete,
            current=self._describe(score),
            place=self._place(score, folder),
            settings=self._settings.baselines,
            inconclusive=self._settings.gates.inconclusive,
            find_units=self._find_units,
        )

    def regressed(self, score: Score, folder: Path) -> frozenset[str]:
        """Return the samples that were right in the baseline and are wrong now.

        None where there is no baseline, or one that cannot be compared with: its gate
        says so. Raises `VlmEvalError` for a baseline that cannot be read.
        """
        path = self._place(score, folder).found
        if path not in self._regressed:
            self._regressed[path] = frozenset(self._find_regressed(score, path))
        return self._regressed[path]

    def _place(self, score: Score, folder: Path) -> BaselinePlace:
        project = self._settings.baselines.project
        return place_baseline(folder, project, self.model, score.dataset)

    def _find_regressed(self, score: Score, path: Path) -> Sequence[str]:
        if not path.is_file():
            return ()
        baseline = read_baseline(path, path.read_text(encoding="utf-8"))
        current = self._describe(score)
        if find_differences(baseline, current):
            return ()
        return lost_samples(baseline, current)

    def _describe(self, score: Score) -> Baseline:
        library, name = self._library, score.dataset
        python = library.environment.python
        package = locate_package(python, self._settings.cache_dir)
        return make_baseline(
            score,
            model=self.model,
            checksum=library.prepared(name).checksum,
            rows=library.rows(name),
            read_prompt=library.prompts(name).text,
            generation=self._generation,
            package_version=package.version,
            plugin_version=version("pytest-vlmeval"),
        )
