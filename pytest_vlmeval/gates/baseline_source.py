"""From a run's score to what is compared with its baseline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_vlmeval.datasets.catalog import locate_package
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.baseline_file import (
    Baseline,
    BaselinePlace,
    load_baseline,
    place_baseline,
)
from pytest_vlmeval.gates.baseline_record import (
    find_differences,
    lost_samples,
    make_baseline,
)
from pytest_vlmeval.gates.baselines import BaselineGate

if TYPE_CHECKING:
    from pytest_vlmeval.datasets.library import Library
    from pytest_vlmeval.gates.early_stop import Stop
    from pytest_vlmeval.gates.false_discoveries import Adjusted
    from pytest_vlmeval.gates.units import Units
    from pytest_vlmeval.options import Settings
    from pytest_vlmeval.records import PlanEntry, Score, Setting


class Baselines:
    """The baselines of a run's model.

    `generation` are the settings that answers depend on. `compared` names the folders
    in which a score of a dataset is held against one that has to be known ahead: those
    are read at once, so that what a session writes changes nothing for other gates.
    """

    def __init__(
        self,
        settings: Settings,
        library: Library,
        generation: Mapping[str, Setting | None],
        find_units: Callable[[Score], Units | None],
        compared: Mapping[str, Collection[Path]],
    ) -> None:
        self._settings = settings
        self._library = library
        self._generation = generation
        self._find_units = find_units
        self._regressed: dict[Path, frozenset[str]] = {}
        self._kept = {
            (dataset, folder): self._read(dataset, folder)
            for dataset, folders in compared.items()
            for folder in sorted(folders)
        }

    @property
    def model(self) -> str:
        """The model whose baselines these are."""
        return self._settings.model or ""

    def kept(self, dataset: str) -> Mapping[Path, Baseline | None]:
        """Return the baselines that a score is held against, by their folders.

        None where there was none at the beginning, or one that cannot be read: its
        gate says so. Nothing where it is written whatever it was.
        """
        if self._settings.baselines.updating == "all":
            return {}
        return {
            folder: baseline
            for (name, folder), baseline in self._kept.items()
            if name == dataset
        }

    def _read(self, dataset: str, folder: Path) -> Baseline | None:
        path = self._place(dataset, folder).found
        try:
            return load_baseline(path)
        except VlmEvalError:
            return None

    def gate(
        self,
        score: Score,
        folder: Path,
        *,
        lacking: Sequence[str] = (),
        planned: PlanEntry | None = None,
        stop: Stop | None = None,
        adjusted: Adjusted | None = None,
    ) -> BaselineGate:
        """Return the gate of a score among benchmarks in `folder`.

        `lacking` says which answers and verdicts it needs and does not have.
        `planned` names all that was selected where not all of it was asked.
        """
        selected = None if planned is None else frozenset(planned.indexes)
        return BaselineGate(
            score=score,
            lacking=tuple(lacking),
            current=self._describe(score, selected),
            place=self._place(score.dataset, folder),
            settings=self._settings.baselines,
            inconclusive=self._settings.gates.inconclusive,
            find_units=self._find_units,
            selected=selected,
            stop=stop,
            adjusted=adjusted,
        )

    def regressed(self, score: Score, folder: Path) -> frozenset[str]:
        """Return the samples that were right in the baseline and are wrong now.

        None where there is no baseline, or one that cannot be compared with: its gate
        says so. Raises `VlmEvalError` for a baseline that cannot be read.
        """
        path = self._place(score.dataset, folder).found
        if path not in self._regressed:
            self._regressed[path] = frozenset(self._find_regressed(score, path))
        return self._regressed[path]

    def find(self, dataset: str, folder: Path) -> Path | None:
        """Return the file of a dataset's baseline; None if there is none."""
        path = self._place(dataset, folder).found
        return path if path.is_file() else None

    def _place(self, dataset: str, folder: Path) -> BaselinePlace:
        project = self._settings.baselines.project
        return place_baseline(folder, project, self.model, dataset)

    def _find_regressed(self, score: Score, path: Path) -> Sequence[str]:
        if not path.is_file():
            return ()
        baseline = load_baseline(path)
        current = self._describe(score)
        if find_differences(baseline, current):
            return ()
        return lost_samples(baseline, current)

    def _describe(
        self, score: Score, selected: Collection[str] | None = None
    ) -> Baseline:
        library, name = self._library, score.dataset
        python = library.environment.python
        package = locate_package(python, self._settings.cache_dir)
        return make_baseline(
            score,
            model=self.model,
            checksum=library.prepared(name).checksum,
            rows=library.rows(name),
            prompts=library.prompt_texts(name),
            generation=self._generation,
            package_version=package.version,
            plugin_version=version("pytest-vlmeval"),
            selected=selected,
        )
